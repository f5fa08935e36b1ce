//! Spans: what tracing tells of a publish, of its append, and of each attempt; and the seam to
//! whoever takes them.
//!
//! A span is built only where the trace is recorded. Whoever asks for one and gets none has paid
//! for a look at the headers, and nothing else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::event::Event;
use crate::limits;
use crate::seams::{Clock, Entropy};
use crate::wire::trace::{Context, Decision, Trace};

/// Takes spans that have ended.
pub trait Spans: Send + Sync + 'static {
    /// Takes one, or drops it: nobody waits for it.
    fn record(&self, span: Span);
}

/// What one part of a trace did, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its place.
    pub context: Context,
    /// What it is.
    pub work: Work,
    /// When it began: wall-clock microseconds since 1970.
    pub began_us: u64,
    /// How long it took.
    pub took: Duration,
    /// What is known of it.
    pub tags: Vec<(&'static str, Tag)>,
    /// The word for what went wrong.
    pub error: Option<&'static str>,
}

/// What a span can be of, under the names of the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A publish request, from its head to its answer.
    Publish,
    /// What the broker did for it.
    Append,
    /// One attempt to deliver.
    Attempt,
}

/// What is known of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    /// A text, of at most [`limits::TAG_BYTES`].
    Text(String),
    /// A number.
    Number(u64),
}

/// A span that has begun.
#[derive(Debug)]
pub struct OpenSpan {
    context: Context,
    work: Work,
    began_us: u64,
    /// The same by the clock that never falls.
    began: Duration,
    tags: Vec<(&'static str, Tag)>,
}

/// Begins and ends spans.
#[derive(Clone)]
pub struct Tracer {
    spans: Arc<dyn Spans>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// Of 2^64 publishes that nobody decided on, how many are recorded.
    share: u128,
}

impl Work {
    /// Its name: those of the original's operations, and one for what it had no span for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "send-to-internal-broker",
            Self::Append => "append",
            Self::Attempt => "deliver-to-endpoint",
        }
    }
}

impl From<&str> for Tag {
    /// In bytes of its own: a queue of spans must not keep the requests they came from.
    fn from(text: &str) -> Self {
        Self::Text(text[..text.floor_char_boundary(limits::TAG_BYTES)].to_owned())
    }
}

impl From<u64> for Tag {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl OpenSpan {
    /// Its place.
    pub fn context(&self) -> Context {
        self.context
    }

    /// Says something of it.
    pub fn tag(&mut self, name: &'static str, tag: impl Into<Tag>) {
        self.tags.push((name, tag.into()));
    }

    /// Says which event it is about, in the contract's words.
    pub fn tag_event(&mut self, event: &Event) {
        self.tag("event-id", &*event.id);
        self.tag("event-type", &*event.event_type);
        self.tag("event-type-ver", &*event.event_type_version);
        match event.source.parts() {
            Some(parts) => {
                self.tag("source-ns", parts.namespace);
                self.tag("source-type", parts.source_type);
                self.tag("source-env", parts.environment);
            }
            None => self.tag("source-id", event.source.as_str()),
        }
    }
}

impl Tracer {
    /// A tracer whose spans go to `spans`, and which records `ratio` of the publishes, from 0 to
    /// 1, that nobody decided on.
    pub fn new(
        spans: Arc<dyn Spans>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        ratio: f64,
    ) -> Self {
        let share = (ratio.clamp(0.0, 1.0) * 2f64.powi(64)) as u128;
        Self { spans, clock, entropy, share }
    }

    /// Begins the span of a publish with these headers, if it is recorded.
    pub fn publish(&self, trace: &Trace) -> Option<Box<OpenSpan>> {
        let mut incoming = trace.incoming();
        if incoming.decision == Decision::Deferred && self.is_drawn() {
            incoming.decision = Decision::Sampled;
        }
        let is_recorded = incoming.decision.is_sampled();
        is_recorded.then(|| self.begin(Work::Publish, incoming.child(&*self.entropy)))
    }

    /// Begins the span of an append, part of a publish that is recorded.
    pub fn append(&self, publish: Context) -> Box<OpenSpan> {
        let below = crate::wire::trace::Incoming::from(publish).child(&*self.entropy);
        self.begin(Work::Append, below)
    }

    /// Begins the span of an attempt to deliver an event that carries these headers, if its
    /// publish was recorded.
    pub fn attempt(&self, trace: &Trace) -> Option<Box<OpenSpan>> {
        let incoming = trace.incoming();
        let is_recorded = incoming.parent.is_some() && incoming.decision.is_sampled();
        is_recorded.then(|| self.begin(Work::Attempt, incoming.child(&*self.entropy)))
    }

    /// Ends a span, with the word for what went wrong.
    pub fn end(&self, span: OpenSpan, error: Option<&'static str>) {
        let OpenSpan { context, work, began_us, began, tags } = span;
        let took = self.clock.elapsed().saturating_sub(began);
        self.spans.record(Span { context, work, began_us, took, tags, error });
    }

    fn begin(&self, work: Work, context: Context) -> Box<OpenSpan> {
        let (began_us, began) = (self.clock.now_us(), self.clock.elapsed());
        let tags = Vec::with_capacity(limits::TAGS);
        Box::new(OpenSpan { context, work, began_us, began, tags })
    }

    fn is_drawn(&self) -> bool {
        self.share > 0 && u128::from(self.entropy.next_u64()) < self.share
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("share", &self.share).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::event::{Source, SourceParts};
    use crate::testing::{KeptSpans, ManualClock, SeededEntropy, event};

    fn tracer(ratio: f64) -> (Tracer, Arc<KeptSpans>, Arc<ManualClock>) {
        let (kept, clock) = (Arc::<KeptSpans>::default(), Arc::new(ManualClock::at(1_000)));
        let entropy = Arc::new(SeededEntropy::new(7));
        (Tracer::new(kept.clone(), clock.clone(), entropy, ratio), kept, clock)
    }

    fn b3(value: &'static str) -> Trace {
        let mut headers = HeaderMap::new();
        headers.insert("b3", HeaderValue::from_static(value));
        Trace::from_headers(&headers)
    }

    const SAMPLED: &str = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1";
    const UNSAMPLED: &str = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0";
    const DEFERRED: &str = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1";

    #[test]
    fn the_incoming_decision_rules_and_the_ratio_where_there_is_none() {
        let never = tracer(0.0).0;
        let always = tracer(1.0).0;
        for (trace, of_never, of_always) in [
            (b3(SAMPLED), true, true),
            (b3("d"), true, true),
            (b3(UNSAMPLED), false, false),
            (b3("0"), false, false),
            (b3(DEFERRED), false, true),
            (b3("nonsense"), false, true),
            (Trace::default(), false, true),
        ] {
            assert_eq!(never.publish(&trace).is_some(), of_never, "{trace:?}");
            assert_eq!(always.publish(&trace).is_some(), of_always, "{trace:?}");
        }
        // What publish did not record, push does not record either.
        for (trace, is_recorded) in [
            (b3(SAMPLED), true),
            (b3(DEFERRED), false),
            (b3("1"), false),
            (Trace::default(), false),
        ] {
            assert_eq!(always.attempt(&trace).is_some(), is_recorded, "{trace:?}");
        }
        let half = tracer(0.5).0;
        let drawn = (0..10_000).filter(|_| half.publish(&Trace::default()).is_some()).count();
        assert!((4_500..5_500).contains(&drawn), "{drawn}");
    }

    #[test]
    fn an_attempt_is_below_the_publish_that_its_event_carries() {
        let (tracer, kept, clock) = tracer(0.0);
        let publish = tracer.publish(&b3(SAMPLED)).unwrap();
        let append = tracer.append(publish.context());
        clock.advance(Duration::from_millis(3));
        tracer.end(*append, None);
        let carried = b3(SAMPLED).carrying(publish.context());
        tracer.end(*publish, Some("unavailable"));
        for _ in 0..2 {
            tracer.end(*tracer.attempt(&carried).unwrap(), None);
        }
        let [append] = &kept.of(Work::Append)[..] else { panic!("{kept:?}") };
        let [publish] = &kept.of(Work::Publish)[..] else { panic!("{kept:?}") };
        let [first, second] = &kept.of(Work::Attempt)[..] else { panic!("{kept:?}") };
        let parent = publish.context.parent_id.unwrap().to_string();
        assert_eq!(parent, "e457b5a2e4d86bd1");
        for below in [append, first, second] {
            assert_eq!(below.context.parent_id, Some(publish.context.span_id));
            assert_eq!(below.context.trace_id, publish.context.trace_id);
        }
        assert_ne!(first.context.span_id, second.context.span_id);
        assert_eq!((publish.began_us, publish.took.as_millis()), (1_000_000, 3));
        assert_eq!((publish.error, append.error), (Some("unavailable"), None));
    }

    #[test]
    fn an_event_has_the_contracts_tags() {
        let (tracer, kept, _) = tracer(1.0);
        let mut span = tracer.publish(&Trace::default()).unwrap();
        span.tag_event(&event("order.created", "{}"));
        tracer.end(*span, None);
        let mut span = tracer.publish(&Trace::default()).unwrap();
        let parts = SourceParts { environment: "prod", namespace: "com.acme", source_type: "ec" };
        let id = "ü".repeat(limits::TAG_BYTES).into();
        let source = Source::from_parts(parts);
        span.tag_event(&Event { source, id, ..event("order.created", "{}") });
        tracer.end(*span, None);
        let kept = kept.of(Work::Publish);
        let tags = |at: usize| kept[at].tags.iter().map(|(name, tag)| format!("{name}={tag}"));
        assert_eq!(
            tags(0).collect::<Vec<_>>(),
            [
                "event-id=a45ad3b8-6b4a-4a0d-9a86-2f5c34b6d7a1",
                "event-type=order.created",
                "event-type-ver=v1",
                "source-id=shop",
            ]
        );
        let tags: Vec<_> = tags(1).collect();
        assert_eq!(tags[0], format!("event-id={}", "ü".repeat(limits::TAG_BYTES / 2)));
        assert_eq!(tags[3..], ["source-ns=com.acme", "source-type=ec", "source-env=prod"]);
    }
}
