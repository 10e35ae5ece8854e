//! `config check`: says every mistake.

use serde_json::json;

use super::{Answer, CommandError};
use crate::config::{Config, ConfigSources};

pub(super) fn check(sources: &ConfigSources) -> Result<Answer, CommandError> {
    let (config, warnings) = Config::load(sources)?;
    let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let path = config.path.display().to_string();
    let server = config.control_plane.as_ref().map(|control| control.url.to_string());
    let static_entries = config.static_list.entries().len();
    let mut text: String = warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    let place = if config.path.exists() { "is good" } else { "does not exist; the defaults count" };
    text.push_str(&format!(
        "{path} {place}: server {}, {static_entries} static entries",
        server.as_deref().unwrap_or("none (the static list alone)")
    ));
    let json = json!({
        "ok": true,
        "config": path,
        "server": server,
        "static_entries": static_entries,
        "warnings": warnings,
    });
    Ok(Answer { text, json })
}
