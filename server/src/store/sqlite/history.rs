//! Readings: reports in, the newest of each node and the history of one out.
//!
//! Always: a report is stored once; one packed row for each of its nodes; the pointer to a node's newest row
//! moves in the same transaction.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::SystemTime;

use pulse_proto::{Node, Position, SensorKind};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use uuid::Uuid;

use super::catalog::node;
use super::cell::{Cells, integer, millis, rows};
use super::dictionary::{Dictionary, milli};
use super::fault::{Fault, Result};
use crate::report::Reading;
use crate::report::{NodeReport, Report};
use crate::store::Recorded;

/// Stores a report unless it is a double. The caller commits.
pub(super) fn record(
    transaction: &Transaction<'_>,
    dictionary: &mut Dictionary,
    report: &Report,
    now: i64,
) -> Result<Recorded> {
    let (proxy, session) = (report.proxy.to_string(), report.session.to_string());
    let durable: Option<i64> = transaction
        .prepare_cached("SELECT durable_sequence FROM report_sessions WHERE proxy_id = ?1 AND session = ?2")?
        .query_row((&proxy, &session), |row| row.get(0))
        .optional()?;
    let sequence = integer(report.sequence);
    if let Some(durable) = durable.filter(|durable| sequence <= *durable) {
        return Ok(Recorded { durable_sequence: durable.unsigned_abs(), is_double: true });
    }
    for report in &report.nodes {
        insert(transaction, dictionary, report)?;
    }
    transaction
        .prepare_cached(
            "INSERT INTO report_sessions (proxy_id, session, durable_sequence, updated_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (proxy_id, session) DO UPDATE SET durable_sequence = excluded.durable_sequence,
                 updated_at = excluded.updated_at",
        )?
        .execute(params![proxy, session, sequence, now])?;
    Ok(Recorded { durable_sequence: sequence.unsigned_abs(), is_double: false })
}

fn insert(transaction: &Transaction<'_>, dictionary: &mut Dictionary, report: &NodeReport) -> Result<()> {
    let node_id = dictionary.node(transaction, report.instance, &report.node)?;
    // An id has mostly 2 or 3 bytes.
    let mut payload = Vec::with_capacity(report.readings.len() * 7);
    for reading in &report.readings {
        if let Some(milli) = milli(reading.temperature_celsius) {
            let series = dictionary.series(transaction, node_id, report.proxy, reading)?;
            push_value(&mut payload, series.unsigned_abs(), milli);
        }
    }
    let collected_at = millis(report.collected_at);
    let reading_id: i64 = transaction
        .prepare_cached(
            "INSERT INTO readings (node_id, proxy_id, collected_at, received_at, epoch, revision, generation,
                 unreadable_reason, payload)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) RETURNING id",
        )?
        .query_row(
            params![
                node_id,
                report.proxy.as_bytes().as_slice(),
                collected_at,
                millis(report.received_at),
                integer(report.position.epoch),
                integer(report.position.revision),
                dictionary.generation(),
                report.unreadable_reason,
                payload
            ],
            |row| row.get(0),
        )?;
    transaction
        .prepare_cached(
            "INSERT INTO newest (node_id, reading_id, proxy_id, collected_at, is_readable) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (node_id) DO UPDATE SET reading_id = excluded.reading_id, proxy_id = excluded.proxy_id,
                 collected_at = excluded.collected_at, is_readable = excluded.is_readable
             WHERE excluded.collected_at > newest.collected_at
               AND (excluded.is_readable >= newest.is_readable OR excluded.proxy_id = newest.proxy_id)",
        )?
        .execute(params![
            node_id,
            reading_id,
            report.proxy.as_bytes().as_slice(),
            collected_at,
            i64::from(report.is_readable())
        ])?;
    Ok(())
}

/// The newest report of each node.
pub(super) fn newest(connection: &Connection) -> Result<Vec<NodeReport>> {
    let sql =
        "SELECT r.id, n.instance_id, n.name, n.address, r.proxy_id, r.collected_at, r.received_at, r.epoch,
                   r.revision, r.unreadable_reason, r.payload
               FROM newest AS w JOIN readings AS r ON r.id = w.reading_id JOIN nodes AS n ON n.id = w.node_id
               ORDER BY w.node_id";
    let mut series = HashMap::new();
    rows(connection, "readings", sql, [], |cells| {
        // A series belongs to one node: what was looked up for the last one is of no use any more.
        series.clear();
        report(connection, &mut series, cells)
    })
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
    let mut series = HashMap::new();
    rows(connection, "readings", sql, key, |cells| report(connection, &mut series, cells))
}

fn report(
    connection: &Connection,
    series: &mut HashMap<i64, Reading>,
    cells: &Cells<'_>,
) -> Result<NodeReport> {
    let payload: Vec<u8> = cells.plain("payload")?;
    let mut readings = Vec::new();
    for (id, milli) in values(&payload).ok_or_else(|| cells.unreadable("payload", "it ends early"))? {
        let known = match series.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(series_of(connection, id)?),
        };
        readings.push(Reading { temperature_celsius: f64::from(milli) / 1000.0, ..known.clone() });
    }
    Ok(NodeReport {
        proxy: Uuid::from_bytes(cells.plain("proxy_id")?),
        instance: cells.parsed("instance_id")?,
        node: node(cells)?,
        collected_at: cells.time("collected_at")?,
        received_at: cells.time("received_at")?,
        position: Position { epoch: cells.number("epoch")?, revision: cells.number("revision")? },
        readings,
        unreadable_reason: cells.plain("unreadable_reason")?,
    })
}

/// A series, as a reading without its value.
fn series_of(connection: &Connection, id: i64) -> Result<Reading> {
    let sql = "SELECT id, sensor, chip, label, kind, max_milli, critical_milli FROM series WHERE id = ?1";
    let celsius = |milli: Option<i32>| milli.map(|milli| f64::from(milli) / 1000.0);
    let mut found = rows(connection, "series", sql, [id], |cells| {
        Ok(Reading {
            sensor: cells.plain("sensor")?,
            chip: cells.plain("chip")?,
            label: cells.plain("label")?,
            kind: cells.word("kind", &SensorKind::ALL.map(|kind| (kind, kind.as_str())))?,
            temperature_celsius: 0.0,
            max_celsius: celsius(cells.plain("max_milli")?),
            critical_celsius: celsius(cells.plain("critical_milli")?),
        })
    })?;
    found
        .pop()
        .ok_or_else(|| Fault::Unreadable(format!("table series has no row {id}, but a reading names it")))
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
