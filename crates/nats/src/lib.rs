//! NATS JetStream as the broker: durable, and shared by any number of processes.
//!
//! Events lie in one stream; a cursor is a durable consumer of it, shared by all processes that
//! push for its Subscription. What waits for a retry lies in a second stream, as a reference under
//! a schedule, so that it holds no place at the first. What is not due yet lies in a third, whole;
//! what was given up lies in a fourth, and what was lost is counted in a fifth. Nothing that must
//! survive is in this process.
//!
//! An acknowledgement is worth what the server makes of it: see [`Sync`].

mod access;
mod api;
mod broker;
mod chores;
mod config;
mod cursor;
mod dead_letters;
mod delay;
mod delivery;
mod due;
mod health;
mod inbox;
mod levels;
mod link;
mod monitor;
mod pull;
mod settle;
mod shared;
mod stored;
mod streams;
mod subject;
mod survey;
mod sweep;
mod sync;
mod system;
mod telemetry;
mod upkeep;

pub use broker::Nats;
pub use config::{Access, NatsConfig, OpenError, Sync, Tls};
pub use health::{Asked, Hearing};
pub use telemetry::Telemetry;
