//! The rules that a schema states in CEL, as `x-kubernetes-validations`: what no pattern and no
//! bound can say. They come with the definitions, never from a client.

use kube_cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use serde_json::Value;

use super::{SchemaError, fault};
use crate::{object::type_of, status::Cause};

/// The member of a schema in which rules stand.
pub(super) const MEMBER: &str = "x-kubernetes-validations";

/// The rules of a definition's schema.
#[derive(Debug)]
pub(crate) struct Rules(Option<(Validator, CompiledSchema)>);

impl Rules {
    /// Reads the rules of all of a schema.
    pub(crate) fn compile(written: &Value) -> Result<Self, SchemaError> {
        if !has_rules(written, "")? {
            return Ok(Self(None));
        }
        let compiled = compile_schema(written);
        match first_error(&compiled) {
            Some(why) => Err(fault(MEMBER, &why)),
            None => Ok(Self(Some((Validator::new(), compiled)))),
        }
    }

    /// The rules that an object breaks. Ask only for one whose shape is right: a rule reads fields
    /// without looking at what they are.
    pub(crate) fn faults(&self, object: &Value) -> Vec<Cause> {
        let Self(Some((validator, compiled))) = self else { return Vec::new() };
        let Err(errors) = validator.validate_compiled(compiled, object, None) else {
            return Vec::new();
        };
        let cause = |error: kube_cel::ValidationError| {
            let path = error.field_path.as_str();
            let why = match error.kind {
                ErrorKind::ValidationFailure => error.message.clone(),
                _ => format!("rule {} could not be evaluated: {}", error.rule, error.message),
            };
            // As the real server: the type of what is wrong, not all of it.
            let pointer: String = path.split('.').map(|name| format!("/{name}")).collect();
            let value = if path.is_empty() { Some(object) } else { object.pointer(&pointer) };
            Cause::invalid(path, &value.map_or("object", type_of).into(), &why)
        };
        errors.into_vec().into_iter().map(cause).collect()
    }
}

/// Are there rules in a schema? Those about a change from an old object are refused, because they
/// would never be asked.
fn has_rules(written: &Value, path: &str) -> Result<bool, SchemaError> {
    match written {
        Value::Object(members) => {
            let own = members.get(MEMBER);
            if own.is_some_and(|rules| rules.to_string().contains("oldSelf")) {
                return Err(fault(path, "this server does not know rules about oldSelf"));
            }
            members.iter().try_fold(own.is_some(), |found, (name, below)| {
                let path = super::below(path, name);
                Ok(found | (name != MEMBER && has_rules(below, &path)?))
            })
        }
        Value::Array(items) => {
            items.iter().try_fold(false, |found, item| Ok(found | has_rules(item, path)?))
        }
        _ => Ok(false),
    }
}

fn first_error(compiled: &CompiledSchema) -> Option<String> {
    let own = compiled.compilation_errors().first().map(ToString::to_string);
    let below = compiled.properties.values().chain(compiled.items.as_deref());
    let mut below = below.chain(compiled.additional_properties.as_deref());
    own.or_else(|| below.find_map(first_error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(rule: &str) -> Result<Rules, SchemaError> {
        Rules::compile(&json!({
            "type": "object",
            "properties": { "spec": {
                "type": "object",
                "x-kubernetes-validations": [{ "rule": rule, "message": "set one of a and b" }],
                "properties": { "a": { "type": "string" }, "b": { "type": "string" } },
            } },
        }))
    }

    #[test]
    fn a_broken_rule_is_told_in_its_own_words() {
        let rules = rules("has(self.a) != has(self.b)").unwrap();
        let faults = |spec: Value| rules.faults(&json!({ "spec": spec }));
        assert!(faults(json!({ "a": "x" })).is_empty());
        for wrong in [json!({}), json!({ "a": "x", "b": "y" })] {
            let faults = faults(wrong);
            let [fault] = &faults[..] else { panic!("{faults:?}") };
            assert_eq!(fault.field, "spec");
            assert_eq!(fault.text, "Invalid value: \"object\": set one of a and b");
        }
    }

    #[test]
    fn a_rule_that_cannot_be_asked_is_refused_with_its_definition() {
        for rule in ["has(self.a", "self.a == oldSelf.a"] {
            assert!(rules(rule).is_err(), "{rule}");
        }
    }
}
