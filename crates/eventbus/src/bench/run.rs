//! One measured run: subscribers up, resources made, events published, all of them awaited, and
//! everything cleaned up.

use std::sync::Arc;
use std::time::Duration;

use super::args::Mode;
use super::arrivals::{Arrivals, Ids};
use super::board::Board;
use super::event::Shape;
use super::measured::{Measured, Moment, Run};
use super::pace::{Clockwork, Schedule};
use super::plan::{Plan, Until};
use super::progress::{Phase, Progress};
use super::publishers::{Destination, Heard, Publishers};
use super::resources::Wanted;
use super::subscribers::{Endpoints, Trouble};
use super::subscriptions::Subscriptions;
use super::worker::Worker;
use crate::cli::{Fault, World};

/// After the last event has arrived: time for one to arrive once too often.
const GRACE: Duration = Duration::from_millis(500);

/// How long a healthy subscriber may take, in milliseconds: long enough that a machine at its limit
/// does not cause repeats.
const TIMEOUT_MS: u32 = 20_000;

/// How long the slowest answer may take: longer than any bus should work on one event, and than the
/// pause between two events at the lowest rate.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// Pause between two looks at the counters.
const LOOK: Duration = Duration::from_millis(5);

/// Why a run has no figures.
pub(super) enum Failure {
    /// It could not be made: no other load would change that.
    Fault(Fault),
    /// What is measured did not do its part under this load.
    Broken(String),
}

/// Everything a run needs while it goes on.
struct Stage<'a> {
    plan: &'a Plan,
    world: &'a World,
    shape: Arc<Shape>,
    board: Arc<Board>,
    arrivals: Arc<Arrivals>,
    destination: Destination,
    subscriptions: Subscriptions,
    wanted: Vec<Wanted>,
    progress: Progress<'a>,
    /// Takes deliveries as long as it lives.
    _subscribers: Option<Worker<()>>,
}

/// Plays one run. `troubles` are the ways in which the last busy endpoints are bad or slow.
pub(super) async fn measure(
    plan: &Plan,
    world: &World,
    troubles: &[Trouble],
) -> Result<Measured, Failure> {
    let stage = Stage::set(plan, world, troubles).await?;
    let played = tokio::select! {
        played = stage.play() => played,
        never = stage.progress.watch() => match never {},
        _ = tokio::signal::ctrl_c() => Err(Failure::Fault(Fault::Failed("interrupted".to_owned()))),
    };
    stage.board.stop();
    let cleared = stage.subscriptions.delete(&stage.wanted).await;
    let measured = played?;
    cleared.map(|()| measured).map_err(Failure::Fault)
}

// === impl Failure ===

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Fault(fault) => fault,
            Failure::Broken(why) => Self::Failed(why),
        }
    }
}

// === impl Stage ===

impl<'a> Stage<'a> {
    async fn set(plan: &'a Plan, world: &'a World, troubles: &[Trouble]) -> Result<Self, Fault> {
        let (load, layout) = (&plan.load, plan.layout);
        let run = world.entropy.next_u64();
        let mut shape = Shape::new(run, layout.event_types, load.payload_bytes);
        if load.target.is_by_hand() {
            shape = shape.with_fixed_types();
        }
        let shape = Arc::new(shape);
        let board = Arc::new(Board::new(load.rate.is_some(), load.window, layout.fan_out));
        let ids = Ids::of(load.target, load.format);
        let arrivals =
            Arrivals::new(layout, ids, shape.clone(), board.clone(), world.clock.clone());
        let arrivals = Arc::new(Arrivals {
            troubled: troubles.len() as u32,
            are_slow: troubles.iter().all(|trouble| matches!(trouble, Trouble::Slow(_))),
            conduct: plan.conduct,
            ..arrivals
        });
        let (mut urls, mut subscribers) = (Vec::new(), None);
        if plan.delivers() {
            let endpoints = Endpoints::open(plan.subscriber_listen, &layout, troubles).await;
            let endpoints = endpoints.map_err(cannot_start)?;
            urls.clone_from(&endpoints.urls);
            subscribers = Some(endpoints.serve(arrivals.clone()).map_err(cannot_start)?);
        }
        Ok(Self {
            wanted: wanted(&shape, plan, &urls, troubles.len()),
            destination: Destination::of(load, &shape).await?,
            subscriptions: Subscriptions::of_run(run, plan).await?,
            progress: Progress::new(&*world.clock, board.clone(), arrivals.clone()),
            _subscribers: subscribers,
            plan,
            world,
            shape,
            board,
            arrivals,
        })
    }

    async fn play(&self) -> Result<Measured, Failure> {
        let is_activated_first = self.plan.mode != Mode::Publish;
        self.subscriptions.create(&self.wanted).await?;
        if is_activated_first {
            self.subscriptions.activate(&self.wanted, self.arrivals.checked()).await?;
        }
        let (heard, from, to) = self.publish().await?;
        if !is_activated_first {
            self.subscriptions.activate(&[], 0).await?;
        }
        self.progress.enter(Phase::Draining);
        let drain = match self.plan.delivers() {
            true => self.drain().await?,
            false => Duration::ZERO,
        };
        let run = Run { plan: self.plan, arrivals: &self.arrivals, heard: &heard, drain };
        let measured = Measured::of(&run, &from, &to, self.progress.samples());
        if self.plan.mode == Mode::EndToEnd && measured.backlog > measured.backlog_max {
            return Err(Failure::Broken(format!(
                "the backlog grew: {} deliveries were outstanding at the end, at most {} are under \
                 way at {:.0}/s; give a lower --rate, or a --window",
                measured.backlog, measured.backlog_max, measured.published.rate_per_s
            )));
        }
        Ok(measured)
    }

    /// Publishes through warm-up and measured time; returns what was heard, and both ends of the
    /// measured time.
    async fn publish(&self) -> Result<(Heard, Moment, Moment), Failure> {
        self.progress.enter(Phase::WarmingUp);
        let (load, clock) = (&self.plan.load, &self.world.clock);
        let schedule = load.rate.map(|rate| Schedule::new(clock.elapsed(), rate));
        let _clockwork = match (schedule, self.board.due.clone()) {
            (Some(schedule), Some(due)) => {
                Some(Clockwork::start(schedule, due, clock.clone()).map_err(cannot_start)?)
            }
            _ => None,
        };
        let publishers = self.publishers(schedule);
        let publishers = Worker::start("publishers", || publishers.run()).map_err(cannot_start)?;
        let mut done = std::pin::pin!(publishers.done());
        tokio::select! {
            () = tokio::time::sleep(load.warm_up) => {}
            why = self.board.failure() => return Err(Failure::Broken(why)),
        }
        let from = self.moment();
        self.progress.enter(Phase::Measuring);
        let (time, events) = match load.until {
            Until::Elapsed(time) => (time, None),
            Until::Events(events) => (Duration::MAX, Some(events)),
        };
        self.board.measure(events);
        let mut heard = None;
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            all = &mut done => heard = Some(all),
            why = self.board.failure() => return Err(Failure::Broken(why)),
            () = self.silence() => return Err(no_answer()),
        }
        let to = self.moment();
        let due = self.end(schedule, &to);
        let heard = match heard {
            Some(heard) => heard,
            None => tokio::select! {
                heard = done => heard,
                why = self.board.failure() => return Err(Failure::Broken(why)),
                () = tokio::time::sleep(ANSWER_TIME) => return Err(self.too_late(due)),
            },
        };
        match self.board.complaint() {
            Some(complaint) => Err(Failure::Broken(complaint)),
            None => Ok((heard?, from, to)),
        }
    }

    fn publishers(&self, schedule: Option<Schedule>) -> Publishers {
        Publishers {
            connections: self.plan.load.connections,
            batch: self.plan.load.batch,
            destination: self.destination.clone(),
            shape: self.shape.clone(),
            board: self.board.clone(),
            clock: self.world.clock.clone(),
            schedule,
        }
    }

    /// Ends the measured time; returns how many events are published in all. In open loop those are
    /// all that were due by now (of full batches): who waits for a connection is charged, too.
    fn end(&self, schedule: Option<Schedule>, to: &Moment) -> u64 {
        let due = match schedule {
            Some(schedule) => schedule.count_by(to.at),
            None => self.board.issued(),
        };
        let due = due - due % u64::from(self.plan.load.batch);
        self.board.end_at(due);
        due.max(self.board.issued())
    }

    fn too_late(&self, due: u64) -> Failure {
        let missing = due.saturating_sub(self.board.counters().published);
        let seconds = ANSWER_TIME.as_secs();
        Failure::Broken(format!(
            "{missing} of {due} events that were due had no answer {seconds}s after the end"
        ))
    }

    /// Resolves when no event has been taken for [`ANSWER_TIME`].
    async fn silence(&self) {
        let mut before = None;
        while before != Some(self.board.counters().published) {
            before = Some(self.board.counters().published);
            tokio::time::sleep(ANSWER_TIME).await;
        }
    }

    /// Waits until every event has arrived, and a little longer; returns how long the last took.
    async fn drain(&self) -> Result<Duration, Failure> {
        let clock = &self.world.clock;
        let owed = self.arrivals.owed(self.board.issued());
        let start = clock.elapsed();
        let (mut delivered, mut last) = (0, start);
        while delivered < owed && clock.elapsed() - last < self.plan.patience {
            tokio::time::sleep(LOOK).await;
            let now = self.board.counters().delivered;
            if now > delivered {
                (delivered, last) = (now, clock.elapsed());
            }
            if let Some(complaint) = self.board.complaint() {
                return Err(Failure::Broken(complaint));
            }
        }
        tokio::time::sleep(GRACE).await;
        match self.board.complaint().or_else(|| self.arrivals.complaint()) {
            Some(complaint) if self.board.counters().delivered == 0 => {
                Err(Failure::Broken(format!("{complaint}{}", self.subscriptions.advice())))
            }
            Some(complaint) => Err(Failure::Broken(complaint)),
            None => Ok(last - start),
        }
    }

    fn moment(&self) -> Moment {
        Moment::now(&*self.world.clock, &self.board)
    }
}

/// What each Subscription asks for; the last `bad` of the busy ones with the bus's own timeout.
pub(super) fn wanted(shape: &Shape, plan: &Plan, urls: &[String], bad: usize) -> Vec<Wanted> {
    let layout = &plan.layout;
    let busy = layout.busy() as usize;
    // A slow endpoint is waited for like a healthy one.
    let is_bad = |place: usize| plan.slow.0 == 0 && (busy - bad..busy).contains(&place);
    let all = urls.iter().enumerate();
    all.map(|(place, url)| Wanted {
        endpoint: url.clone(),
        event_type: shape.event_type(layout.type_of(place as u32)),
        max_inflight: layout.max_inflight,
        timeout_ms: (!is_bad(place)).then_some(TIMEOUT_MS),
        format: plan.load.format,
    })
    .collect()
}

fn no_answer() -> Failure {
    let seconds = ANSWER_TIME.as_secs();
    Failure::Broken(format!("no answer for {seconds}s, or no delivery that opens the window"))
}

fn cannot_start(error: std::io::Error) -> Fault {
    Fault::Failed(format!("cannot start the benchmark: {error}"))
}
