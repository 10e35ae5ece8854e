//! `Debug` of the messages that hold a secret: everything but the secret.
//!
//! The generated one would show it to whoever logs a message, so `build.rs` leaves it out for these.

use std::fmt;

use crate::v1::{RegisterResponse, RotateTokenResponse, register_response::List};

/// Whether there is a secret, in its place.
fn veiled(secret: &str) -> &'static str {
    if secret.is_empty() { "" } else { "…" }
}

impl fmt::Debug for RegisterResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RegisterResponse { proxy_id, ctrl_token, instance, server, token, list } = self;
        f.debug_struct("RegisterResponse")
            .field("proxy_id", proxy_id)
            .field("ctrl_token", &veiled(ctrl_token))
            .field("instance", instance)
            .field("list", list)
            .field("server", server)
            .field("token", &veiled(token))
            .finish()
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            List::Snapshot(snapshot) => f.debug_tuple("Snapshot").field(snapshot).finish(),
            List::Waiting(waiting) => f.debug_tuple("Waiting").field(waiting).finish(),
        }
    }
}

impl fmt::Debug for RotateTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RotateTokenResponse { ctrl_token, use_before } = self;
        f.debug_struct("RotateTokenResponse")
            .field("ctrl_token", &veiled(ctrl_token))
            .field("use_before", use_before)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn no_token_is_shown() {
        let secret = || "pctl_secret".to_owned();
        let registered =
            RegisterResponse { ctrl_token: secret(), token: secret(), ..RegisterResponse::default() };
        let rotated = RotateTokenResponse { ctrl_token: secret(), use_before: None };
        for shown in [format!("{registered:?} {registered:#?}"), format!("{rotated:?} {rotated:#?}")] {
            assert!(!shown.contains("secret") && shown.contains('…'), "{shown}");
        }
        assert!(!format!("{:?}", RegisterResponse::default()).contains('…'), "no token is told from one");
    }

    /// A field that is called a token or a secret is in a message that this file knows.
    #[test]
    fn every_message_with_a_secret_is_veiled() {
        let all = FileDescriptorSet::decode(crate::DESCRIPTORS).unwrap();
        let ours = all.file.iter().find(|file| file.package() == "pulse.control.v1").unwrap();
        for message in &ours.message_type {
            for field in &message.field {
                let is_secret =
                    ["token", "secret", "password"].iter().any(|word| field.name().contains(word));
                let is_veiled = ["RegisterResponse", "RotateTokenResponse"].contains(&message.name());
                // `rotate_token` is a word of the server, without a token in it.
                assert!(
                    !is_secret || is_veiled || field.name() == "rotate_token",
                    "{}.{}",
                    message.name(),
                    field.name()
                );
            }
        }
    }
}
