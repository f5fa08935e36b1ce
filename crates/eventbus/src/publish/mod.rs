//! `eventbus publish`: one event from the arguments, or JSON lines from standard input.
//!
//! Both are the same road: a line (an empty one, where the arguments say everything) is completed
//! by the arguments, posted alone or in a batch, and answered. Several requests are under way at
//! once; what is held at a time is theirs, whatever the size of the input. Of a single event the
//! answer is printed; of lines those that were not taken, in their order, and a summary.

mod args;
mod batch;
mod draft;
mod lines;
mod outcome;
mod send;
mod tally;

use std::io::IsTerminal;

use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::cli::{Fault, World};
use crate::output::{self, printable};
pub(crate) use args::Args;
use batch::{Batch, Draft};
use draft::Defaults;
use lines::Line;
use outcome::Outcome;
use send::Publisher;
use tally::Tally;

/// Publishes what the arguments and standard input say. Fails when any event was not taken.
pub(crate) async fn run(args: Args, world: World) -> Result<(), Fault> {
    args.check()?;
    let publisher = Publisher::to(&args.url, args.form(), args.tries)?;
    let defaults = args.defaults().await?;
    if args.lines {
        publish_lines(&args, &world, &publisher, &defaults).await
    } else {
        publish_one(&world, &publisher, &defaults).await
    }
}

async fn publish_one(
    world: &World,
    publisher: &Publisher,
    defaults: &Defaults,
) -> Result<(), Fault> {
    let event = defaults.complete("{}", world).map_err(Fault::Failed)?;
    let batch = Batch::of(Draft { number: 1, event: Ok(event) });
    let answer = publisher.publish(&batch, &*world.clock).await;
    output::line(&match &answer {
        Ok(answer) => format!("{} {}", answer.status.as_str(), printable(&answer.body)),
        Err(why) => format!("--- {}", printable(why)),
    })?;
    let mut tally = Tally::default();
    outcome::of(answer, 1).iter().for_each(|outcome| tally.add(1, outcome));
    verdict(&tally)
}

async fn publish_lines(
    args: &Args,
    world: &World,
    publisher: &Publisher,
    defaults: &Defaults,
) -> Result<(), Fault> {
    let (progress, start) = (progress(), world.clock.elapsed());
    let gone = CancellationToken::new();
    let drafts = lines::of(tokio::io::stdin()).map(|Line { number, text }| Draft {
        number,
        event: text.and_then(|text| defaults.complete(&text, world)),
    });
    let outcomes = batch::gather(drafts, args.batch())
        .take_until(gone.cancelled())
        .map(|batch| publish(batch, world, publisher, &gone))
        .buffered(args.concurrency.into());
    let mut outcomes = std::pin::pin!(outcomes);
    let mut tally = Tally::default();
    let mut last = 0;
    while let Some(batch) = outcomes.next().await {
        for (number, outcome) in batch {
            tally.add(number, &outcome);
            if outcome.reason().is_some() {
                progress.suspend(|| output::line(&format!("{number}: {outcome}")))?;
            }
            last = number;
        }
        tally.set_took(world.clock.elapsed() - start);
        progress.set_message(tally.to_string());
        progress.tick();
    }
    progress.finish_and_clear();
    output::note(&tally.to_string());
    tally.reasons().for_each(|reason| output::note(&reason));
    if gone.is_cancelled() {
        let gone = format!("the bus does not answer: what follows line {last} was not sent");
        return Err(Fault::Failed(gone));
    }
    verdict(&tally)
}

/// Publishes a batch; what became of each line. When there is no answer, the bus is `gone`.
async fn publish(
    batch: Batch,
    world: &World,
    publisher: &Publisher,
    gone: &CancellationToken,
) -> Vec<(u64, Outcome)> {
    let mut outcomes = Vec::new();
    if batch.events > 0 {
        let answer = publisher.publish(&batch, &*world.clock).await;
        if answer.is_err() {
            gone.cancel();
        }
        outcomes = outcome::of(answer, batch.events);
    }
    let mut outcomes = outcomes.into_iter();
    let of_line = |(number, added): (u64, Result<(), String>)| match added {
        Ok(()) => outcomes.next().map(|outcome| (number, outcome)),
        Err(why) => Some((number, Outcome::Unsent(why))),
    };
    batch.lines.into_iter().filter_map(of_line).collect()
}

fn verdict(tally: &Tally) -> Result<(), Fault> {
    match tally.failed() {
        0 => Ok(()),
        failed => Err(Fault::Failed(format!("{failed} of {} not published", tally.total()))),
    }
}

/// A line on standard error that counts, where a person looks at it.
fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let plain = ProgressStyle::with_template("{spinner} {msg}");
    ProgressBar::new_spinner()
        .with_style(plain.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
