//! The command line: which commands there are, and how they end.

use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use eventbus_core::{Clock, Entropy};
use eventbus_resources::{DEFINITIONS, Definition, access};
use serde_json::Value;

use crate::system::{SystemClock, SystemEntropy};
use crate::{bench, listen, output, publish, serve, token, top};

/// A Kyma-compatible event bus in one program.
#[derive(Debug, Parser)]
#[command(name = "eventbus", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bus
    Serve(Box<serve::Args>),
    /// Publish one event, or JSON lines from standard input
    Publish(Box<publish::Args>),
    /// Be a subscriber that prints what it gets
    Listen(listen::Args),
    /// Print the definitions of the resources, for `kubectl apply -f -` on a real API server
    Crds,
    /// Print the roles the bus needs on a real API server, for `kubectl apply -f -`
    Rbac {
        /// The namespace of its service account, and of its Lease
        #[arg(long, default_value = "eventbus")]
        namespace: String,
        /// Its service account
        #[arg(long, default_value = "eventbus")]
        service_account: String,
    },
    /// Say who else may use the API of a bus, and what they may do
    Token(token::Args),
    /// Measure a bus through its public HTTP interface, and check that every event arrives
    Bench(Box<bench::Args>),
    /// Show what a bus does now: rates, latencies, and who lags most
    Top(top::Args),
    /// Print the completion script of a shell
    Completions {
        /// The shell to complete for
        shell: Shell,
    },
}

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The command line or a setting is wrong; the text says what is allowed.
    #[error("{0}")]
    Usage(String),
    /// The command was understood and failed.
    #[error("{0}")]
    Failed(String),
    /// The command was interrupted (Ctrl-C), and has said how far it came.
    #[error("interrupted")]
    Interrupted,
}

/// What a command takes from the outside world besides its arguments.
#[derive(Clone)]
pub(crate) struct World {
    /// Tells the time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Rolls the dice.
    pub(crate) entropy: Arc<dyn Entropy>,
}

// === impl Cli ===

impl Cli {
    /// Runs the command to its end.
    pub(crate) fn run(self) -> Result<(), Fault> {
        let world =
            World { clock: Arc::new(SystemClock::start()), entropy: Arc::new(SystemEntropy) };
        match self.command {
            Command::Serve(args) => serve::run(*args, world),
            Command::Crds => output::bytes(yaml(&DEFINITIONS.map(Definition::manifest)).as_bytes()),
            Command::Rbac { namespace, service_account } => {
                output::bytes(yaml(&access(&namespace, &service_account)).as_bytes())
            }
            Command::Token(args) => token::run(args, &world),
            Command::Publish(args) => on_one_thread(publish::run(*args, world)),
            Command::Listen(args) => on_one_thread(listen::run(args, world)),
            Command::Bench(args) => on_one_thread(bench::run(*args, world)),
            Command::Top(args) => on_one_thread(top::run(args, world)),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Self::command(), "eventbus", &mut script);
                output::bytes(&script)
            }
        }
    }
}

/// Manifests as a YAML stream (JSON is YAML).
fn yaml(manifests: &[Value]) -> String {
    manifests.iter().map(|manifest| format!("---\n{manifest:#}\n")).collect()
}

// === impl Fault ===

impl Fault {
    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            // What a shell reports of a program that the signal ends.
            Self::Interrupted => 130,
        }
    }
}

/// Runs a client command: one thread is plenty, and leaves the others to the bus.
fn on_one_thread(command: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::Failed(format!("cannot start: {error}")))?;
    let ended = runtime.block_on(command);
    // A read of standard input cannot be cancelled: do not wait for one.
    runtime.shutdown_background();
    ended
}

/// Reads a duration such as `200ms`, `2s` or `1m30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let signed: jiff::SignedDuration = text.parse().map_err(|_| wrong_duration())?;
    Duration::try_from(signed).map_err(|_| wrong_duration())
}

fn wrong_duration() -> String {
    "give a number with its unit: 200ms, 2s, 1m30s".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["", "200", "-1s", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
