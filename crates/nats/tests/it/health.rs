//! What processes tell each other of how deliveries go.

use std::time::Duration;

use eventbus_core::delivery::Outcome;
use eventbus_core::reconcile::{DeliveryHealth, Health};
use eventbus_core::report::Said;
use eventbus_core::testing::SeededEntropy;
use eventbus_core::{ProcessId, Report};
use eventbus_nats::{Asked, Hearing, Nats, NatsConfig};
use tokio::time::timeout;

use crate::server::{NatsServer, Options};
use crate::world::{PATIENCE, unique, usable};

const PAUSE: Duration = Duration::from_millis(50);

fn process() -> ProcessId {
    ProcessId::draw(&SeededEntropy::new(unique()))
}

fn report(round: u64) -> Report {
    let delivery = DeliveryHealth::Failing(Outcome::Timeout);
    let said = Said { uid: "a".into(), health: Health { delivery, backlog: None } };
    Report { round, farewell: false, subscriptions: vec![said] }
}

async fn heard(hearing: &mut Hearing) -> (ProcessId, Report) {
    timeout(PATIENCE, hearing.next()).await.expect("nothing is told")
}

async fn is_asked(asked: &mut Asked) {
    timeout(PATIENCE, asked.next()).await.expect("nobody asks");
}

/// Tells it again and again, until all have heard it.
async fn tell_all(broker: &Nats, told: (ProcessId, Report), listeners: &mut [Hearing]) {
    let telling = async {
        loop {
            broker.tell(told.0, &told.1).await;
            tokio::time::sleep(PAUSE).await;
        }
    };
    let all_hear = async {
        for listener in listeners {
            while heard(listener).await != told {}
        }
    };
    tokio::select! {
        () = telling => {}
        () = all_hear => {}
    }
}

/// Listens for ever: reports told more than once may still be on their way.
async fn listen(hearing: &mut Hearing) {
    loop {
        hearing.next().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_tells_all_that_listen_hear() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let (one, other) =
        (usable(NatsConfig::at(server.url())).await, usable(NatsConfig::at(server.url())).await);
    let id = process();
    let mut asked = one.asked().await.unwrap();
    assert!(one.tell(id, &report(1)).await, "nobody hears it");
    let mut first = one.hear().await.unwrap();
    is_asked(&mut asked).await;
    assert!(one.tell(id, &report(2)).await);
    assert_eq!(heard(&mut first).await, (id, report(2)));
    let second = other.hear().await.unwrap();
    is_asked(&mut asked).await;
    let mut listeners = [first, second];
    tell_all(&one, (id, report(3)), &mut listeners).await;
    // What is said during an outage is lost, and then all is asked for by those who listen.
    server.kill();
    while one.tell(id, &report(4)).await {
        tokio::time::sleep(PAUSE).await;
    }
    server.run().await;
    tokio::select! {
        () = is_asked(&mut asked) => {}
        () = listen(&mut listeners[0]) => {}
    }
    tell_all(&one, (id, report(5)), &mut listeners).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_skipped() {
    let Some(server) = NatsServer::start(Options::default()).await else { return };
    let broker = usable(NatsConfig::at(server.url())).await;
    let stranger = async_nats::connect(server.url()).await.unwrap();
    let (id, mut hearing) = (process(), broker.hear().await.unwrap());
    assert!(broker.tell(id, &report(1)).await);
    assert_eq!(heard(&mut hearing).await, (id, report(1)), "the server knows who listens");
    let strange = [
        (format!("health.said.{id}"), "no report"),
        (format!("health.said.{id}"), ""),
        ("health.said.nobody".to_owned(), r#"{"round":1}"#),
        (format!("health.said.{id}.more"), r#"{"round":1}"#),
        (format!("health.{id}"), r#"{"round":1}"#),
    ];
    // A server gives what one connection sends in its order.
    for (subject, payload) in strange {
        stranger.publish(subject, payload.into()).await.unwrap();
    }
    let json = report(7).to_json().unwrap();
    stranger.publish(format!("health.said.{id}"), json.into()).await.unwrap();
    assert_eq!(heard(&mut hearing).await, (id, report(7)));
}
