//! `counted NAME TIMES`: does a step so many times, for `bench/instructions` to count. Without
//! arguments the names of all steps, one a line.

use std::io::{self, Write};
use std::process::ExitCode;

use eventbus_bench::STEPS;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (name, times) = (words.next(), words.next().and_then(|times| times.parse::<u32>().ok()));
    let Some(name) = name else {
        for step in STEPS {
            let _ = writeln!(io::stdout(), "{}", step.name);
        }
        return ExitCode::SUCCESS;
    };
    let (Some(step), Some(times)) = (STEPS.iter().find(|step| step.name == name), times) else {
        let _ = writeln!(io::stderr(), "counted NAME TIMES");
        return ExitCode::FAILURE;
    };
    let mut work = (step.ready)();
    (0..times).for_each(|_| work());
    ExitCode::SUCCESS
}
