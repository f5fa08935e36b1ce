//! How much an acknowledgement of the server is worth.
//!
//! A server acknowledges before it syncs, unless it runs with `sync_interval: always`. Nobody but
//! its monitoring port (or whoever runs it) can tell.

use eventbus_core::Durability;
use eventbus_core::broker::Capabilities;

/// What the server's acknowledgement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Levels {
    /// A quorum of servers has the event.
    pub(crate) replicated: bool,
    /// Each server that has it has synced it.
    pub(crate) synced: bool,
}

impl Levels {
    /// What an event has reached when the server has acknowledged it.
    pub(crate) fn reached(self) -> Durability {
        match self {
            Self { replicated: true, .. } => Durability::Replicated,
            Self { synced: true, .. } => Durability::Synced,
            _ => Durability::Written,
        }
    }

    pub(crate) fn capabilities(self) -> Capabilities {
        use Durability::{Accepted, Replicated, Synced, Written};
        let durabilities: &'static [Durability] = match (self.synced, self.replicated) {
            (false, false) => &[Accepted, Written],
            (true, false) => &[Accepted, Written, Synced],
            (false, true) => &[Accepted, Written, Replicated],
            (true, true) => &[Accepted, Written, Synced, Replicated],
        };
        Capabilities { durabilities, default_durability: self.reached() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reached_is_what_is_promised_by_default_and_never_more() {
        for (replicated, synced) in [(false, false), (false, true), (true, false), (true, true)] {
            let levels = Levels { replicated, synced };
            let capabilities = levels.capabilities();
            assert_eq!(capabilities.default_durability, levels.reached());
            let offers = |level| capabilities.durabilities.contains(&level);
            assert_eq!(offers(Durability::Synced), synced);
            assert_eq!(offers(Durability::Replicated), replicated);
            assert!(offers(Durability::Written) && offers(levels.reached()));
        }
    }
}
