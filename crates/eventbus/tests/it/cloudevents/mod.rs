//! CloudEvents through the running program: what goes in in one mode comes out the same in every
//! form of delivery.
//!
//! The specification's rules are written here once more, apart from the product's: a [`Said`] is
//! read out of what a subscriber got by these alone.

mod answers;
mod batches;
mod conformance;
mod mapping;
mod modes;
mod sdk;

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::served::{Answer, Bus};
use crate::subscriber::Subscriber;

const STRUCTURED: &str = "application/cloudevents+json";
const BATCHED: &str = "application/cloudevents-batch+json";

/// The source of the events of these tests, unless they say another.
const SOURCE: &str = "/mycontext";
/// The type of the events of these tests, unless they say another.
const TYPE: &str = "com.example.someevent";

/// What a CloudEvent says, in whatever form: its attributes by name, each as text, and its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    attributes: BTreeMap<String, String>,
    payload: Bytes,
}

impl Said {
    /// The event `id` of these tests, with these attributes beside.
    fn new(id: &str, more: &[(&str, &str)], payload: impl Into<Bytes>) -> Self {
        let least = [("specversion", "1.0"), ("id", id), ("source", SOURCE), ("type", TYPE)];
        let attributes =
            least.iter().chain(more).map(|(name, value)| (name.to_string(), value.to_string()));
        Self { attributes: attributes.collect(), payload: payload.into() }
    }

    /// Reads a request in binary mode.
    fn in_binary(request: &Request<Bytes>) -> Self {
        let mut attributes = BTreeMap::new();
        for name in request.headers().keys().filter_map(|name| name.as_str().strip_prefix("ce-")) {
            attributes.insert(name.to_owned(), header(request, &format!("ce-{name}")).unwrap());
        }
        assert!(!attributes.contains_key("datacontenttype"), "{request:?}");
        Self { attributes, payload: request.body().clone() }.of_type(request)
    }

    /// Reads a request in structured mode.
    fn in_structured(request: &Request<Bytes>) -> Self {
        assert_eq!(
            request.headers()["content-type"],
            "application/cloudevents+json; charset=utf-8"
        );
        assert!(!request.headers().keys().any(|name| name.as_str().starts_with("ce-")));
        let mut members: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(request.body()).unwrap();
        let data = (members.remove("data"), members.remove("data_base64"));
        let mut attributes: BTreeMap<String, String> = members
            .iter()
            .map(|(name, value)| (name.clone(), text(&serde_json::from_str(value.get()).unwrap())))
            .collect();
        let payload = match data {
            (None, None) => Bytes::new(),
            (None, Some(encoded)) => decoded(&encoded),
            (Some(encoded), None)
                if attributes["specversion"] == "0.3"
                    && attributes
                        .get("datacontentencoding")
                        .is_some_and(|name| name == "base64") =>
            {
                attributes.remove("datacontentencoding");
                decoded(&encoded)
            }
            (Some(data), None) => {
                let media_type = attributes.get("datacontenttype").map_or("", String::as_str);
                let is_json = media_type.split(';').next().unwrap().ends_with("json");
                match serde_json::from_str(data.get()).unwrap() {
                    Value::String(text) if !is_json => text.into(),
                    _ => data.get().to_owned().into(),
                }
            }
            (Some(_), Some(_)) => panic!("two payloads: {request:?}"),
        };
        Self { attributes, payload }
    }

    /// Reads a request in the contract's form, which says no version of CloudEvents.
    fn in_kyma(request: &Request<Bytes>) -> Self {
        let mut attributes = BTreeMap::new();
        let mut said = |name: &str, value: Option<String>| {
            attributes.extend(value.map(|text| (name.to_owned(), text)));
        };
        for (name, metadata) in [
            ("id", "kyma-event-id"),
            ("type", "kyma-event-type"),
            ("time", "kyma-event-time"),
            ("eventtypeversion", "kyma-event-type-version"),
            ("source", "kyma-source-id"),
        ] {
            said(name, header(request, metadata));
        }
        let part = |name: &str| header(request, &format!("kyma-source-{name}"));
        let parts = [part("environment"), part("namespace"), part("type")];
        if let [Some(environment), Some(namespace), Some(source_type)] = parts {
            said("source", Some(format!("/{environment}/{namespace}/{source_type}")));
        }
        for metadata in request.headers().keys() {
            if let Some(name) = metadata.as_str().strip_prefix("kyma-attribute-") {
                said(name, header(request, metadata.as_str()));
            }
        }
        Self { attributes, payload: request.body().clone() }.of_type(request)
    }

    /// The media type of a payload that is the whole body.
    fn of_type(mut self, request: &Request<Bytes>) -> Self {
        if let Some(media_type) = request.headers().get("content-type") {
            let media_type = media_type.to_str().unwrap().to_owned();
            self.attributes.insert("datacontenttype".into(), media_type);
        }
        self
    }

    /// Its headers in binary mode.
    fn headers(&self) -> Vec<(String, String)> {
        let named = |(name, value): (&String, &String)| match &**name {
            "datacontenttype" => ("content-type".to_owned(), value.clone()),
            name => (format!("ce-{name}"), encoded(value)),
        };
        self.attributes.iter().map(named).collect()
    }
}

/// The text of a header, its percent-codes decoded; every byte of it printable and plain.
fn header(request: &Request<Bytes>, name: &str) -> Option<String> {
    let mut values = request.headers().get_all(name).iter();
    let mut written = values.next()?.as_bytes();
    assert!(values.next().is_none(), "{name} twice: {request:?}");
    assert!(written.iter().all(|byte| (b'!'..=b'~').contains(byte)), "{name}: {request:?}");
    let mut decoded = Vec::new();
    while let [byte, rest @ ..] = written {
        let (meant, rest) = match (byte, rest) {
            (b'%', [high, low, rest @ ..]) => {
                let digits = std::str::from_utf8(&[*high, *low]).unwrap().to_owned();
                assert_eq!(digits, digits.to_uppercase(), "{name}: {request:?}");
                (u8::from_str_radix(&digits, 16).unwrap(), rest)
            }
            _ => (*byte, rest),
        };
        decoded.push(meant);
        written = rest;
    }
    Some(String::from_utf8(decoded).unwrap())
}

/// A text as a header has it.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'!' | b'#' | b'$' | b'&'..=b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn decoded(base64: &RawValue) -> Bytes {
    let text: String = serde_json::from_str(base64.get()).unwrap();
    BASE64_STANDARD.decode(text).unwrap().into()
}

/// An attribute's value as text.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A running bus, and a subscriber of each form to what is published on it.
struct Road {
    bus: Bus,
    kyma: Subscriber,
    binary: Subscriber,
    structured: Subscriber,
    /// How many sources there are Subscriptions to.
    sources: usize,
    /// How many events have arrived at each subscriber.
    arrived: usize,
}

/// What the three subscribers got of one event.
struct Arrived {
    kyma: Request<Bytes>,
    binary: Request<Bytes>,
    structured: Request<Bytes>,
}

impl Road {
    /// With Subscriptions to the events of these tests.
    async fn start() -> Self {
        Self::with(&[]).await
    }

    /// The same on a bus with flags.
    async fn with(flags: &[&str]) -> Self {
        let mut road = Self::empty(flags).await;
        let spec = json!({ "source_id": SOURCE, "event_type": TYPE, "event_type_version": "" });
        road.subscribe(&spec).await;
        road
    }

    /// Without a Subscription yet.
    async fn empty(flags: &[&str]) -> Self {
        Self {
            bus: Bus::start_with(flags).await,
            kyma: Subscriber::start().await,
            binary: Subscriber::start().await,
            structured: Subscriber::start().await,
            sources: 0,
            arrived: 0,
        }
    }

    /// Subscribes in each form to what `wanted` says in a Subscription's words, and activates the
    /// source of it.
    async fn subscribe(&mut self, wanted: &Value) {
        let number = self.sources;
        self.sources += 1;
        let parts = wanted.get("source").map(|source| {
            let part = |name: &str| source[format!("source_{name}")].clone();
            let of = json!({
                "environment": part("environment"), "namespace": part("namespace"),
                "type": part("type"),
            });
            ("remoteenvironment.kyma.cx", json!({ "source": of }))
        });
        let (group, spec) = parts.unwrap_or_else(|| {
            ("applicationconnector.kyma-project.io", json!({ "sourceId": wanted["source_id"] }))
        });
        let activation = json!({
            "apiVersion": format!("{group}/v1alpha1"), "kind": "EventActivation",
            "metadata": { "name": format!("source-{number}"), "namespace": "stage" },
            "spec": spec,
        });
        self.bus.create(&activation).await;
        for (format, subscriber) in [
            ("kyma", &self.kyma),
            ("cloudevents-binary", &self.binary),
            ("cloudevents-structured", &self.structured),
        ] {
            let name = format!("to-{number}-{format}");
            let mut spec = wanted.clone();
            spec["endpoint"] = subscriber.url().into();
            spec["delivery"] = json!({ "format": format });
            // So that they come in their order.
            spec["max_inflight"] = 1.into();
            let subscription = json!({
                "apiVersion": "eventing.kyma.cx/v1alpha1", "kind": "Subscription",
                "metadata": { "name": name, "namespace": "stage" }, "spec": spec,
            });
            self.bus.create(&subscription).await;
            self.bus.wait_for(&name, "events-activated", "True").await;
        }
    }

    /// POSTs to a path of the publish port.
    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request = Request::post(format!("{}{path}", self.bus.publish));
        for (name, value) in headers {
            request = request.header(*name, value.as_bytes());
        }
        self.bus.ask(request.body(Full::new(body.into())).unwrap()).await
    }

    /// Publishes in binary mode, and has it stored.
    async fn publish(&self, said: &Said) -> Answer {
        let headers = said.headers();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        stored(self.post("/publish", &headers, said.payload.clone()).await)
    }

    /// Publishes in structured mode, and has it stored.
    async fn publish_document(&self, document: &Value) -> Answer {
        let headers = [("content-type", STRUCTURED)];
        stored(self.post("/publish", &headers, document.to_string()).await)
    }

    /// The next event, as each subscriber got it.
    async fn next(&mut self) -> Arrived {
        self.arrived += 1;
        let next = async |subscriber: &Subscriber| {
            let mut got = subscriber.wait_for(self.arrived).await;
            got.swap_remove(self.arrived - 1)
        };
        Arrived {
            kyma: next(&self.kyma).await,
            binary: next(&self.binary).await,
            structured: next(&self.structured).await,
        }
    }

    /// The next event says this in every form.
    async fn brings(&mut self, said: &Said) {
        self.next().await.says(said);
    }
}

impl Arrived {
    /// It says this in every form.
    fn says(&self, said: &Said) {
        assert_eq!(Said::in_binary(&self.binary), *said, "binary");
        assert_eq!(Said::in_structured(&self.structured), *said, "structured");
        let mut said = said.clone();
        said.attributes.remove("specversion");
        assert_eq!(Said::in_kyma(&self.kyma), said, "kyma");
    }
}

/// Makes tests of scenarios: each over the log, and over NATS. A scenario takes the bus's flags.
macro_rules! over_each_broker {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use crate::nats_server::{NatsServer, Options};

            #[tokio::test]
            async fn over_the_log() {
                super::$scenario(&[]).await;
            }

            #[tokio::test]
            async fn over_nats() {
                let Some(server) = NatsServer::start(Options::default()).await else { return };
                let nats = ["--broker", "nats", "--nats-url", &server.url()];
                // What any server has room for.
                let room = ["--max-bytes", "67108864", "--backlog-max-bytes", "67108864"];
                super::$scenario(&[nats, room].concat()).await;
            }
        }
    )+};
}

use over_each_broker;

/// The answer to an event that is stored.
fn stored(answer: Answer) -> Answer {
    assert_eq!((answer.status, told(&answer, "status")), (204, "published"), "{answer:?}");
    assert_eq!(answer.body, "");
    answer
}

/// What a header of the answer tells.
fn told<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let value = answer.headers.get(format!("eventbus-{name}"));
    value.map_or("", |value| value.to_str().unwrap())
}

/// A CloudEvent as a document: the required attributes, and these members.
fn document(id: &str, more: &Value) -> Value {
    let mut all = json!({ "specversion": "1.0", "id": id, "source": SOURCE, "type": TYPE });
    for (name, value) in more.as_object().unwrap() {
        all[name] = value.clone();
    }
    all
}
