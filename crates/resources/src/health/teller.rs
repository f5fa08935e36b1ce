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
        let all = here.iter().map(|(uid, health)| said(uid, *health)).collect();
        self.told = here;
        self.reports(all)
    }

    /// What is known `here` and was not told yet. Where that is nothing, that the process is there.
    pub fn changes(&mut self, here: HashMap<Text, Health>) -> Vec<Report> {
        let is_new = |(uid, health): &(&Text, &Health)| self.told.get(*uid) != Some(*health);
        let mut changes: Vec<Said> =
            here.iter().filter(is_new).map(|(uid, health)| said(uid, *health)).collect();
        let over = self.told.keys().filter(|uid| !here.contains_key(*uid));
        changes.extend(over.map(|uid| said(uid, Health::default())));
        self.told = here;
        self.reports(changes)
    }

    /// That the process ends, and what it said is over.
    pub fn farewell(&self) -> Report {
        Report { round: self.round, farewell: true, subscriptions: Vec::new() }
    }

    /// At least one.
    fn reports(&self, mut said: Vec<Said>) -> Vec<Report> {
        let mut reports = Vec::new();
        while !said.is_empty() || reports.is_empty() {
            let rest = said.split_off(said.len().min(limits::REPORT_SUBSCRIPTIONS));
            reports.push(Report { round: self.round, farewell: false, subscriptions: said });
            said = rest;
        }
        reports
    }
}

fn said(uid: &Text, health: Health) -> Said {
    Said { uid: uid.clone(), health }
}
