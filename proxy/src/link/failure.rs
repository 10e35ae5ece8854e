//! What a failed call means for the one who made it.
//!
//! In: a gRPC status. Out: [`Failure`], which says what to do next, and a text for people.
//! Always: reasons are taken from `ErrorInfo`, not from words; codes decide where there is none.

use std::error::Error;
use std::time::Duration;

use pulse_proto::reason;
use pulse_proto::text::one_line;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::dial::DialError;

/// A failed call, sorted by what can be done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The proxy is revoked: nothing may be read until it is registered again.
    Revoked(String),
    /// The server does not know the token: stay on what there is, look for another token.
    UnknownToken(String),
    /// Another stream with the same token took over.
    Replaced(String),
    /// The request itself is refused, so that repeating it soon is of no use.
    Refused(String),
    /// No answer came: nobody is there, or the connection broke.
    Unreachable(String),
    /// What answers is not the server that is trusted: its certificate says so, and no token was sent.
    WrongServer(String),
    /// The server answers that it cannot now, being overloaded or about to end: come back later.
    Unavailable {
        /// What happened.
        text: String,
        /// The server's least time to wait, if it says one.
        retry_after: Option<Duration>,
    },
}

impl Failure {
    /// Sorts a status.
    pub fn of(status: &Status) -> Failure {
        let text = describe(status);
        let info = status.get_details_error_info().filter(|info| info.domain == reason::DOMAIN);
        match (info.as_ref().map(|info| info.reason.as_str()), status.code()) {
            (Some(reason::PROXY_REVOKED), _) => Failure::Revoked(text),
            (Some(reason::UNKNOWN_TOKEN | reason::MISSING_TOKEN), _) | (None, Code::Unauthenticated) => {
                Failure::UnknownToken(text)
            }
            (Some(reason::REPLACED_BY_ANOTHER_STREAM), _) => Failure::Replaced(text),
            (
                _,
                Code::PermissionDenied
                | Code::InvalidArgument
                | Code::Unimplemented
                | Code::FailedPrecondition
                | Code::Unauthenticated
                | Code::NotFound,
            ) => Failure::Refused(text),
            _ if is_mistrusted(status) => Failure::WrongServer(text),
            // Only what failed on this side carries its cause.
            _ if status.source().is_some() => Failure::Unreachable(text),
            _ => Failure::Unavailable {
                text,
                retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
            },
        }
    }

    /// What happened, for people.
    pub fn text(&self) -> &str {
        match self {
            Failure::Revoked(text)
            | Failure::UnknownToken(text)
            | Failure::Replaced(text)
            | Failure::Refused(text)
            | Failure::Unreachable(text)
            | Failure::WrongServer(text)
            | Failure::Unavailable { text, .. } => text,
        }
    }
}

/// The `ErrorInfo` reason of a status, if it is one of ours.
pub(crate) fn reason_of(status: &Status) -> Option<String> {
    status.get_details_error_info().filter(|info| info.domain == reason::DOMAIN).map(|info| info.reason)
}

/// A status in one line: what failed on the way here, with its causes, or what the server says.
pub fn describe(status: &Status) -> String {
    // A failure on this side carries its cause; the layers between say "transport error" and the like.
    let mut cause = status.source();
    let mut told = Vec::new();
    while let Some(error) = cause {
        if is_cut_off(error) {
            return "the connection was cut off: the server or the network went away".to_owned();
        }
        let text = error.to_string();
        let is_wrapper = error.is::<tonic::transport::Error>() || error.is::<tonic::ConnectError>();
        if !is_wrapper && !told.iter().any(|earlier: &String| earlier.contains(&text)) {
            told.push(text);
        }
        cause = error.source();
    }
    match (told.is_empty(), status.message()) {
        (false, _) => told.join(": "),
        (true, "") => format!("{:?}", status.code()),
        // It is shown on terminals, and kept on the disk when it says that this proxy is revoked.
        (true, message) => one_line(message),
    }
}

/// Whether a handshake ended because of the certificate, in a way that time does not mend.
fn is_mistrusted(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if matches!(error.downcast_ref(), Some(DialError::Mistrusted { .. })) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What the end of a process or of a network looks like from here; the libraries' words for it help nobody.
fn is_cut_off(error: &(dyn Error + 'static)) -> bool {
    use std::io::ErrorKind;
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        // It shows what the connection said as its own text, not as its cause.
        let is_farewell = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
        return error.is_io() || is_farewell;
    }
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(
        kind,
        Some(
            ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn status(code: Code, reason: &str) -> Status {
        let details = ErrorDetails::with_error_info(reason, reason::DOMAIN, []);
        Status::with_error_details(code, "said", details)
    }

    #[test]
    fn reasons_go_before_codes() {
        assert_eq!(
            Failure::of(&status(Code::PermissionDenied, reason::PROXY_REVOKED)),
            Failure::Revoked("said".into())
        );
        assert_eq!(
            Failure::of(&status(Code::Unauthenticated, reason::UNKNOWN_TOKEN)),
            Failure::UnknownToken("said".into())
        );
        assert_eq!(
            Failure::of(&status(Code::Aborted, reason::REPLACED_BY_ANOTHER_STREAM)),
            Failure::Replaced("said".into())
        );
        assert_eq!(Failure::of(&Status::permission_denied("x")), Failure::Refused("x".into()));
        assert_eq!(Failure::of(&Status::unauthenticated("x")), Failure::UnknownToken("x".into()));
    }

    #[test]
    fn retry_info_is_kept_whatever_the_code() {
        for code in [Code::ResourceExhausted, Code::Unavailable] {
            let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
            let status = Status::with_error_details(code, "busy", details);
            let expected =
                Failure::Unavailable { text: "busy".into(), retry_after: Some(Duration::from_secs(7)) };
            assert_eq!(Failure::of(&status), expected);
        }
    }
}
