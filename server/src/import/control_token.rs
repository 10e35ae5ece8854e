//! The control token of an older proxy: a file with one secret in it.
//!
//! Always: only the digest comes out, of the text that the proxy will show. Never: shows any of the text.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use pulse_proto::{Token, TokenDigest, TokenKind};

use super::{Findings, FoundInstance, FoundProxy, Unread};

/// Whether a file was meant to hold a token: its name says so, or all of its text looks like one.
pub(super) fn is_meant(name: &str, text: &str) -> bool {
    let is_other = [".yaml", ".yml", ".conf"].iter().any(|end| name.ends_with(end));
    let text = text.trim();
    let is_older = || text.len() == 44 && URL_SAFE.decode(text).is_ok();
    name.contains("token") && !is_other
        || TokenKind::of(text).is_some() && text.lines().count() == 1
        || is_older()
}

/// Reads the token of a file.
pub(super) fn read(name: &str, text: &str, source: &str) -> Findings {
    if name.contains("http") {
        let what = "it holds the bearer of the older proxy's own listener, and not its control token";
        let way_out = "give the file .pulse-control-token beside it, if there is one";
        return Findings::of_unread(Unread::new(source, what, way_out));
    }
    match digest(text) {
        Ok(Some(digest)) => {
            let mut instance = FoundInstance::new(None, source);
            let proxy = FoundProxy { hostname: None, proxy_url: None, token_digest: Some(digest) };
            instance.proxies.push(proxy);
            let note = format!("{source} holds a control token, and does not say which host's");
            Findings { instances: vec![instance], notes: vec![note], ..Findings::default() }
        }
        Ok(None) => {
            let way_out = "register the host with a join token instead";
            Findings::of_unread(Unread::new(source, "it is empty", way_out))
        }
        Err(rule) => {
            let way_out = "or register the host with a join token instead";
            Findings::of_unread(Unread::new(source, format!("it holds no control token: {rule}"), way_out))
        }
    }
}

/// SHA-256 of a control token, which need not look like those of today; `None`: there is none.
///
/// # Errors
/// The rule that it breaks, without any of its text.
pub(super) fn digest(text: &str) -> Result<Option<TokenDigest>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    match Token::presented(text) {
        Ok(token) => Ok(Some(token.digest())),
        Err(error) if TokenKind::of(text).is_some() => Err(error.to_string()),
        Err(_) => Err("a token is one word of ASCII, of 32 to 512 characters".to_owned()),
    }
}
