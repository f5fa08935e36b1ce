//! API servers that are not the bus's own: one that a test starts, and the one that `KUBECONFIG`
//! names. A scenario is written once and played over each kind.

use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eventbus_apiserver::{ApiServer, Config};
use eventbus_core::Entropy;
use eventbus_resources::DEFINITIONS;
use futures::FutureExt;
use http::{Request, Uri};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::config::Kubeconfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::program::{run, start, within};
use crate::resources::{client, subscription};
use crate::served::Bus;
use crate::subscriber::Subscriber;
use crate::system::{SystemClock, SystemEntropy};

/// The namespaces of a test.
const NAMESPACES: [&str; 2] = ["stage", "elsewhere"];

/// A bus at work has judged a new Subscription by then.
const JUDGEMENT: Duration = Duration::from_millis(500);

/// How long to wait before looking again.
const A_MOMENT: Duration = Duration::from_millis(20);

/// An API server that is not the bus's own.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// Its contexts are in a namespace of this test, where the Lease of a bus lies then.
    kubeconfig: PathBuf,
    client: kube::Client,
    /// Before the name of each namespace of this test, because the server may be somebody's.
    prefix: String,
    kept: Arc<(TempDir, Ours)>,
}

/// What there is for as long as the test lasts.
enum Ours {
    Server { _tasks: JoinSet<()> },
    Turn { _lock: File },
}

impl Cluster {
    /// A server of this test, which serves our definitions.
    pub(crate) async fn start() -> Self {
        let definitions = DEFINITIONS.map(|definition| definition.manifest());
        Self::serving(definitions.into(), "/nothing").await
    }

    /// One that serves `definitions`, and nothing of what lies below the path `lacking`.
    async fn serving(definitions: Vec<Value>, lacking: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            path: directory.path().join("resources.db"),
            audit: None,
            definitions,
            clock: Arc::new(SystemClock::start()),
            entropy: Arc::new(SystemEntropy),
        };
        let server = ApiServer::open(config).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let file = json!({
            "current-context": "test",
            "clusters": [{ "name": "test", "cluster": { "server": format!("http://{address}") } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "users": [{ "name": "test", "user": {} }],
        });
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
        let file = serde_json::from_value(file).unwrap();
        Self::at(file, directory, Ours::Server { _tasks: tasks }).await
    }

    /// The one that `KUBECONFIG` names, when it is this test's turn; says aloud when there is none.
    pub(crate) async fn given() -> Option<Self> {
        let Some(file) = Kubeconfig::from_env().unwrap() else {
            println!("SKIPPED: KUBECONFIG names no API server to test against");
            return None;
        };
        let ours = Ours::Turn { _lock: turn().await };
        Some(Self::at(file, tempfile::tempdir().unwrap(), ours).await)
    }

    async fn at(mut file: Kubeconfig, directory: TempDir, ours: Ours) -> Self {
        let prefix = format!("eventbus-test-{:016x}-", SystemEntropy.next_u64());
        for context in file.contexts.iter_mut().filter_map(|named| named.context.as_mut()) {
            context.namespace = Some(format!("{prefix}{}", NAMESPACES[0]));
        }
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, serde_json::to_string(&file).unwrap()).unwrap();
        let client = client(file).await;
        let cluster = Self { kubeconfig, client, prefix, kept: Arc::new((directory, ours)) };
        let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
        for name in NAMESPACES {
            let mut namespace = Namespace::default();
            namespace.metadata.name = Some(cluster.namespace(name));
            namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        }
        cluster
    }

    /// Plays a scenario here, and leaves nothing behind, however it ends.
    pub(crate) async fn play(self, scenario: impl AsyncFnOnce(Option<&Self>)) {
        let playing = async {
            self.check_that_no_bus_is_at_work().await;
            scenario(Some(&self)).await;
        };
        let played = AssertUnwindSafe(playing).catch_unwind().await;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for name in NAMESPACES.map(|name| self.namespace(name)) {
            namespaces.delete(&name, &DeleteParams::default()).await.unwrap();
            within(async {
                while namespaces.get_opt(&name).await.unwrap().is_some() {
                    tokio::time::sleep(A_MOMENT).await;
                }
            })
            .await;
        }
        played.unwrap_or_else(|failure| resume_unwind(failure));
    }

    /// A bus judges the Subscriptions of all namespaces, and two do not agree.
    async fn check_that_no_bus_is_at_work(&self) {
        if let Ours::Server { .. } = self.kept.1 {
            return;
        }
        let namespace = self.namespace(NAMESPACES[0]);
        let resource = DEFINITIONS[0].api_resource();
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &namespace, &resource);
        let mut probe = subscription("probe", "probe", "http://127.0.0.1:1/");
        probe["metadata"]["namespace"] = namespace.into();
        let probe = serde_json::from_value(probe).unwrap();
        api.create(&PostParams::default(), &probe).await.unwrap();
        tokio::time::sleep(JUDGEMENT).await;
        let judged = api.get("probe").await.unwrap();
        api.delete("probe", &DeleteParams::default()).await.unwrap();
        assert!(
            judged.data["status"].is_null(),
            "a bus is at work on the API server of KUBECONFIG: stop it, or name another server \
             (`eventbus serve --role publish,push` keeps no statuses)"
        );
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// What the namespace `name` of this test is called here.
    pub(crate) fn namespace(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// Waits until no other test uses the API server of `KUBECONFIG`: a bus is concerned with the
/// Subscriptions of all namespaces, so two of them would deliver and judge what is the other's.
async fn turn() -> File {
    let given = std::env::var_os("KUBECONFIG").unwrap();
    let path = std::env::split_paths(&given).find(|path| !path.as_os_str().is_empty()).unwrap();
    let file = File::open(path).unwrap();
    loop {
        match file.try_lock() {
            Ok(()) => return file,
            Err(TryLockError::WouldBlock) => tokio::time::sleep(A_MOMENT).await,
            Err(TryLockError::Error(error)) => panic!("KUBECONFIG cannot be locked: {error}"),
        }
    }
}

/// Makes tests of scenarios: each over the bus's own API server, over another one, and over that of
/// `KUBECONFIG`. A scenario takes an `Option<&Cluster>`; without one it is the bus's own.
macro_rules! over_each_api_server {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            #[tokio::test(flavor = "multi_thread")]
            async fn over_its_own_api_server() {
                super::$scenario(None).await;
            }

            $crate::cluster::over_clusters!(super::$scenario);
        }
    )+};
}

/// The same for one scenario, without the bus's own API server.
macro_rules! over_clusters {
    ($scenario:path) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn over_another_api_server() {
            $crate::cluster::Cluster::start().await.play($scenario).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn over_the_api_server_of_kubeconfig() {
            if let Some(cluster) = $crate::cluster::Cluster::given().await {
                cluster.play($scenario).await;
            }
        }
    };
}

pub(crate) use {over_clusters, over_each_api_server};

mod one_of_two_processes_works_and_the_other_when_it_ends {
    super::over_clusters!(super::one_of_two_processes_works_and_the_other_when_it_ends);
}

async fn one_of_two_processes_works_and_the_other_when_it_ends(cluster: Option<&Cluster>) {
    let mut first = Bus::over(cluster, &[]).await;
    let mut second = Box::pin(Bus::over(cluster, &[]));
    let waited = tokio::time::timeout(Duration::from_secs(3), &mut second).await;
    assert!(waited.is_err(), "two processes are ready at once");
    assert_eq!(first.stop().await, 0);
    let second = within(second).await;
    let subscriber = Subscriber::start().await;
    second.create(&subscription("orders", "order.created", &subscriber.url())).await;
    second.activate().await;
    second.wait_for("orders", "ready", "True").await;
    assert_eq!(second.publish("order.created", &json!(1)).await, "published");
    subscriber.wait_for(1).await;
}

/// What `eventbus serve` says before it gives up.
async fn complaint(cluster: &Cluster) -> String {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let mut args = vec!["serve", "--data-dir", data_dir.to_str().unwrap()];
    args.extend(["--publish-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
    args.extend(["--kubeconfig", cluster.kubeconfig.to_str().unwrap()]);
    let ended = run(&args, "").await;
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    ended.stderr
}

#[tokio::test]
async fn an_api_server_that_does_not_know_our_resources_is_told_apart() {
    let complaint = complaint(&Cluster::serving(Vec::new(), "/nothing").await).await;
    assert!(complaint.contains("eventbus crds | kubectl apply -f -"), "{complaint}");
    assert!(complaint.contains("subscriptions.eventing.kyma.cx"), "{complaint}");
}

#[tokio::test]
async fn an_api_server_without_leases_is_told_apart() {
    let definitions = DEFINITIONS.map(|definition| definition.manifest());
    let lacking = "/apis/coordination.k8s.io";
    let complaint = complaint(&Cluster::serving(definitions.into(), lacking).await).await;
    assert!(complaint.contains("does not serve leases.coordination.k8s.io"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_api_server_it_lives_and_waits() {
    let cluster = Cluster::start().await;
    // Takes connections, and says nothing for now.
    let late = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut file = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let place = file.clusters[0].cluster.as_mut().unwrap();
    let url = format!("http://{}", late.local_addr().unwrap());
    let server = place.server.replace(url).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (kubeconfig, data_dir) = (directory.path().join("file"), directory.path().join("data"));
    std::fs::write(&kubeconfig, serde_json::to_vec(&file).unwrap()).unwrap();
    let mut args = vec!["serve", "--data-dir", data_dir.to_str().unwrap()];
    args.extend(["--publish-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
    args.extend(["--kubeconfig", kubeconfig.to_str().unwrap()]);
    let mut bus = start(&args);
    let readyz = loop {
        if let Some(url) = bus.line().await.strip_prefix("probes   ") {
            break url.to_owned();
        }
    };
    let healthz = readyz.replace("/readyz", "/healthz");
    assert_eq!(within(Bus::get(&healthz)).await.as_deref(), Some("ok\n"));
    let missing = within(Bus::get(&readyz)).await.unwrap();
    assert!(missing.contains("[-]lead not ready\n[-]catalog not ready\n"), "{missing}");
    let mut served = JoinSet::new();
    served.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut near, _)) = late.accept().await {
            let server = server.trim_start_matches("http://").to_owned();
            connections.spawn(async move {
                let mut far = TcpStream::connect(server).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    while bus.line().await != "ready" {}
    assert_eq!(within(Bus::get(&readyz)).await.as_deref(), Some("ok\n"));
}
