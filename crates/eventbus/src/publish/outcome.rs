//! What an answer says about each event of a request.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::send::Answer;
use crate::output::printable;

/// How much of a refusal is shown, in characters: all of one that has the form of the contract.
const SHOWN_CHARS: usize = 1000;

/// How much of one that has another form stands for it where reasons are counted.
const REASON_CHARS: usize = 80;

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Stored.
    Published,
    /// Stored before: the bus knows its source and id.
    Duplicate,
    /// Not stored, because nobody listens.
    Ignored,
    /// Refused.
    Rejected(Rejection),
    /// There is no answer, or nothing was sent. If it was sent, it may have been stored.
    Unsent(String),
}

/// What the bus says against an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    status: StatusCode,
    /// Without control characters.
    error: String,
}

/// What became of each of `count` events that were sent together.
pub(super) fn of(answer: Result<Answer, String>, count: usize) -> Vec<Outcome> {
    match answer {
        Err(why) => vec![Outcome::Unsent(why); count],
        Ok(answer) if !answer.status.is_success() => vec![refused(&answer); count],
        Ok(answer) if answer.is_of_batch => {
            results(&answer.body, count).unwrap_or_else(|| vec![strange(&answer); count])
        }
        Ok(answer) => vec![word(&answer.body).unwrap_or_else(|| strange(&answer))],
    }
}

/// What a success says of one event, if a bus says it.
fn word(body: &str) -> Option<Outcome> {
    #[derive(Deserialize)]
    struct Word<'a> {
        #[serde(borrow)]
        status: Option<Cow<'a, str>>,
        #[serde(rename = "event-id", borrow)]
        event_id: Option<Cow<'a, str>>,
    }
    // CloudEvents are taken without a word by some.
    if body.is_empty() {
        return Some(Outcome::Published);
    }
    let Word { status, event_id } = serde_json::from_str(body).ok()?;
    // An application's front may leave the status empty.
    let is_named = event_id.is_some_and(|id| !id.is_empty());
    status.and_then(|word| of_word(&word)).or_else(|| is_named.then_some(Outcome::Published))
}

/// The results of a batch, if there is one for each event.
fn results(body: &str, count: usize) -> Option<Vec<Outcome>> {
    #[derive(Deserialize)]
    struct Results<'a> {
        #[serde(borrow)]
        results: Vec<EventResult<'a>>,
    }
    #[derive(Deserialize)]
    struct EventResult<'a> {
        #[serde(borrow)]
        status: Cow<'a, str>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    let Results { results } = serde_json::from_str(body).ok()?;
    let outcome = |EventResult { status, error }: EventResult<'_>| {
        of_word(&status).unwrap_or_else(|| {
            let error = error.map_or(&*status, RawValue::get);
            let contract: Option<ContractError<'_>> = serde_json::from_str(error).ok();
            let status = contract.and_then(|error| StatusCode::from_u16(error.status).ok());
            let status = status.unwrap_or(StatusCode::BAD_REQUEST);
            Outcome::Rejected(Rejection { status, error: shown(error) })
        })
    };
    (results.len() == count).then(|| results.into_iter().map(outcome).collect())
}

/// What the bus's word for an event that is not rejected means.
fn of_word(word: &str) -> Option<Outcome> {
    match word {
        "published" => Some(Outcome::Published),
        "duplicate" => Some(Outcome::Duplicate),
        "ignored" => Some(Outcome::Ignored),
        _ => None,
    }
}

fn refused(answer: &Answer) -> Outcome {
    Outcome::Rejected(Rejection { status: answer.status, error: shown(&answer.body) })
}

/// A success that is not told in words of a bus.
fn strange(answer: &Answer) -> Outcome {
    let error = format!("is no answer of a bus (is the URL right?): {}", answer.body);
    Outcome::Rejected(Rejection { status: answer.status, error: shown(&error) })
}

fn shown(text: &str) -> String {
    let text: String = text.chars().take(SHOWN_CHARS).collect();
    printable(&text)
}

/// An error body of the contract, as far as it says why in few words.
#[derive(Deserialize)]
struct ContractError<'a> {
    status: u16,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    details: Option<Vec<Detail<'a>>>,
}

#[derive(Deserialize)]
struct Detail<'a> {
    #[serde(borrow)]
    field: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

// === impl Outcome ===

impl Outcome {
    /// With which status the event was refused, if it was.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Rejected(rejection) => Some(rejection.status),
            _ => None,
        }
    }

    /// Why the event was not taken, in few words; none if it was.
    pub(super) fn reason(&self) -> Option<String> {
        match self {
            Self::Published | Self::Duplicate | Self::Ignored => None,
            Self::Rejected(rejection) => Some(rejection.reason()),
            Self::Unsent(why) => Some(printable(why)),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published => f.write_str("published"),
            Self::Duplicate => f.write_str("duplicate"),
            Self::Ignored => f.write_str("ignored"),
            Self::Rejected(Rejection { status, error }) => write!(f, "{} {error}", status.as_str()),
            Self::Unsent(why) => write!(f, "--- {}", printable(why)),
        }
    }
}

// === impl Rejection ===

impl Rejection {
    fn reason(&self) -> String {
        let (status, error) = (self.status.as_str(), &self.error);
        let Ok(contract) = serde_json::from_str::<ContractError<'_>>(error) else {
            let start: String = error.chars().take(REASON_CHARS).collect();
            return format!("{status} {start}");
        };
        match contract.details.iter().flatten().next() {
            Some(Detail { field, kind }) => format!("{status} {kind}: {field}"),
            None => format!("{status} {}", contract.kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(status: u16, body: &str) -> Outcome {
        of(Ok(Answer::of(status, body, false)), 1).remove(0)
    }

    #[test]
    fn the_answer_to_one_event_says_what_became_of_it() {
        let published = r#"{"event-id":"1","status":"published","reason":"r"}"#;
        for (body, outcome) in [
            (published, Outcome::Published),
            (r#"{"status":"ignored"}"#, Outcome::Ignored),
            (r#"{"status":"duplicate"}"#, Outcome::Duplicate),
            (r#"{"event-id":"1"}"#, Outcome::Published),
            (r#"{"event-id":"1","status":"","reason":""}"#, Outcome::Published),
            ("", Outcome::Published),
        ] {
            assert_eq!(alone(200, body), outcome, "{body}");
        }
        assert!(matches!(alone(302, ""), Outcome::Rejected(_)));
        assert_eq!(alone(400, "{\"a\":\n1}").to_string(), "400 {\"a\":\\n1}");
        let unsent = of(Err("why\n".to_owned()), 2);
        assert_eq!((unsent.len(), unsent[1].to_string()), (2, "--- why\\n".to_owned()));
    }

    #[test]
    fn a_success_that_no_bus_tells_is_none() {
        for body in
            ["<html>hi</html>", "{}", "[]", "ok", r#"{"status":"ok"}"#, r#"{"event-id":""}"#]
        {
            let said = alone(200, body);
            let told = format!("200 is no answer of a bus (is the URL right?): {body}");
            assert_eq!(said.to_string(), told);
            assert_eq!(said.reason(), Some(told));
        }
    }

    const ERROR: &str = concat!(
        r#"{"status":400,"type":"validation_violation","#,
        r#""details":[{"field":"data","type":"missing_field"}]}"#
    );

    #[test]
    fn the_answer_to_a_batch_has_a_result_for_each_event() {
        let body = format!(
            r#"{{"results":[{{"status":"published"}},{{"status":"rejected","error":{ERROR}}},
                {{"status":"ignored","error":null}},{{"status":"not_stored"}}]}}"#
        );
        let outcomes = of(Ok(Answer::of(200, &body, true)), 4);
        let texts: Vec<String> = outcomes.iter().map(Outcome::to_string).collect();
        assert_eq!(texts, ["published", &format!("400 {ERROR}"), "ignored", "400 not_stored"]);
    }

    #[test]
    fn an_answer_that_does_not_say_what_became_of_each_event_says_that_none_is_taken() {
        for body in [r#"{"results":[{"status":"published"}]}"#, r#"{"status":"published"}"#, ""] {
            let outcomes = of(Ok(Answer::of(200, body, true)), 2);
            assert!(matches!(outcomes[..], [Outcome::Rejected(_), Outcome::Rejected(_)]), "{body}");
        }
        let busy = of(Ok(Answer::of(503, "{}", true)), 3);
        assert_eq!(busy, vec![alone(503, "{}"); 3]);
    }

    #[test]
    fn a_reason_has_few_words() {
        let full = r#"{"status":507,"type":"insufficient_storage","details":null}"#;
        for (status, body, reason) in [
            (400, ERROR, "400 missing_field: data"),
            (507, full, "507 insufficient_storage"),
            (404, "404 page not found", "404 404 page not found"),
        ] {
            assert_eq!(alone(status, body).reason().as_deref(), Some(reason));
        }
        assert_eq!(alone(502, &"é".repeat(2000)).reason().unwrap().chars().count(), 84);
        assert_eq!(Outcome::Duplicate.reason(), None);
    }
}
