//! The Subscriptions of a run, made and removed through the bus's Kubernetes API as anyone would.
//!
//! A run has a namespace of its own: deleting that removes everything, and nothing else.

use std::path::Path;
use std::time::Duration;

use eventbus_core::manifest::DeliveryFormat;
use eventbus_resources::{DEFINITIONS, Kind};
use futures::{StreamExt, TryStreamExt};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use super::event::{EVENT_TYPE_VERSION, SOURCE_ID};
use crate::cli::Fault;

/// How many requests are under way while Subscriptions are created.
const CREATING_AT_ONCE: usize = 8;

/// How long the bus may take until all Subscriptions have a condition, or until they are gone.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// The name of the one EventActivation.
const ACTIVATION: &str = "eventbus-bench";

/// What one Subscription asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) endpoint: String,
    pub(super) event_type: String,
    pub(super) max_inflight: u16,
    /// How long an attempt may take; the bus's default where none is given.
    pub(super) timeout_ms: Option<u32>,
    /// The form of its deliveries.
    pub(super) format: DeliveryFormat,
}

/// The resources of one run.
pub(super) struct Resources {
    client: Client,
    namespace: String,
}

impl Resources {
    /// Reads the kubeconfig; nothing is created yet.
    pub(super) async fn of_run(run: u64, kubeconfig: &Path) -> Result<Self, Fault> {
        let wrong = |why: String| Fault::Usage(format!("{}: {why}", kubeconfig.display()));
        let file = Kubeconfig::read_from(kubeconfig).map_err(|error| wrong(error.to_string()))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .map_err(|error| wrong(error.to_string()))?;
        let client = Client::try_from(config).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { client, namespace: format!("eventbus-bench-{run:016x}") })
    }

    /// Creates the namespace and the Subscriptions, named by their place.
    pub(super) async fn create(&self, wanted: &[Wanted]) -> Result<(), Fault> {
        let namespace = DynamicObject::new(&self.namespace, &namespaces());
        self.namespaces().create(&PostParams::default(), &namespace).await.map_err(refused)?;
        let api = self.api(Kind::Subscription);
        let created = futures::stream::iter(wanted.iter().enumerate())
            .map(|(place, wanted)| {
                let subscription = object(Kind::Subscription, &name(place), wanted.spec());
                let api = &api;
                async move { api.create(&PostParams::default(), &subscription).await }
            })
            .buffer_unordered(CREATING_AT_ONCE);
        created.try_for_each(async |_| Ok(())).await.map_err(refused)
    }

    /// Activates the Subscriptions.
    pub(super) async fn activate(&self) -> Result<(), Fault> {
        let spec = json!({ "displayName": ACTIVATION, "sourceId": SOURCE_ID });
        let activation = object(Kind::EventActivation, ACTIVATION, spec);
        let api = self.api(Kind::EventActivation);
        api.create(&PostParams::default(), &activation).await.map_err(refused).map(|_| ())
    }

    /// Waits until the first `count` Subscriptions have a condition with status `True`.
    pub(super) async fn wait(&self, condition: &str, count: usize) -> Result<(), Fault> {
        let api = self.api(Kind::Subscription);
        let wait = async {
            loop {
                let listed = api.list(&ListParams::default()).await.map_err(refused)?;
                let place = |one: &DynamicObject| one.metadata.name.as_deref().and_then(place);
                let among = |one: &&DynamicObject| place(one).is_some_and(|place| place < count);
                let has = |one: &&DynamicObject| has_condition(&one.data, condition);
                if listed.items.iter().filter(among).filter(has).count() == count {
                    return Ok(());
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let late = format!(
            "not all {count} Subscriptions in namespace {} had the condition {condition} within \
             {}s",
            self.namespace,
            PATIENCE.as_secs()
        );
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or(Err(Fault::Failed(late)))
    }

    /// Deletes everything, and waits until it is gone.
    pub(super) async fn delete(&self) -> Result<(), Fault> {
        let api = self.namespaces();
        let gone = async {
            if let Err(error) = api.delete(&self.namespace, &DeleteParams::default()).await
                && !is_missing(&error)
            {
                return Err(refused(error));
            }
            while api.get_opt(&self.namespace).await.map_err(refused)?.is_some() {
                tokio::time::sleep(PAUSE).await;
            }
            Ok(())
        };
        let late = format!("namespace {} is still there; delete it by hand", self.namespace);
        tokio::time::timeout(PATIENCE, gone).await.unwrap_or(Err(Fault::Failed(late)))
    }

    fn namespaces(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &namespaces())
    }

    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource(kind))
    }
}

// === impl Wanted ===

impl Wanted {
    fn spec(&self) -> Value {
        let mut spec = json!({
            "endpoint": self.endpoint,
            "event_type": self.event_type,
            "event_type_version": EVENT_TYPE_VERSION,
            "max_inflight": self.max_inflight,
            "source_id": SOURCE_ID,
        });
        if self.format != DeliveryFormat::default() {
            spec["delivery"] = json!({ "format": self.format });
        }
        if let Some(timeout_ms) = self.timeout_ms {
            spec["push_request_timeout_ms"] = timeout_ms.into();
        }
        spec
    }
}

fn object(kind: Kind, name: &str, spec: Value) -> DynamicObject {
    DynamicObject::new(name, &resource(kind)).data(json!({ "spec": spec }))
}

/// How a kind is addressed in the group that the seed names.
fn resource(kind: Kind) -> ApiResource {
    let first = DEFINITIONS.iter().find(|definition| definition.kind == kind);
    first.unwrap_or(&DEFINITIONS[0]).api_resource()
}

fn namespaces() -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: "Namespace".to_owned(),
        plural: "namespaces".to_owned(),
    }
}

fn name(place: usize) -> String {
    format!("bench-{place}")
}

fn place(name: &str) -> Option<usize> {
    name.strip_prefix("bench-")?.parse().ok()
}

fn has_condition(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let is_true = |one: &Value| one["type"] == condition && one["status"] == "True";
    conditions.is_some_and(|conditions| conditions.iter().any(is_true))
}

fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn refused(error: kube::Error) -> Fault {
    Fault::Failed(format!("the Kubernetes API of the bus: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_back_from_names() {
        assert_eq!(place(&name(17)), Some(17));
        assert_eq!(place("other-1"), None);
    }

    #[test]
    fn only_a_true_condition_counts() {
        let object = |status: &str| {
            let condition = json!({ "type": "ready", "status": status });
            json!({ "status": { "conditions": [condition] } })
        };
        assert!(has_condition(&object("True"), "ready"));
        assert!(!has_condition(&object("False"), "ready"));
        assert!(!has_condition(&object("True"), "events-activated"));
        assert!(!has_condition(&json!({}), "ready"));
    }

    #[test]
    fn the_kinds_are_in_the_seeds_groups() {
        assert_eq!(resource(Kind::Subscription).api_version, "eventing.kyma.cx/v1alpha1");
        let activation = resource(Kind::EventActivation);
        assert_eq!(activation.api_version, "remoteenvironment.kyma.cx/v1alpha1");
    }
}
