//! Events that are given up: each is kept whole, once, until somebody removes it.

use std::sync::Arc;

use super::world::*;
use super::{Harness, Limits};
use crate::broker::{Broker, CursorId, Lease, Position, Settled};
use crate::dead_letters::{DeadLetter, DeadLetterKey};
use crate::delivery::{Attempt, DeadLetterReason, Outcome, Tried, Verdict};
use crate::event::Event;
use crate::testing::event;

/// An event that is given up does not come again; it is kept as it was, with why and what was
/// tried, over the end of its process too, and can be found and removed.
pub async fn what_is_given_up_is_kept_whole(harness: &dyn Harness) {
    let mut broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let odd = Event {
        id: "Ω/1".into(),
        id_given: true,
        payload: (0..=255).collect::<Vec<u8>>().into(),
        content_type: "a/b; c=\"d\"".into(),
        ..event("a", "")
    };
    let events = vec![odd, event("a", "refused"), event("a", "expired"), event("a", "healthy")];
    let positions = positions(&append(&broker, events.clone()).await);
    let mut leases = lease_all(harness, &orders, 4).await;
    settle(&orders, leases.split_off(3), Verdict::Ack).await;
    let began_ms = harness.now_ms();
    // Twelve attempts, of which ten are remembered; then one, and then none at all.
    let mut first = leases.remove(0);
    for n in 0..11 {
        let due_ms = harness.now_ms();
        let retry =
            Settled { attempt: Some(attempt(n)), ..settled(first, Verdict::Retry { due_ms }) };
        orders.settle(vec![retry]).await.expect("the turn is settled");
        first = lease(harness, &orders, 1).await.remove(0);
    }
    let give_up = |lease: Lease, reason, attempt| Settled {
        attempt,
        ..settled(lease, Verdict::DeadLetter { reason })
    };
    let turn = vec![
        give_up(first, DeadLetterReason::Exhausted, Some(attempt(11))),
        give_up(leases.remove(0), DeadLetterReason::Refused, Some(attempt(12))),
        give_up(leases.remove(0), DeadLetterReason::Expired, None),
    ];
    orders.settle(turn).await.expect("the turn is settled");
    broker = restart(harness, broker, End::Kill, Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    assert!(is_silent(harness, &orders).await, "what is given up comes no more");
    let told = [
        (DeadLetterReason::Exhausted, (2..12).map(attempt).collect::<Vec<_>>(), 12),
        (DeadLetterReason::Refused, vec![attempt(12)], 1),
        (DeadLetterReason::Expired, vec![], 0),
    ];
    let dead = all(&broker, "orders").await;
    assert_eq!(dead.len(), 3);
    for (at, (reason, last, attempts)) in told.into_iter().enumerate() {
        assert!((began_ms..=harness.now_ms()).contains(&dead[at].dead_ms), "{:?}", dead[at]);
        let expected = DeadLetter {
            key: key("orders", positions[at]),
            event: Arc::new(events[at].clone()),
            reason,
            dead_ms: dead[at].dead_ms,
            tried: Tried { attempts, last: last.into() },
        };
        assert_eq!(dead[at], expected);
    }
}

/// Dead letters are read page by page, found and removed by their keys, and are each cursor's own,
/// also of one that is forgotten.
pub async fn dead_letters_are_found_and_removed(harness: &dyn Harness) {
    let mut broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "a").await;
    let others = open(harness, &broker, "others", "a").await;
    let positions = publish(&broker, "a", &["0", "1", "2", "3", "4", "5", "6"]).await;
    let dead = Verdict::DeadLetter { reason: DeadLetterReason::Exhausted };
    settle(&orders, lease_all(harness, &orders, 7).await, dead).await;
    let mut leases = lease_all(harness, &others, 7).await;
    settle(&others, leases.split_off(1), Verdict::Ack).await;
    settle(&others, leases, dead).await;
    let (mut after, mut pages) = (Position(0), Vec::new());
    while let Some(page) = page(&broker, "orders", after, 3).await {
        after = page[page.len() - 1];
        pages.push(page);
    }
    assert_eq!(pages, [&positions[..3], &positions[3..6], &positions[6..]]);
    assert_eq!(page(&broker, "others", Position(0), 3).await, Some(vec![positions[0]]));
    assert_eq!(page(&broker, "nobody", Position(0), 3).await, None);

    let letters = broker.dead_letters();
    let found = letters.get(key("orders", positions[1])).await.expect("it answers");
    assert_eq!(found.map(|dead| dead.event.payload.clone()), Some("1".into()));
    assert_eq!(letters.get(key("others", positions[1])).await, Ok(None));
    assert_eq!(letters.remove(key("orders", positions[1])).await, Ok(true));
    assert_eq!(letters.remove(key("orders", positions[1])).await, Ok(false));
    assert_eq!(letters.remove(key("others", positions[1])).await, Ok(false));
    assert_eq!(letters.get(key("orders", positions[1])).await, Ok(None));
    broker.forget(CursorId("others".into())).await.expect("it is forgotten");
    broker = restart(harness, broker, End::Stop, Limits::default()).await;
    let left: Vec<_> = all(&broker, "orders").await.iter().map(|dead| dead.key.position).collect();
    assert_eq!(left, [&positions[..1], &positions[2..]].concat());
    assert_eq!(all(&broker, "others").await.len(), 1, "forgetting a cursor buries nothing");
}

/// Whatever the moment at which its process ends, what was given up is a dead letter, or its event
/// comes again; and given up again, it is one dead letter.
pub async fn nothing_falls_between_an_event_and_its_dead_letter(harness: &dyn Harness) {
    const EVENTS: usize = 6;
    const SILENCES: usize = 200;
    let mut broker = harness.start(Limits::default()).await;
    let mut orders = open(harness, &broker, "orders", "a").await;
    publish_many(&broker, "a", EVENTS, 0).await;
    let dead = Verdict::DeadLetter { reason: DeadLetterReason::Refused };
    let mut given_up = 0;
    for pause in 0..EVENTS as u64 {
        let mut leases = lease(harness, &orders, 1).await;
        let settling = orders.settle(vec![settled(leases.remove(0), dead)]);
        let pause = std::time::Duration::from_micros(300 * pause);
        let settled = within(harness, pause, settling).await;
        broker = restart(harness, broker, End::Kill, Limits::default()).await;
        orders = open(harness, &broker, "orders", "a").await;
        given_up += usize::from(settled.is_some_and(|settled| settled.is_ok()));
        assert!(all(&broker, "orders").await.len() >= given_up, "a dead letter is lost");
        if let Some(leases) = lease_within(harness, SILENCE, &orders, 1).await {
            drop(leases);
        } else {
            break;
        }
    }
    harness.pass(harness.traits().lease_time).await;
    let mut silences = 0;
    while all(&broker, "orders").await.len() < EVENTS || orders.stats().lag_events > 0 {
        // Numbers may be told late: what comes is settled meanwhile.
        match lease_within(harness, SILENCE, &orders, EVENTS).await {
            Some(leases) => settle(&orders, leases, dead).await,
            None => silences += 1,
        }
        assert!(silences < SILENCES, "what is no dead letter comes, and then nothing is left");
    }
    let letters = all(&broker, "orders").await;
    let positions = letters.iter().map(|dead| dead.key.position);
    assert!(positions.is_sorted_by(|one, next| one < next), "each is there once: {letters:?}");
    assert!(is_silent(harness, &orders).await);
}

/// The attempt of that number.
fn attempt(n: u64) -> Attempt {
    Attempt::new(1_700_000_000_000 + n * 1_000, n, Outcome::Status(500 + n as u16))
}

fn key(cursor: &str, position: Position) -> DeadLetterKey {
    DeadLetterKey { cursor: CursorId(cursor.into()), position }
}

/// The dead letters of a cursor.
async fn all(broker: &Arc<dyn Broker>, cursor: &str) -> Vec<DeadLetter> {
    let cursor = CursorId(cursor.into());
    let page = broker.dead_letters().page(cursor, Position(0), at_most(100)).await;
    page.expect("the dead letters can be read")
}

/// Where the dead letters of a page are; `None` where there are none.
async fn page(
    broker: &Arc<dyn Broker>,
    cursor: &str,
    after: Position,
    limit: usize,
) -> Option<Vec<Position>> {
    let cursor = CursorId(cursor.into());
    let page = broker.dead_letters().page(cursor, after, at_most(limit)).await;
    let page = page.expect("the dead letters can be read");
    assert!(page.len() <= limit && page.iter().all(|dead| dead.key.position > after), "{page:?}");
    let positions: Vec<_> = page.iter().map(|dead| dead.key.position).collect();
    (!positions.is_empty()).then_some(positions)
}
