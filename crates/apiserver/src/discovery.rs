//! Discovery: which groups, versions and resources there are, in the plain and in the aggregated
//! form. Only what is served is listed: a client stumbles over anything else.

use serde_json::{Value, json};

use crate::{
    definition::{Registry, Resource},
    route::Discovery,
};

/// The media type of the aggregated form.
pub(crate) const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];

/// Whether an `Accept` header prefers the aggregated form.
pub(crate) fn wants_aggregated(accept: &str) -> bool {
    let first = accept.split(',').find(|clause| clause.trim().starts_with("application/json"));
    first.is_some_and(|clause| {
        let has = |part| clause.split(';').any(|known| known.trim() == part);
        has("g=apidiscovery.k8s.io") && has("v=v2") && has("as=APIGroupDiscoveryList")
    })
}

/// The aggregated form of `/api` or `/apis`; the other documents have none.
pub(crate) fn aggregated(registry: &Registry, document: &Discovery<'_>) -> Option<Value> {
    let core = match document {
        Discovery::Core => true,
        Discovery::Groups => false,
        _ => return None,
    };
    let groups = registry.group_versions();
    let groups = groups.iter().filter(|(group, _, _)| group.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|(group, version, resources)| {
            let resources: Vec<Value> =
                resources.iter().map(|known| aggregated_row(known)).collect();
            let metadata = match *group {
                "" => json!({}),
                group => json!({ "name": group }),
            };
            json!({
                "metadata": metadata,
                "versions": [{
                    "version": version, "freshness": "Current", "resources": resources,
                }],
            })
        })
        .collect();
    Some(json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {}, "items": items,
    }))
}

fn aggregated_row(resource: &Resource) -> Value {
    let kind = json!({
        "group": resource.group, "version": resource.version, "kind": resource.kind,
    });
    let mut row = json!({
        "resource": resource.plural, "responseKind": kind,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": resource.verbs(),
    });
    if !resource.short_names.is_empty() {
        row["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        row["categories"] = json!(resource.categories);
    }
    if resource.has_status {
        row["subresources"] =
            json!([{ "subresource": "status", "responseKind": kind, "verbs": STATUS_VERBS }]);
    }
    row
}

/// A document in the plain form; none if there is no such group or version.
pub(crate) fn plain(registry: &Registry, document: &Discovery<'_>) -> Option<Value> {
    let groups = registry.group_versions();
    match document {
        Discovery::Core => Some(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        })),
        Discovery::Groups => {
            let groups = groups.iter().filter(|(group, _, _)| !group.is_empty());
            let groups: Vec<Value> =
                groups.map(|(group, version, _)| group_row(group, version)).collect();
            Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
        Discovery::Group(wanted) => {
            let mut groups = groups.iter();
            let (group, version, _) =
                groups.find(|(group, _, _)| group == wanted && !group.is_empty())?;
            let mut row = group_row(group, version);
            row["kind"] = "APIGroup".into();
            row["apiVersion"] = "v1".into();
            Some(row)
        }
        Discovery::Version(group, version) => {
            let mut groups = groups.iter();
            let (_, _, resources) = groups.find(|found| (found.0, found.1) == (group, version))?;
            let name = match *group {
                "" => (*version).to_owned(),
                group => format!("{group}/{version}"),
            };
            let rows: Vec<Value> = resources.iter().flat_map(|known| plain_rows(known)).collect();
            Some(json!({
                "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name,
                "resources": rows,
            }))
        }
    }
}

fn group_row(group: &str, version: &str) -> Value {
    let version = json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    json!({ "name": group, "versions": [version], "preferredVersion": version })
}

fn plain_rows(resource: &Resource) -> Vec<Value> {
    let mut row = json!({
        "name": resource.plural, "singularName": resource.singular,
        "namespaced": resource.namespaced, "kind": resource.kind, "verbs": resource.verbs(),
    });
    if !resource.short_names.is_empty() {
        row["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        row["categories"] = json!(resource.categories);
    }
    let mut rows = vec![row];
    if resource.has_status {
        rows.push(json!({
            "name": format!("{}/status", resource.plural), "singularName": "",
            "namespaced": resource.namespaced, "kind": resource.kind, "verbs": STATUS_VERBS,
        }));
    }
    rows
}

/// The answer of `/version`: as recent as the API whose words this server speaks.
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "37", "gitVersion": "v1.37.0+eventbus",
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": platform(),
    })
}

fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)
}
