//! What a power cut leaves of segments that were on their way, and what a full log leaves.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

use eventbus_core::testing::{SeededEntropy, event};
use eventbus_core::{Batch, Durability};

use super::*;
use crate::config::LogConfig;
use crate::disk::{Fault, FaultyDisk};
use crate::ledger;
use crate::log::Machines;
use crate::signal::Next;
use crate::stepped::machines_of;
use crate::syncer::Syncer;
use crate::upkeep::Upkeep;

/// Of how many power cuts each is another one.
const CUTS: u64 = 60;

const SEGMENT_BYTES: u64 = 64 * 1024;

/// Bytes of a commit of one event: of such ones a segment's content could be filled to the brim.
const COMMIT_BYTES: u64 = 4_096;

fn config(disk: &FaultyDisk) -> LogConfig {
    LogConfig {
        max_bytes: Some(1 << 24),
        segment_bytes: SEGMENT_BYTES,
        ..LogConfig::on_disk(Arc::new(disk.clone()))
    }
}

fn opened(disk: &FaultyDisk) -> Machines {
    machines_of(config(disk))
}

/// Has one event written; says whether it was taken.
fn write(machines: &mut Machines, durability: Durability) -> bool {
    let shared = machines.shared.clone();
    let batch = Batch::of_one(event("a", "x".repeat(3_848)));
    let Ok(answers) = shared.begin_append(batch, durability) else { return false };
    let next = shared.next_position();
    machines.writer.step(shared.now());
    drop(answers);
    shared.next_position() > next
}

fn sync(machines: &Machines) {
    Syncer::new(machines.shared.clone()).step(machines.shared.now());
}

/// Has one more event written, and all of them synced.
fn write_synced(machines: &mut Machines) {
    assert!(write(machines, Durability::Synced));
    sync(machines);
}

/// Writes events until these many segments have begun.
fn fill(machines: &mut Machines, segments: usize) {
    while machines.shared.segments.all().len() < segments {
        assert!(write(machines, Durability::Written));
    }
}

/// Ends the oldest segment, and frees what ended.
fn retire(machines: &Machines) -> io::Result<()> {
    machines.shared.segments.retire(1);
    machines.shared.segments.free_retired()
}

fn corrupt_ranges(machines: &Machines) -> u64 {
    machines.shared.telemetry.corrupt_ranges.load(Ordering::Relaxed)
}

#[test]
fn a_segment_that_was_never_promised_may_be_missing_between_others() {
    let mut missing = 0;
    for seed in 0..CUTS {
        let disk = FaultyDisk::new(1 << 30);
        let mut machines = opened(&disk);
        let shared = machines.shared.clone();
        while shared.segments.all().len() < 2 {
            sync(&machines);
            assert!(write(&mut machines, Durability::Synced));
        }
        // All of the first one is synced, and nothing of the second.
        Upkeep::new(shared.clone()).step(shared.now());
        let first = shared.segments.all().remove(0);
        assert!(first.has_index_on_disk());
        assert_eq!((first.facts().end - CONTENT_AT) % COMMIT_BYTES, 0);
        fill(&mut machines, 4);
        let mut disk = disk.after_power_cut(&SeededEntropy::new(seed));
        // A gap behind the first one must find room where there is none else.
        disk.resize((1 << 30) - disk.free_bytes().unwrap());
        for _ in 0..2 {
            let machines = opened(&disk);
            assert_eq!(corrupt_ranges(&machines), 0, "seed {seed}");
            let all = machines.shared.segments.all();
            missing += usize::from(all.len() > 1 && all[1].number > 2);
            disk = disk.after_kill();
        }
    }
    assert!(missing > 0, "no power cut took the second one alone");
}

#[test]
fn the_gaps_of_many_starts_leave_room_for_one_more() {
    let mut missing = 0;
    // With the last of these starts a segment begins, which is durable then.
    for (seed, rolls) in (0..CUTS / 2).flat_map(|seed| [(seed, 0), (seed, 1)]) {
        let mut disk = FaultyDisk::new(1 << 30);
        let mut machines = opened(&disk);
        for _ in 1..SEGMENT_BYTES / COMMIT_BYTES - 2 {
            write_synced(&mut machines);
        }
        let active = machines.shared.segments.active().unwrap();
        let gaps = (active.size - active.facts().end) / batch::BYTES as u64;
        for _ in 1..gaps + rolls {
            disk = disk.after_kill();
            machines = opened(&disk);
        }
        assert_eq!(machines.shared.segments.all().len() as u64, 1 + rolls);
        fill(&mut machines, 4);
        let disk = disk.after_power_cut(&SeededEntropy::new(seed));
        disk.resize((1 << 30) - disk.free_bytes().unwrap());
        let machines = opened(&disk);
        assert_eq!(corrupt_ranges(&machines), 0, "seed {seed}");
        let all = machines.shared.segments.all();
        missing += usize::from(all.len() > 1 && all[1].number > 2);
    }
    assert!(missing > 0, "no power cut took the second one alone");
}

#[test]
fn a_segment_that_ended_does_not_come_back_though_a_sync_failed() {
    for seed in 0..CUTS {
        let disk = FaultyDisk::new(1 << 30);
        let mut machines = opened(&disk);
        fill(&mut machines, 3);
        write_synced(&mut machines);
        // Two heads, and then the sync.
        disk.fail_at(disk.operations() + 3, Fault::Error);
        retire(&machines).unwrap_err();
        let disk = disk.after_kill();
        let seen = opened(&disk).shared.segments.first();
        let disk = disk.after_power_cut(&SeededEntropy::new(seed));
        assert_eq!(opened(&disk).shared.segments.first(), seen, "seed {seed}");
    }
}

#[test]
fn no_segment_ends_before_one_that_is_older() {
    for (operation, seed) in (1..=6).flat_map(|at| (0..CUTS).map(move |seed| (at, seed))) {
        let disk = FaultyDisk::new(1 << 30);
        let mut machines = opened(&disk);
        let shared = machines.shared.clone();
        fill(&mut machines, 5);
        write_synced(&mut machines);
        disk.fail_at(disk.operations() + operation, Fault::Error);
        let used_bytes = shared.segments.used_bytes();
        shared.segments.retire(2);
        shared.segments.free_retired().unwrap_err();
        assert_eq!(shared.segments.all()[0].number, 3, "one is found whose file may be a spare");
        assert_eq!(shared.segments.used_bytes(), used_bytes);
        // What was not freed is there, but perhaps the one at which it failed. Each has two heads
        // written and synced.
        let freed = (operation - 1) / 3;
        let case = format!("failed at {operation}, seed {seed}");
        let assert_first = |disk: &FaultyDisk, first: RangeInclusive<u64>| {
            let machines = opened(disk);
            assert_eq!(corrupt_ranges(&machines), 0, "{case}");
            assert!(first.contains(&machines.shared.segments.all()[0].number), "{case}");
        };
        assert_first(&disk.copy(), freed + 1..=freed + 2);
        let dice = SeededEntropy::new(seed);
        if seed % 2 == 0 {
            assert_first(&disk.after_power_cut(&dice), freed + 1..=freed + 2);
        } else {
            shared.segments.free_retired().unwrap();
            assert_first(&disk.copy(), 3..=3);
            assert_first(&disk.after_power_cut(&dice), 3..=3);
        }
    }
}

#[test]
fn a_file_that_was_removed_as_there_were_spares_enough_is_not_used_again() {
    let disk = FaultyDisk::new(1 << 30);
    let mut machines = opened(&disk);
    let segments = &machines.shared.clone().segments;
    fill(&mut machines, 5);
    write_synced(&mut machines);
    segments.retire(2);
    segments.free_retired().unwrap();
    // The third is one too many: its name goes, and then the names fail to be synced.
    disk.fail_at(disk.operations() + 2, Fault::Error);
    retire(&machines).unwrap_err();
    // Both spares are taken meanwhile.
    fill(&mut machines, 4);
    segments.free_retired().unwrap();
    assert!(!segments.has_spare());
}

/// It was removed, which the disk perhaps does not have yet: its file is no spare.
#[test]
fn a_file_that_was_removed_for_want_of_room_is_not_used_again() {
    for seed in 0..CUTS {
        let disk = FaultyDisk::new(1 << 30);
        let mut machines = opened(&disk);
        let segments = &machines.shared.clone().segments;
        fill(&mut machines, 4);
        write_synced(&mut machines);
        // Its head, the name, and then the names.
        disk.fail_at(disk.operations() + 1, Fault::Full);
        disk.fail_at(disk.operations() + 3, Fault::Error);
        segments.retire(2);
        segments.free_retired().unwrap_err();
        if seed % 2 == 0 {
            segments.free_retired().unwrap();
        }
        assert!(!segments.has_spare());
        let disk = disk.after_power_cut(&SeededEntropy::new(seed));
        let machines = opened(&disk);
        assert_eq!(corrupt_ranges(&machines), 0, "seed {seed}");
        let first = machines.shared.segments.all()[0].number;
        assert!(first == 3 || seed % 2 == 1 && first <= 2, "seed {seed}: {first}");
    }
}

#[test]
fn a_segment_whose_index_somebody_removed_ends_too() {
    let disk = FaultyDisk::new(1 << 30);
    let mut machines = opened(&disk);
    fill(&mut machines, 3);
    write_synced(&mut machines);
    Upkeep::new(machines.shared.clone()).step(machines.shared.now());
    let first = machines.shared.segments.all().remove(0);
    disk.remove(&index_name(first.file_number)).unwrap();
    let used_bytes = machines.shared.segments.used_bytes();
    retire(&machines).unwrap();
    // Its file is a spare, or went for there were enough of them.
    assert!(machines.shared.segments.has_spare());
    assert!(machines.shared.segments.used_bytes() < used_bytes, "its index still counts");
}

fn small(disk: &FaultyDisk) -> Machines {
    machines_of(LogConfig { max_bytes: Some(8 * SEGMENT_BYTES), history_bytes: 0, ..config(disk) })
}

/// Rounds enough for segments to end that nobody needs.
fn keep_up(machines: &mut Machines) {
    let shared = machines.shared.clone();
    let mut upkeep = Upkeep::new(shared.clone());
    for _ in 0..4 {
        upkeep.step(shared.now());
        machines.settle();
        while ledger::sync_step(&shared, shared.now()) == Next::Again {}
    }
}

/// A disk with a log in which not even the gap finds room that begins an epoch.
fn full() -> FaultyDisk {
    let mut disk = FaultyDisk::new(1 << 30);
    let mut machines = small(&disk);
    while write(&mut machines, Durability::Synced) {
        sync(&machines);
    }
    let active = machines.shared.segments.active().unwrap();
    let gaps = (active.size - active.facts().end) / batch::BYTES as u64;
    // Behind the last of them there is room for another one.
    for _ in 1..gaps {
        disk = disk.after_kill();
        machines = small(&disk);
        assert_eq!(machines.shared.segments.active().unwrap().number, active.number);
    }
    disk.after_kill()
}

#[test]
fn a_log_that_starts_full_takes_events_again_when_there_is_room() {
    for (durability, seed) in [Durability::Synced, Durability::Written]
        .into_iter()
        .flat_map(|d| (0..8).map(move |s| (d, s)))
    {
        let disk = full();
        let mut machines = small(&disk);
        let shared = machines.shared.clone();
        let next = shared.next_position();
        let number = shared.segments.active().unwrap().number;
        assert!(!write(&mut machines, durability), "there was room");
        keep_up(&mut machines);
        assert!(write(&mut machines, durability));
        if durability == Durability::Synced {
            sync(&machines);
        }
        let disk = disk.after_power_cut(&SeededEntropy::new(seed));
        let machines = small(&disk);
        let case = format!("{durability:?}, seed {seed}");
        assert_eq!(corrupt_ranges(&machines), 0, "{case}");
        let active = machines.shared.segments.active().unwrap();
        assert_eq!((active.number, active.base), (number + 1, next), "{case}");
        assert!(durability < Durability::Synced || active.facts().count == 1, "{case}");
        assert!(machines.shared.next_position() > next, "{case}");
    }
}

#[test]
fn a_log_that_starts_full_keeps_the_segment_that_is_written() {
    let disk = full();
    let mut machines = small(&disk);
    keep_up(&mut machines);
    assert_eq!(machines.shared.segments.all().len(), 1, "none ended");
    for _ in 0..2 {
        let machines = small(&disk.after_kill());
        assert_eq!(corrupt_ranges(&machines), 0);
    }
}
