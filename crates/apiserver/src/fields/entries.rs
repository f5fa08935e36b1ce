//! The entries of `metadata.managedFields`, as Kubernetes writes them.

use serde_json::{Value, json};

use super::{Author, Ownership, Share, set::FieldSet};
use crate::{limits, object};

impl Ownership {
    /// Takes the ownership out of a stored object; what cannot be read counts as none.
    pub(crate) fn detach(object: &mut Value) -> Self {
        super::detach(object).as_ref().and_then(Self::read).unwrap_or_default()
    }

    /// Writes the ownership into an object.
    pub(crate) fn attach(mut self, object: &mut Value) {
        self.0.sort_by(|left, right| left.author.order(&right.author));
        let entries: Vec<Value> = self.0.iter().map(written).collect();
        object::set(object, "managedFields", (!entries.is_empty()).then_some(entries.into()));
    }

    /// Reads entries; none if one of them is not of their form.
    pub(super) fn read(entries: &Value) -> Option<Self> {
        let mut ownership = Self::default();
        for entry in entries.as_array()? {
            let Share { author, fields } = read(entry)?;
            ownership.share_of(&author).fields.add(&fields);
        }
        Some(ownership)
    }
}

fn read(entry: &Value) -> Option<Share> {
    let text = |name: &str| match entry.get(name) {
        None => Some(String::new()),
        Some(value) => value.as_str().map(String::from),
    };
    let applies = match entry["operation"].as_str()? {
        "Apply" => true,
        "Update" => false,
        _ => return None,
    };
    let author = Author {
        name: text("manager")?,
        applies,
        api_version: text("apiVersion")?,
        subresource: text("subresource")?,
        time: text("time")?,
    };
    let is_moment = author.time.is_empty() || author.time.parse::<jiff::Timestamp>().is_ok();
    let is_author = !author.api_version.is_empty()
        && author.name.len() <= limits::FIELD_AUTHOR_BYTES
        && author.subresource.len() <= limits::FIELD_AUTHOR_BYTES;
    let fields = FieldSet::read(entry.get("fieldsV1")?)?;
    let is_entry = entry["fieldsType"] == "FieldsV1" && is_author && is_moment;
    is_entry.then_some(Share { author, fields })
}

fn written(share: &Share) -> Value {
    let Share { author, fields } = share;
    let mut entry = json!({
        "manager": author.name,
        "operation": if author.applies { "Apply" } else { "Update" },
        "apiVersion": author.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields.written(),
    });
    for (name, text) in [("time", &author.time), ("subresource", &author.subresource)] {
        if !text.is_empty() {
            entry[name] = text.as_str().into();
        }
    }
    entry
}
