//! `status`: what this proxy would work with if it started now, from its disk alone.

use std::time::SystemTime;

use serde_json::json;

use super::{Answer, CommandError};
use crate::commands::sync::{nodes_json, refuse_trouble};
use crate::config::Config;
use crate::gate::{InForce, fall_back};
use crate::identity::Home;
use crate::register::host;
use crate::static_nodes;
use crate::sync::first_in_force;
use crate::sync::standing::Standing;

pub(super) fn status(config: Config) -> Result<Answer, CommandError> {
    let fixed = static_nodes(&config.static_list);
    let home = Home::new(&config.state_dir);
    let hostname = host::hostname().unwrap_or_default();
    let Some(control) = config.control_plane else {
        let in_force = fall_back(None, None, &fixed.nodes, fixed.networks);
        let text = format!(
            "server      none: the static list alone\n{}\nhost        {hostname}",
            list_text(&in_force, fixed.networks)
        );
        let json = json!({
            "server": null,
            "list": list_json(&in_force, fixed.networks),
            "hostname": hostname,
        });
        return Ok(Answer { text, json });
    };
    let pending = home.pending()?.is_some();
    let mut standing = Standing::load(home, control);
    let in_force = first_in_force(&mut standing, &fixed);
    refuse_trouble(&standing).map_err(|error| {
        let list = list_text(&in_force, fixed.networks);
        CommandError { text: format!("{}; until then `run` works with:\n{list}", error.text), ..error }
    })?;
    let identity = standing.identity();
    let id = identity.and_then(|identity| identity.proxy_id).map(|id| id.to_string());
    let registered = match (standing.token(), pending, standing.revoked()) {
        (_, _, Some(reason)) => format!("revoked: {reason}"),
        (_, true, _) => "waits: `run` tries the registration again".to_owned(),
        (Some(_), _, _) => "yes".to_owned(),
        (None, _, _) => "no: run `pulse-sensor-proxy register --join STRING`".to_owned(),
    };
    let is_running = standing.home().is_in_use();
    let registered_as =
        identity.and_then(|identity| identity.hostname.as_ref()).map(|hostname| hostname.name.clone());
    let mut text = format!(
        "server      {}\nproxy       {}\nregistered  {registered}\nrunning     {}\n{}\nhost        {}",
        standing.control().url,
        id.as_deref().unwrap_or("not known"),
        if is_running { "yes" } else { "no" },
        list_text(&in_force, fixed.networks),
        registered_as.as_deref().unwrap_or(&hostname),
    );
    let pins: Vec<String> = standing.pins().iter().map(ToString::to_string).collect();
    if let [_, _, ..] = &pins[..] {
        text.push_str(&format!("\npinned      {} (the server exchanges its key)", pins.join(", ")));
    }
    if let Some(kept) = standing.kept_problem() {
        text.push_str(&format!("\nkept list   {}: {}", kept.reason, kept.text));
    }
    let json = json!({
        "server": standing.control().url.to_string(),
        "server_id": identity.map(|identity| identity.server_id.to_string()),
        "proxy_id": id,
        "registered": standing.token().is_some() && standing.revoked().is_none(),
        "registration_pending": pending,
        "revoked": standing.revoked(),
        "running": is_running,
        "pinned": pins.first(),
        "pins": pins,
        "insecure_skip_verify": standing.control().insecure_skip_verify,
        "list": list_json(&in_force, fixed.networks),
        "cache": standing.kept_problem().map(|kept| kept.reason),
        "cache_detail": standing.kept_problem().map(|kept| &kept.text),
        "state": standing.folder().map(|folder| folder.path().display().to_string()),
        "hostname": registered_as.unwrap_or(hostname),
    });
    Ok(Answer { text, json })
}

fn age(in_force: &InForce) -> Option<u64> {
    match in_force {
        InForce::Pushed { since, .. } | InForce::Cached { since, .. } => {
            Some(SystemTime::now().duration_since(*since).unwrap_or_default().as_secs())
        }
        InForce::Static { .. } | InForce::Nothing(_) => None,
    }
}

fn list_text(in_force: &InForce, networks: usize) -> String {
    let source = in_force.source().as_str();
    let mut text = match (in_force.closed(), in_force.list()) {
        (Some(why), _) => return format!("list        none: {why}"),
        (None, Some(list)) => format!(
            "list        {source}: epoch {} revision {}, applied {} s ago, {} nodes",
            list.position.epoch,
            list.position.revision,
            age(in_force).unwrap_or_default(),
            in_force.nodes().len()
        ),
        (None, None) => {
            format!("list        {source}: {} nodes, {networks} networks", in_force.nodes().len())
        }
    };
    for node in in_force.nodes() {
        text.push_str(&format!("\n            {node}"));
    }
    text
}

fn list_json(in_force: &InForce, networks: usize) -> serde_json::Value {
    let list = in_force.list();
    json!({
        "source": in_force.source().as_str(),
        "why_closed": in_force.closed(),
        "epoch": list.map(|list| list.position.epoch),
        "revision": list.map(|list| list.position.revision),
        "scope": list.map(|list| list.scope.to_string()),
        "hash": list.map(|list| list.allowlist.hash().to_string()),
        "age_seconds": age(in_force),
        "nodes": nodes_json(in_force.nodes()),
        "static_networks": if list.is_none() { networks } else { 0 },
    })
}
