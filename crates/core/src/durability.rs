//! How safe an event is when its publisher gets the answer.

use std::fmt;
use std::str::FromStr;

/// What an acknowledged event survives. Ordered: a later level includes the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Durability {
    /// It is in memory: it survives nothing.
    Accepted,
    /// The operating system has it: it survives the end of the process.
    Written,
    /// The disk has it: it survives the loss of power.
    Synced,
    /// A quorum of servers has it: it survives the loss of one of them.
    Replicated,
}

impl Durability {
    /// Every level, weakest first.
    pub const ALL: [Self; 4] = [Self::Accepted, Self::Written, Self::Synced, Self::Replicated];

    /// The word used in headers, settings and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Written => "written",
            Self::Synced => "synced",
            Self::Replicated => "replicated",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Durability {
    type Err = UnknownDurability;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|level| level.as_str() == text).ok_or(UnknownDurability)
    }
}

/// The text names no durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such durability: use accepted, written, synced or replicated")]
pub struct UnknownDurability;
