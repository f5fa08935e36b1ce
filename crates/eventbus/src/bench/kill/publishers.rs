//! Publishers that go on when the bus dies under them.
//!
//! An event whose answer does not come is not sent again: its fate is unknown, and a second try
//! could make a duplicate that is not the bus's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventbus_core::Clock;
use futures::future::join_all;

use super::super::answers::Said;
use super::super::board::Board;
use super::super::event::{Shape, Stamp};
use super::super::publishers::{Connection, Destination};
use super::super::seen::Seen;
use super::journal::Journal;

/// Pause before a connection is tried again, and after an answer that asks for patience.
const PAUSE: Duration = Duration::from_millis(5);

/// What all publishers of a kill run share.
pub(super) struct Publishers {
    pub(super) connections: u16,
    pub(super) destination: Destination,
    pub(super) shape: Arc<Shape>,
    pub(super) board: Arc<Board>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) journal: Journal,
    /// The events acknowledged so far, to know when all of them have arrived.
    pub(super) acknowledged: Arc<Mutex<Seen>>,
}

impl Publishers {
    /// Publishes until the board is stopped.
    pub(super) async fn run(self) {
        join_all((0..self.connections).map(|_| async {
            if let Err(why) = self.connection().await {
                self.board.complain(why);
            }
        }))
        .await;
    }

    async fn connection(&self) -> Result<(), String> {
        let broken = |error: std::io::Error| error.to_string();
        while let Some(mut connection) = self.connect().await {
            while let Some(sequence) = self.board.issue(1).await {
                self.journal.sent(sequence).await.map_err(broken)?;
                let due_ns = self.clock.elapsed().as_nanos() as u64;
                match connection.publish(&[Stamp { sequence, due_ns }]).await {
                    Ok(Said::Taken { is_last, .. }) => {
                        self.journal.acknowledged(sequence).await.map_err(broken)?;
                        self.count(sequence);
                        if is_last {
                            break;
                        }
                    }
                    Ok(Said::Refused { status: 429 | 503 | 507, .. }) => {
                        tokio::time::sleep(PAUSE).await;
                    }
                    Ok(Said::Refused { answer, .. }) => {
                        return Err(format!("event {sequence} was not published: {answer}"));
                    }
                    // Killed, most likely. A new connection will tell.
                    Err(_) => break,
                }
            }
        }
        Ok(())
    }

    fn count(&self, sequence: u64) {
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        acknowledged.insert(sequence);
        drop(acknowledged);
        self.board.count_published(1);
    }

    /// A connection, as soon as the bus takes one. None when no more is to be published.
    async fn connect(&self) -> Option<Connection> {
        while !self.board.is_stopped() {
            match Connection::open(&self.destination, &self.shape, 1).await {
                Ok(connection) => return Some(connection),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        None
    }
}
