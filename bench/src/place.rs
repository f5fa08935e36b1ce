//! Who gets an event, and what of it is settled: pure, without a broker.

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::Arc;

use eventbus_core::broker::Position;
use eventbus_core::catalog::Catalog;
use eventbus_core::cursor::{Ended, Progress, Spot};
use eventbus_core::delivery::Verdict;
use eventbus_core::subscription::Subscription;
use eventbus_core::testing;

use crate::Work;
use crate::events;

const TURN: usize = 100;

pub(crate) fn matching_10() -> Work {
    matching(10)
}

pub(crate) fn matching_10_000() -> Work {
    matching(10_000)
}

/// Looks for who wants an event, among so many Subscriptions to as many types.
fn matching(subscriptions: u32) -> Work {
    let catalog = Catalog::new((0..subscriptions).map(subscription), HashSet::new());
    let event = events::event(subscriptions / 2, 1);
    Box::new(move || {
        assert!(black_box(&catalog).has_listener(black_box(&event)));
    })
}

fn subscription(event_type: u32) -> Arc<Subscription> {
    let interest = testing::interest(&events::event_type(event_type));
    Arc::new(Subscription { interest, ..testing::subscription(&format!("s-{event_type}")) })
}

/// Leases fresh events and acknowledges them, while as many others wait.
pub(crate) fn cursor() -> Work {
    let mut progress = Progress::new(Position(0), 2 * TURN);
    let mut last = 0;
    let mut turn = move |verdict| {
        let leased = progress.lease(TURN, 0, || {
            last += 1;
            Some(Spot { position: Position(last), place: last })
        });
        let ended = leased.iter().map(|leased| Ended {
            position: leased.spot.position,
            attempt: None,
            verdict,
        });
        black_box(progress.settle(&ended.collect::<Vec<_>>()).settled)
    };
    // Never due.
    turn(Verdict::Retry { due_ms: 1 });
    Box::new(move || assert_eq!(turn(Verdict::Ack), TURN as u64))
}
