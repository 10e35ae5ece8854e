//! What values were read from, taken out of the dictionary of series.
//!
//! In: the ids in a reading's payload. Out: the sensors, in their order.
//! Always: equal lists of sensors are one list in memory, whichever nodes they are of, as most hosts of a fleet are alike.

use std::collections::HashMap;
use std::sync::Arc;

use pulse_proto::SensorKind;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::cell::rows;
use super::fault::{Fault, Result};
use crate::report::Sensor;

/// The lists that were read so far.
#[derive(Default)]
pub(super) struct SensorLists {
    /// By all that their rows hold.
    lists: HashMap<Vec<u8>, Arc<[Sensor]>>,
    /// The ids that were asked for last, and their list: reports on one node mostly have the same.
    last: (Vec<i64>, Arc<[Sensor]>),
    content: Vec<u8>,
}

impl SensorLists {
    /// The sensors of these series.
    pub(super) fn of(&mut self, connection: &Connection, ids: &[i64]) -> Result<Arc<[Sensor]>> {
        if self.last.0 == ids {
            return Ok(Arc::clone(&self.last.1));
        }
        // Lists of which a row is missing are like none that have as many.
        self.content.clear();
        self.content.extend_from_slice(&ids.len().to_le_bytes());
        read(connection, ids, &mut self.content)?;
        let sensors = match self.lists.get(&self.content) {
            Some(known) => Arc::clone(known),
            None => {
                let new: Arc<[Sensor]> =
                    ids.iter().map(|id| sensor(connection, *id)).collect::<Result<_>>()?;
                self.lists.insert(self.content.clone(), Arc::clone(&new));
                new
            }
        };
        self.last.0.clear();
        self.last.0.extend_from_slice(ids);
        self.last.1 = Arc::clone(&sensors);
        Ok(sensors)
    }
}

/// Appends all that the rows of these series hold, each value with its type and length before it.
fn read(connection: &Connection, ids: &[i64], content: &mut Vec<u8>) -> Result<()> {
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Ok(()) };
    let are_neighbours = ids.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1]));
    // Series that were reported together were made together: then one look-up finds all of them.
    let ranges =
        if are_neighbours { vec![(*first, *last)] } else { ids.iter().map(|id| (*id, *id)).collect() };
    let mut statement = connection.prepare_cached(
        "SELECT sensor, chip, label, kind, max_milli, critical_milli FROM series WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
    )?;
    for range in ranges {
        let mut found = statement.query(range)?;
        while let Some(row) = found.next()? {
            append(row, content)?;
        }
    }
    Ok(())
}

fn append(row: &Row<'_>, content: &mut Vec<u8>) -> Result<()> {
    for column in 0..6 {
        match row.get_ref(column)? {
            ValueRef::Null => content.push(0),
            ValueRef::Integer(number) => {
                content.push(1);
                content.extend_from_slice(&number.to_le_bytes());
            }
            ValueRef::Real(number) => {
                content.push(2);
                content.extend_from_slice(&number.to_le_bytes());
            }
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                content.push(3);
                content.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
                content.extend_from_slice(bytes);
            }
        }
    }
    Ok(())
}

/// The sensor of one series.
fn sensor(connection: &Connection, id: i64) -> Result<Sensor> {
    let sql = "SELECT id, sensor, chip, label, kind, max_milli, critical_milli FROM series WHERE id = ?1";
    let celsius = |milli: Option<i32>| milli.map(|milli| f64::from(milli) / 1000.0);
    let mut found = rows(connection, "series", sql, [id], |cells| {
        Ok(Sensor {
            name: cells.plain("sensor")?,
            chip: cells.plain("chip")?,
            label: cells.plain("label")?,
            kind: cells.word("kind", &SensorKind::ALL.map(|kind| (kind, kind.as_str())))?,
            max_celsius: celsius(cells.plain("max_milli")?),
            critical_celsius: celsius(cells.plain("critical_milli")?),
        })
    })?;
    found
        .pop()
        .ok_or_else(|| Fault::Unreadable(format!("table series has no row {id}, but a reading names it")))
}
