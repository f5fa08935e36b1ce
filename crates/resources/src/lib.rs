//! Our resources over any `kube::Client`: their definitions, the watch that compiles them into a
//! catalog, and the writer of statuses.
//!
//! The client may speak to a real API server or to the embedded one in the same process; nothing
//! here knows which.

mod definitions;
mod freshness;
mod health;
mod manifests;
mod status;
mod watch;

pub use definitions::{DEFINITIONS, Definition, Kind};
pub use freshness::Freshness;
pub use health::HealthBoard;
pub use status::StatusWriter;
pub use watch::{Versions, Watched, watch};
