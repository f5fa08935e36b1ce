//! Our resources over the embedded API server: watch, freshness, status, Events.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod access;
mod lease;
mod notices;
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eventbus_apiserver::{ApiServer, Config};
use eventbus_core::manifest::ConditionType;
use eventbus_core::reconcile::{DeliveryHealth, reconcile};
use eventbus_core::testing::{ManualClock, SeededEntropy};
use eventbus_core::{Catalog, Source, Subscription};
use eventbus_resources::{DEFINITIONS, Freshness, StatusWriter, Watched};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// No test waits longer than this; a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

struct Bench {
    client: kube::Client,
    watched: Watched,
    tasks: JoinSet<()>,
    api: ApiServer,
    clock: Arc<ManualClock>,
    _directory: TempDir,
}

impl Bench {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_541_196_521_000));
        let api = ApiServer::open(Config {
            path: directory.path().join("resources.db"),
            audit: None,
            definitions: DEFINITIONS.map(|definition| definition.manifest()).into(),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(1)),
        })
        .await
        .unwrap();
        let client = kube::Client::new(api.service(), "default");
        let (watched, task) = eventbus_resources::watch(client.clone(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(task);
        Self { client, watched, tasks, api, clock, _directory: directory }
    }

    fn resource(&self, definition: usize, namespace: &str) -> Api<DynamicObject> {
        let resource = DEFINITIONS[definition].api_resource();
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    async fn create(&self, definition: usize, namespace: &str, spec: Value) -> DynamicObject {
        let resource = DEFINITIONS[definition].api_resource();
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": { "name": "orders", "namespace": namespace },
            "spec": spec,
        }))
        .unwrap();
        self.resource(definition, namespace).create(&PostParams::default(), &object).await.unwrap()
    }

    async fn catalog(&mut self, holds: impl Fn(&Catalog) -> bool) -> Arc<Catalog> {
        let catalog = self.watched.catalog.wait_for(|catalog| holds(catalog));
        tokio::time::timeout(PATIENCE, catalog)
            .await
            .expect("the catalog gets there")
            .unwrap()
            .clone()
    }
}

fn subscription() -> Value {
    json!({
        "endpoint": "http://127.0.0.1:1/", "event_type": "order.created",
        "event_type_version": "v1", "source_id": "shop",
    })
}

fn only(catalog: &Catalog) -> Arc<Subscription> {
    let [one] = &catalog.subscriptions().collect::<Vec<_>>()[..] else { panic!("one") };
    Arc::clone(one)
}

#[tokio::test]
async fn both_groups_and_both_source_forms_end_in_one_catalog() {
    let mut bench = Bench::start().await;
    let parts = json!({
        "source_environment": "stage", "source_namespace": "com.github", "source_type": "commerce",
    });
    let mut era_a = subscription();
    era_a.as_object_mut().unwrap().remove("source_id");
    era_a["source"] = parts;
    bench.create(0, "stage", era_a).await;
    bench.create(2, "other", subscription()).await;
    bench.create(1, "other", json!({ "sourceId": "shop" })).await;
    let source = json!({ "environment": "stage", "namespace": "com.github", "type": "commerce" });
    bench.create(3, "stage", json!({ "source": source })).await;
    let three = Source::from_id("/stage/com.github/commerce".into());
    let shop = Source::from_id("shop".into());
    let catalog = bench
        .catalog(|catalog| {
            catalog.subscriptions().len() == 2
                && catalog.is_activated(&"stage".into(), &three)
                && catalog.is_activated(&"other".into(), &shop)
        })
        .await;
    assert!(!catalog.is_activated(&"stage".into(), &shop));
    let defaults = catalog.subscriptions().find(|s| s.interest.source == shop).unwrap();
    assert_eq!((defaults.max_inflight, defaults.timeout), (10, Duration::from_secs(1)));
    assert_eq!(defaults.identity.created_ms, 1_541_196_521_000);
}

#[tokio::test]
async fn what_is_deleted_is_lacked_and_a_recreation_is_somebody_else() {
    let mut bench = Bench::start().await;
    assert!(!Catalog::default().lacks("anybody"), "nothing is known yet");
    let first = bench.create(0, "stage", subscription()).await.metadata.uid.unwrap();
    bench.catalog(|catalog| catalog.subscriptions().len() == 1).await;
    bench.resource(0, "stage").delete("orders", &DeleteParams::default()).await.unwrap();
    let second = bench.create(0, "stage", subscription()).await.metadata.uid.unwrap();
    let catalog = bench.catalog(|catalog| catalog.subscription(&second).is_some()).await;
    assert!(catalog.lacks(&first) && !catalog.lacks(&second));
}

#[tokio::test]
async fn once_fresh_the_catalog_holds_whatever_was_created_before() {
    let mut bench = Bench::start().await;
    bench.catalog(|_| true).await;
    let freshness = Freshness::new(bench.client.clone(), bench.watched.versions.clone());
    for round in 0..50 {
        let namespace = format!("n{round}");
        let created = bench.create(round % 2 * 2, &namespace, subscription()).await;
        assert!(freshness.reached().await, "round {round}");
        let catalog = bench.watched.catalog.borrow().clone();
        let uid = created.metadata.uid.unwrap();
        assert!(catalog.subscription(&uid).is_some(), "round {round}");
        bench
            .resource(round % 2 * 2, &namespace)
            .delete("orders", &DeleteParams::default())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn while_nothing_changes_nothing_is_listed_again() {
    let mut bench = Bench::start().await;
    bench.create(0, "stage", subscription()).await;
    bench.catalog(|catalog| catalog.subscriptions().len() == 1).await;
    let lists = Arc::new(AtomicUsize::new(0));
    let counted = lists.clone();
    let service =
        bench.api.service().map_request(move |request: http::Request<kube::client::Body>| {
            let is_page = request.uri().query().is_some_and(|query| query.ends_with("limit=1"));
            counted.fetch_add(usize::from(!is_page), Ordering::Relaxed);
            request
        });
    let client = kube::Client::new(service, "default");
    let freshness = Freshness::new(client, bench.watched.versions.clone());
    for _ in 0..10 {
        assert!(freshness.reached().await);
    }
    assert_eq!(lists.load(Ordering::Relaxed), 2, "one for each group");
    let activation = json!({ "displayName": "Shop", "sourceId": "shop" });
    bench.create(1, "other", activation).await;
    let lease = json!({ "metadata": { "name": "eventbus" }, "spec": { "holderIdentity": "one" } });
    let lease: Lease = serde_json::from_value(lease).unwrap();
    let leases: Api<Lease> = Api::namespaced(bench.client.clone(), "other");
    let taken = leases.create(&PostParams::default(), &lease).await.unwrap();
    leases.replace("eventbus", &PostParams::default(), &taken).await.unwrap();
    assert!(freshness.reached().await);
    assert_eq!(lists.load(Ordering::Relaxed), 2, "what else is written wakes nobody");
    bench.create(0, "elsewhere", subscription()).await;
    assert!(freshness.reached().await);
    assert_eq!(lists.load(Ordering::Relaxed), 3, "only of the group that it is in");
}

#[tokio::test]
async fn without_a_watch_freshness_is_not_reached() {
    let bench = Bench::start().await;
    bench.create(0, "stage", subscription()).await;
    let (_sender, behind) = watch::channel(Some([0; 4]));
    let freshness = Freshness::new(bench.client.clone(), behind);
    assert!(!freshness.reached().await);
}

#[tokio::test]
async fn a_status_is_written_and_a_stale_wish_is_asked_for_again() {
    let mut bench = Bench::start().await;
    bench.create(0, "stage", subscription()).await;
    let writer = StatusWriter::new(bench.client.clone(), bench.clock.clone());
    let running = writer.clone();
    bench.tasks.spawn(async move { running.run().await });
    let stale = only(&*bench.catalog(|catalog| catalog.subscriptions().len() == 1).await);
    // Somebody writes in between, so the first wish speaks of a version that is gone.
    let label = json!({ "metadata": { "labels": { "app": "x" } } });
    let api = bench.resource(0, "stage");
    api.patch("orders", &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    let world = notices::world(true, DeliveryHealth::Delivering);
    writer.want(&stale, reconcile(&stale, world, 1_541_196_521_000));
    tokio::time::timeout(PATIENCE, writer.failed()).await.unwrap();
    let fresh =
        bench.catalog(|c| only(c).identity.resource_version > stale.identity.resource_version);
    let fresh = only(&*fresh.await);
    writer.want(&fresh, reconcile(&fresh, world, 1_541_196_521_000));
    let active = only(&*bench.catalog(|catalog| only(catalog).is_active()).await);
    assert!(active.status.is_true(&ConditionType::Ready));
    assert_eq!(active.identity.generation, 1, "a status is no change of the spec");
    // At rest: the status is as it should be, so there is nothing to write.
    assert_eq!(reconcile(&active, world, 1_541_196_999_000), active.status);
}

#[tokio::test]
async fn what_a_rule_forbids_is_refused_in_its_words() {
    let bench = Bench::start().await;
    let refused = async |spec: Value| {
        let object = json!({ "metadata": { "name": "orders" }, "spec": spec });
        let mut object: DynamicObject = serde_json::from_value(object).unwrap();
        let resource = DEFINITIONS[0].api_resource();
        object.types = Some(kube::core::TypeMeta {
            api_version: resource.api_version.clone(),
            kind: resource.kind.clone(),
        });
        let created = bench.resource(0, "stage").create(&PostParams::default(), &object).await;
        created.unwrap_err().to_string()
    };
    let mut both = subscription();
    both["source"] = json!({
        "source_environment": "stage", "source_namespace": "com.github", "source_type": "commerce",
    });
    let both = refused(both).await;
    assert!(both.contains("set exactly one of source and source_id"), "{both}");
    for endpoint in
        ["http:///nobody", "http://a:99999/", "http://a b/", "http://:80/", "http://[::1/"]
    {
        let mut nowhere = subscription();
        nowhere["endpoint"] = endpoint.into();
        let nowhere = refused(nowhere).await;
        assert!(nowhere.contains("must be a URL with a host"), "{endpoint}: {nowhere}");
    }
    for (at, endpoint) in [
        "http://a",
        "https://user:pass@shop.example:65535/x?y=z#w",
        "http://[::1]:80/",
        "http://127.0.0.1:1",
        "http://k\u{e4}se.example/?a=\u{e4}",
    ]
    .into_iter()
    .enumerate()
    {
        let mut somewhere = subscription();
        somewhere["endpoint"] = endpoint.into();
        bench.create(0, &format!("n{at}"), somewhere).await;
    }
}
