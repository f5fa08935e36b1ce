//! A collector: takes spans as OTLP and as Zipkin's JSON, and keeps them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use prost::Message as _;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A span as it was told, in either form.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) trace_id: String,
    pub(crate) id: String,
    pub(crate) parent_id: Option<String>,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) began_us: u64,
    pub(crate) took_us: u64,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) has_failed: bool,
}

/// The collector of a test.
pub(crate) struct Collector {
    pub(crate) url: String,
    kept: Arc<Kept>,
    _tasks: JoinSet<()>,
}

struct Kept {
    status: AtomicU16,
    rejected: AtomicI64,
    spans: Mutex<Vec<Told>>,
    batches: Mutex<Vec<usize>>,
}

impl Collector {
    /// A collector that answers as one does.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kept = Arc::new(Kept {
            status: AtomicU16::new(202),
            rejected: AtomicI64::new(0),
            spans: Mutex::default(),
            batches: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        let served = kept.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let kept = served.clone();
                let service = service_fn(move |request| answer(kept.clone(), request));
                connections.spawn(async move {
                    let _ =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url, kept, _tasks: tasks }
    }

    /// Answers with this status from now on, and keeps nothing unless it is one of success.
    pub(crate) fn answers(&self, status: u16) {
        self.kept.status.store(status, Ordering::SeqCst);
    }

    /// Says of each request from now on that so many of its spans are rejected.
    #[allow(dead_code, reason = "the program's tests need a collector that takes all")]
    pub(crate) fn rejects(&self, spans: i64) {
        self.kept.rejected.store(spans, Ordering::SeqCst);
    }

    /// What it was told so far.
    pub(crate) fn spans(&self) -> Vec<Told> {
        self.kept.spans.lock().unwrap().clone()
    }

    /// The spans of each request so far.
    pub(crate) fn batches(&self) -> Vec<usize> {
        self.kept.batches.lock().unwrap().clone()
    }

    /// Waits until it was told what is asked for.
    pub(crate) async fn wait(&self, is_enough: impl Fn(&[Told]) -> bool) -> Vec<Told> {
        let waited = tokio::time::timeout(Duration::from_secs(30), async {
            while !is_enough(&self.spans()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let is_told = waited.await.is_ok();
        assert!(is_told, "not told in time: {:#?}", self.spans());
        self.spans()
    }
}

async fn answer(
    kept: Arc<Kept>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let status = kept.status.load(Ordering::SeqCst);
    let media_type = head.headers["content-type"].to_str().unwrap();
    let told = match (head.uri.path(), media_type) {
        ("/v1/traces", "application/x-protobuf") => of_otlp(&body),
        ("/api/v2/spans", "application/json") => of_zipkin(&body),
        other => panic!("{other:?}"),
    };
    kept.batches.lock().unwrap().push(told.len());
    if status < 300 {
        kept.spans.lock().unwrap().extend(told);
    }
    let rejected_spans = kept.rejected.load(Ordering::SeqCst);
    let error_message = "too old".to_owned();
    let partial_success =
        (rejected_spans > 0).then_some(ExportTracePartialSuccess { rejected_spans, error_message });
    let said = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    Ok(Response::builder().status(status).body(Full::from(said)).unwrap())
}

fn of_otlp(body: &[u8]) -> Vec<Told> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut told = Vec::new();
    for of_resource in request.resource_spans {
        let resource = tags(of_resource.resource.unwrap().attributes);
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let kind = span.kind().as_str_name().trim_start_matches("SPAN_KIND_").to_owned();
            told.push(Told {
                trace_id: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent_id: Some(hex(&span.parent_span_id)).filter(|id| !id.is_empty()),
                kind,
                name: span.name,
                service: resource["service.name"].clone(),
                began_us: span.start_time_unix_nano / 1_000,
                took_us: (span.end_time_unix_nano - span.start_time_unix_nano) / 1_000,
                has_failed: span.status.is_some_and(|status| status.code == 2),
                tags: tags(span.attributes),
            });
        }
    }
    told
}

fn tags(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |attribute: KeyValue| match attribute.value.unwrap().value.unwrap() {
        any_value::Value::StringValue(text) => (attribute.key, text),
        any_value::Value::IntValue(number) => (attribute.key, number.to_string()),
        other => panic!("{other:?}"),
    };
    attributes.into_iter().map(text).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_zipkin(body: &[u8]) -> Vec<Told> {
    let spans: Vec<Value> = serde_json::from_slice(body).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let told = |span: &Value| {
        let tags = span["tags"].as_object().into_iter().flatten();
        let tags: BTreeMap<_, _> =
            tags.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
        Told {
            trace_id: text(&span["traceId"]),
            id: text(&span["id"]),
            parent_id: span["parentId"].as_str().map(str::to_owned),
            kind: text(&span["kind"]),
            name: text(&span["name"]),
            service: text(&span["localEndpoint"]["serviceName"]),
            began_us: span["timestamp"].as_u64().unwrap(),
            took_us: span["duration"].as_u64().unwrap(),
            has_failed: tags.contains_key("error"),
            tags,
        }
    };
    spans.iter().map(told).collect()
}
