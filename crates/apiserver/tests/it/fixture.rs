//! A server on a fresh file, with small definitions, a clock that the tests set and a seeded die.

use std::{path::Path, sync::Arc};

use eventbus_apiserver::{ApiServer, Body, Config, OpenError, Role, User};
use eventbus_core::testing::{ManualClock, SeededEntropy};
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use kube::{
    Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use tower::Service;

/// A running server; its file goes with it.
pub(crate) struct Fixture {
    pub(crate) server: ApiServer,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) folder: tempfile::TempDir,
    /// Each opening rolls its own dice: uids never come again.
    seed: u64,
}

/// The moment at which tests begin.
pub(crate) const START_MS: u64 = 1_500_000_000_000;

impl Fixture {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::within(folder).await.unwrap()
    }

    async fn within(folder: tempfile::TempDir) -> Result<Self, OpenError> {
        let clock = Arc::new(ManualClock::at(START_MS));
        let server = open(&folder.path().join("resources.db"), &clock, 1).await?;
        Ok(Self { server, clock, folder, seed: 1 })
    }

    /// Closes the server and opens its file again.
    pub(crate) async fn reopen(self) -> Self {
        let Self { server, clock, folder, seed } = self;
        let seed = seed + 1;
        server.close().await;
        drop(server);
        let server = open(&folder.path().join("resources.db"), &clock, seed).await.unwrap();
        Self { server, clock, folder, seed }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.server.service(), "default")
    }

    /// Widgets of a namespace.
    pub(crate) fn widgets(&self, namespace: &str) -> kube::Api<DynamicObject> {
        kube::Api::namespaced_with(self.client(), namespace, &widget_resource())
    }

    /// Sends a request; gives the status and the body as JSON (or as a JSON text).
    pub(crate) async fn send(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let content = match method {
            "PATCH" if body.is_array() => "application/json-patch+json",
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(path).header("content-type", content);
        let response = self.raw(request.body(body).unwrap()).await;
        let code = response.status().as_u16();
        (code, read(response).await)
    }

    /// The same, as a user who came through the gate.
    pub(crate) async fn send_as(
        &self,
        role: Role,
        method: &str,
        path: &str,
        body: Value,
    ) -> (u16, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = Request::builder().method(method).uri(path).body(text).unwrap();
        if method == "PATCH" {
            let merge = HeaderValue::from_static("application/merge-patch+json");
            request.headers_mut().insert("content-type", merge);
        }
        request.extensions_mut().insert(User { name: "ada".into(), role });
        let response = self.raw(request).await;
        let code = response.status().as_u16();
        (code, read(response).await)
    }

    /// Applies an object; `path` names who, as `?fieldManager=` does.
    pub(crate) async fn apply(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = Request::patch(path).header("content-type", "application/apply-patch+yaml");
        let response = self.raw(request.body(body.to_string()).unwrap()).await;
        (response.status().as_u16(), read(response).await)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, Value::Null).await
    }

    pub(crate) async fn raw(&self, request: Request<String>) -> Response<Body> {
        self.server.service().call(request).await.unwrap()
    }

    /// Creates a widget that must be accepted.
    pub(crate) async fn create(&self, namespace: &str, name: &str, size: u64) -> Value {
        let path = format!("{WIDGETS}/namespaces/{namespace}/widgets");
        let (code, created) = self.send("POST", &path, widget(name, size)).await;
        assert_eq!(code, 201, "{created}");
        created
    }
}

/// The whole body.
pub(crate) async fn read(response: Response<Body>) -> Value {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Opens a server on this file.
pub(crate) async fn open(
    path: &Path,
    clock: &Arc<ManualClock>,
    seed: u64,
) -> Result<ApiServer, OpenError> {
    let config = Config {
        path: path.into(),
        definitions: definitions(),
        audit: Some(path.with_file_name("audit.log")),
        clock: Arc::<ManualClock>::clone(clock),
        entropy: Arc::new(SeededEntropy::new(seed)),
    };
    ApiServer::open(config).await
}

/// Opens a server for these definitions.
pub(crate) async fn open_with(
    path: &Path,
    definitions: Vec<Value>,
) -> Result<ApiServer, OpenError> {
    let (clock, entropy) = (ManualClock::at(START_MS), SeededEntropy::new(1));
    let (clock, entropy) = (Arc::new(clock), Arc::new(entropy));
    ApiServer::open(Config { path: path.into(), definitions, audit: None, clock, entropy }).await
}

/// The group version of the widgets.
pub(crate) const WIDGETS: &str = "/apis/shop.example/v1";

pub(crate) fn widget(name: &str, size: u64) -> Value {
    json!({
        "apiVersion": "shop.example/v1", "kind": "Widget",
        "metadata": { "name": name }, "spec": { "size": size, "color": "red" },
    })
}

pub(crate) fn widget_resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("shop.example", "v1", "Widget"))
}

/// Widgets and gadgets, written as JSON as a cluster would be given them.
pub(crate) fn definitions() -> Vec<Value> {
    let text = include_str!("definitions.json");
    serde_json::from_str(text).unwrap()
}
