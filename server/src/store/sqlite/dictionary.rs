//! The dictionaries of nodes and series: long names once, short ids in every reading.
//!
//! In: a node, or a sensor as it was reported. Out: its id, made if it is new.
//! Always: what is remembered here is in the database; after a transaction that failed, nothing is remembered.

use std::collections::HashMap;
use std::time::Duration;

use pulse_proto::Node;
use pulse_proto::hash::sha256;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tokio::time::Instant;
use uuid::Uuid;

use super::fault::Result;
use crate::report::Reading;

/// The most series to remember: some 64 bytes each, 10,000 nodes of 50 sensors.
const MAX_SERIES: usize = 500_000;

/// The most nodes to remember; a list has at most 10,000, and there are several.
const MAX_NODES: usize = 100_000;

/// How long a generation lasts: a series in use costs one write in each.
const GENERATION: Duration = Duration::from_hours(24);

/// A hash of all that makes a series, cut to 128 bits: only the proxy and the node that are in it could try
/// to make two alike.
type Identity = [u8; 16];

/// The ids that were looked up before.
pub(super) struct Dictionary {
    nodes: HashMap<(Uuid, Node), i64>,
    /// Id, and the generation that was written last.
    series: HashMap<Identity, (i64, i64)>,
    generation: i64,
    generation_ends_at: Instant,
}

impl Dictionary {
    /// Begins a new generation. Every start has its own, so nothing depends on the clock.
    pub(super) fn open(connection: &Connection) -> Result<Dictionary> {
        let last: i64 = connection.query_row(
            "SELECT max(coalesce((SELECT max(generation) FROM series), 0),
                        coalesce((SELECT generation FROM readings ORDER BY id DESC LIMIT 1), 0))",
            [],
            |row| row.get(0),
        )?;
        Ok(Dictionary {
            nodes: HashMap::new(),
            series: HashMap::new(),
            generation: last + 1,
            generation_ends_at: Instant::now() + GENERATION,
        })
    }

    /// Turns to the next generation if it is time to. Not within a transaction.
    pub(super) fn turn(&mut self) {
        if Instant::now() >= self.generation_ends_at {
            self.generation += 1;
            self.generation_ends_at = Instant::now() + GENERATION;
        }
    }

    /// The generation of what is written now.
    pub(super) fn generation(&self) -> i64 {
        self.generation
    }

    /// Forgets all: it will be looked up again.
    pub(super) fn clear(&mut self) {
        self.nodes.clear();
        self.series.clear();
    }

    /// The id of a node.
    pub(super) fn node(&mut self, transaction: &Transaction<'_>, instance: Uuid, node: &Node) -> Result<i64> {
        let key = (instance, node.clone());
        if let Some(id) = self.nodes.get(&key) {
            return Ok(*id);
        }
        let columns = (instance.to_string(), node.name(), node.address().to_string());
        let found = transaction
            .prepare_cached("SELECT id FROM nodes WHERE instance_id = ?1 AND name = ?2 AND address = ?3")?
            .query_row((&columns.0, columns.1, &columns.2), |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => transaction
                .prepare_cached(
                    "INSERT INTO nodes (instance_id, name, address) VALUES (?1, ?2, ?3) RETURNING id",
                )?
                .query_row((&columns.0, columns.1, &columns.2), |row| row.get(0))?,
        };
        if self.nodes.len() >= MAX_NODES {
            self.nodes.clear();
        }
        self.nodes.insert(key, id);
        Ok(id)
    }

    /// The id of the series to which a reading belongs.
    pub(super) fn series(
        &mut self,
        transaction: &Transaction<'_>,
        node_id: i64,
        proxy: Uuid,
        reading: &Reading,
    ) -> Result<i64> {
        let identity = identity(node_id, proxy, reading);
        if let Some((id, generation)) = self.series.get(&identity)
            && *generation == self.generation
        {
            return Ok(*id);
        }
        let id = transaction
            .prepare_cached(
                "INSERT INTO series (identity, node_id, sensor, chip, label, kind, max_milli, critical_milli,
                     generation)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (identity) DO UPDATE SET generation = excluded.generation
                 RETURNING id",
            )?
            .query_row(
                params![
                    identity.as_slice(),
                    node_id,
                    reading.sensor,
                    reading.chip,
                    reading.label,
                    reading.kind.as_str(),
                    reading.max_celsius.and_then(milli),
                    reading.critical_celsius.and_then(milli),
                    self.generation
                ],
                |row| row.get(0),
            )?;
        if self.series.len() >= MAX_SERIES {
            self.series.clear();
        }
        self.series.insert(identity, (id, self.generation));
        Ok(id)
    }
}

/// Thousandths of a degree, as they are stored; `None` for what is no number, or larger than any temperature.
pub(super) fn milli(celsius: f64) -> Option<i32> {
    let milli = (celsius * 1000.0).round();
    let is_stored = milli >= f64::from(i32::MIN) && milli <= f64::from(i32::MAX);
    is_stored.then_some(milli as i32)
}

fn identity(node_id: i64, proxy: Uuid, reading: &Reading) -> Identity {
    let mut bytes = Vec::with_capacity(160);
    bytes.extend_from_slice(&node_id.to_le_bytes());
    bytes.extend_from_slice(proxy.as_bytes());
    for limit in [reading.max_celsius, reading.critical_celsius].map(|limit| limit.and_then(milli)) {
        // One bit beyond the 32 tells "none" from every limit.
        bytes.extend_from_slice(&limit.map_or(i64::MIN, i64::from).to_le_bytes());
    }
    for text in [&reading.sensor, &reading.chip, &reading.label, reading.kind.as_str()] {
        // Each with its length before it, so that text cannot move from one field to the next.
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    let hash = sha256(&bytes);
    *hash.first_chunk().expect("32 bytes have 16")
}

#[cfg(test)]
mod tests {
    use pulse_proto::SensorKind;

    use super::*;

    fn reading() -> Reading {
        Reading {
            sensor: "coretemp-isa-0000/temp1".into(),
            chip: "coretemp".into(),
            label: "Package id 0".into(),
            kind: SensorKind::CpuPackage,
            temperature_celsius: 41.0,
            max_celsius: Some(100.0),
            critical_celsius: None,
        }
    }

    #[test]
    fn another_value_is_the_same_series_and_all_else_is_another() {
        let proxy = Uuid::from_u128(1);
        let one = identity(1, proxy, &reading());
        assert_eq!(one, identity(1, proxy, &Reading { temperature_celsius: 90.5, ..reading() }));
        assert_ne!(one, identity(2, proxy, &reading()));
        assert_ne!(one, identity(1, Uuid::from_u128(2), &reading()));
        for other in [
            Reading { sensor: "x".into(), ..reading() },
            Reading { chip: "x".into(), ..reading() },
            Reading { label: String::new(), ..reading() },
            Reading { kind: SensorKind::CpuDie, ..reading() },
            Reading { max_celsius: None, ..reading() },
            Reading { critical_celsius: Some(100.0), ..reading() },
            Reading { max_celsius: None, critical_celsius: Some(100.0), ..reading() },
            Reading { chip: "coretempPackage".into(), label: " id 0".into(), ..reading() },
        ] {
            assert_ne!(one, identity(1, proxy, &other), "{other:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_no_temperature() {
        assert_eq!(milli(41.0005), Some(41_001));
        assert_eq!(milli(-40.0), Some(-40_000));
        for none in [f64::NAN, f64::INFINITY, -1e12] {
            assert_eq!(milli(none), None);
        }
    }
}
