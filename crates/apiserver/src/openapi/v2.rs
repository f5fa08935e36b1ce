//! OpenAPI v2, which is Swagger 2.0: what version 3 says, in one document and in its words.

use serde_json::{Map, Value, json};

use super::v3::SCHEMAS;

/// Where the schemas lie.
const DEFINITIONS: &str = "#/definitions/";

/// Members of a schema that version 2 does not have.
const UNKNOWN: [&str; 6] =
    ["allOf", "anyOf", "not", "nullable", "oneOf", "x-kubernetes-validations"];

/// Members that say what a value is made of; without them, a client lets everything in.
const MAKE: [&str; 4] = ["additionalProperties", "items", "properties", "required"];

/// The document that says what these documents of version 3 say.
pub(super) fn document(described: &[Value]) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for document in described {
        for (path, item) in members(&document["paths"]) {
            paths.insert(path.clone(), path_item(item));
        }
        for (name, written) in members(&document["components"]["schemas"]) {
            definitions.insert(name.clone(), schema(written));
        }
    }
    json!({
        "swagger": "2.0",
        "info": super::about(),
        "paths": paths,
        "definitions": definitions,
    })
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn path_item(item: &Value) -> Value {
    let translated = members(item).map(|(name, value)| {
        let value = match name.as_str() {
            "parameters" => list(value).iter().map(parameter).collect(),
            _ => operation(value),
        };
        (name.clone(), value)
    });
    Value::Object(translated.collect())
}

fn operation(written: &Value) -> Value {
    let mut operation = written.clone();
    let mut parameters: Vec<Value> = list(&written["parameters"]).iter().map(parameter).collect();
    let body = &written["requestBody"]["content"];
    if let Some((_, content)) = members(body).next() {
        let schema = schema(&content["schema"]);
        parameters
            .push(json!({ "name": "body", "in": "body", "required": true, "schema": schema }));
        operation["consumes"] = members(body).map(|(name, _)| name.as_str()).collect();
    }
    let responses = members(&written["responses"]).map(|(code, response)| {
        let schema = schema(&response["content"]["application/json"]["schema"]);
        (code.clone(), json!({ "description": response["description"], "schema": schema }))
    });
    operation["produces"] = json!(["application/json", "application/yaml"]);
    operation["responses"] = Value::Object(responses.collect());
    operation["parameters"] = parameters.into();
    if let Some(members) = operation.as_object_mut() {
        members.remove("requestBody");
    }
    operation
}

/// A parameter; its type stands in it, not in a schema.
fn parameter(written: &Value) -> Value {
    let own = members(written).filter(|(name, _)| *name != "schema");
    let all = own.chain(members(&written["schema"]));
    Value::Object(all.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// A schema. It says less than version 3 does: what it cannot say, the server still checks.
fn schema(written: &Value) -> Value {
    let has = |name: &str| written[name] == true;
    // A type does not let a null in, and there is but one of it.
    let is_untyped = has("nullable") || has("x-kubernetes-int-or-string");
    let is_open = is_untyped || has("x-kubernetes-preserve-unknown-fields");
    let mut schema = Map::new();
    for (name, value) in members(written) {
        let name = name.as_str();
        if UNKNOWN.contains(&name)
            || is_open && MAKE.contains(&name)
            || is_untyped && ["type", "default"].contains(&name)
        {
            continue;
        }
        let value = match name {
            "$ref" => reference(value),
            "properties" => {
                let part = |(name, part): (&String, &Value)| (name.clone(), self::schema(part));
                Value::Object(members(value).map(part).collect())
            }
            "items" | "additionalProperties" if value.is_object() => self::schema(value),
            _ => value.clone(),
        };
        schema.insert(name.into(), value);
    }
    if let [only] = list(&written["allOf"])
        && only["$ref"].is_string()
    {
        schema.insert("$ref".into(), reference(&only["$ref"]));
    }
    schema.into()
}

fn reference(written: &Value) -> Value {
    let name = written.as_str().unwrap_or_default().trim_start_matches(SCHEMAS);
    format!("{DEFINITIONS}{name}").into()
}
