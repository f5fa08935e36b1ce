//! What CloudEvents asks for, as tests; and that nothing is lost on any way through the bus.

use http::HeaderValue;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::seams::Entropy;
use crate::testing;
use crate::wire::contract;
use crate::wire::lines::Lines;
use crate::wire::trace::Trace;

struct Dice;

impl Entropy for Dice {
    fn next_u64(&self) -> u64 {
        0x0123_4567_89ab_cdef
    }
}

const LIMITS: BatchLimits = BatchLimits { event_bytes: 1 << 20, events: 100 };

fn head() -> RequestHead<'static> {
    let (attributes, trace) = (Attributes::default(), Trace::default());
    RequestHead { source_id: None, attributes, trace, entropy: &Dice }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// The headers of the smallest event, and more.
fn small(more: &[(&'static str, &str)]) -> HeaderMap {
    let least =
        [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/a"), ("ce-type", "com.b")];
    headers(&[&least, more].concat())
}

fn binary(headers: &HeaderMap, body: &'static str) -> Result<Event, Refusal> {
    decode_binary(headers, body.into(), &head()).map(|submission| submission.event)
}

fn structured(document: &str) -> Result<Event, Refusal> {
    let headers = headers(&[("content-type", "application/cloudevents+json")]);
    let body = Bytes::copy_from_slice(document.as_bytes());
    decode_structured(&headers, body, &head()).map(|submission| submission.event)
}

/// A document with these members beside the required ones.
fn document(more: &serde_json::Value) -> String {
    let mut all = json!({"specversion": "1.0", "id": "1", "source": "/a", "type": "com.b"});
    for (name, value) in more.as_object().unwrap() {
        all[name] = value.clone();
    }
    all.to_string()
}

#[test]
fn the_mode_is_told_by_the_media_type_and_then_by_the_version() {
    for (media_type, mode) in [
        ("application/cloudevents-batch+json", Some(Mode::Batched)),
        ("Application/CloudEvents-Batch+json; charset=utf-8", Some(Mode::Batched)),
        ("application/cloudevents+json; charset=utf-8", Some(Mode::Structured)),
        ("APPLICATION/CLOUDEVENTS", Some(Mode::Structured)),
        ("application/json", None),
    ] {
        assert_eq!(Mode::of(&headers(&[("content-type", media_type)])), mode, "{media_type}");
    }
    assert_eq!(Mode::of(&small(&[("content-type", "text/plain")])), Some(Mode::Binary));
    assert_eq!(Mode::of(&HeaderMap::new()), None);
}

#[test]
fn binary_mode_is_read() {
    let all = small(&[
        ("ce-time", "2018-04-05T03:56:24Z"),
        ("ce-subject", "Euro%20%E2%82%AC"),
        ("ce-eventtypeversion", "v1"),
        ("ce-tenant", "\"acme \\\"inc\\\"\""),
        ("content-type", "application/json; charset=utf-8"),
    ]);
    let event = binary(&all, "{\"a\": 1}").unwrap();
    assert_eq!((event.source.as_str(), &*event.event_type, &*event.id), ("/a", "com.b", "1"));
    assert_eq!((&*event.time, &*event.event_type_version), ("2018-04-05T03:56:24Z", "v1"));
    assert_eq!(event.content_type, "application/json; charset=utf-8");
    assert_eq!(event.attributes.text("subject").unwrap(), "Euro €");
    assert_eq!(event.attributes.text("tenant").unwrap(), "acme \"inc\"");
    assert_eq!(event.attributes.len(), 2);
    assert_eq!(event.payload, "{\"a\": 1}");
    assert!(event.id_given && event.has_payload);
    assert!(!binary(&small(&[]), "").unwrap().has_payload);
    assert!(binary(&small(&[("content-type", "text/plain")]), "").unwrap().has_payload);
}

#[test]
fn what_is_wrong_is_said() {
    let reason = |headers: &HeaderMap| binary(headers, "").unwrap_err().reason();
    for missing in ["ce-specversion", "ce-id", "ce-source", "ce-type"] {
        let mut headers = small(&[]);
        headers.remove(missing);
        assert!(reason(&headers).starts_with(&missing[3..]), "{}", reason(&headers));
        headers.insert(missing, HeaderValue::from_static(""));
        assert!(reason(&headers).starts_with(&missing[3..]), "{}", reason(&headers));
    }
    for (name, value, why) in [
        ("ce-subject", "%C0%A0", "not UTF-8"),
        ("ce-subject", "", "it may be left out"),
        ("ce-subject", "a%00", "control characters"),
        ("ce-time", "yesterday", "a timestamp"),
        ("ce-datacontenttype", "a/b", "the header Content-Type"),
        ("ce-a-b", "x", "lower-case letters and digits"),
        ("ce-dataschema", "not a uri", "a URI reference"),
        ("ce-expirytime", "never", "a point in time"),
        ("ce-type", "again", "twice"),
    ] {
        let said = reason(&small(&[(name, value)]));
        assert!(said.contains(why), "{name}: {said}");
    }
    let mut other = small(&[]);
    other.insert("ce-specversion", HeaderValue::from_static("2.0"));
    assert!(reason(&other).contains("1.0 or 0.3"));
    let long = "x".repeat(limits::DESCRIPTION_BYTES);
    assert!(structured(&document(&json!({"a": long}))).unwrap_err().reason().contains("32768"));
    let many: serde_json::Map<_, _> = (0..65).map(|n| (format!("a{n}"), json!(true))).collect();
    assert!(structured(&document(&many.into())).unwrap_err().reason().contains("at most 64"));
}

#[test]
fn structured_mode_is_read() {
    let said = json!({
        "subject": "s", "a": "text", "b": true, "c": -5, "d": null, "eventtypeversion": "v1",
        "data": {"n": [1, 2]},
    });
    let event = structured(&document(&said)).unwrap();
    let texts: Vec<_> =
        event.attributes.iter().map(|a| format!("{}={:?}", a.name, a.value)).collect();
    let expected = ["a=Text(\"text\")", "b=Boolean(true)", "c=Integer(-5)", "subject=Text(\"s\")"];
    assert_eq!(texts, expected);
    assert_eq!((&*event.content_type, &*event.event_type_version), ("application/json", "v1"));
    assert_eq!(event.payload, "{\"n\":[1,2]}");
    for bad in [
        json!({"a": 1.5}),
        json!({"a": 2_147_483_648_u32}),
        json!({"a": []}),
        json!({"a": {"b": 1}}),
        json!({"A": "x"}),
        json!({"a_b": "x"}),
        json!({"id": 7}),
        json!({"time": true}),
        json!({"subject": 1}),
        json!({"data": 1, "data_base64": "AA=="}),
        json!({"data_base64": "?"}),
        json!({"data_base64": 1}),
    ] {
        assert!(structured(&document(&bad)).is_err(), "{bad}");
    }
    for bad in ["", "[]", "null", "7", "{\"id\":1"] {
        assert!(structured(bad).is_err(), "{bad}");
    }
}

#[test]
fn data_is_json_text_or_bytes() {
    let payload = |said: serde_json::Value| {
        let event = structured(&document(&said)).unwrap();
        event.has_payload.then_some(event.payload)
    };
    assert_eq!(payload(json!({})), None);
    assert_eq!(payload(json!({"data": null})).unwrap(), "null");
    assert_eq!(payload(json!({"data": "text"})).unwrap(), "\"text\"");
    for json_type in ["application/json", "text/JSON;a=b", "application/x+json"] {
        let said = json!({"data": "text", "datacontenttype": json_type});
        assert_eq!(payload(said).unwrap(), "\"text\"", "{json_type}");
    }
    assert_eq!(
        payload(json!({"data": "a\n\"b", "datacontenttype": "text/xml"})).unwrap(),
        "a\n\"b"
    );
    assert_eq!(payload(json!({"data": "", "datacontenttype": "text/xml"})).unwrap(), "");
    assert_eq!(payload(json!({"data": {"a": 1}, "datacontenttype": "a/b"})).unwrap(), "{\"a\":1}");
    assert_eq!(payload(json!({"data_base64": "/wA="})).unwrap(), &b"\xff\0"[..]);
    assert_eq!(payload(json!({"data_base64": ""})).unwrap(), "");
    let old = json!({"specversion": "0.3", "datacontentencoding": "base64", "data": "/wA="});
    assert_eq!(payload(old.clone()).unwrap(), &b"\xff\0"[..]);
    let event = structured(&document(&old)).unwrap();
    assert_eq!((event.spec_version, event.attributes.len()), (SpecVersion::V03, 0));
    let again = structured_body(&event);
    let again: serde_json::Value = serde_json::from_slice(&again).unwrap();
    assert_eq!((&again["specversion"], &again["data"]), (&json!("0.3"), &json!("/wA=")));
    assert_eq!(again["datacontentencoding"], "base64");
}

#[test]
fn base64_of_0_3_is_unwrapped_in_each_mode() {
    let mut old = small(&[("ce-datacontentencoding", "base64"), ("content-type", "a/b")]);
    old.insert("ce-specversion", HeaderValue::from_static("0.3"));
    let event = binary(&old, "/wA=").unwrap();
    assert_eq!((event.payload, event.attributes.len()), (Bytes::from_static(b"\xff\0"), 0));
    assert!(binary(&old, "?").is_err());
    old.insert("ce-datacontentencoding", HeaderValue::from_static("7bit"));
    assert!(binary(&old, "/wA=").is_err());
    // In 1.0 it is an extension like any other.
    old.insert("ce-specversion", HeaderValue::from_static("1.0"));
    assert_eq!(binary(&old, "/wA=").unwrap().attributes.len(), 1);
    let new = json!({"datacontentencoding": "base64", "data_base64": "/wA="});
    assert_eq!(structured(&document(&new)).unwrap().attributes.len(), 1);
}

#[test]
fn a_batch_is_an_array_of_documents() {
    let batch = |body: &str| {
        let headers = headers(&[("content-type", "application/cloudevents-batch+json")]);
        decode_batch(&headers, Bytes::copy_from_slice(body.as_bytes()), &head(), LIMITS)
    };
    let good = document(&json!({"data": 1}));
    let events = batch(&format!("[{good}, {{\"id\": \"x\"}}, 7]")).unwrap();
    assert_eq!(events[0].as_ref().unwrap().event, structured(&good).unwrap());
    let rejected = events[1].as_ref().unwrap_err();
    assert_eq!(rejected.id.as_deref(), Some("x"));
    assert_eq!(rejected.refusal, Refusal::Missing("specversion"));
    assert!(events[2].is_err());
    assert_eq!(batch("[]"), Ok(Vec::new()));
    assert!(batch(&good).is_err());
    let avro = headers(&[("content-type", "application/cloudevents-batch+avro")]);
    assert!(decode_batch(&avro, Bytes::new(), &head(), LIMITS).is_err());
}

prop_compose! {
    /// Any event that CloudEvents can say.
    fn any_event()(
        [id, event_type] in proptest::array::uniform2("\\PC{1,20}"),
        source in "[!#-;=?-Z_a-z~]{1,20}|/stage/com\\.github/commerce",
        version in "|v1|[a-z]{1,5}",
        time in "|2018-04-05T17:31:00Z|2018-04-05t17:31:00\\.25\\+02:00",
        content_type in "|application/json|text/plain; a=b|application/x\\+json|a/b",
        attributes in proptest::collection::vec(any_attribute(), 0..5),
        subject in proptest::option::of("\\PC{1,10}"),
        (is_old, payload) in (any::<bool>(), any_payload()),
    ) -> Event {
        let mut attributes: Attributes = attributes.into_iter().collect();
        if let Some(subject) = subject {
            attributes.set(SUBJECT.into(), Value::Text(subject.into()));
        }
        let has_payload = payload.is_some();
        Event {
            source: Source::from_id(source.into()),
            event_type: event_type.into(),
            event_type_version: version.into(),
            id: id.into(),
            id_given: true,
            time: time.into(),
            content_type: content_type.into(),
            attributes,
            spec_version: if is_old { SpecVersion::V03 } else { SpecVersion::V1 },
            trace: Trace::default(),
            payload: payload.unwrap_or_default().into(),
            has_payload,
        }
    }
}

fn any_attribute() -> impl Strategy<Value = Attribute> {
    let value = prop_oneof![
        "\\PC{0,20}".prop_map(|text| Value::Text(text.into())),
        any::<i32>().prop_map(Value::Integer),
        any::<bool>().prop_map(Value::Boolean),
    ];
    ("x[a-z0-9]{0,30}", value).prop_map(|(name, value)| Attribute { name: name.into(), value })
}

fn any_payload() -> impl Strategy<Value = Option<Vec<u8>>> {
    let json = prop_oneof![Just("{\"a\": [1, \"é\\n\"]}"), Just("null"), Just("\"\""), Just("7")];
    proptest::option::of(prop_oneof![
        json.prop_map(|json| json.as_bytes().to_vec()),
        "\\PC{0,20}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..20),
    ])
}

/// Is the payload a JSON value, and said to be one?
fn is_json(event: &Event) -> bool {
    let is_said = ["", "application/json", "application/x+json"].contains(&&*event.content_type);
    is_said && serde_json::from_slice::<serde_json::Value>(&event.payload).is_ok()
}

proptest! {
    #[test]
    fn nothing_is_lost_in_structured_mode(event in any_event()) {
        let mut event = event;
        let body = structured_body(&event);
        let document = std::str::from_utf8(&body).unwrap();
        let again = structured(document).unwrap();
        if document.contains("\"data\":") && is_json(&event) {
            // RFC 8259: whitespace around a value is no part of it.
            event.payload = event.payload.slice_ref(event.payload.trim_ascii());
        }
        prop_assert_eq!(again, event, "{}", document);
    }

    #[test]
    fn nothing_but_types_is_lost_in_binary_mode(event in any_event()) {
        let mut event = event;
        let texts = event.attributes.iter().map(|attribute| Attribute {
            name: attribute.name.clone(),
            value: Value::Text(attribute.value.to_string().into()),
        });
        event.attributes = texts.collect();
        // No byte and no media type cannot be told from no payload there.
        event.has_payload = !event.payload.is_empty() || !event.content_type.is_empty();
        let mut lines = Lines::default();
        binary_headers(&event, &mut lines);
        let headers = testing::headers(&lines);
        let read = decode_binary(&headers, event.payload.clone(), &head()).unwrap();
        prop_assert_eq!(read.event, event);
    }

    #[test]
    fn the_contracts_event_is_a_cloud_event_and_comes_back(
        three_parts in any::<bool>(),
        attributes in proptest::collection::btree_map("[xyz][a-z0-9]{0,19}", "\\PC{0,20}", 0..4),
        data in prop_oneof![Just(json!({"a": [1.5, "x"]})), Just(json!(0)), Just(json!(" "))],
        delay_s in proptest::option::of(0..1000),
    ) {
        let mut body = json!({
            "event-type": "order.created", "event-type-version": "v1",
            "event-id": "31109198-4d69-4ae0-972d-76117f3748c8",
            "event-time": "2012-11-01T22:08:41+00:00", "attributes": attributes, "data": data,
        });
        if three_parts {
            body["source"] = json!({"source-namespace": "com.github", "source-type": "commerce",
                                    "source-environment": "stage"});
        } else {
            body["source-id"] = json!("shop");
        }
        if let Some(delay_s) = delay_s {
            body["delay_s"] = json!(delay_s);
        }
        let event = contract::decode(body.to_string().into(), &head()).unwrap().event;
        let document = structured_body(&event);
        let again = structured(std::str::from_utf8(&document).unwrap()).unwrap();
        prop_assert_eq!(&again, &event);
        prop_assert_eq!(again.source.parts().is_some(), three_parts);
    }

    #[test]
    fn any_bytes_are_an_event_or_a_refusal(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        members in "[\\[\\]{}\",:a-z0-9_. \\\\-]{0,100}",
    ) {
        for bytes in [bytes, members.into_bytes()] {
            let body = Bytes::from(bytes);
            let _ = decode_binary(&small(&[]), body.clone(), &head());
            let _ = decode_structured(&small(&[]), body.clone(), &head());
            let _ = decode_batch(&HeaderMap::new(), body, &head(), LIMITS);
        }
    }
}
