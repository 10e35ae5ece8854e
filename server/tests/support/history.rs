//! The history of readings as it lies in the database, in the order of arrival. The command line shows the newest reading
//! only.

#![allow(dead_code, reason = "each test file uses its own part")]

use pulse_test_support::{PATIENCE, Server};
use rusqlite::{Connection, OpenFlags};

/// One stored reading of a node's CPU package.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Stored {
    pub(crate) collected_at_ms: i64,
    pub(crate) temperature_milli: i32,
}

/// The readings of a node's CPU package, in the order of arrival.
pub(crate) fn history(server: &Server, node: &str) -> Vec<Stored> {
    let path = server.data_dir().join("pulse.db");
    let database =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the database is there");
    database.busy_timeout(PATIENCE).expect("a time-out can be set");
    let package: i64 = match database.query_row(
        "SELECT series.id FROM series JOIN nodes ON nodes.id = series.node_id \
         WHERE nodes.name = ?1 AND series.kind = 'cpu_package'",
        [node],
        |row| row.get(0),
    ) {
        Ok(id) => id,
        Err(rusqlite::Error::QueryReturnedNoRows) => return Vec::new(),
        Err(error) => panic!("the series of {node}: {error}"),
    };
    let sql = "SELECT readings.collected_at, readings.payload FROM readings JOIN nodes ON nodes.id = readings.node_id \
               WHERE nodes.name = ?1 AND readings.unreadable_reason = '' ORDER BY readings.id";
    let mut statement = database.prepare(sql).expect("the tables are there");
    let rows = statement
        .query_map([node], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)))
        .expect("the tables can be read")
        .map(|row| row.expect("a row can be read"));
    rows.map(|(collected_at_ms, payload)| {
        let mut values = unpack(&payload).into_iter();
        let (_, temperature_milli) =
            values.find(|(series, _)| *series == package).expect("each report has the package");
        Stored { collected_at_ms, temperature_milli }
    })
    .collect()
}

/// A row's values: for each the series (LEB128) and thousandths of a degree (32 bits, little-endian).
fn unpack(payload: &[u8]) -> Vec<(i64, i32)> {
    let mut bytes = payload.iter().copied();
    let mut values = Vec::new();
    while let Some(mut byte) = bytes.next() {
        let (mut series, mut shift) = (0, 0);
        loop {
            series |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            byte = bytes.next().expect("a number ends");
        }
        let value = [(); 4].map(|()| bytes.next().expect("a value has four bytes"));
        values.push((series, i32::from_le_bytes(value)));
    }
    values
}
