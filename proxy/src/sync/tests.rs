use std::path::{Path, PathBuf};
use std::sync::Arc;

use pulse_proto::signature::PinsStatement;
use pulse_proto::{Node, Scope, SignedAllowlist, Token, TokenKind, reason};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use uuid::Uuid;
use v1::watch_authorized_nodes_response::Kind;

use super::ended::Ended;
use super::*;
use crate::gate::{Gate, Source, gate};
use crate::identity::{Home, Hostname, Identity, Pending, ProxyKind};
use crate::link::Failure;
use crate::register;
use crate::seams::Seams;
use crate::shutdown::{DrainTrigger, drain};
use crate::testing::{FakePulse, in_time};

/// A proxy with a hand-written configuration: a token file, a pin, nothing in its state folder.
struct Proxy {
    folder: tempfile::TempDir,
    token: Token,
    gate: Gate,
    link: Link,
    contact_rx: watch::Receiver<Contact>,
    trigger: DrainTrigger,
    task: JoinHandle<()>,
}

impl Proxy {
    fn start(pulse: &FakePulse) -> Proxy {
        let folder = tempfile::tempdir().unwrap();
        let token = Token::generate(TokenKind::Ctrl).unwrap();
        std::fs::write(folder.path().join("token"), token.reveal()).unwrap();
        Proxy::start_in(folder, token, pulse)
    }

    fn start_in(folder: tempfile::TempDir, token: Token, pulse: &FakePulse) -> Proxy {
        let mut standing = standing(folder.path(), pulse);
        let fixed = StaticNodes { nodes: vec![Node::new("fixed", "").unwrap()], networks: 0 };
        let (writer, gate) = gate(first_in_force(&mut standing, &fixed));
        let (sync, link, contact_rx) = Sync::new(standing, fixed, writer, Seams::system()).unwrap();
        let (trigger, drained) = drain();
        let task = tokio::task::spawn(sync.run(drained));
        Proxy { folder, token, gate, link, contact_rx, trigger, task }
    }

    async fn stop(self) -> (tempfile::TempDir, Token) {
        self.trigger.begin();
        in_time(self.task).await.unwrap();
        (self.folder, self.token)
    }

    fn names(&self) -> Vec<String> {
        self.gate.in_force().nodes().iter().map(|node| node.name().to_owned()).collect()
    }

    async fn until(&self, fits: impl Fn(&InForce) -> bool) {
        let mut changed_rx = self.gate.changed_rx();
        in_time(async {
            while !fits(&self.gate.in_force()) {
                changed_rx.changed().await.unwrap();
            }
        })
        .await;
    }
}

fn standing(folder: &Path, pulse: &FakePulse) -> Standing {
    Standing::load(Home::new(folder), pulse.control(&folder.join("token")))
}

fn only_folder(state: &Path) -> PathBuf {
    let mut control = std::fs::read_dir(state.join("control")).unwrap().map(|entry| entry.unwrap().path());
    control.find(|path| path.is_dir()).unwrap()
}

fn refusal(code: Code, why: &str, text: &str) -> Status {
    Status::with_error_details(code, text, ErrorDetails::with_error_info(why, reason::DOMAIN, []))
}

#[tokio::test]
async fn a_pushed_list_is_kept_put_in_force_and_reported() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    assert_eq!(proxy.names(), ["fixed"]);
    let mut watch = pulse.watch().await;
    assert_eq!((watch.request.revision, watch.request.source()), (0, v1::ListSource::Static));
    assert_eq!(watch.token, proxy.token.reveal());
    watch.send(Kind::Snapshot(pulse.list(3, &["delly", "minipc"])));
    let report = pulse.report().await;
    assert_eq!((report.outcome(), report.on_disk, report.revision), (v1::SyncOutcome::Applied, true, 3));
    assert_eq!(
        (proxy.names(), proxy.gate.in_force().source()),
        (vec!["delly".into(), "minipc".into()], Source::Pushed)
    );

    // After a restart without the server it begins with that list, and says what it holds.
    let (folder, token) = proxy.stop().await;
    let proxy = Proxy::start_in(folder, token, &pulse);
    assert_eq!(proxy.gate.in_force().source(), Source::Cache);
    let mut watch = pulse.watch().await;
    assert_eq!((watch.request.revision, watch.request.source()), (3, v1::ListSource::Cache));
    let hash = watch.request.hash.clone();
    watch.send(Kind::Unchanged(v1::Unchanged { epoch: 7, revision: 9, hash }));
    proxy.until(|in_force| in_force.source() == Source::Pushed).await;
    // The fleet's revision does not move the mark: a list of revision 4 is still newer.
    watch.send(Kind::Snapshot(pulse.list(4, &["delly"])));
    assert_eq!(pulse.report().await.outcome(), v1::SyncOutcome::Applied);
}

#[tokio::test]
async fn what_fails_a_check_is_refused_reported_once_and_changes_nothing() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(5, &["delly"])));
    assert_eq!(pulse.report().await.outcome(), v1::SyncOutcome::Applied);

    let mut wrong_hash = pulse.list(6, &["a"]);
    wrong_hash.nodes.push(v1::Node { name: "intruder".into(), ip: String::new() });
    let mut bad_signature = pulse.list(6, &["b"]);
    bad_signature.revision = 7;
    let mut cidr = pulse.list(6, &["c"]);
    cidr.nodes[0].ip = "0.0.0.0/0".into();
    let other_key = pulse_proto::signature::SigningKey::generate().unwrap().0;
    let foreign = crate::testing::signed(&other_key, 6, &["d"]).to_wire();
    let of_an_epoch_that_is_over = pulse_proto::SignedAllowlist::sign(
        &pulse.key,
        Position { epoch: 6, revision: 99 },
        pulse_proto::Scope::All,
        pulse_proto::Allowlist::new([Node::new("f", "").unwrap()]),
        std::time::SystemTime::UNIX_EPOCH,
        Duration::from_secs(60),
    );
    for (list, reason) in [
        (wrong_hash, v1::RefusalReason::WrongHash),
        (bad_signature, v1::RefusalReason::BadSignature),
        (cidr, v1::RefusalReason::InvalidNode),
        (foreign, v1::RefusalReason::UnknownKey),
        (pulse.list(4, &["e"]), v1::RefusalReason::OlderRevision),
        (of_an_epoch_that_is_over.to_wire(), v1::RefusalReason::OlderEpoch),
    ] {
        watch.send(Kind::Snapshot(list.clone()));
        let report = pulse.report().await;
        assert_eq!((report.outcome(), report.refusal_reason()), (v1::SyncOutcome::Refused, reason));
        assert!(!report.detail.is_empty());
        watch.send(Kind::Snapshot(list));
    }
    watch.send(Kind::Snapshot(pulse.list(8, &["delly", "good"])));
    // The very next report is of the good list: no doubled refusal came between.
    assert_eq!(pulse.report().await.revision, 8);
    assert_eq!(proxy.names(), ["delly", "good"]);
}

#[tokio::test]
async fn a_revoked_proxy_reads_nothing_also_after_a_restart_until_there_is_a_new_token() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(1, &["delly"])));
    pulse.report().await;
    watch.send(Kind::Revoked(v1::Revoked { reason: "lost".into() }));
    proxy.until(|in_force| in_force.closed().is_some()).await;
    assert_eq!(proxy.gate.in_force().closed().unwrap(), "revoked: lost");
    let mut contact_rx = proxy.contact_rx.clone();
    in_time(contact_rx.wait_for(|contact| contact.is_revoked)).await.unwrap();
    watch.closed().await;

    let (folder, token) = proxy.stop().await;
    let proxy = Proxy::start_in(folder, token, &pulse);
    assert_eq!(proxy.gate.in_force().closed().unwrap(), "revoked: lost");

    let fresh = Token::generate(TokenKind::Ctrl).unwrap();
    std::fs::write(proxy.folder.path().join("token"), fresh.reveal()).unwrap();
    let mut watch = pulse.watch().await;
    assert_eq!(watch.token, fresh.reveal());
    // The list from before the revocation is gone for good.
    assert_eq!(proxy.names(), ["fixed"]);
    watch.send(Kind::Snapshot(pulse.list(2, &["minipc"])));
    pulse.report().await;
    assert_eq!(proxy.names(), ["minipc"]);
    let (folder, _) = proxy.stop().await;
    assert_eq!(standing(folder.path(), &pulse).revoked(), None);
}

#[tokio::test]
async fn a_revoked_token_in_the_token_file_revokes_itself_and_not_the_one_before_it() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(1, &["delly"])));
    pulse.report().await;
    // As a slip of the pen would have it: another host's token, and that one is revoked.
    let other = Token::generate(TokenKind::Ctrl).unwrap();
    std::fs::write(proxy.folder.path().join("token"), other.reveal()).unwrap();
    *pulse.refuse_watch.lock().unwrap() =
        Some(refusal(Code::PermissionDenied, reason::PROXY_REVOKED, "revoked by an admin"));
    watch.send(Kind::Bookmark(v1::Bookmark::default()));
    proxy.until(|in_force| in_force.closed().is_some()).await;
    let (folder, token) = proxy.stop().await;
    assert!(standing(folder.path(), &pulse).revoked().is_some(), "after a restart too");

    *pulse.refuse_watch.lock().unwrap() = None;
    std::fs::write(folder.path().join("token"), token.reveal()).unwrap();
    let proxy = Proxy::start_in(folder, token.clone(), &pulse);
    let mut watch = pulse.watch().await;
    assert_eq!(watch.token, token.reveal());
    watch.send(Kind::Snapshot(pulse.list(2, &["delly"])));
    pulse.report().await;
    assert_eq!(proxy.names(), ["delly"]);
}

#[tokio::test]
async fn a_revocation_by_status_counts_too() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let watch = pulse.watch().await;
    watch.fail(refusal(Code::PermissionDenied, reason::PROXY_REVOKED, "revoked by an admin"));
    proxy.until(|in_force| in_force.closed().is_some()).await;
    assert!(proxy.gate.in_force().closed().unwrap().contains("revoked by an admin"));
}

#[tokio::test]
async fn waiting_unknown_kinds_and_an_unknown_token_leave_what_is_in_force() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Waiting(v1::Waiting { reason: "no instance".into() }));
    watch.send_unknown();
    watch.send(Kind::Bookmark(v1::Bookmark::default()));
    watch.send(Kind::Snapshot(pulse.list(1, &["delly"])));
    pulse.report().await;
    *pulse.refuse_watch.lock().unwrap() =
        Some(refusal(Code::Unauthenticated, reason::UNKNOWN_TOKEN, "the token is not known"));
    watch.fail(Status::unavailable("going down"));
    // A new token in the token file ends the wait, long before its time.
    let fresh = Token::generate(TokenKind::Ctrl).unwrap();
    pulse.watch_refused().await;
    assert_eq!(proxy.names(), ["delly"]);
    *pulse.refuse_watch.lock().unwrap() = None;
    std::fs::write(proxy.folder.path().join("token"), fresh.reveal()).unwrap();
    let watch = pulse.watch().await;
    assert_eq!((watch.token.as_str(), watch.request.revision), (fresh.reveal(), 1));
    assert_eq!(proxy.names(), ["delly"]);
}

#[tokio::test]
async fn goodbye_says_when_to_come_back_and_the_stream_after_it_catches_up() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(1, &["delly"])));
    pulse.report().await;
    let wait = Duration::from_millis(300);
    let begun = Instant::now();
    watch.send(Kind::Goodbye(v1::Goodbye {
        reconnect_after: wait.try_into().ok(),
        reason: "draining".into(),
    }));
    let mut watch = pulse.watch().await;
    assert!(begun.elapsed() >= wait, "{:?}", begun.elapsed());
    watch.send(Kind::Snapshot(pulse.list(2, &["delly", "minipc"])));
    assert_eq!(pulse.report().await.revision, 2);
    assert!(proxy.contact_rx.borrow().streams == 2);
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_given_up_and_dialled_again() {
    let mut pulse = FakePulse::start().await;
    pulse.refresh_interval = Duration::from_millis(100);
    let _proxy = Proxy::start(&pulse);
    let mut silent = pulse.watch().await;
    silent.send(Kind::Waiting(v1::Waiting { reason: "no instance".into() }));
    // Held open, and not a word more: three intervals later the proxy is back.
    let begun = Instant::now();
    let _next = pulse.watch().await;
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    silent.closed().await;
}

#[tokio::test]
async fn a_rotated_token_is_on_the_disk_before_it_is_used() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Waiting(v1::Waiting { reason: "no instance".into() }));
    watch.send(Kind::RotateToken(v1::RotateToken {}));
    let mut next = pulse.watch().await;
    assert_eq!(next.token, pulse.new_token.reveal());
    let kept = only_folder(proxy.folder.path());
    assert_eq!(std::fs::read_to_string(kept.join("token")).unwrap().trim(), pulse.new_token.reveal());
    assert_eq!(std::fs::read_to_string(kept.join("token.previous")).unwrap().trim(), proxy.token.reveal());
    // Once it has worked, the old one goes; the token file is an old seed and does not come back.
    next.send(Kind::Snapshot(pulse.list(1, &["delly"])));
    pulse.report().await;
    assert!(!kept.join("token.previous").exists());
    let (folder, _) = proxy.stop().await;
    assert_eq!(standing(folder.path(), &pulse).token(), Some(&pulse.new_token));
}

#[tokio::test]
async fn a_new_token_that_never_worked_gives_way_to_the_one_before() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    *pulse.refuse_new_token.lock().unwrap() =
        Some(refusal(Code::Unauthenticated, reason::UNKNOWN_TOKEN, "the token is not known"));
    watch.send(Kind::RotateToken(v1::RotateToken {}));
    let next = pulse.watch().await;
    assert_eq!(next.token, proxy.token.reveal());
    let (folder, token) = proxy.stop().await;
    let kept = only_folder(folder.path());
    assert_eq!(std::fs::read_to_string(kept.join("token")).unwrap().trim(), token.reveal());
    assert!(!kept.join("token.previous").exists());
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_does_not_keep_a_list_from_being_in_force() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(1, &["delly"])));
    pulse.report().await;
    // What stands in the way here is no file, so that it cannot be taken away.
    let in_the_way = only_folder(proxy.folder.path()).join(".allowlist.cache.new");
    std::fs::create_dir(&in_the_way).unwrap();
    watch.send(Kind::Snapshot(pulse.list(2, &["minipc"])));
    let report = pulse.report().await;
    assert_eq!((report.outcome(), report.on_disk), (v1::SyncOutcome::Applied, false));
    assert!(report.detail.contains("allowlist.cache"), "{}", report.detail);
    assert_eq!(proxy.names(), ["minipc"]);
    // The mark did not go ahead of the disk, but this process does not go back.
    watch.send(Kind::Snapshot(pulse.list(1, &["delly"])));
    assert_eq!(pulse.report().await.refusal_reason(), v1::RefusalReason::OlderRevision);
    assert_eq!(standing(proxy.folder.path(), &pulse).reached().revision, 1);

    // Once the disk can be written the list is on it, with the next sign of life and without another push.
    watch.send(Kind::Bookmark(v1::Bookmark::default()));
    std::fs::remove_dir(&in_the_way).unwrap();
    watch.send(Kind::Bookmark(v1::Bookmark::default()));
    let report = pulse.report().await;
    assert_eq!((report.outcome(), report.on_disk, report.revision), (v1::SyncOutcome::Applied, true, 2));
    let (folder, _) = proxy.stop().await;
    let mut kept = standing(folder.path(), &pulse);
    assert_eq!((kept.reached().revision, kept.cached().unwrap().unwrap().list.position.revision), (2, 2));
}

#[tokio::test]
async fn what_a_full_disk_kept_out_is_written_when_there_is_room() {
    let mut pulse = FakePulse::start().await;
    // The very folder of the server cannot be made.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("control"), "").unwrap();
    let token = Token::generate(TokenKind::Ctrl).unwrap();
    std::fs::write(folder.path().join("token"), token.reveal()).unwrap();
    let proxy = Proxy::start_in(folder, token, &pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(1, &["delly"])));
    let report = pulse.report().await;
    assert_eq!((report.outcome(), report.on_disk), (v1::SyncOutcome::Applied, false));
    assert_eq!(proxy.names(), ["delly"]);
    std::fs::remove_file(proxy.folder.path().join("control")).unwrap();
    watch.send(Kind::Bookmark(v1::Bookmark::default()));
    let report = pulse.report().await;
    assert_eq!((report.outcome(), report.on_disk, report.revision), (v1::SyncOutcome::Applied, true, 1));
    let (folder, token) = proxy.stop().await;
    let mut kept = standing(folder.path(), &pulse);
    assert_eq!((kept.token(), kept.keys()), (Some(&token), [pulse.key.public()].as_slice()));
    assert_eq!(kept.cached().unwrap().unwrap().list.position.revision, 1);
}

/// A proxy that has applied revision 3 and has a token of its own from a rotation, stopped.
async fn stopped_after_a_rotation(pulse: &mut FakePulse) -> (tempfile::TempDir, Token) {
    let proxy = Proxy::start(pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(3, &["delly"])));
    pulse.report().await;
    watch.send(Kind::RotateToken(v1::RotateToken {}));
    let mut watch = pulse.watch().await;
    watch.send(Kind::Bookmark(v1::Bookmark::default()));
    let previous = only_folder(proxy.folder.path()).join("token.previous");
    in_time(async {
        while previous.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    proxy.stop().await
}

#[tokio::test]
async fn a_lost_identity_is_learnt_anew_from_the_server_that_the_configuration_pins() {
    let mut pulse = FakePulse::start().await;
    let (folder, token) = stopped_after_a_rotation(&mut pulse).await;
    let identity = only_folder(folder.path()).join("identity.json");
    let before = std::fs::read_to_string(&identity).unwrap();
    std::fs::write(&identity, &before[..before.len() / 2]).unwrap();
    let damaged = standing(folder.path(), &pulse);
    let trouble = damaged.trouble().unwrap();
    assert!(trouble.text.contains("identity.json is damaged") && trouble.text.contains("register again"));

    let proxy = Proxy::start_in(folder, token, &pulse);
    assert_eq!(proxy.names(), ["fixed"]);
    let mut watch = pulse.watch().await;
    // The token of the last rotation, and not the older one in the token file.
    assert_eq!((watch.token.as_str(), watch.request.revision), (pulse.new_token.reveal(), 0));
    // The mark is known again from the kept list, so an older list is refused.
    watch.send(Kind::Snapshot(pulse.list(2, &["old"])));
    assert_eq!(pulse.report().await.refusal_reason(), v1::RefusalReason::OlderRevision);
    assert_eq!((proxy.names(), proxy.gate.in_force().source()), (vec!["delly".into()], Source::Cache));
    watch.send(Kind::Snapshot(pulse.list(4, &["new"])));
    assert!(pulse.report().await.on_disk);
    let (folder, _) = proxy.stop().await;
    let mut mended = standing(folder.path(), &pulse);
    assert_eq!((mended.trouble(), mended.reached().revision), (None, 4));
    assert_eq!(mended.token(), Some(&pulse.new_token));
    assert!(mended.cached().unwrap().is_ok());
}

#[tokio::test]
async fn with_a_lost_identity_and_no_pin_of_the_configuration_no_token_is_sent() {
    let mut pulse = FakePulse::start().await;
    let (folder, _) = stopped_after_a_rotation(&mut pulse).await;
    std::fs::write(only_folder(folder.path()).join("identity.json"), "{").unwrap();
    let mut control = pulse.control(&folder.path().join("token"));
    (control.pin, control.insecure_skip_verify) = (None, true);
    let mut lost = Standing::load(Home::new(folder.path()), control);
    assert!(!matches!(lost.trust(), Trust::Unchecked), "a pin may have been known");
    let error = in_time(once::fetch(&mut lost, &Seams::system())).await.unwrap_err();
    assert!(!matches!(error, once::FetchError::NoToken(_)), "{error}");
    assert!(tokio::time::timeout(Duration::from_millis(50), pulse.watch()).await.is_err());
}

#[tokio::test]
async fn a_damaged_token_is_written_anew_once_the_token_files_one_has_worked() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(3, &["delly"])));
    pulse.report().await;
    let (folder, token) = proxy.stop().await;
    let kept = only_folder(folder.path()).join("token");
    std::fs::write(&kept, &token.reveal()[..20]).unwrap();
    let damaged = standing(folder.path(), &pulse);
    assert!(damaged.trouble().unwrap().text.contains("token is damaged"));
    assert!(!damaged.trouble().unwrap().text.contains(&token.reveal()[5..20]));
    let proxy = Proxy::start_in(folder, token, &pulse);
    assert_eq!((proxy.names(), proxy.gate.in_force().source()), (vec!["delly".into()], Source::Cache));
    let mut watch = pulse.watch().await;
    assert_eq!(watch.token, proxy.token.reveal());
    watch.send(Kind::Snapshot(pulse.list(4, &["new"])));
    pulse.report().await;
    assert_eq!(std::fs::read_to_string(&kept).unwrap().trim(), proxy.token.reveal());
    let (folder, _) = proxy.stop().await;
    assert_eq!(standing(folder.path(), &pulse).trouble(), None);
}

#[tokio::test]
async fn what_was_wrong_with_the_kept_list_is_told_to_the_server_for_the_whole_start() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    assert_eq!(watch.request.kept_list_problem(), v1::KeptListProblem::Unspecified);
    watch.send(Kind::Snapshot(pulse.list(3, &["delly"])));
    pulse.report().await;
    let (folder, token) = proxy.stop().await;
    std::fs::write(only_folder(folder.path()).join("allowlist.cache"), "x").unwrap();
    let proxy = Proxy::start_in(folder, token, &pulse);
    let mut watch = pulse.watch().await;
    assert_eq!(watch.request.kept_list_problem(), v1::KeptListProblem::Damaged);
    assert!(watch.request.kept_list_detail.contains("allowlist.cache is damaged"));
    watch.send(Kind::Snapshot(pulse.list(3, &["delly"])));
    assert!(pulse.report().await.on_disk);
    watch.send(Kind::Goodbye(v1::Goodbye { reconnect_after: None, reason: "draining".into() }));
    assert_eq!(pulse.watch().await.request.kept_list_problem(), v1::KeptListProblem::Damaged);
    let (folder, token) = proxy.stop().await;
    let _proxy = Proxy::start_in(folder, token, &pulse);
    assert_eq!(pulse.watch().await.request.kept_list_problem(), v1::KeptListProblem::Unspecified);
}

#[tokio::test]
async fn without_an_id_another_proxys_newer_list_is_told_by_its_scope() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(3, &["delly"])));
    pulse.report().await;
    let (folder, _) = proxy.stop().await;
    let signed = |scope| {
        let (position, now) = (Position { epoch: 7, revision: 4 }, std::time::SystemTime::now());
        let nodes = pulse_proto::Allowlist::new([Node::new("other", "").unwrap()]);
        SignedAllowlist::sign(&pulse.key, position, scope, nodes, now, Duration::from_secs(60))
    };
    let path = only_folder(folder.path()).join("allowlist.cache");
    let load = |list| {
        crate::cache::store(&path, None, &list, std::time::SystemTime::now()).unwrap();
        standing(folder.path(), &pulse).cached().unwrap()
    };
    let error = load(signed(Scope::Instance(Uuid::now_v7()))).unwrap_err();
    assert!(error.reason() == "foreign" && error.to_string().contains("and all was applied"), "{error}");
    // As a crash between the list and its mark leaves it.
    assert_eq!(load(signed(Scope::All)).unwrap().list.position.revision, 4);
}

#[tokio::test]
async fn another_server_at_the_address_is_never_sent_a_token() {
    let mut pulse = FakePulse::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), Token::generate(TokenKind::Ctrl).unwrap().reveal()).unwrap();
    let mut control = pulse.control(&folder.path().join("token"));
    control.pin = Some(crate::testing::Authority::new().pin);
    control.insecure_skip_verify = true;
    let mut standing = Standing::load(Home::new(folder.path()), control);
    let error = in_time(once::fetch(&mut standing, &Seams::system())).await.unwrap_err().to_string();
    assert!(error.contains("does not lead to the pinned key"), "{error}");
    assert!(tokio::time::timeout(Duration::from_millis(50), pulse.watch()).await.is_err());
}

#[tokio::test]
async fn sync_once_keeps_the_list_and_says_why_it_cannot() {
    let mut pulse = FakePulse::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut bare = standing(folder.path(), &pulse);
    assert!(matches!(once::fetch(&mut bare, &Seams::system()).await, Err(once::FetchError::NoToken(_))));
    std::fs::write(folder.path().join("token"), Token::generate(TokenKind::Ctrl).unwrap().reveal()).unwrap();
    let mut ready = standing(folder.path(), &pulse);
    let list = pulse.list(3, &["delly"]);
    let seams = Seams::system();
    let (fetched, ()) = tokio::join!(in_time(once::fetch(&mut ready, &seams)), async {
        pulse.watch().await.send(Kind::Snapshot(list));
    });
    assert!(matches!(fetched.unwrap(), once::Fetched::List(list, Ok(())) if list.allowlist.len() == 1));
    let mut again = standing(folder.path(), &pulse);
    assert_eq!(again.cached().unwrap().unwrap().list.position.revision, 3);
    assert!(pulse.no_report());
}

fn pending(pulse: &FakePulse) -> Pending {
    let join = Token::generate(TokenKind::Join).unwrap();
    let text = format!("pulse://{}/?pin={}&join={}", pulse.address, pulse.authority.pin, join.reveal());
    Pending {
        join: text.parse().unwrap(),
        hostname: Hostname { name: "delly".into(), is_given: true },
        kind: ProxyKind::Socket,
        proxy_url: String::new(),
        machine_id: "ab".repeat(32),
    }
}

fn answers(pulse: &FakePulse, proxy_id: Uuid, token: &Token) -> v1::RegisterResponse {
    v1::RegisterResponse {
        proxy_id: proxy_id.to_string(),
        ctrl_token: token.reveal().to_owned(),
        instance: None,
        list: Some(v1::register_response::List::Snapshot(pulse.list(2, &["delly"]))),
        server: Some(pulse.info.clone()),
        token: String::new(),
    }
}

#[tokio::test]
async fn a_registration_that_waits_is_made_by_run_when_the_server_answers() {
    let mut pulse = FakePulse::start().await;
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path());
    home.keep_pending(&pending(&pulse)).unwrap();
    let token = Token::generate(TokenKind::Ctrl).unwrap();
    let proxy = Proxy::start_in(folder, token.clone(), &pulse);
    let proxy_id = Uuid::now_v7();
    let answer = answers(&pulse, proxy_id, &token);
    *pulse.register.lock().unwrap() = Some(Box::new(move |request| {
        assert!(
            request.metadata().get("authorization").unwrap().to_str().unwrap().starts_with("Bearer pjoin_")
        );
        Ok(answer.clone())
    }));
    let watch = pulse.watch().await;
    assert_eq!((watch.token.as_str(), watch.request.revision), (token.reveal(), 2));
    assert_eq!(proxy.names(), ["delly"]);
    assert!(home.pending().unwrap().is_none());
    let standing = standing(proxy.folder.path(), &pulse);
    assert_eq!(standing.identity().unwrap().proxy_id, Some(proxy_id));
    assert_eq!(standing.identity().unwrap().pin, Some(pulse.authority.pin));
    // As after `register`: the token file has the token too, and it is noted as taken up.
    let token_file = proxy.folder.path().join("token");
    assert_eq!(std::fs::read_to_string(&token_file).unwrap().trim(), token.reveal());
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&token_file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(standing.identity().unwrap().seed, Some(token.digest()));
}

#[tokio::test]
async fn a_registration_that_waits_outlasts_a_stranger_at_the_servers_address() {
    let pulse = FakePulse::start().await;
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path());
    let mut pending = pending(&pulse);
    pending.join.pin = Some(crate::testing::Authority::new().pin);
    let refused = register::register(&pending, &home, None, &Seams::system()).await.unwrap_err();
    assert!(matches!(&refused, RegisterError::WrongServer(text) if text.contains("pinned key")), "{refused}");
    home.keep_pending(&pending).unwrap();
    let (mut sync, _) = idle(folder.path(), &pulse);
    let wait = sync.register_if_pending().await.unwrap_err();
    // Only a floor that long would be cut short by what waits.
    assert!(wait.floor < REFUSED_PAUSE, "{wait:?}");
    assert_eq!(sync.trouble, Some(Trouble::WrongServer));
    assert!(home.pending().unwrap().is_some());
}

#[tokio::test]
async fn whoever_sends_readings_is_told_while_the_server_has_no_list_for_this_proxy() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut contact_rx = proxy.contact_rx.clone();
    let mut watch = pulse.watch().await;
    watch.send(Kind::Waiting(v1::Waiting { reason: "no instance".into() }));
    in_time(contact_rx.wait_for(|contact| contact.is_waiting)).await.unwrap();
    watch.send(Kind::Bookmark(v1::Bookmark::default()));
    watch.fail(Status::unavailable("a moment"));
    // Neither a sign of life nor the loss of the stream is a list.
    let mut watch = pulse.watch().await;
    assert!(proxy.contact_rx.borrow().is_waiting);
    watch.send(Kind::Snapshot(pulse.list(3, &["delly"])));
    in_time(contact_rx.wait_for(|contact| !contact.is_waiting)).await.unwrap();
}

#[tokio::test]
async fn a_registration_that_is_refused_is_given_up_and_says_so() {
    let pulse = FakePulse::start().await;
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path());
    *pulse.register.lock().unwrap() = Some(Box::new(|_| {
        Err(refusal(Code::PermissionDenied, reason::JOIN_TOKEN_EXPIRED, "the join token is past its time"))
    }));
    home.keep_pending(&pending(&pulse)).unwrap();
    let proxy = Proxy::start_in(folder, Token::generate(TokenKind::Ctrl).unwrap(), &pulse);
    in_time(async {
        while home.pending().unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(proxy.names(), ["fixed"]);
}

#[tokio::test]
async fn a_registration_that_waits_for_a_busy_server_does_not_hold_back_the_stream() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let home = Home::new(proxy.folder.path());
    let (asked_tx, mut asked_rx) = watch::channel(0);
    *pulse.register.lock().unwrap() = Some(Box::new(move |_| {
        asked_tx.send_modify(|asked| *asked += 1);
        Err(Status::resource_exhausted("more than the server takes at one time"))
    }));
    home.keep_pending(&pending(&pulse)).unwrap();
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(1, &["delly"])));
    assert_eq!(pulse.report().await.outcome(), v1::SyncOutcome::Applied);
    in_time(asked_rx.wait_for(|asked| *asked > 0)).await.unwrap();
    // Kept, and the stream goes on.
    watch.send(Kind::Snapshot(pulse.list(2, &["delly", "minipc"])));
    assert_eq!(pulse.report().await.outcome(), v1::SyncOutcome::Applied);
    assert!(home.pending().unwrap().is_some());

    // Once it is made the next stream goes by it, though this one lives.
    let token = Token::generate(TokenKind::Ctrl).unwrap();
    let answer = answers(&pulse, Uuid::now_v7(), &token);
    *pulse.register.lock().unwrap() = Some(Box::new(move |_| Ok(answer.clone())));
    let renewed = pulse.watch().await;
    assert_eq!(renewed.token, token.reveal());
    assert!(home.pending().unwrap().is_none());
    drop(watch);
}

#[tokio::test]
async fn registering_again_proves_the_identity_and_keeps_the_token() {
    let pulse = FakePulse::start().await;
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path());
    let token = Token::generate(TokenKind::Ctrl).unwrap();
    let proxy_id = Uuid::now_v7();
    let mut answer = answers(&pulse, proxy_id, &token);
    let first = answer.clone();
    *pulse.register.lock().unwrap() = Some(Box::new(move |_| Ok(first.clone())));
    register::register(&pending(&pulse), &home, None, &Seams::system()).await.unwrap();
    answer.ctrl_token = String::new();
    let (expected, proof) = (proxy_id.to_string(), token.reveal().to_owned());
    *pulse.register.lock().unwrap() = Some(Box::new(move |request| {
        assert_eq!(request.get_ref().proxy_id, expected);
        assert_eq!(request.metadata().get("x-proxy-token").unwrap().to_str().unwrap(), proof);
        Ok(answer.clone())
    }));
    let again = register::register(&pending(&pulse), &home, None, &Seams::system()).await.unwrap();
    assert_eq!((again.identity.proxy_id, &again.token), (Some(proxy_id), &token));

    // Nor to whoever answers where nothing is checked, though a pin is known.
    let mut unchecked = pending(&pulse);
    unchecked.join.pin = None;
    let mut control = pulse.control(&home.path().join("token"));
    (control.pin, control.insecure_skip_verify) = (None, true);
    let fresh = answers(&pulse, proxy_id, &again.token);
    *pulse.register.lock().unwrap() = Some(Box::new(move |request| {
        assert!(request.metadata().get("x-proxy-token").is_none());
        Ok(fresh.clone())
    }));
    register::register(&unchecked, &home, Some(&control), &Seams::system()).await.unwrap();
    // A pin of the configuration counts there too.
    control.pin = Some(crate::testing::Authority::new().pin);
    let error = register::register(&unchecked, &home, Some(&control), &Seams::system()).await.unwrap_err();
    assert!(matches!(error, register::RegisterError::WrongServer(_)), "{error}");

    // A server with other keys at the same address is another one: nothing is proved to it.
    let other = FakePulse::start().await;
    let folder = home.folder(again.identity.server_id);
    folder.create(&Identity { url: other.url(), ..again.identity }).unwrap();
    let fresh = answers(&other, Uuid::now_v7(), &Token::generate(TokenKind::Ctrl).unwrap());
    *other.register.lock().unwrap() = Some(Box::new(move |request| {
        assert!(request.get_ref().proxy_id.is_empty());
        assert!(request.metadata().get("x-proxy-token").is_none());
        Ok(fresh.clone())
    }));
    register::register(&pending(&other), &home, None, &Seams::system()).await.unwrap();
}

#[tokio::test]
async fn two_runs_on_one_state_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path());
    let lock = home.lock().unwrap();
    assert!(home.is_in_use());
    assert!(matches!(home.lock(), Err(IdentityError::InUse(_))));
    drop(lock);
    assert!(!home.is_in_use());
    assert!(home.lock().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_tried_again_and_the_list_stays() {
    // Nobody listens there: a port that was just free.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), Token::generate(TokenKind::Ctrl).unwrap().reveal()).unwrap();
    let control = crate::config::ControlPlane {
        url: crate::config::ServerUrl::new("127.0.0.1", 1).unwrap(),
        token_file: folder.path().join("token"),
        refresh_interval: Duration::from_secs(60),
        insecure_skip_verify: false,
        ca_file: None,
        pin: Some(crate::testing::Authority::new().pin),
    };
    let mut standing = Standing::load(Home::new(folder.path()), control);
    let fixed = StaticNodes { nodes: vec![Node::new("fixed", "").unwrap()], networks: 0 };
    let (writer, gate) = gate(first_in_force(&mut standing, &fixed));
    let (sync, _, _contact_rx) = Sync::new(standing, fixed, writer, Seams::system()).unwrap();
    let (trigger, drained) = drain();
    let task = tokio::task::spawn(sync.run(drained));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(gate.in_force().source(), Source::Static);
    trigger.begin();
    in_time(task).await.unwrap();
}

#[test]
fn the_gates_list_is_shared_and_not_copied() {
    let key = pulse_proto::signature::SigningKey::generate().unwrap().0;
    let list = Arc::new(crate::testing::signed(&key, 1, &["a"]));
    let (_writer, gate) =
        gate(InForce::Pushed { list: Arc::clone(&list), since: std::time::SystemTime::now() });
    assert!(Arc::ptr_eq(gate.in_force().list().unwrap(), &list));
}

/// A loop that never ran, for what it does between streams.
fn idle(folder: &Path, pulse: &FakePulse) -> (Sync, crate::link::Link) {
    let mut standing = standing(folder, pulse);
    let (writer, _) = gate(first_in_force(&mut standing, &StaticNodes::default()));
    let (sync, link, _) = Sync::new(standing, StaticNodes::default(), writer, Seams::system()).unwrap();
    (sync, link)
}

#[tokio::test]
async fn an_answer_to_a_report_ends_the_wait_for_a_lost_server_but_not_one_that_was_asked_for() {
    let pulse = FakePulse::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, link) = idle(folder.path(), &pulse);
    tokio::time::pause();
    let (least, jitter) = (Duration::from_secs(5), Duration::from_secs(55));
    for (wait, lasts) in [
        (Wait { jitter, ..Wait::default() }, Duration::ZERO),
        (Wait { jitter, ..Wait::firm(least) }, least),
        (Wait { jitter, ..Wait::asked(least) }, least),
        (Wait { jitter, ..Wait::asked(least) }.made_firm(), least + jitter),
    ] {
        let begun = Instant::now();
        // The wait is polled first: an answer from before it would say nothing.
        tokio::join!(sync.pause(wait), async { link.note_answer() });
        let waited = begun.elapsed();
        assert!(waited >= lasts && waited < lasts + Duration::from_secs(1), "{wait:?}: {waited:?}");
    }
}

#[tokio::test]
async fn neither_a_registration_that_waits_nor_a_new_token_shortens_what_the_server_asks_for() {
    let pulse = FakePulse::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, _) = idle(folder.path(), &pulse);
    sync.standing.home().keep_pending(&pending(&pulse)).unwrap();
    let asked = Duration::from_secs(45);
    let busy = Failure::Unavailable { text: "busy".into(), retry_after: Some(asked) };
    let refused = Failure::Refused("no".into());
    tokio::time::pause();
    // Of its own it would have waited for 30 s at least, and the registration ends that at the first look.
    for (failure, least, most) in
        [(busy, asked, asked + Duration::from_secs(3)), (refused, Duration::ZERO, Duration::from_secs(3))]
    {
        let token = Token::generate(TokenKind::Ctrl).unwrap();
        std::fs::write(folder.path().join("token"), token.reveal()).unwrap();
        let wait = sync.after(Ended::Failed(failure), Duration::ZERO);
        let begun = Instant::now();
        sync.pause(wait).await;
        let waited = begun.elapsed();
        assert!(waited >= least && waited <= most, "{wait:?}: {waited:?}");
    }
}

#[tokio::test]
async fn only_a_server_that_does_not_answer_is_waited_for_with_an_open_ear() {
    let pulse = FakePulse::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, _) = idle(folder.path(), &pulse);
    let asked = Duration::from_secs(7);
    let lost = sync.after(Ended::Failed(Failure::Unreachable("gone".into())), Duration::ZERO);
    assert_eq!(lost.least(), Duration::ZERO);
    let busy = Failure::Unavailable { text: "busy".into(), retry_after: Some(asked) };
    let busy = sync.after(Ended::Failed(busy), Duration::ZERO);
    assert!(busy.asked == asked && busy.jitter.is_zero(), "{busy:?}");
    assert_eq!(sync.after(Ended::Goodbye(asked, "draining".into()), Duration::ZERO), Wait::asked(asked));
    // A goodbye without a time must not make a loop that never rests.
    let many: Duration = (0..8)
        .map(|_| sync.after(Ended::Goodbye(Duration::ZERO, "full".into()), Duration::ZERO).total())
        .sum();
    assert!(many > Duration::from_millis(100), "{many:?}");
}

#[tokio::test]
async fn a_stranger_at_the_servers_address_brings_no_keys_of_its_own() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(1, &["delly"])));
    pulse.report().await;
    let (folder, token) = proxy.stop().await;

    // The same address and the same TLS key, as a terminator or an unchecked certificate would let through.
    let other = pulse_proto::signature::SigningKey::generate().unwrap().0;
    let mut stranger = pulse.info.clone();
    stranger.server_id = Uuid::now_v7().to_string();
    stranger.signing_keys[0].public_key = other.public().as_bytes().to_vec();
    let mut known = standing(folder.path(), &pulse);
    known.learn(&stranger).unwrap();
    assert_eq!(known.keys(), [pulse.key.public()]);
    assert_eq!(known.reached().revision, 1);

    // A new token is a person's word for it.
    std::fs::write(folder.path().join("token"), Token::generate(TokenKind::Ctrl).unwrap().reveal()).unwrap();
    known.refresh();
    known.learn(&stranger).unwrap();
    assert_eq!((known.keys(), known.reached().revision), ([other.public()].as_slice(), 0));
    // And it is still so after a restart, though the folder of the first server names the same address.
    let again = standing(folder.path(), &pulse);
    assert_eq!(again.identity().unwrap().server_id.to_string(), stranger.server_id);
    assert_ne!(again.token(), Some(&token));
}

#[tokio::test]
async fn a_server_that_was_met_before_is_taken_only_under_a_tls_key_that_it_had() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(1, &["delly"])));
    pulse.report().await;
    let (folder, _) = proxy.stop().await;
    // This host was registered with another server once.
    let other = pulse_proto::signature::SigningKey::generate().unwrap().0;
    let earlier = Identity {
        server_id: Uuid::now_v7(),
        url: "https://earlier.test".parse().unwrap(),
        pin: Some(crate::testing::Authority::new().pin),
        keys: vec![other.public()],
        mark: None,
        ..standing(folder.path(), &pulse).identity().unwrap().clone()
    };
    let home = Home::new(folder.path());
    home.folder(earlier.server_id).create(&earlier).unwrap();
    let mut info = pulse.info.clone();
    info.server_id = earlier.server_id.to_string();
    info.signing_keys[0].public_key = other.public().as_bytes().to_vec();

    for pin in [earlier.pin, None] {
        home.folder(earlier.server_id).create(&Identity { pin, ..earlier.clone() }).unwrap();
        let mut known = standing(folder.path(), &pulse);
        known.learn(&info).unwrap();
        assert_eq!(
            (known.keys(), known.pins()),
            ([pulse.key.public()].as_slice(), vec![pulse.authority.pin])
        );
        assert_eq!(standing(folder.path(), &pulse).identity(), known.identity());
    }
    // Two databases of one data folder.
    let pin = Some(pulse.authority.pin);
    home.folder(earlier.server_id).create(&Identity { pin, ..earlier.clone() }).unwrap();
    let mut known = standing(folder.path(), &pulse);
    known.learn(&info).unwrap();
    assert_eq!(known.identity().unwrap().server_id, earlier.server_id);
}

#[tokio::test]
async fn a_key_that_the_server_gave_up_is_good_for_no_dial_from_that_moment() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let (old, new) = (pulse.authority.pin, crate::testing::Authority::new().pin);
    let dial = async || {
        proxy.link.redial();
        let status = in_time(proxy.link.client().unregister(v1::UnregisterRequest {})).await.unwrap_err();
        Failure::of(&status)
    };
    for (pins, is_refused) in [(vec![new, old], false), (vec![new], true)] {
        let mut watch = pulse.watch().await;
        watch.info.ca_pins = pins.iter().map(ToString::to_string).collect();
        let statement = PinsStatement { server_id: &watch.info.server_id, pins: &watch.info.ca_pins };
        watch.info.ca_pins_signature = pulse.key.sign_pins(&statement);
        watch.info.ca_pins_key_id = pulse.key.public().key_id();
        watch.send(Kind::Snapshot(pulse.list(1, &["delly"])));
        pulse.report().await;
        // The stream lives, and somebody else dials.
        let failure = dial().await;
        assert_eq!(matches!(failure, Failure::WrongServer(_)), is_refused, "{failure:?}");
        watch.fail(Status::aborted("again"));
    }
}

#[tokio::test]
async fn a_new_token_in_the_token_file_is_taken_up_under_a_living_stream() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(1, &["delly"])));
    pulse.report().await;
    let fresh = Token::generate(TokenKind::Ctrl).unwrap();
    std::fs::write(proxy.folder.path().join("token"), fresh.reveal()).unwrap();
    watch.send(Kind::Bookmark(v1::Bookmark::default()));
    assert_eq!(pulse.watch().await.token, fresh.reveal());
    assert_eq!(proxy.names(), ["delly"]);
}

#[tokio::test]
async fn registering_at_a_server_set_up_anew_moves_a_running_proxy_there() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(9, &["old"])));
    pulse.report().await;
    let mut contact_rx = proxy.contact_rx.clone();
    let first = contact_rx.borrow_and_update().folder.clone();

    let token = Token::generate(TokenKind::Ctrl).unwrap();
    let mut answer = answers(&pulse, Uuid::now_v7(), &token);
    let server_id = Uuid::now_v7().to_string();
    answer.server.as_mut().unwrap().server_id.clone_from(&server_id);
    *pulse.register.lock().unwrap() = Some(Box::new(move |_| Ok(answer.clone())));
    let home = Home::new(proxy.folder.path());
    register::register(&pending(&pulse), &home, None, &Seams::system()).await.unwrap();
    std::fs::write(proxy.folder.path().join("token"), token.reveal()).unwrap();
    watch.send(Kind::Bookmark(v1::Bookmark::default()));

    let next = pulse.watch().await;
    // Its list is of a lower revision, but of a server that counts anew.
    assert_eq!((next.token.as_str(), next.request.revision), (token.reveal(), 2));
    assert_eq!(proxy.names(), ["delly"]);
    let moved = in_time(contact_rx.wait_for(|contact| contact.folder != first)).await.unwrap().clone();
    assert!(moved.folder.unwrap().ends_with(server_id));
    assert_eq!(moved.hostname, Some(Hostname { name: "delly".into(), is_given: true }));
}

#[tokio::test]
async fn a_host_that_is_registered_as_another_proxy_counts_anew() {
    let mut pulse = FakePulse::start().await;
    let proxy = Proxy::start(&pulse);
    let mut watch = pulse.watch().await;
    watch.send(Kind::Snapshot(pulse.list(9, &["old"])));
    pulse.report().await;

    let token = Token::generate(TokenKind::Ctrl).unwrap();
    let answer = answers(&pulse, Uuid::now_v7(), &token);
    *pulse.register.lock().unwrap() = Some(Box::new(move |_| Ok(answer.clone())));
    let home = Home::new(proxy.folder.path());
    register::register(&pending(&pulse), &home, None, &Seams::system()).await.unwrap();
    std::fs::write(proxy.folder.path().join("token"), token.reveal()).unwrap();
    watch.send(Kind::Bookmark(v1::Bookmark::default()));

    let mut next = pulse.watch().await;
    assert_eq!((next.token.as_str(), next.request.revision), (token.reveal(), 2));
    // The other proxy's revision 9 is nothing to this one.
    next.send(Kind::Snapshot(pulse.list(3, &["third"])));
    let report = pulse.report().await;
    assert_eq!((report.outcome(), report.revision), (v1::SyncOutcome::Applied, 3));
    assert_eq!(proxy.names(), ["third"]);
}
