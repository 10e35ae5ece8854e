//! The reasons that `google.rpc.ErrorInfo` carries: what a program may branch on, in the domain `pulse`.

/// The domain of every reason here.
pub const DOMAIN: &str = "pulse";

/// No credential came with the call.
pub const MISSING_TOKEN: &str = "MISSING_TOKEN";
/// The token is not known to this server.
pub const UNKNOWN_TOKEN: &str = "UNKNOWN_TOKEN";
/// As many hosts wait for approval as may.
pub const TOO_MANY_UNAPPROVED: &str = "TOO_MANY_UNAPPROVED";
/// A debug token only watches.
pub const DEBUG_TOKEN: &str = "DEBUG_TOKEN";
/// The proxy was revoked or removed.
pub const PROXY_REVOKED: &str = "PROXY_REVOKED";
/// The join token is past its time.
pub const JOIN_TOKEN_EXPIRED: &str = "JOIN_TOKEN_EXPIRED";
/// The join token has no uses left.
pub const JOIN_TOKEN_USED: &str = "JOIN_TOKEN_USED";
/// The join token was revoked.
pub const JOIN_TOKEN_REVOKED: &str = "JOIN_TOKEN_REVOKED";
/// A field of the request breaks a rule; `google.rpc.BadRequest` names it.
pub const INVALID_REQUEST: &str = "INVALID_REQUEST";
/// Another stream with the same token took over.
pub const REPLACED_BY_ANOTHER_STREAM: &str = "REPLACED_BY_ANOTHER_STREAM";
/// The stream took nothing for too long.
pub const STREAM_BLOCKED: &str = "STREAM_BLOCKED";
/// The server is going down.
pub const DRAINING: &str = "DRAINING";
/// The store cannot be written; what is in force stays in force.
pub const STORE_UNAVAILABLE: &str = "STORE_UNAVAILABLE";
/// Too many calls of one caller in a short time: wait as long as `google.rpc.RetryInfo` says.
pub const RATE_LIMITED: &str = "RATE_LIMITED";
/// The server has not loaded its database yet.
pub const STARTING: &str = "STARTING";
/// Too much at once: wait as long as `google.rpc.RetryInfo` says.
pub const OVERLOADED: &str = "OVERLOADED";
