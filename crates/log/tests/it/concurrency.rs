//! The hand-off between publishers, writer, syncer, router and dispatchers, with real threads.

use std::collections::HashSet;
use std::sync::Arc;

use eventbus_core::broker::Receipt;
use eventbus_core::{Batch, Broker, Durability};
use eventbus_log::LogConfig;
use eventbus_log::disk::MemoryDisk;

use crate::support::*;

const PUBLISHERS: usize = 16;
const EACH: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_event_arrives_once_whoever_publishes_and_leases() {
    let config = LogConfig {
        segment_bytes: 256 * 1024,
        ..LogConfig::on_disk(Arc::new(MemoryDisk::new(1 << 30)))
    };
    let log = Arc::new(open_with(config, &clock()).unwrap());
    let orders = cursor(&log, "orders", "a").await;
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut positions = Vec::new();
                for n in 0..EACH {
                    let level = [Durability::Written, Durability::Synced][n % 2];
                    let number = publisher * EACH + n;
                    let batch = Batch::of_one(event("a", format!("{number}")));
                    match log.append(batch, level).await.unwrap().receipts[..] {
                        [Receipt::Stored(position)] => positions.push((position, number)),
                        ref other => panic!("{other:?}"),
                    }
                }
                positions
            })
        })
        .collect();
    let subscribers: Vec<_> = (0..3)
        .map(|n| {
            let orders = orders.clone();
            tokio::spawn(async move {
                let mut got = Vec::new();
                loop {
                    let leases = lease(&orders, 1 + n * 7).await;
                    let here = leases.iter().map(|l| (l.position(), number(l)));
                    got.extend(here.filter(|(_, number)| *number != usize::MAX));
                    let last = leases.iter().any(|lease| number(lease) == usize::MAX);
                    orders.settle(acks(leases)).await.unwrap();
                    if last {
                        return got;
                    }
                }
            })
        })
        .collect();
    let mut published = Vec::new();
    for publisher in publishers {
        published.extend(publisher.await.unwrap());
    }
    for subscriber in &subscribers {
        // One last word for each of them, until each has had one.
        while !subscriber.is_finished() {
            let batch = Batch::of_one(event("a", format!("{}", usize::MAX)));
            log.append(batch, Durability::Written).await.unwrap();
            tokio::task::yield_now().await;
        }
    }
    let mut got = Vec::new();
    for subscriber in subscribers {
        got.extend(subscriber.await.unwrap());
    }
    assert_eq!(got.len(), PUBLISHERS * EACH);
    let (published, got): (HashSet<_>, HashSet<_>) =
        (published.into_iter().collect(), got.into_iter().collect());
    assert_eq!(published, got);
}
