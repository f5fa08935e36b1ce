//! The forms an event has outside memory: bytes to event and back, pure.

pub mod contract;
pub mod delivery;
pub mod error;
pub mod front;
pub mod stored;
pub mod trace;
