//! `eventbus publish --lines`: batches, over stand-ins for the bus and over the real one.

use std::io::Read;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::program::{Ended, run, start_seen, start_with, within};
use crate::resources::subscription;
use crate::served::Bus;
use crate::server::{Server, answer};

const SHOP: &[&str] = &["--event-type", "order.created", "--source-id", "shop"];

async fn publish(url: &str, args: &[&str], input: &str) -> Ended {
    run(&[&["publish", "--lines", "--url", url], args].concat(), input).await
}

/// Events with the payloads from 1 on, a line each.
fn lines(count: usize) -> String {
    (1..=count).map(|number| format!("{{\"data\":{number}}}\n")).collect()
}

/// A bus on which somebody asks for orders.
async fn bus_with_a_subscription() -> Bus {
    let bus = Bus::start().await;
    bus.create(&subscription("orders", "order.created", "http://127.0.0.1:9/")).await;
    bus
}

/// What one request to a stand-in carried: its path, its content type and its events.
type Got = (String, String, Vec<Value>);

/// A stand-in that publishes everything, except that it first answers `first`, if that is given.
async fn stand_in(first: Option<u16>) -> (Server, Arc<Mutex<Vec<Got>>>) {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = requests.clone();
    let server = Server::start(move |request: Request<Bytes>| {
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        let content_type = request.headers()["content-type"].to_str().unwrap().to_owned();
        let path = request.uri().path().to_owned();
        let mut kept = kept.lock().unwrap();
        let published = json!({"status": "published"});
        let mut said = match &body {
            Value::Array(events) => {
                let results: Vec<_> = events.iter().map(|_| published.clone()).collect();
                answer(200, &json!({ "results": results }).to_string())
            }
            _ => answer(200, &published.to_string()),
        };
        if let Some(status) = first.filter(|_| kept.is_empty()) {
            said = answer(status, "{}");
            said.headers_mut().insert("retry-after", "0".parse().unwrap());
        }
        let events = body.as_array().cloned().unwrap_or_else(|| vec![body]);
        kept.push((path, content_type, events));
        async { said }
    })
    .await;
    (server, requests)
}

fn payloads((_, _, events): &Got) -> Vec<u64> {
    events.iter().map(data).collect()
}

fn data(event: &Value) -> u64 {
    event["data"].as_u64().unwrap()
}

#[tokio::test]
async fn lines_go_together_and_a_last_one_alone() {
    let (server, requests) = stand_in(None).await;
    let args = [SHOP, &["--batch", "3", "--attribute", "region=eu", "--delay-s", "9"]].concat();
    let ended = publish(&server.url("/v1/events"), &args, &lines(7)).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{ended:?}");
    assert!(ended.stderr.contains("7 published, 0 ignored, 0 duplicate, 0 rejected, 0 not sent"));
    let mut requests = requests.lock().unwrap();
    requests.sort_by_key(payloads);
    let all: Vec<Vec<u64>> = requests.iter().map(payloads).collect();
    assert_eq!(all, [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
    let paths: Vec<&str> = requests.iter().map(|(path, ..)| path.as_str()).collect();
    assert_eq!(paths, ["/v1/events/batch", "/v1/events/batch", "/v1/events"]);
    for (_, content_type, events) in requests.iter() {
        assert_eq!(content_type, "application/json");
        for event in events {
            assert_eq!(event["attributes"], json!({"region": "eu"}));
            assert_eq!(event["delay_s"], 9);
            assert_eq!(event["event-id"].as_str().unwrap().len(), 36, "{event}");
        }
    }
}

#[tokio::test]
async fn where_there_is_no_path_for_batches_each_event_goes_alone() {
    let (server, requests) = stand_in(None).await;
    let ended = publish(&server.url("/shop/v1/events"), SHOP, &lines(3)).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|(path, ..)| path == "/shop/v1/events"));
}

#[tokio::test]
async fn a_batch_that_is_asked_for_patience_is_sent_again_as_it_was() {
    for status in [429, 503, 507] {
        let (server, requests) = stand_in(Some(status)).await;
        let ended = publish(&server.url("/v1/events"), SHOP, &lines(5)).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        let requests = requests.lock().unwrap();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0], requests[1], "the same ids, too");
    }
    let (server, requests) = stand_in(Some(413)).await;
    let ended = publish(&server.url("/v1/events"), SHOP, &lines(2)).await;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (1, "1: 413 {}\n2: 413 {}\n"),
        "a 413 is final"
    );
    assert_eq!(requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn events_of_a_batch_that_are_asked_for_patience_are_sent_again_alone() {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = requests.clone();
    let server = Server::start(move |request: Request<Bytes>| {
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        let events = body.as_array().cloned().unwrap_or_else(|| vec![body]);
        let mut kept = kept.lock().unwrap();
        kept.push(events.clone());
        let refused =
            |status: u16| json!({"status": "rejected", "error": {"status": status, "type": "t"}});
        let result = |event: &Value| match (event["data"].as_u64().unwrap(), kept.len()) {
            (2, 1) => refused(503),
            (3, 1..=2) => refused(507),
            (4, _) => refused(429),
            (5, _) => refused(400),
            _ => json!({"status": "published"}),
        };
        let results: Vec<Value> = events.iter().map(result).collect();
        let mut said = match &results[..] {
            [only] if only["error"].is_object() => answer(429, &only["error"].to_string()),
            [only] => answer(200, &only.to_string()),
            _ => answer(200, &json!({ "results": results }).to_string()),
        };
        said.headers_mut().insert("retry-after", "0".parse().unwrap());
        async { said }
    })
    .await;
    let args = [SHOP, &["--tries", "4"]].concat();
    let ended = publish(&server.url("/v1/events"), &args, &lines(5)).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    let error = |status: u16| json!({"status": status, "type": "t"});
    assert_eq!(ended.stdout, format!("4: 429 {}\n5: 400 {}\n", error(429), error(400)));
    assert!(ended.stderr.contains("3 published, 0 ignored, 0 duplicate, 2 rejected, 0 not sent"));
    let requests = requests.lock().unwrap();
    let sent: Vec<Vec<_>> = requests.iter().map(|all| all.iter().map(data).collect()).collect();
    assert_eq!(sent, [vec![1, 2, 3, 4, 5], vec![2, 3, 4], vec![3, 4], vec![4]]);
    assert_eq!(requests[0][3], requests[3][0], "the same id, too");
}

#[tokio::test]
async fn what_answers_without_a_word_of_a_bus_has_not_published() {
    let server = Server::start(|_| async { answer(200, "<html>hi</html>") }).await;
    for (input, lines) in [("{}\n", 1), ("{}\n{}\n", 2)] {
        let ended = publish(&server.url("/v1/events"), SHOP, input).await;
        assert_eq!(ended.code, 1);
        let told = format!("{lines} × 200 is no answer of a bus (is the URL right?): <html>");
        assert!(ended.stderr.contains(&told), "{ended:?}");
    }
}

#[tokio::test]
async fn an_interrupt_ends_it_with_what_is_known() {
    let arrived = Arc::new(Barrier::new(3));
    let arriving = arrived.clone();
    let server = Server::start(move |request: Request<Bytes>| {
        let arriving = arriving.clone();
        async move {
            let events: Value = serde_json::from_slice(request.body()).unwrap();
            match data(&events[0]) {
                1 => answer(200, r#"{"results":[{"status":"published"},{"status":"published"}]}"#),
                3 => {
                    arriving.wait().await;
                    let mut busy = answer(503, "{}");
                    busy.headers_mut().insert("retry-after", "30".parse().unwrap());
                    busy
                }
                _ => {
                    arriving.wait().await;
                    std::future::pending().await
                }
            }
        }
    })
    .await;
    let url = server.url("/v1/events");
    let args = [&["publish", "--lines", "--url", &url, "--batch", "2"], SHOP].concat();
    let running = start_with(&args, &lines(6)).await;
    arrived.wait().await;
    running.interrupt();
    let (status, stdout, stderr) = running.ended().await;
    assert_eq!(status.code(), Some(130), "{stderr}");
    let told: Vec<&str> = stdout.lines().collect();
    assert_eq!(told, ["3: 503 {}", "4: 503 {}", "5: --- interrupted", "6: --- interrupted"]);
    assert!(stderr.contains("2 published, 0 ignored, 0 duplicate, 2 rejected, 2 not sent"));
    assert!(stderr.ends_with("error: interrupted\n"), "{stderr}");
}

#[tokio::test]
async fn a_person_sees_that_it_waits_and_why() {
    let answers = Arc::new(Mutex::new(vec![answer(200, r#"{"status":"published"}"#)]));
    let mut busy = answer(503, "{}");
    busy.headers_mut().insert("retry-after", "1".parse().unwrap());
    answers.lock().unwrap().push(busy);
    let server = Server::start(move |_| {
        let said = answers.lock().unwrap().pop().unwrap();
        async { said }
    })
    .await;
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    unlockpt(&near).unwrap();
    let far = ptsname(&near, Vec::new()).unwrap();
    let far = std::fs::File::options().write(true).open(far.to_str().unwrap()).unwrap();
    let url = server.url("/v1/events");
    let args = [&["publish", "--url", &url, "--data", "1"], SHOP].concat();
    let mut running = start_seen(&args, far.into());
    let seen = tokio::task::spawn_blocking(move || {
        let (mut near, mut seen) = (std::fs::File::from(near), Vec::new());
        // It ends with an error when the other side is closed.
        let _ = near.read_to_end(&mut seen);
        String::from_utf8_lossy(&seen).into_owned()
    });
    assert!(within(running.wait()).await.unwrap().success());
    let seen = within(seen).await.unwrap();
    assert!(seen.contains("waits: 503, again in 1 s"), "{seen}");
}

#[tokio::test]
async fn where_nobody_answers_the_rest_of_the_input_is_left() {
    let (server, _) = stand_in(None).await;
    let url = server.url("/v1/events");
    drop(server);
    let args = [SHOP, &["--batch", "10", "--concurrency", "1"]].concat();
    let ended = publish(&url, &args, &lines(1000)).await;
    assert_eq!(ended.code, 1);
    assert_eq!(ended.stdout.lines().count(), 10, "{ended:?}");
    assert!(ended.stderr.contains("what follows line 10 was not sent"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_says_of_each_line_what_became_of_it() {
    let bus = bus_with_a_subscription().await;
    let id = "31109198-4d69-4ae0-972d-76117f3748c8";
    let twice = format!("{{\"event-id\":\"{id}\",\"data\":1}}\n");
    let broken = "{\"data\":1,\"event-type\":\"a b\"}\n{\"data\":null}\nnonsense\n";
    let ignored = "{\"data\":1,\"event-type\":\"nobody.asks\"}\n";
    let input = format!("{}\n{twice}{broken}{ignored}{twice}{}", lines(120), lines(120));
    let ended = publish(&format!("{}/v1/events", bus.publish), SHOP, &input).await;
    assert_eq!(ended.code, 1);
    let failed: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(failed.len(), 3, "{ended:?}");
    assert!(failed[0].starts_with("123: 400 {\"status\":400,"), "{ended:?}");
    assert!(failed[1].starts_with("124: 400 {\"status\":400,"), "{ended:?}");
    assert!(failed[2].starts_with("125: --- not a JSON object"), "{ended:?}");
    for wanted in [
        "241 published, 1 ignored, 1 duplicate, 2 rejected, 1 not sent",
        "1 × 400 invalid_field: event-type: line 123",
        "1 × 400 missing_field: data: line 124",
        "3 of 246 not published",
    ] {
        assert!(ended.stderr.contains(wanted), "{wanted}: {}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_events_go_in_batches_too() {
    let bus = bus_with_a_subscription().await;
    let event = |id: &str| {
        let event = json!({"specversion": "1.0", "type": "order.created", "source": "shop",
            "eventtypeversion": "v1", "id": id, "data": {"n": 1}});
        format!("{event}\n")
    };
    let no_id = event("").replace("\"id\":\"\",", "");
    let input = format!("{}{}{no_id}{no_id}{{}}\n", event("a"), event("a"));
    for path in ["/publish", "/v1/events"] {
        let ended = publish(&format!("{}{path}", bus.publish), &["--cloudevents"], &input).await;
        assert_eq!(ended.code, 1);
        assert!(ended.stdout.starts_with("5: 400 "), "{ended:?}");
        let repeats = if path == "/publish" { 1 } else { 2 };
        let counts = format!("{} published, 0 ignored, {repeats} duplicate", 4 - repeats);
        assert!(ended.stderr.contains(&counts), "{path}: {ended:?}");
    }
}

/// Passes connections on to `to`, except that of the first nothing comes back: what is sent there
/// is taken, and its answer lost.
async fn forgetful_proxy(to: String) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/events", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        let (mut lost, _) = listener.accept().await.unwrap();
        let mut bus = TcpStream::connect(&to).await.unwrap();
        let mut bytes = vec![0; 64 * 1024];
        loop {
            tokio::select! {
                read = lost.read(&mut bytes) => {
                    let read = read.unwrap();
                    bus.write_all(&bytes[..read]).await.unwrap();
                }
                answered = bus.readable() => break answered.unwrap(),
            }
        }
        drop(lost);
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(&to).await.unwrap();
            connections.spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (url, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_is_lost_is_sent_again_and_stored_once() {
    let bus = bus_with_a_subscription().await;
    let to = bus.publish.trim_start_matches("http://").to_owned();
    let (url, _proxy) = forgetful_proxy(to).await;
    let ended = publish(&url, SHOP, &lines(20)).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{ended:?}");
    assert!(ended.stderr.contains("0 published, 0 ignored, 20 duplicate"), "{ended:?}");
}
