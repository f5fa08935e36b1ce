//! What `eventbus bench` can be told.
//!
//! Each word alone is checked here; what fits together is the [`plan`](super::plan)'s matter.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use eventbus_core::Durability;
use eventbus_core::manifest::DeliveryFormat;
use http::Uri;

use super::event::PAYLOAD_BYTES_MIN;
use crate::cli;

/// The longest time that a subscriber may take: half of what the bus is told to wait for it.
const LATENCY_MAX: Duration = Duration::from_secs(10);

/// What `eventbus bench` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to measure
    #[arg(long, value_enum, default_value_t = Mode::EndToEnd)]
    pub(super) mode: Mode,

    /// What is measured: this bus, another one, or a yardstick
    #[arg(long, value_enum, default_value_t = Target::Bus)]
    pub(super) target: Target,

    /// Where it takes events; of a Svix server its address alone
    #[arg(long, default_value = "http://127.0.0.1:8080/v1/events", value_name = "URL")]
    pub(super) url: Uri,

    /// A file with the bearer token of a Svix server
    #[arg(long, required_if_eq("target", "svix"), value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,

    /// How to reach the bus's Kubernetes API, where the run makes its Subscriptions
    #[arg(long, default_value = "eventbus-data/kubeconfig", value_name = "FILE")]
    pub(super) kubeconfig: PathBuf,

    /// Publishing connections
    #[arg(long, default_value_t = 64, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(super) connections: u16,

    /// Publish at a fixed rate (open loop, latency from when an event was due) instead of as fast
    /// as answers come (closed loop); --mode isolation: 5000 when left out
    #[arg(long, value_parser = rate, value_name = "EVENTS/S")]
    pub(super) rate: Option<f64>,

    /// Publish only while fewer than so many events have not been delivered
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub(super) window: Option<u32>,

    /// Find the highest rate that the target holds: from --rate (1000 when left out) it is doubled
    /// until --p99 or a check of what arrives breaks, then the gap is halved until it is small
    #[arg(long)]
    pub(super) find_rate: bool,

    /// The latency that --find-rate keeps: end to end, or of publishing with --mode publish
    #[arg(long, default_value = "8ms", requires = "find_rate")]
    #[arg(value_parser = cli::duration, value_name = "TIME")]
    pub(super) p99: Duration,

    /// What publishers send, and what Subscriptions ask for (default kyma; cloudevents-binary
    /// where the target takes nothing but CloudEvents)
    #[arg(long, value_parser = format, value_name = "FORMAT")]
    pub(super) format: Option<DeliveryFormat>,

    /// How safe the bus is asked to make each event before it answers: accepted, written, synced
    /// or replicated; each answer must say that it is at least so
    #[arg(long, value_name = "LEVEL")]
    pub(super) durability: Option<Durability>,

    /// Events of each request; more than one go to the path for batches, below the URL
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(super) batch: u16,

    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = cli::duration, value_name = "TIME")]
    pub(super) duration: Duration,

    /// Measure so many events instead of for a time
    #[arg(long, conflicts_with = "duration", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) events: Option<u64>,

    /// How long to run before measuring
    #[arg(long, default_value = "2s", value_parser = cli::duration, value_name = "TIME")]
    pub(super) warm_up: Duration,

    /// Bytes of payload of each event
    #[arg(long, default_value_t = 1024, value_parser = payload, value_name = "BYTES")]
    pub(super) payload: usize,

    /// Different event types, published in turn (default 1; with --mode isolation one for each
    /// Subscription)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub(super) event_types: Option<u32>,

    /// Subscriptions in all; those beyond event types × fan-out listen to types that never come
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub(super) subscriptions: Option<u32>,

    /// Subscriptions to each event type
    #[arg(long, default_value_t = 1, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) fan_out: u32,

    /// `max_inflight` of each Subscription
    #[arg(long, default_value_t = 64, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=400))]
    pub(super) max_inflight: u16,

    /// How long subscribers take before they answer, at least; whole milliseconds
    #[arg(long, default_value = "0s", value_parser = latency, value_name = "TIME")]
    pub(super) subscriber_latency: Duration,

    /// Share of the deliveries that subscribers answer with 500, so that they come again: 1%
    #[arg(long, default_value = "0%", value_parser = share, value_name = "SHARE")]
    pub(super) subscriber_failures: f64,

    /// How many of the Subscriptions have a slow endpoint, each of its own: what they get is
    /// checked, but neither measured nor waited for
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(super) slow_subscribers: u32,

    /// How long a slow endpoint takes before it answers
    #[arg(long, default_value = "1s", value_parser = latency, value_name = "TIME")]
    pub(super) slow_latency: Duration,

    /// Where the subscribers listen; a port of its own choice will not do where the endpoints are
    /// made by hand
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pub(super) subscriber_listen: SocketAddr,

    /// Take what is missing for lost when nothing has arrived for so long; more than twice the
    /// longest pause before a retry (30 s)
    #[arg(long, default_value = "75s", value_parser = cli::duration, value_name = "TIME")]
    pub(super) patience: Duration,

    /// Isolation: how many pairs of runs, without and with bad endpoints
    #[arg(long, default_value_t = 5, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=99))]
    pub(super) pairs: u16,

    /// Kill: the data directory of the bus that is started; it must not exist yet
    #[arg(long, required_if_eq("mode", "kill"), value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,

    /// Kill: how often
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(super) kills: u32,

    /// Kill: what decides the moments; printed, chosen at random when left out
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,

    /// Print the results as one JSON object
    #[arg(long)]
    pub(super) json: bool,

    /// Write the results as a page with plots, too; everything it shows is in the one file
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
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
    /// An event bus of this program: answers `published`, has a Kubernetes API
    Bus,
    /// Anything that takes a POST: every 2xx counts
    Post,
    /// A Svix server: its applications and endpoints are made through its API
    Svix,
    /// A Knative broker's ingress: answers 202
    Knative,
    /// Kyma's event publisher proxy: answers 204
    KymaProxy,
    /// `yardstick bare`: answers 204, delivers nothing
    Bare,
    /// `yardstick relay`: answers 204 once it has posted the event on
    Relay,
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

fn format(text: &str) -> Result<DeliveryFormat, String> {
    match text {
        "kyma" => Ok(DeliveryFormat::Kyma),
        "cloudevents-binary" => Ok(DeliveryFormat::CloudEventsBinary),
        "cloudevents-structured" => Ok(DeliveryFormat::CloudEventsStructured),
        _ => Err("give kyma, cloudevents-binary or cloudevents-structured".to_owned()),
    }
}

fn latency(text: &str) -> Result<Duration, String> {
    let latency = cli::duration(text)?;
    let too_long = || format!("give {} s at most", LATENCY_MAX.as_secs());
    (latency <= LATENCY_MAX).then_some(latency).ok_or_else(too_long)
}

/// Reads `1%` or `0.01`.
fn share(text: &str) -> Result<f64, String> {
    let (number, whole) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    match number.parse::<f64>().map(|number| number / whole) {
        // Of a larger share hardly an event would arrive.
        Ok(share) if (0.0..=0.9).contains(&share) => Ok(share),
        _ => Err("give a share such as 1% or 0.01, at most 90%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_or_a_fraction() {
        assert_eq!((share("1%"), share("0.01"), share("0")), (Ok(0.01), Ok(0.01), Ok(0.0)));
        for wrong in ["", "%", "91%", "-1%", "1.5", "NaN", "few"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_subscriber_is_not_slower_than_the_bus_waits() {
        assert_eq!(latency("10s"), Ok(LATENCY_MAX));
        assert!(latency("11s").is_err());
    }
}
