//! The bottom floor: the nouns, rules and seams of the event bus.
//!
//! Nothing in here does I/O, starts a task, reads a clock or rolls a die: time and randomness come
//! in as arguments. That is why every rule of the bus can be tested as a plain function.

pub mod attributes;
pub mod broker;
pub mod catalog;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod cursor;
pub mod dead_letters;
pub mod delivery;
pub mod durability;
pub mod event;
pub mod limits;
pub mod manifest;
pub mod notice;
pub mod reconcile;
pub mod report;
pub mod seams;
pub mod span;
pub mod subscription;
pub mod telemetry;
#[cfg(any(test, feature = "testing", feature = "conformance"))]
pub mod testing;
pub mod wire;

pub use attributes::Attributes;
pub use broker::{Batch, Broker, Cursor, Lease, Position, Receipt, Receipts, Settled, Stored};
pub use catalog::Catalog;
pub use dead_letters::{DeadLetter, DeadLetters};
pub use durability::Durability;
pub use event::{Event, Interest, Source, Text, TopicHash};
pub use report::{ProcessId, Report};
pub use seams::{Clock, Entropy};
pub use span::Tracer;
pub use subscription::Subscription;
