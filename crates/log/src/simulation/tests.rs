//! Seeds, and the defects the seeds must find.

use super::Mutation;
use super::bus::{Bus, Mix};
use crate::disk::Fault;

const STEPS: u64 = 300;

/// The first seed of a run; another one with `EVENTBUS_SEED`.
fn first_seed() -> u64 {
    std::env::var("EVENTBUS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let count = std::env::var("EVENTBUS_SEEDS").ok().and_then(|count| count.parse().ok());
    first_seed()..first_seed() + count.unwrap_or(default)
}

fn run_all(mix: Mix, count: u64) {
    let (mut deliveries, mut acknowledged, mut repeated) = (0, 0, 0);
    let (mut delayed, mut dead) = (0, 0);
    for seed in seeds(count) {
        match Bus::new(seed, mix).run() {
            Ok((_, checker)) => {
                deliveries += checker.deliveries;
                acknowledged += checker.acknowledged;
                repeated += checker.repeated;
                delayed += checker.delayed;
                dead += checker.dead_letters;
            }
            Err(broken) => panic!("seed {seed}, {mix:?}: {broken}"),
        }
    }
    let seeds = seeds(count);
    println!("seeds {seeds:?}: {acknowledged} acknowledged, {repeated} of them repeats");
    println!("{delayed} delayed, {deliveries} deliveries, {dead} dead letters");
    let least = acknowledged.min(deliveries).min(repeated).min(delayed).min(dead);
    assert!(least > 0, "the simulation does nothing");
}

#[test]
fn kills_lose_nothing() {
    run_all(Mix { steps: STEPS, power_cuts: false, faults: false, cut_after_fault: false }, 300);
}

#[test]
fn power_cuts_lose_nothing_that_was_synced() {
    run_all(Mix { steps: STEPS, power_cuts: true, faults: false, cut_after_fault: false }, 400);
}

#[test]
fn failing_disks_lose_nothing_that_was_promised() {
    run_all(Mix { steps: STEPS, power_cuts: true, faults: true, cut_after_fault: false }, 400);
}

#[test]
fn what_a_failed_sync_left_is_not_taken_for_durable() {
    run_all(Mix { steps: STEPS, power_cuts: true, faults: true, cut_after_fault: true }, 400);
}

#[test]
fn the_same_seed_does_the_same() {
    let mix = Mix { steps: STEPS, power_cuts: true, faults: true, cut_after_fault: false };
    for seed in seeds(5) {
        let trace = || Bus::new(seed, mix).run().map(|(trace, _)| trace);
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}

#[test]
fn a_fault_at_any_operation_loses_nothing() {
    for cut_after_fault in [false, true] {
        let mix = Mix { steps: 60, power_cuts: false, faults: false, cut_after_fault };
        seeds(2).for_each(|seed| fail_each_operation(seed, mix));
    }
}

fn fail_each_operation(seed: u64, mix: Mix) {
    let count = Bus::new(seed, mix).operations().unwrap();
    for operation in 1..=count {
        for fault in [Fault::Kill, Fault::Error, Fault::Full] {
            let bus = Bus::new(seed, mix).failing_at(operation, fault);
            if let Err(broken) = bus.run() {
                panic!("seed {seed}, {mix:?}, {fault:?} at operation {operation}: {broken}");
            }
        }
    }
    println!("seed {seed}, {mix:?}: {count} operations, each failed in three ways");
}

fn is_found(mutation: Mutation) {
    mutation.set();
    let mix = Mix { steps: STEPS, power_cuts: true, faults: false, cut_after_fault: false };
    let mut seeds = first_seed()..first_seed() + 1_000;
    let found = seeds.find_map(|seed| Some((seed, Bus::new(seed, mix).run().err()?)));
    Mutation::None.set();
    let (seed, broken) = found.unwrap_or_else(|| panic!("{mutation:?} is not found"));
    println!("{mutation:?} is found by seed {seed}: {broken}");
}

#[test]
fn a_dropped_sync_is_found() {
    is_found(Mutation::DropSync);
}

#[test]
fn an_early_acknowledgement_is_found() {
    is_found(Mutation::AcknowledgeEarly);
}

#[test]
fn an_early_frontier_is_found() {
    is_found(Mutation::MoveFrontierEarly);
}

#[test]
fn forgotten_ids_are_found() {
    is_found(Mutation::ForgetIds);
}

#[test]
fn delayed_events_stored_too_early_are_found() {
    is_found(Mutation::StoreEarly);
}

#[test]
fn delayed_events_removed_too_early_are_found() {
    is_found(Mutation::RemoveFirst);
}
