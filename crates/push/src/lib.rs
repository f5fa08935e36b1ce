//! eventbus-push.
