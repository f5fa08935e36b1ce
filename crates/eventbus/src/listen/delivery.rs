//! One delivery as it is printed.

use std::collections::BTreeMap;
use std::fmt;

use http::StatusCode;
use http::request::Parts;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::output::printable;

/// How much of a body the line for people shows, in characters. `--json` shows all of it.
const SHOWN_CHARS: usize = 1000;

/// One delivery and what was answered.
pub(super) struct Delivery<'a> {
    /// Counted from one.
    pub(super) number: u64,
    /// When it was answered, in milliseconds since 1970.
    pub(super) now_ms: u64,
    /// The request without its body.
    pub(super) head: &'a Parts,
    /// The payload.
    pub(super) body: &'a [u8],
    /// What was answered.
    pub(super) status: StatusCode,
}

#[derive(Serialize)]
struct Record<'a> {
    number: u64,
    time: String,
    path: &'a str,
    answered: u16,
    headers: BTreeMap<&'a str, String>,
    /// The payload, where it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    /// The payload as text, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    body_text: Option<String>,
}

impl Delivery<'_> {
    /// The delivery as one line of JSON. A header sent twice is one member, joined by a comma.
    pub(super) fn json(&self) -> String {
        let mut headers: BTreeMap<&str, String> = BTreeMap::new();
        for (name, value) in &self.head.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            headers
                .entry(name.as_str())
                .and_modify(|all| *all = format!("{all}, {value}"))
                .or_insert_with(|| value.clone().into_owned());
        }
        let body: Option<&RawValue> = serde_json::from_slice(self.body).ok();
        // A payload may be JSON over several lines; a result is one line.
        let one_line = body.filter(|body| !body.get().contains(['\n', '\r']));
        let record = Record {
            number: self.number,
            time: self.time().to_string(),
            path: self.head.uri.path(),
            answered: self.status.as_u16(),
            headers,
            body: one_line,
            body_text: one_line.is_none().then(|| String::from_utf8_lossy(self.body).into_owned()),
        };
        serde_json::to_string(&record).unwrap_or_else(|error| error.to_string())
    }

    fn header(&self, name: &str) -> Option<String> {
        let value = self.head.headers.get(name)?;
        Some(printable(&String::from_utf8_lossy(value.as_bytes())))
    }

    /// What the contract's form says under the one name, and CloudEvents' binary mode under the
    /// other. (In structured mode the body says it.)
    fn said(&self, kyma: &str, cloud_event: &str) -> Option<String> {
        self.header(kyma).or_else(|| self.header(cloud_event))
    }

    /// The source in whichever form the delivery has it.
    fn source(&self) -> Option<String> {
        let parts = ["kyma-source-namespace", "kyma-source-type", "kyma-source-environment"];
        let parts: Option<Vec<String>> = parts.iter().map(|name| self.header(name)).collect();
        self.said("kyma-source-id", "ce-source").or_else(|| Some(parts?.join("/")))
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_ms as i64).unwrap_or_default()
    }
}

impl fmt::Display for Delivery<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, body, status, .. } = self;
        write!(formatter, "{:.3} #{number} answered {}", self.time(), status.as_str())?;
        let parts = [
            ("", self.said("kyma-event-type", "ce-type")),
            ("", self.said("kyma-event-type-version", "ce-eventtypeversion")),
            ("from ", self.source()),
            ("id ", self.said("kyma-event-id", "ce-id")),
            ("for ", self.header("kyma-subscription")),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                write!(formatter, " {name}{value}")?;
            }
        }
        let text = String::from_utf8_lossy(body);
        let shown: String = text.chars().take(SHOWN_CHARS).collect();
        let more = if shown.len() < text.len() { " …" } else { "" };
        write!(formatter, " {} bytes {}{more}", body.len(), printable(&shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(body: &str) -> (String, serde_json::Value) {
        let (head, ()) = http::Request::post("/orders")
            .header("kyma-event-type", "order.created")
            .header("kyma-event-type-version", "v1")
            .header("kyma-source-namespace", "com.github")
            .header("kyma-source-type", "commerce")
            .header("kyma-source-environment", "stage")
            .header("kyma-event-id", "31109198-4d69-4ae0-972d-76117f3748c8")
            .header("x-twice", "a")
            .header("x-twice", "b")
            .body(())
            .unwrap()
            .into_parts();
        let delivery = Delivery {
            number: 3,
            now_ms: 1_500,
            head: &head,
            body: body.as_bytes(),
            status: StatusCode::OK,
        };
        (delivery.to_string(), serde_json::from_str(&delivery.json()).unwrap())
    }

    #[test]
    fn a_line_for_people_names_the_event() {
        assert_eq!(
            printed("{\"order\":1}").0,
            "1970-01-01T00:00:01.500Z #3 answered 200 order.created v1 \
             from com.github/commerce/stage id 31109198-4d69-4ae0-972d-76117f3748c8 \
             11 bytes {\"order\":1}"
        );
    }

    #[test]
    fn a_cloud_event_is_named_too() {
        let (head, ()) = http::Request::post("/")
            .header("ce-type", "com.example.order")
            .header("ce-source", "/shop")
            .header("ce-id", "7")
            .body(())
            .unwrap()
            .into_parts();
        let status = StatusCode::OK;
        let line = Delivery { number: 1, now_ms: 0, head: &head, body: b"x", status }.to_string();
        assert!(line.ends_with("200 com.example.order from /shop id 7 1 bytes x"), "{line}");
    }

    #[test]
    fn json_has_all_headers_and_the_payload() {
        let (_, json) = printed("{\"order\":1}");
        assert_eq!(json["headers"]["x-twice"], "a, b");
        assert_eq!(json["headers"]["kyma-event-type"], "order.created");
        assert_eq!(json["body"]["order"], 1);
        assert_eq!(json["time"], "1970-01-01T00:00:01.5Z");
    }

    #[test]
    fn a_payload_that_is_not_json_on_one_line_is_text() {
        for payload in ["plain", "", "{\n\"order\": 1}"] {
            let (_, json) = printed(payload);
            assert_eq!(json["body_text"], payload);
            assert!(json.get("body").is_none());
        }
    }

    #[test]
    fn a_hostile_payload_stays_on_its_line_and_is_cut() {
        let (line, _) = printed(&format!("a\r\n\u{1b}[2J{}", "x".repeat(2_000)));
        assert!(line.contains("a\\r\\n\\u{1b}[2Jxxx"), "{line}");
        assert!(line.ends_with(" …") && line.len() < 1_300 && !line.contains('\n'));
    }
}
