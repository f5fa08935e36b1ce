//! A bus under load that is killed at random moments, again and again: no acknowledged event may
//! be lost, and no restart may need a hand.
//!
//! What was sent, acknowledged and delivered is written to files, and those are judged in the end.

pub(super) mod journal;
mod publishers;
mod server;
mod verdict;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::arrivals::{Arrivals, Ids};
use super::board::Board;
use super::chance::Chance;
use super::event::Shape;
use super::plan::{Layout, Load, Plan};
use super::publishers::Destination;
use super::resources::Resources;
use super::run::wanted;
use super::subscribers::Endpoints;
use super::worker::Worker;
use crate::cli::{Fault, World};
use crate::output;
use journal::{Journal, Writer};
use publishers::Publishers;
use server::Server;
use verdict::Verdict;

/// A bus is killed this long after it was ready: at least, and at most.
const LIFE_MS: (u64, u64) = (5, 500);

/// After the last event has arrived: time for one to arrive once more.
const GRACE: Duration = Duration::from_secs(1);

/// Pause between two looks at what has arrived.
const LOOK: Duration = Duration::from_millis(20);

/// What a kill run has found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Killed {
    /// What decided the moments.
    pub(super) seed: u64,
    pub(super) kills: u32,
    /// What the files say.
    pub(super) verdict: Verdict,
    /// The most deliveries that may have been under way at the kills, over all of them: those may
    /// come again.
    pub(super) in_flight_max: u64,
    /// The longest time from a start to ready.
    pub(super) ready_max_ms: u64,
    /// From the last acknowledgement to the last arrival.
    pub(super) drain_s: f64,
    /// All of it.
    pub(super) seconds: f64,
    /// Where the files are.
    pub(super) records: PathBuf,
}

/// The other side of the bus, while it is killed.
struct Stage {
    board: Arc<Board>,
    arrivals: Arc<Arrivals>,
    acknowledged: Arc<Mutex<super::seen::Seen>>,
    publishers: Worker<()>,
    subscribers: Worker<()>,
    writers: [Writer; 2],
}

/// Runs until the last kill, and until everything acknowledged has arrived.
pub(super) async fn measure(plan: &Plan, world: &World) -> Result<Killed, Fault> {
    let seed = plan.kill.seed.unwrap_or_else(|| world.entropy.next_u64());
    output::note(&format!("seed {seed}"));
    let records = records(&plan.kill.data_dir)?;
    let start = world.clock.elapsed();
    let mut server = Server::new(&plan.kill.data_dir, records.join("serve.log"))?;
    let mut ready_max = server.start(&*world.clock).await?;
    let stage = Stage::set(plan, world, &server, &records).await?;
    let mut chance = Chance::new(seed);
    for number in 1..=plan.kill.kills {
        tokio::time::sleep(Duration::from_millis(chance.between(LIFE_MS))).await;
        server.kill().await?;
        ready_max = ready_max.max(server.start(&*world.clock).await?);
        stage.check()?;
        if number % 10 == 0 {
            let published = stage.board.counters().published;
            output::note(&format!("{number} kills, {published} events acknowledged"));
        }
    }
    while stage.board.counters().published < plan.kill.events_min {
        stage.check()?;
        tokio::time::sleep(LOOK).await;
    }
    let layout = plan.layout;
    let drain = stage.finish(plan.patience, world).await?;
    server.terminate().await?;
    let in_flight = u64::from(layout.subscriptions) * u64::from(layout.max_inflight);
    Ok(Killed {
        seed,
        kills: plan.kill.kills,
        verdict: judge(&records, layout)?,
        in_flight_max: in_flight * u64::from(plan.kill.kills),
        ready_max_ms: ready_max.as_millis() as u64,
        drain_s: drain.as_secs_f64(),
        seconds: (world.clock.elapsed() - start).as_secs_f64(),
        records,
    })
}

/// A new directory for the files, beside the one of the bus.
fn records(data_dir: &Path) -> Result<PathBuf, Fault> {
    if data_dir.exists() {
        let shown = data_dir.display();
        return Err(Fault::Usage(format!("--data-dir {shown}: exists; name a new directory")));
    }
    let mut records = data_dir.as_os_str().to_owned();
    records.push("-records");
    let records = PathBuf::from(records);
    let made = std::fs::create_dir_all(data_dir).and_then(|()| std::fs::create_dir(&records));
    made.map_err(|error| Fault::Usage(format!("{}: {error}", records.display())))?;
    Ok(records)
}

fn judge(records: &Path, layout: Layout) -> Result<Verdict, Fault> {
    let open = |name: &str| File::open(records.join(name)).map(BufReader::new);
    let judged = || verdict::judge(open("published.log")?, open("delivered.log")?, layout.fan_out);
    judged().map_err(|error| Fault::Failed(format!("{}: {error}", records.display())))
}

// === impl Killed ===

impl Killed {
    /// What is wrong, if anything.
    pub(super) fn complaint(&self) -> Option<String> {
        let Verdict { lost, first_lost, never_sent, duplicates, acknowledged, .. } = &self.verdict;
        if *lost > 0 {
            return Some(format!(
                "{lost} acknowledged events were lost, the first: {first_lost:?}"
            ));
        }
        if *never_sent > 0 {
            return Some(format!("{never_sent} deliveries of events that nobody sent"));
        }
        if *duplicates > self.in_flight_max {
            let most = self.in_flight_max;
            return Some(format!("{duplicates} duplicates; at most {most} were in flight"));
        }
        (*acknowledged == 0).then(|| "no event was acknowledged".to_owned())
    }
}

// === impl Stage ===

impl Stage {
    async fn set(
        plan: &Plan,
        world: &World,
        server: &Server,
        records: &Path,
    ) -> Result<Self, Fault> {
        let failed = |error: std::io::Error| Fault::Failed(format!("the kill run: {error}"));
        let layout = plan.layout;
        let run = world.entropy.next_u64();
        let shape = Arc::new(Shape::new(run, layout.event_types, plan.load.payload_bytes));
        let board = Arc::new(Board::new(false, None, layout.fan_out));
        let (sent, sent_writer) =
            Journal::create(&records.join("published.log")).map_err(failed)?;
        let (got, got_writer) = Journal::create(&records.join("delivered.log")).map_err(failed)?;
        let clock = world.clock.clone();
        let ids = Ids::of(plan.load.target, plan.load.format);
        let arrivals = Arrivals::new(layout, ids, shape.clone(), board.clone(), clock);
        let arrivals = Arc::new(Arrivals { journal: Some(got), ..arrivals });
        let endpoints =
            Endpoints::open(plan.subscriber_listen, &layout, &[]).await.map_err(failed)?;
        let wanted = wanted(&shape, plan, &endpoints.urls, 0);
        let subscribers = endpoints.serve(arrivals.clone()).map_err(failed)?;
        let resources = Resources::of_run(run, &server.kubeconfig()).await?;
        resources.create(&wanted).await?;
        resources.activate().await?;
        resources.wait("ready", wanted.len()).await?;
        let load = Load { url: server.publish_url(), ..plan.load.clone() };
        let acknowledged = Arc::default();
        let publishers = Publishers {
            connections: load.connections,
            destination: Destination::of(&load, &shape).await?,
            shape,
            board: board.clone(),
            clock: world.clock.clone(),
            journal: sent,
            acknowledged: Arc::clone(&acknowledged),
        };
        let publishers = Worker::start("publishers", || publishers.run()).map_err(failed)?;
        let writers = [sent_writer, got_writer];
        Ok(Self { board, arrivals, acknowledged, publishers, subscribers, writers })
    }

    fn check(&self) -> Result<(), Fault> {
        self.board.complaint().map_or(Ok(()), |complaint| Err(Fault::Failed(complaint)))
    }

    /// Stops publishing, waits for what was acknowledged, and closes the files; returns how long
    /// the last arrival took.
    async fn finish(self, patience: Duration, world: &World) -> Result<Duration, Fault> {
        let Self { board, arrivals, acknowledged, publishers, subscribers, writers } = self;
        board.stop();
        publishers.done().await?;
        let is_complete = || {
            let acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
            arrivals.have_all(&acknowledged)
        };
        let start = world.clock.elapsed();
        let (mut delivered, mut last) = (0, start);
        loop {
            let now = board.counters().delivered;
            if now > delivered {
                (delivered, last) = (now, world.clock.elapsed());
            }
            if is_complete() || world.clock.elapsed() - last > patience {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep(GRACE).await;
        board.complaint().map_or(Ok(()), |complaint| Err(Fault::Failed(complaint)))?;
        // The journals end with the last who may write to them.
        drop((subscribers, arrivals));
        for writer in writers {
            writer.finish()?;
        }
        Ok(last - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn killed(verdict: Verdict) -> Option<String> {
        let killed = Killed {
            seed: 1,
            kills: 2,
            verdict,
            in_flight_max: 10,
            ready_max_ms: 1,
            drain_s: 0.0,
            seconds: 1.0,
            records: PathBuf::new(),
        };
        killed.complaint()
    }

    #[test]
    fn each_flaw_fails_the_run() {
        let good = Verdict { sent: 5, acknowledged: 4, delivered: 4, ..Verdict::default() };
        assert_eq!(killed(Verdict { duplicates: 10, ..good.clone() }), None);
        assert!(killed(Verdict { duplicates: 11, ..good.clone() }).is_some());
        assert!(killed(Verdict { lost: 1, ..good.clone() }).is_some());
        assert!(killed(Verdict { never_sent: 1, ..good.clone() }).is_some());
        assert!(killed(Verdict { acknowledged: 0, ..good }).is_some());
    }

    #[test]
    fn a_run_wants_a_directory_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(records(directory.path()), Err(Fault::Usage(_))));
        let new = directory.path().join("new");
        assert_eq!(records(&new).unwrap(), directory.path().join("new-records"));
    }
}
