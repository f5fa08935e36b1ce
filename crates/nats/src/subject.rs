//! The names that events, cursors and retries have on the server.
//!
//! A subject is made of tokens, and a source, a type or a version may be any text: so each becomes
//! one token, injectively. What NATS would read as syntax cannot occur in it.

use eventbus_core::broker::CursorId;
use eventbus_core::{Interest, Position};

/// Characters of a token; what would be longer is hashed. Three of them, with the server's own
/// words, stay far below its limit of 4 KiB a line.
const TOKEN_CHARS: usize = 128;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// The subject under which an event of `interest` is stored: nobody else's.
pub(crate) fn event(interest: &Interest) -> String {
    let Interest { source, event_type, event_type_version } = interest;
    let mut subject = String::with_capacity(64);
    subject.push_str("ev.");
    token(source.as_str(), &mut subject);
    subject.push('.');
    token(event_type, &mut subject);
    subject.push('.');
    token(event_type_version, &mut subject);
    subject
}

/// The name of a cursor's consumers.
pub(crate) fn consumer(cursor: &CursorId) -> String {
    let mut name = String::with_capacity(40);
    token(&cursor.0, &mut name);
    name
}

/// The cursor whose consumers have this name; `None` when that is no name of ours.
pub(crate) fn cursor(consumer: &str) -> Option<CursorId> {
    let mut text = Vec::with_capacity(consumer.len());
    let mut rest = consumer.as_bytes();
    if rest == b"=" {
        rest = b"";
    }
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'=' {
            let hex = rest.get(..2)?;
            text.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = &rest[2..];
        } else {
            text.push(first);
        }
    }
    let id = CursorId(String::from_utf8(text).ok()?.into());
    (self::consumer(&id) == consumer).then_some(id)
}

/// Where the retry of an event waits.
pub(crate) fn scheduled(consumer: &str, position: Position) -> String {
    format!("sched.{consumer}.{position}")
}

/// Where the retry of an event is put when it is due.
pub(crate) fn due(consumer: &str, position: Position) -> String {
    format!("due.{consumer}.{position}")
}

/// Both of them, for every event of a cursor.
pub(crate) fn retries(consumer: &str) -> String {
    format!("*.{consumer}.*")
}

/// Where a delayed event waits.
pub(crate) fn delay_scheduled(key: &str) -> String {
    format!("delay.sched.{key}")
}

/// Where a delayed event is put when it is due.
pub(crate) fn delay_due(key: &str) -> String {
    format!("delay.due.{key}")
}

/// Both of them.
pub(crate) fn delayed(key: &str) -> String {
    format!("delay.*.{key}")
}

/// Where an event is put that was given up.
pub(crate) fn dead(consumer: &str, position: Position) -> String {
    format!("dead.{consumer}.{position}")
}

/// Where the events are counted that a cursor has lost.
pub(crate) fn dropped(consumer: &str) -> String {
    format!("dropped.{consumer}")
}

/// The position at the end of such a subject.
pub(crate) fn position(subject: &str) -> Option<Position> {
    subject.rsplit('.').next()?.parse().ok().map(Position)
}

/// Appends `text` as one token: bytes outside of `[A-Za-z0-9_-]` as `=XX`, nothing as `=`, and what
/// would be too long as `=h` with 256 bits of BLAKE3.
fn token(text: &str, out: &mut String) {
    if text.is_empty() {
        out.push('=');
        return;
    }
    let from = out.len();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            out.push(char::from(byte));
        } else {
            out.push('=');
            out.extend([byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)])));
        }
    }
    if out.len() - from > TOKEN_CHARS {
        out.truncate(from);
        out.push_str("=h");
        out.push_str(&blake3::hash(text.as_bytes()).to_hex());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use eventbus_core::testing::{SeededEntropy, interest};
    use eventbus_core::{Entropy, Source};

    use super::*;

    fn one(text: &str) -> String {
        let mut out = String::new();
        token(text, &mut out);
        out
    }

    #[test]
    fn a_subject_is_drawn() {
        let mut wanted = interest("order.created");
        wanted.source = Source::from_id("/stage/com.github/shop".into());
        let drawn = "ev.=2Fstage=2Fcom=2Egithub=2Fshop.order=2Ecreated.v1";
        assert_eq!(event(&wanted), drawn);
        wanted.event_type_version = "".into();
        assert_eq!(event(&wanted), "ev.=2Fstage=2Fcom=2Egithub=2Fshop.order=2Ecreated.=");
    }

    #[test]
    fn tokens_are_safe_and_no_two_texts_share_one() {
        let seed = 11;
        let dice = SeededEntropy::new(seed);
        let letters = ["a", "Z", "0", "_", "-", "=", ".", "*", ">", " ", "h", "2", "E", "é", "\n"];
        let mut seen: HashMap<String, String> = HashMap::new();
        for _ in 0..20_000 {
            let length = dice.next_u64() % 6 + dice.next_u64() % 8 / 7 * 120;
            let text: String =
                (0..length).map(|_| letters[dice.next_u64() as usize % letters.len()]).collect();
            let token = one(&text);
            let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_-=".contains(&byte);
            assert!(token.bytes().all(safe) && !token.is_empty(), "seed {seed}: {text:?}: {token}");
            assert!(token.len() <= TOKEN_CHARS, "seed {seed}: {text:?}: {token}");
            let other = seen.insert(token, text.clone());
            assert!(
                other.as_ref().is_none_or(|other| *other == text),
                "{seed}: {text:?} {other:?}"
            );
        }
    }

    #[test]
    fn a_cursor_is_read_back_from_its_name() {
        for id in ["0d5c1f2e-8a83-4fd5-a1f5-2ab7de2a2f2b", "", "a.b", "ä =", "=", "=2E"] {
            let id = CursorId(id.into());
            assert_eq!(cursor(&consumer(&id)), Some(id));
        }
        for foreign in ["a.b", "=2e", "=G0", "=4", "=41", "=h00", "=FF"] {
            assert_eq!(cursor(foreign), None, "{foreign}");
        }
    }
}
