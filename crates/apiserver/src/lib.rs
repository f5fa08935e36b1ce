//! The embedded Kubernetes-style API server: enough of the API that the real `kubectl` and the real
//! client libraries work against it, over one SQLite file.
//!
//! It is generic: what it serves are CustomResourceDefinitions, and what is `builtin`. The same
//! definitions make a real cluster serve the same resources, so nothing else in the program knows
//! which of the two it talks to. [`ApiServer::service`] is the service behind an in-process
//! `kube::Client`; the program also serves it over HTTP, behind a [`Gate`].
//!
//! A request goes `service` → `route` → `verbs` → `admit` → `store`, and comes back through
//! `render`; every error is a `status`. A write passes `fields` on its way, where it is noted who
//! owns what.

mod accept;
mod access;
mod admit;
mod audit;
mod body;
mod builtin;
mod collect;
mod decode;
mod definition;
mod discovery;
mod effort;
mod fields;
mod gate;
mod jsonpath;
mod limits;
mod listing;
mod metadata;
mod object;
mod openapi;
mod patch;
mod protobuf;
mod render;
mod route;
mod schema;
mod selector;
mod service;
mod status;
mod store;
mod strategic;
mod table;
mod users;
mod verbs;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use eventbus_core::{Clock, Entropy};
use serde_json::Value;
use thiserror::Error;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::task::TaskTracker;

pub use self::{
    access::{Role, Scope, User},
    body::Body,
    definition::DefinitionError,
    gate::{Gate, Gated},
    schema::SchemaError,
    service::Service,
    store::StoreError,
    users::{Account, AccountError, Accounts, Users},
};
use self::{audit::Audit, definition::Registry, openapi::Documents, store::Store, verbs::Api};

/// The namespace that is always there.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";

/// What an API server needs.
pub struct Config {
    /// The file in which objects lie; made if it is not there. Its folder must exist.
    pub path: PathBuf,
    /// CustomResourceDefinitions of `apiextensions.k8s.io/v1`, in the order of discovery: where two
    /// have one short name, the first has it.
    pub definitions: Vec<Value>,
    /// The file that tells who wrote what, if that shall be told. At 10 MiB
    /// it is put aside under a number; four such files are kept.
    pub audit: Option<PathBuf>,
    /// Tells the time of creations, deletions and ages.
    pub clock: Arc<dyn Clock>,
    /// Makes uids and generated names.
    pub entropy: Arc<dyn Entropy>,
}

/// Why an API server cannot start. Nothing on disk was changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A definition cannot be served.
    #[error("resource definition: {0}")]
    Definition(#[from] DefinitionError),
    /// The store cannot be opened.
    #[error("resource store: {0}")]
    Store(#[from] StoreError),
    /// The audit log cannot be opened.
    #[error("audit log: {0}")]
    Audit(std::io::Error),
    /// The store does not take the first write.
    #[error("resource store: the namespace \"{DEFAULT_NAMESPACE}\" could not be made: {0}")]
    Write(String),
}

/// A running API server.
pub struct ApiServer {
    api: Arc<Api>,
    collector: Mutex<Option<JoinHandle<()>>>,
}

impl ApiServer {
    /// Would the file at `path` be refused as a store? None at all would not. Nothing is made or
    /// changed. Blocks.
    pub fn check(path: &Path) -> Result<(), OpenError> {
        Ok(Store::check(path)?)
    }

    /// Opens the store and starts. Must be called inside a tokio runtime.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let Config { path, definitions, audit, clock, entropy } = config;
        let registry = Arc::new(Registry::read(&definitions)?);
        let openapi = Documents::compile(&registry).map_err(DefinitionError::Form)?;
        let opened = Arc::clone(&registry);
        let dice = Arc::clone(&entropy);
        let store = tokio::task::spawn_blocking(move || Store::open(&path, opened, dice))
            .await
            .map_err(|error| OpenError::Write(error.to_string()))??;
        let audit = audit.as_deref().map(Audit::open).transpose().map_err(OpenError::Audit)?;
        let watches = Arc::new(Semaphore::new(limits::WATCHES));
        let closing = watch::Sender::new(false);
        let writes = TaskTracker::new();
        let api = Api { registry, openapi, store, audit, clock, entropy, writes, watches, closing };
        let api = Arc::new(api);
        if let Err(error) = verbs::create::ensure_namespace(&api, DEFAULT_NAMESPACE).await {
            api.store.close().await;
            return Err(OpenError::Write(error.status()["message"].to_string()));
        }
        let collector = tokio::spawn(collect::run(Arc::clone(&api)));
        Ok(Self { api, collector: Some(collector).into() })
    }

    /// The API: in process behind a `kube::Client`, or over HTTP behind a [`Gate`].
    pub fn service(&self) -> Service {
        Service::new(Arc::clone(&self.api))
    }

    /// Ends every watch, finishes the queued writes, and closes the file. Requests that come later
    /// are answered 503.
    pub async fn close(&self) {
        self.api.closing.send_replace(true);
        let collector = self.collector.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(collector) = collector
            && let Err(error) = collector.await
        {
            tracing::error!(%error, "the collector ended by a panic");
        }
        self.api.store.close().await;
        self.api.writes.close();
        self.api.writes.wait().await;
        if let Some(audit) = &self.api.audit {
            audit.close().await;
        }
    }
}

impl Drop for ApiServer {
    /// Ends the watches and the collector; whoever wants to wait for the file calls
    /// [`ApiServer::close`] before.
    fn drop(&mut self) {
        self.api.closing.send_replace(true);
    }
}
