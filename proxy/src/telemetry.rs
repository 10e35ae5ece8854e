//! What this program says: log lines to standard error, and its state to the service manager.
//!
//! Always: a message is constant, what varies is a field. Never: a secret, since no type that holds one shows it.

use std::io::{self, IsTerminal};

use pulse_config::{LogFormat, LogLevel};
use sd_notify::NotifyState;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Begins to log. A second call in one process changes nothing.
pub fn init(level: LogLevel, format: LogFormat) {
    // The libraries below are quiet unless they are in trouble; the connection's own tries are told by `sync`.
    let filter = Targets::new()
        .with_target("pulse_sensor_proxy", of(level))
        .with_default(of(level).min(LevelFilter::WARN));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        // Under systemd the journal has its own clock.
        LogFormat::Text if std::env::var_os("JOURNAL_STREAM").is_some() => {
            lines.with_ansi(false).without_time().boxed()
        }
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
    };
    // An error means that a subscriber is there already, as in tests.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

fn of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Off => LevelFilter::OFF,
    }
}

/// Tells the service manager that the program is up. Without one, nothing happens.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Tells the service manager that the program ends.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Tells the service manager, in one line, how things are.
pub fn status(text: &str) {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    notify(&[NotifyState::Status(&line)]);
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager did not take a notice");
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
