//! A log without threads, for tests that take each of its steps themselves.

use std::sync::Arc;

use eventbus_core::Durability;
use eventbus_core::broker::{CursorId, CursorSpec, Start};
use eventbus_core::testing::{ManualClock, SeededEntropy, interest};
use eventbus_core::{Batch, Event};

use crate::config::LogConfig;
use crate::cursor::LogCursor;
use crate::disk::FaultyDisk;
use crate::log::Machines;
use crate::signal::Next;
use crate::syncer::Syncer;
use crate::table::Router;
use crate::telemetry::TraceObserver;

pub(crate) fn machines(disk: &FaultyDisk) -> Machines {
    let disk = Arc::new(disk.clone());
    machines_of(LogConfig { max_bytes: Some(1 << 30), ..LogConfig::on_disk(disk) })
}

pub(crate) fn machines_of(config: LogConfig) -> Machines {
    let clock = Arc::new(ManualClock::at(1_000));
    let opened = Machines::open(config, clock, &SeededEntropy::new(1), Arc::new(TraceObserver));
    opened.unwrap().0
}

/// A cursor named `orders` that gets all events of that type.
pub(crate) fn orders(event_type: &str) -> CursorSpec {
    CursorSpec {
        id: CursorId("orders".into()),
        interest: interest(event_type),
        start: Start::AtMs(0),
        waiting_max: 10,
    }
}

impl Machines {
    /// Stores these events and lets the cursors know.
    pub(crate) fn publish(&mut self, events: impl IntoIterator<Item = Event>) {
        let shared = self.shared.clone();
        for event in events {
            shared.begin_append(Batch::of_one(event), Durability::Synced).unwrap();
        }
        self.writer.step(shared.now());
        Syncer::new(shared.clone()).step(shared.now());
        Router::new(shared.clone()).step(shared.now());
    }

    /// Has the ledger write all that is queued.
    pub(crate) fn settle(&mut self) {
        while self.ledger.step(self.shared.now()) == Next::Again {}
    }

    /// The cursor `orders` of type `a`.
    pub(crate) fn orders(&mut self) -> Arc<LogCursor> {
        let cursor = self.shared.admit(orders("a")).unwrap().cursor;
        self.settle();
        cursor
    }
}
