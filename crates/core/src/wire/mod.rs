//! The forms an event has outside memory: bytes to event and back, pure.

pub mod cloudevents;
pub mod contract;
pub mod delivery;
pub mod error;
pub mod front;
mod json;
pub mod lines;
pub mod percent;
pub mod stored;
pub mod submission;
mod time;
pub mod timing;
pub mod trace;
