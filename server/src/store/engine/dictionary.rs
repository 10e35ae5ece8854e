//! The dictionaries of nodes and series: long names once, short ids in every reading; and which reading of a node is its
//! newest.
//!
//! In: a node, or the sensors as they were reported. Out: ids, made if they are new.
//! Always: what is remembered here is in the database, or will be with the transaction under way; after one that failed,
//! nothing is remembered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use pulse_proto::Node;
use pulse_proto::hash::sha256;
use tokio::time::Instant;
use uuid::Uuid;

use super::fault::Result;
use super::sql::{Sql, row, values};
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
pub(in crate::store) struct Newest {
    pub(in crate::store) reading_id: i64,
    pub(in crate::store) proxy: Uuid,
    /// Unix milliseconds.
    pub(in crate::store) collected_at: i64,
    pub(in crate::store) is_readable: bool,
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
pub(in crate::store) struct Dictionary {
    nodes: HashMap<(Uuid, Node), i64>,
    newest: HashMap<i64, Newest>,
    /// By node and proxy.
    series: HashMap<(i64, Uuid), SeriesOf>,
    /// How many series that are.
    series_count: usize,
    /// Those that may be given out.
    reading_ids: Range<i64>,
    generation: i64,
    generation_ends_at: Instant,
}

impl Dictionary {
    /// Begins a new generation. Every start has its own, so nothing depends on the clock; servers that share a database
    /// take the day by its clock, and so are never more than two apart.
    pub(in crate::store) fn open(database: &dyn Sql) -> Result<Dictionary> {
        let mut last = 0;
        for (table, sql) in [
            ("series", "SELECT max(generation) AS generation FROM series"),
            ("readings", "SELECT generation FROM readings ORDER BY id DESC LIMIT 1"),
        ] {
            let found = row(database, table, sql, &[], |cells| cells.plain::<Option<i64>>("generation"))?;
            last = found.flatten().unwrap_or_default().max(last);
        }
        Ok(Dictionary {
            nodes: HashMap::new(),
            newest: HashMap::new(),
            series: HashMap::new(),
            series_count: 0,
            reading_ids: 0..0,
            generation: database.generation(last)?,
            generation_ends_at: Instant::now() + GENERATION,
        })
    }

    /// Turns to the next generation if it is time to, and keeps to the bounds. Not within a transaction.
    pub(in crate::store) fn turn(&mut self) {
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

    /// The id of a new reading.
    pub(in crate::store) fn reading_id(&mut self, database: &dyn Sql) -> Result<i64> {
        loop {
            if let Some(id) = self.reading_ids.next() {
                return Ok(id);
            }
            self.reading_ids = database.reading_ids()?;
        }
    }

    /// The generation of what is written now.
    pub(in crate::store) fn generation(&self) -> i64 {
        self.generation
    }

    /// Forgets all: it will be looked up again.
    pub(in crate::store) fn clear(&mut self) {
        self.nodes.clear();
        self.newest.clear();
        self.clear_series();
    }

    fn clear_series(&mut self) {
        self.series.clear();
        self.series_count = 0;
    }

    /// The id of a node.
    pub(in crate::store) fn node(&mut self, database: &dyn Sql, instance: Uuid, node: &Node) -> Result<i64> {
        let key = (instance, node.clone());
        if let Some(id) = self.nodes.get(&key) {
            return Ok(*id);
        }
        let values = values![instance, node.name(), node.address().to_string()];
        let id = |sql| row(database, "nodes", sql, &values, |cells| cells.plain("id"));
        let found = id("SELECT id FROM nodes WHERE instance_id = $1 AND name = $2 AND address = $3")?;
        // Another server may have made it in this very moment.
        let made = "INSERT INTO nodes (instance_id, name, address) VALUES ($1, $2, $3)
                    ON CONFLICT (instance_id, name, address) DO UPDATE SET name = excluded.name RETURNING id";
        let id = match found {
            Some(id) => id,
            None => id(made)?.expect("what was put there has an id"),
        };
        self.nodes.insert(key, id);
        Ok(id)
    }

    /// Notes a reading as the newest of its node, if it is. [`Dictionary::put_newest`] writes it.
    pub(in crate::store) fn replaces_newest(
        &mut self,
        database: &dyn Sql,
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
                let before = newest_of(database, node)?;
                let is_newer = before.is_none_or(|before| newest.replaces(&before));
                place.insert(before.filter(|_| !is_newer).unwrap_or(newest));
                Ok(is_newer)
            }
        }
    }

    /// Writes the newest readings of these nodes: each once, however often it changed in the transaction.
    pub(in crate::store) fn put_newest(
        &self,
        database: &dyn Sql,
        nodes: impl IntoIterator<Item = i64>,
    ) -> Result<()> {
        // In the order of the table, so that neighbours share a page, and servers do not wait for each other in a circle.
        let mut nodes: Vec<i64> = nodes.into_iter().collect();
        nodes.sort_unstable();
        let known = nodes.iter().filter_map(|node| Some((*node, self.newest.get(node)?)));
        let mut rows = known.map(|(node, newest)| {
            values![
                node,
                newest.reading_id,
                newest.proxy.as_bytes().to_vec(),
                newest.collected_at,
                newest.is_readable
            ]
            .into()
        });
        // Another server may have put a newer one there.
        database.execute_each(
            "INSERT INTO newest (node_id, reading_id, proxy_id, collected_at, is_readable) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (node_id) DO UPDATE SET reading_id = excluded.reading_id, proxy_id = excluded.proxy_id,
                 collected_at = excluded.collected_at, is_readable = excluded.is_readable
             WHERE excluded.collected_at > newest.collected_at
                 AND (excluded.is_readable = 1 OR newest.is_readable = 0 OR excluded.proxy_id = newest.proxy_id)",
            &mut rows,
        )
    }

    /// The ids of the series of a node's sensors, as one proxy reports them, in the order of the sensors.
    pub(in crate::store) fn series(
        &mut self,
        database: &dyn Sql,
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
                _ => series_id(database, node, proxy, sensor, generation),
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
fn newest_of(database: &dyn Sql, node: i64) -> Result<Option<Newest>> {
    let sql =
        "SELECT node_id, reading_id, proxy_id, collected_at, is_readable FROM newest WHERE node_id = $1";
    row(database, "newest", sql, &values![node], |cells| {
        Ok(Newest {
            reading_id: cells.plain("reading_id")?,
            proxy: Uuid::from_bytes(cells.plain("proxy_id")?),
            collected_at: cells.plain("collected_at")?,
            is_readable: cells.plain("is_readable")?,
        })
    })
}

/// The id of one series, made if it is new; in use in this generation.
fn series_id(database: &dyn Sql, node: i64, proxy: Uuid, sensor: &Sensor, generation: i64) -> Result<i64> {
    let sql = "INSERT INTO series (identity, node_id, sensor, chip, label, kind, max_milli, critical_milli,
                   generation)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
               ON CONFLICT (identity) DO UPDATE SET generation =
                   CASE WHEN excluded.generation > series.generation THEN excluded.generation ELSE series.generation END
               RETURNING id";
    let identity = identity(node, proxy, sensor);
    let values = values![
        identity.as_slice(),
        node,
        &sensor.name,
        &sensor.chip,
        &sensor.label,
        sensor.kind.as_str(),
        sensor.max_celsius.and_then(milli),
        sensor.critical_celsius.and_then(milli),
        generation
    ];
    let id = row(database, "series", sql, &values, |cells| cells.plain("id"))?;
    Ok(id.expect("what was put there has an id"))
}

/// Thousandths of a degree, as they are stored; `None` for what is no number, or larger than any temperature.
pub(in crate::store) fn milli(celsius: f64) -> Option<i32> {
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
