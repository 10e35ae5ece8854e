//! What keeps a proxy from its server, said in the log and to the service manager when it begins and when it ends.

use super::Sync;

/// What keeps a proxy from its server. Each kind is said once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Unreachable,
    WrongServer,
    UnknownToken,
    Refused,
    Replaced,
    NoToken,
    Revoked,
    State,
}

impl Sync {
    /// Says once what keeps this proxy from its server.
    pub(super) fn begin(&mut self, trouble: Trouble, text: &str) {
        if self.trouble.replace(trouble) == Some(trouble) {
            tracing::debug!(error = text, "still so");
            return;
        }
        let in_force = self.gate.in_force();
        let (source, nodes, server) = (in_force.source().as_str(), in_force.nodes().len(), self.link.url());
        match trouble {
            Trouble::Unreachable => {
                tracing::warn!(%server, error = text, source, nodes, "the server is not reachable; this proxy works on with what is in force and tries again");
            }
            Trouble::WrongServer => {
                tracing::error!(%server, error = text, source, nodes, "what answers at the server's address is not to be trusted, so no token is sent to it; this proxy works on with what is in force and tries again");
            }
            Trouble::UnknownToken => {
                tracing::error!(%server, error = text, source, nodes, "the server does not know this proxy's token; register again with a fresh join string, or put a new token into the token file");
            }
            Trouble::Refused => {
                tracing::error!(%server, error = text, source, nodes, "the server refuses this proxy");
            }
            Trouble::Replaced => {
                tracing::warn!(%server, error = text, "another stream with this proxy's token took over (a `sync` on this host does so for a moment); if it lasts, two proxies share one token: register one of them again");
            }
            Trouble::NoToken => {
                tracing::warn!(%server, error = text, source, nodes, "this proxy is not registered; run `pulse-sensor-proxy register --join STRING`");
            }
            Trouble::Revoked => {
                tracing::error!(%server, reason = text, "this proxy is revoked: nothing may be read until it is registered again with a fresh join string");
            }
            Trouble::State => {
                tracing::error!(error = text, "the state folder is in the way of reaching the server");
            }
        }
        crate::telemetry::status(&format!("{}: {text}; {nodes} nodes from {source}", trouble.as_str()));
    }

    /// Says once that the server is back.
    pub(super) fn settle(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!(server = %self.link.url(), "the server is back");
        }
    }
}

impl Trouble {
    fn as_str(self) -> &'static str {
        match self {
            Trouble::Unreachable => "server unreachable",
            Trouble::WrongServer => "not the server that is trusted",
            Trouble::UnknownToken => "token unknown",
            Trouble::Refused => "refused by the server",
            Trouble::Replaced => "token used twice",
            Trouble::NoToken => "not registered",
            Trouble::Revoked => "revoked",
            Trouble::State => "state folder",
        }
    }
}
