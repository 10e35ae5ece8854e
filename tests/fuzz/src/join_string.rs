//! Join strings, tokens, pins and the server's address: what a person copies.

use pulse_proto::join::split_authority;
use pulse_proto::{JoinString, ListHash, Pin, Scope, Token, TokenKind};
use pulse_sensor_proxy::config::ServerUrl;

use crate::{PLANTED, assert_tells};

/// A text, in which `TOKEN` stands for a good join token: each thing that it can be stays what it is when it is written
/// and read again; if it is none, the reason tells no secret.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data).replace("TOKEN", PLANTED);
    match text.parse::<JoinString>() {
        Ok(join) => {
            assert_eq!(join.reveal().parse::<JoinString>().as_ref(), Ok(&join));
            assert_eq!(split_authority(&join.authority()), Some((join.host.clone(), join.port)));
            let shown = format!("{join:?}");
            assert!(
                join.join.as_ref().is_none_or(|token| !shown.contains(token.reveal())),
                "Debug tells the token"
            );
            assert!(!join.host.is_empty() && join.port != 0);
            assert!(ServerUrl::new(&join.host, join.port).is_some(), "the proxy could not dial {join:?}");
        }
        Err(error) => {
            assert_tells(&error.to_string(), 512);
            assert!(!format!("{error:?}").contains(PLANTED));
        }
    }
    for kind in [TokenKind::Ctrl, TokenKind::Join, TokenKind::Listener] {
        match Token::parse(kind, &text) {
            Ok(token) => {
                assert_eq!(token.reveal(), text.trim());
                assert!(token.reveal().starts_with(kind.prefix()));
                assert!(!format!("{token:?}").contains(token.reveal()));
            }
            Err(error) => assert_tells(&error.to_string(), 512),
        }
    }
    match Token::presented(&text) {
        Ok(token) => {
            assert_eq!(token.reveal(), text.trim());
            assert!(token.reveal().bytes().all(|byte| byte.is_ascii_graphic()) && token.reveal().len() >= 32);
            assert!(TokenKind::of(token.reveal()).is_none_or(|kind| kind == TokenKind::Ctrl));
            assert!(!format!("{token:?}").contains(token.reveal()));
        }
        Err(error) => assert_tells(&error.to_string(), 512),
    }
    match text.parse::<ServerUrl>() {
        Ok(url) => {
            assert_eq!(url.to_string().parse::<ServerUrl>().as_ref(), Ok(&url));
            assert!(!url.host().is_empty() && url.port() != 0);
        }
        Err(error) => assert_tells(&error.to_string(), 4_096),
    }
    if let Ok(pin) = text.parse::<Pin>() {
        assert_eq!(pin.to_string(), text);
    }
    if let Ok(hash) = text.parse::<ListHash>() {
        assert_eq!(hash.to_string(), text);
    }
    if let Ok(scope) = text.parse::<Scope>() {
        assert_eq!(scope.to_string(), text, "a scope is signed as it is written");
    }
}
