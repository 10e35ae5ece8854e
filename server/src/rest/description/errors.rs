//! The errors that operations may be answered with, which follow from what an operation takes: so no handler lists them.

use axum::http::Method;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{Components, ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use crate::api::ApiError;

/// Whose answer it may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// Of those that are not open to anybody.
    Known,
    /// Of those that take something: a path with places, a query, a body.
    Input,
    /// Of those that take a body.
    Body,
    /// Of those that change something.
    Change,
}

/// Status, name, whose answer it may be, and what it says.
const ERRORS: [(u16, &str, To, &str); 10] = [
    (
        400,
        "NotReadable",
        To::Input,
        "The request cannot be read: its path, its query, or a body that is no JSON.",
    ),
    (401, "NobodyKnown", To::Known, "Nobody is known to have asked: log in, or send an API token."),
    (403, "NotAllowed", To::Known, "Whoever asked may not."),
    (404, "NotFound", To::Input, "There is no such thing."),
    (409, "InTheWay", To::Change, "Something that is there stands in the way; `reason` says what."),
    (413, "TooLarge", To::Body, "The body is too large: at most 256 KiB."),
    (415, "OtherType", To::Body, "The body is not `application/json`."),
    (422, "BrokenRule", To::Input, "A field breaks a rule, and `field` names it."),
    (429, "TooMany", To::Known, "Too many requests; `Retry-After` says when to come back."),
    (
        503,
        "NotNow",
        To::Known,
        "The server cannot at the moment: it goes down, or its database does not answer.",
    ),
];

/// The errors, once for all operations.
pub(super) fn define(components: &mut Components) {
    components.schemas.insert(ApiError::name().into_owned(), ApiError::schema());
    for (_, name, _, text) in ERRORS {
        components.responses.insert(name.to_owned(), RefOr::T(problem(text)));
    }
}

fn problem(text: &str) -> Response {
    let schema = Ref::from_schema_name(ApiError::name());
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(text).content("application/problem+json", content).build()
}

/// Adds to an operation those that it may be answered with. What a handler says of a status itself stays.
pub(super) fn add(method: &Method, operation: &mut Operation) {
    let takes_body = operation.request_body.is_some();
    let takes_input = takes_body || operation.parameters.as_ref().is_some_and(|all| !all.is_empty());
    let is_open = operation.security.as_ref().is_some_and(|ways| ways == &[Default::default()]);
    let applies = |to: To| match to {
        To::Known => !is_open,
        To::Input => takes_input,
        To::Body => takes_body,
        To::Change => *method != Method::GET,
    };
    for (status, name, ..) in ERRORS.iter().filter(|(_, _, to, _)| applies(*to)) {
        let response = RefOr::Ref(Ref::from_response_name(*name));
        operation.responses.responses.entry(status.to_string()).or_insert(response);
    }
}
