//! Where the resources live: in the embedded API of this process, or on a real API server.

use std::path::{Path, PathBuf};

use eventbus_apiserver::{ApiServer, Config as ApiConfig, Gate, OpenError, StoreError, Users};
use eventbus_core::limits;
use eventbus_resources::{DEFINITIONS, Leadership};
use eventbus_server::{Admin, Identity, Port};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::authority::Authority;
use super::kubeconfig::{self, Site};
use super::settings::Settings;
use super::{api_port, data_dir};
use crate::cli::{Fault, World};

/// The namespace of a call to the embedded API that names none.
const DEFAULT_NAMESPACE: &str = "default";

/// Which real API server holds the resources.
#[derive(Debug)]
pub(crate) enum Cluster {
    /// That of this context of the file, or of its current one.
    Kubeconfig(PathBuf, Option<String>),
    /// That of the cluster this process runs in.
    Incluster,
}

/// The resources, wherever they are.
pub(super) struct Resources {
    pub(super) client: Client,
    /// The namespace of our Lease.
    namespace: String,
    embedded: Option<Embedded>,
    is_embedded: bool,
}

/// Why a real API server is not known to be of use.
enum Unfit {
    /// It is not there, for this reason: it may come.
    Away(String),
    /// It must not be used.
    Wrong(Fault),
}

struct Embedded {
    server: ApiServer,
    gate: Gate,
    identity: Identity,
}

impl Resources {
    /// Opens the embedded API behind `port`, or connects to the real one.
    pub(super) async fn open(
        settings: &Settings,
        world: &World,
        port: &Port,
    ) -> Result<Self, Fault> {
        match &settings.cluster {
            None => Self::embedded(settings, world, port).await,
            Some(cluster) => Self::real(cluster).await,
        }
    }

    async fn embedded(settings: &Settings, world: &World, port: &Port) -> Result<Self, Fault> {
        let config = ApiConfig {
            path: settings.data_dir.join(data_dir::RESOURCES),
            definitions: DEFINITIONS.map(|definition| definition.manifest()).into(),
            audit: Some(settings.data_dir.join("audit.log")),
            clock: world.clock.clone(),
            entropy: world.entropy.clone(),
        };
        let server = ApiServer::open(config).await.map_err(|error| fault(&error))?;
        let in_data_dir = |error| data_dir::unusable(&settings.data_dir, &error);
        let token = kubeconfig::token(&settings.data_dir, &*world.entropy).map_err(in_data_dir)?;
        let (address, hosts) = (port.address(), settings.api_hosts.clone());
        let authority = Authority::open(&settings.data_dir).map_err(in_data_dir)?;
        let identity = authority.identity(address.ip(), &hosts).map_err(|error| {
            Fault::Usage(format!("api_host {hosts:?} cannot stand in a certificate: {error}"))
        })?;
        let site = Site::new(address, authority.certificate());
        site.write(&settings.data_dir, &token).map_err(in_data_dir)?;
        let users = Users::new(token, Some(settings.data_dir.join(kubeconfig::USERS)));
        let gate = Gate::new(users, address, hosts);
        let client = Client::new(server.service(), DEFAULT_NAMESPACE);
        let embedded = Some(Embedded { server, gate, identity });
        let namespace = DEFAULT_NAMESPACE.to_owned();
        Ok(Self { client, namespace, embedded, is_embedded: true })
    }

    async fn real(cluster: &Cluster) -> Result<Self, Fault> {
        let config = cluster.config().await?;
        let (url, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| {
            Fault::Usage(format!("the API server {url} cannot be used: {error}"))
        })?;
        match timeout(limits::API_LOOK_TIME, knows_us(&client, &url)).await {
            Ok(Ok(())) => info!(url, namespace, "the resources are on a real API server"),
            Ok(Err(Unfit::Wrong(fault))) => return Err(fault),
            // The bus comes up without it, and is not ready until it is there.
            Ok(Err(Unfit::Away(error))) => warn!(url, error, "the API server is waited for"),
            Err(_) => warn!(url, error = "it says nothing", "the API server is waited for"),
        }
        Ok(Self { client, namespace, embedded: None, is_embedded: false })
    }

    /// Serves the API port until `stop`: the operators' endpoints, and the embedded API if there is
    /// one.
    pub(super) fn serve(
        &mut self,
        port: Port,
        admin: Admin,
        (tasks, stop): (&TaskTracker, &CancellationToken),
    ) -> Option<ApiServer> {
        let Some(Embedded { server, gate, identity }) = self.embedded.take() else {
            tasks.spawn(port.serve(api_port::operators(admin), stop.clone()));
            return None;
        };
        let service = api_port::service(server.service(), gate, admin);
        tasks.spawn(port.with_identity(identity).serve(service, stop.clone()));
        Some(server)
    }

    /// This process's part in the election of the one that keeps the statuses.
    pub(super) fn leadership(&self, world: &World) -> Leadership {
        let clock = world.clock.clone();
        Leadership::new(self.client.clone(), &self.namespace, identity(world), clock)
    }

    /// Ends when no other process delivers what this one would; at once where the resources are in
    /// this process. From then on `lost` is cancelled when another may; at `stop` the right is
    /// given up.
    pub(super) async fn lead(
        &self,
        world: &World,
        lost: CancellationToken,
        (tasks, stop): (&TaskTracker, &CancellationToken),
    ) {
        if self.is_embedded {
            return;
        }
        let mut leadership = self.leadership(world);
        leadership.acquire().await;
        let stop = stop.clone();
        tasks.spawn(async move {
            if stop.run_until_cancelled(leadership.keep()).await.is_some() {
                lost.cancel();
            } else {
                leadership.release().await;
            }
        });
    }
}

impl Cluster {
    async fn config(&self) -> Result<Config, Fault> {
        match self {
            Self::Kubeconfig(path, context) => read(path, context.clone()).await,
            Self::Incluster => Config::incluster().map_err(|error| {
                Fault::Usage(format!(
                    "--in-cluster wants a service account of a cluster: {error}; outside of one \
                     say --kubeconfig FILE"
                ))
            }),
        }
    }
}

async fn read(path: &Path, context: Option<String>) -> Result<Config, Fault> {
    let wrong = |error: &dyn std::fmt::Display| {
        Fault::Usage(format!("the kubeconfig {} cannot be used: {error}", path.display()))
    };
    let file = Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(file, &options).await.map_err(|error| wrong(&error))
}

/// Why the embedded API does not start, and whose fault that is.
pub(super) fn fault(error: &OpenError) -> Fault {
    match error {
        OpenError::Store(StoreError::Io { .. }) | OpenError::Write(_) => {
            Fault::Failed(error.to_string())
        }
        _ => Fault::Usage(error.to_string()),
    }
}

/// Does the API server serve our resources, and the Leases by which processes elect one of them?
async fn knows_us(client: &Client, url: &str) -> Result<(), Unfit> {
    for definition in DEFINITIONS {
        let resource = definition.api_resource();
        knows(client, url, &resource, "eventbus crds | kubectl apply -f -").await?;
    }
    let lease = GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease");
    let lease = ApiResource::from_gvk_with_plural(&lease, "leases");
    knows(client, url, &lease, "processes elect one of them by it: name another server").await
}

async fn knows(
    client: &Client,
    url: &str,
    resource: &ApiResource,
    advice: &str,
) -> Result<(), Unfit> {
    let name = format!("{}.{}", resource.plural, resource.group);
    match client.list_api_group_resources(&resource.api_version).await {
        Ok(served) if served.resources.iter().any(|one| one.name == resource.plural) => Ok(()),
        Err(kube::Error::Api(status)) if status.code >= 500 => Err(Unfit::Away(status.to_string())),
        Err(kube::Error::Api(status)) if status.code != 404 => {
            let refusal = format!("the API server {url} refuses: {status}");
            Err(Unfit::Wrong(Fault::Failed(refusal)))
        }
        Ok(_) | Err(kube::Error::Api(_)) => {
            let lack = format!("the API server {url} does not serve {name}: {advice}");
            Err(Unfit::Wrong(Fault::Usage(lack)))
        }
        Err(error) => Err(Unfit::Away(error.to_string())),
    }
}

/// A name that no other process has.
fn identity(world: &World) -> String {
    let host = std::env::var("POD_NAME")
        .or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"))
        .unwrap_or_default();
    format!("{}_{:016x}", host.trim(), world.entropy.next_u64())
}
