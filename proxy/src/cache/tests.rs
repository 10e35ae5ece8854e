use std::fs;
use std::os::unix::fs::symlink;

use pulse_proto::signature::SigningKey;

use super::*;
use crate::testing::signed;

struct Kept {
    _folder: tempfile::TempDir,
    path: PathBuf,
    key: SigningKey,
    proxy_id: Uuid,
    at: SystemTime,
}

impl Kept {
    fn new(revision: u64) -> Kept {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowlist.cache");
        let (key, _) = SigningKey::generate().unwrap();
        let proxy_id = Uuid::now_v7();
        let at = UNIX_EPOCH + Duration::from_millis(1_763_661_000_123);
        store(&path, Some(proxy_id), &signed(&key, revision, &["delly", "minipc"]), at).unwrap();
        Kept { _folder: folder, path, key, proxy_id, at }
    }

    fn load_with(
        &self,
        proxy_id: Option<Uuid>,
        keys: &[PublicKey],
        revision: u64,
    ) -> Result<Cached, CacheError> {
        load(&self.path, Expected { proxy_id, keys, reached: Position { epoch: 7, revision } })
    }

    fn load(&self) -> Result<Cached, CacheError> {
        self.load_with(Some(self.proxy_id), &[self.key.public()], 0)
    }

    fn reason(&self) -> &'static str {
        self.load().unwrap_err().reason()
    }
}

#[test]
fn a_list_survives_the_disk_with_its_signature_and_its_time() {
    let kept = Kept::new(3);
    let cached = kept.load().unwrap();
    assert_eq!(cached, Cached { list: signed(&kept.key, 3, &["delly", "minipc"]), applied_at: kept.at });
    let without_id = Kept::new(3);
    store(&without_id.path, None, &cached.list, kept.at).unwrap();
    assert!(without_id.load_with(None, &[kept.key.public()], 3).is_ok());
}

#[test]
fn an_empty_list_is_a_list() {
    let kept = Kept::new(3);
    store(&kept.path, Some(kept.proxy_id), &signed(&kept.key, 4, &[]), kept.at).unwrap();
    assert!(kept.load().unwrap().list.allowlist.is_empty());
}

#[test]
fn a_missing_file_is_not_a_damaged_one() {
    let kept = Kept::new(3);
    fs::remove_file(&kept.path).unwrap();
    let expected =
        Expected { proxy_id: Some(kept.proxy_id), keys: &[kept.key.public()], reached: Position::default() };
    assert_eq!(load(&kept.path, expected).unwrap_err().reason(), "none_yet");
    let after = kept.load_with(Some(kept.proxy_id), &[kept.key.public()], 3).unwrap_err();
    assert_eq!(after.reason(), "missing");
    assert!(
        after.to_string().contains("allowlist.cache is gone") && after.to_string().contains("revision 3")
    );
    fs::write(&kept.path, "").unwrap();
    assert_eq!(kept.reason(), "damaged");
}

#[test]
fn every_cut_and_every_changed_byte_is_damage() {
    let kept = Kept::new(3);
    let whole = fs::read(&kept.path).unwrap();
    for length in 0..whole.len() {
        fs::write(&kept.path, &whole[..length]).unwrap();
        assert_eq!(kept.reason(), "damaged", "cut to {length}");
    }
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&kept.path, &changed).unwrap();
        assert_eq!(kept.reason(), "damaged", "byte {at}");
    }
}

#[test]
fn a_file_with_a_right_checksum_and_a_wrong_signature_is_damaged() {
    let kept = Kept::new(3);
    let mut forged = signed(&kept.key, 3, &["delly"]);
    forged.position.revision = 9;
    store(&kept.path, Some(kept.proxy_id), &forged, kept.at).unwrap();
    let error = kept.load().unwrap_err();
    assert_eq!(error.reason(), "damaged");
    assert!(error.to_string().contains("signature"), "{error}");
}

#[test]
fn a_list_behind_the_mark_is_older_and_one_before_it_is_fine() {
    let kept = Kept::new(3);
    let keys = [kept.key.public()];
    let error = kept.load_with(Some(kept.proxy_id), &keys, 4).unwrap_err();
    assert_eq!(error.reason(), "older");
    assert!(error.to_string().contains("backup"), "{error}");
    // The cache is written before the mark, so after a crash it is ahead of it.
    assert!(kept.load_with(Some(kept.proxy_id), &keys, 2).is_ok());
}

#[test]
fn another_proxys_list_and_another_servers_list_are_foreign() {
    let kept = Kept::new(3);
    let other = Some(Uuid::now_v7());
    assert_eq!(kept.load_with(other, &[kept.key.public()], 0).unwrap_err().reason(), "foreign");
    assert_eq!(kept.load_with(None, &[kept.key.public()], 0).unwrap_err().reason(), "foreign");
    let stranger = SigningKey::generate().unwrap().0.public();
    assert_eq!(kept.load_with(Some(kept.proxy_id), &[stranger], 0).unwrap_err().reason(), "foreign");
}

#[test]
fn a_link_or_a_huge_file_is_not_read() {
    let kept = Kept::new(3);
    let real = kept.path.with_extension("real");
    fs::rename(&kept.path, &real).unwrap();
    symlink(&real, &kept.path).unwrap();
    assert_eq!(kept.reason(), "unreadable");
    fs::remove_file(&kept.path).unwrap();
    fs::File::create(&kept.path).unwrap().set_len(MAX_BYTES + 1).unwrap();
    assert_eq!(kept.reason(), "unreadable");
}
