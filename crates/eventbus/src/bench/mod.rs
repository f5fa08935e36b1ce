//! `eventbus bench`: measures a bus through its public HTTP interface, and believes nothing.
//!
//! Every answer must be `published`, and every event must arrive exactly as often as it should,
//! byte for byte; a run where that fails has no figures. The load generator is cheap, since it
//! shares its cores with the bus: prepared bytes, one buffer a connection, a thread for publishers
//! and one for subscribers.

mod answers;
mod args;
mod arrivals;
mod board;
mod chance;
mod chart;
mod event;
mod inbox;
mod isolation;
mod kill;
mod latency;
mod measured;
mod pace;
mod page;
mod plan;
mod progress;
mod publishers;
mod ramp;
mod report;
mod request;
mod resources;
mod run;
mod seen;
mod subscribers;
mod subscriptions;
mod svix;
mod worker;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cli::{Fault, World};
pub(crate) use args::Args;
use args::Mode;
use page::Shown;
use plan::Plan;
use report::Report;

/// Runs the benchmark. Fails when anything is not as it should be.
pub(crate) async fn run(args: Args, world: World) -> Result<(), Fault> {
    let plan = args.plan()?;
    raise_descriptor_limit();
    match plan.mode {
        Mode::EndToEnd | Mode::Publish if plan.p99_max.is_some() => {
            let ramp = ramp::climb(&plan, &world).await?;
            show(&plan, &ramp)?;
            fail_on(ramp.complaint())
        }
        Mode::EndToEnd | Mode::Publish => {
            let measured = run::measure(&plan, &world, &plan.troubles()).await?;
            show(&plan, &measured)
        }
        Mode::Isolation => {
            let isolation = isolation::measure_pairs(&plan, &world).await?;
            Report::of(&plan, &isolation).print(plan.json)?;
            fail_on(isolation.summary.complaint())
        }
        Mode::Kill => {
            let killed = tokio::select! {
                killed = kill::measure(&plan, &world) => killed?,
                _ = tokio::signal::ctrl_c() => return fail_on(Some("interrupted".to_owned())),
            };
            Report::of(&plan, &killed).print(plan.json)?;
            fail_on(killed.complaint())
        }
    }
}

/// Writes the page of a result, where one is wanted, and prints it.
fn show(plan: &Plan, result: &impl Shown) -> Result<(), Fault> {
    let report = Report::of(plan, result);
    if let Some(file) = &plan.html {
        page::write(file, &report)?;
    }
    report.print(plan.json)
}

fn fail_on(complaint: Option<String>) -> Result<(), Fault> {
    complaint.map_or(Ok(()), |complaint| Err(Fault::Failed(complaint)))
}

/// Publishers and subscribers of a large run need more descriptors than a shell allows at first.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where it may not be raised, the run goes on with what there is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
