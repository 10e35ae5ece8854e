//! Admins and credentials, which are of the catalog; and when API tokens were used last, which is not.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::catalog::digest;
use super::fault::Result;
use super::sql::{Cells, Sql, Value, integer, millis, rows, values};
use crate::accounts::{Admin, ApiScope, Credential, CredentialKind, NoSuchScope};
use crate::store::CredentialUse;

/// How long a credential is kept after its end; the audit log has its name for longer.
const KEPT_AFTER_END_MS: i64 = 30 * 24 * 3600 * 1000;

pub(super) fn put_admin(database: &dyn Sql, admin: &Admin, revision: i64) -> Result<()> {
    database.execute(
        "INSERT INTO admins (name, password_hash, created_at, password_set_at, removed_at, revision)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (name) DO UPDATE SET password_hash = excluded.password_hash,
                 created_at = excluded.created_at, password_set_at = excluded.password_set_at,
                 removed_at = excluded.removed_at, revision = excluded.revision",
        &values![
            &admin.name,
            admin.password_hash.as_deref(),
            millis(admin.created_at),
            admin.password_set_at.map(millis),
            admin.removed_at.map(millis),
            revision
        ],
    )?;
    Ok(())
}

pub(in crate::store) fn admins(database: &dyn Sql, after: i64) -> Result<Vec<Admin>> {
    let sql = "SELECT name, password_hash, created_at, password_set_at, removed_at FROM admins
               WHERE revision > $1 ORDER BY name";
    rows(database, "admins", sql, &values![after], |cells| {
        Ok(Admin {
            name: cells.plain("name")?,
            password_hash: cells.plain("password_hash")?,
            created_at: cells.time("created_at")?,
            password_set_at: cells.time_if_any("password_set_at")?,
            removed_at: cells.time_if_any("removed_at")?,
        })
    })
}

pub(super) fn put_credential(database: &dyn Sql, credential: &Credential, revision: i64) -> Result<()> {
    let (kind, admin, name, scopes) = match &credential.kind {
        CredentialKind::SetUp { admin } => ("set_up", Some(admin), None, String::new()),
        CredentialKind::Session { admin } => ("session", Some(admin), None, String::new()),
        CredentialKind::Api { name, scopes } => {
            let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
            ("api", None, Some(name), scopes.join(","))
        }
    };
    database.execute(
        "INSERT INTO credentials (id, digest, kind, admin, name, scopes, created_at, expires_at, ended_at, revision)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (id) DO UPDATE SET digest = excluded.digest, kind = excluded.kind, admin = excluded.admin,
                 name = excluded.name, scopes = excluded.scopes, created_at = excluded.created_at,
                 expires_at = excluded.expires_at, ended_at = excluded.ended_at, revision = excluded.revision",
        &values![
            &credential.id,
            credential.digest.as_bytes().as_slice(),
            kind,
            admin.map(String::as_str),
            name.map(String::as_str),
            scopes,
            millis(credential.created_at),
            millis(credential.expires_at),
            credential.ended_at.map(millis),
            revision
        ],
    )?;
    // They are many. Other servers forget them by their time, so nobody misses these rows.
    let gone = database.execute(
        "DELETE FROM credentials WHERE COALESCE(ended_at, expires_at) < $1",
        &values![millis(credential.created_at) - KEPT_AFTER_END_MS],
    )?;
    if gone > 0 {
        database.execute(
            "DELETE FROM credential_uses WHERE credential_id NOT IN (SELECT id FROM credentials)",
            &[],
        )?;
    }
    Ok(())
}

pub(in crate::store) fn credentials(database: &dyn Sql, after: i64) -> Result<Vec<Credential>> {
    let sql =
        "SELECT id, digest, kind, admin, name, scopes, created_at, expires_at, ended_at FROM credentials
               WHERE revision > $1 ORDER BY id";
    rows(database, "credentials", sql, &values![after], |cells| {
        Ok(Credential {
            id: cells.plain("id")?,
            digest: digest(cells)?,
            kind: kind(cells)?,
            created_at: cells.time("created_at")?,
            expires_at: cells.time("expires_at")?,
            ended_at: cells.time_if_any("ended_at")?,
        })
    })
}

fn kind(cells: &Cells<'_>) -> Result<CredentialKind> {
    let kind: String = cells.plain("kind")?;
    match kind.as_str() {
        "set_up" => Ok(CredentialKind::SetUp { admin: cells.plain("admin")? }),
        "session" => Ok(CredentialKind::Session { admin: cells.plain("admin")? }),
        "api" => {
            let scopes: String = cells.plain("scopes")?;
            let words = scopes.split(',').filter(|word| !word.is_empty());
            let scopes: std::result::Result<BTreeSet<ApiScope>, NoSuchScope> =
                words.map(str::parse).collect();
            let scopes = scopes.map_err(|error| cells.unreadable("scopes", error))?;
            Ok(CredentialKind::Api { name: cells.plain("name")?, scopes })
        }
        _ => Err(cells.unreadable("kind", "it is none of set_up, session, api")),
    }
}

/// Ends every log-in and one-time link that is good still, and says how many. It is no change of the fleet: nobody else has the
/// database.
pub(super) fn end_log_ins(database: &dyn Sql, at_ms: u64) -> Result<u64> {
    database.execute(
        "UPDATE credentials SET ended_at = $1 WHERE kind <> 'api' AND ended_at IS NULL AND expires_at > $1",
        &values![integer(at_ms)],
    )
}

/// Writes when credentials were used, but for what is older than what another server wrote.
pub(super) fn put_uses(database: &dyn Sql, uses: &[CredentialUse]) -> Result<()> {
    let mut rows = uses
        .iter()
        .map(|one| values![&one.credential, millis(one.at), one.from.map(|from| from.to_string())].into());
    database.execute_each(
        "INSERT INTO credential_uses (credential_id, used_at, used_from) VALUES ($1, $2, $3)
             ON CONFLICT (credential_id) DO UPDATE SET used_at = excluded.used_at, used_from = excluded.used_from
             WHERE credential_uses.used_at <= excluded.used_at",
        &mut rows as &mut dyn Iterator<Item = Vec<Value<'_>>>,
    )
}

pub(in crate::store) fn uses(database: &dyn Sql) -> Result<Vec<CredentialUse>> {
    let sql = "SELECT credential_id, used_at, used_from FROM credential_uses ORDER BY credential_id";
    rows(database, "credential_uses", sql, &[], |cells| {
        let from: Option<String> = cells.plain("used_from")?;
        let from = from.map(|from| from.parse::<IpAddr>()).transpose();
        Ok(CredentialUse {
            credential: cells.plain("credential_id")?,
            at: cells.time("used_at")?,
            from: from.map_err(|error| cells.unreadable("used_from", error))?,
        })
    })
}
