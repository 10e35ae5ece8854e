//! The way of readings: collector, buffer and server, joined.
//!
//! In: the gate, and how this proxy stands with its server ([`Contact`]). Out: reports on their way to that server.
//! Always: one collector and one reporter for one server and one name of this host; when either changes they end, what
//! waits is written where it belongs, and a new pair begins. Never: sends one server's reports to another.

use std::collections::HashSet;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use crate::collect::{self, Collector};
use crate::gate::Gate;
use crate::link::Link;
use crate::register::host;
use crate::report;
use crate::seams::Seams;
use crate::shutdown::{Drain, drain};
use crate::sync::Contact;
use crate::this_host::LocalHost;

/// What a pair of collector and reporter needs.
pub(crate) struct Readings {
    pub(crate) interval: Duration,
    pub(crate) sysfs_root: PathBuf,
    /// What the configuration says; it goes before the name given at registration.
    pub(crate) this_node: Option<String>,
    pub(crate) gate: Gate,
    pub(crate) link: Link,
    pub(crate) seams: Seams,
}

impl Readings {
    /// Collects and reports until the drain begins. Waits while the server is not known, since there is nobody to report
    /// to and no folder for the buffer, and while it has no list for this proxy, since it would refuse every reading.
    pub(crate) async fn run(self, mut contact_rx: watch::Receiver<Contact>, drained: Drain) {
        while !drained.has_begun() {
            let contact = tokio::select! {
                biased;
                known = contact_rx.wait_for(|contact| contact.folder.is_some() && !contact.is_waiting) => match known {
                    Ok(contact) => contact.clone(),
                    // The sync loop is gone, and with it the program.
                    Err(_) => return,
                },
                () = drained.clone().begun() => return,
            };
            if let Some(folder) = &contact.folder {
                self.pair(&contact, folder, &contact_rx, &drained).await;
            }
        }
    }

    /// One pair, until the drain begins, the server or this host's name is another one, or the server says `waiting`.
    async fn pair(
        &self,
        contact: &Contact,
        folder: &Path,
        contact_rx: &watch::Receiver<Contact>,
        drained: &Drain,
    ) {
        let (reports, reporter) = report::reports(folder, &self.seams);
        let collector = Collector::new(
            self.gate.clone(),
            self.local_host(contact),
            self.interval,
            collect::reader(&self.sysfs_root),
            &self.seams,
        );
        let (collected, no_more_rounds) = drain();
        let call = |request| {
            let (link, mut client) = (self.link.clone(), self.link.client());
            async move {
                let answer = client.report_temperatures(request).await?;
                link.note_answer();
                Ok(answer.into_inner())
            }
        };
        let mut moves_rx = contact_rx.clone();
        let moved = async {
            let is_other = |now: &Contact| {
                now.folder != contact.folder || now.hostname != contact.hostname || now.is_waiting
            };
            match moves_rx.wait_for(is_other).await.map(|now| now.is_waiting) {
                Ok(true) => tracing::info!("nothing is collected until the server has a list for this proxy"),
                Ok(false) => tracing::info!(
                    "this proxy is registered anew: readings are collected for that from now on"
                ),
                // The program ends, and the drain says when.
                Err(_) => pending().await,
            }
        };
        let over = async {
            tokio::select! {
                biased;
                () = drained.clone().begun() => {}
                () = moved => {}
            }
        };
        let collecting = async {
            collector.run(|round| reports.push(&round), over).await;
            // The reporter writes what is left only after the last round.
            collected.begin();
        };
        let mut contact_rx = contact_rx.clone();
        let following = async {
            loop {
                let is_revoked = contact_rx.borrow_and_update().is_revoked;
                match is_revoked {
                    true => reports.clear(),
                    false => reports.stream_is_back(),
                }
                if contact_rx.changed().await.is_err() {
                    pending::<()>().await;
                }
            }
        };
        let delivering = async {
            tokio::select! {
                // First, so that another server's word never empties this one's buffer.
                biased;
                () = reporter.run(call, no_more_rounds.begun()) => {}
                () = following => {}
            }
        };
        tokio::join!(collecting, delivering);
    }

    /// What this host knows of itself: the name and the node that the registration gave it, if it did.
    fn local_host(&self, contact: &Contact) -> LocalHost {
        let registered = contact.hostname.as_ref();
        let given = registered.filter(|hostname| hostname.is_given).map(|hostname| hostname.name.clone());
        let hostname = match registered {
            Some(hostname) => hostname.name.clone(),
            None => host::hostname().unwrap_or_default(),
        };
        LocalHost { hostname, this_node: self.this_node.clone().or(given), addresses: HashSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use pulse_proto::{Node, Token, TokenKind};

    use super::*;
    use crate::gate::{InForce, gate};
    use crate::identity::Hostname;
    use crate::seams::Network;
    use crate::testing::{FakePulse, in_time};
    use crate::tls::{Trust, client_config};

    #[tokio::test]
    async fn nothing_is_reported_while_the_server_has_no_list_for_this_proxy() {
        let pulse = FakePulse::start().await;
        let tls = client_config(&Trust::Pinned(vec![pulse.authority.pin])).unwrap();
        let link = Link::new(pulse.url(), tls, Network::System);
        link.use_token(Some(&Token::generate(TokenKind::Ctrl).unwrap()));
        let state = tempfile::tempdir().unwrap();
        let (_writer, gate) =
            gate(InForce::Static { nodes: vec![Node::new("delly", "").unwrap()], networks: 0 });
        let contact =
            |is_waiting| Contact { folder: Some(state.path().to_owned()), is_waiting, ..Contact::default() };
        let (contact_tx, contact_rx) = watch::channel(contact(true));
        let (trigger, drained) = drain();
        let readings = Readings {
            interval: Duration::from_millis(5),
            sysfs_root: state.path().join("sys"),
            this_node: None,
            gate,
            link,
            seams: Seams::system(),
        };
        let task = tokio::task::spawn(readings.run(contact_rx, drained));
        // Long enough for many rounds, and short of what a slow machine needs for one.
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(pulse.temperatures_asked_so_far(), 0);
        contact_tx.send_replace(contact(false));
        in_time(pulse.temperatures_asked(1)).await;
        // What was not taken waits on the disk meanwhile.
        contact_tx.send_replace(contact(true));
        in_time(async {
            while !state.path().join(report::FILE_NAME).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let asked = pulse.temperatures_asked_so_far();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(pulse.temperatures_asked_so_far(), asked);
        trigger.begin();
        in_time(task).await.unwrap();
    }

    /// A proxy in its second registration: the server does not take reports, so all of them wait.
    #[tokio::test]
    async fn readings_of_one_server_wait_in_its_folder_and_never_go_to_the_next() {
        let pulse = FakePulse::start().await;
        let tls = client_config(&Trust::Pinned(vec![pulse.authority.pin])).unwrap();
        let link = Link::new(pulse.url(), tls, Network::System);
        link.use_token(Some(&Token::generate(TokenKind::Ctrl).unwrap()));
        let state = tempfile::tempdir().unwrap();
        let chip = state.path().join("sys/class/hwmon/hwmon0");
        fs::create_dir_all(&chip).unwrap();
        for (name, value) in [("name", "coretemp"), ("temp1_input", "45000")] {
            fs::write(chip.join(name), value).unwrap();
        }
        let folders = ["one", "two"].map(|name| state.path().join(name));
        folders.iter().for_each(|folder| fs::create_dir(folder).unwrap());
        let nodes = ["first", "second"].map(|name| Node::new(name, "").unwrap()).to_vec();
        let (_writer, gate) = gate(InForce::Static { nodes, networks: 0 });
        let contact = |at: usize, name: &str| Contact {
            folder: Some(folders[at].clone()),
            hostname: Some(Hostname { name: name.into(), is_given: true }),
            ..Contact::default()
        };
        let (contact_tx, contact_rx) = watch::channel(contact(0, "first"));
        let (trigger, drained) = drain();
        let readings = Readings {
            interval: Duration::from_millis(20),
            sysfs_root: state.path().join("sys"),
            this_node: None,
            gate,
            link,
            seams: Seams::system(),
        };
        let task = tokio::task::spawn(readings.run(contact_rx, drained));
        in_time(pulse.temperatures_asked(1)).await;
        contact_tx.send_replace(contact(1, "second"));
        // The second pair reports too.
        let asked = pulse.temperatures_asked_so_far();
        in_time(pulse.temperatures_asked(asked + 1)).await;
        in_time(async {
            while !folders[0].join(report::FILE_NAME).exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        trigger.begin();
        in_time(task).await.unwrap();
        let read_nodes = |at: usize| {
            let text = fs::read(folders[at].join(report::FILE_NAME)).unwrap();
            let text = String::from_utf8_lossy(&text).into_owned();
            (text.contains("first is not this host"), text.contains("second is not this host"))
        };
        // Each has the reason for the node that this host was not, and so its own reports alone.
        assert_eq!((read_nodes(0), read_nodes(1)), ((false, true), (true, false)));
    }
}
