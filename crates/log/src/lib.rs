//! The embedded log: a durable broker in one directory, with no server beside it.
//!
//! Two kinds of files hold the truth: *segments* hold events, the *ledger* holds what is settled.
//! Beside them lies the *vault*, a database of what was given up and of what is not due yet.
//! A commit goes through two stages, written by one thread and synced by another, so one sync
//! carries what was published while the one before it ran. A router tells cursors of what became
//! durable; cursors give events out as leases and settle them through the ledger.
//!
//! The bytes are drawn in `docs/format.md`. Every part is a step function over a [`Disk`], with a
//! thread around it in a running log and a simulation around it in the tests.

mod admit;
mod bytes;
mod config;
mod cursor;
mod delayer;
mod delays;
pub mod disk;
mod flow;
mod fresh;
mod heads;
mod index;
mod ledger;
mod ledger_file;
mod log;
mod queue;
mod reader;
mod reading;
mod recovery;
mod remembered;
mod retention;
mod scan;
mod segment;
mod segments;
mod shared;
mod sidecar;
mod signal;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod stepped;
mod syncer;
mod table;
mod tail;
pub mod telemetry;
mod threads;
mod timer;
mod upkeep;
mod vault;
mod writer;

pub use config::{LogConfig, OpenError, Storage};
pub use disk::Disk;
pub use log::Log;
pub use telemetry::{LogEvent, Observer, Telemetry, TraceObserver};
