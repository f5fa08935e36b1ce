//! Spans as OTLP: an `ExportTraceServiceRequest` in protobuf.
//!
//! Five of its structures, all written once, and one number of the answer: a generator and its
//! runtime would be more than this.

use eventbus_core::span::{Span, Tag, Work};

/// Protobuf's wire types.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

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

/// The spans that an `ExportTraceServiceResponse` tells to be rejected
/// (`partial_success.rejected_spans`); none where it is not to be understood.
pub(crate) fn rejected(answer: &[u8]) -> u64 {
    let partial_success = find(answer, 1, LENGTH);
    match partial_success.and_then(|(_, bytes)| find(bytes, 1, VARINT)) {
        Some((rejected, _)) => rejected,
        None => 0,
    }
}

/// The first value of a field of this number and wire type: its number or length, and its bytes.
fn find(mut structure: &[u8], field: u64, wire_type: u64) -> Option<(u64, &[u8])> {
    while !structure.is_empty() {
        let key = read_varint(&mut structure)?;
        let (number, length) = match key & 7 {
            VARINT => (read_varint(&mut structure)?, 0),
            FIXED_64 => (8, 8),
            FIXED_32 => (4, 4),
            LENGTH => {
                let length = read_varint(&mut structure)?;
                (length, usize::try_from(length).ok()?)
            }
            _ => return None,
        };
        let bytes = structure.split_off(..length)?;
        if key == (field << 3 | wire_type) {
            return Some((number, bytes));
        }
    }
    None
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceResponse,
    };
    use prost::Message as _;

    use super::*;

    #[test]
    fn what_was_rejected_is_read_and_nothing_else() {
        for rejected_spans in [0, 1, 300, 1 << 40] {
            let error_message = "too many".repeat(40);
            let partial_success = Some(ExportTracePartialSuccess { rejected_spans, error_message });
            let answer = ExportTraceServiceResponse { partial_success }.encode_to_vec();
            assert_eq!(rejected(&answer), rejected_spans as u64);
            // What a version to come has before it is passed over.
            let unknown = b"\x10\xff\x01\x19abcdefgh\x22\x02\x08\x09\x2dabcd";
            assert_eq!(rejected(&[unknown, &*answer].concat()), rejected_spans as u64);
            for end in 0..answer.len() {
                assert_eq!(rejected(&answer[..end]), 0);
            }
        }
        for garbage in [&[0xff; 20][..], b"{}", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
            assert_eq!(rejected(garbage), 0);
        }
    }
}
