//! What a cursor knows of the events it was never given.

use std::collections::VecDeque;

use eventbus_core::cursor::Spot;
use eventbus_core::{Position, limits};

use crate::index::Stretch;

/// The events above a cursor's frontier: the next ones at hand in a ring, the others only counted.
///
/// A cursor whose ring overflowed *lags*: it finds what it was not told of by the index.
#[derive(Debug)]
pub(crate) struct Fresh {
    ring: VecDeque<Spot>,
    /// Everything of the interest up to here is, or was, in the ring.
    known_upto: Position,
    /// The last event that was only counted; above `known_upto` while the cursor lags.
    counted_upto: Position,
    /// Events in the ring and beyond it; fewer while those beyond it are still to be counted.
    count: u64,
    is_counted: bool,
}

impl Fresh {
    /// Nothing up to `from` is fresh; `count` events lie between it and `visible`.
    pub(crate) fn new(from: Position, visible: Position, count: u64) -> Self {
        let known_upto = if count == 0 { from.max(visible) } else { from };
        let ring = VecDeque::new();
        Self { ring, known_upto, counted_upto: visible, count, is_counted: true }
    }

    /// Nothing up to `from` is fresh; what lies between it and `visible` is still to be counted.
    pub(crate) fn uncounted_from(from: Position, visible: Position) -> Self {
        let (ring, known_upto) = (VecDeque::new(), from);
        Self { ring, known_upto, counted_upto: visible, count: 0, is_counted: false }
    }

    pub(crate) fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// Begins a count, perhaps again after one that failed: it is to find what lies there, and
    /// nothing else may be put in meanwhile.
    pub(crate) fn begin_count(&mut self) -> Stretch {
        self.count = self.ring.len() as u64;
        Stretch { after: self.known_upto, upto: self.counted_upto }
    }

    /// The count that was missing.
    pub(crate) fn end_count(&mut self, beyond_ring: u64) {
        self.count += beyond_ring;
        self.is_counted = true;
    }

    /// May there be something to give out?
    pub(crate) fn has_more(&self) -> bool {
        self.count > 0 || !self.is_counted
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The next event at hand.
    pub(crate) fn first(&self) -> Option<Spot> {
        self.ring.front().copied()
    }

    /// Below this position there is nothing fresh; `None` when nothing is.
    pub(crate) fn first_position(&self) -> Option<Position> {
        self.has_more().then(|| self.first().map_or(self.known_upto.next(), |spot| spot.position))
    }

    /// Takes in new events, in order; false when it knew of them all.
    pub(crate) fn offer(&mut self, spots: &[Spot]) -> bool {
        let before = self.count;
        for spot in spots {
            if spot.position <= self.known_upto || spot.position <= self.counted_upto {
                continue;
            }
            self.count += 1;
            if !self.lags() && self.ring.len() < limits::RING_POSITIONS {
                self.ring.push_back(*spot);
                self.known_upto = spot.position;
            } else {
                self.counted_upto = spot.position;
            }
        }
        self.count > before
    }

    pub(crate) fn take(&mut self) -> Option<Spot> {
        let spot = self.ring.pop_front()?;
        self.count = self.count.saturating_sub(1);
        if self.ring.is_empty() && !self.lags() {
            // An idle cursor keeps no memory for a burst that is over.
            self.ring.shrink_to(RING_KEPT);
        }
        Some(spot)
    }

    fn lags(&self) -> bool {
        self.counted_upto > self.known_upto
    }

    /// What must be looked up before anything fresh can be given out.
    pub(crate) fn missing(&self) -> Option<Stretch> {
        (self.ring.is_empty() && self.lags())
            .then_some(Stretch { after: self.known_upto, upto: self.counted_upto })
    }

    /// Puts in what was looked up of `stretch`; fewer than [`limits::RING_POSITIONS`] means all.
    pub(crate) fn fill(&mut self, stretch: Stretch, spots: Vec<Spot>) {
        if self.known_upto != stretch.after {
            return;
        }
        self.known_upto = match spots.last() {
            Some(last) if spots.len() >= limits::RING_POSITIONS => last.position,
            _ => stretch.upto,
        };
        self.ring.extend(spots);
        self.count_at_hand();
    }

    /// Counts what is owed where all of it is at hand. What the index lacks was damaged: not owed.
    fn count_at_hand(&mut self) {
        if self.lags() {
            return;
        }
        let at_hand = self.ring.len() as u64;
        self.count = if self.is_counted { self.count.min(at_hand) } else { at_hand };
        self.is_counted = true;
    }

    /// The part of a drop up to `upto` whose events only the index can count.
    pub(crate) fn beyond_ring(&self, upto: Position) -> Stretch {
        let upto = if self.lags() { upto.min(self.counted_upto) } else { self.known_upto };
        Stretch { after: self.known_upto, upto }
    }

    /// Loses everything up to `upto`, `beyond_ring` of which the index counted; says how many.
    pub(crate) fn drop_upto(&mut self, upto: Position, beyond_ring: u64) -> u64 {
        let gone = self.ring.partition_point(|spot| spot.position <= upto);
        self.ring.drain(..gone);
        let found = gone as u64 + beyond_ring;
        let lost = if self.is_counted { found.min(self.count) } else { found };
        self.count = self.count.saturating_sub(lost);
        self.known_upto = self.known_upto.max(upto);
        self.count_at_hand();
        lost
    }
}

/// Positions an idle ring keeps room for.
const RING_KEPT: usize = 16;
