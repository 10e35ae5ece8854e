//! What ends by time: new tokens that nobody used, debug tokens, hosts that nobody approved.
//!
//! The time itself decides whether such a thing is still good; this only takes it off afterwards.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde_json::json;
use uuid::Uuid;

use super::proxies::note;
use super::{ChangeError, Changes};
use crate::audit::Actor;
use crate::catalog::Catalog;
use crate::registry::{CtrlToken, Proxy, Standing, TokenStanding};
use crate::shutdown::Drain;

/// How often to look for what is past its time.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long a host waits for approval after it registered.
const APPROVAL_LIFE: Duration = Duration::from_hours(24);

impl Changes {
    /// Takes off what is past its time, until the server goes down.
    pub async fn keep_expiring(self, drain: Drain) {
        let mut is_failing = false;
        loop {
            tokio::select! {
                () = drain.started() => return,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
            match self.expire().await {
                Ok(()) => is_failing = false,
                Err(ChangeError::Stopping) => return,
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(
                            error,
                            "what is past its time is not taken off yet; it is refused all the same"
                        );
                    }
                }
            }
        }
    }

    /// Takes off what is past its time now: one change for each proxy.
    ///
    /// # Errors
    /// [`ChangeError::Store`].
    pub async fn expire(&self) -> Result<(), ChangeError> {
        for id in concerned(&self.catalog(), self.clock.now()) {
            self.expire_of(id).await?;
        }
        Ok(())
    }

    async fn expire_of(&self, id: Uuid) -> Result<(), ChangeError> {
        self.apply(&Actor::SERVER, |draft| {
            let registry = &draft.before.registry;
            let given_up = registry.proxy(id).filter(|proxy| is_given_up(proxy, draft.at)).cloned();
            let ends = |token: &&CtrlToken| given_up.is_some() || is_past(token, draft.at);
            let tokens: Vec<CtrlToken> = registry.tokens_of(id).filter(ends).copied().collect();
            let is_debug = |token: &&CtrlToken| matches!(token.standing, TokenStanding::Debug { .. });
            let debug_tokens = tokens.iter().filter(is_debug).count();
            let detail = json!({
                "debug_tokens": debug_tokens,
                "other_tokens": tokens.len() - debug_tokens,
                "unapproved": given_up.is_some(),
            });
            // They are forgotten, no tombstones: to the host this is no revocation, and its static list stays.
            for token in tokens {
                draft.drop_token(token);
            }
            if let Some(proxy) = given_up {
                let reason = "nobody approved it within 24 hours".to_owned();
                let standing = Standing::Removed { at: draft.at, reason };
                draft.put_proxy(Proxy { standing, ..(*proxy).clone() });
            }
            Ok(((), note("proxy.expire", id, detail)))
        })
        .await
    }
}

/// The proxies of which something is past its time.
fn concerned(catalog: &Catalog, now: SystemTime) -> BTreeSet<Uuid> {
    let tokens = catalog.registry.past_tokens(now).map(|token| token.proxy);
    let given_up = catalog.registry.unapproved().filter(|proxy| is_given_up(proxy, now));
    tokens.chain(given_up.map(|proxy| proxy.id)).collect()
}

fn is_past(token: &CtrlToken, now: SystemTime) -> bool {
    token.end().is_some_and(|end| end <= now)
}

fn is_given_up(proxy: &Proxy, now: SystemTime) -> bool {
    !proxy.is_approved && proxy.is_active() && proxy.registered_at + APPROVAL_LIFE <= now
}
