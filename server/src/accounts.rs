//! Admins and what lets them in: passwords, sessions, API tokens, one-time links.
//!
//! In: what admins set, as rows. Out: an immutable [`Accounts`], cheap to clone.
//! Always: a secret is known by its SHA-256 only, a password by its Argon2id hash; what ended stays known as ended.
//! Never: asks the store, or knows which path needs which scope.

pub mod password;
pub mod uses;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pulse_proto::TokenDigest;
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

/// How long a credential is known after its end.
const KEPT_AFTER_END: Duration = Duration::from_hours(30 * 24);

/// What an API token is good for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ApiScope {
    /// Sees the fleet: instances, nodes, proxies, lists, temperatures, status, metrics, the live feed.
    MonitoringRead,
    /// Sees what the fleet is set to, and who did what: join tokens, API tokens, admins, the audit log.
    SettingsRead,
    /// Changes the fleet.
    SettingsWrite,
    /// Registers proxies, over the paths of installers.
    ProxiesRegister,
}

impl ApiScope {
    /// All of them.
    pub const ALL: [ApiScope; 4] = [
        ApiScope::MonitoringRead,
        ApiScope::SettingsRead,
        ApiScope::SettingsWrite,
        ApiScope::ProxiesRegister,
    ];

    /// The word for it, everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            ApiScope::MonitoringRead => "monitoring:read",
            ApiScope::SettingsRead => "settings:read",
            ApiScope::SettingsWrite => "settings:write",
            ApiScope::ProxiesRegister => "proxies:register",
        }
    }
}

impl fmt::Display for ApiScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No scope of that name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it is none of monitoring:read, settings:read, settings:write, proxies:register")]
pub struct NoSuchScope;

impl FromStr for ApiScope {
    type Err = NoSuchScope;

    fn from_str(text: &str) -> Result<ApiScope, NoSuchScope> {
        ApiScope::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(NoSuchScope)
    }
}

/// Somebody who may log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Admin {
    /// The name, unique: 1 to 63 of `[a-z0-9._-]`, beginning alphanumeric.
    pub name: String,
    /// The Argon2id hash of the password, in PHC form; `None`: none is set, and only a one-time link lets the admin in.
    pub password_hash: Option<String>,
    /// When the admin was added.
    pub created_at: SystemTime,
    /// When the password was set last.
    pub password_set_at: Option<SystemTime>,
    /// When the admin was taken off, if that was done.
    pub removed_at: Option<SystemTime>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a credential is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CredentialKind {
    /// A one-time link, with which this admin sets a password.
    SetUp {
        /// The admin's name.
        admin: String,
    },
    /// A log-in of this admin.
    Session {
        /// The admin's name.
        admin: String,
    },
    /// A token of the API.
    Api {
        /// Its name, for people.
        name: String,
        /// What it is good for.
        scopes: BTreeSet<ApiScope>,
    },
}

/// A secret that lets somebody in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Credential {
    /// Its short name for people and the audit log: 12 hex digits.
    pub id: String,
    /// The SHA-256 of the secret.
    pub digest: TokenDigest,
    /// What it is.
    pub kind: CredentialKind,
    /// When it was made.
    pub created_at: SystemTime,
    /// When it ends by itself.
    pub expires_at: SystemTime,
    /// When it was ended before that: revoked, used, logged out.
    pub ended_at: Option<SystemTime>,
}

impl Credential {
    /// Whether it is good at this time.
    pub fn is_good_at(&self, now: SystemTime) -> bool {
        self.ended_at.is_none() && now < self.expires_at
    }

    /// Whether it is an API token with this scope.
    pub fn allows(&self, scope: ApiScope) -> bool {
        matches!(&self.kind, CredentialKind::Api { scopes, .. } if scopes.contains(&scope))
    }
}

/// All admins and credentials. Cloning shares them.
#[derive(Clone, Default, Debug)]
pub struct Accounts {
    admins: RedBlackTreeMapSync<String, Arc<Admin>>,
    credentials: RedBlackTreeMapSync<String, Arc<Credential>>,
    /// Ids by the digest's bytes: a look-up by hash tells nothing about a secret that is not known.
    digests: HashTrieMapSync<[u8; 32], String>,
}

impl Accounts {
    /// Adds an admin, or puts it in the place of the one with its name.
    pub fn put_admin(&mut self, admin: Arc<Admin>) {
        self.admins.insert_mut(admin.name.clone(), admin);
    }

    /// Adds a credential, or puts it in the place of the one with its id.
    pub fn put_credential(&mut self, credential: Arc<Credential>) {
        // They are many; those that ended long ago are forgotten, as the store forgets them.
        let is_over = |one: &&Arc<Credential>| {
            one.ended_at.unwrap_or(one.expires_at) + KEPT_AFTER_END < credential.created_at
        };
        let over: Vec<Arc<Credential>> = self.credentials.values().filter(is_over).cloned().collect();
        for one in over {
            self.digests.remove_mut(one.digest.as_bytes());
            self.credentials.remove_mut(&one.id);
        }
        self.digests.insert_mut(*credential.digest.as_bytes(), credential.id.clone());
        self.credentials.insert_mut(credential.id.clone(), credential);
    }

    /// The admin of this name, without regard to case, if there still is one.
    pub fn admin(&self, name: &str) -> Option<&Arc<Admin>> {
        self.admins.get(&name.to_ascii_lowercase()).filter(|admin| admin.removed_at.is_none())
    }

    /// All admins that are not removed, by name.
    pub fn admins(&self) -> impl Iterator<Item = &Arc<Admin>> {
        self.admins.values().filter(|admin| admin.removed_at.is_none())
    }

    /// The credential with this digest, whether it is good or not.
    pub fn credential(&self, digest: &TokenDigest) -> Option<&Arc<Credential>> {
        let id = self.digests.get(digest.as_bytes())?;
        self.credentials.get(id).filter(|credential| credential.digest == *digest)
    }

    /// The credential of this id.
    pub fn credential_by_id(&self, id: &str) -> Option<&Arc<Credential>> {
        self.credentials.get(id)
    }

    /// All credentials, by id.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<Credential>> {
        self.credentials.values()
    }
}
