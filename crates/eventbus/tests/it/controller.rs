//! A controller of somebody else's, written with kube-rs, against the running program.

use std::sync::Arc;
use std::time::Duration;

use eventbus_resources::DEFINITIONS;
use futures::StreamExt;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::config::Kubeconfig;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::watcher;
use serde_json::json;
use tokio::task::JoinSet;

use crate::program::within;
use crate::resources::{client, subscription};
use crate::served::Bus;

const FINALIZER: &str = "tests.example/billing";

/// Labels each Subscription with its generation, and is asked before one goes.
async fn reconcile(object: Arc<DynamicObject>, api: Arc<Api<DynamicObject>>) -> Action {
    let generation = object.metadata.generation.unwrap_or_default().to_string();
    let name = object.metadata.name.clone().unwrap_or_default();
    let label = json!({ "metadata": { "labels": { "billed": generation } } });
    let (label, parameters) = (Patch::Merge(label), PatchParams::default());
    let patches = api.clone();
    let bill = |event: Event<DynamicObject>| async move {
        if let Event::Apply(_) = event {
            patches.patch(&name, &parameters, &label).await?;
        }
        Ok::<_, kube::Error>(Action::await_change())
    };
    let done = finalizer(&api, FINALIZER, object, bill).await;
    done.unwrap_or_else(|error| {
        println!("tried again: {error}");
        Action::requeue(Duration::from_millis(50))
    })
}

#[tokio::test]
async fn a_controller_of_somebody_elses_works_with_either_way_of_listing() {
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let bus = Bus::start().await;
        let resource = DEFINITIONS[0].api_resource();
        let client = client(Kubeconfig::read_from(bus.kubeconfig()).unwrap()).await;
        let api: Api<DynamicObject> = Api::namespaced_with(client, "stage", &resource);
        bus.create(&subscription("before", "order.created", "http://127.0.0.1:9/")).await;
        let mut tasks = JoinSet::new();
        let controller = Controller::new_with(api.clone(), config, resource.clone());
        let run = controller.run(
            |object, api| async { Ok::<_, kube::Error>(reconcile(object, api).await) },
            |_, _, _| Action::requeue(Duration::from_millis(50)),
            Arc::new(api.clone()),
        );
        tasks.spawn(run.for_each(|_| async {}));
        bus.create(&subscription("after", "order.created", "http://127.0.0.1:9/")).await;
        for name in ["before", "after"] {
            until_billed(&api, name, "1").await;
            let faster = json!({ "spec": { "max_inflight": 20 } });
            api.patch(name, &PatchParams::default(), &Patch::Merge(faster)).await.unwrap();
            until_billed(&api, name, "2").await;
            api.delete(name, &DeleteParams::default()).await.unwrap();
        }
        within(async {
            while !api.list(&Default::default()).await.unwrap().items.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

async fn until_billed(api: &Api<DynamicObject>, name: &str, generation: &str) {
    within(async {
        loop {
            let labels = api.get(name).await.unwrap().metadata.labels.unwrap_or_default();
            if labels.get("billed").is_some_and(|billed| billed == generation) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
