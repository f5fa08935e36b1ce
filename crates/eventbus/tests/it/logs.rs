//! The log of the running program: nobody who asks it for anything forges a line, and what is
//! logged can be changed while it runs.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::program::{run, within};
use crate::served::{Answer, Bus, event};
use crate::subscriber::Subscriber;

/// What would forge a line, a field or a colour where it is written as it is.
const EVIL: &str = "x\r\n2026-01-01T00:00:00.000000Z ERROR forged: forged\n\u{1b}[31m\u{9b}2J";

/// The same of what a CloudEvent may have in its attributes.
const PRINTED: &str =
    "\u{2028}\"} {\"level\":\"ERROR\",\"forged\":true,\"a\":\"\\\" forged=\"1\"\u{202e}";

/// The same where a header has it: CloudEvents' encoding.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

impl Bus {
    async fn post_with(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::post(format!("{}{path}", self.publish));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.ask(request.body(Full::new(body.to_owned().into())).unwrap()).await
    }
}

/// Sends bytes that need not be HTTP.
async fn send(url: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let _ = within(stream.read_to_end(&mut Vec::new())).await;
}

/// Says evil wherever a client may say anything, and large where it may be large.
async fn say_evil(bus: &Bus) {
    let huge = "\u{1b}[31m\n".repeat(100_000);
    let evil = encoded(EVIL);
    let subscriber = Subscriber::answering(|_| 500).await;
    bus.activate().await;
    bus.subscribe("orders", "order.created", &subscriber.url()).await;
    for (name, value) in [("event-id", EVIL), ("event-time", PRINTED), ("source-id", EVIL)] {
        let mut order = event("order.created", &json!(EVIL));
        order[name] = value.into();
        bus.post("/v1/events", order.to_string()).await;
        order[name] = huge.as_str().into();
        bus.post("/v1/events", order.to_string()).await;
    }
    for name in ["event-type", "event-type-version", EVIL, "durability", "delay_s"] {
        let mut order = event("order.created", &json!(1));
        order[name] = EVIL.into();
        bus.post("/v1/events", order.to_string()).await;
    }
    let printed = encoded(PRINTED);
    for (id, subject, status) in [(&evil, &evil, 400), (&printed, &printed, 204)] {
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", id.as_str()),
            ("ce-source", "shop"),
            ("ce-type", "order.created"),
            ("ce-eventtypeversion", "v1"),
            ("ce-subject", subject),
        ];
        assert_eq!(bus.post_with("/publish", "{}", &headers).await.status, status);
    }
    for (name, value) in [
        ("ce-specversion", "\u{9b}31m"),
        ("eventbus-durability", "\u{9b}31m\" forged=\"1"),
        ("eventbus-attribute-a", &*evil),
        ("source-id", "\" forged=\"1"),
        ("traceparent", "\" forged=\"1\u{9b}"),
        ("user-agent", "\u{9b}31m\" forged=\"1"),
        ("content-type", "\u{9b}31m\" forged=\"1"),
    ] {
        bus.post_with(
            "/v1/events",
            &event("order.created", &json!(1)).to_string(),
            &[(name, value)],
        )
        .await;
    }
    for url in [&bus.publish, &bus.api] {
        send(url, format!("GET /{EVIL} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        send(url, EVIL.as_bytes()).await;
        send(url, format!("GET /{evil}?{evil} HTTP/1.1\r\nHost: {evil}\r\n\r\n").as_bytes()).await;
        let bearer = "GET /apis HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \u{9b}\u{1b}";
        send(url, format!("{bearer}[31m\"\r\nX: \u{9b}\r\n\r\n").as_bytes()).await;
    }
    let mut count = 1;
    let is_it = |got: &Request<Bytes>| got.headers().contains_key("kyma-attribute-subject");
    while !subscriber.wait_for(count).await.iter().any(is_it) {
        count += 1;
    }
}

/// The lines a bus has logged to its end.
async fn lines_of(format: &str) -> Vec<String> {
    let mut bus = Bus::start_with(&["--log-level", "trace", "--log-format", format]).await;
    let notes = bus.notes();
    within(say_evil(&bus)).await;
    assert_eq!(bus.stop().await, 0);
    let notes = within(notes).await.unwrap();
    notes.split_terminator('\n').map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_forges_an_object_of_json() {
    let lines = lines_of("json").await;
    let mut targets = std::collections::BTreeSet::new();
    for line in &lines {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        let object = object.as_object().unwrap();
        assert!(object.len() >= 4 && !object.contains_key("forged"), "{line}");
        assert!(line.len() < 8 * 1024, "{line}");
        assert!(object.values().all(|value| !value.is_object()), "{line}");
        targets.insert(object["target"].as_str().unwrap().to_owned());
    }
    let objects = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut attempts = objects.filter(|line| line["message"] == "delivery attempted");
    assert!(attempts.any(|line| line["event_id"] == PRINTED), "it is told as it is: {targets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_forges_a_line_for_people() {
    let lines = lines_of("human").await;
    let mut evil = 0;
    for line in &lines {
        let words: Vec<_> = line.splitn(2, 'Z').collect();
        assert!(line.starts_with("20") && words[0].len() == 26, "{line}");
        assert!(!line.contains(|char: char| char.is_control() || char == '\u{2028}'), "{line:?}");
        assert!(!words[1].starts_with(" ERROR forged"), "{line}");
        assert!(!line.ends_with(" forged=\"1\""), "{line}");
        evil += usize::from(line.contains("forged"));
        assert!(line.len() < 8 * 1024, "{line}");
    }
    assert!(evil > 0, "some of it is logged");
}

#[tokio::test]
async fn a_level_is_changed_while_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("eventbus.toml");
    std::fs::write(&file, "log_level = \"warn\"").unwrap();
    let mut bus = Bus::start_with(&["--config", file.to_str().unwrap()]).await;
    assert_eq!(bus.post("/v1/events", "nonsense").await.status, 400);
    std::fs::write(&file, "log_level = \"info,eventbus_server=debug\"").unwrap();
    bus.hang_up();
    let note = bus.note().await;
    assert!(note.contains("the settings were read again log_level=\"info,"), "{note}");
    assert_eq!(bus.post("/v1/events", "nonsense").await.status, 400);
    let note = bus.note().await;
    assert!(note.contains("DEBUG eventbus_server::telemetry: a publish was refused"), "{note}");
    std::fs::write(&file, "log_level = \"loud\"").unwrap();
    bus.hang_up();
    let note = bus.note().await;
    assert!(note.contains(" WARN ") && note.contains("is no level"), "{note}");
    std::fs::write(&file, "broker = \"nats\"\nnats_password = \"geheim").unwrap();
    bus.hang_up();
    let note = bus.note().await;
    assert!(note.contains(" WARN ") && note.contains("line 2, column 24"), "{note}");
    assert!(!note.contains("geheim"), "{note}");
    assert_eq!(bus.post("/v1/events", "nonsense").await.status, 400);
    assert!(bus.note().await.contains("a publish was refused"), "nothing changed");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (code, notes) = bus.stop_told().await;
    assert_eq!((code, notes.matches("refused").count()), (0, 0), "{notes}");
}

#[tokio::test]
async fn what_ends_the_process_is_a_line_of_its_log() {
    let bus = Bus::start().await;
    let directory = bus.data_dir();
    let args = ["serve", "--data-dir", directory.to_str().unwrap()];
    let listen = ["--publish-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"];
    let ended = run(&[&args[..], &listen, &["--log-format", "json"]].concat(), "").await;
    let lines: Vec<Value> =
        ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!((ended.code, last["level"].as_str()), (2, Some("ERROR")), "{last}");
    assert!(last["error"].as_str().unwrap().contains("another"), "{last}");
}
