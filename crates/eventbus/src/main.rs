//! The program `eventbus`: one command line for the bus, its publishers and its subscribers.
//!
//! `main` only reads the command line, runs what it names, and turns the end into an exit code:
//! 0 done, 1 failed, 2 wrong usage or setting, 130 interrupted.

mod bench;
mod cli;
mod listen;
mod output;
mod publish;
mod serve;
mod system;
mod token;
mod top;

use std::process::ExitCode;

use clap::Parser;
use tracing::{Level, enabled, error};

use cli::{Cli, Fault};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            tell(&fault);
            ExitCode::from(fault.exit_code())
        }
    }
}

/// Says why it failed: where there is a log, as a line of it.
fn tell(fault: &Fault) {
    if enabled!(Level::ERROR) {
        error!(error = %fault, "the process failed");
    } else {
        output::note(&format!("error: {fault}"));
    }
}
