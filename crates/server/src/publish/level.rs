//! Which durability an event is stored with: what was asked for, or what the bus gives unasked.

use eventbus_core::broker::Capabilities;
use eventbus_core::wire::error::Refusal;
use eventbus_core::{Durability, Text};
use http::{HeaderMap, HeaderName};

/// The header by which a publisher asks for a durability, and hears of what was reached.
pub(super) const DURABILITY: HeaderName = HeaderName::from_static("eventbus-durability");

/// The level to store an event with. Asked in the header and in the body, the stronger one counts:
/// nobody gets less than was asked for.
pub(super) fn level(
    headers: &HeaderMap,
    member: Option<&Text>,
    default: Option<Durability>,
    capabilities: Capabilities,
) -> Result<Durability, Refusal> {
    let refused = || Refusal::Durability(capabilities.durabilities);
    let mut asked = None;
    let from_headers = headers.get_all(DURABILITY).into_iter();
    let from_headers = from_headers.map(|value| value.to_str().unwrap_or_default());
    for word in from_headers.chain(member.map(|word| &**word)) {
        let level: Durability = word.parse().map_err(|_| refused())?;
        if !capabilities.durabilities.contains(&level) {
            return Err(refused());
        }
        asked = asked.max(Some(level));
    }
    Ok(asked.or(default).unwrap_or(capabilities.default_durability))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const LOG: Capabilities = Capabilities {
        durabilities: &[Durability::Accepted, Durability::Written, Durability::Synced],
        default_durability: Durability::Synced,
    };

    fn asked(headers: &[&'static str], member: Option<&str>) -> Result<Durability, Refusal> {
        let mut all = HeaderMap::new();
        for value in headers {
            all.append(DURABILITY, HeaderValue::from_static(value));
        }
        level(&all, member.map(Text::from).as_ref(), Some(Durability::Written), LOG)
    }

    #[test]
    fn the_strongest_that_was_asked_for_counts_and_else_the_default() {
        assert_eq!(asked(&[], None), Ok(Durability::Written));
        assert_eq!(asked(&["accepted"], None), Ok(Durability::Accepted));
        assert_eq!(asked(&["accepted"], Some("synced")), Ok(Durability::Synced));
        assert_eq!(asked(&["synced", "written"], Some("accepted")), Ok(Durability::Synced));
        assert_eq!(level(&HeaderMap::new(), None, None, LOG), Ok(Durability::Synced));
    }

    #[test]
    fn what_cannot_be_promised_is_refused_with_what_can() {
        for bad in ["replicated", "Synced", "", "forever"] {
            let refusal = asked(&[bad], None).unwrap_err();
            assert_eq!(refusal, asked(&[], Some(bad)).unwrap_err());
            let [detail] = refusal.body().details.unwrap();
            assert_eq!(detail.field, "Eventbus-Durability");
            assert_eq!(detail.more_info, "This bus can promise: accepted, written, synced");
        }
    }
}
