//! The admin API, with any path behind its own and any body.

use serde_json::Value;

use crate::assert_tells;
use crate::server::{Server, ask};

/// Method and path; `*` is filled from the input.
const ROUTES: [(&str, &str); 21] = [
    ("POST", "/instances"),
    ("PUT", "/instances/home"),
    ("PUT", "/instances/*"),
    ("GET", "/instances/*"),
    ("DELETE", "/instances/*"),
    ("POST", "/join-tokens"),
    ("DELETE", "/join-tokens/*"),
    ("PATCH", "/proxies/PROXY"),
    ("PATCH", "/proxies/*"),
    ("GET", "/proxies/*"),
    ("POST", "/proxies/*/revoke"),
    ("POST", "/proxies/*/rotate"),
    ("GET", "/allowlists?*"),
    ("GET", "/temperatures?*"),
    ("GET", "/audit?*"),
    ("DELETE", "/instances/spare?*"),
    ("POST", "/api-tokens"),
    ("DELETE", "/api-tokens/*"),
    ("GET", "/audit/verify?*"),
    ("POST", "/admins"),
    ("POST", "/session"),
];

/// A byte that chooses the route, what stands for its `*` up to a zero byte, and the body: an answer is JSON; a refusal
/// is the caller's doing, and says what and why. Whatever was asked, the server shows its state afterwards.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let Some((route, rest)) = crate::switches(data) else { return };
    let (method, path) = ROUTES[usize::from(route) % ROUTES.len()];
    let (part, body) = match rest.iter().position(|byte| *byte == 0) {
        Some(at) if path.contains('*') => (&rest[..at], &rest[at + 1..]),
        _ => (&[][..], rest),
    };
    ask(|server| {
        let path = path.replace("PROXY", &server.registered.proxy_id).replace('*', &escaped(part));
        let (status, answer) = server.admin_bytes(method, &path, body);
        match status {
            200 | 201 => assert!(answer.is_object(), "{method} {path}: {answer}"),
            400..=499 => {
                let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
                assert_tells(&text("detail"), 8_192);
                let reason = text("reason");
                let is_word = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
                assert!(!reason.is_empty() && reason.bytes().all(is_word), "{method} {path}: {answer}");
            }
            _ => panic!("{method} {path} is answered with {status}: {answer}"),
        }
        if status == 201 {
            check_state(server);
        }
    });
}

fn check_state(server: &Server) {
    for path in ["/instances", "/join-tokens", "/proxies", "/allowlists", "/status"] {
        let (status, answer) = server.admin("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {answer}");
        assert!(!answer.to_string().contains("pjoin_"), "{path} shows a join token");
    }
}

/// As a part of a path: what would end the part or the request line is escaped, what is escaped already stays.
pub(crate) fn escaped(part: &[u8]) -> String {
    part.iter()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(*byte).to_string(),
            b'-' | b'.' | b'_' | b'~' | b'%' | b'=' | b'&' | b'+' => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
