//! Swagger 2.0 in protobuf, the only form in which `kubectl` takes it.
//!
//! The numbers of the fields are those of gnostic, the library that defined the form. A function
//! for each kind of part says which number a member has; members that none of our documents has
//! are not among them.

use serde_json::Value;

use crate::protobuf::Writer;

/// Writes the document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    part(document, |out, name, value| match name {
        "swagger" => out.text(1, text(value)),
        "info" => out.bytes(2, &part(value, info)),
        "paths" => out.bytes(8, &named(value, 2, |item| part(item, path_item))),
        "definitions" => out.bytes(9, &named(value, 1, |value| part(value, schema))),
        _ => {}
    })
}

/// Writes the members of a part, each by its number.
fn part(value: &Value, write: fn(&mut Writer, &str, &Value)) -> Vec<u8> {
    let mut out = Writer::default();
    for (name, value) in value.as_object().into_iter().flatten() {
        write(&mut out, name, value);
    }
    out.finish()
}

/// Writes a map: a list of pairs, the field `number` of a part of its own.
fn named(map: &Value, number: u64, write: fn(&Value) -> Vec<u8>) -> Vec<u8> {
    let mut out = Writer::default();
    for (name, value) in map.as_object().into_iter().flatten() {
        out.bytes(number, &pair(name, &write(value)));
    }
    out.finish()
}

fn pair(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.text(1, name);
    out.bytes(2, value);
    out.finish()
}

/// Writes a part that is nothing but a choice between several.
fn choice(number: u64, chosen: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(number, chosen);
    out.finish()
}

fn info(out: &mut Writer, name: &str, value: &Value) {
    match name {
        "title" => out.text(1, text(value)),
        "version" => out.text(2, text(value)),
        _ => {}
    }
}

fn path_item(out: &mut Writer, name: &str, value: &Value) {
    let number = match name {
        "get" => 2,
        "put" => 3,
        "post" => 4,
        "delete" => 5,
        "patch" => 8,
        "parameters" => return parameters(out, 9, value),
        _ => return,
    };
    out.bytes(number, &part(value, operation));
}

fn operation(out: &mut Writer, name: &str, value: &Value) {
    match name {
        "produces" => texts(out, 6, value),
        "consumes" => texts(out, 7, value),
        "parameters" => parameters(out, 8, value),
        "responses" => {
            let response = |value: &Value| choice(1, &part(value, response));
            out.bytes(9, &named(value, 1, response));
        }
        _ => extension(out, 13, name, value),
    }
}

fn response(out: &mut Writer, name: &str, value: &Value) {
    match name {
        "description" => out.text(1, text(value)),
        "schema" => out.bytes(2, &choice(1, &part(value, schema))),
        _ => {}
    }
}

fn parameters(out: &mut Writer, number: u64, parameters: &Value) {
    for value in parameters.as_array().into_iter().flatten() {
        let chosen = match value["in"].as_str() {
            Some("body") => choice(1, &part(value, body_parameter)),
            Some("query") => choice(2, &choice(3, &part(value, query_parameter))),
            _ => choice(2, &choice(4, &part(value, path_parameter))),
        };
        out.bytes(number, &choice(1, &chosen));
    }
}

fn body_parameter(out: &mut Writer, name: &str, value: &Value) {
    match name {
        "name" => out.text(2, text(value)),
        "in" => out.text(3, text(value)),
        "required" => out.switch(4, *value == true),
        "schema" => out.bytes(5, &part(value, schema)),
        _ => {}
    }
}

fn query_parameter(out: &mut Writer, name: &str, value: &Value) {
    match name {
        "type" => out.text(6, text(value)),
        _ => common_parameter(out, name, value),
    }
}

fn path_parameter(out: &mut Writer, name: &str, value: &Value) {
    match name {
        "type" => out.text(5, text(value)),
        _ => common_parameter(out, name, value),
    }
}

fn common_parameter(out: &mut Writer, name: &str, value: &Value) {
    match name {
        "required" => out.switch(1, *value == true),
        "in" => out.text(2, text(value)),
        "name" => out.text(4, text(value)),
        _ => {}
    }
}

fn schema(out: &mut Writer, name: &str, value: &Value) {
    let part = |value: &Value| part(value, schema);
    match name {
        "$ref" => out.text(1, text(value)),
        "format" => out.text(2, text(value)),
        "title" => out.text(3, text(value)),
        "description" => out.text(4, text(value)),
        "default" => out.bytes(5, &any(value)),
        "multipleOf" => out.fraction(6, value.as_f64().unwrap_or_default()),
        "maximum" => out.fraction(7, value.as_f64().unwrap_or_default()),
        "exclusiveMaximum" => out.switch(8, *value == true),
        "minimum" => out.fraction(9, value.as_f64().unwrap_or_default()),
        "exclusiveMinimum" => out.switch(10, *value == true),
        "maxLength" => out.number(11, value.as_u64().unwrap_or_default()),
        "minLength" => out.number(12, value.as_u64().unwrap_or_default()),
        "pattern" => out.text(13, text(value)),
        "maxItems" => out.number(14, value.as_u64().unwrap_or_default()),
        "minItems" => out.number(15, value.as_u64().unwrap_or_default()),
        "uniqueItems" => out.switch(16, *value == true),
        "maxProperties" => out.number(17, value.as_u64().unwrap_or_default()),
        "minProperties" => out.number(18, value.as_u64().unwrap_or_default()),
        "required" => texts(out, 19, value),
        "enum" => {
            value.as_array().into_iter().flatten().for_each(|one| out.bytes(20, &any(one)));
        }
        "additionalProperties" if value.is_boolean() => {
            let mut open = Writer::default();
            open.switch(2, *value == true);
            out.bytes(21, &open.finish());
        }
        "additionalProperties" => out.bytes(21, &choice(1, &part(value))),
        "type" => out.bytes(22, &choice(1, text(value).as_bytes())),
        "items" => out.bytes(23, &choice(1, &part(value))),
        "properties" => out.bytes(25, &named(value, 1, |value| self::part(value, schema))),
        _ => extension(out, 31, name, value),
    }
}

/// What Kubernetes adds to the words of Swagger.
fn extension(out: &mut Writer, number: u64, name: &str, value: &Value) {
    if name.starts_with("x-") {
        out.bytes(number, &pair(name, &any(value)));
    }
}

/// A value of any kind, as YAML, which JSON is too.
fn any(value: &Value) -> Vec<u8> {
    choice(2, value.to_string().as_bytes())
}

fn texts(out: &mut Writer, number: u64, values: &Value) {
    values.as_array().into_iter().flatten().for_each(|value| out.text(number, text(value)));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
