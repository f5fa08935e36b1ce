//! Secrets: what their values may be, and what of them may change.
//!
//! No text here repeats a value: refusals are read, logged and copied into tickets.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD as BASE64, Engine};
use serde_json::{Map, Value, json};

use crate::{
    definition::Resource,
    limits, object,
    status::{ApiError, Cause},
};

const KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
    (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
    '[-._a-zA-Z0-9]+')";
const FROZEN: &str = "field is immutable when `immutable` is set";

/// What a Secret of a type must hold.
const REQUIRED: [(&str, &[&str]); 4] = [
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

/// Plain texts become values like the others.
pub(super) fn complete(secret: &mut Value) {
    let plain: Option<BTreeMap<String, String>> =
        serde_json::from_value(secret["stringData"].clone()).ok();
    let Some(members) = secret.as_object_mut() else { return };
    let values = members.get("data").is_none_or(|data| data.is_object() || data.is_null());
    // What is no map of texts stays, and is refused by the schema.
    if let Some(plain) = plain
        && values
    {
        members.remove("stringData");
        let data = members.entry("data").or_insert(Value::Null);
        if data.is_null() {
            *data = json!({});
        }
        for (key, text) in plain {
            data[key] = BASE64.encode(text).into();
        }
    }
    members.retain(|name, value| {
        !(value.is_null() && ["data", "stringData"].contains(&name.as_str()))
    });
}

/// All faults of a Secret's values.
pub(super) fn faults(secret: &Value) -> Vec<Cause> {
    let (mut faults, mut bytes) = (Vec::new(), 0);
    let none = Map::new();
    let data = secret["data"].as_object().unwrap_or(&none);
    for (key, value) in data {
        let field = format!("data[{key}]");
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if key.is_empty() || !key.bytes().all(legal) || [".", ".."].contains(&key.as_str()) {
            faults.push(Cause::invalid(&field, &key.as_str().into(), KEY));
        } else if key.len() > limits::SECRET_KEY_BYTES {
            faults.push(Cause::too_long(&field, limits::SECRET_KEY_BYTES as u64));
        }
        match value.as_str().map(|text| BASE64.decode(text)) {
            Some(Ok(value)) => bytes += value.len(),
            _ => faults.push(Cause::hidden(&field, "illegal base64 data")),
        }
    }
    if bytes > limits::SECRET_BYTES {
        faults.push(Cause::too_long("data", limits::SECRET_BYTES as u64));
    }
    let required = REQUIRED.iter().find(|(kind, _)| secret["type"] == *kind);
    for key in required.into_iter().flat_map(|(_, keys)| *keys) {
        if !data.contains_key(*key) {
            faults.push(Cause::required(&format!("data[{key}]")));
        }
    }
    faults
}

/// Refuses a change of what never changes.
pub(super) fn check_change(
    resource: &Resource,
    before: &Value,
    after: &Value,
    blind: bool,
) -> Result<(), ApiError> {
    let mut faults = Vec::new();
    if before["type"] != after["type"] {
        faults.push(Cause::invalid("type", &after["type"], "field is immutable"));
    }
    if before["immutable"] == true {
        for field in ["immutable", "data"] {
            // Who guesses what was there is told the same whether it was or not.
            if blind || before[field] != after[field] {
                faults.push(Cause::forbidden(field, FROZEN));
            }
        }
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(ApiError::invalid(resource, object::name(after), faults)),
    }
}

/// The Secret as those see it who may write it and not read it.
pub(crate) fn without_values(mut secret: Value) -> Value {
    if let Some(members) = secret.as_object_mut() {
        members.retain(|name, _| !["data", "stringData"].contains(&name.as_str()));
    }
    // `kubectl apply` copies the values into an annotation, and a value's owner is who changed it.
    for field in ["annotations", "managedFields"] {
        object::set(&mut secret, field, None);
    }
    secret
}
