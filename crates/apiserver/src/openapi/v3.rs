//! OpenAPI v3: a document for each group version.

use serde_json::{Map, Value, json};

use super::place;
use crate::definition::{Resource, metadata_schema};

/// The name of the metadata's schema in every document.
const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Where the schemas of a document lie in it.
pub(super) const SCHEMAS: &str = "#/components/schemas/";

/// The document of a group version, whose resources these are.
pub(super) fn document(resources: &[&Resource]) -> Result<Value, serde_json::Error> {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    schemas.insert(METADATA.into(), metadata_schema()?);
    schemas.insert(LIST_METADATA.into(), list_metadata());
    for resource in resources {
        describe_paths(resource, &mut paths);
        describe_schemas(resource, &mut schemas);
    }
    Ok(json!({
        "openapi": "3.0.0",
        "info": super::about(),
        "paths": paths,
        "components": { "schemas": schemas },
    }))
}

/// The schema's name: the group turned round, as the real server names it.
fn schema_name(resource: &Resource) -> String {
    let group = match resource.group.strip_suffix(".k8s.io") {
        Some(group) => format!("{group}.api.k8s.io"),
        None if resource.group.is_empty() => "core.api.k8s.io".into(),
        None => resource.group.clone(),
    };
    let turned: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{}.{}", turned.join("."), resource.version, resource.kind)
}

fn kind_of(resource: &Resource, kind: &str) -> Value {
    json!({ "group": resource.group, "version": resource.version, "kind": kind })
}

fn describe_schemas(resource: &Resource, schemas: &mut Map<String, Value>) {
    let name = schema_name(resource);
    let mut schema = resource.written.clone();
    schema["properties"]["apiVersion"] = json!({
        "type": "string",
        "description": "The version of the schema that this object is written in.",
    });
    schema["properties"]["kind"] = json!({
        "type": "string",
        "description": "What this object is. It never changes.",
    });
    schema["properties"]["metadata"] = json!({
        "description": "What every object has: its names, labels, owners and history.",
        "allOf": [reference(METADATA)],
    });
    schema["x-kubernetes-group-version-kind"] = json!([kind_of(resource, &resource.kind)]);
    let list = json!({
        "description": format!("A list of objects of the kind {}.", resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "allOf": [reference(LIST_METADATA)] },
            "items": { "type": "array", "items": { "allOf": [reference(&name)] } },
        },
        "x-kubernetes-group-version-kind": [kind_of(resource, &resource.list_kind)],
    });
    schemas.insert(format!("{name}List"), list);
    schemas.insert(name, schema);
}

fn list_metadata() -> Value {
    json!({
        "description": "What every list has.",
        "type": "object",
        "properties": {
            "resourceVersion": {
                "description": "The moment that the list shows; a watch may start from it.",
                "type": "string",
            },
            "continue": {
                "description": "Given back in the next request, it brings the rest.",
                "type": "string",
            },
            "remainingItemCount": {
                "description": "How many objects follow, where that is known.",
                "type": "integer",
                "format": "int64",
            },
        },
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("{SCHEMAS}{schema}") })
}

fn describe_paths(resource: &Resource, paths: &mut Map<String, Value>) {
    let root = format!("/{}", place(&resource.group, &resource.version));
    let collection = match resource.namespaced {
        true => format!("{root}/namespaces/{{namespace}}/{}", resource.plural),
        false => format!("{root}/{}", resource.plural),
    };
    let (one, list) = (schema_name(resource), format!("{}List", schema_name(resource)));
    let in_path = |name: &str| {
        let text = json!({ "type": "string" });
        json!({ "name": name, "in": "path", "required": true, "schema": text })
    };
    let scope = if resource.namespaced { vec![in_path("namespace")] } else { Vec::new() };
    let operation = |action: &str, schema: &str| operation(resource, action, schema);
    paths.insert(
        collection.clone(),
        json!({
            "get": operation("list", &list), "post": operation("post", &one),
            "delete": operation("deletecollection", &list), "parameters": scope,
        }),
    );
    if resource.namespaced {
        let everywhere = format!("{root}/{}", resource.plural);
        paths.insert(everywhere, json!({ "get": operation("list", &list) }));
    }
    let named: Vec<Value> = scope.into_iter().chain([in_path("name")]).collect();
    let written = json!({
        "get": operation("get", &one), "put": operation("put", &one),
        "patch": operation("patch", &one), "parameters": named,
    });
    if resource.has_status {
        paths.insert(format!("{collection}/{{name}}/status"), written.clone());
    }
    let mut item = written;
    item["delete"] = operation("delete", &one);
    paths.insert(format!("{collection}/{{name}}"), item);
}

fn operation(resource: &Resource, action: &str, schema: &str) -> Value {
    let content = |schema: &str| json!({ "application/json": { "schema": reference(schema) } });
    let query =
        |name: &str, kind: &str| json!({ "name": name, "in": "query", "schema": { "type": kind } });
    let texts = |names: &[&str]| names.iter().map(|name| query(name, "string")).collect::<Vec<_>>();
    let mut operation = json!({
        "responses": { "200": { "description": "OK", "content": content(schema) } },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind_of(resource, &resource.kind),
    });
    let parameters = match action {
        "list" => {
            let names = [
                "continue",
                "fieldSelector",
                "labelSelector",
                "resourceVersion",
                "resourceVersionMatch",
            ];
            let mut parameters = texts(&names);
            parameters.extend([query("limit", "integer"), query("timeoutSeconds", "integer")]);
            parameters.extend(
                ["allowWatchBookmarks", "sendInitialEvents", "watch"]
                    .map(|name| query(name, "boolean")),
            );
            parameters
        }
        "deletecollection" => {
            texts(&["dryRun", "fieldSelector", "labelSelector", "propagationPolicy"])
        }
        "delete" => texts(&["dryRun", "propagationPolicy"]),
        "get" => texts(&["resourceVersion"]),
        "patch" => {
            let mut parameters = texts(&["dryRun", "fieldManager", "fieldValidation"]);
            parameters.push(query("force", "boolean"));
            parameters
        }
        _ => texts(&["dryRun", "fieldManager", "fieldValidation"]),
    };
    operation["parameters"] = parameters.into();
    let body = match action {
        "post" | "put" => content(schema),
        "patch" => json!({
            "application/json-patch+json": { "schema": { "type": "array",
                "items": { "type": "object" } } },
            "application/merge-patch+json": { "schema": { "type": "object" } },
            "application/apply-patch+yaml": { "schema": { "type": "object" } },
        }),
        _ => return operation,
    };
    operation["requestBody"] = json!({ "required": true, "content": body });
    operation
}
