//! Tables: the rows that `kubectl get` prints.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    accept::TableVersion,
    definition::{Column, Resource},
    object,
};

/// How a table is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableForm {
    /// What of each object goes with its row.
    pub(crate) include: Include,
    /// Now, for ages.
    pub(crate) now_ms: u64,
}

/// How much of the object goes with its row (`includeObject`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Include {
    Nothing,
    Metadata,
    Object,
}

/// A table without its rows; `metadata` is the list's. The columns are named unless `rows_only`.
pub(crate) fn frame(
    version: TableVersion,
    resource: &Resource,
    metadata: Value,
    rows_only: bool,
) -> Value {
    let columns = if rows_only { Value::Null } else { columns(resource) };
    let version = match version {
        TableVersion::V1 => "meta.k8s.io/v1",
        TableVersion::V1Beta1 => "meta.k8s.io/v1beta1",
    };
    json!({
        "kind": "Table", "apiVersion": version, "metadata": metadata,
        "columnDefinitions": columns,
    })
}

impl TableForm {
    /// The row of an object.
    pub(crate) fn row(self, resource: &Resource, object: Value) -> Value {
        let mut cells = Vec::with_capacity(resource.columns.len() + 1);
        if !resource.is_event() {
            cells.push(object["metadata"]["name"].clone());
        }
        cells.extend(resource.columns.iter().map(|column| self.cell(resource, column, &object)));
        let object = match self.include {
            Include::Nothing => return json!({ "cells": cells }),
            Include::Metadata => partial(&object),
            Include::Object => object,
        };
        json!({ "cells": cells, "object": object })
    }

    fn cell(self, resource: &Resource, column: &Column, object: &Value) -> Value {
        let found = column.path.find(object);
        if found.is_empty() && resource.is_secret() && column.kind == "integer" {
            // The values are counted: without any there are none.
            return 0.into();
        }
        let Some(value) = found.first().filter(|value| !value.is_null()) else {
            return Value::Null;
        };
        match column.kind.as_str() {
            // What has members is counted.
            "integer" if value.is_object() => value.as_object().map_or(0, Map::len).into(),
            "integer" => value.as_f64().map_or(Value::Null, |number| json!(number as i64)),
            "number" if value.is_number() => (*value).clone(),
            "boolean" if value.is_boolean() => (*value).clone(),
            "string" if column.format == "reference" => {
                let text = |field| value[field].as_str().unwrap_or_default();
                format!("{}/{}", text("kind").to_lowercase(), text("name")).into()
            }
            "string" => match value {
                Value::String(text) => text.as_str().into(),
                other => other.to_string().into(),
            },
            "date" => match value.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
                Some(moment) => {
                    let now = i64::try_from(self.now_ms).unwrap_or(i64::MAX);
                    age(now.saturating_sub(moment.as_millisecond()) / 1000).into()
                }
                None => "<unknown>".into(),
            },
            _ => Value::Null,
        }
    }
}

/// An object's metadata alone.
pub(crate) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

fn columns(resource: &Resource) -> Value {
    let about = "The object's name, unique among its kind in its namespace.";
    let name = json!({
        "name": "Name", "type": "string", "format": "name", "description": about, "priority": 0,
    });
    let columns = resource.columns.iter().map(|column| {
        json!({
            "name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    });
    // Events are told from each other by what they tell; their names come last.
    let name = (!resource.is_event()).then_some(name);
    name.into_iter().chain(columns).collect()
}

/// A duration in the words of `kubectl`: precise while short, coarse when long.
fn age(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        small => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".into(),
        -1..0 => "0s".into(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * 365 * DAY => format!("{}d", s / DAY),
        s if s < 8 * 365 * DAY => two(s / DAY / 365, "y", s / DAY % 365, "d"),
        s => format!("{}y", s / DAY / 365),
    }
}

/// How much of the objects a query wants beside the rows; none if it is no known word.
pub(crate) fn include(text: &str) -> Option<Include> {
    match text {
        "" | "Metadata" => Some(Include::Metadata),
        "None" => Some(Include::Nothing),
        "Object" => Some(Include::Object),
        _ => None,
    }
}

/// The metadata of a table that shows one object.
pub(crate) fn single_metadata(object: &Value) -> Value {
    json!({ "resourceVersion": object::text(object, "resourceVersion") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_in_kubectl() {
        let cases = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (18_300, "5h5m"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (315_360_000, "10y"),
        ];
        for (seconds, words) in cases {
            assert_eq!(age(seconds), words, "{seconds}");
        }
    }
}
