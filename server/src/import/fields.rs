//! The values of a JSON object as the older server reads them: keys in any case, and what is not there is empty.
//!
//! Never: repeats a value, which may be a secret.

use serde_json::{Map, Value};

/// An object.
#[derive(Clone, Copy)]
pub(super) struct Fields<'v>(&'v Map<String, Value>);

impl<'v> Fields<'v> {
    /// Takes an object.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn of(value: &'v Value) -> Result<Fields<'v>, String> {
        value.as_object().map(Fields).ok_or_else(|| format!("it must be an object, and is {}", kind(value)))
    }

    /// A text without white space around it.
    pub(super) fn text(self, key: &str) -> Result<&'v str, String> {
        match self.find(key) {
            None => Ok(""),
            Some(Value::String(text)) => Ok(text.trim()),
            Some(other) => Err(format!("{key} must be text, and is {}", kind(other))),
        }
    }

    /// Yes or no.
    pub(super) fn flag(self, key: &str) -> Result<bool, String> {
        match self.find(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(format!("{key} must be true or false, and is {}", kind(other))),
        }
    }

    /// A list.
    pub(super) fn list(self, key: &str) -> Result<&'v [Value], String> {
        match self.find(key) {
            None => Ok(&[]),
            Some(Value::Array(values)) => Ok(values),
            Some(other) => Err(format!("{key} must be a list, and is {}", kind(other))),
        }
    }

    fn find(self, key: &str) -> Option<&'v Value> {
        let in_any_case =
            || self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value);
        self.0.get(key).or_else(in_any_case).filter(|value| !value.is_null())
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
