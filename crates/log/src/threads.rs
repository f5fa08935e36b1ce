//! The threads of a log: loops around step functions, ended in the order in which work flows.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use crate::disk::DirLock;
use crate::ledger::{self, Ledger, Request};
use crate::log::Machines;
use crate::shared::Shared;
use crate::signal::{Next, Now, Signal};
use crate::syncer::Syncer;
use crate::table::Router;
use crate::timer;
use crate::upkeep::Upkeep;
use crate::writer::Writer;

/// The running threads, in the order in which they end.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    running: Vec<(Driver, JoinHandle<()>)>,
    _lock: Option<DirLock>,
}

/// Which signal drives a thread.
type Driver = fn(&Shared) -> &Signal;

impl Threads {
    pub(crate) fn start(machines: Machines, lock: Option<DirLock>) -> io::Result<Self> {
        let Machines { shared, mut writer, mut ledger, mut delayer } = machines;
        let mut threads = Self { shared: shared.clone(), running: Vec::new(), _lock: lock };
        let mut syncer = Syncer::new(shared.clone());
        let mut router = Router::new(shared.clone());
        let mut upkeep = Upkeep::new(shared.clone());
        let (timing, syncing) = (shared.clone(), shared);
        threads.spawn("log-delayer", |s| &s.delays.signal, move |now| delayer.step(now))?;
        threads.spawn(
            "log-writer",
            |s| &s.queue.signal,
            move |now| Writer::step(&mut writer, now),
        )?;
        threads.spawn("log-syncer", |s| &s.flow.sync, move |now| syncer.step(now))?;
        threads.spawn("log-router", |s| &s.flow.route, move |now| router.step(now))?;
        threads.spawn("log-upkeep", |s| &s.upkeep, move |now| upkeep.step(now))?;
        threads.spawn("log-timer", |s| &s.timer.signal, move |now| timer::step(&timing, now))?;
        threads.spawn("ledger", |s| &s.ledger.signal, move |now| Ledger::step(&mut ledger, now))?;
        threads.spawn(
            "ledger-sync",
            |s| &s.ledger.sync,
            move |now| ledger::sync_step(&syncing, now),
        )?;
        Ok(threads)
    }

    fn spawn(
        &mut self,
        name: &'static str,
        driver: Driver,
        mut step: impl FnMut(Now) -> Next + Send + 'static,
    ) -> io::Result<()> {
        let shared = self.shared.clone();
        let thread = Builder::new().name(name.into()).spawn(move || {
            let watched = Watched { shared, name };
            driver(&watched.shared).drive(|| step(watched.shared.now()));
        })?;
        self.running.push((driver, thread));
        Ok(())
    }

    /// Ends all threads. What was queued before is written and synced.
    pub(crate) fn stop(mut self) {
        self.stop_all();
    }

    fn stop_all(&mut self) {
        let shared = self.shared.clone();
        // What was delayed before is kept, for which the writer is asked: so it is closed later.
        shared.delays.close("the log is closed");
        for (driver, thread) in self.running.drain(..) {
            let signal = driver(&shared);
            if std::ptr::eq(signal, &shared.queue.signal) {
                shared.close();
            }
            if std::ptr::eq(signal, &shared.ledger.signal) {
                let change = ledger::last_mark(&shared);
                let _ = shared.ledger.push(Request::Change { change, reply: None });
                shared.ledger.close();
            }
            signal.stop();
            // A thread that panicked has nothing left to say.
            let _ = thread.join();
        }
        shared.table.clear();
        shared.vault.close();
    }
}

/// A thread without which the log only looks well: its end by a panic is the end of the log.
struct Watched {
    shared: Arc<Shared>,
    name: &'static str,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.poison(format!("the thread {} ended by a defect", self.name));
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop_all();
    }
}
