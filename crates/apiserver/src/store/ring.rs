//! Recent changes of one resource, for watchers and for lists of a moment just past.
//!
//! The writer appends and never waits; each watcher reads from where it stands, at its own pace.
//! Whoever falls behind the ring's end is told so ([`Overrun`]) and must list again: a slow watcher
//! costs itself, not the writer.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::lock;
use crate::limits;

/// What a change did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum EventKind {
    /// The object is new.
    Added,
    /// It is another than before.
    Modified,
    /// It is gone.
    Deleted,
}

impl EventKind {
    /// The word in a watch.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One committed change.
#[derive(Debug)]
pub(crate) struct Event {
    /// The revision it made.
    pub(crate) revision: u64,
    /// What it did.
    pub(crate) kind: EventKind,
    /// The object's namespace, empty for cluster-wide ones.
    pub(crate) namespace: Box<str>,
    /// The object's name.
    pub(crate) name: Box<str>,
    /// The line of a watch, serialised once for all watchers: `{"type":…,"object":…}\n`.
    pub(crate) line: Bytes,
    /// The object inside that line.
    pub(crate) body: Bytes,
    /// The object as it was before; none when it is new.
    pub(crate) before: Option<Bytes>,
}

/// The reader stands before the oldest change kept.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Overrun;

/// The changes kept of one resource.
#[derive(Debug)]
pub(crate) struct Ring {
    kept: Mutex<Kept>,
    newest: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The revision of the last change no longer kept.
    floor: u64,
}

impl Ring {
    /// An empty ring that knows nothing of what was at or before `floor`.
    pub(super) fn new(floor: u64) -> Self {
        let kept = Kept { events: VecDeque::new(), bytes: 0, floor };
        Self { kept: Mutex::new(kept), newest: watch::Sender::new(floor) }
    }

    /// Appends changes in the order of their revisions and lets go of the oldest.
    pub(super) fn publish(&self, events: impl IntoIterator<Item = Event>) {
        let mut newest = None;
        let mut kept = lock(&self.kept);
        for event in events {
            newest = Some(event.revision);
            kept.push(event);
        }
        drop(kept);
        if let Some(newest) = newest {
            self.newest.send_replace(newest);
        }
    }

    /// The changes after `revision`, oldest first: as many as have about `bytes`.
    pub(crate) fn after(&self, revision: u64, bytes: usize) -> Result<Vec<Arc<Event>>, Overrun> {
        let kept = lock(&self.kept);
        if revision < kept.floor {
            return Err(Overrun);
        }
        let start = kept.events.partition_point(|event| event.revision <= revision);
        let mut left = bytes;
        let fits = |event: &&Arc<Event>| {
            let has_room = left > 0;
            left = left.saturating_sub(event.bytes());
            has_room
        };
        Ok(kept.events.iter().skip(start).take_while(fits).map(Arc::clone).collect())
    }

    /// The revision of the newest change that is not after `revision`; where that change is no
    /// longer kept, none newer than it.
    pub(super) fn newest(&self, revision: u64) -> u64 {
        let kept = lock(&self.kept);
        let end = kept.events.partition_point(|event| event.revision <= revision);
        let newest = end.checked_sub(1).and_then(|last| kept.events.get(last));
        newest.map_or(kept.floor.min(revision), |event| event.revision)
    }

    /// Follows the revision of the newest change.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

impl Kept {
    fn push(&mut self, event: Event) {
        self.bytes += event.bytes();
        self.events.push_back(Arc::new(event));
        while self.events.len() > limits::RING_EVENTS || self.bytes > limits::RING_BYTES {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.floor = oldest.revision;
        }
    }
}

impl Event {
    /// What keeping it costs, about.
    fn bytes(&self) -> usize {
        let texts = self.namespace.len() + self.name.len();
        let before = self.before.as_ref().map_or(0, Bytes::len);
        size_of::<Self>() + texts + self.line.len() + before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: u64, bytes: usize) -> Event {
        let line = Bytes::from(vec![b'x'; bytes]);
        Event {
            revision,
            kind: EventKind::Added,
            namespace: "".into(),
            name: "n".into(),
            body: line.clone(),
            line,
            before: None,
        }
    }

    #[test]
    fn a_reader_gets_what_follows_its_revision() {
        let ring = Ring::new(10);
        ring.publish([event(11, 1), event(14, 1), event(15, 1)]);
        let revisions = |from, bytes| {
            let events = ring.after(from, bytes).unwrap();
            events.iter().map(|event| event.revision).collect::<Vec<_>>()
        };
        assert_eq!(revisions(10, usize::MAX), [11, 14, 15]);
        assert_eq!(revisions(11, 1), [14]);
        assert_eq!(revisions(13, usize::MAX), [14, 15]);
        assert_eq!(revisions(99, 9), Vec::<u64>::new());
        assert_eq!(ring.after(9, 9).unwrap_err(), Overrun);
        assert_eq!([9, 10, 13, 14, 99].map(|at| ring.newest(at)), [9, 10, 11, 14, 15]);
    }

    #[test]
    fn bytes_and_count_are_bounded() {
        let ring = Ring::new(0);
        let half = limits::RING_BYTES / 2;
        ring.publish([event(1, half), event(2, half), event(3, 1)]);
        assert_eq!(ring.after(0, 9).unwrap_err(), Overrun);
        assert_eq!(ring.after(1, usize::MAX).unwrap().len(), 2);
        let ring = Ring::new(0);
        ring.publish((1..=limits::RING_EVENTS as u64 + 1).map(|revision| event(revision, 1)));
        assert_eq!(ring.after(0, 9).unwrap_err(), Overrun);
        assert_eq!(ring.after(1, usize::MAX).unwrap().len(), limits::RING_EVENTS);
    }
}
