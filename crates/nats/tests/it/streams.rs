//! The streams on the server: made once, brought up to date, and never taken from somebody else.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use eventbus_nats::{NatsConfig, OpenError};
use futures::StreamExt;

use crate::server::{NatsServer, Options};
use crate::world::*;

const STREAMS: [&str; 5] = ["EB_EVENTS", "EB_RETRY", "EB_DELAY", "EB_DEAD", "EB_COUNTS"];

/// What the server says of each stream of ours.
async fn described(url: &str) -> Vec<stream::Info> {
    let server = jetstream::new(async_nats::connect(url).await.unwrap());
    let mut streams = Vec::new();
    for name in STREAMS {
        streams.push(server.get_stream(name).await.unwrap().cached_info().clone());
    }
    streams
}

/// All streams on the server, with what is in them.
async fn all(url: &str) -> Vec<(stream::Config, u64)> {
    let server = jetstream::new(async_nats::connect(url).await.unwrap());
    let found: Vec<_> = server.streams().collect().await;
    let mut all: Vec<_> = found.into_iter().map(|one| one.unwrap()).collect();
    all.sort_by(|one, other| one.config.name.cmp(&other.config.name));
    all.into_iter().map(|one| (one.config, one.state.messages)).collect()
}

#[tokio::test]
async fn a_second_start_changes_nothing() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let broker = usable(NatsConfig::at(server.url())).await;
    publish(&broker, "x").await.unwrap();
    drop(broker);
    let before = described(&server.url()).await;
    let broker = usable(NatsConfig::at(server.url())).await;
    let after = described(&server.url()).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before.config, before.created), (&after.config, after.created));
    }
    assert_eq!(after[0].state.messages, 1);
    takes(&cursor(&broker, "orders").await, &["x"]).await;
}

#[tokio::test]
async fn changed_settings_change_the_streams_and_no_event_is_lost() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let broker = usable(NatsConfig::at(server.url())).await;
    let orders = cursor(&broker, "orders").await;
    let events: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for event in &events {
        publish(&broker, event).await.unwrap();
    }
    takes(&orders, &events[..5]).await;
    drop((broker, orders));
    let hour = Duration::from_secs(3_600);
    let max_bytes = 64 * 1024 * 1024;
    let config = NatsConfig { max_bytes, age: hour, ..NatsConfig::at(server.url()) };
    let broker = usable(config).await;
    let [events_stream, ..] = &described(&server.url()).await[..] else { panic!("no streams") };
    assert_eq!(events_stream.config.max_bytes, 64 * 1024 * 1024);
    assert_eq!(events_stream.config.max_age, hour + hour / 4);
    takes(&cursor(&broker, "orders").await, &events[5..]).await;
}

/// What a foreign stream may look like, and what is said of it.
#[tokio::test]
async fn what_is_not_ours_is_refused_and_left_alone() {
    let mark =
        |format: &str| [("eventbus.format".to_owned(), format.to_owned())].into_iter().collect();
    let foreign = |name: &str, subject: &str| stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        ..Default::default()
    };
    let other_retention = stream::Config {
        metadata: mark("1"),
        retention: stream::RetentionPolicy::WorkQueue,
        ..foreign("EB_EVENTS", "ev.>")
    };
    let newer = stream::Config { metadata: mark("2"), ..foreign("EB_EVENTS", "ev.>") };
    let dead = foreign("EB_DEAD", "grateful");
    for (config, stream, words) in [
        (foreign("EB_EVENTS", "ev.>"), "EB_EVENTS", "it was not made by eventbus: use another"),
        (other_retention, "EB_EVENTS", "its retention is \"workqueue\", and must be \"limits\""),
        (newer, "EB_EVENTS", "it has format 2, and this program knows 1"),
        (foreign("THEIRS", "ev.*.x.y"), "EB_EVENTS", "the stream THEIRS takes its subjects"),
        (foreign("THEIRS", "lease.>"), "EB_RETRY", "the stream THEIRS takes its subjects"),
        (foreign("THEIRS", "delay.>"), "EB_DELAY", "the stream THEIRS takes its subjects"),
        (dead, "EB_DEAD", "it was not made by eventbus"),
    ] {
        let Some(server) = NatsServer::start(Options::default()).await else { return };
        let theirs = jetstream::new(async_nats::connect(server.url()).await.unwrap());
        let subject = config.subjects[0].replace('*', "z").replace('>', "a.b.c");
        theirs.create_stream(config).await.unwrap();
        theirs.publish(subject, "theirs".into()).await.unwrap().await.unwrap();
        let before = all(&server.url()).await;
        let refused = open(NatsConfig::at(server.url())).await.err().expect("it is refused");
        let text = refused.to_string();
        assert!(matches!(refused, OpenError::Stream { stream: named, .. } if named == stream));
        assert!(text.contains(stream) && text.contains(words), "{text}");
        assert!(text.contains("another account"), "it says what to do: {text}");
        assert_eq!(all(&server.url()).await, before, "nothing is changed");
    }
}

#[tokio::test]
async fn what_somebody_else_puts_among_the_events_is_stepped_over() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let broker = usable(NatsConfig::at(server.url())).await;
    let orders = cursor(&broker, "orders").await;
    publish(&broker, "one").await.unwrap();
    let theirs = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let subject = theirs.get_stream("EB_EVENTS").await.unwrap().get_raw_message(1).await.unwrap();
    for words in ["no head", "no base64", "no head of an event"] {
        let mut headers = async_nats::HeaderMap::new();
        match words {
            "no base64" => headers.insert("Eventbus-Head", "?"),
            "no head of an event" => headers.insert("Eventbus-Head", "AAAA"),
            _ => {}
        }
        let subject = subject.subject.clone();
        let put = theirs.publish_with_headers(subject, headers, words.into()).await.unwrap();
        put.await.unwrap();
    }
    publish(&broker, "two").await.unwrap();
    assert_eq!(takes(&orders, &["one", "two"]).await, 0);
    // Settled as well: it is not in the way of retention.
    until("nothing is left", || orders.stats().lag_events == 0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(orders.stats().dropped_events, 0, "what was no event is none lost");
}

#[tokio::test]
async fn a_server_with_less_room_than_max_bytes_says_so() {
    let jetstream = "max_file_store: 10MB".to_owned();
    let options = Options { jetstream, ..Options::default() };
    let Some(server) = NatsServer::start(options.clone()).await else { return };
    let refused = open(NatsConfig::at(server.url())).await.err().expect("it is refused");
    let text = refused.to_string();
    assert!(text.contains("EB_EVENTS") && text.contains("lower max_bytes"), "{text}");
    assert!(text.contains("max_file_store"), "{text}");
    assert_eq!(all(&server.url()).await, vec![]);
    let config = NatsConfig { max_bytes: 5_000_000, ..NatsConfig::at(server.url()) };
    publish(&usable(config).await, "x").await.unwrap();
}
