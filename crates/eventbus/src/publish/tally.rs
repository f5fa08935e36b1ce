//! What became of all events: a line while it goes on, and the summary in the end.

use std::fmt;
use std::time::Duration;

use super::outcome::Outcome;

/// Reasons that the summary tells apart, the first that come: more are rather a list than a
/// summary, and that list is on standard output.
const REASONS: usize = 5;

/// Lines that are named for each of them.
const LINES: usize = 5;

/// What became of all events so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    published: u64,
    ignored: u64,
    duplicate: u64,
    rejected: u64,
    unsent: u64,
    reasons: Vec<Reason>,
    took: Duration,
}

/// Why events were not taken.
#[derive(Debug)]
struct Reason {
    text: String,
    events: u64,
    first_lines: Vec<u64>,
}

impl Tally {
    /// Counts an event.
    pub(super) fn add(&mut self, line: u64, outcome: &Outcome) {
        match outcome {
            Outcome::Published => self.published += 1,
            Outcome::Duplicate => self.duplicate += 1,
            Outcome::Ignored => self.ignored += 1,
            Outcome::Rejected(_) => self.rejected += 1,
            Outcome::Unsent(_) => self.unsent += 1,
        }
        if let Some(text) = outcome.reason() {
            self.explain(line, text);
        }
    }

    fn explain(&mut self, line: u64, text: String) {
        let known = self.reasons.iter().position(|reason| reason.text == text);
        let at = known.unwrap_or(self.reasons.len().min(REASONS));
        if at == self.reasons.len() {
            let text = if at < REASONS { text } else { "other reasons".to_owned() };
            self.reasons.push(Reason { text, events: 0, first_lines: Vec::new() });
        }
        let reason = &mut self.reasons[at];
        reason.events += 1;
        if reason.first_lines.len() < LINES {
            reason.first_lines.push(line);
        }
    }

    /// Says how long it has taken so far.
    pub(super) fn set_took(&mut self, took: Duration) {
        self.took = took;
    }

    /// How many events were not taken.
    pub(super) fn failed(&self) -> u64 {
        self.rejected + self.unsent
    }

    /// How many events there were.
    pub(super) fn total(&self) -> u64 {
        self.published + self.ignored + self.duplicate + self.failed()
    }

    /// Why events were not taken, a line for each of the first reasons.
    pub(super) fn reasons(&self) -> impl Iterator<Item = String> {
        self.reasons.iter().map(Reason::to_string)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, ignored, duplicate, rejected, unsent, .. } = self;
        let (total, seconds) = (self.total(), self.took.as_secs_f64());
        // A millisecond is as short as it is worth telling.
        let rate_per_s = total as f64 / seconds.max(0.001);
        write!(
            f,
            "{total} events in {seconds:.1} s, {rate_per_s:.0}/s: {published} published, {ignored} \
             ignored, {duplicate} duplicate, {rejected} rejected, {unsent} not sent"
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, events, first_lines } = self;
        let lines: Vec<String> = first_lines.iter().map(u64::to_string).collect();
        let more = if *events > LINES as u64 { ", …" } else { "" };
        write!(f, "{events} × {text}: line {}{more}", lines.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_and_names_the_first_lines() {
        let mut tally = Tally::default();
        for line in 1..=8 {
            tally.add(line, &Outcome::Unsent("why".to_owned()));
        }
        for outcome in [Outcome::Published, Outcome::Published, Outcome::Ignored] {
            tally.add(9, &outcome);
        }
        tally.set_took(Duration::from_millis(2200));
        assert_eq!(
            tally.to_string(),
            "11 events in 2.2 s, 5/s: 2 published, 1 ignored, 0 duplicate, 0 rejected, 8 not sent"
        );
        assert_eq!((tally.failed(), tally.total()), (8, 11));
        assert_eq!(tally.reasons().collect::<Vec<_>>(), ["8 × why: line 1, 2, 3, 4, 5, …"]);
    }

    #[test]
    fn however_many_reasons_there_are_few_are_told_apart() {
        let mut tally = Tally::default();
        for line in 0..100 {
            tally.add(line, &Outcome::Unsent(line.to_string()));
        }
        let reasons: Vec<String> = tally.reasons().collect();
        assert_eq!(reasons.len(), REASONS + 1);
        assert_eq!(reasons[REASONS], "95 × other reasons: line 5, 6, 7, 8, 9, …");
    }
}
