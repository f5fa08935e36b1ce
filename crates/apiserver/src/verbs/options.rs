//! The body of a deletion: options that say how. What cannot be read is refused, because a deletion
//! that is not the one meant cannot be taken back.

use serde_json::{Map, Value};

use super::Call;
use crate::status::{ApiError, Cause};

/// The kind of the body, in whichever group it comes.
const KIND: &str = "DeleteOptions";

/// An object of options, of which each is read as what it must be.
pub(super) struct Options(Map<String, Value>);

impl Options {
    /// Reads the body; none has no options.
    pub(super) fn read(call: &Call) -> Result<Self, ApiError> {
        if call.body()?.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Map::new()));
        }
        let decoded = call.decoded()?;
        if let Some(twice) = decoded.duplicates.first() {
            return Err(unrecognized(&format!("{twice} comes twice")));
        }
        let Value::Object(members) = decoded.value else {
            return Err(unrecognized("they must be a JSON object"));
        };
        let options = Self(members);
        options.number("gracePeriodSeconds")?;
        let version = options.text("apiVersion")?.unwrap_or_default();
        match options.text("kind")?.unwrap_or(KIND) {
            // Clients send them in the group of what they delete, or in the core group.
            KIND if ["", "v1", "meta.k8s.io/v1"].contains(&version) => Ok(options),
            KIND if version == call.resource().api_version() => Ok(options),
            kind => Err(unrecognized(&format!("{kind} of {version:?} is not {KIND}"))),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(unrecognized(&format!("{name} must be a text"))),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(unrecognized(&format!("{name} must be true or false"))),
        }
    }

    /// A number that must be one, though there is nothing here to wait for.
    fn number(&self, name: &str) -> Result<(), ApiError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Number(number)) if number.is_i64() => Ok(()),
            Some(_) => Err(unrecognized(&format!("{name} must be a whole number"))),
        }
    }

    /// Options inside of one.
    pub(super) fn inner(&self, name: &str) -> Result<Self, ApiError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(Self(Map::new())),
            Some(Value::Object(members)) => Ok(Self(members.clone())),
            Some(_) => Err(unrecognized(&format!("{name} must be a JSON object"))),
        }
    }

    /// Whether nothing shall be kept.
    pub(super) fn dry_run(&self) -> Result<bool, ApiError> {
        let parts = match self.0.get("dryRun") {
            None | Some(Value::Null) => return Ok(false),
            Some(Value::Array(parts)) => parts,
            Some(_) => return Err(unrecognized("dryRun must be a list")),
        };
        if let Some(other) = parts.iter().find(|part| *part != "All") {
            let cause = Cause::not_supported("dryRun", other, &["All".into()]);
            return Err(ApiError::invalid_options(KIND, "meta.k8s.io", vec![cause]));
        }
        Ok(!parts.is_empty())
    }
}

fn unrecognized(why: &str) -> ApiError {
    ApiError::bad_request(format!("the delete options are unrecognized: {why}"))
}
