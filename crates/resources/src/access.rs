//! What the bus may do on a real API server: no more than it asks for. A test compares this with
//! what it asks.

use kube::core::ApiResource;
use serde_json::{Value, json};

use crate::definitions::{DEFINITIONS, Kind};
use crate::lease;

/// What the roles are called.
const NAME: &str = "eventbus";

/// The namespace, its service account `account`, and roles and their bindings for it. The Lease
/// lies in the namespace as well.
pub fn access(namespace: &str, account: &str) -> Vec<Value> {
    let subject = json!([{ "kind": "ServiceAccount", "name": account, "namespace": namespace }]);
    let role = |kind: &str, rules: Vec<Value>| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": kind,
            "metadata": metadata(kind, namespace),
            "rules": rules,
        })
    };
    let binding = |kind: &str| {
        let of = format!("{kind}Binding");
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": of,
            "metadata": metadata(kind, namespace),
            "subjects": subject,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": NAME },
        })
    };
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }),
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": { "name": account, "namespace": namespace },
        }),
        role("ClusterRole", everywhere()),
        binding("ClusterRole"),
        role("Role", in_its_namespace()),
        binding("Role"),
    ]
}

fn metadata(kind: &str, namespace: &str) -> Value {
    match kind {
        "ClusterRole" => json!({ "name": NAME }),
        _ => json!({ "name": NAME, "namespace": namespace }),
    }
}

fn everywhere() -> Vec<Value> {
    let rules = DEFINITIONS.into_iter().flat_map(|definition| {
        let ApiResource { group, plural, .. } = definition.api_resource();
        let watched = rule(&group, &plural, &["list", "watch"]);
        let status = (definition.kind == Kind::Subscription)
            .then(|| rule(&group, &format!("{plural}/status"), &["patch"]));
        [Some(watched), status]
    });
    // What becomes of a Subscription is told in Events, which are never read.
    rules.flatten().chain([rule("", "events", &["create", "patch"])]).collect()
}

fn in_its_namespace() -> Vec<Value> {
    let mut taken = rule("coordination.k8s.io", "leases", &["get", "update"]);
    taken["resourceNames"] = json!([lease::NAME]);
    // A name is not known yet when something is made.
    vec![rule("coordination.k8s.io", "leases", &["create"]), taken]
}

fn rule(group: &str, resource: &str, verbs: &[&str]) -> Value {
    json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs })
}
