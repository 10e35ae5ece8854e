//! Changes of admins and of what lets them in; those of API tokens are in `accounts/tokens`.

mod tokens;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pulse_proto::{Token, TokenDigest, TokenKind, hex, reason};
use serde_json::json;

use super::{ChangeError, Changes, Draft, Note};
use crate::accounts::{Admin, Credential, CredentialKind};
use crate::audit::{Actor, Who};
pub use tokens::NewApiToken;

/// How long a one-time link is good.
pub const LINK_LIFE: Duration = Duration::from_hours(24);
/// How long a log-in lasts.
pub const SESSION_LIFE: Duration = Duration::from_hours(12);
/// The most log-ins of one admin at one time; the oldest ends when one more begins.
const MAX_SESSIONS: usize = 32;
/// The most admins.
const MAX_ADMINS: usize = 256;

/// What lets somebody set a password.
#[derive(Clone, Debug)]
pub enum SetUp {
    /// Nobody is an admin yet: this name becomes the first.
    First {
        /// The name.
        name: String,
    },
    /// A one-time link.
    Link(TokenDigest),
}

impl Changes {
    /// Adds an admin; the link with which the password is set is returned this once.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`], [`ChangeError::Store`].
    pub async fn add_admin(
        &self,
        actor: &Actor,
        name: &str,
    ) -> Result<(Arc<Credential>, Token), ChangeError> {
        let name = checked(name)?;
        let link = Token::generate(TokenKind::SetUp)?;
        let digest = link.digest();
        let made = self
            .apply(actor, |draft| {
                check_is_new(draft, &name)?;
                put_admin(draft, &name, None);
                let link = put_link(draft, &name, digest);
                Ok((link, note("admin.add", &name)))
            })
            .await?;
        Ok((made, link))
    }

    /// Takes an admin's password and log-ins away; the link with which a new one is set is returned this once.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Store`].
    pub async fn reset_admin(
        &self,
        actor: &Actor,
        name: &str,
    ) -> Result<(Arc<Credential>, Token), ChangeError> {
        let link = Token::generate(TokenKind::SetUp)?;
        let digest = link.digest();
        let made = self
            .apply(actor, |draft| {
                let before = present(draft, name)?;
                let after = Admin { password_hash: None, password_set_at: None, ..(*before).clone() };
                draft.put_admin(after);
                end_all_of(draft, &before.name, None);
                let link = put_link(draft, &before.name, digest);
                Ok((link, note("admin.reset", &before.name)))
            })
            .await?;
        Ok((made, link))
    }

    /// Takes an admin off, with all log-ins.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Store`].
    pub async fn remove_admin(&self, actor: &Actor, name: &str) -> Result<(), ChangeError> {
        self.apply(actor, |draft| {
            let before = present(draft, name)?;
            let after = Admin { password_hash: None, removed_at: Some(draft.at), ..(*before).clone() };
            draft.put_admin(after);
            end_all_of(draft, &before.name, None);
            Ok(((), note("admin.remove", &before.name)))
        })
        .await
    }

    /// Whether a one-time link is good at this moment.
    ///
    /// # Errors
    /// [`ChangeError::Join`]: it is not.
    pub fn check_link(&self, link: &TokenDigest) -> Result<(), ChangeError> {
        let catalog = self.catalog();
        let link = catalog.accounts.credential(link).filter(|link| link.is_good_at(self.clock.now()));
        admin_of_link(link).map(drop)
    }

    /// Sets the password of the admin whom `set_up` lets in, and logs in. The link is good no more, and every other log-in ends.
    ///
    /// # Errors
    /// [`ChangeError::Join`] if the link is not good, or there is an admin already; [`ChangeError::Invalid`] for the name;
    /// [`ChangeError::Store`].
    pub async fn set_up(
        &self,
        set_up: SetUp,
        password_hash: String,
        from: Option<IpAddr>,
    ) -> Result<(Arc<Credential>, Token), ChangeError> {
        let name = match &set_up {
            SetUp::First { name } => checked(name)?,
            SetUp::Link(digest) => admin_of_link(self.catalog().accounts.credential(digest))?,
        };
        let session = Token::generate(TokenKind::Session)?;
        let digest = session.digest();
        let actor = Actor { who: Who::User(name.clone()), from };
        let made = self
            .apply(&actor, |draft| {
                match &set_up {
                    SetUp::First { .. } => {
                        if draft.before.accounts.admins().next().is_some() {
                            let text = "there is an admin already: ask one of them, or run `pulse admin reset NAME` on the server";
                            return Err(ChangeError::Join { reason: reason::UNKNOWN_TOKEN, text });
                        }
                    }
                    SetUp::Link(link) => {
                        let link = draft.before.accounts.credential(link);
                        let is_good = link.is_some_and(|link| link.is_good_at(draft.at));
                        let is_there = draft.before.accounts.admin(&name).is_some();
                        if !is_good || !is_there {
                            return Err(bad_link());
                        }
                    }
                }
                put_admin(draft, &name, Some(password_hash.clone()));
                end_all_of(draft, &name, None);
                let session = put_session(draft, &name, digest);
                Ok((session, note("admin.set_up", &name)))
            })
            .await?;
        Ok((made, session))
    }

    /// Sets another password of an admin who is logged in. Every other log-in ends.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Store`].
    pub async fn set_password(
        &self,
        actor: &Actor,
        name: &str,
        session: &str,
        password_hash: String,
    ) -> Result<(), ChangeError> {
        self.apply(actor, |draft| {
            let before = present(draft, name)?;
            put_admin(draft, &before.name, Some(password_hash.clone()));
            end_all_of(draft, &before.name, Some(session));
            Ok(((), note("admin.password", &before.name)))
        })
        .await
    }

    /// Begins a log-in of an admin whose password was right. `password_hash` is that with which it was compared.
    ///
    /// # Errors
    /// [`ChangeError::Join`] if the password is another one by now; [`ChangeError::Store`].
    pub async fn log_in(
        &self,
        name: &str,
        password_hash: &str,
        from: Option<IpAddr>,
    ) -> Result<(Arc<Credential>, Token), ChangeError> {
        let session = Token::generate(TokenKind::Session)?;
        let digest = session.digest();
        let actor = Actor { who: Who::User(name.to_owned()), from };
        let made = self
            .apply(&actor, |draft| {
                let admin = draft.before.accounts.admin(name);
                let hash = admin.and_then(|admin| admin.password_hash.as_deref());
                if hash != Some(password_hash) {
                    let text = "the password was changed at this moment: log in with the new one";
                    return Err(ChangeError::Join { reason: "WRONG_PASSWORD", text });
                }
                let session = put_session(draft, name, digest);
                Ok((session, note("session.begin", name)))
            })
            .await?;
        Ok((made, session))
    }

    /// Ends a log-in.
    ///
    /// # Errors
    /// [`ChangeError::Store`].
    pub async fn log_out(&self, actor: &Actor, session: &str) -> Result<(), ChangeError> {
        self.apply(actor, |draft| {
            let before = draft.before.accounts.credential_by_id(session).cloned();
            let admin = match before.as_ref().map(|before| &before.kind) {
                Some(CredentialKind::Session { admin }) => admin.clone(),
                _ => String::new(),
            };
            if let Some(before) = before.filter(|before| before.is_good_at(draft.at)) {
                draft.put_credential(Credential { ended_at: Some(draft.at), ..(*before).clone() });
            }
            Ok(((), note("session.end", &admin)))
        })
        .await
    }
}

fn note(action: &'static str, admin: &str) -> Note {
    Note { action, target: format!("admin:{admin}"), detail: json!({}) }
}

/// A name as it is kept: in lower case.
fn checked(name: &str) -> Result<String, ChangeError> {
    let name = name.trim().to_ascii_lowercase();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_good = (1..=63).contains(&name.len())
        && name.chars().all(is_plain)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rule = "an admin's name has 1 to 63 of letters, digits, dot, underscore and hyphen, and begins with a letter or digit";
    is_good.then_some(name).ok_or(ChangeError::Invalid { field: "name", rule: rule.to_owned() })
}

fn check_is_new(draft: &Draft<'_>, name: &str) -> Result<(), ChangeError> {
    let invalid = |rule: String| Err(ChangeError::Invalid { field: "name", rule });
    if draft.before.accounts.admin(name).is_some() {
        return invalid(format!(
            "there is an admin {name} already; `pulse admin reset {name}` makes a new link"
        ));
    }
    if draft.before.accounts.admins().count() >= MAX_ADMINS {
        return invalid(format!("there are {MAX_ADMINS} admins already: remove one first"));
    }
    Ok(())
}

fn present(draft: &Draft<'_>, name: &str) -> Result<Arc<Admin>, ChangeError> {
    let not_found = || ChangeError::NotFound { what: "admin", name: name.to_owned() };
    draft.before.accounts.admin(name).cloned().ok_or_else(not_found)
}

fn admin_of_link(link: Option<&Arc<Credential>>) -> Result<String, ChangeError> {
    match link.map(|link| &link.kind) {
        Some(CredentialKind::SetUp { admin }) => Ok(admin.clone()),
        _ => Err(bad_link()),
    }
}

fn bad_link() -> ChangeError {
    let text = "the link was used, is past its time, or is not known to this server: `pulse admin reset NAME` on the server makes \
                another";
    ChangeError::Join { reason: reason::UNKNOWN_TOKEN, text }
}

fn put_admin(draft: &mut Draft<'_>, name: &str, password_hash: Option<String>) {
    let created_at = draft.before.accounts.admin(name).map_or(draft.at, |before| before.created_at);
    let password_set_at = password_hash.as_ref().map(|_| draft.at);
    let name = name.to_owned();
    draft.put_admin(Admin { name, password_hash, created_at, password_set_at, removed_at: None });
}

fn put_link(draft: &mut Draft<'_>, admin: &str, digest: TokenDigest) -> Arc<Credential> {
    put(draft, digest, CredentialKind::SetUp { admin: admin.to_owned() }, LINK_LIFE)
}

fn put_session(draft: &mut Draft<'_>, admin: &str, digest: TokenDigest) -> Arc<Credential> {
    let is_one = |one: &&Arc<Credential>| {
        matches!(&one.kind, CredentialKind::Session { admin: of } if of == admin) && one.is_good_at(draft.at)
    };
    let mut sessions: Vec<Arc<Credential>> =
        draft.after.accounts.credentials().filter(is_one).cloned().collect();
    sessions.sort_by_key(|session| session.created_at);
    let too_many = (sessions.len() + 1).saturating_sub(MAX_SESSIONS);
    for session in sessions.into_iter().take(too_many) {
        draft.put_credential(Credential { ended_at: Some(draft.at), ..(*session).clone() });
    }
    put(draft, digest, CredentialKind::Session { admin: admin.to_owned() }, SESSION_LIFE)
}

/// Adds a credential that is good from now on.
fn put(draft: &mut Draft<'_>, digest: TokenDigest, kind: CredentialKind, life: Duration) -> Arc<Credential> {
    // Twelve digits of the digest name it: they are unique enough, and tell nothing of the secret.
    let id = hex::encode(&digest.as_bytes()[..6]);
    let (created_at, expires_at) = (draft.at, draft.at + life);
    draft.put_credential(Credential { id, digest, kind, created_at, expires_at, ended_at: None })
}

/// Ends every log-in and link of an admin, but for one.
fn end_all_of(draft: &mut Draft<'_>, name: &str, but: Option<&str>) {
    let is_of = |one: &&Arc<Credential>| match &one.kind {
        CredentialKind::SetUp { admin } | CredentialKind::Session { admin } => admin == name,
        CredentialKind::Api { .. } => false,
    };
    let ends =
        |one: &&Arc<Credential>| is_of(one) && one.is_good_at(draft.at) && Some(one.id.as_str()) != but;
    let ending: Vec<Arc<Credential>> = draft.before.accounts.credentials().filter(ends).cloned().collect();
    for one in ending {
        draft.put_credential(Credential { ended_at: Some(draft.at), ..(*one).clone() });
    }
}
