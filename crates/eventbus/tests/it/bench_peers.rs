//! `eventbus bench` against other buses: stand-ins that give the answers their makers document, and
//! deliver what they took as they do.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::program::{Ended, run};
use crate::server::{Server, answer};

const SHORT: &str = "--connections 4 --events 100 --warm-up 20ms --payload 200 --json";

/// Posts on what a peer has taken.
#[derive(Clone)]
struct Deliveries {
    client: Client<HttpConnector, Full<Bytes>>,
    under_way: Arc<Mutex<JoinSet<()>>>,
}

impl Deliveries {
    fn new() -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, under_way: Arc::default() }
    }

    /// Until it is taken, as a peer would.
    fn deliver(&self, to: String, headers: HeaderMap, body: Bytes) {
        let client = self.client.clone();
        self.under_way.lock().unwrap().spawn(async move {
            loop {
                let mut request = Request::post(&to).body(Full::new(body.clone())).unwrap();
                *request.headers_mut() = headers.clone();
                match client.request(request).await {
                    Ok(answer) if answer.status().is_success() => return,
                    _ => tokio::task::yield_now().await,
                }
            }
        });
    }
}

async fn bench(args: &str) -> Ended {
    let args: Vec<&str> = ["bench"].into_iter().chain(args.split_whitespace()).collect();
    run(&args, "").await
}

fn result(ended: &Ended) -> Value {
    assert_eq!(ended.code, 0, "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["result"]["deliveries"], report["result"]["events"], "{report}");
    report["result"].clone()
}

/// A port that is free now: a peer's subscriptions name it before the run begins.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The attributes of a CloudEvent in binary mode, as they are passed on.
fn attributes(headers: &HeaderMap) -> HeaderMap {
    let is_passed_on =
        |name: &HeaderName| name.as_str().starts_with("ce-") || name == http::header::CONTENT_TYPE;
    headers
        .clone()
        .into_iter()
        .filter_map(|(name, value)| Some((name?, value)))
        .filter(|(name, _)| is_passed_on(name))
        .collect()
}

/// A Knative broker with one trigger: ingress answers 202 without a body, 404 elsewhere; what it
/// passes on has `Prefer: reply` and attributes of its own.
async fn knative(subscriber: u16) -> Server {
    let deliveries = Deliveries::new();
    Server::start(move |request| {
        let status = match (request.method(), request.uri().path()) {
            (&Method::POST, "/default/broker") => 202,
            _ => 404,
        };
        if status == 202 {
            let mut headers = attributes(request.headers());
            headers.insert("prefer", "reply".parse().unwrap());
            headers.insert("ce-knativearrivaltime", "2026-01-01T00:00:00Z".parse().unwrap());
            let to = format!("http://127.0.0.1:{subscriber}/0");
            deliveries.deliver(to, headers, request.into_body());
        }
        async move { answer(status, "") }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_knative_broker_is_measured() {
    let port = free_port();
    let broker = knative(port).await;
    let to = format!("--target knative --subscriber-listen 127.0.0.1:{port}");
    let url = broker.url("/default/broker");
    for more in ["", "--subscriber-failures 20%", "--format cloudevents-structured"] {
        let ended = bench(&format!("{to} --url {url} {SHORT} {more}")).await;
        let told = format!("type eventbus.bench.t00000 (version v1) to http://127.0.0.1:{port}/0");
        assert!(ended.stderr.contains(&told), "{ended:?}");
        let result = result(&ended);
        assert_eq!(result["failed"].as_u64() > Some(0), more.contains("failures"), "{result}");
    }
    let ended = bench(&format!("{to} --url {} {SHORT}", broker.url("/default/none"))).await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("404"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_arrives_the_subscriptions_are_asked_about() {
    let (port, other) = (free_port(), free_port());
    let broker = knative(other).await;
    let ended = bench(&format!(
        "--target knative --subscriber-listen 127.0.0.1:{port} --url {} {SHORT} --patience 300ms",
        broker.url("/default/broker")
    ))
    .await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("are the Subscriptions there as told above?"), "{ended:?}");
}

/// Kyma's publisher proxy answers 204, and 400 in text to what is no CloudEvent. Its dispatcher
/// passes events on in binary mode, with the type they were published with.
#[tokio::test(flavor = "multi_thread")]
async fn kymas_publisher_proxy_is_measured() {
    let port = free_port();
    let deliveries = Deliveries::new();
    let proxy = Server::start(move |request: Request<Bytes>| {
        let to = format!("http://127.0.0.1:{port}/0");
        let response = match proxied(&request) {
            Some((headers, body)) if request.uri().path() == "/publish" => {
                deliveries.deliver(to, headers, body);
                answer(204, "")
            }
            _ => answer(400, "not a CloudEvent"),
        };
        async move { response }
    })
    .await;
    for format in ["cloudevents-binary", "cloudevents-structured"] {
        let ended = bench(&format!(
            "--target kyma-proxy --subscriber-listen 127.0.0.1:{port} --url {} {SHORT} --format \
             {format}",
            proxy.url("/publish")
        ))
        .await;
        result(&ended);
    }
}

/// The event in binary mode, whichever it came in.
fn proxied(request: &Request<Bytes>) -> Option<(HeaderMap, Bytes)> {
    if request.headers().contains_key("ce-id") {
        return Some((attributes(request.headers()), request.body().clone()));
    }
    #[derive(serde::Deserialize)]
    struct Document {
        id: String,
        data: Box<RawValue>,
    }
    let document: Document = serde_json::from_slice(request.body()).ok()?;
    let mut headers = HeaderMap::new();
    headers.insert("ce-id", document.id.parse().unwrap());
    Some((headers, document.data.get().to_owned().into()))
}

/// What a Svix server keeps.
#[derive(Default)]
struct Kept {
    applications: Vec<Value>,
    event_types: Vec<String>,
    endpoints: Vec<Value>,
    events: u64,
}

/// A Svix server: 201 for what is made, 204 for what is deleted, 202 with the event's new id.
async fn svix(kept: Arc<Mutex<Kept>>) -> Server {
    let deliveries = Deliveries::new();
    Server::start(move |request: Request<Bytes>| {
        let answer = svix_answer(&mut kept.lock().unwrap(), &deliveries, &request);
        async move { answer }
    })
    .await
}

fn svix_answer(
    kept: &mut Kept,
    deliveries: &Deliveries,
    request: &Request<Bytes>,
) -> Response<String> {
    if request.headers().get("authorization").is_none_or(|token| token != "Bearer secret") {
        return answer(401, r#"{"code":"authentication_failed","detail":"Invalid token"}"#);
    }
    let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
    match (request.method(), &path[2..]) {
        (&Method::POST, ["app"]) => {
            kept.applications.push(body.clone());
            answer(201, &body.to_string())
        }
        (&Method::POST, ["event-type"]) => {
            kept.event_types.push(body["name"].as_str().unwrap().to_owned());
            answer(201, &body.to_string())
        }
        (&Method::POST, ["app", uid, "endpoint"]) => {
            assert_eq!(kept.applications[0]["uid"], *uid);
            let types = body["filterTypes"].as_array().unwrap();
            if !types.iter().all(|one| kept.event_types.iter().any(|known| one == known)) {
                return answer(422, r#"{"detail":[{"msg":"no such event type"}]}"#);
            }
            kept.endpoints.push(body.clone());
            answer(201, &body.to_string())
        }
        (&Method::POST, ["app", uid, "msg"]) => {
            assert_eq!(kept.applications[0]["uid"], *uid);
            svix_event(kept, deliveries, request.body())
        }
        (&Method::DELETE, ["app", _]) => {
            kept.applications.clear();
            answer(204, "")
        }
        (&Method::DELETE, ["event-type", name]) => {
            kept.event_types.retain(|one| one != name);
            answer(204, "")
        }
        _ => answer(404, r#"{"code":"not_found","detail":"Entity not found"}"#),
    }
}

fn svix_event(kept: &mut Kept, deliveries: &Deliveries, body: &Bytes) -> Response<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Event {
        event_type: String,
        event_id: String,
        payload: Box<RawValue>,
    }
    let event: Event = serde_json::from_slice(body).unwrap();
    kept.events += 1;
    let id = format!("msg_{}", kept.events);
    let mut headers = HeaderMap::new();
    headers.insert("svix-id", id.parse().unwrap());
    for endpoint in &kept.endpoints {
        if endpoint["filterTypes"][0] == event.event_type {
            let to = endpoint["url"].as_str().unwrap().to_owned();
            deliveries.deliver(to, headers.clone(), event.payload.get().to_owned().into());
        }
    }
    let kept = json!({"eventType": event.event_type, "id": id, "eventId": event.event_id,
        "payload": {}, "timestamp": "2026-01-01T00:00:00Z"});
    answer(202, &kept.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_svix_server_is_measured_and_left_as_it_was() {
    let kept = Arc::new(Mutex::new(Kept::default()));
    let server = svix(kept.clone()).await;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let to = format!("--target svix --url {} --token-file {}", server.url("/"), token.display());
    let ended = bench(&format!("{to} {SHORT} --event-types 3 --subscriptions 5")).await;
    assert!(!ended.stdout.contains("secret"), "a report does not tell the token");
    result(&ended);
    let left = std::mem::take(&mut *kept.lock().unwrap());
    assert_eq!((left.applications, left.event_types), (vec![], vec![]));
    assert_eq!(left.endpoints.len(), 5);
    std::fs::write(&token, "wrong").unwrap();
    let ended = bench(&format!("{to} {SHORT}")).await;
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("authentication_failed"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn anything_that_takes_a_post_is_measured() {
    let port = free_port();
    let deliveries = Deliveries::new();
    let server = Server::start(move |request: Request<Bytes>| {
        let to = format!("http://127.0.0.1:{port}/0");
        deliveries.deliver(to, HeaderMap::new(), request.into_body());
        async { answer(201, "taken") }
    })
    .await;
    let to = format!("--target post --url {}", server.url("/any?path"));
    let ended = bench(&format!("{to} {SHORT} --subscriber-listen 127.0.0.1:{port}")).await;
    result(&ended);
    // Publishing alone is not looked at any further, and says so.
    let quiet = Server::start(async |_| answer(200, "")).await;
    let to = format!("--target post --mode publish --url {}", quiet.url("/"));
    let ended = bench(&format!("{to} {}", SHORT.replace("--json", ""))).await;
    assert!(ended.stdout.contains("what becomes of them was not looked at"), "{ended:?}");
}
