//! What a broker is: the suite that every one of them passes.
//!
//! A broker is whatever keeps the promises of [`Broker`] and [`Cursor`], and each promise is a case
//! here. A backend gives a [`Harness`], which starts it, ends it and lets time go by; the macros
//! [`conformance!`](crate::conformance!) and, where a server holds the events,
//! [`conformance_of_servers!`](crate::conformance_of_servers!) make a test of each case.
//!
//! Cases use what every broker has. Where brokers differ by nature (whose time it is, whether
//! several processes share it), the harness says so and the case takes that into account.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "these are tests")]

mod dead;
mod delay;
mod hold;
mod interest;
mod life;
mod model;
mod place;
mod random;
mod repeat;
mod retention;
mod retry;
mod road;
mod server;
mod world;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::broker::Broker;

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

    /// Ends a process at once, as `kill -9` does: nothing of it runs on, and what it did not hand
    /// to the system is lost.
    fn kill(&self, broker: Arc<dyn Broker>) -> BoxFuture<'_, ()>;

    /// Takes the storage's server away from everybody, or gives it back as it was; false where
    /// there is no server.
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

/// Names each case once: from here the tests of a backend are made, and a case that is not named is
/// dead code. `$d` is a dollar.
macro_rules! suite {
    ($d:tt $(#[$doc:meta])* $name:ident { $($module:ident: $($case:ident),*;)* }) => {
        $(pub use $module::{$($case),*};)*

        $(#[$doc])*
        #[macro_export]
        macro_rules! $name {
            ($d harness:path) => {
                $($(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $case() {
                        if let Some(harness) = $d harness().await {
                            $d crate::conformance::$case(&harness).await;
                        }
                    }
                )*)*
            };
        }
    };
}

suite! {
    $
    /// Makes a test of every case that is for all brokers. `$harness` is an async function without
    /// arguments that gives a [`Harness`](crate::conformance::Harness) in an `Option`: `None` where
    /// the backend cannot be had here, after saying so.
    conformance {
        road:
            an_event_is_stored_leased_and_settled_once,
            an_event_comes_as_it_was_published, an_event_that_fits_is_stored,
            receipts_rise_and_events_come_in_their_order,
            each_durability_is_reached_or_refused,
            a_dropped_lease_comes_back,
            a_lease_that_is_given_up_leases_nothing,
            those_who_wait_are_woken,
            a_turn_holds_many_verdicts;
        retry:
            a_retry_comes_at_its_time_and_counts_attempts,
            retries_come_in_the_order_of_their_times,
            ten_thousand_that_wait_hold_up_nobody,
            those_who_wait_are_woken_by_what_comes_back,
            no_more_is_held_than_may_wait,
            what_waits_is_the_oldest_that_is_not_settled;
        hold:
            no_more_is_leased_than_asked_for,
            a_lease_holds_however_long_it_takes;
        interest:
            only_what_was_asked_for_comes,
            no_two_names_are_taken_for_one;
        place:
            a_start_in_the_past_is_where_a_cursor_begins,
            a_cursor_that_nobody_uses_keeps_its_place,
            an_update_keeps_the_place,
            another_interest_counts_from_then_on,
            a_forgotten_cursor_is_gone,
            who_waits_hears_that_the_cursor_is_forgotten;
        retention:
            settled_events_make_room,
            history_gives_way_to_new_events,
            who_lags_too_far_loses_its_own_oldest,
            age_ends_events,
            a_full_storage_refuses_publishers_alone;
        dead:
            what_is_given_up_is_kept_whole,
            dead_letters_are_found_and_removed,
            nothing_falls_between_an_event_and_its_dead_letter;
        repeat:
            an_event_with_an_id_is_stored_once,
            ids_are_remembered_by_the_next_process,
            an_id_is_forgotten_in_time;
        delay:
            a_delayed_event_comes_when_it_is_due,
            delayed_events_come_in_the_order_of_their_times,
            a_due_time_in_the_past_is_now,
            what_is_delayed_outlives_its_process,
            a_delayed_event_with_an_id_is_kept_once,
            one_event_of_an_id_that_waits_is_stored,
            a_delayed_event_is_for_those_who_are_there_when_it_is_due,
            each_durability_of_a_delay_is_reached_or_refused;
        life:
            a_stop_keeps_everything,
            a_kill_keeps_everything,
            what_was_acknowledged_survives_a_kill,
            an_atomic_batch_is_whole_or_not_there, many_atomic_batches_are_stored_at_once,
            a_closed_broker_says_so;
        random:
            random_operations_keep_every_promise;
    }
}

suite! {
    $
    /// The same for what is promised besides by a broker whose events lie on a server: several
    /// processes share it, and it may be out of reach.
    conformance_of_servers {
        server:
            each_event_goes_to_one_process,
            another_process_takes_over,
            a_server_goes_and_comes_back,
            what_could_not_be_settled_comes_again;
    }
}
