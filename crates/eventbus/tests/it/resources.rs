//! The resources of a running bus, wherever they lie: in its own API or on another API server.

use std::time::Duration;

use eventbus_resources::DEFINITIONS;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use serde_json::{Value, json};

use crate::program::within;
use crate::served::Bus;

/// How long to wait before looking again.
const A_MOMENT: Duration = Duration::from_millis(10);

impl Bus {
    /// Creates a resource in the namespace of this test that has the name given in the manifest.
    pub(crate) async fn create(&self, manifest: &Value) {
        let api = self.of(manifest).await;
        let mut manifest = manifest.clone();
        manifest["metadata"]["namespace"] = api.namespace().unwrap().into();
        let object = serde_json::from_value(manifest).unwrap();
        within(api.create(&PostParams::default(), &object)).await.unwrap();
    }

    /// Deletes a resource.
    pub(crate) async fn delete(&self, manifest: &Value) {
        let name = manifest["metadata"]["name"].as_str().unwrap();
        let api = self.of(manifest).await;
        within(api.delete(name, &DeleteParams::default())).await.unwrap();
    }

    /// Changes the spec of the Subscription `stage/NAME`.
    pub(crate) async fn change(&self, name: &str, spec: Value) {
        let (api, patch) = (self.subscriptions().await, Patch::Merge(json!({ "spec": spec })));
        within(api.patch(name, &PatchParams::default(), &patch)).await.unwrap();
    }

    /// Activates the source `shop` in the namespace `stage`.
    pub(crate) async fn activate(&self) {
        self.create(&activation()).await;
    }

    /// Creates the Subscription `stage/NAME` to events of `shop`, and waits until it is active.
    pub(crate) async fn subscribe(&self, name: &str, event_type: &str, endpoint: &str) {
        self.create(&subscription(name, event_type, endpoint)).await;
        self.wait_for(name, "events-activated", "True").await;
    }

    /// Waits until the Subscription `stage/NAME` has `condition` with `status`.
    pub(crate) async fn wait_for(&self, name: &str, condition: &str, status: &str) -> Value {
        self.until(name, condition, |found| (found["status"] == status).then(|| found.clone()))
            .await
    }

    /// Waits until a condition of the Subscription `stage/NAME` tells what is wanted.
    pub(crate) async fn until<T>(
        &self,
        name: &str,
        condition: &str,
        wanted: impl Fn(&Value) -> Option<T>,
    ) -> T {
        let api = self.subscriptions().await;
        within(async {
            loop {
                let object = api.get(name).await.unwrap();
                let conditions = object.data["status"]["conditions"].as_array().cloned();
                let found = conditions.into_iter().flatten().find(|c| c["type"] == condition);
                if let Some(told) = found.as_ref().and_then(&wanted) {
                    return told;
                }
                tokio::time::sleep(A_MOMENT).await;
            }
        })
        .await
    }

    /// Waits until an Event of the Subscription `stage/NAME` tells of `reason`.
    pub(crate) async fn until_told(&self, name: &str, reason: &str) {
        let fields = format!("involvedObject.name={name},reason={reason}");
        let (api, told) = (self.events().await, ListParams::default().fields(&fields));
        within(async {
            while api.list(&told).await.unwrap().items.is_empty() {
                tokio::time::sleep(A_MOMENT).await;
            }
        })
        .await;
    }

    /// The versions of all that a bus may write about the Subscriptions of `stage`.
    pub(crate) async fn versions(&self) -> Vec<(Option<String>, Option<String>)> {
        let mut versions = Vec::new();
        for api in [self.subscriptions().await, self.events().await] {
            let list = within(api.list(&ListParams::default())).await.unwrap();
            let metadata = list.items.into_iter().map(|object| object.metadata);
            versions.extend(metadata.map(|metadata| (metadata.name, metadata.resource_version)));
        }
        versions
    }

    async fn subscriptions(&self) -> Api<DynamicObject> {
        self.api("stage", &DEFINITIONS[0].api_resource()).await
    }

    async fn events(&self) -> Api<DynamicObject> {
        self.api("stage", &ApiResource::erase::<Event>(&())).await
    }

    /// Where resources of the manifest's kind are.
    async fn of(&self, manifest: &Value) -> Api<DynamicObject> {
        let written = |resource: &ApiResource| {
            manifest["apiVersion"] == resource.api_version && manifest["kind"] == resource.kind
        };
        let resources = DEFINITIONS.map(|definition| definition.api_resource());
        let namespace = manifest["metadata"]["namespace"].as_str().unwrap();
        self.api(namespace, resources.iter().find(|resource| written(resource)).unwrap()).await
    }

    async fn api(&self, namespace: &str, resource: &ApiResource) -> Api<DynamicObject> {
        let client = self.kube.get_or_init(|| async {
            client(Kubeconfig::read_from(self.kubeconfig()).unwrap()).await
        });
        Api::namespaced_with(client.await.clone(), &self.namespace(namespace), resource)
    }
}

/// A client of the API server that the kubeconfig names.
pub(crate) async fn client(file: Kubeconfig) -> kube::Client {
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    kube::Client::try_from(config.unwrap()).unwrap()
}

/// A Subscription of `stage` to events of the source `shop`.
pub(crate) fn subscription(name: &str, event_type: &str, endpoint: &str) -> Value {
    json!({
        "apiVersion": "eventing.kyma.cx/v1alpha1",
        "kind": "Subscription",
        "metadata": { "name": name, "namespace": "stage" },
        "spec": {
            "endpoint": endpoint, "event_type": event_type, "event_type_version": "v1",
            "source_id": "shop",
        },
    })
}

/// An EventActivation of the source `shop` in `stage`.
pub(crate) fn activation() -> Value {
    json!({
        "apiVersion": "applicationconnector.kyma-project.io/v1alpha1",
        "kind": "EventActivation",
        "metadata": { "name": "shop", "namespace": "stage" },
        "spec": { "sourceId": "shop" },
    })
}
