//! File descriptors: the process takes as many as it may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Descriptors assumed where the system names no limit.
const UNLIMITED: u64 = 1 << 20;

/// Who may have how many connections open at once.
pub(super) struct Budget {
    /// Each port.
    pub(super) port: usize,
    /// Push.
    pub(super) push: usize,
}

/// Raises the soft limit to the hard one, and divides what is in force: half for push, a fifth for
/// each port, the rest for files.
pub(super) fn raise() -> Budget {
    let descriptors = usize::try_from(raised()).unwrap_or(usize::MAX);
    Budget { port: descriptors / 5, push: descriptors / 2 }
}

fn raised() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current.unwrap_or(UNLIMITED);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(UNLIMITED),
        Err(error) => {
            warn!(%error, "the limit of file descriptors could not be raised");
            current.unwrap_or(UNLIMITED)
        }
    }
}
