//! Where log lines go: standard error, as text or as one JSON object a line.
//!
//! In: level and format from the configuration; `RUST_LOG`, if it is set, says the level in its place.
//! Always: one subscriber for the whole program; colours only on a terminal.
//! Never: a file of its own; the service manager keeps the lines.

use std::io::IsTerminal;

use pulse_config::{LogFormat, LogLevel};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Libraries that say more at `debug` than anybody who looks for a fault in Pulse can read.
const LOUD: [&str; 6] = ["h2", "hyper", "hyper_util", "rustls", "tonic", "tower"];

/// Sends the program's log lines to standard error from now on. Only the first call counts.
pub fn init(level: LogLevel, format: LogFormat) {
    let (filter, wrong) = filter(level, std::env::var("RUST_LOG").ok().as_deref());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // An error says that a subscriber is there already, as in a test that runs the program twice.
    let _ = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    if let Some(error) = wrong {
        tracing::warn!(%error, "RUST_LOG cannot be read; the configured level counts");
    }
}

/// The filter that counts, and what is wrong with `asked`, the value of `RUST_LOG`.
fn filter(level: LogLevel, asked: Option<&str>) -> (EnvFilter, Option<ParseError>) {
    let (asked, wrong) = match asked.filter(|asked| !asked.is_empty()).map(EnvFilter::try_new) {
        Some(Ok(filter)) => (Some(filter), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let configured = || {
        let mut directives = level.as_str().to_owned();
        if matches!(level, LogLevel::Trace | LogLevel::Debug) {
            directives.extend(LOUD.iter().map(|library| format!(",{library}=info")));
        }
        EnvFilter::new(directives)
    };
    (asked.unwrap_or_else(configured), wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_log_wins_over_the_configured_level_unless_it_is_wrong() {
        assert_eq!(filter(LogLevel::Info, None).0.to_string(), "info");
        assert_eq!(filter(LogLevel::Info, Some("")).0.to_string(), "info");
        assert_eq!(filter(LogLevel::Info, Some("pulse=debug")).0.to_string(), "pulse=debug");
        let (counts, wrong) = filter(LogLevel::Warn, Some("pulse=loud=er"));
        assert_eq!(counts.to_string(), "warn");
        assert!(wrong.is_some());
    }

    #[test]
    fn debug_leaves_the_libraries_quiet() {
        let filter = filter(LogLevel::Debug, None).0.to_string();
        assert!(
            filter.contains("debug") && filter.contains("h2=info") && filter.contains("rustls=info"),
            "{filter}"
        );
    }
}
