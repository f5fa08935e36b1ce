//! Finding every fault of an object at once, in the API server's words.

use std::collections::HashSet;

use serde_json::{Number, Value};

use super::{Bound, Format, Kind, Limits, Schema};
use crate::{limits, object::type_of, status::Cause};

impl Schema {
    /// All faults of `value`, which stands at `path`; at most [`limits::CAUSES`].
    pub(crate) fn faults(&self, value: &Value, path: &str) -> Vec<Cause> {
        let mut faults = Vec::new();
        self.check(value, path, &mut faults);
        faults.truncate(limits::CAUSES);
        faults
    }

    fn check(&self, value: &Value, path: &str, faults: &mut Vec<Cause>) {
        if faults.len() >= limits::CAUSES || (value.is_null() && self.nullable) {
            return;
        }
        if let Some(fault) = self.type_fault(value, path) {
            faults.push(fault);
            return;
        }
        if let Some(choices) = &self.choices
            && !choices.contains(value)
        {
            faults.push(Cause::not_supported(path, value, choices));
        }
        match value {
            Value::String(text) => self.check_text(text, value, path, faults),
            Value::Number(number) => self.check_number(number, value, path, faults),
            Value::Array(items) => self.check_items(items, value, path, faults),
            Value::Object(_) => self.check_members(value, path, faults),
            Value::Null | Value::Bool(_) => {}
        }
        self.check_combined(value, path, faults);
    }

    fn type_fault(&self, value: &Value, path: &str) -> Option<Cause> {
        let found = type_of(value);
        if self.int_or_string {
            let why = format!("{path} in body must be of type integer,string: \"{found}\"");
            let fits = value.is_string() || is_whole(value);
            return (!fits).then(|| Cause::wrong_type(path, found, &why));
        }
        let kind = self.kind?;
        let fits = match kind {
            Kind::Integer => is_whole(value),
            Kind::Number => value.is_number(),
            kind => kind.as_str() == found,
        };
        let wanted = kind.as_str();
        let why = format!("{path} in body must be of type {wanted}: \"{found}\"");
        (!fits).then(|| Cause::wrong_type(path, found, &why))
    }

    fn check_text(&self, text: &str, value: &Value, path: &str, faults: &mut Vec<Cause>) {
        let Limits { least, most } = self.length;
        let length = text.chars().count() as u64;
        if let Some(most) = most.filter(|most| length > *most) {
            faults.push(Cause::too_long(path, most));
        }
        if let Some(least) = least.filter(|least| length < *least) {
            let why = format!("{path} in body should be at least {least} chars long");
            faults.push(Cause::invalid(path, value, &why));
        }
        if let Some(pattern) = &self.pattern
            && !pattern.is_match(text)
        {
            let why = format!("{path} in body should match '{}'", pattern.as_str());
            faults.push(Cause::invalid(path, value, &why));
        }
        let (name, fits) = match self.format {
            Some(Format::DateTime) => ("date-time", text.parse::<jiff::Timestamp>().is_ok()),
            Some(Format::Uuid) => ("uuid", uuid::Uuid::try_parse(text).is_ok()),
            _ => return,
        };
        if !fits {
            let why = format!("{path} in body must be of type {name}: {value}");
            faults.push(Cause::invalid(path, value, &why));
        }
    }

    fn check_number(&self, number: &Number, value: &Value, path: &str, faults: &mut Vec<Cause>) {
        let float = number.as_f64().unwrap_or(f64::NAN);
        let mut refuse = |why: String| faults.push(Cause::invalid(path, value, &why));
        if let Some(Bound { value: least, exclusive }) = self.minimum
            && (float < least || (exclusive && float <= least))
        {
            let word = if exclusive { "greater than" } else { "greater than or equal to" };
            refuse(format!("{path} in body should be {word} {least}"));
        }
        if let Some(Bound { value: most, exclusive }) = self.maximum
            && (float > most || (exclusive && float >= most))
        {
            let word = if exclusive { "less than" } else { "less than or equal to" };
            refuse(format!("{path} in body should be {word} {most}"));
        }
        if let Some(step) = self.multiple_of
            && (float / step).fract() != 0.0
        {
            refuse(format!("{path} in body should be a multiple of {step}"));
        }
        let (name, fits) = match self.format {
            Some(Format::Int32) => {
                ("int32", (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&float))
            }
            Some(Format::Int64) => ("int64", number.as_i64().is_some() || is_whole(value)),
            _ => return,
        };
        if !fits {
            refuse(format!("{path} in body must be of type {name}: \"{number}\""));
        }
    }

    fn check_items(&self, items: &[Value], value: &Value, path: &str, faults: &mut Vec<Cause>) {
        let Limits { least, most } = self.count;
        let count = items.len() as u64;
        if let Some(most) = most.filter(|most| count > *most) {
            faults.push(Cause::too_many(path, items.len(), most));
        }
        if let Some(least) = least.filter(|least| count < *least) {
            let why = format!("{path} in body should have at least {least} items");
            faults.push(Cause::invalid(path, value, &why));
        }
        if self.unique {
            let mut seen = HashSet::with_capacity(items.len());
            if !items.iter().all(|item| seen.insert(item.to_string())) {
                let why = format!("{path} in body shouldn't contain duplicates");
                faults.push(Cause::invalid(path, value, &why));
            }
        }
        // The real server takes finalizers and owners that come twice.
        if let Some((index, item)) = self.repeated(items).filter(|_| !path.starts_with("metadata."))
        {
            faults.push(Cause::duplicate(&format!("{path}[{index}]"), item));
        }
        if let Some(schema) = &self.items {
            for (index, item) in items.iter().enumerate() {
                schema.check(item, &format!("{path}[{index}]"), faults);
            }
        }
    }

    fn check_members(&self, value: &Value, path: &str, faults: &mut Vec<Cause>) {
        let Value::Object(members) = value else { return };
        let below =
            |name: &str| if path.is_empty() { name.into() } else { format!("{path}.{name}") };
        let Limits { least, most } = self.members;
        let count = members.len() as u64;
        if let Some(most) = most.filter(|most| count > *most) {
            faults.push(Cause::too_many(path, members.len(), most));
        }
        if let Some(least) = least.filter(|least| count < *least) {
            let why = format!("{path} in body should have at least {least} properties");
            faults.push(Cause::invalid(path, value, &why));
        }
        for name in &self.required {
            if !members.contains_key(name) {
                faults.push(Cause::required(&below(name)));
            }
        }
        for (name, value) in members {
            if let Some(schema) = self.properties.get(name).or(self.additional.as_deref()) {
                schema.check(value, &below(name), faults);
            }
        }
    }

    fn check_combined(&self, value: &Value, path: &str, faults: &mut Vec<Cause>) {
        let mut refuse = |rule: &str, best: Vec<Cause>| {
            // The real server repeats no value here.
            let text = format!("Invalid value: \"\": \"{path}\" must {rule}");
            faults.push(Cause { reason: "FieldValueInvalid", text, field: path.into() });
            faults.extend(best);
        };
        let tried = |schemas: &[Schema]| -> Vec<Vec<Cause>> {
            schemas.iter().map(|schema| schema.faults(value, path)).collect()
        };
        if !self.any_of.is_empty() {
            let tried = tried(&self.any_of);
            if tried.iter().all(|faults| !faults.is_empty()) {
                refuse("validate at least one schema (anyOf)", nearest(tried));
            }
        }
        if !self.one_of.is_empty() {
            let tried = tried(&self.one_of);
            let fitting = tried.iter().filter(|faults| faults.is_empty()).count();
            let rule = "validate one and only one schema (oneOf)";
            match fitting {
                0 => refuse(&format!("{rule}. Found none valid"), nearest(tried)),
                1 => {}
                several => {
                    refuse(&format!("{rule}. Found {several} valid alternatives"), Vec::new());
                }
            }
        }
        if !self.all_of.is_empty() {
            let failed: Vec<Cause> = tried(&self.all_of).into_iter().flatten().collect();
            if !failed.is_empty() {
                refuse("validate all the schemas (allOf)", failed);
            }
        }
        if let Some(not) = &self.not
            && not.faults(value, path).is_empty()
        {
            refuse("not validate the schema (not)", Vec::new());
        }
    }
}

/// The faults against the schema that fits best: the likeliest help.
fn nearest(tried: Vec<Vec<Cause>>) -> Vec<Cause> {
    tried.into_iter().min_by_key(Vec::len).unwrap_or_default()
}

/// JSON has one kind of number: 3.0 is an integer.
fn is_whole(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number.fract() == 0.0 && number.is_finite())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(schema: Value, value: Value) -> Vec<String> {
        let faults = Schema::compile(&schema).unwrap().faults(&value, "spec");
        faults.iter().map(|fault| format!("{}: {}", fault.field, fault.text)).collect()
    }

    #[test]
    fn every_fault_is_named_at_once_in_the_servers_words() {
        let schema = json!({
            "type": "object",
            "required": ["endpoint", "source"],
            "properties": {
                "endpoint": { "type": "string", "pattern": "^https?://", "maxLength": 12 },
                "inflight": { "type": "integer", "minimum": 1, "maximum": 400 },
                "mode": { "type": "string", "enum": ["a", "b"] },
                "names": { "type": "array", "maxItems": 1, "uniqueItems": true,
                           "items": { "type": "string", "minLength": 1 } },
                "when": { "type": "string", "format": "date-time" },
                "flag": { "type": "boolean" },
            },
        });
        let value = json!({
            "endpoint": "ftp://too-long-a-text", "inflight": 0, "mode": "c",
            "names": ["", ""], "when": "yesterday", "flag": "yes",
        });
        assert_eq!(
            faults(schema.clone(), value),
            [
                "spec.source: Required value",
                "spec.endpoint: Too long: may not be more than 12 bytes",
                "spec.endpoint: Invalid value: \"ftp://too-long-a-text\": \
                 spec.endpoint in body should match '^https?://'",
                "spec.flag: Invalid value: \"string\": \
                 spec.flag in body must be of type boolean: \"string\"",
                "spec.inflight: Invalid value: 0: \
                 spec.inflight in body should be greater than or equal to 1",
                "spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\"",
                "spec.names: Too many: 2: must have at most 1 item",
                "spec.names: Invalid value: [\"\",\"\"]: \
                 spec.names in body shouldn't contain duplicates",
                "spec.names[0]: Invalid value: \"\": \
                 spec.names[0] in body should be at least 1 chars long",
                "spec.names[1]: Invalid value: \"\": \
                 spec.names[1] in body should be at least 1 chars long",
                "spec.when: Invalid value: \"yesterday\": \
                 spec.when in body must be of type date-time: \"yesterday\"",
            ]
        );
        let good = json!({ "endpoint": "http://a", "source": 1, "inflight": 400.0, "flag": true });
        assert_eq!(faults(schema, good), Vec::<String>::new());
    }

    #[test]
    fn one_of_says_how_many_fit() {
        let schema = json!({ "oneOf": [
            { "required": ["source"] }, { "required": ["source_id"] },
        ] });
        assert_eq!(
            faults(schema.clone(), json!({})),
            [
                "spec: Invalid value: \"\": \"spec\" must validate one and only one schema \
                 (oneOf). Found none valid",
                "spec.source: Required value",
            ]
        );
        assert_eq!(
            faults(schema.clone(), json!({ "source": 1, "source_id": 2 })),
            ["spec: Invalid value: \"\": \"spec\" must validate one and only one schema \
              (oneOf). Found 2 valid alternatives"]
        );
        assert_eq!(faults(schema, json!({ "source": 1 })), Vec::<String>::new());
    }

    #[test]
    fn any_all_and_not_combine() {
        let schema = json!({ "type": "string", "anyOf": [{ "pattern": "^a" }, { "pattern": "b$" }],
            "allOf": [{ "minLength": 2 }], "not": { "enum": ["ab"] } });
        assert_eq!(faults(schema.clone(), json!("axe")), Vec::<String>::new());
        assert_eq!(
            faults(schema.clone(), json!("ab")),
            ["spec: Invalid value: \"\": \"spec\" must not validate the schema (not)"]
        );
        assert_eq!(faults(schema.clone(), json!("xx")).len(), 2);
        assert_eq!(faults(schema, json!("a")).len(), 2);
    }

    #[test]
    fn numbers_keep_their_bounds() {
        let schema = json!({ "type": "integer", "format": "int32", "minimum": 0,
            "exclusiveMinimum": true, "multipleOf": 2 });
        assert_eq!(faults(schema.clone(), json!(2)), Vec::<String>::new());
        assert_eq!(
            faults(schema.clone(), json!(0)),
            ["spec: Invalid value: 0: spec in body should be greater than 0"]
        );
        assert_eq!(
            faults(schema.clone(), json!(3)),
            ["spec: Invalid value: 3: spec in body should be a multiple of 2"]
        );
        assert_eq!(
            faults(schema.clone(), json!(4_294_967_296_i64)),
            ["spec: Invalid value: 4294967296: \
              spec in body must be of type int32: \"4294967296\""]
        );
        assert_eq!(
            faults(schema, json!(1.5)),
            ["spec: Invalid value: \"number\": spec in body must be of type integer: \"number\""]
        );
    }

    #[test]
    fn the_number_of_causes_is_bounded() {
        let items = vec![json!(1); 100_000];
        let schema = json!({ "type": "array", "items": { "type": "string" } });
        assert_eq!(faults(schema, json!(items)).len(), limits::CAUSES);
    }
}
