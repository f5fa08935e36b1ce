//! The rules for names, labels, annotations, finalizers and owners, in the API server's words.

use serde_json::Value;

use crate::{definition::Resource, limits, object, status::Cause};

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric \
    characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  \
    or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and \
    must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or \
    '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
    'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "a qualified name must consist of alphanumeric characters, '-', '_' or \
    '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  \
    or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with \
    an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";

/// Bytes of an object's name and of a label's prefix.
const SUBDOMAIN_BYTES: usize = 253;
/// Bytes of a namespace's name, of a label's name and of its value.
const LABEL_BYTES: usize = 63;

/// What the server alone sets: a write that brings something else is corrected, not refused.
pub(crate) const SERVER_OWNED: [&str; 5] = [
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

/// The faults of what the server sets, or looks at before the object is whole: an object's place of
/// another type would count as none, and so would a precondition.
pub(crate) fn type_faults(object: &Value, resource: &Resource) -> Vec<Cause> {
    let read = ["name", "generateName", "namespace", "resourceVersion", "uid"];
    let fields = read.into_iter().chain(SERVER_OWNED);
    let faults = |field| {
        let value = object["metadata"].get(field).filter(|value| !value.is_null())?;
        let schema = resource.schema.property("metadata")?.property(field)?;
        Some(schema.faults(value, &format!("metadata.{field}")))
    };
    fields.filter_map(faults).flatten().collect()
}

/// All faults of an object's metadata whose types are right.
pub(crate) fn faults(object: &Value, resource: &Resource) -> Vec<Cause> {
    let mut faults = Vec::new();
    let mut check = |field: &str, text: &str, why: Option<String>| {
        if let Some(why) = why {
            faults.push(Cause::invalid(field, &text.into(), &why));
        }
    };
    let name = object::name(object);
    let rule = if resource.is_namespace() { label_fault } else { subdomain_fault };
    check("metadata.name", name, rule(name).map(Into::into));
    if resource.namespaced {
        let namespace = object::text(object, "namespace");
        check("metadata.namespace", namespace, label_fault(namespace).map(Into::into));
    }
    for (key, value) in members(object, "labels") {
        check("metadata.labels", key, qualified_name_fault(key));
        check("metadata.labels", value, label_value_fault(value).map(Into::into));
    }
    let mut annotations = 0;
    for (key, value) in members(object, "annotations") {
        check("metadata.annotations", key, qualified_name_fault(&key.to_lowercase()));
        annotations += key.len() + value.len();
    }
    for finalizer in object::texts(object, "finalizers") {
        check("metadata.finalizers", finalizer, qualified_name_fault(finalizer));
    }
    if annotations > limits::ANNOTATION_BYTES {
        faults.push(Cause::too_long("metadata.annotations", limits::ANNOTATION_BYTES as u64));
    }
    faults.extend(owner_faults(object));
    faults
}

fn owner_faults(object: &Value) -> Vec<Cause> {
    let mut faults = Vec::new();
    let owners = object["metadata"]["ownerReferences"].as_array();
    let mut controllers = 0;
    for (index, owner) in owners.into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str() == Some("") {
                let path = format!("metadata.ownerReferences[{index}].{field}");
                faults.push(Cause::invalid(
                    &path,
                    &"".into(),
                    &format!("{field} must not be empty"),
                ));
            }
        }
        controllers += usize::from(owner["controller"].as_bool().unwrap_or_default());
    }
    if controllers > 1 {
        let why = "Only one reference can have Controller set to true";
        let value = &object["metadata"]["ownerReferences"];
        faults.push(Cause::invalid("metadata.ownerReferences", value, why));
    }
    faults
}

fn members<'o>(object: &'o Value, field: &str) -> impl Iterator<Item = (&'o str, &'o str)> {
    let members = object["metadata"][field].as_object();
    members
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| value.as_str().map(|value| (key.as_str(), value)))
}

/// Why this is not a name of a namespace.
fn label_fault(text: &str) -> Option<&'static str> {
    if text.len() > LABEL_BYTES {
        return Some("must be no more than 63 bytes");
    }
    (!is_dns_label(text)).then_some(LABEL)
}

/// Why this is not a name of an object.
fn subdomain_fault(text: &str) -> Option<&'static str> {
    if text.len() > SUBDOMAIN_BYTES {
        return Some("must be no more than 253 bytes");
    }
    (!text.split('.').all(is_dns_label)).then_some(SUBDOMAIN)
}

/// Why this is not a key of a label, such as `app` or `example.com/app`.
pub(crate) fn qualified_name_fault(text: &str) -> Option<String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if name.contains('/') {
        return Some(QUALIFIED.into());
    }
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return Some("prefix part must be non-empty".into());
        }
        if let Some(why) = subdomain_fault(prefix) {
            return Some(format!("prefix part {why}"));
        }
    }
    if name.is_empty() {
        return Some("name part must be non-empty".into());
    }
    if name.len() > LABEL_BYTES {
        return Some("name part must be no more than 63 bytes".into());
    }
    (!is_label_text(name)).then(|| NAME_PART.into())
}

/// Why this is not a value of a label.
pub(crate) fn label_value_fault(text: &str) -> Option<&'static str> {
    if text.len() > LABEL_BYTES {
        return Some("must be no more than 63 bytes");
    }
    (!text.is_empty() && !is_label_text(text)).then_some(LABEL_VALUE)
}

fn is_dns_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inside) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_label_text(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.bytes().all(inside) && edge(text.bytes().next()) && edge(text.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rules() {
        for good in ["a", "a.b", "0-a.9", &"a".repeat(253)] {
            assert_eq!(subdomain_fault(good), None, "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a..b", ".a", "a_b", "ä", &"a".repeat(254)] {
            assert!(subdomain_fault(bad).is_some(), "{bad}");
        }
        for bad in ["a.b", &"a".repeat(64)] {
            assert!(label_fault(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn label_keys_and_values_follow_theirs() {
        for good in ["app", "example.com/App_1.x", "A"] {
            assert_eq!(qualified_name_fault(good), None, "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "A.com/a", "-a", "a b", &"a".repeat(64)] {
            assert!(qualified_name_fault(bad).is_some(), "{bad}");
        }
        assert_eq!(label_value_fault(""), None);
        assert_eq!(label_value_fault("My_Value.1"), None);
        assert!(label_value_fault("a b").is_some());
        assert!(label_value_fault(&"a".repeat(64)).is_some());
    }
}
