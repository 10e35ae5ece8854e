//! `collect`: reads the sensors of this host once, whatever list is in force, and shows what they say.

use std::fmt::Write;

use serde_json::json;

use super::{Answer, CommandError};
use crate::config::Config;
use crate::sensors;

pub(super) fn collect(config: &Config) -> Result<Answer, CommandError> {
    let readings = sensors::read_host(&config.sysfs_root).map_err(|error| CommandError {
        is_usage: true,
        ..CommandError::failed("sensors_unreadable", &error)
    })?;
    let mut text = String::new();
    // Writing to a string cannot fail.
    for reading in &readings.readings {
        let _ = writeln!(
            text,
            "{:<14} {:<34} {:<24} {:>6.1} °C",
            reading.kind.as_str(),
            reading.sensor,
            reading.label,
            reading.temperature.degrees()
        );
    }
    for dropped in &readings.dropped {
        let raw = dropped.raw.as_deref().map(|raw| format!(" ({raw})")).unwrap_or_default();
        let _ = writeln!(
            text,
            "{:<14} {:<34} {:<24} {}{raw}",
            "dropped", dropped.sensor, dropped.label, dropped.why
        );
    }
    if readings.readings.is_empty() {
        let _ = writeln!(text, "no temperature below {}", config.sysfs_root.display());
    }
    let json = serde_json::to_value(&readings).unwrap_or_else(|error| json!({ "error": error.to_string() }));
    Ok(Answer { text: text.trim_end().to_owned(), json })
}
