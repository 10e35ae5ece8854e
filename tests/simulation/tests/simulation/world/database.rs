//! What the server's database says, read beside the server.

use std::collections::BTreeMap;

use rusqlite::{Connection, OpenFlags};
use uuid::Uuid;

use super::{World, celsius_of, node_of};
use crate::check;
use crate::journal::{Event, List};

impl World {
    pub(super) fn database(&self) -> rusqlite::Result<Connection> {
        let database = Connection::open_with_flags(
            self.server.data_dir.join("pulse.db"),
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        Ok(database)
    }

    fn select<T>(&self, sql: &str, row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
        let rows = self.database().and_then(|database| {
            let mut statement = database.prepare(sql)?;
            statement.query_map([], row)?.collect()
        });
        rows.expect("the database can be read")
    }

    pub(super) fn write_down_lists(&self) {
        let sql = "SELECT scope, epoch, revision, hash FROM allowlists ORDER BY epoch, revision, scope";
        let lists = self.select(sql, |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get(3)?))
        });
        let mut lists: Vec<List> = lists
            .into_iter()
            .map(|(scope, epoch, revision, hash)| List {
                scope: self.journal.scope(&scope),
                epoch: epoch.unsigned_abs(),
                revision: revision.unsigned_abs(),
                hash,
            })
            .collect();
        lists.sort_by(|a, b| (a.epoch, a.revision, &a.scope).cmp(&(b.epoch, b.revision, &b.scope)));
        for list in lists {
            self.journal.note(self.now(), Event::Published(list));
        }
    }

    /// Every reading.
    pub(super) fn rows(&self) -> Vec<check::Row> {
        let sql =
            "SELECT r.proxy_id, n.name, r.collected_at FROM readings AS r JOIN nodes AS n ON n.id = r.node_id
                   ORDER BY r.id";
        let rows = self.select(sql, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let number = |id: [u8; 16]| self.journal.number(&Uuid::from_bytes(id).to_string());
        rows.into_iter().map(|(proxy, node, at)| (number(proxy), node, at)).collect()
    }

    /// The last row of each node.
    pub(super) fn newest_rows(&self) -> BTreeMap<String, i64> {
        let sql =
            "SELECT n.name, max(r.id) FROM readings AS r JOIN nodes AS n ON n.id = r.node_id GROUP BY n.name";
        self.select(sql, |row| Ok((row.get(0)?, row.get(1)?))).into_iter().collect()
    }

    /// Readings that do not stand under the node whose sensors gave them.
    pub(super) fn misplaced(&self) -> Vec<String> {
        let sql = "SELECT n.name, s.sensor, r.payload FROM readings AS r JOIN nodes AS n ON n.id = r.node_id
                   JOIN series AS s ON s.node_id = n.id";
        let rows = self.select(sql, |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(2)?)));
        let wrong = rows.into_iter().filter_map(|(node, payload)| {
            // One value: the number of the series, then thousandths of a degree in the last four bytes.
            let milli = i32::from_le_bytes(*payload.last_chunk()?);
            let is_right = (0..self.proxies.len())
                .any(|at| node == node_of(at) && i64::from(milli) == celsius_of(at) as i64 * 1_000);
            (!is_right).then(|| format!("{milli} thousandths of a degree stand under {node}"))
        });
        wrong.collect()
    }
}
