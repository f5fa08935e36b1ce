//! Push: delivers each Subscription's events to its endpoint, at least once.
//!
//! A supervisor follows the catalog. Each active Subscription has a dispatcher: one task that
//! leases events from its cursor, up to `max_inflight` at a time, makes an attempt for each, and
//! settles what became of it. Push keeps nothing that a crash could lose: retry times and attempts
//! live behind the cursor.

mod attempt;
mod backlog;
mod desk;
mod dispatcher;
mod endpoint;
mod http;
mod slots;
mod supervisor;
mod telemetry;
mod transport;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use eventbus_core::{Broker, Catalog, Clock, Entropy, Tracer, limits};
use eventbus_resources::HealthBoard;
use rustls::pki_types::CertificateDer;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::attempt::Tools;
use self::slots::Slots;
use self::supervisor::{Inputs, Supervisor};

pub use self::endpoint::{BadEndpoint, Endpoint, Origin};
pub use self::http::Http;
pub use self::telemetry::{Counts, Telemetry};
pub use self::transport::{Delivery, Transport};

/// What push is made of.
pub struct Parts {
    /// Where events come from.
    pub broker: Arc<dyn Broker>,
    /// What is declared. The cursor of a Subscription that it [lacks](Catalog::lacks) is forgotten;
    /// that of one which cannot be run is kept.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// Where it is told how deliveries go.
    pub health: Arc<HealthBoard>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Rolls the dice of backoffs and request ids.
    pub entropy: Arc<dyn Entropy>,
    /// Connections to endpoints, idle and busy, that may be open at once: what the process's
    /// descriptor limit allows, at most [`limits::PUSH_CONNECTIONS`].
    pub connections: usize,
    /// Of how many Subscriptions metrics tell the lag one by one.
    pub told_one_by_one: usize,
    /// Certificates that endpoints may be signed by, beside those the system trusts.
    pub trusted: Vec<CertificateDer<'static>>,
    /// Where traces are recorded, if they are.
    pub tracer: Option<Tracer>,
    /// Cancelled when push ends otherwise than by [`Push::drain`]: by a defect.
    pub failed: CancellationToken,
}

/// Running deliveries. Dropping it abandons them.
pub struct Push {
    tasks: JoinSet<()>,
    drain: CancellationToken,
    telemetry: Arc<Telemetry>,
}

impl Push {
    /// Starts delivering over HTTP. Must be called within a Tokio runtime.
    pub fn start(mut parts: Parts) -> Self {
        let connections = parts.connections.min(limits::PUSH_CONNECTIONS);
        let trusted = std::mem::take(&mut parts.trusted);
        let http = Http::new(parts.clock.clone(), connections, trusted);
        Self::start_over(parts, http)
    }

    /// The same over another transport.
    pub fn start_over<T: Transport>(parts: Parts, transport: T) -> Self {
        let telemetry = Arc::<Telemetry>::default();
        let tools = Tools {
            transport,
            clock: parts.clock,
            entropy: parts.entropy,
            slots: Slots::new(parts.connections.min(limits::PUSH_CONNECTIONS)),
            telemetry: telemetry.clone(),
            tracer: parts.tracer,
        };
        let supervisor = Supervisor {
            tools: Arc::new(tools),
            broker: parts.broker,
            board: parts.health,
            wards: HashMap::new(),
            dispatchers: JoinSet::new(),
            chores: JoinSet::new(),
            chores_at_once: Arc::new(Semaphore::new(limits::CURSOR_CHORES)),
            catalog: Arc::default(),
            snapshot: 0,
            told_one_by_one: parts.told_one_by_one,
        };
        let drain = CancellationToken::new();
        let inputs = Inputs { catalog: parts.catalog, drain: drain.clone() };
        let armed = parts.failed.drop_guard();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            supervisor.run(inputs).await;
            armed.disarm();
        });
        Self { tasks, drain, telemetry }
    }

    /// What has happened so far.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Ends well: begins no more attempts, waits for those under way for
    /// [`limits::DRAIN_TIME`] and settles them. What has not ended then is abandoned, and comes
    /// again after the next start.
    pub async fn drain(mut self) {
        self.drain.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push").field("telemetry", &self.telemetry).finish_non_exhaustive()
    }
}
