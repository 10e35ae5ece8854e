//! The body of a request: bounded in size and in time, and JSON.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::answer::Refused;

/// How long a body may take to come. Headers have a time of their own.
const BODY_TIME: Duration = Duration::from_secs(10);

/// Reads a body of at most `most` bytes. Keys that are not known are no mistake: a later installer may send more.
pub(super) async fn read<T: DeserializeOwned>(body: Body, most: usize) -> Result<T, Refused> {
    let bytes = match timeout(BODY_TIME, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let text = format!("the body has more than {most} bytes, or its connection broke off");
            return Err(Refused::bad("invalid_json", text));
        }
        Err(_) => {
            let text = "the body did not come in time: is the connection slow, or its length wrong?";
            return Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", text));
        }
    };
    // The parser repeats values that do not fit: none of what comes here is a secret, and it is bounded.
    serde_json::from_slice(&bytes).map_err(|error| {
        let said: String = error.to_string().chars().take(200).collect();
        Refused::bad("invalid_json", format!("the body is not the JSON that is asked for here: {said}"))
    })
}
