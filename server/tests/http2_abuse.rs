//! Abuse of HTTP/2 and of TLS on the real listener: it ends the abuser or harms nobody, and a proxy beside it keeps its
//! stream and is pushed to at once.
//!
//! Always: each attack is bounded in bytes and time, so that a server that takes all of it fails the test by what it
//! holds or by who is served late, and not by the machine's patience.

#[path = "support/client.rs"]
mod client;
#[path = "support/frames.rs"]
mod frames;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/scene.rs"]
mod scene;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use frames::{Frames, INITIAL_WINDOW, watch_request};
use pulse::listen::file_limit;
use pulse_test_support::{Client, PATIENCE, eventually, in_time};
use raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, ONE, PING, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, call_headers, dial, dial_from, frame, greet, literal, trickle, until_closed,
};
use scene::{NOTICED, PROMPT, SERVICE, Scene, SideBySide};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// What an attack may leave in the server's memory: what its allocator keeps of a connection's buffers, and of the pushes
/// beside it. Each attack sends more than this, or asks for more than this to be kept.
const HELD: u64 = 8 << 20;

/// When a flood must be over, in a debug build beside other tests: closed, or taken to its end.
const OVER: Duration = Duration::from_secs(30);

/// The ping behind a flood: who answers it has taken all that came before.
const LAST: [u8; 8] = *b"the last";

/// How a flood ended.
#[derive(PartialEq, Eq, Debug)]
enum End {
    /// The server closed the connection.
    Closed,
    /// The server took all of it, and answered the ping behind it.
    Taken,
}

/// Where to, and whom the server believes the abuser to be.
#[derive(Clone)]
struct Target {
    address: SocketAddr,
    ca: PathBuf,
}

/// Sends `beginning`, then `again` so many times, then a ping, on a connection of its own, reading all the while.
/// Returns how it ended, and the error code of the GOAWAY, if one came.
async fn flood(target: Target, beginning: Vec<u8>, again: Vec<u8>, times: usize) -> (End, Option<u32>) {
    let stream = dial_from(ONE, target.address, &target.ca, &["h2"]).await;
    let mut stream = stream.expect("the server shakes hands");
    greet(&mut stream, &[]).await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let send = async {
        // As many at a time as fill some records of TLS.
        let at_once = ((64 << 10) / again.len()).clamp(1, times.max(1));
        let chunk = again.repeat(at_once);
        writer.write_all(&beginning).await?;
        for _ in 0..times / at_once {
            writer.write_all(&chunk).await?;
        }
        writer.write_all(&again.repeat(times % at_once)).await?;
        writer.write_all(&frame(PING, 0, 0, &LAST)).await?;
        writer.flush().await?;
        std::future::pending::<std::io::Result<()>>().await
    };
    let hear = async {
        let (mut bytes, mut told) = (Vec::new(), None);
        let mut part = vec![0; 64 << 10];
        // A reset is an end too.
        while let Ok(read @ 1..) = reader.read(&mut part).await {
            bytes.extend_from_slice(&part[..read]);
            for (kind, payload) in whole_frames(&mut bytes) {
                match kind {
                    PING if payload == LAST => return (End::Taken, told),
                    // The last stream, and the error code (RFC 9113, 6.8).
                    GOAWAY => told = payload[4..8].try_into().map(u32::from_be_bytes).ok(),
                    _ => {}
                }
            }
        }
        (End::Closed, told)
    };
    let mut hear = std::pin::pin!(hear);
    let over = async {
        tokio::select! {
            over = &mut hear => over,
            // It cannot be sent to any more; what it said before that can still be read.
            _ = send => hear.await,
        }
    };
    tokio::time::timeout(OVER, over).await.unwrap_or_else(|_| panic!("it still goes on after {OVER:?}"))
}

/// Takes the frames out that are whole: their kinds and payloads.
fn whole_frames(bytes: &mut Vec<u8>) -> Vec<(u8, Vec<u8>)> {
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some(head) = bytes[at..].first_chunk::<9>() {
        let end = at + 9 + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some(payload) = bytes.get(at + 9..end) else { break };
        frames.push((head[3], payload.to_vec()));
        at = end;
    }
    bytes.drain(..at);
    frames
}

/// Runs a flood, and checks that pushes beside it are prompt and that the server never holds more than it may.
async fn withstands(
    scene: &mut Scene,
    beginning: Vec<u8>,
    again: Vec<u8>,
    times: usize,
) -> (End, Option<u32>) {
    // What a push and a connection take by themselves is not counted.
    scene.a_push_arrives().await;
    drop(dial(&scene.server, &["h2"]).await);
    let (connections, before) = (scene.connections() - 1.0, scene.resident_bytes());
    let target = Target { address: scene.server.address(), ca: scene.server.ca_path() };
    let flooding = tokio::spawn(flood(target, beginning, again, times));
    loop {
        let is_over = flooding.is_finished();
        scene.a_push_arrives().await;
        let grown = scene.resident_bytes().saturating_sub(before);
        assert!(grown < HELD, "the flood takes {grown} bytes");
        if is_over {
            break;
        }
    }
    let end = flooding.await.expect("the flood ends");
    scene.is_left_with(connections, PROMPT);
    end
}

/// The headers of a call with the good proxy's token: an abuser may be one that is known.
fn headers(scene: &Scene, method: &str) -> Vec<u8> {
    call_headers(&format!("{SERVICE}/{method}"), &scene.client.token)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &frames::CANCEL.to_be_bytes())
}

/// The ids of a client's streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn streams_that_are_reset_as_soon_as_they_are_begun_end_their_connection() {
    // CVE-2023-44487.
    let mut scene = Scene::new("").await;
    let block = headers(&scene, "ReportSync");
    let begun_and_reset = |stream| [frame(HEADERS, END_HEADERS, stream, &block), reset(stream)].concat();
    let all = streams(50_000).flat_map(begun_and_reset).collect();
    let (end, _) = withstands(&mut scene, all, vec![0], 0).await;
    assert_eq!(end, End::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_that_are_reset_as_soon_as_they_are_begun_leave_nothing_behind() {
    let mut scene = Scene::new("limits: {watch_burst: 1000, watch_interval: 1s}").await;
    let abuser = Client::register(&scene.server, &scene.join, "abuser").await;
    let all =
        streams(5_000).flat_map(|stream| [watch_request(stream, &abuser.token), reset(stream)].concat());
    let all: Vec<u8> = all.collect();
    for _ in 0..3 {
        // Closed or taken: that depends on how far the server had come with each watch.
        withstands(&mut scene, all.clone(), vec![0], 0).await;
    }
    scene.is_counted("pulse_watch_streams", 1.0, PROMPT);
    // Nor does any of them keep a place of its proxy.
    let mut watch = in_time("a watch of the abuser", async {
        loop {
            match abuser.try_watch(Default::default()).await {
                Ok(watch) => return watch,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    })
    .await;
    watch.snapshot().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn streams_that_the_server_is_made_to_reset_end_their_connection() {
    // CVE-2025-8671: a window beyond 2^31 - 1 is an error of that stream (RFC 9113, 6.9.1).
    let mut scene = Scene::new("").await;
    let block = headers(&scene, "ReportSync");
    let most = i32::MAX.to_be_bytes();
    let broken = |stream| {
        [frame(HEADERS, END_HEADERS, stream, &block), frame(WINDOW_UPDATE, 0, stream, &most)].concat()
    };
    let all = streams(50_000).flat_map(broken).collect();
    let (end, _) = withstands(&mut scene, all, vec![0], 0).await;
    assert_eq!(end, End::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn headers_that_never_end_end_their_connection() {
    // CVE-2024-27316: with something in each frame, with one byte, and with nothing at all.
    let mut scene = Scene::new("").await;
    let begun = frame(HEADERS, 0, 1, &headers(&scene, "ReportSync"));
    let fields = literal("x-filler", &"y".repeat(100)).repeat(100);
    for (payload, times) in [(&fields[..], 5_000), (&[0], 1_000_000), (&[], 1_000_000)] {
        let (end, told) =
            withstands(&mut scene, begun.clone(), frame(CONTINUATION, 0, 1, payload), times).await;
        assert_eq!(end, End::Closed, "{} bytes in each frame, told {told:?}", payload.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_mebibytes_of_headers_are_never_held() {
    let mut scene = Scene::new("").await;
    // On the wire: a block that does end.
    let block = headers(&scene, "ReportSync");
    let field = literal("x-filler", &"y".repeat(100));
    let fields = field.repeat((16 << 10) / field.len());
    let mut whole = frame(HEADERS, 0, 1, &block);
    whole.extend(frame(CONTINUATION, 0, 1, &fields).repeat((16 << 20) / fields.len()));
    whole.extend(frame(CONTINUATION, END_HEADERS, 1, &field));
    let (end, _) = withstands(&mut scene, whole, vec![0], 0).await;
    assert_eq!(end, End::Closed);

    // In few bytes: a field of 4,000 is put into the table once (RFC 7541, 6.2.1), and then named by one byte each
    // (6.1), 4,200 times in each of 64 calls. The name has 8 bytes; a length of 4,000 is 127 and 3,873 in steps of 7 bits.
    let mut table = vec![0x40, 8];
    table.extend(b"x-filler");
    table.extend([0x7f, 0x80 | (3_873 & 0x7f) as u8, (3_873 >> 7) as u8]);
    table.extend([b'y'; 4_000]);
    let bomb = [block.clone(), vec![0x80 | 62; 4_200]].concat();
    let first = [block, table].concat();
    let calls = streams(65).flat_map(|stream| {
        let block = if stream == 1 { &first } else { &bomb };
        frame(HEADERS, END_HEADERS | END_STREAM, stream, block)
    });
    let calls: Vec<u8> = calls.collect();
    // Closed or taken, each call refused: HPACK has to be followed in any case, and only what is kept counts.
    withstands(&mut scene, calls, vec![0], 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn frames_that_ask_for_nothing_end_their_connection_and_hold_nobody_up() {
    const FRAMES: usize = 500_000;
    let mut scene = Scene::new("").await;
    let call = frame(HEADERS, END_HEADERS | END_STREAM, 1, &headers(&scene, "ReportSync"));
    // A watch that is asked for, and whose request never ends.
    let mut open = frame(HEADERS, END_HEADERS, 1, &headers(&scene, "WatchAuthorizedNodes"));
    open.extend(frame(DATA, 0, 1, &[0; 5]));
    let depends_on_3 = [0, 0, 0, 3, 7];
    // A watch that is served, beside those of everybody else.
    let abuser = Client::register(&scene.server, &scene.join, "abuser").await;
    let watch = watch_request(1, &abuser.token);
    for (name, beginning, again) in [
        ("pings on a watch", &watch, frame(PING, 0, 0, &[7; 8])),
        ("settings on a watch", &watch, frame(SETTINGS, 0, 0, &[])),
        ("windows on a watch", &watch, frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())),
        ("resets of a stream that is over", &call, reset(1)),
        ("pings", &call, frame(PING, 0, 0, &[7; 8])),
        ("settings", &call, frame(SETTINGS, 0, 0, &[])),
        ("settings that move every window", &open, {
            let window = |bytes: u32| [&[0, 4][..], &bytes.to_be_bytes()].concat();
            [frame(SETTINGS, 0, 0, &window(0)), frame(SETTINGS, 0, 0, &window(65_535))].concat()
        }),
        ("data without a byte", &open, frame(DATA, 0, 1, &[])),
        ("padding", &open, frame(DATA, 8, 1, &[1, 0])),
        ("windows of the connection", &call, frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ("windows of a stream", &open, frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())),
        ("priorities", &call, frame(PRIORITY, 0, 1, &depends_on_3)),
        ("unknown frames", &call, frame(0xbe, 0, 0, &[7; 8])),
    ] {
        let (end, told) = withstands(&mut scene, beginning.clone(), again, FRAMES).await;
        // Padding is part of a call, whose windows bound it.
        if name != "padding" {
            assert_eq!(end, End::Closed, "{name}, told {told:?}");
        }
    }
    let floods = scene.server.metrics().value(r#"pulse_connections_refused_total{reason="flood"}"#);
    assert!(floods >= 9.0, "{floods} are counted");
}

/// Each waits half a minute for its server to lose patience, so they wait side by side.
#[test]
fn who_takes_no_answer_or_opens_no_window_is_let_go_in_half_a_minute() {
    SideBySide::new()
        .and("pings_whose_answers_are_not_taken", answers_are_not_taken(frame(PING, 0, 0, &[7; 8])))
        .and("settings_whose_answers_are_not_taken", answers_are_not_taken(frame(SETTINGS, 0, 0, &[])))
        .and("closed_windows_and_no_sign_of_life", closed_windows_and_no_sign_of_life())
        .and("closed_windows_and_every_sign_of_life", closed_windows_and_every_sign_of_life())
        .all_hold();
}

async fn answers_are_not_taken(asked: Vec<u8>) {
    let mut scene = Scene::new("").await;
    scene.a_push_arrives().await;
    let before = scene.resident_bytes();
    let mut stream = dial(&scene.server, &["h2"]).await;
    greet(&mut stream, &[]).await;
    let call = frame(HEADERS, END_HEADERS | END_STREAM, 1, &headers(&scene, "ReportSync"));
    stream.write_all(&call).await.expect("the connection is new");
    let asked = asked.repeat(1_000);
    let flooding = tokio::spawn(async move { while stream.write_all(&asked).await.is_ok() {} });
    for _ in 0..3 {
        scene.a_push_arrives().await;
    }
    assert!(tokio::time::timeout(NOTICED, flooding).await.is_ok(), "it is still served");
    let grown = scene.resident_bytes().saturating_sub(before);
    assert!(grown < HELD, "the flood took {grown} bytes");
    scene.is_left_with(1.0, PROMPT);
    scene.a_push_arrives().await;
}

async fn closed_windows_and_no_sign_of_life() {
    let mut scene = Scene::new("").await;
    let other = Client::register(&scene.server, &scene.join, "closed").await;
    let stream = dial(&scene.server, &["h2"]).await;
    let mut holder = Frames::greet(stream, &[(INITIAL_WINDOW, 0)]).await;
    holder.watch(1, &other.token).await;
    scene.is_counted("pulse_watch_streams", 2.0, PATIENCE);
    for _ in 0..3 {
        scene.a_push_arrives().await;
    }
    // It answers no ping, as nobody reads for it. Beside the good one's connection is that of its registration.
    scene.is_left_with(2.0, NOTICED);
    scene.is_counted("pulse_watch_streams", 1.0, PROMPT);
}

async fn closed_windows_and_every_sign_of_life() {
    const STREAMS: u32 = 12;
    let mut scene = Scene::new("").await;
    let other = Client::register(&scene.server, &scene.join, "closed").await;
    let before = scene.resident_bytes();
    let stream = dial(&scene.server, &["h2"]).await;
    let mut holder = Frames::greet(stream, &[(INITIAL_WINDOW, 0)]).await;
    // The last of them is the proxy's; the others were replaced, and cannot be told.
    for stream in streams(STREAMS) {
        holder.watch(stream, &other.token).await;
    }
    let begun = Instant::now();
    let ends = tokio::spawn(async move {
        let mut open: Vec<u32> = streams(STREAMS).collect();
        while !open.is_empty() {
            let frame = holder.next().await.expect("the connection lives as long as it gives signs of life");
            assert!(frame.kind != DATA || frame.payload.is_empty(), "no window is open: {frame:?}");
            open.retain(|stream| !frame.ends(*stream));
        }
        holder
    });
    for _ in 0..3 {
        scene.a_push_arrives().await;
    }
    let ended = tokio::time::timeout(NOTICED + PROMPT, ends).await;
    let _holder = ended.expect("each stream has ended").expect("the connection lives");
    assert!(begun.elapsed() > Duration::from_secs(20), "it had time to open a window: {:?}", begun.elapsed());
    scene.is_counted("pulse_watch_streams", 1.0, PROMPT);
    let grown = scene.resident_bytes().saturating_sub(before);
    assert!(grown < HELD, "the holder took {grown} bytes");
    scene.a_push_arrives().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_hello_is_given_no_more_time_than_any_handshake() {
    const SLOW: usize = 20;
    const TIME: Duration = Duration::from_secs(3);
    let mut scene = Scene::new("limits: {handshake_timeout: 3s}").await;
    // A record and a hello that announce 512 bytes (RFC 8446, 4.1.2 and 5.1).
    let hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 400]].concat();
    let address = scene.server.address();
    let mut slow = JoinSet::new();
    for _ in 0..SLOW {
        let hello = hello.clone();
        slow.spawn(async move {
            let stream = TcpStream::connect(address).await.expect("the server listens");
            trickle(stream, &hello, TIME + PROMPT).await
        });
    }
    scene.a_push_arrives().await;
    while let Some(elapsed) = slow.join_next().await {
        let elapsed = elapsed.expect("it was closed");
        // A clock that began with the last byte would never end.
        assert!(elapsed > TIME / 2, "it had its time: {elapsed:?}");
    }
    let counted = scene.metric("pulse_tls_handshake_failures_total{reason=\"timeout\"}");
    assert_eq!(counted, SLOW as f64);
    scene.is_left_with(1.0, PROMPT);
    scene.a_push_arrives().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_thousand_silent_connections_keep_nobody_out_and_are_let_go() {
    const SILENT: usize = 5_000;
    const OF_ONE_ADDRESS: usize = 1_000;
    // Each is a file of this process too.
    let limit = file_limit::raise();
    assert!(limit.connections > SILENT as u64, "{limit:?} for {SILENT} connections: see ulimit -n");
    // Long enough for all of them to be there at one time.
    let mut scene = Scene::new("limits: {handshake_timeout: 10s}").await;
    scene.a_push_arrives().await;
    let before = scene.resident_bytes();
    let address = scene.server.address();
    let mut dialling = JoinSet::new();
    let mut silent = Vec::with_capacity(SILENT);
    for n in 0..SILENT {
        let from = u8::try_from(2 + n / OF_ONE_ADDRESS).expect("there are few addresses");
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 1, from)), 0);
        dialling.spawn(async move {
            let socket = TcpSocket::new_v4()?;
            socket.bind(from)?;
            socket.connect(address).await
        });
        // No more at a time than a queue of the kernel holds.
        if dialling.len() == 500 {
            while let Some(stream) = dialling.join_next().await {
                silent.push(stream.expect("it dials").expect("the server listens"));
            }
        }
    }
    assert_eq!(silent.len(), SILENT);
    let begun = Instant::now();
    eventually(PROMPT, "all of them are there", || {
        let open = scene.connections();
        if open > SILENT as f64 { Ok(()) } else { Err(open) }
    });

    // Everybody else is served as always.
    scene.a_push_arrives().await;
    let asked = Instant::now();
    let other = Client::register(&scene.server, &scene.join, "new").await;
    let mut watch = other.watch(Default::default()).await;
    watch.snapshot().await;
    assert!(asked.elapsed() < PROMPT, "a new proxy took {:?}", asked.elapsed());
    let pushed = scene.a_push_arrives().await;
    assert_eq!(watch.snapshot_of(&pushed.hash).await, pushed);
    assert_eq!(scene.server.get("/readyz").expect("it is answered").status, 200);
    let answer = scene.server.admin("GET", "/proxies", None).expect("the admin socket answers");
    assert_eq!(answer.status, 200);
    assert!(asked.elapsed() < 2 * PROMPT, "all of it took {:?}", asked.elapsed());
    let each = scene.resident_bytes().saturating_sub(before) / SILENT as u64;
    assert!(each < 16 << 10, "a connection that said nothing takes {each} bytes");

    // And they are let go, each in its time.
    let mut closing = JoinSet::new();
    for mut stream in silent {
        closing.spawn(async move { until_closed(&mut stream, NOTICED).await.1 });
    }
    while let Some(heard) = closing.join_next().await {
        assert!(heard.expect("it was closed").is_empty(), "nothing is said to who said nothing");
    }
    assert!(begun.elapsed() < Duration::from_secs(10) + PROMPT, "{:?}", begun.elapsed());
    let failures = "pulse_tls_handshake_failures_total{reason=\"timeout\"}";
    scene.is_counted(failures, SILENT as f64, PROMPT);
    scene.is_left_with(2.0, PROMPT);
    scene.a_push_arrives().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_is_answered_before_its_body_has_come_is_not_reset() {
    // Some callers lose an answer behind which a reset comes.
    let scene = Scene::new("").await;
    let mut stream = dial(&scene.server, &["h2"]).await;
    greet(&mut stream, &[]).await;
    let head = call_headers("/api/v1/instances", &scene.client.token);
    stream.write_all(&frame(HEADERS, END_HEADERS, 1, &head)).await.expect("the server takes it");
    let (mut bytes, mut frames, mut is_sent) = (Vec::new(), Vec::new(), false);
    in_time("the answer, and that of the ping behind the body", async {
        while !frames.contains(&(PING, LAST.to_vec())) {
            if !is_sent && frames.iter().any(|(kind, _)| *kind == DATA) {
                let rest = [frame(DATA, END_STREAM, 1, b"{}"), frame(PING, 0, 0, &LAST)].concat();
                stream.write_all(&rest).await.expect("the server takes it");
                is_sent = true;
            }
            let read = stream.read_buf(&mut bytes).await.expect("the server goes on");
            assert_ne!(read, 0, "the server goes on");
            frames.extend(whole_frames(&mut bytes));
        }
    })
    .await;
    assert!(!frames.iter().any(|(kind, _)| *kind == RST_STREAM), "{frames:?}");
}
