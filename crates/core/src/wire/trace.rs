//! The publisher's tracing headers: carried from the publish request to the delivery, untouched
//! where the trace is not recorded.
//!
//! B3 in both spellings (the seed's `x-b3-*`, and `b3`) and W3C Trace Context.

mod context;

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use crate::event::Text;
use crate::limits;

pub use context::{Context, Decision, Incoming, SpanId, TraceId};

/// The tracing headers a publisher sent. Empty costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    headers: Vec<(TraceHeader, Text)>,
}

/// A header that carries tracing context. The number is its tag on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TraceHeader {
    /// `x-b3-traceid`
    B3TraceId = 16,
    /// `x-b3-spanid`
    B3SpanId = 17,
    /// `x-b3-parentspanid`
    B3ParentSpanId = 18,
    /// `x-b3-sampled`
    B3Sampled = 19,
    /// `x-b3-flags`
    B3Flags = 20,
    /// `b3`
    B3Single = 21,
    /// `traceparent`
    TraceParent = 22,
    /// `tracestate`
    TraceState = 23,
}

impl TraceHeader {
    /// Every header, in the order in which they are written.
    pub const ALL: [Self; 8] = [
        Self::B3TraceId,
        Self::B3SpanId,
        Self::B3ParentSpanId,
        Self::B3Sampled,
        Self::B3Flags,
        Self::B3Single,
        Self::TraceParent,
        Self::TraceState,
    ];

    /// B3's many headers.
    const B3_MULTI: [Self; 5] =
        [Self::B3TraceId, Self::B3SpanId, Self::B3ParentSpanId, Self::B3Sampled, Self::B3Flags];

    /// The header's name.
    pub fn name(self) -> HeaderName {
        HeaderName::from_static(match self {
            Self::B3TraceId => "x-b3-traceid",
            Self::B3SpanId => "x-b3-spanid",
            Self::B3ParentSpanId => "x-b3-parentspanid",
            Self::B3Sampled => "x-b3-sampled",
            Self::B3Flags => "x-b3-flags",
            Self::B3Single => "b3",
            Self::TraceParent => "traceparent",
            Self::TraceState => "tracestate",
        })
    }

    /// The header's name as it goes out.
    pub(super) fn written(self) -> &'static str {
        match self {
            Self::B3TraceId => "X-B3-Traceid",
            Self::B3SpanId => "X-B3-Spanid",
            Self::B3ParentSpanId => "X-B3-Parentspanid",
            Self::B3Sampled => "X-B3-Sampled",
            Self::B3Flags => "X-B3-Flags",
            Self::B3Single => "B3",
            Self::TraceParent => "Traceparent",
            Self::TraceState => "Tracestate",
        }
    }

    /// The header with this tag on disk.
    pub fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|header| *header as u8 == tag)
    }
}

impl Trace {
    /// Takes the tracing headers out of a request. A value that is empty, not visible ASCII, or
    /// longer than [`limits::TRACE_HEADER_CHARS`] is left out: tracing never fails a publish.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let mut found = Vec::new();
        for header in TraceHeader::ALL {
            let value = value_of(header, headers);
            if let Some(value) =
                value.filter(|v| (1..=limits::TRACE_HEADER_CHARS).contains(&v.len()))
            {
                found.push((header, Text::from(&*value)));
            }
        }
        Self { headers: found }
    }

    /// The headers, in the order of [`TraceHeader::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (TraceHeader, &Text)> {
        self.headers.iter().map(|(header, value)| (*header, value))
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        self.headers.iter().map(|(_, value)| value.len()).sum()
    }

    /// Adds a header that was read back from storage.
    pub(crate) fn push(&mut self, header: TraceHeader, value: Text) {
        self.headers.push((header, value));
    }
}

/// The value of a header; the first where there are several, but what one `tracestate` began
/// another may go on with.
fn value_of(header: TraceHeader, headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let name = header.name();
    let first = Cow::Borrowed(headers.get(&name)?.to_str().ok()?);
    if header != TraceHeader::TraceState {
        return Some(first);
    }
    let mut others = headers.get_all(name).iter().skip(1).map(|value| value.to_str().ok());
    others.try_fold(first, |state, more| Some(Cow::Owned(format!("{state},{}", more?))))
}
