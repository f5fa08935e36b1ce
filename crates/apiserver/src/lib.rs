//! eventbus-apiserver.
