//! The events of a run: prepared once as the bytes of a request, stamped for each event, and
//! recognised when they arrive.
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

const PAYLOAD_HEAD: &str = r#"{"stamp":""#;
const PAYLOAD_TAIL: &str = r#"","padding":""}"#;
/// Run, sequence and time, in 16 hexadecimal digits each, with two hyphens.
const STAMP_CHARS: usize = 3 * HEX_CHARS + 2;
const HEX_CHARS: usize = 16;
const ID_CHARS: usize = 36;
const TYPE_DIGITS: usize = 5;

/// What all events of one run have in common.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    run: u64,
    event_types: u64,
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

/// A whole HTTP request whose events can be changed in place.
#[derive(Clone, Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
    event_types: u64,
    events: usize,
    /// Where the first event begins.
    first_at: usize,
    /// From the beginning of one event to that of the next.
    stride: usize,
    /// Within an event.
    places: Places,
}

/// Where in an event's JSON the parts are that are its own.
#[derive(Clone, Copy, Debug)]
struct Places {
    type_at: usize,
    id_at: usize,
    stamp_at: usize,
}

// === impl Shape ===

impl Shape {
    /// The events of run `run`: `event_types` types in turn, `payload_bytes` (at least
    /// [`PAYLOAD_BYTES_MIN`]) of payload each.
    pub(super) fn new(run: u64, event_types: u32, payload_bytes: usize) -> Self {
        let padding = "x".repeat(payload_bytes.saturating_sub(PAYLOAD_BYTES_MIN));
        let stamp = stamp_text(run, Stamp { sequence: 0, due_ns: 0 });
        let payload = format!(r#"{PAYLOAD_HEAD}{stamp}","padding":"{padding}"}}"#);
        Self { run, event_types: event_types.max(1).into(), payload }
    }

    /// The event type with a number. Of its own for every run, so that runs do not hear each other.
    pub(super) fn event_type(&self, number: u64) -> String {
        format!("bench.r{:016x}.t{number:05}", self.run)
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

    /// A request that publishes `events` events to `path` on `host`: one alone, more as a JSON
    /// array. Stamp it before it is sent.
    pub(super) fn request(&self, host: &str, path: &str, events: u16) -> Request {
        let (event, places) = self.event();
        let all = vec![event.as_str(); events.into()].join(",");
        let body = if events > 1 { format!("[{all}]") } else { all };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        Request {
            bytes: [head.as_bytes(), body.as_bytes()].concat(),
            event_types: self.event_types,
            events: events.into(),
            first_at: head.len() + usize::from(events > 1),
            stride: event.len() + 1,
            places,
        }
    }

    /// An event as JSON.
    fn event(&self) -> (String, Places) {
        let event_type = self.event_type(0);
        let mut event = format!(r#"{{"source-id":"{SOURCE_ID}","event-type":"{event_type}"#);
        let type_at = event.len() - TYPE_DIGITS;
        event += &format!(r#"","event-type-version":"{EVENT_TYPE_VERSION}","event-id":""#);
        let id_at = event.len();
        event += &self.event_id(0);
        event += r#"","event-time":"2018-09-01T12:00:00Z","data":"#;
        let stamp_at = event.len() + PAYLOAD_HEAD.len();
        event += &self.payload;
        event.push('}');
        (event, Places { type_at, id_at, stamp_at })
    }

    /// The stamp of a delivered body: the payload alone, or a whole event that ends with it (what
    /// a relay posts on). None when it is not, byte for byte, a payload of this run.
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

// === impl Request ===

impl Request {
    /// How many events it publishes.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    /// Makes it the request for other events of the same run: for each of its own a stamp.
    pub(super) fn stamp(&mut self, stamps: &[Stamp]) -> &[u8] {
        let Places { type_at, id_at, stamp_at } = self.places;
        for (event, stamp) in self.bytes[self.first_at..].chunks_mut(self.stride).zip(stamps) {
            let number = stamp.sequence % self.event_types;
            write_decimal(&mut event[type_at..][..TYPE_DIGITS], number);
            let id = &mut event[id_at..][..ID_CHARS];
            write_hex(&mut id[19..23], stamp.sequence >> 48);
            write_hex(&mut id[24..], stamp.sequence);
            let text = &mut event[stamp_at..][..STAMP_CHARS];
            write_hex(&mut text[HEX_CHARS + 1..][..HEX_CHARS], stamp.sequence);
            write_hex(&mut text[2 * HEX_CHARS + 2..], stamp.due_ns);
        }
        &self.bytes
    }

    /// The ids of the events it publishes.
    pub(super) fn event_ids(&self) -> impl Iterator<Item = &[u8]> {
        let events = self.bytes[self.first_at..].chunks(self.stride);
        events.map(|event| &event[self.places.id_at..][..ID_CHARS])
    }
}

/// Writes the low digits of a number, as many as there is room for.
fn write_hex(room: &mut [u8], mut number: u64) {
    for place in room.iter_mut().rev() {
        *place = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

fn write_decimal(room: &mut [u8], mut number: u64) {
    for place in room.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: u64 = 0x0123_4567_89ab_cdef;

    fn body(request: &[u8]) -> (&str, &str) {
        std::str::from_utf8(request).unwrap().split_once("\r\n\r\n").unwrap()
    }

    #[test]
    fn a_stamped_request_is_a_valid_event() {
        let shape = Shape::new(RUN, 7, 1024);
        let mut request = shape.request("localhost:8080", "/v1/events", 1);
        let stamp = Stamp { sequence: 0xffff_0000_0000_002a, due_ns: 12 };
        let bytes = request.stamp(&[stamp]).to_vec();
        let (head, body) = body(&bytes);
        assert!(head.starts_with("POST /v1/events HTTP/1.1\r\nHost: localhost:8080\r\n"), "{head}");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
        let event: serde_json::Value = serde_json::from_str(body).unwrap();
        let id = "01234567-89ab-cdef-ffff-00000000002a";
        assert_eq!(event["event-id"], id);
        assert_eq!(request.event_ids().collect::<Vec<_>>(), [id.as_bytes()]);
        assert_eq!(shape.event_id(stamp.sequence), id);
        let number = stamp.sequence % 7;
        assert_eq!(event["event-type"], shape.event_type(number));
        assert_eq!(event["data"].to_string().len(), 1024);
    }

    #[test]
    fn a_batch_is_an_array_of_stamped_events() {
        let shape = Shape::new(RUN, 2, 100);
        let mut request = shape.request("h", "/v1/events/batch", 3);
        let stamps = [4, 5, 6].map(|sequence| Stamp { sequence, due_ns: sequence * 10 });
        let bytes = request.stamp(&stamps).to_vec();
        let (head, body) = body(&bytes);
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
        let events: Vec<serde_json::Value> = serde_json::from_str(body).unwrap();
        assert_eq!((events.len(), request.events()), (3, 3));
        for ((event, stamp), id) in events.iter().zip(stamps).zip(request.event_ids()) {
            assert_eq!(event["event-id"], shape.event_id(stamp.sequence));
            assert_eq!(id, shape.event_id(stamp.sequence).as_bytes());
            assert_eq!(event["event-type"], shape.event_type(stamp.sequence % 2));
        }
        let payload = &body[body.find("\"data\":").unwrap() + 7..][..100];
        assert_eq!(shape.read(payload.as_bytes()), Some(stamps[0]));
    }

    #[test]
    fn a_payload_is_recognised_alone_and_at_the_end_of_its_event() {
        let shape = Shape::new(RUN, 1, 300);
        let mut request = shape.request("h", "/", 1);
        let stamp = Stamp { sequence: 5, due_ns: u64::MAX };
        let bytes = request.stamp(&[stamp]).to_vec();
        let event = body(&bytes).1;
        let payload = &event[event.find("\"data\":").unwrap() + 7..event.len() - 1];
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
