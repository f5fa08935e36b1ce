//! What each kind of bad answer leads to, and that it is tried again without being in the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eventbus_core::delivery::Verdict;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::subscriber::{Subscriber, raw, read_request};
use crate::world::{World, eventually, subscription};

/// The outcome of the first attempt at an endpoint, which may take so long.
async fn outcome_at(endpoint: &str, timeout: Duration) -> (&'static str, Verdict) {
    let mut world = World::new();
    let mut hasty = subscription("a", endpoint);
    hasty.timeout = timeout;
    world.declare_open(hasty).await;
    world.publish(["1"]);
    eventually("an attempt ended", || !world.outcomes("a").is_empty()).await;
    let cursor = world.broker.cursor("a").unwrap();
    let (_, attempt, verdict) = cursor.place().settled[0];
    (attempt.unwrap().outcome().word(), verdict)
}

/// The same at a subscriber that reads each request and then writes these bytes.
async fn outcome_of(answer: &'static [u8], then: Then) -> &'static str {
    let (url, _subscriber) = raw(move |_, stream| write_and(stream, answer, then)).await;
    let timeout = if then == Then::Hang { SHORT } else { LONG };
    let (word, verdict) = outcome_at(&url, timeout).await;
    assert_eq!(word == "success", verdict == Verdict::Ack);
    word
}

const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq)]
enum Then {
    Close,
    Hang,
    /// Writes the same again and again.
    Repeat,
    /// Writes a byte now and then.
    Drip,
}

async fn write_and(mut stream: TcpStream, answer: &'static [u8], then: Then) {
    read_request(&mut stream).await;
    if stream.write_all(answer).await.is_err() {
        return;
    }
    match then {
        Then::Close => drop(stream.shutdown().await),
        Then::Hang => std::future::pending().await,
        Then::Repeat => while stream.write_all(answer).await.is_ok() {},
        Then::Drip => {
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

#[tokio::test]
async fn every_2xx_takes_the_event() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..],
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n\
          HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
    ] {
        assert_eq!(outcome_of(answer, Then::Close).await, "success");
    }
}

#[tokio::test]
async fn every_other_status_is_a_failure_of_its_kind() {
    for (answer, word) in [
        (&b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..], "client_error"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "server_error"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "other_status",
        ),
    ] {
        assert_eq!(outcome_of(answer, Then::Close).await, word);
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let secret = Subscriber::start().await;
    for status in [301, 302, 303, 307, 308] {
        let location = secret.url();
        let (url, _subscriber) = raw(move |_, mut stream| {
            let location = location.clone();
            async move {
                read_request(&mut stream).await;
                let head = format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\n");
                let _ = stream.write_all((head + "Content-Length: 0\r\n\r\n").as_bytes()).await;
                let _ = stream.read_u8().await;
            }
        })
        .await;
        assert_eq!(outcome_at(&url, LONG).await.0, "redirect");
    }
    assert_eq!(secret.connections(), 0);
}

#[tokio::test]
async fn what_is_not_http_is_a_bad_answer() {
    let huge_head: &'static [u8] =
        Box::leak(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(20_000)).into_boxed_str())
            .as_bytes();
    let endless_head = &b"HTTP/1.1 200 OK\r\nX: y\r\n"[..];
    for (answer, then) in [
        (&b"220 smtp.example.org ESMTP\r\n"[..], Then::Close),
        (b"\x16\x03\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", Then::Close),
        (b"HTTP/1.1 2000 OK\r\n\r\n", Then::Close),
        (b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n", Then::Close),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Then::Close),
        (huge_head, Then::Close),
        (endless_head, Then::Repeat),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", Then::Repeat),
    ] {
        let start = String::from_utf8_lossy(&answer[..answer.len().min(40)]);
        assert_eq!(outcome_of(answer, then).await, "bad_answer", "{start}");
    }
}

#[tokio::test]
async fn what_takes_too_long_is_a_timeout() {
    for (answer, then) in [
        (&b""[..], Then::Hang),
        (b"HTTP/1.1 200", Then::Hang),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Then::Hang),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", Then::Hang),
    ] {
        assert_eq!(outcome_of(answer, then).await, "timeout");
    }
    for answer in
        [&b"HTTP/1.1 200 OK\r\nX: "[..], b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"]
    {
        let (url, _subscriber) = raw(move |_, stream| write_and(stream, answer, Then::Drip)).await;
        assert_eq!(outcome_at(&url, SHORT).await.0, "timeout");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_told() {
    for answer in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\nConte",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
    ] {
        assert_eq!(outcome_of(answer, Then::Close).await, "broken");
    }
    let (url, _subscriber) = raw(|_, mut stream| async move {
        read_request(&mut stream).await;
        // Closing with nothing to linger for resets.
        stream.set_zero_linger().unwrap();
    })
    .await;
    assert_eq!(outcome_at(&url, LONG).await.0, "broken");
}

#[tokio::test]
async fn the_status_counts_when_the_body_is_endless() {
    for (answer, word) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"[..], "success"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 1000000000\r\n\r\n", "server_error"),
    ] {
        assert_eq!(outcome_of(answer, Then::Hang).await, word);
    }
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (url, _subscriber) = raw(move |_, mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(chunked).await.unwrap();
        while stream.write_all(b"400\r\n").await.is_ok()
            && stream.write_all(&[b'x'; 1024]).await.is_ok()
            && stream.write_all(b"\r\n").await.is_ok()
        {}
    })
    .await;
    assert_eq!(outcome_at(&url, LONG).await.0, "success");
}

#[tokio::test]
async fn endpoints_that_cannot_be_reached_say_why() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (endpoint, word) in [
        (format!("http://{closed}/"), "connect"),
        ("http://no-such-host.invalid/".to_owned(), "dns"),
        ("http://".to_owned(), "bad_endpoint"),
        ("no url".to_owned(), "bad_endpoint"),
        ("ftp://127.0.0.1/".to_owned(), "bad_endpoint"),
    ] {
        assert_eq!(outcome_at(&endpoint, LONG).await.0, word, "{endpoint}");
    }
}

#[tokio::test]
async fn a_connection_is_closed_after_a_timeout() {
    let (url, mut subscriber) = raw(|number, mut stream| async move {
        if number == 0 {
            read_request(&mut stream).await;
            assert_eq!(stream.read_u8().await.ok(), None, "nothing more comes: it is closed");
            // Far too late; nobody may read it as the answer to another request.
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        } else {
            write_and(stream, b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", Then::Close).await;
        }
    })
    .await;
    let mut world = World::new();
    let mut hasty = subscription("a", &url);
    (hasty.timeout, hasty.max_inflight) = (SHORT, 1);
    world.declare_open(hasty).await;
    world.publish(["1", "2"]);
    eventually("two attempts ended", || world.outcomes("a").len() == 2).await;
    assert_eq!(world.outcomes("a"), ["timeout", "server_error"]);
    assert!(subscriber.try_join_next().is_none(), "it did not panic");
}

#[tokio::test]
async fn who_answers_before_the_end_of_the_request_is_heard() {
    let (url, _subscriber) = raw(|number, mut stream| async move {
        if number > 0 {
            return write_and(stream, OK, Then::Hang).await;
        }
        stream.read_u8().await.unwrap();
        let refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(refused).await.unwrap();
        // A part of a request is on it: nothing else may follow.
        while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    let mut world = World::new();
    world.declare_open(subscription("a", &url)).await;
    world.publish(["x".repeat(16 * 1024 * 1024)]);
    eventually("the first attempt ended", || world.outcomes("a").len() == 1).await;
    world.publish(["2"]);
    world.broker.cursor("a").unwrap().make_all_due();
    eventually("both are settled", || world.lag("a") == 0).await;
    assert_eq!(world.outcomes("a"), ["client_error", "success", "success"]);
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn an_idle_connection_that_was_closed_costs_no_attempt() {
    // Each connection answers once, politely, and closes a little later without having said so.
    let closed = Arc::new(AtomicUsize::new(0));
    let closing = closed.clone();
    let (url, _subscriber) = raw(move |_, mut stream| {
        let closing = closing.clone();
        async move {
            read_request(&mut stream).await;
            stream.write_all(OK).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(stream);
            closing.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    let mut world = World::new();
    let mut narrow = subscription("a", &url);
    narrow.max_inflight = 1;
    world.declare_open(narrow).await;
    for number in 1..=50 {
        world.publish([number.to_string()]);
        let is_over = || world.lag("a") == 0 && closed.load(Ordering::SeqCst) == number;
        eventually("it is settled, and the connection closed", is_over).await;
    }
    assert_eq!(world.outcomes("a"), ["success"; 50]);
}

#[tokio::test]
async fn what_was_written_to_a_connection_is_not_sent_again_at_once() {
    // Each connection answers once; the second request it reads, and closes.
    let requests = Arc::new(AtomicUsize::new(0));
    let reading = requests.clone();
    let (url, _subscriber) = raw(move |_, mut stream| {
        let reading = reading.clone();
        async move {
            read_request(&mut stream).await;
            reading.fetch_add(1, Ordering::SeqCst);
            stream.write_all(OK).await.unwrap();
            if read_request(&mut stream).await.is_some() {
                reading.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let mut world = World::new();
    let mut narrow = subscription("a", &url);
    narrow.max_inflight = 1;
    world.declare_open(narrow).await;
    world.publish(["1"]);
    eventually("the first is settled", || world.lag("a") == 0).await;
    world.publish(["2"]);
    eventually("the second was tried", || world.outcomes("a").len() == 2).await;
    world.settle_down().await;
    assert_eq!(world.outcomes("a"), ["success", "broken"]);
    assert_eq!(requests.load(Ordering::SeqCst), 2, "sent again before its retry is due");
    world.broker.cursor("a").unwrap().make_all_due();
    eventually("the second is settled", || world.lag("a") == 0).await;
    assert_eq!(world.outcomes("a"), ["success", "broken", "success"]);
}

#[tokio::test]
async fn what_an_idle_connection_says_unasked_is_no_answer() {
    for pause in [Duration::ZERO, Duration::from_millis(10)] {
        let (url, _subscriber) = raw(move |number, mut stream| async move {
            while read_request(&mut stream).await.is_some() {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                if number == 0 {
                    tokio::time::sleep(pause).await;
                    let late = b"HTTP/1.1 500 Late\r\nContent-Length: 0\r\n\r\n";
                    let _ = stream.write_all(late).await;
                }
            }
        })
        .await;
        let mut world = World::new();
        let mut narrow = subscription("a", &url);
        narrow.max_inflight = 1;
        world.declare_open(narrow).await;
        for number in 0..3 {
            world.publish([number.to_string()]);
            eventually("it is settled", || world.lag("a") == 0).await;
            world.settle_down().await;
        }
        assert_eq!(world.outcomes("a"), ["success"; 3]);
    }
}

#[tokio::test]
async fn a_failing_event_is_retried_and_does_not_block_the_next() {
    let subscriber = Subscriber::start().await;
    subscriber.answer("bad", vec![500; 5]);
    let mut world = World::new();
    let mut narrow = subscription("a", &subscriber.url());
    narrow.max_inflight = 1;
    world.declare_open(narrow).await;
    world.publish(["bad", "1", "2", "3"]);
    eventually("only the bad one is left", || world.lag("a") == 1).await;
    assert_eq!(subscriber.payloads(), ["bad", "1", "2", "3"]);
    let cursor = world.broker.cursor("a").unwrap();
    for attempts in 2..=6 {
        cursor.make_all_due();
        eventually("it is tried again", || world.outcomes("a").len() == attempts + 3).await;
    }
    assert_eq!(world.lag("a"), 0);
}

#[tokio::test]
async fn connections_are_shared_by_endpoints_of_one_origin() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    for uid in 0..20 {
        let endpoint = format!("{}{uid}", subscriber.url());
        let mut narrow = subscription(&uid.to_string(), &endpoint);
        narrow.max_inflight = 1;
        world.declare_open(narrow).await;
    }
    for number in 0..5 {
        world.publish([number.to_string()]);
        let is_settled = || (0..20).all(|uid| world.lag(&uid.to_string()) == 0);
        eventually("all is settled", is_settled).await;
    }
    assert_eq!(subscriber.count(), 100);
    assert!(subscriber.connections() <= 20, "{} connections", subscriber.connections());
}
