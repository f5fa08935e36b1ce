//! A running bus for one test: the built program, its data directory, its kubectl.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::program::{Running, start, within};

/// The bus, and everything a test does with it.
pub(crate) struct Bus {
    running: Option<Running>,
    directory: TempDir,
    pub(crate) publish: String,
    pub(crate) api: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

/// How kubectl ended.
#[derive(Debug)]
pub(crate) struct Kubectl {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Bus {
    /// A bus on an empty directory, on ports that the system chose.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more flags.
    pub(crate) async fn start_with(flags: &[&str]) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let directory = tempfile::tempdir().unwrap();
        let mut bus =
            Self { running: None, directory, publish: String::new(), api: String::new(), client };
        bus.start_again(flags).await;
        bus
    }

    /// Starts the program on the same directory.
    pub(crate) async fn start_again(&mut self, flags: &[&str]) {
        let data_dir = self.data_dir();
        let mut args = vec!["serve", "--data-dir", data_dir.to_str().unwrap()];
        args.extend(["--publish-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
        args.extend(flags);
        let mut running = start(&args);
        loop {
            let line = running.line().await;
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["publish", url] => self.publish = url.trim_end_matches("/v1/events").to_owned(),
                ["API", url] => self.api = url.to_owned(),
                ["ready"] | ["waiting", ..] => break,
                _ => {}
            }
        }
        self.running = Some(running);
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        self.running.take().unwrap().kill().await;
    }

    /// SIGTERM; returns the exit code.
    pub(crate) async fn stop(&mut self) -> i32 {
        let running = self.running.take().unwrap();
        running.terminate();
        running.ended().await.0.code().unwrap_or(-1)
    }

    /// Asks the publish port.
    pub(crate) async fn ask(&self, request: Request<Full<Bytes>>) -> Answer {
        let answer = within(self.client.request(request)).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = within(body.collect()).await.unwrap().to_bytes();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    /// POSTs to the publish port.
    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let url = format!("{}{path}", self.publish);
        self.ask(Request::post(url).body(Full::new(body.into())).unwrap()).await
    }

    /// Publishes an event of the source `shop`; returns the status said.
    pub(crate) async fn publish(&self, event_type: &str, data: &Value) -> String {
        let event = event(event_type, data);
        let answer = self.post("/v1/events", event.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.headers["eventbus-status"].to_str().unwrap().to_owned()
    }

    /// Runs the real kubectl against the bus, with `input` as its standard input.
    pub(crate) async fn kubectl(&self, args: &[&str], input: &str) -> Kubectl {
        let program = kubectl_path().unwrap();
        let home = self.directory.path().join("home");
        let mut child = Command::new(program)
            .arg("--kubeconfig")
            .arg(self.data_dir().join("kubeconfig"))
            .args(args)
            // Its cache of discovery is keyed by host and port, and ports come round again.
            .env("HOME", &home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = within(child.wait_with_output()).await.unwrap();
        Kubectl {
            success: output.status.success(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Creates resources of the API from JSON, as a controller would.
    pub(crate) async fn create(&self, object: &Value) -> Value {
        let path = collection(object);
        let answer = self.api_call("POST", &path, object.to_string()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Asks the API with the token of the kubeconfig.
    pub(crate) async fn api_call(&self, method: &str, path: &str, body: String) -> Answer {
        let token = std::fs::read_to_string(self.data_dir().join("token")).unwrap();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.api))
            .header("authorization", format!("Bearer {}", token.trim()));
        let content_type = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        request = request.header("content-type", content_type);
        self.ask(request.body(Full::new(body.into())).unwrap()).await
    }

    /// Waits until the Subscription `stage/NAME` has `condition` with `status`.
    pub(crate) async fn wait_for(&self, name: &str, condition: &str, status: &str) -> Value {
        let path = format!("{SUBSCRIPTIONS}/{name}");
        within(async {
            loop {
                let answer = self.api_call("GET", &path, String::new()).await;
                let object: Value = serde_json::from_str(&answer.body).unwrap();
                let conditions = object["status"]["conditions"].as_array().cloned();
                let found = conditions.into_iter().flatten().find(|c| c["type"] == condition);
                if found.as_ref().is_some_and(|found| found["status"] == status) {
                    return found.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// Waits until an Event of the Subscription `stage/NAME` tells of `reason`.
    pub(crate) async fn until_told(&self, name: &str, reason: &str) {
        let fields = format!("involvedObject.name%3D{name},reason%3D{reason}");
        let path = format!("/api/v1/namespaces/stage/events?fieldSelector={fields}");
        within(async {
            loop {
                let answer = self.api_call("GET", &path, String::new()).await;
                let list: Value = serde_json::from_str(&answer.body).unwrap();
                if !list["items"].as_array().unwrap().is_empty() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
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
}

/// Where the Subscriptions of the namespace `stage` are.
pub(crate) const SUBSCRIPTIONS: &str =
    "/apis/eventing.kyma.cx/v1alpha1/namespaces/stage/subscriptions";

/// The kubectl to test with; says aloud when there is none.
pub(crate) fn kubectl_path() -> Option<PathBuf> {
    let path = std::env::var_os("EVENTBUS_KUBECTL").map(PathBuf::from).filter(|p| Path::exists(p));
    if path.is_none() {
        println!("SKIPPED: no kubectl; ./test fetches one and names it in EVENTBUS_KUBECTL");
    }
    path
}

/// The oldest kubectl to test with; says aloud when there is none.
pub(crate) fn old_kubectl_path() -> Option<PathBuf> {
    let path = std::env::var_os("EVENTBUS_KUBECTL_OLD").map(PathBuf::from);
    let path = path.filter(|path| Path::exists(path));
    if path.is_none() {
        println!("SKIPPED: no kubectl 1.20; ./test fetches one and names it");
    }
    path
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

/// An event of the source `shop`.
pub(crate) fn event(event_type: &str, data: &Value) -> Value {
    json!({
        "source-id": "shop", "event-type": event_type, "event-type-version": "v1",
        "event-time": "2018-11-02T22:08:41Z", "data": data,
    })
}

fn collection(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let plural = format!("{}s", text(&object["kind"]).to_lowercase());
    let namespace = text(&object["metadata"]["namespace"]);
    format!("/apis/{}/namespaces/{namespace}/{plural}", text(&object["apiVersion"]))
}
