//! A look at the indexes, for a cursor that was not told of all its events.

use std::io;
use std::sync::{Arc, MutexGuard};

use eventbus_core::{TopicHash, limits};

use crate::cursor::{LogCursor, Place};
use crate::index::Stretch;
use crate::segment::Segment;

/// The reading of the indexes for a cursor; its place knows of one at most. It ends when it is
/// dropped, never while the place is locked. However it ends: who asked may have given up
/// meanwhile, and who looked since was told to wait.
pub(crate) struct Reading {
    cursor: Arc<LogCursor>,
    number: u64,
    topic_hash: TopicHash,
    stretch: Stretch,
}

/// The readings of a cursor.
#[derive(Default)]
pub(crate) struct Readings {
    last: u64,
    /// The one that is believed.
    present: Option<u64>,
}

impl Readings {
    /// Is somebody reading?
    pub(crate) fn are_under_way(&self) -> bool {
        self.present.is_some()
    }
}

impl Place {
    /// Has those events counted that still are to be.
    pub(crate) fn begin_count(&mut self, cursor: &Arc<LogCursor>) -> Reading {
        let stretch = self.fresh.begin_count();
        self.read(cursor, stretch)
    }

    /// Has the indexes of `stretch` read by the present interest. What another reading is to find
    /// is not believed any more.
    pub(crate) fn read(&mut self, cursor: &Arc<LogCursor>, stretch: Stretch) -> Reading {
        self.readings.last += 1;
        let number = self.readings.last;
        self.readings.present = Some(number);
        let topic_hash = self.interest.topic_hash();
        Reading { cursor: cursor.clone(), number, topic_hash, stretch }
    }
}

impl Reading {
    /// The place of the cursor, if it still waits for what this found.
    pub(crate) fn place(&self) -> Option<MutexGuard<'_, Place>> {
        let place = self.cursor.place();
        (place.readings.present == Some(self.number)).then_some(place)
    }

    /// How many events there are. Blocks.
    pub(crate) fn count(&self) -> io::Result<u64> {
        let mut counted = 0;
        for segment in self.segments() {
            counted += segment.count(self.topic_hash, self.stretch)?;
        }
        Ok(counted)
    }

    /// Adds the events to those that are fresh. Blocks.
    pub(crate) fn count_in(&self) -> io::Result<()> {
        let counted = self.count()?;
        if let Some(mut place) = self.place() {
            place.fresh.end_count(counted);
        }
        Ok(())
    }

    /// Finds the next events and puts them at hand. Blocks.
    pub(crate) fn find(&self) -> io::Result<()> {
        let mut spots = Vec::new();
        for segment in self.segments() {
            if spots.len() >= limits::RING_POSITIONS {
                break;
            }
            segment.collect(self.topic_hash, self.stretch, limits::RING_POSITIONS, &mut spots)?;
        }
        if let Some(mut place) = self.place() {
            place.fresh.fill(self.stretch, spots);
        }
        Ok(())
    }

    /// The segments that may hold some of the events, oldest first.
    fn segments(&self) -> impl Iterator<Item = Arc<Segment>> {
        let Stretch { after, upto } = self.stretch;
        let above = if self.stretch.is_empty() {
            Vec::new()
        } else {
            self.cursor.shared.segments.above(after)
        };
        above.into_iter().take_while(move |segment| segment.base <= upto)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(mut place) = self.place() {
            place.readings.present = None;
        }
        self.cursor.wake();
    }
}
