//! The roles that `access` grants are what the bus asks for: all of it, and no more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use eventbus_core::reconcile::{DeliveryHealth, reconcile};
use eventbus_core::testing::ManualClock;
use eventbus_resources::{Freshness, Leadership, StatusWriter, access};
use http::{Method, Request};
use kube::client::Body;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::notices::{until_told, world};
use crate::{Bench, only, subscription};

/// Group, resource and verb.
type Asked = BTreeSet<(String, String, String)>;

/// What an API server's authorizer would be asked about a request.
fn attributes(request: &Request<Body>) -> (String, String, String) {
    let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    let (group, rest) = match &path[..] {
        ["apis", group, _version, rest @ ..] => (*group, rest),
        ["api", _version, rest @ ..] => ("", rest),
        _ => panic!("{path:?}"),
    };
    let rest = if let ["namespaces", _, rest @ ..] = rest { rest } else { rest };
    let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
    let verb = match (request.method(), rest.len()) {
        (&Method::GET, 1) if is_watch => "watch",
        (&Method::GET, 1) => "list",
        (&Method::GET, _) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        other => panic!("{other:?}"),
    };
    let resource = match rest {
        [resource] | [resource, _] => (*resource).to_owned(),
        [resource, _, sub] => format!("{resource}/{sub}"),
        _ => panic!("{path:?}"),
    };
    (group.to_owned(), resource, verb.to_owned())
}

fn granted() -> Asked {
    let manifests = access("eventbus", "eventbus");
    let rules = manifests.iter().filter_map(|manifest| manifest["rules"].as_array()).flatten();
    let texts = |rule: &Value, of: &str| -> Vec<String> {
        serde_json::from_value(rule[of].clone()).unwrap()
    };
    rules
        .flat_map(|rule| {
            let (groups, resources) = (texts(rule, "apiGroups"), texts(rule, "resources"));
            texts(rule, "verbs")
                .into_iter()
                .map(move |verb| (groups[0].clone(), resources[0].clone(), verb))
        })
        .collect()
}

#[test]
fn a_fresh_cluster_takes_what_is_printed_in_its_order() {
    let manifests = access("bus", "runner");
    let text = |manifest: &Value, at: &str| manifest.pointer(at).cloned().unwrap_or_default();
    let place = |kind: &str| manifests.iter().position(|manifest| manifest["kind"] == kind);
    assert_eq!((place("Namespace"), place("ServiceAccount")), (Some(0), Some(1)));
    assert_eq!(text(&manifests[0], "/metadata/name"), "bus");
    assert_eq!(text(&manifests[1], "/metadata/name"), "runner");
    let elsewhere = |manifest: &&Value| {
        let namespace = text(manifest, "/metadata/namespace");
        !namespace.is_null() && namespace != "bus"
    };
    assert_eq!(manifests.iter().find(elsewhere), None);
    for subject in manifests.iter().filter_map(|manifest| manifest.pointer("/subjects/0")) {
        assert_eq!((&subject["name"], &subject["namespace"]), (&"runner".into(), &"bus".into()));
    }
}

#[tokio::test]
async fn the_roles_grant_what_is_asked_for_and_no_more() {
    let bench = Bench::start().await;
    let asked = Arc::<Mutex<Asked>>::default();
    let noted = asked.clone();
    let service = bench.api.service().map_request(move |request: Request<Body>| {
        noted.lock().unwrap().insert(attributes(&request));
        request
    });
    let client = kube::Client::new(service, "eventbus");
    let stop = CancellationToken::new();
    let (mut watched, watch) = eventbus_resources::watch(client.clone(), stop.clone());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(watch);
    let writer = StatusWriter::new(client.clone(), bench.clock.clone());
    let running = writer.clone();
    tasks.spawn(async move { running.run().await });
    Freshness::new(client.clone(), watched.versions.clone()).reached().await;
    // One Subscription in each group gets a status.
    for (definition, namespace) in [(0, "stage"), (2, "elsewhere")] {
        bench.create(definition, namespace, subscription()).await;
        watched.catalog.wait_for(|catalog| catalog.subscriptions().len() == 1).await.unwrap();
        // What happens again is counted.
        for is_activated in [false, true, false] {
            let one = only(&watched.catalog.borrow().clone());
            let world = world(is_activated, DeliveryHealth::Delivering);
            writer.want(&one, reconcile(&one, world, 0));
            let has_status = |catalog: &Arc<eventbus_core::Catalog>| {
                let status = &only(catalog).status;
                !status.conditions.is_empty() && only(catalog).is_active() == is_activated
            };
            watched.catalog.wait_for(has_status).await.unwrap();
        }
        until_told(&bench.client, namespace, "NotActivated", 2).await;
        let gone = kube::api::DeleteParams::default();
        bench.resource(definition, namespace).delete("orders", &gone).await.unwrap();
        watched.catalog.wait_for(|catalog| catalog.subscriptions().len() == 0).await.unwrap();
    }
    let clock = Arc::new(ManualClock::at(1_541_196_521_000));
    let mut leadership = Leadership::new(client, "eventbus", "one".to_owned(), clock);
    leadership.acquire().await;
    leadership.release().await;
    assert_eq!(*asked.lock().unwrap(), granted());
}
