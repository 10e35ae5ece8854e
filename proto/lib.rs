//! The contract between Pulse and its sensor proxies: what both ends must agree on to the byte.
//!
//! In: bytes from the wire or from disk, names and addresses from people. Out: [`Node`], [`Allowlist`],
//! [`SignedAllowlist`], tokens and the generated messages in [`v1`].
//! Always: a value of a domain type is valid; parsing is the only way to one.
//! Never: I/O or a runtime. The system's clock and random bytes are reached only through [`Clock`] and [`Chance`], and for
//! new tokens and keys.

pub mod allowlist;
pub mod chance;
pub mod clock;
pub mod codec;
pub mod encoded;
pub mod hash;
pub mod hex;
pub mod join;
pub mod node;
pub mod reason;
pub mod scope;
pub mod sensor;
pub mod signature;
pub mod snapshot;
pub mod text;
pub mod token;
mod veiled;

pub use allowlist::Allowlist;
pub use chance::Chance;
pub use clock::Clock;
pub use hash::ListHash;
pub use join::{JoinString, Pin};
pub use node::{Node, NodeError};
pub use scope::Scope;
pub use sensor::SensorKind;
pub use snapshot::{Position, Refusal, SignedAllowlist};
pub use token::{Token, TokenDigest, TokenKind};

/// The messages, the client and the server of `pulse.control.v1`, generated from `control.proto`.
pub mod v1 {
    tonic::include_proto!("pulse.control.v1");
    include!(concat!(env!("OUT_DIR"), "/pulse.control.v1.ControlPlaneService.rs"));
}

/// The descriptors of the contract and all that it imports, for reflection: an encoded `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The port on which Pulse serves everything.
pub const DEFAULT_PORT: u16 = 7655;

/// The most nodes that a list may have; a proxy refuses a longer one.
pub const MAX_NODES: usize = 10_000;

/// The most bytes of one message to a proxy: 10,000 nodes of at most 63 + 253 bytes with their framing
/// are 3.2 MiB.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// The most readings of one node, and the fewest that a server takes in one report.
pub const MAX_READINGS: usize = 4_096;

/// The longest name of a sensor in a report, in bytes.
pub const MAX_SENSOR_BYTES: usize = 192;

/// The longest name of a chip, and the longest label, in a report, in bytes: 64 characters of UTF-8.
pub const MAX_LABEL_BYTES: usize = 256;

/// The longest reason or detail that is meant for a person, in bytes.
pub const MAX_REASON_BYTES: usize = 512;

/// The metadata key that carries a ctrl token beside, or instead of, `authorization`.
pub const TOKEN_METADATA: &str = "x-proxy-token";
