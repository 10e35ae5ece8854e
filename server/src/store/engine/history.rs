//! Readings: reports in, the newest of each node and the history of one out.
//!
//! Always: a report is stored once; one packed row for each of its nodes; the pointer to a node's newest row
//! moves in the same transaction.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::SystemTime;

use pulse_proto::{Node, Position};
use uuid::Uuid;

use super::catalog::node;
use super::dictionary::{Dictionary, Newest, milli};
use super::fault::Result;
use super::sensors::SensorLists;
use super::sessions::{Key, Place, Progress, Sessions, place};
use super::sql::{Cells, Sql, Value, integer, millis, row, values};
use crate::report::{NodeReport, Readings, Report};

/// How many reports are read before their sensors are looked up, all at once.
const CHUNK: usize = 1_000;

/// What became of the reports of one group.
#[derive(Debug, Default)]
pub(in crate::store) struct Group {
    /// For each report: whether it is stored, and the highest sequence of its session that is.
    pub(in crate::store) places: Vec<(Place, u64)>,
    /// How far the sessions of the group are after it.
    pub(in crate::store) sessions: HashMap<Key, Progress>,
}

/// Stores those reports of a group that are new. The caller commits.
pub(in crate::store) fn record<'a>(
    database: &dyn Sql,
    dictionary: &mut Dictionary,
    sessions: &Sessions,
    reports: impl Iterator<Item = &'a Report>,
    now: i64,
) -> Result<Group> {
    let mut group = Group::default();
    let mut new_newest = HashSet::new();
    let mut new = Vec::new();
    let reports: Vec<&Report> = reports.collect();
    let held = match database.is_shared() {
        true => held(database, &reports, now)?,
        false => HashMap::new(),
    };
    for report in reports {
        let key = (report.proxy, report.session);
        let remembered = || {
            let progress = sessions.of(&key)?;
            // What another server stored counts, and what this one remembers may be out of date.
            Some(held.get(&key).map_or(progress, |durable| progress.with_durable(*durable)))
        };
        let before = group.sessions.get(&key).copied().or_else(remembered);
        let stored = || held.get(&key).copied().map_or_else(|| durable(database, &key), Ok);
        let sequence = integer(report.sequence).unsigned_abs();
        let (place, progress) = place(before, database.is_shared(), sequence, stored)?;
        group.sessions.insert(key, progress);
        group.places.push((place, progress.durable()));
        if place != Place::New {
            continue;
        }
        for report in &report.nodes {
            let id = dictionary.reading_id(database)?;
            let node = dictionary.node(database, report.instance, &report.node)?;
            let payload = payload(dictionary, database, node, report)?;
            let collected_at = millis(report.collected_at);
            new.push(values![
                id,
                node,
                report.proxy.as_bytes().as_slice(),
                collected_at,
                millis(report.received_at),
                integer(report.position.epoch),
                integer(report.position.revision),
                dictionary.generation(),
                &report.unreadable_reason,
                payload
            ]);
            let (proxy, is_readable) = (report.proxy, report.is_readable());
            let newest = Newest { reading_id: id, proxy, collected_at, is_readable };
            if dictionary.replaces_newest(database, node, newest)? {
                new_newest.insert(node);
            }
        }
    }
    database.execute_each(
        "INSERT INTO readings (id, node_id, proxy_id, collected_at, received_at, epoch, revision, generation,
             unreadable_reason, payload)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        &mut new.into_iter().map(Vec::from),
    )?;
    dictionary.put_newest(database, new_newest)?;
    put_sessions(database, &group, now)?;
    Ok(group)
}

/// How far each session of a group is on the disk, when others store reports of it too. Nobody else does until the transaction
/// ends.
fn held(database: &dyn Sql, reports: &[&Report], now: i64) -> Result<HashMap<Key, u64>> {
    // In order, so that servers do not wait for each other in a circle.
    let keys: BTreeSet<Key> = reports.iter().map(|report| (report.proxy, report.session)).collect();
    let keys: Vec<Key> = keys.into_iter().collect();
    let values: Vec<_> = keys.iter().map(|(proxy, session)| values![*proxy, *session, now].into()).collect();
    let mut held = HashMap::new();
    database.query_each(
        "INSERT INTO report_sessions (proxy_id, session, durable_sequence, updated_at) VALUES ($1, $2, 0, $3)
         ON CONFLICT (proxy_id, session) DO UPDATE SET updated_at = excluded.updated_at
         RETURNING durable_sequence",
        &values,
        &mut |at, row| {
            let cells = Cells { row, table: "report_sessions" };
            held.insert(keys[at], cells.number("durable_sequence")?);
            Ok(())
        },
    )?;
    Ok(held)
}

/// Makes the payload of one node's report.
fn payload(
    dictionary: &mut Dictionary,
    database: &dyn Sql,
    node: i64,
    report: &NodeReport,
) -> Result<Vec<u8>> {
    let ids = dictionary.series(database, node, report.proxy, report.readings.sensors())?;
    let mut payload = Vec::with_capacity(ids.len() * 8);
    for (id, celsius) in ids.iter().zip(report.readings.celsius()) {
        if let Some(milli) = milli(*celsius) {
            push_value(&mut payload, id.unsigned_abs(), milli);
        }
    }
    Ok(payload)
}

/// The highest sequence of a session that is stored; 0: none.
fn durable(database: &dyn Sql, (proxy, session): &Key) -> Result<u64> {
    let sql = "SELECT durable_sequence FROM report_sessions WHERE proxy_id = $1 AND session = $2";
    let found = row(database, "report_sessions", sql, &values![*proxy, *session], |cells| {
        cells.number("durable_sequence")
    })?;
    Ok(found.unwrap_or_default())
}

/// Writes how far the sessions are of which a report was stored: each once, however many reports it has in the group.
fn put_sessions(database: &dyn Sql, group: &Group, now: i64) -> Result<()> {
    if group.places.iter().all(|(place, _)| *place != Place::New) {
        return Ok(());
    }
    // In the order of the table, so that neighbours share a page. One that stored nothing is written as it was.
    let mut known: Vec<(&Key, u64)> = group
        .sessions
        .iter()
        .filter(|(_, progress)| matches!(progress, Progress::Known { .. }))
        .map(|(key, progress)| (key, progress.durable()))
        .collect();
    known.sort_unstable();
    let mut rows = known
        .into_iter()
        .map(|((proxy, session), durable)| values![*proxy, *session, integer(durable), now].into());
    database.execute_each(
        "INSERT INTO report_sessions (proxy_id, session, durable_sequence, updated_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (proxy_id, session) DO UPDATE SET durable_sequence = excluded.durable_sequence,
             updated_at = excluded.updated_at
         WHERE excluded.durable_sequence > report_sessions.durable_sequence",
        &mut rows,
    )
}

/// The newest report of each node.
pub(in crate::store) fn newest(database: &dyn Sql) -> Result<Vec<NodeReport>> {
    let sql =
        "SELECT r.id, n.instance_id, n.name, n.address, r.proxy_id, r.collected_at, r.received_at, r.epoch,
                   r.revision, r.unreadable_reason, r.payload
               FROM newest AS w JOIN readings AS r ON r.id = w.reading_id JOIN nodes AS n ON n.id = w.node_id
               ORDER BY w.node_id";
    reports(database, sql, &[])
}

/// The newest reports that became that from one transaction on: on PostgreSQL alone.
pub(in crate::store) fn newest_written(database: &dyn Sql, since: i64) -> Result<Vec<NodeReport>> {
    let sql =
        "SELECT r.id, n.instance_id, n.name, n.address, r.proxy_id, r.collected_at, r.received_at, r.epoch,
                   r.revision, r.unreadable_reason, r.payload
               FROM newest AS w JOIN readings AS r ON r.id = w.reading_id JOIN nodes AS n ON n.id = w.node_id
               WHERE w.written >= $1 ORDER BY w.node_id";
    reports(database, sql, &values![since])
}

/// The reports on one node from `since` on, oldest first.
pub(in crate::store) fn of_node(
    database: &dyn Sql,
    instance: Uuid,
    node: &Node,
    since: SystemTime,
    limit: u32,
) -> Result<Vec<NodeReport>> {
    let sql =
        "SELECT r.id, n.instance_id, n.name, n.address, r.proxy_id, r.collected_at, r.received_at, r.epoch,
                   r.revision, r.unreadable_reason, r.payload
               FROM nodes AS n JOIN readings AS r ON r.node_id = n.id
               WHERE n.instance_id = $1 AND n.name = $2 AND n.address = $3 AND r.collected_at >= $4
               ORDER BY r.collected_at, r.id LIMIT $5";
    let key = values![instance, node.name(), node.address().to_string(), millis(since), limit];
    reports(database, sql, &key)
}

/// The reports that a query finds.
fn reports(database: &dyn Sql, sql: &'static str, values: &[Value<'_>]) -> Result<Vec<NodeReport>> {
    let (mut sensors, mut found, mut chunk) = (SensorLists::default(), Vec::new(), Chunk::default());
    database.query(sql, values, &mut |row| {
        chunk.take(&Cells { row, table: "readings" })?;
        if chunk.reports.len() == CHUNK {
            std::mem::take(&mut chunk).finish(database, &mut sensors, &mut found)?;
        }
        Ok(())
    })?;
    chunk.finish(database, &mut sensors, &mut found)?;
    Ok(found)
}

/// Reports whose sensors are not looked up yet.
#[derive(Default)]
struct Chunk {
    reports: Vec<NodeReport>,
    /// Of each report the series of its values, and the values.
    values: Vec<(Vec<i64>, Vec<f64>)>,
}

impl Chunk {
    fn take(&mut self, cells: &Cells<'_>) -> Result<()> {
        let payload: Vec<u8> = cells.plain("payload")?;
        let values = unpacked(&payload).ok_or_else(|| cells.unreadable("payload", "it ends early"))?;
        self.values.push(values.into_iter().map(|(id, milli)| (id, f64::from(milli) / 1000.0)).unzip());
        self.reports.push(NodeReport {
            proxy: Uuid::from_bytes(cells.plain("proxy_id")?),
            instance: cells.parsed("instance_id")?,
            node: node(cells)?,
            collected_at: cells.time("collected_at")?,
            received_at: cells.time("received_at")?,
            position: Position { epoch: cells.number("epoch")?, revision: cells.number("revision")? },
            readings: Readings::default(),
            unreadable_reason: cells.plain("unreadable_reason")?,
        });
        Ok(())
    }

    /// Looks the sensors up.
    fn finish(
        self,
        database: &dyn Sql,
        sensors: &mut SensorLists,
        found: &mut Vec<NodeReport>,
    ) -> Result<()> {
        let ids: Vec<&[i64]> = self.values.iter().map(|(ids, _)| &ids[..]).collect();
        let lists = sensors.of(database, &ids)?;
        for ((report, list), (_, celsius)) in self.reports.into_iter().zip(lists).zip(self.values) {
            found.push(NodeReport { readings: Readings::of(list, celsius), ..report });
        }
        Ok(())
    }
}

/// Appends one value: the id in LEB128, then 32 bits, little-endian.
fn push_value(payload: &mut Vec<u8>, mut id: u64, milli: i32) {
    while id >= 0x80 {
        payload.push((id & 0x7f) as u8 | 0x80);
        id >>= 7;
    }
    payload.push(id as u8);
    payload.extend_from_slice(&milli.to_le_bytes());
}

/// Takes a payload apart; `None` if it is none.
fn unpacked(mut payload: &[u8]) -> Option<Vec<(i64, i32)>> {
    let mut values = Vec::new();
    while !payload.is_empty() {
        let end = payload.iter().position(|byte| byte & 0x80 == 0)?;
        let (id, rest) = payload.split_at(end + 1);
        // Nine groups of seven bits are the 63 of an id.
        if id.len() > 9 {
            return None;
        }
        let id = id.iter().rev().fold(0, |id, byte| id << 7 | i64::from(byte & 0x7f));
        let (milli, rest) = rest.split_first_chunk()?;
        values.push((id, i32::from_le_bytes(*milli)));
        payload = rest;
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_exactly_these_bytes() {
        let mut payload = Vec::new();
        push_value(&mut payload, 1, 41_000);
        push_value(&mut payload, 300, -500);
        assert_eq!(payload, [0x01, 0x28, 0xa0, 0, 0, 0xac, 0x02, 0x0c, 0xfe, 0xff, 0xff]);
    }

    #[test]
    fn values_survive_the_payload() {
        let kept: Vec<(i64, i32)> = [0, 1, 127, 128, 16_383, 16_384, i64::from(u32::MAX), i64::MAX]
            .iter()
            .map(|id| (*id, -1))
            .collect();
        let mut payload = Vec::new();
        kept.iter().for_each(|(id, milli)| push_value(&mut payload, id.unsigned_abs(), *milli));
        assert_eq!(unpacked(&payload), Some(kept));
        assert_eq!(unpacked(&[]), Some(vec![]));
    }

    #[test]
    fn a_payload_that_is_cut_or_endless_is_none() {
        let mut payload = Vec::new();
        push_value(&mut payload, 300, 5);
        for end in 1..payload.len() {
            assert_eq!(unpacked(&payload[..end]), None, "{end}");
        }
        assert_eq!(unpacked(&[0xff; 64]), None);
        assert_eq!(unpacked(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 0, 0, 0, 0]), None);
    }
}
