//! A broker that fails, and what is told about the cursors.

use eventbus_core::attributes::{Attribute, EXPIRY_TIME, Value};
use eventbus_core::limits;
use eventbus_core::reconcile::{DeliveryHealth, Fill};

use crate::subscriber::Subscriber;
use crate::world::{World, event, eventually, set_active, subscription};

#[tokio::test]
async fn a_broker_that_is_away_at_the_start_is_found_later() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    world.broker.set_out_of_order(true);
    world.declare(subscription("a", &subscriber.url()));
    eventually("it is told", || world.health("a") == DeliveryHealth::BrokerUnavailable).await;
    world.publish(["1"]);
    world.broker.set_out_of_order(false);
    eventually("the event arrives", || subscriber.count() == 1).await;
    eventually("all is well", || world.health("a") == DeliveryHealth::Delivering).await;
}

#[tokio::test]
async fn a_broker_that_goes_away_while_leasing_is_asked_again() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.publish(["1"]);
    eventually("the first arrives", || world.lag("a") == 0).await;
    world.broker.set_out_of_order(true);
    eventually("it is told", || world.health("a") == DeliveryHealth::BrokerUnavailable).await;
    world.publish(["2"]);
    world.broker.set_out_of_order(false);
    eventually("the second arrives", || world.lag("a") == 0).await;
    eventually("all is well", || world.health("a") == DeliveryHealth::Delivering).await;
    assert_eq!(subscriber.payloads(), ["1", "2"]);
}

#[tokio::test]
async fn all_is_well_again_without_any_event() {
    let mut world = World::new();
    world.declare_open(subscription("a", "http://127.0.0.1:1/")).await;
    world.settle_down().await;
    world.broker.set_out_of_order(true);
    eventually("it is told", || world.health("a") == DeliveryHealth::BrokerUnavailable).await;
    world.broker.set_out_of_order(false);
    eventually("all is well", || world.health("a") == DeliveryHealth::Delivering).await;
}

#[tokio::test]
async fn what_could_not_be_settled_comes_again() {
    let subscriber = Subscriber::start().await;
    subscriber.close_gate();
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.publish(["1"]);
    eventually("it is under way", || subscriber.in_work() == 1).await;
    world.broker.set_out_of_order(true);
    subscriber.open_gate(10);
    let counts = || world.push.as_ref().unwrap().telemetry().counts();
    eventually("it is not settled", || counts().settle_failures == 1).await;
    world.broker.set_out_of_order(false);
    eventually("it is settled", || world.lag("a") == 0).await;
    assert_eq!(subscriber.payloads(), ["1", "1"]);
}

#[tokio::test]
async fn what_has_expired_is_counted_once_it_is_settled() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    let cursor = world.broker.cursor("a").unwrap();
    cursor.place().settling_hangs = true;
    let mut expired = event("1");
    let (name, value) = (EXPIRY_TIME.into(), Value::Text("1960-01-01T00:00:00Z".into()));
    expired.attributes = [Attribute { name, value }].into_iter().collect();
    world.broker.publish(expired);
    world.settle_down().await;
    let counts = world.push.as_ref().unwrap().telemetry().clone();
    assert_eq!((counts.expired(), world.lag("a")), (0, 1));
    cursor.place().settling_hangs = false;
    eventually("it is settled", || world.lag("a") == 0).await;
    assert_eq!((counts.expired(), subscriber.count()), (1, 0));
}

#[tokio::test]
async fn attempts_go_on_while_what_ended_is_settled_and_not_without_a_bound() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    let subscription = subscription("a", &subscriber.url());
    let slots = subscription.max_inflight as usize;
    world.declare_open(subscription).await;
    let cursor = world.broker.cursor("a").unwrap();
    cursor.place().settling_hangs = true;
    world.publish((0..10 * slots).map(|number| number.to_string()));
    eventually("attempts go on", || subscriber.count() == 2 * slots).await;
    world.settle_down().await;
    assert_eq!(subscriber.count(), 2 * slots, "more would come again after a kill");
    cursor.place().settling_hangs = false;
    eventually("all is settled", || world.lag("a") == 0).await;
    assert_eq!(subscriber.count(), 10 * slots);
}

#[tokio::test]
async fn a_cursor_forgotten_elsewhere_ends_its_dispatcher_alone() {
    use eventbus_core::Broker;
    use eventbus_core::broker::CursorId;

    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.declare_open(subscription("b", &subscriber.url())).await;
    world.broker.forget(CursorId("a".into())).await.unwrap();
    world.publish(["1"]);
    eventually("the other goes on", || world.lag("b") == 0).await;
    world.settle_down().await;
    assert_eq!((subscriber.count(), world.broker.opens()), (1, 2));
}

#[tokio::test]
async fn a_cursor_that_is_gone_while_its_subscription_stays_is_opened_again() {
    use eventbus_core::Broker;
    use eventbus_core::broker::CursorId;
    use eventbus_core::testing::ManualClock;

    let subscriber = Subscriber::start().await;
    let clock = std::sync::Arc::new(ManualClock::at(1_700_000_000_000));
    let mut world = World::with(|parts| parts.clock = clock.clone());
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.broker.forget(CursorId("a".into())).await.unwrap();
    world.publish(["1"]);
    world.settle_down().await;
    assert_eq!(subscriber.count(), 0, "its deletion may be on its way");
    clock.advance(limits::DELETION_TIME * 2);
    eventually("it is delivered", || subscriber.payloads() == ["1"]).await;
    assert_eq!((world.broker.opens(), world.broker.forgotten().len()), (2, 1));
}

#[tokio::test]
async fn full_waiting_rooms_and_losses_are_told() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.publish(["1"]);
    eventually("it arrives", || world.lag("a") == 0).await;
    let cursor = world.broker.cursor("a").unwrap();
    cursor.place().held_told = Some(limits::WAITING_EVENTS as u64);
    eventually("it is told", || world.health("a") == DeliveryHealth::WaitingFull).await;
    cursor.place().dropped_events = 3;
    eventually("losses are counted", || world.lost("a") == Some(3)).await;
    assert_eq!(world.health("a"), DeliveryHealth::WaitingFull, "which is why they were lost");
    cursor.place().held_told = None;
    eventually("the loss is left", || world.health("a") == DeliveryHealth::BacklogTruncated).await;
    assert_eq!(world.lost("a"), Some(3));
}

#[tokio::test]
async fn why_nothing_is_delivered_comes_before_what_was_lost_because_of_it() {
    let subscriber = Subscriber::start().await;
    subscriber.answer_all(500);
    let mut world = World::new();
    world.declare_open(subscription("failing", &subscriber.url())).await;
    world.declare_open(subscription("invalid", "ftp://127.0.0.1/")).await;
    world.publish(["1", "2", "3"]);
    let is_failing = || matches!(world.health("failing"), DeliveryHealth::Failing(_));
    eventually("it fails", is_failing).await;
    for uid in ["failing", "invalid"] {
        eventually("it is looked at", || world.lost(uid) == Some(0)).await;
        world.broker.cursor(uid).unwrap().place().dropped_events = 2;
        eventually("losses are counted", || world.lost(uid) == Some(2)).await;
    }
    assert!(is_failing());
    assert_eq!(world.health("invalid"), DeliveryHealth::EndpointInvalid);
    // Another endpoint takes them: what is left to tell is the loss.
    subscriber.answer_all(204);
    world.change("invalid", |a| a.endpoint = subscriber.url().into());
    world.broker.cursor("failing").unwrap().make_all_due();
    for uid in ["failing", "invalid"] {
        let is_told = || world.health(uid) == DeliveryHealth::BacklogTruncated;
        eventually("the loss is left", is_told).await;
    }
}

#[tokio::test]
async fn a_backlog_that_fills_is_told_while_there_is_time() {
    let mut world = World::new();
    world.declare_open(subscription("a", "http://127.0.0.1:1/")).await;
    let cursor = world.broker.cursor("a").unwrap();
    for (bytes, told) in [(50, Some(50)), (91, Some(91)), (1, None)] {
        cursor.place().backlog_told = Some((bytes, 100));
        let fill = told.map(|bytes| Fill { bytes, max_bytes: 100 });
        let is_told = || world.backlog("a").is_some_and(|backlog| backlog.fill == fill);
        eventually("it is told", is_told).await;
    }
}

#[tokio::test]
async fn a_dispatcher_that_panics_is_followed_by_another() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    eventually("it waits for events", || world.broker.leases() > 0).await;
    world.broker.cursor("a").unwrap().place().lease_panics = true;
    world.publish(["1"]);
    eventually("the event arrives", || world.lag("a") == 0).await;
    assert_eq!(subscriber.payloads(), ["1"]);
    // Nor does its end stand in the way of a deletion.
    world.broker.cursor("a").unwrap().place().lease_panics = true;
    world.publish(["2"]);
    world.settle_down().await;
    world.delete("a");
    eventually("it is forgotten", || world.broker.forgotten().len() == 1).await;
}

#[tokio::test]
async fn a_call_of_the_broker_that_panics_is_made_again() {
    let mut world = World::new();
    world.broker.panic_on(2);
    world.declare_open(subscription("a", "http://127.0.0.1:1/")).await;
    eventually("all is well", || world.health("a") == DeliveryHealth::Delivering).await;
    world.broker.panic_on(2);
    world.delete("a");
    eventually("it is forgotten", || world.broker.forgotten().len() == 1).await;
}

#[tokio::test]
async fn a_sleeper_that_loses_events_says_so_and_does_not_forget_when_it_wakes() {
    let mut world = World::new();
    let mut sleeper = subscription("a", "http://127.0.0.1:1/");
    set_active(&mut sleeper, false);
    world.declare_open(sleeper).await;
    tokio::time::sleep(limits::LOOK_EVERY * 2).await;
    world.broker.cursor("a").unwrap().place().dropped_events = 3;
    eventually("it is told", || world.health("a") == DeliveryHealth::BacklogTruncated).await;
    tokio::time::sleep(limits::LOOK_EVERY * 2).await;
    assert_eq!(world.health("a"), DeliveryHealth::BacklogTruncated, "and goes on");
    world.change("a", |a| set_active(a, true));
    tokio::time::sleep(limits::LOOK_EVERY * 2).await;
    assert_eq!(world.health("a"), DeliveryHealth::BacklogTruncated, "for a while");
    assert_eq!(world.lost("a"), Some(3));
    // Who comes later finds the count.
    world.restart().await;
    let restarted = subscription("a", "http://127.0.0.1:1/");
    world.declare_open(restarted).await;
    eventually("all is well", || world.health("a") == DeliveryHealth::Delivering).await;
    eventually("and counted", || world.lost("a") == Some(3)).await;
}

#[tokio::test]
async fn a_failing_endpoint_is_not_said_to_work_because_of_a_restart() {
    let subscriber = Subscriber::start().await;
    subscriber.answer_all(500);
    let mut world = World::new();
    let a = subscription("a", &subscriber.url());
    world.declare_open(a.clone()).await;
    world.publish(["1", "2", "3"]);
    eventually("it fails", || matches!(world.health("a"), DeliveryHealth::Failing(_))).await;
    world.restart().await;
    world.declare(a);
    eventually("it fails again", || {
        assert_ne!(world.health("a"), DeliveryHealth::Delivering);
        world.broker.cursor("a").unwrap().make_all_due();
        matches!(world.health("a"), DeliveryHealth::Failing(_))
    })
    .await;
    let attempts = world.outcomes("a").len();
    subscriber.answer_all(204);
    world.broker.cursor("a").unwrap().make_all_due();
    eventually("it is tried", || world.outcomes("a").len() > attempts).await;
    eventually("all is well", || world.health("a") == DeliveryHealth::Delivering).await;
}

#[tokio::test]
async fn another_endpoint_begins_without_the_failures_of_the_first() {
    let (subscriber, other) = (Subscriber::start().await, Subscriber::start().await);
    subscriber.answer_all(500);
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.publish(["1", "2", "3"]);
    eventually("it fails", || matches!(world.health("a"), DeliveryHealth::Failing(_))).await;
    // What is still under way at the first says nothing about the other.
    subscriber.close_gate();
    world.broker.cursor("a").unwrap().make_all_due();
    eventually("they are tried again", || subscriber.in_work() == 3).await;
    other.close_gate();
    world.change("a", |a| a.endpoint = other.url().into());
    eventually("it is taken in", || world.health("a") == DeliveryHealth::Delivering).await;
    let attempts = world.outcomes("a").len();
    subscriber.open_gate(3);
    eventually("they failed", || world.outcomes("a").len() == attempts + 3).await;
    world.settle_down().await;
    assert_eq!(world.health("a"), DeliveryHealth::Delivering);
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_requested_is_told_at_once() {
    let mut world = World::new();
    for endpoint in ["http:///x", "http://127.0.0.1:99999/", "ftp://127.0.0.1/"] {
        world.declare(subscription("a", endpoint));
        eventually("it is told", || world.health("a") == DeliveryHealth::EndpointInvalid).await;
        world.change("a", |a| a.endpoint = "http://127.0.0.1:1/".into());
        eventually("it is mended", || world.health("a") == DeliveryHealth::Delivering).await;
    }
}

#[tokio::test]
async fn three_failures_in_a_row_are_told_and_one_success_ends_it() {
    let subscriber = Subscriber::start().await;
    subscriber.answer("1", vec![500, 503, 500, 204]);
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.publish(["1"]);
    let cursor = world.broker.cursor("a").unwrap();
    for attempts in 1..=3 {
        eventually("it failed", || world.outcomes("a").len() == attempts).await;
        eventually("health follows", || {
            let is_failing = matches!(world.health("a"), DeliveryHealth::Failing(_));
            is_failing == (attempts == 3)
        })
        .await;
        cursor.make_all_due();
    }
    eventually("all is well", || world.health("a") == DeliveryHealth::Delivering).await;
    assert_eq!(world.lag("a"), 0);
    // The count begins anew.
    subscriber.answer("2", vec![500]);
    world.publish(["2"]);
    eventually("it failed", || world.outcomes("a").len() == 5).await;
    world.settle_down().await;
    assert_eq!(world.health("a"), DeliveryHealth::Delivering);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_cursors_are_opened_and_only_once() {
    let mut world = World::new();
    world.declare_all((0..3_000).map(|uid| {
        let mut subscription = subscription(&uid.to_string(), "http://127.0.0.1:1/");
        set_active(&mut subscription, uid % 2 == 0);
        subscription
    }));
    eventually("all are open", || world.broker.cursor_count() == 3_000).await;
    for _ in 0..20 {
        world.tell();
        world.settle_down().await;
    }
    assert_eq!(world.broker.opens(), 3_000);
}

#[tokio::test]
async fn who_waits_for_events_asks_once() {
    let mut world = World::new();
    for uid in 0..10 {
        world.declare_open(subscription(&uid.to_string(), "http://127.0.0.1:1/")).await;
    }
    eventually("all wait", || world.broker.leases() >= 10).await;
    world.settle_down().await;
    let before = world.broker.leases();
    tokio::time::sleep(2 * limits::LOOK_EVERY).await;
    assert_eq!(world.broker.leases(), before);
}
