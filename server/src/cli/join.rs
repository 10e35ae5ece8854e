//! `pulse join …`.

use std::io::{self, IsTerminal};

use http::Method;

use super::client::segment;
use super::failure::Failure;
use super::{Asking, now, show, text};
use crate::api;
use crate::args::Join;

impl Asking {
    pub(super) async fn join(&self, join: &Join) -> Result<String, Failure> {
        match join {
            Join::Create { instance, scope, uses, ttl } => {
                let (instance, scope) = (instance.clone(), (*scope).into());
                let create = api::CreateJoin { instance, scope, uses: *uses, ttl_seconds: ttl.as_secs() };
                let text = self
                    .send(Method::POST, "/join-tokens", &create, |new: api::NewJoin| {
                        format!("{}\n", new.join)
                    })
                    .await?;
                // Only for eyes: a script that takes the string has no use for advice.
                if !self.json && io::stdout().is_terminal() {
                    eprintln!(
                        "On the host, run `pulse-sensor-proxy register --join -` and paste this line, which is shown this \
                         once:"
                    );
                }
                Ok(text)
            }
            Join::List => {
                self.get("/join-tokens", |all: api::JoinTokens| show::join_tokens(&all, now())).await
            }
            Join::Open { ttl, from } => {
                let from = from.iter().map(ToString::to_string).collect();
                let open = api::OpenJoin { from, ttl_seconds: ttl.as_secs() };
                let text = self
                    .send(Method::POST, "/join-window", &open, |new: api::NewJoinWindow| {
                        format!("{}\n", text::clean(&new.join))
                    })
                    .await?;
                if !self.json && io::stdout().is_terminal() {
                    eprintln!(
                        "On each host, run `pulse-sensor-proxy register --join -` and paste this line. Then approve the host: \
                         `pulse proxy list`, `pulse proxy approve ID`. `pulse join close` ends it before its time."
                    );
                }
                Ok(text)
            }
            Join::Close => {
                self.send(Method::DELETE, "/join-window", &(), |_: api::JoinWindow| {
                    "closed; hosts that registered go on waiting for `pulse proxy approve`\n".to_owned()
                })
                .await
            }
            Join::Revoke { id } => {
                let path = format!("/join-tokens/{}", segment(id));
                self.send(Method::DELETE, &path, &(), |token: api::JoinToken| {
                    format!(
                        "revoked join token {}; proxies that it registered stay\n",
                        text::clean(&token.id)
                    )
                })
                .await
            }
        }
    }
}
