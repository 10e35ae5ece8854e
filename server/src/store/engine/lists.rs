//! Signed lists: every one that was compiled, by scope, epoch and revision.
//!
//! Always: a list that is read back has the hash that it was stored with.

use pulse_proto::{Allowlist, ListHash, Node, Position, Scope, SignedAllowlist};
use std::collections::BTreeSet;
use std::time::Duration;

use super::fault::Result;
use super::sql::{Cells, Sql, integer, millis, row, rows, values};
use crate::store::{ListChange, ListFound};

pub(in crate::store) fn insert(database: &dyn Sql, list: &SignedAllowlist) -> Result<()> {
    let lines: Vec<String> = list.allowlist.nodes().iter().map(Node::line).collect();
    let interval =
        list.refresh_interval.map(|interval| i64::try_from(interval.as_millis()).unwrap_or(i64::MAX));
    database.execute(
        "INSERT INTO allowlists (scope, epoch, revision, hash, updated_at, refresh_interval_ms, key_id,
                 signature, nodes)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        &values![
            list.scope.to_string(),
            integer(list.position.epoch),
            integer(list.position.revision),
            list.allowlist.hash().to_string(),
            millis(list.updated_at),
            interval,
            &list.key_id,
            &list.signature,
            lines.join("\n")
        ],
    )?;
    Ok(())
}

/// The newest list of each scope.
pub(in crate::store) fn newest(database: &dyn Sql) -> Result<Vec<SignedAllowlist>> {
    // From scope to scope along the primary key, and in each to its end: lists of before, of which there may be many, are
    // not looked at.
    let sql = "WITH RECURSIVE scopes (scope) AS (
                   SELECT min(scope) FROM allowlists
                   UNION ALL
                   SELECT (SELECT min(a.scope) FROM allowlists AS a WHERE a.scope > scopes.scope) FROM scopes
                       WHERE scopes.scope IS NOT NULL)
               SELECT l.scope, l.epoch, l.revision, l.hash, l.updated_at, l.refresh_interval_ms, l.key_id, l.signature,
                   l.nodes
               FROM scopes JOIN allowlists AS l ON l.scope = scopes.scope AND (l.epoch, l.revision) = (
                   SELECT n.epoch, n.revision FROM allowlists AS n WHERE n.scope = scopes.scope
                       ORDER BY n.epoch DESC, n.revision DESC LIMIT 1)
               ORDER BY l.scope";
    rows(database, "allowlists", sql, &[], list)
}

/// The lists that were made after a revision, in order.
pub(in crate::store) fn newer(database: &dyn Sql, after: i64) -> Result<Vec<SignedAllowlist>> {
    let sql = "SELECT scope, epoch, revision, hash, updated_at, refresh_interval_ms, key_id, signature, nodes
               FROM allowlists WHERE revision > $1 ORDER BY revision, scope";
    rows(database, "allowlists", sql, &values![after], list)
}

/// The newest list of a scope that is not newer than a revision.
pub(in crate::store) fn at(
    database: &dyn Sql,
    scope: Scope,
    revision: u64,
) -> Result<Option<SignedAllowlist>> {
    let sql = "SELECT scope, epoch, revision, hash, updated_at, refresh_interval_ms, key_id, signature, nodes
               FROM allowlists WHERE scope = $1 AND revision <= $2 ORDER BY epoch DESC, revision DESC LIMIT 1";
    let found = rows(database, "allowlists", sql, &values![scope.to_string(), integer(revision)], list)?;
    Ok(found.into_iter().next())
}

/// The list of a scope that was made at this revision, or those around it.
pub(in crate::store) fn of(database: &dyn Sql, scope: Scope, revision: u64) -> Result<ListFound> {
    let sql = "SELECT scope, epoch, revision, hash, updated_at, refresh_interval_ms, key_id, signature, nodes
               FROM allowlists WHERE scope = $1 AND revision = $2 ORDER BY epoch DESC LIMIT 1";
    let scope = scope.to_string();
    let found = rows(database, "allowlists", sql, &values![&scope, integer(revision)], list)?;
    if let Some(list) = found.into_iter().next() {
        return Ok(ListFound::List(Box::new(list)));
    }
    let revision = integer(revision);
    let nearest = |sql: &'static str| -> Result<Option<u64>> {
        let found = row(database, "allowlists", sql, &values![&scope, revision], |cells| {
            cells.plain::<Option<i64>>("revision")
        })?;
        Ok(found.flatten().map(i64::unsigned_abs))
    };
    Ok(ListFound::Between {
        before: nearest(
            "SELECT max(revision) AS revision FROM allowlists WHERE scope = $1 AND revision < $2",
        )?,
        after: nearest(
            "SELECT min(revision) AS revision FROM allowlists WHERE scope = $1 AND revision > $2",
        )?,
    })
}

/// How lists came about, the newest first.
pub(in crate::store) fn history(
    database: &dyn Sql,
    scope: Option<Scope>,
    limit: u32,
) -> Result<Vec<ListChange>> {
    let sql = "SELECT scope, epoch, revision, hash, updated_at, nodes,
                   (SELECT actor FROM audit WHERE revision = a.revision
                       AND revision > (SELECT base_revision FROM audit_head) ORDER BY seq LIMIT 1) AS actor,
                   (SELECT action FROM audit WHERE revision = a.revision
                       AND revision > (SELECT base_revision FROM audit_head) ORDER BY seq LIMIT 1) AS action,
                   (SELECT nodes FROM allowlists AS b
                       WHERE b.scope = a.scope AND (b.epoch, b.revision) < (a.epoch, a.revision)
                       ORDER BY b.epoch DESC, b.revision DESC LIMIT 1) AS nodes_before
               FROM allowlists AS a WHERE CAST($1 AS TEXT) IS NULL OR scope = $1
               ORDER BY epoch DESC, revision DESC, scope LIMIT $2";
    rows(database, "allowlists", sql, &values![scope.map(|scope| scope.to_string()), limit], |cells| {
        let nodes: String = cells.plain("nodes")?;
        let before: Option<String> = cells.plain("nodes_before")?;
        let now: BTreeSet<&str> = nodes.lines().collect();
        let before: BTreeSet<&str> = before.iter().flat_map(|nodes| nodes.lines()).collect();
        Ok(ListChange {
            scope: cells.parsed("scope")?,
            position: Position { epoch: cells.number("epoch")?, revision: cells.number("revision")? },
            hash: cells.parsed("hash")?,
            at: cells.time("updated_at")?,
            actor: cells.plain("actor")?,
            action: cells.plain("action")?,
            nodes: now.len(),
            added: now.difference(&before).count(),
            removed: before.difference(&now).count(),
        })
    })
}

pub(in crate::store) fn list(cells: &Cells<'_>) -> Result<SignedAllowlist> {
    let text: String = cells.plain("nodes")?;
    let mut nodes = Vec::new();
    for line in text.lines() {
        let (name, address) =
            line.split_once('|').ok_or_else(|| cells.unreadable("nodes", "a line without |"))?;
        nodes.push(Node::new(name, address).map_err(|error| cells.unreadable("nodes", error))?);
    }
    let allowlist = Allowlist::new(nodes);
    let hash: ListHash = cells.parsed("hash")?;
    if allowlist.hash() != hash {
        let why = format!("it is {hash}, but the nodes have {}", allowlist.hash());
        return Err(cells.unreadable("hash", why));
    }
    let interval = cells.plain::<Option<i64>>("refresh_interval_ms")?;
    Ok(SignedAllowlist {
        position: Position { epoch: cells.number("epoch")?, revision: cells.number("revision")? },
        scope: cells.parsed("scope")?,
        allowlist,
        updated_at: cells.time("updated_at")?,
        refresh_interval: interval.map(|millis| Duration::from_millis(millis.unsigned_abs())),
        key_id: cells.plain("key_id")?,
        signature: cells.plain("signature")?,
    })
}
