//! `pulse admin …`, `pulse token …`.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use http::Method;

use super::client::segment;
use super::failure::Failure;
use super::text::{Table, ago, or_dash};
use super::{Asking, now, text, typed};
use crate::api;
use crate::args::{Account, ApiToken};

impl Asking {
    pub(super) async fn account(&self, account: &Account) -> Result<String, Failure> {
        match account {
            Account::List => self.get("/admins", |all: api::Admins| admins(&all, now())).await,
            Account::Add { name } => self.link("/admins", &api::AddAdmin { name: name.clone() }).await,
            Account::Reset { name } => self.link(&format!("/admins/{}/reset", segment(name)), &()).await,
            Account::Remove { name } => {
                let path = format!("/admins/{}", segment(name));
                self.send(Method::DELETE, &path, &(), |gone: api::Removed| {
                    format!("removed admin {}, with all log-ins\n", text::clean(&gone.removed))
                })
                .await
            }
        }
    }

    /// Asks for a one-time link, and shows it.
    async fn link(&self, path: &str, body: &impl serde::Serialize) -> Result<String, Failure> {
        let text =
            self.send(Method::POST, path, body, |new: api::NewLink| format!("{}\n", text::clean(&new.link)));
        let text = text.await?;
        if !self.json && io::stdout().is_terminal() {
            eprintln!("Open this link, which is good once and for 24 hours, and set a password:");
        }
        Ok(text)
    }

    pub(super) async fn api_token(&self, token: &ApiToken) -> Result<String, Failure> {
        match token {
            ApiToken::Create { name, scope, ttl, file } => {
                let scopes = scope.iter().map(|scope| scope.as_str().to_owned()).collect();
                let create = api::CreateApiToken {
                    name: name.clone(),
                    scopes,
                    ttl_seconds: ttl.map(|ttl| ttl.as_secs()),
                };
                // Before there is a token that nobody could be told.
                let file = file.as_deref().map(|path| private(path).map(|file| (path, file))).transpose()?;
                let mut answer = self.client.call(Method::POST, "/api-tokens", &create).await?;
                let Some((path, mut file)) = file else {
                    let new: api::NewApiToken = typed(answer.clone())?;
                    return Ok(if self.json {
                        text::json(&answer)
                    } else {
                        format!("{}\n", text::clean(&new.secret))
                    });
                };
                let new: api::NewApiToken = typed(answer.clone())?;
                let written = writeln!(file, "{}", new.secret).and_then(|()| file.sync_all());
                written.map_err(|error| unwritten(path, &error))?;
                if let Some(answer) = answer.as_object_mut() {
                    answer.remove("secret");
                }
                let shown = format!("wrote API token {} to {}\n", text::clean(&new.token.id), path.display());
                Ok(if self.json { text::json(&answer) } else { shown })
            }
            ApiToken::List => self.get("/api-tokens", |all: api::ApiTokens| api_tokens(&all, now())).await,
            ApiToken::Revoke { id } => {
                let path = format!("/api-tokens/{}", segment(id));
                self.send(Method::DELETE, &path, &(), |token: api::ApiToken| {
                    format!("revoked API token {}; it is good no more\n", text::clean(&token.id))
                })
                .await
            }
        }
    }
}

fn admins(all: &api::Admins, now: SystemTime) -> String {
    if all.admins.is_empty() {
        return "no admin yet; `pulse admin add NAME` prints a link with which one sets a password\n"
            .to_owned();
    }
    let mut table = Table::new(["NAME", "PASSWORD", "LOG-INS", "ADDED"]);
    for one in &all.admins {
        let password = one.password_set_at.map_or("not set".to_owned(), |at| format!("set {}", ago(at, now)));
        table.row([one.name.clone(), password, one.sessions.to_string(), ago(one.created_at, now)]);
    }
    table.render()
}

fn api_tokens(all: &api::ApiTokens, now: SystemTime) -> String {
    if all.api_tokens.is_empty() {
        return "no API token yet; make one with `pulse token create NAME --scope SCOPE`\n".to_owned();
    }
    let mut table = Table::new(["ID", "NAME", "STATE", "SCOPES", "ENDS", "LAST USED", "FROM"]);
    for one in &all.api_tokens {
        table.row([
            one.id.clone(),
            one.name.clone(),
            one.state.as_str().to_owned(),
            one.scopes.join(","),
            ago(one.expires_at, now),
            one.last_used_at.map_or("never".to_owned(), |at| ago(at, now)),
            or_dash(one.last_used_from.as_ref()),
        ]);
    }
    table.render()
}

/// A new file that only its owner can read.
fn private(path: &Path) -> Result<std::fs::File, Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| unwritten(path, &error))
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    let text = format!(
        "write the API token to {path}: {error}; choose a file that is not there, in a folder that can be written"
    );
    Failure::local("OUTPUT", text)
}
