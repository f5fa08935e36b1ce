//! One subscription's trouble is its own: counted in requests and connections, not by the clock.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::subscriber::{Subscriber, raw, read_request};
use crate::world::{PATIENCE, World, eventually, set_active, subscription};

/// Bad endpoints, each bad in its own way. They end with what is returned.
async fn bad_endpoints() -> (Vec<String>, impl Sized) {
    let (hole, hole_tasks) = raw(|_, mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
        std::future::pending().await
    })
    .await;
    let (reset, reset_tasks) = raw(|_, stream| async move {
        stream.set_zero_linger().unwrap();
    })
    .await;
    let (drip, drip_tasks) = raw(|_, mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let failing = Subscriber::start().await;
    failing.answer_all(500);
    let unknown = "http://no-such-host.invalid/".to_owned();
    let endpoints = vec![hole, reset, drip, failing.url(), unknown];
    (endpoints, (hole_tasks, reset_tasks, drip_tasks, failing))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_bad_endpoints_take_nothing_from_a_healthy_one() {
    let (endpoints, _bad) = bad_endpoints().await;
    let healthy = Subscriber::start().await;
    // So few connections that the bad ones together want many times what there is.
    let mut world = World::with(|parts| parts.connections = 128);
    for (uid, endpoint) in endpoints.iter().enumerate() {
        let mut bad = subscription(&format!("bad{uid}"), endpoint);
        (bad.max_inflight, bad.timeout) = (400, Duration::from_millis(500));
        world.declare_open(bad).await;
    }
    healthy.close_gate();
    world.declare_open(subscription("healthy", &healthy.url())).await;
    world.publish((0..2_000).map(|number| number.to_string()));
    eventually("it has all its slots", || healthy.in_work() == 10).await;
    healthy.open_gate(2_000);
    eventually("all is settled", || world.lag("healthy") == 0).await;
    assert_eq!(healthy.count(), 2_000);
    assert!(world.lag("bad0") > 0, "the black hole still has most of its events");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hungry_leave_a_share_to_who_comes_later() {
    let hungry = Subscriber::start().await;
    let late = Subscriber::start().await;
    hungry.close_gate();
    late.close_gate();
    let mut world = World::with(|parts| parts.connections = 90);
    for uid in ["1", "2"] {
        let mut subscription = subscription(uid, &hungry.url());
        subscription.max_inflight = 400;
        world.declare_open(subscription).await;
    }
    world.publish((0..1_000).map(|number| number.to_string()));
    // Together they could use all; what is left free is at least a third of it.
    eventually("both are as busy as they may be", || hungry.in_work() >= 60).await;
    world.settle_down().await;
    let held = hungry.in_work();
    assert!(held <= 72, "{held} of 90");
    let mut newcomer = subscription("late", &late.url());
    newcomer.max_inflight = 400;
    world.declare_open(newcomer).await;
    eventually("it has a share at once", || late.in_work() >= (90 - held) / 2).await;
    // As attempts of the hungry end, the shares even out.
    for _ in 0..20 {
        hungry.open_gate(10);
        world.settle_down().await;
    }
    eventually("it holds more", || {
        late.open_gate(1);
        late.in_work() >= 18
    })
    .await;
    assert!(hungry.in_work() + late.in_work() <= 90);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_starved_takes_what_becomes_free_though_none_of_its_own_ends() {
    let hungry = Subscriber::start().await;
    let slow = Subscriber::start().await;
    hungry.close_gate();
    slow.close_gate();
    let mut world = World::with(|parts| parts.connections = 16);
    let mut greedy = subscription("greedy", &hungry.url());
    greedy.max_inflight = 400;
    world.declare_open(greedy).await;
    world.publish((0..100).map(|number| number.to_string()));
    eventually("half is taken", || hungry.in_work() == 8).await;
    let mut starved = subscription("starved", &slow.url());
    starved.timeout = 2 * PATIENCE;
    world.declare_open(starved).await;
    eventually("half of the rest is taken", || slow.in_work() == 4).await;
    world.change("greedy", |greedy| set_active(greedy, false));
    hungry.open_gate(8);
    eventually("half of all is taken", || slow.in_work() == 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_subscriptions_than_connections_all_get_their_turn() {
    let subscriber = Subscriber::start().await;
    let mut world = World::with(|parts| parts.connections = 8);
    world.declare_all((0..100).map(|uid| subscription(&uid.to_string(), &subscriber.url())));
    eventually("all are open", || world.broker.cursor_count() == 100).await;
    world.publish((0..20).map(|number| number.to_string()));
    let is_settled = || (0..100).all(|uid| world.lag(&uid.to_string()) == 0);
    eventually("all is settled", is_settled).await;
    assert_eq!(subscriber.count(), 2_000);
    assert!(subscriber.in_work_max() <= 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_make_room_for_others() {
    let mut subscribers = Vec::new();
    let mut world = World::with(|parts| parts.connections = 4);
    for uid in 0..12 {
        let subscriber = Subscriber::start().await;
        world.declare_open(subscription(&uid.to_string(), &subscriber.url())).await;
        subscribers.push(subscriber);
    }
    for number in 0..3 {
        world.publish([number.to_string()]);
        let is_settled = || (0..12).all(|uid| world.lag(&uid.to_string()) == 0);
        eventually("all is settled", is_settled).await;
    }
    let open = || subscribers.iter().map(Subscriber::open_connections).sum::<usize>();
    eventually("no more are kept than may be", || open() <= 4).await;
}
