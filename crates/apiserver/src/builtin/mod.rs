//! The kinds that are always served: Namespace, and the reviews by which clients ask what they may
//! do. They are written as definitions, like those that are given; what a definition cannot say of
//! them stands in the files beside this one.

pub(crate) mod reviews;

use serde_json::Value;

/// The built-in definitions.
pub(crate) struct Definitions {
    /// The core group, served before everything else.
    pub(crate) core: Vec<Value>,
    /// What is asked and not kept, served after everything else.
    pub(crate) reviews: Vec<Value>,
}

impl Definitions {
    /// Reads the files that are compiled in.
    pub(crate) fn read() -> Result<Self, serde_json::Error> {
        let namespace = serde_json::from_str(include_str!("namespace.json"))?;
        let reviews = serde_json::from_str(include_str!("reviews.json"))?;
        Ok(Self { core: vec![namespace], reviews })
    }
}
