//! The streams we keep on the server: made where there are none, brought up to date where settings
//! changed, and never emptied.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, ApiError, code};
use crate::config::{NatsConfig, OpenError};

/// Events.
pub(crate) const EVENTS: &str = "EB_EVENTS";
/// Events that wait for a retry: references, put under their cursor when they are due.
pub(crate) const RETRY: &str = "EB_RETRY";
/// Events that are not due yet: whole, put where they are taken from when they are.
pub(crate) const DELAY: &str = "EB_DELAY";
/// Events that were given up.
pub(crate) const DEAD: &str = "EB_DEAD";
/// How many events each cursor has lost.
pub(crate) const COUNTS: &str = "EB_COUNTS";

/// What marks a stream as ours, and the version of what lies in it.
const MARK: &str = "eventbus.format";
const FORMAT: &str = "1";

/// The shortest time for which the server remembers ids.
const LEAST_WINDOW: Duration = Duration::from_millis(100);

/// What to do about what is not ours.
const ELSEWHERE: &str = "use another account, or remove it";

/// Consumers a stream may have: more than a server can keep.
const CONSUMERS: i64 = 1_000_000;

/// Members of a definition that cannot be changed once events lie in the stream.
const FIXED: &[&str] = &["retention", "storage", "subjects"];

/// Why a stream could not be made ready.
#[derive(Debug)]
pub(crate) enum Unready {
    /// The server does not answer: try again.
    Away(String),
    /// It must not be used.
    Wrong(OpenError),
}

#[derive(Deserialize)]
struct FoundStream {
    config: Value,
}

#[derive(Deserialize)]
struct Names {
    streams: Option<Vec<String>>,
}

/// Makes all streams ready. Where one of them cannot be, nothing is changed.
pub(crate) async fn ensure(api: &Api, config: &NatsConfig) -> Result<(), Unready> {
    let mut calls = Vec::new();
    for (stream, wanted) in definitions(config) {
        calls.extend(look(api, stream, wanted).await?.map(|(verb, body)| (stream, verb, body)));
    }
    for (stream, verb, body) in calls {
        let made: Result<Value, _> = api.call(&format!("STREAM.{verb}.{stream}"), &body).await;
        made.map_err(|error| unready(stream, error))?;
    }
    Ok(())
}

/// What a stream needs: a verb with its definition, or nothing.
async fn look(
    api: &Api,
    stream: &'static str,
    wanted: Value,
) -> Result<Option<(&'static str, Value)>, Unready> {
    let found: Result<FoundStream, _> =
        api.call(&format!("STREAM.INFO.{stream}"), &json!({})).await;
    match found {
        Ok(found) => {
            let updated = update(stream, found.config, &wanted).map_err(Unready::Wrong)?;
            Ok(updated.map(|updated| ("UPDATE", updated)))
        }
        Err(error) if error.is(code::STREAM_NOT_FOUND) => {
            are_free(api, stream, &wanted).await?;
            Ok(Some(("CREATE", wanted)))
        }
        Err(error) => Err(unready(stream, error)),
    }
}

/// Does no other stream take the subjects of one that is to be made?
async fn are_free(api: &Api, stream: &'static str, wanted: &Value) -> Result<(), Unready> {
    for subject in wanted["subjects"].as_array().into_iter().flatten() {
        let asked: Result<Names, _> =
            api.call("STREAM.NAMES", &json!({ "subject": subject })).await;
        let names = asked.map_err(|error| unready(stream, error))?.streams.unwrap_or_default();
        if let Some(other) = names.iter().find(|name| *name != stream) {
            let reason = format!("the stream {other} takes its subjects {subject}: {ELSEWHERE}");
            return Err(Unready::Wrong(OpenError::Stream { stream, reason }));
        }
    }
    Ok(())
}

/// The definition that a stream needs to become what is wanted; `None` when it is that already.
fn update(
    stream: &'static str,
    mut found: Value,
    wanted: &Value,
) -> Result<Option<Value>, OpenError> {
    let wrong = |reason: String| OpenError::Stream { stream, reason };
    match found["metadata"][MARK].as_str() {
        None => {
            return Err(wrong(format!("it was not made by eventbus: {ELSEWHERE}")));
        }
        Some(FORMAT) => {}
        Some(newer) => {
            let what = format!("it has format {newer}, and this program knows {FORMAT}");
            return Err(wrong(format!("{what}: use the program that made it, or another account")));
        }
    }
    let Value::Object(members) = wanted else { return Ok(None) };
    let mut changed = false;
    for (member, value) in members {
        // What the server leaves out is at its default.
        let is_default = value == &json!(0) || value == &json!(false);
        if found.get(member).unwrap_or(&Value::Null) == value
            || (is_default && found.get(member).is_none())
            || ["metadata", "max_consumers"].contains(&member.as_str())
        {
            continue;
        }
        if FIXED.contains(&member.as_str()) {
            let had = &found[member];
            return Err(wrong(format!("its {member} is {had}, and must be {value}: {ELSEWHERE}")));
        }
        found[member] = value.clone();
        changed = true;
    }
    Ok(changed.then_some(found))
}

fn unready(stream: &'static str, error: ApiError) -> Unready {
    match error {
        ApiError::Away(reason) => Unready::Away(reason),
        // A cluster that is still finding itself together.
        ApiError::Refused { code: 10_005 | 10_008 | 10_009, description } => {
            Unready::Away(description)
        }
        ApiError::Refused { code: code::STORAGE_EXCEEDED, description } => {
            let reason = format!(
                "{description}: lower max_bytes, which the server must be able to keep, or raise \
                 its max_file_store"
            );
            Unready::Wrong(OpenError::Stream { stream, reason })
        }
        ApiError::Refused { description, .. } => {
            Unready::Wrong(OpenError::Stream { stream, reason: description })
        }
    }
}

fn definitions(config: &NatsConfig) -> [(&'static str, Value); 5] {
    let age_ns = nanoseconds(config.age);
    let common = |name: &str, subjects: &[&str]| {
        json!({
            "name": name, "subjects": subjects, "storage": "file", "retention": "limits",
            "discard": "old", "num_replicas": config.replicas, "allow_direct": true,
            "max_consumers": CONSUMERS, "max_msgs": -1, "max_bytes": -1,
            "max_msgs_per_subject": -1, "max_msg_size": -1, "max_age": 0,
            "metadata": { MARK: FORMAT },
        })
    };
    let mut events = common(EVENTS, &["ev.>"]);
    events["discard"] = json!("new");
    events["max_bytes"] = json!(config.max_bytes);
    events["allow_atomic"] = json!(true);
    // The server allows no longer one than events live.
    let window = config.deduplication_time.max(LEAST_WINDOW).min(config.age);
    events["duplicate_window"] = json!(nanoseconds(window));
    // Events end by our own clock, which counts them; this is for the time when nobody runs.
    events["max_age"] = json!(age_ns.saturating_add(age_ns / 4));
    let mut retry = common(RETRY, &["sched.>", "due.>", "lease.>"]);
    retry["retention"] = json!("workqueue");
    retry["allow_msg_schedules"] = json!(true);
    retry["allow_msg_ttl"] = json!(true);
    let mut delay = common(DELAY, &["delay.>"]);
    delay["retention"] = json!("workqueue");
    delay["allow_msg_schedules"] = json!(true);
    let dead = common(DEAD, &["dead.>"]);
    let mut counts = common(COUNTS, &["dropped.>"]);
    counts["allow_msg_counter"] = json!(true);
    counts["max_msgs_per_subject"] = json!(1);
    [(EVENTS, events), (RETRY, retry), (DELAY, delay), (DEAD, dead), (COUNTS, counts)]
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_updated_refused_or_left_alone() {
        let mut config = NatsConfig::at("nats://localhost");
        let [(stream, wanted), ..] = definitions(&config);
        assert_eq!(update(stream, wanted.clone(), &wanted), Ok(None));
        config.max_bytes /= 2;
        let [(_, smaller), ..] = definitions(&config);
        let mut found = wanted.clone();
        found["placement"] = json!({ "tags": ["ssd"] });
        let updated = update(stream, found, &smaller).unwrap().unwrap();
        assert_eq!(updated["max_bytes"], smaller["max_bytes"]);
        assert_eq!(updated["placement"]["tags"][0], "ssd", "what we do not set stays");
        for (member, value) in [("retention", json!("workqueue")), ("subjects", json!(["x.>"]))] {
            let mut foreign = wanted.clone();
            foreign[member] = value;
            let refused = update(stream, foreign, &wanted).unwrap_err().to_string();
            assert!(refused.contains(&format!("its {member} is")), "{refused}");
        }
        for (mark, complaint) in [(Value::Null, "not made by"), (json!("2"), "format 2")] {
            let mut foreign = wanted.clone();
            foreign["metadata"] = json!({ MARK: mark });
            let refused = update(stream, foreign, &wanted).unwrap_err().to_string();
            assert!(refused.contains(complaint), "{refused}");
        }
    }
}
