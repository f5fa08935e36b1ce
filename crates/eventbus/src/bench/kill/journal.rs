//! Writing down what a kill run has published and what has arrived, so that another can judge.
//!
//! Two files of lines, synced to disk as fast as the disk allows:
//!
//! - `published.log`: `S <event>` before an event is sent, `A <event>` once it is acknowledged;
//! - `delivered.log`: `D <subscription> <event>` before a delivery is answered.
//!
//! Events and Subscriptions are decimal numbers from zero.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::cli::Fault;

/// Lines that may wait for the disk. Whoever has one more waits with it.
const LINES_WAITING: usize = 64 * 1024;

/// A file that lines are added to, by a thread of its own. Clones write to the same file.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Journal {
    queue: mpsc::Sender<Line>,
}

/// The thread that writes. Ends when every [`Journal`] is gone.
pub(in crate::bench) struct Writer {
    thread: JoinHandle<io::Result<()>>,
}

#[derive(Clone, Copy, Debug)]
enum Line {
    Sent(u64),
    Acknowledged(u64),
    Delivered(u32, u64),
}

// === impl Journal ===

impl Journal {
    /// Creates the file; it must not exist.
    pub(in crate::bench) fn create(path: &Path) -> io::Result<(Self, Writer)> {
        let mut file = File::create_new(path)?;
        let (queue, mut lines) = mpsc::channel(LINES_WAITING);
        let work = move || {
            let mut batch = Vec::new();
            while lines.blocking_recv_many(&mut batch, LINES_WAITING) > 0 {
                let mut text = Vec::with_capacity(16 * batch.len());
                for line in batch.drain(..) {
                    writeln!(text, "{line}")?;
                }
                file.write_all(&text)?;
                file.sync_data()?;
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("journal".to_owned()).spawn(work)?;
        Ok((Self { queue }, Writer { thread }))
    }

    /// An event is about to be sent.
    pub(in crate::bench) async fn sent(&self, event: u64) -> io::Result<()> {
        self.write(Line::Sent(event)).await
    }

    /// An event was acknowledged.
    pub(in crate::bench) async fn acknowledged(&self, event: u64) -> io::Result<()> {
        self.write(Line::Acknowledged(event)).await
    }

    /// An event has arrived at a Subscription.
    pub(in crate::bench) async fn delivered(
        &self,
        subscription: u32,
        event: u64,
    ) -> io::Result<()> {
        self.write(Line::Delivered(subscription, event)).await
    }

    async fn write(&self, line: Line) -> io::Result<()> {
        let closed = |_| io::Error::other("the journal cannot be written");
        self.queue.send(line).await.map_err(closed)
    }
}

// === impl Writer ===

impl Writer {
    /// Waits until everything is on disk. Every [`Journal`] must be gone before.
    pub(in crate::bench) fn finish(self) -> Result<(), Fault> {
        let ended = self.thread.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")));
        ended.map_err(|error| Fault::Failed(format!("the journal: {error}")))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(event) => write!(formatter, "S {event}"),
            Self::Acknowledged(event) => write!(formatter, "A {event}"),
            Self::Delivered(subscription, event) => write!(formatter, "D {subscription} {event}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_there_once_it_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("published.log");
        let (journal, writer) = Journal::create(&path).unwrap();
        journal.sent(1).await.unwrap();
        journal.acknowledged(1).await.unwrap();
        journal.delivered(2, 1).await.unwrap();
        drop(journal);
        writer.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "S 1\nA 1\nD 2 1\n");
        assert!(Journal::create(&path).is_err(), "no run writes into another's");
    }
}
