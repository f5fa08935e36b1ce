//! Ready or not: the process is ready when every latch that was taken has been opened.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The named conditions of readiness. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness {
    checks: Arc<Mutex<Vec<Check>>>,
}

struct Check {
    name: &'static str,
    is_ready: Box<dyn Fn() -> bool + Send + Sync>,
}

/// One condition that holds once it was said to hold.
#[must_use = "the process is not ready until the latch is opened"]
pub struct Latch(Arc<AtomicBool>);

impl Latch {
    /// The condition holds.
    pub fn open(self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Readiness {
    /// Adds a condition that will hold from some moment on.
    pub fn latch(&self, name: &'static str) -> Latch {
        let open = Arc::new(AtomicBool::new(false));
        let latch = Latch(open.clone());
        self.check(name, move || open.load(Ordering::Acquire));
        latch
    }

    /// Adds a condition that is asked each time.
    pub fn check(&self, name: &'static str, is_ready: impl Fn() -> bool + Send + Sync + 'static) {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.push(Check { name, is_ready: Box::new(is_ready) });
    }

    /// Every condition with whether it holds, in the order in which they were added.
    pub fn state(&self) -> Vec<(&'static str, bool)> {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.iter().map(|check| (check.name, (check.is_ready)())).collect()
    }

    /// Do all conditions hold?
    pub fn is_ready(&self) -> bool {
        self.state().iter().all(|(_, is_ready)| *is_ready)
    }
}
