//! What a person at a terminal sees while it goes on: the count, and what is waited for.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::tally::Tally;
use crate::cli::Fault;
use crate::output;

/// How often the line is drawn, so that it is seen to live while nothing is answered.
const TICK: Duration = Duration::from_millis(100);

/// A line on standard error, where that is a terminal; elsewhere nothing.
pub(super) struct Progress {
    line: ProgressBar,
    /// Requests that wait to be tried again.
    waiting: Cell<usize>,
}

/// A request waits, as long as this is held.
pub(super) struct Waiting<'a>(&'a Progress);

// === impl Progress ===

impl Progress {
    /// The line, which shows from now on.
    pub(super) fn start() -> Self {
        let waiting = Cell::new(0);
        if !std::io::stderr().is_terminal() {
            return Self { line: ProgressBar::hidden(), waiting };
        }
        let plain = ProgressStyle::with_template("{spinner} {msg} {prefix}");
        let line = ProgressBar::new_spinner()
            .with_style(plain.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        line.enable_steady_tick(TICK);
        Self { line, waiting }
    }

    /// Shows what became of the events so far.
    pub(super) fn show(&self, tally: &Tally) {
        self.line.set_message(tally.to_string());
    }

    /// Shows that a request waits, and why.
    pub(super) fn wait(&self, why: &str, pause: Duration) -> Waiting<'_> {
        self.waiting.set(self.waiting.get() + 1);
        let seconds = pause.as_secs_f64().ceil();
        self.line.set_prefix(format!("waits: {why}, again in {seconds} s"));
        Waiting(self)
    }

    /// Writes a line to standard output.
    pub(super) fn print(&self, text: &str) -> Result<(), Fault> {
        self.line.suspend(|| output::line(text))
    }

    /// Takes the line away.
    pub(super) fn end(&self) {
        self.line.finish_and_clear();
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Self(progress) = self;
        progress.waiting.set(progress.waiting.get() - 1);
        if progress.waiting.get() == 0 {
            progress.line.set_prefix("");
        }
    }
}
