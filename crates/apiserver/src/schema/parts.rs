//! How a value comes apart into fields that different clients may own: what a schema says by
//! `x-kubernetes-list-type` and `x-kubernetes-map-type`.

use serde_json::{Map, Value};

use super::{Schema, SchemaError, fault, names};

/// Whose are the items of a list.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) enum ListKind {
    /// The list is one field.
    #[default]
    Atomic,
    /// Each item is a field, known by its value.
    Set,
    /// Each item is known by the values of these members.
    Map(Vec<String>),
}

/// A part of a value: a member of an object or an item of a list.
pub(crate) struct Part<'s> {
    /// The step that leads to it, as FieldsV1 writes it.
    pub(crate) step: String,
    /// Whether a property of the schema names it; it has no owner of its own then, only what it
    /// holds has.
    pub(crate) is_property: bool,
    /// What is known of it; nothing is known of what the schema merely lets in.
    pub(crate) schema: Option<&'s Schema>,
}

/// The part that a member of an object is; none if the object is one field.
pub(crate) fn member<'s>(schema: Option<&'s Schema>, name: &str) -> Option<Part<'s>> {
    if schema.is_some_and(|schema| schema.is_atomic_map) {
        return None;
    }
    let property = schema.and_then(|schema| schema.properties.get(name));
    let schema = property.or(schema.and_then(|schema| schema.additional.as_deref()));
    Some(Part { step: format!("f:{name}"), is_property: property.is_some(), schema })
}

/// The parts that the items of a list are; none if the list is one field, as it is too when its
/// items cannot be told apart.
pub(crate) fn items<'s>(schema: Option<&'s Schema>, items: &[Value]) -> Option<Vec<Part<'s>>> {
    let (list, schema) = schema.map(|schema| (&schema.list, schema.items.as_deref()))?;
    let step = |item: &Value| match list {
        ListKind::Atomic => None,
        ListKind::Set => Some(format!("v:{item}")),
        ListKind::Map(keys) => key(keys, schema, item).map(|key| format!("k:{key}")),
    };
    let steps: Vec<String> = items.iter().map(step).collect::<Option<_>>()?;
    let mut sorted: Vec<&String> = steps.iter().collect();
    sorted.sort_unstable();
    let is_unique = sorted.is_sorted_by(|left, right| left < right);
    let part = |step| Part { step, is_property: false, schema };
    (is_unique && *list != ListKind::Atomic).then(|| steps.into_iter().map(part).collect())
}

/// What tells an item from the others of its list: the values of its keys, or their defaults.
fn key(keys: &[String], schema: Option<&Schema>, item: &Value) -> Option<Value> {
    let value = |name: &String| {
        let default = || schema?.properties.get(name)?.default.as_ref();
        let value = item.as_object()?.get(name).or_else(default)?;
        Some((name.clone(), value.clone()))
    };
    keys.iter().map(value).collect::<Option<Map<_, _>>>().map(Value::Object)
}

impl Schema {
    /// Whether the items of this list are known by themselves or by a key.
    pub(crate) fn tells_items_apart(&self) -> bool {
        self.list != ListKind::Atomic
    }

    /// What tells an item of this list from the others; none if nothing does.
    pub(crate) fn identity(&self, item: &Value) -> Option<Value> {
        match &self.list {
            ListKind::Atomic => None,
            ListKind::Set => Some(item.clone()),
            ListKind::Map(keys) => key(keys, self.items.as_deref(), item),
        }
    }

    /// What is known of the items of this list.
    pub(crate) fn item(&self) -> Option<&Schema> {
        self.items.as_deref()
    }

    /// The first item of a list that another one equals, as far as the list tells items apart.
    pub(super) fn repeated<'v>(&self, items: &'v [Value]) -> Option<(usize, &'v Value)> {
        let mut seen = std::collections::BTreeSet::new();
        items.iter().enumerate().find(|(_, item)| {
            self.identity(item).is_some_and(|identity| !seen.insert(identity.to_string()))
        })
    }

    /// Reads the members of a schema that say how it comes apart.
    pub(super) fn read_parts(
        &mut self,
        written: &Map<String, Value>,
        path: &str,
    ) -> Result<(), SchemaError> {
        let text = |name: &str| written.get(name).map(|value| value.as_str().unwrap_or_default());
        self.list = match text("x-kubernetes-list-type") {
            None | Some("atomic") => ListKind::Atomic,
            Some("set") => ListKind::Set,
            Some("map") => {
                let keys = written.get("x-kubernetes-list-map-keys").unwrap_or(&Value::Null);
                ListKind::Map(names(keys, &format!("{path}.x-kubernetes-list-map-keys"))?)
            }
            Some(_) => return Err(fault(path, "a list is atomic, a set or a map")),
        };
        self.is_atomic_map = match text("x-kubernetes-map-type") {
            None | Some("granular") => false,
            Some("atomic") => true,
            Some(_) => return Err(fault(path, "a map is granular or atomic")),
        };
        Ok(())
    }
}
