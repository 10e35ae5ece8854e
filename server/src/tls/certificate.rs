//! What every certificate says that Pulse makes itself.
//!
//! Always: it begins a day ago, and no two have one serial number. Never: signs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pulse_proto::Pin;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyUsagePurpose};

use super::TlsError;
use super::identity::Validity;

/// Certificates begin this long ago: proxies' clocks may be behind.
pub(super) const BACKDATED: Duration = Duration::from_secs(24 * 60 * 60);

/// What a certificate of an authority with this key says, whoever signs it.
pub(super) fn ca_params(
    pin: Pin,
    now: SystemTime,
    until: SystemTime,
) -> Result<(CertificateParams, Validity), TlsError> {
    let (mut params, validity) = params(now, until)?;
    // Two Pulses in one trust store are told apart; the same key always has the same name, so that what the
    // certificate before signed is good under this one.
    let pin_hex = pin.to_string();
    let short: String = pin_hex.trim_start_matches("sha256:").chars().take(8).collect();
    params.distinguished_name.push(DnType::CommonName, format!("Pulse CA {short}"));
    // It may sign one more authority: the next one, when its key is exchanged.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok((params, validity))
}

/// What every certificate shares. It begins a day before `now`.
pub(super) fn params(now: SystemTime, until: SystemTime) -> Result<(CertificateParams, Validity), TlsError> {
    let since_epoch =
        |time: SystemTime| Duration::from_secs(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    let (from, until) = (since_epoch(now).saturating_sub(BACKDATED), since_epoch(until));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.not_before = epoch + from;
    params.not_after = epoch + until;
    // Random, because two certificates of one key and name must not share it. The first byte keeps it positive and
    // of full length (RFC 5280, 4.1.2.2: at most 20 bytes).
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| TlsError::Random)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(serial.to_vec().into());
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Pulse");
    Ok((params, Validity { from: UNIX_EPOCH + from, until: UNIX_EPOCH + until }))
}
