//! What this server is, as proxies need to know it: encoded and signed once, not for each stream.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use pulse_proto::encoded::Encoded;
use pulse_proto::signature::PinsStatement;
use pulse_proto::{Pin, v1};

use super::Rpc;

/// The introduction of the server while its authority has these pins.
pub(super) struct Introduction {
    /// The pins that it names.
    pub(super) pins: Arc<Vec<Pin>>,
    /// As a message of its own.
    pub(super) info: v1::ServerInfo,
    /// As what is added to the first message of a stream.
    pub(super) message: Arc<Encoded<v1::WatchAuthorizedNodesResponse>>,
}

/// The present introduction, once somebody asked for it.
#[derive(Default)]
pub struct Present(ArcSwapOption<Introduction>);

impl fmt::Debug for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Present").finish_non_exhaustive()
    }
}

impl Rpc {
    /// What this server is.
    pub(super) fn introduction(&self) -> Arc<Introduction> {
        let pins = self.pins();
        if let Some(present) = self.introduction.0.load_full().filter(|made| Arc::ptr_eq(&made.pins, &pins)) {
            return present;
        }
        let info = self.server_info(&pins);
        let message = v1::WatchAuthorizedNodesResponse { kind: None, server: Some(info.clone()) };
        let made = Arc::new(Introduction { pins, info, message: Arc::new(Encoded::new(&message)) });
        self.introduction.0.store(Some(Arc::clone(&made)));
        made
    }

    fn server_info(&self, pins: &[Pin]) -> v1::ServerInfo {
        let server_id = self.changes.catalog().server_id.to_string();
        let key = self.signing_key.public();
        let ca_pins: Vec<String> = pins.iter().map(ToString::to_string).collect();
        let statement = PinsStatement { server_id: &server_id, pins: &ca_pins };
        let (ca_pins_signature, ca_pins_key_id) = match ca_pins.is_empty() {
            true => (Vec::new(), String::new()),
            false => (self.signing_key.sign_pins(&statement), key.key_id()),
        };
        v1::ServerInfo {
            server_id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            refresh_interval: self.refresh_interval.try_into().ok(),
            signing_keys: vec![v1::SigningKey {
                key_id: key.key_id(),
                public_key: key.as_bytes().to_vec(),
                announcement_signature: Vec::new(),
                announced_by: String::new(),
            }],
            ca_pins,
            ca_pins_signature,
            ca_pins_key_id,
        }
    }

    /// The pins to which the server's certificate leads; none with an admin's own, or in plain text.
    pub(super) fn pins(&self) -> Arc<Vec<Pin>> {
        self.tls.as_ref().map_or_else(|| Arc::clone(&self.no_pins), |tls| tls.pins())
    }
}
