//! Changes of proxies: move, rotate, revoke, remove.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pulse_proto::{Token, TokenDigest, TokenKind, reason};
use serde_json::json;
use uuid::Uuid;

use super::instance::present;
use super::{ChangeError, Changes, Draft, Note};
use crate::audit::{Actor, Who};
use crate::registry::{CtrlToken, Proxy, ScopeKind, Standing, TokenStanding};

/// How long a new token waits for its first use.
const UNUSED_TOKEN_LIFE: Duration = Duration::from_secs(600);

impl Changes {
    /// Moves a proxy to another instance or scope; its stream gets the list of the new scope.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`] for either, [`ChangeError::NotActive`], [`ChangeError::NotApproved`],
    /// [`ChangeError::Store`].
    pub async fn set_proxy(
        &self,
        actor: &Actor,
        id: Uuid,
        instance: Option<String>,
        scope_kind: Option<ScopeKind>,
    ) -> Result<Arc<Proxy>, ChangeError> {
        self.apply(actor, |draft| {
            let before = active(draft, id)?;
            if !before.is_approved {
                return Err(ChangeError::NotApproved(id));
            }
            let mut after = (*before).clone();
            if let Some(name) = &instance {
                after.instance = Some(present(draft, name)?.id);
            }
            after.scope_kind = scope_kind.unwrap_or(before.scope_kind);
            let after = if after == *before { before } else { draft.put_proxy(after) };
            Ok((after, note("proxy.set", id, json!({}))))
        })
        .await
    }

    /// Asks a proxy to take a new token.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::NotActive`], [`ChangeError::Store`].
    pub async fn request_rotation(&self, actor: &Actor, id: Uuid) -> Result<(), ChangeError> {
        self.apply(actor, |draft| {
            let before = active(draft, id)?;
            if !before.rotate_requested {
                draft.put_proxy(Proxy { rotate_requested: true, ..(*before).clone() });
            }
            Ok(((), note("proxy.rotate", id, json!({}))))
        })
        .await
    }

    /// Gives the proxy whose token this is a new one beside it. An earlier one that was never used ends.
    ///
    /// # Errors
    /// [`ChangeError::Join`] if the token has ended meanwhile, [`ChangeError::NotActive`], [`ChangeError::Store`].
    pub async fn rotate_token(
        &self,
        present: TokenDigest,
        from: Option<IpAddr>,
    ) -> Result<(Token, SystemTime), ChangeError> {
        let token = Token::generate(TokenKind::Ctrl)?;
        let digest = token.digest();
        let id = self.token(&present)?.proxy;
        let use_before = self
            .apply(&of_proxy(id, from), |draft| {
                bearer(draft, &present)?;
                let is_unused = |token: &&CtrlToken| matches!(token.standing, TokenStanding::Next { .. });
                let unused: Vec<CtrlToken> =
                    draft.before.registry.tokens_of(id).filter(is_unused).copied().collect();
                for token in unused {
                    draft.drop_token(token);
                }
                let use_before = draft.at + UNUSED_TOKEN_LIFE;
                draft.put_token(CtrlToken {
                    digest,
                    proxy: id,
                    standing: TokenStanding::Next { use_before },
                });
                Ok((use_before, note("token.rotate", id, json!({}))))
            })
            .await?;
        Ok((token, use_before))
    }

    /// Notes the first use of a new token: it becomes the proxy's token, the one before it ends.
    ///
    /// # Errors
    /// [`ChangeError::Join`] if the token has ended meanwhile, [`ChangeError::NotActive`], [`ChangeError::Store`].
    pub async fn promote_token(&self, digest: TokenDigest, from: Option<IpAddr>) -> Result<(), ChangeError> {
        let token = self.token(&digest)?;
        self.apply(&of_proxy(token.proxy, from), |draft| {
            let proxy = active(draft, token.proxy)?;
            match draft.before.registry.token(&digest).map(|token| token.standing) {
                Some(TokenStanding::Next { use_before }) if use_before > draft.at => {
                    // Only now: the answer that carried the token may have been lost on its way.
                    if proxy.rotate_requested {
                        draft.put_proxy(Proxy { rotate_requested: false, ..(*proxy).clone() });
                    }
                    replace_tokens(draft, CtrlToken { standing: TokenStanding::Current, ..token });
                }
                // Another call with the same token was first.
                Some(TokenStanding::Current) => {}
                Some(_) | None => return Err(ended()),
            }
            Ok(((), note("token.first_use", token.proxy, json!({}))))
        })
        .await
    }

    /// Takes the proxy whose token this is off, as it asks for itself.
    ///
    /// # Errors
    /// [`ChangeError::Join`] if the token has ended meanwhile, [`ChangeError::NotActive`], [`ChangeError::Store`].
    pub async fn unregister(&self, token: TokenDigest, from: Option<IpAddr>) -> Result<(), ChangeError> {
        let id = self.token(&token)?.proxy;
        self.apply(&of_proxy(id, from), |draft| {
            let before = bearer(draft, &token)?;
            let reason = "unregistered by itself".to_owned();
            Ok(((), end(draft, &before, "proxy.remove", Standing::Removed { at: draft.at, reason })))
        })
        .await
    }

    fn token(&self, digest: &TokenDigest) -> Result<CtrlToken, ChangeError> {
        self.catalog().registry.token(digest).copied().ok_or_else(ended)
    }

    /// Revokes a proxy: its tokens become tombstones, its stream ends, it may read nothing.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Store`].
    pub async fn revoke_proxy(&self, actor: &Actor, id: Uuid) -> Result<(), ChangeError> {
        self.apply(actor, |draft| {
            let before = known(draft, id)?;
            let reason = "revoked by an admin".to_owned();
            Ok(((), end(draft, &before, "proxy.revoke", Standing::Revoked { at: draft.at, reason })))
        })
        .await
    }

    /// Takes a proxy off: as revoking, and it is shown no more. A host that registers again is a new proxy.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::Store`].
    pub async fn remove_proxy(&self, actor: &Actor, id: Uuid) -> Result<(), ChangeError> {
        self.apply(actor, |draft| {
            let before = known(draft, id)?;
            let reason = "removed by an admin".to_owned();
            Ok(((), end(draft, &before, "proxy.remove", Standing::Removed { at: draft.at, reason })))
        })
        .await
    }
}

/// A proxy that changes something of its own.
fn of_proxy(id: Uuid, from: Option<IpAddr>) -> Actor {
    Actor { who: Who::Proxy(id), from }
}

/// Ends a proxy: it may connect no more, and its tokens become tombstones. Once is enough.
fn end(draft: &mut Draft<'_>, before: &Proxy, action: &'static str, standing: Standing) -> Note {
    if std::mem::discriminant(&before.standing) != std::mem::discriminant(&standing) {
        draft.put_proxy(Proxy { standing, ..before.clone() });
        let tokens: Vec<CtrlToken> = draft.before.registry.tokens_of(before.id).copied().collect();
        for token in tokens {
            draft.put_token(CtrlToken { standing: TokenStanding::Tombstone, ..token });
        }
    }
    note(action, before.id, json!({ "hostname": before.hostname }))
}

/// Makes `current` the one token of its proxy. Tombstones stay, and those who only watch.
pub(super) fn replace_tokens(draft: &mut Draft<'_>, current: CtrlToken) {
    let is_other = |token: &&CtrlToken| {
        let is_its_own = matches!(token.standing, TokenStanding::Current | TokenStanding::Next { .. });
        is_its_own && token.digest != current.digest
    };
    let others: Vec<CtrlToken> =
        draft.before.registry.tokens_of(current.proxy).filter(is_other).copied().collect();
    for token in others {
        draft.drop_token(token);
    }
    draft.put_token(current);
}

/// The proxy of this id that is not removed, as it is before the change.
fn known(draft: &Draft<'_>, id: Uuid) -> Result<Arc<Proxy>, ChangeError> {
    let is_there = |proxy: &&Arc<Proxy>| !matches!(proxy.standing, Standing::Removed { .. });
    let not_found = || ChangeError::NotFound { what: "proxy", name: id.to_string() };
    draft.before.registry.proxy(id).filter(is_there).cloned().ok_or_else(not_found)
}

/// The active proxy whose present token this is: it may have been another's turn since the call began.
fn bearer(draft: &Draft<'_>, digest: &TokenDigest) -> Result<Arc<Proxy>, ChangeError> {
    let token = draft.before.registry.token(digest).ok_or_else(ended)?;
    match token.standing {
        TokenStanding::Current => active(draft, token.proxy),
        TokenStanding::Tombstone => Err(ChangeError::NotActive(token.proxy, "revoked")),
        TokenStanding::Next { .. } | TokenStanding::Debug { .. } => Err(ended()),
    }
}

fn ended() -> ChangeError {
    let text = "the ctrl token has ended, as a newer one took its place: use that";
    ChangeError::Join { reason: reason::UNKNOWN_TOKEN, text }
}

pub(super) fn active(draft: &Draft<'_>, id: Uuid) -> Result<Arc<Proxy>, ChangeError> {
    let proxy = known(draft, id)?;
    if proxy.is_active() { Ok(proxy) } else { Err(ChangeError::NotActive(id, "revoked")) }
}

pub(super) fn note(action: &'static str, id: Uuid, detail: serde_json::Value) -> Note {
    Note { action, target: format!("proxy:{id}"), detail }
}
