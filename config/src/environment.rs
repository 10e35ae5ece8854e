//! The variables of the process, as a value that is handed in.
//!
//! Always: a variable that is set but empty counts as not set, as service managers and containers mean it.
//! Never: shows a value in `Debug`, because secrets come this way too.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;

/// The environment that a configuration is read under.
#[derive(Clone, Default)]
pub struct Environment(HashMap<String, OsString>);

impl Environment {
    /// Takes the variables of this process; those whose name is not UTF-8 cannot be ours and are left out.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
    }

    /// The value of `name`, if it is set and not empty.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_variable_counts_as_not_set() {
        let environment = Environment::from_iter([("PULSE_LISTEN", ""), ("PULSE_LOG_LEVEL", "debug")]);
        assert_eq!(environment.value("PULSE_LISTEN"), None);
        assert_eq!(environment.value("PULSE_LOG_LEVEL"), Some(OsStr::new("debug")));
    }

    #[test]
    fn debug_shows_no_value() {
        let environment = Environment::from_iter([("PULSE_JOIN", "pjoin_secret")]);
        assert!(!format!("{environment:?}").contains("secret"));
    }
}
