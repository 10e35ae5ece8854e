//! docs/api.md: each of its examples is asked of a real server, in their order, and each operation of the description has one.
//!
//! An example is a `sh` block with one `curl`, and an `http` block with the answer: its status, and its body with the same keys. What a
//! list has must be there, what it does not must not, unless a key `…` says that there is more; a value may be another one. Ids, secrets and join strings of an answer stand for those that
//! the server made, and `pset_…` for the one that it prints at its start. A comment `<!-- test: NAME joins -->` has that host register with the join string that was shown last.
//!
//! Requests go over the port, with what the `curl` brings: `-K` is an API token that has the scope of the line below the heading and no
//! other one, `-b` the cookies that the last `-c` kept. What is "on the socket only" is asked there.
//!
//! `UPDATE_API_DOCS=1` writes answers that no longer fit anew.

#[path = "support/api_page.rs"]
mod api_page;
#[path = "support/pve.rs"]
mod pve;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api_page::{Asked, Piece, json, pieces};
use pulse_test_support::proxmox::FakeProxmox;
use pulse_test_support::{Answer, PATIENCE, Proxy, Server, eventually, let_pass};
use serde_json::Value;

/// A key that says that there are others, which the page shows elsewhere.
const MORE: &str = "…";

/// The tokens that the page's programs have, each with one scope.
const TOKENS: [(&str, &str); 3] =
    [("grafana", "monitoring:read"), ("auditor", "settings:read"), ("deploy", "settings:write")];

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// How two answers differ in what they are made of; `None`: they do not.
fn difference(at: &str, shown: &Value, real: &Value) -> Option<String> {
    match (shown, real) {
        (Value::Object(shown), Value::Object(real)) => {
            let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
            let (has, has_not) = (keys(real), keys(shown));
            if shown.contains_key(MORE) {
                if let Some(key) = has_not.iter().find(|key| *key != MORE && !has.contains(*key)) {
                    return Some(format!("{at} has no key {key}"));
                }
            } else if has != has_not {
                return Some(format!("{at} has the keys {has:?}, and the page shows {has_not:?}"));
            }
            let mut shown = shown.iter().filter(|(key, _)| *key != MORE);
            shown.find_map(|(key, value)| difference(&format!("{at}.{key}"), value, &real[key]))
        }
        (Value::Array(shown), Value::Array(real)) if shown.is_empty() != real.is_empty() => {
            Some(format!("{at} has {} elements, and the page shows {}", real.len(), shown.len()))
        }
        (Value::Array(shown), Value::Array(real)) => {
            shown.iter().zip(real).find_map(|(shown, real)| difference(&format!("{at}[]"), shown, real))
        }
        (Value::Null, _) | (_, Value::Null) => None,
        (shown, real) if std::mem::discriminant(shown) != std::mem::discriminant(real) => {
            Some(format!("{at} is {real}, and the page shows {shown}"))
        }
        _ => None,
    }
}

/// What the page calls things, and what they are called here.
#[derive(Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    /// What later requests name: ids, times at which changes were held, and what shows that a change is meant.
    fn learn(&mut self, shown: &Value, real: &Value) {
        match (shown, real) {
            (Value::Object(shown), Value::Object(real)) => {
                for (key, value) in shown {
                    if let (true, Value::String(shown), Some(Value::String(real))) =
                        (["id", "held_at", "csrf_token"].contains(&key.as_str()), value, real.get(key))
                    {
                        self.0.insert(shown.clone(), real.clone());
                    }
                    self.learn(value, real.get(key).unwrap_or(&Value::Null));
                }
            }
            (Value::Array(shown), Value::Array(real)) => {
                shown.iter().zip(real).for_each(|(shown, real)| self.learn(shown, real));
            }
            _ => {}
        }
    }

    fn here(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (shown, real)| text.replace(shown.as_str(), real))
    }

    /// The other way round, without secrets.
    fn on_the_page(&self, text: &str) -> String {
        let text =
            self.0.iter().fold(text.to_owned(), |text, (shown, real)| text.replace(real.as_str(), shown));
        ["pjoin_", "pdbg_", "papi_", "pset_"].iter().fold(text, |text, kind| {
            let mut parts = text.split(kind);
            let first = parts.next().unwrap_or_default().to_owned();
            parts.fold(first, |text, rest| {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
                format!("{text}{kind}…{}", &rest[end.unwrap_or(rest.len())..])
            })
        })
    }
}

/// The operation that a request is, and who may ask for it, by the description.
fn operation<'a>(api: &'a Value, asked: &Asked) -> (&'a str, &'a Value) {
    let path = format!("/api/v1{}", asked.path.split('?').next().unwrap_or_default());
    let fits = |template: &str| {
        let (template, path): (Vec<&str>, Vec<&str>) =
            (template.split('/').collect(), path.split('/').collect());
        template.len() == path.len()
            && template.iter().zip(&path).all(|(part, is)| part == is || part.starts_with('{'))
    };
    let paths = api["paths"].as_object().expect("the description has paths");
    // A path without places goes before one with them.
    let mut found: Vec<_> = paths.iter().filter(|(template, _)| fits(template)).collect();
    found.sort_by_key(|(template, _)| template.matches('{').count());
    let item = found.first().unwrap_or_else(|| panic!("{path} is not in the description")).1;
    let operation = &item[asked.method.to_ascii_lowercase()];
    (
        operation["operationId"].as_str().unwrap_or_else(|| panic!("{asked:?} is not in the description")),
        operation,
    )
}

/// The scope that an API token needs for an operation.
fn scope(operation: &Value) -> Option<&str> {
    operation["security"][0]["api_token"][0].as_str()
}

/// The line that stands below an operation's heading.
fn summary_line(api: &Value, name: &str) -> String {
    let paths = api["paths"].as_object().expect("the description has paths");
    let all = paths.iter().flat_map(|(path, item)| {
        item.as_object().into_iter().flatten().map(move |(method, operation)| (path, method, operation))
    });
    let (path, method, operation) = all
        .into_iter()
        .find(|(.., operation)| operation["operationId"] == name)
        .expect("a heading names an operation");
    let way = &operation["security"][0];
    let access = if let Some(scope) = scope(operation) {
        format!("scope `{scope}`")
    } else if way.get("api_token").is_some() {
        "any API token, or a log-in".to_owned()
    } else if way.get("session").is_some() {
        "a log-in only".to_owned()
    } else if way.get("socket").is_some() {
        "on the socket only".to_owned()
    } else {
        "open to all".to_owned()
    };
    format!("`{} {path}`, {access}.", method.to_ascii_uppercase())
}

#[test]
fn every_example_is_answered_as_the_page_says_and_every_operation_has_one() {
    let page = std::fs::read_to_string(docs("api.md")).expect("the page is there");
    let api = std::fs::read_to_string(docs("openapi.json")).expect("the description is there");
    let api: Value = serde_json::from_str(&api).expect("the description is JSON");
    let is_update = std::env::var_os("UPDATE_API_DOCS").is_some();

    let server = Server::start();
    let fake = FakeProxmox::cluster(&["pve1=192.0.2.11", "pve2=192.0.2.12"]);
    fake.demand(&format!("{}={}", pve::TOKEN_ID, pve::SECRET));
    let tokens: BTreeMap<&str, String> = TOKENS
        .iter()
        .map(|(name, scope)| {
            let made = server.json(&["token", "create", name, "--scope", scope]);
            (*scope, format!("Bearer {}", made["secret"].as_str().expect("it is shown once")))
        })
        .collect();
    let mut names = Names::default();
    let first_link = server.first_link();
    let fixed = [
        ("pve1.lan:8006", fake.url().trim_start_matches("https://").to_owned()),
        ("pulse.lan:7655", server.address().to_string()),
        ("/var/lib/pulse", server.data_dir().display().to_string()),
        ("3C:5A:0E:…:9B", fake.fingerprint()),
        ("pset_…", first_link.split_once('#').expect("a link has a secret").1.to_owned()),
    ];
    names.0.extend(fixed.map(|(shown, real)| (shown.to_owned(), real)));

    let (mut join, mut cookies, mut heading, mut expects_line) =
        (String::new(), String::new(), String::new(), false);
    let (mut shown_operations, mut proxies, mut edits) = (BTreeSet::new(), Vec::new(), Vec::new());
    for piece in pieces(&page) {
        match piece {
            Piece::Heading(name) => {
                assert!(!expects_line, "{heading} has no line that says what it is");
                expects_line = api.to_string().contains(&format!("\"operationId\":\"{name}\""));
                heading = name;
            }
            Piece::Text(line) if expects_line && !line.is_empty() => {
                assert_eq!(line, summary_line(&api, &heading), "below the heading {heading}");
                expects_line = false;
            }
            Piece::Text(_) => {}
            Piece::Joins(host) => {
                let mut proxy = Proxy::builder(&host).build();
                proxy.register_ok(&join);
                proxy.start();
                proxies.push(proxy);
            }
            Piece::Example { asked, status, body, lines } => {
                let (name, described) = operation(&api, &asked);
                shown_operations.insert(name.to_owned());
                let socket_only = described["security"][0].get("socket").is_some();
                assert_eq!(asked.is_socket, socket_only, "{name}: only what needs the socket is asked there");
                let path = names.here(&asked.path);
                let sent = names.here(asked.body.as_deref().unwrap_or_default());
                let mut headers: Vec<(&str, String)> = Vec::new();
                headers.extend(asked.body.as_ref().map(|_| ("content-type", "application/json".to_owned())));
                headers.extend(asked.headers.iter().map(|(name, value)| (name.as_str(), names.here(value))));
                headers.extend(asked.has_cookies.then(|| ("cookie", cookies.clone())));
                if let (true, Some(scope)) = (asked.has_token, scope(described)) {
                    headers.push(("authorization", tokens[scope].clone()));
                }
                let headers: Vec<(&str, &str)> =
                    headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let differs = |answer: &Answer| {
                    if answer.status != status {
                        return Some(format!("it is answered {}, and the page says {status}", answer.status));
                    }
                    let shown = body.as_ref()?;
                    let real = json(&answer.body);
                    if real.is_null() {
                        Some("it is no JSON".to_owned())
                    } else {
                        difference("it", shown, &real)
                    }
                };
                let ask = || {
                    let answer = match asked.is_socket {
                        true => server.admin_raw(&asked.method, &path, &sent),
                        false => server.ask(&asked.method, &format!("/api/v1{path}"), &headers, &sent),
                    };
                    answer.expect("the server answers")
                };
                let answer = if asked.method == "GET" && is_update {
                    if differs(&ask()).is_some() {
                        let_pass(Duration::from_secs(2));
                    }
                    ask()
                } else if asked.method == "GET" {
                    // What a proxy brings takes a moment.
                    let what = format!("{} {} is answered as the page says", asked.method, asked.path);
                    eventually(PATIENCE, &what, || {
                        let answer = ask();
                        differs(&answer).map_or(Ok(answer), Err)
                    })
                } else {
                    ask()
                };
                let why = differs(&answer);
                let real = json(&answer.body);
                if let (true, Some(set)) = (asked.keeps_cookies, answer.header("set-cookie")) {
                    set.split(';').next().unwrap_or_default().clone_into(&mut cookies);
                }
                if let Some(real) = real["join"].as_str() {
                    real.clone_into(&mut join);
                }
                names.learn(body.as_ref().unwrap_or(&Value::Null), &real);
                match why {
                    Some(_) if is_update => {
                        let is_json = real.is_object() && answer.body.starts_with('{');
                        let text = match is_json {
                            true => serde_json::to_string_pretty(&real).expect("it is JSON"),
                            false => answer.body.trim_end().to_owned(),
                        };
                        let version = if asked.is_socket { "HTTP/1.1" } else { "HTTP/2" };
                        let text = names.on_the_page(&text);
                        edits.push((lines, format!("{version} {}\n\n{text}", answer.status)));
                    }
                    Some(why) => panic!("{} {} {sent}: {why}: {}", asked.method, asked.path, answer.body),
                    None => {}
                }
            }
        }
    }
    if is_update {
        let mut written: Vec<String> = page.lines().map(str::to_owned).collect();
        for (lines, text) in edits.into_iter().rev() {
            written.splice(lines, text.lines().map(str::to_owned));
        }
        std::fs::write(docs("api.md"), written.join("\n") + "\n").expect("docs can be written");
    }
    let all: BTreeSet<String> = api["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .flat_map(|(_, item)| item.as_object().into_iter().flatten())
        .filter_map(|(_, operation)| operation["operationId"].as_str().map(str::to_owned))
        .collect();
    let missing: Vec<_> = all.difference(&shown_operations).collect();
    assert!(missing.is_empty(), "docs/api.md has no example of {missing:?}");
}

#[test]
fn the_description_and_its_viewer_are_open_on_the_port() {
    let server = Server::start();
    let answer = server.get("/api/v1/openapi.json").expect("the server answers");
    let kept = std::fs::read_to_string(docs("openapi.json")).expect("the description is there");
    assert!(answer.status == 200 && answer.body == kept, "{answer:?}");
    let page = server.get("/api/docs/").expect("the server answers");
    assert!(
        page.status == 200 && page.head.contains("content-security-policy: default-src 'none'"),
        "{page:?}"
    );
    // Nothing else of the API is there without credentials.
    let refused = server.get("/api/v1/status").expect("the server answers");
    assert!([401, 404].contains(&refused.status), "{refused:?}");
}
