//! What a delivery's reply subject tells: `$JS.ACK`, then stream, consumer and numbers.

use eventbus_core::Position;

/// A delivery, as the server describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery<'a> {
    pub(crate) stream: &'a str,
    pub(crate) consumer: &'a str,
    /// The sequence of the message in its stream.
    pub(crate) sequence: Position,
    /// When it was stored: milliseconds since 1970.
    pub(crate) stored_ms: u64,
    /// How many matching messages lie behind it.
    pub(crate) pending: u64,
}

impl<'a> Delivery<'a> {
    /// Reads a reply subject; `None` when it is no delivery's.
    pub(crate) fn of(reply: &'a str) -> Option<Self> {
        let mut tokens = reply.strip_prefix("$JS.ACK.")?.split('.');
        // With a domain and an account's hash there are eleven tokens or twelve, else nine.
        if reply.bytes().filter(|byte| *byte == b'.').count() > 8 {
            tokens.nth(1)?;
        }
        let (stream, consumer) = (tokens.next()?, tokens.next()?);
        let mut number = || tokens.next()?.parse::<u64>().ok();
        let (_delivered, sequence, _consumed) = (number()?, number()?, number()?);
        let (stored_ns, pending) = (number()?, number()?);
        let (sequence, stored_ms) = (Position(sequence), stored_ns / 1_000_000);
        Some(Self { stream, consumer, sequence, stored_ms, pending })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_nothing_else() {
        let wanted = Delivery {
            stream: "EB_EVENTS",
            consumer: "uid-1",
            sequence: Position(7),
            stored_ms: 1_795_338_560_877,
            pending: 4,
        };
        let short = "$JS.ACK.EB_EVENTS.uid-1.1.7.3.1795338560877132463.4";
        let long = "$JS.ACK._.hash.EB_EVENTS.uid-1.1.7.3.1795338560877132463.4.token";
        for reply in [short, long] {
            assert_eq!(Delivery::of(reply), Some(wanted));
        }
        for other in ["", "_INBOX.a.1.0.1", "$JS.ACK.EB_EVENTS", &short[..30]] {
            assert_eq!(Delivery::of(other), None, "{other}");
        }
    }
}
