//! How a client of Pulse reaches its server: the sensor proxies, and the command line from afar.
//!
//! In: an address as people write it, pinned keys. Out: a [`ServerUrl`], and a [`Verifier`] for rustls.
//! Always: TLS; a pin is checked inside the handshake, before anything is sent. Never: dials, or reads a file.

pub mod server_url;
pub mod verifier;

pub use server_url::{ServerUrl, ServerUrlError};
pub use verifier::{Demand, Mistrust, Verifier};
