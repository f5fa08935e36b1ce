//! What `/metrics` tells of the program as a whole: its build, its process, its components, and
//! what more than one of its parts counts.

use std::fmt;
use std::fs;
use std::sync::{Arc, OnceLock};

use eventbus_core::telemetry::Families;
use eventbus_core::{Broker, Clock};
use eventbus_push::Telemetry as PushTelemetry;
use eventbus_resources::Reach;
use eventbus_server::Readiness;
use eventbus_server::admin::Metrics;
use kube::Client;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

/// The program, as it is told of.
pub(super) struct Program {
    broker: Arc<dyn Broker>,
    readiness: Readiness,
    /// Is the API there?
    reach: Reach,
    /// What push counts, once this process pushes.
    push: OnceLock<Arc<PushTelemetry>>,
    /// When the process began: wall-clock milliseconds since 1970.
    began_ms: u64,
}

impl Program {
    /// Of a process whose clock this is since it began.
    pub(super) fn new(broker: Arc<dyn Broker>, readiness: Readiness, clock: &dyn Clock) -> Self {
        let elapsed_ms = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        let began_ms = clock.now_ms().saturating_sub(elapsed_ms);
        let (reach, push) = (Reach::default(), OnceLock::new());
        Self { broker, readiness, reach, push, began_ms }
    }

    /// The task: looks whether the API is there, until `stop`.
    pub(super) async fn reach(self: Arc<Self>, client: Client, stop: CancellationToken) {
        stop.run_until_cancelled(self.reach.follow(client)).await;
    }

    /// Takes note of the push of this process.
    pub(super) fn pushes(&self, push: &Arc<PushTelemetry>, metrics: &Metrics) {
        metrics.export(push.clone());
        // There is never a second one.
        let _ = self.push.set(push.clone());
    }

    fn encode_parts(&self, families: &mut Families<'_>) -> fmt::Result {
        families.facts(
            "eventbus_build",
            "Which program this is.",
            &[
                ("version", env!("CARGO_PKG_VERSION")),
                ("os", std::env::consts::OS),
                ("arch", std::env::consts::ARCH),
            ],
        )?;
        families.gauge(
            "eventbus_api_up",
            "1 while the API that holds the resources, embedded or real, lists them; asked every \
             5 s.",
            u64::from(self.reach.is_up()),
        )?;
        let components = self.readiness.state();
        families.gauges(
            "eventbus_component_up",
            "1 while this part of the program is as it should be: the checks of `/readyz`.",
            ["component"],
            components.iter().map(|(name, is_up)| ([*name], u64::from(*is_up))),
        )?;
        let expired = self.push.get().map_or(0, |push| push.expired());
        let lost = self.broker.stats().dropped_events;
        families.counters(
            "eventbus_dropped_events",
            "Events that a Subscription asked for and will not be delivered: `expired`, by the \
             publisher's own word; or lost to `retention`, by `backlog_max_bytes` or `age_s`.",
            "reason",
            [("expired", expired), ("retention", lost)],
        )
    }

    fn encode_process(&self, families: &mut Families<'_>) -> fmt::Result {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        families.counter_of(
            "process_cpu_seconds",
            "Time of processors that the process has used.",
            cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        )?;
        families.gauge(
            "process_start_time_seconds",
            "When the process began, in seconds since 1970.",
            self.began_ms as f64 / 1e3,
        )?;
        if let Some(most) = getrlimit(Resource::Nofile).current {
            let help = "File descriptors that the process may have open.";
            families.gauge("process_max_fds", help, most)?;
        }
        // Where the system has no such files these are not told.
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let help = "File descriptors that the process has open.";
            families.gauge("process_open_fds", help, open.count())?;
        }
        let Ok(status) = fs::read_to_string("/proc/self/status") else { return Ok(()) };
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
        };
        let bytes = |name: &str| number(name).unwrap_or_default().saturating_mul(1024);
        let help = "Memory of the process that lies in the machine's.";
        families.gauge("process_resident_memory_bytes", help, bytes("VmRSS"))?;
        let help = "Memory that the process has addressed.";
        families.gauge("process_virtual_memory_bytes", help, bytes("VmSize"))?;
        let help = "Threads of the process.";
        families.gauge("process_threads", help, number("Threads").unwrap_or_default())
    }
}

impl Collector for Program {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families::to(encoder);
        self.encode_parts(&mut families)?;
        self.encode_process(&mut families)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("reach", &self.reach).finish_non_exhaustive()
    }
}
