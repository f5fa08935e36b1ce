//! What `eventbus publish` can be told.

use http::Uri;
use serde_json::value::RawValue;
use tokio::io::AsyncReadExt;

use super::draft::Defaults;
use super::send::Form;
use crate::cli::Fault;

/// Events of a request unless told otherwise: what a bus stores with one sync costs little more
/// than one event alone, and beyond this little is won.
const BATCH_EVENTS: u16 = 100;

/// Where a bus takes the contract's events of every source. Beside it, it takes batches of them.
const EVENTS_PATH: &str = "/v1/events";

/// What `eventbus publish` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the bus takes events
    #[arg(long, default_value = "http://127.0.0.1:8080/v1/events", value_name = "URL")]
    pub(super) url: Uri,

    /// What happened, for example order.created
    #[arg(long, required_unless_present = "lines", value_name = "TYPE")]
    event_type: Option<String>,

    /// The version of the event type
    #[arg(long, default_value = "v1", value_name = "VERSION")]
    event_type_version: String,

    /// Where it happened, as one name
    #[arg(long, required_unless_present_any = ["lines", "source_namespace"], value_name = "ID")]
    #[arg(conflicts_with_all = ["source_namespace", "source_type", "source_environment"])]
    source_id: Option<String>,

    /// Where it happened, in three parts: the organisation, for example com.github
    #[arg(long, requires_all = ["source_type", "source_environment"], value_name = "NAME")]
    source_namespace: Option<String>,

    /// Where it happened, in three parts: the kind of system, for example commerce
    #[arg(long, requires = "source_namespace", value_name = "NAME")]
    source_type: Option<String>,

    /// Where it happened, in three parts: which of its installations, for example stage
    #[arg(long, requires = "source_namespace", value_name = "NAME")]
    source_environment: Option<String>,

    /// The event's id, a UUID; a random one when left out, so that an event that is sent again is
    /// known to be the same
    #[arg(long, conflicts_with = "lines", value_name = "UUID")]
    event_id: Option<String>,

    /// When it happened, RFC 3339; now when left out
    #[arg(long, value_name = "TIME")]
    event_time: Option<String>,

    /// An attribute of the event; may be given several times
    #[arg(long = "attribute", value_parser = attribute, value_name = "NAME=VALUE")]
    attributes: Vec<(String, String)>,

    /// Have it delivered so many seconds later
    #[arg(long, conflicts_with = "deliver_at", value_name = "SECONDS")]
    delay_s: Option<u32>,

    /// Have it delivered at this time, RFC 3339
    #[arg(long, value_name = "TIME")]
    deliver_at: Option<String>,

    /// The payload: JSON, @FILE to read it from a file, - to read it from standard input
    #[arg(long, required_unless_present = "lines", value_name = "JSON|@FILE|-")]
    data: Option<String>,

    /// Publish every line of standard input: a JSON object, completed by the arguments given
    #[arg(long)]
    pub(super) lines: bool,

    /// The lines are CloudEvents in JSON; one without an id gets one
    #[arg(long, requires = "lines", conflicts_with_all = [
        "event_type", "event_type_version", "source_id", "source_namespace", "event_time",
        "attributes", "delay_s", "deliver_at", "data",
    ])]
    cloudevents: bool,

    /// The most events of one request, up to 1 MiB of them; 1 sends each alone [default: 100, and 1
    /// where the path of the URL is not /v1/events]
    #[arg(long, requires = "lines", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: Option<u16>,

    /// How many requests may be under way at once
    #[arg(long, default_value_t = 8, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) concurrency: u16,

    /// How often a request is tried while the bus answers 429, 503 or 507, or its answer is lost
    #[arg(long, default_value_t = 5, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(super) tries: u16,
}

impl Args {
    /// Refuses what does not fit together.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if self.lines && self.data.as_deref() == Some("-") {
            let both = "--data - and --lines both want standard input: use one of them";
            return Err(Fault::Usage(both.to_owned()));
        }
        Ok(())
    }

    /// How the events are written.
    pub(super) fn form(&self) -> Form {
        if self.cloudevents { Form::CloudEvents } else { Form::Contract }
    }

    /// The most events of a request.
    pub(super) fn batch(&self) -> u16 {
        // An application's front has no path for batches; where another path leads is not known.
        let has_batches = self.cloudevents || self.url.path() == EVENTS_PATH;
        self.batch.unwrap_or(if has_batches { BATCH_EVENTS } else { 1 })
    }

    /// What the arguments say about every event.
    pub(super) async fn defaults(&self) -> Result<Defaults, Fault> {
        if self.cloudevents {
            return Ok(Defaults::of_cloud_events());
        }
        let mut defaults = Defaults::default();
        defaults.text("event-type", self.event_type.as_deref());
        defaults.text("event-type-version", Some(&self.event_type_version));
        defaults.text("source-id", self.source_id.as_deref());
        defaults.text("event-id", self.event_id.as_deref());
        defaults.text("event-time", self.event_time.as_deref());
        defaults.text("deliver_at", self.deliver_at.as_deref());
        defaults.json("delay_s", self.delay_s.as_ref());
        defaults.attributes(&self.attributes);
        if let (Some(namespace), Some(kind), Some(environment)) =
            (&self.source_namespace, &self.source_type, &self.source_environment)
        {
            defaults.source(namespace, kind, environment);
        }
        if let Some(given) = &self.data {
            defaults.json("data", Some(&payload(given).await?));
        }
        Ok(defaults)
    }
}

/// The payload as JSON, byte for byte as it was given.
async fn payload(given: &str) -> Result<Box<RawValue>, Fault> {
    let (from, text) = if given == "-" {
        let mut text = String::new();
        let read = tokio::io::stdin().read_to_string(&mut text).await;
        read.map_err(|error| Fault::Usage(format!("--data -: standard input: {error}")))?;
        ("standard input", text)
    } else if let Some(path) = given.strip_prefix('@') {
        let text = tokio::fs::read_to_string(path).await;
        (path, text.map_err(|error| Fault::Usage(format!("--data @{path}: {error}")))?)
    } else {
        ("the argument", given.to_owned())
    };
    serde_json::from_str(text.trim()).map_err(|error| {
        Fault::Usage(format!(
            "--data: {from} is not JSON: {error}; give JSON (text in double quotes), @FILE or -"
        ))
    })
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("give a name and a value: region=eu".to_owned()),
    }
}
