//! The Events of a Subscription, as whoever describes it finds them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eventbus_core::delivery::Outcome;
use eventbus_core::reconcile::{DeliveryHealth, Health, World, reconcile};
use eventbus_resources::StatusWriter;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams};
use kube::client::Body;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::{Bench, PATIENCE, only, subscription};

const INACTIVE: World = world(false, DeliveryHealth::Untried);
const DELIVERING: World = world(true, DeliveryHealth::Delivering);
const FAILING: World = world(true, DeliveryHealth::Failing(Outcome::Status(503)));

/// A world of which no more is known.
pub(crate) const fn world(is_activated: bool, delivery: DeliveryHealth) -> World {
    World { is_activated, health: Health { delivery, backlog: None } }
}

/// A bench with one Subscription, and a writer of what becomes of it.
struct Story {
    bench: Bench,
    writer: Arc<StatusWriter>,
    tasks: JoinSet<()>,
}

impl Story {
    async fn of(definition: usize) -> Self {
        let mut bench = Bench::start().await;
        bench.create(definition, "stage", subscription()).await;
        bench.catalog(|catalog| catalog.subscriptions().len() == 1).await;
        let client = bench.client.clone();
        let (writer, tasks) = Self::start(&bench, client);
        Self { bench, writer, tasks }
    }

    fn start(bench: &Bench, client: kube::Client) -> (Arc<StatusWriter>, JoinSet<()>) {
        let writer = StatusWriter::new(client, bench.clock.clone());
        let (running, mut tasks) = (writer.clone(), JoinSet::new());
        tasks.spawn(async move { running.run().await });
        (writer, tasks)
    }

    /// Another process goes on.
    fn restart(&mut self, client: kube::Client) {
        (self.writer, self.tasks) = Self::start(&self.bench, client);
    }

    /// The world becomes so; the status says it.
    async fn becomes(&mut self, world: World) {
        let now_ms = 1_541_196_521_000;
        let one = only(&self.bench.watched.catalog.borrow().clone());
        let wanted = reconcile(&one, world, now_ms);
        self.writer.want(&one, wanted.clone());
        self.bench.catalog(|catalog| only(catalog).status == wanted).await;
    }

    async fn until_told(&self, reason: &str, count: i32) -> Event {
        until_told(&self.bench.client, "stage", reason, count).await
    }
}

/// Waits until an Event of `namespace` tells of `reason` so often.
pub(crate) async fn until_told(
    client: &kube::Client,
    namespace: &str,
    reason: &str,
    count: i32,
) -> Event {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let told = async {
        loop {
            let events = api.list(&ListParams::default()).await.unwrap();
            let is_told = |event: &Event| {
                event.reason.as_deref() == Some(reason) && event.count == Some(count)
            };
            if let Some(event) = events.into_iter().find(is_told) {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("it is told")
}

#[tokio::test]
async fn describe_finds_them_in_both_groups() {
    for (definition, api_version) in
        [(0, "eventing.kyma.cx/v1alpha1"), (2, "eventing.kyma-project.io/v1alpha1")]
    {
        let mut story = Story::of(definition).await;
        story.becomes(INACTIVE).await;
        story.until_told("NotActivated", 1).await;
        let one = only(&story.bench.watched.catalog.borrow().clone());
        // What kubectl 1.37 asks for, of `describe` and of `events --for`.
        let described = format!(
            "involvedObject.uid={},involvedObject.name=orders,involvedObject.namespace=stage,\
             involvedObject.kind=Subscription,involvedObject.apiVersion={api_version}",
            one.identity.uid
        );
        let api: Api<Event> = Api::namespaced(story.bench.client.clone(), "stage");
        let found = api.list(&ListParams::default().fields(&described)).await.unwrap();
        let mut found: Vec<_> = found.into_iter().map(|event| event.reason.unwrap()).collect();
        found.sort();
        assert_eq!(found, ["NoEventActivation", "NotActivated"]);
    }
}

#[tokio::test]
async fn an_event_says_what_the_condition_says_and_who_tells_it() {
    let mut story = Story::of(0).await;
    story.becomes(INACTIVE).await;
    story.becomes(DELIVERING).await;
    let warning = story.until_told("NoEventActivation", 1).await;
    assert_eq!(warning.type_.as_deref(), Some("Warning"));
    let text = warning.message.unwrap();
    assert!(text.contains("create one there to get these events"), "{text}");
    assert_eq!(warning.source.unwrap().component.as_deref(), Some("eventbus"));
    assert_eq!(warning.reporting_component.as_deref(), Some("eventbus"));
    let normal = story.until_told("Delivering", 1).await;
    assert_eq!(normal.type_.as_deref(), Some("Normal"));
    assert_eq!(normal.first_timestamp, normal.last_timestamp);
    assert!(normal.first_timestamp.is_some());
}

#[tokio::test]
async fn what_happens_again_is_counted_in_the_event_that_is_there() {
    let mut story = Story::of(0).await;
    story.becomes(FAILING).await;
    let first = story.until_told("EndpointFailing", 1).await;
    story.becomes(DELIVERING).await;
    story.until_told("Delivering", 1).await;
    story.bench.clock.advance(Duration::from_secs(60));
    // Another process knows nothing of it but what is in the API.
    story.restart(story.bench.client.clone());
    let worse = DeliveryHealth::Failing(Outcome::Timeout);
    story.becomes(world(true, worse)).await;
    let again = story.until_told("EndpointFailing", 2).await;
    assert_eq!(again.metadata.uid, first.metadata.uid);
    assert_eq!(again.first_timestamp, first.first_timestamp);
    let between = again.last_timestamp.unwrap().0.duration_since(first.last_timestamp.unwrap().0);
    assert_eq!(between.as_secs(), 60);
    assert!(again.message.unwrap().contains("does not answer within"));
}

#[tokio::test]
async fn an_api_that_takes_no_events_holds_up_no_status() {
    let mut story = Story::of(0).await;
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = refused.clone();
    let service = story.bench.api.service().map_request(move |mut request: http::Request<Body>| {
        if request.uri().path().ends_with("/events") {
            counted.fetch_add(1, Ordering::Relaxed);
            *request.uri_mut() = http::Uri::from_static("/api/v1/namespaces/gone/events");
        }
        request
    });
    story.restart(kube::Client::new(service, "default"));
    story.becomes(INACTIVE).await;
    story.becomes(DELIVERING).await;
    let tried = async {
        while refused.load(Ordering::Relaxed) < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tried).await.expect("each was tried");
    let api: Api<Event> = Api::all(story.bench.client.clone());
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 0);
}
