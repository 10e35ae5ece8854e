//! The catalog: the fleet's row, instances, proxies, tokens.
//!
//! In: the changes of a commit. Out: all rows, at start.
//! Always: every row carries the revision at which it last changed, and no row is ever taken out.

use std::fmt::Write as _;

use pulse_proto::{Node, TokenDigest};
use rusqlite::{Connection, Transaction, params};
use uuid::Uuid;

use super::cell::{Cells, integer, millis, rows, word_of};
use super::fault::{Fault, Result};
use super::{audit, lists};
use crate::inventory::Instance;
use crate::registry::{
    CtrlToken, JoinToken, JoinWindow, Proxy, ProxyKind, ScopeKind, Standing, TokenStanding,
};
use crate::store::{Change, Commit};

const PROXY_KINDS: &[(ProxyKind, &str)] = &[(ProxyKind::Socket, "socket"), (ProxyKind::Http, "http")];
const SCOPE_KINDS: &[(ScopeKind, &str)] = &[(ScopeKind::Instance, "instance"), (ScopeKind::All, "all")];

/// The one row that says which fleet this is.
pub(super) struct Fleet {
    pub(super) server_id: Uuid,
    pub(super) epoch: u64,
    pub(super) revision: u64,
    pub(super) signing_key: Vec<u8>,
}

pub(super) fn fleet(connection: &Connection) -> Result<Fleet> {
    let sql = "SELECT id, server_id, epoch, revision, signing_key FROM fleet";
    let mut found = rows(connection, "fleet", sql, [], |cells| {
        Ok(Fleet {
            server_id: cells.parsed("server_id")?,
            epoch: cells.number("epoch")?,
            revision: cells.number("revision")?,
            signing_key: cells.plain("signing_key")?,
        })
    })?;
    found.pop().ok_or_else(|| Fault::Unreadable(String::from("table fleet has no row: restore a backup")))
}

pub(super) fn revision(connection: &Connection) -> Result<u64> {
    let sql = "SELECT id, revision FROM fleet";
    let found = rows(connection, "fleet", sql, [], |cells| cells.number("revision"))?;
    found.first().copied().ok_or_else(|| Fault::Unreadable(String::from("table fleet has no row")))
}

/// Writes one change of the fleet. The caller commits.
pub(super) fn commit(transaction: &Transaction<'_>, commit: &Commit) -> Result<()> {
    let actual = revision(transaction)?;
    if actual != commit.expected {
        return Err(Fault::Conflict(actual));
    }
    let revision = integer(commit.revision);
    for change in &commit.changes {
        match change {
            Change::Instance(instance) => put_instance(transaction, instance, revision)?,
            Change::Proxy(proxy) => put_proxy(transaction, proxy, revision)?,
            Change::Token(token) => put_token(transaction, token, revision)?,
            Change::DropToken(digest) => drop_token(transaction, digest, revision)?,
            Change::JoinToken(token) => put_join_token(transaction, token, revision)?,
            Change::Epoch(epoch) => {
                transaction.execute("UPDATE fleet SET epoch = ?1", [integer(*epoch)])?;
            }
            Change::JoinWindow(window) => put_join_window(transaction, window, revision)?,
        }
    }
    for list in &commit.lists {
        lists::insert(transaction, list)?;
    }
    transaction.prepare_cached("UPDATE fleet SET revision = ?1")?.execute([revision])?;
    audit::append(transaction, std::slice::from_ref(&commit.audit), commit.revision)
}

fn put_instance(transaction: &Transaction<'_>, instance: &Instance, revision: i64) -> Result<()> {
    let id = instance.id.to_string();
    transaction
        .prepare_cached(
            "INSERT INTO instances (id, name, created_at, removed_at, revision) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, created_at = excluded.created_at,
                 removed_at = excluded.removed_at, revision = excluded.revision",
        )?
        .execute(params![
            id,
            instance.name,
            millis(instance.created_at),
            instance.removed_at.map(millis),
            revision
        ])?;
    put_nodes(transaction, &id, &instance.endpoints)
}

/// Writes those nodes of an instance that differ from the stored ones: of many mostly one does.
fn put_nodes(transaction: &Transaction<'_>, instance: &str, nodes: &[Node]) -> Result<()> {
    let (mut different, mut stored_count, mut has_gap) = (Vec::new(), 0, false);
    {
        let mut select = transaction.prepare_cached(
            "SELECT place, name, address FROM instance_nodes WHERE instance_id = ?1 ORDER BY place",
        )?;
        let mut stored = select.query([instance])?;
        let mut address = String::new();
        while let Some(row) = stored.next()? {
            has_gap |= row.get::<_, i64>(0)? != stored_count as i64;
            if let Some(node) = nodes.get(stored_count) {
                address.clear();
                write!(address, "{}", node.address()).expect("a string takes all");
                let is = |column, text: &str| Ok::<_, Fault>(row.get_ref(column)?.as_str() == Ok(text));
                if !is(1, node.name())? || !is(2, &address)? {
                    different.push(stored_count);
                }
            }
            stored_count += 1;
        }
    }
    // Places have no gap, unless somebody else wrote here: then all are written anew.
    if has_gap || stored_count > nodes.len() {
        let keep = if has_gap { 0 } else { nodes.len() };
        transaction
            .prepare_cached(
                "DELETE FROM instance_nodes WHERE instance_id = ?1 AND (place < 0 OR place >= ?2)",
            )?
            .execute(params![instance, keep as i64])?;
        stored_count = keep;
    }
    if has_gap {
        different.clear();
    }
    let mut put = transaction.prepare_cached(
        "INSERT INTO instance_nodes (instance_id, place, name, address) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (instance_id, place) DO UPDATE SET name = excluded.name, address = excluded.address",
    )?;
    for place in different.into_iter().chain(stored_count..nodes.len()) {
        let node = &nodes[place];
        put.execute(params![instance, place as i64, node.name(), node.address().to_string()])?;
    }
    Ok(())
}

pub(super) fn instances(connection: &Connection) -> Result<Vec<Instance>> {
    let sql = "SELECT id, name, created_at, removed_at FROM instances ORDER BY id";
    let nodes = "SELECT instance_id, name, address FROM instance_nodes WHERE instance_id = ?1 ORDER BY place";
    rows(connection, "instances", sql, [], |cells| {
        let id: Uuid = cells.parsed("id")?;
        Ok(Instance {
            id,
            name: cells.plain("name")?,
            endpoints: rows(connection, "instance_nodes", nodes, [id.to_string()], node)?,
            created_at: cells.time("created_at")?,
            removed_at: cells.time_if_any("removed_at")?,
        })
    })
}

/// The node in the columns `name` and `address`.
pub(super) fn node(cells: &Cells<'_>) -> Result<Node> {
    let (name, address): (String, String) = (cells.plain("name")?, cells.plain("address")?);
    Node::new(&name, &address).map_err(|error| cells.unreadable("name", error))
}

fn put_proxy(transaction: &Transaction<'_>, proxy: &Proxy, revision: i64) -> Result<()> {
    let (standing, standing_at, standing_reason) = match &proxy.standing {
        Standing::Active => ("active", None, ""),
        Standing::Revoked { at, reason } => ("revoked", Some(millis(*at)), reason.as_str()),
        Standing::Removed { at, reason } => ("removed", Some(millis(*at)), reason.as_str()),
    };
    transaction
        .prepare_cached(
            "INSERT INTO proxies (id, hostname, machine_id, kind, proxy_url, version, peer, instance_id, scope_kind,
                 standing, standing_at, standing_reason, rotate_requested, created_at, registered_at, revision,
                 is_approved)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
             ON CONFLICT (id) DO UPDATE SET hostname = excluded.hostname, machine_id = excluded.machine_id,
                 kind = excluded.kind, proxy_url = excluded.proxy_url, version = excluded.version,
                 peer = excluded.peer, instance_id = excluded.instance_id, scope_kind = excluded.scope_kind,
                 standing = excluded.standing, standing_at = excluded.standing_at,
                 standing_reason = excluded.standing_reason, rotate_requested = excluded.rotate_requested,
                 created_at = excluded.created_at, registered_at = excluded.registered_at,
                 revision = excluded.revision, is_approved = excluded.is_approved",
        )?
        .execute(params![
            proxy.id.to_string(),
            proxy.hostname,
            proxy.machine_id,
            word_of(&proxy.kind, PROXY_KINDS),
            proxy.proxy_url,
            proxy.version,
            proxy.peer.map(|peer| peer.to_string()),
            proxy.instance.map(|id| id.to_string()),
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

pub(super) fn proxies(connection: &Connection) -> Result<Vec<Proxy>> {
    let sql =
        "SELECT id, hostname, machine_id, kind, proxy_url, version, peer, instance_id, scope_kind, standing,
                   standing_at, standing_reason, rotate_requested, created_at, registered_at, is_approved
               FROM proxies ORDER BY id";
    rows(connection, "proxies", sql, [], |cells| {
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

fn put_token(transaction: &Transaction<'_>, token: &CtrlToken, revision: i64) -> Result<()> {
    let (standing, use_before) = match token.standing {
        TokenStanding::Current => ("current", None),
        TokenStanding::Next { use_before } => ("next", Some(millis(use_before))),
        TokenStanding::Tombstone => ("tombstone", None),
        TokenStanding::Debug { until } => ("debug", Some(millis(until))),
    };
    transaction
        .prepare_cached(
            "INSERT INTO ctrl_tokens (digest, proxy_id, standing, use_before, revision) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (digest) DO UPDATE SET proxy_id = excluded.proxy_id, standing = excluded.standing,
                 use_before = excluded.use_before, revision = excluded.revision",
        )?
        .execute(params![
            token.digest.as_bytes().as_slice(),
            token.proxy.to_string(),
            standing,
            use_before,
            revision
        ])?;
    Ok(())
}

fn drop_token(transaction: &Transaction<'_>, digest: &TokenDigest, revision: i64) -> Result<()> {
    transaction
        .prepare_cached(
            "UPDATE ctrl_tokens SET standing = 'dropped', use_before = NULL, revision = ?2 WHERE digest = ?1",
        )?
        .execute(params![digest.as_bytes().as_slice(), revision])?;
    Ok(())
}

pub(super) fn tokens(connection: &Connection) -> Result<Vec<CtrlToken>> {
    let sql = "SELECT digest, proxy_id, standing, use_before FROM ctrl_tokens WHERE standing <> 'dropped'
               ORDER BY digest";
    rows(connection, "ctrl_tokens", sql, [], |cells| {
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

fn digest(cells: &Cells<'_>) -> Result<TokenDigest> {
    Ok(TokenDigest::from_bytes(cells.plain("digest")?))
}

fn put_join_token(transaction: &Transaction<'_>, token: &JoinToken, revision: i64) -> Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO join_tokens (id, digest, instance_id, scope_kind, uses, used, created_at, expires_at,
                 revoked_at, revision)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (id) DO UPDATE SET digest = excluded.digest, instance_id = excluded.instance_id,
                 scope_kind = excluded.scope_kind, uses = excluded.uses, used = excluded.used,
                 created_at = excluded.created_at, expires_at = excluded.expires_at,
                 revoked_at = excluded.revoked_at, revision = excluded.revision",
        )?
        .execute(params![
            token.id,
            token.digest.as_bytes().as_slice(),
            token.instance.map(|id| id.to_string()),
            word_of(&token.scope_kind, SCOPE_KINDS),
            token.uses,
            token.used,
            millis(token.created_at),
            millis(token.expires_at),
            token.revoked_at.map(millis),
            revision
        ])?;
    Ok(())
}

pub(super) fn join_tokens(connection: &Connection) -> Result<Vec<JoinToken>> {
    let sql = "SELECT id, digest, instance_id, scope_kind, uses, used, created_at, expires_at, revoked_at
               FROM join_tokens ORDER BY id";
    rows(connection, "join_tokens", sql, [], |cells| {
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

fn put_join_window(transaction: &Transaction<'_>, window: &JoinWindow, revision: i64) -> Result<()> {
    let sources: Vec<String> = window.sources.iter().map(ToString::to_string).collect();
    transaction
        .prepare_cached(
            "INSERT INTO join_windows (id, opened_at, closes_at, closed_at, sources, revision)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (id) DO UPDATE SET opened_at = excluded.opened_at, closes_at = excluded.closes_at,
                 closed_at = excluded.closed_at, sources = excluded.sources, revision = excluded.revision",
        )?
        .execute(params![
            window.id.to_string(),
            millis(window.opened_at),
            millis(window.closes_at),
            window.closed_at.map(millis),
            sources.join(","),
            revision
        ])?;
    Ok(())
}

pub(super) fn join_windows(connection: &Connection) -> Result<Vec<JoinWindow>> {
    let sql = "SELECT id, opened_at, closes_at, closed_at, sources FROM join_windows ORDER BY id";
    rows(connection, "join_windows", sql, [], |cells| {
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
