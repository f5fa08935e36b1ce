//! Subscriptions that change, sleep, wake, vanish and are deleted while events flow.

use std::time::Duration;

use eventbus_core::Broker;
use eventbus_core::broker::CursorId;
use eventbus_core::delivery::Verdict;
use eventbus_core::reconcile::DeliveryHealth;

use crate::subscriber::Subscriber;
use crate::world::{World, event, eventually, interest, set_active, spec, subscription};

#[tokio::test]
async fn an_endpoint_changes_from_the_next_attempt() {
    let (before, after) = (Subscriber::start().await, Subscriber::start().await);
    before.close_gate();
    let mut world = World::new();
    let mut narrow = subscription("a", &before.url());
    narrow.max_inflight = 1;
    world.declare_open(narrow).await;
    world.publish(["1", "2", "3"]);
    eventually("the first is under way", || before.count() == 1).await;
    world.change("a", |a| a.endpoint = after.url().into());
    // What is under way is not disturbed, and the place is kept.
    before.open_gate(10);
    eventually("all is settled", || world.lag("a") == 0).await;
    assert_eq!(
        (before.payloads(), after.payloads()),
        (vec!["1".into()], vec!["2".into(), "3".into()])
    );
}

#[tokio::test]
async fn max_inflight_grows_and_shrinks_in_place() {
    let subscriber = Subscriber::start().await;
    subscriber.close_gate();
    let mut world = World::new();
    let mut narrow = subscription("a", &subscriber.url());
    narrow.max_inflight = 2;
    world.declare_open(narrow).await;
    world.publish((0..40).map(|number| number.to_string()));
    eventually("two are under way", || subscriber.in_work() == 2).await;
    world.change("a", |a| a.max_inflight = 5);
    eventually("five are under way", || subscriber.in_work() == 5).await;
    world.change("a", |a| a.max_inflight = 3);
    eventually("the change is taken in", || {
        world.broker.cursor("a").unwrap().place().leased() == 5
    })
    .await;
    // Two end, and no other begins: three are what is allowed. One more ends, one begins.
    subscriber.open_gate(2);
    eventually("three are under way", || subscriber.in_work() == 3).await;
    subscriber.open_gate(1);
    eventually("the next began", || subscriber.count() == 6).await;
    assert_eq!(subscriber.in_work(), 3);
    subscriber.open_gate(40);
    eventually("all is settled", || world.lag("a") == 0).await;
    assert_eq!(subscriber.in_work_max(), 5);
}

#[tokio::test]
async fn a_timeout_changes_from_the_next_attempt() {
    let subscriber = Subscriber::start().await;
    subscriber.close_gate();
    let mut world = World::new();
    let mut patient = subscription("a", &subscriber.url());
    patient.max_inflight = 1;
    world.declare_open(patient).await;
    world.publish(["1", "2"]);
    eventually("the first is under way", || subscriber.count() == 1).await;
    world.change("a", |a| a.timeout = Duration::from_millis(20));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(subscriber.in_work(), 1, "the first has its own time");
    subscriber.open_gate(1);
    eventually("the second timed out", || !world.outcomes("a").is_empty()).await;
    eventually("it did", || world.outcomes("a").contains(&"timeout")).await;
    assert_eq!(world.outcomes("a")[0], "success");
}

#[tokio::test]
async fn a_subscription_that_sleeps_keeps_its_place() {
    let subscriber = Subscriber::start().await;
    subscriber.close_gate();
    let mut world = World::new();
    let mut sleeper = subscription("a", &subscriber.url());
    sleeper.max_inflight = 2;
    set_active(&mut sleeper, false);
    world.declare_open(sleeper).await;
    world.publish(["1", "2", "3", "4"]);
    world.change("a", |a| set_active(a, true));
    eventually("two are under way", || subscriber.in_work() == 2).await;
    world.change("a", |a| set_active(a, false));
    world.settle_down().await;
    // Those under way end and are settled; no other begins.
    subscriber.open_gate(10);
    eventually("two are settled", || world.lag("a") == 2).await;
    world.settle_down().await;
    assert_eq!((subscriber.count(), world.lag("a")), (2, 2));
    world.change("a", |a| set_active(a, true));
    eventually("all is settled", || world.lag("a") == 0).await;
    assert_eq!(subscriber.count(), 4);
}

#[tokio::test]
async fn an_inactive_subscription_has_a_cursor_from_the_start() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    let mut sleeper = subscription("a", &subscriber.url());
    set_active(&mut sleeper, false);
    world.declare_open(sleeper).await;
    world.publish(["1"]);
    world.settle_down().await;
    assert_eq!((subscriber.count(), world.lag("a")), (0, 1));
}

#[tokio::test]
async fn events_of_before_the_cursor_and_after_the_creation_are_delivered() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    world.publish(["early"]);
    world.declare(subscription("a", &subscriber.url()));
    eventually("it arrives", || subscriber.count() == 1).await;
}

#[tokio::test]
async fn events_no_longer_wanted_are_skipped() {
    let subscriber = Subscriber::start().await;
    subscriber.close_gate();
    let mut world = World::new();
    let mut narrow = subscription("a", &subscriber.url());
    narrow.max_inflight = 1;
    world.declare_open(narrow).await;
    world.publish(["1", "2", "3"]);
    eventually("the first is under way", || subscriber.count() == 1).await;
    world.change("a", |a| a.interest = interest("order.cancelled"));
    eventually("the cursor is changed", || world.broker.opens() == 2).await;
    let mut cancelled = event("4");
    cancelled.event_type = "order.cancelled".into();
    world.broker.publish(cancelled);
    world.publish(["5"]);
    subscriber.open_gate(10);
    eventually("all is settled", || world.lag("a") == 0).await;
    assert_eq!(subscriber.payloads(), ["1", "4"]);
    let cursor = world.broker.cursor("a").unwrap();
    let skipped = |(_, _, verdict): &&_| matches!(verdict, Verdict::Skip);
    assert_eq!(cursor.place().settled.iter().filter(skipped).count(), 2);
}

#[tokio::test]
async fn a_deletion_forgets_the_place() {
    let subscriber = Subscriber::start().await;
    subscriber.close_gate();
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.declare_open(subscription("b", &subscriber.url())).await;
    world.publish(["1"]);
    eventually("both are under way", || subscriber.in_work() == 2).await;
    world.delete("a");
    eventually("it is forgotten", || world.broker.forgotten() == [CursorId("a".into())]).await;
    eventually("its attempt is abandoned", || subscriber.in_work() == 1).await;
    subscriber.open_gate(10);
    eventually("the other goes on", || world.lag("b") == 0).await;
    assert_eq!(world.broker.opens(), 2);
}

#[tokio::test]
async fn what_was_deleted_while_nobody_looked_is_forgotten() {
    let mut world = World::new();
    for uid in ["gone", "broken", "there"] {
        let earlier = subscription(uid, "http://127.0.0.1:1/");
        world.broker.open(spec(&earlier)).await.unwrap();
    }
    world.settle_down().await;
    world.restart().await;
    world.settle_down().await;
    assert_eq!(world.broker.forgotten(), [], "nothing is known yet");
    world.break_it("broken");
    world.declare(subscription("there", "http://127.0.0.1:1/"));
    eventually("it is forgotten", || world.broker.forgotten() == [CursorId("gone".into())]).await;
    world.declare_open(subscription("new", "http://127.0.0.1:1/")).await;
    world.delete("broken");
    eventually("the other too", || world.broker.forgotten().len() == 2).await;
    world.settle_down().await;
    assert_eq!(world.broker.forgotten()[1], CursorId("broken".into()));
    assert_eq!(world.broker.cursor_count(), 2);
}

#[tokio::test]
async fn a_broker_that_is_away_is_asked_again_for_its_cursors() {
    let mut world = World::new();
    let gone = subscription("gone", "http://127.0.0.1:1/");
    world.broker.open(spec(&gone)).await.unwrap();
    world.broker.set_out_of_order(true);
    world.restart().await;
    world.tell();
    world.settle_down().await;
    world.broker.set_out_of_order(false);
    eventually("it is forgotten", || world.broker.cursor_count() == 0).await;
}

#[tokio::test]
async fn who_is_listed_again_lives_again() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    let a = subscription("a", &subscriber.url());
    world.declare_open(a.clone()).await;
    world.delete("a");
    world.settle_down().await;
    world.publish(["1"]);
    world.declare(a);
    eventually("it arrives", || subscriber.count() == 1).await;
}

#[tokio::test]
async fn what_cannot_be_run_rests_and_keeps_its_place() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    let a = subscription("a", &subscriber.url());
    world.declare_open(a.clone()).await;
    world.publish(["1"]);
    eventually("it arrives", || world.lag("a") == 0).await;
    world.break_it("a");
    world.settle_down().await;
    world.publish(["2"]);
    world.settle_down().await;
    assert_eq!((subscriber.count(), world.lag("a")), (1, 1));
    world.declare(a);
    eventually("the second arrives", || world.lag("a") == 0).await;
    assert_eq!(world.broker.forgotten(), []);
}

#[tokio::test]
async fn what_is_deleted_is_in_no_trouble() {
    let subscriber = Subscriber::start().await;
    subscriber.answer_all(500);
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.publish(["1", "2", "3"]);
    eventually("it fails", || matches!(world.health("a"), DeliveryHealth::Failing(_))).await;
    world.delete("a");
    eventually("it is forgotten", || !world.broker.forgotten().is_empty()).await;
    eventually("nothing is told", || world.health("a") == DeliveryHealth::Untried).await;
}
