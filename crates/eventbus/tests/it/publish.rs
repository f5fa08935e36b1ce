//! `eventbus publish` against servers that stand in for the bus.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::program::{Ended, run};
use crate::server::{Server, answer};

const PUBLISHED: &str = r#"{"event-id":"1","status":"published","reason":"stored"}"#;

/// A server that answers one request after the other from a list, the last for ever, and keeps what
/// it was sent.
async fn scripted(answers: Vec<Response<String>>) -> (Server, Arc<Mutex<Vec<Value>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let kept = events.clone();
    let server = Server::start(move |request: Request<Bytes>| {
        assert_eq!(request.uri().path(), "/v1/events");
        assert_eq!(request.headers()["content-type"], "application/json");
        let mut kept = kept.lock().unwrap();
        let answer = answers[kept.len().min(answers.len() - 1)].clone();
        kept.push(serde_json::from_slice(request.body()).unwrap());
        async { answer }
    })
    .await;
    (server, events)
}

async fn publish(server: &Server, args: &[&str], input: &str) -> Ended {
    let url = server.url("/v1/events");
    run(&[&["publish", "--url", &url], args].concat(), input).await
}

const ONE: &[&str] =
    &["--event-type", "order.created", "--source-id", "shop", "--data", "{\"n\":1}"];

#[tokio::test]
async fn one_event_is_posted_and_its_answer_printed() {
    let (server, events) = scripted(vec![answer(200, &format!("{PUBLISHED}\n"))]).await;
    let given = ["--event-id", "31109198-4d69-4ae0-972d-76117f3748c8"];
    let time = ["--event-time", "2012-11-01T22:08:41+00:00"];
    let ended = publish(&server, &[ONE, &given, &time].concat(), "").await;
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (0, &*format!("200 {PUBLISHED}\n")),
        "{ended:?}"
    );
    assert_eq!(
        *events.lock().unwrap(),
        [json!({
            "source-id": "shop", "event-type": "order.created", "event-type-version": "v1",
            "event-id": "31109198-4d69-4ae0-972d-76117f3748c8",
            "event-time": "2012-11-01T22:08:41+00:00", "data": {"n": 1},
        })]
    );
}

#[tokio::test]
async fn a_source_in_three_parts_and_a_payload_from_standard_input_or_a_file() {
    let (server, events) = scripted(vec![answer(200, PUBLISHED)]).await;
    let source = ["--source-namespace", "com.github", "--source-type", "commerce"];
    let rest = ["--source-environment", "stage", "--event-type", "a", "--event-type-version", "v2"];
    let ended = publish(&server, &[&source[..], &rest, &["--data", "-"]].concat(), " [1] \n").await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "\"text\"\n").unwrap();
    let at = format!("@{}", file.path().display());
    let ended = publish(&server, &[&source[..], &rest, &["--data", &at]].concat(), "").await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let events = events.lock().unwrap();
    let source = json!({"source-namespace": "com.github", "source-type": "commerce",
        "source-environment": "stage"});
    assert_eq!(events[0]["source"], source);
    assert_eq!(events[0]["event-type-version"], "v2");
    assert!(events[0]["event-time"].as_str().unwrap().ends_with('Z'));
    assert_eq!((&events[0]["data"], &events[1]["data"]), (&json!([1]), &json!("text")));
}

#[tokio::test]
async fn a_refusal_shows_the_error_body_and_fails() {
    let (server, events) =
        scripted(vec![answer(400, "{\"type\":\"validation_violation\"}\n")]).await;
    let ended = publish(&server, ONE, "").await;
    assert_eq!(ended.code, 1);
    assert_eq!(ended.stdout, "400 {\"type\":\"validation_violation\"}\n");
    assert!(ended.stderr.contains("1 of 1 not published"), "{ended:?}");
    assert_eq!(events.lock().unwrap().len(), 1, "a 400 is final");
}

#[tokio::test]
async fn patience_is_honoured_and_has_an_end() {
    let wait = |status| {
        let mut wait = answer(status, "{}");
        wait.headers_mut().insert("retry-after", "0".parse().unwrap());
        wait
    };
    let all = vec![wait(429), wait(503), wait(507), answer(200, PUBLISHED)];
    let (server, events) = scripted(all).await;
    assert_eq!(publish(&server, ONE, "").await.code, 0);
    assert_eq!(events.lock().unwrap().len(), 4);

    let (server, events) = scripted(vec![wait(503)]).await;
    let ended = publish(&server, &[ONE, &["--tries", "3"]].concat(), "").await;
    assert_eq!((ended.code, ended.stdout.as_str()), (1, "503 {}\n"));
    assert_eq!(events.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn nobody_there_is_a_failure() {
    let (server, _) = scripted(vec![answer(200, PUBLISHED)]).await;
    let url = server.url("/");
    drop(server);
    let ended = run(&[&["publish", "--url", &url], ONE].concat(), "").await;
    assert_eq!(ended.code, 1);
    assert!(ended.stdout.starts_with("--- ") && ended.stdout.contains("refused"), "{ended:?}");
}

#[tokio::test]
async fn lines_are_in_flight_together_and_answered_in_order() {
    let both = Arc::new(Barrier::new(2));
    let arrived = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |request: Request<Bytes>| {
        let (both, number) = (both.clone(), arrived.fetch_add(1, Ordering::SeqCst));
        async move {
            let event: Value = serde_json::from_slice(request.body()).unwrap();
            if number < 2 {
                // Answered only when the second is there too: they must be under way together.
                both.wait().await;
            }
            let status = if event["data"] == 4 { 400 } else { 200 };
            let outcome = if event["data"] == 3 { "ignored" } else { "published" };
            answer(status, &format!("{{\"status\":\"{outcome}\",\"data\":{}}}", event["data"]))
        }
    })
    .await;
    let lines =
        "{\"data\":1}\n\n{\"data\":2,\"event-type\":\"b\"}\n{\"data\":3}\nnonsense\n{\"data\":4}";
    let args = [
        "--lines",
        "--event-type",
        "a",
        "--source-id",
        "shop",
        "--concurrency",
        "2",
        "--batch",
        "1",
    ];
    let ended = publish(&server, &args, lines).await;
    assert_eq!(ended.code, 1);
    let results: Vec<&str> = ended.stdout.lines().collect();
    assert!(results[0].starts_with("5: --- not a JSON object"), "{ended:?}");
    assert_eq!(results[1..], ["6: 400 {\"status\":\"published\",\"data\":4}"]);
    assert!(
        ended.stderr.contains("2 published, 1 ignored, 0 duplicate, 1 rejected, 1 not sent"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn wrong_usage_is_told_apart_from_failure() {
    let source = ["--source-id", "shop"];
    let event = ["--event-type", "a", "--data", "1"];
    for args in [
        &[][..],
        &event,
        &[&source[..], &["--event-type", "a"]].concat(),
        &[&source[..], &event, &["--source-namespace", "n"]].concat(),
        &[&event[..], &["--source-namespace", "n", "--source-type", "t"]].concat(),
        &[&source[..], &event, &["--url", "ftp://127.0.0.1/"]].concat(),
        &[&source[..], &event, &["--concurrency", "0"]].concat(),
        &[&source[..], &["--event-type", "a", "--data", "{"]].concat(),
        &[&source[..], &["--event-type", "a", "--data", "@/does/not/exist"]].concat(),
        &["--lines", "--data", "-"],
        &["--lines", "--event-id", "31109198-4d69-4ae0-972d-76117f3748c8"],
        &["--lines", "--batch", "0"],
        &["--lines", "--cloudevents", "--source-id", "shop"],
        &[&source[..], &event, &["--cloudevents"]].concat(),
        &[&source[..], &event, &["--batch", "2"]].concat(),
        &[&source[..], &event, &["--attribute", "=eu"]].concat(),
        &[&source[..], &event, &["--delay-s", "5", "--deliver-at", "t"]].concat(),
    ] {
        let ended = run(&[&["publish"], args].concat(), "").await;
        assert_eq!(ended.code, 2, "{args:?} {ended:?}");
        assert!(!ended.stderr.is_empty());
    }
}

#[tokio::test]
async fn every_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&["completions", shell], "").await;
        assert_eq!(ended.code, 0);
        assert!(ended.stdout.contains("--fail-rate") || ended.stdout.contains("fail-rate"));
    }
    assert_eq!(run(&["completions", "abacus"], "").await.code, 2);
}
