//! The word of how deliveries go, from every process that pushes to every one that may judge.
//!
//! Over NATS processes share the work: whoever keeps the statuses true must know how it goes in
//! all of them.

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::{Clock, ProcessId, Report, limits};
use eventbus_nats::{Asked, Hearing, Nats, OpenError};
use eventbus_resources::{HealthBoard, Teller};
use tokio::time::{Interval, MissedTickBehavior, sleep};
use tokio_util::sync::CancellationToken;

use super::settings::{Role, Settings};
use crate::cli::{Fault, World};

/// This process among those over the same NATS.
pub(super) struct Peer {
    /// By this name the others know it, to its end.
    process: ProcessId,
    nats: Arc<Nats>,
    board: Arc<HealthBoard>,
    clock: Arc<dyn Clock>,
    /// Where it pushes: what the others ask.
    asked: Option<Asked>,
    /// Where it may judge: what the others tell.
    hearing: Option<Hearing>,
}

impl Peer {
    /// Begins to listen to the others, as the roles of the process need it.
    pub(super) async fn meet(
        nats: Arc<Nats>,
        board: &Arc<HealthBoard>,
        settings: &Settings,
        world: &World,
    ) -> Result<Self, Fault> {
        let fault = |error: OpenError| Fault::Failed(error.to_string());
        let asked = match settings.has(Role::Push) {
            true => Some(nats.asked().await.map_err(fault)?),
            false => None,
        };
        let hearing = match settings.has(Role::SubValidator) {
            true => Some(nats.hear().await.map_err(fault)?),
            false => None,
        };
        let process = ProcessId::draw(&*world.entropy);
        let (board, clock) = (board.clone(), world.clock.clone());
        Ok(Self { process, nats, board, clock, asked, hearing })
    }

    /// The task: tells and hears until `stop`, and then says farewell.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let (asked, hearing) = (self.asked.take(), self.hearing.take());
        let told = async {
            let Some(mut asked) = asked else { return };
            let mut teller = Teller::default();
            stop.run_until_cancelled(self.tell(&mut teller, &mut asked)).await;
            self.say(&[teller.farewell()]).await;
        };
        let heard = async {
            let Some(mut hearing) = hearing else { return };
            stop.run_until_cancelled(self.hear(&mut hearing)).await;
        };
        tokio::join!(told, heard);
    }

    async fn tell(&self, teller: &mut Teller, asked: &mut Asked) {
        let (mut rounds, mut words) = (every(limits::REPORT_ROUND), every(limits::REPORT_EVERY));
        let mut is_lost = false;
        loop {
            let is_all = tokio::select! {
                biased;
                _ = rounds.tick() => true,
                () = asked.next() => true,
                () = self.board.changed_here() => is_lost,
                _ = words.tick() => is_lost,
            };
            let here = self.board.here();
            let reports = if is_all { teller.everything(here) } else { teller.changes(here) };
            is_lost = !self.say(&reports).await;
            sleep(limits::REPORT_PAUSE).await;
        }
    }

    /// Tells the others; false when that is lost for certain.
    async fn say(&self, reports: &[Report]) -> bool {
        for report in reports {
            if !self.nats.tell(self.process, report).await {
                return false;
            }
        }
        true
    }

    async fn hear(&self, hearing: &mut Hearing) {
        let mut looks = every(limits::REPORT_EVERY);
        loop {
            tokio::select! {
                (process, report) = hearing.next() => {
                    if process != self.process {
                        self.board.hear(process, report, self.clock.elapsed());
                    }
                }
                _ = looks.tick() => self.board.drop_silent(self.clock.elapsed()),
            }
        }
    }
}

fn every(time: Duration) -> Interval {
    let mut interval = tokio::time::interval(time);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
