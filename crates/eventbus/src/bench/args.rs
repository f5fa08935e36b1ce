//! What `eventbus bench` can be told, and the plan that comes of it.
//!
//! A [`Plan`] is only made of arguments that fit together: whoever has one needs no more checks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::event::{EVENT_TYPES_MAX, PAYLOAD_BYTES_MIN};
use crate::cli::{self, Fault};

/// How fast an isolation run publishes: a steady load that leaves any bus room, so that latencies
/// say what bad endpoints do, and not how full the queues are.
const ISOLATION_RATE_PER_S: f64 = 5_000.0;

/// What `eventbus bench` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(long, value_enum, default_value_t = Mode::EndToEnd)]
    pub(super) mode: Mode,

    /// What is measured: a bus, or one of the yardsticks
    #[arg(long, value_enum, default_value_t = Target::Bus)]
    target: Target,

    /// Where it takes events
    #[arg(long, default_value = "http://127.0.0.1:8080/v1/events", value_name = "URL")]
    url: Uri,

    /// How to reach the bus's Kubernetes API, where the run makes its Subscriptions
    #[arg(long, default_value = "eventbus-data/kubeconfig", value_name = "FILE")]
    kubeconfig: PathBuf,

    /// Publishing connections
    #[arg(long, default_value_t = 64, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,

    /// Publish at a fixed rate (open loop, latency from when an event was due) instead of as fast
    /// as answers come (closed loop); --mode isolation: 5000 when left out
    #[arg(long, value_parser = rate, value_name = "EVENTS/S")]
    rate: Option<f64>,

    /// Publish only while fewer than so many events have not been delivered
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    window: Option<u32>,

    /// Events of each request; more than one go to the path for batches, below the URL
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,

    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = cli::duration, value_name = "TIME")]
    duration: Duration,

    /// Measure so many events instead of for a time
    #[arg(long, conflicts_with = "duration", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,

    /// How long to run before measuring
    #[arg(long, default_value = "2s", value_parser = cli::duration, value_name = "TIME")]
    warm_up: Duration,

    /// Bytes of payload of each event
    #[arg(long, default_value_t = 1024, value_parser = payload, value_name = "BYTES")]
    payload: usize,

    /// Different event types, published in turn (default 1; with --mode isolation one for each
    /// Subscription)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    event_types: Option<u32>,

    /// Subscriptions in all; those beyond event types × fan-out listen to types that never come
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    subscriptions: Option<u32>,

    /// Subscriptions to each event type
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    fan_out: u32,

    /// `max_inflight` of each Subscription
    #[arg(long, default_value_t = 64, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=400))]
    max_inflight: u16,

    /// Where the subscribers listen; a relay must be told a fixed port
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    subscriber_listen: SocketAddr,

    /// Take what is missing for lost when nothing has arrived for so long; more than twice the
    /// longest pause before a retry (30 s)
    #[arg(long, default_value = "75s", value_parser = cli::duration, value_name = "TIME")]
    patience: Duration,

    /// Isolation: how many pairs of runs, without and with bad endpoints
    #[arg(long, default_value_t = 5, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=99))]
    pairs: u16,

    /// Kill: the data directory of the bus that is started; it must not exist yet
    #[arg(long, required_if_eq("mode", "kill"), value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Kill: how often
    #[arg(long, default_value_t = 100, value_name = "N")]
    kills: u32,

    /// Kill: what decides the moments; printed, chosen at random when left out
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Print the results as one JSON object
    #[arg(long)]
    json: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// Publish and deliver at the same time; fails when undelivered events pile up
    EndToEnd,
    /// Publish to a Subscription that is activated afterwards; then every event must arrive
    Publish,
    /// Healthy endpoints beside bad ones: both ways, in alternating pairs of runs
    Isolation,
    /// Start a bus, kill it at random moments under load, look for lost events
    Kill,
}

/// What is on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    /// An event bus: answers `published`, has a Kubernetes API
    Bus,
    /// `yardstick bare`: answers 204, delivers nothing
    Bare,
    /// `yardstick relay`: answers 204 once it has posted the event on
    Relay,
}

/// When measuring ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Until {
    /// After a time.
    Elapsed(Duration),
    /// After so many events: full batches.
    Events(u64),
}

/// Where and how events are published.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// Where events are posted: an `http` URL with a host.
    pub(super) url: Uri,
    /// What is there.
    pub(super) target: Target,
    /// Publishing connections.
    pub(super) connections: u16,
    /// Events of each request.
    pub(super) batch: u16,
    /// Events a second in open loop; none for closed loop.
    pub(super) rate: Option<f64>,
    /// The most events that may be undelivered, if there is such a bound.
    pub(super) window: Option<u32>,
    /// When measuring ends.
    pub(super) until: Until,
    /// How long to run before measuring.
    pub(super) warm_up: Duration,
    /// Bytes of payload.
    pub(super) payload_bytes: usize,
}

/// Who subscribes to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Event types that are published.
    pub(super) event_types: u32,
    /// Subscriptions to each of them.
    pub(super) fan_out: u32,
    /// All Subscriptions: the first `event_types × fan_out` are busy, the rest idle.
    pub(super) subscriptions: u32,
    /// Parallel deliveries of each.
    pub(super) max_inflight: u16,
}

/// What a run of one of the modes needs to know.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) mode: Mode,
    pub(super) load: Load,
    pub(super) layout: Layout,
    pub(super) kubeconfig: PathBuf,
    pub(super) subscriber_listen: SocketAddr,
    pub(super) patience: Duration,
    pub(super) pairs: u16,
    pub(super) kill: KillPlan,
    pub(super) json: bool,
}

/// What only the kill mode needs to know.
#[derive(Clone, Debug)]
pub(super) struct KillPlan {
    pub(super) data_dir: PathBuf,
    pub(super) kills: u32,
    pub(super) seed: Option<u64>,
    /// Go on until so many events are acknowledged.
    pub(super) events_min: u64,
}

// === impl Args ===

impl Args {
    /// The plan, if the arguments fit together.
    pub(super) fn plan(self) -> Result<Plan, Fault> {
        let layout = self.layout()?;
        self.check_target()?;
        self.check_batch()?;
        let isolates = self.mode == Mode::Isolation;
        let until = match self.events {
            Some(events) => Until::Events(events),
            None => Until::Elapsed(self.duration),
        };
        Ok(Plan {
            mode: self.mode,
            layout,
            load: Load {
                url: self.url,
                target: self.target,
                connections: self.connections,
                batch: self.batch,
                rate: self.rate.or(isolates.then_some(ISOLATION_RATE_PER_S)),
                window: self.window,
                until,
                warm_up: self.warm_up,
                payload_bytes: self.payload,
            },
            kubeconfig: self.kubeconfig,
            subscriber_listen: self.subscriber_listen,
            patience: self.patience,
            pairs: self.pairs,
            kill: KillPlan {
                data_dir: self.data_dir.unwrap_or_default(),
                kills: self.kills,
                seed: self.seed,
                events_min: self.events.unwrap_or_default(),
            },
            json: self.json,
        })
    }

    fn check_target(&self) -> Result<(), Fault> {
        if self.url.scheme_str() != Some("http") || self.url.host().is_none() {
            return wrong(format!("--url {}: give a URL that starts with http://", self.url));
        }
        if self.duration.is_zero() {
            return wrong("--duration: measure for longer than no time".to_owned());
        }
        match (self.target, self.mode) {
            (Target::Bus, _) | (Target::Bare, Mode::Publish) | (Target::Relay, Mode::EndToEnd) => {}
            (Target::Bare, _) => return wrong("--target bare: use --mode publish".to_owned()),
            (Target::Relay, _) => return wrong("--target relay: use --mode end-to-end".to_owned()),
        }
        if self.mode == Mode::Kill && self.rate.is_some() {
            return wrong("--rate: --mode kill publishes as fast as it can".to_owned());
        }
        if self.window.is_some() && self.mode != Mode::EndToEnd {
            return wrong("--window: only in --mode end-to-end are events delivered".to_owned());
        }
        let is_relay = self.target == Target::Relay;
        if is_relay && self.subscriber_listen.port() == 0 {
            return wrong("--target relay: name a port in --subscriber-listen".to_owned());
        }
        Ok(())
    }

    fn check_batch(&self) -> Result<(), Fault> {
        let batch = self.batch;
        if batch == 1 {
            return Ok(());
        }
        if !matches!(self.mode, Mode::EndToEnd | Mode::Publish) || self.target == Target::Relay {
            return wrong(
                "--batch: only a bus and `bare` are published to in batches, in --mode \
                          publish and end-to-end"
                    .to_owned(),
            );
        }
        if self.events.is_some_and(|events| !events.is_multiple_of(batch.into())) {
            return wrong(format!("--events: give a multiple of --batch, here of {batch}"));
        }
        if self.window.is_some_and(|window| window < batch.into()) {
            return wrong(format!("--window: at least a batch, here {batch}"));
        }
        Ok(())
    }

    fn layout(&self) -> Result<Layout, Fault> {
        let isolates = self.mode == Mode::Isolation;
        let event_types = match self.event_types {
            Some(given) => given,
            None if isolates => self.subscriptions.unwrap_or(50) / self.fan_out.max(1),
            None => 1,
        };
        let busy = event_types.saturating_mul(self.fan_out);
        let subscriptions = self.subscriptions.unwrap_or(busy);
        if busy == 0 || subscriptions < busy {
            return wrong(format!(
                "--subscriptions {subscriptions}: at least event types × fan-out, here {busy}"
            ));
        }
        if isolates && busy <= 5 {
            return wrong(format!("--mode isolation makes 5 endpoints bad: {busy} are too few"));
        }
        // Idle Subscriptions have types of their own.
        if event_types + (subscriptions - busy) > EVENT_TYPES_MAX {
            return wrong(format!("at most {EVENT_TYPES_MAX} event types, idle ones included"));
        }
        if self.target != Target::Bus && subscriptions > 1 {
            return wrong("a yardstick has one subscriber at most".to_owned());
        }
        if self.mode == Mode::Kill && event_types > 1 {
            return wrong("--mode kill: one event type; --fan-out adds Subscriptions".to_owned());
        }
        let max_inflight = self.max_inflight;
        Ok(Layout { event_types, fan_out: self.fan_out, subscriptions, max_inflight })
    }
}

fn wrong<T>(what: String) -> Result<T, Fault> {
    Err(Fault::Usage(what))
}

// === impl Layout ===

impl Layout {
    /// How many Subscriptions get events.
    pub(super) fn busy(&self) -> u32 {
        self.event_types * self.fan_out
    }

    /// The number of the event type that a Subscription asks for.
    pub(super) fn type_of(&self, subscription: u32) -> u64 {
        match subscription.checked_sub(self.busy()) {
            None => (subscription % self.event_types).into(),
            Some(idle) => (self.event_types + idle).into(),
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.1..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("give events a second, from 0.1 to 10000000".to_owned()),
    }
}

fn payload(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes @ PAYLOAD_BYTES_MIN..=16_000_000) => Ok(bytes),
        _ => Err(format!("give a number of bytes from {PAYLOAD_BYTES_MIN} to 16000000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn plan(line: &str) -> Result<Plan, String> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        let command = Command::try_parse_from(words).map_err(|error| error.to_string())?;
        command.args.plan().map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_default_is_one_subscription_and_a_closed_loop() {
        let plan = plan("").unwrap();
        let layout = Layout { event_types: 1, fan_out: 1, subscriptions: 1, max_inflight: 64 };
        assert_eq!(plan.layout, layout);
        assert_eq!((plan.load.connections, plan.load.rate), (64, None));
        assert_eq!(plan.load.until, Until::Elapsed(Duration::from_secs(10)));
    }

    #[test]
    fn isolation_has_fifty_subscriptions_of_their_own_types() {
        let isolation = plan("--mode isolation").unwrap().layout;
        assert_eq!(
            (isolation.event_types, isolation.busy(), isolation.subscriptions),
            (50, 50, 50)
        );
    }

    #[test]
    fn subscriptions_are_busy_in_turn_and_the_rest_idle() {
        let layout = plan("--event-types 2 --fan-out 2 --subscriptions 6").unwrap().layout;
        let types: Vec<u64> = (0..6).map(|one| layout.type_of(one)).collect();
        assert_eq!(types, [0, 1, 0, 1, 2, 3]);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for line in [
            "--events 5 --duration 1s",
            "--duration 0s",
            "--rate 0",
            "--payload 10",
            "--connections 0",
            "--max-inflight 401",
            "--event-types 3 --subscriptions 2",
            "--subscriptions 200000",
            "--mode isolation --subscriptions 5",
            "--mode kill",
            "--mode kill --data-dir d --event-types 2",
            "--mode publish --window 5",
            "--target bare",
            "--target relay",
            "--target relay --subscriber-listen 127.0.0.1:9 --fan-out 2",
            "--target relay --mode publish --subscriber-listen 127.0.0.1:9",
            "--url https://127.0.0.1/",
            "--url /v1/events",
            "--batch 0",
            "--batch 10001",
            "--batch 100 --events 250",
            "--batch 100 --window 99",
            "--batch 2 --mode isolation",
            "--batch 2 --mode kill --data-dir d",
            "--batch 2 --target relay --subscriber-listen 127.0.0.1:9",
        ] {
            assert!(plan(line).is_err(), "{line}");
        }
        for line in [
            "--events 5 --rate 0.5",
            "--batch 100 --events 200 --window 100",
            "--batch 100 --mode publish --target bare",
            "--mode kill --data-dir d --kills 0",
            "--target bare --mode publish",
            "--target relay --subscriber-listen 127.0.0.1:9",
        ] {
            assert!(plan(line).is_ok(), "{line} {:?}", plan(line));
        }
    }
}
