use std::fs;

use super::*;
use crate::config::TlsFiles;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn own(folder: &Path, now: SystemTime) -> Tls {
    let source = Source::Own {
        folder: folder.to_owned(),
        paths: Paths::in_folder(folder),
        names: Names::new(&[], ["pulse.lan".to_owned()]),
    };
    Tls::from_source(source, folder, now).expect("a certificate can be made")
}

fn chain_in_use(tls: &Tls) -> Vec<Vec<u8>> {
    tls.live.certificate().cert.iter().map(|der| der.to_vec()).collect()
}

#[test]
fn a_renewed_certificate_keeps_the_pin() {
    let folder = tempfile::tempdir().unwrap();
    let begin = SystemTime::now();
    let tls = own(folder.path(), begin);
    let (pin, first) = (tls.pin(), chain_in_use(&tls));
    tls.look(false, begin + 240 * DAY);
    assert_eq!(chain_in_use(&tls), first);
    tls.look(false, begin + 250 * DAY);
    let second = chain_in_use(&tls);
    assert!(second[0] != first[0] && second[1] == first[1]);
    assert_eq!(tls.pin(), pin);
    // The next start finds it good.
    assert_eq!(chain_in_use(&own(folder.path(), begin + 251 * DAY)), second);
}

#[test]
fn a_renewed_authority_keeps_the_pin() {
    let folder = tempfile::tempdir().unwrap();
    let begin = SystemTime::now();
    let tls = own(folder.path(), begin);
    let (pin, first) = (tls.pin(), chain_in_use(&tls));
    // Long before its end, and not a day too early.
    tls.look(false, begin + 13 * 365 * DAY);
    assert_eq!(chain_in_use(&tls)[1], first[1]);
    let (later, ends_at) = (begin + 15 * 365 * DAY, tls.condition().authority_ends_at.unwrap());
    assert!(ends_at > later + 4 * 365 * DAY);
    tls.look(false, later);
    assert!(tls.condition().authority_ends_at.unwrap() > ends_at + 14 * 365 * DAY);
    let second = chain_in_use(&tls);
    assert!(second[0] != first[0] && second[1] != first[1]);
    assert_eq!(own(folder.path(), later).pin(), pin);
    // Whoever checks with the first ca.pem finds the second leaf signed by the name that it knows.
    let [old_ca, leaf] = [&first[1], &second[0]].map(|der| identity::x509(folder.path(), der).unwrap());
    assert_eq!(old_ca.subject().as_raw(), leaf.issuer().as_raw());
    let validity = old_ca.validity();
    assert!(validity.not_after.timestamp() - validity.not_before.timestamp() > 10 * 365 * 86_400);
    let constraints = old_ca.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(1));
    assert!(old_ca.key_usage().unwrap().unwrap().value.key_cert_sign());
}

#[test]
fn another_authority_under_a_running_server_is_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tls = own(one.path(), SystemTime::now());
    own(two.path(), SystemTime::now());
    let before = chain_in_use(&tls);
    for file in ["ca.pem", "ca.key", "server.pem", "server.key"] {
        fs::copy(two.path().join(file), one.path().join(file)).unwrap();
    }
    assert!(matches!(tls.reload(), Err(TlsError::AuthorityChanged(_))));
    assert_eq!(chain_in_use(&tls), before);
}

#[test]
fn a_pair_counts_when_it_stands_still() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let files = TlsFiles { certificate_file: folder.path().join("pem"), key_file: folder.path().join("key") };
    let install = |from: &Path, file: &str, to: &Path| fs::copy(from.join(file), to).map(drop).unwrap();
    for (made, at) in [(&first, now), (&second, now)] {
        fs::create_dir(made).unwrap();
        own(made, at);
    }
    install(&first, "server.pem", &files.certificate_file);
    install(&first, "server.key", &files.key_file);
    let tls = Tls::from_source(
        Source::Operator { files: files.clone(), public_host: "pulse.lan".to_owned() },
        folder.path(),
        now,
    )
    .unwrap();
    let before = chain_in_use(&tls);
    install(&second, "server.pem", &files.certificate_file);
    tls.look(false, now);
    install(&second, "server.key", &files.key_file);
    tls.look(false, now);
    assert!(tls.seen().failed.is_none(), "half a pair was tried");
    assert_eq!(chain_in_use(&tls), before);
    tls.look(false, now);
    let after = chain_in_use(&tls);
    assert_ne!(after, before);
    // A pair that stays wrong is tried, and changes nothing.
    fs::write(&files.key_file, "nonsense").unwrap();
    tls.look(false, now);
    tls.look(false, now);
    assert!(tls.seen().failed.is_some());
    assert_eq!(chain_in_use(&tls), after);
    install(&second, "server.key", &files.key_file);
    tls.look(false, now);
    assert!(tls.seen().failed.is_none());
}

/// Whether a client that knows only `anchor` takes the chain that is in use.
fn leads_to(tls: &Tls, anchor: &[u8], now: SystemTime) -> bool {
    let chain = tls.live.certificate().cert.clone();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(anchor.to_vec().into()).unwrap();
    let now =
        rustls::pki_types::UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &rustls::server::ParsedCertificate::try_from(&chain[0]).unwrap(),
        &roots,
        &chain[1..],
        now,
        identity::provider().signature_verification_algorithms.all,
    )
    .is_ok()
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_old_pin_is_good_until_an_exchange_of_the_authoritys_key_is_finished() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let tls = own(folder.path(), now);
    assert!(matches!(tls.finish_rotation(now), Err(TlsError::NoExchange)));
    let (old, first) = (tls.pin().unwrap(), chain_in_use(&tls));
    let old_key = fs::read(folder.path().join("ca.key")).unwrap();

    let exchange = tls.rotate(now).unwrap();
    let new = tls.pin().unwrap();
    assert!(new != old && exchange.previous == old && *tls.pins() == [new, old]);
    assert!(exchange.began_at <= now && exchange.began_at + Duration::from_secs(1) > now);
    assert_eq!(tls.condition().exchange, Some(exchange));
    let names = ["ca-bridge.pem", "ca.key", "ca.pem", "server.key", "server.pem", "tickets.key"];
    assert_eq!(files(folder.path()), names);
    assert_eq!(fs::metadata(folder.path().join("ca.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_ne!(fs::read(folder.path().join("ca.key")).unwrap(), old_key);
    let chain = chain_in_use(&tls);
    let new_anchor = chain[1].clone();
    assert!(leads_to(&tls, &first[1], now) && leads_to(&tls, &new_anchor, now));
    // As long as the old authority's certificate is good, and for a server that was started anew.
    assert!(leads_to(&tls, &first[1], now + 300 * DAY));
    assert!(matches!(tls.rotate(now), Err(TlsError::ExchangeUnderWay(_))));
    let again = own(folder.path(), now);
    assert!(*again.pins() == [new, old] && again.condition().exchange == Some(exchange));
    // The leaf is renewed meanwhile, with the bridge behind it.
    tls.look(false, now + 250 * DAY);
    assert!(chain_in_use(&tls)[0] != chain[0] && chain_in_use(&tls)[1..] == chain[1..]);

    assert_eq!(tls.finish_rotation(now).unwrap(), exchange);
    assert!(*tls.pins() == [new] && tls.condition().exchange.is_none());
    assert!(!leads_to(&tls, &first[1], now) && leads_to(&tls, &new_anchor, now));
    assert_eq!(files(folder.path()), names[1..]);
    assert_eq!(*own(folder.path(), now).pins(), [new]);
    // And the next one.
    tls.rotate(now).unwrap();
    assert!(tls.pins()[1] == new && leads_to(&tls, &new_anchor, now) && !leads_to(&tls, &first[1], now));
}

#[test]
fn an_exchange_that_is_cut_short_is_undone_or_carried_on() {
    let (before, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let now = SystemTime::now();
    let old = own(before.path(), now).pin().unwrap();
    for file in files(before.path()) {
        fs::copy(before.path().join(&file), after.path().join(&file)).unwrap();
    }
    let tls = own(after.path(), now);
    tls.rotate(now).unwrap();
    let new = tls.pin().unwrap();
    // What the disk holds after each step, as names of files and where they are from.
    let (was, is) = (before.path(), after.path());
    let key_made = [("ca.key", was, "ca.key"), ("ca.pem", was, "ca.pem"), ("ca-next.key", is, "ca.key")];
    let bridge_built = [&key_made[..], &[("ca-bridge.pem", is, "ca-bridge.pem")]].concat();
    let key_placed = [("ca.key", is, "ca.key"), ("ca.pem", was, "ca.pem"), bridge_built[3]];
    let authority_made = [("ca.key", is, "ca.key"), ("ca.pem", is, "ca.pem"), bridge_built[3]];
    let finished = [("ca.key", is, "ca.key"), ("ca.pem", is, "ca.pem")];
    for (disk, pins) in [
        (&key_made[..], vec![old]),
        (&bridge_built, vec![old]),
        (&key_placed, vec![new, old]),
        (&authority_made, vec![new, old]),
        (&finished, vec![new]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for (name, from, file) in
            disk.iter().chain(&[("server.pem", was, "server.pem"), ("server.key", was, "server.key")])
        {
            fs::copy(from.join(file), folder.path().join(name)).unwrap();
        }
        // Twice: what was mended stays so.
        for _ in 0..2 {
            let tls = own(folder.path(), now);
            assert_eq!(*tls.pins(), pins, "{disk:?}");
            let anchor = fs::read(folder.path().join("ca.pem")).unwrap();
            let anchor = identity::certificates(folder.path(), &anchor).unwrap().swap_remove(0);
            assert!(leads_to(&tls, &anchor, now), "{disk:?}");
            assert!(!folder.path().join("ca-next.key").exists());
            assert_eq!(folder.path().join("ca-bridge.pem").exists(), pins.len() == 2);
        }
    }
}

#[test]
fn a_disk_that_is_full_leaves_the_authority_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let tls = own(folder.path(), now);
    let (pins, chain) = (tls.pins(), chain_in_use(&tls));
    // The bridge cannot be written where a folder stands.
    fs::create_dir(folder.path().join("ca-bridge.pem.new")).unwrap();
    assert!(matches!(tls.rotate(now), Err(TlsError::Write { .. })));
    assert!(tls.pins() == pins && chain_in_use(&tls) == chain && tls.condition().exchange.is_none());
    fs::remove_dir(folder.path().join("ca-bridge.pem.new")).unwrap();
    assert_eq!(files(folder.path()), ["ca.key", "ca.pem", "server.key", "server.pem", "tickets.key"]);
    // Nor the new certificate, when the new key is there already: the one in use stays, and asking again carries on.
    fs::create_dir(folder.path().join("server.key.new")).unwrap();
    assert!(matches!(tls.rotate(now), Err(TlsError::Write { .. })));
    assert!(tls.pins() == pins && chain_in_use(&tls) == chain && tls.condition().exchange.is_none());
    fs::remove_dir(folder.path().join("server.key.new")).unwrap();
    assert_eq!(tls.rotate(now).unwrap().previous, pins[0]);
    assert!(tls.pins()[1] == pins[0] && leads_to(&tls, &chain[1], now));
}

#[test]
fn an_operators_certificate_has_no_key_of_pulse_to_exchange() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    own(folder.path(), now);
    let [certificate_file, key_file] = ["server.pem", "server.key"].map(|file| folder.path().join(file));
    let source = |public_host: &str| Source::Operator {
        files: TlsFiles { certificate_file: certificate_file.clone(), key_file: key_file.clone() },
        public_host: public_host.to_owned(),
    };
    let tls = Tls::from_source(source("pulse.lan"), folder.path(), now).unwrap();
    assert!(matches!(tls.rotate(now), Err(TlsError::NoAuthority)));
    assert!(tls.pins().is_empty() && tls.seen().remarks.is_empty());
    let elsewhere = Tls::from_source(source("10.9.8.7"), folder.path(), now).unwrap();
    let remarks = elsewhere.seen().remarks.join("\n");
    assert!(remarks.contains("join strings name 10.9.8.7") && remarks.contains("pulse.lan"), "{remarks}");
}
