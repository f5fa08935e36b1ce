//! What the program serves and decides, beside push: the publish port, the sub-validator, and the
//! operators' endpoints of the API port.

pub mod admin;
pub mod control;
mod greeting;
pub mod listen;
pub mod publish;
pub mod readiness;
mod stall;
pub mod telemetry;
mod timer;
mod tls;
pub mod unread;

pub use admin::Admin;
pub use listen::Port;
pub use readiness::{Latch, Readiness};
pub use tls::Identity;
