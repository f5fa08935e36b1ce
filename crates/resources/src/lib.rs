//! Our resources over any `kube::Client`: their definitions, the watch that compiles them into a
//! catalog, and the writer of statuses.
//!
//! The client may speak to a real API server or to the embedded one in the same process; nothing
//! here knows which.

pub mod definitions;
pub mod health;

pub use definitions::{DEFINITIONS, Definition, Kind};
pub use health::HealthBoard;
