//! A set of fields, as a tree of the steps that lead to them.
//!
//! A step is kept as FieldsV1 writes it, so that reading and writing the stored form is a walk and
//! nothing else: `f:NAME` is a member, `k:{"type":"x"}` an item known by its keys, `v:"x"` an item
//! of a set, `i:0` an item by its place.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Fields of an object. Nothing is in the tree that is not owned and leads to nothing owned.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct FieldSet(BTreeMap<String, Node>);

/// What one step leads to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Node {
    /// Whether the field itself is in the set.
    pub(super) owned: bool,
    pub(super) below: FieldSet,
}

/// The set without fields, where one is borrowed.
pub(super) static NOTHING: FieldSet = FieldSet(BTreeMap::new());

impl FieldSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, step: &str) -> Option<&Node> {
        self.0.get(step)
    }

    /// Adds a field, if `owned`, and what is below it.
    pub(super) fn insert(&mut self, step: String, owned: bool, below: FieldSet) {
        if owned || !below.is_empty() {
            let node = self.0.entry(step).or_default();
            node.owned |= owned;
            node.below.add(&below);
        }
    }

    /// Adds the fields of another set.
    pub(super) fn add(&mut self, other: &FieldSet) {
        for (step, added) in &other.0 {
            let node = self.0.entry(step.clone()).or_default();
            node.owned |= added.owned;
            node.below.add(&added.below);
        }
    }

    /// Takes the fields of another set away; what lies below one stays.
    pub(super) fn remove(&mut self, other: &FieldSet) {
        self.0.retain(|step, node| {
            if let Some(removed) = other.0.get(step) {
                node.owned &= !removed.owned;
                node.below.remove(&removed.below);
            }
            node.owned || !node.below.is_empty()
        });
    }

    /// The fields in both sets.
    pub(super) fn shared(&self, other: &FieldSet) -> FieldSet {
        let mut shared = FieldSet::default();
        for (step, node) in &self.0 {
            if let Some(same) = other.0.get(step) {
                let below = node.below.shared(&same.below);
                shared.insert(step.clone(), node.owned && same.owned, below);
            }
        }
        shared
    }

    /// The fields as paths for people, such as `.spec.conditions[type="x"].status`.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, above: &str, paths: &mut Vec<String>) {
        for (step, node) in &self.0 {
            let path = format!("{above}{}", shown(step));
            node.below.collect_paths(&path, paths);
            if node.owned {
                paths.push(path);
            }
        }
    }

    /// Reads FieldsV1; none if it is not of that form.
    pub(super) fn read(written: &Value) -> Option<Self> {
        let mut fields = BTreeMap::new();
        for (step, value) in written.as_object()? {
            if step == "." {
                continue;
            }
            let members = value.as_object()?;
            let owned = members.is_empty() || members.contains_key(".");
            fields.insert(canonical(step)?, Node { owned, below: Self::read(value)? });
        }
        fields.retain(|_, node: &mut Node| node.owned || !node.below.is_empty());
        Some(Self(fields))
    }

    /// The set as FieldsV1.
    pub(super) fn written(&self) -> Value {
        let write = |(step, node): (&String, &Node)| {
            let mut below = node.below.written();
            if node.owned
                && let Some(members) = below.as_object_mut().filter(|below| !below.is_empty())
            {
                members.insert(".".into(), Value::Object(Map::new()));
            }
            (step.clone(), below)
        };
        Value::Object(self.0.iter().map(write).collect())
    }
}

/// A step as this server writes it, so that equal steps are equal texts.
fn canonical(step: &str) -> Option<String> {
    let (kind, rest) = step.split_once(':')?;
    match kind {
        "f" => Some(step.into()),
        "i" => rest.parse::<i64>().ok().map(|place| format!("i:{place}")),
        "k" | "v" => {
            let value: Value = serde_json::from_str(rest).ok()?;
            (kind == "v" || value.is_object()).then(|| format!("{kind}:{value}"))
        }
        _ => None,
    }
}

/// A step as people read it in a path.
fn shown(step: &str) -> String {
    match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("v", value)) => format!("[={value}]"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> =
                keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        _ => format!("[{}]", step.trim_start_matches("i:")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(written: Value) -> FieldSet {
        FieldSet::read(&written).unwrap()
    }

    #[test]
    fn what_is_read_is_written_again() {
        let written = json!({
            "f:metadata": { "f:labels": { ".": {}, "f:a": {} } },
            "f:status": { "f:conditions": {
                "k:{\"type\":\"Ready\"}": { ".": {}, "f:status": {} } } },
            "f:tags": { "v:\"x\"": {} }, "f:list": { "i:0": {} },
        });
        assert_eq!(set(written.clone()).written(), written);
        assert_eq!(
            set(written).paths(),
            [
                ".list[0]",
                ".metadata.labels.a",
                ".metadata.labels",
                ".status.conditions[type=\"Ready\"].status",
                ".status.conditions[type=\"Ready\"]",
                ".tags[=\"x\"]",
            ]
        );
    }

    #[test]
    fn equal_steps_are_equal_however_they_were_written() {
        let loose = set(json!({ "k:{ \"b\": 1, \"a\": \"x\" }": {} }));
        assert_eq!(loose, set(json!({ "k:{\"a\":\"x\",\"b\":1}": {} })));
    }

    #[test]
    fn nonsense_is_not_read() {
        let nonsense = [
            json!(null),
            json!({ "f:a": 1 }),
            json!({ "a": {} }),
            json!({ "x:a": {} }),
            json!({ "k:a": {} }),
            json!({ "k:1": {} }),
            json!({ "v:": {} }),
            json!({ "i:x": {} }),
            json!({ "f:a": { "f:b": [] } }),
        ];
        for nonsense in nonsense {
            assert_eq!(FieldSet::read(&nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn sets_are_joined_and_parted_field_by_field() {
        let mut left = set(json!({ "f:a": { ".": {}, "f:b": {} }, "f:c": {} }));
        let right = set(json!({ "f:a": {}, "f:c": { "f:d": {} } }));
        assert_eq!(left.shared(&right), set(json!({ "f:a": {} })));
        left.remove(&right);
        assert_eq!(left, set(json!({ "f:a": { "f:b": {} }, "f:c": {} })));
        left.add(&right);
        assert_eq!(
            left,
            set(json!({ "f:a": { ".": {}, "f:b": {} }, "f:c": { ".": {}, "f:d": {} } }))
        );
    }
}
