//! What an answer to a published event says, read strictly: only the one that a target gives to
//! events it has taken is good.

use std::borrow::Cow;

use eventbus_core::Durability;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::args::Target;
use super::inbox::Answer;
use super::request::{Form, Request};
use crate::output::printable;

/// How much of an answer a complaint shows, in characters.
const SHOWN_CHARS: usize = 300;

/// What the other side said about the events of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It took all; whether the connection ends here, and how durably they are stored.
    Taken { is_last: bool, durability: Option<Durability> },
    /// It did not; with the status, and the answer for people.
    Refused { status: u16, answer: String },
}

/// Who answers, and what was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judge {
    pub(super) target: Target,
    pub(super) form: Form,
    /// The least durability that an answer must tell.
    pub(super) durability: Option<Durability>,
}

// === impl Judge ===

impl Judge {
    /// What an answer says.
    pub(super) fn of(&self, answer: &Answer<'_>, request: &Request) -> Said {
        let status = answer.status;
        let refused = |why: &[u8]| {
            let why = String::from_utf8_lossy(why);
            let shown: String = why.trim().chars().take(SHOWN_CHARS).collect();
            Said::Refused { status, answer: format!("{status} {}", printable(&shown)) }
        };
        if let Some(complaint) = self.complaint(answer, request) {
            return refused(complaint);
        }
        let level = answer.durability.and_then(|level| std::str::from_utf8(level).ok());
        let durability = level.and_then(|level| level.parse().ok());
        match self.durability {
            Some(asked) if durability < Some(asked) => {
                let told = level.unwrap_or("nothing");
                refused(format!("durability {told}, and {asked} was asked for").as_bytes())
            }
            _ => Said::Taken { is_last: answer.is_last, durability },
        }
    }

    /// What is not as it should be, if anything.
    fn complaint<'a>(&self, answer: &Answer<'a>, request: &Request) -> Option<&'a [u8]> {
        let is_good = match self.target {
            Target::Bus if request.events() > 1 => {
                return match answer.status {
                    200 => complaint_of_batch(answer.body, request),
                    _ => Some(answer.body),
                };
            }
            Target::Bus if self.form == Form::Kyma => {
                answer.status == 200 && is_published(answer.body, request)
            }
            Target::Bus => {
                answer.status == 204
                    && answer.outcome == Some(b"published")
                    && is_of(answer.event_id, request)
            }
            Target::Post => (200..300).contains(&answer.status),
            Target::Svix => answer.status == 202 && is_kept(answer.body, request),
            Target::Knative => answer.status == 202,
            Target::KymaProxy | Target::Bare | Target::Relay => answer.status == 204,
        };
        (!is_good).then_some(answer.body)
    }
}

fn is_of(event_id: Option<&[u8]>, request: &Request) -> bool {
    request.event_ids().all(|id| event_id == Some(id))
}

/// Whether a Svix server says that it has the only event of the request.
fn is_kept(body: &[u8], request: &Request) -> bool {
    #[derive(Deserialize)]
    struct Kept<'a> {
        #[serde(rename = "eventId", borrow)]
        event_id: Option<Cow<'a, str>>,
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let kept: Result<Kept<'_>, _> = serde_json::from_slice(body);
    kept.is_ok_and(|kept| {
        !kept.id.is_empty() && is_of(kept.event_id.as_deref().map(str::as_bytes), request)
    })
}

/// What a bus says about one event.
#[derive(Deserialize)]
struct EventResult<'a> {
    #[serde(rename = "event-id")]
    event_id: &'a str,
    status: &'a str,
}

impl EventResult<'_> {
    fn is_published(&self, event_id: &[u8]) -> bool {
        self.status == "published" && self.event_id.as_bytes() == event_id
    }
}

/// Whether the body says that the only event of the request is published.
fn is_published(body: &[u8], request: &Request) -> bool {
    let result: Result<EventResult<'_>, _> = serde_json::from_slice(body);
    result.is_ok_and(|result| request.event_ids().all(|id| result.is_published(id)))
}

/// What the body says beside every event of the request being published, in their order.
fn complaint_of_batch<'a>(body: &'a [u8], request: &Request) -> Option<&'a [u8]> {
    #[derive(Deserialize)]
    struct Results<T> {
        results: Vec<T>,
    }
    let read: Result<Results<EventResult<'_>>, _> = serde_json::from_slice(body);
    let Some(Results { results }) = read.ok().filter(|all| all.results.len() == request.events())
    else {
        return Some(body);
    };
    let of_ids = || results.iter().zip(request.event_ids());
    let wrong = of_ids().position(|(result, id)| !result.is_published(id))?;
    // The one result alone: the body has many.
    let read: Result<Results<&'a RawValue>, _> = serde_json::from_slice(body);
    Some(read.map_or(body, |all| all.results[wrong].get().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::event::{Shape, Stamp};
    use super::super::request::Envelope;
    use super::*;

    fn said(target: Target, status: u16, body: &str, events: u16) -> Said {
        let judge = Judge { target, form: Form::Kyma, durability: None };
        let durability = Some(&b"synced"[..]);
        let answer = Answer { status, durability, body: body.as_bytes(), ..NOTHING };
        judge.of(&answer, &request(events, judge.form))
    }

    const NOTHING: Answer<'static> = Answer {
        status: 204,
        is_last: false,
        durability: None,
        outcome: None,
        event_id: None,
        body: b"",
    };

    fn request(events: u16, form: Form) -> Request {
        let [host, path, headers] = ["h", "/", ""].map(str::to_owned);
        let envelope = Envelope { host, path, headers, form };
        let mut request = Request::new(&Shape::new(0, 1, 0), &envelope, events);
        let stamps: Vec<Stamp> =
            (1..).take(events.into()).map(|sequence| Stamp { sequence, due_ns: 0 }).collect();
        request.stamp(&stamps);
        request
    }

    const TAKEN: Said = Said::Taken { is_last: false, durability: Some(Durability::Synced) };

    fn result(sequence: u64, status: &str) -> String {
        let id = Shape::new(0, 1, 0).event_id(sequence);
        format!(r#"{{"event-id":"{id}","status":"{status}","reason":"r"}}"#)
    }

    #[test]
    fn only_the_right_answer_is_good() {
        assert_eq!(said(Target::Bus, 200, &result(1, "published"), 1), TAKEN);
        for (status, body) in [
            (201, &*result(1, "published")),
            (200, &result(1, "ignored")),
            (200, &result(2, "published")),
            (200, r#"{"event-id":"00000000-0000-0000-0000-000000000001"}"#),
            (200, ""),
            (204, ""),
            (503, r#"{"status":503}"#),
        ] {
            let refused = said(Target::Bus, status, body, 1);
            assert!(matches!(refused, Said::Refused { status: is, .. } if is == status), "{body}");
        }
        assert_eq!(said(Target::Bare, 204, "", 1), TAKEN);
        assert_eq!(said(Target::Bare, 204, "", 5), TAKEN);
        assert_eq!(said(Target::Relay, 204, "", 1), TAKEN);
        assert_ne!(said(Target::Relay, 502, "", 1), TAKEN);
    }

    #[test]
    fn every_event_of_a_batch_must_be_published() {
        let of = |results: &[String]| format!("{{\"results\":[{}]}}\n", results.join(","));
        let good = [result(1, "published"), result(2, "published")];
        assert_eq!(said(Target::Bus, 200, &of(&good), 2), TAKEN);
        let ignored = result(2, "ignored");
        for (results, shown) in [
            (vec![good[0].clone(), ignored.clone()], &ignored),
            (vec![good[1].clone(), good[0].clone()], &good[1]),
            (vec![good[0].clone(), good[0].clone()], &good[0]),
        ] {
            let answer = format!("200 {shown}");
            assert_eq!(
                said(Target::Bus, 200, &of(&results), 2),
                Said::Refused { status: 200, answer }
            );
        }
        for body in [of(&good[..1]), of(&[&good[..], &good[..1]].concat()), good[0].clone()] {
            assert_ne!(said(Target::Bus, 200, &body, 2), TAKEN, "{body}");
        }
        assert_ne!(said(Target::Bus, 400, &of(&good), 2), TAKEN);
    }

    #[test]
    fn a_cloud_event_is_published_when_the_headers_say_so() {
        let judge = Judge { target: Target::Bus, form: Form::Binary, durability: None };
        let id = Shape::new(0, 1, 0).event_id(1);
        let said = |answer: Answer<'_>| judge.of(&answer, &request(1, judge.form));
        let good = Answer {
            outcome: Some(b"published"),
            event_id: Some(id.as_bytes()),
            durability: Some(b"synced"),
            ..NOTHING
        };
        assert_eq!(said(good), TAKEN);
        assert_ne!(said(Answer { outcome: Some(b"ignored"), ..good }), TAKEN);
        assert_ne!(said(Answer { outcome: None, ..good }), TAKEN);
        assert_ne!(said(Answer { event_id: Some(b"another"), ..good }), TAKEN);
        assert_ne!(said(Answer { status: 200, ..good }), TAKEN);
    }

    #[test]
    fn an_answer_that_promises_less_than_was_asked_for_is_none() {
        let durability = Some(Durability::Synced);
        let judge = Judge { target: Target::Bus, form: Form::Kyma, durability };
        let body = result(1, "published");
        let said = |level: Option<&str>| {
            let durability = level.map(str::as_bytes);
            let answer = Answer { status: 200, durability, body: body.as_bytes(), ..NOTHING };
            judge.of(&answer, &request(1, judge.form))
        };
        assert_eq!(said(Some("synced")), TAKEN);
        assert!(matches!(said(Some("replicated")), Said::Taken { .. }));
        for less in [Some("written"), Some("?"), None] {
            assert!(matches!(said(less), Said::Refused { .. }), "{less:?}");
        }
    }

    #[test]
    fn peers_are_taken_at_their_documented_answers() {
        let id = Shape::new(0, 1, 0).event_id(1);
        let svix = |id: &str| format!(r#"{{"eventType":"t","id":"msg_1","eventId":"{id}"}}"#);
        for (target, status, body, is_good) in [
            (Target::Post, 200, "x", true),
            (Target::Post, 299, "", true),
            (Target::Post, 302, "", false),
            (Target::Knative, 202, "", true),
            (Target::Knative, 200, "", false),
            (Target::Knative, 404, "", false),
            (Target::KymaProxy, 204, "", true),
            (Target::KymaProxy, 200, "", false),
            (Target::KymaProxy, 507, "insufficient resources on target stream", false),
            (Target::Svix, 202, &svix(&id), true),
            (Target::Svix, 202, &svix("another"), false),
            (Target::Svix, 202, "", false),
            (Target::Svix, 200, &svix(&id), false),
        ] {
            let taken = matches!(said(target, status, body, 1), Said::Taken { .. });
            assert_eq!(taken, is_good, "{target:?} {status} {body}");
        }
    }
}
