//! [`SignedAllowlist`]: a list with its place in time and its signature, verified in one place for wire and disk.
//!
//! In: an [`v1::AllowlistSnapshot`], the keys that are trusted, and how far the proxy has come.
//! Out: a list that may be put in force, or a [`Refusal`] that says why not.

use std::time::{Duration, SystemTime};

use crate::allowlist::Allowlist;
use crate::encoded::Encoded;
use crate::hash::ListHash;
use crate::node::NodeError;
use crate::scope::Scope;
use crate::signature::{PublicKey, SigningKey, Statement};
use crate::{MAX_NODES, v1};

/// Where a list stands in time. A proxy never goes back, over all scopes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Position {
    /// The life of the server's database: Unix milliseconds at its creation.
    pub epoch: u64,
    /// The fleet's revision at which the list last changed.
    pub revision: u64,
}

/// A list whose hash and signature fit.
#[derive(Clone, PartialEq, Debug)]
pub struct SignedAllowlist {
    /// Where it stands in time.
    pub position: Position,
    /// Which nodes it speaks of.
    pub scope: Scope,
    /// The nodes.
    pub allowlist: Allowlist,
    /// When it last changed.
    pub updated_at: SystemTime,
    /// The server's refresh interval, if it said one.
    pub refresh_interval: Option<Duration>,
    /// The key that signed it.
    pub key_id: String,
    /// The signature, 64 bytes.
    pub signature: Vec<u8>,
}

/// Why a list is refused. The list in force stays.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The scope is none.
    #[error("the list's scope {0:?} is none")]
    Scope(String),
    /// The list has more nodes than a list may have.
    #[error("the list has {0} nodes: the most are {MAX_NODES}")]
    TooLarge(usize),
    /// A node breaks a rule.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A node stands there twice, perhaps in another spelling.
    #[error(
        "the list has {nodes} nodes, of which only {different} are different (names are compared case-blind)"
    )]
    Doubled {
        /// How many there are.
        nodes: usize,
        /// How many are left without doubles.
        different: usize,
    },
    /// The hash is not that of the nodes.
    #[error("the list says hash {said}, its nodes have {actual}")]
    Hash {
        /// What the list says.
        said: String,
        /// The nodes' hash.
        actual: ListHash,
    },
    /// The key is not known.
    #[error("the list is signed with key {0:?}, which is not known here; known are {1}")]
    UnknownKey(String, String),
    /// The signature does not fit.
    #[error("the list's signature by key {0} does not fit it")]
    Signature(String),
    /// The epoch is over.
    #[error("the list is of epoch {list}, but one of epoch {held} was applied before")]
    OlderEpoch {
        /// The list's epoch.
        list: u64,
        /// The epoch reached.
        held: u64,
    },
    /// The revision is behind.
    #[error("the list is of revision {list}, but revision {held} was applied before")]
    OlderRevision {
        /// The list's revision.
        list: u64,
        /// The revision reached.
        held: u64,
    },
}

impl Refusal {
    /// The reason as it is reported.
    pub fn reason(&self) -> v1::RefusalReason {
        match self {
            Refusal::Scope(_) => v1::RefusalReason::WrongScope,
            Refusal::TooLarge(_) => v1::RefusalReason::TooLarge,
            Refusal::Node(_) => v1::RefusalReason::InvalidNode,
            // With a double a list never has the hash of its own set.
            Refusal::Hash { .. } | Refusal::Doubled { .. } => v1::RefusalReason::WrongHash,
            Refusal::UnknownKey(..) => v1::RefusalReason::UnknownKey,
            Refusal::Signature(_) => v1::RefusalReason::BadSignature,
            Refusal::OlderEpoch { .. } => v1::RefusalReason::OlderEpoch,
            Refusal::OlderRevision { .. } => v1::RefusalReason::OlderRevision,
        }
    }
}

impl SignedAllowlist {
    /// Signs a list.
    pub fn sign(
        key: &SigningKey,
        position: Position,
        scope: Scope,
        allowlist: Allowlist,
        updated_at: SystemTime,
        refresh_interval: Duration,
    ) -> SignedAllowlist {
        let Position { epoch, revision } = position;
        let signature = key.sign(&Statement { epoch, revision, scope, hash: allowlist.hash() });
        let key_id = key.public().key_id();
        SignedAllowlist {
            position,
            scope,
            allowlist,
            updated_at,
            refresh_interval: Some(refresh_interval),
            key_id,
            signature,
        }
    }

    /// Verifies a list: size, nodes, hash, signature by one of `keys`, and that it is not older than `reached`.
    ///
    /// # Errors
    /// [`Refusal`]: the first check that fails, in that order.
    pub fn verify(
        list: &v1::AllowlistSnapshot,
        keys: &[PublicKey],
        reached: Position,
    ) -> Result<SignedAllowlist, Refusal> {
        if list.nodes.len() > MAX_NODES {
            return Err(Refusal::TooLarge(list.nodes.len()));
        }
        let scope = list.scope.parse().map_err(|_| Refusal::Scope(list.scope.chars().take(80).collect()))?;
        let allowlist = Allowlist::from_wire(&list.nodes)?;
        let actual = allowlist.hash();
        if allowlist.len() != list.nodes.len() {
            return Err(Refusal::Doubled { nodes: list.nodes.len(), different: allowlist.len() });
        }
        // The order does not count: the hash is that of the sorted lines, however they came.
        if list.hash.parse() != Ok(actual) {
            return Err(Refusal::Hash { said: list.hash.chars().take(80).collect(), actual });
        }
        let Some(key) = keys.iter().find(|key| key.key_id() == list.key_id) else {
            let known: Vec<_> = keys.iter().map(PublicKey::key_id).collect();
            return Err(Refusal::UnknownKey(list.key_id.chars().take(80).collect(), known.join(", ")));
        };
        let statement = Statement { epoch: list.epoch, revision: list.revision, scope, hash: actual };
        if !key.verifies(&statement, &list.signature) {
            return Err(Refusal::Signature(list.key_id.clone()));
        }
        if list.epoch < reached.epoch {
            return Err(Refusal::OlderEpoch { list: list.epoch, held: reached.epoch });
        }
        if list.epoch == reached.epoch && list.revision < reached.revision {
            return Err(Refusal::OlderRevision { list: list.revision, held: reached.revision });
        }
        Ok(SignedAllowlist {
            position: Position { epoch: list.epoch, revision: list.revision },
            scope,
            allowlist,
            updated_at: list.updated_at.and_then(|at| at.try_into().ok()).unwrap_or(SystemTime::UNIX_EPOCH),
            refresh_interval: list.refresh_interval.and_then(|interval| interval.try_into().ok()),
            key_id: list.key_id.clone(),
            signature: list.signature.clone(),
        })
    }

    /// The message that pushes the list.
    pub fn to_message(&self) -> Encoded<v1::WatchAuthorizedNodesResponse> {
        let kind = Some(v1::watch_authorized_nodes_response::Kind::Snapshot(self.to_wire()));
        Encoded::new(&v1::WatchAuthorizedNodesResponse { kind, server: None })
    }

    /// The list as it is sent and kept.
    pub fn to_wire(&self) -> v1::AllowlistSnapshot {
        v1::AllowlistSnapshot {
            epoch: self.position.epoch,
            scope: self.scope.to_string(),
            revision: self.position.revision,
            hash: self.allowlist.hash().to_string(),
            nodes: self.allowlist.to_wire(),
            updated_at: Some(self.updated_at.into()),
            refresh_interval: self.refresh_interval.and_then(|interval| interval.try_into().ok()),
            key_id: self.key_id.clone(),
            signature: self.signature.clone(),
        }
    }
}
