//! Yardsticks.
fn main() {}
