//! A listener of the live feed: an event at a time, as it comes over the wire.

#![allow(dead_code, reason = "each test file uses its own part")]

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use pulse_test_support::{Server, in_time};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::client;

/// One event.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct Listening {
    body: Incoming,
    /// What came and is no whole event yet.
    text: String,
    connection: JoinHandle<()>,
    pub(crate) hello: Event,
}

impl Listening {
    /// Begins, behind the event of this id if there is one.
    pub(crate) async fn begin(server: &Server, after: Option<&str>) -> Listening {
        Listening::of(ask(server, after).await).await
    }

    /// Begins over the port.
    pub(crate) async fn begin_afar(server: &Server, token: &str, is_http2: bool) -> Listening {
        Listening::of(ask_afar(server, token, is_http2).await).await
    }

    async fn of((answer, connection): (Response<Incoming>, JoinHandle<()>)) -> Listening {
        assert_eq!(answer.status(), 200);
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("content-type"), Some("text/event-stream"));
        assert_eq!((header("cache-control"), header("x-accel-buffering")), (Some("no-store"), Some("no")));
        let hello = Event { id: None, name: String::new(), data: Value::Null };
        let mut listening = Listening { body: answer.into_body(), text: String::new(), connection, hello };
        listening.hello = listening.next().await;
        assert_eq!(listening.hello.name, "hello");
        listening
    }

    /// Begins, and never reads.
    pub(crate) async fn begin_and_not_read(server: &Server) -> Listening {
        let (answer, connection) = ask(server, None).await;
        assert_eq!(answer.status(), 200);
        let hello = Event { id: None, name: String::new(), data: Value::Null };
        Listening { body: answer.into_body(), text: String::new(), connection, hello }
    }

    /// The next event.
    pub(crate) async fn next(&mut self) -> Event {
        self.next_or_end().await.expect("the stream lives")
    }

    /// The next event of this name; those of other names are left out.
    pub(crate) async fn next_named(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await;
            if event.name == name {
                return event;
            }
        }
    }

    /// The end of the stream, or an event of another name, which may come before it.
    pub(crate) async fn next_or_end_named(&mut self, but: &str) -> Option<Event> {
        loop {
            match self.next_or_end().await {
                Some(event) if event.name == but => {}
                other => return other,
            }
        }
    }

    /// The next event; `None`: the stream ended.
    pub(crate) async fn next_or_end(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let event = parse(block);
                self.text = rest.to_owned();
                if event.is_some() {
                    return event;
                }
                continue;
            }
            let frame = in_time("an event, or the end", self.body.frame()).await?;
            let data = frame.ok()?.into_data().expect("it has no trailers");
            self.text.push_str(std::str::from_utf8(&data).expect("an event is one frame of text"));
        }
    }

    /// Goes away.
    pub(crate) fn end(self) {
        self.connection.abort();
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// One block of the stream; `None`: it is no event.
fn parse(block: &str) -> Option<Event> {
    let line = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
    let data = serde_json::from_str(line("data: ")?).expect("the data of an event is JSON");
    Some(Event { id: line("id: ").map(str::to_owned), name: line("event: ")?.to_owned(), data })
}

async fn ask(server: &Server, after: Option<&str>) -> (Response<Incoming>, JoinHandle<()>) {
    let stream = UnixStream::connect(server.data_dir().join("admin.sock")).await.expect("the server listens");
    // Of what is not read this end holds next to nothing.
    let handshake = http1::Builder::new().max_buf_size(8 << 10).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.expect("it speaks HTTP/1.1");
    let connection = tokio::spawn(async move {
        // Why it ended, its reader sees.
        let _ = connection.await;
    });
    let mut request = Request::get("/api/v1/events").header("host", "localhost");
    if let Some(after) = after {
        request = request.header("last-event-id", after);
    }
    let request = request.body(Empty::<Bytes>::new()).expect("it is a request");
    let answer = in_time("an answer", sender.send_request(request)).await.expect("the server answers");
    (answer, connection)
}

/// Asks over the port with an API token, over HTTP/2 or HTTP/1.1.
async fn ask_afar(server: &Server, token: &str, is_http2: bool) -> (Response<Incoming>, JoinHandle<()>) {
    let protocol = if is_http2 { "h2" } else { "http/1.1" };
    let stream = client::tls(server.address(), &server.ca_path(), "localhost", &[protocol]).await;
    let stream = TokioIo::new(stream.expect("the server listens"));
    let request = Request::get("https://localhost/api/v1/events").header("host", "localhost");
    let request = request.header("authorization", format!("Bearer {token}")).body(Empty::<Bytes>::new());
    let request = request.expect("it is a request");
    if is_http2 {
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), stream).await.expect("it speaks HTTP/2");
        let connection = tokio::spawn(async move { drop(connection.await) });
        (in_time("an answer", sender.send_request(request)).await.expect("the server answers"), connection)
    } else {
        let (mut sender, connection) = http1::handshake(stream).await.expect("it speaks HTTP/1.1");
        let connection = tokio::spawn(async move { drop(connection.await) });
        (in_time("an answer", sender.send_request(request)).await.expect("the server answers"), connection)
    }
}
