//! What leads from the authority's key before to the new one, while its key is exchanged.
//!
//! The new authority's certificate is signed twice: by itself, and by the key before (the *bridge*). The server sends both,
//! and the certificate of the key before, so a proxy that has only the old pin still finds its way, however long it was
//! away; over that connection it hears the new pin ([`Tls::pins`](super::Tls::pins)). When the exchange is finished the
//! bridge is taken out of the chain, and the old pin is worth nothing.
//!
//! In: the data folder. Out: [`Bridge`], if there is one.
//! Always: what a crash left of an exchange before the new key was in its place is undone. Never: makes one; that is
//! [`super::exchange`].

use std::path::Path;
use std::time::SystemTime;

use pulse_proto::Pin;
use rustls::pki_types::CertificateDer;

use super::TlsError;
use super::certificate::BACKDATED;
use super::files::{Paths, read, remove};
use super::identity::{certificates, inspect, x509};

/// What leads from the key before to the one in use.
#[derive(Debug)]
pub(super) struct Bridge {
    /// The pin of the key before.
    pub(super) previous: Pin,
    /// When the exchange began.
    pub(super) began_at: SystemTime,
    /// The new authority as the key before signed it, and the certificate of that key.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The same, as it stands in the file.
    pub(super) pem: String,
}

/// Reads the bridge to the key with this pin, if an exchange is under way. What an exchange left that did not get as far as
/// the new key is removed.
pub(super) fn find(paths: &Paths, pin: Pin) -> Result<Option<Bridge>, TlsError> {
    if paths.next_ca_key.exists() {
        tracing::warn!(path = %paths.next_ca_key.display(),
            "an exchange of the authority's key was cut short before the new key was in use: it is undone; ask for it again");
        remove(&paths.next_ca_key)?;
    }
    let Some(pem) = read(&paths.bridge)? else { return Ok(None) };
    let (leads_to, bridge) = parse(&paths.bridge, &pem)?;
    if leads_to == pin {
        return Ok(Some(bridge));
    }
    tracing::warn!(path = %paths.bridge.display(), "this file does not lead to ca.key: it is removed");
    remove(&paths.bridge)?;
    Ok(None)
}

/// The pin to which a bridge leads, and the bridge.
fn parse(path: &Path, pem: &[u8]) -> Result<(Pin, Bridge), TlsError> {
    let chain = certificates(path, pem)?;
    let [signed, old] = &chain[..] else { return Err(TlsError::NoCertificate(path.to_owned())) };
    let pin = |der| Ok::<_, TlsError>(Pin::of_spki(x509(path, der)?.public_key().raw));
    let (leads_to, previous) = (pin(signed)?, pin(old)?);
    let (validity, _) = inspect(path, signed)?;
    let pem = String::from_utf8_lossy(pem).into_owned();
    Ok((leads_to, Bridge { previous, began_at: validity.from + BACKDATED, chain, pem }))
}
