//! The CloudEvents SDK for Python, which shares nothing with the bus: as a publisher, and as a
//! reader of both of CloudEvents' forms of delivery.

use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use super::{Arrived, Road, Said};
use crate::python::{python, script};

const SCRIPT: &str = "sdk.py";

/// What the SDK says of itself, a line an event.
fn lines(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the SDK reads out of two deliveries of each event.
async fn read(python: &Path, arrived: &[Arrived]) -> Vec<Value> {
    let delivery = |request: &Request<Bytes>| {
        let headers: Vec<_> = request.headers().iter().collect();
        let headers: serde_json::Map<String, Value> = headers
            .into_iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
            .collect();
        json!({ "headers": headers, "body": BASE64_STANDARD.encode(request.body()) }).to_string()
    };
    let of_one =
        |one: &Arrived| format!("{}\n{}\n", delivery(&one.binary), delivery(&one.structured));
    let input: String = arrived.iter().map(of_one).collect();
    lines(&script(python, SCRIPT, &["read"], &input).await)
}

#[tokio::test]
async fn what_the_sdk_publishes_arrives_and_is_read_by_it() {
    let Some(python) = python() else { return };
    let mut road = Road::start().await;
    let url = format!("{}/publish", road.bus.publish);
    let published = lines(&script(&python, SCRIPT, &["publish", &url], "").await);
    assert!(published.len() >= 12, "{published:?}");
    let mut all = Vec::new();
    for told in &published {
        let attributes = serde_json::from_value(told["attributes"].clone()).unwrap();
        let arrived = road.next().await;
        let payload = match &told["data"] {
            Value::Null => Bytes::new(),
            Value::String(text) => text.clone().into(),
            data => match data.get("base64") {
                Some(text) => BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap().into(),
                None => {
                    // The SDK wrote it, in words of its own.
                    let payload = arrived.binary.body().clone();
                    assert_eq!(serde_json::from_slice::<Value>(&payload).unwrap(), *data);
                    payload
                }
            },
        };
        arrived.says(&Said { attributes, payload });
        all.push(arrived);
    }
    let twice: Vec<_> = published.iter().flat_map(|told| [told, told]).cloned().collect();
    assert_eq!(read(&python, &all).await, twice);
}

#[tokio::test]
async fn what_others_publish_is_read_by_the_sdk() {
    let Some(python) = python() else { return };
    let mut road = Road::start().await;
    let time = ("time", "2018-04-05T17:31:00Z");
    let mut all = Vec::new();
    let mut expected = Vec::new();
    for (number, (more, payload, data)) in [
        (&[("datacontenttype", "application/json")][..], &b"\"text\""[..], json!("text")),
        (&[("datacontenttype", "application/json")], b"\xff", json!({ "base64": "/w==" })),
        (&[("datacontenttype", "text/plain"), ("note", "a\"b %41 \u{e9}")], b"x", json!("x")),
        (&[("rank", "7"), ("urgent", "false"), ("subject", "a/b c")], b"", Value::Null),
        (&[], b"\0\xff", json!({ "base64": "AP8=" })),
        (&[("specversion", "0.3")], b"\0\xff", json!({ "base64": "AP8=" })),
    ]
    .into_iter()
    .enumerate()
    {
        let said = Said::new(&format!("{number}"), &[&[time], more].concat(), payload);
        road.publish(&said).await;
        let arrived = road.next().await;
        arrived.says(&said);
        all.push(arrived);
        let told = json!({ "attributes": said.attributes, "data": data });
        expected.extend([told.clone(), told]);
    }
    assert_eq!(read(&python, &all).await, expected);
}
