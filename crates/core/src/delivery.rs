//! Delivery as rules: what an attempt led to and what follows from it. Pure.

use std::ops::Deref;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::seams::Entropy;

/// What one attempt to deliver led to. Written as its [`code`](Outcome::code).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum Outcome {
    /// The subscriber answered with this HTTP status (100–599).
    Status(u16),
    /// No complete answer within `push_request_timeout_ms`.
    Timeout,
    /// No connection: refused, unreachable.
    Connect,
    /// The name of the endpoint was not found.
    Dns,
    /// The TLS handshake failed.
    Tls,
    /// The connection broke before the answer was complete.
    Broken,
    /// The answer was not HTTP, or its head was too large.
    BadAnswer,
    /// The endpoint cannot be requested: its URL does not parse.
    BadEndpoint,
}

impl Outcome {
    /// Did the subscriber take the event? Only 2xx says so.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Status(200..=299))
    }

    /// The outcome as 16 bits, as it lies on disk: a status is itself, all else is below 100.
    pub fn code(self) -> u16 {
        match self {
            Self::Status(status) => status,
            Self::Timeout => 1,
            Self::Connect => 2,
            Self::Dns => 3,
            Self::Tls => 4,
            Self::Broken => 5,
            Self::BadAnswer => 6,
            Self::BadEndpoint => 7,
        }
    }

    /// Reads [`Outcome::code`] back; an unknown code is [`Outcome::Broken`].
    pub fn from_code(code: u16) -> Self {
        match code {
            100.. => Self::Status(code),
            1 => Self::Timeout,
            2 => Self::Connect,
            3 => Self::Dns,
            4 => Self::Tls,
            6 => Self::BadAnswer,
            7 => Self::BadEndpoint,
            _ => Self::Broken,
        }
    }

    /// A short word for metrics and reasons.
    pub fn word(self) -> &'static str {
        match self {
            Self::Status(200..=299) => "success",
            Self::Status(300..=399) => "redirect",
            Self::Status(400..=499) => "client_error",
            Self::Status(500..=599) => "server_error",
            Self::Status(_) => "other_status",
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Broken => "broken",
            Self::BadAnswer => "bad_answer",
            Self::BadEndpoint => "bad_endpoint",
        }
    }
}

impl From<u16> for Outcome {
    fn from(code: u16) -> Self {
        Self::from_code(code)
    }
}

impl From<Outcome> for u16 {
    fn from(outcome: Outcome) -> Self {
        outcome.code()
    }
}

/// One attempt, as remembered beside an event that waits for its retry. Eight bytes of facts,
/// because 65,536 events of a subscription may each remember ten. Written as these three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u16, u16)", into = "(u32, u16, u16)")]
pub struct Attempt {
    /// When it began: seconds since 1970.
    pub at_s: u32,
    /// How long it took in milliseconds; the longest timeout, 60,000, fits.
    pub took_ms: u16,
    /// What it led to ([`Outcome::code`]).
    pub outcome_code: u16,
}

impl Attempt {
    /// An attempt that began at `at_ms` (milliseconds since 1970) and took `took_ms`.
    pub fn new(at_ms: u64, took_ms: u64, outcome: Outcome) -> Self {
        Self {
            at_s: u32::try_from(at_ms / 1000).unwrap_or(u32::MAX),
            took_ms: u16::try_from(took_ms).unwrap_or(u16::MAX),
            outcome_code: outcome.code(),
        }
    }

    /// What it led to.
    pub fn outcome(self) -> Outcome {
        Outcome::from_code(self.outcome_code)
    }
}

impl From<(u32, u16, u16)> for Attempt {
    fn from((at_s, took_ms, outcome_code): (u32, u16, u16)) -> Self {
        Self { at_s, took_ms, outcome_code }
    }
}

impl From<Attempt> for (u32, u16, u16) {
    fn from(attempt: Attempt) -> Self {
        (attempt.at_s, attempt.took_ms, attempt.outcome_code)
    }
}

/// The last attempts made for an event, oldest first, at most [`limits::ATTEMPTS_REMEMBERED`]. They
/// lie in place: what waits has them from its first attempt on, and would grow with each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Attempt>", into = "Vec<Attempt>")]
pub struct Attempts(ArrayVec<Attempt, { limits::ATTEMPTS_REMEMBERED }>);

impl Attempts {
    /// Remembers one more, and forgets the oldest where there is no room.
    pub fn push(&mut self, attempt: Attempt) {
        if self.0.is_full() {
            self.0.remove(0);
        }
        self.0.push(attempt);
    }
}

impl Deref for Attempts {
    type Target = [Attempt];

    fn deref(&self) -> &[Attempt] {
        &self.0
    }
}

impl FromIterator<Attempt> for Attempts {
    fn from_iter<I: IntoIterator<Item = Attempt>>(attempts: I) -> Self {
        let mut last = Self::default();
        attempts.into_iter().for_each(|attempt| last.push(attempt));
        last
    }
}

impl From<Vec<Attempt>> for Attempts {
    fn from(attempts: Vec<Attempt>) -> Self {
        attempts.into_iter().collect()
    }
}

impl From<Attempts> for Vec<Attempt> {
    fn from(attempts: Attempts) -> Self {
        attempts.to_vec()
    }
}

/// What was tried for an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Attempts made.
    pub attempts: u32,
    /// The last of them.
    pub last: Attempts,
}

impl Tried {
    /// The same after one more attempt, if one was made.
    #[must_use]
    pub fn and(mut self, attempt: Option<Attempt>) -> Self {
        if let Some(attempt) = attempt {
            self.attempts = self.attempts.saturating_add(1);
            self.last.push(attempt);
        }
        self
    }
}

/// What is to become of a leased event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The subscriber has it: done.
    Ack,
    /// The subscription does not want it: done.
    Skip,
    /// Try again, not before `due_ms` (wall clock, milliseconds since 1970).
    Retry {
        /// When the event may be leased again.
        due_ms: u64,
    },
    /// Give it up: it is stored as a dead letter, and then settled.
    DeadLetter {
        /// Why.
        reason: DeadLetterReason,
    },
    /// Give it back as if it had never been leased.
    Release,
}

/// Why an event was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeadLetterReason {
    /// As many attempts were made as may be.
    Exhausted,
    /// The subscriber refused it for good.
    Refused,
    /// Its time was over before it was delivered.
    Expired,
}

impl DeadLetterReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Exhausted, Self::Refused, Self::Expired];

    /// The word under which it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Refused => "refused",
            Self::Expired => "expired",
        }
    }
}

/// Decides what follows from an attempt: 2xx is done, everything else is tried again after the
/// backoff.
///
/// `attempts` counts those made before this one; `now_ms` is wall-clock time.
pub fn verdict(outcome: Outcome, attempts: u32, now_ms: u64, entropy: &dyn Entropy) -> Verdict {
    if outcome.is_success() {
        return Verdict::Ack;
    }
    Verdict::Retry { due_ms: now_ms + backoff_ms(attempts, entropy.next_u64()) }
}

/// The pause before the next attempt in milliseconds: 1 s, doubling, at most 30 s, each ±20 %.
fn backoff_ms(attempts: u32, dice: u64) -> u64 {
    let doubled = limits::BACKOFF_FIRST_MS.saturating_mul(1u64 << attempts.min(32));
    let pause_ms = doubled.min(limits::BACKOFF_MAX_MS);
    let spread_ms = pause_ms * limits::BACKOFF_JITTER_PERCENT / 100;
    pause_ms - spread_ms + dice % (2 * spread_ms + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_from_one_second_to_thirty_and_spreads_by_a_fifth() {
        for (attempts, pause_ms) in
            [(0, 1_000), (1, 2_000), (4, 16_000), (5, 30_000), (40, 30_000), (u32::MAX, 30_000)]
        {
            let spread_ms = pause_ms / 5;
            assert_eq!(backoff_ms(attempts, 0), pause_ms - spread_ms);
            assert_eq!(backoff_ms(attempts, 2 * spread_ms), pause_ms + spread_ms);
            assert_eq!(backoff_ms(attempts, 2 * spread_ms + 1), pause_ms - spread_ms);
        }
    }

    #[test]
    fn every_outcome_survives_its_code() {
        let outcomes = [
            Outcome::Status(200),
            Outcome::Status(503),
            Outcome::Timeout,
            Outcome::Connect,
            Outcome::Dns,
            Outcome::Tls,
            Outcome::Broken,
            Outcome::BadAnswer,
            Outcome::BadEndpoint,
        ];
        for outcome in outcomes {
            assert_eq!(Outcome::from_code(outcome.code()), outcome);
        }
    }

    #[test]
    fn only_2xx_is_done() {
        let entropy = |_: ()| 0u64;
        struct Dice<F>(F);
        impl<F: Fn(()) -> u64 + Send + Sync + 'static> Entropy for Dice<F> {
            fn next_u64(&self) -> u64 {
                (self.0)(())
            }
        }
        let dice = Dice(entropy);
        for status in [200, 204, 299] {
            assert_eq!(verdict(Outcome::Status(status), 0, 7, &dice), Verdict::Ack);
        }
        for outcome in [Outcome::Status(199), Outcome::Status(302), Outcome::Timeout] {
            assert_eq!(verdict(outcome, 0, 7, &dice), Verdict::Retry { due_ms: 807 });
        }
    }
}
