//! eventbus-log.
