//! What is logged and how: the two keys that both programs share.

use std::fmt;

/// The least severe line that is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// What a developer asks for.
    Debug,
    /// States and changes; the default.
    #[default]
    Info,
    /// What somebody should look at.
    Warn,
    /// What failed.
    Error,
    /// Nothing.
    Off,
}

impl LogLevel {
    /// Every spelling that the key `log_level` takes; the older proxy's ones (`warning`, `fatal`, …) are among them.
    pub const CHOICES: &[(&str, Self)] = &[
        ("trace", Self::Trace),
        ("debug", Self::Debug),
        ("info", Self::Info),
        ("warn", Self::Warn),
        ("error", Self::Error),
        ("off", Self::Off),
        ("warning", Self::Warn),
        ("fatal", Self::Error),
        ("panic", Self::Error),
        ("disabled", Self::Off),
        ("none", Self::Off),
    ];

    /// The word that log filters know.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; the default.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Every spelling that the key `log_format` takes.
    pub const CHOICES: &[(&str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}
