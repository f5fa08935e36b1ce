//! The road from a stored event to its subscriber, when all goes well.

use crate::subscriber::Subscriber;
use crate::world::{World, eventually, subscription};

#[tokio::test]
async fn every_event_arrives_once_with_its_payload() {
    let subscriber = Subscriber::start().await;
    let mut world = World::new();
    world.declare_open(subscription("a", &subscriber.url())).await;
    world.publish((0..500).map(|number| number.to_string()));
    eventually("all is settled", || world.lag("a") == 0).await;
    let mut payloads: Vec<usize> =
        subscriber.payloads().iter().map(|payload| payload.parse().unwrap()).collect();
    payloads.sort_unstable();
    assert!(payloads.into_iter().eq(0..500));
}
