//! Does each server sync before it acknowledges? Read from the servers, where they can be asked.

use serde::Deserialize;

use crate::config::{NatsConfig, Sync};
use crate::{monitor, system, telemetry};

/// What a server says of itself, of which this is all that we want to know.
#[derive(Deserialize)]
pub(crate) struct Varz {
    #[serde(default)]
    jetstream: JetStream,
}

#[derive(Default, Deserialize)]
struct JetStream {
    config: Option<Config>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    sync_always: bool,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    cluster_size: usize,
}

impl Varz {
    /// Does it sync before it acknowledges? `None`: it stores nothing.
    pub(crate) fn syncs_always(&self) -> Option<bool> {
        self.jetstream.config.as_ref().map(|config| config.sync_always)
    }

    /// How many servers store events together, as far as it knows.
    pub(crate) fn servers(&self) -> usize {
        self.jetstream.meta.as_ref().map_or(1, |meta| meta.cluster_size)
    }
}

/// Does each server sync before it acknowledges? Not, unless all of them say so.
pub(crate) async fn is_always(config: &NatsConfig) -> bool {
    let read = match &config.sync {
        Sync::Unknown => return false,
        Sync::Stated { always } => return *always,
        Sync::Monitored(urls) => monitor::syncs_always(urls).await,
        Sync::System(access) => system::syncs_always(config, access).await,
    };
    read.unwrap_or_else(|reason| {
        telemetry::not_synced(&reason);
        false
    })
}
