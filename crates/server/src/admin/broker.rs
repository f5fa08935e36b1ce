//! How the broker is, for `/metrics`: asked anew at each scrape.

use std::fmt;
use std::sync::Arc;

use eventbus_core::broker::BrokerHealth;
use eventbus_core::telemetry::Families;
use eventbus_core::{Broker, Durability};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

/// Exports how a broker is.
pub struct BrokerGauges {
    broker: Arc<dyn Broker>,
    durability: Option<Durability>,
}

impl BrokerGauges {
    /// Of `broker`, where a publish that asks for no durability gets `durability`; `None`: the
    /// strongest honest one.
    pub fn new(broker: Arc<dyn Broker>, durability: Option<Durability>) -> Self {
        Self { broker, durability }
    }
}

impl Collector for BrokerGauges {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.broker.stats();
        let is_up = !matches!(stats.health, BrokerHealth::Unusable(_));
        let mut families = Families::to(encoder);
        families.gauge(
            "eventbus_broker_up",
            "1 while the broker can be used; 0 while it is not there or has failed.",
            u64::from(is_up),
        )?;
        families.gauge(
            "eventbus_storage_full",
            "1 while events are refused for want of room (507); delivery goes on.",
            u64::from(stats.health == BrokerHealth::Full),
        )?;
        families.gauge("eventbus_log_bytes", "Bytes of storage in use.", stats.used_bytes)?;
        families.gauge(
            "eventbus_log_free_bytes",
            "Bytes that may still be stored before events are refused: within `max_bytes`, and \
             for the log within what its volume has left and with what settled events would make \
             room for, looked at every second.",
            stats.free_bytes,
        )?;
        families.gauge(
            "eventbus_log_events",
            "Events kept, settled or not.",
            stats.next.0.saturating_sub(stats.first.0),
        )?;
        families.gauge(
            "eventbus_delayed_events",
            "Events that are kept until they are due.",
            stats.delayed_events,
        )?;
        families.gauge(
            "eventbus_delayed_bytes",
            "Bytes of those, as they are stored.",
            stats.delayed_bytes,
        )?;
        families.counter(
            "eventbus_dead_letters",
            "Events given up and kept as dead letters.",
            stats.dead_letters,
        )?;
        let capabilities = self.broker.capabilities();
        let default = self.durability.unwrap_or(capabilities.default_durability);
        let promised = capabilities.durabilities.iter().map(|level| level.as_str());
        let promised = promised.collect::<Vec<_>>().join(",");
        let facts = [("default", default.as_str()), ("promised", promised.as_str())];
        families.facts(
            "eventbus_durability",
            "The durability of a publish that asks for none, and those that may be asked for; \
             not told while the broker is not up.",
            // A broker that is not there has promised nothing yet.
            if is_up { &facts } else { &[] },
        )
    }
}

impl fmt::Debug for BrokerGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerGauges").field("durability", &self.durability).finish_non_exhaustive()
    }
}
