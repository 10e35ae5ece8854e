//! A host that is asked over TLS: whose certificate is trusted, what its refusals say, and that nothing is waited for without end.

use std::sync::Arc;

use pulse_test_support::proxmox::{FakeProxmox, Reply};
use rustls::RootCertStore;

use super::*;
use crate::pve::answers;
use crate::pve::certificate::Fingerprint;

fn token() -> ApiToken {
    ApiToken::new("pulse@pve!monitor", "5f6f2ce4-secret").unwrap()
}

fn pinned(fake: &FakeProxmox) -> Trust {
    Trust::Pinned(vec![Fingerprint::of(&fake.certificate())])
}

async fn ask(fake: &FakeProxmox, trust: &Trust, path: &'static str) -> Result<Bytes, Doubt> {
    let url: PveUrl = fake.url().parse().unwrap();
    Client::connect(&url, &token(), trust).await?.get(path).await
}

#[tokio::test]
async fn a_cluster_answers_whoever_pins_its_certificate_and_has_its_token() {
    let fake = FakeProxmox::cluster(&["pve1=192.0.2.1", "pve2=192.0.2.2"]);
    fake.demand("pulse@pve!monitor=5f6f2ce4-secret");
    let url: PveUrl = fake.url().parse().unwrap();
    let mut client = Client::connect(&url, &token(), &pinned(&fake)).await.unwrap();
    let version = answers::version(&client.get("/version").await.unwrap()).unwrap();
    assert_eq!(version.text, "8.4.1");
    let members = answers::membership(&client.get("/cluster/status").await.unwrap()).unwrap();
    let nodes = answers::nodes("/nodes", &client.get("/nodes").await.unwrap()).unwrap();
    answers::agree(&members, &nodes).unwrap();
    assert_eq!(members.members.len(), 2);
    assert_eq!(fake.most_under_way(), 1, "one question at a time");
    fake.demand("pulse@pve!monitor=another");
    let refused = client.get("/version").await.unwrap_err().to_string();
    assert!(refused.contains("secret that `pveum user token add` printed"), "{refused}");
    assert!(!refused.contains("5f6f2ce4"), "{refused}");
    assert!(!format!("{client:?}").contains("5f6f2ce4"));
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_shown_with_the_way_out() {
    let fake = FakeProxmox::cluster(&["pve1"]);
    let shown = Fingerprint::of(&fake.certificate());
    let nobody = Trust::System(Arc::new(roots(&[&FakeProxmox::start()])));
    let Doubt::Certificate { text, shown: seen } = ask(&fake, &nobody, "/version").await.unwrap_err() else {
        panic!("it is not trusted")
    };
    assert!(text.contains("--fingerprint") && text.contains(&shown.to_string()), "{text}");
    assert_eq!(seen, Some(shown));
    // The one that the system trusts needs no pin.
    let known = Trust::System(Arc::new(roots(&[&fake])));
    ask(&fake, &known, "/version").await.unwrap();
    let trust = pinned(&fake);
    fake.change_certificate();
    let changed = ask(&fake, &trust, "/version").await.unwrap_err().to_string();
    let new = Fingerprint::of(&fake.certificate());
    assert!(changed.contains(&shown.to_string()) && changed.contains(&new.to_string()), "{changed}");
    assert!(fake.asked().iter().all(|path| path == "/version"), "no token was sent to a stranger");
    assert_eq!(fake.asked().len(), 1);
}

fn roots(fakes: &[&FakeProxmox]) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    fakes.iter().for_each(|fake| roots.add(fake.certificate()).unwrap());
    roots
}

#[tokio::test(start_paused = true)]
async fn a_host_that_says_nothing_is_not_waited_for_without_end() {
    let fake = FakeProxmox::start();
    fake.answer("/version", Reply::stall());
    let began = Instant::now();
    let doubt = ask(&fake, &pinned(&fake), "/version").await.unwrap_err();
    assert!(matches!(doubt, Doubt::Unreachable { .. }), "{doubt}");
    assert!(doubt.to_string().contains("within 10 s"), "{doubt}");
    assert!(began.elapsed() <= LONGEST + Duration::from_secs(1));
}

#[tokio::test]
async fn nobody_there_and_a_wrong_path_are_said_to_be_so() {
    let fake = FakeProxmox::start();
    let trust = pinned(&fake);
    let wrong = ask(&fake, &trust, "/version").await.unwrap_err().to_string();
    assert!(wrong.contains("501 no such file"), "{wrong}");
    let url: PveUrl = fake.url().parse().unwrap();
    drop(fake);
    let gone = Client::connect(&url, &token(), &trust).await.unwrap_err();
    assert!(matches!(gone, Doubt::Unreachable { .. }), "{gone}");
}

#[test]
fn a_token_is_checked_and_shows_itself_to_nobody() {
    for (id, secret, rule) in [
        ("pulse@pve", "secret", "USER@REALM!ID"),
        ("pulse!monitor", "secret", "USER@REALM!ID"),
        ("@pve!monitor", "secret", "USER@REALM!ID"),
        ("pulse@pve!mon itor", "secret", "USER@REALM!ID"),
        ("pulse@pve!monitor", "", "pveum user token add"),
        ("pulse@pve!monitor", "two\nlines", "one line"),
    ] {
        assert!(ApiToken::new(id, secret).unwrap_err().contains(rule), "{id} {secret:?}");
    }
    let token = ApiToken::new("pulse@pve!monitor", "hidden\n").unwrap();
    assert!(!format!("{token:?} {:?}", token.header().unwrap()).contains("hidden"));
}
