//! Watches whose clients do as they like: they stop reading, read a byte at a time, give a stream up in the middle of a
//! list, vanish, or never open their window. Each gets the newest list or an end with a reason, and costs its own alone.

#[path = "support/client.rs"]
mod client;
#[path = "support/frames.rs"]
mod frames;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/scene.rs"]
mod scene;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use frames::{DEFAULT_WINDOW, Frame, INITIAL_WINDOW, Watcher};
use pulse_test_support::v1::watch_authorized_nodes_response::Kind;
use pulse_test_support::{Client, Watch, eventually, in_time};
use raw::{DATA, END_HEADERS, END_STREAM, HEADERS, call_headers, dial, frame};
use rustls::pki_types::ServerName;
use scene::{PROMPT, SERVICE, Scene, SideBySide};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic_types::StatusExt;

/// Some 160 KiB: two and a half windows.
const LONG: usize = 3_000;

/// When a stream that is blocked must have been ended: 30 s, and what it takes to notice.
const BLOCKED: Duration = Duration::from_secs(40);

/// Registers a proxy, and begins its watch over a connection of its own with the windows of RFC 9113.
async fn watcher(scene: &Scene, hostname: &str) -> (Client, Watcher<TlsStream<TcpStream>>) {
    watcher_with(scene, hostname, &[]).await
}

async fn watcher_with(
    scene: &Scene,
    hostname: &str,
    settings: &[(u16, u32)],
) -> (Client, Watcher<TlsStream<TcpStream>>) {
    let client = Client::register(&scene.server, &scene.join, hostname).await;
    let watcher = Watcher::begin(dial(&scene.server, &["h2"]).await, settings, &client.token).await;
    (client, watcher)
}

fn is_connected(scene: &Scene, client: &Client) -> bool {
    scene.server.json(&["proxy", "show", &client.proxy_id])["is_connected"] == json!(true)
}

fn is_gone(scene: &Scene, client: &Client, within: Duration) {
    eventually(within, "the proxy is shown as gone", || {
        if is_connected(scene, client) { Err(()) } else { Ok(()) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_stops_reading_hears_one_stale_list_at_most_and_then_the_newest() {
    const STALLED: usize = 12;
    const CHANGES: usize = 20;
    let mut scene = Scene::new("").await;
    // Lists of which one is more than a window takes, and lists of which all would find room on the way.
    for nodes in [LONG, 2] {
        scene.a_long_push_arrives(nodes).await;
        let mut stalled = Vec::new();
        for host in 0..STALLED {
            let (client, mut watcher) = watcher(&scene, &format!("stalled-{nodes}-{host}")).await;
            watcher.list().await;
            stalled.push((client, watcher));
        }
        // What a change and a stalled stream take by themselves is not counted.
        scene.a_long_push_arrives(nodes).await;
        let before = scene.resident_bytes();
        for _ in 1..CHANGES {
            scene.a_long_push_arrives(nodes).await;
        }
        let newest = scene.a_long_push_arrives(nodes).await;
        let grown = scene.resident_bytes().saturating_sub(before);
        // A queue of copies would be 19 lists of 160 KiB for each: 36 MiB. The database keeps pages of what was written.
        assert!(grown < 24 << 20, "{CHANGES} changes and {STALLED} who do not read took {grown} bytes");
        assert_eq!(scene.metric("pulse_watch_streams"), (STALLED + 1) as f64);
        for (_, watcher) in &mut stalled {
            let heard = watcher.lists_until(&newest.hash).await;
            // What was on its way when it stopped, and the newest.
            assert!(heard.len() <= 2, "{} lists that nobody wanted any more", heard.len() - 1);
        }
        // They go on as if nothing had been.
        let next = scene.a_push_arrives().await;
        for (_, watcher) in &mut stalled {
            assert_eq!(watcher.list().await, next);
        }
        drop(stalled);
        scene.is_counted("pulse_watch_streams", 1.0, PROMPT);
    }
}

/// A socket that is read a byte at a time, with a pause after every few.
struct ByByte {
    socket: TcpStream,
    read: usize,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl AsyncRead for ByByte {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        std::task::ready!(Pin::new(&mut self.socket).poll_read(cx, &mut one))?;
        into.put_slice(one.filled());
        self.read += 1;
        if self.read.is_multiple_of(512) {
            self.pause = Some(Box::pin(tokio::time::sleep(Duration::from_millis(2))));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByByte {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_reads_a_byte_at_a_time_ends_up_with_the_newest_list_and_never_hears_a_torn_one() {
    let mut scene = Scene::new("").await;
    let client = Client::register(&scene.server, &scene.join, "slow").await;
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    // So that the kernel does not read ahead for it.
    socket.set_recv_buffer_size(4_096).expect("the option exists");
    let socket = socket.connect(scene.server.address()).await.expect("the server listens");
    let config = client::client_config(&scene.server.ca_path(), &["h2"]);
    let name = ServerName::try_from("localhost").expect("it is a name");
    let slow = ByByte { socket, read: 0, pause: None };
    let slow = TlsConnector::from(config).connect(name, slow).await.expect("the server shakes hands");
    let mut watcher = Watcher::begin(slow, &[], &client.token).await;
    watcher.list().await;

    let (told, newest) = tokio::sync::oneshot::channel();
    let reading = tokio::spawn(async move {
        let mut newest = std::pin::pin!(newest);
        let (mut heard, mut awaited) = (Vec::new(), None);
        // Each list is checked against its own hash as it comes.
        while awaited.is_none() || heard.last() != awaited.as_ref() {
            tokio::select! {
                list = watcher.list() => heard.push(list.hash),
                hash = &mut newest, if awaited.is_none() => awaited = Some(hash.expect("there is a newest list")),
            }
        }
        heard
    });
    let mut last = None;
    for _ in 0..8 {
        last = Some(scene.a_long_push_arrives(LONG).await);
    }
    told.send(last.expect("there were changes").hash).expect("it reads on");
    let heard = in_time("the newest list", reading).await.expect("no list is torn");
    assert!(heard.len() <= 8, "no list comes twice: {heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whose_window_is_opened_byte_by_byte_gets_whole_lists() {
    let mut scene = Scene::new("").await;
    let (_, mut watcher) = watcher_with(&scene, "narrow", &[(INITIAL_WINDOW, 0)]).await;
    let mut messages = frames::Messages::default();
    let mut changed = None;
    let (mut lists, mut bytes) = (Vec::new(), 0);
    in_time("the newest list", async {
        while changed.is_none() || lists.last() != changed.as_ref() {
            watcher.frames.grant(1, 1).await;
            let data = loop {
                let frame = watcher.frames.next().await.expect("the connection lives");
                assert!(!frame.ends(1), "the stream has ended: {frame:?}");
                if frame.is(DATA, 1) && !frame.payload.is_empty() {
                    break frame;
                }
            };
            assert_eq!(data.payload.len(), 1, "the window was open for one byte");
            bytes += 1;
            // In the middle of the first list.
            if bytes == 100 {
                scene.a_push_arrives().await;
                changed = Some(scene.a_push_arrives().await);
            }
            for message in messages.of(&data) {
                if let Some(Kind::Snapshot(list)) = message.kind {
                    lists.push(list);
                }
            }
        }
    })
    .await;
    assert!(bytes > 500, "both lists came: {bytes} bytes");
    // The one that had begun; the newest; and the one between, if that had been taken up already.
    assert!(lists.len() <= 3, "{} lists", lists.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_that_is_given_up_in_the_middle_of_a_list_leaves_its_connection_whole() {
    const TIMES: usize = 30;
    let mut scene = Scene::new("limits: {watch_burst: 1000}").await;
    let list = scene.a_long_push_arrives(5_000).await;
    let (client, mut watcher) = watcher(&scene, "fickle").await;
    for _ in 0..TIMES {
        watcher.takes_only(DEFAULT_WINDOW).await;
        watcher.begin_again(&client.token).await;
        // The connection's window is used up as well, and what was thrown away counts.
        let window = u32::try_from(DEFAULT_WINDOW).expect("it is a window");
        watcher.frames.grant(0, window).await;
    }
    assert_eq!(watcher.list().await, list, "the last watch is served like the first");
    // The good one's, and the last of these.
    scene.is_counted("pulse_watch_streams", 2.0, PROMPT);
    // One whose successor came before it was cleared away was replaced by that.
    let ended = scene.ended("gone") + scene.ended("replaced");
    assert_eq!(ended, TIMES as f64);
    let pushed = scene.a_push_arrives().await;
    assert_eq!(watcher.list().await, pushed);
    assert!(is_connected(&scene, &client));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_vanishes_is_counted_as_gone_whether_a_list_was_on_its_way_or_not() {
    let mut scene = Scene::new("").await;
    scene.a_long_push_arrives(LONG).await;
    let (idle, mut all_taken) = watcher(&scene, "idle").await;
    all_taken.list().await;
    let (half, mut half_taken) = watcher(&scene, "half").await;
    half_taken.takes_only(DEFAULT_WINDOW).await;
    let (closed, none_taken) = watcher_with(&scene, "closed", &[(INITIAL_WINDOW, 0)]).await;
    scene.is_counted("pulse_watch_streams", 4.0, PROMPT);
    for (left, client, watcher) in
        [(3.0, idle, all_taken), (2.0, half, half_taken), (1.0, closed, none_taken)]
    {
        assert!(is_connected(&scene, &client));
        let socket = watcher.frames.into_inner();
        // It closes with a reset, as the kernel of a program that was killed with bytes unread does.
        socket.get_ref().0.set_zero_linger().expect("a socket takes the option");
        drop(socket);
        scene.is_counted("pulse_watch_streams", left, PROMPT);
        assert_eq!(scene.ended("gone"), 4.0 - left);
        is_gone(&scene, &client, PROMPT);
        scene.a_push_arrives().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_blocked_stream_holds_up_nothing_else_of_its_connection() {
    let mut scene = Scene::new("").await;
    let blocked = Client::register(&scene.server, &scene.join, "blocked").await;
    let open = Client::register(&scene.server, &scene.join, "open").await;
    // One stream of the connection gets no window; the other one all that it needs.
    let stream = dial(&scene.server, &["h2"]).await;
    let mut both = Watcher::begin(stream, &[(INITIAL_WINDOW, 0)], &open.token).await;
    both.frames.grant(1, 1 << 20).await;
    both.frames.watch(3, &blocked.token).await;
    both.list().await;
    scene.is_counted("pulse_watch_streams", 3.0, PROMPT);
    for _ in 0..3 {
        let begun = Instant::now();
        let pushed = scene.a_long_push_arrives(100).await;
        assert_eq!(both.list().await, pushed);
        assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    }
    // A call beside them, which is refused for what it does not say.
    let call = call_headers(&format!("{SERVICE}/ReportSync"), &blocked.token);
    both.frames.send(&frame(HEADERS, END_HEADERS, 5, &call)).await;
    both.frames.send(&frame(DATA, END_STREAM, 5, &[0; 5])).await;
    both.frames.until(PROMPT, "the answer to a call", |frame| frame.ends(5)).await;
    // And the end of one is not the end of the other.
    scene.server.pulse_ok(&["proxy", "revoke", &open.proxy_id]);
    assert!(matches!(both.next().await, Some(Kind::Revoked(_))));
    assert_eq!(both.next().await, None);
    scene.is_counted("pulse_watch_streams", 2.0, PROMPT);
    both.stream = 3;
    both.frames.grant(3, 1 << 20).await;
    let newest = scene.server.allowlist("home")["hash"].as_str().expect("there is one").to_owned();
    assert!(both.lists_until(&newest).await.len() <= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_is_in_the_midst_of_a_list_at_the_drain_is_told_a_slot_of_its_own_too() {
    const SLOW: usize = 3;
    let mut scene = Scene::new("").await;
    let mut slow = Vec::new();
    for host in 0..SLOW {
        let client = Client::register(&scene.server, &scene.join, &format!("slow-{host}")).await;
        // A window that no list fits into.
        slow.push(client.reconnect_with_window(&scene.server, 100).await.watch(Default::default()).await);
    }
    scene.is_counted("pulse_watch_streams", (SLOW + 1) as f64, PROMPT);
    scene.server.terminate();
    let Kind::Goodbye(goodbye) = scene.watch.next_kind().await else { panic!("no goodbye") };
    let mut slots = vec![goodbye.reconnect_after.expect("it says when to come back")];
    for watch in &mut slow {
        // Its list is finished, and the goodbye follows; or it is cut, and the status says the same.
        let slot = loop {
            match watch.next().await {
                Ok(Some(message)) => match message.kind {
                    Some(Kind::Goodbye(goodbye)) => break goodbye.reconnect_after,
                    kind => assert!(matches!(kind, Some(Kind::Snapshot(_))), "{kind:?}"),
                },
                Ok(None) => panic!("it ended without a word"),
                Err(status) => {
                    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
                    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
                    break delay.and_then(|delay| delay.try_into().ok());
                }
            }
        };
        slots.push(slot.expect("it says when to come back"));
    }
    slots.sort_by_key(|slot| (slot.seconds, slot.nanos));
    slots.dedup();
    assert_eq!(slots.len(), SLOW + 1, "everybody has a slot of their own");
    assert_eq!(scene.server.wait_exit(Duration::from_secs(10)), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bookmark_comes_within_three_seconds_and_names_the_list_that_was_said() {
    // Half of the refresh interval of 5 s, and a tenth of that.
    const PERIOD: Duration = Duration::from_secs(3);
    let mut scene = Scene::new("").await;
    let list = scene.a_push_arrives().await;
    let bookmark = async |watch: &mut Watch| match watch.next().await.expect("the stream lives") {
        Some(message) => message.kind,
        None => panic!("the stream ended"),
    };
    for _ in 0..3 {
        let begun = Instant::now();
        let Some(Kind::Bookmark(said)) = bookmark(&mut scene.watch).await else { panic!("no bookmark") };
        assert!(begun.elapsed() < PERIOD, "it took {:?}", begun.elapsed());
        assert_eq!((said.epoch, said.hash), (list.epoch, list.hash.clone()));
    }
    // Also to one whose window is just wide enough for it: a bookmark waits for no other message.
    let (_, mut watcher) = watcher(&scene, "frames").await;
    watcher.list().await;
    let mut messages = frames::Messages::default();
    let mut is_bookmark = |frame: &Frame| {
        messages.of(frame).iter().any(|message| matches!(message.kind, Some(Kind::Bookmark(_))))
    };
    watcher.frames.until(PERIOD, "a bookmark", &mut is_bookmark).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_second_watch_with_the_same_token_takes_the_place_of_the_first_which_is_told() {
    let mut scene = Scene::new("").await;
    let mut second = scene.client.reconnect(&scene.server).await.watch(Default::default()).await;
    second.snapshot().await;
    let told = loop {
        match scene.watch.next().await {
            Ok(Some(message)) => assert!(matches!(message.kind, Some(Kind::Bookmark(_))), "{message:?}"),
            Ok(None) => panic!("it ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(told.code(), tonic::Code::Aborted);
    let reason = told.get_details_error_info().map(|info| info.reason);
    assert_eq!(reason.as_deref(), Some(pulse_proto::reason::REPLACED_BY_ANOTHER_STREAM));
    scene.is_counted("pulse_watch_streams", 1.0, PROMPT);
    assert_eq!(scene.ended("replaced"), 1.0);
    assert!(is_connected(&scene, &scene.client));
    scene.watch = second;
    scene.a_push_arrives().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_is_revoked_in_the_midst_of_a_list_is_ended_at_once_and_hears_no_more_of_it() {
    let mut scene = Scene::new("").await;
    scene.a_long_push_arrives(LONG).await;
    // One reads, but opens no window; the other does not even read.
    let (thief, mut watcher) = watcher(&scene, "thief").await;
    watcher.takes_only(DEFAULT_WINDOW).await;
    let (deaf, _unread) = watcher_with(&scene, "deaf", &[(INITIAL_WINDOW, 1_000)]).await;
    scene.is_counted("pulse_watch_streams", 3.0, PROMPT);
    for (left, client) in [(2.0, &thief), (1.0, &deaf)] {
        let answer = scene.server.admin("POST", &format!("/proxies/{}/revoke", client.proxy_id), None);
        assert_eq!(answer.expect("the server answers").status, 200);
        scene.is_counted("pulse_watch_streams", left, PROMPT);
        assert_eq!(scene.ended("revoked"), 3.0 - left);
        is_gone(&scene, client, PROMPT);
    }
    watcher.is_ended(PROMPT).await;
    // Nothing more comes of the list, nor of those after it, wherever the windows stand.
    scene.a_push_arrives().await;
    watcher.frames.grant(0, 1 << 20).await;
    watcher.begin_again(&thief.token).await;
    assert!(matches!(watcher.next().await, Some(Kind::Revoked(_))));
    assert_eq!(watcher.next().await, None);
}

/// Each waits for half a minute, so they wait side by side.
#[test]
fn a_stream_that_stays_blocked_for_half_a_minute_is_ended_with_a_reason() {
    SideBySide::new()
        .and("a_window_that_was_never_opened", a_window_that_was_never_opened())
        .and("a_window_that_is_not_opened_again", a_window_that_is_not_opened_again())
        .and("who_opens_no_window_hears_the_reason", who_opens_no_window_hears_the_reason())
        .and("a_socket_that_is_not_read_while_lists_change", a_socket_that_is_not_read_while_lists_change())
        .and("who_is_slow_and_goes_on_is_not_blocked", who_is_slow_and_goes_on_is_not_blocked())
        .all_hold();
}

/// Waits for the end of a stream whose client reads, and answers pings, but opens no window, while lists change. It is
/// told after half a minute.
async fn is_ended(scene: &mut Scene, watcher: &mut Watcher<TlsStream<TcpStream>>) {
    let mut pushes = tokio::time::interval(Duration::from_secs(5));
    let mut end = std::pin::pin!(watcher.is_ended(BLOCKED));
    let (_, elapsed) = loop {
        tokio::select! {
            end = &mut end => break end,
            // What comes meanwhile is no reason to wait longer.
            _ = pushes.tick() => drop(scene.a_long_push_arrives(LONG).await),
        }
    };
    assert!(elapsed > Duration::from_secs(25), "it had half a minute: {elapsed:?}");
    scene.is_counted("pulse_watch_streams", 1.0, PROMPT);
}

/// Checks that the stream was counted as blocked, and that its connection is none the worse.
async fn was_blocked(scene: &Scene, client: &Client, watcher: &mut Watcher<TlsStream<TcpStream>>) {
    assert_eq!(scene.ended("blocked"), 1.0);
    is_gone(scene, client, PROMPT);
    watcher.begin_again(&client.token).await;
    watcher.frames.grant(0, 1 << 20).await;
    watcher.frames.grant(watcher.stream, 1 << 20).await;
    watcher.list().await;
}

/// With a client that reads trailers, which need no window.
async fn who_opens_no_window_hears_the_reason() {
    let scene = Scene::new("").await;
    let client = Client::register(&scene.server, &scene.join, "told").await;
    let stream = dial(&scene.server, &["h2"]).await;
    let mut builder = h2::client::Builder::new();
    let shaking = builder.initial_window_size(0).handshake::<_, bytes::Bytes>(stream);
    let (caller, connection) = shaking.await.expect("the server speaks HTTP/2");
    let serving = tokio::spawn(connection);
    let request = http::Request::post(format!("https://localhost{SERVICE}/WatchAuthorizedNodes"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {}", client.token))
        .body(())
        .expect("it is a request");
    let mut caller = caller.ready().await.expect("the connection lives");
    let (response, mut body) = caller.send_request(request, false).expect("a call can begin");
    body.send_data(bytes::Bytes::from_static(&[0; 5]), true).expect("the call can be made");
    let response = response.await.expect("the call is answered");
    let trailers = tokio::time::timeout(BLOCKED, response.into_body().trailers()).await;
    let trailers = trailers.expect("it ends").expect("the connection lives").expect("it ends with trailers");
    let status = tonic::Status::from_header_map(&trailers).expect("they have a status");
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let reason = status.get_details_error_info().map(|info| info.reason);
    assert_eq!(reason.as_deref(), Some(pulse_proto::reason::STREAM_BLOCKED));
    assert!(status.get_details_retry_info().is_some(), "it says when to come back");
    serving.abort();
}

async fn a_window_that_was_never_opened() {
    let mut scene = Scene::new("").await;
    let (client, mut watcher) = watcher_with(&scene, "closed", &[(INITIAL_WINDOW, 0)]).await;
    is_ended(&mut scene, &mut watcher).await;
    was_blocked(&scene, &client, &mut watcher).await;
}

async fn a_window_that_is_not_opened_again() {
    let mut scene = Scene::new("").await;
    scene.a_long_push_arrives(LONG).await;
    let (client, mut watcher) = watcher(&scene, "half").await;
    watcher.takes_only(DEFAULT_WINDOW).await;
    is_ended(&mut scene, &mut watcher).await;
    was_blocked(&scene, &client, &mut watcher).await;
}

async fn a_socket_that_is_not_read_while_lists_change() {
    let mut scene = Scene::new("").await;
    scene.a_long_push_arrives(LONG).await;
    let (client, mut watcher) = watcher(&scene, "deaf").await;
    watcher.list().await;
    let begun = Instant::now();
    while scene.metric("pulse_watch_streams") > 1.0 {
        assert!(begun.elapsed() < BLOCKED, "it is still served");
        scene.a_long_push_arrives(LONG).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    // The stream for its list, or the connection for its signs of life: whichever was longer without.
    assert_eq!(scene.ended("blocked") + scene.ended("gone"), 1.0);
    is_gone(&scene, &client, PROMPT);
}

async fn who_is_slow_and_goes_on_is_not_blocked() {
    let mut scene = Scene::new("").await;
    let list = scene.a_long_push_arrives(LONG).await;
    let (_, mut watcher) = watcher(&scene, "slow").await;
    watcher.takes_only(DEFAULT_WINDOW).await;
    let begun = Instant::now();
    let mut taken = DEFAULT_WINDOW;
    while begun.elapsed() < BLOCKED {
        // No second in which nothing moves, and a pace at which the list takes ten minutes.
        watcher.frames.grant(0, 200).await;
        watcher.frames.grant(1, 200).await;
        taken += 200;
        watcher.takes_only(taken).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    watcher.frames.grant(0, 1 << 20).await;
    watcher.frames.grant(1, 1 << 20).await;
    assert_eq!(watcher.list().await, list);
    assert_eq!(scene.ended("blocked"), 0.0);
    let pushed = scene.a_push_arrives().await;
    assert_eq!(watcher.list().await, pushed);
}
