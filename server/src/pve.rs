//! Proxmox VE as the source of nodes: what it says of a cluster's members, and what of that can be trusted.
//!
//! In: answers of a Proxmox VE host. Out: the nodes of an instance, or a [`Doubt`] and what a person can do about it.
//! Always: doubt changes no list. Never: opens `/etc/pve` or asks `pvecm`.

pub mod address;
pub mod answers;
pub mod certificate;
pub mod client;
pub mod poll;

/// Why an answer changes nothing. Each says what is wrong and what to do, for people.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Doubt {
    /// It answers, and is none of Proxmox VE.
    #[error("{0}: does the URL name a Proxmox VE host, with its port (8006)?")]
    NotProxmox(String),
    /// An answer cannot be read.
    #[error("the answer to {path} cannot be read: {why}")]
    Garbage {
        /// What was asked.
        path: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// An answer is empty.
    #[error(
        "the answer to {path} is empty: the API token may lack the privilege Sys.Audit on /; `pulse instance add --help` has the commands \
         that give it"
    )]
    Empty {
        /// What was asked.
        path: &'static str,
    },
    /// An answer does not tell of all.
    #[error(
        "the answer to {path} is not whole: the cluster has {expected} nodes, and it tells of {found}; it is asked again"
    )]
    Half {
        /// What was asked.
        path: &'static str,
        /// How many there are.
        expected: u64,
        /// How many it tells of.
        found: usize,
    },
    /// The cluster has no quorum.
    #[error(
        "the cluster has no quorum, so what it says of its members cannot be trusted: see `pvecm status` on a node"
    )]
    NoQuorum,
    /// Two members have one name.
    #[error("the cluster tells of two nodes with the name {name}: rename one of them")]
    Doubled {
        /// The name.
        name: String,
    },
    /// A member has a name or an address that no node can have.
    #[error("{what}")]
    Unfit {
        /// Which, and the rule.
        what: String,
    },
    /// The host refused.
    #[error("{0}")]
    Refused(String),
    /// The host cannot be asked.
    #[error("{host} cannot be asked: {why}")]
    Unreachable {
        /// Which.
        host: String,
        /// Why.
        why: String,
    },
    /// The host's certificate is not trusted.
    #[error("{text}")]
    Certificate {
        /// Why, and what to do.
        text: String,
        /// What it showed.
        shown: Option<certificate::Fingerprint>,
    },
}

/// What an answer with this status and reason means; `None`: it is good. `node` is who was asked, for people.
#[must_use]
pub fn refusal(status: u16, said: &str, node: &str) -> Option<Doubt> {
    let said = &printable(said);
    let text = match status {
        200..=299 => return None,
        400 => {
            format!("{node} does not take the question ({said}): is it a Proxmox VE of version 5 or newer?")
        }
        401 if said.contains("invalid token value") => format!(
            "{node} does not know the API token's secret (401 {said}): give Pulse the secret that `pveum user token add` printed"
        ),
        401 if said.contains("No ticket") => format!(
            "{node} knows no API tokens (401 {said}): they exist from Proxmox VE 6.2 on; ask a newer host of the cluster, or type its \
             nodes with --endpoint"
        ),
        401 => format!(
            "{node} does not let the API token in (401 {said}): check --token-id (USER@REALM!ID), and that the token has not expired"
        ),
        403 => {
            let (path, privilege) = missing_privilege(said).unwrap_or(("/", "Sys.Audit"));
            format!(
                "the API token lacks the privilege {privilege} on {path} (403 from {node}): `pulse instance add --help` has the commands that \
                 give it"
            )
        }
        501 => format!(
            "{node} knows no such path (501 {said}): does the URL name a Proxmox VE host, without a path behind the port?"
        ),
        595 => format!(
            "{node} passed the question on to a node that does not answer (595 {said}): is that node up?"
        ),
        596 => format!(
            "{node} passed the question on to a node that it cannot talk to (596 {said}): its certificate may be another; `pvecm \
             updatecerts` on it mends that"
        ),
        500 if said.contains("hostname lookup") => {
            format!("{node} cannot find the address of a node ({said}): mend /etc/hosts or DNS there")
        }
        500..=599 => format!(
            "{node} has a problem of its own ({status} {said}): see its journal (pveproxy, pvedaemon)"
        ),
        _ => format!("{node} answered with {status} {said}"),
    };
    Some(Doubt::Refused(text))
}

/// The path and the privilege out of `Permission check failed (/, Sys.Audit)`.
fn missing_privilege(said: &str) -> Option<(&str, &str)> {
    let (_, inner) = said.split_once('(')?;
    let (inner, _) = inner.split_once(')')?;
    let (path, privilege) = inner.rsplit_once(',')?;
    Some((path.trim(), privilege.trim()))
        .filter(|(path, privilege)| !path.is_empty() && !privilege.is_empty())
}

/// The most characters of what a host says of itself that are passed on.
const MAX_SAID_CHARS: usize = 200;

/// What a host says, as it can be shown: one line, not too long.
fn printable(said: &str) -> String {
    let mut chars = said.trim().chars();
    let text: String = chars.by_ref().take(MAX_SAID_CHARS).collect();
    let more = if chars.next().is_some() { "…" } else { "" };
    pulse_proto::text::one_line(&text) + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_to_do() {
        let said = |status, said: &str| {
            refusal(status, said, "pve1").map(|doubt| doubt.to_string()).unwrap_or_default()
        };
        assert_eq!(refusal(200, "OK", "pve1"), None);
        for (status, reason, way_out) in [
            (401, "invalid token value!", "pveum user token add"),
            (401, "authentication failure", "--token-id"),
            (403, "Permission check failed (/, Sys.Audit)", "lacks the privilege Sys.Audit"),
            (400, "Parameter verification failed.", "version 5 or newer"),
            (501, "no such file '/version'", "without a path"),
            (595, "No route to host", "is that node up"),
            (596, "tls_process_server_certificate", "pvecm updatecerts"),
            (500, "hostname lookup 'pve' failed - failed to get address info", "/etc/hosts"),
            (500, "Internal Server Error", "journal"),
        ] {
            let text = said(status, reason);
            assert!(text.contains(way_out) && text.contains("pve1"), "{status} {reason}: {text}");
        }
    }
}
