//! The words that labels have for values, known beforehand.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// An enum whose variants are the values of a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// The word in logs and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                EncodeLabelValue::encode(&self.as_str(), encoder)
            }
        }
    };
}

label! {
    /// Why a watch stream ended.
    StreamEnd {
        /// The server went down and said goodbye.
        Drained = "drained",
        /// The proxy went away.
        Gone = "gone",
        /// The proxy was revoked or removed.
        Revoked = "revoked",
        /// Another stream with the same token took its place.
        Replaced = "replaced",
        /// Its token ended, as the proxy has another one.
        TokenEnded = "token_ended",
        /// The proxy took nothing of what it was sent for too long.
        Blocked = "blocked",
        /// The proxy holds more than this database knows.
        DatabaseOlder = "database_older",
        /// The server ended it because of an error of its own.
        Failed = "failed",
    }
}

label! {
    /// What became of asking Proxmox VE for the nodes of an instance.
    PollResult {
        /// What it said could be believed.
        Believed = "believed",
        /// It could not, and changed nothing.
        Doubted = "doubted",
    }
}

label! {
    /// What became of a report of temperatures.
    ReportResult {
        /// Its readings were stored.
        Stored = "stored",
        /// It had been stored before.
        Repeated = "repeated",
        /// Some of its nodes were refused, the others stored.
        Partial = "partial",
        /// None of it was stored.
        Refused = "refused",
    }
}

label! {
    /// Why a connection was closed that nobody else closed.
    ConnectionRefusal {
        /// There are as many as `limits.max_connections` allows.
        Limit = "limit",
        /// There are as many from its address as `limits.max_connections_per_address` allows.
        AddressLimit = "address_limit",
        /// Nothing was asked in the time that a new connection has for it.
        Idle = "idle",
        /// Frames of HTTP/2 that ask for nothing came faster than any client has a use for.
        Flood = "flood",
        /// The caller of the admin socket may not use it.
        NotAdmin = "not_admin",
    }
}

label! {
    /// Of which kind a token bucket was that was empty.
    Bucket {
        /// Watches of one proxy.
        Watch = "watch",
        /// Lists that one proxy asked for over the paths of older proxies.
        Pull = "pull",
        /// Registrations of one host.
        Registration = "registration",
        /// Calls of one address without a good token.
        FailedCall = "failed_call",
    }
}

label! {
    /// Why a TLS handshake failed.
    HandshakeFailure {
        /// It took too long.
        Timeout = "timeout",
        /// The caller spoke plain HTTP.
        PlainHttp = "plain_http",
        /// The caller spoke something else.
        NotTls = "not_tls",
        /// The caller went away in the middle.
        Closed = "closed",
        /// The caller refused: it does not trust the certificate, or has another pin.
        RefusedByPeer = "refused_by_peer",
        /// The caller speaks TLS 1.1 or older only; 1.2 and 1.3 are spoken here.
        Version = "version",
        /// No common cipher, or bytes that make no sense.
        Protocol = "protocol",
    }
}
