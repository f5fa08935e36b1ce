//! The events of a run: what they have in common, and how each is recognised when it arrives.
//!
//! A stamp stands at a fixed place in the payload and is of fixed width, so that making an event is
//! copying 64 characters, and checking one is comparing bytes: the payload must arrive as it was
//! published, all of it.

/// A payload with a stamp and nothing else. `--payload` cannot be less.
pub(super) const PAYLOAD_BYTES_MIN: usize = PAYLOAD_HEAD.len() + STAMP_CHARS + PAYLOAD_TAIL.len();

/// The most event types of a run: their numbers have five digits.
pub(super) const EVENT_TYPES_MAX: u32 = 100_000;

/// The source of every event.
pub(super) const SOURCE_ID: &str = "eventbus-bench";

/// The version of every event type.
pub(super) const EVENT_TYPE_VERSION: &str = "v1";

/// How a payload begins; its stamp follows.
pub(super) const PAYLOAD_HEAD: &str = r#"{"stamp":""#;
const PAYLOAD_TAIL: &str = r#"","padding":""}"#;
/// Run, sequence and time, in 16 hexadecimal digits each, with two hyphens.
pub(super) const STAMP_CHARS: usize = 3 * HEX_CHARS + 2;
pub(super) const HEX_CHARS: usize = 16;

/// What all events of one run have in common.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    run: u64,
    event_types: u64,
    /// How the names of its event types begin.
    type_head: String,
    payload: String,
}

/// What is said about one event in its own payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The event's number in its run, from zero.
    pub(super) sequence: u64,
    /// When it was to be published, in nanoseconds of the run's clock.
    pub(super) due_ns: u64,
}

// === impl Shape ===

impl Shape {
    /// The events of run `run`: `event_types` types in turn, `payload_bytes` (at least
    /// [`PAYLOAD_BYTES_MIN`]) of payload each.
    pub(super) fn new(run: u64, event_types: u32, payload_bytes: usize) -> Self {
        let padding = "x".repeat(payload_bytes.saturating_sub(PAYLOAD_BYTES_MIN));
        let stamp = stamp_text(run, Stamp { sequence: 0, due_ns: 0 });
        let payload = format!(r#"{PAYLOAD_HEAD}{stamp}","padding":"{padding}"}}"#);
        let type_head = format!("bench.r{run:016x}.t");
        Self { run, event_types: event_types.max(1).into(), type_head, payload }
    }

    /// The same with event types that have the same names in every run: for Subscriptions that were
    /// made by hand.
    pub(super) fn with_fixed_types(self) -> Self {
        Self { type_head: "eventbus.bench.t".to_owned(), ..self }
    }

    /// The event type with a number. Of its own for every run, so that runs do not hear each other.
    pub(super) fn event_type(&self, number: u64) -> String {
        format!("{}{number:05}", self.type_head)
    }

    /// The run whose events these are.
    pub(super) fn run(&self) -> u64 {
        self.run
    }

    /// How many event types are published.
    pub(super) fn event_types(&self) -> u64 {
        self.event_types
    }

    /// The payload of an event, unstamped.
    pub(super) fn payload(&self) -> &str {
        &self.payload
    }

    /// The number of the event type that the event with this sequence has.
    pub(super) fn type_of(&self, sequence: u64) -> u64 {
        sequence % self.event_types
    }

    /// How many of the events before `sequence` are of the type with this number.
    pub(super) fn count_before(&self, sequence: u64, number: u64) -> u64 {
        let rest = u64::from(sequence % self.event_types > number);
        sequence / self.event_types + rest
    }

    /// The place of an event among those of its type.
    pub(super) fn place_of(&self, sequence: u64) -> u64 {
        sequence / self.event_types
    }

    /// The id of an event, in the form the contract asks for.
    pub(super) fn event_id(&self, sequence: u64) -> String {
        let (run, sequence) = (format!("{:016x}", self.run), format!("{sequence:016x}"));
        format!(
            "{}-{}-{}-{}-{}",
            &run[..8],
            &run[8..12],
            &run[12..],
            &sequence[..4],
            &sequence[4..]
        )
    }

    /// The stamp of a delivered body: the payload alone, or a whole event that ends with it (a
    /// CloudEvent in structured mode, or what a relay posts on). None when it is not, byte for
    /// byte, a payload of this run.
    pub(super) fn read(&self, body: &[u8]) -> Option<Stamp> {
        let from = body.len().checked_sub(self.payload.len())?;
        let payload = match from {
            0 => body,
            _ => body.strip_suffix(b"}")?.get(from - 1..)?,
        };
        let (stamp_from, stamp_to) = (PAYLOAD_HEAD.len(), PAYLOAD_HEAD.len() + STAMP_CHARS);
        let ours = self.payload.as_bytes();
        let is_ours =
            payload[..stamp_from] == ours[..stamp_from] && payload[stamp_to..] == ours[stamp_to..];
        let mut parts = std::str::from_utf8(&payload[stamp_from..stamp_to]).ok()?.split('-');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let (run, sequence, due_ns) = (number()?, number()?, number()?);
        (is_ours && run == self.run).then_some(Stamp { sequence, due_ns })
    }
}

fn stamp_text(run: u64, stamp: Stamp) -> String {
    format!("{run:016x}-{:016x}-{:016x}", stamp.sequence, stamp.due_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u64 = 0x0123_4567_89ab_cdef;

    #[test]
    fn a_payload_is_recognised_alone_and_at_the_end_of_its_event() {
        let shape = Shape::new(RUN, 1, 300);
        let stamp = Stamp { sequence: 5, due_ns: u64::MAX };
        let payload = shape
            .payload
            .replace(&stamp_text(RUN, Stamp { sequence: 0, due_ns: 0 }), &stamp_text(RUN, stamp));
        let event = format!(r#"{{"data":{payload}}}"#);
        assert_eq!(payload.len(), 300);
        assert_eq!(shape.read(payload.as_bytes()), Some(stamp));
        assert_eq!(shape.read(event.as_bytes()), Some(stamp));
    }

    #[test]
    fn any_other_byte_is_noticed() {
        let shape = Shape::new(RUN, 1, 100);
        let payload = shape.payload.clone().into_bytes();
        assert!(shape.read(&payload).is_some());
        assert_eq!(Shape::new(RUN + 1, 1, 100).read(&payload), None, "another run");
        for at in 0..payload.len() {
            let mut broken = payload.clone();
            broken[at] = b'!';
            assert_eq!(shape.read(&broken), None, "byte {at}");
            assert_eq!(shape.read(&payload[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn the_smallest_payload_is_as_small_as_it_says() {
        assert_eq!(Shape::new(RUN, 1, 0).payload.len(), PAYLOAD_BYTES_MIN);
        assert_eq!(Shape::new(RUN, 1, PAYLOAD_BYTES_MIN).payload.len(), PAYLOAD_BYTES_MIN);
    }

    #[test]
    fn events_are_counted_by_type() {
        let shape = Shape::new(RUN, 3, 0);
        for sequence in 0..20 {
            for number in 0..3 {
                let counted = (0..sequence).filter(|one| shape.type_of(*one) == number).count();
                assert_eq!(shape.count_before(sequence, number), counted as u64);
            }
        }
        assert_eq!((shape.place_of(0), shape.place_of(2), shape.place_of(3)), (0, 0, 1));
    }
}
