//! `pulse restore` and `pulse check`: work on files, without a server.
//!
//! In: what was typed. Out: what was done or found, on standard output; the exit code: 0 done and nothing wrong, 2 usage
//! or configuration, 1 anything else. The work itself is done by `backup` and `store`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pulse_config::Environment;
use pulse_proto::Clock;
use rustix::fs::{Access, access};
use serde_json::{Value, json};

use super::failure::Failure;
use super::text::{ago, clean, count, time};
use super::{ask, now, print, text};
use crate::args::{Db, Files, Place, Restore, Serve};
use crate::audit::Actor;
use crate::backup::restore::{Restored, Unpacked, unpack};
use crate::backup::{BackupError, DATABASE, SECRET_KEY, read};
use crate::config::{Config, Database, DatabaseUrl, Password, SecretKey};
use crate::store::{Checked, KeyFiles, StoreError, check, check_shared, transfer};
use crate::tls;

/// Does what was typed; returns the exit code.
pub fn run(files: &Files, place: &Place, environment: Environment) -> ExitCode {
    let done = match files {
        Files::Restore(flags) => restore(flags, place, environment).map(|()| true),
        Files::Check { file } => run_check(file.as_deref(), place, environment),
        Files::Db(Db::Copy { from, to, password_file, secret_key_file, ca_file }) => database_url(to)
            .and_then(|url| {
                let (password_file, password) = (password_file.clone(), Password::of(&environment));
                let here = secret_key(place, environment, from);
                let there = secret_key_file.clone().unwrap_or_else(|| here.clone());
                let database = Database { url, password_file, password, ca_file: ca_file.clone() };
                copy(from, &database, &KeyFiles { from: here, to: there }, place)
            })
            .map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            let text = if place.json { failure.to_json() } else { format!("error: {failure}") };
            eprintln!("{text}");
            ExitCode::from(failure.exit_code)
        }
    }
}

/// The data folder: what was typed, the environment, or the configuration.
fn data_dir(place: &Place, environment: Environment) -> Result<PathBuf, Failure> {
    let variable = environment.value("PULSE_DATA_DIR").map(PathBuf::from);
    if let Some(data_dir) = place.data_dir.clone().or(variable) {
        return Ok(data_dir);
    }
    match Config::load(&place.sources(&Serve::default(), environment)) {
        Ok((config, _)) => Ok(config.data_dir),
        Err(error) => Err(Failure::configuration(error.to_string())),
    }
}

/// The file of the key under which the secrets of the database in this folder are sealed. Without a configuration that can be read
/// it is the one that the environment names, or the one in the folder.
fn secret_key(place: &Place, environment: Environment, data_dir: &Path) -> PathBuf {
    let named = environment.value("PULSE_SECRET_KEY_FILE").map(PathBuf::from);
    let without = SecretKey::of(named, &environment);
    let loaded = Config::load(&place.sources(&Serve::default(), environment));
    loaded.map_or(without, |(config, _)| config.secret_key).file(data_dir)
}

/// The database on PostgreSQL that the configuration names, and the file of its sealing key. A configuration that nobody named may
/// be wrong where the data folder is named.
fn shared_database(place: &Place, environment: Environment) -> Result<Option<(PathBuf, Database)>, Failure> {
    match Config::load(&place.sources(&Serve::default(), environment)) {
        Ok((config, _)) => {
            let secret_key = config.secret_key_file();
            Ok(config.database.map(|database| (secret_key, database)))
        }
        Err(error) if place.config.is_some() => Err(Failure::configuration(error.to_string())),
        Err(_) => Ok(None),
    }
}

/// Where a fleet shall move to. What was typed is not repeated: it may hold a password.
fn database_url(text: &str) -> Result<DatabaseUrl, Failure> {
    DatabaseUrl::parse(text).map_err(|rule| {
        let rule = rule.replace("name that in database_password_file", "name that with --password-file");
        Failure::usage("INVALID_URL", format!("--to {rule}"))
    })
}

/// On whose thread connections to a database work.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|error| Failure::local("RUNTIME", format!("start the runtime: {error}")))
}

fn copy(from: &Path, to: &Database, keys: &KeyFiles, place: &Place) -> Result<(), Failure> {
    let runtime = runtime()?;
    let not_copied = |error: &dyn std::error::Error| {
        Failure::local("NOT_COPIED", format!("nothing was copied: {}", crate::tls::chain(error)))
    };
    let authority = tls::shared::own(from).map_err(|error| not_copied(&error))?;
    let tables = transfer(from, to, keys, authority.as_deref(), runtime.handle(), &Clock::system())
        .map_err(|error| not_copied(&error))?;
    if place.json {
        let tables =
            tables.iter().map(|one| json!({ "table": one.table, "rows": one.rows, "sha256": one.sha256 }));
        return print(&text::json(
            &json!({ "to": to.url.to_string(), "tables": tables.collect::<Vec<_>>() }),
        ));
    }
    let mut table = text::Table::new(["TABLE", "ROWS", "SHA-256 ON BOTH SIDES"]);
    for one in &tables {
        table.row([one.table.to_owned(), one.rows.to_string(), one.sha256.clone()]);
    }
    print(&format!(
        "{}every row is the same on both sides. Set database_url to {}, and start the server with the same data folder. Another \
         server on this database needs {} in its own, and nothing else. Move {} aside, so that no server begins with it by \
         mistake\n",
        table.render(),
        to.url,
        clean(&keys.to.display().to_string()),
        clean(&from.join("pulse.db").display().to_string())
    ))
}

fn restore(flags: &Restore, place: &Place, environment: Environment) -> Result<(), Failure> {
    let is_said = flags.new_epoch || flags.keep_epoch;
    if !is_said && !ask::is_possible() {
        let text = "say --new-epoch if proxies may have seen newer lists than those of the backup, as after a loss of the \
                    database; or --keep-epoch if nothing was changed since it was made, as for a move to another machine";
        return Err(Failure::usage("EPOCH_NOT_SAID", text.to_owned()));
    }
    if let Some((_, database)) = shared_database(place, environment.clone())? {
        let text = format!(
            "the configuration says that the fleet is on PostgreSQL ({}), and a backup is of a file: put the database back with \
             PostgreSQL's own tools; or, to go back to a file, remove database_url first",
            database.url
        );
        return Err(Failure::usage("ON_POSTGRESQL", text));
    }
    let data_dir = data_dir(place, environment.clone())?;
    let secret_key = secret_key(place, environment, &data_dir);
    allowed(&data_dir, Access::WRITE_OK | Access::EXEC_OK)?;
    let unpacked = unpack(&flags.file, &data_dir, &secret_key).map_err(|error| not_restored(&error))?;
    judge(&unpacked, flags.yes)?;
    let new_epoch = if is_said { flags.new_epoch } else { ask_for_epoch(&unpacked)? };
    if !flags.yes && ask::is_possible() && unpacked.replaces() {
        let folder = data_dir.display().to_string();
        let explanation = format!("What is in {} is moved aside, into a folder in it.", clean(&folder));
        ask::confirm(&explanation, "Put the backup in its place?")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::local("RUNTIME", format!("start the runtime: {error}")))?;
    let actor = Actor::admin(rustix::process::getuid().as_raw());
    let (finished_before, made_at) = (unpacked.finished_before.clone(), unpacked.manifest.made_at);
    let clock = Clock::system();
    let restored = runtime.block_on(unpacked.put_in_place(&actor, new_epoch, &clock));
    let restored = restored.map_err(|error| not_restored(&error))?;
    let earlier = finished_before.and_then(|finished| finished.aside);
    if place.json {
        return print(&text::json(&json!({
            "data_dir": data_dir, "epoch": restored.epoch, "revision": restored.revision, "is_new_epoch": new_epoch,
            "moved_aside": restored.aside, "earlier_moved_aside": earlier,
        })));
    }
    if let Some(earlier) = earlier {
        let folder = clean(&earlier.display().to_string());
        print(&format!(
            "an earlier restore was cut short and gone on with first; what was there is in {folder}\n"
        ))?;
    }
    print(&said(&restored, &data_dir, new_epoch.then_some(made_at)))
}

/// `gone_since`: when the backup was made, if something was changed after that.
fn said(restored: &Restored, data_dir: &Path, gone_since: Option<jiff::Timestamp>) -> String {
    let Restored { aside, epoch, revision } = restored;
    let folder = clean(&data_dir.display().to_string());
    let which = if gone_since.is_some() { "a new one" } else { "as it was" };
    let mut text = format!("restored {folder}: epoch {epoch} ({which}), revision {revision}\n");
    if let Some(aside) = aside {
        let aside = clean(&aside.display().to_string());
        text.push_str(&format!("what was there is in {aside}; remove that when all is well\n"));
    }
    if let Some(made_at) = gone_since {
        text.push_str(&format!(
            "what was done after {} is undone: proxies revoked since are active again, join tokens used since are good \
             again, and proxies that registered or took a new token since must be registered again\n",
            time(made_at)
        ));
    }
    text.push_str("start the server now\n");
    text
}

/// Refuses what a server could not run on; what else the check found must be accepted.
fn judge(unpacked: &Unpacked, yes: bool) -> Result<(), Failure> {
    let Checked { findings, is_unusable, server_id, epoch, revision, .. } = &unpacked.checked;
    let manifest = &unpacked.manifest;
    if *is_unusable {
        let text =
            format!("a server could not run on the database of this backup:\n{}", lines(&unpacked.checked));
        return Err(Failure::local("BACKUP_UNUSABLE", text));
    }
    if (*server_id, *epoch, *revision) != (Some(manifest.server_id), manifest.epoch, manifest.revision) {
        let text = "the database of this backup is another one than its manifest says";
        return Err(Failure::local("BACKUP_UNUSABLE", text.to_owned()));
    }
    if findings.is_empty() || yes {
        return Ok(());
    }
    let explanation = format!("The check of this backup found:\n{}", lines(&unpacked.checked));
    ask::confirm(&explanation, "Put it back all the same?")
}

fn ask_for_epoch(unpacked: &Unpacked) -> Result<bool, Failure> {
    let manifest = &unpacked.manifest;
    let explanation = format!(
        "This backup was made {} ({}), at revision {}. If the fleet was changed after that, proxies hold newer lists than \
         those of the backup, and would refuse them: a new epoch makes the backup's lists the newest. Keep the epoch only \
         if nothing was changed since, as for a move to another machine.",
        ago(manifest.made_at, now()),
        time(manifest.made_at),
        manifest.revision
    );
    ask::yes_or_no(&explanation, "Begin a new epoch?", true)
}

fn not_restored(error: &BackupError) -> Failure {
    let reason = match error {
        BackupError::Unusable { .. } => "BACKUP_UNUSABLE",
        BackupError::InUse(_) => "IN_USE",
        _ => "NOT_RESTORED",
    };
    Failure::local(reason, format!("not restored: {error}"))
}

/// Checks; says whether all holds.
fn run_check(file: Option<&Path>, place: &Place, environment: Environment) -> Result<bool, Failure> {
    let shared = match file {
        // It needs no configuration.
        Some(_) => None,
        None => shared_database(place, environment.clone())?,
    };
    let (shown, checked) = match (file, shared) {
        (Some(file), _) => (file.to_owned(), check_backup(file, place, environment)?),
        (None, Some((secret_key, database))) => {
            let checked = check_shared(&secret_key, &database, runtime()?.handle());
            (database.url.to_string().into(), checked.map_err(|error| not_checked(&error))?)
        }
        (None, None) => {
            let data_dir = data_dir(place, environment.clone())?;
            let path = data_dir.join(DATABASE);
            allowed(&path, Access::READ_OK)?;
            if !path.exists() {
                let text = format!(
                    "there is no database {}; if the server has another data folder, name it: --data-dir DIR",
                    path.display()
                );
                return Err(Failure::local("NO_DATABASE", text));
            }
            let secret_key = secret_key(place, environment, &data_dir);
            let checked = check(&path, &secret_key);
            let checked = checked.map_err(|error| not_checked(&error).with(beside(&path)))?;
            (path, checked)
        }
    };
    let is_good = checked.findings.is_empty();
    let shown = shown.display().to_string();
    if place.json {
        print(&text::json(&as_json(&shown, &checked)))?;
        return Ok(is_good);
    }
    let Checked { epoch, revision, audit_rows, lists: signed, .. } = &checked;
    let rows = count(usize::try_from(*audit_rows).unwrap_or(usize::MAX), "audit row");
    let signed = count(usize::try_from(*signed).unwrap_or(usize::MAX), "list");
    let verdict = match checked.findings.len() {
        0 => "all holds".to_owned(),
        found => count(found, "finding"),
    };
    print(&format!(
        "{}: {verdict} (epoch {epoch}, revision {revision}, {rows}, {signed})\n{}",
        clean(&shown),
        lines(&checked)
    ))?;
    Ok(is_good)
}

/// The whole file, and its database, with the key that opens it, in a folder that goes afterwards.
fn check_backup(file: &Path, place: &Place, environment: Environment) -> Result<Checked, Failure> {
    let not_checked = |error: BackupError| Failure::local("BACKUP_UNUSABLE", error.to_string());
    let folder = tempfile::Builder::new().prefix("pulse-check.").tempdir().map_err(|error| {
        let place = std::env::temp_dir();
        let text = format!("make a folder in {}: {error}; TMPDIR names another place", place.display());
        Failure::local("NO_FOLDER", text)
    })?;
    read::unpack(file, folder.path(), |name| [DATABASE, SECRET_KEY].contains(&name)).map_err(|error| {
        match error {
            BackupError::File { .. } => {
                let text = format!(
                    "{error} (the database is unpacked there for the check; TMPDIR names another place)"
                );
                Failure::local("NOT_CHECKED", text)
            }
            error => not_checked(error),
        }
    })?;
    let mut key = folder.path().join(SECRET_KEY);
    if !key.exists()
        && let Ok(data_dir) = data_dir(place, environment.clone())
    {
        // It is the server's, where that has it.
        key = secret_key(place, environment, &data_dir);
    }
    check(&folder.path().join(DATABASE), &key).map_err(|error| self::not_checked(&error))
}

fn not_checked(error: &StoreError) -> Failure {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    Failure::local("NOT_CHECKED", format!("{error}{source}"))
}

/// Refuses what belongs to another user. What is not there is not this one's concern.
fn allowed(path: &Path, wanted: Access) -> Result<(), Failure> {
    if access(path, wanted) != Err(rustix::io::Errno::ACCESS) {
        return Ok(());
    }
    let text = format!(
        "{} may not be used by this user: run the command as root (sudo) or as the server's own user",
        path.display()
    );
    Err(Failure::local("PERMISSION_DENIED", text))
}

/// What to do if the folder of a database cannot be written: SQLite keeps an index of the log beside it.
fn beside(path: &Path) -> &'static str {
    let folder = path.parent().unwrap_or(Path::new("."));
    if access(folder, Access::WRITE_OK).is_ok() {
        return "";
    }
    "; it can be read only where its folder can be written: copy pulse.db, pulse.db-wal and pulse.db-shm to another \
     folder, and name that with --data-dir"
}

fn lines(checked: &Checked) -> String {
    checked.findings.iter().map(|finding| format!("  {}\n", clean(&finding.to_string()))).collect()
}

fn as_json(path: &str, checked: &Checked) -> Value {
    let findings = checked.findings.iter();
    let findings = findings.map(|one| json!({ "table": one.table, "row": one.row, "what": one.what }));
    json!({
        "path": path,
        "is_good": checked.findings.is_empty(),
        "server_id": checked.server_id,
        "epoch": checked.epoch,
        "revision": checked.revision,
        "audit_rows": checked.audit_rows,
        "lists": checked.lists,
        "findings": findings.collect::<Vec<_>>(),
    })
}
