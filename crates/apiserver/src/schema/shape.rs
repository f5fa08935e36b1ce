//! Bringing an object into its schema's shape: unknown members go, nulls that may not be go,
//! defaults come.

use serde_json::{Map, Value};

use super::Schema;

impl Schema {
    /// Drops what the schema does not know, and gives the paths of what was dropped.
    pub(crate) fn prune(&self, value: &mut Value, path: &str, dropped: &mut Vec<String>) {
        match value {
            Value::Object(members) => self.prune_members(members, path, dropped),
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for (index, item) in items.iter_mut().enumerate() {
                    schema.prune(item, &format!("{path}[{index}]"), dropped);
                }
            }
            _ => {}
        }
    }

    fn prune_members(
        &self,
        members: &mut Map<String, Value>,
        path: &str,
        dropped: &mut Vec<String>,
    ) {
        members.retain(|name, value| {
            let below = || if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match self.properties.get(name).or(self.additional.as_deref()) {
                Some(schema) => {
                    if value.is_object() || value.is_array() {
                        schema.prune(value, &below(), dropped);
                    }
                    true
                }
                None if self.open => true,
                None => {
                    dropped.push(below());
                    false
                }
            }
        });
    }

    /// Takes away nulls where none may be, and fills in defaults where nothing is.
    pub(crate) fn complete(&self, value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.retain(|name, value| {
                    let schema = self.properties.get(name);
                    !(value.is_null() && schema.is_some_and(|schema| !schema.nullable))
                });
                for (name, schema) in &self.properties {
                    if let Some(default) = &schema.default
                        && !members.contains_key(name)
                    {
                        members.insert(name.clone(), default.clone());
                    }
                }
                for (name, value) in members {
                    if let Some(schema) = self.properties.get(name).or(self.additional.as_deref()) {
                        schema.complete(value);
                    }
                }
            }
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                items.iter_mut().for_each(|item| schema.complete(item));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Schema {
        Schema::compile(&json!({ "type": "object", "properties": {
            "known": { "type": "string" },
            "nullable": { "type": "string", "nullable": true, "default": "d" },
            "number": { "type": "integer", "default": 7 },
            "open": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "map": { "type": "object", "additionalProperties": { "type": "object", "properties": {
                "a": { "type": "integer", "default": 1 } } } },
            "list": { "type": "array", "items": { "type": "object", "properties": {
                "b": { "type": "integer" } } } },
        } }))
        .unwrap()
    }

    #[test]
    fn unknown_members_are_dropped_and_named() {
        let mut value = json!({
            "known": "x", "gone": 1, "open": { "any": { "thing": 1 } },
            "map": { "k": { "a": 2, "z": 3 } }, "list": [{ "b": 1 }, { "c": 2 }],
        });
        let mut dropped = Vec::new();
        schema().prune(&mut value, "spec", &mut dropped);
        assert_eq!(dropped, ["spec.gone", "spec.list[1].c", "spec.map.k.z"]);
        assert_eq!(
            value,
            json!({ "known": "x", "open": { "any": { "thing": 1 } },
                    "map": { "k": { "a": 2 } }, "list": [{ "b": 1 }, {}] })
        );
    }

    #[test]
    fn defaults_fill_what_is_absent_or_null() {
        let mut value =
            json!({ "known": null, "nullable": null, "number": null, "map": { "k": {} } });
        schema().complete(&mut value);
        assert_eq!(value, json!({ "nullable": null, "number": 7, "map": { "k": { "a": 1 } } }));
    }
}
