//! The dictionaries of nodes and series: long names once, short ids in every reading; and which reading of a node is its
//! newest.
//!
//! In: a node, or the sensors as they were reported. Out: ids, made if they are new.
//! Always: what is remembered here is in the database, or will be with the transaction under way; after one that failed,
//! nothing is remembered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use pulse_proto::Node;
use pulse_proto::hash::sha256;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use tokio::time::Instant;
use uuid::Uuid;

use super::fault::Result;
use crate::report::Sensor;

/// The most series to remember: 8 bytes each, for 100,000 nodes of 40 sensors.
const MAX_SERIES: usize = 4_000_000;

/// The most nodes to remember: some 150 bytes each.
const MAX_NODES: usize = 200_000;

/// How long a generation lasts: a series in use costs one write in each.
const GENERATION: Duration = Duration::from_hours(24);

/// A hash of all that makes a series, cut to 128 bits: only the proxy and the node that are in it could try
/// to make two alike.
type Identity = [u8; 16];

/// The newest reading of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Newest {
    pub(super) reading_id: i64,
    pub(super) proxy: Uuid,
    /// Unix milliseconds.
    pub(super) collected_at: i64,
    pub(super) is_readable: bool,
}

impl Newest {
    /// As [`NodeReport::replaces`](crate::report::NodeReport::replaces).
    fn replaces(&self, before: &Newest) -> bool {
        self.collected_at > before.collected_at
            && (self.is_readable || !before.is_readable || self.proxy == before.proxy)
    }
}

/// The series of the sensors that one proxy reported of one node last.
struct SeriesOf {
    sensors: Arc<[Sensor]>,
    /// One for each sensor.
    ids: Box<[i64]>,
    /// The generation that was written last.
    generation: i64,
}

/// What was looked up before.
pub(super) struct Dictionary {
    nodes: HashMap<(Uuid, Node), i64>,
    newest: HashMap<i64, Newest>,
    /// By node and proxy.
    series: HashMap<(i64, Uuid), SeriesOf>,
    /// How many series that are.
    series_count: usize,
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
            newest: HashMap::new(),
            series: HashMap::new(),
            series_count: 0,
            generation: last + 1,
            generation_ends_at: Instant::now() + GENERATION,
        })
    }

    /// Turns to the next generation if it is time to, and keeps to the bounds. Not within a transaction.
    pub(super) fn turn(&mut self) {
        if self.nodes.len() > MAX_NODES || self.newest.len() > MAX_NODES {
            self.nodes.clear();
            self.newest.clear();
        }
        if self.series_count > MAX_SERIES {
            self.clear_series();
        }
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
        self.newest.clear();
        self.clear_series();
    }

    fn clear_series(&mut self) {
        self.series.clear();
        self.series_count = 0;
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
        self.nodes.insert(key, id);
        Ok(id)
    }

    /// Notes a reading as the newest of its node, if it is. [`Dictionary::put_newest`] writes it.
    pub(super) fn replaces_newest(
        &mut self,
        transaction: &Transaction<'_>,
        node: i64,
        newest: Newest,
    ) -> Result<bool> {
        match self.newest.entry(node) {
            Entry::Occupied(mut known) => {
                let is_newer = newest.replaces(known.get());
                if is_newer {
                    known.insert(newest);
                }
                Ok(is_newer)
            }
            Entry::Vacant(place) => {
                let before = newest_of(transaction, node)?;
                let is_newer = before.is_none_or(|before| newest.replaces(&before));
                place.insert(before.filter(|_| !is_newer).unwrap_or(newest));
                Ok(is_newer)
            }
        }
    }

    /// Writes the newest readings of these nodes: each once, however often it changed in the transaction.
    pub(super) fn put_newest(
        &self,
        transaction: &Transaction<'_>,
        nodes: impl IntoIterator<Item = i64>,
    ) -> Result<()> {
        let mut put = transaction.prepare_cached(
            "INSERT INTO newest (node_id, reading_id, proxy_id, collected_at, is_readable) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (node_id) DO UPDATE SET reading_id = excluded.reading_id, proxy_id = excluded.proxy_id,
                 collected_at = excluded.collected_at, is_readable = excluded.is_readable",
        )?;
        // In the order of the table, so that neighbours share a page.
        let mut nodes: Vec<i64> = nodes.into_iter().collect();
        nodes.sort_unstable();
        for node in nodes {
            if let Some(newest) = self.newest.get(&node) {
                put.execute(params![
                    node,
                    newest.reading_id,
                    newest.proxy.as_bytes().as_slice(),
                    newest.collected_at,
                    newest.is_readable
                ])?;
            }
        }
        Ok(())
    }

    /// The ids of the series of a node's sensors, as one proxy reports them, in the order of the sensors.
    pub(super) fn series(
        &mut self,
        transaction: &Transaction<'_>,
        node: i64,
        proxy: Uuid,
        sensors: &Arc<[Sensor]>,
    ) -> Result<&[i64]> {
        let (key, generation) = ((node, proxy), self.generation);
        let known = self.series.get(&key).filter(|known| known.generation == generation);
        let is_known =
            known.is_some_and(|known| Arc::ptr_eq(&known.sensors, sensors) || known.sensors == *sensors);
        if !is_known {
            let before: HashMap<&str, (&Sensor, i64)> = known.map_or_else(HashMap::new, |known| {
                let pairs = known.sensors.iter().zip(&known.ids);
                pairs.map(|(sensor, id)| (sensor.name.as_str(), (sensor, *id))).collect()
            });
            let ids = sensors.iter().map(|sensor| match before.get(sensor.name.as_str()) {
                Some((same, id)) if *same == sensor => Ok(*id),
                _ => series_id(transaction, node, proxy, sensor, generation),
            });
            let ids: Box<[i64]> = ids.collect::<Result<_>>()?;
            self.series_count += ids.len();
            let new = SeriesOf { sensors: Arc::clone(sensors), ids, generation };
            if let Some(old) = self.series.insert(key, new) {
                self.series_count -= old.ids.len();
            }
        }
        Ok(self.series.get(&key).map_or(&[], |known| &known.ids))
    }
}

/// The newest reading of a node, as the database has it.
fn newest_of(connection: &Connection, node: i64) -> Result<Option<Newest>> {
    let found = connection
        .prepare_cached(
            "SELECT reading_id, proxy_id, collected_at, is_readable FROM newest WHERE node_id = ?1",
        )?
        .query_row([node], |row| {
            Ok(Newest {
                reading_id: row.get(0)?,
                proxy: Uuid::from_bytes(row.get(1)?),
                collected_at: row.get(2)?,
                is_readable: row.get(3)?,
            })
        })
        .optional()?;
    Ok(found)
}

/// The id of one series, made if it is new; in use in this generation.
fn series_id(
    transaction: &Transaction<'_>,
    node: i64,
    proxy: Uuid,
    sensor: &Sensor,
    generation: i64,
) -> Result<i64> {
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
                identity(node, proxy, sensor).as_slice(),
                node,
                sensor.name,
                sensor.chip,
                sensor.label,
                sensor.kind.as_str(),
                sensor.max_celsius.and_then(milli),
                sensor.critical_celsius.and_then(milli),
                generation
            ],
            |row| row.get(0),
        )?;
    Ok(id)
}

/// Thousandths of a degree, as they are stored; `None` for what is no number, or larger than any temperature.
pub(super) fn milli(celsius: f64) -> Option<i32> {
    let milli = (celsius * 1000.0).round();
    let is_stored = milli >= f64::from(i32::MIN) && milli <= f64::from(i32::MAX);
    is_stored.then_some(milli as i32)
}

fn identity(node_id: i64, proxy: Uuid, sensor: &Sensor) -> Identity {
    let mut bytes = Vec::with_capacity(160);
    bytes.extend_from_slice(&node_id.to_le_bytes());
    bytes.extend_from_slice(proxy.as_bytes());
    for limit in [sensor.max_celsius, sensor.critical_celsius].map(|limit| limit.and_then(milli)) {
        // One bit beyond the 32 tells "none" from every limit.
        bytes.extend_from_slice(&limit.map_or(i64::MIN, i64::from).to_le_bytes());
    }
    for text in [&sensor.name, &sensor.chip, &sensor.label, sensor.kind.as_str()] {
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

    fn sensor() -> Sensor {
        Sensor {
            name: "coretemp-isa-0000/temp1".into(),
            chip: "coretemp".into(),
            label: "Package id 0".into(),
            kind: SensorKind::CpuPackage,
            max_celsius: Some(100.0),
            critical_celsius: None,
        }
    }

    #[test]
    fn whatever_differs_makes_another_series() {
        let proxy = Uuid::from_u128(1);
        let one = identity(1, proxy, &sensor());
        assert_eq!(one, identity(1, proxy, &sensor()));
        assert_ne!(one, identity(2, proxy, &sensor()));
        assert_ne!(one, identity(1, Uuid::from_u128(2), &sensor()));
        for other in [
            Sensor { name: "x".into(), ..sensor() },
            Sensor { chip: "x".into(), ..sensor() },
            Sensor { label: String::new(), ..sensor() },
            Sensor { kind: SensorKind::CpuDie, ..sensor() },
            Sensor { max_celsius: None, ..sensor() },
            Sensor { critical_celsius: Some(100.0), ..sensor() },
            Sensor { max_celsius: None, critical_celsius: Some(100.0), ..sensor() },
            Sensor { chip: "coretempPackage".into(), label: " id 0".into(), ..sensor() },
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
