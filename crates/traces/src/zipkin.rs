//! Spans as Zipkin's JSON, version 2: `POST /api/v2/spans`.

use std::fmt::Display;

use eventbus_core::span::{Span, Tag, Work};
use serde::ser::{Serialize, SerializeMap, Serializer};

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct ZipkinSpan<'a> {
    trace_id: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    name: &'static str,
    /// Microseconds since 1970.
    timestamp: u64,
    /// Microseconds; 0 would mean that it is not known.
    duration: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    debug: bool,
    local_endpoint: Endpoint<'a>,
    tags: Tags<'a>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint<'a> {
    service_name: &'a str,
}

/// Values are texts there, whatever they are.
struct Tags<'a>(&'a Span);

impl Serialize for Tags<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, tag) in &self.0.tags {
            match tag {
                Tag::Text(text) => map.serialize_entry(name, text)?,
                Tag::Number(number) => map.serialize_entry(name, &number.to_string())?,
            }
        }
        if let Some(error) = self.0.error {
            map.serialize_entry("error", error)?;
        }
        map.end()
    }
}

/// The body of a request.
pub(crate) fn write(spans: &[Span], service: &str) -> Vec<u8> {
    let spans: Vec<_> = spans.iter().map(|span| of(span, service)).collect();
    // Serialising these structures cannot fail: their keys are text.
    serde_json::to_vec(&spans).unwrap_or_default()
}

fn of<'a>(span: &'a Span, service: &'a str) -> ZipkinSpan<'a> {
    let took_us = u64::try_from(span.took.as_micros()).unwrap_or(u64::MAX);
    ZipkinSpan {
        trace_id: text(span.context.trace_id),
        id: text(span.context.span_id),
        parent_id: span.context.parent_id.map(text),
        kind: match span.work {
            Work::Publish => Some("PRODUCER"),
            Work::Append => None,
            Work::Attempt => Some("CONSUMER"),
        },
        name: span.work.name(),
        timestamp: span.began_us,
        duration: took_us.max(1),
        debug: span.context.is_debug,
        local_endpoint: Endpoint { service_name: service },
        tags: Tags(span),
    }
}

fn text(id: impl Display) -> String {
    id.to_string()
}
