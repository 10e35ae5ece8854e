//! The control tokens of an import: each becomes a proxy that keeps working with the token that it has.
//!
//! Always: a token is known by its digest alone. Never: takes a token from a proxy that is there.

use uuid::Uuid;

use super::merge::WantedToken;
use super::{Report, is_same};
use crate::changes::Draft;
use crate::registry::{CtrlToken, Proxy, ProxyKind, ScopeKind, Standing, TokenStanding};

/// Adds the proxy that has this token, if it is not there.
pub(super) fn take(draft: &mut Draft<'_>, token: &WantedToken, report: &mut Report) {
    let file = &token.file;
    let named = token.instance.as_deref();
    let shown = match &token.hostname {
        Some(hostname) => format!("proxy of {hostname}"),
        None => format!("the proxy whose control token is in {file}"),
    };
    let again = "register the host with a join token (`pulse join create`)";
    if let Some(known) = draft.after.registry.token(&token.digest) {
        if known.standing == TokenStanding::Tombstone {
            let text = format!("{shown}: its control token was revoked here");
            return report.left_out("proxy", named, text, again);
        }
        let text = format!("{shown}, as {} with this control token", known.proxy);
        return report.there("proxy", named, text);
    }
    let Some(hostname) = &token.hostname else {
        let text = format!("{shown}: it is not written down which host that is");
        return report.left_out("proxy", named, text, "name it with --host HOSTNAME");
    };
    if !is_hostname(hostname) {
        let text = format!("proxy of {hostname:?}: that is no name of a host");
        return report.left_out("proxy", named, text, again);
    }
    let inventory = &draft.after.inventory;
    let instance = match named {
        Some(name) => inventory.by_name(name),
        None => inventory.instance_of_host(hostname, None),
    };
    let Some(instance) = instance.cloned() else {
        let text = match named {
            Some(name) => format!("{shown}: its instance {name} is left out"),
            None => format!("{shown}: no instance names this host, or several do"),
        };
        return report.left_out("proxy", named, text, "name its instance with --instance NAME");
    };
    let same_host =
        draft.after.registry.proxies_of(instance.id).find(|proxy| is_same(&proxy.hostname, hostname));
    if let Some(there) = same_host {
        let text =
            format!("{shown} of {}: it is there with another control token, as {}", instance.name, there.id);
        let way_out = format!(
            "if the host still shows the old one: `pulse proxy remove {}`, and import again",
            there.id
        );
        return report.left_out("proxy", Some(&instance.name), text, way_out);
    }
    let proxy = draft.put_proxy(Proxy {
        id: Uuid::now_v7(),
        hostname: hostname.clone(),
        machine_id: String::new(),
        kind: if token.proxy_url.is_some() { ProxyKind::Http } else { ProxyKind::Socket },
        proxy_url: token.proxy_url.clone().unwrap_or_default(),
        version: String::new(),
        peer: None,
        instance: Some(instance.id),
        scope_kind: ScopeKind::Instance,
        standing: Standing::Active,
        is_approved: true,
        rotate_requested: false,
        created_at: draft.at,
        registered_at: draft.at,
    });
    draft.put_token(CtrlToken { digest: token.digest, proxy: proxy.id, standing: TokenStanding::Current });
    let at = token.proxy_url.as_ref().map(|url| format!(" at {url}")).unwrap_or_default();
    let text = format!("proxy of {hostname}{at} in {}, with the control token that it has", instance.name);
    report.add("proxy", &instance.name, text);
}

/// The rule for hosts that register.
fn is_hostname(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=253).contains(&text.len()) && text.bytes().all(is_plain)
}
