//! The local admin's way in: a Unix socket in the data folder, HTTP/1.1, no token.
//!
//! In: a path and a router. Out: requests with their [`AdminPeer`], handed to the router.
//! Always: only root and the server's own user are served, by the kernel's word on who they are; the socket has mode
//! 0600 from its first moment.
//! Never: shares a bound with the TCP side, so that an overloaded port does not lock the owner out.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::CONNECTION;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::Drained;
use super::accept::is_of_one_connection;
use super::tasks::{finish, report_panic};
use crate::metrics::{ConnectionRefusal, Metrics};
use crate::shutdown::Drain;

/// The longest path of a socket: `sun_path` has 108 bytes, the last of them zero (unix(7)).
const MAX_PATH_BYTES: usize = 107;

/// How long a request's headers may take; the caller is on this machine.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Who is at the other end of the admin socket: an extension of every request that came over it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdminPeer {
    /// Its user id, as the kernel says.
    pub uid: u32,
}

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminSocketError {
    /// A server answers on it.
    #[error("{} is in use: a Pulse server runs with this data folder already; stop it, or use another --data-dir", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket has its name.
    #[error("{} is in the way: it is no socket; move it away", .0.display())]
    NoSocket(PathBuf),
    /// The path is too long for a socket.
    #[error("{} is too long for a socket ({} bytes, at most {MAX_PATH_BYTES}); use a shorter --data-dir", .0.display(), .0.as_os_str().len())]
    TooLong(PathBuf),
    /// Anything else.
    #[error("make the admin socket {}", path.display())]
    Other {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket that is bound, and not served yet. Its file goes when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    // Dropped after the listener: nobody dials a socket that is on its way out.
    _file: SocketFile,
}

impl AdminSocket {
    /// Binds the socket. One that a crash left behind is replaced; one on which somebody answers is not.
    /// Blocks on the disk for a moment, and needs a runtime around it.
    ///
    /// # Errors
    /// [`AdminSocketError`].
    pub fn bind(path: &Path) -> Result<AdminSocket, AdminSocketError> {
        let other = |source| AdminSocketError::Other { path: path.to_owned(), source };
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        if temporary.as_os_str().len() > MAX_PATH_BYTES {
            return Err(AdminSocketError::TooLong(path.to_owned()));
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(AdminSocketError::NoSocket(path.to_owned()));
            }
            // Any other answer than a connection says that nobody is there.
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(AdminSocketError::InUse(path.to_owned()));
            }
            Ok(_) => tracing::info!(path = %path.display(), "admin socket of an earlier run replaced"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(other(error)),
        }
        // Under another name first: at its own name it never has any mode but 0600.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(other(error)),
            _ => {}
        }
        let listener = UnixListener::bind(&temporary).map_err(other)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).map_err(other)?;
        let made = fs::symlink_metadata(&temporary).map_err(other)?;
        fs::rename(&temporary, path).map_err(other)?;
        let file = SocketFile { path: path.to_owned(), device: made.dev(), inode: made.ino() };
        Ok(AdminSocket { listener, _file: file })
    }

    /// Serves until the drain, and then at most `grace` longer. Dropping the future cuts everything.
    pub async fn serve(
        self,
        router: Router,
        grace: Duration,
        metrics: Arc<Metrics>,
        drain: Drain,
    ) -> Drained {
        let own_uid = rustix::process::geteuid().as_raw();
        let mut connections = JoinSet::new();
        let mut is_failing = false;
        loop {
            let accepted = tokio::select! {
                () = drain.started() => break,
                Some(ended) = connections.join_next() => {
                    report_panic(ended);
                    continue;
                }
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => {
                    if std::mem::take(&mut is_failing) {
                        tracing::info!("admin socket accepts connections again");
                    }
                    stream
                }
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::error!(%error, "admin socket cannot accept connections");
                    }
                    tokio::time::sleep(super::accept::PAUSE_AFTER_ERROR).await;
                    continue;
                }
            };
            let (router, metrics, drain) = (router.clone(), metrics.clone(), drain.clone());
            connections.spawn(async move {
                // The kernel knows who dialled; a socket that cannot say is gone.
                let Ok(credentials) = stream.peer_cred() else { return };
                let uid = credentials.uid();
                if may_use(uid, own_uid) {
                    serve(stream, AdminPeer { uid }, router, drain).await;
                } else {
                    metrics.connection_refused(ConnectionRefusal::NotAdmin);
                    tracing::warn!(uid, "admin socket refused a user");
                    serve(stream, AdminPeer { uid }, refusal(own_uid), drain).await;
                }
            });
        }
        finish(connections, grace).await
    }
}

fn may_use(uid: u32, own_uid: u32) -> bool {
    uid == 0 || uid == own_uid
}

/// Serves one connection to its end.
async fn serve(stream: UnixStream, peer: AdminPeer, router: Router, drain: Drain) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        router.clone().oneshot(request)
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = drain.started() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(uid = peer.uid, %error, "admin connection ended by an error");
    }
}

/// Answers everything with 403 and the reason, and ends the connection.
fn refusal(own_uid: u32) -> Router {
    Router::new().fallback(async move || {
        let text = format!("the admin socket is for root and the server's own user (uid {own_uid}) only\n");
        (StatusCode::FORBIDDEN, [(CONNECTION, "close")], text)
    })
}

/// The socket's name in the data folder.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server may have begun since, and the name is its own then.
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "admin socket's file cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown::Signals;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn another_user_gets_403_and_the_reason() {
        let (signals, _hand) = Signals::by_hand();
        let (mut client, server) = UnixStream::pair().unwrap();
        let serving = tokio::spawn(serve(server, AdminPeer { uid: 4711 }, refusal(998), signals.drain()));
        client.write_all(b"GET /api/v1/status HTTP/1.1\r\nhost: pulse\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(answer.contains("connection: close") && answer.contains("(uid 998)"), "{answer}");
        serving.await.unwrap();
    }

    #[test]
    fn root_and_the_own_user_may_use_it_and_nobody_else() {
        let allowed = [(0, 998), (998, 998), (0, 0)];
        assert!(allowed.iter().all(|(uid, own)| may_use(*uid, *own)));
        assert!(!may_use(999, 998) && !may_use(998, 0));
    }
}
