//! Leases: work that one server at a time does, each with a number that only rises.
//!
//! In: who asks, and for what. Out: the number under which it may work. Always: time is the database's, so that no server's
//! clock counts; work under a lease looks at it in its own transaction and holds the row until that ends, so that a
//! server which was paused writes nothing under a lease that another one has by now.

use std::time::Duration;

use uuid::Uuid;

use crate::store::engine::fault::{Fault, Result};
use crate::store::engine::sql::{Sql, row, values};

/// How long one lasts. Its work is begun anew more often than that, and renews it.
const LIFE: Duration = Duration::from_secs(180);

/// Takes a lease that is free, or renews one that is held. Out: its number; `None`: another server has it.
pub(in crate::store) fn take(database: &dyn Sql, name: &'static str, holder: Uuid) -> Result<Option<i64>> {
    let sql = "INSERT INTO leases (name, holder, fence, ends_at)
               VALUES ($1, $2, 1, unix_ms() + $3)
               ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, ends_at = excluded.ends_at,
                   fence = CASE WHEN leases.holder = excluded.holder THEN leases.fence ELSE leases.fence + 1 END
               WHERE leases.holder = excluded.holder OR leases.ends_at <= unix_ms()
               RETURNING fence";
    let life = i64::try_from(LIFE.as_millis()).unwrap_or(i64::MAX);
    row(database, "leases", sql, &values![name, holder, life], |cells| cells.plain("fence"))
}

/// Looks whether a lease is still held under this number, and keeps it from others until the transaction ends.
pub(in crate::store) fn hold(database: &dyn Sql, name: &'static str, holder: Uuid, fence: i64) -> Result<()> {
    let sql = "SELECT fence FROM leases WHERE name = $1 AND holder = $2 AND fence = $3 FOR UPDATE";
    match row(database, "leases", sql, &values![name, holder, fence], |cells| cells.plain::<i64>("fence"))? {
        Some(_) => Ok(()),
        None => Err(Fault::LeaseLost),
    }
}

#[cfg(test)]
mod tests {
    use pulse_proto::Clock;
    use pulse_test_support::postgres::Postgres;
    use tokio::runtime::Handle;

    use super::*;
    use crate::config::{Database, DatabaseUrl};
    use crate::store::postgres::{Address, Connection, schema};

    fn connections(postgres: &Postgres) -> (Connection, Connection) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let url = DatabaseUrl::parse(&postgres.database()).expect("it is a URL");
        let database = Database { url, password_file: None, password: None, ca_file: None };
        let open = || {
            let address = Address::of(&database).expect("it has no files");
            let secret_key = folder.path().join("secret.key");
            schema::open_writer(address, Handle::current(), &secret_key, &Clock::system())
                .expect("it opens")
                .0
        };
        (open(), open())
    }

    /// Connections belong to threads of their own.
    async fn on_a_thread(work: impl FnOnce(Connection, Connection) + Send + 'static) {
        let worked = tokio::task::spawn_blocking(|| {
            let postgres = Postgres::start();
            let (one, other) = connections(&postgres);
            work(one, other);
        });
        worked.await.expect("it holds");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_paused_leaseholder_that_wakes_writes_nothing_under_its_old_lease() {
        on_a_thread(|mut paused, mut other| {
            let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
            let take = |connection: &mut Connection, holder| {
                connection.transact(|sql| take(sql, "work", holder)).expect("the database answers").0
            };
            assert_eq!(take(&mut paused, first), Some(1));
            assert_eq!(take(&mut paused, first), Some(1), "it renews its own");
            assert_eq!(take(&mut other, second), None, "it is held");
            // The time goes by, and another one takes it.
            other
                .transact(|sql| sql.execute("UPDATE leases SET ends_at = 0", &[]))
                .expect("the database answers");
            assert_eq!(take(&mut other, second), Some(2));
            let late = paused.transact(|sql| {
                hold(sql, "work", first, 1)?;
                sql.execute("UPDATE fleet SET epoch = 7", &[])
            });
            assert!(matches!(late, Err(Fault::LeaseLost)), "{late:?}");
            let epoch = other.view(|sql| crate::store::engine::catalog::fleet(sql)).expect("it reads").epoch;
            assert_ne!(epoch, 7);
            let held = other.transact(|sql| hold(sql, "work", second, 2));
            assert!(held.is_ok());
        })
        .await;
    }
}
