//! Who may ask for what: every operation that the server describes, with every scope, a log-in, and nothing at all.
//!
//! The table is made from the description, and the description from the routes: a new path cannot be forgotten here.

use pulse_test_support::{Server, ServerBuilder};
use serde_json::{Value, json};

const SCOPES: [&str; 4] = ["monitoring:read", "settings:read", "settings:write", "proxies:register"];

/// An operation of the description.
#[derive(Debug)]
struct Operation {
    method: String,
    path: String,
    /// The ways in, as the description has them: by name, with scopes.
    ways: Vec<(String, Vec<String>)>,
    has_body: bool,
}

fn operations(server: &Server) -> Vec<Operation> {
    let description = server.get("/api/v1/openapi.json").expect("the server answers").json();
    let mut found = Vec::new();
    for (path, item) in description["paths"].as_object().expect("there are paths") {
        for (method, operation) in item.as_object().expect("there are operations") {
            if method == "parameters" {
                continue;
            }
            let ways =
                operation["security"].as_array().unwrap_or_else(|| panic!("{method} {path} says no way in"));
            let ways = ways.iter().filter_map(|way| way.as_object()?.iter().next());
            let words = |scopes: &Value| {
                let scopes = scopes.as_array().cloned().unwrap_or_default();
                scopes.iter().filter_map(|scope| scope.as_str().map(str::to_owned)).collect()
            };
            found.push(Operation {
                method: method.to_uppercase(),
                // Something that is not there, so that nothing is changed before the next one asks.
                path: path
                    .replace("{id}", "018f0000-0000-7000-8000-000000000000")
                    .replace("{name}", "nobody")
                    .replace("{node}", "nothing"),
                ways: ways.map(|(name, scopes)| (name.clone(), words(scopes))).collect(),
                has_body: operation.get("requestBody").is_some(),
            });
        }
    }
    assert!(found.len() > 40, "the description has all of the API: {found:?}");
    found
}

impl Operation {
    fn ask(&self, server: &Server, headers: &[(&str, &str)]) -> (u16, String) {
        let body = json!({});
        let body = self.has_body.then_some(&body);
        let answer = server
            .api(&self.method, self.path.trim_start_matches("/api/v1"), headers, body)
            .expect("the server answers");
        let problem: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        (answer.status, problem["reason"].as_str().unwrap_or_default().to_owned())
    }

    fn way(&self, name: &str) -> Option<&[String]> {
        self.ways.iter().find(|(way, _)| way == name).map(|(_, scopes)| scopes.as_slice())
    }

    fn is_open(&self) -> bool {
        self.ways.is_empty()
    }
}

/// Refused because of who asks, not because of what is asked.
fn is_refused(status: u16, reason: &str) -> bool {
    status == 403
        && ["MISSING_SCOPE", "SOCKET_ONLY", "LOG_IN_ONLY", "CSRF", "NOT_DESCRIBED"].contains(&reason)
        || status == 401
}

#[test]
fn each_operation_takes_its_scope_and_refuses_each_other_one() {
    let server = ServerBuilder::default().start();
    let tokens = SCOPES.map(|scope| {
        let made = server.json(&["token", "create", scope, "--scope", scope]);
        (scope, format!("Bearer {}", made["secret"].as_str().expect("it is shown once")))
    });
    for operation in operations(&server) {
        let needed = operation.way("api_token");
        for (scope, bearer) in &tokens {
            let (status, reason) = operation.ask(&server, &[("authorization", bearer)]);
            let may = match needed {
                Some(scopes) => scopes.is_empty() || scopes.iter().any(|needed| needed == scope),
                None => operation.is_open(),
            };
            let told = format!("{scope}: {operation:?} is answered {status} {reason}");
            assert_eq!(is_refused(status, &reason), !may, "{told}");
            let expected = match (needed, operation.way("session")) {
                (Some(_), _) => "MISSING_SCOPE",
                (None, Some(_)) => "LOG_IN_ONLY",
                (None, None) => "SOCKET_ONLY",
            };
            assert!(may || reason == expected, "{told}");
        }
    }
}

#[test]
fn each_operation_that_is_not_open_refuses_who_shows_nothing() {
    let server = ServerBuilder::default().config("limits: {failed_calls_per_minute: 1000}").start();
    for operation in operations(&server) {
        let (status, reason) = operation.ask(&server, &[]);
        let told = format!("{operation:?} is answered {status} {reason}");
        assert_eq!(status == 401 && reason == "MISSING_TOKEN", !operation.is_open(), "{told}");
    }
}

#[test]
fn an_admin_who_logged_in_may_all_but_what_is_for_the_socket() {
    let server = ServerBuilder::default().start();
    let link = server.first_link();
    let secret = link.split_once('#').expect("there is a secret").1;
    let body = json!({ "link": secret, "password": "correct horse battery" });
    let answer = server.api("POST", "/set-up", &[], Some(&body)).expect("the server answers");
    let csrf = answer.json()["csrf_token"].as_str().expect("there is one").to_owned();
    let cookie =
        answer.header("set-cookie").and_then(|set| set.split(';').next()).expect("a cookie").to_owned();
    let headers = [("cookie", cookie.as_str()), ("x-csrf-token", csrf.as_str())];
    let (last, others): (Vec<Operation>, Vec<Operation>) = operations(&server)
        .into_iter()
        .partition(|one| one.method == "DELETE" && one.path == "/api/v1/session");
    // Logging out comes last.
    for operation in others.into_iter().chain(last) {
        let (status, reason) = operation.ask(&server, &headers);
        let is_for_socket = operation.way("socket").is_some();
        let told = format!("{operation:?} is answered {status} {reason}");
        assert_eq!(reason == "SOCKET_ONLY", is_for_socket, "{told}");
        // A log-in that names nobody is refused for that, not for the cookie.
        assert!(is_for_socket || operation.is_open() || !is_refused(status, &reason), "{told}");
    }
}
