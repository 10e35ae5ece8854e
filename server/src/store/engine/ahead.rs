//! Proxies that hold lists which this database never made.

use pulse_proto::Position;

use super::fault::Result;
use super::sql::{Sql, integer, millis, rows, values};
use crate::store::Ahead;

pub(in crate::store) fn put(database: &dyn Sql, all: &[Ahead]) -> Result<()> {
    let mut all = all.iter().map(|ahead| {
        let Position { epoch, revision } = ahead.position;
        values![
            ahead.proxy,
            integer(epoch),
            integer(revision),
            integer(ahead.noticed_epoch),
            millis(ahead.noticed_at)
        ]
        .into()
    });
    database.execute_each(
        "INSERT INTO proxies_ahead (proxy_id, epoch, revision, noticed_epoch, noticed_at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (proxy_id) DO UPDATE SET epoch = excluded.epoch, revision = excluded.revision,
             noticed_epoch = excluded.noticed_epoch, noticed_at = excluded.noticed_at",
        &mut all,
    )
}

pub(in crate::store) fn all(database: &dyn Sql) -> Result<Vec<Ahead>> {
    let sql =
        "SELECT proxy_id, epoch, revision, noticed_epoch, noticed_at FROM proxies_ahead ORDER BY proxy_id";
    rows(database, "proxies_ahead", sql, &[], |cells| {
        Ok(Ahead {
            proxy: cells.parsed("proxy_id")?,
            position: Position { epoch: cells.number("epoch")?, revision: cells.number("revision")? },
            noticed_epoch: cells.number("noticed_epoch")?,
            noticed_at: cells.time("noticed_at")?,
        })
    })
}
