//! Readings: reports in, the newest of each node and the history of one out.
//!
//! Always: a report is stored once; one packed row for each of its nodes; the pointer to a node's newest row
//! moves in the same transaction.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use pulse_proto::{Node, Position};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::catalog::node;
use super::cell::{Cells, integer, millis, rows};
use super::dictionary::{Dictionary, Newest, milli};
use super::fault::Result;
use super::sensors::SensorLists;
use super::sessions::{Key, Place, Progress, Sessions, place};
use crate::report::{NodeReport, Readings, Report};

/// What became of the reports of one group.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// For each report: whether it is stored, and the highest sequence of its session that is.
    pub(super) places: Vec<(Place, u64)>,
    /// How far the sessions of the group are after it.
    pub(super) sessions: HashMap<Key, Progress>,
}

/// Stores those reports of a group that are new. The caller commits.
pub(super) fn record<'a>(
    transaction: &Transaction<'_>,
    dictionary: &mut Dictionary,
    sessions: &Sessions,
    reports: impl Iterator<Item = &'a Report>,
    now: i64,
) -> Result<Group> {
    let mut group = Group::default();
    let mut new_newest = HashSet::new();
    {
        let mut insert = transaction.prepare_cached(
            "INSERT INTO readings (node_id, proxy_id, collected_at, received_at, epoch, revision, generation,
                 unreadable_reason, payload)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?;
        let mut payload = Vec::new();
        for report in reports {
            let key = (report.proxy, report.session);
            let before = group.sessions.get(&key).copied().or_else(|| sessions.of(&key));
            let sequence = integer(report.sequence).unsigned_abs();
            let (place, progress) = place(before, sequence, || durable(transaction, &key))?;
            group.sessions.insert(key, progress);
            group.places.push((place, progress.durable()));
            if place != Place::New {
                continue;
            }
            for report in &report.nodes {
                let node = dictionary.node(transaction, report.instance, &report.node)?;
                fill(&mut payload, dictionary, transaction, node, report)?;
                let collected_at = millis(report.collected_at);
                insert.execute(params![
                    node,
                    report.proxy.as_bytes().as_slice(),
                    collected_at,
                    millis(report.received_at),
                    integer(report.position.epoch),
                    integer(report.position.revision),
                    dictionary.generation(),
                    report.unreadable_reason,
                    payload
                ])?;
                let newest = Newest {
                    reading_id: transaction.last_insert_rowid(),
                    proxy: report.proxy,
                    collected_at,
                    is_readable: report.is_readable(),
                };
                if dictionary.replaces_newest(transaction, node, newest)? {
                    new_newest.insert(node);
                }
            }
        }
    }
    dictionary.put_newest(transaction, new_newest)?;
    put_sessions(transaction, &group, now)?;
    Ok(group)
}

/// Makes the payload of one node's report.
fn fill(
    payload: &mut Vec<u8>,
    dictionary: &mut Dictionary,
    transaction: &Transaction<'_>,
    node: i64,
    report: &NodeReport,
) -> Result<()> {
    payload.clear();
    let ids = dictionary.series(transaction, node, report.proxy, report.readings.sensors())?;
    for (id, celsius) in ids.iter().zip(report.readings.celsius()) {
        if let Some(milli) = milli(*celsius) {
            push_value(payload, id.unsigned_abs(), milli);
        }
    }
    Ok(())
}

/// The highest sequence of a session that is stored; 0: none.
fn durable(connection: &Connection, (proxy, session): &Key) -> Result<u64> {
    let found: Option<i64> = connection
        .prepare_cached("SELECT durable_sequence FROM report_sessions WHERE proxy_id = ?1 AND session = ?2")?
        .query_row((Hyphenated::of(*proxy).text(), Hyphenated::of(*session).text()), |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or_default().unsigned_abs())
}

/// Writes how far the sessions are of which a report was stored: each once, however many reports it has in the group.
fn put_sessions(transaction: &Transaction<'_>, group: &Group, now: i64) -> Result<()> {
    if group.places.iter().all(|(place, _)| *place != Place::New) {
        return Ok(());
    }
    let mut put = transaction.prepare_cached(
        "INSERT INTO report_sessions (proxy_id, session, durable_sequence, updated_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (proxy_id, session) DO UPDATE SET durable_sequence = excluded.durable_sequence,
             updated_at = excluded.updated_at
         WHERE excluded.durable_sequence > report_sessions.durable_sequence",
    )?;
    // In the order of the table, so that neighbours share a page. One that stored nothing is written as it was.
    let mut known: Vec<(&Key, u64)> = group
        .sessions
        .iter()
        .filter(|(_, progress)| matches!(progress, Progress::Known { .. }))
        .map(|(key, progress)| (key, progress.durable()))
        .collect();
    known.sort_unstable();
    for ((proxy, session), durable) in known {
        put.execute(params![
            Hyphenated::of(*proxy).text(),
            Hyphenated::of(*session).text(),
            integer(durable),
            now
        ])?;
    }
    Ok(())
}

/// A UUID as it is stored in text, without an allocation.
struct Hyphenated([u8; uuid::fmt::Hyphenated::LENGTH]);

impl Hyphenated {
    fn of(id: Uuid) -> Hyphenated {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        id.hyphenated().encode_lower(&mut text);
        Hyphenated(text)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits and hyphens are ASCII")
    }
}

/// The newest report of each node.
pub(super) fn newest(connection: &Connection) -> Result<Vec<NodeReport>> {
    let sql =
        "SELECT r.id, n.instance_id, n.name, n.address, r.proxy_id, r.collected_at, r.received_at, r.epoch,
                   r.revision, r.unreadable_reason, r.payload
               FROM newest AS w JOIN readings AS r ON r.id = w.reading_id JOIN nodes AS n ON n.id = w.node_id
               ORDER BY w.node_id";
    let mut sensors = SensorLists::default();
    rows(connection, "readings", sql, [], |cells| report(connection, &mut sensors, cells))
}

/// The reports on one node from `since` on, oldest first.
pub(super) fn of_node(
    connection: &Connection,
    instance: Uuid,
    node: &Node,
    since: SystemTime,
    limit: u32,
) -> Result<Vec<NodeReport>> {
    let sql =
        "SELECT r.id, n.instance_id, n.name, n.address, r.proxy_id, r.collected_at, r.received_at, r.epoch,
                   r.revision, r.unreadable_reason, r.payload
               FROM nodes AS n JOIN readings AS r ON r.node_id = n.id
               WHERE n.instance_id = ?1 AND n.name = ?2 AND n.address = ?3 AND r.collected_at >= ?4
               ORDER BY r.collected_at, r.id LIMIT ?5";
    let key = params![instance.to_string(), node.name(), node.address().to_string(), millis(since), limit];
    let mut sensors = SensorLists::default();
    rows(connection, "readings", sql, key, |cells| report(connection, &mut sensors, cells))
}

fn report(connection: &Connection, sensors: &mut SensorLists, cells: &Cells<'_>) -> Result<NodeReport> {
    let payload: Vec<u8> = cells.plain("payload")?;
    let values = values(&payload).ok_or_else(|| cells.unreadable("payload", "it ends early"))?;
    let (ids, milli): (Vec<i64>, Vec<i32>) = values.into_iter().unzip();
    let sensors = sensors.of(connection, &ids)?;
    let celsius = milli.into_iter().map(|milli| f64::from(milli) / 1000.0).collect();
    Ok(NodeReport {
        proxy: Uuid::from_bytes(cells.plain("proxy_id")?),
        instance: cells.parsed("instance_id")?,
        node: node(cells)?,
        collected_at: cells.time("collected_at")?,
        received_at: cells.time("received_at")?,
        position: Position { epoch: cells.number("epoch")?, revision: cells.number("revision")? },
        readings: Readings::of(sensors, celsius),
        unreadable_reason: cells.plain("unreadable_reason")?,
    })
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
fn values(mut payload: &[u8]) -> Option<Vec<(i64, i32)>> {
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
        assert_eq!(values(&payload), Some(kept));
        assert_eq!(values(&[]), Some(vec![]));
    }

    #[test]
    fn a_payload_that_is_cut_or_endless_is_none() {
        let mut payload = Vec::new();
        push_value(&mut payload, 300, 5);
        for end in 1..payload.len() {
            assert_eq!(values(&payload[..end]), None, "{end}");
        }
        assert_eq!(values(&[0xff; 64]), None);
        assert_eq!(values(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 0, 0, 0, 0]), None);
    }
}
