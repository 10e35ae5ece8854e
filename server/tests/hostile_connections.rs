//! Peers that stand still, trickle or vanish, on the real program: each is noticed within 35 s, and a proxy beside them is
//! served as if they were not there. Floods of HTTP/2 are in `http2_abuse`.

#[path = "support/client.rs"]
mod client;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/scene.rs"]
mod scene;

use std::time::{Duration, Instant};

use pulse_test_support::{Client, PATIENCE, Proxy, Server, eventually, in_time};
use raw::{
    CONTINUATION, END_HEADERS, END_STREAM, GOAWAY, HEADERS, ONE, PREFACE, RST_STREAM, Raw, SETTINGS,
    call_headers, dial, endless, frame, greet, literal, trickle, trickling, until_closed,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use scene::{NOTICED, PROMPT, SERVICE, Scene, SideBySide};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Status};

const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Each waits half a minute for its server to lose patience, so they wait side by side.
#[test]
fn a_peer_that_stands_still_trickles_or_takes_nothing_is_noticed_within_35_seconds() {
    SideBySide::new()
        .and(
            "who_says_nothing_after_connecting_or_after_the_handshake_is_let_go",
            who_says_nothing_after_connecting_or_after_the_handshake_is_let_go(),
        )
        .and(
            "who_sends_a_byte_a_second_is_let_go_wherever_that_is",
            who_sends_a_byte_a_second_is_let_go_wherever_that_is(),
        )
        .and(
            "an_idle_connection_of_http_1_is_let_go_after_its_request",
            an_idle_connection_of_http_1_is_let_go_after_its_request(),
        )
        .and("a_frozen_proxy_is_noticed", a_frozen_proxy_is_noticed())
        .and(
            "who_asks_and_asks_and_takes_no_answer_is_let_go",
            who_asks_and_asks_and_takes_no_answer_is_let_go(),
        )
        .all_hold();
}

async fn who_says_nothing_after_connecting_or_after_the_handshake_is_let_go() {
    let mut scene = Scene::new("").await;
    let mut silent = TcpStream::connect(scene.server.address()).await.expect("the server listens");
    let mut shaken = dial(&scene.server, &["h2"]).await;
    let mut older = dial(&scene.server, &["http/1.1"]).await;
    let (silent, shaken, older, _) = tokio::join!(
        until_closed(&mut silent, NOTICED),
        until_closed(&mut shaken, NOTICED),
        until_closed(&mut older, NOTICED),
        scene.a_push_arrives(),
    );
    // 5 s for the handshake; 15 s until the first request.
    assert!(silent.0 < Duration::from_secs(15), "{:?}", silent.0);
    for (elapsed, _) in [shaken, older] {
        assert!(elapsed < Duration::from_secs(30), "{elapsed:?}");
    }
    scene.a_push_arrives().await;
}

async fn who_sends_a_byte_a_second_is_let_go_wherever_that_is() {
    let mut scene = Scene::new("").await;
    let path = format!("{SERVICE}/ReportSync");
    let token = scene.client.token.clone();
    let hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 400]].concat();
    let head = format!("GET /readyz HTTP/1.1\r\nhost: x\r\nx-slow: {}", "y".repeat(400));
    let preface = PREFACE.iter().copied().chain(frame(SETTINGS, 0, 0, &[])).collect::<Vec<_>>();
    let headers = frame(HEADERS, END_HEADERS, 1, &call_headers(&path, &token));

    let in_handshake = TcpStream::connect(scene.server.address()).await.expect("the server listens");
    let in_head = dial(&scene.server, &["http/1.1"]).await;
    let in_preface = dial(&scene.server, &["h2"]).await;
    let mut in_headers = dial(&scene.server, &["h2"]).await;
    greet(&mut in_headers, &[]).await;
    // One that was served once, and so has no first request to make in time.
    let mut later = dial(&scene.server, &["h2"]).await;
    greet(&mut later, &[]).await;
    later
        .write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &call_headers(&path, &token)))
        .await
        .expect("the connection is new");
    let second = frame(HEADERS, END_HEADERS, 3, &call_headers(&path, &token));
    let in_body = async {
        let mut raw = Raw::over(dial(&scene.server, &["h2"]).await).await;
        let begun = Instant::now();
        let answer = raw.call(&path, &token, trickling()).await.expect("it is answered");
        let status = Status::from_header_map(answer.headers()).expect("it is refused");
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        begun.elapsed()
    };
    let ended = tokio::join!(
        trickle(in_handshake, &hello, NOTICED),
        trickle(in_head, head.as_bytes(), NOTICED),
        trickle(in_preface, &preface, NOTICED),
        trickle(in_headers, &headers, NOTICED),
        trickle(later, &second, NOTICED),
        in_body,
    );
    assert!(ended.5 < NOTICED, "{:?}", ended.5);
    scene.a_push_arrives().await;
}

async fn an_idle_connection_of_http_1_is_let_go_after_its_request() {
    let scene = Scene::new("").await;
    let mut stream = dial(&scene.server, &["http/1.1"]).await;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("the connection is new");
    let (elapsed, answer) = until_closed(&mut stream, NOTICED).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    assert!(elapsed >= Duration::from_secs(5), "it may ask again: {elapsed:?}");
}

async fn a_frozen_proxy_is_noticed() {
    let mut scene = Scene::new("").await;
    let mut proxy = Proxy::builder("frozen").build();
    proxy.register_ok(&scene.join);
    proxy.start();
    scene.server.wait_for_state(&proxy.id(), "IN_SYNC");
    assert_eq!(scene.server.metrics().value("pulse_watch_streams"), 2.0);
    // Its kernel goes on taking bytes, and nobody reads them.
    proxy.process().signal(Signal::STOP);
    let begun = Instant::now();
    eventually(NOTICED, "the stream of the frozen proxy has ended", || {
        let streams = scene.server.metrics().value("pulse_watch_streams");
        if streams <= 1.0 { Ok(()) } else { Err(streams) }
    });
    assert!(begun.elapsed() < NOTICED);
    scene.a_push_arrives().await;
    proxy.process().signal(Signal::CONT);
    scene.server.wait_for_state(&proxy.id(), "IN_SYNC");
}

async fn who_asks_and_asks_and_takes_no_answer_is_let_go() {
    let mut scene = Scene::new("").await;
    let mut stream = raw::dial_narrow(&scene.server).await;
    // Its first requests are answered, until all that lies between is full.
    let request = b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n".repeat(400);
    let mut taken_at = Instant::now();
    loop {
        match tokio::time::timeout(NOTICED, stream.write_all(&request)).await {
            Ok(Ok(())) => taken_at = Instant::now(),
            Ok(Err(_)) => break,
            Err(_) => panic!("it is still served, {:?} after its last request was taken", taken_at.elapsed()),
        }
    }
    scene.is_left_with(1.0, PROMPT);
    scene.a_push_arrives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_reads_costs_one_list_and_hears_the_newest_when_it_reads_again() {
    const CHANGES: usize = 150;
    let mut scene = Scene::new("").await;
    let deaf = Client::register(&scene.server, &scene.join, "deaf").await;
    let mut watch = deaf.reconnect_with_window(&scene.server, 1).await.watch(Default::default()).await;
    let set = |server: &Server, change: usize| {
        // Some 100 KiB a list.
        let endpoints: Vec<_> = (0..2_000)
            .map(|node| serde_json::json!({ "name": format!("node-{change}-{node}-{}", "x".repeat(30)), "ip": "" }))
            .collect();
        let answer = server.admin(
            "PUT",
            "/instances/home",
            Some(&serde_json::json!({ "endpoints": endpoints, "yes": true })),
        );
        let answer = answer.expect("the admin socket answers");
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    for change in 0..5 {
        set(&scene.server, change);
    }
    let before = scene.server.process().resident_bytes();
    for change in 5..CHANGES {
        set(&scene.server, change);
    }
    let grown = scene.server.process().resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{CHANGES} lists of 100 KiB took {grown} bytes");
    let newest = scene.server.allowlist("home")["hash"].as_str().unwrap().to_owned();
    // The good one skipped nothing that matters: its last list is the newest.
    scene.watch.snapshot_of(&newest).await;
    let mut heard = Vec::new();
    while heard.last() != Some(&newest) {
        heard.push(watch.snapshot().await.hash);
    }
    assert!(heard.len() <= 3, "what was on its way, and the newest: {heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_too_many_is_refused_and_the_others_live() {
    let scene = Scene::new("").await;
    let path = format!("{SERVICE}/ReportTemperatures");
    let mut stream = dial(&scene.server, &["h2"]).await;
    greet(&mut stream, &[]).await;
    let headers = call_headers(&path, &scene.client.token);
    let begin: Vec<u8> = (0..17).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &headers)).collect();
    stream.write_all(&begin).await.unwrap();
    let refused = in_time("the seventeenth is refused", async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.expect("the connection lives");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.expect("the connection lives");
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            if head[3] == RST_STREAM {
                return (id, payload);
            }
            assert_ne!(head[3], GOAWAY);
        }
    })
    .await;
    // REFUSED_STREAM
    assert_eq!(refused, (33, vec![0, 0, 0, 7]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_reflection_stream_does_not_hold_up_the_end_of_the_server() {
    let mut scene = Scene::new("").await;
    let mut raw = Raw::over(dial(&scene.server, &["h2"]).await).await;
    // list_services = "*", and then nothing more.
    let answer = raw.call(REFLECTION, "none", endless(b"\0\0\0\0\x03\x3a\x01*")).await.unwrap();
    let mut body = answer.into_body();
    let first = in_time("an answer", http_body_util::BodyExt::frame(&mut body)).await.unwrap().unwrap();
    assert!(first.is_data());
    let begun = Instant::now();
    scene.server.terminate();
    assert_eq!(scene.server.wait_exit(Duration::from_secs(10)), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    // It ended well, and was not cut.
    let last = in_time("the end", http_body_util::BodyExt::frame(&mut body)).await;
    let trailers = last.and_then(Result::ok).and_then(|frame| frame.into_trailers().ok());
    assert_eq!(trailers.expect("the stream ends with a status")["grpc-status"], "14");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_free_files_the_server_neither_spins_nor_ends() {
    let mut scene = Scene::new("").await;
    let pid = Pid::from_raw(scene.server.process().pid().cast_signed()).unwrap();
    let files = || std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap().count() as u64;
    let limit = |most: u64| {
        let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
        prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(most), maximum }).unwrap();
    };
    limit(files() + 2);
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(TcpStream::connect(scene.server.address()).await.unwrap());
    }
    let told = "cannot accept connections";
    eventually(PATIENCE, told, || if scene.server.process().has_said(told) { Ok(()) } else { Err(()) });
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // utime and stime of proc_pid_stat(5), in hundredths of a second.
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let spent = ticks() - before;
    assert!(spent < 100, "{spent} hundredths of a second of work in 3 s");
    let log = scene.server.process().log();
    assert!(log.iter().filter(|line| line.contains(told)).count() <= 2, "it is said once: {log:?}");
    limit(4_096);
    drop(open);
    let again = "accepting connections again";
    eventually(PATIENCE, again, || if scene.server.process().has_said(again) { Ok(()) } else { Err(()) });
    assert_eq!(scene.server.get("/readyz").unwrap().status, 200);
    scene.a_push_arrives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_messages_have_their_bounds() {
    let scene = Scene::new("").await;
    let path = format!("{SERVICE}/ReportSync");
    let long = (0..3).flat_map(|_| literal("x-long", &"y".repeat(120)).repeat(60));
    let mut stream =
        raw::dial_from(ONE, scene.server.address(), &scene.server.ca_path(), &["h2"]).await.unwrap();
    greet(&mut stream, &[]).await;
    let block: Vec<u8> = call_headers(&path, &scene.client.token).into_iter().chain(long).collect();
    assert!(block.len() > 16 << 10);
    let (first, rest) = block.split_at(16_000);
    stream.write_all(&frame(HEADERS, END_STREAM, 1, first)).await.unwrap();
    stream.write_all(&frame(CONTINUATION, END_HEADERS, 1, rest)).await.unwrap();
    let mut heard = vec![0; 4096];
    let mut length = 0;
    in_time("431, or a reset of the stream", async {
        // :status 431 is a literal with Huffman or without; a reset has type 3. Neither is an answer of the service.
        loop {
            let read = stream.read(&mut heard[length..]).await.unwrap_or(0);
            length += read;
            let frames = &heard[..length];
            if read == 0
                || frames
                    .windows(9)
                    .any(|head| (head[3] == RST_STREAM || head[3] == HEADERS) && head[5..9] == [0, 0, 0, 1])
            {
                break;
            }
        }
    })
    .await;
    assert!(!heard[..length].windows(11).any(|text| text == b"grpc-status"), "the call went through");

    // One byte more than 1 MiB, told by its length alone.
    let mut raw = Raw::over(dial(&scene.server, &["h2"]).await).await;
    let answer = raw.call(&path, &scene.client.token, endless(b"\0\0\x10\0\x01")).await.unwrap();
    let status = Status::from_header_map(answer.headers()).expect("it is refused");
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
}
