//! The catalog: the fleet's row, proxies, tokens; instances have a file of their own.
//!
//! In: the changes of a commit. Out: all rows, at start.
//! Always: every row carries the revision at which it last changed, and no row is ever taken out.

use std::sync::Arc;

use pulse_proto::signature::SigningKey;
use pulse_proto::{Clock, Node, TokenDigest};
use uuid::Uuid;

use super::fault::{Fault, Result};
use super::sql::{Cells, Sql, integer, millis, rows, values, word_of};
use super::{accounts, audit, instances, leave, lists, sealed};
use crate::registry::{
    CtrlToken, JoinToken, JoinWindow, Proxy, ProxyKind, ScopeKind, Standing, TokenStanding,
};
use crate::sealing::SealingKey;
use crate::store::{Change, Commit, Newer, Stand};

const PROXY_KINDS: &[(ProxyKind, &str)] = &[(ProxyKind::Socket, "socket"), (ProxyKind::Http, "http")];
const SCOPE_KINDS: &[(ScopeKind, &str)] = &[(ScopeKind::Instance, "instance"), (ScopeKind::All, "all")];

/// Before every revision.
pub(in crate::store) const EVERY: i64 = -1;

/// The one row that says which fleet this is.
pub(in crate::store) struct Fleet {
    pub(in crate::store) server_id: Uuid,
    pub(in crate::store) epoch: u64,
    pub(in crate::store) revision: u64,
    /// As it is stored: sealed; in a file of an earlier schema, in the open.
    pub(in crate::store) signing_key: Vec<u8>,
}

pub(in crate::store) fn fleet(database: &dyn Sql) -> Result<Fleet> {
    let sql = "SELECT id, server_id, epoch, revision, signing_key FROM fleet";
    let mut found = rows(database, "fleet", sql, &[], |cells| {
        Ok(Fleet {
            server_id: cells.parsed("server_id")?,
            epoch: cells.number("epoch")?,
            revision: cells.number("revision")?,
            signing_key: cells.plain("signing_key")?,
        })
    })?;
    found.pop().ok_or_else(|| Fault::Unreadable(String::from("table fleet has no row: restore a backup")))
}

pub(in crate::store) fn revision(database: &dyn Sql) -> Result<u64> {
    let sql = "SELECT id, revision FROM fleet";
    let found = rows(database, "fleet", sql, &[], |cells| cells.number("revision"))?;
    found.first().copied().ok_or_else(|| Fault::Unreadable(String::from("table fleet has no row")))
}

/// Gives a new database its identity. `keep` says how its signing key is stored.
pub(in crate::store) fn found_fleet(
    database: &dyn Sql,
    clock: &Clock,
    keep: impl FnOnce(Uuid, Vec<u8>) -> Result<Vec<u8>>,
) -> Result<()> {
    let made = SigningKey::generate();
    let (_, signing_key) = made.map_err(|error| Fault::Disk(Arc::new(std::io::Error::other(error))))?;
    let (server_id, created_at) = (Uuid::new_v4(), millis(clock.now()));
    let signing_key = keep(server_id, signing_key)?;
    database.execute(
        "INSERT INTO fleet (id, server_id, epoch, revision, created_at, signing_key) VALUES (1, $1, $2, 0, $3, $4)",
        &values![server_id, created_at, created_at, signing_key],
    )?;
    tracing::info!(epoch = created_at, "new database made");
    Ok(())
}

/// What changed after a revision that somebody holds.
pub(in crate::store) fn newer(database: &dyn Sql, held: &Stand) -> Result<Option<Newer>> {
    let Fleet { server_id, epoch, revision, .. } = fleet(database)?;
    // Another history shows by another row at the revision that is held, or by none: the database lost what came after some
    // revision before it.
    let is_same = server_id == held.server_id && audit::hash_at(database, held.revision)? == held.audit_hash;
    if revision < held.revision || !is_same {
        return Err(Fault::OtherHistory { revision });
    }
    if revision == held.revision {
        return Ok(None);
    }
    let after = integer(held.revision);
    Ok(Some(Newer {
        epoch,
        stand: Stand { server_id, revision, audit_hash: audit::hash_at(database, revision)? },
        instances: instances::after(database, after)?,
        proxies: proxies(database, after)?,
        tokens: tokens(database, after)?,
        dropped_tokens: dropped_tokens(database, after)?,
        join_tokens: join_tokens(database, after)?,
        join_windows: join_windows(database, after)?,
        admins: accounts::admins(database, after)?,
        credentials: accounts::credentials(database, after)?,
        lists: lists::newer(database, after)?,
    }))
}

/// Writes one change of the fleet. The caller commits. `key` is the one under which secrets are sealed once that is done. Out: the
/// hash of its audit row.
pub(in crate::store) fn commit(database: &dyn Sql, commit: &Commit, key: &SealingKey) -> Result<String> {
    // First of all: whoever moves the one row holds it to the end of the transaction, so that revisions are seen in the
    // order of their numbers.
    let moved = database.execute(
        "UPDATE fleet SET revision = $1 WHERE revision = $2",
        &values![integer(commit.revision), integer(commit.expected)],
    )?;
    if moved == 0 {
        return Err(Fault::Conflict(revision(database)?));
    }
    leave::check(commit.leave, database)?;
    // Another history can have come to the same number.
    if audit::hash_at(database, commit.expected)? != commit.expected_hash {
        return Err(Fault::OtherHistory { revision: commit.expected });
    }
    let revision = integer(commit.revision);
    for change in &commit.changes {
        match change {
            Change::Instance(instance) => instances::put(database, instance, revision)?,
            Change::Proxy(proxy) => put_proxy(database, proxy, revision)?,
            Change::Token(token) => put_token(database, token, revision)?,
            Change::DropToken(digest) => drop_token(database, digest, revision)?,
            Change::JoinToken(token) => put_join_token(database, token, revision)?,
            Change::Epoch(epoch) => {
                database.execute("UPDATE fleet SET epoch = $1", &values![integer(*epoch)])?;
            }
            Change::JoinWindow(window) => put_join_window(database, window, revision)?,
            Change::Admin(admin) => accounts::put_admin(database, admin, revision)?,
            Change::Credential(credential) => accounts::put_credential(database, credential, revision)?,
            Change::SealingKey(exchange) => sealed::reseal(database, &exchange.from, &exchange.to)?,
        }
    }
    for list in &commit.lists {
        lists::insert(database, list)?;
    }
    database.ring(commit.revision)?;
    audit::append(database, key, std::slice::from_ref(&commit.audit), Some(commit.revision))
}

/// The node in the columns `name` and `address`.
pub(in crate::store) fn node(cells: &Cells<'_>) -> Result<Node> {
    let (name, address): (String, String) = (cells.plain("name")?, cells.plain("address")?);
    Node::new(&name, &address).map_err(|error| cells.unreadable("name", error))
}

fn put_proxy(database: &dyn Sql, proxy: &Proxy, revision: i64) -> Result<()> {
    let (standing, standing_at, standing_reason) = match &proxy.standing {
        Standing::Active => ("active", None, ""),
        Standing::Revoked { at, reason } => ("revoked", Some(millis(*at)), reason.as_str()),
        Standing::Removed { at, reason } => ("removed", Some(millis(*at)), reason.as_str()),
    };
    database.execute("INSERT INTO proxies (id, hostname, machine_id, kind, proxy_url, version, peer, instance_id, scope_kind,
                 standing, standing_at, standing_reason, rotate_requested, created_at, registered_at, revision,
                 is_approved)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
             ON CONFLICT (id) DO UPDATE SET hostname = excluded.hostname, machine_id = excluded.machine_id,
                 kind = excluded.kind, proxy_url = excluded.proxy_url, version = excluded.version,
                 peer = excluded.peer, instance_id = excluded.instance_id, scope_kind = excluded.scope_kind,
                 standing = excluded.standing, standing_at = excluded.standing_at,
                 standing_reason = excluded.standing_reason, rotate_requested = excluded.rotate_requested,
                 created_at = excluded.created_at, registered_at = excluded.registered_at,
                 revision = excluded.revision, is_approved = excluded.is_approved", &values![
            proxy.id,
            &proxy.hostname,
            &proxy.machine_id,
            word_of(&proxy.kind, PROXY_KINDS),
            &proxy.proxy_url,
            &proxy.version,
            proxy.peer.map(|peer| peer.to_string()),
            proxy.instance,
            word_of(&proxy.scope_kind, SCOPE_KINDS),
            standing,
            standing_at,
            standing_reason,
            proxy.rotate_requested,
            millis(proxy.created_at),
            millis(proxy.registered_at),
            revision,
            proxy.is_approved
        ])?;
    Ok(())
}

pub(in crate::store) fn proxies(database: &dyn Sql, after: i64) -> Result<Vec<Proxy>> {
    let sql =
        "SELECT id, hostname, machine_id, kind, proxy_url, version, peer, instance_id, scope_kind, standing,
                   standing_at, standing_reason, rotate_requested, created_at, registered_at, is_approved
               FROM proxies WHERE revision > $1 ORDER BY id";
    rows(database, "proxies", sql, &values![after], |cells| {
        let standing: String = cells.plain("standing")?;
        let (at, reason) = (cells.time_if_any("standing_at")?, cells.plain("standing_reason")?);
        let standing = match (standing.as_str(), at) {
            ("active", _) => Standing::Active,
            ("revoked", Some(at)) => Standing::Revoked { at, reason },
            ("removed", Some(at)) => Standing::Removed { at, reason },
            (other, at) => return Err(cells.unreadable("standing", format!("{other:?} at {at:?} is none"))),
        };
        Ok(Proxy {
            id: cells.parsed("id")?,
            hostname: cells.plain("hostname")?,
            machine_id: cells.plain("machine_id")?,
            kind: cells.word("kind", PROXY_KINDS)?,
            proxy_url: cells.plain("proxy_url")?,
            version: cells.plain("version")?,
            peer: cells.parsed_if_any("peer")?,
            instance: cells.parsed_if_any("instance_id")?,
            scope_kind: cells.word("scope_kind", SCOPE_KINDS)?,
            standing,
            is_approved: cells.plain("is_approved")?,
            rotate_requested: cells.plain("rotate_requested")?,
            created_at: cells.time("created_at")?,
            registered_at: cells.time("registered_at")?,
        })
    })
}

fn put_token(database: &dyn Sql, token: &CtrlToken, revision: i64) -> Result<()> {
    let (standing, use_before) = match token.standing {
        TokenStanding::Current => ("current", None),
        TokenStanding::Next { use_before } => ("next", Some(millis(use_before))),
        TokenStanding::Tombstone => ("tombstone", None),
        TokenStanding::Debug { until } => ("debug", Some(millis(until))),
    };
    database.execute("INSERT INTO ctrl_tokens (digest, proxy_id, standing, use_before, revision) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (digest) DO UPDATE SET proxy_id = excluded.proxy_id, standing = excluded.standing,
                 use_before = excluded.use_before, revision = excluded.revision", &values![
            token.digest.as_bytes().as_slice(),
            token.proxy,
            standing,
            use_before,
            revision
        ])?;
    Ok(())
}

fn drop_token(database: &dyn Sql, digest: &TokenDigest, revision: i64) -> Result<()> {
    database.execute(
        "UPDATE ctrl_tokens SET standing = 'dropped', use_before = NULL, revision = $1 WHERE digest = $2",
        &values![revision, digest.as_bytes().as_slice()],
    )?;
    Ok(())
}

pub(in crate::store) fn tokens(database: &dyn Sql, after: i64) -> Result<Vec<CtrlToken>> {
    let sql = "SELECT digest, proxy_id, standing, use_before FROM ctrl_tokens
               WHERE revision > $1 AND standing <> 'dropped' ORDER BY digest";
    rows(database, "ctrl_tokens", sql, &values![after], |cells| {
        let standing: String = cells.plain("standing")?;
        let standing = match (standing.as_str(), cells.time_if_any("use_before")?) {
            ("current", _) => TokenStanding::Current,
            ("next", Some(use_before)) => TokenStanding::Next { use_before },
            ("tombstone", _) => TokenStanding::Tombstone,
            ("debug", Some(until)) => TokenStanding::Debug { until },
            (other, at) => {
                return Err(cells.unreadable("standing", format!("{other:?} until {at:?} is none")));
            }
        };
        Ok(CtrlToken { digest: digest(cells)?, proxy: cells.parsed("proxy_id")?, standing })
    })
}

/// The ctrl tokens that were forgotten.
pub(in crate::store) fn dropped_tokens(database: &dyn Sql, after: i64) -> Result<Vec<TokenDigest>> {
    let sql = "SELECT digest FROM ctrl_tokens WHERE revision > $1 AND standing = 'dropped' ORDER BY digest";
    rows(database, "ctrl_tokens", sql, &values![after], digest)
}

pub(in crate::store) fn digest(cells: &Cells<'_>) -> Result<TokenDigest> {
    Ok(TokenDigest::from_bytes(cells.plain("digest")?))
}

fn put_join_token(database: &dyn Sql, token: &JoinToken, revision: i64) -> Result<()> {
    database.execute(
        "INSERT INTO join_tokens (id, digest, instance_id, scope_kind, uses, used, created_at, expires_at,
                 revoked_at, revision)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (id) DO UPDATE SET digest = excluded.digest, instance_id = excluded.instance_id,
                 scope_kind = excluded.scope_kind, uses = excluded.uses, used = excluded.used,
                 created_at = excluded.created_at, expires_at = excluded.expires_at,
                 revoked_at = excluded.revoked_at, revision = excluded.revision",
        &values![
            &token.id,
            token.digest.as_bytes().as_slice(),
            token.instance,
            word_of(&token.scope_kind, SCOPE_KINDS),
            token.uses,
            token.used,
            millis(token.created_at),
            millis(token.expires_at),
            token.revoked_at.map(millis),
            revision
        ],
    )?;
    Ok(())
}

pub(in crate::store) fn join_tokens(database: &dyn Sql, after: i64) -> Result<Vec<JoinToken>> {
    let sql = "SELECT id, digest, instance_id, scope_kind, uses, used, created_at, expires_at, revoked_at
               FROM join_tokens WHERE revision > $1 ORDER BY id";
    rows(database, "join_tokens", sql, &values![after], |cells| {
        Ok(JoinToken {
            id: cells.plain("id")?,
            digest: digest(cells)?,
            instance: cells.parsed_if_any("instance_id")?,
            scope_kind: cells.word("scope_kind", SCOPE_KINDS)?,
            uses: cells.plain("uses")?,
            used: cells.plain("used")?,
            created_at: cells.time("created_at")?,
            expires_at: cells.time("expires_at")?,
            revoked_at: cells.time_if_any("revoked_at")?,
        })
    })
}

fn put_join_window(database: &dyn Sql, window: &JoinWindow, revision: i64) -> Result<()> {
    let sources: Vec<String> = window.sources.iter().map(ToString::to_string).collect();
    database.execute(
        "INSERT INTO join_windows (id, opened_at, closes_at, closed_at, sources, revision)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (id) DO UPDATE SET opened_at = excluded.opened_at, closes_at = excluded.closes_at,
                 closed_at = excluded.closed_at, sources = excluded.sources, revision = excluded.revision",
        &values![
            window.id,
            millis(window.opened_at),
            millis(window.closes_at),
            window.closed_at.map(millis),
            sources.join(","),
            revision
        ],
    )?;
    Ok(())
}

pub(in crate::store) fn join_windows(database: &dyn Sql, after: i64) -> Result<Vec<JoinWindow>> {
    let sql = "SELECT id, opened_at, closes_at, closed_at, sources FROM join_windows WHERE revision > $1 ORDER BY id";
    rows(database, "join_windows", sql, &values![after], |cells| {
        let sources: String = cells.plain("sources")?;
        let sources = sources.split(',').filter(|source| !source.is_empty()).map(str::parse);
        Ok(JoinWindow {
            id: cells.parsed("id")?,
            sources: sources
                .collect::<std::result::Result<_, _>>()
                .map_err(|error: crate::network::NetworkError| cells.unreadable("sources", error))?,
            opened_at: cells.time("opened_at")?,
            closes_at: cells.time("closes_at")?,
            closed_at: cells.time_if_any("closed_at")?,
        })
    })
}
