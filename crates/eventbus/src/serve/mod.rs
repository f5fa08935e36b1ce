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
mod log;
mod resources;
mod settings;
mod telemetry;
mod wire;

use std::convert::Infallible;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::cli::{Fault, World};
use log::Log;
use settings::Settings;

pub(crate) use settings::Given as Args;

/// How long the runtime waits for its threads at the very end: by then nothing is left to lose.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// Runs the bus until SIGTERM or SIGINT.
pub(crate) fn run(args: Args, world: World) -> Result<(), Fault> {
    let settings = args.clone().settings()?;
    let log = Log::start(&settings.log_level, settings.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::Failed(format!("cannot start: {error}")))?;
    let again = Again { args, log };
    let ended = runtime.block_on(serve(settings, world, again));
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

async fn serve(settings: Settings, world: World, again: Again) -> Result<(), Fault> {
    let mut signals = Signals::new()?;
    let hang_up = again.listen()?;
    let bus = tokio::select! {
        biased;
        () = signals.next() => return Ok(()),
        started = wire::start(settings, world) => started?,
    };
    let ended = tokio::select! {
        biased;
        () = signals.next() => Ok(()),
        fault = bus.failed() => Err(fault),
        never = again.read(hang_up) => match never {},
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

/// What is done at SIGHUP: the settings file is read again, and `log_level` taken from it.
struct Again {
    args: Args,
    log: Log,
}

impl Again {
    /// Begins to listen for it; where there is no file, it ends the process as it ends any.
    fn listen(&self) -> Result<Option<Signal>, Fault> {
        self.args.has_file().then(|| listen(SignalKind::hangup())).transpose()
    }

    async fn read(&self, hang_up: Option<Signal>) -> Infallible {
        let Some(mut hang_up) = hang_up else { return std::future::pending().await };
        loop {
            hang_up.recv().await;
            let settings = self.args.clone().settings();
            let read = settings.and_then(|settings| {
                self.log.set_level(&settings.log_level)?;
                Ok(settings.log_level)
            });
            match read {
                Ok(log_level) => info!(log_level, "the settings were read again"),
                Err(error) => warn!(%error, "the settings were read again: nothing changes"),
            }
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Fault> {
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

fn listen(kind: SignalKind) -> Result<Signal, Fault> {
    signal(kind).map_err(|error| Fault::Failed(format!("cannot listen for signals: {error}")))
}
