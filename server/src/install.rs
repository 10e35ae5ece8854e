//! What installers fetch: files of one folder, under `/api/install/`, each with its checksum.
//!
//! In: names. Out: the files, a piece at a time. Always: a name is one word that begins with no dot; what is given out is a
//! regular file of that folder, wherever a link may lead; `NAME.sha256` is made of the file itself, so it never tells of
//! another one. Never: asks who fetches, or lists what is there.

mod checksums;
mod open;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use futures_util::stream;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::limits::{CallLimits, OVERLOAD_RETRY, Slot};
use crate::listen::Peer;
use checksums::Checksums;
use open::{Opened, is_plain};

/// Below which path the files are.
const ROOT: &str = "/api/install";

/// The header with the file's SHA-256, in hex.
const CHECKSUM: HeaderName = HeaderName::from_static("x-checksum-sha256");

/// What the name of a file ends in that has the checksum of another.
const CHECKSUM_FILE: &str = ".sha256";

/// How much of a file is in memory for each who fetches it.
const PIECE: usize = 64 * 1024;

/// The folder, and what is known of its files. Cloning shares it.
#[derive(Clone, Debug)]
struct Install {
    folder: Arc<PathBuf>,
    checksums: Checksums,
    limits: Arc<CallLimits>,
}

/// The files of a folder, as routes. The folder need not be there.
pub fn router(folder: PathBuf, limits: Arc<CallLimits>) -> Router {
    let install = Install { folder: Arc::new(folder), checksums: Checksums::default(), limits };
    Router::new()
        .route(ROOT, any(fetch))
        .route(&format!("{ROOT}/"), any(fetch))
        .route(&format!("{ROOT}/{{*name}}"), any(fetch))
        .with_state(install)
}

async fn fetch(State(install): State<Install>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    if head.method != Method::GET && head.method != Method::HEAD {
        let text = "this path takes GET and HEAD only\n";
        return (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD")], text).into_response();
    }
    let path = head.uri.path();
    let asked = path.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/')).unwrap_or_default();
    let Ok(Query(parameters)) = Query::<Vec<(String, String)>>::try_from_uri(&head.uri) else {
        return not_there("the part behind the ? is not of the form name=value");
    };
    let arch = parameters.iter().rev().find(|(name, _)| name == "arch").map(|(_, arch)| arch.as_str());
    let (name, is_checksum) = match asked.strip_suffix(CHECKSUM_FILE) {
        Some(name) => (name, true),
        None => (asked, false),
    };
    // What older installers ask for is the program's name, and beside it for which machine.
    let name = match arch.filter(|arch| !arch.is_empty()) {
        Some(arch) => format!("{name}-{arch}"),
        None => name.to_owned(),
    };
    // Names are never decoded: none that is plain has a character which needs to be written as %XX.
    if !is_plain(&name) {
        return not_there("one has a plain name: letters, digits, and . _ - behind the first");
    }
    let opened = match open::open(&install.folder, &name).await {
        Ok(opened) => opened,
        Err(error) => return not_opened(&install, &name, &error),
    };
    let sum = match install.checksums.of(&name, &opened).await {
        Ok(sum) => sum,
        Err(error) => return not_opened(&install, &name, &error),
    };
    let known = head.headers.get_all(IF_NONE_MATCH).iter().filter_map(|known| known.to_str().ok());
    let is_known = known.flat_map(|known| known.split(',')).any(|known| {
        let known = known.trim().trim_start_matches("W/");
        known == "*" || known.trim_matches('"') == sum
    });
    if is_checksum {
        return (common(&name, &sum, "text/plain; charset=utf-8"), format!("{sum}  {name}\n"))
            .into_response();
    }
    let headers = common(&name, &sum, media_type(&name));
    if is_known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let length = [(CONTENT_LENGTH, HeaderValue::from(opened.length))];
    if head.method == Method::HEAD {
        return (headers, length, Body::empty()).into_response();
    }
    let peer = head.extensions.get::<Peer>().map(|peer| peer.address.ip());
    let Some(place) = install.limits.download(peer) else {
        let text = "many fetch files at the moment: come back later\n";
        let wait = [(RETRY_AFTER, HeaderValue::from(OVERLOAD_RETRY.as_secs()))];
        return (StatusCode::SERVICE_UNAVAILABLE, wait, text).into_response();
    };
    (headers, length, body(opened, place)).into_response()
}

/// What every answer about a file says.
fn common(name: &str, sum: &str, media_type: &'static str) -> [(HeaderName, HeaderValue); 5] {
    let text = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    // The checksum's file changes when the file does, and is another one.
    let tag = if media_type.starts_with("text/plain") && !name.ends_with(".txt") {
        format!("\"{sum}{CHECKSUM_FILE}\"")
    } else {
        format!("\"{sum}\"")
    };
    [
        (CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (ETAG, text(&tag)),
        (CHECKSUM, text(sum)),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ]
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.') {
        Some((_, "sh")) => "text/x-shellscript; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// The file, a piece at a time; as long as it was when it was opened. If it became shorter, the connection breaks off, and who
/// fetches it sees that.
fn body(opened: Opened, place: Slot) -> Body {
    struct Sending {
        file: File,
        left: u64,
        _place: Slot,
    }
    let sending = Sending { file: File::from_std(opened.file), left: opened.length, _place: place };
    let pieces = stream::try_unfold(sending, async |mut sending| {
        let most = usize::try_from(sending.left).unwrap_or(PIECE).min(PIECE);
        if most == 0 {
            return Ok::<_, io::Error>(None);
        }
        let mut piece = vec![0; most];
        let read = sending.file.read(&mut piece).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        piece.truncate(read);
        sending.left -= read as u64;
        Ok(Some((Bytes::from(piece), sending)))
    });
    Body::from_stream(pieces)
}

fn not_there(why: &str) -> Response {
    (StatusCode::NOT_FOUND, format!("there is no such file for installers: {why}\n")).into_response()
}

fn not_opened(install: &Install, name: &str, error: &io::Error) -> Response {
    let folder = install.folder.display();
    match error.kind() {
        io::ErrorKind::NotFound => {
            tracing::debug!(%folder, name, "an installer asked for a file that is not there");
            not_there(&format!(
                "put {name} into the folder that install_dir names in the server's configuration, readable for its user"
            ))
        }
        _ => {
            tracing::warn!(%folder, name, %error, "a file for installers cannot be read");
            let text = format!("{name} cannot be read: see the server's log\n");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
