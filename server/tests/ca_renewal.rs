//! The authority's key is exchanged: proxies learn the new pin over the streams that they have, those that were away
//! meanwhile too, and nobody is registered again.

use std::fs;
use std::time::Duration;

use pulse_test_support::{PATIENCE, Proxy, Server, eventually, let_pass};
use serde_json::{Value, json};

fn pin(server: &Server) -> String {
    server.json(&["status"])["pin"].as_str().expect("its own CA has a pin").to_owned()
}

/// A server with one instance, whose node the proxy is.
fn server() -> Server {
    let server = Server::start();
    server.pulse_ok(&["instance", "add", "home", "--endpoint", "delly=127.0.0.1"]);
    server
}

/// Waits until the proxy has these pins on its disk.
fn wait_for_pins(proxy: &Proxy, pins: &[&String]) {
    proxy.wait_for_status("its pins", |status| status["pins"] == json!(pins));
    let identity = fs::read_to_string(proxy.control_dir().join("identity.json")).expect("it is registered");
    let identity: Value = serde_json::from_str(&identity).expect("it is JSON");
    assert_eq!(identity["ca_pins"], json!(pins));
}

/// Ends the exchange, once it has lasted an interval.
fn finish(server: &Server) {
    eventually(PATIENCE, "the exchange can be finished", || {
        let ran = server.pulse(&["tls", "finish"]);
        if ran.is_success() { Ok(()) } else { Err(ran) }
    });
}

#[test]
fn the_authoritys_key_is_exchanged_without_registering_a_proxy_again() {
    let mut server = server();
    let old = pin(&server);
    let mut here = Proxy::join(&server, "home", "delly");
    let mut away = Proxy::join(&server, "home", "other");
    for proxy in [&here, &away] {
        server.wait_for_state(&proxy.id(), "IN_SYNC");
        assert_eq!(proxy.status()["pins"], json!([old]));
    }
    away.terminate();
    away.wait_exit(PATIENCE);
    let ended = || server.metrics().value("pulse_watch_streams_ended_total{reason=\"gone\"}");
    eventually(PATIENCE, "one stream ended", || if ended() == 1.0 { Ok(()) } else { Err(ended()) });

    let said = server.pulse_ok(&["tls", "rotate"]);
    let new = pin(&server);
    assert!(new != old && said.contains(&old) && said.contains("pulse tls finish"), "{said}");
    assert!(server.join_string(&[]).contains(&new));
    assert_eq!(server.json(&["status"])["certificate"]["exchange"]["previous_pin"], json!(old));
    assert!(server.pulse_ok(&["status"]).contains("key exchange"));
    // Over the stream that it has.
    wait_for_pins(&here, &[&new, &old]);
    assert_eq!((ended(), server.metrics().value("pulse_watch_streams")), (1.0, 1.0));
    assert!(here.process().has_said("these are pinned from now on"));
    let text = here.proxy("status", &[]).stdout;
    assert!(text.contains(&new) && text.contains(&old) && text.contains("exchanges its key"), "{text}");
    // Who comes new has the new one from the join string, and needs no older one.
    let late = Proxy::join(&server, "home", "late");
    server.wait_for_state(&late.id(), "IN_SYNC");
    assert_eq!(late.status()["pins"], json!([new]));

    // It is not finished under a proxy that may not have heard of it, and begun a second time neither.
    let ran = server.pulse(&["tls", "rotate"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("under way since"), "{ran:?}");
    eventually(PATIENCE, "the one that is away is named", || {
        let ran = server.pulse(&["tls", "finish"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        if ran.stderr.contains("1 of the proxies are not connected") && ran.stderr.contains("(other)") {
            return Ok(());
        }
        Err(ran)
    });
    // It knows the old pin alone, and finds its way with that; also to a server that was started anew meanwhile.
    server.terminate();
    server.wait_exit(PATIENCE);
    server.start_again();
    away.start();
    wait_for_pins(&away, &[&new, &old]);
    for proxy in [&here, &away, &late] {
        server.wait_for_state(&proxy.id(), "IN_SYNC");
    }

    finish(&server);
    for proxy in [&here, &away, &late] {
        wait_for_pins(proxy, &[&new]);
    }
    assert_eq!(server.json(&["status"])["certificate"]["exchange"], Value::Null);
    // With nothing but the new pin on either side, in the running processes and in new ones.
    here.kill();
    here.start();
    server.kill();
    server.start_again();
    for proxy in [&here, &away, &late] {
        server.wait_for_state(&proxy.id(), "IN_SYNC");
    }
    let audit = server.pulse_ok(&["audit"]);
    assert!(audit.contains("tls.rotate") && audit.contains("tls.finish") && audit.contains(&old), "{audit}");
}

#[test]
fn a_proxy_that_was_away_for_the_whole_exchange_says_what_to_do() {
    let server = server();
    let mut proxy = Proxy::join(&server, "home", "delly");
    server.wait_for_state(&proxy.id(), "IN_SYNC");
    proxy.kill();
    server.pulse_ok(&["tls", "rotate"]);
    server.pulse_ok(&["tls", "finish", "--yes"]);
    proxy.start();
    let text = "does not lead to the pinned key";
    eventually(PATIENCE, text, || match proxy.process().has_said(text) {
        true => Ok(()),
        false => Err(proxy.process().log()),
    });
    assert!(proxy.process().has_said("register again with a fresh join string"));
    // It works on with its list, and a fresh join string mends it under the same id.
    let id = proxy.id();
    assert_eq!(proxy.status()["list"]["nodes"][0]["name"], "delly");
    proxy.register_ok(&server.join_string(&["--instance", "home"]));
    assert_eq!(proxy.id(), id);
    server.wait_for_state(&id, "IN_SYNC");
    wait_for_pins(&proxy, &[&pin(&server)]);
}

#[test]
fn a_pin_of_the_configuration_follows_the_exchange() {
    let server = server();
    let old = pin(&server);
    let mut proxy = Proxy::join(&server, "home", "delly");
    server.wait_for_state(&proxy.id(), "IN_SYNC");
    proxy.kill();
    let config = fs::read_to_string(proxy.config_path()).unwrap();
    let with_pin = config.replace("pulse_control_plane:\n", &format!("pulse_control_plane:\n  pin: {old}\n"));
    assert_ne!(with_pin, config);
    fs::write(proxy.config_path(), with_pin).unwrap();
    proxy.start();
    server.wait_for_state(&proxy.id(), "IN_SYNC");
    server.pulse_ok(&["tls", "rotate"]);
    let new = pin(&server);
    wait_for_pins(&proxy, &[&new, &old]);
    finish(&server);
    wait_for_pins(&proxy, &[&new]);
    proxy.kill();
    let before = server.json(&["proxy", "show", &proxy.id()])["last_seen_at"].clone();
    // Times are shown to the millisecond.
    let_pass(Duration::from_millis(5));
    proxy.start();
    eventually(PATIENCE, "it is back", || {
        let shown = server.json(&["proxy", "show", &proxy.id()]);
        let is_back = shown["is_connected"] == true && shown["last_seen_at"] != before;
        if is_back { Ok(()) } else { Err(shown) }
    });
}

#[test]
fn in_plain_text_there_is_no_key_to_exchange() {
    let server = Server::builder().plaintext().start();
    let ran = server.pulse(&["tls", "rotate"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("runs without TLS"), "{ran:?}");
    assert!(server.pulse(&["tls", "finish"]).stderr.contains("runs without TLS"));
}
