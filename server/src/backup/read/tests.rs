//! Archives that were made to do harm: none is read for more than it says, none names a file elsewhere.

use std::io::Seek;

use tar::{Builder, EntryType, Header};

use super::super::{Part, part};
use super::*;

/// What is in the archive, in its order: type, name, content.
type Entry<'a> = (EntryType, &'a str, &'a [u8]);

const DATABASE_BYTES: &[u8] = b"a database";

fn header(kind: EntryType, name: &str, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    // Written as it is: the builder refuses names that lead elsewhere.
    header.as_gnu_mut().expect("it is one").name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_cksum();
    header
}

/// A manifest of these parts, and the sums that fit it.
fn described(parts: &[Part]) -> (Vec<u8>, String) {
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        format_version: FORMAT_VERSION,
        version: "0.1.0".to_owned(),
        made_at: jiff::Timestamp::UNIX_EPOCH,
        server_id: uuid::Uuid::nil(),
        epoch: 1,
        revision: 1,
        schema: 1,
        secret_key_file: None,
        parts: parts.to_vec(),
    };
    let text = serde_json::to_vec(&manifest).expect("it is JSON");
    let sums = sums(&text, &manifest);
    (text, sums)
}

/// An archive with a good manifest, of the database and one more part, between whatever else.
fn archive(before: &[Entry<'_>], database: Entry<'_>, key: Entry<'_>, after: &[Entry<'_>]) -> Vec<u8> {
    let (text, sums) = described(&[part(DATABASE, database.2), part(key.1, key.2)]);
    let manifest = (EntryType::Regular, MANIFEST, text.as_slice());
    let last = (EntryType::Regular, SUMS, sums.as_bytes());
    let mut builder = Builder::new(Vec::new());
    for (kind, name, content) in before.iter().chain([&manifest, &database, &key, &last]).chain(after) {
        builder.append(&header(*kind, name, content.len() as u64), *content).expect("memory takes it");
    }
    builder.into_inner().expect("memory takes it")
}

const DATABASE_ENTRY: Entry<'_> = (EntryType::Regular, DATABASE, DATABASE_BYTES);
const KEY_ENTRY: Entry<'_> = (EntryType::Regular, "ca.key", b"a key");

/// Unpacks it; says what was refused. Only the folder that was named has anything in it afterwards.
fn refusal(bytes: &[u8]) -> Option<String> {
    let outer = tempfile::tempdir().expect("a folder can be made");
    let (file, folder) = (outer.path().join("a.tar"), outer.path().join("folder"));
    std::fs::write(&file, bytes).expect("it can be written");
    std::fs::create_dir(&folder).expect("a folder can be made");
    let unpacked = unpack(&file, &folder, |_| true);
    for entry in std::fs::read_dir(&folder).expect("it can be read") {
        let found = entry.expect("an entry").file_type().expect("it has a type");
        assert!(found.is_file(), "{unpacked:?}");
    }
    assert_eq!(std::fs::read_dir(outer.path()).expect("it can be read").count(), 2, "{unpacked:?}");
    unpacked.err().map(|error| error.to_string())
}

#[test]
fn what_is_no_plain_file_under_its_own_name_is_refused() {
    assert_eq!(refusal(&archive(&[], DATABASE_ENTRY, KEY_ENTRY, &[])), None, "as it should be, it is good");
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::Directory,
        EntryType::GNUSparse,
        EntryType::GNULongName,
        EntryType::XHeader,
    ] {
        let said = refusal(&archive(&[], DATABASE_ENTRY, (kind, "ca.key", b""), &[]));
        assert!(said.is_some_and(|said| said.contains("ca.key is not where its manifest says")), "{kind:?}");
        let said = refusal(&archive(&[(kind, MANIFEST, b"")], DATABASE_ENTRY, KEY_ENTRY, &[]));
        assert!(said.is_some_and(|said| said.contains("does not begin with a manifest")), "{kind:?}");
    }
    for name in ["../evil", "/etc/evil", "sub/ca.key", "", "pulse.lock", "before-restore-1"] {
        let said = refusal(&archive(&[], DATABASE_ENTRY, (EntryType::Regular, name, b"x"), &[]));
        assert!(said.is_some_and(|said| said.contains("which this pulse does not know")), "{name:?}");
    }
    let twice = archive(&[], DATABASE_ENTRY, (EntryType::Regular, DATABASE, DATABASE_BYTES), &[]);
    assert!(refusal(&twice).is_some_and(|said| said.contains("names a part twice")));
    let more = archive(&[], DATABASE_ENTRY, KEY_ENTRY, &[(EntryType::Regular, "secret.key", b"x")]);
    assert!(refusal(&more).is_some_and(|said| said.contains("parts that its manifest does not name")));
}

#[test]
fn sizes_that_lie_are_refused_and_nothing_large_is_read_into_memory() {
    let huge = Part { bytes: u64::MAX, ..part(DATABASE, DATABASE_BYTES) };
    let (text, _) = described(&[huge]);
    let mut builder = Builder::new(Vec::new());
    let entry = header(EntryType::Regular, MANIFEST, text.len() as u64);
    builder.append(&entry, text.as_slice()).unwrap();
    builder.append(&header(EntryType::Regular, DATABASE, u64::MAX), DATABASE_BYTES).unwrap();
    assert!(refusal(&builder.into_inner().unwrap()).is_some());

    // A file without blocks on the disk, and an entry as large that only names the next one.
    const HOLE_BYTES: u64 = 1 << 40;
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::Regular] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(header(kind, MANIFEST, HOLE_BYTES).as_bytes()).unwrap();
        file.as_file_mut().seek(io::SeekFrom::Start(HOLE_BYTES)).unwrap();
        file.as_file().set_len(HOLE_BYTES).unwrap();
        let said = verify(file.path()).unwrap_err().to_string();
        assert!(said.contains("does not begin with a manifest"), "{kind:?}: {said}");
    }
}
