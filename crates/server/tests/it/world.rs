//! A publish port whose broker remembers, and whose API lists what the test says.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use eventbus_core::broker::{
    AppendError, BrokerStats, Capabilities, CloseError, CursorError, CursorId, CursorSpec,
    OpenError, Receipts,
};
use eventbus_core::limits;
use eventbus_core::testing::{KeptSpans, ManualClock, NoDeadLetters, SeededEntropy};
use eventbus_core::wire::error::FrontDialect;
use eventbus_core::{
    Batch, Broker, Catalog, Cursor, DeadLetters, Durability, Event, Position, Receipt, Source,
    Tracer,
};
use eventbus_resources::Freshness;
use eventbus_server::publish::{Applications, Publish};
use eventbus_server::{Latch, Readiness};
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::Service;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::task::TaskTracker;

pub(crate) const ORDER: &str = r#"{"source-id":"shop","event-type":"order.created",
    "event-type-version":"v1","event-id":"31109198-4d69-4ae0-972d-76117f3748c8",
    "event-time":"2012-11-01T22:08:41Z","data":{ "a" : 1 }}"#;

/// What a test has in its hands.
pub(crate) struct World {
    pub(crate) publish: Arc<Publish>,
    pub(crate) broker: Arc<Remembering>,
    pub(crate) catalog: watch::Sender<Arc<Catalog>>,
    pub(crate) versions: watch::Sender<Option<[u64; 4]>>,
    /// While true the API lists a Subscription that the catalog may not hold yet.
    pub(crate) lists_one: Arc<AtomicBool>,
    pub(crate) ready: Option<Latch>,
    /// What it records of its traces.
    pub(crate) spans: Arc<KeptSpans>,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

/// A broker that remembers its events, or fails as told.
#[derive(Default)]
pub(crate) struct Remembering {
    events: Mutex<Vec<Event>>,
    pub(crate) delayed: Mutex<Vec<(Event, u64)>>,
    pub(crate) delay_failure: Mutex<Option<AppendError>>,
    pub(crate) batches: Mutex<Vec<usize>>,
    pub(crate) failure: Mutex<Option<AppendError>>,
    pub(crate) hangs: AtomicBool,
    /// What hangs goes on.
    pub(crate) freed: Notify,
    pub(crate) repeats: AtomicBool,
    pub(crate) stats: Mutex<BrokerStats>,
}

impl World {
    pub(crate) fn new() -> Self {
        let (catalog, catalog_receiver) = watch::channel(Arc::default());
        let (versions, versions_receiver) = watch::channel(Some([0; 4]));
        let lists_one = Arc::<AtomicBool>::default();
        let broker = Arc::<Remembering>::default();
        let readiness = Readiness::default();
        let ready = Some(readiness.latch("the test"));
        let spans = Arc::<KeptSpans>::default();
        let (clock, entropy) = (Arc::new(ManualClock::at(0)), Arc::new(SeededEntropy::new(2)));
        let tracer = Tracer::new(spans.clone(), clock.clone(), entropy, 0.0);
        let publish = Publish {
            broker: broker.clone(),
            catalog: catalog_receiver,
            freshness: Freshness::new(api(lists_one.clone()), versions_receiver),
            entropy: Arc::new(SeededEntropy::new(1)),
            applications: Applications::default(),
            durability: None,
            front: FrontDialect::default(),
            clock,
            event_bytes: 1000,
            batch_bytes: 3000,
            batch_events: 10,
            in_work: Semaphore::new(2),
            arriving: Semaphore::new(2000),
            delaying: Semaphore::new(limits::BATCH_DELAYS_KIB),
            unfinished: TaskTracker::new(),
            readiness,
            telemetry: Arc::default(),
            tracer: Some(tracer),
        };
        Self { publish: Arc::new(publish), broker, catalog, versions, lists_one, ready, spans }
    }

    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Answer {
        let Ok(answer) = self.publish.clone().service().call(request).await;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.ask(Request::post(path).body(Full::new(body.into())).unwrap()).await
    }

    /// Makes the catalog hold one Subscription, for events of this source id.
    pub(crate) fn subscribe(&self, source_id: &str, event_type: &str) {
        let mut subscription = eventbus_core::testing::subscription("orders");
        subscription.identity.resource_version = 7;
        subscription.interest.source = Source::from_id(source_id.into());
        subscription.interest.event_type = event_type.into();
        self.catalog.send_replace(Arc::new(Catalog::new([Arc::new(subscription)], HashSet::new())));
        self.versions.send_replace(Some([7; 4]));
    }
}

/// An API that lists one Subscription of version 7, or none.
fn api(lists_one: Arc<AtomicBool>) -> kube::Client {
    let service = tower::service_fn(move |_: Request<kube::client::Body>| {
        let items = match lists_one.load(Ordering::SeqCst) {
            true => {
                r#"{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata",
                    "metadata":{"name":"orders","resourceVersion":"7"}}"#
            }
            false => "",
        };
        let list = format!(
            r#"{{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadataList",
                "metadata":{{"resourceVersion":"7"}},"items":[{items}]}}"#
        );
        async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(list)))) }
    });
    kube::Client::new(service, "default")
}

impl Remembering {
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }
}

impl Broker for Remembering {
    fn capabilities(&self) -> Capabilities {
        const LEVELS: &[Durability] = &[Durability::Accepted, Durability::Synced];
        Capabilities { durabilities: LEVELS, default_durability: Durability::Synced }
    }

    fn fits(&self, event: &Event) -> Result<(), AppendError> {
        let bytes = event.payload.len() as u64;
        let too_large = AppendError::TooLarge { bytes, max_bytes: 700 };
        if bytes > 700 { Err(too_large) } else { Ok(()) }
    }

    fn delay(
        &self,
        event: Event,
        due_ms: u64,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Receipts, AppendError>> {
        if let Some(error) = self.delay_failure.lock().unwrap().clone() {
            return Box::pin(std::future::ready(Err(error)));
        }
        self.delayed.lock().unwrap().push((event, due_ms));
        Box::pin(async move { Ok(Receipts { receipts: vec![Receipt::Delayed], durability }) })
    }

    fn append(
        &self,
        batch: Batch,
        durability: Durability,
    ) -> BoxFuture<'_, Result<Receipts, AppendError>> {
        Box::pin(async move {
            let freed = self.freed.notified();
            if self.hangs.load(Ordering::SeqCst) {
                freed.await;
            }
            if let Some(error) = self.failure.lock().unwrap().clone() {
                return Err(error);
            }
            let receipt = match self.repeats.load(Ordering::SeqCst) {
                true => Receipt::Duplicate,
                false => Receipt::Stored(Position(1)),
            };
            let receipts = vec![receipt; batch.events.len()];
            self.batches.lock().unwrap().push(batch.events.len());
            self.events.lock().unwrap().extend(batch.events);
            Ok(Receipts { receipts, durability })
        })
    }

    fn open(&self, _: CursorSpec) -> BoxFuture<'_, Result<Arc<dyn Cursor>, OpenError>> {
        Box::pin(async { Err(OpenError::Unavailable("publish opens no cursor".into())) })
    }

    fn forget(&self, _: CursorId) -> BoxFuture<'_, Result<(), CursorError>> {
        Box::pin(async { Ok(()) })
    }

    fn cursors(&self) -> BoxFuture<'_, Result<Vec<CursorId>, CursorError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn dead_letters(&self) -> &dyn DeadLetters {
        &NoDeadLetters
    }

    fn stats(&self) -> BrokerStats {
        self.stats.lock().unwrap().clone()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), CloseError>> {
        Box::pin(async { Ok(()) })
    }
}
