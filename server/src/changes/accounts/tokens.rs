//! Changes of API tokens: create, revoke.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pulse_proto::{Token, TokenKind};
use serde_json::json;

use super::super::{ChangeError, Changes, Note};
use super::put;
use crate::accounts::{ApiScope, Credential, CredentialKind};
use crate::audit::Actor;

/// How long an API token may live: a second to ten years.
const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(10 * 365 * 24);
/// The most API tokens that are good at one time.
const MAX_TOKENS: usize = 1_000;
/// The most credentials that are kept, ended ones too, before no more tokens are made: who makes and revokes them in a loop does not
/// fill the memory.
const MAX_KEPT: usize = 20_000;
/// The most characters of a token's name.
const MAX_NAME: usize = 64;

/// An API token that an admin asks for.
#[derive(Clone, Debug)]
pub struct NewApiToken {
    /// Its name, for people.
    pub name: String,
    /// What it is good for.
    pub scopes: BTreeSet<ApiScope>,
    /// How long it is good.
    pub ttl: Duration,
}

impl Changes {
    /// Makes an API token; the secret is returned this once.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] for name, scopes and time, [`ChangeError::Store`].
    pub async fn create_api_token(
        &self,
        actor: &Actor,
        new: NewApiToken,
    ) -> Result<(Arc<Credential>, Token), ChangeError> {
        let invalid = |field, rule: &str| Err(ChangeError::Invalid { field, rule: rule.to_owned() });
        let NewApiToken { name, scopes, ttl } = new;
        let name = name.trim().to_owned();
        if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            return invalid(
                "name",
                "an API token's name has 1 to 64 characters, none of them a control character",
            );
        }
        if scopes.is_empty() {
            return invalid(
                "scopes",
                "an API token has at least one scope; `pulse token create --help` lists them",
            );
        }
        if !TTL.contains(&ttl) {
            return invalid("ttl_seconds", "an API token lives 1 second to 3650 days");
        }
        let token = Token::generate(TokenKind::Api)?;
        let digest = token.digest();
        let made = self
            .apply(actor, |draft| {
                let is_one = |one: &&Arc<Credential>| {
                    matches!(one.kind, CredentialKind::Api { .. }) && one.is_good_at(draft.at)
                };
                if draft.before.accounts.credentials().filter(is_one).count() >= MAX_TOKENS {
                    let text = format!(
                        "there are {MAX_TOKENS} API tokens already: revoke some (`pulse token list`)"
                    );
                    return Err(ChangeError::TooMany { reason: "TOO_MANY_TOKENS", text });
                }
                if draft.before.accounts.credentials().count() >= MAX_KEPT {
                    let text = format!(
                        "{MAX_KEPT} log-ins and API tokens are kept, most of them ended: each is forgotten 30 days after its end"
                    );
                    return Err(ChangeError::TooMany { reason: "TOO_MANY_TOKENS", text });
                }
                let kind = CredentialKind::Api { name: name.clone(), scopes: scopes.clone() };
                let made = put(draft, digest, kind, ttl);
                let words: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
                let detail = json!({ "name": name, "scopes": words, "ttl_seconds": ttl.as_secs() });
                let target = format!("token:{}", made.id);
                Ok((made, Note { action: "token.create", target, detail }))
            })
            .await?;
        Ok((made, token))
    }

    /// Revokes an API token: it is good no more, from the next request on.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Store`].
    pub async fn revoke_api_token(&self, actor: &Actor, id: &str) -> Result<(), ChangeError> {
        self.apply(actor, |draft| {
            let is_one = |one: &&Arc<Credential>| matches!(one.kind, CredentialKind::Api { .. });
            let before = draft.before.accounts.credential_by_id(id).filter(is_one);
            let not_found = || ChangeError::NotFound { what: "token", name: id.to_owned() };
            let before = before.ok_or_else(not_found)?;
            if before.ended_at.is_none() {
                draft.put_credential(Credential { ended_at: Some(draft.at), ..(**before).clone() });
            }
            Ok(((), Note { action: "token.revoke", target: format!("token:{id}"), detail: json!({}) }))
        })
        .await
    }
}
