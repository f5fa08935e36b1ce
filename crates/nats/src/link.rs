//! The connection: made, kept, and made again; and what is put in order on the server each time.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use eventbus_core::{Clock, Entropy, limits};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use crate::api::{Api, Changes};
use crate::config::{Access, NatsConfig, OpenError, Sync};
use crate::levels::Levels;
use crate::shared::{Shared, Standing};
use crate::streams::{self, Unready};
use crate::{monitor, telemetry};

/// JetStream's level that has message schedules and counters, and the server that brought it.
const API_LEVEL: u64 = 2;
const OLDEST_SERVER: &str = "2.12";

/// How soon the server is asked again that is not ready, and the one that cannot be used.
const SOON: Duration = Duration::from_millis(250);
const LATER: Duration = Duration::from_secs(10);

/// Begins to connect. Does not wait for the server.
pub(crate) async fn connect(config: &NatsConfig) -> Result<(Client, Changes), OpenError> {
    let (changed, changes) = watch::channel(0);
    let changed = Arc::new(changed);
    let options = options(config).await?.event_callback(move |event| {
        let changed = changed.clone();
        async move {
            match event {
                Event::Connected => changed.send_modify(|count| *count += 1),
                Event::Disconnected => {
                    telemetry::disconnected();
                    changed.send_modify(|count| *count += 1);
                }
                _ => {}
            }
        }
    });
    let connecting = options.connect(config.urls.as_slice()).await;
    let client = connecting.map_err(|error| setting("nats_url", error.to_string()))?;
    Ok((client, changes))
}

async fn options(config: &NatsConfig) -> Result<ConnectOptions, OpenError> {
    let mut options = ConnectOptions::new()
        .name("eventbus")
        .retry_on_initial_connect()
        .ping_interval(limits::NATS_PING_EVERY)
        .connection_timeout(limits::NATS_CALL_TIME)
        .request_timeout(Some(limits::NATS_CALL_TIME))
        .reconnect_delay_callback(|attempts| {
            let doubled = limits::BROKER_PAUSE_FIRST * (1 << attempts.min(4));
            doubled.min(limits::NATS_RECONNECT_PAUSE_MAX)
        });
    options = match &config.access {
        Access::Anonymous => options,
        Access::User { name, password } => {
            options.user_and_password(name.clone(), password.clone())
        }
        Access::Token(token) => options.token(token.clone()),
        Access::Nkey(seed) => options.nkey(seed.clone()),
        Access::Credentials(file) => {
            let shown = file.display();
            let read = options.credentials_file(file).await;
            read.map_err(|error| setting("nats_credentials", format!("{shown}: {error}")))?
        }
    };
    if let Some(roots) = &config.tls.roots {
        options = options.add_root_certificates(roots.clone());
    }
    if let Some((certificate, key)) = &config.tls.client {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options.require_tls(config.tls.required))
}

fn setting(setting: &'static str, reason: String) -> OpenError {
    OpenError::Setting { setting, reason }
}

/// Puts the server in order after each connection, until the broker is closed.
pub(crate) async fn run(shared: Arc<Shared>, mut changes: Changes) {
    loop {
        changes.borrow_and_update();
        let pause = if shared.api.is_connected() { Some(prepare(&shared).await) } else { None };
        let again = async {
            match pause.flatten() {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
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
    Ok(Levels { replicated: shared.config.replicas >= 3, synced: is_synced(&shared.config).await })
}

/// Does each server sync before it acknowledges?
async fn is_synced(config: &NatsConfig) -> bool {
    match &config.sync {
        Sync::Unknown => false,
        Sync::Stated { always } => *always,
        Sync::Monitored(urls) => {
            for url in urls {
                match monitor::syncs_always(url).await {
                    Ok(true) => {}
                    Ok(false) => return false,
                    Err(reason) => {
                        telemetry::not_synced(url, &reason);
                        return false;
                    }
                }
            }
            !urls.is_empty()
        }
    }
}

/// The parts of a broker that is being opened.
pub(crate) fn share(
    api: Api,
    config: NatsConfig,
    seams: (Arc<dyn Clock>, Arc<dyn Entropy>),
) -> Arc<Shared> {
    Arc::new(Shared::new(api, config, seams))
}
