//! Sub.
/// Sub.
pub struct Subscription;
