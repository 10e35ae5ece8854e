//! What stands in an older server's `nodes.enc`: its instances, with all that it needed to ask them.
//!
//! In: the opened JSON. Out: [`Findings`]. Always: an instance that cannot be read is named, and the others are read.
//! Never: shows a token or a password.

use serde_json::Value;

use super::endpoint::{Endpoint, host_of, node, pve_url};
use super::fields::Fields;
use super::{Findings, FoundInstance, FoundPve, Unread, instance_name, is_loopback, proxies, quoted};
use crate::pve::certificate::Fingerprint;
use crate::pve::client::ApiToken;

/// An instance as the older server kept it. It holds secrets, so it has no `Debug`.
pub(super) struct Older<'v> {
    /// What a person called it.
    pub(super) name: &'v str,
    /// Whether it is a cluster.
    pub(super) is_cluster: bool,
    /// Where its proxy's listener is; empty if it has none.
    pub(super) proxy_url: &'v str,
    /// The bearer of that listener.
    pub(super) proxy_token: &'v str,
    /// Its proxy's control token.
    pub(super) control_token: &'v str,
    cluster_name: &'v str,
    url: &'v str,
    guest_url: &'v str,
    user: &'v str,
    has_password: bool,
    token_name: &'v str,
    token_value: &'v str,
    fingerprint: &'v str,
    is_verified: bool,
    endpoints: &'v [Value],
}

impl<'v> Older<'v> {
    fn read(fields: Fields<'v>) -> Result<Older<'v>, String> {
        Ok(Older {
            name: fields.text("Name")?,
            is_cluster: fields.flag("IsCluster")?,
            proxy_url: fields.text("TemperatureProxyURL")?,
            proxy_token: fields.text("TemperatureProxyToken")?,
            control_token: fields.text("TemperatureProxyControlToken")?,
            cluster_name: fields.text("ClusterName")?,
            url: fields.text("Host")?,
            guest_url: fields.text("GuestURL")?,
            user: fields.text("User")?,
            has_password: !fields.text("Password")?.is_empty(),
            token_name: fields.text("TokenName")?,
            token_value: fields.text("TokenValue")?,
            fingerprint: fields.text("Fingerprint")?,
            is_verified: fields.flag("VerifySSL")?,
            endpoints: fields.list("ClusterEndpoints")?,
        })
    }

    /// The id of its API token: `USER@REALM!ID`, which was kept in one part or in two.
    fn token_id(&self) -> String {
        let user = self.user.split('!').next().unwrap_or_default();
        match (self.token_name, self.user.contains('!')) {
            (whole, _) if whole.contains('!') => whole.to_owned(),
            ("", true) => self.user.to_owned(),
            (name, _) => format!("{user}!{name}"),
        }
    }
}

/// What is to be said of one instance.
pub(super) struct Report<'f> {
    findings: &'f mut Findings,
    source: &'f str,
    about: String,
}

impl Report<'_> {
    /// Something of it is not taken.
    pub(super) fn unread(&mut self, what: String, way_out: &str) {
        self.findings.unread.push(Unread::new(self.source, format!("{}: {what}", self.about), way_out));
    }

    /// Something of it is taken, and a person should know.
    pub(super) fn note(&mut self, what: String) {
        self.findings.notes.push(format!("{}: {}: {what}", self.source, self.about));
    }
}

/// Reads the instances.
pub(super) fn read(json: &[u8], source: &str) -> Findings {
    let mut findings = Findings::default();
    let damaged = |what: String| {
        let way_out = "it opens, so the older server wrote it like this: add the instances by hand";
        Findings::of_unread(Unread::new(source, what, way_out))
    };
    let root: Value = match serde_json::from_slice(json) {
        Ok(root) => root,
        // The library's own words may repeat a part of the text.
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            return damaged(format!("what is sealed in it is no JSON (line {line}, column {column})"));
        }
    };
    let instances = match Fields::of(&root).and_then(|root| Ok((root, root.list("pveInstances")?))) {
        Ok((root, instances)) => {
            let [backup, mail] =
                ["pbsInstances", "pmgInstances"].map(|key| root.list(key).map_or(0, <[Value]>::len));
            if backup + mail > 0 {
                findings.notes.push(format!(
                    "{source}: {backup} backup servers and {mail} mail gateways are left out: they have no nodes here"
                ));
            }
            instances
        }
        Err(rule) => return damaged(format!("what is sealed in it is no list of instances: {rule}")),
    };
    for (at, value) in instances.iter().enumerate() {
        let older = Fields::of(value).and_then(Older::read);
        let name = Fields::of(value).and_then(|fields| fields.text("Name")).unwrap_or_default();
        let about = match name {
            "" => format!("instance {}", at + 1),
            name => format!("instance {}", quoted(name)),
        };
        let mut report = Report { findings: &mut findings, source, about };
        match older {
            Ok(older) => {
                let found = instance(&older, &mut report, source);
                findings.instances.push(found);
            }
            Err(rule) => report.unread(rule, "add this instance by hand"),
        }
    }
    if instances.is_empty() {
        findings.notes.push(format!("{source} holds no Proxmox VE instance"));
    }
    findings
}

fn instance(older: &Older<'_>, report: &mut Report<'_>, source: &str) -> FoundInstance {
    let called = match older.cluster_name {
        name if older.is_cluster && !name.is_empty() => name,
        _ => older.name,
    };
    let mut found = FoundInstance::new(instance_name(called), source);
    match found.name.as_deref() {
        Some(name) if name != called => {
            report.note(format!("it is taken as {name}: instances have names of A-Z a-z 0-9 . _ -"));
        }
        None if !called.is_empty() => {
            report.note(format!("{} is no name that an instance may have: give it another", quoted(called)));
        }
        _ => {}
    }
    let mut endpoints = Vec::new();
    // What was found of a cluster that is none any more is old.
    let written = if older.is_cluster { older.endpoints } else { &[] };
    for (at, value) in written.iter().enumerate() {
        match Fields::of(value).and_then(Endpoint::read) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(rule) => report.unread(format!("member {}: {rule}", at + 1), "add this node by hand"),
        }
    }
    if older.is_cluster {
        add_members(&endpoints, &mut found, report);
    } else {
        add_host(older, &mut found, report);
    }
    if !older.guest_url.is_empty() {
        report.note("its URL for guests is a link for people, and is left out".to_owned());
    }
    found.pve = pve(older, &endpoints, report);
    found.proxies = proxies::read(older, &endpoints, report);
    found
}

fn add_members(endpoints: &[Endpoint<'_>], found: &mut FoundInstance, report: &mut Report<'_>) {
    for endpoint in endpoints {
        match node(endpoint.name, endpoint.address()) {
            Ok(node) => {
                if !endpoint.address_override.is_empty() {
                    found.address_overrides.push((endpoint.name.to_owned(), node.address().to_string()));
                }
                tell_of_loopback(endpoint.name, endpoint.address(), report);
                found.add(node);
            }
            Err(rule) => report.unread(rule, "add this node by hand"),
        }
    }
    if endpoints.is_empty() {
        report.note(
            "it is a cluster, and its members are not written down: Proxmox VE says them when it is asked"
                .to_owned(),
        );
    }
}

fn add_host(older: &Older<'_>, found: &mut FoundInstance, report: &mut Report<'_>) {
    let host = host_of(older.url);
    match node(older.name, host) {
        Ok(node) => {
            tell_of_loopback(older.name, host, report);
            found.add(node);
        }
        Err(rule) => report.unread(
            format!("its node cannot be named as it is: {rule}"),
            "add the node by the name that the host has, or let Pulse ask Proxmox VE for it",
        ),
    }
}

fn tell_of_loopback(name: &str, address: &str, report: &mut Report<'_>) {
    if is_loopback(address) {
        report.note(format!(
            "the node {} is taken without an address: the older server had a loopback for it",
            quoted(name)
        ));
    }
}

/// Where and as whom Proxmox VE is asked; `None`, with the reason reported, if that is not known.
fn pve(older: &Older<'_>, endpoints: &[Endpoint<'_>], report: &mut Report<'_>) -> Option<FoundPve> {
    let mut urls = Vec::new();
    let own = Some(older.url).filter(|url| !url.is_empty()).map(pve_url);
    let members = endpoints.iter().map(|endpoint| endpoint.pve_url().transpose());
    for url in [own].into_iter().chain(members).flatten() {
        match url {
            Ok(url) if !urls.contains(&url) => urls.push(url),
            Ok(_) => {}
            Err(rule) => report.unread(format!("a URL of its API {rule}"), "give the URL by hand"),
        }
    }
    let make = "make an API token in Proxmox VE, and give that to the instance";
    if older.token_value.is_empty() {
        let what = match older.has_password {
            true => "it logs in with a password, and Pulse takes API tokens alone",
            false => "it has no API token",
        };
        report.unread(what.to_owned(), make);
        return None;
    }
    let token = match ApiToken::new(&older.token_id(), older.token_value) {
        Ok(token) => token,
        Err(rule) => {
            report.unread(format!("its API token cannot be taken: {rule}"), make);
            return None;
        }
    };
    if urls.is_empty() {
        report
            .unread("it has an API token, and no URL at which to show it".to_owned(), "give the URL by hand");
        return None;
    }
    let mut fingerprints = Vec::new();
    let pins = [older.fingerprint].into_iter().chain(endpoints.iter().map(|endpoint| endpoint.fingerprint));
    let pins: Vec<&str> = pins.filter(|text| !text.is_empty()).collect();
    for text in &pins {
        match text.parse::<Fingerprint>() {
            Ok(fingerprint) if !fingerprints.contains(&fingerprint) => fingerprints.push(fingerprint),
            Ok(_) => {}
            Err(rule) => {
                report.unread(format!("a fingerprint of its certificates {rule}"), "give it by hand");
            }
        }
    }
    let has_trust_from_system = older.is_verified && pins.is_empty();
    if !fingerprints.is_empty() && fingerprints.len() < urls.len() {
        let (hosts, pins) = (urls.len(), fingerprints.len());
        report.note(format!(
            "it has {hosts} hosts and {pins} fingerprints, but each host has a certificate of its own"
        ));
    }
    Some(FoundPve { urls, token, fingerprints, has_trust_from_system })
}
