//! Whose certificate a host of Proxmox VE shows: pinned, changed, past its time, self-signed, for another name; each with its message
//! and the way out.

#[path = "support/pve.rs"]
mod pve;

use pulse_test_support::Server;
use pulse_test_support::proxmox::{FakeAuthority, FakeProxmox, Shown};
use pve::{listed, shown, try_add, wait_for_nodes, wait_for_problem, wait_until_ok};

const MEMBERS: [&str; 2] = ["pve1=192.0.2.1", "pve2=192.0.2.2"];

/// A server whose system trusts this authority.
fn server_that_trusts(authority: &FakeAuthority) -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("authorities.pem");
    std::fs::write(&path, authority.pem()).expect("it can be written");
    (Server::builder().env("SSL_CERT_FILE", path).start(), folder)
}

#[test]
fn an_unknown_certificate_is_shown_and_never_taken_by_itself() {
    let server = Server::start();
    let fake = FakeProxmox::cluster(&MEMBERS);
    let asked = try_add(&server, "home", &[&fake.url()], &[]);
    assert_eq!(asked.code, Some(2), "nobody is there to ask: {asked:?}");
    assert!(asked.stderr.contains(&fake.fingerprint()), "{asked:?}");
    assert!(
        asked.stderr.contains("Proxmox VE makes itself") && asked.stderr.contains("--fingerprint"),
        "{asked:?}"
    );
    assert!(asked.stderr.contains("openssl x509 -noout -fingerprint -sha256"), "{asked:?}");
    assert!(fake.asked().is_empty(), "nothing secret was sent to it");
    let unchecked = try_add(&server, "home", &[&fake.url()], &["--no-check", "--poll-interval", "1s"]);
    assert!(unchecked.is_success(), "{unchecked:?}");
    wait_for_problem(&server, "home", &["no authority of this system", &fake.fingerprint()]);
    assert!(fake.asked().is_empty(), "and nothing is");
    // One that an admin made by hand says that it is an authority.
    fake.show(&Shown { is_authority: true, ..Shown::default() });
    wait_for_problem(&server, "home", &["nobody but itself vouches", &fake.fingerprint()]);
    // The way out.
    server.pulse_ok(&["instance", "set", "home", "--fingerprint", &fake.fingerprint()]);
    wait_for_nodes(&server, "home", &MEMBERS);
}

#[test]
fn a_pinned_certificate_that_changes_is_said_with_both_fingerprints_and_nothing_is_sent() {
    let server = Server::start();
    let fake = FakeProxmox::cluster(&MEMBERS);
    pve::add(&server, "home", &[&fake]);
    wait_until_ok(&server, "home");
    let before = fake.fingerprint();
    fake.change_certificate();
    let after = fake.fingerprint();
    assert_ne!(before, after);
    let instance =
        wait_for_problem(&server, "home", &["changed", &before, &after, "somebody poses as the host"]);
    assert_eq!(listed(&instance), MEMBERS);
    let asked = fake.asked().len();
    pulse_test_support::let_pass(std::time::Duration::from_millis(2_500));
    assert_eq!(fake.asked().len(), asked, "no token goes to who is not known");
    server.pulse_ok(&["instance", "set", "home", "--fingerprint", &after]);
    wait_until_ok(&server, "home");
    // A pin holds whatever the dates and the names say.
    fake.show(&Shown { name: "elsewhere.lan", is_expired: true, ..Shown::default() });
    server.pulse_ok(&["instance", "set", "home", "--fingerprint", &fake.fingerprint()]);
    wait_until_ok(&server, "home");
}

#[test]
fn a_certificate_that_the_system_trusts_needs_no_fingerprint_and_one_past_its_time_or_for_another_name_is_said()
 {
    let authority = FakeAuthority::new();
    let (server, _folder) = server_that_trusts(&authority);
    let fake = FakeProxmox::cluster(&MEMBERS);
    let authority = Some(&authority);
    fake.show(&Shown { authority, ..Shown::default() });
    let added = try_add(&server, "home", &[&fake.url()], &["--poll-interval", "1s"]);
    assert!(added.is_success(), "{added:?}");
    assert!(shown(&server, "home")["pve"]["fingerprints"].as_array().is_some_and(Vec::is_empty));
    wait_until_ok(&server, "home");
    fake.show(&Shown { is_expired: true, authority, ..Shown::default() });
    let instance =
        wait_for_problem(&server, "home", &["past its time", "pvecm updatecerts", "--fingerprint"]);
    assert_eq!(listed(&instance), MEMBERS);
    fake.show(&Shown { name: "elsewhere.lan", authority, ..Shown::default() });
    wait_for_problem(&server, "home", &["for other names", "use one of those in the URL"]);
    fake.change_certificate();
    wait_for_problem(&server, "home", &["no authority of this system", &fake.fingerprint()]);
    fake.show(&Shown { authority, ..Shown::default() });
    wait_until_ok(&server, "home");
    // The same is said to who asks before adding.
    fake.show(&Shown { is_expired: true, authority, ..Shown::default() });
    let asked = try_add(&server, "other", &[&fake.url()], &[]);
    assert!(asked.code == Some(2) && asked.stderr.contains("past its time"), "{asked:?}");
}
