use std::io;
use std::path::PathBuf;
use std::slice::from_ref;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::testing::{Authority, Leaf, in_time, server_config};

/// A handshake in memory with a server that shows this chain; what the client says about it.
async fn handshake(trust: &Trust, leaf: Leaf, rest: &[CertificateDer<'static>]) -> Result<(), String> {
    let config = client_config(trust).map_err(|error| error.to_string())?;
    let mut chain = vec![leaf.certificate];
    chain.extend_from_slice(rest);
    let acceptor = TlsAcceptor::from(server_config(chain, leaf.key));
    let (near, far) = tokio::io::duplex(16 << 10);
    // The name is one that no certificate here has, except where the name is checked.
    let name = if matches!(trust, Trust::Roots(_)) { "pulse.test" } else { "dialled.elsewhere" };
    let connecting = TlsConnector::from(config).connect(ServerName::try_from(name).unwrap(), near);
    let (client, _server) = in_time(async { tokio::join!(connecting, acceptor.accept(far)) }).await;
    client.map(drop).map_err(|error: io::Error| explain(&error))
}

fn past(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
}

fn for_clients(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

#[tokio::test]
async fn a_chain_to_the_pinned_authority_is_taken_whatever_the_name() {
    let ca = Authority::new();
    let chain = [ca.certificate.clone()];
    handshake(&Trust::Pinned(vec![ca.pin]), ca.leaf(|_| {}), &chain).await.unwrap();
}

#[tokio::test]
async fn a_pinned_leaf_is_taken_without_its_authority() {
    let leaf = Authority::new().leaf(|_| {});
    handshake(&Trust::Pinned(vec![leaf.pin]), leaf, &[]).await.unwrap();
}

#[tokio::test]
async fn another_key_is_refused_and_the_message_says_what_to_do() {
    let (ca, other) = (Authority::new(), Authority::new());
    let error = handshake(&Trust::Pinned(vec![other.pin]), ca.leaf(|_| {}), from_ref(&ca.certificate))
        .await
        .unwrap_err();
    assert!(error.contains("does not lead to the pinned key") && error.contains("register again"), "{error}");
}

#[tokio::test]
async fn the_pinned_authority_beside_a_leaf_that_it_did_not_sign_is_refused() {
    let (ca, other) = (Authority::new(), Authority::new());
    let trust = Trust::Pinned(vec![ca.pin]);
    let error = handshake(&trust, other.leaf(|_| {}), from_ref(&ca.certificate)).await.unwrap_err();
    assert!(
        error.contains("did not sign the server's own") && error.contains(&ca.pin.to_string()),
        "{error}"
    );
    // With its own authority in the chain as well.
    let chain = [other.certificate.clone(), ca.certificate.clone()];
    let error = handshake(&trust, other.leaf(|_| {}), &chain).await.unwrap_err();
    assert!(error.contains("did not sign the server's own"), "{error}");
}

#[tokio::test]
async fn one_of_several_pinned_keys_is_enough_and_any_other_is_not() {
    let (new, old, other) = (Authority::new(), Authority::with(past), Authority::new());
    let trust = Trust::Pinned(vec![new.pin, old.pin]);
    handshake(&trust, new.leaf(|_| {}), from_ref(&new.certificate)).await.unwrap();
    // The old one's certificate is past its time, and first in the chain.
    let chain = [old.certificate.clone(), new.certificate.clone()];
    handshake(&trust, new.leaf(|_| {}), &chain).await.unwrap();
    let error = handshake(&trust, other.leaf(|_| {}), from_ref(&other.certificate)).await.unwrap_err();
    assert!(
        error.contains("does not lead to the pinned key") && error.contains(&new.pin.to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_of_the_future_is_told_with_the_clock_of_this_host() {
    let ca = Authority::new();
    let future = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(3000, 1, 1), date_time_ymd(3001, 1, 1));
    };
    let chain = [ca.certificate.clone()];
    let error = handshake(&Trust::Pinned(vec![ca.pin]), ca.leaf(future), &chain).await.unwrap_err();
    assert!(
        error.contains("is good from 3000-01-01 00:00:00 UTC only, and this host's clock says 2"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_knows_tls_1_2_only_is_good_enough() {
    let ca = Authority::new();
    let leaf = ca.leaf(|_| {});
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.certificate, ca.certificate.clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(leaf.key.into()),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    talk(&client_config(&Trust::Pinned(vec![ca.pin])).unwrap(), &acceptor).await.unwrap();
    let error = talk(&client_config(&Trust::Pinned(vec![Authority::new().pin])).unwrap(), &acceptor).await;
    assert!(explain(&error.unwrap_err()).contains("does not lead to the pinned key"));
}

#[tokio::test]
async fn a_session_is_never_resumed_so_the_pin_is_checked_each_time() {
    let (ca, other) = (Authority::new(), Authority::new());
    let (leaf, false_leaf) = (ca.leaf(|_| {}), other.leaf(|_| {}));
    // Whoever has the keys of the tickets could resume a session without showing a certificate.
    let tickets = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    let with_tickets = |leaf: Leaf, authority: &Authority| {
        let mut config = server_config(vec![leaf.certificate, authority.certificate.clone()], leaf.key);
        Arc::make_mut(&mut config).ticketer = Arc::clone(&tickets);
        TlsAcceptor::from(config)
    };
    let (real, fake) = (with_tickets(leaf, &ca), with_tickets(false_leaf, &other));
    // What another client would do, to show that it can be done.
    let mut resuming = (*client_config(&Trust::Pinned(vec![ca.pin])).unwrap()).clone();
    resuming.resumption = rustls::client::Resumption::default();
    for (client, is_taken_in) in
        [(Arc::new(resuming), true), (client_config(&Trust::Pinned(vec![ca.pin])).unwrap(), false)]
    {
        talk(&client, &real).await.unwrap();
        assert_eq!(talk(&client, &fake).await.is_ok(), is_taken_in);
    }
}

/// A handshake, and a byte from the server, with which TLS 1.3 brings its tickets.
async fn talk(client: &Arc<rustls::ClientConfig>, server: &TlsAcceptor) -> io::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (near, far) = tokio::io::duplex(16 << 10);
    let name = ServerName::try_from("pulse.test").unwrap();
    let connecting = TlsConnector::from(Arc::clone(client)).connect(name, near);
    let answering = async {
        let mut stream = server.accept(far).await?;
        stream.write_all(b"x").await?;
        stream.flush().await?;
        Ok::<_, io::Error>(stream)
    };
    let (connected, _server) = in_time(async { tokio::join!(connecting, answering) }).await;
    connected?.read_u8().await.map(drop)
}

#[tokio::test]
async fn the_pinned_authority_must_be_in_the_chain() {
    let ca = Authority::new();
    handshake(&Trust::Pinned(vec![ca.pin]), ca.leaf(|_| {}), &[]).await.unwrap_err();
}

#[tokio::test]
async fn a_pinned_leaf_signs_nobody() {
    let ca = Authority::with(|params| params.is_ca = rcgen::IsCa::ExplicitNoCa);
    handshake(&Trust::Pinned(vec![ca.pin]), ca.leaf(|_| {}), from_ref(&ca.certificate)).await.unwrap_err();
}

#[tokio::test]
async fn dates_and_purpose_count_with_a_pin() {
    let ca = Authority::new();
    let chain = [ca.certificate.clone()];
    let expired = handshake(&Trust::Pinned(vec![ca.pin]), ca.leaf(past), &chain).await.unwrap_err();
    assert!(expired.contains("certificate ended at 2021-01-01"), "{expired}");
    let purpose = handshake(&Trust::Pinned(vec![ca.pin]), ca.leaf(for_clients), &chain).await.unwrap_err();
    assert!(purpose.contains("not one for servers"), "{purpose}");

    let leaf = ca.leaf(past);
    assert!(
        handshake(&Trust::Pinned(vec![leaf.pin]), leaf, &[])
            .await
            .unwrap_err()
            .contains("certificate ended at 2021-01-01")
    );
    let leaf = ca.leaf(for_clients);
    assert!(
        handshake(&Trust::Pinned(vec![leaf.pin]), leaf, &[])
            .await
            .unwrap_err()
            .contains("not one for servers")
    );

    let old = Authority::with(past);
    let error = handshake(&Trust::Pinned(vec![old.pin]), old.leaf(|_| {}), from_ref(&old.certificate))
        .await
        .unwrap_err();
    assert!(error.contains("certificate ended at 2021-01-01"), "{error}");
}

#[tokio::test]
async fn a_ca_file_is_enough_for_a_certificate_with_the_right_name() {
    let ca = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &ca.certificate);
    std::fs::write(&path, format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"))
        .unwrap();
    handshake(&Trust::Roots(path.clone()), ca.leaf(|_| {}), &[]).await.unwrap();
    let elsewhere = |params: &mut CertificateParams| params.subject_alt_names.clear();
    let error = handshake(&Trust::Roots(path.clone()), ca.leaf(elsewhere), &[]).await.unwrap_err();
    assert!(error.contains("is not for pulse.test but for no name at all"), "{error}");
    let error = handshake(&Trust::Roots(path), Authority::new().leaf(|_| {}), &[]).await.unwrap_err();
    assert!(error.contains("set ca_file"), "{error}");
}

#[test]
fn a_ca_file_without_a_certificate_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("ca.pem");
    let error = client_config(&Trust::Roots(path.clone())).unwrap_err().to_string();
    assert!(error.contains("ca.pem"), "{error}");
    std::fs::write(&path, "nothing").unwrap();
    let error = client_config(&Trust::Roots(path)).unwrap_err().to_string();
    assert!(error.contains("no certificate"), "{error}");
}

#[tokio::test]
async fn switched_off_checks_take_anything_but_a_pin_stays() {
    handshake(&Trust::Unchecked, Authority::new().leaf(past), &[]).await.unwrap();
    let pin = Authority::new().pin;
    assert_eq!(Trust::choose(vec![pin], true, None), Trust::Pinned(vec![pin]));
    assert_eq!(Trust::choose(vec![], true, None), Trust::Unchecked);
}
