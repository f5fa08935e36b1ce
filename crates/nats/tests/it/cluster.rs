//! Three servers: the loss of one is not felt, and the loss of two ends when one returns.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use eventbus_core::broker::AppendError;
use eventbus_core::delivery::{Attempt, Outcome, Verdict};
use eventbus_core::{Broker, Clock, Cursor, Durability, Settled};
use eventbus_nats::{Access, Nats, NatsConfig, Sync};
use tokio::net::TcpSocket;

use crate::server::{NatsServer, Options};
use crate::world::*;

/// Far less than the time after which a request is taken for lost without a word of it.
const SOON: Duration = Duration::from_secs(25);

/// The servers, and what keeps the ports of their routes for them.
pub(crate) struct Cluster(pub(crate) Vec<NatsServer>, #[expect(dead_code)] Vec<TcpSocket>);

const SYSTEM: &str = "accounts { SYS { users: [{ user: sys, password: secret }] }\n\
    BUS { jetstream: enabled, users: [{ user: bus }] } }\nsystem_account: SYS\nno_auth_user: bus";

impl Cluster {
    /// Three servers that find each other; `syncing` of them sync before they acknowledge.
    pub(crate) async fn start(syncing: usize) -> Option<Self> {
        let held: Vec<_> = (0..3).map(|_| kept_port()).collect();
        let ports: Vec<u16> = held.iter().map(|one| one.local_addr().unwrap().port()).collect();
        let routes: Vec<String> =
            ports.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
        let routes = routes.join(", ");
        let mut servers = Vec::new();
        for (n, port) in ports.into_iter().enumerate() {
            let settings = format!(
                "cluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}\n\
                 {SYSTEM}"
            );
            let jetstream = if n < syncing { "sync_interval: always" } else { "" }.to_owned();
            let name = Some(format!("server-{n}"));
            servers.push(NatsServer::start(Options { name, settings, jetstream }).await?);
        }
        Some(Self(servers, held))
    }

    pub(crate) fn config(&self) -> NatsConfig {
        let urls = self.0.iter().map(NatsServer::url).collect();
        NatsConfig { urls, replicas: 3, ..NatsConfig::at("") }
    }

    /// The number of the server that leads a consumer of a stream; of the stream itself.
    pub(crate) async fn leader(&self, stream: &str, consumer: Option<&str>) -> usize {
        for _ in 0..400 {
            if let Some(leader) = self.asked(stream, consumer).await {
                return leader;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("nobody leads {stream} {consumer:?}");
    }

    async fn asked(&self, stream: &str, consumer: Option<&str>) -> Option<usize> {
        let urls: Vec<String> = self.0.iter().map(NatsServer::url).collect();
        let server = jetstream::new(async_nats::connect(urls).await.ok()?);
        let stream = server.get_stream(stream).await.ok()?;
        let cluster = match consumer {
            None => stream.cached_info().cluster.clone(),
            Some(consumer) => {
                let found: Result<jetstream::consumer::PullConsumer, _> =
                    stream.get_consumer(consumer).await;
                found.ok()?.cached_info().cluster.clone()
            }
        };
        cluster?.leader?.strip_prefix("server-")?.parse().ok()
    }
}

/// A port that the system gives to nobody else while this lives: bound without listening, so that a
/// server that asks for this very port has it.
fn kept_port() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    socket
}

/// Publishes until it is stored, as a publisher does that hears 503; none of its tries hangs.
async fn publish_at_last(broker: &Nats, payload: &str) {
    let clock = machine_clock();
    loop {
        match publish(broker, payload).await {
            Ok(stored) => {
                assert_eq!(stored.durability, Durability::Replicated);
                return;
            }
            Err(AppendError::Unavailable(_)) if clock.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{payload}: {error}"),
        }
    }
}

async fn publish_all(broker: &Nats, name: &str) -> Vec<String> {
    let events: Vec<String> = (0..10).map(|n| format!("{name}/{n}")).collect();
    for event in &events {
        publish_at_last(broker, event).await;
    }
    events
}

#[tokio::test]
async fn one_of_three_may_go_and_two_of_three_are_waited_for() {
    let Some(cluster) = Cluster::start(0).await else { return };
    let broker = usable(cluster.config()).await;
    let offered = broker.capabilities();
    assert_eq!(offered.default_durability, Durability::Replicated);
    assert!(!offered.durabilities.contains(&Durability::Synced), "{offered:?}");
    let refused = publish_at(&broker, "x", Durability::Synced).await;
    assert_eq!(refused, Err(AppendError::Durability(Durability::Synced)));
    let orders = cursor(&broker, "orders").await;
    takes(&orders, &publish_all(&broker, "three").await).await;
    let first = cluster.leader("EB_EVENTS", None).await;
    cluster.0[first].kill();
    takes(&orders, &publish_all(&broker, "two").await).await;
    let second = (first + 1) % 3;
    cluster.0[second].kill();
    // What is tried while they are two short is refused in time, whoever is asked.
    for n in 0..3 {
        let tried = tokio::time::timeout(Duration::from_secs(10), publish(&broker, "lost"));
        let refused = tried.await.expect("it does not hang");
        assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{n}: {refused:?}");
    }
    cluster.0[second].run().await;
    takes(&orders, &publish_all(&broker, "two again").await).await;
    cluster.0[first].run().await;
    takes(&orders, &publish_all(&broker, "three again").await).await;
    is_usable(&broker).await;
}

/// Leases one event and asks for its retry.
async fn retried(cursor: &Arc<dyn Cursor>, broker: &Nats, payload: &str, after_ms: u64) {
    publish_at_last(broker, payload).await;
    let due_ms = machine_clock().now_ms() + after_ms;
    let leased = tokio::time::timeout(PATIENCE, cursor.lease(std::num::NonZeroUsize::MIN)).await;
    let mut leased = leased.expect("it comes").unwrap();
    let lease = leased.pop().unwrap();
    let attempt = Some(Attempt::new(machine_clock().now_ms(), 1, Outcome::Timeout));
    let settled = Settled { lease, attempt, verdict: Verdict::Retry { due_ms } };
    cursor.settle(vec![settled]).await.unwrap();
}

#[tokio::test]
async fn what_waits_at_a_leader_comes_when_another_leads() {
    let Some(cluster) = Cluster::start(0).await else { return };
    let broker = usable(cluster.config()).await;
    let orders = cursor(&broker, "orders").await;
    retried(&orders, &broker, "first", 0).await;
    takes(&orders, &["first"]).await;
    drop((broker, orders));
    for stream in ["EB_RETRY", "EB_EVENTS"] {
        let leader = cluster.leader(stream, Some("orders")).await;
        // The connection stays, so that nothing else tells of the change.
        let urls = vec![cluster.0[(leader + 1) % 3].url()];
        let broker = usable(NatsConfig { urls, ..cluster.config() }).await;
        let orders = cursor(&broker, "orders").await;
        let expected = ["before", "after"].map(|when| format!("{when} {stream} has another"));
        retried(&orders, &broker, &expected[0], 5_000).await;
        let (waiting, events) = (orders.clone(), expected.clone());
        let taking = tokio::spawn(async move { takes(&waiting, &events).await });
        tokio::time::sleep(Duration::from_millis(500)).await;
        cluster.0[leader].kill();
        publish_at_last(&broker, &expected[1]).await;
        tokio::time::timeout(SOON, taking).await.expect("it comes soon").unwrap();
        cluster.0[leader].run().await;
        is_usable(&broker).await;
    }
}

#[tokio::test]
async fn all_servers_must_tell_the_system_account_that_they_sync() {
    let system = Access::User { name: "sys".into(), password: "secret".into() };
    for (syncing, synced) in [(3, true), (2, false)] {
        let Some(cluster) = Cluster::start(syncing).await else { return };
        let sync = Sync::System(system.clone());
        let broker = usable(NatsConfig { sync, ..cluster.config() }).await;
        let offered = broker.capabilities();
        assert_eq!(offered.durabilities.contains(&Durability::Synced), synced, "{offered:?}");
        assert_eq!(offered.default_durability, Durability::Replicated);
        if !synced {
            continue;
        }
        // One that does not answer may be one that does not sync.
        cluster.0[2].kill();
        let sync = Sync::System(system.clone());
        let broker = usable(NatsConfig { sync, ..cluster.config() }).await;
        assert!(!broker.capabilities().durabilities.contains(&Durability::Synced));
    }
}
