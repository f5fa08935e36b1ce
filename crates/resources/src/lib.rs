//! eventbus-resources.
