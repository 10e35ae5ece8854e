//! The command line's own half: asks the running server, and shows its answer.
//!
//! In: what was typed. Out: a table, or the server's JSON, on standard output; what went wrong on standard error,
//! and the exit code: 0 done, 2 usage or configuration, 1 anything else.
//! Always: text that came over the network is escaped before it reaches a terminal; a reader that goes away early
//! (`pulse proxy list | head -1`) is no error. Never: touches the database or the data folder; the server does, or, for
//! `restore` and `check`, which are there for when no server runs, `backup` and `store`.

#![expect(clippy::print_stderr, reason = "standard error is where a command line says what went wrong")]

mod ask;
mod backup;
mod client;
mod failure;
mod files;
mod history;
mod pick;
mod show;
mod text;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use http::Method;
use pulse_config::Environment;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api;
use crate::args::{Admin, Allowlist, Epoch, Instance, Join, Place, Proxy, Serve, Tls};
use crate::config::Config;
use client::{Client, segment};
pub use files::run as run_on_files;
use failure::Failure;

/// How often `audit --follow` looks for new rows.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

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
    let client = Client::new(socket(place, environment)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::local("RUNTIME", format!("start the runtime: {error}")))?;
    let asking = Asking { client, json: place.json };
    runtime.block_on(async {
        match admin {
            Admin::Audit { follow: true } => asking.follow_audit().await,
            Admin::Backup { file, force } => backup::run(&asking, file, *force).await,
            admin => print(&asking.answer(admin).await?),
        }
    })
}

/// The admin socket. The configuration is read only if nothing nearer says where it is, so that a mistake in the
/// file does not lock the admin out.
fn socket(place: &Place, environment: Environment) -> Result<PathBuf, Failure> {
    if let Some(socket) = &place.socket {
        return Ok(socket.clone());
    }
    let variable = || environment.value("PULSE_DATA_DIR").map(PathBuf::from);
    if let Some(data_dir) = place.data_dir.clone().or_else(variable) {
        return Ok(data_dir.join("admin.sock"));
    }
    match Config::load(&place.sources(&Serve::default(), environment)) {
        Ok((config, _)) => Ok(config.admin_socket()),
        Err(error) => Err(Failure::configuration(error.to_string())),
    }
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
            Admin::Join(join) => self.join(join).await,
            Admin::Proxy(proxy) => self.proxy(proxy).await,
            Admin::Allowlist(Allowlist::Show { instance, all, revision }) => {
                let path = path_of_list("/allowlists", instance, *all, &[("revision", *revision)]);
                self.get(&path, |lists: api::Allowlists| show::allowlists(&lists)).await
            }
            Admin::Allowlist(Allowlist::History { instance, all, limit }) => {
                let limit = [("limit", Some(u64::from(*limit)))];
                let path = path_of_list("/allowlists/history", instance, *all, &limit);
                self.get(&path, |past: api::ListHistory| history::history(&past)).await
            }
            Admin::Allowlist(Allowlist::Diff { from, to, instance, all }) => {
                let revisions = [("from", Some(*from)), ("to", Some(*to))];
                let path = path_of_list("/allowlists/diff", instance, *all, &revisions);
                self.get(&path, |diff: api::ListDiff| history::diff(&diff)).await
            }
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
            // It writes a file, and is done before.
            Admin::Backup { .. } => Ok(String::new()),
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
            Admin::Audit { .. } => {
                let rows = self.audit(None).await?;
                Ok(self.audit_text(&rows, true))
            }
        }
    }

    async fn instance(&self, instance: &Instance) -> Result<String, Failure> {
        let one = |name: &str| format!("/instances/{}", segment(name));
        match instance {
            Instance::Add { name, endpoints } => {
                let endpoints = endpoints.iter().map(api::Node::from).collect();
                let add = api::AddInstance { name: name.clone(), endpoints };
                self.send(Method::POST, "/instances", &add, |added: api::Instance| {
                    let nodes = text::count(added.endpoints.len(), "node");
                    format!("added instance {} with {nodes}\n", text::clean(&added.name))
                })
                .await
            }
            Instance::List => {
                self.get("/instances", |all: api::Instances| show::instances(&all, now())).await
            }
            Instance::Show { name } => self.get(&one(name), |one: api::Instance| show::instance(&one)).await,
            Instance::Set { name, endpoints } => {
                let set = api::SetEndpoints { endpoints: endpoints.iter().map(api::Node::from).collect() };
                self.send(Method::PUT, &one(name), &set, |set: api::Instance| {
                    let nodes = text::count(set.endpoints.len(), "node");
                    format!("instance {} has {nodes} now\n", text::clean(&set.name))
                })
                .await
            }
            Instance::Remove { name, yes } => {
                let path = one(name) + if *yes { "?yes=true" } else { "" };
                self.send(Method::DELETE, &path, &(), |gone: api::Removed| {
                    format!("removed instance {}\n", text::clean(&gone.removed))
                })
                .await
            }
        }
    }

    async fn join(&self, join: &Join) -> Result<String, Failure> {
        match join {
            Join::Create { instance, scope, uses, ttl } => {
                let (instance, scope) = (instance.clone(), (*scope).into());
                let create = api::CreateJoin { instance, scope, uses: *uses, ttl_seconds: ttl.as_secs() };
                let text = self
                    .send(Method::POST, "/join-tokens", &create, |new: api::NewJoin| {
                        format!("{}\n", new.join)
                    })
                    .await?;
                // Only for eyes: a script that takes the string has no use for advice.
                if !self.json && io::stdout().is_terminal() {
                    eprintln!(
                        "On the host, run `pulse-sensor-proxy register --join -` and paste this line, which is shown this \
                         once:"
                    );
                }
                Ok(text)
            }
            Join::List => {
                self.get("/join-tokens", |all: api::JoinTokens| show::join_tokens(&all, now())).await
            }
            Join::Open { ttl, from } => {
                let from = from.iter().map(ToString::to_string).collect();
                let open = api::OpenJoin { from, ttl_seconds: ttl.as_secs() };
                let text = self
                    .send(Method::POST, "/join-window", &open, |new: api::NewJoinWindow| {
                        format!("{}\n", text::clean(&new.join))
                    })
                    .await?;
                if !self.json && io::stdout().is_terminal() {
                    eprintln!(
                        "On each host, run `pulse-sensor-proxy register --join -` and paste this line. Then approve the host: \
                         `pulse proxy list`, `pulse proxy approve ID`. `pulse join close` ends it before its time."
                    );
                }
                Ok(text)
            }
            Join::Close => {
                self.send(Method::DELETE, "/join-window", &(), |_: api::JoinWindow| {
                    "closed; hosts that registered go on waiting for `pulse proxy approve`\n".to_owned()
                })
                .await
            }
            Join::Revoke { id } => {
                let path = format!("/join-tokens/{}", segment(id));
                self.send(Method::DELETE, &path, &(), |token: api::JoinToken| {
                    format!(
                        "revoked join token {}; proxies that it registered stay\n",
                        text::clean(&token.id)
                    )
                })
                .await
            }
        }
    }

    async fn proxy(&self, proxy: &Proxy) -> Result<String, Failure> {
        let what = |proxy: &api::Proxy| format!("proxy {} ({})", proxy.id, text::clean(&proxy.hostname));
        match proxy {
            Proxy::List => self.get("/proxies", |all: api::Proxies| show::proxies(&all, now())).await,
            Proxy::Show { id } => {
                self.get(&self.pick(id).await?, |proxy: api::Proxy| show::proxy(&proxy, now())).await
            }
            Proxy::Set { id, instance, scope } => {
                let set = api::SetProxy { instance: instance.clone(), scope: scope.map(Into::into) };
                self.send(Method::PATCH, &self.pick(id).await?, &set, |proxy: api::Proxy| {
                    format!("{} may read {}\n", what(&proxy), readable(&proxy))
                })
                .await
            }
            Proxy::Approve { id, instance, scope } => {
                let approve = api::ApproveProxy { instance: instance.clone(), scope: scope.map(Into::into) };
                let path = self.pick(id).await? + "/approve";
                self.send(Method::POST, &path, &approve, |proxy: api::Proxy| {
                    format!("approved {}; it may read {}\n", what(&proxy), readable(&proxy))
                })
                .await
            }
            Proxy::DebugToken { id, ttl } => {
                let create = api::CreateDebugToken { ttl_seconds: ttl.as_secs() };
                let path = self.pick(id).await? + "/debug-token";
                self.send(Method::POST, &path, &create, |new: api::NewDebugToken| {
                    format!("TOKEN={} {}\n", text::clean(&new.token), text::clean(&new.command))
                })
                .await
            }
            Proxy::Rotate { id } => {
                let path = self.pick(id).await? + "/rotate";
                self.send(Method::POST, &path, &(), |proxy: api::Proxy| {
                    let when = if proxy.is_connected { "now" } else { "when it is back" };
                    format!(
                        "{} takes a new token {when}; the old one ends with the new one's first use\n",
                        what(&proxy)
                    )
                })
                .await
            }
            Proxy::Revoke { id } => {
                let path = self.pick(id).await? + "/revoke";
                self.send(Method::POST, &path, &(), |proxy: api::Proxy| {
                    format!("revoked {}; it may read nothing until it is registered again\n", what(&proxy))
                })
                .await
            }
            Proxy::Remove { id } => {
                self.send(Method::DELETE, &self.pick(id).await?, &(), |gone: api::Removed| {
                    format!("removed proxy {}\n", text::clean(&gone.removed))
                })
                .await
            }
        }
    }

    /// The path of the proxy that was meant.
    async fn pick(&self, named: &str) -> Result<String, Failure> {
        let id = match named.parse::<uuid::Uuid>() {
            Ok(id) => id,
            Err(_) => {
                let all = self.client.call(Method::GET, "/proxies", &()).await?;
                pick::proxy(&typed::<api::Proxies>(all)?.proxies, named)?
            }
        };
        Ok(format!("/proxies/{id}"))
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

    async fn audit(&self, after: Option<u64>) -> Result<Vec<Value>, Failure> {
        let path = match after {
            Some(seq) => format!("/audit?after={seq}&limit={}", api::MAX_AUDIT_ROWS),
            None => "/audit".to_owned(),
        };
        match self.client.call(Method::GET, &path, &()).await?.get_mut("rows").map(Value::take) {
            Some(Value::Array(rows)) => Ok(rows),
            _ => Err(Failure::unreadable("it has no rows")),
        }
    }

    fn audit_text(&self, rows: &[Value], with_header: bool) -> String {
        if self.json { rows.iter().map(text::json_line).collect() } else { show::audit(rows, with_header) }
    }

    /// Shows the newest rows, then new ones as they come; waits for a server that goes away and comes back.
    async fn follow_audit(&self) -> Result<(), Failure> {
        let mut rows = self.audit(None).await?;
        let mut after = 0;
        let mut is_away = false;
        let mut with_header = true;
        loop {
            let text = self.audit_text(&rows, with_header);
            let mut out = io::stdout().lock();
            if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                let broken = error.kind() == ErrorKind::BrokenPipe;
                let failure = || Failure::local("OUTPUT", format!("write to standard output: {error}"));
                return if broken { Ok(()) } else { Err(failure()) };
            }
            drop(out);
            with_header = false;
            after = rows.last().and_then(|row| row.get("seq")?.as_u64()).unwrap_or(after);
            rows = loop {
                tokio::time::sleep(FOLLOW_INTERVAL).await;
                match self.audit(Some(after)).await {
                    Ok(rows) => break rows,
                    Err(failure) if failure.is_passing() => {
                        if !is_away {
                            eprintln!("{failure}\nwaiting for it");
                        }
                        is_away = true;
                    }
                    Err(failure) => return Err(failure),
                }
            };
            if std::mem::take(&mut is_away) {
                eprintln!("the server is back");
            }
        }
    }
}

/// Which nodes a proxy may read, in words.
fn readable(proxy: &api::Proxy) -> String {
    match (proxy.scope, &proxy.instance) {
        (api::ScopeKind::All, _) => "every node".to_owned(),
        (_, Some(name)) => format!("the nodes of instance {}", text::clean(name)),
        (_, None) => "nothing until it belongs to an instance".to_owned(),
    }
}

/// A path with the list that is meant and further numbers.
fn path_of_list(
    path: &str,
    instance: &Option<String>,
    all: bool,
    numbers: &[(&str, Option<u64>)],
) -> String {
    let which = match (instance, all) {
        (Some(name), _) => Some(format!("instance={}", segment(name))),
        (None, true) => Some("scope=all".to_owned()),
        (None, false) => None,
    };
    let numbers = numbers.iter().filter_map(|(key, number)| Some(format!("{key}={}", (*number)?)));
    let query: Vec<String> = which.into_iter().chain(numbers).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

fn typed<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| Failure::unreadable(&error.to_string()))
}

fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;
