//! The rules that a schema states in CEL, as `x-kubernetes-validations`: what no pattern and no
//! bound can say. They come with the definitions, never from a client.

use std::fmt;

use kube_cel::KubeCelExt;
use kube_cel::cel::{self, Context, Program};
use serde_json::Value;

use super::{SchemaError, fault};
use crate::{object::type_of, status::Cause};

/// The member of a schema in which rules stand.
pub(super) const MEMBER: &str = "x-kubernetes-validations";

/// The rules of a definition's schema.
#[derive(Debug, Default)]
pub(crate) struct Rules(Vec<Rule>);

/// A rule about the value at one place of an object.
struct Rule {
    /// The names that lead there.
    place: Vec<String>,
    written: String,
    program: Program,
    /// What is told when it does not hold.
    text: String,
}

impl Rules {
    /// Reads the rules of all of a schema.
    pub(crate) fn compile(written: &Value) -> Result<Self, SchemaError> {
        let mut rules = Self::default();
        rules.collect(written, &mut Vec::new())?;
        Ok(rules)
    }

    fn collect(&mut self, schema: &Value, place: &mut Vec<String>) -> Result<(), SchemaError> {
        let path = place.join(".");
        for rule in schema[MEMBER].as_array().into_iter().flatten() {
            self.0.push(Rule::compile(rule, place).map_err(|why| fault(&path, &why))?);
        }
        for (name, below) in schema["properties"].as_object().into_iter().flatten() {
            place.push(name.clone());
            self.collect(below, place)?;
            place.pop();
        }
        // Rules about each of many values are not asked by this server.
        for many in ["items", "additionalProperties"] {
            if schema[many].to_string().contains(MEMBER) {
                return Err(fault(&path, &format!("this server does not know rules in {many}")));
            }
        }
        Ok(())
    }

    /// The rules that an object breaks. Ask only for one whose shape is right: a rule reads fields
    /// without looking at what they are.
    pub(crate) fn faults(&self, object: &Value) -> Vec<Cause> {
        self.0.iter().filter_map(|rule| rule.fault(object)).collect()
    }
}

impl Rule {
    fn compile(rule: &Value, place: &[String]) -> Result<Self, String> {
        let text = |name: &str| rule[name].as_str().map(str::to_owned);
        let written = text("rule").ok_or("a rule without a text")?;
        if written.contains("oldSelf") {
            return Err("this server does not know rules about oldSelf".to_owned());
        }
        let program = Program::compile(&written).map_err(|error| format!("{written}: {error}"))?;
        let told = text("message").unwrap_or_else(|| format!("failed rule: {written}"));
        Ok(Self { place: place.to_vec(), written, program, text: told })
    }

    fn fault(&self, object: &Value) -> Option<Cause> {
        let value = self.place.iter().try_fold(object, |value, name| value.get(name))?;
        let why = match self.holds(value) {
            Ok(true) => return None,
            Ok(false) => self.text.clone(),
            Err(why) => format!("rule {} could not be evaluated: {why}", self.written),
        };
        // As the real server: the type of what is wrong, not all of it.
        Some(Cause::invalid(&self.place.join("."), &type_of(value).into(), &why))
    }

    fn holds(&self, value: &Value) -> Result<bool, String> {
        let mut context = Context::default().with_all();
        let value = cel::to_value(value).map_err(|error| error.to_string())?;
        context.add_variable_from_value("self", value);
        match self.program.execute(&context) {
            Ok(cel::Value::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("it is {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place.join("."), self.written)
    }
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
                "x-kubernetes-validations": [{ "rule": rule, "message": "set one of a and a_id" }],
                "properties": { "a": { "type": "string" }, "a_id": { "type": "string" } },
            } },
        }))
    }

    #[test]
    fn a_broken_rule_is_told_in_its_own_words() {
        let rules = rules("has(self.a) != has(self.a_id)").unwrap();
        let faults = |spec: Value| rules.faults(&json!({ "spec": spec }));
        assert!(faults(json!({ "a": "x" })).is_empty());
        for wrong in [json!({}), json!({ "a": "x", "a_id": "y" })] {
            let faults = faults(wrong);
            let [fault] = &faults[..] else { panic!("{faults:?}") };
            assert_eq!(fault.field, "spec");
            assert_eq!(fault.text, "Invalid value: \"object\": set one of a and a_id");
        }
    }

    #[test]
    fn a_rule_that_cannot_be_asked_is_refused_with_its_definition() {
        for rule in ["has(self.a", "self.a == oldSelf.a"] {
            assert!(rules(rule).is_err(), "{rule}");
        }
    }
}
