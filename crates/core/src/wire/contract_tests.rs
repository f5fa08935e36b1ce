//! The contract's tables for the publish request, as tests.

use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::wire::trace::Trace;

struct Dice;

impl Entropy for Dice {
    fn next_u64(&self) -> u64 {
        0x0123_4567_89ab_cdef
    }
}

fn decode_text(body: &str) -> Result<Event, Refusal> {
    submit(body).map(|submission| submission.event)
}

fn submit(body: &str) -> Result<Submission, Refusal> {
    submit_with(body, &HeaderMap::new())
}

fn head(source_id: Option<&str>) -> RequestHead<'_> {
    let (attributes, trace) = (Attributes::default(), Trace::default());
    RequestHead { source_id, attributes, trace, entropy: &Dice }
}

fn submit_with(body: &str, headers: &HeaderMap) -> Result<Submission, Refusal> {
    let head = RequestHead::read(headers, Trace::default(), &Dice)?;
    decode(Bytes::copy_from_slice(body.as_bytes()), &head)
}

fn decode_json(body: &Value) -> Result<Event, Refusal> {
    decode_text(&body.to_string())
}

fn era_a() -> Value {
    json!({
        "source": {"source-namespace": "com.github", "source-type": "commerce",
                   "source-environment": "stage"},
        "event-type": "order.created", "event-type-version": "v1",
        "event-id": "31109198-4d69-4ae0-972d-76117f3748c8",
        "event-time": "2012-11-01T22:08:41+00:00", "data": {"any": "json"},
    })
}

fn era_b() -> Value {
    let mut event = era_a();
    event.as_object_mut().unwrap().remove("source");
    event["source-id"] = json!("stage.commerce.kyma.local");
    event
}

/// `event` with the member at `path` set to `value`, or taken away.
fn with(mut event: Value, path: &str, value: Option<Value>) -> Value {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = if parent.is_empty() { &mut event } else { &mut event[parent] };
    match value {
        Some(value) => parent[name] = value,
        None => drop(parent.as_object_mut().unwrap().remove(name)),
    }
    event
}

#[test]
fn a_durability_is_taken_as_it_is_written() {
    let asked = |value: Value| submit(&with(era_b(), "durability", Some(value)).to_string());
    assert_eq!(submit(&era_b().to_string()).unwrap().durability, None);
    assert_eq!(asked(Value::Null).unwrap().durability, None);
    assert_eq!(asked(json!("written")).unwrap().durability, Some("written".into()));
    assert_eq!(asked(json!(1)), Err(Refusal::BadPayload));
}

#[test]
fn both_source_forms_are_read() {
    let event = decode_json(&era_a()).unwrap();
    assert_eq!(event.source.as_str(), "/stage/com.github/commerce");
    assert_eq!(event.event_type, "order.created");
    assert_eq!(event.event_type_version, "v1");
    assert_eq!(event.id, "31109198-4d69-4ae0-972d-76117f3748c8");
    assert_eq!(event.time, "2012-11-01T22:08:41+00:00");
    assert_eq!(event.content_type, "application/json");
    assert_eq!(decode_json(&era_b()).unwrap().source.as_str(), "stage.commerce.kyma.local");
}

#[test]
fn the_payload_is_the_publishers_bytes() {
    let payload = "{ \"b\":1.0,\n\t\"a\" : 12345678901234567890, \"b\":\"\\u003c<\" }";
    let body = era_b().to_string().replace(r#"{"any":"json"}"#, payload);
    assert_eq!(decode_text(&body).unwrap().payload, payload);
    for payload in ["0", "false", "{}", "[]", "\" \"", "1e400"] {
        let body = era_b().to_string().replace(r#"{"any":"json"}"#, payload);
        assert_eq!(decode_text(&body).unwrap().payload, payload);
    }
}

#[test]
fn missing_members_are_named_in_the_order_of_era_a() {
    let order = [
        ("source/source-type", "source.source-type"),
        ("source/source-namespace", "source.source-namespace"),
        ("source/source-environment", "source.source-environment"),
        ("event-type", "event-type"),
        ("event-type-version", "event-type-version"),
        ("event-time", "event-time"),
        ("data", "data"),
    ];
    for empty in [None, Some(Value::Null), Some(json!(""))] {
        let mut event = era_a();
        // From the last check to the first: each new fault hides those after it.
        for (path, field) in order.iter().rev() {
            event = with(event, path, empty.clone());
            assert_eq!(decode_json(&event), Err(Refusal::Missing(field)), "{empty:?}");
        }
    }
}

#[test]
fn invalid_members_are_named_in_the_order_of_the_contract() {
    let era_a_order = [
        ("source/source-environment", "source.source-environment", "1a"),
        ("source/source-namespace", "source.source-namespace", "a..b"),
        ("source/source-type", "source.source-type", "a\n"),
        ("event-type", "event-type", "a b"),
        ("event-type-version", "event-type-version", "v-1"),
        ("event-time", "event-time", "2012-11-01 22:08:41Z"),
        ("event-id", "event-id", "31109198-4d69-4ae0-972d-76117f3748cg"),
    ];
    let mut event = era_a();
    for (path, field, value) in era_a_order.iter().rev() {
        event = with(event, path, Some(json!(value)));
        assert_eq!(decode_json(&event), Err(Refusal::Invalid(field)));
    }
    let bad_source = with(era_b(), "source-id", Some(json!("a/b")));
    assert_eq!(decode_json(&bad_source), Err(Refusal::Invalid("source-id")));
}

#[test]
fn lengths_come_before_patterns() {
    let long = "a".repeat(254);
    let too_long = |field, max_chars| Err(Refusal::TooLong { field, max_chars });
    for (path, field) in [
        ("event-type", "event-type"),
        ("source/source-type", "source.source-type"),
        ("source/source-namespace", "source.source-namespace"),
        ("source/source-environment", "source.source-environment"),
    ] {
        let event = with(with(era_a(), path, Some(json!(long))), "event-id", Some(json!("x")));
        assert_eq!(decode_json(&event), too_long(field, 253));
    }
    let event = with(era_a(), "event-type-version", Some(json!("v".repeat(65))));
    assert_eq!(decode_json(&event), too_long("event-type-version", 64));
    let event = with(era_b(), "source-id", Some(json!("ä".repeat(254))));
    assert_eq!(decode_json(&event), too_long("source-id", 253));
    assert!(decode_json(&with(era_b(), "event-type", Some(json!("a".repeat(253))))).is_ok());
}

#[test]
fn the_source_may_come_from_the_header_and_the_body_wins() {
    let decode_with = |event: &Value, header| {
        let body = event.to_string().into();
        decode(body, &head(header)).map(|submission| submission.event.source)
    };
    let id = |id: &str| Ok(Source::from_id(id.into()));
    let none = with(era_b(), "source-id", None);
    assert_eq!(decode_with(&none, Some("from.header")), id("from.header"));
    assert_eq!(decode_with(&era_b(), Some("from.header")), id("stage.commerce.kyma.local"));
    assert_eq!(decode_with(&none, None), Err(Refusal::NoSource));
    assert_eq!(decode_with(&none, Some("")), Err(Refusal::NoSource));
    assert_eq!(decode_with(&none, Some("a b")), Err(Refusal::InvalidSourceHeader));
    let both = with(era_a(), "source-id", Some(json!("a")));
    assert_eq!(decode_with(&both, None), Err(Refusal::Invalid("source-id")));
    let null_source = with(era_b(), "source", Some(Value::Null));
    assert_eq!(decode_with(&null_source, None), id("stage.commerce.kyma.local"));
}

#[test]
fn json_is_read_as_leniently_as_the_contract_says_and_no_more() {
    let good = era_b().to_string();
    assert_eq!(decode_text("null"), Err(Refusal::NoSource));
    for bad in [
        "".to_owned(),
        "[]".into(),
        "\"text\"".into(),
        format!("{good}x"),
        good.replace("\"order.created\"", "1"),
        good.replace("\"order.created\"", "{}"),
        era_a().to_string().replace("\"stage\"", "[]"),
        with(era_b(), "source", Some(json!("text"))).to_string(),
        good.replace("order.created", "\\ud800"),
        good.replace("{\"any\":\"json\"}", &format!("{}{}", "[".repeat(200), "]".repeat(200))),
    ] {
        assert_eq!(decode_text(&bad), Err(Refusal::BadPayload), "{bad}");
    }
    let not_utf8 = Bytes::from(good.replace("json\"", "\u{1}").into_bytes());
    let not_utf8: Vec<u8> =
        not_utf8.iter().map(|byte| if *byte == 1 { 0xff } else { *byte }).collect();
    assert_eq!(decode(not_utf8.into(), &head(None)), Err(Refusal::BadPayload));
    let twice = good.replacen('{', "{\"event-type\":\"first\",\"unknown\":[{}],", 1);
    assert_eq!(decode_text(&format!(" {twice} \n")).unwrap().event_type, "order.created");
    // Member names are case-sensitive, and escapes in them count.
    let cased = good.replace("event-type\"", "Event-Type\"");
    assert_eq!(decode_text(&cased), Err(Refusal::Missing("event-type")));
    let escaped = good.replace("\"event-type\"", "\"\\u0065vent-type\"");
    assert_eq!(
        decode_text(&escaped.replace("order.c", "order\\u002ec")).unwrap().event_type,
        "order.created"
    );
}

#[test]
fn an_id_is_made_where_there_is_none_and_kept_as_spelt_where_there_is() {
    for none in [None, Some(Value::Null), Some(json!(""))] {
        let event = decode_json(&with(era_a(), "event-id", none)).unwrap();
        assert_eq!(event.id, "01234567-89ab-4def-8123-456789abcdef");
        assert!(is_uuid(&event.id));
    }
    let upper = "31109198-4D69-4AE0-972D-76117F3748C8";
    assert_eq!(decode_json(&with(era_a(), "event-id", Some(json!(upper)))).unwrap().id, upper);
}

#[test]
fn times_are_rfc_3339() {
    for good in [
        "2012-11-01T22:08:41Z",
        "2012-11-01T22:08:41.123456789123Z",
        "2012-02-29T00:00:00-23:59",
        "0000-01-01T00:00:00Z",
    ] {
        assert!(is_rfc3339(good), "{good}");
    }
    for bad in [
        "2012-11-01T22:08:41",
        "2012-11-01t22:08:41Z",
        "2012-11-01T22:08:41z",
        "2012-11-01T22:08:60Z",
        "2012-11-01T24:00:00Z",
        "2011-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2012-00-01T00:00:00Z",
        "2012-04-31T00:00:00Z",
        "2012-11-01T22:08:41.Z",
        "2012-11-01T22:08:41,5Z",
        "2012-11-01T22:08:41+24:00",
        "2012-11-01T22:08:41+0100",
        "2012-11-01T22:08:41Z\n",
        "",
        "+012-11-01T22:08:41Z",
    ] {
        assert!(!is_rfc3339(bad), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn a_time_that_is_accepted_is_one_that_other_parsers_read(
        text in concat!(
            "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9]",
            "(\\.[0-9]{0,9})?(Z|[+-][0-2][0-9]:[0-6][0-9])",
        ),
    ) {
        if is_rfc3339(&text) {
            prop_assert!(text.parse::<jiff::Timestamp>().is_ok(), "{text}");
        }
    }

    #[test]
    fn any_body_is_an_event_or_a_refusal(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(body.into(), &head(None));
    }

    #[test]
    fn a_damaged_request_is_an_event_or_a_refusal(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        header in ".{0,20}",
    ) {
        let mut body = era_a().to_string().into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        let submitted = decode(body.into(), &head(Some(&header)));
        if let Ok(Submission { event, .. }) = submitted {
            prop_assert!(serde_json::from_slice::<Value>(&event.payload).is_ok());
            prop_assert!(event.source.parts().is_some());
        }
    }
}

#[test]
fn members_that_do_not_count_are_not_kept_in_memory() {
    let padded = with(era_b(), "padding", Some(json!("x".repeat(100_000))));
    for (body, keeps) in
        [(padded, false), (with(era_b(), "data", Some(json!("x".repeat(5000)))), true)]
    {
        let body = Bytes::from(body.to_string().into_bytes());
        let event = decode(body.clone(), &head(None)).unwrap();
        assert_eq!(!body.is_unique(), keeps, "{} bytes", body.len());
        drop(event);
        assert!(body.is_unique());
    }
}

fn refused(member: &str, value: Value) -> Option<String> {
    decode_json(&with(era_b(), member, Some(value))).err().map(|refusal| refusal.reason())
}

#[test]
fn attributes_are_strings_under_names_of_their_own() {
    let said = json!({"tenant": "acme", "note": "ü \"x\"", "gone": null});
    let event = decode_json(&with(era_b(), "attributes", Some(said))).unwrap();
    let texts: Vec<_> =
        event.attributes.iter().map(|a| format!("{}={}", a.name, a.value)).collect();
    assert_eq!(texts, ["note=ü \"x\"", "tenant=acme"]);
    let reason = |said: Value| refused("attributes", said).unwrap();
    assert!(reason(json!({"a-b": ""})).starts_with("attributes.a-b: a name has 1 to 20"));
    assert!(reason(json!({"id": ""})).starts_with("attributes.id: CloudEvents uses"));
    assert!(reason(json!({"a": "x".repeat(1025)})).contains("at most 1024 bytes"));
    let many: serde_json::Map<_, _> = (0..33).map(|n| (format!("a{n}"), json!(""))).collect();
    assert!(reason(Value::Object(many)).contains("at most 32"));
    for bad in [json!([]), json!("a"), json!({"a": 1})] {
        assert_eq!(decode_json(&with(era_b(), "attributes", Some(bad))), Err(Refusal::BadPayload));
    }
}

#[test]
fn what_the_body_says_counts_before_what_a_header_says() {
    let mut headers = HeaderMap::new();
    headers.insert("eventbus-attribute-tenant", "%22acme%22 inc".parse().unwrap());
    headers.insert("eventbus-attribute-region", "eu".parse().unwrap());
    headers.insert("eventbus-delay-s", "7".parse().unwrap());
    let mut body = with(era_b(), "attributes", Some(json!({"region": "us"})));
    let event = submit_with(&body.to_string(), &headers).unwrap().event;
    let texts: Vec<_> =
        event.attributes.iter().map(|a| format!("{}={}", a.name, a.value)).collect();
    assert_eq!(texts, ["delays=7", "region=us", "tenant=\"acme\" inc"]);
    body["deliver_at"] = json!("2030-01-01T00:00:00Z");
    let event = submit_with(&body.to_string(), &headers).unwrap().event;
    assert_eq!(event.attributes.get("delays"), None);
    assert_eq!(event.attributes.text("deliverat").unwrap(), "2030-01-01T00:00:00Z");
    for (name, value) in
        [("eventbus-attribute-id", "x"), ("eventbus-delay-s", "soon"), ("eventbus-deliver-at", "")]
    {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        assert!(submit_with(&era_b().to_string(), &headers).is_err(), "{name}");
    }
}

#[test]
fn a_delay_is_a_whole_number_of_seconds() {
    let event = decode_json(&with(era_b(), "delay_s", Some(json!(30)))).unwrap();
    assert_eq!(event.attributes.get("delays"), Some(&crate::attributes::Value::Integer(30)));
    for bad in [json!(-1), json!(1.5), json!(1e12), json!(31_622_401)] {
        assert!(refused("delay_s", bad).unwrap().starts_with("delay_s: whole seconds"));
    }
    assert_eq!(decode_json(&with(era_b(), "delay_s", Some(json!("30")))), Err(Refusal::BadPayload));
    assert!(refused("deliver_at", json!("soon")).unwrap().starts_with("deliver_at: a point"));
    let both = with(era_b(), "delay_s", Some(json!(1)));
    let both = with(both, "deliver_at", Some(json!("2030-01-01T00:00:00Z")));
    assert!(decode_json(&both).is_err());
}

#[test]
fn a_batch_is_an_array_or_lines_and_each_event_is_judged_alone() {
    let (good, mut bad) = (era_b(), era_b());
    bad["event-type"] = json!("!");
    let limits = BatchLimits { event_bytes: 1000, events: 5 };
    let large = with(era_b(), "data", Some(json!("x".repeat(1000))));
    let array = json!([good, bad, 7, {}, large]).to_string();
    let lines = format!("{good}\r\n{bad}\n\n7\n{{}}\n{large}");
    for body in [array, lines] {
        let batch = decode_batch(body.clone().into(), &head(None), limits).unwrap();
        assert_eq!(batch[0].as_ref().unwrap().event, decode_json(&good).unwrap());
        let rejected: Vec<_> = batch[1..].iter().map(|one| one.clone().unwrap_err()).collect();
        assert_eq!(rejected[0].id.as_deref(), good["event-id"].as_str());
        let refusals: Vec<_> = rejected.into_iter().map(|one| one.refusal).collect();
        let invalid = Refusal::Invalid("event-type");
        let large = Refusal::TooLarge;
        assert_eq!(refusals, [invalid, Refusal::BadPayload, Refusal::NoSource, large]);
        let fewer = BatchLimits { events: 4, ..limits };
        let batch = decode_batch(body.into(), &head(None), fewer);
        assert_eq!(batch, Err(Refusal::TooManyEvents(4)));
    }
    assert_eq!(decode_batch("[]".into(), &head(None), limits), Ok(Vec::new()));
    assert!(decode_batch("[{}".into(), &head(None), limits).is_err());
}

#[test]
fn the_events_of_a_batch_share_its_bytes() {
    let body = Bytes::from(json!([era_b(), era_a()]).to_string());
    let limits = BatchLimits { event_bytes: 1000, events: 5 };
    let within = body.as_ptr_range();
    for event in decode_batch(body.clone(), &head(None), limits).unwrap() {
        let event = event.unwrap().event;
        assert!(within.contains(&event.payload.as_ptr()));
        assert!(within.contains(&event.event_type.as_ptr()));
    }
}
