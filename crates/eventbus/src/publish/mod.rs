//! `eventbus publish`: one event from the arguments, or JSON lines from standard input.
//!
//! Both are the same road: a line (an empty one, where the arguments say everything) is completed
//! by the arguments, posted, and answered with one result line. Several are in flight at once; the
//! results come in the order of the lines.

mod draft;
mod lines;
mod send;

use std::io::IsTerminal;

use eventbus_core::Clock;
use futures::StreamExt;
use http::Uri;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::value::RawValue;
use tokio::io::AsyncReadExt;

use crate::cli::{Fault, World};
use crate::output;
use draft::Defaults;
use send::{Outcome, Publisher};

/// What `eventbus publish` can be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the bus takes events
    #[arg(long, default_value = "http://127.0.0.1:8080/v1/events", value_name = "URL")]
    url: Uri,

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

    /// The event's id, a UUID; the bus makes one when there is none
    #[arg(long, conflicts_with = "lines", value_name = "UUID")]
    event_id: Option<String>,

    /// When it happened, RFC 3339; now when left out
    #[arg(long, value_name = "TIME")]
    event_time: Option<String>,

    /// The payload: JSON, @FILE to read it from a file, - to read it from standard input
    #[arg(long, required_unless_present = "lines", value_name = "JSON|@FILE|-")]
    data: Option<String>,

    /// Publish every line of standard input: a JSON object, completed by the arguments given
    #[arg(long)]
    lines: bool,

    /// How many events may be under way at once
    #[arg(long, default_value_t = 8, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,

    /// How often an event is tried while the bus answers 429, 503 or 507
    #[arg(long, default_value_t = 5, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    tries: u16,
}

/// What became of all events.
#[derive(Debug, Default)]
struct Count {
    published: u64,
    ignored: u64,
    failed: u64,
}

/// Publishes what the arguments and standard input say. Fails when any event was not taken.
pub(crate) async fn run(args: Args, world: World) -> Result<(), Fault> {
    if args.lines && args.data.as_deref() == Some("-") {
        let both = "--data - and --lines both want standard input: use one of them";
        return Err(Fault::Usage(both.to_owned()));
    }
    let publisher = Publisher::to(&args.url, args.tries)?;
    let defaults = defaults(&args).await?;
    let count = if args.lines {
        publish_lines(&args, &world, &publisher, &defaults).await?
    } else {
        publish_one(&world, &publisher, &defaults).await?
    };
    match count.failed {
        0 => Ok(()),
        failed => Err(Fault::Failed(format!("{failed} of {} not published", count.total()))),
    }
}

async fn publish_one(
    world: &World,
    publisher: &Publisher,
    defaults: &Defaults,
) -> Result<Count, Fault> {
    let outcome = publish("{}", world, publisher, defaults).await;
    output::line(&outcome.to_string())?;
    let mut count = Count::default();
    count.add(&outcome);
    Ok(count)
}

async fn publish_lines(
    args: &Args,
    world: &World,
    publisher: &Publisher,
    defaults: &Defaults,
) -> Result<Count, Fault> {
    let progress = progress();
    let mut count = Count::default();
    let outcomes = lines::of(tokio::io::stdin())
        .map(async |line| {
            let outcome = match line.text {
                Ok(text) => publish(&text, world, publisher, defaults).await,
                Err(why) => Outcome::Unsent(why),
            };
            (line.number, outcome)
        })
        .buffered(args.concurrency.into());
    let mut outcomes = std::pin::pin!(outcomes);
    while let Some((number, outcome)) = outcomes.next().await {
        count.add(&outcome);
        progress.set_message(count.to_string());
        progress.suspend(|| output::line(&format!("{number}: {outcome}")))?;
        progress.tick();
    }
    progress.finish_and_clear();
    output::note(&count.to_string());
    Ok(count)
}

async fn publish(line: &str, world: &World, publisher: &Publisher, defaults: &Defaults) -> Outcome {
    match defaults.complete(line, world.clock.now_ms()) {
        Ok(event) => publisher.publish(event.into(), &*world.clock).await,
        Err(why) => Outcome::Unsent(why),
    }
}

/// What the arguments say about every event.
async fn defaults(args: &Args) -> Result<Defaults, Fault> {
    let mut defaults = Defaults::default();
    defaults.text("event-type", args.event_type.as_deref());
    defaults.text("event-type-version", Some(&args.event_type_version));
    defaults.text("source-id", args.source_id.as_deref());
    defaults.text("event-id", args.event_id.as_deref());
    defaults.text("event-time", args.event_time.as_deref());
    if let (Some(namespace), Some(kind), Some(environment)) =
        (&args.source_namespace, &args.source_type, &args.source_environment)
    {
        defaults.source(namespace, kind, environment);
    }
    if let Some(given) = &args.data {
        defaults.json("data", payload(given).await?);
    }
    Ok(defaults)
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

/// A line on standard error that counts, where a person looks at it.
fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let plain = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    ProgressBar::new_spinner()
        .with_style(plain.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

// === impl Count ===

impl Count {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Taken { ignored: false, .. } => self.published += 1,
            Outcome::Taken { ignored: true, .. } => self.ignored += 1,
            Outcome::Refused { .. } | Outcome::Unsent(_) => self.failed += 1,
        }
    }

    fn total(&self) -> u64 {
        self.published + self.ignored + self.failed
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { published, ignored, failed } = self;
        write!(formatter, "{published} published, {ignored} ignored, {failed} failed")
    }
}
