//! `eventbus listen` as a subscriber.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::program::{Running, run, start, within};

/// Starts a subscriber on a free port; returns it with the URL it says.
async fn listen(args: &[&str]) -> (Running, Uri) {
    let mut running = start(&[&["listen", "--listen", "127.0.0.1:0"], args].concat());
    let first = running.note().await;
    let url: Uri = first.strip_prefix("listening on ").unwrap().parse().unwrap();
    // The hint: with the very URL, and with all it takes.
    let mut hint = String::new();
    loop {
        let line = running.note().await;
        if line.starts_with("eventbus publish") {
            break;
        }
        hint.push_str(&format!("{line}\n"));
    }
    assert!(hint.contains(&format!("endpoint: {url}\n")), "{hint}");
    for kind in ["Subscription", "EventActivation"] {
        assert!(hint.contains(&format!("kind: {kind}\n")), "{hint}");
    }
    (running, url)
}

async fn deliver(url: &Uri, body: &'static str) -> StatusCode {
    let request = Request::post(url)
        .header("Content-Type", "application/json")
        .header("Kyma-Event-Type", "order.created")
        .header("Kyma-Source-Id", "shop")
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    within(client.request(request)).await.unwrap().status()
}

#[tokio::test]
async fn deliveries_are_printed_until_the_count_is_reached() {
    let (mut running, url) = listen(&["--count", "2"]).await;
    assert_eq!(deliver(&url, "{\"order\":1}").await, 200);
    let line = running.line().await;
    let event = "#1 answered 200 order.created from shop 11 bytes {\"order\":1}";
    assert!(line.ends_with(event), "{line}");
    assert_eq!(deliver(&url, "").await, 200);
    let (status, stdout, stderr) = running.ended().await;
    assert_eq!(status.code(), Some(0));
    assert_eq!(stdout.lines().count(), 1);
    assert!(stderr.contains("2 deliveries, 0 answered with a failure"), "{stderr}");
}

#[tokio::test]
async fn json_has_the_headers_and_the_payload() {
    let (mut running, url) = listen(&["--json", "--status", "503"]).await;
    assert_eq!(deliver(&url, "{\"order\":1}").await, 503);
    let line: Value = serde_json::from_str(&running.line().await).unwrap();
    assert_eq!(line["body"], json!({"order": 1}));
    assert_eq!(line["headers"]["kyma-event-type"], "order.created");
    assert_eq!((&line["number"], &line["answered"]), (&json!(1), &json!(503)));
}

#[tokio::test]
async fn failures_come_as_asked_for() {
    for (args, expected) in [
        (&["--fail-rate", "1"][..], 500),
        (&["--fail-rate", "1", "--status", "418"], 418),
        (&["--fail-rate", "0", "--status", "418"], 200),
        (&["--status", "202"], 202),
    ] {
        let (_running, url) = listen(&[args, &["--quiet"]].concat()).await;
        assert_eq!(deliver(&url, "1").await.as_u16(), expected, "{args:?}");
    }
}

#[tokio::test]
async fn about_the_asked_share_fails() {
    let (running, url) = listen(&["--fail-rate", "0.5", "--quiet"]).await;
    let mut failed = 0;
    for _ in 0..64 {
        failed += u32::from(deliver(&url, "1").await == 500);
    }
    // Outside by chance once in 2^40 runs or so.
    assert!((4..=60).contains(&failed), "{failed} of 64");
    running.terminate();
    let (status, stdout, stderr) = running.ended().await;
    assert_eq!((status.code(), stdout.as_str()), (Some(0), ""));
    assert!(stderr.contains(&format!("64 deliveries, {failed} answered")), "{stderr}");
}

#[tokio::test]
async fn a_delay_lets_others_overtake() {
    let (_slow, slow_url) = listen(&["--delay", "2s"]).await;
    let (_fast, fast_url) = listen(&[]).await;
    let slow = async {
        deliver(&slow_url, "1").await;
        "slow"
    };
    let fast = async {
        // Begun later, done earlier.
        tokio::task::yield_now().await;
        deliver(&fast_url, "1").await;
        "fast"
    };
    let first = tokio::select! {
        biased;
        first = slow => first,
        first = fast => first,
    };
    assert_eq!(first, "fast");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let (_running, url) = listen(&[]).await;
    let address: SocketAddr = url.authority().unwrap().as_str().parse().unwrap();
    let ended = run(&["listen", "--listen", &address.to_string()], "").await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains(&address.to_string()), "{ended:?}");
}

#[tokio::test]
async fn wrong_usage_is_told_apart_from_failure() {
    for args in [
        &["--fail-rate", "2"][..],
        &["--status", "99"],
        &["--delay", "200"],
        &["--count", "0"],
        &["--listen", "nowhere"],
        &["--json", "--quiet"],
    ] {
        let ended = run(&[&["listen"], args].concat(), "").await;
        assert_eq!(ended.code, 2, "{args:?} {ended:?}");
    }
}
