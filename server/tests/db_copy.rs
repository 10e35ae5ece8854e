//! `pulse db copy`: a fleet moves from its file to PostgreSQL, and its proxies notice nothing.

use pulse_test_support::postgres::Postgres;
use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::{Client, Server, holding};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_moves_with_its_epoch_its_tokens_its_lists_and_its_audit_chain() {
    // On a file whatever else the run has.
    let mut before = Server::builder().on_file().start();
    before.pulse_ok(&["instance", "add", "home", "--endpoint", "delly", "--endpoint", "attic=192.0.2.7"]);
    let join = before.join_string(&["--instance", "home", "--uses", "2"]);
    let client = Client::register(&before, &join, "delly").await;
    let list = client.watch(Default::default()).await.snapshot().await;
    client.report_applied(&list).await;
    let status = before.json(&["status"]);
    let audit = before.pulse_ok(&["audit", "--json"]);

    let postgres = Postgres::start();
    let url = postgres.database();
    let from = format!("sqlite:{}", before.data_dir().display());
    let copy = ["db", "copy", "--json", "--from", &from, "--to", &url];
    let refused = before.pulse(&copy);
    assert!(!refused.is_success());
    assert!(refused.stderr.contains("stop it first"), "{}", refused.stderr);
    before.terminate();
    assert_eq!(before.wait_exit(pulse_test_support::PATIENCE), Some(0));
    let copied = before.pulse(&copy);
    assert!(copied.is_success(), "{}", copied.stderr);
    let tables = copied.json();
    let rows = |name: &str| {
        let tables = tables["tables"].as_array().expect("there are tables");
        tables.iter().find(|table| table["table"] == name).map(|table| table["rows"].clone())
    };
    assert_eq!(rows("proxies"), Some(json!(1)));
    assert_eq!(rows("instance_nodes"), Some(json!(2)));
    assert_eq!(rows("audit"), Some(json!(audit.lines().count())));
    // A password that somebody types is repeated nowhere.
    for typed in ["postgres://pulse:hunter2@db.lan/pulse", "postgres://pulse@db.lan/pulse?password=hunter2"] {
        let refused = before.pulse(&["db", "copy", "--from", &from, "--to", typed]);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("--password-file") && !refused.stderr.contains("hunter2"),
            "{}",
            refused.stderr
        );
    }
    let again = before.pulse(&copy);
    assert!(!again.is_success());
    assert!(again.stderr.contains("it is not empty"), "{}", again.stderr);

    // A database on which a server was started once is moved into all the same.
    let used = postgres.database();
    let mut stray = Server::builder().beside(&before, &used);
    stray.start_again();
    stray.terminate();
    assert_eq!(stray.wait_exit(pulse_test_support::PATIENCE), Some(0));
    let copied = before.pulse(&["db", "copy", "--from", &from, "--to", &used]);
    assert!(copied.is_success(), "{}", copied.stderr);

    // Under a key of its own, if one is named.
    let (elsewhere, key) = (postgres.database(), before.data_dir().with_file_name("new.key"));
    let key = key.display().to_string();
    let copied =
        before.pulse(&["db", "copy", "--from", &from, "--to", &elsewhere, "--secret-key-file", &key]);
    assert!(copied.is_success(), "{}", copied.stderr);
    let config = before.data_dir().with_file_name("elsewhere.yaml");
    std::fs::write(&config, format!("database_url: {elsewhere}\n")).expect("a file can be written");
    let check = ["check", "--config", &config.display().to_string()];
    let refused = before.pulse(&check);
    assert!(refused.stderr.contains("is not the key under which"), "{}", refused.stderr);
    std::fs::write(&config, format!("database_url: {elsewhere}\nsecret_key_file: {key}\n"))
        .expect("a file can be written");
    let checked = before.pulse(&check);
    assert!(checked.is_success(), "{}{}", checked.stdout, checked.stderr);

    let mut after = Server::builder().beside(&before, &url);
    after.start_again();
    let moved = after.json(&["status"]);
    for same in ["server_id", "epoch", "revision"] {
        assert_eq!(moved[same], status[same], "{same}");
    }
    // Its lists are signed by the key that moved, sealed, and the chain holds.
    let config = after.data_dir().with_file_name("pulse.yaml").display().to_string();
    let checked = after.pulse(&["check", "--json", "--config", &config]);
    assert!(checked.is_success(), "{} {}", checked.stdout, checked.stderr);
    assert_eq!(checked.json()["audit_rows"], json!(audit.lines().count()));
    assert!(checked.json()["lists"].as_u64().is_some_and(|lists| lists > 0), "{}", checked.stdout);
    assert!(after.pulse_ok(&["audit", "--json"]).starts_with(&audit), "the chain goes on where it was");
    after.pulse_ok(&["audit", "verify"]);
    let mut watch = client.reconnect(&after).await.watch(holding(&list)).await;
    assert!(
        matches!(watch.next_kind().await, Kind::Unchanged(_)),
        "the token is good, and the list the newest"
    );
    let second = Client::register(&after, &join, "attic").await;
    assert_ne!(second.proxy_id, client.proxy_id, "the join token had a use left");
    after.pulse_ok(&["instance", "set", "--yes", "home", "--endpoint", "delly"]);
    assert_eq!(watch.snapshot().await.nodes.len(), 1);
    let refused = after.pulse(&["restore", "backup.tar", "--keep-epoch", "--config", &config]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("is on PostgreSQL"), "{}", refused.stderr);
    // With a configuration that cannot be read, nobody guesses that it is the file that is meant.
    let broken = after.data_dir().with_file_name("broken.yaml");
    std::fs::write(&broken, format!("database_url: {url}\nnonsense: 1\n")).expect("a file can be written");
    for command in [&["check"][..], &["restore", "backup.tar", "--keep-epoch"]] {
        let refused = after.pulse(&[command, &["--config", &broken.display().to_string()]].concat());
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains("nonsense"), "{}", refused.stderr);
    }
    // And what somebody changes there is found.
    let edited = postgres.ask(
        url.rsplit('/').next().expect("it has a database"),
        "UPDATE audit SET actor = 'nobody' WHERE seq = 1; UPDATE allowlists SET hash = 'sha256:' || repeat('0', 64)",
    );
    assert!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));
    let checked = after.pulse(&["check", "--config", &config]);
    assert_eq!(checked.code, Some(1), "{}", checked.stdout);
    for says in ["table audit, row 1: it was changed", "table allowlists"] {
        assert!(checked.stdout.contains(says), "{}", checked.stdout);
    }
}
