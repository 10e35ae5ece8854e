//! Debug tokens: what a person with another program watches a proxy's stream with.

use std::time::{Duration, SystemTime};

use pulse_proto::{Token, TokenKind};
use serde_json::json;
use uuid::Uuid;

use super::proxies::{active, note};
use super::{ChangeError, Changes};
use crate::audit::Actor;
use crate::registry::{CtrlToken, TokenStanding};

/// How many debug tokens one proxy has at a time.
const MAX_TOKENS: usize = 8;
/// How long one is good.
const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

impl Changes {
    /// Makes a token with which one proxy's stream can be watched, and nothing else be done. It ends after `ttl`, or with
    /// the proxy.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`], [`ChangeError::NotActive`]; [`ChangeError::Invalid`] for the time;
    /// [`ChangeError::TooMany`]; [`ChangeError::Store`].
    pub async fn debug_token(
        &self,
        actor: &Actor,
        id: Uuid,
        ttl: Duration,
    ) -> Result<(Token, SystemTime), ChangeError> {
        if !TTL.contains(&ttl) {
            let rule = "a debug token lives 1 second to 24 hours".to_owned();
            return Err(ChangeError::Invalid { field: "ttl_seconds", rule });
        }
        let token = Token::generate(TokenKind::Debug)?;
        let digest = token.digest();
        let until = self
            .apply(actor, |draft| {
                active(draft, id)?;
                let lives = |token: &&CtrlToken| {
                    matches!(token.standing, TokenStanding::Debug { until } if until > draft.at)
                };
                if draft.before.registry.tokens_of(id).filter(lives).count() >= MAX_TOKENS {
                    let text = format!("proxy {id} has {MAX_TOKENS} debug tokens: use one of them, or wait until one ends");
                    return Err(ChangeError::TooMany { reason: "TOO_MANY_DEBUG_TOKENS", text });
                }
                let until = draft.at + ttl;
                draft.put_token(CtrlToken { digest, proxy: id, standing: TokenStanding::Debug { until } });
                Ok((until, note("proxy.debug_token", id, json!({ "ttl_seconds": ttl.as_secs() }))))
            })
            .await?;
        Ok((token, until))
    }
}
