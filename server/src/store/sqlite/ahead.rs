//! Proxies that hold lists which this database never made.

use pulse_proto::Position;
use rusqlite::{Connection, Transaction, params};

use super::cell::{integer, millis, rows};
use super::fault::Result;
use crate::store::Ahead;

pub(super) fn put(transaction: &Transaction<'_>, all: &[Ahead]) -> Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO proxies_ahead (proxy_id, epoch, revision, noticed_epoch, noticed_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (proxy_id) DO UPDATE SET epoch = excluded.epoch, revision = excluded.revision,
             noticed_epoch = excluded.noticed_epoch, noticed_at = excluded.noticed_at",
    )?;
    for ahead in all {
        let Position { epoch, revision } = ahead.position;
        insert.execute(params![
            ahead.proxy.to_string(),
            integer(epoch),
            integer(revision),
            integer(ahead.noticed_epoch),
            millis(ahead.noticed_at)
        ])?;
    }
    Ok(())
}

pub(super) fn all(connection: &Connection) -> Result<Vec<Ahead>> {
    let sql =
        "SELECT proxy_id, epoch, revision, noticed_epoch, noticed_at FROM proxies_ahead ORDER BY proxy_id";
    rows(connection, "proxies_ahead", sql, [], |cells| {
        Ok(Ahead {
            proxy: cells.parsed("proxy_id")?,
            position: Position { epoch: cells.number("epoch")?, revision: cells.number("revision")? },
            noticed_epoch: cells.number("noticed_epoch")?,
            noticed_at: cells.time("noticed_at")?,
        })
    })
}
