//! [`Failure`]: why a step of the bench did not work, in words for the one who runs it.

use std::error::Error;
use std::fmt;

/// What was tried, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub(crate) struct Failure {
    doing: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What most steps return.
pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure that is explained by its own text.
    pub(crate) fn new(text: impl Into<String>) -> Failure {
        Failure { doing: text.into(), source: None }
    }

    /// The whole chain in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.doing.clone();
        let mut next = self.source();
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}

/// Says what was tried when it failed.
pub(crate) trait Doing<T> {
    /// Wraps the error with what was tried.
    fn doing(self, what: impl fmt::Display) -> Outcome<T>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Outcome<T> {
        self.map_err(|error| Failure { doing: what.to_string(), source: Some(error.into()) })
    }
}
