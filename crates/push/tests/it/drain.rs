//! Ending: cleanly, and when subscribers do not let it.

use eventbus_core::limits;
use tokio::task::JoinSet;

use crate::subscriber::Subscriber;
use crate::world::{World, eventually, soon, subscription};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_loses_nothing_and_repeats_nothing() {
    let subscriber = Subscriber::start().await;
    subscriber.close_gate();
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.publish((0..1_000).map(|number| number.to_string()));
    subscriber.open_gate(300);
    // Ten are under way when the end begins; they are answered after it.
    eventually("many are delivered", || subscriber.count() == 310).await;
    let mut draining = JoinSet::new();
    let push = world.push.take().unwrap();
    draining.spawn(push.drain());
    world.settle_down().await;
    assert_eq!(draining.len(), 1);
    subscriber.open_gate(1_000);
    soon("the end", draining.join_next()).await.unwrap().unwrap();
    assert_eq!(subscriber.count(), 310, "nothing began after the end did");
    assert_eq!(world.lag("a"), 690, "what was answered is settled");
    assert_eq!(world.broker.cursor("a").unwrap().place().leased(), 0);
}

#[tokio::test]
async fn what_is_being_settled_at_the_end_is_waited_for() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    let cursor = world.broker.cursor("a").unwrap();
    cursor.place().settling_hangs = true;
    world.publish(["1", "2", "3"]);
    eventually("all arrive", || subscriber.count() == 3).await;
    let mut draining = JoinSet::new();
    draining.spawn(world.push.take().unwrap().drain());
    world.settle_down().await;
    assert_eq!(draining.len(), 1);
    cursor.place().settling_hangs = false;
    soon("the end", draining.join_next()).await.unwrap().unwrap();
    assert_eq!((world.lag("a"), cursor.place().leased()), (0, 0));
}

#[tokio::test]
async fn hung_attempts_are_abandoned_and_come_again() {
    let subscriber = Subscriber::start().await;
    subscriber.close_gate();
    let mut world = World::new();
    let mut patient = subscription("a", &subscriber.url());
    patient.timeout = limits::DRAIN_TIME * 4;
    world.declare_open(patient).await;
    world.publish(["1", "2"]);
    eventually("both are under way", || subscriber.in_work() == 2).await;
    subscriber.open_gate(1);
    eventually("one is settled", || world.lag("a") == 1).await;
    // From here the clock is the test's: it jumps to the next timer.
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    world.drain().await;
    let took = began.elapsed();
    let most = limits::DRAIN_TIME + limits::ABANDON_TIME;
    assert!((limits::DRAIN_TIME..=most).contains(&took), "by the test's clock: {took:?}");
    let cursor = world.broker.cursor("a").unwrap();
    assert_eq!((world.lag("a"), cursor.place().leased()), (1, 0));
}

#[tokio::test]
async fn an_idle_push_ends_at_once() {
    let mut world = World::new();
    for uid in 0..100 {
        world.declare(subscription(&uid.to_string(), "http://127.0.0.1:1/"));
    }
    eventually("all are open", || world.broker.opens() == 100).await;
    world.drain().await;
}
