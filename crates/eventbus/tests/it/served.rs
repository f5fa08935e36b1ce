//! A running bus for one test: the built program, its data directory, its kubectl.

use std::path::{Path, PathBuf};
use std::process::Stdio;

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
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::program::{Running, start, within};

/// The bus, and everything a test does with it.
pub(crate) struct Bus {
    running: Option<Running>,
    directory: TempDir,
    /// Where its resources lie, unless they lie in its own API.
    cluster: Option<Cluster>,
    pub(crate) kube: OnceCell<kube::Client>,
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
        Self::over(None, flags).await
    }

    /// The same over an API server that is not its own.
    pub(crate) async fn over(cluster: Option<&Cluster>, flags: &[&str]) -> Self {
        let mut bus = Self {
            running: None,
            directory: tempfile::tempdir().unwrap(),
            cluster: cluster.cloned(),
            kube: OnceCell::new(),
            publish: String::new(),
            api: String::new(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        };
        bus.start_again(flags).await;
        bus
    }

    /// Ends the API server that it is over, where nobody else has it.
    pub(crate) fn end_cluster(&mut self) {
        self.cluster = None;
    }

    /// Starts the program on the same directory.
    pub(crate) async fn start_again(&mut self, flags: &[&str]) {
        let (data_dir, kubeconfig) = (self.data_dir(), self.kubeconfig());
        let mut args = vec!["serve", "--data-dir", data_dir.to_str().unwrap()];
        args.extend(["--publish-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
        if self.cluster.is_some() {
            args.extend(["--kubeconfig", kubeconfig.to_str().unwrap()]);
        }
        args.extend(flags);
        let mut running = start(&args);
        loop {
            let line = running.line().await;
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["publish", url] => self.publish = url.trim_end_matches("/v1/events").to_owned(),
                ["API", url] => self.api = url.to_owned(),
                ["probes", url] => self.api = url.trim_end_matches("/readyz").to_owned(),
                ["ready"] | ["waiting", ..] => break,
                _ => {}
            }
        }
        self.running = Some(running);
        // Its own API is at another port now.
        self.kube = OnceCell::new();
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// By which its resources are reached.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let own = || self.data_dir().join("kubeconfig");
        self.cluster.as_ref().map_or_else(own, Cluster::kubeconfig)
    }

    /// What the namespace `name` of this test is called where the resources lie.
    pub(crate) fn namespace(&self, name: &str) -> String {
        self.cluster.as_ref().map_or_else(|| name.to_owned(), |cluster| cluster.namespace(name))
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

    /// The same; returns what it noted as well.
    pub(crate) async fn stop_told(&mut self) -> (i32, String) {
        let running = self.running.take().unwrap();
        running.terminate();
        let (status, _, notes) = running.ended().await;
        (status.code().unwrap_or(-1), notes)
    }

    /// Asks it to read its settings again.
    pub(crate) fn hang_up(&self) {
        self.running.as_ref().unwrap().hang_up();
    }

    /// Reads what it notes, to its end.
    pub(crate) fn notes(&mut self) -> JoinHandle<String> {
        self.running.as_mut().unwrap().notes()
    }

    /// The next line that it notes.
    pub(crate) async fn note(&mut self) -> String {
        self.running.as_mut().unwrap().note().await
    }

    /// What any server answers to a GET; none when it does not.
    pub(crate) async fn get(url: &str) -> Option<String> {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let answer = client.get(url.parse().ok()?).await.ok()?;
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        String::from_utf8(body.to_vec()).ok()
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

    /// Runs the real kubectl against the API of the bus, with `input` as its standard input.
    pub(crate) async fn kubectl(&self, args: &[&str], input: &str) -> Kubectl {
        let program = kubectl_path().unwrap();
        let home = self.directory.path().join("home");
        let mut child = Command::new(program)
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
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
}

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

/// An event of the source `shop`.
pub(crate) fn event(event_type: &str, data: &Value) -> Value {
    json!({
        "source-id": "shop", "event-type": event_type, "event-type-version": "v1",
        "event-time": "2018-11-02T22:08:41Z", "data": data,
    })
}
