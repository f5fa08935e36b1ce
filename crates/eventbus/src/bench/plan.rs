//! What a run does: the plan that comes of the arguments.
//!
//! A [`Plan`] is only made of arguments that fit together: whoever has one needs no more checks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use eventbus_core::Durability;
use eventbus_core::manifest::DeliveryFormat;
use http::Uri;

use super::args::{Args, Mode, Target};
use super::event::EVENT_TYPES_MAX;
use super::subscribers::Trouble;
use crate::cli::Fault;

/// How fast an isolation run publishes: a steady load that leaves any bus room, so that latencies
/// say what bad endpoints do, and not how full the queues are.
const ISOLATION_RATE_PER_S: f64 = 5_000.0;

/// Where a search for the highest rate begins: any bus should hold it.
const FIRST_RATE_PER_S: f64 = 1_000.0;

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
    /// How events are written.
    pub(super) format: DeliveryFormat,
    /// What is asked of the bus, and expected of its answers.
    pub(super) durability: Option<Durability>,
    /// Where the bearer token stands, if one is needed.
    pub(super) token_file: Option<PathBuf>,
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

/// How subscribers behave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Conduct {
    /// How long they take before they answer.
    pub(super) latency: Duration,
    /// Share of the deliveries they answer with 500.
    pub(super) failures: f64,
}

/// What a run of one of the modes needs to know.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) mode: Mode,
    pub(super) load: Load,
    pub(super) layout: Layout,
    pub(super) conduct: Conduct,
    /// How many endpoints are slow, and how slow.
    pub(super) slow: (u32, Duration),
    /// The latency that the search for a rate keeps, where one is searched for.
    pub(super) p99_max: Option<Duration>,
    pub(super) kubeconfig: PathBuf,
    pub(super) subscriber_listen: SocketAddr,
    pub(super) patience: Duration,
    pub(super) pairs: u16,
    pub(super) kill: KillPlan,
    pub(super) json: bool,
    /// Where to write the page, if one is wanted.
    pub(super) html: Option<PathBuf>,
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
        self.check_load()?;
        self.check_target()?;
        self.check_batch()?;
        self.check_subscribers(&layout)?;
        let first = match self.mode {
            Mode::Isolation => Some(ISOLATION_RATE_PER_S),
            _ => self.find_rate.then_some(FIRST_RATE_PER_S),
        };
        Ok(Plan {
            mode: self.mode,
            layout,
            load: Load {
                format: self.format.unwrap_or(self.target.format()),
                url: self.url,
                target: self.target,
                connections: self.connections,
                batch: self.batch,
                rate: self.rate.or(first),
                window: self.window,
                until: self.events.map_or(Until::Elapsed(self.duration), Until::Events),
                warm_up: self.warm_up,
                payload_bytes: self.payload,
                durability: self.durability,
                token_file: self.token_file,
            },
            conduct: Conduct {
                latency: self.subscriber_latency,
                failures: self.subscriber_failures,
            },
            slow: (self.slow_subscribers, self.slow_latency),
            p99_max: self.find_rate.then_some(self.p99),
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
            html: self.html,
        })
    }

    fn check_load(&self) -> Result<(), Fault> {
        if self.url.scheme_str() != Some("http") || self.url.host().is_none() {
            return wrong(format!("--url {}: give a URL that starts with http://", self.url));
        }
        if self.url.authority().is_some_and(|at| at.as_str().contains('@')) {
            // Not shown: it may be a password.
            return wrong("--url: give a URL that names no user".to_owned());
        }
        if self.duration.is_zero() {
            return wrong("--duration: measure for longer than no time".to_owned());
        }
        if self.mode == Mode::Kill && self.rate.is_some() {
            return wrong("--rate: --mode kill publishes as fast as it can".to_owned());
        }
        if self.window.is_some() && self.mode != Mode::EndToEnd {
            return wrong("--window: only in --mode end-to-end are events delivered".to_owned());
        }
        let is_plain = matches!(self.mode, Mode::EndToEnd | Mode::Publish);
        if self.find_rate && !(is_plain && self.window.is_none()) {
            return wrong("--find-rate: with --mode end-to-end or publish, and no --window".into());
        }
        if self.html.is_some() && !is_plain {
            return wrong("--html: with --mode end-to-end or publish".to_owned());
        }
        Ok(())
    }

    fn check_target(&self) -> Result<(), Fault> {
        let target = self.target;
        let modes: &[Mode] = match target {
            Target::Bus => &[Mode::EndToEnd, Mode::Publish, Mode::Isolation, Mode::Kill],
            Target::Svix => &[Mode::EndToEnd, Mode::Isolation],
            Target::Post => &[Mode::EndToEnd, Mode::Publish],
            Target::Bare => &[Mode::Publish],
            Target::Knative | Target::KymaProxy | Target::Relay => &[Mode::EndToEnd],
        };
        if !modes.contains(&self.mode) {
            let names: Vec<_> = modes.iter().map(|mode| mode.name()).collect();
            return wrong(format!("--target {}: use --mode {}", target.name(), names.join(" or ")));
        }
        if target.is_by_hand() && self.mode == Mode::EndToEnd && self.subscriber_listen.port() == 0
        {
            let name = target.name();
            return wrong(format!("--target {name}: name a port in --subscriber-listen"));
        }
        if self.durability.is_some() && target != Target::Bus {
            return wrong("--durability: only --target bus is asked for one".to_owned());
        }
        match (target, self.format) {
            (Target::Svix, Some(_)) => {
                wrong("--format: a Svix server has a form of its own".into())
            }
            (Target::Knative | Target::KymaProxy, Some(DeliveryFormat::Kyma)) => {
                wrong(format!("--format: --target {} takes CloudEvents", target.name()))
            }
            _ => Ok(()),
        }
    }

    fn check_batch(&self) -> Result<(), Fault> {
        let batch = self.batch;
        if batch == 1 {
            return Ok(());
        }
        let is_plain = matches!(self.mode, Mode::EndToEnd | Mode::Publish);
        if !is_plain || !matches!(self.target, Target::Bus | Target::Bare) {
            return wrong(
                "--batch: only a bus and `bare` are published to in batches, in --mode \
                          publish and end-to-end"
                    .to_owned(),
            );
        }
        if self.format == Some(DeliveryFormat::CloudEventsBinary) {
            return wrong("--batch: CloudEvents have no batches in binary mode".to_owned());
        }
        if self.events.is_some_and(|events| !events.is_multiple_of(batch.into())) {
            return wrong(format!("--events: give a multiple of --batch, here of {batch}"));
        }
        if self.window.is_some_and(|window| window < batch.into()) {
            return wrong(format!("--window: at least a batch, here {batch}"));
        }
        Ok(())
    }

    fn check_subscribers(&self, layout: &Layout) -> Result<(), Fault> {
        let has_conduct = !self.subscriber_latency.is_zero() || self.subscriber_failures > 0.0;
        if (has_conduct || self.slow_subscribers > 0) && self.mode != Mode::EndToEnd {
            return wrong("subscribers behave as they are told in --mode end-to-end only".into());
        }
        let retries = !matches!(self.target, Target::Post | Target::Relay);
        if self.subscriber_failures > 0.0 && !retries {
            let name = self.target.name();
            return wrong(format!("--subscriber-failures: --target {name} does not try again"));
        }
        if self.slow_subscribers == 0 {
            return Ok(());
        }
        if self.target.is_by_hand() {
            return wrong("--slow-subscribers: the endpoints must be made by the bench".to_owned());
        }
        if self.slow_subscribers >= layout.busy() {
            let busy = layout.busy();
            return wrong(format!("--slow-subscribers: fewer than get events, here {busy}"));
        }
        if self.window.is_some() {
            return wrong("--window: slow endpoints would never open it".to_owned());
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
        if matches!(self.target, Target::Bare | Target::Relay) && subscriptions > 1 {
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

// === impl Plan ===

impl Plan {
    /// Whether what is published arrives at subscribers of the run.
    pub(super) fn delivers(&self) -> bool {
        match self.load.target {
            Target::Bare => false,
            Target::Post => self.mode != Mode::Publish,
            Target::Bus | Target::Svix | Target::Knative | Target::KymaProxy | Target::Relay => {
                true
            }
        }
    }

    /// What is wrong with the last of the busy endpoints.
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let (slow, latency) = self.slow;
        vec![Trouble::Slow(latency); slow as usize]
    }
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

// === impl Target ===

impl Target {
    /// The word for it on the command line.
    pub(super) fn name(self) -> String {
        word(&self)
    }

    /// Whether its Subscriptions are made by hand: then event types have the same names every time.
    pub(super) fn is_by_hand(self) -> bool {
        match self {
            Self::Bus | Self::Svix => false,
            Self::Post | Self::Knative | Self::KymaProxy | Self::Bare | Self::Relay => true,
        }
    }

    /// How events are written where nobody says.
    fn format(self) -> DeliveryFormat {
        match self {
            Self::Knative | Self::KymaProxy => DeliveryFormat::CloudEventsBinary,
            Self::Bus | Self::Post | Self::Svix | Self::Bare | Self::Relay => DeliveryFormat::Kyma,
        }
    }
}

// === impl Mode ===

impl Mode {
    /// The word for it on the command line.
    pub(super) fn name(self) -> String {
        word(&self)
    }
}

fn word(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map(|word| word.get_name().to_owned()).unwrap_or_default()
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
    fn a_search_begins_where_it_is_told_and_peers_get_what_they_take() {
        let load = |line: &str| plan(line).unwrap().load;
        assert_eq!(load("--find-rate").rate, Some(FIRST_RATE_PER_S));
        assert_eq!(load("--find-rate --rate 50").rate, Some(50.0));
        assert_eq!(plan("--find-rate").unwrap().p99_max, Some(Duration::from_millis(8)));
        assert_eq!(load("").format, DeliveryFormat::Kyma);
        let knative = load("--target knative --subscriber-listen 127.0.0.1:9");
        assert_eq!(knative.format, DeliveryFormat::CloudEventsBinary);
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
            "--target post",
            "--target svix",
            "--target svix --token-file t --mode publish",
            "--target svix --token-file t --format kyma",
            "--target knative",
            "--target knative --subscriber-listen 127.0.0.1:9 --format kyma",
            "--target kyma-proxy --subscriber-listen 127.0.0.1:9 --mode publish",
            "--target relay --subscriber-listen 127.0.0.1:9 --subscriber-failures 1%",
            "--target post --mode publish --durability synced",
            "--durability none",
            "--format xml",
            "--find-rate --mode isolation",
            "--find-rate --window 100",
            "--p99 8ms",
            "--html f --mode isolation",
            "--mode publish --subscriber-latency 5ms",
            "--slow-subscribers 1",
            "--slow-subscribers 1 --fan-out 2 --window 10",
            "--url https://127.0.0.1/",
            "--url /v1/events",
            "--url http://user:geheim@127.0.0.1/",
            "--batch 0",
            "--batch 10001",
            "--batch 100 --events 250",
            "--batch 100 --window 99",
            "--batch 2 --format cloudevents-binary",
            "--batch 2 --mode isolation",
            "--batch 2 --mode kill --data-dir d",
            "--batch 2 --target relay --subscriber-listen 127.0.0.1:9",
        ] {
            let why = plan(line).expect_err(line);
            assert!(!why.contains("geheim"), "{why}");
        }
        for line in [
            "--events 5 --rate 0.5",
            "--batch 100 --events 200 --window 100",
            "--batch 100 --mode publish --target bare",
            "--batch 100 --format cloudevents-structured",
            "--mode kill --data-dir d --kills 0",
            "--slow-subscribers 1 --fan-out 2 --slow-latency 2s",
            "--find-rate --p99 20ms --mode publish --durability written",
            "--find-rate --html f",
            "--target post --mode publish",
            "--target svix --token-file t --mode isolation --subscriptions 10",
            "--target knative --subscriber-listen 127.0.0.1:9 --fan-out 3",
            "--target kyma-proxy --subscriber-listen 127.0.0.1:9 --format cloudevents-structured",
            "--target bare --mode publish",
            "--target relay --subscriber-listen 127.0.0.1:9",
        ] {
            assert!(plan(line).is_ok(), "{line} {:?}", plan(line));
        }
    }
}
