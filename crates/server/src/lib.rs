//! eventbus-server.
