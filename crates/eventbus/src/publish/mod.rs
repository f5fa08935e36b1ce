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
mod progress;
mod send;
mod tally;

use std::convert::Infallible;

use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::cli::{Fault, World};
use crate::output::{self, printable};
pub(crate) use args::Args;
use batch::{Batch, Draft};
use draft::Defaults;
use lines::Line;
use outcome::Outcome;
use progress::Progress;
use send::Publisher;
use tally::Tally;

/// Publishes what the arguments and standard input say. Fails when any event was not taken.
pub(crate) async fn run(args: Args, world: World) -> Result<(), Fault> {
    args.check()?;
    let defaults = args.defaults().await?;
    let (progress, stop) = (Progress::start(), CancellationToken::new());
    let publisher = Publisher::new(&args, &progress, stop.clone())?;
    let publishing = async {
        if args.lines {
            let gone = stop.child_token();
            publish_lines((&args, &defaults), &world, (&publisher, &progress), gone).await
        } else {
            publish_one(&world, (&publisher, &progress), &defaults).await
        }
    };
    let interrupted = async {
        // Where there is no such signal, nothing interrupts.
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        never = interrupted => match never {},
        ended = publishing => match stop.is_cancelled() {
            true => Err(Fault::Interrupted),
            false => ended,
        },
    }
}

async fn publish_one(
    world: &World,
    (publisher, progress): (&Publisher<'_>, &Progress),
    defaults: &Defaults,
) -> Result<(), Fault> {
    let event = defaults.complete("{}", world).map_err(Fault::Failed)?;
    let batch = Batch::of(Draft { number: 1, event: Ok(event) });
    let answer = publisher.answer(&batch.events, &mut 0, &*world.clock).await;
    progress.end();
    output::line(&match &answer {
        Ok(answer) => format!("{} {}", answer.status.as_str(), printable(&answer.body)),
        Err(why) => format!("--- {}", printable(why)),
    })?;
    let mut tally = Tally::default();
    for outcome in outcome::of(answer, 1) {
        outcome.reason().iter().for_each(|reason| output::note(reason));
        tally.add(1, &outcome);
    }
    verdict(&tally)
}

/// Publishes each line of standard input until one has no answer, or `gone` is cancelled.
async fn publish_lines(
    (args, defaults): (&Args, &Defaults),
    world: &World,
    (publisher, progress): (&Publisher<'_>, &Progress),
    gone: CancellationToken,
) -> Result<(), Fault> {
    let start = world.clock.elapsed();
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
    progress.show(&tally);
    while let Some(batch) = outcomes.next().await {
        for (number, outcome) in batch {
            tally.add(number, &outcome);
            if outcome.reason().is_some() {
                progress.print(&format!("{number}: {outcome}"))?;
            }
            last = number;
        }
        tally.set_took(world.clock.elapsed() - start);
        progress.show(&tally);
    }
    progress.end();
    output::note(&tally.to_string());
    tally.reasons().for_each(|reason| output::note(&reason));
    if gone.is_cancelled() {
        output::note(&format!("what follows line {last} was not sent"));
        return Err(Fault::Failed("the bus does not answer".to_owned()));
    }
    verdict(&tally)
}

/// Publishes a batch; what became of each line. When there is no answer, the bus is `gone`.
async fn publish(
    batch: Batch,
    world: &World,
    publisher: &Publisher<'_>,
    gone: &CancellationToken,
) -> Vec<(u64, Outcome)> {
    let mut outcomes = Vec::new();
    if batch.events.count() > 0 {
        outcomes = publisher.publish(&batch.events, &*world.clock).await;
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Unsent(_))) {
            gone.cancel();
        }
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
