//! What a broker writes down of a place.
//!
//! An entry is absolute for the frontier and for what is taken, and says of the waiting only what
//! changed. So it stays small beside 65,536 waiting events, and reading it twice does no harm.

use super::Spot;
use crate::broker::Position;
use crate::delivery::Tried;

/// One change of a place, as it is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The frontier.
    pub frontier: Position,
    /// Every event that is unsettled and not waiting, by position.
    pub taken: Vec<Spot>,
    /// Events that wait from now on, or wait anew.
    pub waiting: Vec<Waiting>,
    /// Events that waited and are settled.
    pub gone: Vec<Position>,
}

/// An event that waits for its retry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which event.
    pub spot: Spot,
    /// When it may be leased again: wall clock, milliseconds since 1970.
    pub due_ms: u64,
    /// What was tried for it.
    pub tried: Tried,
}
