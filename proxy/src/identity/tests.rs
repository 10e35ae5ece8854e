use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

use pulse_proto::signature::SigningKey;
use pulse_proto::{Token, TokenKind};

use super::*;
use crate::testing::signed;

fn url(text: &str) -> ServerUrl {
    ServerUrl::from_str(text).unwrap()
}

fn identity(server_url: &str) -> Identity {
    let (key, _) = SigningKey::generate().unwrap();
    let list = signed(&key, 3, &["delly"]);
    Identity {
        server_id: Uuid::now_v7(),
        turn: 1,
        url: url(server_url),
        pin: Some(Pin::of_spki(b"key")),
        ca_pins: vec![Pin::of_spki(b"next"), Pin::of_spki(b"key")],
        proxy_id: Some(Uuid::now_v7()),
        hostname: Some(Hostname { name: "delly".into(), is_given: true }),
        keys: vec![key.public()],
        mark: Some(Mark { position: list.position, scope: list.scope, hash: list.allowlist.hash() }),
        revoked: Some("why".into()),
        seed: Some(Token::generate(TokenKind::Ctrl).unwrap().digest()),
    }
}

fn home() -> (tempfile::TempDir, Home) {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path());
    (folder, home)
}

#[test]
fn an_identity_survives_the_disk_and_is_private() {
    let (_folder, home) = home();
    let identity = identity("https://pulse.lan");
    let folder = home.folder(identity.server_id);
    folder.create(&identity).unwrap();
    assert_eq!(folder.identity().unwrap().unwrap(), identity);
    let token = Token::generate(TokenKind::Ctrl).unwrap();
    folder.keep_token(&token).unwrap();
    assert_eq!(folder.token().unwrap(), Some(token));
    for name in ["identity.json", "token"] {
        let about = fs::metadata(folder.path().join(name)).unwrap();
        assert_eq!(about.mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn the_folder_is_the_one_of_the_address_else_the_only_one() {
    let (_folder, home) = home();
    assert!(home.find(&url("https://a")).unwrap().is_none());
    let (one, two) = (identity("https://a"), identity("https://b"));
    home.folder(one.server_id).create(&one).unwrap();
    let found = |text| home.find(&url(text)).unwrap().map(|(_, identity)| identity.server_id);
    assert_eq!((found("https://a"), found("https://moved")), (Some(one.server_id), Some(one.server_id)));
    home.folder(two.server_id).create(&two).unwrap();
    assert_eq!((found("https://b"), found("https://moved")), (Some(two.server_id), None));
}

#[test]
fn a_damaged_identity_is_an_error_and_not_no_identity() {
    let (_folder, home) = home();
    let identity = identity("https://a");
    let folder = home.folder(identity.server_id);
    folder.create(&identity).unwrap();
    let path = folder.path().join("identity.json");
    let good = fs::read_to_string(&path).unwrap();
    for bad in [
        "".to_owned(),
        good[..good.len() / 2].to_owned(),
        good.replace("\"format\": 1", "\"format\": 0"),
        good.replace("sha256:", "sha256:zz"),
        good.replace("https://a", "ftp://a"),
    ] {
        fs::write(&path, &bad).unwrap();
        let error = home.find(&url("https://a")).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }) && error.needs_a_person(), "{bad}: {error}");
        assert!(error.to_string().contains("identity.json"), "{error}");
    }
}

#[test]
fn an_identity_with_any_bit_flipped_is_damaged_or_what_it_was() {
    let (_folder, home) = home();
    let identity = identity("https://a");
    let folder = home.folder(identity.server_id);
    folder.create(&identity).unwrap();
    let path = folder.path().join("identity.json");
    let good = fs::read(&path).unwrap();
    let mut as_before = 0;
    for at in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[at / 8] ^= 1 << (at % 8);
        fs::write(&path, &bad).unwrap();
        match folder.identity() {
            Ok(read) => {
                assert_eq!(read.as_ref(), Some(&identity), "bit {at}");
                as_before += 1;
            }
            Err(error) => {
                let is_told = matches!(&error, IdentityError::Damaged { .. } | IdentityError::Newer { .. });
                assert!(is_told, "bit {at}: {error}");
            }
        }
    }
    // In the name of the checksum alone.
    assert!(as_before < 100, "{as_before}");
    // An earlier version's has none.
    let text = String::from_utf8(good).unwrap();
    let (without, _) = text.split_once(",\n  \"sha256\"").unwrap();
    fs::write(&path, format!("{without}\n}}\n")).unwrap();
    assert_eq!(folder.identity().unwrap().unwrap(), identity);
}

#[test]
fn a_newer_versions_identity_is_not_called_damaged() {
    let (_folder, home) = home();
    let identity = identity("https://a");
    let folder = home.folder(identity.server_id);
    folder.create(&identity).unwrap();
    let path = folder.path().join("identity.json");
    fs::write(&path, r#"{"format": 2, "server": {}}"#).unwrap();
    let error = home.find(&url("https://a")).unwrap_err();
    assert!(matches!(error, IdentityError::Newer { format: 2, .. }) && error.needs_a_person(), "{error}");
    // It may be read again one day, so nothing takes its place unasked.
    assert!(matches!(folder.save(&identity, |_| {}), Err(IdentityError::Newer { .. })));
}

#[test]
fn a_list_and_its_mark_are_kept_under_one_lock_and_only_if_no_newer_one_is() {
    let (_folder, home) = home();
    let identity = identity("https://a");
    let folder = home.folder(identity.server_id);
    folder.create(&identity).unwrap();
    let held = identity.mark.unwrap();
    let mark = |revision| Mark { position: Position { revision, ..held.position }, ..held };
    let kept = folder.keep(mark(5), |path| {
        assert!(disk::lock_folder(path.parent().unwrap(), Duration::ZERO).is_err(), "it is locked meanwhile");
        Ok(())
    });
    assert_eq!(kept.unwrap().unwrap().mark, Some(mark(5)));
    let older = folder.keep(mark(4), |_| panic!("an older list is not written"));
    assert_eq!(older.unwrap().unwrap().mark, Some(mark(5)));
    // If the list cannot be written, the mark stays.
    folder.keep(mark(6), |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
    assert_eq!(folder.identity().unwrap().unwrap().mark, Some(mark(5)));
    folder.create_with(&identity, |_| panic!("nor by a registration")).unwrap();
    assert_eq!(folder.identity().unwrap().unwrap().mark, Some(mark(5)));
}

#[test]
fn the_state_folder_holds_no_lock_files() {
    let (_folder, home) = home();
    let identity = identity("https://a");
    let folder = home.folder(identity.server_id);
    folder.create(&identity).unwrap();
    let lock = home.lock().unwrap();
    assert!(home.is_in_use());
    assert!(matches!(home.lock(), Err(IdentityError::InUse(_))));
    drop(lock);
    assert!(!home.is_in_use());
    let names = |path: &Path| {
        let entries = fs::read_dir(path).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(names(home.path()), [identity.server_id.to_string()]);
    assert_eq!(names(folder.path()), ["identity.json"]);
}

#[test]
fn the_mark_never_goes_back() {
    let (_folder, home) = home();
    let identity = identity("https://a");
    let folder = home.folder(identity.server_id);
    folder.create(&identity).unwrap();
    let before = identity.mark;
    let older = Position { epoch: 7, revision: 1 };
    let after = folder.update(|identity| identity.mark.as_mut().unwrap().position = older).unwrap().unwrap();
    assert_eq!(after.mark, before);
    assert_eq!(folder.update(|identity| identity.mark = None).unwrap().unwrap().mark, before);
}

#[test]
fn a_change_does_not_undo_anothers() {
    let (_folder, home) = home();
    let identity = identity("https://a");
    let folder = home.folder(identity.server_id);
    folder.create(&identity).unwrap();
    // Two that each hold the state from the start.
    let other = home.folder(identity.server_id);
    other.update(|identity| identity.revoked = None).unwrap();
    folder.update(|identity| identity.seed = None).unwrap();
    let now = folder.identity().unwrap().unwrap();
    assert_eq!((now.revoked, now.seed), (None, None));
}

#[test]
fn a_registration_that_waits_survives_the_disk_and_shows_no_token() {
    let (_folder, home) = home();
    let join = Token::generate(TokenKind::Join).unwrap();
    let pending = Pending {
        join: format!("pulse://[::1]:1/?join={}", join.reveal()).parse().unwrap(),
        hostname: Hostname { name: "delly".into(), is_given: false },
        kind: ProxyKind::Http,
        proxy_url: "https://delly:8443".into(),
        machine_id: String::new(),
    };
    assert!(home.pending().unwrap().is_none());
    home.keep_pending(&pending).unwrap();
    assert_eq!(home.pending().unwrap().unwrap(), pending);
    assert!(!format!("{pending:?}").contains(&join.reveal()[6..]));
    home.forget_pending().unwrap();
    assert!(home.pending().unwrap().is_none());
}

#[test]
fn a_token_file_may_be_a_link_and_hold_line_ends_and_errors_do_not_show_it() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    let token = Token::generate(TokenKind::Ctrl).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    assert_eq!(read_seed(&link), Ok(None));
    fs::write(&real, " \n").unwrap();
    assert_eq!(read_seed(&link), Ok(None));
    fs::write(&real, format!("{}\r\n", token.reveal())).unwrap();
    assert_eq!(read_seed(&link), Ok(Some(token.clone())));
    fs::write(&real, &token.reveal()[..40]).unwrap();
    let pipe = folder.path().join("pipe");
    let made = rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0);
    made.unwrap();
    for other in [pipe.as_path(), folder.path()] {
        assert_eq!(read_seed(other), Err("it is not a plain file".to_owned()), "and it does not wait");
    }
    let error = read_seed(&link).unwrap_err();
    assert!(error.contains("damaged") && !error.contains(&token.reveal()[6..30]), "{error}");
}

#[test]
fn a_token_that_an_older_server_made_is_read_and_kept_like_any_other() {
    let (_folder, home) = home();
    let older = format!("{}=", "a1-_".repeat(11));
    let seed = home.folder(Uuid::nil()).path().with_file_name("seed");
    fs::create_dir_all(seed.parent().unwrap()).unwrap();
    fs::write(&seed, format!("{older}\n")).unwrap();
    let token = read_seed(&seed).unwrap().unwrap();
    assert_eq!(token.reveal(), older);
    let folder = home.folder(Uuid::nil());
    folder.keep_token(&token).unwrap();
    assert_eq!(folder.token().unwrap(), Some(token));
    fs::write(&seed, "one line\nand another line that is long").unwrap();
    assert!(!read_seed(&seed).unwrap_err().contains("another"));
}

#[test]
fn of_two_servers_met_at_one_address_the_later_one_is_there() {
    let (_folder, home) = home();
    let old = identity("https://a");
    home.folder(old.server_id).create(&old).unwrap();
    let new = Identity { turn: home.next_turn().unwrap(), server_id: Uuid::nil(), ..old.clone() };
    // Whatever their ids sort like.
    home.folder(new.server_id).create(&new).unwrap();
    assert!(new.server_id < old.server_id && new.turn == 2);
    assert_eq!(home.find(&url("https://a")).unwrap().unwrap().1.server_id, new.server_id);
    let back = Identity { turn: home.next_turn().unwrap(), ..old };
    home.folder(back.server_id).create(&back).unwrap();
    assert_eq!(home.find(&url("https://a")).unwrap().unwrap().1.server_id, back.server_id);
}

#[test]
fn registering_again_does_not_take_the_mark_back() {
    let (_folder, home) = home();
    let identity = identity("https://a");
    let folder = home.folder(identity.server_id);
    folder.create(&identity).unwrap();
    folder.create(&Identity { mark: None, ..identity.clone() }).unwrap();
    assert_eq!(folder.identity().unwrap().unwrap().mark, identity.mark);
    // Another proxy has reached nothing yet.
    folder.create(&Identity { mark: None, proxy_id: Some(Uuid::now_v7()), ..identity }).unwrap();
    assert_eq!(folder.identity().unwrap().unwrap().mark, None);
}
