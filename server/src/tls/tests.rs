use super::*;
use std::fs;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn own(folder: &Path, now: SystemTime) -> Tls {
    let source = Source::Own {
        folder: folder.to_owned(),
        paths: Paths::in_folder(folder),
        names: Names::new(&[], ["pulse.lan".to_owned()]),
    };
    Tls::from_source(source, now).expect("a certificate can be made")
}

fn chain_in_use(tls: &Tls) -> Vec<Vec<u8>> {
    tls.live.0.load().cert.iter().map(|der| der.to_vec()).collect()
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
    let later = begin + 15 * 365 * DAY;
    tls.look(false, later);
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
    assert_eq!(constraints.value.path_len_constraint, Some(0));
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
    let tls = Tls::from_source(Source::Operator(files.clone()), now).unwrap();
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
