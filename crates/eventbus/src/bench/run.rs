//! One measured run: subscribers up, resources made, events published, all of them awaited, and
//! everything cleaned up.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use eventbus_core::Durability;
use rustix::time::ClockId;
use serde::Serialize;

use super::args::{Layout, Mode, Plan, Target, Until};
use super::board::{Board, Counters};
use super::event::Shape;
use super::latency::{Latency, Percentiles};
use super::pace::{Clockwork, Schedule};
use super::publishers::{Destination, Heard, Publishers};
use super::resources::{Resources, Wanted};
use super::subscribers::{Arrivals, Endpoints, Trouble};
use super::worker::Worker;
use crate::cli::{Fault, World};

/// Undelivered events at the end of an end-to-end run that count as being under way, not as a
/// backlog: what is delivered in a tenth of a second, and never fewer than this.
const BACKLOG_FLOOR: u64 = 1024;
const BACKLOG_TIME_S: f64 = 0.1;

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

/// One direction of a run: what was published, or what was delivered.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Flow {
    /// Events in the measured time.
    pub(super) events: u64,
    /// Events a second in the measured time.
    pub(super) rate_per_s: f64,
    /// From when an event was due to the answer, or to its arrival at a subscriber.
    pub(super) latency: Percentiles,
}

/// What a run has measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measured {
    /// How long was measured.
    pub(super) seconds: f64,
    /// Events of each request.
    pub(super) batch: u16,
    /// Requests a second in the measured time.
    pub(super) requests_per_s: f64,
    /// The least durability that any answer told, if they told any.
    pub(super) durability: Option<&'static str>,
    /// At the publishers.
    pub(super) published: Flow,
    /// At the (healthy) subscribers, where events are delivered while they are published.
    pub(super) delivered: Option<Flow>,
    /// Deliveries outstanding when the measured time ended.
    pub(super) backlog: u64,
    /// How many of them are legal.
    pub(super) backlog_max: u64,
    /// All events published, warm-up included: every one was answered `published`.
    pub(super) events: u64,
    /// All deliveries: every event once at each Subscription that is checked.
    pub(super) deliveries: u64,
    /// Subscriptions that are busy and healthy: their deliveries are what is counted.
    pub(super) checked: u32,
    /// From the last answer to the last arrival.
    pub(super) drain_s: f64,
    /// CPU time of the load generator, all of it, in the measured time.
    pub(super) generator_cpu_s: f64,
}

/// Everything a run needs while it goes on.
struct Stage<'a> {
    plan: &'a Plan,
    world: &'a World,
    shape: Arc<Shape>,
    board: Arc<Board>,
    arrivals: Arc<Arrivals>,
    destination: Destination,
    resources: Option<Resources>,
    wanted: Vec<Wanted>,
    /// Takes deliveries as long as it lives.
    _subscribers: Option<Worker<()>>,
}

/// A moment of a run.
struct Moment {
    at: Duration,
    cpu: Duration,
    counters: Counters,
}

/// Plays one run. `troubles` are the ways in which the last busy endpoints are bad.
pub(super) async fn measure(
    plan: &Plan,
    world: &World,
    troubles: &[Trouble],
) -> Result<Measured, Fault> {
    let stage = Stage::set(plan, world, troubles).await?;
    let played = tokio::select! {
        played = stage.play() => played,
        _ = tokio::signal::ctrl_c() => Err(Fault::Failed("interrupted".to_owned())),
    };
    stage.board.stop();
    let cleared = match &stage.resources {
        Some(resources) => resources.delete().await,
        None => Ok(()),
    };
    let measured = played?;
    cleared.map(|()| measured)
}

// === impl Stage ===

impl<'a> Stage<'a> {
    async fn set(plan: &'a Plan, world: &'a World, troubles: &[Trouble]) -> Result<Self, Fault> {
        let (load, layout) = (&plan.load, plan.layout);
        let run = world.entropy.next_u64();
        let shape = Arc::new(Shape::new(run, layout.event_types, load.payload_bytes));
        let board = Arc::new(Board::new(load.rate.is_some(), load.window, layout.fan_out));
        let clock = world.clock.clone();
        let arrivals = Arrivals::new(layout, shape.clone(), board.clone(), clock);
        let arrivals = Arc::new(Arrivals { troubled: troubles.len() as u32, ..arrivals });
        let (mut urls, mut subscribers, mut resources) = (Vec::new(), None, None);
        if load.target != Target::Bare {
            let endpoints = Endpoints::open(plan.subscriber_listen, &layout, troubles).await;
            let endpoints = endpoints.map_err(cannot_start)?;
            urls.clone_from(&endpoints.urls);
            subscribers = Some(endpoints.serve(arrivals.clone()).map_err(cannot_start)?);
        }
        if load.target == Target::Bus {
            resources = Some(Resources::of_run(run, &plan.kubeconfig).await?);
        }
        Ok(Self {
            wanted: wanted(&shape, &layout, &urls, troubles.len()),
            destination: Destination::of(load).await?,
            _subscribers: subscribers,
            plan,
            world,
            shape,
            board,
            arrivals,
            resources,
        })
    }

    async fn play(&self) -> Result<Measured, Fault> {
        let is_activated_first = self.plan.mode != Mode::Publish;
        if let Some(resources) = &self.resources {
            resources.create(&self.wanted).await?;
            if is_activated_first {
                resources.activate().await?;
                resources.wait("events-activated", self.wanted.len()).await?;
                resources.wait("ready", self.arrivals.checked() as usize).await?;
            }
        }
        let (heard, from, to) = self.publish().await?;
        if let Some(resources) = self.resources.as_ref().filter(|_| !is_activated_first) {
            resources.activate().await?;
        }
        let drained = match self.plan.load.target {
            Target::Bare => Duration::ZERO,
            Target::Bus | Target::Relay => self.drain().await?,
        };
        let measured = self.measured(&heard, &from, &to, drained);
        if self.plan.mode == Mode::EndToEnd && measured.backlog > measured.backlog_max {
            return Err(Fault::Failed(format!(
                "the backlog grew: {} deliveries were outstanding at the end, at most {} are under \
                 way at {:.0}/s; give a lower --rate, or a --window",
                measured.backlog, measured.backlog_max, measured.published.rate_per_s
            )));
        }
        Ok(measured)
    }

    /// Publishes through warm-up and measured time; returns what was heard, and both ends of the
    /// measured time.
    async fn publish(&self) -> Result<(Heard, Moment, Moment), Fault> {
        let load = &self.plan.load;
        let clock = self.world.clock.clone();
        let schedule = load.rate.map(|rate| Schedule::new(clock.elapsed(), rate));
        let _clockwork = match (schedule, self.board.due.clone()) {
            (Some(schedule), Some(due)) => {
                Some(Clockwork::start(schedule, due, clock.clone()).map_err(cannot_start)?)
            }
            _ => None,
        };
        let publishers = Publishers {
            connections: load.connections,
            batch: load.batch,
            destination: self.destination.clone(),
            shape: self.shape.clone(),
            board: self.board.clone(),
            clock,
            schedule,
        };
        let publishers = Worker::start("publishers", || publishers.run()).map_err(cannot_start)?;
        let mut done = std::pin::pin!(publishers.done());
        tokio::select! {
            () = tokio::time::sleep(load.warm_up) => {}
            () = self.board.stopped() => {}
        }
        let from = self.moment();
        let (time, events) = match load.until {
            Until::Elapsed(time) => (time, None),
            Until::Events(events) => (Duration::MAX, Some(events)),
        };
        self.board.measure(events);
        let mut heard = None;
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            all = &mut done => heard = Some(all),
            () = self.silence() => return Err(no_answer()),
        }
        let to = self.moment();
        self.board.stop();
        let heard = match heard {
            Some(heard) => heard,
            None => {
                let late = tokio::time::timeout(ANSWER_TIME, done).await;
                late.unwrap_or_else(|_| Err(no_answer()))
            }
        };
        match self.board.complaint() {
            Some(complaint) => Err(Fault::Failed(complaint)),
            None => Ok((heard?, from, to)),
        }
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
    async fn drain(&self) -> Result<Duration, Fault> {
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
                return Err(Fault::Failed(complaint));
            }
        }
        tokio::time::sleep(GRACE).await;
        match self.board.complaint().or_else(|| self.arrivals.complaint()) {
            Some(complaint) => Err(Fault::Failed(complaint)),
            None => Ok(last - start),
        }
    }

    fn measured(&self, heard: &Heard, from: &Moment, to: &Moment, drain: Duration) -> Measured {
        let seconds = (to.at - from.at).as_secs_f64();
        let flow = |events: u64, latency: &Latency| Flow {
            events,
            rate_per_s: events as f64 / seconds,
            latency: latency.percentiles(),
        };
        let published = flow(to.counters.published - from.counters.published, &heard.latency);
        let batch = self.plan.load.batch;
        let is_delivered_meanwhile =
            self.plan.load.target != Target::Bare && self.plan.mode != Mode::Publish;
        let delivered = is_delivered_meanwhile.then(|| {
            let counts = self.arrivals.counts.lock().unwrap_or_else(PoisonError::into_inner);
            flow(to.counters.delivered - from.counters.delivered, &counts.latency)
        });
        let owed_per_event = self.arrivals.owed(self.plan.layout.event_types.into());
        let owed = to.counters.published * owed_per_event / u64::from(self.plan.layout.event_types);
        let deliveries_per_s = delivered.map_or(0.0, |flow| flow.rate_per_s);
        Measured {
            seconds,
            batch,
            requests_per_s: published.rate_per_s / f64::from(batch),
            durability: heard.durability.map(Durability::as_str),
            published,
            delivered,
            backlog: owed.saturating_sub(to.counters.delivered),
            backlog_max: BACKLOG_FLOOR.max((deliveries_per_s * BACKLOG_TIME_S) as u64),
            events: self.board.issued(),
            deliveries: self.board.counters().delivered,
            checked: self.arrivals.checked(),
            drain_s: drain.as_secs_f64(),
            generator_cpu_s: (to.cpu - from.cpu).as_secs_f64(),
        }
    }

    fn moment(&self) -> Moment {
        let cpu = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
        Moment {
            at: self.world.clock.elapsed(),
            cpu: Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32),
            counters: self.board.counters(),
        }
    }
}

/// What each Subscription asks for; the last `bad` of the busy ones with the bus's own timeout.
pub(super) fn wanted(shape: &Shape, layout: &Layout, urls: &[String], bad: usize) -> Vec<Wanted> {
    let busy = layout.busy() as usize;
    let is_bad = |place: usize| (busy - bad..busy).contains(&place);
    let all = urls.iter().enumerate();
    all.map(|(place, url)| Wanted {
        endpoint: url.clone(),
        event_type: shape.event_type(layout.type_of(place as u32)),
        max_inflight: layout.max_inflight,
        timeout_ms: (!is_bad(place)).then_some(TIMEOUT_MS),
    })
    .collect()
}

fn no_answer() -> Fault {
    let seconds = ANSWER_TIME.as_secs();
    Fault::Failed(format!("no answer for {seconds}s, or no delivery that opens the window"))
}

fn cannot_start(error: std::io::Error) -> Fault {
    Fault::Failed(format!("cannot start the benchmark: {error}"))
}
