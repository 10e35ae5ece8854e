//! The command line's own half: asks the running server, and shows its answer.
//!
//! In: what was typed. Out: a table, or the server's JSON, on standard output; what went wrong on standard error,
//! and the exit code: 0 done, 2 usage or configuration, 1 anything else.
//! Always: text that came over the network is escaped before it reaches a terminal; a reader that goes away early
//! (`pulse proxy list | head -1`) is no error. Never: touches the database or the data folder; the server does, or, for
//! `restore` and `check`, which are there for when no server runs, `backup` and `store`.

#![expect(clippy::print_stderr, reason = "standard error is where a command line says what went wrong")]

mod admin;
mod allowlist;
mod ask;
mod audit;
mod audit_log;
mod backup;
mod bench;
mod client;
mod failure;
mod files;
mod history;
mod import;
mod instance;
mod join;
mod key;
mod node;
mod pick;
mod proxy;
mod pve;
mod show;
mod sources;
mod text;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use http::Method;
use pulse_config::Environment;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api;
use crate::args::{Admin, Audit, AuditLog, Epoch, Key, Place, Tls};
use client::way::Way;
use client::{Client, segment};
use failure::Failure;
pub use files::run as run_on_files;

/// Does what was typed; returns the exit code.
pub fn run(admin: &Admin, place: &Place, environment: Environment) -> ExitCode {
    match try_run(admin, place, environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = if place.json { failure.to_json() } else { format!("error: {failure}") };
            eprintln!("{text}");
            ExitCode::from(failure.exit_code)
        }
    }
}

fn try_run(admin: &Admin, place: &Place, environment: Environment) -> Result<(), Failure> {
    if let Admin::Audit(Audit { whole: Some(AuditLog::Verify { file: Some(file), expect }), .. }) = admin {
        return audit_log::verify_file(file, expect.as_ref(), place.json);
    }
    let client = Client::new(Way::of(place, environment)?);
    let mut runtime = match admin {
        // Thousands of connections, and figures that a single thread would spoil.
        Admin::Bench(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime.enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::local("RUNTIME", format!("start the runtime: {error}")))?;
    let asking = Asking { client, json: place.json };
    runtime.block_on(async {
        match admin {
            Admin::Audit(Audit { whole: Some(AuditLog::Verify { expect, .. }), .. }) => {
                asking.verify_audit(expect.as_ref()).await
            }
            Admin::Audit(Audit { whole: Some(AuditLog::Export { file, after, force }), .. }) => {
                asking.export_audit(file, *after, *force).await
            }
            Admin::Audit(Audit { follow: true, .. }) => asking.follow_audit().await,
            Admin::Backup { file, force } => backup::run(&asking, file, *force).await,
            Admin::Bench(_) if asking.client.is_afar() => Err(bench::not_from_afar()),
            Admin::Bench(bench) => bench::run(&asking, bench).await,
            Admin::Import(what) => import::run(&asking, what).await,
            admin => print(&asking.answer(admin).await?),
        }
    })
}

/// Writes to standard output. A reader that went away is no error.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::local("OUTPUT", format!("write the answer to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// A server, and how its answers are shown.
struct Asking {
    client: Client,
    json: bool,
}

impl Asking {
    async fn answer(&self, admin: &Admin) -> Result<String, Failure> {
        match admin {
            Admin::Instance(instance) => self.instance(instance).await,
            Admin::Node(node) => self.node(node).await,
            Admin::Join(join) => self.join(join).await,
            Admin::Proxy(proxy) => self.proxy(proxy).await,
            Admin::Account(account) => self.account(account).await,
            Admin::ApiToken(token) => self.api_token(token).await,
            Admin::Allowlist(allowlist) => self.allowlist(allowlist).await,
            Admin::Epoch(Epoch::New { yes }) => {
                if !yes {
                    ask::confirm(
                        "Every list becomes newer than all that proxies hold, and goes to them at once. Lists of another \
                         history of the database, which some proxies may hold, are then over for good.",
                        "Begin a new epoch?",
                    )?;
                }
                self.send(Method::POST, "/epoch", &(), |new: api::NewEpoch| {
                    let streams = text::count(new.streams, "stream");
                    format!("epoch {} began; every list is signed anew and goes to {streams} now\n", new.epoch)
                })
                .await
            }
            // They are more than a question, and are done before.
            Admin::Backup { .. } | Admin::Bench(_) | Admin::Import(_) => Ok(String::new()),
            Admin::Temps { node: None } => {
                self.get("/temperatures", |nodes: api::Temperatures| show::temperatures(&nodes)).await
            }
            Admin::Temps { node: Some(node) } => {
                let path = format!("/temperatures?node={}", segment(node));
                self.get(&path, |nodes: api::Temperatures| show::sensors(&nodes)).await
            }
            Admin::Status => self.get("/status", |status: api::Status| show::status(&status)).await,
            Admin::Tls(Tls::Rotate) => {
                self.send(Method::POST, "/tls/rotate", &(), |exchange: api::KeyExchange| {
                    format!(
                        "the CA has a new key; join strings have its pin, and {} stays good\nproxies learn the new pin \
                         when they are connected; a ca_file or a copy of ca.pem is to be exchanged by hand\nwhen that is \
                         done and all proxies were there: pulse tls finish\n",
                        text::clean(&exchange.previous_pin)
                    )
                })
                .await
            }
            Admin::Tls(Tls::Finish { yes }) => {
                let finish = api::FinishExchange { yes: *yes };
                self.send(Method::POST, "/tls/finish", &finish, |exchange: api::KeyExchange| {
                    format!("{} is good no more\n", text::clean(&exchange.previous_pin))
                })
                .await
            }
            Admin::Key(Key::Rotate { new_key_file }) => self.rotate_key(new_key_file.as_deref()).await,
            Admin::Audit(_) => {
                let rows = self.audit(None).await?;
                Ok(self.audit_text(&rows, true))
            }
        }
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        table: impl FnOnce(T) -> String,
    ) -> Result<String, Failure> {
        self.send(Method::GET, path, &(), table).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        table: impl FnOnce(T) -> String,
    ) -> Result<String, Failure> {
        let answer = self.client.call(method, path, body).await?;
        // As the server said it: keys that this version does not know are not lost.
        if self.json { Ok(text::json(&answer)) } else { Ok(table(typed(answer)?)) }
    }
}

fn typed<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| Failure::unreadable(&error.to_string()))
}

fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;
