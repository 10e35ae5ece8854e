use std::io;
use std::path::PathBuf;
use std::slice::from_ref;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::testing::{Authority, Leaf, in_time, server_config};
use crate::tls::{Trust, client_config, explain};

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
    handshake(&Trust::Pinned(ca.pin), ca.leaf(|_| {}), &chain).await.unwrap();
}

#[tokio::test]
async fn a_pinned_leaf_is_taken_without_its_authority() {
    let leaf = Authority::new().leaf(|_| {});
    handshake(&Trust::Pinned(leaf.pin), leaf, &[]).await.unwrap();
}

#[tokio::test]
async fn another_key_is_refused_and_the_message_says_what_to_do() {
    let (ca, other) = (Authority::new(), Authority::new());
    let error =
        handshake(&Trust::Pinned(other.pin), ca.leaf(|_| {}), from_ref(&ca.certificate)).await.unwrap_err();
    assert!(error.contains("does not lead to the pinned key") && error.contains("register again"), "{error}");
}

#[tokio::test]
async fn the_pinned_authority_beside_a_leaf_that_it_did_not_sign_is_refused() {
    let (ca, other) = (Authority::new(), Authority::new());
    handshake(&Trust::Pinned(ca.pin), other.leaf(|_| {}), from_ref(&ca.certificate)).await.unwrap_err();
}

#[tokio::test]
async fn the_pinned_authority_must_be_in_the_chain() {
    let ca = Authority::new();
    handshake(&Trust::Pinned(ca.pin), ca.leaf(|_| {}), &[]).await.unwrap_err();
}

#[tokio::test]
async fn a_pinned_leaf_signs_nobody() {
    let ca = Authority::with(|params| params.is_ca = rcgen::IsCa::ExplicitNoCa);
    handshake(&Trust::Pinned(ca.pin), ca.leaf(|_| {}), from_ref(&ca.certificate)).await.unwrap_err();
}

#[tokio::test]
async fn dates_and_purpose_count_with_a_pin() {
    let ca = Authority::new();
    let chain = [ca.certificate.clone()];
    let expired = handshake(&Trust::Pinned(ca.pin), ca.leaf(past), &chain).await.unwrap_err();
    assert!(expired.contains("expired"), "{expired}");
    let purpose = handshake(&Trust::Pinned(ca.pin), ca.leaf(for_clients), &chain).await.unwrap_err();
    assert!(purpose.contains("not one for servers"), "{purpose}");

    let leaf = ca.leaf(past);
    assert!(handshake(&Trust::Pinned(leaf.pin), leaf, &[]).await.unwrap_err().contains("expired"));
    let leaf = ca.leaf(for_clients);
    assert!(
        handshake(&Trust::Pinned(leaf.pin), leaf, &[]).await.unwrap_err().contains("not one for servers")
    );

    let old = Authority::with(past);
    let error =
        handshake(&Trust::Pinned(old.pin), old.leaf(|_| {}), from_ref(&old.certificate)).await.unwrap_err();
    assert!(error.contains("expired"), "{error}");
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
    assert!(error.contains("another name"), "{error}");
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
    assert_eq!(Trust::choose(Some(pin), true, None), Trust::Pinned(pin));
    assert_eq!(Trust::choose(None, true, None), Trust::Unchecked);
}
