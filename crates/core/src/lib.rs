//! eventbus-core.
