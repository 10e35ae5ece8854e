//! How admins get in: the first link, log-ins with their cookies and CSRF tokens, throttling, resets, API tokens with scopes.

use pulse_test_support::{PATIENCE, Server, ServerBuilder, eventually};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery";

/// What a browser holds after it logged in.
struct Browser {
    cookie: String,
    csrf: String,
}

impl Browser {
    fn ask(&self, server: &Server, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let headers = [("cookie", self.cookie.as_str()), ("x-csrf-token", self.csrf.as_str())];
        ask(server, method, path, &headers, body)
    }
}

/// Status and JSON; `null` for an empty body.
fn ask(
    server: &Server,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> (u16, Value) {
    let answer = server.api(method, path, headers, body).expect("the server answers");
    let is_empty = answer.body.is_empty();
    (answer.status, if is_empty { Value::Null } else { answer.json() })
}

/// Sends a password with which somebody gets in, and keeps what a browser would.
fn enter(server: &Server, path: &str, body: &Value) -> Result<Browser, (u16, Value)> {
    let answer = server.api("POST", path, &[], Some(body)).expect("the server answers");
    if answer.status != 201 {
        return Err((answer.status, answer.json()));
    }
    let set = answer.header("set-cookie").expect("a log-in sets a cookie").to_owned();
    for part in ["Path=/", "HttpOnly", "Secure", "SameSite=Strict"] {
        assert!(set.contains(part), "{part}");
    }
    let cookie = set.split(';').next().unwrap_or_default().to_owned();
    assert!(cookie.starts_with("__Host-pulse_session=psess_"));
    let csrf = answer.json()["csrf_token"].as_str().expect("there is one").to_owned();
    Ok(Browser { cookie, csrf })
}

fn secret(link: &str) -> &str {
    link.split_once('#').expect("the secret is behind the #, where no server sees it").1
}

fn with_admin(builder: ServerBuilder) -> (Server, Browser) {
    let server = builder.start();
    let link = server.first_link();
    let body = json!({ "link": secret(&link), "name": "Ada", "password": PASSWORD });
    let browser = enter(&server, "/set-up", &body).expect("the first link is good");
    (server, browser)
}

fn log_in(server: &Server, name: &str, password: &str) -> Result<Browser, (u16, Value)> {
    enter(server, "/session", &json!({ "name": name, "password": password }))
}

/// An API token with these scopes.
fn token(server: &Server, scopes: &[&str]) -> String {
    let body = json!({ "name": "test", "scopes": scopes });
    let answer = server.admin("POST", "/api-tokens", Some(&body)).expect("the server answers");
    assert_eq!(answer.status, 201, "{answer:?}");
    format!("Bearer {}", answer.json()["secret"].as_str().expect("it is shown once"))
}

#[test]
fn the_first_start_prints_a_link_with_which_one_admin_sets_a_password_once() {
    let (mut server, browser) = with_admin(ServerBuilder::default());
    let (status, session) = browser.ask(&server, "GET", "/session", None);
    assert_eq!((status, &session["kind"], &session["name"]), (200, &json!("user"), &json!("ada")));
    // The link is good no more, and the next start prints none.
    let link = server.first_link();
    let again = json!({ "link": secret(&link), "name": "eve", "password": PASSWORD });
    let (status, refused) = enter(&server, "/set-up", &again).err().expect("it was used");
    assert_eq!((status, &refused["reason"]), (403, &json!("UNKNOWN_TOKEN")), "{refused}");
    let database = server.data_dir().join("pulse.db");
    server.terminate();
    assert_eq!(server.wait_exit(PATIENCE), Some(0));
    if database.exists() {
        let bytes = [database.clone(), database.with_extension("db-wal")];
        let bytes: Vec<u8> = bytes.iter().filter_map(|path| std::fs::read(path).ok()).flatten().collect();
        let held = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(held("$argon2id$"), "the password's hash is kept");
        assert!(!held(PASSWORD) && !held(secret(&link)) && !held(&browser.cookie[22..]), "no secret is");
    }
    server.start_again();
    let (status, _) = browser.ask(&server, "GET", "/session", None);
    assert_eq!(status, 200, "a log-in outlives a restart");
    log_in(&server, "ADA", PASSWORD).map(drop).expect("names are without case");
}

#[test]
fn a_change_with_a_cookie_needs_the_csrf_token_and_an_own_page() {
    let (server, browser) = with_admin(ServerBuilder::default());
    let add = json!({ "name": "home", "endpoints": [] });
    let cookie = ("cookie", browser.cookie.as_str());
    let csrf = ("x-csrf-token", browser.csrf.as_str());
    let other = log_in(&server, "ada", PASSWORD).expect("the password is right");
    for headers in [
        vec![cookie],
        vec![cookie, ("x-csrf-token", "x")],
        vec![cookie, ("x-csrf-token", other.csrf.as_str())],
        vec![cookie, csrf, ("sec-fetch-site", "cross-site")],
        vec![cookie, csrf, ("sec-fetch-site", "same-site")],
    ] {
        let (status, refused) = ask(&server, "POST", "/instances", &headers, Some(&add));
        assert_eq!((status, &refused["reason"]), (403, &json!("CSRF")), "{headers:?}");
    }
    assert_eq!(ask(&server, "GET", "/instances", &[cookie], None).0, 200, "to look needs none");
    let own = [cookie, csrf, ("sec-fetch-site", "same-origin")];
    assert_eq!(ask(&server, "POST", "/instances", &own, Some(&add)).0, 201);
    let rows = server.admin("GET", "/audit", None).expect("the server answers").json();
    let rows = rows["rows"].as_array().cloned().unwrap_or_default();
    let row = rows.iter().find(|row| row["action"] == "instance.add").expect("it is noted");
    assert_eq!(row["actor"], "user:ada", "{row}");
}

#[test]
fn a_log_in_ends_when_its_admin_logs_out_sets_a_password_or_is_reset() {
    let (server, first) = with_admin(ServerBuilder::default().config("limits: {log_in_burst: 100}"));
    let second = log_in(&server, "ada", PASSWORD).expect("the password is right");
    let is_in = |browser: &Browser| browser.ask(&server, "GET", "/status", None).0 == 200;
    assert!(is_in(&first) && is_in(&second));
    assert_eq!(first.ask(&server, "DELETE", "/session", None).0, 204);
    assert!(!is_in(&first) && is_in(&second));
    let third = log_in(&server, "ada", PASSWORD).expect("the password is right");
    let wrong = json!({ "password": "not this one at all", "new_password": "another good password" });
    let (status, refused) = second.ask(&server, "PUT", "/session/password", Some(&wrong));
    assert_eq!((status, &refused["field"]), (422, &json!("password")));
    let short = json!({ "password": PASSWORD, "new_password": "short" });
    let (status, refused) = second.ask(&server, "PUT", "/session/password", Some(&short));
    assert_eq!((status, &refused["field"]), (422, &json!("new_password")));
    let right = json!({ "password": PASSWORD, "new_password": "another good password" });
    assert_eq!(second.ask(&server, "PUT", "/session/password", Some(&right)).0, 204);
    assert!(is_in(&second) && !is_in(&third), "the one that asked stays");
    let reset = server.json(&["admin", "reset", "ada"]);
    assert!(!is_in(&second));
    assert_eq!(log_in(&server, "ada", "another good password").err().map(|(status, _)| status), Some(401));
    let link = reset["link"].as_str().expect("a link is shown");
    let body = json!({ "link": secret(link), "password": "the third password" });
    enter(&server, "/set-up", &body).map(drop).expect("the link is good once");
    assert!(enter(&server, "/set-up", &body).is_err(), "and no more");
    log_in(&server, "ada", "the third password").map(drop).expect("it is set");
}

#[test]
fn wrong_names_and_passwords_look_the_same_and_are_slowed_down_while_the_socket_stays_open() {
    let builder = ServerBuilder::default().config("limits: {log_in_burst: 3, log_in_interval: 600s}");
    let (server, browser) = with_admin(builder);
    let wrong = log_in(&server, "ada", "wrong wrong wrong").err().expect("it is wrong");
    let nobody = log_in(&server, "eve", "wrong wrong wrong").err().expect("there is none");
    assert_eq!((wrong.0, &wrong.1["reason"]), (401, &json!("WRONG_PASSWORD")));
    assert_eq!(wrong, nobody);
    for _ in 0..2 {
        assert_eq!(log_in(&server, "ada", "wrong wrong wrong").err().map(|(status, _)| status), Some(401));
    }
    let body = json!({ "name": "ada", "password": PASSWORD });
    let answer = server.api("POST", "/session", &[], Some(&body)).expect("the server answers");
    assert_eq!((answer.status, &answer.json()["reason"]), (429, &json!("RATE_LIMITED")));
    let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).expect("it says when");
    assert!((1..=600).contains(&wait), "{wait}");
    assert_eq!(browser.ask(&server, "GET", "/status", None).0, 200, "who is in stays in");
    assert!(server.json(&["admin", "reset", "ada"])["link"].is_string(), "the owner gets in all the same");
}

#[test]
fn an_api_token_is_good_until_it_is_revoked_or_past_its_time_and_says_when_it_was_used() {
    let server = ServerBuilder::default().start();
    let bearer = token(&server, &["monitoring:read"]);
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(ask(&server, "GET", "/status", &headers, None).0, 200);
    let listed = server.json(&["token", "list"]);
    let one = &listed["api_tokens"][0];
    assert_eq!(one["state"], "active", "{listed}");
    assert!(one["last_used_at"].is_string() && one["last_used_from"] == "127.0.0.1", "{listed}");
    assert!(!listed.to_string().contains("papi_"), "it is shown once, and that was before");
    let id = one["id"].as_str().expect("it has an id");
    assert_eq!(server.json(&["token", "revoke", id])["state"], "revoked");
    let (status, refused) = ask(&server, "GET", "/status", &headers, None);
    assert_eq!((status, &refused["reason"]), (401, &json!("UNKNOWN_TOKEN")), "{refused}");
    assert!(refused["detail"].as_str().is_some_and(|text| text.contains("revoked")), "{refused}");
    for headers in [vec![], vec![("authorization", "Bearer papi_x")], vec![("authorization", "Basic YTpi")]] {
        assert_eq!(ask(&server, "GET", "/status", &headers, None).0, 401, "{headers:?}");
    }
}

#[test]
fn a_token_does_not_make_one_that_may_more_than_itself() {
    let server = ServerBuilder::default().start();
    let bearer = token(&server, &["settings:write", "monitoring:read"]);
    let headers = [("authorization", bearer.as_str())];
    let more = json!({ "name": "more", "scopes": ["monitoring:read", "settings:read"] });
    let (status, refused) = ask(&server, "POST", "/api-tokens", &headers, Some(&more));
    assert_eq!((status, &refused["reason"]), (403, &json!("MISSING_SCOPE")), "{refused}");
    let later = json!({ "name": "later", "scopes": ["monitoring:read"], "ttl_seconds": 91 * 24 * 3600 });
    let (status, refused) = ask(&server, "POST", "/api-tokens", &headers, Some(&later));
    assert_eq!((status, &refused["field"]), (422, &json!("ttl_seconds")), "{refused}");
    let same = json!({ "name": "same", "scopes": ["monitoring:read"], "ttl_seconds": 3600 });
    assert_eq!(ask(&server, "POST", "/api-tokens", &headers, Some(&same)).0, 201);
    let (status, refused) = ask(&server, "POST", "/admins", &headers, Some(&json!({ "name": "eve" })));
    assert_eq!((status, &refused["reason"]), (403, &json!("SOCKET_ONLY")), "{refused}");
}

#[test]
fn metrics_are_for_this_machine_and_for_tokens_that_may_see_the_fleet() {
    let server = ServerBuilder::default().start();
    let passed_on = ("x-forwarded-for", "192.0.2.7");
    let scrape = |bearer: &str| {
        let headers = [passed_on, ("authorization", bearer)];
        server.ask("GET", "/metrics", &headers, "").expect("the server answers").status
    };
    assert_eq!(scrape(&token(&server, &["monitoring:read"])), 200);
    assert_eq!(scrape(&token(&server, &["settings:read"])), 403);
    let told = server.metrics().value(r#"pulse_refusals_total{reason="ADMIN_REQUEST"}"#);
    assert_eq!(told, 1.0, "as any refusal of a token is");
    assert_eq!(scrape("Bearer papi_unknown"), 403);
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let server = ServerBuilder::default().start();
    let page = server.get("/set-up").expect("the server answers");
    let policy = page.header("content-security-policy").expect("there is one");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!page.body.contains("http"), "no address of elsewhere");
    for (path, kind) in [("/sign-in/page.js", "text/javascript"), ("/sign-in/page.css", "text/css")] {
        let file = server.get(path).expect("the server answers");
        assert_eq!(file.status, 200);
        assert!(file.header("content-type").is_some_and(|found| found.starts_with(kind)));
    }
}

#[test]
fn a_token_that_ends_by_time_is_refused_from_then_on() {
    let server = ServerBuilder::default().start();
    let made = server.json(&["token", "create", "short", "--scope", "monitoring:read", "--ttl", "2s"]);
    let bearer = format!("Bearer {}", made["secret"].as_str().expect("it is shown once"));
    let headers = [("authorization", bearer.as_str())];
    assert_eq!(ask(&server, "GET", "/status", &headers, None).0, 200);
    eventually(PATIENCE, "the token ends", || {
        let (status, refused) = ask(&server, "GET", "/status", &headers, None);
        let detail = refused["detail"].as_str().unwrap_or_default();
        if status == 401 && detail.contains("past its time") { Ok(()) } else { Err((status, refused)) }
    });
    assert_eq!(server.json(&["token", "list"])["api_tokens"][0]["state"], "expired");
}

#[test]
fn a_backup_that_is_put_back_has_admins_and_tokens_and_lets_nobody_in_by_what_was_over() {
    let (mut server, browser) = with_admin(ServerBuilder::default().on_file());
    let bearer = token(&server, &["monitoring:read"]);
    let link = server.json(&["admin", "add", "eve"])["link"].as_str().expect("a link is shown").to_owned();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("pulse.tar").display().to_string();
    server.pulse_ok(&["backup", &file]);
    let used = json!({ "link": secret(&link), "password": "the password of eve" });
    enter(&server, "/set-up", &used).map(drop).expect("the link is good");
    assert_eq!(browser.ask(&server, "DELETE", "/session", None).0, 204);
    server.terminate();
    assert_eq!(server.wait_exit(PATIENCE), Some(0));
    server.pulse_ok(&["restore", &file, "--keep-epoch"]);
    server.start_again();
    assert_eq!(browser.ask(&server, "GET", "/session", None).0, 401, "it was logged out");
    assert_eq!(enter(&server, "/set-up", &used).err().map(|(status, _)| status), Some(403), "it was used");
    log_in(&server, "ada", PASSWORD).map(drop).expect("the admin is there");
    assert_eq!(ask(&server, "GET", "/status", &[("authorization", &bearer)], None).0, 200);
    let rows = server.admin("GET", "/audit", None).expect("the server answers").json();
    let rows = rows["rows"].as_array().cloned().unwrap_or_default();
    let row = rows.iter().find(|row| row["action"] == "backup.restore").expect("it is noted");
    assert_eq!(row["detail"]["log_ins_ended"], 2, "{row}");
}

#[test]
fn an_address_that_makes_up_names_is_told_to_wait_before_its_guesses_are_hashed() {
    let builder = ServerBuilder::default().config("limits: {log_in_burst: 1, log_in_interval: 600s}");
    let (server, _) = with_admin(builder);
    for n in 0..10 {
        let (status, _) =
            log_in(&server, &format!("name-{n}"), "wrong wrong wrong").err().expect("it is wrong");
        assert_eq!(status, 401);
    }
    let (status, refused) = log_in(&server, "name-10", "wrong wrong wrong").err().expect("it is wrong");
    assert_eq!((status, &refused["reason"]), (429, &json!("RATE_LIMITED")), "{refused}");
    let told = server.metrics().value(r#"pulse_refusals_total{reason="RATE_LIMITED"}"#);
    assert_eq!(told, 1.0, "and is counted and noted as any refusal");
}

#[test]
fn a_path_at_which_nothing_is_is_answered_with_a_problem_on_the_port_too() {
    let server = ServerBuilder::default().start();
    for path in ["/api/v1/nothing", "/api/v1/instances/", "/api//v1/instances", "/nothing"] {
        let answer = server.get(path).expect("the server answers");
        let kind = answer.header("content-type").map(str::to_owned);
        assert_eq!((answer.status, kind.as_deref()), (404, Some("application/problem+json")), "{path}");
        assert_eq!(answer.json()["reason"], "NO_SUCH_PATH", "{path}");
    }
    let ttl = json!({ "name": "a", "scopes": ["monitoring:read"], "ttl_seconds": 0 });
    let refused = server.admin("POST", "/api-tokens", Some(&ttl)).expect("the server answers").json();
    assert_eq!(refused["field"], "ttl_seconds", "by the name that it has in the request");
}
