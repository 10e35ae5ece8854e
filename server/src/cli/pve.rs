//! Proxmox VE as a source, as it is typed: the secret from its file, the certificate shown and asked for.
//!
//! Never: takes a certificate that neither the system nor a person trusts; shows the secret.

use std::io::Read;
use std::path::Path;

use http::Method;

use super::failure::Failure;
use super::{Asking, ask, text, typed};
use crate::api::{self, SetPve};
use crate::args::Pve;

/// The most bytes of a secret's file: one line.
const MAX_SECRET_BYTES: u64 = 4 << 10;

impl Asking {
    /// What was typed, for the server. Where no fingerprint was given, the person is asked for certificates that the system does
    /// not trust.
    pub(super) async fn pve(&self, pve: &Pve) -> Result<SetPve, Failure> {
        let fingerprints = match (&pve.fingerprints[..], &pve.urls[..]) {
            ([], []) => None,
            ([], urls) if !pve.no_check => Some(self.ask_for_certificates(urls).await?),
            (given, _) => Some(given.to_vec()),
        };
        Ok(SetPve {
            urls: Some(pve.urls.clone()).filter(|urls| !urls.is_empty()),
            token_id: pve.token_id.clone(),
            token_secret: pve.token_secret_file.as_deref().map(secret).transpose()?,
            fingerprints,
            poll_interval_seconds: pve.poll_interval.map(|interval| interval.as_secs_f64()),
            add_fingerprints: Vec::new(),
            is_unchecked: pve.no_check,
        })
    }

    async fn ask_for_certificates(&self, urls: &[String]) -> Result<Vec<String>, Failure> {
        let look = api::LookAtCertificates { urls: urls.to_vec() };
        let shown = self.client.call(Method::POST, "/pve/certificates", &look).await?;
        let shown: api::CertificatesShown = typed(shown)?;
        if shown.certificates.iter().all(|certificate| certificate.is_trusted) {
            return Ok(Vec::new());
        }
        let mut lines = Vec::new();
        let mut fingerprints: Vec<String> = Vec::new();
        for one in &shown.certificates {
            let url = text::clean(&one.url);
            match (&one.fingerprint, &one.problem) {
                (Some(fingerprint), problem) => {
                    lines.push(format!("{url} shows {}", text::clean(fingerprint)));
                    lines.extend(problem.as_ref().map(|problem| format!("  {}", text::clean(problem))));
                    if !fingerprints.contains(fingerprint) {
                        fingerprints.push(fingerprint.clone());
                    }
                }
                (None, problem) => lines.push(format!(
                    "{url} shows no certificate: {}",
                    text::clean(problem.as_deref().unwrap_or_default())
                )),
            }
        }
        let text = lines.join("\n");
        if fingerprints.is_empty() {
            let text = format!("{text}\nmend that, or take it as it is with --no-check and --fingerprint");
            return Err(Failure::local("PVE_NOT_REACHED", text));
        }
        if !ask::is_possible() {
            let flags: Vec<String> =
                fingerprints.iter().map(|one| format!("--fingerprint {}", text::clean(one))).collect();
            let text = format!(
                "{text}\nthere is no terminal to ask at: compare on the host, and say that it is right with {}",
                flags.join(" ")
            );
            return Err(Failure::usage("CERTIFICATE_UNKNOWN", text));
        }
        if ask::yes_or_no(&text, "Is that what the host itself says, and to be trusted from now on?", false)?
        {
            return Ok(fingerprints);
        }
        Err(Failure::local("NOT_CONFIRMED", "nothing was changed".to_owned()))
    }
}

fn secret(path: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| {
        let text = format!("read the API token's secret from {}: {error}", path.display());
        Failure::usage("TOKEN_SECRET_FILE", text)
    };
    let mut read = String::new();
    let count = match path.to_str() {
        Some("-") => std::io::stdin().lock().take(MAX_SECRET_BYTES).read_to_string(&mut read),
        _ => std::fs::File::open(path).and_then(|file| file.take(MAX_SECRET_BYTES).read_to_string(&mut read)),
    };
    count.map_err(failed)?;
    let secret = read.trim();
    if secret.is_empty() || secret.lines().count() != 1 {
        let text = format!(
            "{} must hold one line: the secret that `pveum user token add` printed as value",
            path.display()
        );
        return Err(Failure::usage("TOKEN_SECRET_FILE", text));
    }
    Ok(secret.to_owned())
}
