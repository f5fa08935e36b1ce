//! Wiring: which broker, which API, and who is connected to whom. No other file asks in which world
//! the program runs.

use std::array;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eventbus_apiserver::ApiServer;
use eventbus_core::broker::BrokerHealth;
use eventbus_core::{Broker, Tracer, limits};
use eventbus_push::{Parts as PushParts, Push};
use eventbus_resources::{Freshness, HealthBoard, Leadership, StatusWriter, Watched};
use eventbus_server::admin::{BrokerGauges, SubscriptionStates};
use eventbus_server::control::Control;
use eventbus_server::publish::Publish;
use eventbus_server::telemetry::Telemetry;
use eventbus_server::{Admin, Latch, Port, Readiness};
use eventbus_traces::Exporter;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::health::Peer;
use super::resources::Resources;
use super::settings::{Role, Settings};
use super::telemetry::Program;
use super::{broker, data_dir, descriptors};
use crate::cli::{Fault, World};
use crate::output;

/// Time for the requests in work, and for the last sync, beside [`limits::DRAIN_TIME`]: together
/// below the ten seconds in which the program promises to be gone.
const LAST_TIME: Duration = Duration::from_millis(1_500);

/// How often it is looked whether the process is ready, at its start.
const READY_AGAIN: Duration = Duration::from_millis(20);

/// A running bus.
pub(super) struct Bus {
    publishing: CancellationToken,
    serving: CancellationToken,
    publish_port: TaskTracker,
    /// The sub-validator, which gives its Lease up over the API.
    judging: TaskTracker,
    others: TaskTracker,
    push: Option<Push>,
    /// The embedded API, where there is one.
    api: Option<ApiServer>,
    broker: Arc<dyn Broker>,
    failed: CancellationToken,
    lost: CancellationToken,
}

/// Starts everything, in the order in which parts need each other.
pub(super) async fn start(settings: Settings, world: World) -> Result<Bus, Fault> {
    let admin = Admin::default();
    let (latches, mut roles) = Latches::take(&admin.readiness, &settings);
    let budget = descriptors::raise();
    let (public, api_port) = ports(&settings, budget.port).await?;
    if settings.nats.is_none() || settings.cluster.is_none() {
        data_dir::open(&settings.data_dir)?;
    }
    let (broker, nats) = broker::open(&settings, &world, &admin.metrics).await?;
    let mut resources = Resources::open(&settings, &world, &api_port).await?;

    let [publishing, serving, failed, lost] = array::from_fn(|_| CancellationToken::new());
    let (publish_port, judging, others) = <(TaskTracker, TaskTracker, TaskTracker)>::default();
    admin.readiness.check("shutdown", goes_on(&publishing));
    let tracer = record(&settings, &world, &admin, (&others, &serving))?;
    let (watched, watch) = eventbus_resources::watch(resources.client.clone(), serving.clone());
    others.spawn(vital(watch, failed.clone()));
    let health = Arc::<HealthBoard>::default();
    let program = show(&broker, (&watched, &health), (&settings, &world), &admin);
    others.spawn(program.clone().reach(resources.client.clone(), serving.clone()));
    let addresses = (public.as_ref().map(Port::address), api_port.address());
    if let Some(port) = public {
        let seen = (&watched, &admin, &publish_port, tracer.clone());
        let publish = publish(&settings, &world, &broker, &resources.client, seen);
        publish_port.spawn(port.serve(Arc::new(publish).service(), publishing.clone()));
        roles.open(Role::Publish);
    }
    let api = resources.serve(api_port, admin.clone(), (&others, &serving));
    welcome(addresses, &settings);
    let election = settings.nats.as_ref().map(|_| resources.leadership(&world));
    if election.is_none() {
        // The log is this process's own: what is to be delivered from it, nobody else can deliver.
        resources.lead(&world, lost.clone(), (&others, &serving)).await;
    }
    latches.lead.open();
    if let Some(nats) = nats {
        let peer = Peer::meet(nats, &health, &settings, &world).await?;
        others.spawn(vital(peer.run(serving.clone()), failed.clone()));
    }
    if settings.has(Role::SubValidator) {
        let control = control(&watched, &resources.client, &health, &world);
        judging.spawn(vital(judge(control, election, serving.clone()), failed.clone()));
        roles.open(Role::SubValidator);
    }
    let mut versions = watched.versions;
    let push = settings.has(Role::Push).then(|| {
        let push = Push::start(PushParts {
            broker: broker.clone(),
            catalog: watched.catalog,
            health,
            clock: world.clock,
            entropy: world.entropy,
            connections: budget.push,
            told_one_by_one: settings.metrics_subscriptions,
            trusted: Vec::new(),
            tracer,
            failed: failed.clone(),
        });
        program.pushes(push.telemetry(), &admin.metrics);
        roles.open(Role::Push);
        push
    });
    if versions.wait_for(Option::is_some).await.is_ok() {
        latches.catalog.open();
    }
    others.spawn(announce(admin.readiness, serving.clone()));
    Ok(Bus { publishing, serving, publish_port, judging, others, push, api, broker, failed, lost })
}

impl Bus {
    /// Ends, and says why, when the bus must not go on.
    pub(super) async fn failed(&self) -> Fault {
        let why = tokio::select! {
            () = self.failed.cancelled() => "a part of the bus ended by a defect",
            () = self.lost.cancelled() => "the Lease was lost: another process delivers now",
        };
        Fault::Failed(why.to_owned())
    }

    /// Stops: no event is acknowledged from now on, attempts under way end or are abandoned, then
    /// everything is closed.
    pub(super) async fn drain(self) -> Result<(), Fault> {
        self.publishing.cancel();
        self.publish_port.close();
        let published = tokio::time::timeout(limits::DRAIN_TIME, self.publish_port.wait());
        let pushed = async {
            if let Some(push) = self.push {
                push.drain().await;
            }
        };
        let (published, ()) = tokio::join!(published, pushed);
        if published.is_err() {
            warn!("publish requests were still arriving when their time was over");
        }
        self.serving.cancel();
        self.others.close();
        self.judging.close();
        let closed = tokio::time::timeout(LAST_TIME, async {
            self.judging.wait().await;
            if let Some(api) = &self.api {
                api.close().await;
            }
            self.others.wait().await;
        });
        if closed.await.is_err() {
            warn!("clients of the API were still connected when their time was over");
        }
        let closed = self.broker.close().await;
        closed.map_err(|error| Fault::Failed(error.to_string()))?;
        info!("drained");
        Ok(())
    }
}

/// A task without which the bus only looks well: its end by a panic is the end of the process,
/// which whoever runs it will notice and start again.
async fn vital(task: impl Future<Output = ()>, failed: CancellationToken) {
    let armed = failed.drop_guard();
    task.await;
    armed.disarm();
}

/// What must have happened before the process is ready.
struct Latches {
    lead: Latch,
    catalog: Latch,
}

/// What each role must have done before the process is ready: begun.
struct RoleLatches(Vec<(Role, Latch)>);

impl Latches {
    fn take(readiness: &Readiness, settings: &Settings) -> (Self, RoleLatches) {
        let latches = Self { lead: readiness.latch("lead"), catalog: readiness.latch("catalog") };
        let roles = settings.roles.iter().map(|role| (*role, readiness.latch(role.word())));
        (latches, RoleLatches(roles.collect()))
    }
}

impl RoleLatches {
    fn open(&mut self, role: Role) {
        for (_, latch) in self.0.extract_if(.., |(one, _)| *one == role) {
            latch.open();
        }
    }
}

/// Shows operators how the broker, the Subscriptions and the program are.
fn show(
    broker: &Arc<dyn Broker>,
    (watched, health): (&Watched, &Arc<HealthBoard>),
    (settings, world): (&Settings, &World),
    admin: &Admin,
) -> Arc<Program> {
    let asked = broker.clone();
    let is_usable = move || !matches!(asked.stats().health, BrokerHealth::Unusable(_));
    admin.readiness.check("broker", is_usable);
    let (catalog, health) = (watched.catalog.clone(), health.clone());
    admin.metrics.export(BrokerGauges::new(broker.clone(), settings.durability));
    if settings.has(Role::SubValidator) {
        // Others do not hear how deliveries go elsewhere.
        admin.metrics.export(SubscriptionStates { catalog, health });
    }
    let program = Program::new(broker.clone(), admin.readiness.clone(), &*world.clock);
    let program = Arc::new(program);
    admin.metrics.export(program.clone());
    program
}

fn goes_on(publishing: &CancellationToken) -> impl Fn() -> bool + 'static {
    let publishing = publishing.clone();
    move || !publishing.is_cancelled()
}

/// Opens the publish port, where this process publishes, and the API port.
async fn ports(settings: &Settings, connections: usize) -> Result<(Option<Port>, Port), Fault> {
    let public = match settings.has(Role::Publish) {
        true => {
            let port = open("publish", settings.publish_listen, connections).await?;
            Some(port.with_short_answers())
        }
        false => None,
    };
    Ok((public, open("API", settings.api_listen, connections).await?))
}

/// Begins to record traces and to export them, if they are asked for.
fn record(
    settings: &Settings,
    world: &World,
    admin: &Admin,
    (tasks, serving): (&TaskTracker, &CancellationToken),
) -> Result<Option<Tracer>, Fault> {
    let telemetry = Arc::<eventbus_traces::Telemetry>::default();
    admin.metrics.export(telemetry.clone());
    let Some(traces) = &settings.traces else { return Ok(None) };
    let (clock, entropy) = (world.clock.clone(), world.entropy.clone());
    let exporter = Exporter::start(traces.config.clone(), telemetry, clock.clone())
        .map_err(|error| Fault::Usage(format!("trace_url cannot be used: {error}")))?;
    let tracer = Tracer::new(exporter.spans(), clock, entropy, traces.ratio);
    let stopped = serving.clone();
    tasks.spawn(async move {
        stopped.cancelled().await;
        exporter.drain().await;
    });
    Ok(Some(tracer))
}

async fn open(name: &'static str, address: SocketAddr, connections: usize) -> Result<Port, Fault> {
    Port::open(name, address, connections).await.map_err(|error| Fault::Usage(error.to_string()))
}

fn control(
    watched: &Watched,
    client: &kube::Client,
    health: &Arc<HealthBoard>,
    world: &World,
) -> Control {
    Control {
        catalog: watched.catalog.clone(),
        health: health.clone(),
        writer: StatusWriter::new(client.clone(), world.clock.clone()),
        clock: world.clock.clone(),
    }
}

/// Keeps statuses true until `stop`; where there is an election, while this process is the one
/// elected.
async fn judge(mut control: Control, election: Option<Leadership>, stop: CancellationToken) {
    let Some(mut leadership) = election else {
        stop.run_until_cancelled(control.run()).await;
        return;
    };
    let judging = async {
        loop {
            leadership.acquire().await;
            tokio::select! {
                biased;
                () = leadership.keep() => {}
                () = control.run() => return,
            }
        }
    };
    stop.run_until_cancelled(judging).await;
    leadership.release().await;
}

/// Says on standard output that the process is ready, when it is.
async fn announce(readiness: Readiness, stop: CancellationToken) {
    let told = async {
        if !readiness.is_ready() {
            let missing = readiness.state().into_iter().filter(|(_, is_ready)| !is_ready);
            let missing: Vec<_> = missing.map(|(name, _)| name).collect();
            let _ = output::line(&format!("waiting  for: {}", missing.join(", ")));
        }
        while !readiness.is_ready() {
            tokio::time::sleep(READY_AGAIN).await;
        }
        // Nobody may be reading: that is no reason not to serve.
        let _ = output::line("ready");
    };
    stop.run_until_cancelled(told).await;
}

/// Says on standard output where everything is. With a port number of 0 this is where to read the
/// one that the system chose.
fn welcome((publish, api): (Option<SocketAddr>, SocketAddr), settings: &Settings) {
    let mut lines = Vec::new();
    if let Some(publish) = publish {
        lines.push(format!("publish  http://{publish}/v1/events"));
    }
    if settings.cluster.is_none() {
        let kubeconfig = settings.data_dir.join("kubeconfig");
        let kubeconfig = kubeconfig.display();
        lines.push(format!("API      http://{api}"));
        lines.push(format!("kubectl  kubectl --kubeconfig {kubeconfig} get subscriptions -A"));
    } else {
        lines.push(format!("probes   http://{api}/readyz"));
    }
    // Nobody may be reading: that is no reason not to serve.
    let _ = output::line(&lines.join("\n"));
}

fn publish(
    settings: &Settings,
    world: &World,
    broker: &Arc<dyn Broker>,
    client: &kube::Client,
    (watched, admin, port, tracer): (&Watched, &Admin, &TaskTracker, Option<Tracer>),
) -> Publish {
    let telemetry = Arc::<Telemetry>::default();
    admin.metrics.export(telemetry.clone());
    Publish {
        broker: broker.clone(),
        catalog: watched.catalog.clone(),
        freshness: Freshness::new(client.clone(), watched.versions.clone()),
        entropy: world.entropy.clone(),
        applications: settings.applications.clone(),
        durability: settings.durability,
        front: settings.application_front,
        clock: world.clock.clone(),
        event_bytes: settings.max_event_bytes,
        batch_bytes: settings.max_batch_bytes,
        batch_events: settings.max_batch_events,
        in_work: Semaphore::new(settings.max_requests),
        arriving: Semaphore::new(limits::ARRIVING_BYTES),
        delaying: Semaphore::new(limits::BATCH_DELAYS_KIB),
        unfinished: port.clone(),
        readiness: admin.readiness.clone(),
        telemetry,
        tracer,
    }
}
