//! What a broker is: the suite that every one of them passes.
//!
//! A broker is whatever keeps the promises of [`Broker`] and [`Cursor`], and each promise is a case
//! here. A backend gives a [`Harness`], which starts it, ends it and lets time go by; the macro
//! [`conformance!`](crate::conformance!) makes a test of each case.
//!
//! Cases use what every broker has. Where brokers differ by nature (whose time it is, whether
//! several processes share it), the harness says so and the case takes that into account.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "these are tests")]

mod road;
mod world;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::broker::Broker;

pub use road::*;

/// A backend under test: its storage, and the processes that use it.
///
/// One harness is one storage, empty at first. Brokers that are started on it see what those before
/// them left.
pub trait Harness: Send + Sync {
    /// What the backend can do beyond what all can.
    fn traits(&self) -> Traits;

    /// Starts a process on the storage, with `limits`. Where [`Traits::shared`] is false, the one
    /// before must have ended.
    fn start(&self, limits: Limits) -> BoxFuture<'_, Arc<dyn Broker>>;

    /// Ends a process at once, as `kill -9` does: nothing of it runs on, and what it did not hand to
    /// the system is lost.
    fn kill(&self, broker: Arc<dyn Broker>) -> BoxFuture<'_, ()>;

    /// Takes the storage's server away from everybody, or gives it back as it was; false where there
    /// is no server.
    fn reach(&self, reachable: bool) -> BoxFuture<'_, bool>;

    /// Wall-clock time by which the broker goes: milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Lets so much time go by for the broker: waits, or moves its clock.
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()>;

    /// Waits, in real time.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
}

/// What a backend can do beyond what all can.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// Several processes use one storage at the same time.
    pub shared: bool,
    /// How long after the end of a process its leases are given to others, at most.
    pub lease_time: Duration,
}

/// The limits a broker is started with; the defaults are out of the way.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of settled events kept.
    pub history_bytes: u64,
    /// Bytes beyond which nothing is stored.
    pub max_bytes: u64,
    /// Bytes that one cursor may hold back.
    pub backlog_max_bytes: u64,
    /// Age at which events end.
    pub age: Duration,
    /// How long ids are remembered.
    pub deduplication_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            history_bytes: 64 << 20,
            max_bytes: 256 << 20,
            backlog_max_bytes: 128 << 20,
            age: Duration::from_secs(3600),
            deduplication_time: Duration::from_secs(120),
        }
    }
}

/// Makes a test of every case of the suite. `$harness` is an async function without arguments that
/// gives a [`Harness`] in an `Option`: `None` where the backend cannot be had here, after saying so.
#[macro_export]
macro_rules! conformance {
    ($harness:path) => {
        $crate::conformance!($harness:
            an_event_is_stored_leased_and_settled_once,
            a_dropped_lease_comes_back,
        );
    };
    ($harness:path: $($case:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(harness) = $harness().await {
                    $crate::conformance::$case(&harness).await;
                }
            }
        )*
    };
}
