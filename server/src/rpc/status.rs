//! Errors as gRPC statuses with `google.rpc` details: the one place that maps them.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use pulse_proto::reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::changes::ChangeError;
use crate::store::StoreError;

/// How long a caller waits before it tries a store again that could not write.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// How long a caller waits before it sends again what the server may have lost when it ended.
const GAP_RETRY: Duration = Duration::from_millis(100);

/// A refusal with its reason in `ErrorInfo`.
pub(super) fn refusal(code: Code, reason: &'static str, text: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, reason::DOMAIN, HashMap::new());
    Status::with_error_details(code, text, details)
}

/// A field that breaks a rule, named in `BadRequest`.
pub(super) fn invalid(field: impl Display, rule: impl Display) -> Status {
    let mut details = ErrorDetails::with_error_info(reason::INVALID_REQUEST, reason::DOMAIN, HashMap::new());
    details.add_bad_request_violation(field.to_string(), rule.to_string());
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {rule}"), details)
}

/// A refusal for now: it says when to come back.
pub(super) fn retry(code: Code, reason: &'static str, text: &str, after: Duration) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, reason::DOMAIN, HashMap::new());
    details.set_retry_info(Some(after));
    Status::with_error_details(code, text, details)
}

/// A change that was not made.
pub(super) fn change_status(error: &ChangeError) -> Status {
    let text = error.to_string();
    match error {
        ChangeError::Store(error) => store_status(error),
        ChangeError::Undecided => retry(Code::Unavailable, reason::STORE_UNAVAILABLE, &text, STORE_RETRY),
        ChangeError::Stopping => retry(Code::Unavailable, reason::DRAINING, &text, Duration::from_secs(2)),
        ChangeError::Join { reason, .. } => refusal(Code::Unauthenticated, reason, &text),
        ChangeError::NotActive(..) => refusal(Code::PermissionDenied, reason::PROXY_REVOKED, &text),
        ChangeError::NotFound { .. } => refusal(Code::NotFound, error.reason(), &text),
        ChangeError::AlreadyThere(_) => refusal(Code::AlreadyExists, error.reason(), &text),
        ChangeError::TooMany { reason, .. } => {
            retry(Code::ResourceExhausted, reason, &text, Duration::from_secs(60))
        }
        ChangeError::NeedsYes { .. }
        | ChangeError::TooManyGone { .. }
        | ChangeError::NothingHeld(_)
        | ChangeError::HeldChanged(_)
        | ChangeError::NoSource(..)
        | ChangeError::NotApproved(_)
        | ChangeError::NoWindow => refusal(Code::FailedPrecondition, error.reason(), &text),
        ChangeError::Invalid { field, rule } => invalid(field, rule),
        ChangeError::Token(_) => refusal(Code::Internal, error.reason(), &text),
    }
}

/// A store that did not take something. What it said stays inside.
pub(super) fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::Full => {
            let text = "more waits to be stored than the server takes: send it again later";
            retry(Code::ResourceExhausted, reason::OVERLOADED, text, STORE_RETRY)
        }
        StoreError::BehindGap => {
            let text =
                "the server began anew, and reports before this one are missing: send the oldest first";
            retry(Code::Unavailable, reason::STARTING, text, GAP_RETRY)
        }
        error => unavailable(Code::Unavailable, error),
    }
}

/// A store that did not take readings: they wait at their proxy, as with a server that has too much to do.
pub(super) fn report_status(error: &StoreError) -> Status {
    match error {
        StoreError::Full | StoreError::BehindGap => store_status(error),
        error => unavailable(Code::ResourceExhausted, error),
    }
}

fn unavailable(code: Code, error: &StoreError) -> Status {
    // The store itself says when it can no longer be written, and when it can again; calls are many.
    tracing::debug!(error = error as &dyn std::error::Error, "a call failed because the store did");
    let text = "the server cannot write its database at the moment: what is in force stays in force; try again later";
    retry(code, reason::STORE_UNAVAILABLE, text, STORE_RETRY)
}
