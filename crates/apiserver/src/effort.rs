//! How much work one patch may be. A list of many items can be changed in ways that look at each of
//! them for each item of the patch, and a core that does so does nothing else.

use serde_json::Value;

use crate::{limits, status::ApiError};

/// The work that a patch may still be.
pub(crate) struct Effort(usize);

impl Effort {
    pub(crate) fn new() -> Self {
        Self(limits::PATCH_STEPS)
    }

    /// Takes so many steps, or refuses the patch.
    pub(crate) fn spend(&mut self, steps: usize) -> Result<(), ApiError> {
        self.0 = self.0.checked_sub(steps).ok_or_else(|| {
            ApiError::unprocessable(format!(
                "the patch is too much work: it looks at items of lists more than {} times; \
                 replace the lists as a whole",
                limits::PATCH_STEPS
            ))
        })?;
        Ok(())
    }
}

/// The values in a value.
pub(crate) fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(size).sum::<usize>(),
        _ => 1,
    }
}
