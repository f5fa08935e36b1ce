//! How the broker is, for `/metrics`: asked anew at each scrape.

use std::fmt;
use std::sync::Arc;

use eventbus_core::broker::BrokerHealth;
use eventbus_core::{Broker, Durability};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

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
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.broker.stats();
        let is_up = !matches!(stats.health, BrokerHealth::Unusable(_));
        let mut gauge = |family: &'static str, what: &str, value: u64| {
            let family = encoder.encode_descriptor(family, what, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(family)
        };
        gauge(
            "eventbus_broker_up",
            "1 while the broker can be used; 0 while it is not there or has failed.",
            is_up.into(),
        )?;
        gauge(
            "eventbus_storage_full",
            "1 while events are refused for want of room (507); delivery goes on.",
            (stats.health == BrokerHealth::Full).into(),
        )?;
        gauge("eventbus_log_bytes", "Bytes of storage in use.", stats.used_bytes)?;
        gauge(
            "eventbus_log_free_bytes",
            "Bytes that may still be stored before events are refused.",
            stats.free_bytes,
        )?;
        let mut durability = encoder.encode_descriptor(
            "eventbus_durability",
            "The durability of a publish that asks for none, and those that may be asked for; \
             not told while the broker is not up.",
            None,
            MetricType::Info,
        )?;
        // A broker that is not there has promised nothing yet.
        if is_up {
            let capabilities = self.broker.capabilities();
            let default = self.durability.unwrap_or(capabilities.default_durability);
            let promised: Vec<_> =
                capabilities.durabilities.iter().map(|level| level.as_str()).collect();
            durability.encode_info(&[
                ("default", default.as_str()),
                ("promised", promised.join(",").as_str()),
            ])?;
        }
        Ok(())
    }
}

impl fmt::Debug for BrokerGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerGauges").field("durability", &self.durability).finish_non_exhaustive()
    }
}
