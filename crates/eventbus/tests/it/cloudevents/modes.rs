//! Every mode of publishing, every form of delivery.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{BATCHED, Road, STRUCTURED, Said, document, over_each_broker, told};

/// Attributes of every type, and what is hard to write in a header.
const MORE: [(&str, &str); 8] = [
    ("time", "2018-04-05T17:31:00.25+02:00"),
    ("subject", "Euro € 😀"),
    ("dataschema", "https://example.com/schema?v=1"),
    ("datacontenttype", "application/json"),
    ("note", "50% \"off\""),
    ("rank", "-2147483648"),
    ("urgent", "true"),
    ("traceparent", "00-80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-01"),
];

/// The event of [`MORE`] as a document, its numbers as numbers.
fn rich(id: &str) -> Value {
    let mut rich = document(id, &json!({ "data": { "n": [1, 2] } }));
    for (name, value) in MORE {
        rich[name] = value.into();
    }
    (rich["rank"], rich["urgent"]) = (json!(i32::MIN), json!(true));
    rich
}

over_each_broker!(one_event_in_every_mode_is_the_same_in_every_form);

async fn one_event_in_every_mode_is_the_same_in_every_form(flags: &[&str]) {
    let mut road = Road::with(flags).await;
    let said = |id: &str| Said::new(id, &MORE, "{\"n\":[1,2]}");
    road.publish(&said("binary")).await;
    road.brings(&said("binary")).await;
    road.publish_document(&rich("structured")).await;
    let arrived = road.next().await;
    arrived.says(&said("structured"));
    let members: Value = serde_json::from_slice(arrived.structured.body()).unwrap();
    assert_eq!(members, rich("structured"), "types are kept");
    let batch = json!([rich("first"), rich("second")]).to_string();
    let answer = road.post("/publish", &[("content-type", BATCHED)], batch).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    road.brings(&said("first")).await;
    road.brings(&said("second")).await;
}

#[tokio::test]
async fn the_old_version_stays_the_old_version() {
    let mut road = Road::start().await;
    let old = [("specversion", "0.3"), ("schemaurl", "https://example.com/s"), ("subject", "s")];
    let typed = |media_type| [&old[..], &[("datacontenttype", media_type)]].concat();
    let said = Said::new("binary", &typed("text/xml"), "<a/>");
    road.publish(&said).await;
    road.brings(&said).await;
    let members = |more: Value| {
        let mut all = more;
        for (name, value) in old {
            all[name] = value.into();
        }
        all
    };
    let json = members(json!({ "data": { "a": 1 } }));
    road.publish_document(&document("json", &json)).await;
    road.brings(&Said::new("json", &typed("application/json"), "{\"a\":1}")).await;
    let bytes = members(json!({
        "datacontenttype": "image/png", "datacontentencoding": "base64", "data": "/wA=",
    }));
    road.publish_document(&document("bytes", &bytes)).await;
    let arrived = road.next().await;
    arrived.says(&Said::new("bytes", &typed("image/png"), &b"\xff\0"[..]));
    let again: Value = serde_json::from_slice(arrived.structured.body()).unwrap();
    assert_eq!(again, document("bytes", &bytes));
}

#[tokio::test]
async fn the_old_versions_encoding_is_nothing_special_in_the_new_one() {
    let mut road = Road::start().await;
    let encoded = [("datacontentencoding", "base64"), ("datacontenttype", "image/png")];
    let old = Said::new("old", &[&encoded[..], &[("specversion", "0.3")]].concat(), "/wA=");
    road.publish(&old).await;
    let typed = [("specversion", "0.3"), ("datacontenttype", "image/png")];
    road.brings(&Said::new("old", &typed, &b"\xff\0"[..])).await;
    for (id, media_type, payload) in
        [("new", "image/png", "/wA="), ("json", "application/json", "{\"a\": 1}")]
    {
        let more = [("datacontentencoding", "base64"), ("datacontenttype", media_type)];
        let said = Said::new(id, &more, payload);
        road.publish(&said).await;
        road.brings(&said).await;
    }
}

#[tokio::test]
async fn headers_are_decoded_once_and_quotes_taken_off() {
    let mut road = Road::start().await;
    let least = Said::new("x", &[], "").headers();
    let meant = [
        ("Euro%20%e2%82%ac", "Euro €"),
        ("Euro €", "Euro €"),
        ("%2541", "%41"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("\"a \\\"b\\\" \\\\ %63\"", "a \"b\" \\ c"),
        ("a\"b", "a\"b"),
        ("a+b", "a+b"),
        ("%22a%22", "\"a\""),
    ];
    for (number, (written, meant)) in meant.into_iter().enumerate() {
        let id = format!("{number}");
        let mut headers: Vec<_> = least.iter().map(|(name, value)| (&**name, &**value)).collect();
        headers.retain(|(name, _)| *name != "ce-id");
        headers.extend([("CE-Id", &*id), ("Ce-Note", written), ("ce-subject", written)]);
        super::stored(road.post("/publish", &headers, "").await);
        road.brings(&Said::new(&id, &[("note", meant), ("subject", meant)], "")).await;
    }
}

#[tokio::test]
async fn payloads_of_any_type_and_none_arrive_as_they_are() {
    let mut road = Road::start().await;
    for (number, (media_type, payload)) in [
        ("application/json", &b"{ \"b\": 1.0,\t\"a\": 12345678901234567890, \"b\": 2 }"[..]),
        ("application/json", b"null"),
        ("application/json", b"\"\""),
        ("application/json", b"no JSON at all"),
        ("application/json", b"\xff"),
        ("application/json", b""),
        ("application/vnd.shop.order+json; charset=utf-8", b"[\"x\"]"),
        ("text/plain", "naïve\r\n\0".as_bytes()),
        ("text/plain", b""),
        ("text/xml; charset=iso-8859-1", b"<a>\xe9</a>"),
        ("application/octet-stream", b"\x00\xff\xfe"),
        ("multipart/form-data; boundary=\"x y\"", b"--x y--"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("{number}");
        let said = Said::new(&id, &[("datacontenttype", media_type)], payload);
        road.publish(&said).await;
        road.brings(&said).await;
    }
    // Bytes of no type are bytes, and nothing is nothing.
    let said = Said::new("untyped", &[], &b"{\"a\": 1}"[..]);
    road.publish(&said).await;
    road.brings(&said).await;
    let said = Said::new("nothing", &[], "");
    road.publish(&said).await;
    let arrived = road.next().await;
    arrived.says(&said);
    let members: Value = serde_json::from_slice(arrived.structured.body()).unwrap();
    assert_eq!(members, document("nothing", &json!({})));
}

#[tokio::test]
async fn data_is_json_or_text_or_bytes_as_the_document_says() {
    let mut road = Road::start().await;
    let json_type = [("datacontenttype", "application/json")];
    for (number, (members, more, payload)) in [
        (json!({ "data": "text" }), &json_type[..], &b"\"text\""[..]),
        (json!({ "data": null }), &json_type, b"null"),
        (json!({ "data": 0 }), &json_type, b"0"),
        (
            json!({ "data": "<a/>", "datacontenttype": "text/xml" }),
            &[("datacontenttype", "text/xml")],
            b"<a/>",
        ),
        (
            json!({ "data_base64": "/wA=", "datacontenttype": "image/png" }),
            &[("datacontenttype", "image/png")],
            b"\xff\0",
        ),
        (json!({ "data_base64": "/wA=" }), &[], b"\xff\0"),
        (json!({ "note": null, "subject": null }), &[], b""),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("{number}");
        road.publish_document(&document(&id, &members)).await;
        road.brings(&Said::new(&id, more, Bytes::from_static(payload))).await;
    }
    // The publisher's bytes, not another writing of them.
    let data = "{ \"b\": 1.0,\t\"a\": 12345678901234567890, \"b\": \"\\u003c\" }";
    let bare = document("bytes", &json!({})).to_string();
    let body = format!("{},\"data\":{data}}}", bare.strip_suffix('}').unwrap());
    super::stored(road.post("/v1/events", &[("content-type", STRUCTURED)], body).await);
    road.brings(&Said::new("bytes", &json_type, data)).await;
}

#[tokio::test]
async fn the_document_counts_not_the_headers_beside_it() {
    let mut road = Road::start().await;
    let headers = [
        ("content-type", "Application/CloudEvents+JSON; Charset=UTF-8"),
        ("ce-id", "header"),
        ("ce-specversion", "0.3"),
        ("ce-note", "header"),
    ];
    let body = document("document", &json!({ "data": 1 })).to_string();
    let answer = super::stored(road.post("/publish", &headers, body).await);
    assert_eq!(told(&answer, "event-id"), "document");
    road.brings(&Said::new("document", &[("datacontenttype", "application/json")], "1")).await;
}
