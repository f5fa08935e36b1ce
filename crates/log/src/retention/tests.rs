//! What ends while others still work.

use eventbus_core::broker::CursorSpec;
use eventbus_core::cursor::Ended;
use eventbus_core::delivery::Verdict;
use eventbus_core::testing::event;

use super::*;
use crate::config::LogConfig;
use crate::disk::FaultyDisk;
use crate::stepped::{machines_of, orders};

/// Many enough for segments that are full.
const EVENTS: usize = 60;

#[test]
fn what_was_given_back_since_it_was_decided_does_not_end() {
    let config = LogConfig {
        max_bytes: Some(1 << 24),
        segment_bytes: 64 * 1024,
        history_bytes: 0,
        ..LogConfig::on_disk(Arc::new(FaultyDisk::new(1 << 30)))
    };
    let mut machines = machines_of(config);
    let shared = machines.shared.clone();
    let spec = CursorSpec { waiting_max: EVENTS, ..orders("a") };
    let cursor = shared.admit(spec).unwrap().cursor;
    for _ in 0..EVENTS {
        machines.publish([event("a", "x".repeat(3_000))]);
    }
    let first = shared.segments.first();
    let mut retention = Retention::new(shared.clone());
    retention.step(shared.now()).unwrap();
    assert!(retention.ending.is_none(), "nothing is settled");

    let leases = cursor.lease_now(EVENTS).unwrap();
    let (attempt, verdict) = (None, Verdict::Ack);
    let ended = leases.iter().map(|lease| Ended { position: lease.position(), attempt, verdict });
    let ended: Vec<Ended> = ended.collect();
    // What the ledger does with a turn, before and after a write that fails.
    let turn = cursor.place().progress.settle(&ended);
    retention.step(shared.now()).unwrap();
    assert!(retention.ending.is_some(), "all is settled");
    machines.settle();
    while ledger::sync_step(&shared, shared.now()) == crate::signal::Next::Again {}
    cursor.place().progress.undo(turn);
    retention.step(shared.now()).unwrap();
    assert_eq!(shared.segments.first(), first);
    shared.table.clear();
}
