//! Catalog.
/// Catalog.
pub struct Catalog;
