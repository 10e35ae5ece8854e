//! The text of `identity.json`, and nothing but its text.
//!
//! Always: what is read is what was written, or refused with what is wrong. Never: a secret; the token has its own file.
//!
//! The last field, `sha256`, is over every byte before its comma: one digit that flipped in the mark or in a key would have
//! every list refused, for a reason that is none. A file without it is an earlier version's.

use pulse_proto::hash::sha256;
use pulse_proto::signature::PublicKey;
use pulse_proto::{ListHash, Pin, Position, Scope, TokenDigest, hex};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Hostname, Identity, Mark};
use crate::config::ServerUrl;

/// Grows when an older version could no longer read what a newer one writes.
const FORMAT: u32 = 1;

/// What stands before the checksum.
const SUM: &str = ",\n  \"sha256\": \"";

#[derive(Deserialize)]
struct Head {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    server_id: Uuid,
    #[serde(default)]
    turn: u64,
    url: String,
    #[serde(default)]
    pin: Option<String>,
    #[serde(default)]
    ca_pins: Vec<String>,
    #[serde(default)]
    proxy_id: Option<Uuid>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    hostname_given: bool,
    signing_keys: Vec<String>,
    #[serde(default)]
    mark: Option<StoredMark>,
    #[serde(default)]
    revoked: Option<String>,
    #[serde(default)]
    token_file_sha256: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredMark {
    epoch: u64,
    revision: u64,
    scope: String,
    hash: String,
}

/// Why a text is no identity.
pub(super) enum Unusable {
    /// A newer version wrote it.
    Newer(u32),
    /// What is wrong with it.
    Damaged(String),
}

impl From<String> for Unusable {
    fn from(what: String) -> Unusable {
        Unusable::Damaged(what)
    }
}

/// Reads an identity; the error says what is wrong.
pub(super) fn decode(bytes: &[u8]) -> Result<Identity, Unusable> {
    let head: Head = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if head.format > FORMAT {
        return Err(Unusable::Newer(head.format));
    }
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if let Some(at) = bytes.windows(SUM.len()).rposition(|window| window == SUM.as_bytes())
        && bytes[at..] != *sum(&bytes[..at]).as_bytes()
    {
        return Err("its checksum does not fit".to_owned().into());
    }
    if stored.format != FORMAT {
        return Err(Unusable::Damaged(format!(
            "it has format {}, this version knows {FORMAT}",
            stored.format
        )));
    }
    let pin =
        stored.pin.map(|pin| pin.parse::<Pin>()).transpose().map_err(|error| format!("pin: {error}"))?;
    let ca_pins = stored.ca_pins.iter().map(|pin| pin.parse::<Pin>()).collect::<Result<_, _>>();
    let key = |text: &String| hex::decode::<32>(text).and_then(|bytes| PublicKey::from_bytes(&bytes).ok());
    let keys: Option<Vec<_>> = stored.signing_keys.iter().map(key).collect();
    let seed = match stored.token_file_sha256 {
        Some(text) => {
            let bytes = hex::decode(&text)
                .ok_or_else(|| "token_file_sha256: not 64 lower-case hex digits".to_owned())?;
            Some(TokenDigest::from_bytes(bytes))
        }
        None => None,
    };
    let is_given = stored.hostname_given;
    Ok(Identity {
        server_id: stored.server_id,
        turn: stored.turn,
        url: stored.url.parse::<ServerUrl>().map_err(|error| format!("url: {error}"))?,
        pin,
        ca_pins: ca_pins.map_err(|error| format!("ca_pins: {error}"))?,
        proxy_id: stored.proxy_id,
        hostname: stored.hostname.map(|name| Hostname { name, is_given }),
        keys: keys.ok_or_else(|| "signing_keys: a key has 64 lower-case hex digits".to_owned())?,
        mark: stored.mark.map(mark).transpose()?,
        revoked: stored.revoked,
        seed,
    })
}

fn mark(stored: StoredMark) -> Result<Mark, String> {
    Ok(Mark {
        position: Position { epoch: stored.epoch, revision: stored.revision },
        scope: stored.scope.parse::<Scope>().map_err(|error| format!("mark: {error}"))?,
        hash: stored.hash.parse::<ListHash>().map_err(|error| format!("mark: {error}"))?,
    })
}

/// Writes an identity.
pub(super) fn encode(identity: &Identity) -> Vec<u8> {
    let stored = Stored {
        format: FORMAT,
        server_id: identity.server_id,
        turn: identity.turn,
        url: identity.url.to_string(),
        pin: identity.pin.map(|pin| pin.to_string()),
        ca_pins: identity.ca_pins.iter().map(ToString::to_string).collect(),
        proxy_id: identity.proxy_id,
        hostname: identity.hostname.as_ref().map(|hostname| hostname.name.clone()),
        hostname_given: identity.hostname.as_ref().is_some_and(|hostname| hostname.is_given),
        signing_keys: identity.keys.iter().map(|key| hex::encode(key.as_bytes())).collect(),
        mark: identity.mark.map(|mark| StoredMark {
            epoch: mark.position.epoch,
            revision: mark.position.revision,
            scope: mark.scope.to_string(),
            hash: mark.hash.to_string(),
        }),
        revoked: identity.revoked.clone(),
        token_file_sha256: identity.seed.map(|digest| hex::encode(digest.as_bytes())),
    };
    let mut text = serde_json::to_vec_pretty(&stored).expect("strings and numbers make JSON");
    text.truncate(text.len() - "\n}".len());
    let sum = sum(&text);
    text.extend_from_slice(sum.as_bytes());
    text
}

/// The end of a text: its checksum, and what closes it.
fn sum(text: &[u8]) -> String {
    format!("{SUM}{}\"\n}}\n", hex::encode(&sha256(text)))
}
