//! Our resources over any `kube::Client`: their definitions, the watch that compiles them into a
//! catalog, and the writer of statuses and Events.
//!
//! The client may speak to a real API server or to the embedded one in the same process; nothing
//! here knows which.

mod access;
mod definitions;
mod freshness;
mod health;
mod lease;
mod manifests;
mod notices;
mod reach;
mod status;
mod watch;

pub use access::access;
pub use definitions::{DEFINITIONS, Definition, Kind};
pub use freshness::Freshness;
pub use health::{HealthBoard, Teller};
pub use lease::Leadership;
pub use reach::Reach;
pub use status::StatusWriter;
pub use watch::{Versions, Watched, watch};
