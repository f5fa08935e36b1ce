//! The broker over real servers.

mod conformance;
mod server;
