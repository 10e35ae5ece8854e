//! How each list came about, and how two of them differ.

use pulse_test_support::Server;
use serde_json::{Value, json};

fn numbers(one: &Value) -> (u64, u64, u64, u64) {
    let number = |key: &str| one[key].as_u64().unwrap_or_else(|| panic!("no {key}: {one}"));
    (number("revision"), number("nodes"), number("added"), number("removed"))
}

#[test]
fn history_says_when_who_and_what_and_diff_says_which() {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "a=10.0.0.1", "--endpoint", "b=10.0.0.2"]);
    server.pulse_ok(&["instance", "add", "lab", "--endpoint", "x"]);
    server.pulse_ok(&[
        "instance",
        "set",
        "--yes",
        "home",
        "--endpoint",
        "A=10.0.0.9",
        "--endpoint",
        "c=10.0.0.3",
    ]);
    server.pulse_ok(&["join", "create", "--instance", "home"]);
    server.pulse_ok(&["epoch", "new", "--yes"]);
    server.pulse_ok(&["instance", "remove", "lab"]);

    let home = server.json(&["allowlist", "history", "--instance", "home"]);
    let home = home["revisions"].as_array().unwrap();
    let seen: Vec<_> = home.iter().map(numbers).collect();
    assert_eq!(seen, [(5, 2, 0, 0), (3, 2, 2, 2), (1, 2, 2, 0)], "the newest first: {home:#?}");
    let actions: Vec<_> = home.iter().map(|one| one["action"].as_str()).collect();
    assert_eq!(actions, [Some("epoch.new"), Some("instance.set"), Some("instance.add")]);
    assert!(home.iter().all(|one| one["actor"].as_str().is_some_and(|who| who.starts_with("admin:uid="))));
    assert!(home[0]["epoch"].as_u64() > home[1]["epoch"].as_u64(), "{home:#?}");
    assert_eq!((&home[0]["hash"], &home[0]["instance"]), (&home[1]["hash"], &json!("home")));

    // A removed instance keeps its history; without a name all lists are there.
    let lab = server.json(&["allowlist", "history", "--instance", "lab"]);
    let lab: Vec<_> = lab["revisions"].as_array().unwrap().iter().map(numbers).collect();
    assert_eq!(lab, [(6, 0, 0, 1), (5, 1, 0, 0), (2, 1, 1, 0)]);
    let all = server.json(&["allowlist", "history", "--limit", "4"]);
    let all: Vec<_> = all["revisions"].as_array().unwrap().iter().map(|one| numbers(one).0).collect();
    assert_eq!(all, [6, 5, 5, 3]);
    let table = server.pulse_ok(&["allowlist", "history", "--instance", "home"]);
    assert!(table.lines().count() == 4 && table.contains("instance.set") && table.contains("+2"), "{table}");
    assert_eq!(server.pulse_ok(&["allowlist", "history", "--all"]), "no list yet\n");

    let diff = server.json(&["allowlist", "diff", "1", "3", "--instance", "home"]);
    assert_eq!(diff["added"], json!([{"name": "c", "ip": "10.0.0.3"}]));
    assert_eq!(diff["removed"], json!([{"name": "b", "ip": "10.0.0.2"}]));
    assert_eq!(diff["changed"], json!([{"name": "A", "from_ip": "10.0.0.1", "to_ip": "10.0.0.9"}]));
    let back = server.pulse_ok(&["allowlist", "diff", "3", "1"]);
    assert!(back.contains("+  b  10.0.0.2\n") && back.contains("-  c  10.0.0.3\n"), "{back}");
    let none = server.pulse_ok(&["allowlist", "diff", "3", "5", "--instance", "home"]);
    assert!(none.contains("no difference"), "{none}");

    let then = server.json(&["allowlist", "show", "--instance", "home", "--revision", "1"]);
    assert_eq!(then["allowlists"][0]["nodes"].as_array().map(Vec::len), Some(2));
    assert_eq!(then["allowlists"][0]["nodes"][0]["name"], "a");
}

#[test]
fn a_revision_without_such_a_list_names_the_nearest() {
    let server = Server::start();
    for name in ["home", "lab"] {
        server.pulse_ok(&["instance", "add", name, "--endpoint", name]);
    }
    server.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "other"]);
    for (arguments, text) in [
        (&["allowlist", "diff", "1", "2", "--instance", "home"][..], "the nearest are revisions 1 and 3"),
        (&["allowlist", "diff", "1", "99", "--instance", "home"], "the nearest is revision 3"),
        (&["allowlist", "diff", "0", "1", "--instance", "home"], "the nearest is revision 1"),
        (&["allowlist", "show", "--all", "--revision", "1"], "it was never made"),
        (&["allowlist", "diff", "1", "3"], "say of which list"),
        (&["allowlist", "history", "--instance", "cellar"], "there is no instance \"cellar\""),
    ] {
        let ran = server.pulse(arguments);
        assert!(ran.code == Some(1) && ran.stderr.contains(text), "{arguments:?}: {ran:?}");
    }
    let ran = server.pulse(&["allowlist", "diff", "1", "2", "--instance", "home", "--json"]);
    assert!(
        ran.stderr.contains(r#""reason":"NO_SUCH_REVISION""#) && ran.stderr.contains(r#""field":"to""#),
        "{ran:?}"
    );
}
