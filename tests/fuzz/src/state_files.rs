//! The files that a proxy keeps: its list, its identity, its readings that wait.

use std::fs;
use std::sync::{LazyLock, Mutex};

use prost::Message;
use pulse_proto::hash::sha256;
use pulse_proto::signature::SigningKey;
use pulse_proto::signature::Statement;
use pulse_proto::v1::{AllowlistSnapshot, ReportTemperaturesRequest, ReportTemperaturesResponse};
use pulse_proto::{Allowlist, Position, hex};
use pulse_sensor_proxy::cache::{self, Expected};
use pulse_sensor_proxy::disk;
use pulse_sensor_proxy::identity::Home;
use pulse_sensor_proxy::report;
use pulse_sensor_proxy::seams::Seams;
use uuid::Uuid;

use crate::{assert_tells, folder, switches};

/// The checksum at the end is put right: with this bit of the first byte.
pub const FIX_CHECKSUM: u8 = 1;
/// The rest is a list as it is sent, which is signed and put into a file.
pub const WRAP: u8 = 2;

static KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::generate().expect("the system has random bytes").0);

/// Whose the cache file is.
pub const OWNER: Uuid = Uuid::from_u128(0x0192_d3a8_7f3c_7d3e_8a51_0242_ac12_0002);

/// A byte of switches, then `allowlist.cache`: it is taken as it was written, or refused with a word for it.
///
/// # Panics
/// When that does not hold.
pub fn check_cache(data: &[u8]) {
    let Some((switches, rest)) = switches(data) else { return };
    let mut bytes = rest.to_vec();
    if switches & WRAP != 0 {
        let Some(wrapped) = wrapped(rest) else { return };
        bytes = wrapped;
    }
    if switches & (FIX_CHECKSUM | WRAP) != 0 {
        bytes.extend_from_slice(format!("sha256 {}\n", hex::encode(&sha256(&bytes))).as_bytes());
    }
    let folder = folder();
    let path = folder.path().join("allowlist.cache");
    disk::write_private(&path, &bytes).expect("a temporary folder can be written");
    let keys = [KEY.public()];
    let reached = Position { epoch: 1, revision: 1 };
    let expected = Expected { proxy_id: Some(OWNER), keys: &keys, reached };
    match cache::load(&path, expected) {
        Ok(cached) => {
            assert!(cached.list.position >= reached);
            assert_ne!(switches & WRAP, 0, "a signature was guessed");
            cache::store(&path, expected.proxy_id, &cached.list, cached.applied_at)
                .expect("a temporary folder can be written");
            let again = cache::load(&path, expected).expect("what was kept is read");
            assert_eq!(again.list, cached.list, "the list is another one when it is kept again");
        }
        Err(error) => {
            let reasons = ["damaged", "older", "foreign"];
            assert!(reasons.contains(&error.reason()), "{}: {error}", error.reason());
            assert_tells(&error.to_string(), 2_048);
        }
    }
    assert!(path.exists(), "reading takes no file away");
    let recovered = cache::recover(&path, &keys);
    assert!(recovered.is_none() || switches & WRAP != 0, "what nobody signed is taken up again");
}

/// The file without its last line.
fn wrapped(list: &[u8]) -> Option<Vec<u8>> {
    let mut list = AllowlistSnapshot::decode(list).ok()?;
    let allowlist = Allowlist::from_wire(&list.nodes).ok()?;
    let (epoch, revision, hash) = (list.epoch, list.revision, allowlist.hash());
    list.hash = hash.to_string();
    list.key_id = KEY.public().key_id();
    if let Ok(scope) = list.scope.parse() {
        list.signature = KEY.sign(&Statement { epoch, revision, scope, hash });
    }
    let list = list.encode_to_vec();
    let head =
        format!("pulse-allowlist-cache 1\nproxy {OWNER}\napplied 1763661000000\nsnapshot {}\n", list.len());
    Some([head.as_bytes(), &list, b"\n"].concat())
}

/// The server of which `identity.json` speaks.
pub const SERVER: Uuid = Uuid::from_u128(0x0192_d3a8_7f3c_7d3e_8a51_0242_ac12_0001);

/// `identity.json`: it is taken and stays what it is when it is written again, or is refused with the way out; nothing
/// of it is changed by reading.
///
/// # Panics
/// When that does not hold.
pub fn check_identity(data: &[u8]) {
    let state = folder();
    let folder = Home::new(state.path()).folder(SERVER);
    disk::make_private_folder(folder.path()).expect("a temporary folder can be written");
    let path = folder.path().join("identity.json");
    disk::write_private(&path, data).expect("a temporary folder can be written");
    match folder.identity() {
        Ok(identity) => {
            let identity = identity.expect("there is a file");
            let updated = folder.update(|_| {}).expect("what was read can be written");
            assert_eq!(updated.as_ref(), Some(&identity));
            let again = folder.identity().expect("what was written is read");
            assert_eq!(again.as_ref(), Some(&identity), "it is another one when it is written again");
        }
        Err(error) => {
            assert!(error.needs_a_person(), "{error}");
            assert_tells(&error.to_string(), 4_096);
            assert!(folder.update(|_| {}).is_err());
            assert_eq!(fs::read(&path).expect("it is there still"), data, "a damaged file is kept as it is");
        }
    }
}

/// A byte of switches, then `readings.buffer`: what is in it is delivered once and in order, and nothing of it waits
/// afterwards; a file that is not taken is set aside as it is.
///
/// # Panics
/// When that does not hold.
pub fn check_buffer(data: &[u8]) {
    let Some((switches, rest)) = switches(data) else { return };
    let mut bytes = rest.to_vec();
    if switches & FIX_CHECKSUM != 0 {
        bytes.extend_from_slice(&sha256(rest));
    }
    let folder = folder();
    let path = folder.path().join(report::FILE_NAME);
    disk::write_private(&path, &bytes).expect("a temporary folder can be written");
    let (_reports, reporter) = report::reports(folder.path(), &Seams::system());
    let is_taken = path.exists();
    let aside = folder.path().join(format!("{}.damaged", report::FILE_NAME));
    if !is_taken {
        assert_eq!(fs::read(&aside).expect("it is set aside"), bytes);
    }

    let sent: Mutex<Vec<ReportTemperaturesRequest>> = Mutex::default();
    RUNTIME.with(|runtime| {
        let call = |request: ReportTemperaturesRequest| {
            let durable_sequence = request.sequence;
            sent.lock().expect("nobody panicked").push(request);
            async move { Ok(ReportTemperaturesResponse { durable_sequence, refused: Vec::new() }) }
        };
        // All that can be delivered is, since each call answers at once; then the end comes.
        let quiet = async {
            let mut before = None;
            loop {
                for _ in 0..16 {
                    tokio::task::yield_now().await;
                }
                let now = sent.lock().expect("nobody panicked").len();
                if before.replace(now) == Some(now) {
                    return;
                }
            }
        };
        runtime.block_on(reporter.run(call, quiet));
    });
    let sent = sent.into_inner().expect("nobody panicked");
    if !is_taken {
        assert!(sent.is_empty(), "reports of a damaged file are sent");
    }
    let size: usize = sent.iter().map(Message::encoded_len).sum();
    assert!(size <= report::MAX_BYTES + (2 << 20), "{size} bytes are sent");
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime can be made");
}
