//! How threads sleep and are woken: a flag with a condition variable.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The time, as a step is told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// Wall clock, milliseconds since 1970.
    pub(crate) ms: u64,
    /// Since some moment of this process; never falls.
    pub(crate) elapsed: Duration,
}

/// What a step wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// There may be more to do.
    Again,
    /// Nothing to do until the signal is raised.
    Sleep,
    /// Nothing to do until then, or until this time has passed.
    SleepFor(Duration),
}

/// Wakes one thread. Raising a raised signal, or one whose thread is awake, costs no system call.
#[derive(Default)]
pub(crate) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    raised: bool,
    stopped: bool,
    asleep: bool,
}

impl Signal {
    pub(crate) fn raise(&self) {
        self.change(|state| state.raised = true);
    }

    /// Lets the thread end as soon as it has nothing to do.
    pub(crate) fn stop(&self) {
        self.change(|state| state.stopped = true);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.changed.notify_one();
        }
    }

    /// Calls `step` until the signal is stopped and there is nothing left to do.
    pub(crate) fn drive(&self, mut step: impl FnMut() -> Next) {
        loop {
            let timeout = match step() {
                Next::Again => continue,
                Next::Sleep => None,
                Next::SleepFor(timeout) => Some(timeout),
            };
            if self.sleep(timeout) {
                // Once more, now knowing that it is the last time.
                while step() == Next::Again {}
                return;
            }
        }
    }

    /// Sleeps until raised or stopped; true when stopped.
    fn sleep(&self, timeout: Option<Duration>) -> bool {
        let mut state = self.state();
        if !state.raised && !state.stopped {
            state.asleep = true;
            let waiting = |state: &mut State| !state.raised && !state.stopped;
            state = match timeout {
                None => {
                    self.changed.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner)
                }
                Some(timeout) => {
                    self.changed
                        .wait_timeout_while(state, timeout, waiting)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
            state.asleep = false;
        }
        state.raised = false;
        state.stopped
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
