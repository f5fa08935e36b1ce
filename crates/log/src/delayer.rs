//! Keeps delayed events in the vault, and stores them in the log when they are due.
//!
//! The two share no commit, so an event that is due goes this way: it is appended under a hash that
//! is the same at every try, synced, and only then removed from the vault. A crash in between finds
//! it in both, which the segments tell when the log is opened. One thread does both, so none is on
//! its way into the log while another of its id asks whether it is known.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use eventbus_core::broker::AppendError;
use eventbus_core::{Receipt, limits};
use tokio::sync::oneshot;

use crate::delays::Delay;
use crate::disk::is_full;
use crate::index::TIME_STEP_MS;
use crate::queue::{Pending, Placed};
use crate::segments::Segments;
use crate::shared::Shared;
use crate::signal::{Next, Now};
use crate::telemetry::LogEvent;
use crate::vault::{DelayedKey, Due, Kept, Vault, Waiting};

/// The longest sleep while an event waits: the wall clock may jump, and the sleep would not notice.
const SLEEP_MAX: Duration = Duration::from_millis(250);

/// Those in the vault that are in the log, too, because a crash came between. An event is stored
/// when it is due and not before: so what is due later than the last commit is not among them, and
/// the others are looked for in what was stored since they were due.
pub(crate) fn stored_already(
    vault: &Vault,
    segments: &Segments,
    committed_ms: u64,
) -> io::Result<Vec<DelayedKey>> {
    let log = segments.log;
    let due = vault.due_until(committed_ms)?;
    let Some(first_due_ms) = due.iter().map(|(_, due_ms)| *due_ms).min() else {
        return Ok(Vec::new());
    };
    let mut missing: HashMap<u128, (DelayedKey, u64)> =
        due.into_iter().map(|(key, due_ms)| (key.hash(log), (key, due_ms))).collect();
    let mut stored = Vec::new();
    for segment in segments.all() {
        let is_of = |hash: &u128, ms: u64| missing.get(hash).is_some_and(|(_, due)| ms >= *due);
        let may_hold = segment.facts().last_ms >= first_due_ms
            && segment.ids()?.iter().any(|(ms, hash)| is_of(hash, ms + TIME_STEP_MS));
        if !may_hold {
            continue;
        }
        for (ms, hash) in segment.exact_ids(log)? {
            if missing.get(&hash).is_some_and(|(_, due_ms)| ms >= *due_ms) {
                stored.extend(missing.remove(&hash).map(|(key, _)| key));
            }
        }
    }
    Ok(stored)
}

/// Keeps events, and stores them when they are due.
pub(crate) struct Delayer {
    shared: Arc<Shared>,
    /// What the vault holds; `None` until it is read, and after a change whose end is unknown.
    waiting: Option<Waiting>,
    doing: Doing,
    /// These are stored, and are still in the vault. Nothing else is stored meanwhile, so they are
    /// few.
    stored: Vec<DelayedKey>,
    /// After something failed nothing is moved before this time.
    again_at: Duration,
    /// Did the vault fail when it was last used?
    fails: bool,
    waker: Waker,
}

/// What the writer does.
type Answer = oneshot::Receiver<Result<Placed, AppendError>>;

/// One thing at a time.
enum Doing {
    Nothing,
    /// The writer is asked which of these it remembers as stored.
    Asking(Vec<Delay>, Answer),
    /// The writer stores these.
    Storing(Vec<DelayedKey>, Answer),
}

impl Delayer {
    /// `stored` are those in the vault that are in the log, too. They are removed before anything
    /// is committed that could make the log forget them.
    pub(crate) fn new(shared: Arc<Shared>, stored: Vec<DelayedKey>) -> io::Result<Self> {
        let waker = Waker::from(shared.delays.clone());
        let (doing, again_at) = (Doing::Nothing, Duration::ZERO);
        let mut delayer =
            Self { shared, waiting: None, doing, stored, again_at, fails: false, waker };
        // Before anything is appended: what waits is known, and a repeat of it, too.
        delayer.waiting()?;
        // Where that fails it is tried again: a full disk keeps no log from being opened.
        let _ = delayer.remove_stored(delayer.shared.now());
        Ok(delayer)
    }

    /// Goes on with what it does, if it can.
    pub(crate) fn step(&mut self, now: Now) -> Next {
        let before = self.waiting;
        let next = self.go_on(now);
        if let Some(waiting) = self.waiting.filter(|waiting| Some(*waiting) != before) {
            self.shared.delays.note(waiting);
        }
        next
    }

    fn go_on(&mut self, now: Now) -> Next {
        let doing = std::mem::replace(&mut self.doing, Doing::Nothing);
        if self.shared.health.failed().is_some() {
            // Dropping what is asked for answers it: see `Log::delay`.
            drop(self.shared.delays.take());
            return Next::Sleep;
        }
        match doing {
            Doing::Nothing => self.begin(now),
            Doing::Asking(turn, mut answer) => match self.poll(&mut answer) {
                Poll::Pending => self.wait_in(Doing::Asking(turn, answer)),
                Poll::Ready(known) => {
                    self.keep_unknown(turn, known, now);
                    Next::Again
                }
            },
            Doing::Storing(due, mut answer) => match self.poll(&mut answer) {
                Poll::Pending => self.wait_in(Doing::Storing(due, answer)),
                Poll::Ready(Ok(_)) => {
                    self.stored = due;
                    let _ = self.remove_stored(now);
                    Next::Again
                }
                Poll::Ready(Err(_)) => {
                    self.pause(now);
                    Next::Again
                }
            },
        }
    }

    /// Takes what is queued, or else what is due.
    fn begin(&mut self, now: Now) -> Next {
        let turn = self.leave_out_waiting(self.shared.delays.take());
        if turn.is_empty() {
            return self.store_due(now);
        }
        let ids: Vec<u128> = turn.iter().filter_map(|delay| delay.id).collect();
        if ids.is_empty() {
            self.keep(turn, now);
            return Next::Again;
        }
        match self.give(Pending::asking(ids)) {
            Ok(answer) => self.doing = Doing::Asking(turn, answer),
            Err(error) => refuse(turn, &error),
        }
        Next::Again
    }

    /// Answers those of a turn whose ids wait already: full or not, nothing is to be kept for them.
    fn leave_out_waiting(&self, turn: Vec<Delay>) -> Vec<Delay> {
        let ids = self.shared.delays.ids();
        let waits = |delay: &Delay| delay.id.is_some_and(|id| ids.contains(&id));
        let (repeats, turn) = turn.into_iter().partition(waits);
        drop(ids);
        for repeat in Vec::<Delay>::into_iter(repeats) {
            let _ = repeat.reply.send(Ok(Receipt::Duplicate));
        }
        turn
    }

    /// Keeps those of a turn whose ids are not `known`.
    fn keep_unknown(&mut self, turn: Vec<Delay>, known: Result<Placed, AppendError>, now: Now) {
        let known = match known {
            Ok(placed) => placed.repeats,
            Err(error) => return refuse(turn, &error),
        };
        let mut known = known.into_iter().peekable();
        let mut asked = 0;
        let mut unknown = Vec::new();
        for delay in turn {
            let at = asked;
            asked += usize::from(delay.id.is_some());
            if delay.id.is_some() && known.next_if_eq(&at).is_some() {
                let _ = delay.reply.send(Ok(Receipt::Duplicate));
            } else {
                unknown.push(delay);
            }
        }
        self.keep(unknown, now);
    }

    /// Keeps a turn, and then stores what is due: so neither waits for the other for ever.
    fn keep(&mut self, mut turn: Vec<Delay>, now: Now) {
        if turn.is_empty() {
            let _ = self.store_due(now);
            return;
        }
        // What is stored when it is due or later is it, and no event of its id that was stored
        // before and forgotten, even where the clock was set back: see `stored_already`.
        let committed_ms = self.shared.committed_ms.load(Ordering::Acquire);
        for delay in &mut turn {
            let least_ms = if delay.id.is_some() { committed_ms + 1 } else { 0 };
            delay.due_ms = delay.due_ms.max(now.ms).max(least_ms);
        }
        let kept = self.waiting().and_then(|mut waiting| {
            let kept = self.shared.vault.keep(&turn, &mut waiting)?;
            Ok((kept, waiting))
        });
        match self.noted(kept) {
            Ok((kept, waiting)) => {
                self.waiting = Some(waiting);
                // Before anybody is told: what is published after that is a repeat.
                self.shared.delays.ids().extend(turn.iter().zip(&kept).filter_map(fresh_id));
                for (delay, kept) in turn.into_iter().zip(kept) {
                    let _ = delay.reply.send(match kept {
                        Kept::Fresh => Ok(Receipt::Delayed),
                        Kept::Repeat => Ok(Receipt::Duplicate),
                        Kept::Full => Err(full(waiting.bytes)),
                    });
                }
            }
            Err(error) => {
                self.waiting = None;
                let error = match is_full(&error) {
                    true => AppendError::NoRoom,
                    false => AppendError::Unavailable(format!("the vault failed: {error}")),
                };
                refuse(turn, &error);
            }
        }
        let _ = self.store_due(now);
    }

    /// Gives the writer what is due, once what it stored before is removed.
    fn store_due(&mut self, now: Now) -> Next {
        if self.shared.delays.signal.is_stopped() {
            let _ = self.remove_stored(now);
            return Next::Sleep;
        }
        if now.elapsed < self.again_at {
            return Next::SleepFor(self.again_at - now.elapsed);
        }
        if self.remove_stored(now).is_err() {
            return self.pause(now);
        }
        let Ok(waiting) = self.waiting() else { return self.pause(now) };
        let now_ms = self.due_ms(now);
        match waiting.next_due_ms {
            None => return Next::Sleep,
            Some(due_ms) if due_ms > now_ms => {
                return Next::SleepFor(Duration::from_millis(due_ms - now_ms).min(SLEEP_MAX));
            }
            Some(_) if self.shared.health.is_full() => return self.pause(now),
            Some(_) => {}
        }
        // Half of what surely fits, so that all of them fit together.
        match self.shared.vault.due(now_ms, self.shared.limits.batch_bytes / 2) {
            Ok(due) if !due.is_empty() => self.store(due, now),
            _ => {
                self.waiting = None;
                self.pause(now)
            }
        }
    }

    /// What is due until then is stored now.
    fn due_ms(&self, now: Now) -> u64 {
        #[cfg(test)]
        if self.shared.mutation == crate::simulation::Mutation::StoreEarly {
            return now.ms + 5_000;
        }
        now.ms
    }

    fn store(&mut self, due: Vec<Due>, now: Now) -> Next {
        let mut pending = Pending::due(now.ms);
        let (mut keys, mut set_aside) = (Vec::new(), Vec::new());
        for Due { key, event, bytes } in due {
            let fits = self.shared.fits(bytes).map_err(|error| error.to_string());
            match fits.and(event) {
                Ok(event) => {
                    pending.add_as(key.hash(self.shared.log), event, true);
                    keys.push(key);
                }
                Err(reason) => {
                    let number = key.number;
                    self.shared.observer.observe(&LogEvent::SetAside { number, reason });
                    set_aside.push(key);
                }
            }
        }
        if !set_aside.is_empty() && self.set_aside(&set_aside, now).is_err() {
            return self.pause(now);
        }
        if keys.is_empty() {
            return Next::Again;
        }
        #[cfg(test)]
        if self.shared.mutation == crate::simulation::Mutation::RemoveFirst {
            self.stored.clone_from(&keys);
            let _ = self.remove_stored(now);
        }
        match self.give(pending) {
            Ok(answer) => self.doing = Doing::Storing(keys, answer),
            Err(_) => return self.pause(now),
        }
        Next::Again
    }

    /// Lets these wait, so that they do not hold up others.
    fn set_aside(&mut self, these: &[DelayedKey], now: Now) -> io::Result<()> {
        let mut waiting = self.waiting()?;
        let pause_ms = u64::try_from(limits::DUE_SET_ASIDE.as_millis()).unwrap_or(u64::MAX);
        let due_ms = now.ms.saturating_add(pause_ms);
        let done = self.shared.vault.postpone(these, due_ms, &mut waiting);
        self.waiting = done.is_ok().then_some(waiting);
        done
    }

    /// Removes what is stored from the vault, if it can.
    fn remove_stored(&mut self, now: Now) -> io::Result<()> {
        if self.stored.is_empty() {
            return Ok(());
        }
        let removed = self.waiting().and_then(|mut waiting| {
            self.shared.vault.remove_stored(&self.stored, &mut waiting)?;
            Ok(waiting)
        });
        let removed = self.noted(removed);
        self.waiting = removed.as_ref().ok().copied();
        if let Err(error) = removed {
            self.pause(now);
            return Err(error);
        }
        let ids = self.stored.drain(..).filter_map(|key| key.id);
        self.shared.delays.forget(ids);
        Ok(())
    }

    /// Says once that the vault fails, and once that it works again.
    fn noted<T>(&mut self, used: io::Result<T>) -> io::Result<T> {
        let fails = used.as_ref().err();
        match fails {
            Some(error) if !self.fails => {
                let reason = error.to_string();
                self.shared.observer.observe(&LogEvent::VaultFails { reason });
            }
            None if self.fails => self.shared.observer.observe(&LogEvent::VaultWorks),
            _ => {}
        }
        self.fails = fails.is_some();
        used
    }

    /// What the vault holds, read where it is not known.
    fn waiting(&mut self) -> io::Result<Waiting> {
        if let Some(waiting) = self.waiting {
            return Ok(waiting);
        }
        let waiting = self.shared.vault.waiting()?;
        *self.shared.delays.ids() = self.shared.vault.ids()?;
        self.waiting = Some(waiting);
        Ok(waiting)
    }

    fn give(&self, mut pending: Pending) -> Result<Answer, AppendError> {
        let (reply, answer) = oneshot::channel();
        pending.reply = Some(reply);
        self.shared.queue.push(vec![pending])?;
        Ok(answer)
    }

    /// The writer's answer, if it is there. At the end it is waited for: the writer ends later.
    fn poll(&self, answer: &mut Answer) -> Poll<Result<Placed, AppendError>> {
        let answered = if self.shared.delays.signal.is_stopped() {
            futures::executor::block_on(answer)
        } else {
            match Pin::new(answer).poll(&mut Context::from_waker(&self.waker)) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(answered) => answered,
            }
        };
        Poll::Ready(answered.unwrap_or_else(|_| Err(self.shared.unanswered())))
    }

    fn wait_in(&mut self, doing: Doing) -> Next {
        self.doing = doing;
        Next::Sleep
    }

    fn pause(&mut self, now: Now) -> Next {
        self.again_at = now.elapsed + limits::DUE_AGAIN;
        Next::SleepFor(limits::DUE_AGAIN)
    }
}

/// The id of an event that was kept, if it has one.
fn fresh_id((delay, kept): (&Delay, &Kept)) -> Option<u128> {
    delay.id.filter(|_| *kept == Kept::Fresh)
}

/// There is no room for more delayed events.
fn full(bytes: u64) -> AppendError {
    AppendError::DelaysFull { bytes }
}

fn refuse(turn: Vec<Delay>, error: &AppendError) {
    for delay in turn {
        let _ = delay.reply.send(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests;
