//! The judge of a kill run. It knows the two files that a run leaves behind and nothing else of the
//! benchmark, so that a mistake there does not hide itself here.
//!
//! - `published.log`: `S <event>` before an event is sent, `A <event>` once it is acknowledged;
//! - `delivered.log`: `D <subscription> <event>` before a delivery is answered.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use serde::Serialize;

/// How many lost events are named.
const NAMED: usize = 10;

/// What the files say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::bench) struct Verdict {
    /// Events that were sent.
    pub(in crate::bench) sent: u64,
    /// Events that the bus acknowledged.
    pub(in crate::bench) acknowledged: u64,
    /// Deliveries of different events, over all Subscriptions.
    pub(in crate::bench) delivered: u64,
    /// Acknowledged events that did not arrive, over all Subscriptions. Must be none.
    pub(in crate::bench) lost: u64,
    /// The first of them.
    pub(in crate::bench) first_lost: Vec<u64>,
    /// Deliveries of an event that had arrived before.
    pub(in crate::bench) duplicates: u64,
    /// Deliveries of events that were sent and never acknowledged: legal, their fate was unknown.
    pub(in crate::bench) unacknowledged_delivered: u64,
    /// Deliveries of events that were never sent. Must be none.
    pub(in crate::bench) never_sent: u64,
}

/// One byte an event: what happened to it.
#[derive(Default)]
struct Ledger(Vec<u8>);

const SENT: u8 = 1;
const ACKNOWLEDGED: u8 = 2;
const ARRIVED: u8 = 4;

/// Reads both files and judges them; every one of `subscriptions` should have got every event.
pub(in crate::bench) fn judge(
    published: impl BufRead,
    delivered: impl BufRead,
    subscriptions: u32,
) -> io::Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut ledger = Ledger::default();
    for line in published.lines() {
        let line = line?;
        match fields(&line)[..] {
            ["S", event] => verdict.sent += u64::from(ledger.mark(number(event)?, SENT)?),
            ["A", event] => {
                verdict.acknowledged += u64::from(ledger.mark(number(event)?, ACKNOWLEDGED)?);
            }
            _ => return Err(unreadable(&line)),
        }
    }
    let mut arrivals: BTreeMap<u64, Ledger> =
        (0..subscriptions.into()).map(|one| (one, Ledger::default())).collect();
    for line in delivered.lines() {
        let line = line?;
        let ["D", subscription, event] = fields(&line)[..] else {
            return Err(unreadable(&line));
        };
        let event = number(event)?;
        let arrived = arrivals.entry(number(subscription)?).or_default();
        let fate = ledger.of(event);
        if fate & SENT == 0 {
            verdict.never_sent += 1;
        } else if arrived.mark(event, ARRIVED)? {
            verdict.delivered += 1;
            verdict.unacknowledged_delivered += u64::from(fate & ACKNOWLEDGED == 0);
        } else {
            verdict.duplicates += 1;
        }
    }
    for arrived in arrivals.values() {
        let all = 0..ledger.0.len() as u64;
        let is_lost =
            |event: &u64| ledger.of(*event) & ACKNOWLEDGED != 0 && arrived.of(*event) == 0;
        for event in all.filter(is_lost) {
            verdict.lost += 1;
            if verdict.first_lost.len() < NAMED {
                verdict.first_lost.push(event);
            }
        }
    }
    Ok(verdict)
}

fn fields(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| unreadable(text))
}

fn unreadable(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a line of a journal: {line:?}"))
}

// === impl Ledger ===

impl Ledger {
    /// Adds a mark; false when it was there.
    fn mark(&mut self, event: u64, mark: u8) -> io::Result<bool> {
        /// A byte each: no run has more.
        const EVENTS_MAX: u64 = 1 << 32;
        if event >= EVENTS_MAX {
            return Err(unreadable(&event.to_string()));
        }
        let place = event as usize;
        if place >= self.0.len() {
            self.0.resize(place + 1, 0);
        }
        let is_new = self.0[place] & mark == 0;
        self.0[place] |= mark;
        Ok(is_new)
    }

    fn of(&self, event: u64) -> u8 {
        self.0.get(event as usize).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: &str = "S 0\nA 0\nS 1\nS 2\nA 2\nS 3\nA 3\n";

    fn verdict(delivered: &str) -> Verdict {
        judge(PUBLISHED.as_bytes(), delivered.as_bytes(), 1).unwrap()
    }

    #[test]
    fn every_acknowledged_event_once_is_flawless() {
        let verdict = verdict("D 0 2\nD 0 0\nD 0 3\n");
        let flawless = Verdict { sent: 4, acknowledged: 3, delivered: 3, ..Verdict::default() };
        assert_eq!(verdict, flawless);
    }

    #[test]
    fn a_lost_event_is_seen() {
        let verdict = verdict("D 0 0\nD 0 3\n");
        assert_eq!((verdict.lost, verdict.first_lost), (1, vec![2]));
    }

    #[test]
    fn a_duplicate_is_seen() {
        let verdict = verdict("D 0 2\nD 0 0\nD 0 3\nD 0 2\nD 0 2\n");
        assert_eq!((verdict.lost, verdict.duplicates, verdict.delivered), (0, 2, 3));
    }

    #[test]
    fn an_unacknowledged_event_may_arrive_and_is_seen() {
        let verdict = verdict("D 0 2\nD 0 0\nD 0 3\nD 0 1\n");
        assert_eq!((verdict.lost, verdict.unacknowledged_delivered), (0, 1));
    }

    #[test]
    fn an_event_that_nobody_sent_is_seen() {
        assert_eq!(verdict("D 0 2\nD 0 0\nD 0 3\nD 0 9\n").never_sent, 1);
    }

    #[test]
    fn each_subscription_is_owed_every_event() {
        let judged =
            |delivered: &str| judge(PUBLISHED.as_bytes(), delivered.as_bytes(), 2).unwrap();
        let verdict = judged("D 0 0\nD 0 2\nD 0 3\nD 1 0\nD 1 2\n");
        assert_eq!((verdict.lost, verdict.delivered, verdict.duplicates), (1, 5, 0));
        assert_eq!(judged("D 0 0\nD 0 2\nD 0 3\n").lost, 3);
    }

    #[test]
    fn a_file_that_is_no_journal_is_refused() {
        for (published, delivered) in
            [("S", ""), ("S x", ""), ("D 0 1", ""), ("", "S 1"), ("\n", "")]
        {
            assert!(judge(published.as_bytes(), delivered.as_bytes(), 1).is_err(), "{published}");
        }
        assert!(judge(&b"S 99999999999"[..], &b""[..], 1).is_err());
    }
}
