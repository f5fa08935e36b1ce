//! Spans as OTLP: an `ExportTraceServiceRequest` in protobuf.
//!
//! Five of its structures, all written once: a generator and its runtime would be more than this.

use eventbus_core::span::{Span, Tag, Work};

/// Protobuf's wire types.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;

/// `STATUS_CODE_ERROR`
const ERROR: u64 = 2;

/// A structure that is being written.
#[derive(Default)]
struct Structure(Vec<u8>);

impl Structure {
    fn number(&mut self, field: u64, value: u64) -> &mut Self {
        self.varint(field << 3 | VARINT);
        self.varint(value);
        self
    }

    fn fixed(&mut self, field: u64, value: u64) -> &mut Self {
        self.varint(field << 3 | FIXED_64);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u64, value: impl AsRef<[u8]>) -> &mut Self {
        let value = value.as_ref();
        self.varint(field << 3 | LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn inner(&mut self, field: u64, value: &Self) -> &mut Self {
        self.bytes(field, &value.0)
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The body of a request.
pub(crate) fn write(spans: &[Span], service: &str) -> Vec<u8> {
    let mut resource = Structure::default();
    resource.inner(1, &attribute("service.name", &service.into()));
    resource.inner(1, &attribute("service.version", &env!("CARGO_PKG_VERSION").into()));
    let mut scope = Structure::default();
    scope.bytes(1, "eventbus");
    let mut of_scope = Structure::default();
    of_scope.inner(1, &scope);
    for each in spans {
        of_scope.inner(2, &span(each));
    }
    let mut of_resource = Structure::default();
    of_resource.inner(1, &resource).inner(2, &of_scope);
    let mut request = Structure::default();
    request.inner(1, &of_resource);
    request.0
}

fn span(span: &Span) -> Structure {
    let context = span.context;
    let began_ns = span.began_us.saturating_mul(1_000);
    let took_ns = u64::try_from(span.took.as_nanos()).unwrap_or(u64::MAX);
    let mut written = Structure::default();
    written.bytes(1, context.trace_id.bits().to_be_bytes());
    written.bytes(2, context.span_id.bits().to_be_bytes());
    if let Some(parent) = context.parent_id {
        written.bytes(4, parent.bits().to_be_bytes());
    }
    written.bytes(5, span.work.name()).number(6, kind(span.work));
    written.fixed(7, began_ns).fixed(8, began_ns.saturating_add(took_ns));
    for (name, tag) in &span.tags {
        written.inner(9, &attribute(name, tag));
    }
    if let Some(error) = span.error {
        written.inner(9, &attribute("error", &error.into()));
        let mut status = Structure::default();
        status.bytes(2, error).number(3, ERROR);
        written.inner(15, &status);
    }
    written
}

fn attribute(name: &str, tag: &Tag) -> Structure {
    let mut value = Structure::default();
    match tag {
        Tag::Text(text) => value.bytes(1, text),
        Tag::Number(number) => value.number(3, *number),
    };
    let mut attribute = Structure::default();
    attribute.bytes(1, name).inner(2, &value);
    attribute
}

/// `SpanKind`
fn kind(work: Work) -> u64 {
    match work {
        Work::Append => 1,
        Work::Publish => 4,
        Work::Attempt => 5,
    }
}
