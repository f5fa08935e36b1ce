//! Tells other processes what is known here. A step machine: it makes the reports, and knows
//! nothing of how they are carried.

use std::collections::HashMap;

use eventbus_core::reconcile::Health;
use eventbus_core::report::Said;
use eventbus_core::{Report, Text, limits};

/// Makes the reports of a process.
#[derive(Debug, Default)]
pub struct Teller {
    round: u64,
    /// What was told last.
    told: HashMap<Text, Health>,
}

impl Teller {
    /// Everything that is known `here`: the others may have missed any of it.
    pub fn everything(&mut self, here: HashMap<Text, Health>) -> Vec<Report> {
        self.round += 1;
        let said: Vec<Said> = here.iter().map(|(uid, health)| said(uid, *health)).collect();
        self.told = here;
        if said.is_empty() {
            return vec![self.nothing_new()];
        }
        self.reports(said)
    }

    /// What is known `here` and was not told yet; nothing when that is nothing.
    pub fn changes(&mut self, here: HashMap<Text, Health>) -> Vec<Report> {
        let is_new = |(uid, health): &(&Text, &Health)| self.told.get(*uid) != Some(*health);
        let mut changes: Vec<Said> =
            here.iter().filter(is_new).map(|(uid, health)| said(uid, *health)).collect();
        let over = self.told.keys().filter(|uid| !here.contains_key(*uid));
        changes.extend(over.map(|uid| said(uid, Health::default())));
        self.told = here;
        self.reports(changes)
    }

    /// That the process is there, and what it said holds.
    pub fn nothing_new(&self) -> Report {
        Report { round: self.round, ..Report::default() }
    }

    /// That the process ends, and what it said is over.
    pub fn farewell(&self) -> Report {
        Report { farewell: true, ..self.nothing_new() }
    }

    fn reports(&self, said: Vec<Said>) -> Vec<Report> {
        let parts = said.chunks(limits::REPORT_SUBSCRIPTIONS);
        parts.map(|part| Report { subscriptions: part.to_vec(), ..self.nothing_new() }).collect()
    }
}

fn said(uid: &Text, health: Health) -> Said {
    Said { uid: uid.clone(), health }
}
