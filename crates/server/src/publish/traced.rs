//! The tracing of one request: the headers that its events carry and, where its trace is recorded,
//! its span and that of its append.

use std::future::Future;

use eventbus_core::span::OpenSpan;
use eventbus_core::wire::error::Refusal;
use eventbus_core::wire::trace::{Context, Trace};
use eventbus_core::{Durability, Event, Tracer};
use http::HeaderMap;

use super::{Answer, Publish};

/// A request under way.
pub(super) struct Traced {
    /// What its events carry, until they do.
    pub(super) trace: Trace,
    span: Option<Box<OpenSpan>>,
    /// The word for what went wrong.
    error: Option<&'static str>,
}

/// What is asked of the broker in one go.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) events: usize,
    pub(super) payload_bytes: usize,
    pub(super) durability: Durability,
}

// === impl Traced ===

impl Traced {
    /// Begins the span of a request with these headers, if its trace is recorded.
    pub(super) fn begin(tracer: Option<&Tracer>, headers: &HeaderMap) -> Self {
        let trace = Trace::from_headers(headers);
        match tracer.and_then(|tracer| tracer.publish(&trace)) {
            Some(span) => {
                Self { trace: trace.carrying(span.context()), span: Some(span), error: None }
            }
            None => Self { trace, span: None, error: None },
        }
    }

    /// Says which event the request brings.
    pub(super) fn brings(&mut self, event: &Event) {
        if let Some(span) = &mut self.span {
            span.tag_event(event);
        }
    }

    /// Says how many events the request brings.
    pub(super) fn brings_many(&mut self, events: usize) {
        if let Some(span) = &mut self.span {
            span.tag("events", events as u64);
        }
    }

    /// The place of its span.
    pub(super) fn context(&self) -> Option<Context> {
        self.span.as_ref().map(|span| span.context())
    }

    /// Says with which word it is refused.
    pub(super) fn fails(&mut self, word: impl FnOnce() -> &'static str) {
        self.error = self.span.as_ref().map(|_| word());
    }

    /// Ends its span with its answer.
    pub(super) fn end(self, tracer: Option<&Tracer>, answer: &Answer) {
        if let (Some(mut span), Some(tracer)) = (self.span, tracer) {
            span.tag("http.status_code", u64::from(answer.status().as_u16()));
            tracer.end(*span, self.error);
        }
    }
}

// === impl Publish ===

impl Publish {
    /// Has the broker do its part for a request, whose span is at `publish`.
    pub(super) async fn append_traced<T, E>(
        &self,
        publish: Option<Context>,
        load: Load,
        part: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Refusal>
    where
        Refusal: From<E>,
    {
        let (Some(publish), Some(tracer)) = (publish, &self.tracer) else {
            return Ok(part.await?);
        };
        let mut span = tracer.append(publish);
        span.tag("durability", load.durability.as_str());
        span.tag("events", load.events as u64);
        span.tag("bytes", load.payload_bytes as u64);
        let done = part.await.map_err(Refusal::from);
        let error = done.as_ref().err().map(|refusal| refusal.body().kind);
        tracer.end(*span, error);
        done
    }
}
