//! Reviews: a client asks who it is and what it may do. They are created, answered and forgotten.

use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    access::{self, User, Wish},
    admit,
    definition::Resource,
    object,
    status::ApiError,
    verbs::{Api, Call, Written},
};

/// Answers the review of the body.
pub(crate) fn review(api: &Api, call: &Call) -> Result<Written, ApiError> {
    let resource = &call.target.resource;
    let decoded = call.object()?;
    let mut review = decoded.value;
    let validation = call.query.field_validation()?;
    admit::check_kind(resource, &review)?;
    let warnings = admit::prune(resource, &mut review, &decoded.duplicates, validation)
        .map_err(|unknown| unknown.in_object(resource))?;
    // Older clients send an empty one, and nothing is created.
    object::set(&mut review, "creationTimestamp", None);
    resource.schema.complete(&mut review);
    admit::validate_fields(resource, &review)?;
    let user = call.user.clone().unwrap_or_else(User::in_process);
    review["status"] = status(api, resource, &user, &review["spec"]);
    Ok(Written { code: StatusCode::CREATED, body: review.to_string().into(), warnings })
}

fn status(api: &Api, resource: &Resource, user: &User, spec: &Value) -> Value {
    match resource.kind.as_str() {
        "SelfSubjectAccessReview" => json!({ "allowed": allowed(api, user, spec) }),
        "SelfSubjectRulesReview" => {
            let rules = access::rules(&api.registry, user, text(spec, "namespace"));
            let rules: Vec<Value> = rules
                .iter()
                .map(|rule| {
                    json!({
                        "verbs": rule.verbs, "apiGroups": [rule.group],
                        "resources": rule.resources,
                    })
                })
                .collect();
            let paths = json!([{
                "verbs": access::path_verbs(user), "nonResourceURLs": access::paths(user),
            }]);
            json!({ "resourceRules": rules, "nonResourceRules": paths, "incomplete": false })
        }
        _ => json!({ "userInfo": { "username": user.name, "groups": user.groups() } }),
    }
}

fn allowed(api: &Api, user: &User, spec: &Value) -> bool {
    let path = &spec["nonResourceAttributes"];
    if path.is_object() {
        return access::may_ask(user, text(path, "verb"), text(path, "path"));
    }
    let wanted = &spec["resourceAttributes"];
    let wish = Wish {
        verb: text(wanted, "verb"),
        group: text(wanted, "group"),
        resource: text(wanted, "resource"),
        subresource: text(wanted, "subresource"),
        namespace: text(wanted, "namespace"),
        name: text(wanted, "name"),
    };
    access::is_allowed(&api.registry, user, &wish)
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}
