//! An older proxy and its installer, as they speak: JSON over HTTP, read with grep.

#![allow(dead_code, reason = "each test file uses its own part")]

use pulse_test_support::{Answer, Server};
use serde_json::Value;

pub(crate) const REGISTER: &str = "/api/temperature-proxy/register";
pub(crate) const NODES: &str = "/api/temperature-proxy/authorized-nodes";
pub(crate) const REPORT: &str = "/api/temperature-proxy/report";
pub(crate) const UNREGISTER: &str = "/api/temperature-proxy/unregister";

/// A join token by itself, as an installer is given it: `pulse join create OPTIONS`.
pub(crate) fn join_token(server: &Server, options: &[&str]) -> String {
    let join = server.join_string(options);
    join.split_once("join=").expect("a join string has a token").1.to_owned()
}

/// What the installer finds behind `"KEY":"` or `"KEY":`, with no space behind the colon.
pub(crate) fn grep<'a>(body: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("\"{key}\":"))?;
    match rest.strip_prefix('"') {
        Some(text) => text.split('"').next(),
        None => rest.split([',', '}']).next(),
    }
}

/// Registers with a join token, in a header of its own.
pub(crate) fn register(server: &Server, join: &str, body: &Value) -> Answer {
    let headers = [("x-join-token", join), ("content-type", "application/json")];
    server.ask("POST", REGISTER, &headers, &body.to_string()).expect("the server answers")
}

/// An older proxy that is registered.
pub(crate) struct Older {
    pub(crate) id: String,
    pub(crate) token: String,
}

impl Older {
    /// Registers a host, as an installer does that knows nothing but its name.
    pub(crate) fn register(server: &Server, join: &str, hostname: &str) -> Older {
        let answer = register(server, join, &serde_json::json!({ "hostname": hostname, "mode": "socket" }));
        assert_eq!(answer.status, 200, "{answer:?}");
        Older::of(&answer)
    }

    /// What an answer to a registration makes of a host.
    pub(crate) fn of(answer: &Answer) -> Older {
        let field = |key: &str| grep(&answer.body, key).expect("the answer has it").to_owned();
        Older { id: field("proxy_id"), token: field("control_token") }
    }

    /// Asks for the list, as an older proxy does.
    pub(crate) fn pull(&self, server: &Server) -> Answer {
        pull(server, &self.token)
    }

    /// Asks whether it is another one than that of this tag.
    pub(crate) fn pull_if_new(&self, server: &Server, tag: &str) -> Answer {
        let headers = [("x-proxy-token", &*self.token), ("if-none-match", tag)];
        server.ask("GET", NODES, &headers, "").expect("the server answers")
    }

    /// A request with its token as bearer.
    pub(crate) fn ask(&self, server: &Server, method: &str, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        server.ask(method, path, &[("authorization", &bearer)], body).expect("the server answers")
    }
}

/// Asks for the list with any token.
pub(crate) fn pull(server: &Server, token: &str) -> Answer {
    server.ask("GET", NODES, &[("x-proxy-token", token)], "").expect("the server answers")
}

/// Checks an error's body, and returns its text.
pub(crate) fn refused(answer: &Answer, status: u16, code: &str) -> String {
    assert_eq!((answer.status, grep(&answer.body, "code")), (status, Some(code)), "{answer:?}");
    let body = answer.json();
    assert_eq!(body["status_code"], status, "{body}");
    let at = body["timestamp"].as_str().expect("a time");
    assert!(at.contains('T') && at.ends_with('Z'), "{at}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    body["error"].as_str().expect("a text").to_owned()
}
