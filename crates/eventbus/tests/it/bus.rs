//! A stand-in for a bus: just enough of one for the benchmark to measure, with flaws to find.
//!
//! It keeps everything in memory, delivers each event once, at once, and answers the handful of
//! Kubernetes requests the benchmark makes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::program::within;
use crate::server::{Server, answer};

/// What is wrong with the bus, if anything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Flaw {
    None,
    /// Answers one event with `ignored`.
    Ignores,
    /// Answers one event with 503.
    Refuses,
    /// Never delivers one event.
    Loses,
    /// Delivers one event twice.
    Repeats,
    /// Delivers one event with a payload that is not quite the published one.
    Corrupts,
    /// Delivers one event under the id of another.
    Confuses,
    /// Delivers one event to a Subscription of another type.
    Misdirects,
    /// Delivers everything late.
    Lags,
}

/// The number of the event that the flaw befalls: well after the warm-up of a short run began.
const BEFALLEN: usize = 40;

pub(crate) struct Bus {
    server: Server,
    state: Arc<Mutex<State>>,
    _directory: tempfile::TempDir,
    pub(crate) kubeconfig: String,
}

struct State {
    flaw: Flaw,
    subscriptions: Vec<Value>,
    is_activated: bool,
    namespaces: Vec<String>,
    /// Namespaces that were deleted.
    deleted: Vec<String>,
    published: usize,
    /// Deliveries that wait for the activation.
    waiting: Vec<Delivery>,
    deliveries: JoinSet<()>,
    client: Client<HttpConnector, Full<Bytes>>,
}

#[derive(Clone)]
struct Delivery {
    endpoint: String,
    event_id: String,
    payload: Bytes,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "event-id")]
    event_id: String,
    #[serde(rename = "event-type")]
    event_type: String,
    data: Box<RawValue>,
}

impl Bus {
    pub(crate) async fn start(flaw: Flaw) -> Self {
        let state = Arc::new(Mutex::new(State {
            flaw,
            subscriptions: Vec::new(),
            is_activated: false,
            namespaces: Vec::new(),
            deleted: Vec::new(),
            published: 0,
            waiting: Vec::new(),
            deliveries: JoinSet::new(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }));
        let shared = state.clone();
        let server = Server::start(move |request| {
            let answer = shared.lock().unwrap().answer(&request);
            async { answer }
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: '{}'}}}}]\n\
             users: [{{name: u, user: {{token: t}}}}]\n",
            server.url("")
        );
        std::fs::write(&path, config).unwrap();
        let kubeconfig = path.to_str().unwrap().to_owned();
        Self { server, state, _directory: directory, kubeconfig }
    }

    pub(crate) fn publish_url(&self) -> String {
        self.server.url("/v1/events")
    }

    /// Waits until so many events were published.
    pub(crate) async fn until_published(&self, count: usize) {
        within(async {
            while self.state.lock().unwrap().published < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Whether a namespace was made, and each one removed again.
    pub(crate) fn is_cleaned_up(&self) -> bool {
        let state = self.state.lock().unwrap();
        !state.deleted.is_empty() && state.namespaces.is_empty()
    }
}

impl State {
    fn answer(&mut self, request: &Request<Bytes>) -> Response<String> {
        let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
        if path == ["v1", "events"] {
            return self.publish(request.body());
        }
        if path == ["v1", "events", "batch"] {
            return self.publish_batch(request.body());
        }
        assert_eq!(request.headers()["authorization"], "Bearer t");
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        match (request.method(), path.last(), path[path.len() - 2]) {
            (&Method::POST, Some(&"namespaces"), _) => {
                self.namespaces.push(body["metadata"]["name"].as_str().unwrap().to_owned());
                answer(201, &body.to_string())
            }
            (&Method::POST, Some(&"subscriptions"), _) => {
                self.subscriptions.push(body.clone());
                answer(201, &body.to_string())
            }
            (&Method::POST, Some(&"eventactivations"), _) => {
                self.is_activated = true;
                for delivery in std::mem::take(&mut self.waiting) {
                    self.deliver(delivery);
                }
                answer(201, &body.to_string())
            }
            (&Method::GET, Some(&"subscriptions"), _) => self.list(),
            (&Method::GET, Some(name), "namespaces") => {
                match self.namespaces.iter().any(|one| one == name) {
                    true => answer(200, &json!({"metadata": {"name": name}}).to_string()),
                    false => status(404),
                }
            }
            (&Method::DELETE, Some(name), "namespaces") => {
                self.namespaces.retain(|one| one != name);
                self.deleted.push((*name).to_owned());
                self.subscriptions.clear();
                self.is_activated = false;
                status(200)
            }
            _ => status(404),
        }
    }

    fn list(&self) -> Response<String> {
        let is_true = if self.is_activated { "True" } else { "False" };
        let condition = |kind| json!({"type": kind, "status": is_true});
        let mut items = self.subscriptions.clone();
        for item in &mut items {
            item["status"]["conditions"] =
                json!([condition("events-activated"), condition("ready")]);
        }
        let list = json!({"apiVersion": "eventing.kyma.cx/v1alpha1", "kind": "SubscriptionList",
            "metadata": {}, "items": items});
        answer(200, &list.to_string())
    }

    fn publish(&mut self, body: &Bytes) -> Response<String> {
        let event: Event = serde_json::from_slice(body).unwrap();
        match self.publish_event(event) {
            Some(result) => answer(200, &format!("{result}\n")),
            None => answer(503, r#"{"status":503,"type":"service_unavailable"}"#),
        }
    }

    fn publish_batch(&mut self, body: &Bytes) -> Response<String> {
        let events: Vec<Event> = serde_json::from_slice(body).unwrap();
        let refused = || json!({"status": "rejected", "error": {"status": 503}});
        let results: Vec<Value> = events
            .into_iter()
            .map(|event| {
                let id = event.event_id.clone();
                let mut result = self.publish_event(event).unwrap_or_else(refused);
                result["event-id"] = id.into();
                result
            })
            .collect();
        let mut answer = answer(200, &json!({ "results": results }).to_string());
        answer.headers_mut().insert("eventbus-durability", "synced".parse().unwrap());
        answer
    }

    /// The result; none if the event is refused.
    fn publish_event(&mut self, event: Event) -> Option<Value> {
        let number = self.published;
        self.published += 1;
        let is = |flaw| self.flaw == flaw && number == BEFALLEN;
        if is(Flaw::Refuses) {
            return None;
        }
        let mut wanted_by: HashMap<String, u32> = HashMap::new();
        for subscription in &self.subscriptions {
            let is_other = is(Flaw::Misdirects);
            if (subscription["spec"]["event_type"] == event.event_type) != is_other {
                let endpoint = subscription["spec"]["endpoint"].as_str().unwrap().to_owned();
                wanted_by.insert(endpoint, 1 + u32::from(is(Flaw::Repeats)));
            }
        }
        let mut outcome = if wanted_by.is_empty() { "ignored" } else { "published" };
        if is(Flaw::Ignores) {
            outcome = "ignored";
        }
        let mut payload = event.data.get().to_owned();
        if is(Flaw::Corrupts) {
            payload = payload.replace("xx", "xy");
        }
        let mut event_id = event.event_id.clone();
        if is(Flaw::Confuses) {
            event_id.replace_range(35.., "f");
        }
        if !is(Flaw::Loses) {
            for (endpoint, times) in wanted_by {
                let (event_id, payload) = (event_id.clone(), payload.clone().into());
                let delivery = Delivery { endpoint, event_id, payload };
                (0..times).for_each(|_| self.deliver(delivery.clone()));
            }
        }
        let id = event.event_id;
        Some(json!({"event-id": id, "status": outcome, "reason": "because"}))
    }

    fn deliver(&mut self, delivery: Delivery) {
        if !self.is_activated {
            return self.waiting.push(delivery);
        }
        let client = self.client.clone();
        let delay = if self.flaw == Flaw::Lags { Duration::from_secs(2) } else { Duration::ZERO };
        self.deliveries.spawn(async move {
            tokio::time::sleep(delay).await;
            let request = Request::post(&delivery.endpoint)
                .header("Content-Type", "application/json")
                .header("Kyma-Event-Id", &delivery.event_id)
                .body(Full::new(delivery.payload));
            // A bad endpoint is not this bus's concern.
            let _ = client.request(request.unwrap()).await;
        });
    }
}

fn status(code: u16) -> Response<String> {
    let (status, reason) = if code < 400 { ("Success", "") } else { ("Failure", "NotFound") };
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": status,
        "reason": reason, "message": reason, "code": code});
    answer(code, &body.to_string())
}
