//! What an acknowledged event survives, and that the bus promises no more than the server keeps.

use eventbus_core::broker::AppendError;
use eventbus_core::{Broker, Durability, Receipt};
use eventbus_nats::{Access, Nats, NatsConfig, Sync};
use tokio::net::TcpListener;

use crate::access::Operator;
use crate::server::{NatsServer, Options};
use crate::world::*;

fn syncing(always: bool) -> Options {
    let jetstream = if always { "sync_interval: always" } else { "" };
    Options { jetstream: jetstream.to_owned(), ..Options::default() }
}

/// The level in force, and that all weaker ones and no stronger one can be asked for by name.
async fn promises(broker: &Nats, level: Durability) {
    assert_eq!(broker.capabilities().default_durability, level);
    for asked in Durability::ALL {
        let appended = publish_at(broker, "x", asked).await;
        if asked <= level {
            assert!(appended.unwrap().durability >= asked, "{asked}");
        } else {
            assert_eq!(appended, Err(AppendError::Durability(asked)));
        }
    }
}

#[tokio::test]
async fn what_is_written_survives_the_end_of_the_server_and_of_the_bus() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let mut expected = Vec::new();
    for round in 0..3 {
        let broker = usable(NatsConfig::at(server.url())).await;
        for n in 0..20 {
            let payload = format!("{round}/{n}");
            let stored = publish_at(&broker, &payload, Durability::Written).await.unwrap();
            assert!(matches!(stored.receipts[..], [Receipt::Stored(_)]), "{stored:?}");
            expected.push(payload);
        }
        server.kill();
        drop(broker);
        server.run().await;
    }
    let broker = usable(NatsConfig::at(server.url())).await;
    assert_eq!(takes(&cursor(&broker, "orders").await, &expected).await, 0);
}

#[tokio::test]
async fn what_is_accepted_is_stored_while_the_server_is_there() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let broker = usable(NatsConfig::at(server.url())).await;
    let accepted = publish_at(&broker, "x", Durability::Accepted).await.unwrap();
    assert_eq!(accepted.receipts, [Receipt::Accepted]);
    takes(&cursor(&broker, "orders").await, &["x"]).await;
}

#[tokio::test]
async fn written_is_what_a_server_is_taken_to_reach_of_which_nothing_is_known() {
    for always in [false, true] {
        let Some(server) = NatsServer::start(syncing(always)).await else { return };
        promises(&usable(NatsConfig::at(server.url())).await, Durability::Written).await;
    }
}

#[tokio::test]
async fn what_is_stated_is_believed() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    for (always, level) in [(false, Durability::Written), (true, Durability::Synced)] {
        let sync = Sync::Stated { always };
        let config = NatsConfig { sync, ..NatsConfig::at(server.url()) };
        promises(&usable(config).await, level).await;
    }
}

/// The server is asked with each connection.
async fn is_heard(server: &NatsServer, config: NatsConfig, options: impl Fn(bool) -> Options) {
    let broker = usable(config).await;
    for always in [true, false, true] {
        server.rerun(options(always)).await;
        let level = if always { Durability::Synced } else { Durability::Written };
        // Never more than it reaches, also in the moment of the change.
        until("it stores again", || {
            let stats = broker.stats();
            stats.health == eventbus_core::broker::BrokerHealth::Usable
                && broker.capabilities().default_durability == level
        })
        .await;
        promises(&broker, level).await;
    }
}

#[tokio::test]
async fn synced_is_what_the_monitoring_port_tells_with_each_connection() {
    let Some(server) = NatsServer::start(syncing(false)).await else { return };
    let sync = Sync::Monitored(vec![server.monitor_url()]);
    let config = NatsConfig { sync, ..NatsConfig::at(server.url()) };
    is_heard(&server, config, syncing).await;
}

#[tokio::test]
async fn a_monitoring_port_that_tells_nothing_is_taken_as_not_synced() {
    let Some(server) = NatsServer::start(syncing(true)).await else { return };
    let Some(other) = NatsServer::start(syncing(false)).await else { return };
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let [silent_url, gone_url] =
        [&silent, &gone].map(|port| format!("http://{}", port.local_addr().unwrap()));
    drop(gone);
    let ours = server.monitor_url();
    for urls in [
        vec![gone_url],
        vec![silent_url],
        vec![server.url().replace("nats://", "http://")],
        vec!["https://127.0.0.1:1".to_owned()],
        vec![ours.clone(), other.monitor_url()],
        vec![],
    ] {
        let sync = Sync::Monitored(urls);
        promises(
            &usable(NatsConfig { sync, ..NatsConfig::at(server.url()) }).await,
            Durability::Written,
        )
        .await;
    }
    let sync = Sync::Monitored(vec![format!("{ours}/")]);
    promises(
        &usable(NatsConfig { sync, ..NatsConfig::at(server.url()) }).await,
        Durability::Synced,
    )
    .await;
}

const ACCOUNTS: &str = "accounts { \
    SYS { users: [{ user: sys, password: sys-secret }] }\n\
    BUS { jetstream: enabled, users: [{ user: bus, password: bus-secret }] } }\n\
    system_account: SYS";

fn user(name: &str) -> Access {
    Access::User { name: name.to_owned(), password: format!("{name}-secret") }
}

#[tokio::test]
async fn synced_is_what_the_system_account_tells_with_each_connection() {
    let options = |always| Options { settings: ACCOUNTS.to_owned(), ..syncing(always) };
    let Some(server) = NatsServer::start(options(false)).await else { return };
    let config = |sync| NatsConfig { access: user("bus"), sync, ..NatsConfig::at(server.url()) };
    is_heard(&server, config(Sync::System(user("sys"))), options).await;
    let wrong = Access::User { name: "sys".into(), password: "wrong".into() };
    for access in [user("bus"), wrong, Access::Anonymous] {
        promises(&usable(config(Sync::System(access))).await, Durability::Written).await;
    }
}

#[tokio::test]
async fn the_system_account_may_be_told_by_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let operator = Operator::new();
    let options = Options { settings: operator.settings(), ..syncing(true) };
    let Some(server) = NatsServer::start(options).await else { return };
    let access = Access::Credentials(operator.credentials(dir.path()).0);
    let system = Access::Credentials(operator.system_credentials(dir.path()).0);
    let sync = Sync::System(system);
    let config = NatsConfig { access, sync, ..NatsConfig::at(server.url()) };
    promises(&usable(config).await, Durability::Synced).await;
}
