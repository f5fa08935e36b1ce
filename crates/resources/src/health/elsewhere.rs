//! What other processes say of Subscriptions. A step machine; time is an argument.
//!
//! Anybody may say anything there, so what is kept has bounds.

use std::collections::HashMap;
use std::time::Duration;

use eventbus_core::reconcile::Health;
use eventbus_core::report::Said;
use eventbus_core::{ProcessId, Report, Text, limits};
use tracing::warn;

/// What other processes say.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    processes: HashMap<ProcessId, Process>,
}

/// What one says.
#[derive(Debug)]
struct Process {
    heard_at: Duration,
    /// The round in which it tells everything.
    round: u64,
    said: HashMap<Text, InRound>,
}

/// What was said last, and in which round.
#[derive(Debug)]
struct InRound {
    health: Health,
    round: u64,
}

impl Elsewhere {
    /// Takes in what a process told at `now`; tells whether it is news.
    pub(super) fn hear(&mut self, process: ProcessId, report: Report, now: Duration) -> bool {
        if report.farewell {
            return self.processes.remove(&process).is_some();
        }
        let is_new = !self.processes.contains_key(&process);
        if is_new && self.processes.len() >= limits::REPORT_PROCESSES {
            return false;
        }
        if is_new && self.processes.len() + 1 == limits::REPORT_PROCESSES {
            warn!(processes = limits::REPORT_PROCESSES, "no further process is listened to");
        }
        let round = report.round;
        let begin = || Process { heard_at: now, round, said: HashMap::new() };
        let process = self.processes.entry(process).or_insert_with(begin);
        process.heard_at = now;
        process.hear(report)
    }

    /// Drops who was silent for too long; tells whether there was one.
    pub(super) fn drop_silent(&mut self, now: Duration) -> bool {
        let before = self.processes.len();
        self.processes
            .retain(|_, process| now.saturating_sub(process.heard_at) < limits::REPORT_SILENCE);
        self.processes.len() != before
    }

    /// What each says of the Subscription with this uid.
    pub(super) fn of(&self, uid: &Text) -> impl Iterator<Item = Health> {
        let said = self.processes.values().filter_map(|process| process.said.get(uid));
        said.map(|said| said.health)
    }
}

impl Process {
    fn hear(&mut self, report: Report) -> bool {
        let mut is_news = false;
        if report.round != self.round {
            let over = std::mem::replace(&mut self.round, report.round);
            let before = self.said.len();
            // A report of the last round may have been lost: one of the one before counts as well.
            self.said.retain(|_, said| over.saturating_sub(said.round) <= 1);
            is_news = self.said.len() != before;
        }
        for Said { uid, health } in report.subscriptions {
            is_news |= self.take(uid, health);
        }
        is_news
    }

    fn take(&mut self, uid: Text, health: Health) -> bool {
        let before = if health == Health::default() {
            self.said.remove(&uid)
        } else if self.said.len() < limits::REPORT_KEPT || self.said.contains_key(&uid) {
            self.said.insert(uid, InRound { health, round: self.round })
        } else {
            return false;
        };
        before.map(|said| said.health).unwrap_or_default() != health
    }
}
