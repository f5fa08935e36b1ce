//! The first stage of a commit: takes what is queued and writes it, in one write.
//!
//! Records are copied into one buffer that is used again and again, rather than gathered from where
//! they lie: an event of 1 KiB is copied in less time than the kernel takes to walk two more
//! slices, and the buffer is where alignment and heads are put in place.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use eventbus_core::broker::AppendError;
use eventbus_core::cursor::Spot;
use eventbus_core::{Durability, Position, limits};

use crate::bytes::batch::{self, BatchHead, Kind};
use crate::bytes::record::RecordHead;
use crate::bytes::{Seed, pad};
use crate::disk::is_full;
use crate::flow::{Commit, Committed, Waiting};
use crate::index;
use crate::queue::{Pending, Placed, Reply};
use crate::remembered::Remembered;
use crate::segment::Segment;
use crate::segments::{Beginning, RollError};
use crate::shared::Shared;
use crate::signal::{Next, Now};
use crate::telemetry::add;

/// Writes commits.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    active: Arc<Segment>,
    /// Where the next commit begins in the active segment.
    at: u64,
    next: Position,
    /// The last position that was written.
    written: Position,
    /// The last position left out of which the disk knows: by the ledger when the log was opened,
    /// by the head of a segment since.
    skipped: Position,
    committed_ms: u64,
    /// After a failed write the rest of the segment is not used.
    abandoned: bool,
    remembered: Remembered,
    buffer: Vec<u8>,
    taken: Vec<Pending>,
}

/// Where writing goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resume {
    pub(crate) at: u64,
    pub(crate) next: Position,
    /// The last position of which the segments tell.
    pub(crate) synced: Position,
    pub(crate) committed_ms: u64,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        active: Arc<Segment>,
        resume: Resume,
        remembered: Remembered,
    ) -> Self {
        let Resume { at, next, synced, committed_ms } = resume;
        Self {
            shared,
            active,
            at,
            next,
            written: synced,
            skipped: Position(next.0 - 1),
            committed_ms,
            abandoned: false,
            remembered,
            buffer: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// Writes one commit, if anything is queued.
    pub(crate) fn step(&mut self, _: Now) -> Next {
        let synced = self.shared.flow.state().synced;
        let known = synced.max(self.skipped);
        if self.next.0 - known.0 > limits::UNSYNCED_POSITIONS - limits::APPEND_QUEUE_EVENTS as u64 {
            return Next::SleepFor(limits::SYNC_TIME / 10);
        }
        let mut taken = std::mem::take(&mut self.taken);
        let room = limits::COMMIT_BYTES.min(self.shared.limits.batch_bytes);
        self.shared.queue.take(room, &mut taken);
        if taken.is_empty() {
            self.taken = taken;
            return Next::Sleep;
        }
        if self.shared.health.failed().is_some() {
            taken.clear();
        } else {
            // Not before it was taken: no event is committed at a time before it was published.
            self.store(&mut taken, self.shared.now());
        }
        self.taken = taken;
        Next::Again
    }

    /// Stores what is new; what could not be stored is not remembered.
    fn store(&mut self, taken: &mut Vec<Pending>, now: Now) {
        let due_ms = taken.iter().filter_map(|pending| pending.due_ms).max();
        self.committed_ms = self.committed_ms.max(now.ms).max(due_ms.unwrap_or_default());
        self.shared.committed_ms.store(self.committed_ms, Ordering::Release);
        let Self { shared, remembered, committed_ms, .. } = self;
        remembered.forget(*committed_ms);
        let before = remembered.len();
        let waiting = shared.delays.ids();
        for pending in &mut *taken {
            let is_due = pending.due_ms.is_some();
            pending.leave_out(|event| {
                let waits = !is_due && waiting.contains(&event.deduplication);
                !waits && remembered.admit(event.deduplication, *committed_ms)
            });
            pending.find(|id| remembered.knows(id));
        }
        drop(waiting);
        let stored = match self.make_room(taken) {
            Ok(()) => self.commit(taken, now),
            Err(error) => Err(error),
        };
        match stored {
            Ok(()) => self.remembered.forget(self.committed_ms),
            Err(error) => {
                self.remembered.take_back(before);
                refuse(taken, &error);
            }
        }
    }

    /// Begins the next segment when the commit does not fit the active one.
    fn make_room(&mut self, taken: &[Pending]) -> Result<(), AppendError> {
        let new = taken.iter().filter(|pending| !pending.events.is_empty());
        let bytes: u64 = new.map(|pending| pending.bytes as u64).sum();
        // Room is left for the gap that a recovery may have to write behind the last whole commit.
        let end = self.at + bytes + batch::BYTES as u64;
        if bytes == 0 || !self.abandoned && end <= self.active.size {
            return Ok(());
        }
        let beginning = Beginning {
            number: self.active.number + 1,
            base: self.next,
            before: self.written,
            epoch: self.shared.epoch,
            size: self.shared.segments.segment_bytes,
        };
        let leaves_out = beginning.before.next() < beginning.base;
        let rolled = self.shared.segments.roll(beginning).and_then(|segment| {
            // A power cut must not take the word on which positions are left out.
            let said = if leaves_out { segment.file.sync() } else { Ok(()) };
            said.map_err(RollError::Io).map(|()| segment)
        });
        match rolled {
            Ok(segment) => {
                let last = Position(self.next.0 - 1);
                if leaves_out {
                    self.skipped = last;
                }
                self.active.set_full(last);
                self.active = segment;
                self.at = crate::bytes::segment::CONTENT_AT;
                self.abandoned = false;
                self.shared.upkeep.raise();
                Ok(())
            }
            Err(RollError::Full) => {
                self.shared.set_full(true);
                Err(self.full())
            }
            Err(RollError::Io(error)) => {
                let reason = format!("a segment could not be begun: {error}");
                self.shared.poison(reason.clone());
                Err(AppendError::Unavailable(reason))
            }
        }
    }

    fn commit(&mut self, taken: &mut Vec<Pending>, now: Now) -> Result<(), AppendError> {
        let (events, heads) = self.fill(taken);
        if events.is_empty() {
            self.hand_over(taken, None, now);
            return Ok(());
        }
        let last = Position(self.next.0 + events.len() as u64 - 1);
        if let Err(error) = self.active.file.write_at(&self.buffer, self.at) {
            return Err(self.failed(last, &error));
        }
        self.active.add(heads.iter().map(|(head, at)| (head, *at)));
        let telemetry = &self.shared.telemetry;
        telemetry.commits.record(events.len() as u64);
        add(&telemetry.bytes, self.buffer.len() as u64);
        self.at += self.buffer.len() as u64;
        self.shared.next.store(last.next().0, Ordering::Release);
        let needs_sync = |pending: &Pending| {
            pending.durability >= Durability::Synced && !pending.events.is_empty()
        };
        let needs_sync = taken.iter().any(needs_sync);
        let commit = Commit { last, committed_ms: self.committed_ms, needs_sync, events };
        self.hand_over(taken, Some(commit), now);
        (self.next, self.written) = (last.next(), last);
        Ok(())
    }

    /// Puts the commit's bytes into the buffer.
    fn fill(&mut self, taken: &[Pending]) -> (Vec<Committed>, Vec<(RecordHead, u64)>) {
        self.buffer.clear();
        let count = taken.iter().map(|pending| pending.events.len()).sum();
        let (mut events, mut heads) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let synced_upto = self.shared.flow.state().synced;
        let seed = self.active.seed(self.shared.log);
        let mut rest = taken;
        while let Some(first) = rest.first() {
            // Events that stand alone share one head; an atomic batch has its own.
            let alone = rest.iter().take_while(|pending| !pending.atomic).count();
            let (run, after) = rest.split_at(if first.atomic { 1 } else { alone });
            rest = after;
            let head_at = self.buffer.len();
            self.buffer.resize(head_at + batch::BYTES, 0);
            let before = events.len();
            for pending in run {
                self.fill_records(pending, seed, &mut events, &mut heads);
            }
            if events.len() == before {
                self.buffer.truncate(head_at);
                continue;
            }
            let head = BatchHead {
                kind: if first.atomic { Kind::Atomic } else { Kind::Records },
                epoch: self.shared.epoch,
                base: Position(self.next.0 + before as u64),
                count: (events.len() - before) as u32,
                length: (self.buffer.len() - head_at - batch::BYTES) as u32,
                committed_ms: self.committed_ms,
                synced_upto,
            };
            let head = head.encode(self.shared.log, seed);
            self.buffer[head_at..head_at + batch::BYTES].copy_from_slice(&head);
        }
        (events, heads)
    }

    fn fill_records(
        &mut self,
        pending: &Pending,
        seed: Seed,
        events: &mut Vec<Committed>,
        heads: &mut Vec<(RecordHead, u64)>,
    ) {
        for prepared in &pending.events {
            let at = self.at + self.buffer.len() as u64;
            let position = Position(self.next.0 + events.len() as u64);
            let head = RecordHead {
                position,
                committed_ms: self.committed_ms,
                topic_hash: prepared.topic_hash,
                deduplication: prepared.deduplication,
                epoch: self.shared.epoch,
                length: prepared.length as u32,
                checksum: prepared.checksum,
                atomic: pending.atomic,
            };
            self.buffer.extend_from_slice(&head.encode(seed));
            self.buffer.extend_from_slice(&pending.heads[prepared.head.clone()]);
            self.buffer.extend_from_slice(&prepared.event.payload);
            pad(&mut self.buffer);
            events.push(Committed {
                spot: Spot { position, place: index::place(self.active.number, at) },
                topic_hash: prepared.topic_hash,
                event: prepared.event.clone(),
                length: prepared.length,
                cached: prepared.cached,
            });
            heads.push((head, at));
        }
    }

    /// Tells the syncer and, where nothing waits for it, the router and the publishers.
    fn hand_over(&mut self, taken: &mut Vec<Pending>, commit: Option<Commit>, now: Now) {
        let mut done: Vec<(Reply, Placed)> = Vec::new();
        let mut state = self.shared.flow.state();
        if self.shared.health.failed().is_some() {
            // The log was poisoned while this was written, and those who waited were told so: these
            // would wait for ever.
            taken.clear();
            return;
        }
        let mut visible = false;
        if let Some(commit) = commit {
            visible = !commit.needs_sync && state.commits.is_empty();
            state.written = commit.last;
            state.unsynced_since.get_or_insert(now.elapsed);
            if !state.files.last().is_some_and(|file| Arc::ptr_eq(file, &self.active.file)) {
                state.files.push(self.active.file.clone());
            }
            state.commits.push_back(commit);
        }
        // What was stored before them: a repeat waits for that, if for anything.
        let mut last = self.written;
        let mut next = self.next;
        for pending in taken.drain(..) {
            let placed = Placed { first: next, repeats: pending.repeats };
            if !pending.events.is_empty() {
                next.0 += pending.events.len() as u64;
                last = Position(next.0 - 1);
            }
            let Some(reply) = pending.reply else { continue };
            let needs_sync = pending.durability >= Durability::Synced && last > state.synced;
            if needs_sync && !self.acknowledges_early() {
                state.wanted = last;
                state.waiting.push_back(Waiting { last, placed, reply });
            } else {
                done.push((reply, placed));
            }
        }
        drop(state);
        self.shared.flow.sync.raise();
        for (reply, placed) in done {
            // A publisher who is gone hears nothing.
            let _ = reply.send(Ok(placed));
        }
        if visible {
            self.shared.flow.route.raise();
        }
    }

    /// What part of a failed write is on disk is unknown, so its positions and its bytes are left
    /// behind. A full volume is the publishers' trouble alone; anything else is the log's end.
    fn failed(&mut self, last: Position, error: &std::io::Error) -> AppendError {
        self.next = last.next();
        self.abandoned = true;
        if is_full(error) {
            self.shared.segments.set_thin();
            self.shared.set_full(true);
            return self.full();
        }
        let reason = format!("a write to the log failed: {error}");
        self.shared.poison(reason.clone());
        AppendError::Unavailable(reason)
    }

    fn full(&self) -> AppendError {
        let max_bytes = self.shared.limits.max_bytes;
        AppendError::Full { used_bytes: self.shared.segments.used_bytes(), max_bytes }
    }

    #[cfg(test)]
    fn acknowledges_early(&self) -> bool {
        self.shared.mutation == crate::simulation::Mutation::AcknowledgeEarly
    }

    #[cfg(not(test))]
    fn acknowledges_early(&self) -> bool {
        false
    }
}

fn refuse(taken: &mut Vec<Pending>, error: &AppendError) {
    for pending in taken.drain(..) {
        if let Some(reply) = pending.reply {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests;
