//! Instances, with all that belongs to one: nodes, what admins set for them, its source, changes that wait.
//!
//! In: whole instances. Out: the same, at start. Always: of nodes only rows that differ are written.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{Display, Write as _};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use pulse_proto::Node;
use uuid::Uuid;

use super::catalog::node;
use super::fault::Result;
use super::sql::{Cells, Sql, Value, millis, rows, values, word_of};
use crate::inventory::{Facts, Held, Instance, KnownNode, Origin, Source, Use, Wish};

const ORIGINS: &[(Origin, &str)] =
    &[(Origin::Manual, "manual"), (Origin::Import, "import"), (Origin::Cluster, "cluster")];
const USES: &[(Use, &str)] = &[(Use::Active, "active"), (Use::Paused, "paused"), (Use::Excluded, "excluded")];

pub(super) fn put(database: &dyn Sql, instance: &Instance, revision: i64) -> Result<()> {
    let id = instance.id.to_string();
    database.execute(
        "INSERT INTO instances (id, name, created_at, removed_at, revision, standing)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, created_at = excluded.created_at,
                 removed_at = excluded.removed_at, revision = excluded.revision, standing = excluded.standing",
        &values![
            &id,
            &instance.name,
            millis(instance.created_at),
            instance.removed_at.map(millis),
            revision,
            word_of(&instance.standing, USES)
        ],
    )?;
    put_nodes(database, &id, &instance.nodes)?;
    put_source(database, &id, instance.source.as_ref())?;
    put_wishes(database, &id, &instance.wishes)?;
    put_held(database, &id, &instance.held)
}

/// Writes those nodes of an instance that differ from the stored ones: of many mostly one does.
fn put_nodes(database: &dyn Sql, instance: &str, nodes: &[KnownNode]) -> Result<()> {
    let (mut different, mut stored_count, mut has_gap) = (Vec::new(), 0, false);
    let mut address = String::new();
    database.query(
        "SELECT place, name, address, origin, confirmed_at FROM instance_nodes WHERE instance_id = $1 ORDER BY place",
        &values![instance],
        &mut |row| {
            let is = |column, expected: Value<'_>| row.value(column).is_ok_and(|value| value == expected);
            has_gap |= !is("place", Value::Integer(stored_count as i64));
            if let Some(known) = nodes.get(stored_count) {
                address.clear();
                write!(address, "{}", known.node.address()).expect("a string takes all");
                let is_same = is("name", known.node.name().into())
                    && is("address", Value::from(&*address))
                    && is("origin", word_of(&known.origin, ORIGINS).into())
                    && is("confirmed_at", millis(known.confirmed_at).into());
                if !is_same {
                    different.push(stored_count);
                }
            }
            stored_count += 1;
            Ok(())
        },
    )?;
    // Places have no gap, unless somebody else wrote here: then all are written anew.
    if has_gap || stored_count > nodes.len() {
        let keep = if has_gap { 0 } else { nodes.len() };
        database.execute(
            "DELETE FROM instance_nodes WHERE instance_id = $1 AND (place < 0 OR place >= $2)",
            &values![instance, keep as i64],
        )?;
        stored_count = keep;
    }
    if has_gap {
        different.clear();
    }
    let mut rows = different.into_iter().chain(stored_count..nodes.len()).map(|place| {
        let KnownNode { node, origin, confirmed_at } = &nodes[place];
        let (address, origin) = (node.address().to_string(), word_of(origin, ORIGINS));
        values![instance, place as i64, node.name(), address, origin, millis(*confirmed_at)].into()
    });
    database.execute_each(
        "INSERT INTO instance_nodes (instance_id, place, name, address, origin, confirmed_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (instance_id, place) DO UPDATE SET name = excluded.name, address = excluded.address,
             origin = excluded.origin, confirmed_at = excluded.confirmed_at",
        &mut rows,
    )
}

fn put_source(database: &dyn Sql, instance: &str, source: Option<&Source>) -> Result<()> {
    let Some(source) = source else {
        database.execute("DELETE FROM instance_sources WHERE instance_id = $1", &values![instance])?;
        database.execute("DELETE FROM instance_polls WHERE instance_id = $1", &values![instance])?;
        return Ok(());
    };
    let interval = i64::try_from(source.poll_interval.as_millis()).unwrap_or(i64::MAX);
    database.execute(
        "INSERT INTO instance_sources (instance_id, urls, token_id, sealed_secret, fingerprints, poll_interval_ms)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (instance_id) DO UPDATE SET urls = excluded.urls, token_id = excluded.token_id,
                 sealed_secret = excluded.sealed_secret, fingerprints = excluded.fingerprints,
                 poll_interval_ms = excluded.poll_interval_ms",
        &values![
            instance,
            lines(&source.urls),
            &source.token_id,
            &source.sealed_secret[..],
            lines(&source.fingerprints),
            interval
        ],
    )?;
    Ok(())
}

fn put_wishes(database: &dyn Sql, instance: &str, wishes: &BTreeMap<String, Wish>) -> Result<()> {
    database.execute("DELETE FROM node_wishes WHERE instance_id = $1", &values![instance])?;
    let mut rows = wishes.iter().map(|(name, wish)| {
        let address = wish.address.as_deref().map_or(Value::Null, Value::from);
        vec![instance.into(), name.as_str().into(), address, word_of(&wish.standing, USES).into()]
    });
    database.execute_each(
        "INSERT INTO node_wishes (instance_id, name, address, standing) VALUES ($1, $2, $3, $4)",
        &mut rows,
    )
}

fn put_held(database: &dyn Sql, instance: &str, held: &BTreeMap<Origin, Held>) -> Result<()> {
    database.execute("DELETE FROM held_changes WHERE instance_id = $1", &values![instance])?;
    let mut rows = held.iter().map(|(origin, held)| {
        let nodes: Vec<String> = held.nodes.iter().map(Node::line).collect();
        let (origin, nodes, gone) = (word_of(origin, ORIGINS), nodes.join("\n"), held.gone.join("\n"));
        values![instance, origin, nodes, gone, &held.by, millis(held.at), held.is_discarded].into()
    });
    database.execute_each(
        "INSERT INTO held_changes (instance_id, origin, nodes, gone, held_by, held_at, is_discarded)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &mut rows,
    )
}

/// The instances that changed after a revision; [`super::catalog::EVERY`] stands before all of them.
pub(in crate::store) fn after(database: &dyn Sql, after: i64) -> Result<Vec<Instance>> {
    let mut nodes = belonging(
        database,
        "instance_nodes",
        "SELECT n.instance_id, n.name, n.address, n.origin, n.confirmed_at FROM instance_nodes AS n
             JOIN instances AS i ON i.id = n.instance_id AND i.revision > $1 ORDER BY n.instance_id, n.place",
        after,
        |cells| {
            let (origin, confirmed_at) = (cells.word("origin", ORIGINS)?, cells.time("confirmed_at")?);
            Ok(KnownNode { node: node(cells)?, origin, confirmed_at })
        },
    )?;
    let mut sources = belonging(
        database,
        "instance_sources",
        "SELECT s.instance_id, s.urls, s.token_id, s.sealed_secret, s.fingerprints, s.poll_interval_ms
             FROM instance_sources AS s
             JOIN instances AS i ON i.id = s.instance_id AND i.revision > $1 ORDER BY s.instance_id",
        after,
        source,
    )?;
    let mut wishes = belonging(
        database,
        "node_wishes",
        "SELECT w.instance_id, w.name, w.address, w.standing FROM node_wishes AS w
             JOIN instances AS i ON i.id = w.instance_id AND i.revision > $1 ORDER BY w.instance_id, w.name",
        after,
        |cells| {
            let wish = Wish { address: cells.plain("address")?, standing: cells.word("standing", USES)? };
            Ok((cells.plain::<String>("name")?, wish))
        },
    )?;
    let mut held = belonging(
        database,
        "held_changes",
        "SELECT h.instance_id, h.origin, h.nodes, h.gone, h.held_by, h.held_at, h.is_discarded FROM held_changes AS h
             JOIN instances AS i ON i.id = h.instance_id AND i.revision > $1 ORDER BY h.instance_id, h.origin",
        after,
        |cells| Ok((cells.word("origin", ORIGINS)?, self::held(cells)?)),
    )?;
    let sql =
        "SELECT id, name, created_at, removed_at, standing FROM instances WHERE revision > $1 ORDER BY id";
    rows(database, "instances", sql, &values![after], |cells| {
        let id: Uuid = cells.parsed("id")?;
        Ok(Instance::from(Facts {
            id,
            name: cells.plain("name")?,
            nodes: nodes.remove(&id).unwrap_or_default(),
            wishes: wishes.remove(&id).into_iter().flatten().collect(),
            standing: cells.word("standing", USES)?,
            source: sources.remove(&id).and_then(|mut sources| sources.pop()),
            held: held.remove(&id).into_iter().flatten().collect(),
            created_at: cells.time("created_at")?,
            removed_at: cells.time_if_any("removed_at")?,
        }))
    })
}

/// Rows that belong to instances, by instance.
fn belonging<T>(
    database: &dyn Sql,
    table: &'static str,
    sql: &str,
    after: i64,
    read: impl Fn(&Cells<'_>) -> Result<T>,
) -> Result<HashMap<Uuid, Vec<T>>> {
    let mut found: HashMap<Uuid, Vec<T>> = HashMap::new();
    rows(database, table, sql, &values![after], |cells| {
        found.entry(cells.parsed("instance_id")?).or_default().push(read(cells)?);
        Ok(())
    })?;
    Ok(found)
}

fn source(cells: &Cells<'_>) -> Result<Source> {
    let sealed: Vec<u8> = cells.plain("sealed_secret")?;
    let source = Source {
        urls: parsed_lines(cells, "urls")?,
        token_id: cells.plain("token_id")?,
        sealed_secret: Arc::from(sealed),
        fingerprints: parsed_lines(cells, "fingerprints")?,
        poll_interval: Duration::from_millis(cells.number("poll_interval_ms")?),
    };
    if source.urls.is_empty() {
        return Err(cells.unreadable("urls", "there is none"));
    }
    Ok(source)
}

fn held(cells: &Cells<'_>) -> Result<Held> {
    let (nodes, gone): (String, String) = (cells.plain("nodes")?, cells.plain("gone")?);
    let nodes = nodes.lines().map(|line| {
        let (name, address) = line.split_once('|').unwrap_or((line, ""));
        Node::new(name, address).map_err(|error| cells.unreadable("nodes", error))
    });
    Ok(Held {
        nodes: nodes.collect::<Result<_>>()?,
        gone: gone.lines().map(str::to_owned).collect(),
        by: cells.plain("held_by")?,
        at: cells.time("held_at")?,
        is_discarded: cells.plain("is_discarded")?,
    })
}

fn lines<T: ToString>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join("\n")
}

fn parsed_lines<T: FromStr<Err: Display>>(cells: &Cells<'_>, column: &str) -> Result<Vec<T>> {
    let text: String = cells.plain(column)?;
    text.lines().map(|line| line.parse().map_err(|error: T::Err| cells.unreadable(column, error))).collect()
}
