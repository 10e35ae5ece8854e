//! A registration that did not reach the server, kept until it did.
//!
//! Always: 0600, because it holds the join token.

use std::path::PathBuf;

use pulse_proto::JoinString;
use serde::{Deserialize, Serialize};

use super::{Home, Hostname, IdentityError};
use crate::disk;

const MAX_BYTES: u64 = 16 << 10;

/// How local callers reach a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ProxyKind {
    /// A Unix socket on this host.
    #[default]
    Socket,
    /// An HTTPS listener of its own.
    Http,
}

/// What a registration needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Where to register, and with what.
    pub join: JoinString,
    /// The host's name.
    pub hostname: Hostname,
    /// How local callers reach this proxy.
    pub kind: ProxyKind,
    /// The URL of its listener in HTTP mode; empty for none.
    pub proxy_url: String,
    /// The host's machine id, keyed for Pulse; empty for none.
    pub machine_id: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    join: String,
    hostname: String,
    hostname_given: bool,
    kind: ProxyKind,
    proxy_url: String,
    machine_id: String,
}

impl Home {
    /// The registration that waits, if one does.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn pending(&self) -> Result<Option<Pending>, IdentityError> {
        let path = self.pending_path();
        let Some(bytes) = disk::read_private(&path, MAX_BYTES)? else { return Ok(None) };
        let damaged = |what| IdentityError::Damaged { path: path.clone(), what };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        Ok(Some(Pending {
            join: stored
                .join
                .parse()
                .map_err(|error: pulse_proto::join::JoinError| damaged(error.to_string()))?,
            hostname: Hostname { name: stored.hostname, is_given: stored.hostname_given },
            kind: stored.kind,
            proxy_url: stored.proxy_url,
            machine_id: stored.machine_id,
        }))
    }

    /// Keeps a registration for `run`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_pending(&self, pending: &Pending) -> Result<(), IdentityError> {
        let stored = Stored {
            join: pending.join.reveal(),
            hostname: pending.hostname.name.clone(),
            hostname_given: pending.hostname.is_given,
            kind: pending.kind,
            proxy_url: pending.proxy_url.clone(),
            machine_id: pending.machine_id.clone(),
        };
        let bytes = serde_json::to_vec(&stored).expect("strings make JSON");
        let path = self.pending_path();
        disk::make_private_folder(self.path())
            .and_then(|()| disk::write_private(&path, &bytes))
            .map_err(|source| IdentityError::Write { path, source })
    }

    /// Forgets the registration that waits.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget_pending(&self) -> Result<(), IdentityError> {
        let path = self.pending_path();
        disk::remove(&path).map_err(|source| IdentityError::Write { path, source })
    }

    fn pending_path(&self) -> PathBuf {
        self.path().join("pending-registration.json")
    }
}
