//! The tokens that a call brings in its headers.
//!
//! Never: judges them; who is behind a token, [`super::auth`] finds out.

use axum::http::{HeaderMap, header};
use pulse_proto::TOKEN_METADATA;

/// The token of an `authorization: Bearer …` header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// The token of the header of its own, [`TOKEN_METADATA`].
pub(super) fn beside(headers: &HeaderMap) -> Option<&str> {
    headers.get(TOKEN_METADATA).and_then(|value| value.to_str().ok())
}
