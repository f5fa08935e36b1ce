//! When an event is to be delivered, and until when: the attributes that say so.

use crate::attributes::{Attributes, DELAY_S, DELIVER_AT, EXPIRY_TIME, Value};
use crate::event::Event;
use crate::limits;
use crate::wire::error::Refusal;
use crate::wire::time;

/// Checks what the attributes say of time, whatever the time is.
pub(crate) fn check(attributes: &Attributes) -> Result<(), Refusal> {
    if attributes.is_empty() {
        return Ok(());
    }
    for name in [EXPIRY_TIME, DELIVER_AT] {
        if attributes.get(name).is_some_and(|value| at_ms(value).is_none()) {
            return Err(Refusal::wrong(
                name,
                "a point in time (RFC 3339), such as 2030-01-31T12:00:00Z",
            ));
        }
    }
    let Some(delay) = attributes.get(DELAY_S) else { return Ok(()) };
    if delay_ms(delay).is_none() {
        return Err(Refusal::wrong(DELAY_S, "whole seconds from 0 to 31622400, which is 366 days"));
    }
    if attributes.get(DELIVER_AT).is_some() {
        return Err(Refusal::wrong(DELIVER_AT, "give a time or a delay, not both"));
    }
    Ok(())
}

/// When an event that is published at `now_ms` is to be stored, in milliseconds since 1970; `None`:
/// at once. Refused where that is further away than [`limits::DELAY_MAX`].
pub fn due_ms(event: &Event, now_ms: u64) -> Result<Option<u64>, Refusal> {
    let attributes = &event.attributes;
    if attributes.is_empty() {
        return Ok(None);
    }
    let at = attributes.get(DELIVER_AT).and_then(at_ms);
    let delay = attributes.get(DELAY_S).and_then(delay_ms);
    let due_ms = at.or_else(|| delay.map(|delay_ms| now_ms.saturating_add(delay_ms)));
    let Some(due_ms) = due_ms.filter(|due_ms| *due_ms > now_ms) else { return Ok(None) };
    if due_ms - now_ms > limits::DELAY_MAX.as_millis() as u64 {
        let why = "an event may be delayed by 366 days";
        // As the contract's event has it, and as a CloudEvent does. A delay has its limit itself.
        return Err(Refusal::wrong("deliver_at/deliverat", why));
    }
    Ok(Some(due_ms))
}

/// When the event expires, in milliseconds since 1970; `None`: never.
pub fn expires_ms(event: &Event) -> Option<u64> {
    event.attributes.get(EXPIRY_TIME).and_then(at_ms)
}

fn at_ms(value: &Value) -> Option<u64> {
    match value {
        Value::Text(text) => time::parse_ms(text),
        Value::Integer(_) | Value::Boolean(_) => None,
    }
}

fn delay_ms(value: &Value) -> Option<u64> {
    let seconds: u64 = match value {
        Value::Text(text) => text.parse().ok()?,
        Value::Integer(seconds) => u64::try_from(*seconds).ok()?,
        Value::Boolean(_) => return None,
    };
    (seconds <= limits::DELAY_MAX.as_secs()).then_some(seconds * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const DAY_MS: u64 = 24 * 3600 * 1000;

    fn event(attributes: &[(&str, &str)]) -> Event {
        let mut event = testing::event("a", "");
        for (name, value) in attributes {
            event.attributes.set((*name).into(), Value::from(*value));
        }
        event
    }

    #[test]
    fn an_event_is_due_at_its_time_or_after_its_delay() {
        let due = |attributes: &[(&str, &str)]| due_ms(&event(attributes), 1_000_000);
        assert_eq!(due(&[]), Ok(None));
        assert_eq!(due(&[("delays", "0")]), Ok(None));
        assert_eq!(due(&[("delays", "5")]), Ok(Some(1_005_000)));
        assert_eq!(due(&[("deliverat", "1970-01-01T00:00:00Z")]), Ok(None));
        assert_eq!(due(&[("deliverat", "1970-01-02T00:00:00.25+01:00")]), Ok(Some(82_800_250)));
        assert!(due(&[("deliverat", "1972-01-02T00:00:00Z")]).is_err());
        let mut counted = event(&[]);
        counted.attributes.set("delays".into(), Value::Integer(5));
        assert_eq!(due_ms(&counted, 0), Ok(Some(5_000)));
    }

    #[test]
    fn an_event_expires_at_its_time_or_never() {
        assert_eq!(expires_ms(&event(&[])), None);
        assert_eq!(expires_ms(&event(&[("expirytime", "1970-01-02T00:00:00z")])), Some(DAY_MS));
        assert_eq!(expires_ms(&event(&[("expirytime", "1960-01-02T00:00:00Z")])), Some(0));
    }

    #[test]
    fn what_says_no_time_is_refused() {
        for bad in [
            &[("expirytime", "tomorrow")][..],
            &[("deliverat", "")],
            &[("delays", "-1")],
            &[("delays", "1.5")],
            &[("delays", "31622401")],
            &[("delays", "1"), ("deliverat", "2030-01-01T00:00:00Z")],
        ] {
            assert!(check(&event(bad).attributes).is_err(), "{bad:?}");
        }
        for good in [&[][..], &[("delays", "31622400")], &[("expirytime", "2030-01-01T00:00:60Z")]]
        {
            assert_eq!(check(&event(good).attributes), Ok(()), "{good:?}");
        }
    }
}
