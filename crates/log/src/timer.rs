//! One timer for the retries of all cursors.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::shared::Shared;
use crate::signal::{Next, Now, Signal};

/// The longest sleep while a retry is pending: the wall clock may jump, and the sleep would not
/// notice.
const SLEEP_MAX: Duration = Duration::from_millis(250);

/// When each cursor's next retry falls due: at most one entry a cursor.
#[derive(Default)]
pub(crate) struct Timer {
    due: Mutex<BTreeSet<(u64, u64)>>,
    pub(crate) signal: Signal,
}

impl Timer {
    /// Moves the time of cursor `number` from `before_ms` to `due_ms`.
    pub(crate) fn set(&self, number: u64, before_ms: Option<u64>, due_ms: Option<u64>) {
        let mut due = self.due();
        if let Some(before_ms) = before_ms {
            due.remove(&(before_ms, number));
        }
        let Some(due_ms) = due_ms else { return };
        due.insert((due_ms, number));
        let is_first = due.first() == Some(&(due_ms, number));
        drop(due);
        if is_first {
            self.signal.raise();
        }
    }

    /// Takes the cursors whose time has come; says when the next one's will.
    fn take_due(&self, now_ms: u64) -> (Vec<u64>, Option<u64>) {
        let mut due = self.due();
        let later = due.split_off(&(now_ms.saturating_add(1), 0));
        let taken = std::mem::replace(&mut *due, later);
        let next_ms = due.first().map(|(due_ms, _)| *due_ms);
        (taken.into_iter().map(|(_, number)| number).collect(), next_ms)
    }

    fn due(&self) -> MutexGuard<'_, BTreeSet<(u64, u64)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the cursors whose retries fall due.
pub(crate) fn step(shared: &Arc<Shared>, now: Now) -> Next {
    let (due, next_ms) = shared.timer.take_due(now.ms);
    for number in due {
        if let Some(cursor) = shared.table.numbered(number) {
            cursor.fell_due();
        }
    }
    match next_ms {
        None => Next::Sleep,
        Some(next_ms) => {
            let wait = Duration::from_millis(next_ms.saturating_sub(now.ms).max(1));
            Next::SleepFor(wait.min(SLEEP_MAX))
        }
    }
}
