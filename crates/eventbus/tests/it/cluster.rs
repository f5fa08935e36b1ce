//! The bus over an API server that is not its own: one that the tests start, and the one that
//! `KUBECONFIG` names.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eventbus_apiserver::{ApiServer, Config as ApiConfig};
use eventbus_core::testing::{ManualClock, SeededEntropy};
use eventbus_resources::DEFINITIONS;
use http::{Request, Uri};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::program::{run, within};
use crate::served::{Bus, activation, subscription};
use crate::subscriber::Subscriber;

/// An API server, with our definitions installed.
struct Cluster {
    kubeconfig: PathBuf,
    client: kube::Client,
    /// Different for each test, because the server may be somebody's.
    namespace: String,
    _server: Option<(JoinSet<()>, TempDir)>,
}

impl Cluster {
    /// A server of this test, which serves `definitions`.
    async fn start(definitions: Vec<Value>) -> Self {
        Self::start_without(definitions, "/nothing").await
    }

    /// The same, and which does not serve what lies below a path.
    async fn start_without(definitions: Vec<Value>, lacking: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = ApiServer::open(ApiConfig {
            path: directory.path().join("resources.db"),
            audit: None,
            definitions,
            clock: Arc::new(ManualClock::at(1_541_196_521_000)),
            entropy: Arc::new(SeededEntropy::new(1)),
        })
        .await
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kubeconfig = directory.path().join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": { "server": format!("http://{address}") } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "users": [{ "name": "test", "user": {} }],
        });
        std::fs::write(&kubeconfig, text.to_string()).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service =
                    server.service().map_request(move |mut request: Request<Incoming>| {
                        if request.uri().path().starts_with(lacking) {
                            *request.uri_mut() = Uri::from_static("/nowhere");
                        }
                        request
                    });
                let service = TowerToHyperService::new(service);
                connections.spawn(async move {
                    let connection = auto::Builder::new(TokioExecutor::new());
                    // A client that goes away is none of the server's trouble.
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self::at(kubeconfig, Some((tasks, directory))).await
    }

    /// The one that `KUBECONFIG` names; says aloud when there is none.
    async fn given() -> Option<Self> {
        let Some(path) = std::env::var_os("KUBECONFIG") else {
            println!("SKIPPED: KUBECONFIG names no API server to test against");
            return None;
        };
        Some(Self::at(path.into(), None).await)
    }

    async fn at(kubeconfig: PathBuf, server: Option<(JoinSet<()>, TempDir)>) -> Self {
        let file = Kubeconfig::read_from(&kubeconfig).unwrap();
        let config =
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        let client = kube::Client::try_from(config.unwrap()).unwrap();
        let namespace = format!("eventbus-test-{}", std::process::id());
        let cluster = Self { kubeconfig, client, namespace, _server: server };
        let core = ApiResource::erase::<k8s_openapi::api::core::v1::Namespace>(&());
        let namespaces: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &core);
        let made = DynamicObject::new(&cluster.namespace, &core);
        let made = namespaces.create(&PostParams::default(), &made).await;
        assert!(!matches!(&made, Err(kube::Error::Api(status)) if status.code != 409), "{made:?}");
        cluster
    }

    fn flags(&self) -> [&str; 2] {
        ["--kubeconfig", self.kubeconfig.to_str().unwrap()]
    }

    fn api(&self, manifest: &Value) -> Api<DynamicObject> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (api_version, kind) = (text(&manifest["apiVersion"]), text(&manifest["kind"]));
        let (group, version) = api_version.split_once('/').unwrap();
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: format!("{}s", kind.to_lowercase()),
            api_version: api_version.clone(),
            kind,
        };
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    async fn create(&self, mut manifest: Value) {
        manifest["metadata"]["namespace"] = self.namespace.clone().into();
        let object = serde_json::from_value(manifest.clone()).unwrap();
        self.api(&manifest).create(&PostParams::default(), &object).await.unwrap();
    }

    /// Waits until a Subscription has the condition `ready` with this status.
    async fn wait_for(&self, manifest: &Value, status: &str) {
        let (api, name) = (self.api(manifest), manifest["metadata"]["name"].as_str().unwrap());
        within(async {
            loop {
                let object = api.get(name).await.unwrap();
                let conditions = object.data["status"]["conditions"].as_array().cloned();
                let mut conditions = conditions.into_iter().flatten();
                if conditions.any(|c| c["type"] == "ready" && c["status"] == status) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Waits until an Event of the Subscription tells of `reason`.
    async fn until_told(&self, manifest: &Value, reason: &str) {
        let events = ApiResource::erase::<k8s_openapi::api::core::v1::Event>(&());
        let events: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &events);
        let name = manifest["metadata"]["name"].as_str().unwrap();
        let told = format!("involvedObject.name={name},reason={reason}");
        let told = ListParams::default().fields(&told);
        within(async {
            while events.list(&told).await.unwrap().items.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    async fn delete(&self, manifest: &Value) {
        let name = manifest["metadata"]["name"].as_str().unwrap();
        self.api(manifest).delete(name, &DeleteParams::default()).await.unwrap();
    }
}

fn definitions() -> Vec<Value> {
    DEFINITIONS.map(|definition| definition.manifest()).into()
}

async fn an_event_takes_the_road(cluster: &Cluster) {
    let subscriber = Subscriber::start().await;
    let mut bus = Bus::start_with(&cluster.flags()).await;
    let orders = subscription("orders", "order.created", &subscriber.url());
    cluster.create(orders.clone()).await;
    // A Subscription made a moment ago is heard, active or not.
    assert_eq!(bus.publish("order.created", &json!(1)).await, "published");
    cluster.wait_for(&orders, "False").await;
    cluster.create(activation()).await;
    cluster.wait_for(&orders, "True").await;
    cluster.until_told(&orders, "Delivering").await;
    assert_eq!(bus.publish("order.created", &json!(2)).await, "published");
    assert_eq!(subscriber.wait_for(2).await.len(), 2);
    assert_eq!(bus.publish("order.shipped", &json!(3)).await, "ignored");
    cluster.delete(&orders).await;
    cluster.delete(&activation()).await;
    assert_eq!(bus.stop().await, 0);
}

#[tokio::test]
async fn an_event_takes_the_road_over_another_api_server() {
    an_event_takes_the_road(&Cluster::start(definitions()).await).await;
}

#[tokio::test]
async fn an_event_takes_the_road_over_the_api_server_of_kubeconfig() {
    if let Some(cluster) = Cluster::given().await {
        an_event_takes_the_road(&cluster).await;
    }
}

#[tokio::test]
async fn one_of_two_processes_works_and_the_other_when_it_ends() {
    let cluster = Cluster::start(definitions()).await;
    let mut first = Bus::start_with(&cluster.flags()).await;
    let kubeconfig = cluster.kubeconfig.clone();
    let mut second = tokio::spawn(async move {
        Bus::start_with(&["--kubeconfig", kubeconfig.to_str().unwrap()]).await
    });
    let waited = tokio::time::timeout(Duration::from_secs(3), &mut second).await;
    assert!(waited.is_err(), "two processes are ready at once");
    assert_eq!(first.stop().await, 0);
    let second = within(second).await.unwrap();
    let subscriber = Subscriber::start().await;
    let orders = subscription("orders", "order.created", &subscriber.url());
    cluster.create(orders.clone()).await;
    cluster.create(activation()).await;
    cluster.wait_for(&orders, "True").await;
    assert_eq!(second.publish("order.created", &json!(1)).await, "published");
    subscriber.wait_for(1).await;
}

/// What `eventbus serve` says before it gives up.
async fn complaint(cluster: &Cluster) -> String {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let mut args = vec!["serve", "--data-dir", data_dir.to_str().unwrap()];
    args.extend(["--publish-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
    args.extend(cluster.flags());
    let ended = run(&args, "").await;
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    ended.stderr
}

#[tokio::test]
async fn an_api_server_that_does_not_know_our_resources_is_told_apart() {
    let complaint = complaint(&Cluster::start(Vec::new()).await).await;
    assert!(complaint.contains("eventbus crds | kubectl apply -f -"), "{complaint}");
    assert!(complaint.contains("subscriptions.eventing.kyma.cx"), "{complaint}");
}

#[tokio::test]
async fn an_api_server_without_leases_is_told_apart() {
    let path = "/apis/coordination.k8s.io";
    let complaint = complaint(&Cluster::start_without(definitions(), path).await).await;
    assert!(complaint.contains("does not serve leases.coordination.k8s.io"), "{complaint}");
}
