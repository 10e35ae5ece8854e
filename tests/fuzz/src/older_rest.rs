//! The paths of older proxies and installers, with any credential, query and body, at a whole server.
//!
//! Always: an answer is compact JSON; a refusal says what and why, in a word that programs know, with its own status in it; nothing that
//! comes in is the server's fault, or told back as a secret.

use serde_json::Value;

use crate::assert_tells;
use crate::server::ask;

/// Method and path; `*` is filled from the input.
const ROUTES: [(&str, &str); 7] = [
    ("POST", "/api/temperature-proxy/register"),
    ("POST", "/api/temperature-proxy/register?*"),
    ("GET", "/api/temperature-proxy/authorized-nodes"),
    ("POST", "/api/temperature-proxy/report"),
    ("DELETE", "/api/temperature-proxy/unregister?*"),
    ("GET", "/api/install/*"),
    ("GET", "/api/temperature-proxy/*"),
];

/// The low half of a byte chooses the route, the high one the credential: none, the proxy's own, a join token, or what the input says.
/// Then come what stands for `*` or the credential, up to a zero byte, and the body.
///
/// # Panics
/// When an answer is not as it must be.
pub fn check(data: &[u8]) {
    let Some((switches, rest)) = crate::switches(data) else { return };
    let (method, path) = ROUTES[usize::from(switches & 15) % ROUTES.len()];
    let (part, body) = match rest.iter().position(|byte| *byte == 0) {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (&[][..], rest),
    };
    ask(|server| {
        let is_goodbye = method == "DELETE";
        let credential = match switches >> 4 & 3 {
            0 => String::new(),
            // Others still need the server's own proxy.
            1 if is_goodbye => format!("x-proxy-token: {}\r\n", server.register("n2").ctrl_token),
            1 => format!("x-proxy-token: {}\r\n", server.token),
            2 => format!("authorization: Bearer {}\r\n", server.join),
            _ => format!("authorization: Bearer {}\r\n", crate::admin_api::escaped(part)),
        };
        let path = path.replace('*', &crate::admin_api::escaped(part));
        let (status, head, answer) = server.ask_port(method, &path, &credential, body);
        if status == 304 || path.starts_with("/api/install/") {
            assert!(status < 500, "{method} {path} is answered with {status}");
            return;
        }
        let json: Value = serde_json::from_slice(&answer)
            .unwrap_or_else(|error| panic!("{method} {path}: no JSON comes back ({error}): {status} {head}"));
        match status {
            200 => {
                // Older installers read it with grep.
                let text = String::from_utf8_lossy(&answer);
                assert!(!text.contains("\": \"") && !text.contains('\n'), "{method} {path}: {text}");
                assert!(json.is_object(), "{method} {path}: {json}");
            }
            400..=499 => {
                assert_tells(json["error"].as_str().unwrap_or_default(), 8_192);
                assert_eq!(json["status_code"], status, "{method} {path}: {json}");
                let code = json["code"].as_str().unwrap_or_default();
                let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
                assert!(!code.is_empty() && code.bytes().all(is_word), "{method} {path}: {json}");
            }
            _ => panic!("{method} {path} is answered with {status}: {json}"),
        }
    });
}
