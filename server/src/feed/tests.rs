use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use serde_json::json;

use super::*;

/// A feed that is awake, with room for so many events.
fn feed(most_events: usize) -> LiveFeed {
    let feed = LiveFeed::of(Arc::new(Metrics::new()), Ring::new(most_events, 1 << 20));
    feed.inner.is_awake.send_replace(true);
    feed
}

fn tell(feed: &LiveFeed, numbers: impl IntoIterator<Item = u64>) {
    numbers.into_iter().for_each(|number| feed.tell("n", &json!(number)));
}

async fn listen(feed: &LiveFeed, after: Option<&str>) -> (Listener, Beginning) {
    feed.listen(after).await.expect("there is a place")
}

/// The next event's id and data; `None`: the listener is to load anew.
async fn next(listener: &mut Listener) -> Option<(String, u64)> {
    let event = String::from_utf8(listener.next().await?.to_vec()).unwrap();
    let mut lines = event.lines();
    let mut line = |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).unwrap().to_owned();
    let (id, _, data) = (line("id: "), line("event: "), line("data: "));
    Some((id, data.parse().unwrap()))
}

fn is_waiting(listener: &mut Listener) -> bool {
    let next = pin!(listener.next());
    matches!(next.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

#[tokio::test]
async fn who_comes_back_with_an_id_gets_all_that_came_meanwhile_and_nothing_twice() {
    let feed = feed(100);
    let (mut listener, beginning) = listen(&feed, None).await;
    assert_eq!(beginning, Beginning::Now);
    tell(&feed, 1..=3);
    let (_, first) = next(&mut listener).await.unwrap();
    let (id, second) = next(&mut listener).await.unwrap();
    assert_eq!((first, second), (1, 2));
    drop(listener);
    tell(&feed, 4..=50);
    let (mut back, beginning) = listen(&feed, Some(&id)).await;
    assert_eq!(beginning, Beginning::Resumed);
    for expected in 3..=50 {
        assert_eq!(next(&mut back).await.unwrap().1, expected);
    }
    assert!(is_waiting(&mut back));
}

#[tokio::test]
async fn who_is_further_behind_than_the_ring_is_told_so_and_goes_on() {
    let feed = feed(10);
    let (mut listener, _) = listen(&feed, None).await;
    tell(&feed, [1]);
    let (id, _) = next(&mut listener).await.unwrap();
    tell(&feed, 2..=11);
    assert_eq!(listen(&feed, Some(&id)).await.1, Beginning::Resumed, "ten behind are ten in the ring");
    tell(&feed, [12]);
    assert_eq!(listen(&feed, Some(&id)).await.1, Beginning::Lost);
    assert_eq!(next(&mut listener).await, None);
    assert!(is_waiting(&mut listener), "it goes on with what comes from now on");
    tell(&feed, [13]);
    assert_eq!(next(&mut listener).await.unwrap().1, 13);
}

#[tokio::test]
async fn an_id_that_this_feed_never_gave_is_lost() {
    let (feed, other) = (feed(10), feed(10));
    tell(&feed, 1..=5);
    let of_another = format!("{}-3", other.inner.start);
    let (yet_to_come, start) = (format!("{}-6", feed.inner.start), &feed.inner.start);
    for id in [&*of_another, &yet_to_come, start, &format!("{start}-x"), &format!("{start}-"), "", "3"] {
        assert_eq!(listen(&feed, Some(id)).await.1, Beginning::Lost, "{id:?}");
    }
}

#[tokio::test]
async fn what_was_forgotten_is_not_resumed() {
    let feed = feed(10);
    tell(&feed, 1..=5);
    let id = format!("{}-5", feed.inner.start);
    assert_eq!(listen(&feed, Some(&id)).await.1, Beginning::Resumed);
    feed.forget();
    let (mut listener, beginning) = listen(&feed, Some(&id)).await;
    assert_eq!(beginning, Beginning::Lost);
    assert!(is_waiting(&mut listener));
}

#[tokio::test]
async fn the_ring_is_bounded_in_bytes() {
    let feed = LiveFeed::of(Arc::new(Metrics::new()), Ring::new(1000, 10_000));
    (0..1000).for_each(|_| feed.tell("n", &"x".repeat(900)));
    let ring = feed.inner.ring.read().unwrap();
    assert_eq!(ring.newest(), 1000);
    assert!(ring.has_all_after(991) && !ring.has_all_after(980));
}

#[tokio::test]
async fn there_are_so_many_listeners_and_no_more_and_each_gives_its_place_back() {
    let feed = feed(10);
    let mut listeners = Vec::new();
    for _ in 0..MOST_LISTENERS {
        listeners.push(listen(&feed, None).await.0);
    }
    assert_eq!(feed.listen(None).await.err(), Some(TooManyListeners));
    listeners.pop();
    listeners.push(listen(&feed, None).await.0);
    assert!(feed.listen(None).await.is_err());
    drop(listeners);
    assert!(!feed.has_listeners());
    assert_eq!(feed.inner.metrics.feed_listeners.get(), 0);
}
