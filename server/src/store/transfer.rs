//! A fleet that moves from one database to another: every row as it is, and a proof that both are equal.
//!
//! In: a database on SQLite, with no server on it, and an empty one on PostgreSQL. Out: the same rows there, in one
//! transaction. Always: what was written is read back and compared, table by table, before it is committed; epoch, ids,
//! tokens' digests, lists and the audit chain are bytes that nobody makes anew. Never: changes the first database.

use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use pulse_proto::{Clock, hex};
use tokio::runtime::Handle;

use super::engine::fault::{Fault, Result};
use super::engine::link::Link;
use super::engine::sql::{FromValue, Sql, Value, integer, row, values};
use super::engine::{catalog, sealed};
use super::{StoreError, postgres, sqlite};
use crate::config;
use crate::sealing::SealingKey;

/// Rows that are in memory at once.
const PAGE: usize = 2_000;

/// A table: its name, its columns, those that give its rows an order.
struct Table {
    name: &'static str,
    columns: &'static [&'static str],
    order: &'static str,
}

const fn table(name: &'static str, columns: &'static [&'static str], order: &'static str) -> Table {
    Table { name, columns, order }
}

/// The row that says which fleet it is. Its signing key is sealed otherwise on each side, and compared by itself.
const FLEET: Table = table("fleet", &["id", "server_id", "epoch", "revision", "created_at"], "id");

/// Every other table that both databases have, those first to which others refer.
const TABLES: &[Table] = &[
    table("instances", &["id", "name", "created_at", "removed_at", "revision", "standing"], "id"),
    table(
        "instance_nodes",
        &["instance_id", "place", "name", "address", "origin", "confirmed_at"],
        "instance_id, place",
    ),
    table(
        "instance_sources",
        &["instance_id", "urls", "token_id", "sealed_secret", "fingerprints", "poll_interval_ms"],
        "instance_id",
    ),
    table("node_wishes", &["instance_id", "name", "address", "standing"], "instance_id, name"),
    table(
        "held_changes",
        &["instance_id", "origin", "nodes", "gone", "held_by", "held_at", "is_discarded"],
        "instance_id, origin",
    ),
    table(
        "instance_polls",
        &["instance_id", "asked_at", "heard_at", "url", "version", "cluster", "problem", "problem_since"],
        "instance_id",
    ),
    table(
        "proxies",
        &[
            "id",
            "hostname",
            "machine_id",
            "kind",
            "proxy_url",
            "version",
            "peer",
            "instance_id",
            "scope_kind",
            "standing",
            "standing_at",
            "standing_reason",
            "rotate_requested",
            "created_at",
            "registered_at",
            "revision",
            "is_approved",
        ],
        "id",
    ),
    table("ctrl_tokens", &["digest", "proxy_id", "standing", "use_before", "revision"], "digest"),
    table(
        "join_tokens",
        &[
            "id",
            "digest",
            "instance_id",
            "scope_kind",
            "uses",
            "used",
            "created_at",
            "expires_at",
            "revoked_at",
            "revision",
        ],
        "id",
    ),
    table("join_windows", &["id", "opened_at", "closes_at", "closed_at", "sources", "revision"], "id"),
    table(
        "admins",
        &["name", "password_hash", "created_at", "password_set_at", "removed_at", "revision"],
        "name",
    ),
    table(
        "credentials",
        &[
            "id",
            "digest",
            "kind",
            "admin",
            "name",
            "scopes",
            "created_at",
            "expires_at",
            "ended_at",
            "revision",
        ],
        "id",
    ),
    table("credential_uses", &["credential_id", "used_at", "used_from"], "credential_id"),
    table(
        "allowlists",
        &[
            "scope",
            "epoch",
            "revision",
            "hash",
            "updated_at",
            "refresh_interval_ms",
            "key_id",
            "signature",
            "nodes",
        ],
        "scope, epoch, revision",
    ),
    table(
        "audit",
        &["seq", "at_ms", "actor", "action", "target", "detail", "revision", "previous_hash", "hash"],
        "seq",
    ),
    table(
        "audit_head",
        &["id", "seq", "hash", "base_seq", "base_hash", "base_revision", "base_revision_hash", "seal"],
        "id",
    ),
    table(
        "proxy_status",
        &[
            "proxy_id",
            "last_seen",
            "last_pull",
            "pushed_epoch",
            "pushed_revision",
            "pushed_hash",
            "pushed_at",
            "applied_epoch",
            "applied_revision",
            "applied_hash",
            "applied_at",
            "on_disk",
            "refused_epoch",
            "refused_revision",
            "refused_hash",
            "refused_at",
            "last_error",
            "list_source",
            "version",
            "peer",
            "insecure_skip_verify",
            "kept_list_problem",
            "kept_list_detail",
            "kept_list_at",
        ],
        "proxy_id",
    ),
    table("proxies_ahead", &["proxy_id", "epoch", "revision", "noticed_epoch", "noticed_at"], "proxy_id"),
    table("report_sessions", &["proxy_id", "session", "durable_sequence", "updated_at"], "proxy_id, session"),
    table("nodes", &["id", "instance_id", "name", "address"], "id"),
    table(
        "series",
        &[
            "id",
            "identity",
            "node_id",
            "sensor",
            "chip",
            "label",
            "kind",
            "max_milli",
            "critical_milli",
            "generation",
        ],
        "id",
    ),
    table(
        "readings",
        &[
            "id",
            "node_id",
            "proxy_id",
            "collected_at",
            "received_at",
            "epoch",
            "revision",
            "generation",
            "unreadable_reason",
            "payload",
        ],
        "id",
    ),
    table("newest", &["node_id", "reading_id", "proxy_id", "collected_at", "is_readable"], "node_id"),
];

/// What gives out ids from where the rows end.
const SEQUENCES: &[&str] = &[
    "SELECT setval(pg_get_serial_sequence('nodes', 'id'), coalesce(max(id), 0) + 1, false) AS next FROM nodes",
    "SELECT setval(pg_get_serial_sequence('series', 'id'), coalesce(max(id), 0) + 1, false) AS next FROM series",
    "SELECT setval('reading_ids', (coalesce(max(id), 0) / 4096 + 2) * 4096, false) AS next FROM readings",
];

/// A table that is on both sides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transferred {
    /// Its name.
    pub table: &'static str,
    /// How many rows it has.
    pub rows: u64,
    /// The SHA-256 of all of them, in order, as 64 hex digits: the same on both sides.
    pub sha256: String,
}

/// What a database is sealed under on each side: the files of both keys.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    /// That of the file. Read, unless nothing is sealed there yet.
    pub from: PathBuf,
    /// That of PostgreSQL; made if it is not there.
    pub to: PathBuf,
}

/// Copies the database in a data folder to an empty one on PostgreSQL, and compares both. `authority` is the authority's key, in
/// PEM, if the fleet has one: the servers on the other database shall have it too. Blocks for as long as that takes.
///
/// # Errors
/// [`StoreError::InUse`] if a server has the folder; [`StoreError::Unreadable`] if the other database is not empty, or both
/// are not equal afterwards: then nothing is there.
pub fn transfer(
    data_dir: &Path,
    to: &config::Database,
    keys: &KeyFiles,
    authority: Option<&str>,
    runtime: &Handle,
    clock: &Clock,
) -> std::result::Result<Vec<Transferred>, StoreError> {
    let _lock = sqlite::schema::lock(data_dir)?;
    let path = data_dir.join("pulse.db");
    if !path.is_file() {
        return Err(StoreError::Database {
            doing: format!("open the database ({})", path.display()),
            source: "there is none".into(),
        });
    }
    // Brought up to date first, as both sides have the newest tables.
    let (from, opening) = sqlite::schema::open_writer(&path, &keys.from, clock)?;
    let mut from = Link::Sqlite(from);
    let address = postgres::Address::of(to)?;
    let name = address.name.clone();
    let (to, sealing) = postgres::schema::open_writer(address, runtime.clone(), &keys.to, clock)?;
    let mut to = Link::Postgres(Box::new(to));
    let transferred = from.view(|from| {
        to.transact(|to| {
            let transferred = copy(from, to, &opening, &sealing)?;
            if let Some(authority) = authority {
                postgres::keys::share(to, &sealing, authority)?;
            }
            Ok(transferred)
        })
    });
    let closed = from.close();
    let (transferred, _) = transferred.map_err(|fault| fault.while_doing("copy the database", &name))?;
    closed.map_err(|fault| fault.while_doing("close the database", &path.display().to_string()))?;
    Ok(transferred)
}

/// `opening` is the key of the one side, `sealing` that of the other.
fn copy(
    from: &dyn Sql,
    to: &dyn Sql,
    opening: &SealingKey,
    sealing: &SealingKey,
) -> Result<Vec<Transferred>> {
    let used = "SELECT CASE WHEN EXISTS (SELECT 1 FROM audit) OR EXISTS (SELECT 1 FROM instances) THEN 1 ELSE 0 END AS used";
    if row(to, "audit", used, &[], |cells| cells.plain::<i64>("used"))? != Some(0) {
        return Err(Fault::Unreadable(
            "it is not empty: make a new one for the fleet to move into".to_owned(),
        ));
    }
    to.execute("DELETE FROM audit_head", &[])?;
    let mut transferred = vec![copy_fleet(from, to, opening, sealing)?];
    for table in TABLES {
        transferred.push(table.copy(from, to)?);
    }
    // Compared as they were, and sealed as they shall be.
    sealed::reseal_rows(to, catalog::fleet(to)?.server_id, opening, sealing)?;
    for sequence in SEQUENCES {
        to.query(sequence, &[], &mut |_| Ok(()))?;
    }
    Ok(transferred)
}

/// The new database's own identity gives way to the fleet's.
fn copy_fleet(
    from: &dyn Sql,
    to: &dyn Sql,
    opening: &SealingKey,
    sealing: &SealingKey,
) -> Result<Transferred> {
    let fleet = catalog::fleet(from)?;
    let created_at =
        row(from, "fleet", "SELECT created_at FROM fleet", &[], |cells| cells.plain::<i64>("created_at"))?;
    let signing_key = sealed::open_signing(opening, fleet.server_id, &fleet.signing_key)?;
    let sealed = sealed::seal_signing(sealing, fleet.server_id, &signing_key)?;
    to.execute(
        "UPDATE fleet SET server_id = $1, epoch = $2, revision = $3, created_at = $4, signing_key = $5,
             authority_key = NULL",
        &values![fleet.server_id, integer(fleet.epoch), integer(fleet.revision), created_at, sealed],
    )?;
    let there = catalog::fleet(to)?;
    let key = sealed::open_signing(sealing, there.server_id, &there.signing_key)?;
    if key != signing_key {
        return Err(Fault::Unreadable("the signing key is not the same there".to_owned()));
    }
    FLEET.compare(from, to)
}

impl Table {
    /// Copies it, and reads back each page at once: neither side waits long for the other, and no table is in memory as a whole.
    fn copy(&self, from: &dyn Sql, to: &dyn Sql) -> Result<Transferred> {
        let places: Vec<String> = (1..=self.columns.len()).map(|place| format!("${place}")).collect();
        let insert =
            format!("INSERT INTO {} ({}) VALUES ({})", self.name, self.columns.join(", "), places.join(", "));
        let (mut here, mut there) = (Sum::new(), Sum::new());
        let mut last = None;
        loop {
            let page = self.page(from, last.as_deref())?;
            to.execute_each(&insert, &mut page.iter().cloned())?;
            here.add(&page);
            there.add(&self.page(to, last.as_deref())?);
            match page.last() {
                Some(end) => last = Some(self.keys().map(|key| end[key].clone()).collect::<Vec<_>>()),
                None => break,
            }
        }
        let count = format!("SELECT CAST(count(*) AS BIGINT) AS rows FROM {}", self.name);
        let mut all = None;
        to.query(&count, &[], &mut |row| {
            all = FromValue::from_value(self.value(row.value("rows"))?);
            Ok(())
        })?;
        if all != Some(integer(here.rows)) {
            return Err(self.differs(&format!("{} rows here, {all:?} there", here.rows)));
        }
        self.same(here, there)
    }

    fn compare(&self, from: &dyn Sql, to: &dyn Sql) -> Result<Transferred> {
        let (mut here, mut there) = (Sum::new(), Sum::new());
        here.add(&self.page(from, None)?);
        there.add(&self.page(to, None)?);
        self.same(here, there)
    }

    fn same(&self, here: Sum, there: Sum) -> Result<Transferred> {
        let (rows, sum, other) = (here.rows, here.hex(), there.hex());
        if sum == other {
            Ok(Transferred { table: self.name, rows, sha256: sum })
        } else {
            Err(self.differs(&format!("its rows hash to {sum} here, and to {other} there")))
        }
    }

    fn differs(&self, how: &str) -> Fault {
        Fault::Unreadable(format!("table {} is not the same there: {how}", self.name))
    }

    /// Where the columns are that give the rows their order.
    fn keys(&self) -> impl Iterator<Item = usize> {
        let place =
            |key: &str| self.columns.iter().position(|column| *column == key).expect("a key is a column");
        self.order.split(", ").map(place)
    }

    /// The next rows in order; `after`: those whose keys come after these.
    fn page(&self, database: &dyn Sql, after: Option<&[Value<'static>]>) -> Result<Vec<Vec<Value<'static>>>> {
        let (columns, name, order) = (self.columns.join(", "), self.name, self.order);
        let places: Vec<String> = (1..=self.keys().count()).map(|place| format!("${place}")).collect();
        let range = match after {
            Some(_) => format!("WHERE ({order}) > ({})", places.join(", ")),
            None => String::new(),
        };
        let sql = format!("SELECT {columns} FROM {name} {range} ORDER BY {order} LIMIT {PAGE}");
        let mut page = Vec::new();
        database.query(&sql, after.unwrap_or_default(), &mut |row| {
            let values = self.columns.iter().map(|column| self.value(row.value(column)).map(into_owned));
            page.push(values.collect::<Result<_>>()?);
            Ok(())
        })?;
        Ok(page)
    }

    fn value<'a>(
        &self,
        value: std::result::Result<Value<'a>, Box<dyn std::error::Error + Send + Sync>>,
    ) -> Result<Value<'a>> {
        value.map_err(|error| Fault::Unreadable(format!("table {}: {error}", self.name)))
    }
}

/// How many rows there were, and the hash of all, each value with its type and length before it.
struct Sum {
    rows: u64,
    context: Context,
}

impl Sum {
    fn new() -> Sum {
        Sum { rows: 0, context: Context::new(&SHA256) }
    }

    fn add(&mut self, page: &[Vec<Value<'static>>]) {
        self.rows += page.len() as u64;
        for value in page.iter().flatten() {
            let number;
            let (kind, bytes) = match value {
                Value::Null => (0, &[][..]),
                Value::Integer(integer) => {
                    number = integer.to_le_bytes();
                    (1, &number[..])
                }
                Value::Text(text) => (2, text.as_bytes()),
                Value::Bytes(bytes) => (3, &bytes[..]),
            };
            self.context.update(&[kind]);
            self.context.update(&(bytes.len() as u64).to_le_bytes());
            self.context.update(bytes);
        }
    }

    fn hex(self) -> String {
        hex::encode(self.context.finish().as_ref())
    }
}

fn into_owned(value: Value<'_>) -> Value<'static> {
    match value {
        Value::Null => Value::Null,
        Value::Integer(number) => Value::Integer(number),
        Value::Text(text) => Value::Text(text.into_owned().into()),
        Value::Bytes(bytes) => Value::Bytes(bytes.into_owned().into()),
    }
}
