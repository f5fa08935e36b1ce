//! A publishing request: prepared once as bytes, stamped for each event.

use eventbus_core::manifest::DeliveryFormat;

use super::args::Target;
use super::event::{
    EVENT_TYPE_VERSION, HEX_CHARS, PAYLOAD_HEAD, SOURCE_ID, STAMP_CHARS, Shape, Stamp,
};

const ID_CHARS: usize = 36;
const TYPE_DIGITS: usize = 5;

/// When every event is said to have happened.
const TIME: &str = "2018-09-01T12:00:00Z";

/// How an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The contract's JSON.
    Kyma,
    /// A CloudEvent in binary mode.
    Binary,
    /// A CloudEvent in structured mode.
    Structured,
    /// What a Svix server takes.
    Svix,
}

/// What stands around the events of a request.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    /// The header `Host`.
    pub(super) host: String,
    /// Path and query.
    pub(super) path: String,
    /// More headers, each with its end of line.
    pub(super) headers: String,
    pub(super) form: Form,
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

/// Where in an event the parts are that are its own.
#[derive(Clone, Copy, Debug, Default)]
struct Places {
    type_at: usize,
    id_at: usize,
    stamp_at: usize,
}

/// A part of an event as it is written.
enum Part {
    Text(&'static str),
    Source,
    Type,
    Version,
    Id,
    Time,
    Payload,
}

// === impl Form ===

impl Form {
    /// How `target` is told of an event, if it is told in `format`.
    pub(super) fn of(target: Target, format: DeliveryFormat) -> Self {
        match (target, format) {
            (Target::Svix, _) => Self::Svix,
            (_, DeliveryFormat::Kyma) => Self::Kyma,
            (_, DeliveryFormat::CloudEventsBinary) => Self::Binary,
            (_, DeliveryFormat::CloudEventsStructured) => Self::Structured,
        }
    }

    fn media_type(self, events: u16) -> &'static str {
        match self {
            Self::Structured if events > 1 => "application/cloudevents-batch+json",
            Self::Structured => "application/cloudevents+json",
            Self::Kyma | Self::Binary | Self::Svix => "application/json",
        }
    }

    fn parts(self) -> &'static [Part] {
        use Part::{Id, Payload, Source, Text, Time, Type, Version};
        match self {
            Self::Kyma => &[
                Text(r#"{"source-id":""#),
                Source,
                Text(r#"","event-type":""#),
                Type,
                Text(r#"","event-type-version":""#),
                Version,
                Text(r#"","event-id":""#),
                Id,
                Text(r#"","event-time":""#),
                Time,
                Text(r#"","data":"#),
                Payload,
                Text("}"),
            ],
            // Begins within the head, and ends it.
            Self::Binary => &[
                Text("ce-specversion: 1.0\r\nce-source: "),
                Source,
                Text("\r\nce-type: "),
                Type,
                Text("\r\nce-eventtypeversion: "),
                Version,
                Text("\r\nce-id: "),
                Id,
                Text("\r\nce-time: "),
                Time,
                Text("\r\n\r\n"),
                Payload,
            ],
            Self::Structured => &[
                Text(r#"{"specversion":"1.0","source":""#),
                Source,
                Text(r#"","type":""#),
                Type,
                Text(r#"","eventtypeversion":""#),
                Version,
                Text(r#"","id":""#),
                Id,
                Text(r#"","time":""#),
                Time,
                Text(r#"","datacontenttype":"application/json","data":"#),
                Payload,
                Text("}"),
            ],
            Self::Svix => &[
                Text(r#"{"eventType":""#),
                Type,
                Text(r#"","eventId":""#),
                Id,
                Text(r#"","payload":"#),
                Payload,
                Text("}"),
            ],
        }
    }

    /// An event of `shape` as it is written, unstamped.
    fn event(self, shape: &Shape) -> (String, Places) {
        let (mut event, mut places) = (String::new(), Places::default());
        for part in self.parts() {
            match part {
                Part::Text(text) => event += text,
                Part::Source => event += SOURCE_ID,
                Part::Version => event += EVENT_TYPE_VERSION,
                Part::Time => event += TIME,
                Part::Type => {
                    event += &shape.event_type(0);
                    places.type_at = event.len() - TYPE_DIGITS;
                }
                Part::Id => {
                    places.id_at = event.len();
                    event += &shape.event_id(0);
                }
                Part::Payload => {
                    places.stamp_at = event.len() + PAYLOAD_HEAD.len();
                    event += shape.payload();
                }
            }
        }
        (event, places)
    }
}

// === impl Request ===

impl Request {
    /// A request that publishes `events` events of `shape`: one alone, more as a JSON array (there
    /// are no more in binary mode). Stamp it before it is sent.
    pub(super) fn new(shape: &Shape, envelope: &Envelope, events: u16) -> Self {
        let Envelope { host, path, headers, form } = envelope;
        let (event, places) = form.event(shape);
        let mut all = vec![event.as_str(); events.into()].join(",");
        if events > 1 {
            all = format!("[{all}]");
        }
        let (length, end) = match form {
            Form::Binary => (shape.payload().len(), ""),
            Form::Kyma | Form::Structured | Form::Svix => (all.len(), "\r\n"),
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Type: {}\r\n\
             Content-Length: {length}\r\n{end}",
            form.media_type(events),
        );
        Self {
            bytes: [head.as_bytes(), all.as_bytes()].concat(),
            event_types: shape.event_types(),
            events: events.into(),
            first_at: head.len() + usize::from(events > 1),
            stride: event.len() + 1,
            places,
        }
    }

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

    fn envelope(path: &str, form: Form) -> Envelope {
        Envelope { host: "localhost:8080".into(), path: path.into(), headers: String::new(), form }
    }

    const RUN: u64 = 0x0123_4567_89ab_cdef;

    fn body(request: &[u8]) -> (&str, &str) {
        std::str::from_utf8(request).unwrap().split_once("\r\n\r\n").unwrap()
    }

    #[test]
    fn a_stamped_request_is_a_valid_event() {
        let shape = Shape::new(RUN, 7, 1024);
        let mut request = Request::new(&shape, &envelope("/v1/events", Form::Kyma), 1);
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
        let mut request = Request::new(&shape, &envelope("/v1/events/batch", Form::Kyma), 3);
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
    fn a_cloud_event_in_binary_mode_is_its_headers_and_its_payload() {
        let shape = Shape::new(RUN, 2, 100);
        let headers = "Authorization: Bearer t\r\n".to_owned();
        let envelope = Envelope { headers, ..envelope("/publish", Form::Binary) };
        let mut request = Request::new(&shape, &envelope, 1);
        let stamp = Stamp { sequence: 3, due_ns: 9 };
        let bytes = request.stamp(&[stamp]).to_vec();
        let (head, body) = body(&bytes);
        let has = |line: &str| head.split("\r\n").any(|one| one == line);
        assert!(has("Authorization: Bearer t") && has("Content-Length: 100"), "{head}");
        assert!(has(&format!("ce-id: {}", shape.event_id(3))), "{head}");
        assert!(has(&format!("ce-type: {}", shape.event_type(1))), "{head}");
        assert_eq!(shape.read(body.as_bytes()), Some(stamp));
    }

    #[test]
    fn every_document_is_json_with_the_payload_at_its_end() {
        let shape = Shape::new(RUN, 1, 100).with_fixed_types();
        for (form, id) in
            [(Form::Kyma, "event-id"), (Form::Structured, "id"), (Form::Svix, "eventId")]
        {
            let mut request = Request::new(&shape, &envelope("/", form), 1);
            let stamp = Stamp { sequence: 3, due_ns: 9 };
            let bytes = request.stamp(&[stamp]).to_vec();
            let body = body(&bytes).1;
            let event: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(event[id], shape.event_id(3));
            assert!(body.contains("\"eventbus.bench.t00000\""), "{body}");
            assert_eq!(shape.read(body.as_bytes()), Some(stamp), "{form:?}");
        }
    }
}
