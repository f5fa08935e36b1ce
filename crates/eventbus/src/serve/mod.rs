//! `eventbus serve`: the whole bus in one process.
//!
//! Settings → build → run → signal → drain. What is built, and which of the plug-ins are chosen,
//! stands in `wire`.

mod api_port;
mod authority;
mod broker;
pub(crate) mod data_dir;
mod descriptors;
mod health;
pub(crate) mod kubeconfig;
mod resources;
mod settings;
mod telemetry;
mod wire;

use std::io::IsTerminal;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::{Fault, World};
use settings::{LogFormat, Settings};

pub(crate) use settings::Given as Args;

/// How long the runtime waits for its threads at the very end: by then nothing is left to lose.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// Runs the bus until SIGTERM or SIGINT.
pub(crate) fn run(args: Args, world: World) -> Result<(), Fault> {
    let settings = args.settings()?;
    log(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::Failed(format!("cannot start: {error}")))?;
    let ended = runtime.block_on(serve(settings, world));
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

async fn serve(settings: Settings, world: World) -> Result<(), Fault> {
    let mut signals = Signals::new()?;
    let bus = tokio::select! {
        biased;
        () = signals.next() => return Ok(()),
        started = wire::start(settings, world) => started?,
    };
    let ended = tokio::select! {
        biased;
        () = signals.next() => Ok(()),
        fault = bus.failed() => Err(fault),
    };
    info!("draining; a second signal ends the process at once");
    tokio::select! {
        biased;
        () = signals.next() => {
            warn!("ended by a second signal: what was under way comes again");
            Err(Fault::Failed("ended by a second signal".to_owned()))
        }
        drained = bus.drain() => ended.and(drained),
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Fault> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Fault::Failed(format!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn log(settings: &Settings) -> Result<(), Fault> {
    let filter = filter(&settings.log_level)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A line that cannot be written would be told by `eprintln!`, which panics.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match settings.log_format {
        LogFormat::Human => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}

/// What is logged. A bare word must be a level: by itself the filter would take any other for the
/// name of a part of the program, and log nothing at all where there is no such part.
fn filter(log_level: &str) -> Result<EnvFilter, Fault> {
    let refused = |why: String| {
        Fault::Usage(format!(
            "log_level {log_level:?} cannot be used: {why}; say error, warn, info, debug, trace, \
             off, or a filter such as info,eventbus_push=debug"
        ))
    };
    let is_bare = |word: &&str| !word.contains(['=', '[', '{', '}']);
    for word in log_level.split(',').filter(is_bare) {
        if word.is_empty() || word.parse::<LevelFilter>().is_err() {
            return Err(refused(format!("{word:?} is no level")));
        }
    }
    EnvFilter::try_new(log_level).map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_word_of_a_filter_is_a_level() {
        for good in ["info", "OFF", "warn,eventbus_push=debug", "hyper=error,info", "[span]=info"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for (bad, word) in [("loud", "loud"), ("7", "7"), ("", ""), ("info,hyper", "hyper")] {
            let Err(Fault::Usage(complaint)) = filter(bad) else { panic!("{bad:?} was taken") };
            assert!(complaint.contains(&format!("{word:?} is no level; say error")), "{complaint}");
        }
        assert!(filter("eventbus_push=loud").is_err());
    }
}
