//! Discovery, version and OpenAPI.

use http::Request;
use serde_json::{Value, json};

use crate::fixture::{Fixture, definitions, open_with, read};

#[tokio::test]
async fn what_is_served_is_listed_and_nothing_else() {
    let fixture = Fixture::new().await;
    let (_, core) = fixture.get("/api?timeout=32s").await;
    assert_eq!((&core["kind"], &core["versions"]), (&json!("APIVersions"), &json!(["v1"])));
    let (_, groups) = fixture.get("/apis").await;
    assert_eq!(groups["kind"], "APIGroupList");
    let version = json!({ "groupVersion": "shop.example/v1", "version": "v1" });
    assert_eq!(
        groups["groups"][0],
        json!({ "name": "shop.example", "versions": [version], "preferredVersion": version })
    );
    let names: Vec<_> =
        groups["groups"].as_array().unwrap().iter().map(|group| &group["name"]).collect();
    assert_eq!(names, ["shop.example", "authorization.k8s.io", "authentication.k8s.io"]);
    let (_, group) = fixture.get("/apis/shop.example").await;
    assert_eq!(group["kind"], "APIGroup");
    let (_, resources) = fixture.get("/apis/shop.example/v1").await;
    assert_eq!(resources["groupVersion"], "shop.example/v1");
    let names: Vec<_> =
        resources["resources"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, ["widgets", "widgets/status", "gadgets"]);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["wd"]));
    assert_eq!(resources["resources"][0]["categories"], json!(["all"]));
    let (_, core) = fixture.get("/api/v1").await;
    assert_eq!(core["resources"][0]["name"], "namespaces");
    for unknown in ["/apis/none.example", "/apis/shop.example/v2", "/api/v2", "/apis/x/y/z"] {
        assert_eq!(fixture.get(unknown).await, (404, "404 page not found\n".into()), "{unknown}");
    }
    assert_eq!(fixture.send("POST", "/apis", json!({})).await.0, 405);
}

#[tokio::test]
async fn aggregated_discovery_is_one_document() {
    let fixture = Fixture::new().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for (path, resource) in [("/api", "namespaces"), ("/apis", "widgets")] {
        let request = Request::get(path).header("accept", format!("{aggregated},application/json"));
        let response = fixture.raw(request.body(String::new()).unwrap()).await;
        assert_eq!(response.headers()["content-type"], aggregated);
        let document = read(response).await;
        assert_eq!(document["kind"], "APIGroupDiscoveryList");
        assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2");
        let version = &document["items"][0]["versions"][0];
        assert_eq!(version["resources"][0]["resource"], resource);
        assert_eq!(version["resources"][0]["subresources"][0]["subresource"], "status");
    }
}

#[tokio::test]
async fn openapi_describes_every_group_version() {
    let fixture = Fixture::new().await;
    let (_, root) = fixture.get("/openapi/v3").await;
    let paths = root["paths"].as_object().unwrap();
    let groups = ["authentication.k8s.io/v1", "authorization.k8s.io/v1", "shop.example/v1"];
    let places = groups.map(|group| format!("apis/{group}"));
    assert_eq!(paths.keys().skip(1).collect::<Vec<_>>(), places.iter().collect::<Vec<_>>());
    assert!(paths.contains_key("api/v1"));
    for entry in paths.values() {
        let address = entry["serverRelativeURL"].as_str().unwrap();
        assert!(address.contains("?hash="));
        let (code, document) = fixture.get(address).await;
        assert_eq!((code, &document["openapi"]), (200, &json!("3.0.0")));
        check_references(&document, &document);
    }
    let (_, document) = fixture.get("/openapi/v3/apis/shop.example/v1").await;
    let patch = "/apis/shop.example/v1/namespaces/{namespace}/widgets/{name}";
    let patch = &document["paths"][patch]["patch"];
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"));
    let kind = json!({ "group": "shop.example", "version": "v1", "kind": "Widget" });
    assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
    let schema = &document["components"]["schemas"]["example.shop.v1.Widget"];
    assert_eq!(schema["x-kubernetes-group-version-kind"], json!([kind]));
    let size = &schema["properties"]["spec"]["properties"]["size"];
    assert_eq!(size["description"], "How big, in inches.");
    assert_eq!(fixture.get("/openapi/v3/apis/none/v1").await.0, 404);
}

/// Every reference leads somewhere in the document.
fn check_references(value: &Value, document: &Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                let place = document.pointer(reference.trim_start_matches('#'));
                assert!(place.is_some(), "{reference}");
            }
            members.values().for_each(|value| check_references(value, document));
        }
        Value::Array(items) => items.iter().for_each(|item| check_references(item, document)),
        _ => {}
    }
}

#[tokio::test]
async fn definitions_that_cannot_be_served_are_named() {
    let refused = async |change: fn(&mut Value)| {
        let mut definitions = definitions();
        change(&mut definitions[0]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resources.db");
        let error = open_with(&path, definitions).await.err().unwrap().to_string();
        assert!(!path.exists());
        error
    };
    let twice = refused(|widgets| {
        widgets["spec"]["names"]["plural"] = "gadgets".into();
    });
    assert_eq!(twice.await, "resource definition: gadgets.shop.example: defined twice");
    let unserved = refused(|widgets| widgets["spec"]["versions"][0]["served"] = false.into());
    assert!(unserved.await.ends_with("exactly one served version is needed"));
    let member = refused(|widgets| {
        let schema = &mut widgets["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        schema["x-kubernetes-embedded-resource"] = json!([{ "rule": "true" }]);
    });
    let told = member.await;
    assert!(told.contains("widgets.shop.example: schema: x-kubernetes-embedded-resource: "));
    let path = refused(|widgets| {
        widgets["spec"]["versions"][0]["additionalPrinterColumns"][0]["jsonPath"] = "..".into();
    });
    assert!(path.await.ends_with("not a JSONPath this server reads: .."));
    assert!(refused(|widgets| *widgets = json!({})).await.contains("missing field `spec`"));
}

#[tokio::test]
async fn version_and_health_answer() {
    let fixture = Fixture::new().await;
    let (_, version) = fixture.get("/version").await;
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.37."));
    for health in ["/healthz", "/readyz", "/livez"] {
        assert_eq!(fixture.get(health).await, (200, "ok".into()));
    }
}
