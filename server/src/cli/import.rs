//! `pulse import`: the files are read here, where they are; the server says what it would do, and does it.
//!
//! Always: what would be done is shown before it is; what could not be read is named. Never: writes to what it reads, or shows a secret.

use http::Method;
use pulse_config::show_bytes;
use pulse_proto::hex;
use serde_json::json;

use super::failure::Failure;
use super::text::{clean, count};
use super::{Asking, ask, print, text, typed};
use crate::api::{self, ImportOutcome, ImportPlan, ImportStep, MAX_REQUEST_BYTES};
use crate::args::Import;
use crate::import::{Findings, FoundInstance, FoundPve, read_file, read_pulse_data};

pub(super) async fn run(asking: &Asking, import: &Import) -> Result<(), Failure> {
    let findings = read(import);
    let unread: Vec<String> = findings.unread.iter().map(|unread| format!("not read: {unread}")).collect();
    let remarks: Vec<String> =
        unread.iter().cloned().chain(findings.notes.iter().map(|note| format!("note: {note}"))).collect();
    if findings.instances.is_empty() && !unread.is_empty() {
        let text = format!("nothing was imported\n{}", remarks.join("\n"));
        return Err(Failure::local("NOTHING_READ", text));
    }
    if !asking.json {
        remarks.iter().for_each(|remark| eprintln!("{}", clean(remark)));
    }
    let mut request = request(import, &findings)?;
    request.dry_run = true;
    let plan = ask_server(asking, &request).await?;
    let adds = number(&plan, ImportOutcome::Add);
    // That an instance is there says nothing of what was to be added to it.
    let is_there = |step: &ImportStep| step.outcome == ImportOutcome::There && step.what != "instance";
    if adds == 0 && number(&plan, ImportOutcome::LeftOut) > 0 && !plan.steps.iter().any(is_there) {
        let text = format!("nothing was imported\n{}", lines(&plan));
        return Err(Failure::local("NOTHING_IMPORTED", text));
    }
    let mut done = None;
    if !import.dry_run && adds > 0 {
        if !import.yes {
            ask::confirm(&lines(&plan), &format!("Add {}?", count(adds, "thing")))?;
        }
        request.dry_run = false;
        done = Some(ask_server(asking, &request).await?);
    }
    if asking.json {
        let unread: Vec<_> = findings
            .unread
            .iter()
            .map(|unread| json!({ "place": unread.place, "what": unread.what, "way_out": unread.way_out }))
            .collect();
        let all = json!({ "plan": plan, "result": done, "unread": unread, "notes": findings.notes });
        return print(&text::json(&all));
    }
    // Who was asked has seen it, unless something came between.
    let is_shown = |done: &ImportPlan| !import.yes && done.steps == plan.steps;
    let shown = match &done {
        Some(done) if is_shown(done) => String::new(),
        Some(done) => lines(done),
        None => lines(&plan),
    };
    print(&format!("{shown}{}\n", summary(done.as_ref().unwrap_or(&plan), unread.len())))
}

/// Reads all that was given.
fn read(import: &Import) -> Findings {
    let mut all = Findings::default();
    let folder = import.pulse_data.iter().map(|folder| read_pulse_data(folder));
    // A server knows names and addresses together, which lists do not: it goes first.
    for findings in folder.chain(import.files.iter().map(|file| read_file(file))) {
        all.instances.extend(findings.instances);
        all.unread.extend(findings.unread);
        all.notes.extend(findings.notes);
    }
    all
}

fn request(import: &Import, findings: &Findings) -> Result<api::Import, Failure> {
    let request = api::Import {
        dry_run: false,
        instance: import.instance.clone(),
        host: import.host.clone(),
        fingerprints: import.fingerprints.clone(),
        instances: findings.instances.iter().map(instance).collect(),
    };
    let bytes = serde_json::to_vec(&request).map_or(0, |body| body.len());
    if bytes > MAX_REQUEST_BYTES {
        let (bytes, most) = (bytes as u64, MAX_REQUEST_BYTES as u64);
        let text = format!(
            "what was read has {}, and the server takes at most {} at a time: import fewer files at a time; nothing was changed",
            show_bytes(bytes),
            show_bytes(most)
        );
        return Err(Failure::usage("TOO_LARGE", text));
    }
    Ok(request)
}

fn instance(found: &FoundInstance) -> api::ImportInstance {
    let overrides = found.address_overrides.iter();
    let overrides = overrides.map(|(name, ip)| api::Node { name: name.clone(), ip: ip.clone() });
    let proxies = found.proxies.iter().map(|proxy| api::ImportProxy {
        hostname: proxy.hostname.clone(),
        proxy_url: proxy.proxy_url.clone(),
        token_digest: proxy.token_digest.map(|digest| hex::encode(digest.as_bytes())),
    });
    api::ImportInstance {
        source: found.source.clone(),
        name: found.name.clone(),
        nodes: found.nodes.iter().map(api::Node::from).collect(),
        address_overrides: overrides.collect(),
        pve: found.pve.as_ref().map(pve),
        proxies: proxies.collect(),
    }
}

fn pve(found: &FoundPve) -> api::ImportPve {
    api::ImportPve {
        urls: found.urls.iter().map(ToString::to_string).collect(),
        token_id: found.token.id().to_owned(),
        token_secret: found.token.secret().to_owned(),
        fingerprints: found.fingerprints.iter().map(ToString::to_string).collect(),
        has_trust_from_system: found.has_trust_from_system,
    }
}

async fn ask_server(asking: &Asking, request: &api::Import) -> Result<ImportPlan, Failure> {
    typed(asking.client.call(Method::POST, "/import", request).await?)
}

fn number(plan: &ImportPlan, outcome: ImportOutcome) -> usize {
    plan.steps.iter().filter(|step| step.outcome == outcome).count()
}

/// What becomes of each thing, a line for each.
fn lines(plan: &ImportPlan) -> String {
    let line = |step: &ImportStep| {
        let outcome = match step.outcome {
            ImportOutcome::Add if plan.is_done => "added",
            outcome => outcome.as_str(),
        };
        let way_out = step.way_out.as_ref().map(|way_out| format!("; {way_out}")).unwrap_or_default();
        format!("{outcome:8}  {}\n", clean(&format!("{}{way_out}", step.text)))
    };
    plan.steps.iter().map(line).collect()
}

fn summary(plan: &ImportPlan, unread: usize) -> String {
    let [adds, there, left_out] = [ImportOutcome::Add, ImportOutcome::There, ImportOutcome::LeftOut]
        .map(|outcome| number(plan, outcome));
    let begin = match (plan.is_done, adds) {
        (_, 0) if plan.steps.is_empty() => "nothing to import was found".to_owned(),
        (_, 0) => "nothing to do: all that can be taken is there".to_owned(),
        (true, _) => format!("added {}, {there} were there", count(adds, "thing")),
        (false, _) => {
            format!("nothing was changed: {} would be added, {there} are there", count(adds, "thing"))
        }
    };
    match left_out + unread {
        0 => begin,
        missing => format!("{begin}; {} left out or not read, as said above", count(missing, "thing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(outcome: ImportOutcome, text: &str, way_out: Option<&str>) -> ImportStep {
        let way_out = way_out.map(str::to_owned);
        ImportStep { outcome, what: "node".to_owned(), instance: None, text: text.to_owned(), way_out }
    }

    #[test]
    fn each_thing_is_a_line_that_says_what_becomes_of_it_and_paints_no_terminal() {
        let steps = vec![
            step(ImportOutcome::Add, "node a of home", None),
            step(ImportOutcome::There, "node b of home", None),
            step(ImportOutcome::LeftOut, "node \u{1b}[2J: no", Some("do that")),
        ];
        let mut plan = ImportPlan { is_done: false, revision: 3, steps };
        assert_eq!(
            lines(&plan),
            "add       node a of home\nis there  node b of home\nleft out  node \\u{1b}[2J: no; do that\n"
        );
        let said = summary(&plan, 1);
        assert!(said.starts_with("nothing was changed: 1 thing would be added"), "{said}");
        assert!(said.ends_with("2 things left out or not read, as said above"), "{said}");
        plan.is_done = true;
        assert!(lines(&plan).starts_with("added     node a") && summary(&plan, 0).contains("added 1 thing"));
    }

    #[test]
    fn debug_of_what_is_sent_does_not_show_the_secret_of_an_api_token() {
        let sent = api::ImportPve {
            urls: Vec::new(),
            token_id: "a@pve!b".to_owned(),
            token_secret: "hidden".to_owned(),
            fingerprints: Vec::new(),
            has_trust_from_system: true,
        };
        assert!(!format!("{sent:?}").contains("hidden"));
    }
}
