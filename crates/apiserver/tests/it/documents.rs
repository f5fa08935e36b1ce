//! Discovery, version and OpenAPI.

use eventbus_apiserver::Body;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
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
    let others = ["coordination.k8s.io", "authorization.k8s.io", "authentication.k8s.io"];
    assert_eq!(names, [&["shop.example"][..], &others].concat());
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
    let groups = [
        "authentication.k8s.io/v1",
        "authorization.k8s.io/v1",
        "coordination.k8s.io/v1",
        "shop.example/v1",
    ];
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

#[tokio::test]
async fn version_2_is_one_document_with_everything() {
    let fixture = Fixture::new().await;
    let (code, document) = fixture.get("/openapi/v2?timeout=32s").await;
    assert_eq!((code, &document["swagger"]), (200, &json!("2.0")));
    check_references(&document, &document);
    let names = ["io.k8s.api.core.v1.Secret", "io.k8s.api.core.v1.Event", "example.shop.v1.Widget"];
    let schemas = names.map(|name| &document["definitions"][name]);
    assert!(schemas.iter().all(|schema| schema["properties"].is_object()), "{schemas:?}");
    let kind = json!({ "group": "shop.example", "version": "v1", "kind": "Widget" });
    assert_eq!(schemas[2]["x-kubernetes-group-version-kind"], json!([kind]));
    let metadata = &schemas[2]["properties"]["metadata"];
    assert!(metadata["$ref"].as_str().unwrap().starts_with("#/definitions/io.k8s."));
    // A null is let in only by what has no type.
    let time = &schemas[1]["properties"]["eventTime"];
    assert_eq!((&time["type"], &time["nullable"]), (&Value::Null, &Value::Null));
    let path = "/apis/shop.example/v1/namespaces/{namespace}/widgets/{name}";
    let patch = &document["paths"][path]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
    let parameters = patch["parameters"].as_array().unwrap();
    let dry = json!({ "name": "dryRun", "in": "query", "type": "string" });
    let body = json!({ "name": "body", "in": "body", "required": true,
        "schema": { "type": "object" } });
    assert!(parameters.contains(&dry) && parameters.contains(&body), "{parameters:?}");
    let (_, third) = fixture.get("/openapi/v3/apis/shop.example/v1").await;
    assert_eq!(
        patch["consumes"].as_array().unwrap().len(),
        third["paths"][path]["patch"]["requestBody"]["content"].as_object().unwrap().len()
    );
}

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

async fn version_2(fixture: &Fixture, header: (&str, &str)) -> Response<Body> {
    let request = Request::get("/openapi/v2").header(header.0, header.1);
    fixture.raw(request.header("accept", PROTOBUF).body(String::new()).unwrap()).await
}

/// The contents of all fields at this path of numbers.
fn within<'b>(mut bytes: &'b [u8], path: &[u64]) -> Vec<&'b [u8]> {
    let Some((wanted, below)) = path.split_first() else { return vec![bytes] };
    let varint = |bytes: &mut &[u8]| {
        let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let (taken, rest) = bytes.split_at(length);
        *bytes = rest;
        taken.iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f))
    };
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let length = match tag & 7 {
            0 => bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1,
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)).unwrap(),
            other => panic!("wire type {other}"),
        };
        let (content, rest) = bytes.split_at(length);
        bytes = rest;
        if tag >> 3 == *wanted {
            found.extend(within(content, below));
        }
    }
    found
}

/// All values of members of this name.
fn named<'d>(document: &'d Value, name: &str, found: &mut Vec<&'d Value>) {
    match document {
        Value::Object(members) => {
            found.extend(members.get(name));
            members.values().for_each(|value| named(value, name, found));
        }
        Value::Array(items) => items.iter().for_each(|item| named(item, name, found)),
        _ => {}
    }
}

#[tokio::test]
async fn version_2_says_the_same_in_protobuf() {
    let fixture = Fixture::new().await;
    let (_, document) = fixture.get("/openapi/v2").await;
    let response = version_2(&fixture, ("accept-encoding", "gzip")).await;
    // The name that clients ask for is not one that they can parse.
    let name = PROTOBUF.replace('@', ".");
    assert_eq!(response.headers()["content-type"], name);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let texts = |path: &[u64]| -> Vec<String> {
        let found = within(&bytes, path).into_iter();
        found.map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    };
    let keys = |place: &str| -> Vec<String> {
        document[place].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(texts(&[1]), ["2.0"]);
    assert_eq!(texts(&[8, 2, 1]), keys("paths"));
    assert_eq!(texts(&[9, 1, 1]), keys("definitions"));
    let described = texts(&[9, 1, 2, 25, 1, 2, 25, 1, 2, 4]);
    assert!(described.contains(&"How big, in inches.".into()), "{described:?}");
    // However deep the properties lie.
    let (mut read, mut path) = (Vec::new(), vec![9, 1, 2, 9]);
    for _ in 0..8 {
        let eight = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap());
        read.extend(within(&bytes, &path).into_iter().map(eight));
        path.splice(3..3, [25, 1, 2]);
    }
    let mut written = Vec::new();
    named(&document["definitions"], "minimum", &mut written);
    let mut written: Vec<f64> =
        written.into_iter().map(|minimum| minimum.as_f64().unwrap()).collect();
    read.sort_by(f64::total_cmp);
    written.sort_by(f64::total_cmp);
    assert_eq!(read, written);
    assert!(!written.is_empty());
    // The parameters of patches, through three choices.
    let parameters = texts(&[8, 2, 2, 8, 8, 1, 2, 3, 4]);
    assert!(parameters.contains(&"dryRun".into()), "{parameters:?}");
    let kinds = texts(&[8, 2, 2, 8, 13, 2, 2]);
    assert!(kinds.iter().any(|kind| kind.contains("\"kind\":\"Widget\"")), "{kinds:?}");
}

#[tokio::test]
async fn whoever_has_a_document_is_not_sent_it_again() {
    let fixture = Fixture::new().await;
    let first = version_2(&fixture, ("accept-encoding", "gzip")).await;
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"') && first.headers()["vary"] == "Accept");
    for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".into()] {
        let again = version_2(&fixture, ("if-none-match", &known)).await;
        assert_eq!(
            (again.status(), &again.headers()["etag"]),
            (StatusCode::NOT_MODIFIED, &first.headers()["etag"])
        );
        assert_eq!(read(again).await, "");
    }
    assert_eq!(version_2(&fixture, ("if-none-match", "\"x\"")).await.status(), StatusCode::OK);
    // In JSON it is another document.
    let request = Request::get("/openapi/v2").header("if-none-match", &tag);
    let json = fixture.raw(request.body(String::new()).unwrap()).await;
    assert_eq!(
        (json.status(), &json.headers()["content-type"]),
        (StatusCode::OK, &HeaderValue::from_static("application/json"))
    );
    let request = Request::get("/openapi/v2").header("accept", "text/html");
    let (head, body) = fixture.raw(request.body(String::new()).unwrap()).await.into_parts();
    let told = read(Response::from_parts(head, body)).await;
    assert_eq!((&told["code"], &told["reason"]), (&json!(406), &json!("NotAcceptable")));
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
