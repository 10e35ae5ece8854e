//! What a person sees of each answer. Pure: an answer and the time in, text out.

use std::time::SystemTime;

use serde_json::Value;

use super::text::{Table, ago, clean, count, or_dash, seconds, span, time};
use crate::api::{
    Allowlist, Allowlists, AuditRow, Instance, Instances, JoinTokens, JoinWindow, Mark, Node,
    NodeTemperatures, Proxies, Proxy, Reading, Replica, ScopeKind, Status, Temperatures,
};
use crate::audit::{FROM, RESULT};

/// How many sensors besides the CPU a line of `temps` has room for.
const OTHER_SENSORS: usize = 2;

pub(super) fn instances(all: &Instances, now: SystemTime) -> String {
    if all.instances.is_empty() {
        return "no instance yet; add one with `pulse instance add NAME --pve https://HOST:8006 …` (see its --help), or `--endpoint NODE=ADDR`\n".to_owned();
    }
    let mut table = Table::new(["NAME", "NODES", "PROXIES", "SOURCE", "STATE", "ADDED", "ID"]);
    for one in &all.instances {
        table.row([
            one.name.clone(),
            one.endpoints.len().to_string(),
            one.proxies.to_string(),
            one.pve.as_ref().map_or("manual", |_| "pve").to_owned(),
            state(one),
            ago(one.created_at, now),
            one.id.to_string(),
        ]);
    }
    let problems = all.instances.iter().filter_map(|one| Some((one, one.pve.as_ref()?.problem.as_ref()?)));
    let problems = problems.map(|(one, problem)| format!("{}: {}\n", clean(&one.name), clean(problem)));
    table.render() + &problems.collect::<String>()
}

/// An instance in a few words.
fn state(one: &Instance) -> String {
    let waiting = one.held.iter().filter(|held| !held.is_discarded).count();
    let mut words = vec![one.pve.as_ref().map_or(one.standing.as_str(), |pve| &pve.state).to_owned()];
    if waiting > 0 {
        words.push("held".to_owned());
    }
    if !one.conflicts.is_empty() {
        words.push("conflict".to_owned());
    }
    words.join(", ")
}

fn nodes(nodes: &[Node]) -> String {
    if nodes.is_empty() {
        return "no node\n".to_owned();
    }
    let mut table = Table::new(["NODE", "ADDRESS"]);
    for node in nodes {
        table.row([node.name.clone(), or_dash(Some(&node.ip))]);
    }
    table.render()
}

pub(super) fn join_tokens(all: &JoinTokens, now: SystemTime) -> String {
    let window = all.window.as_ref().map(|window| join_window(window, now)).unwrap_or_default();
    if all.join_tokens.is_empty() {
        return format!("{window}no join token yet; make one with `pulse join create`\n");
    }
    let mut table = Table::new(["ID", "STATE", "INSTANCE", "SCOPE", "USED", "ENDS", "MADE"]);
    for token in &all.join_tokens {
        table.row([
            token.id.clone(),
            token.state.as_str().to_owned(),
            or_dash(token.instance.as_ref()),
            token.scope.as_str().to_owned(),
            format!("{}/{}", token.used, token.uses),
            ago(token.expires_at, now),
            ago(token.created_at, now),
        ]);
    }
    window + &table.render()
}

fn join_window(window: &JoinWindow, now: SystemTime) -> String {
    let from = if window.from.is_empty() { "everywhere".to_owned() } else { clean(&window.from.join(", ")) };
    let (state, at) = match window.closed_at {
        _ if window.is_open => ("open: closes", window.closes_at),
        Some(closed_at) => ("closed", closed_at),
        None => ("closed", window.closes_at),
    };
    format!("hosts without a join token, from {from}: {state} {}\n", ago(at, now))
}

pub(super) fn proxies(all: &Proxies, now: SystemTime) -> String {
    if all.proxies.is_empty() {
        return "no proxy yet; `pulse join create` prints what a host needs to register one\n".to_owned();
    }
    let mut table = Table::new([
        "ID",
        "HOSTNAME",
        "INSTANCE",
        "STATE",
        "PUSHED",
        "APPLIED",
        "LAG",
        "LAST SEEN",
        "VERSION",
    ]);
    let revision = |mark: &Option<Mark>| or_dash(mark.as_ref().map(|mark| mark.revision));
    for proxy in &all.proxies {
        table.row([
            proxy.id.to_string(),
            proxy.hostname.clone(),
            instance_of(proxy),
            if proxy.ahead.is_some() { format!("{} (ahead)", proxy.state) } else { proxy.state.clone() },
            revision(&proxy.pushed),
            revision(&proxy.applied),
            or_dash(proxy.lag_seconds.map(|lag| span(seconds(lag)))),
            last_seen(proxy, now),
            or_dash(Some(&proxy.version)),
        ]);
    }
    table.render()
}

fn instance_of(proxy: &Proxy) -> String {
    match (&proxy.instance, &proxy.waiting) {
        (Some(name), _) if proxy.is_instance_removed => format!("{name} (removed)"),
        (Some(name), _) => name.clone(),
        (None, Some(_)) if !proxy.is_approved => "(not approved)".to_owned(),
        (None, Some(_)) => "(waiting)".to_owned(),
        (None, None) => "-".to_owned(),
    }
}

fn last_seen(proxy: &Proxy, now: SystemTime) -> String {
    proxy.last_seen_at.map_or_else(|| "never".to_owned(), |at| ago(at, now))
}

pub(super) fn proxy(proxy: &Proxy, now: SystemTime) -> String {
    let mut facts = Table::plain();
    let mut fact = |name: &str, value: String| facts.row([name.to_owned(), value]);
    let list = |mark: &Option<Mark>| match mark {
        Some(mark) => format!("revision {}, {} ({})", mark.revision, mark.hash, ago(mark.at, now)),
        None => "-".to_owned(),
    };
    let scope = match proxy.scope {
        ScopeKind::Instance => "the nodes of its instance",
        ScopeKind::All => "every node",
    };
    fact("id", proxy.id.to_string());
    fact("hostname", proxy.hostname.clone());
    fact("instance", instance_of(proxy));
    fact("may read", scope.to_owned());
    fact("state", proxy.state.clone());
    if !proxy.is_approved {
        fact("approved", "no: it registered without a join token".to_owned());
    }
    if let Some(waiting) = &proxy.waiting {
        fact("waits", waiting.clone());
    }
    if let Some(revoked) = &proxy.revoked {
        fact("revoked", format!("{}: {}", ago(revoked.at, now), revoked.reason));
    }
    let connected = match (proxy.is_connected, proxy.transport.as_deref()) {
        (true, _) => "yes",
        (false, Some("rest")) => "no: it asks now and then, over the paths of older proxies",
        (false, _) => "no",
    };
    fact("connected", connected.to_owned());
    fact("last seen", last_seen(proxy, now));
    fact("last asked", proxy.last_pull_at.map_or_else(|| "never".to_owned(), |at| ago(at, now)));
    fact("pushed", list(&proxy.pushed));
    fact("applied", list(&proxy.applied));
    fact("lag", or_dash(proxy.lag_seconds.map(|lag| span(seconds(lag)))));
    if let Some(ahead) = &proxy.ahead {
        let since = ago(ahead.noticed_at, now);
        let what =
            format!("epoch {}, revision {}, which this database never made", ahead.epoch, ahead.revision);
        fact(
            "ahead",
            format!("it holds a list of {what} ({since}); it is sent none until `pulse epoch new`"),
        );
    }
    if proxy.applied.is_some() {
        fact("on its disk", if proxy.is_on_disk { "yes" } else { "no" }.to_owned());
    }
    if let Some(kept) = &proxy.kept_list {
        fact(
            "kept list",
            format!("{} when it started ({}): {}", kept.problem, ago(kept.at, now), kept.detail),
        );
    }
    if proxy.refused.is_some() {
        fact("refused", list(&proxy.refused));
    }
    if !proxy.last_error.is_empty() {
        fact("last error", proxy.last_error.clone());
    }
    fact("list from", or_dash(Some(&proxy.list_source)));
    if proxy.insecure_skip_verify {
        fact("certificate", "not checked: insecure_skip_verify is set at the proxy".to_owned());
    }
    fact("address", or_dash(proxy.peer_ip));
    fact("kind", proxy.kind.clone());
    if !proxy.proxy_url.is_empty() {
        fact("proxy url", proxy.proxy_url.clone());
    }
    fact("version", or_dash(Some(&proxy.version)));
    if proxy.is_rotation_requested {
        fact("token", "a new one is asked for".to_owned());
    }
    fact("registered", format!("{}, first {}", time(proxy.registered_at), time(proxy.created_at)));
    facts.render()
}

pub(super) fn allowlists(all: &Allowlists) -> String {
    if all.allowlists.is_empty() {
        return "no list yet; add an instance with `pulse instance add`\n".to_owned();
    }
    all.allowlists.iter().map(allowlist).collect::<Vec<_>>().join("\n")
}

fn allowlist(list: &Allowlist) -> String {
    let whose = match &list.instance {
        Some(name) => format!("instance {}", clean(name)),
        None if list.scope == "all" => "all nodes".to_owned(),
        None => clean(&list.scope),
    };
    let revision = match (list.revision, list.updated_at) {
        (Some(revision), Some(at)) => format!("revision {revision} of {}", time(at)),
        _ => "not published: no proxy reads it".to_owned(),
    };
    let count = count(list.nodes.len(), "node");
    format!("{whose}: {count}, {revision}\n{}\n{}", clean(&list.hash), nodes(&list.nodes))
}

pub(super) fn temperatures(all: &Temperatures) -> String {
    if all.nodes.is_empty() {
        return "no reading yet; `pulse proxy list` shows which proxies are connected\n".to_owned();
    }
    let mut table = Table::new(["NODE", "INSTANCE", "CPU", "HOTTEST OTHERS", "AGE"]);
    for node in &all.nodes {
        let others = match &node.unreadable_reason {
            // The advice behind it stands with the node alone.
            Some(reason) => format!("not read: {}", reason.split(": ").next().unwrap_or(reason)),
            None => or_dash(Some(hottest_others(&node.readings))),
        };
        table.row([
            node.node.clone(),
            or_dash(node.instance.as_ref()),
            or_dash(cpu_package(&node.readings).map(celsius)),
            others,
            span(seconds(node.age_seconds)),
        ]);
    }
    table.render()
}

/// Of several sockets the hottest.
fn cpu_package(readings: &[Reading]) -> Option<f64> {
    let packages = readings.iter().filter(|reading| reading.kind == "cpu_package");
    packages.map(|reading| reading.temperature_celsius).max_by(f64::total_cmp)
}

/// The hottest sensors that are no part of a CPU: `nvme 61.9 °C, disk 38.0 °C`.
fn hottest_others(readings: &[Reading]) -> String {
    let mut others: Vec<&Reading> =
        readings.iter().filter(|reading| !reading.kind.starts_with("cpu_")).collect();
    others.sort_by(|a, b| b.temperature_celsius.total_cmp(&a.temperature_celsius));
    let said = |reading: &&Reading| format!("{} {}", reading.kind, celsius(reading.temperature_celsius));
    others.iter().take(OTHER_SENSORS).map(said).collect::<Vec<_>>().join(", ")
}

fn celsius(degrees: f64) -> String {
    format!("{degrees:.1} °C")
}

pub(super) fn sensors(all: &Temperatures) -> String {
    all.nodes.iter().map(node).collect::<Vec<_>>().join("\n")
}

fn node(node: &NodeTemperatures) -> String {
    let mut facts = Table::plain();
    let address = if node.ip.is_empty() { String::new() } else { format!(" ({})", node.ip) };
    facts.row(["node".into(), format!("{}{address}", node.node)]);
    facts.row(["instance".into(), or_dash(node.instance.as_ref())]);
    facts.row(["read by".into(), node.proxy_id.to_string()]);
    facts.row([
        "read at".into(),
        format!("{}, {} old", time(node.collected_at), span(seconds(node.age_seconds))),
    ]);
    if let Some(reason) = &node.unreadable_reason {
        facts.row(["not read".into(), reason.clone()]);
        return facts.render();
    }
    let mut table = Table::new(["KIND", "LABEL", "CHIP", "NOW", "MAX", "CRITICAL", "SENSOR"]);
    for reading in &node.readings {
        table.row([
            reading.kind.clone(),
            or_dash(Some(&reading.label)),
            or_dash(Some(&reading.chip)),
            celsius(reading.temperature_celsius),
            or_dash(reading.max_celsius.map(celsius)),
            or_dash(reading.critical_celsius.map(celsius)),
            reading.sensor.clone(),
        ]);
    }
    format!("{}\n{}", facts.render(), table.render())
}

pub(super) fn status(status: &Status) -> String {
    let mut facts = Table::plain();
    let mut fact = |name: &str, value: String| facts.row([name.to_owned(), value]);
    let uptime = span(seconds(status.uptime_seconds));
    fact("version", status.version.clone());
    fact("running", format!("{uptime}, since {}", time(status.started_at)));
    fact("server id", status.server_id.to_string());
    fact("epoch", status.epoch.to_string());
    fact("revision", status.revision.to_string());
    fact("listens on", status.listen.join(", "));
    fact("proxies dial", status.public_address.clone());
    if let Some(address) = &status.legacy_http {
        let requests = usize::try_from(status.legacy_http_requests).unwrap_or(usize::MAX);
        let (address, requests) = (clean(address), count(requests, "request"));
        fact(
            "WARNING",
            format!(
                "older proxies are served in plain text at {address} (legacy_http): whoever can read the traffic has their \
                 tokens; {requests} so far"
            ),
        );
    }
    fact("pin", or_dash(status.pin.as_ref()));
    fact("ca file", or_dash(status.ca_path.as_ref()));
    if let Some(certificate) = &status.certificate {
        fact("certificate", format!("ends {}", time(certificate.ends_at)));
        if let Some(at) = certificate.ca_ends_at {
            fact("ca", format!("ends {}; renewed with the same key before that", time(at)));
        }
        if let Some(exchange) = &certificate.exchange {
            let (previous, began) = (clean(&exchange.previous_pin), time(exchange.began_at));
            fact("key exchange", format!("since {began}; {previous} is good until `pulse tls finish`"));
        }
        if let Some(trouble) = &certificate.trouble {
            fact("trouble", format!("the files on disk are not used: {}", clean(trouble)));
        }
    }
    let remarks = [
        (status.instances_with_problems, "problem", "pulse instance list"),
        (status.held_changes, "held change", "pulse allowlist held"),
        (status.conflicts, "conflict", "pulse node list"),
    ];
    let remarks = remarks.iter().filter(|(number, ..)| *number > 0);
    let remarks: String = remarks
        .map(|(number, what, command)| format!("; {}: see `{command}`", count(*number, what)))
        .collect();
    fact("instances", format!("{}{remarks}", status.instances));
    let mut states: Vec<String> = Vec::new();
    for (state, number) in status.proxies_by_state.iter().filter(|(_, number)| **number > 0) {
        states.push(format!("{number} {state}"));
    }
    let states = if states.is_empty() { String::new() } else { format!(" ({})", states.join(", ")) };
    fact("proxies", format!("{}{states}", status.proxies));
    fact("streams", status.streams.to_string());
    let database = match status.database.as_str() {
        "degraded" => "degraded: the last write failed; lists stay as they are, see the server's log",
        other => other,
    };
    fact("database", database.to_owned());
    if let Some(older) = &status.database_older_than_fleet {
        let proxies = match older.proxies {
            1 => "1 proxy is".to_owned(),
            many => format!("{many} proxies are"),
        };
        let since = time(older.since);
        fact("", format!("older than the fleet: {proxies} ahead of it since {since}"));
        fact("", older.detail.clone());
    }
    let newest =
        status.newest_reading_at.map(|at| format!(", the newest of {}", time(at))).unwrap_or_default();
    for replica in &status.replicas {
        let Replica { name, version, streams, .. } = replica;
        let behind = match (replica.is_alive, replica.revisions_behind) {
            (false, _) => format!("silent for {}", span(seconds(replica.silent_seconds))),
            (true, 0) => "at this revision".to_owned(),
            (true, behind) => format!("{behind} revisions behind"),
        };
        let leases = if replica.leases.is_empty() {
            String::new()
        } else {
            format!("; {}", replica.leases.join(", "))
        };
        let (name, version) = (clean(name), clean(version));
        fact("server", format!("{name}, version {version}, {streams} streams, {behind}{leases}"));
    }
    fact("readings", format!("of {}{newest}", count(status.nodes_with_readings, "node")));
    facts.render()
}

/// The columns that every row has; the detail, of any length, comes last.
pub(super) fn audit(rows: &[Value], with_header: bool) -> String {
    let mut table = if with_header {
        Table::new(["SEQ", "TIME", "WHO", "FROM", "WHAT", "TO WHAT", "RESULT", "REVISION", "DETAIL"])
    } else {
        Table::plain()
    };
    for row in rows {
        // One row that cannot be read does not hide the others.
        let Ok(row) = serde_json::from_value::<AuditRow>(row.clone()) else {
            let mut cells: [String; 9] = Default::default();
            (cells[0], cells[8]) = ("?".to_owned(), row.to_string());
            table.row(cells);
            continue;
        };
        let mut detail = row.detail;
        if let Some(detail) = detail.as_object_mut() {
            // They have columns of their own.
            detail.retain(|key, _| key != FROM && key != RESULT);
        }
        let is_empty = detail.as_object().is_some_and(serde_json::Map::is_empty);
        table.row([
            row.seq.to_string(),
            time(row.at),
            row.actor,
            row.from.unwrap_or_default(),
            row.action,
            row.target,
            row.result.unwrap_or_default(),
            row.revision.to_string(),
            if is_empty { String::new() } else { detail.to_string() },
        ]);
    }
    table.render()
}
