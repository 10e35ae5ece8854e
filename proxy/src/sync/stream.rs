//! One watch from its first message to its end.
//!
//! In: the messages of one stream. Out: [`Ended`], which says why it is over.
//! Always: separate limits for the first message and for silence; a kind that is not known is a sign of life.

use std::time::Duration;

use pulse_proto::text::one_line;
use pulse_proto::{Token, TokenKind, v1};
use tokio::time::timeout;
use tonic::{Status, Streaming};
use v1::watch_authorized_nodes_response::Kind;

use super::apply::refused;
use super::ended::Ended;
use super::{Followed, Sync};
use crate::gate::{InForce, Source};
use crate::link::{Failure, describe};
use crate::telemetry::chain;
use crate::tls;

/// How long the first message may take, dialling included.
const FIRST_MESSAGE: Duration = Duration::from_secs(30);

/// How long a call beside the stream may take.
const CALL: Duration = Duration::from_secs(10);

/// The intervals that the contract allows.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(5);
const LONGEST_INTERVAL: Duration = Duration::from_secs(10 * 60);

impl Sync {
    /// Opens a stream and follows it to its end.
    pub(super) async fn stream(&mut self) -> Ended {
        let request = self.held();
        let mut client = self.link.client();
        let open = async {
            let mut stream = client.watch_authorized_nodes(request).await?.into_inner();
            let first = stream.message().await?;
            Ok::<_, Status>((stream, first))
        };
        let (mut stream, mut message) = match timeout(FIRST_MESSAGE, open).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(status)) => return Ended::Failed(Failure::of(&status)),
            Err(_) => return Ended::Silent(FIRST_MESSAGE),
        };
        let mut is_first = true;
        let mut last_refused = None;
        loop {
            let Some(heard) = message else { return Ended::Closed };
            if is_first && !matches!(heard.kind, Some(Kind::Revoked(_) | Kind::Goodbye(_))) {
                self.begin_stream();
            }
            if let Some(server) = &heard.server {
                self.hear_server(server);
            }
            is_first = false;
            if let Some(kind) = heard.kind
                && let Some(ended) = self.hear(kind, &mut last_refused).await
            {
                return ended;
            }
            self.keep_unkept();
            self.report_unreported().await;
            if self.is_renewed() {
                return Ended::Renewed;
            }
            message = match next(&mut stream, self.refresh_interval * 3).await {
                Ok(message) => message,
                Err(ended) => return ended,
            };
        }
    }

    /// Whether a person, or another command on this host, has brought another token or another registration. Asked at
    /// each sign of life: some small files each half interval.
    fn is_renewed(&mut self) -> bool {
        let token = self.standing.token().cloned();
        let is_new = self.standing.refresh();
        is_new && (self.standing.token() != token.as_ref() || Followed::of(&self.standing) != self.followed)
    }

    /// What this proxy tells the server that it holds.
    fn held(&self) -> v1::WatchAuthorizedNodesRequest {
        let in_force = self.gate.in_force();
        let source = match in_force.source() {
            Source::Pushed => v1::ListSource::Pushed,
            Source::Cache => v1::ListSource::Cache,
            Source::Static => v1::ListSource::Static,
            Source::None => v1::ListSource::None,
        };
        let mut request = v1::WatchAuthorizedNodesRequest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            source: source.into(),
            insecure_skip_verify: self.standing.control().insecure_skip_verify,
            ..v1::WatchAuthorizedNodesRequest::default()
        };
        if let Some(kept) = self.standing.kept_problem() {
            request.kept_list_problem = kept.problem.into();
            request.kept_list_detail.clone_from(&kept.text);
        }
        if let Some(list) = in_force.list() {
            request.epoch = list.position.epoch;
            request.scope = list.scope.to_string();
            request.revision = list.position.revision;
            request.hash = list.allowlist.hash().to_string();
        }
        request
    }

    /// The server took the token and answers.
    fn begin_stream(&mut self) {
        self.settle();
        self.standing.confirm_token();
        self.contact_tx.send_modify(|contact| contact.streams += 1);
    }

    fn hear_server(&mut self, server: &v1::ServerInfo) {
        if let Err(error) = self.standing.learn(server) {
            tracing::error!(error = %chain(&error), "what the server says of itself is not on the disk");
        }
        self.follow_standing();
        // Before the next stream does, whoever sends readings may dial. What cannot be trusted is said when that stream is due.
        let trust = self.standing.trust();
        if trust != self.trust
            && let Ok(config) = tls::client_config(&trust)
        {
            self.link.trust_when_dialling(config);
        }
        self.take_interval(server.refresh_interval);
    }

    fn take_interval(&mut self, interval: Option<prost_types::Duration>) {
        if let Some(interval) = interval.and_then(|interval| Duration::try_from(interval).ok()) {
            self.refresh_interval = interval.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        }
    }

    /// Does what one message asks for; says so if the stream is over with it.
    async fn hear(&mut self, kind: Kind, last_refused: &mut Option<(u64, u64, String)>) -> Option<Ended> {
        if matches!(kind, Kind::Snapshot(_) | Kind::Unchanged(_)) {
            self.waits(false);
        }
        match kind {
            Kind::Snapshot(snapshot) => {
                let name = (snapshot.epoch, snapshot.revision, snapshot.hash.clone());
                match self.apply(&snapshot) {
                    Ok(report) => {
                        self.take_interval(snapshot.refresh_interval);
                        self.unreported = Some(report);
                    }
                    Err(_) if last_refused.as_ref() == Some(&name) => {}
                    Err(refusal) => {
                        let in_force = self.gate.in_force();
                        tracing::error!(%refusal, in_force_revision = in_force.position().revision,
                            "a list is refused; the one in force stays");
                        self.unreported = Some(refused(&snapshot, &refusal, self.seams.clock.now()));
                        *last_refused = Some(name);
                    }
                }
            }
            Kind::Unchanged(unchanged) => self.hear_unchanged(&unchanged),
            Kind::Bookmark(_) => {}
            Kind::Waiting(waiting) => {
                if self.waits(true) {
                    let in_force = self.gate.in_force();
                    tracing::warn!(
                        reason = waiting.reason,
                        source = in_force.source().as_str(),
                        nodes = in_force.nodes().len(),
                        "the server has no list for this proxy yet"
                    );
                    crate::telemetry::status(&format!("waiting: {}", waiting.reason));
                }
            }
            Kind::RotateToken(_) => return self.rotate().await,
            Kind::Revoked(revoked) => {
                return Some(Ended::Failed(Failure::Revoked(one_line(&revoked.reason))));
            }
            Kind::Goodbye(goodbye) => {
                let wait = goodbye.reconnect_after.and_then(|wait| wait.try_into().ok());
                return Some(Ended::Goodbye(wait.unwrap_or_default(), goodbye.reason));
            }
        }
        None
    }

    /// The list held is the newest: from now on it counts as pushed.
    fn hear_unchanged(&mut self, unchanged: &v1::Unchanged) {
        let in_force = self.gate.in_force();
        let Some(list) = in_force.list() else { return };
        if list.allowlist.hash().to_string() != unchanged.hash {
            tracing::warn!(said = unchanged.hash, held = %list.allowlist.hash(), "the server calls another list unchanged");
            return;
        }
        if let InForce::Cached { list, since } = &*in_force {
            tracing::info!(
                revision = list.position.revision,
                nodes = list.allowlist.len(),
                "the kept list is the newest"
            );
            self.gate.put(InForce::Pushed { list: list.clone(), since: *since });
        }
        crate::telemetry::status(&format!(
            "{} nodes, revision {}",
            in_force.nodes().len(),
            list.position.revision
        ));
    }

    /// Asks for a new token and keeps it; the next stream uses it.
    async fn rotate(&mut self) -> Option<Ended> {
        let mut client = self.link.client();
        let rotated = match timeout(CALL, client.rotate_token(v1::RotateTokenRequest {})).await {
            Ok(Ok(answer)) => Token::parse(TokenKind::Ctrl, &answer.into_inner().ctrl_token)
                .map_err(|error| error.to_string())
                .and_then(|token| self.standing.rotate(token).map_err(|error| chain(&error))),
            Ok(Err(status)) => Err(describe(&status)),
            Err(_) => Err(format!("no answer within {} s", CALL.as_secs())),
        };
        match rotated {
            Ok(()) => {
                tracing::info!("this proxy has a new token");
                self.link.use_token(self.standing.token());
                Some(Ended::Renewed)
            }
            Err(error) => {
                tracing::warn!(error, "the token is not renewed; the old one stays in use");
                None
            }
        }
    }

    /// Tells the server what became of the last list; a failed call is repeated with the next sign of life.
    async fn report_unreported(&mut self) {
        let Some(report) = self.unreported.clone() else { return };
        let mut client = self.link.client();
        match timeout(CALL, client.report_sync(report)).await {
            Ok(Ok(_)) => self.unreported = None,
            Ok(Err(status)) => match Failure::of(&status) {
                Failure::Unreachable(text)
                | Failure::WrongServer(text)
                | Failure::Unavailable { text, .. } => {
                    tracing::debug!(error = text, "the server did not take a sync report");
                }
                failure => {
                    tracing::warn!(error = failure.text(), "the server refuses a sync report");
                    self.unreported = None;
                }
            },
            Err(_) => tracing::debug!("a sync report was not answered in time"),
        }
    }
}

async fn next(
    stream: &mut Streaming<v1::WatchAuthorizedNodesResponse>,
    silence: Duration,
) -> Result<Option<v1::WatchAuthorizedNodesResponse>, Ended> {
    match timeout(silence, stream.message()).await {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(status)) => Err(Ended::Failed(Failure::of(&status))),
        Err(_) => Err(Ended::Silent(silence)),
    }
}
