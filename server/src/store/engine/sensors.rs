//! What values were read from, taken out of the dictionary of series.
//!
//! In: the ids in a reading's payload. Out: the sensors, in their order.
//! Always: equal lists of sensors are one list in memory, whichever nodes they are of, as most hosts of a fleet are alike.

use std::collections::HashMap;
use std::sync::Arc;

use pulse_proto::SensorKind;

use super::fault::{Fault, Result};
use super::sql::{Cells, Columns, Sql, Value, rows, values};
use crate::report::Sensor;

/// The lists that were read so far.
#[derive(Default)]
pub(in crate::store) struct SensorLists {
    /// By all that their rows hold.
    lists: HashMap<Vec<u8>, Arc<[Sensor]>>,
}

impl SensorLists {
    /// The sensors of each of these lists of series.
    pub(in crate::store) fn of(
        &mut self,
        database: &dyn Sql,
        lists: &[&[i64]],
    ) -> Result<Vec<Arc<[Sensor]>>> {
        // Reports on one node, which mostly follow each other, have the same.
        let mut asked: Vec<&[i64]> = Vec::new();
        let places: Vec<usize> = lists
            .iter()
            .map(|ids| {
                if asked.last() != Some(ids) {
                    asked.push(ids);
                }
                asked.len() - 1
            })
            .collect();
        let contents = read(database, &asked)?;
        let mut found = Vec::with_capacity(asked.len());
        for (ids, content) in asked.iter().zip(contents) {
            found.push(match self.lists.get(&content) {
                Some(known) => Arc::clone(known),
                None => {
                    let new: Arc<[Sensor]> =
                        ids.iter().map(|id| sensor(database, *id)).collect::<Result<_>>()?;
                    self.lists.insert(content, Arc::clone(&new));
                    new
                }
            });
        }
        Ok(places.into_iter().map(|place| Arc::clone(&found[place])).collect())
    }
}

/// All that the rows of these series hold, for each list: each value with its type and length before it.
fn read(database: &dyn Sql, lists: &[&[i64]]) -> Result<Vec<Vec<u8>>> {
    let mut ranges: Vec<(usize, i64, i64)> = Vec::new();
    for (place, ids) in lists.iter().enumerate() {
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { continue };
        // Series that were reported together were made together: then one look-up finds all of them.
        if ids.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1])) {
            ranges.push((place, *first, *last));
        } else {
            ranges.extend(ids.iter().map(|id| (place, *id, *id)));
        }
    }
    let values: Vec<_> = ranges.iter().map(|(_, first, last)| values![*first, *last].into()).collect();
    // A list of which a row is missing is like none that has as many.
    let mut contents: Vec<Vec<u8>> = lists.iter().map(|ids| ids.len().to_le_bytes().to_vec()).collect();
    database.query_each(
        "SELECT sensor, chip, label, kind, max_milli, critical_milli FROM series WHERE id BETWEEN $1 AND $2 ORDER BY id",
        &values,
        &mut |at, row| append(row, &mut contents[ranges[at].0]),
    )?;
    Ok(contents)
}

fn append(row: &dyn Columns, content: &mut Vec<u8>) -> Result<()> {
    for column in ["sensor", "chip", "label", "kind", "max_milli", "critical_milli"] {
        let value =
            row.value(column).map_err(|error| Cells { row, table: "series" }.unreadable(column, error))?;
        match value {
            Value::Null => content.push(0),
            Value::Integer(number) => {
                content.push(1);
                content.extend_from_slice(&number.to_le_bytes());
            }
            Value::Text(text) => put(content, 2, text.as_bytes()),
            Value::Bytes(bytes) => put(content, 3, &bytes),
        }
    }
    Ok(())
}

fn put(content: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    content.push(kind);
    content.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    content.extend_from_slice(bytes);
}

/// The sensor of one series.
fn sensor(database: &dyn Sql, id: i64) -> Result<Sensor> {
    let sql = "SELECT id, sensor, chip, label, kind, max_milli, critical_milli FROM series WHERE id = $1";
    let celsius = |milli: Option<i32>| milli.map(|milli| f64::from(milli) / 1000.0);
    let mut found = rows(database, "series", sql, &values![id], |cells| {
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
