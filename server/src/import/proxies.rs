//! The proxies that an older server knows: control tokens, as digests, and URLs.
//!
//! Always: a token is given to a host only if it is written down which one has it.

use super::control_token::digest;
use super::endpoint::{Endpoint, host_of};
use super::nodes_file::{Older, Report};
use super::{FoundProxy, quoted};

/// The longest URL, as for those that register.
const MAX_URL_BYTES: usize = 2_048;

/// The proxies of an instance.
pub(super) fn read(
    older: &Older<'_>,
    endpoints: &[Endpoint<'_>],
    report: &mut Report<'_>,
) -> Vec<FoundProxy> {
    let again = "register the host with a join token instead";
    let mut proxies = Vec::new();
    for endpoint in endpoints {
        match digest(endpoint.control_token) {
            Ok(None) => {}
            Ok(Some(digest)) => proxies.push(FoundProxy {
                hostname: Some(endpoint.name.to_owned()),
                proxy_url: None,
                token_digest: Some(digest),
            }),
            Err(rule) => {
                report.unread(format!("the control token of {}: {rule}", quoted(endpoint.name)), again);
            }
        }
    }
    let mut url = match older.proxy_url {
        "" => None,
        url if is_proxy_url(url) => Some(url.to_owned()),
        _ => {
            let way_out = "the proxy says its URL itself when it registers again";
            report.unread(
                "the URL of its proxy is none that begins with https:// or http:// and has no user or password in it"
                    .to_owned(),
                way_out,
            );
            None
        }
    };
    // Before there were control tokens, the bearer of the proxy's own listener stood for one.
    let token = match (older.control_token, proxies.is_empty()) {
        ("", true) => older.proxy_token,
        (token, _) => token,
    };
    let token = digest(token).unwrap_or_else(|rule| {
        report.unread(format!("its control token: {rule}"), again);
        None
    });
    let at_url = |url: &String| endpoints.iter().find(|endpoint| endpoint.is_at(host_of(url)));
    let mut hostname = match older.is_cluster {
        true => url.as_ref().and_then(at_url).map(|endpoint| endpoint.name.to_owned()),
        false => Some(older.name.to_owned()).filter(|name| !name.is_empty()),
    };
    let own = proxies.iter_mut().find(|proxy| hostname.is_some() && proxy.hostname == hostname);
    if let Some(own) = own {
        own.proxy_url = url.take();
        // That host shows its own token, so this one is another's.
        hostname = None;
    }
    if url.is_none() && token.is_none() {
        return proxies;
    }
    if hostname.is_none() {
        let what = if token.is_some() { "a control token" } else { "a proxy's URL" };
        report.note(format!(
            "it has {what} for the cluster as a whole: which of its hosts that belongs to is not written down"
        ));
    }
    proxies.push(FoundProxy { hostname, proxy_url: url, token_digest: token });
    proxies
}

/// Whether a URL may be shown as a link: the rule for those that register, and no user or password in it.
#[must_use]
pub fn is_proxy_url(url: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_graphic() && !r#""<>\^`{|}"#.contains(c);
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
    let is_open = authority.is_some_and(|authority| !authority.is_empty() && !authority.contains('@'));
    is_open && url.len() <= MAX_URL_BYTES && url.chars().all(is_plain)
}
