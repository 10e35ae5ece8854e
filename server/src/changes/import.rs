//! What older installs have becomes part of the fleet: one change for all of it, or none.
//!
//! In: what was read of their files. Out: steps, each with what becomes of one thing; those of a plan are those of the change.
//! Always: what is there stays as it is, so that a second run changes nothing; what is left out has a way out.
//! Never: takes a node, an address or a source away, or asks a host.

mod instance;
mod merge;
mod proxies;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::{ChangeError, Changes, Draft, Note};
use crate::audit::Actor;
use crate::import::FoundInstance;
use crate::pve::certificate::Fingerprint;
use merge::{Merged, merge};

/// What is to be taken over.
#[derive(Clone, Default, Debug)]
pub struct Import {
    /// The name of the instance of what names none.
    pub instance: Option<String>,
    /// The host of the control token that names none.
    pub host: Option<String>,
    /// Certificates to trust, for the sources of which nobody knows whom.
    pub fingerprints: Vec<Fingerprint>,
    /// How often Proxmox VE is asked from now on.
    pub poll_interval: Duration,
    /// What was read.
    pub instances: Vec<FoundInstance>,
}

/// What becomes of one thing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImportStep {
    /// What becomes of it.
    pub outcome: ImportOutcome,
    /// `instance`, `node`, `address`, `source` or `proxy`.
    pub what: &'static str,
    /// The instance's name; `None`: it is not known.
    pub instance: Option<String>,
    /// The thing, for people; and where it is left out, why.
    pub text: String,
}

/// What becomes of one thing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ImportOutcome {
    /// It is added.
    Add,
    /// It is there already.
    There,
    /// It is left out.
    LeftOut {
        /// What to do.
        way_out: String,
    },
}

impl Changes {
    /// Says what [`Changes::import`] would do now, and changes nothing.
    ///
    /// # Errors
    /// Those of [`Changes::import`], but for the commit's own.
    pub async fn plan_import(&self, import: &Import) -> Result<Vec<ImportStep>, ChangeError> {
        let publisher = self.publisher.lock().await;
        let before = self.catalog();
        let mut draft = Draft::new(&before, self.clock.now());
        let (steps, _) = self.decide_import(&mut draft, import)?;
        if !draft.is_empty() {
            // A list that would be too long is one in the plan already.
            draft.lists(&publisher, &self.lists, self.max_nodes)?;
        }
        Ok(steps)
    }

    /// Takes over what older installs have.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] for the name of an instance, or if a list becomes too long; [`ChangeError::Store`].
    pub async fn import(&self, actor: &Actor, import: &Import) -> Result<Vec<ImportStep>, ChangeError> {
        self.apply(actor, |draft| self.decide_import(draft, import)).await
    }

    fn decide_import(
        &self,
        draft: &mut Draft<'_>,
        import: &Import,
    ) -> Result<(Vec<ImportStep>, Note), ChangeError> {
        let mut report = Report::default();
        let Merged { instances, tokens } = merge(import, &mut report);
        for wanted in &instances {
            instance::take(self, draft, wanted, &tokens, import, &mut report)?;
        }
        for token in &tokens {
            proxies::take(draft, token, &mut report);
        }
        let files: Vec<&str> = import.instances.iter().map(|found| found.source.as_str()).collect();
        let note = report.note(&files);
        Ok((report.steps, note))
    }
}

/// What is said of an import, and what the audit log has of it.
#[derive(Default)]
struct Report {
    steps: Vec<ImportStep>,
    /// How much was added, by kind and instance.
    added: BTreeMap<&'static str, BTreeMap<String, usize>>,
}

impl Report {
    /// Something is added.
    fn add(&mut self, what: &'static str, instance: &str, text: String) {
        *self.added.entry(what).or_default().entry(instance.to_owned()).or_default() += 1;
        self.say(ImportOutcome::Add, what, Some(instance), text);
    }

    /// Something is there already.
    fn there(&mut self, what: &'static str, instance: Option<&str>, text: String) {
        self.say(ImportOutcome::There, what, instance, text);
    }

    /// Something is left out, and `text` says why.
    fn left_out(
        &mut self,
        what: &'static str,
        instance: Option<&str>,
        text: String,
        way_out: impl Into<String>,
    ) {
        self.say(ImportOutcome::LeftOut { way_out: way_out.into() }, what, instance, text);
    }

    fn say(&mut self, outcome: ImportOutcome, what: &'static str, instance: Option<&str>, text: String) {
        self.steps.push(ImportStep { outcome, what, instance: instance.map(str::to_owned), text });
    }

    fn note(&self, files: &[&str]) -> Note {
        let is_left_out = |step: &&ImportStep| matches!(step.outcome, ImportOutcome::LeftOut { .. });
        let left_out = self.steps.iter().filter(is_left_out).count();
        let detail = json!({ "files": files, "added": self.added, "left_out": left_out });
        Note { action: "import", target: "fleet".to_owned(), detail }
    }
}

/// Names that differ in case at most are one.
fn is_same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// `1 node`, `2 nodes`.
fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("{number} {thing}") } else { format!("{number} {thing}s") }
}
