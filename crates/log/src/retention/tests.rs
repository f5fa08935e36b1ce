//! What ends while others still work.

use eventbus_core::broker::{CursorId, CursorSpec};
use eventbus_core::cursor::Ended;
use eventbus_core::delivery::Verdict;
use eventbus_core::testing::event;
use eventbus_core::{Batch, Durability, Lease};
use rustix::io::Errno;

use super::*;
use crate::config::LogConfig;
use crate::disk::{Disk, FaultyDisk};
use crate::log::Machines;
use crate::signal::Next;
use crate::stepped::{machines_of, orders};
use crate::upkeep::Upkeep;

/// Many enough for segments that are full.
const EVENTS: usize = 60;

const SEGMENT_BYTES: u64 = 64 * 1024;

/// A log that keeps no history.
fn machines(disk: &FaultyDisk) -> Machines {
    machines_keeping(0, disk)
}

/// A log that may keep more than its volume has room for.
fn on_a_small_volume(disk: &FaultyDisk) -> Machines {
    machines_keeping(1 << 30, disk)
}

fn machines_keeping(history_bytes: u64, disk: &FaultyDisk) -> Machines {
    machines_of(LogConfig {
        max_bytes: Some(1 << 24),
        segment_bytes: SEGMENT_BYTES,
        history_bytes,
        ..LogConfig::on_disk(Arc::new(disk.clone()))
    })
}

/// Stores events one by one.
fn fill(machines: &mut Machines) {
    for _ in 0..EVENTS {
        machines.publish([event("a", "x".repeat(3_000))]);
    }
}

/// A cursor that may have all of them out.
fn spec(event_type: &str) -> CursorSpec {
    CursorSpec { waiting_max: EVENTS, ..orders(event_type) }
}

/// Has the ledger write and sync what is queued.
fn write_ledger(machines: &mut Machines) {
    let shared = machines.shared.clone();
    machines.settle();
    while ledger::sync_step(&shared, shared.now()) == Next::Again {}
}

/// Rounds enough for what may end to end.
fn keep_up(machines: &mut Machines) {
    let shared = machines.shared.clone();
    let mut upkeep = Upkeep::new(shared.clone());
    for _ in 0..3 {
        upkeep.step(shared.now());
        write_ledger(machines);
    }
}

fn acknowledged(leases: &[Lease]) -> Vec<Ended> {
    let (attempt, verdict) = (None, Verdict::Ack);
    let ended = leases.iter().map(|lease| Ended { position: lease.position(), attempt, verdict });
    ended.collect()
}

/// Settles all that a cursor has.
fn settle_all(machines: &mut Machines, cursor: &Arc<LogCursor>) -> usize {
    let mut settled = 0;
    loop {
        let leases = cursor.lease_now(EVENTS).unwrap();
        if leases.is_empty() {
            return settled;
        }
        settled += leases.len();
        let ended = acknowledged(&leases);
        let turn = Request::Turn { cursor: cursor.clone(), ended, reply: None };
        machines.shared.ledger.push(turn).unwrap();
        machines.settle();
    }
}

#[test]
fn what_was_given_back_since_it_was_decided_does_not_end() {
    let mut machines = machines(&FaultyDisk::new(1 << 30));
    let shared = machines.shared.clone();
    let cursor = shared.admit(spec("a")).unwrap().cursor;
    fill(&mut machines);
    let first = shared.segments.first();
    let mut retention = Retention::new(shared.clone());
    retention.step(shared.now());
    assert!(retention.ending.is_none(), "nothing is settled");

    let leases = cursor.lease_now(EVENTS).unwrap();
    // What the ledger does with a turn, before and after a write that fails.
    let turn = cursor.place().progress.settle(&acknowledged(&leases));
    retention.step(shared.now());
    assert!(retention.ending.is_some(), "all is settled");
    write_ledger(&mut machines);
    cursor.place().progress.undo(turn);
    retention.step(shared.now());
    assert_eq!(shared.segments.first(), first);
    shared.table.clear();
}

fn write_indexes(shared: &Shared) {
    for segment in shared.segments.all().iter().filter(|segment| segment.is_full()) {
        shared.segments.write_index(segment).unwrap();
    }
}

fn spoil_indexes(disk: &FaultyDisk, error: Errno) {
    for name in disk.names().unwrap().iter().filter(|name| name.starts_with("index")) {
        disk.spoil(name, 0..1 << 20, error);
    }
}

/// Else whoever lags would wait for it for ever.
#[test]
fn an_index_that_the_disk_cannot_read_is_made_anew() {
    let disk = FaultyDisk::new(1 << 30);
    let mut machines = machines(&disk);
    let shared = machines.shared.clone();
    fill(&mut machines);
    write_indexes(&shared);
    spoil_indexes(&disk, Errno::IO);
    let cursor = shared.admit(spec("a")).unwrap().cursor;
    assert_eq!(cursor.stats().lag_events, EVENTS as u64);
    assert_eq!(settle_all(&mut machines, &cursor), EVENTS);
    shared.table.clear();
    // At a start, too.
    let disk = disk.after_kill();
    spoil_indexes(&disk, Errno::IO);
    let machines = self::machines(&disk);
    assert_eq!(
        machines.shared.segments.all().iter().map(|one| one.facts().count).sum::<u64>(),
        EVENTS as u64
    );
}

/// Whatever becomes of the count: it is under way, it failed, and it was begun anew.
#[test]
fn nothing_ends_of_which_it_is_not_known_yet_how_much_a_cursor_wants() {
    for interest in [None, Some("b")] {
        let disk = FaultyDisk::new(1 << 30);
        let mut machines = machines(&disk);
        let shared = machines.shared.clone();
        // Another one has every event, and no segment ends for it.
        let other = CursorSpec { id: CursorId("other".into()), ..spec("a") };
        let other = shared.admit(other).unwrap().cursor;
        fill(&mut machines);
        write_indexes(&shared);
        if let Some(event_type) = interest {
            shared.admit(spec(event_type)).unwrap();
        }
        spoil_indexes(&disk, Errno::NOMEM);
        assert!(shared.admit(spec("a")).is_err(), "its events were counted");
        let first = shared.segments.first();
        assert_eq!(settle_all(&mut machines, &other), EVENTS);
        keep_up(&mut machines);
        assert_eq!(shared.segments.first(), first, "some ended while they were not counted");

        disk.heal();
        assert!(!shared.admits_at_once(&spec("a")), "it takes a disk to count them");
        let cursor = shared.table.state().by_id.get(&spec("a").id).cloned().unwrap();
        let stale = cursor.place().begin_count(&cursor);
        keep_up(&mut machines);
        assert_eq!(shared.segments.first(), first, "some ended while they were being counted");
        assert!(Arc::ptr_eq(&shared.admit(spec("a")).unwrap().cursor, &cursor));
        stale.count_in().unwrap();
        assert_eq!(cursor.stats().lag_events, EVENTS as u64);
        machines.publish([event("a", "x")]);
        assert_eq!(settle_all(&mut machines, &cursor), EVENTS + 1);
        assert_eq!(cursor.stats().lag_events, 0);
        settle_all(&mut machines, &other);
        keep_up(&mut machines);
        assert!(shared.segments.first() > first, "nothing ends though all is settled");
        shared.table.clear();
    }
}

#[test]
fn what_was_never_counted_and_is_dropped_is_owed_no_more() {
    let disk = FaultyDisk::new(1 << 30);
    let mut machines = machines(&disk);
    let shared = machines.shared.clone();
    fill(&mut machines);
    write_indexes(&shared);
    spoil_indexes(&disk, Errno::NOMEM);
    assert!(shared.admit(spec("a")).is_err(), "its events were counted");
    disk.heal();
    let cursor = shared.table.state().by_id.get(&spec("a").id).cloned().unwrap();
    let upto = Position(shared.next_position().0 - 1);
    assert!(Retention::new(shared.clone()).drop_upto(&cursor, upto, DropLimit::Age));
    assert_eq!(cursor.dropped(), (upto, EVENTS as u64));
    assert_eq!(cursor.place().holds_from(), None);
    machines.publish([event("a", "x")]);
    assert_eq!((cursor.stats().lag_events, settle_all(&mut machines, &cursor)), (1, 1));
    assert_eq!(cursor.place().holds_from(), None);
    shared.table.clear();
}

/// Else segments might end, and a power cut take the word on what a cursor lost with them.
#[test]
fn nothing_is_dropped_of_which_the_ledger_does_not_hear() {
    let mut machines = machines(&FaultyDisk::new(1 << 30));
    let shared = machines.shared.clone();
    let cursor = shared.admit(spec("a")).unwrap().cursor;
    fill(&mut machines);
    machines.settle();
    let _leases = cursor.lease_now(3).unwrap();
    let retention = Retention::new(shared.clone());
    let upto = shared.segments.all()[0].facts().last;
    let mark = || Request::Change { change: ledger::mark(&shared), reply: None };
    while shared.ledger.push(mark()).is_ok() {}
    assert!(!retention.drop_upto(&cursor, upto, DropLimit::Age));
    let from = cursor.place().holds_from();
    assert_eq!((from, cursor.dropped()), (Some(Position(1)), (Position(0), 0)));
    machines.settle();
    assert!(retention.drop_upto(&cursor, upto, DropLimit::Age));
    assert_eq!(cursor.place().holds_from(), Some(upto.next()));
    assert_eq!(cursor.dropped(), (upto, upto.0));
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
    for copies_on_write in [false, true] {
        let disk = FaultyDisk::new(1 << 20);
        if copies_on_write {
            disk.copy_on_write();
        }
        let mut machines = on_a_small_volume(&disk);
        let shared = machines.shared.clone();
        let cursor = shared.admit(spec("a")).unwrap().cursor;
        let (mut refused, mut taken, mut settled) = (0, 0, 0);
        for _ in 0..20 * EVENTS {
            if is_taken(&mut machines) {
                taken += 1;
                continue;
            }
            let oldest = || shared.segments.all()[0].number;
            let before = oldest();
            keep_up(&mut machines);
            if shared.health.is_full() {
                refused += 1;
                assert_eq!(oldest(), before, "what ended made no room, or was not settled");
                settled += settle_all(&mut machines, &cursor);
                keep_up(&mut machines);
            }
            // A ledger that has grown may have taken a part of what the first one gave.
            while !is_taken(&mut machines) {
                assert!(copies_on_write && oldest() <= before + 3, "there is no room");
                keep_up(&mut machines);
            }
            let ended = oldest() - before;
            assert!(ended == 1 || copies_on_write && ended <= 3, "{ended} ended");
            taken += 1;
        }
        settled += settle_all(&mut machines, &cursor);
        assert_eq!((settled, cursor.dropped().1), (taken, 0));
        assert!(refused > 2, "the volume was never full");
        shared.table.clear();
    }
}

#[test]
fn nothing_ends_when_somebody_else_has_made_room_meanwhile() {
    let disk = FaultyDisk::new(1 << 20);
    let mut machines = on_a_small_volume(&disk);
    let shared = machines.shared.clone();
    while is_taken(&mut machines) {}
    let mut upkeep = Upkeep::new(shared.clone());
    upkeep.step(shared.now());
    write_ledger(&mut machines);
    assert!(shared.health.is_full(), "what ends is decided");
    disk.resize(1 << 21);
    upkeep.step(shared.now());
    assert_eq!(shared.segments.all()[0].number, 1);
    assert!(is_taken(&mut machines), "there is no room");
}

/// The heads of a spare file find room, or not even these; what is written into it never does.
#[test]
fn where_what_is_written_anew_finds_no_room_no_file_is_used_again() {
    for room in [0, 1_000] {
        let disk = FaultyDisk::new(1 << 30);
        disk.copy_on_write();
        let mut machines = on_a_small_volume(&disk);
        let shared = machines.shared.clone();
        fill(&mut machines);
        keep_up(&mut machines);
        shared.segments.prepare_spare(SEGMENT_BYTES).unwrap();
        shared.segments.retire(1);
        shared.segments.free_retired().unwrap();
        disk.resize((1 << 30) - disk.free_bytes().unwrap() + room);
        let before = shared.segments.all();
        while is_taken(&mut machines) {}
        for _ in 0..4 {
            keep_up(&mut machines);
            is_taken(&mut machines);
        }
        let oldest = shared.segments.all()[0].number;
        assert!(oldest <= 3, "{room}: {oldest}");
        assert!(is_taken(&mut machines), "{room}: there is no room");
        let files = disk.names().unwrap();
        let files = files.iter().filter(|name| name.starts_with("segment")).count();
        assert_eq!(files, shared.segments.all().len(), "{room}: a spare is kept");
        let begun = shared.segments.all().last().unwrap().number - before.last().unwrap().number;
        assert!(begun <= 2, "{room}: {begun} began");
    }
}
