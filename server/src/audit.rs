//! Who did what: the audit log, hash-chained from the first row.
//!
//! In: one [`Entry`] for each change, written in the change's transaction. Out: rows in order.
//! Always: a row's hash covers the row and the hash before it, so that none can be altered or taken out unseen; every row says
//! from where it was asked for, and what became of it.

pub mod difference;
mod ends;
pub mod export;
pub mod verify;

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use pulse_proto::hash::sha256;
use pulse_proto::hex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

pub use ends::{Ends, Point};

/// Who makes a change, and from where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    /// Who.
    pub who: Who,
    /// The address that the call came from; `None`: from this machine, or from the server itself.
    pub from: Option<IpAddr>,
}

/// Who makes a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Who {
    /// A local admin on the Unix socket, by user id.
    Admin {
        /// The user id of the caller.
        uid: u32,
    },
    /// An admin who logged in, by name.
    User(String),
    /// A program with this API token, by the token's id.
    Token(String),
    /// A proxy, with its ctrl token.
    Proxy(Uuid),
    /// A host that registers with this join token.
    Join(String),
    /// A host that registers without any credential, while a window is open to it.
    Host,
    /// The server itself.
    Server,
    /// What a cluster tells, as the server hears it from Proxmox VE.
    Cluster,
}

impl Actor {
    /// The server itself.
    pub const SERVER: Actor = Actor { who: Who::Server, from: None };
    /// What a cluster tells.
    pub const CLUSTER: Actor = Actor { who: Who::Cluster, from: None };

    /// A local admin.
    pub fn admin(uid: u32) -> Actor {
        Actor { who: Who::Admin { uid }, from: None }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Admin { uid } => write!(f, "admin:uid={uid}"),
            Who::User(name) => write!(f, "user:{name}"),
            Who::Token(id) => write!(f, "token:{id}"),
            Who::Proxy(id) => write!(f, "proxy:{id}"),
            Who::Join(id) => write!(f, "join:{id}"),
            Who::Host => match self.from {
                Some(address) => write!(f, "host:{address}"),
                None => f.write_str("host:local"),
            },
            Who::Server => f.write_str("server"),
            Who::Cluster => f.write_str("cluster"),
        }
    }
}

/// What became of what was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It was refused: nothing is changed.
    Refused,
    /// It failed on the way.
    Failed,
}

impl Outcome {
    /// The word for people, JSON and the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        }
    }
}

/// The key of a row's detail that says from where it was asked for.
pub const FROM: &str = "from";
/// The key of a row's detail that says what became of it.
pub const RESULT: &str = "result";

/// What is to be noted. The store gives it its place and its hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Who: `admin:uid=0`, `user:NAME`, `token:ID`, `proxy:UUID`, `join:ID`, `host:ADDRESS`, `server`, `cluster`, or for refusals the address.
    pub actor: String,
    /// What was done: `instance.add`, `proxy.revoke`, `call.refuse`.
    pub action: &'static str,
    /// To what: `instance:NAME`, `proxy:UUID`; of a refusal the reason.
    pub target: String,
    /// The rest, a JSON object: [`FROM`] where that is another machine, [`RESULT`], and what more there is to say. Never a secret.
    pub detail: Value,
}

impl Entry {
    /// What somebody did at a time, and what became of it. `detail` is an object, and says the rest.
    #[must_use]
    pub fn new(
        at: SystemTime,
        actor: &Actor,
        action: &'static str,
        target: String,
        outcome: Outcome,
        detail: Value,
    ) -> Entry {
        Entry::of_source(at, actor.to_string(), actor.from, action, target, outcome, detail)
    }

    /// As [`Entry::new`], of whoever is known by no more than a source.
    #[must_use]
    pub fn of_source(
        at: SystemTime,
        source: String,
        from: Option<IpAddr>,
        action: &'static str,
        target: String,
        outcome: Outcome,
        mut detail: Value,
    ) -> Entry {
        if let Some(from) = from {
            detail[FROM] = json!(from);
        }
        detail[RESULT] = json!(outcome.as_str());
        Entry { at_ms: unix_ms(at), actor: source, action, target, detail }
    }
}

/// Unix milliseconds; 0 before 1970.
pub fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A row of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Its place: the first of all is 1, and none is left out.
    pub seq: u64,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Who.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub target: String,
    /// The rest: a JSON object as text, exactly as it was hashed.
    pub detail: String,
    /// The fleet's revision after it.
    pub revision: u64,
    /// Hash of the row before, 64 hex digits; of the first row: 64 zeros.
    pub previous_hash: String,
    /// Hash of this row, 64 hex digits.
    pub hash: String,
}

/// The hash before the first row, 64 zeros.
pub const FIRST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl Row {
    /// Gives an entry its place behind the row that has `previous_hash`.
    pub fn chain(entry: &Entry, seq: u64, revision: u64, previous_hash: &str) -> Row {
        let mut row = Row {
            seq,
            at_ms: entry.at_ms,
            actor: entry.actor.clone(),
            action: entry.action.to_owned(),
            target: entry.target.clone(),
            detail: entry.detail.to_string(),
            revision,
            previous_hash: previous_hash.to_owned(),
            hash: String::new(),
        };
        row.hash = row.computed_hash();
        row
    }

    /// The hash that the row must have: SHA-256 over its fields, each with its length before it, so that no two
    /// different rows have the same bytes.
    pub fn computed_hash(&self) -> String {
        let mut bytes = b"pulse-audit-v1\n".to_vec();
        let (seq, at, revision) = (self.seq.to_string(), self.at_ms.to_string(), self.revision.to_string());
        for field in
            [&self.previous_hash, &seq, &at, &self.actor, &self.action, &self.target, &self.detail, &revision]
        {
            bytes.extend_from_slice(format!("{}\n", field.len()).as_bytes());
            bytes.extend_from_slice(field.as_bytes());
        }
        hex::encode(&sha256(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(actor: &str, target: &str) -> Entry {
        let detail = serde_json::json!({"endpoints": ["a"]});
        Entry { at_ms: 1, actor: actor.into(), action: "instance.add", target: target.into(), detail }
    }

    #[test]
    fn every_field_is_under_the_hash() {
        let row = Row::chain(&entry("a", "b"), 1, 2, FIRST);
        assert_eq!(row.hash, row.computed_hash());
        let altered = [
            Row { seq: 2, ..row.clone() },
            Row { at_ms: 2, ..row.clone() },
            Row { actor: "b".into(), ..row.clone() },
            Row { action: "x".into(), ..row.clone() },
            Row { target: "a".into(), ..row.clone() },
            Row { detail: "{}".into(), ..row.clone() },
            Row { revision: 3, ..row.clone() },
            Row { previous_hash: row.hash.clone(), ..row.clone() },
        ];
        for other in altered {
            assert_ne!(other.computed_hash(), row.hash, "{other:?}");
        }
    }

    #[test]
    fn an_entry_says_from_where_it_was_asked_for_and_what_became_of_it() {
        let far = Actor { who: Who::User("ada".to_owned()), from: Some("192.0.2.7".parse().unwrap()) };
        let of = |actor, outcome| {
            let entry =
                Entry::new(SystemTime::UNIX_EPOCH, actor, "a", "b".to_owned(), outcome, json!({"c": 1}));
            (entry.actor, entry.detail)
        };
        let from = json!({"c": 1, "from": "192.0.2.7", "result": "refused"});
        assert_eq!(of(&far, Outcome::Refused), ("user:ada".to_owned(), from));
        assert_eq!(
            of(&Actor::SERVER, Outcome::Done),
            ("server".to_owned(), json!({"c": 1, "result": "done"}))
        );
    }

    #[test]
    fn text_cannot_move_from_one_field_to_the_next() {
        let one = Row::chain(&entry("ab", "c"), 1, 1, FIRST);
        let other = Row::chain(&entry("a", "bc"), 1, 1, FIRST);
        assert_ne!(one.hash, other.hash);
    }
}
