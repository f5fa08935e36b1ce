//! The Application Connector's front: an event without its source, which the front adds.
//!
//! The front checks less than publish and says it in other words; what passes it goes through
//! publish's own checks, whose refusals it relays.

use bytes::Bytes;

use crate::event::{Source, Text};
use crate::wire::contract::{self, Claimed, Members, Parsed};
use crate::wire::error::{FrontRefusal, shortened};
use crate::wire::submission::{RequestHead, Submission};
use crate::wire::time::is_rfc3339;

/// Reads an event out of a request to the front and enriches it with `source`.
pub fn decode(
    body: Bytes,
    source: &Source,
    head: &RequestHead<'_>,
) -> Result<Submission, FrontRefusal> {
    if body.is_empty() {
        return Err(FrontRefusal::EmptyBody);
    }
    let body = Text::try_from(body)
        .map_err(|error| FrontRefusal::BadPayload(format!("invalid UTF-8: {error}")))?;
    let members =
        Members::parse(&body).map_err(|error| FrontRefusal::BadPayload(shortened(&error)))?;
    check(&members)?;
    let parsed = Parsed { body: &body, document: &body, members: &members };
    contract::into_event(parsed, Claimed::Settled(source), head).map_err(FrontRefusal::Relayed)
}

fn check(members: &Members<'_>) -> Result<(), FrontRefusal> {
    let present = |member: &Option<std::borrow::Cow<'_, str>>, field| match member.as_deref() {
        None | Some("") => Err(FrontRefusal::Missing(field)),
        Some(_) => Ok(()),
    };
    let fits = |fits, field| if fits { Ok(()) } else { Err(FrontRefusal::Invalid(field)) };
    let text = |member: &Option<std::borrow::Cow<'_, str>>| {
        member.as_deref().unwrap_or_default().to_owned()
    };
    present(&members.event_type, "event-type")?;
    present(&members.event_type_version, "event-type-version")?;
    // The original's pattern was not anchored here: one fitting character is enough. Publish has
    // the last word on the rest.
    let version = text(&members.event_type_version);
    fits(version.bytes().any(|byte| byte.is_ascii_alphanumeric()), "event-type-version")?;
    present(&members.event_time, "event-time")?;
    fits(is_rfc3339(&text(&members.event_time)), "event-time")?;
    let id = text(&members.event_id);
    fits(id.is_empty() || contract::is_uuid(&id), "event-id")?;
    members.data().map(|_| ()).ok_or(FrontRefusal::Missing("data"))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::event::Event;
    use crate::seams::Entropy;
    use crate::wire::error::Refusal;
    use crate::wire::trace::Trace;

    struct Zero;

    impl Entropy for Zero {
        fn next_u64(&self) -> u64 {
            0
        }
    }

    fn decode(body: &str) -> Result<Event, FrontRefusal> {
        let source = Source::from_id("ec-qa".into());
        let body = Bytes::copy_from_slice(body.as_bytes());
        let headers = HeaderMap::new();
        let head = RequestHead::read(&headers, Trace::default(), &Zero).unwrap();
        super::decode(body, &source, &head).map(|submission| submission.event)
    }

    const GOOD: &str = r#"{"event-type":"order.created","event-type-version":"v1",
        "event-time":"2018-11-02T22:08:41+00:00","source-id":"dropped","data":{"a":1}}"#;

    #[test]
    fn the_source_is_the_applications_whatever_the_client_says() {
        for said in ["\"source-id\":\"dropped\"", "\"source\":1", "\"source\":{\"x\":[]}"] {
            let event = decode(&GOOD.replace("\"source-id\":\"dropped\"", said)).unwrap();
            assert_eq!(event.source.as_str(), "ec-qa");
        }
        let event = decode(GOOD).unwrap();
        assert_eq!(event.payload, r#"{"a":1}"#);
    }

    #[test]
    fn the_front_checks_in_its_own_order_and_words() {
        let missing = |field| Err(FrontRefusal::Missing(field));
        let invalid = |field| Err(FrontRefusal::Invalid(field));
        assert_eq!(decode(""), Err(FrontRefusal::EmptyBody));
        assert!(matches!(decode("{"), Err(FrontRefusal::BadPayload(_))));
        assert_eq!(decode("{}"), missing("event-type"));
        assert_eq!(decode(r#"{"event-type":"!"}"#), missing("event-type-version"));
        let replaced = |from, to| decode(&GOOD.replace(from, to));
        assert_eq!(replaced("\"v1\"", "\"--\""), invalid("event-type-version"));
        assert_eq!(replaced("2018-11-02T22:08:41+00:00", ""), missing("event-time"));
        assert_eq!(replaced("2018-11", "2018-13"), invalid("event-time"));
        assert_eq!(replaced("source-id", "event-id"), invalid("event-id"));
        assert_eq!(replaced("{\"a\":1}", "null"), missing("data"));
    }

    #[test]
    fn what_only_publish_checks_is_relayed() {
        for (from, to, field) in [
            ("order.created", "order..created", "event-type"),
            ("\"v1\"", "\"v-1\"", "event-type-version"),
        ] {
            let relayed = FrontRefusal::Relayed(Refusal::Invalid(field));
            assert_eq!(decode(&GOOD.replace(from, to)), Err(relayed));
        }
    }
}
