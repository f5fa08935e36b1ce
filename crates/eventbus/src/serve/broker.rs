//! Where the events live: in the embedded log of this process, or in NATS JetStream.

use std::sync::Arc;

use eventbus_core::broker::{BrokerHealth, Capabilities};
use eventbus_core::{Broker, limits};
use eventbus_log::{Log, LogConfig, OpenError, TraceObserver};
use eventbus_nats::{Nats, NatsConfig};
use eventbus_server::admin::Metrics;
use tracing::info;

use super::data_dir;
use super::settings::Settings;
use crate::cli::{Fault, World};

/// A broker, and the NATS that it is where it is one.
pub(super) type Opened = (Arc<dyn Broker>, Option<Arc<Nats>>);

/// Opens the broker that the settings name.
pub(super) async fn open(
    settings: &Settings,
    world: &World,
    metrics: &Metrics,
) -> Result<Opened, Fault> {
    match &settings.nats {
        None => {
            let log = open_log(settings, world).await?;
            metrics.export(log.exported());
            Ok((log, None))
        }
        Some(config) => {
            let nats = open_nats(config.clone(), settings, world).await?;
            metrics.export(nats.telemetry().clone());
            Ok((nats.clone(), Some(nats)))
        }
    }
}

async fn open_nats(
    config: NatsConfig,
    settings: &Settings,
    world: &World,
) -> Result<Arc<Nats>, Fault> {
    let World { clock, entropy } = world.clone();
    let opened = Nats::open(config, clock, entropy).await;
    let nats = opened.map_err(|error| Fault::Usage(error.to_string()))?;
    // A server that is not there yet has promised nothing: publishers hear of it then.
    if !matches!(nats.stats().health, BrokerHealth::Unusable(_)) {
        check_durability(settings, &nats.capabilities(), "the NATS server, as far as is known,")?;
    }
    Ok(Arc::new(nats))
}

/// Refuses a default that the broker cannot promise: each publish would fail.
fn check_durability(
    settings: &Settings,
    capabilities: &Capabilities,
    broker: &str,
) -> Result<(), Fault> {
    match settings.durability {
        Some(level) if !capabilities.durabilities.contains(&level) => {
            let words: Vec<_> =
                capabilities.durabilities.iter().map(|level| level.as_str()).collect();
            Err(Fault::Usage(format!(
                "durability is {level}, and {broker} can promise {}",
                words.join(", ")
            )))
        }
        _ => Ok(()),
    }
}

async fn open_log(settings: &Settings, world: &World) -> Result<Arc<Log>, Fault> {
    let mut config = LogConfig::in_dir(settings.data_dir.join(data_dir::LOG));
    config.history_bytes = settings.history_bytes.unwrap_or(config.history_bytes);
    config.max_bytes = settings.max_bytes;
    config.backlog_max_bytes = settings.backlog_max_bytes;
    config.age = settings.age.unwrap_or(config.age);
    config.deduplication_time = settings.deduplication.unwrap_or(config.deduplication_time);
    let World { clock, entropy } = world.clone();
    let opened = tokio::task::spawn_blocking(move || {
        Log::open(config, clock, &*entropy, Arc::new(TraceObserver))
    })
    .await;
    let log = opened.map_err(|error| Fault::Failed(error.to_string()))?;
    let log = log.map_err(|error| match error {
        OpenError::Io { .. } => Fault::Failed(error.to_string()),
        error => Fault::Usage(error.to_string()),
    })?;
    let largest = log.batch_bytes().saturating_sub(limits::STORED_HEAD_BYTES);
    if settings.max_event_bytes > largest {
        return Err(Fault::Usage(format!(
            "max_event_bytes is {}, but within max_bytes an event may have {largest} bytes: lower \
             the one or raise the other",
            settings.max_event_bytes
        )));
    }
    let capabilities = log.capabilities();
    check_durability(settings, &capabilities, "the embedded log")?;
    let durability = settings.durability.unwrap_or(capabilities.default_durability);
    info!(%durability, "events are kept in the embedded log");
    Ok(Arc::new(log))
}
