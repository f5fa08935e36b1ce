//! What ends while others still work.

use eventbus_core::broker::CursorSpec;
use eventbus_core::cursor::Ended;
use eventbus_core::delivery::Verdict;
use eventbus_core::testing::event;
use eventbus_core::{Batch, Durability};

use super::*;
use crate::config::LogConfig;
use crate::disk::FaultyDisk;
use crate::log::Machines;
use crate::stepped::{machines_of, orders};
use crate::upkeep::Upkeep;

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
    retention.step(shared.now());
    assert!(retention.ending.is_none(), "nothing is settled");

    let leases = cursor.lease_now(EVENTS).unwrap();
    let (attempt, verdict) = (None, Verdict::Ack);
    let ended = leases.iter().map(|lease| Ended { position: lease.position(), attempt, verdict });
    let ended: Vec<Ended> = ended.collect();
    // What the ledger does with a turn, before and after a write that fails.
    let turn = cursor.place().progress.settle(&ended);
    retention.step(shared.now());
    assert!(retention.ending.is_some(), "all is settled");
    machines.settle();
    while ledger::sync_step(&shared, shared.now()) == crate::signal::Next::Again {}
    cursor.place().progress.undo(turn);
    retention.step(shared.now());
    assert_eq!(shared.segments.first(), first);
    shared.table.clear();
}

/// Stores one event, unless there is no room.
fn is_taken(machines: &mut Machines) -> bool {
    let before = machines.shared.next_position();
    let batch = Batch::of_one(event("a", "x".repeat(3_000)));
    if machines.shared.begin_append(batch, Durability::Synced).is_ok() {
        machines.publish([]);
    }
    machines.shared.next_position() > before
}

/// Though nothing is settled history by its own limits, and the log may become larger by its own.
#[test]
fn a_full_volume_takes_new_events_in_the_place_of_settled_ones() {
    let config = LogConfig {
        max_bytes: Some(1 << 24),
        segment_bytes: 64 * 1024,
        ..LogConfig::on_disk(Arc::new(FaultyDisk::new(1 << 20)))
    };
    let mut machines = machines_of(config);
    let shared = machines.shared.clone();
    let mut upkeep = Upkeep::new(shared.clone());
    let mut refused = 0;
    for _ in 0..20 * EVENTS {
        if is_taken(&mut machines) {
            continue;
        }
        refused += 1;
        for _ in 0..3 {
            upkeep.step(shared.now());
            machines.settle();
            while ledger::sync_step(&shared, shared.now()) == crate::signal::Next::Again {}
        }
        assert!(is_taken(&mut machines), "there is no room");
    }
    assert!(refused > 2, "the volume was never full");
    assert!(shared.segments.first() > Position(1));
}
