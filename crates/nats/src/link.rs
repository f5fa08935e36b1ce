//! The connection: made, kept, and made again; and what is put in order on the server each time.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Event};
use eventbus_core::{Clock, Entropy, limits};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use crate::api::{Api, Changes};
use crate::config::{NatsConfig, OpenError, Sync};
use crate::levels::Levels;
use crate::shared::{Shared, Standing};
use crate::streams::{self, Unready};
use crate::{access, sync, telemetry};

/// JetStream's level that has message schedules and counters, and the server that brought it.
const API_LEVEL: u64 = 2;
const OLDEST_SERVER: &str = "2.12";

/// How soon the server is asked again that is not ready, and the one that cannot be used.
const SOON: Duration = Duration::from_millis(250);
const LATER: Duration = Duration::from_secs(10);

/// How soon it is asked again why there is no connection.
const EXPLAIN_EVERY: Duration = Duration::from_secs(2);

/// What becomes of the connection.
pub(crate) struct Signals {
    /// Grows each time it is made or lost.
    pub(crate) changes: Changes,
    /// May the broker be used?
    pub(crate) standing: Arc<watch::Sender<Standing>>,
}

/// Begins to connect. Does not wait for the server.
pub(crate) async fn connect(config: &NatsConfig) -> Result<(Client, Signals), OpenError> {
    let waiting = Standing::Waiting("there is no connection to the NATS server yet".into());
    let (changed, changes) = watch::channel(0);
    let standing = Arc::new(watch::Sender::new(waiting));
    let (changed, kept) = (Arc::new(changed), standing.clone());
    let is_read = matches!(config.sync, Sync::Monitored(_) | Sync::System(_));
    let options = access::options(&config.access, &config.tls).await?;
    let options = options.retry_on_initial_connect().reconnect_delay_callback(|attempts| {
        let doubled = limits::BROKER_PAUSE_FIRST * (1 << attempts.min(4));
        doubled.min(limits::NATS_RECONNECT_PAUSE_MAX)
    });
    let options = options.event_callback(move |event| {
        match event {
            Event::Connected => changed.send_modify(|count| *count += 1),
            Event::Disconnected => {
                telemetry::disconnected();
                if is_read {
                    forget_levels(&kept);
                }
                changed.send_modify(|count| *count += 1);
            }
            _ => {}
        }
        std::future::ready(())
    });
    let connecting = options.connect(config.urls.as_slice()).await;
    let client = connecting
        .map_err(|error| OpenError::Setting { setting: "nats_url", reason: error.to_string() })?;
    Ok((client, Signals { changes, standing }))
}

/// Whoever is there next may sync otherwise: nothing is promised until it has told.
fn forget_levels(standing: &watch::Sender<Standing>) {
    standing.send_if_modified(|standing| {
        let is_ready = matches!(standing, Standing::Ready(_));
        if is_ready {
            *standing = Standing::Waiting("the connection to the NATS server is lost".into());
        }
        is_ready
    });
}

/// Puts the server in order after each connection, until the broker is closed.
pub(crate) async fn run(shared: Arc<Shared>, mut changes: Changes) {
    loop {
        changes.borrow_and_update();
        let turn = async {
            let pause = match shared.api.is_connected() {
                true => prepare(&shared).await,
                false => Some(explain(&shared).await),
            };
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = turn => {}
        }
    }
}

/// Finds out why there is no connection, by trying another; tells when to look again.
async fn explain(shared: &Shared) -> Duration {
    let NatsConfig { access, tls, urls, .. } = &shared.config;
    let reason = match access::options(access, tls).await {
        Ok(options) => match options.connect(urls.as_slice()).await {
            // The other one will be made as well, and is told of.
            Ok(_) => return SOON,
            Err(error) => access::explain(access, &error),
        },
        Err(error) => error.to_string(),
    };
    if shared.api.is_connected() {
        return Duration::ZERO;
    }
    let standing = Standing::Waiting(reason.clone());
    if shared.standing.send_replace(standing.clone()) != standing {
        telemetry::not_ready(&reason);
    }
    EXPLAIN_EVERY
}

/// Puts the server in order; tells when to try again.
async fn prepare(shared: &Arc<Shared>) -> Option<Duration> {
    let standing = match ready(shared).await {
        Ok(levels) => Standing::Ready(levels),
        Err(Unready::Away(reason)) => Standing::Waiting(reason),
        Err(Unready::Wrong(error)) => Standing::Wrong(error),
    };
    let pause = match &standing {
        Standing::Ready(_) => None,
        Standing::Waiting(_) => Some(SOON),
        Standing::Wrong(_) => Some(LATER),
    };
    let before = shared.standing.send_replace(standing.clone());
    match &standing {
        Standing::Ready(levels) => {
            telemetry::connected(&shared.api.client.server_info().server_name, *levels);
            // Whatever was asked before, nobody remembers.
            let cursors = shared.cursors().all();
            for cursor in cursors {
                cursor.place().asked.iter_mut().for_each(|asked| asked.lost());
                cursor.notify.notify_one();
            }
            shared.chores.notify.notify_one();
        }
        Standing::Waiting(reason) if before != standing => telemetry::not_ready(reason),
        Standing::Wrong(error) if before != standing => telemetry::wrong(&error.to_string()),
        _ => {}
    }
    pause
}

#[derive(Deserialize)]
struct Account {
    api: AccountApi,
}

#[derive(Deserialize)]
struct AccountApi {
    #[serde(default)]
    level: u64,
}

async fn ready(shared: &Shared) -> Result<Levels, Unready> {
    let asked: Result<Account, _> = shared.api.call("INFO", &json!({})).await;
    let account = asked.map_err(|error| Unready::Away(error.to_string()))?;
    if account.api.level < API_LEVEL {
        let version = shared.api.client.server_info().version;
        let reason =
            format!("its version is {version}: JetStream of nats-server {OLDEST_SERVER} is needed");
        return Err(Unready::Wrong(OpenError::Server { reason }));
    }
    streams::ensure(&shared.api, &shared.config).await?;
    Ok(Levels {
        replicated: shared.config.replicas >= 3,
        synced: sync::is_always(&shared.config).await,
    })
}

/// The parts of a broker that is being opened.
pub(crate) fn share(
    api: Api,
    config: NatsConfig,
    standing: Arc<watch::Sender<Standing>>,
    seams: (Arc<dyn Clock>, Arc<dyn Entropy>),
) -> Arc<Shared> {
    Arc::new(Shared::new(api, config, standing, seams))
}
