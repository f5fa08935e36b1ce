//! What a power cut leaves of segments that were on their way.

use std::sync::atomic::Ordering;

use eventbus_core::testing::{SeededEntropy, event};
use eventbus_core::{Batch, Durability};

use super::*;
use crate::config::LogConfig;
use crate::disk::{Fault, FaultyDisk};
use crate::log::Machines;
use crate::stepped::machines_of;
use crate::syncer::Syncer;
use crate::upkeep::Upkeep;

/// Of how many power cuts each is another one.
const CUTS: u64 = 60;

fn opened(disk: &FaultyDisk) -> Machines {
    let config = LogConfig {
        max_bytes: Some(1 << 24),
        segment_bytes: 64 * 1024,
        ..LogConfig::on_disk(Arc::new(disk.clone()))
    };
    machines_of(config)
}

/// Writes events until these many segments have begun.
fn fill(machines: &mut Machines, segments: usize) {
    let shared = machines.shared.clone();
    while shared.segments.all().len() < segments {
        let batch = Batch::of_one(event("a", "x".repeat(4_000)));
        let _answers = shared.begin_append(batch, Durability::Written).unwrap();
        machines.writer.step(shared.now());
    }
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
        fill(&mut machines, 2);
        Syncer::new(shared.clone()).step(shared.now());
        // The first one gets its index.
        Upkeep::new(shared.clone()).step(shared.now());
        fill(&mut machines, 4);
        let mut disk = disk.after_power_cut(&SeededEntropy::new(seed));
        for _ in 0..2 {
            let machines = opened(&disk);
            assert_eq!(corrupt_ranges(&machines), 0, "seed {seed}");
            let all = machines.shared.segments.all();
            missing += all.windows(2).filter(|two| two[1].number > two[0].number + 1).count();
            disk = disk.after_kill();
        }
    }
    assert!(missing > 0, "no power cut took one");
}

#[test]
fn a_segment_that_ended_does_not_come_back_though_a_sync_failed() {
    for seed in 0..CUTS {
        let disk = FaultyDisk::new(1 << 30);
        let mut machines = opened(&disk);
        let shared = machines.shared.clone();
        fill(&mut machines, 3);
        Syncer::new(shared.clone()).step(shared.now());
        // Two heads, and then the sync.
        disk.fail_at(disk.operations() + 3, Fault::Error);
        shared.segments.retire_oldest().unwrap_err();
        let disk = disk.after_kill();
        let seen = opened(&disk).shared.segments.first();
        let disk = disk.after_power_cut(&SeededEntropy::new(seed));
        assert_eq!(opened(&disk).shared.segments.first(), seen, "seed {seed}");
    }
}
