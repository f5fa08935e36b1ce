//! What tracing headers say: which trace, which span, and whether it is to be recorded.
//!
//! B3 comes before W3C Trace Context, as the contract speaks B3. What is malformed says nothing:
//! tracing never fails a publish.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use super::{Trace, TraceHeader};
use crate::event::Text;
use crate::seams::Entropy;

/// The name of a trace: 128 bits, or 64 as B3 also allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId {
    bits: NonZeroU128,
    is_wide: bool,
}

/// The name of a span in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(NonZeroU64);

/// Is a trace to be recorded?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decision {
    /// Whoever comes next decides.
    #[default]
    Deferred,
    /// No.
    Unsampled,
    /// Yes.
    Sampled,
    /// Yes, whatever it costs.
    Debug,
}

/// What the headers of a request say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    /// The span that the request comes from.
    pub parent: Option<(TraceId, SpanId)>,
    /// Whether it is recorded.
    pub decision: Decision,
}

/// A span that is recorded, and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Itself.
    pub span_id: SpanId,
    /// The span it is a part of; `None`: it is the first of its trace.
    pub parent_id: Option<SpanId>,
    /// Is the trace to be recorded whatever it costs?
    pub is_debug: bool,
}

impl TraceId {
    /// All 128 bits; a narrow one has zeros before it.
    pub fn bits(self) -> u128 {
        self.bits.get()
    }

    fn draw(entropy: &dyn Entropy) -> Self {
        let bits = u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64());
        Self { bits: NonZeroU128::new(bits).unwrap_or(NonZeroU128::MIN), is_wide: true }
    }

    fn parse(text: &str) -> Option<Self> {
        let is_wide = match text.len() {
            16 => false,
            32 => true,
            _ => return None,
        };
        Some(Self { bits: NonZeroU128::new(hex(text)?)?, is_wide })
    }
}

/// 32 digits, or the 16 of a narrow one.
impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.is_wide { 32 } else { 16 };
        write!(f, "{:0digits$x}", self.bits)
    }
}

impl SpanId {
    /// Its 64 bits.
    pub fn bits(self) -> u64 {
        self.0.get()
    }

    fn draw(entropy: &dyn Entropy) -> Self {
        Self(NonZeroU64::new(entropy.next_u64()).unwrap_or(NonZeroU64::MIN))
    }

    fn parse(text: &str) -> Option<Self> {
        let bits = u64::try_from(hex(text)?).ok()?;
        (text.len() == 16).then_some(Self(NonZeroU64::new(bits)?))
    }
}

/// 16 digits.
impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Decision {
    /// Is it yes?
    pub fn is_sampled(self) -> bool {
        matches!(self, Self::Sampled | Self::Debug)
    }

    /// The words of B3.
    fn parse(word: &str) -> Option<Self> {
        match word {
            "1" => Some(Self::Sampled),
            "0" => Some(Self::Unsampled),
            "d" => Some(Self::Debug),
            word if word.eq_ignore_ascii_case("true") => Some(Self::Sampled),
            word if word.eq_ignore_ascii_case("false") => Some(Self::Unsampled),
            _ => None,
        }
    }
}

impl Incoming {
    /// The place of a new span that goes on from here; the first of a new trace where there is
    /// none to go on from.
    pub fn child(self, entropy: &dyn Entropy) -> Context {
        let is_debug = self.decision == Decision::Debug;
        let span_id = SpanId::draw(entropy);
        match self.parent {
            Some((trace_id, parent)) => {
                Context { trace_id, span_id, parent_id: Some(parent), is_debug }
            }
            None => {
                Context { trace_id: TraceId::draw(entropy), span_id, parent_id: None, is_debug }
            }
        }
    }
}

impl From<Context> for Incoming {
    /// What the headers of this span say.
    fn from(context: Context) -> Self {
        let decision = if context.is_debug { Decision::Debug } else { Decision::Sampled };
        Self { parent: Some((context.trace_id, context.span_id)), decision }
    }
}

impl Trace {
    /// What the headers say: the first form that names a span, else the first that decides.
    /// Allocates nothing.
    pub fn incoming(&self) -> Incoming {
        if self.headers.is_empty() {
            return Incoming::default();
        }
        let forms = [self.b3_multi(), self.b3_single(), self.w3c()];
        let said = || forms.into_iter().flatten();
        let named = said().find(|form| form.parent.is_some());
        named.or_else(|| said().next()).unwrap_or_default()
    }

    /// The headers of the span `context`, in the forms that these have; without any, in B3's many
    /// headers and as W3C Trace Context. A form that names another trace passes as it came: it is
    /// somebody else's.
    pub fn carrying(&self, context: Context) -> Self {
        let Context { trace_id, span_id, parent_id, is_debug } = context;
        let has = |header| self.get(header).is_some();
        let is_new = self.headers.iter().all(|(header, _)| *header == TraceHeader::TraceState);
        let mut carried = Self { headers: Vec::with_capacity(8) };
        let mut put = |header, value: String| carried.push(header, Text::from(value));
        // The first form that names a trace names this one, so these never name another.
        if is_new || TraceHeader::B3_MULTI.into_iter().any(has) {
            put(TraceHeader::B3TraceId, trace_id.to_string());
            put(TraceHeader::B3SpanId, span_id.to_string());
            if let Some(parent) = parent_id {
                put(TraceHeader::B3ParentSpanId, parent.to_string());
            }
            put(TraceHeader::B3Sampled, "1".to_owned());
            if is_debug || has(TraceHeader::B3Flags) {
                put(TraceHeader::B3Flags, u8::from(is_debug).to_string());
            }
        }
        let names_another =
            |form: Incoming| form.parent.is_some_and(|(named, _)| named.bits() != trace_id.bits());
        if let Some(b3) = self.get(TraceHeader::B3Single) {
            let decision = if is_debug { 'd' } else { '1' };
            let parent = parent_id.map(|parent| format!("-{parent}")).unwrap_or_default();
            let is_others = self.b3_single().is_some_and(names_another);
            let ours = || format!("{trace_id}-{span_id}-{decision}{parent}").into();
            carried.push(TraceHeader::B3Single, if is_others { b3.clone() } else { ours() });
        }
        let w3c = self.w3c();
        if is_new || has(TraceHeader::TraceParent) {
            let theirs =
                self.get(TraceHeader::TraceParent).filter(|_| w3c.is_some_and(names_another));
            let ours = || format!("00-{:032x}-{span_id}-01", trace_id.bits()).into();
            carried.push(TraceHeader::TraceParent, theirs.cloned().unwrap_or_else(ours));
        }
        // What vendors keep of a trace goes with its `traceparent`, and with no other.
        if let (Some(state), Some(_)) = (self.get(TraceHeader::TraceState), w3c) {
            carried.push(TraceHeader::TraceState, state.clone());
        }
        carried
    }

    fn get(&self, header: TraceHeader) -> Option<&Text> {
        self.headers.iter().find(|(found, _)| *found == header).map(|(_, value)| value)
    }

    /// `x-b3-…`: both ids, or neither and a decision.
    fn b3_multi(&self) -> Option<Incoming> {
        let decision = match self.get(TraceHeader::B3Sampled) {
            Some(word) => Decision::parse(word)?,
            None => Decision::Deferred,
        };
        // Who asks for debugging does not decide again.
        let is_debug = self.get(TraceHeader::B3Flags).is_some_and(|flags| flags == "1");
        let decision = if is_debug { Decision::Debug } else { decision };
        match (self.get(TraceHeader::B3TraceId), self.get(TraceHeader::B3SpanId)) {
            (Some(trace_id), Some(span_id)) => {
                let parent = (TraceId::parse(trace_id)?, SpanId::parse(span_id)?);
                Some(Incoming { parent: Some(parent), decision })
            }
            (None, None) if decision != Decision::Deferred => {
                Some(Incoming { parent: None, decision })
            }
            _ => None,
        }
    }

    /// `b3`: `TRACE-SPAN`, `TRACE-SPAN-DECISION`, `TRACE-SPAN-DECISION-PARENT`, or a decision.
    fn b3_single(&self) -> Option<Incoming> {
        let mut parts = self.get(TraceHeader::B3Single)?.split('-');
        let (first, span_id) = (parts.next()?, parts.next());
        let Some(span_id) = span_id else {
            return Some(Incoming { parent: None, decision: Decision::parse(first)? });
        };
        let parent = (TraceId::parse(first)?, SpanId::parse(span_id)?);
        let decision = parts.next().map_or(Some(Decision::Deferred), Decision::parse)?;
        if let Some(grandparent) = parts.next() {
            SpanId::parse(grandparent)?;
        }
        parts.next().is_none().then_some(Incoming { parent: Some(parent), decision })
    }

    /// `traceparent`: `VERSION-TRACE-SPAN-FLAGS`; a version to come may have more behind that.
    fn w3c(&self) -> Option<Incoming> {
        let mut parts = self.get(TraceHeader::TraceParent)?.split('-');
        let mut part = |digits| {
            let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            parts.next().filter(|part| part.len() == digits && part.bytes().all(is_digit))
        };
        let (version, trace_id, span_id, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let parent = (TraceId::parse(trace_id)?, SpanId::parse(span_id)?);
        let is_sampled = hex(flags)? & 1 == 1;
        let decision = if is_sampled { Decision::Sampled } else { Decision::Unsampled };
        Some(Incoming { parent: Some(parent), decision })
    }
}

/// The number that these digits are, at most 32 of them, and nothing else.
fn hex(text: &str) -> Option<u128> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::SeededEntropy;

    const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SPAN: &str = "e457b5a2e4d86bd1";
    const PARENT: &str = "05e3ac9a4f6e3b90";

    fn trace(headers: &[(&str, &str)]) -> Trace {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        Trace::from_headers(&map)
    }

    fn lines(trace: &Trace) -> Vec<String> {
        trace.iter().map(|(header, value)| format!("{}: {value}", header.name())).collect()
    }

    fn told(headers: &[(&str, &str)]) -> (String, Decision) {
        let Incoming { parent, decision } = trace(headers).incoming();
        let parent = parent.map(|(trace_id, span_id)| format!("{trace_id} {span_id}"));
        (parent.unwrap_or_default(), decision)
    }

    fn in_multi(words: &[(&str, &str)]) -> (String, Decision) {
        told(&[&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)], words].concat())
    }

    #[test]
    fn every_form_says_where_it_comes_from() {
        let whole = format!("{TRACE} {SPAN}");
        for (words, decision) in [
            (&[][..], Decision::Deferred),
            (&[("x-b3-sampled", "1")], Decision::Sampled),
            (&[("x-b3-sampled", "True")], Decision::Sampled),
            (&[("x-b3-sampled", "0")], Decision::Unsampled),
            (&[("x-b3-sampled", "false"), ("x-b3-flags", "0")], Decision::Unsampled),
            (&[("x-b3-flags", "1")], Decision::Debug),
            (&[("x-b3-sampled", "d"), ("x-b3-parentspanid", PARENT)], Decision::Debug),
        ] {
            assert_eq!(in_multi(words), (whole.clone(), decision), "{words:?}");
        }
        for (rest, decision) in [
            ("".to_owned(), Decision::Deferred),
            ("-1".to_owned(), Decision::Sampled),
            ("-0".to_owned(), Decision::Unsampled),
            (format!("-d-{PARENT}"), Decision::Debug),
        ] {
            let b3 = format!("{TRACE}-{SPAN}{rest}");
            assert_eq!(told(&[("b3", &b3)]), (whole.clone(), decision), "{b3}");
        }
        for (version, rest, decision) in [
            ("00", "-01", Decision::Sampled),
            ("00", "-00", Decision::Unsampled),
            ("00", "-03", Decision::Sampled),
            ("42", "-01-what-comes", Decision::Sampled),
        ] {
            let value = format!("{version}-{TRACE}-{SPAN}{rest}");
            assert_eq!(told(&[("traceparent", &value)]), (whole.clone(), decision), "{value}");
        }
        let narrow = (format!("{SPAN} {PARENT}"), Decision::Deferred);
        assert_eq!(told(&[("x-b3-traceid", SPAN), ("x-b3-spanid", PARENT)]), narrow);
        assert_eq!(told(&[("b3", &format!("{SPAN}-{PARENT}"))]), narrow);
    }

    #[test]
    fn who_names_a_span_comes_before_who_decides_only() {
        let w3c = format!("00-{TRACE}-{SPAN}-01");
        let whole = (format!("{TRACE} {SPAN}"), Decision::Sampled);
        assert_eq!(told(&[("b3", "0"), ("traceparent", &w3c)]), whole);
        assert_eq!(told(&[("b3", "0")]), (String::new(), Decision::Unsampled));
        assert_eq!(told(&[("x-b3-sampled", "1")]), (String::new(), Decision::Sampled));
        let other = [("x-b3-traceid", SPAN), ("x-b3-spanid", SPAN), ("traceparent", &w3c)];
        assert_eq!(told(&other), (format!("{SPAN} {SPAN}"), Decision::Deferred));
    }

    #[test]
    fn what_is_malformed_says_nothing() {
        let nothing = (String::new(), Decision::Deferred);
        let zeros = "0".repeat(32);
        for headers in [
            &[("x-b3-traceid", TRACE)][..],
            &[("x-b3-spanid", SPAN), ("x-b3-sampled", "1")],
            &[("x-b3-traceid", &zeros), ("x-b3-spanid", SPAN)],
            &[("x-b3-traceid", TRACE), ("x-b3-spanid", "xyz")],
            &[("x-b3-traceid", &TRACE[1..]), ("x-b3-spanid", SPAN)],
            &[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "perhaps")],
            &[("b3", "perhaps")],
            &[("b3", "-")],
            &[("b3", &format!("{TRACE}-{SPAN}-1-{PARENT}-1"))],
            &[("b3", &format!("{TRACE}-{SPAN}-1-1"))],
            &[("b3", &format!("+{}-{SPAN}", &TRACE[1..]))],
            &[("traceparent", &format!("ff-{TRACE}-{SPAN}-01"))],
            &[("traceparent", &format!("00-{TRACE}-{SPAN}-01-more"))],
            &[("traceparent", &format!("00-{TRACE}-{SPAN}-1"))],
            &[("traceparent", &format!("00-{}-{SPAN}-01", TRACE.to_uppercase()))],
            &[("traceparent", &format!("00-{zeros}-{SPAN}-01"))],
            &[("traceparent", &format!("00-{TRACE}-{}-01", &zeros[..16]))],
        ] {
            assert_eq!(told(headers), nothing, "{headers:?}");
        }
    }

    #[test]
    fn a_span_below_speaks_as_the_publisher_did() {
        let entropy = SeededEntropy::new(1);
        let w3c = format!("00-{TRACE}-{SPAN}-01");
        let all = trace(&[
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", SPAN),
            ("x-b3-parentspanid", PARENT),
            ("x-b3-sampled", "1"),
            ("x-b3-flags", "0"),
            ("b3", &format!("{TRACE}-{SPAN}-1")),
            ("traceparent", &w3c),
            ("tracestate", "congo=t61rcWkgMzE"),
            ("tracestate", "rojo=00f067aa0ba902b7"),
        ]);
        let context = all.incoming().child(&entropy);
        let id = context.span_id;
        assert_eq!(
            lines(&all.carrying(context)),
            [
                format!("x-b3-traceid: {TRACE}"),
                format!("x-b3-spanid: {id}"),
                format!("x-b3-parentspanid: {SPAN}"),
                "x-b3-sampled: 1".to_owned(),
                "x-b3-flags: 0".to_owned(),
                format!("b3: {TRACE}-{id}-1-{SPAN}"),
                format!("traceparent: 00-{TRACE}-{id}-01"),
                "tracestate: congo=t61rcWkgMzE,rojo=00f067aa0ba902b7".to_owned(),
            ]
        );
        let narrow = trace(&[("b3", &format!("{SPAN}-{PARENT}-d")), ("tracestate", "a=1")]);
        let context = narrow.incoming().child(&entropy);
        let id = context.span_id;
        assert_eq!(lines(&narrow.carrying(context)), [format!("b3: {SPAN}-{id}-d-{PARENT}")]);
    }

    #[test]
    fn what_names_another_trace_passes_as_it_came() {
        let w3c = format!("00-{TRACE}-{SPAN}-00");
        let b3 = format!("{TRACE}-{SPAN}-0");
        let mixed = trace(&[
            ("x-b3-traceid", SPAN),
            ("x-b3-spanid", SPAN),
            ("x-b3-flags", "1"),
            ("b3", &b3),
            ("traceparent", &w3c),
            ("tracestate", "a=1"),
        ]);
        let publish = mixed.incoming().child(&SeededEntropy::new(1));
        let carried = mixed.carrying(publish);
        let attempt = carried.incoming().child(&SeededEntropy::new(2));
        let id = attempt.span_id;
        assert_eq!(
            lines(&carried.carrying(attempt)),
            [
                format!("x-b3-traceid: {SPAN}"),
                format!("x-b3-spanid: {id}"),
                format!("x-b3-parentspanid: {}", publish.span_id),
                "x-b3-sampled: 1".to_owned(),
                "x-b3-flags: 1".to_owned(),
                format!("b3: {b3}"),
                format!("traceparent: {w3c}"),
                "tracestate: a=1".to_owned(),
            ]
        );
        // What is malformed names none, and its state is nobody's.
        let broken = [("b3", &*format!("{SPAN}-{SPAN}-1")), ("traceparent", "00-x")];
        let broken = trace(&[&broken[..], &[("tracestate", "a=1")]].concat());
        let context = broken.incoming().child(&SeededEntropy::new(1));
        let id = context.span_id;
        assert_eq!(
            lines(&broken.carrying(context)),
            [
                format!("b3: {SPAN}-{id}-1-{SPAN}"),
                format!("traceparent: 00-0000000000000000{SPAN}-{id}-01"),
            ]
        );
    }

    #[test]
    fn a_new_trace_speaks_b3_and_w3c() {
        let context = Incoming::default().child(&SeededEntropy::new(1));
        let Context { trace_id, span_id, .. } = context;
        let carried = Trace::default().carrying(context);
        assert_eq!(
            lines(&carried),
            [
                format!("x-b3-traceid: {trace_id}"),
                format!("x-b3-spanid: {span_id}"),
                "x-b3-sampled: 1".to_owned(),
                format!("traceparent: 00-{trace_id}-{span_id}-01"),
            ]
        );
        assert_eq!(carried.incoming(), context.into());
    }

    fn a_header() -> impl Strategy<Value = (TraceHeader, String)> {
        let header = (0..TraceHeader::ALL.len()).prop_map(|at| TraceHeader::ALL[at]);
        let id = || prop_oneof!["[0-9a-f]{16}", "[0-9a-f]{32}", "[0-9a-fx]{0,33}"];
        let value = prop_oneof![
            id(),
            "[01d]|true|false",
            (id(), id(), "(-[01dx](-[0-9a-f]{16})?)?").prop_map(|(a, b, c)| format!("{a}-{b}{c}")),
            ("00|ff|[0-9a-f]{2}", id(), id(), "[0-9a-f]{2}(-x)?")
                .prop_map(|(a, b, c, d)| format!("{a}-{b}-{c}-{d}")),
            "[ -~]{1,60}",
        ];
        (header, value)
    }

    proptest! {
        #[test]
        fn whatever_is_sent_the_span_below_is_understood(
            headers in prop::collection::vec(a_header(), 0..8),
            seed in any::<u64>(),
        ) {
            let entropy = SeededEntropy::new(seed);
            let headers: Vec<_> =
                headers.iter().map(|(header, value)| (header.name(), value)).collect();
            let headers: Vec<_> =
                headers.iter().map(|(name, value)| (name.as_str(), value.trim())).collect();
            let trace = trace(&headers);
            let incoming = trace.incoming();
            let context = incoming.child(&entropy);
            prop_assert_eq!(context.parent_id, incoming.parent.map(|(_, span_id)| span_id));
            if let Some((trace_id, _)) = incoming.parent {
                prop_assert_eq!(context.trace_id, trace_id);
            }
            let carried = trace.carrying(context);
            let forms = [carried.b3_multi(), carried.b3_single(), carried.w3c()];
            let came = [trace.b3_multi(), trace.b3_single(), trace.w3c()];
            prop_assert_eq!(Some(carried.incoming()), forms.into_iter().flatten().next());
            for (form, came) in forms.into_iter().zip(came) {
                let Some(form) = form else { continue };
                let (trace_id, span_id) = form.parent.unwrap();
                if trace_id.bits() != context.trace_id.bits() {
                    prop_assert_eq!(Some(form), came);
                    continue;
                }
                prop_assert!(form.decision.is_sampled());
                prop_assert_eq!(span_id, context.span_id);
            }
        }
    }
}
