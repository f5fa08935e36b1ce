//! `cargo bench -p eventbus-bench`: how long each step takes on this machine, now.
//!
//! Times tell one machine from another, and one minute from the next. Whether the program has
//! become slower is what `bench/instructions` tells.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eventbus_bench::STEPS;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn steps(criterion: &mut Criterion) {
    for step in STEPS {
        let mut group = criterion.benchmark_group("step");
        group.throughput(Throughput::Elements(step.events.into()));
        let mut work = (step.ready)();
        group.bench_function(step.name, |bencher| bencher.iter(&mut work));
        group.finish();
    }
}

criterion_group!(micro, steps);
criterion_main!(micro);
