//! Points in time as publishers write them: RFC 3339.

const DAY_S: i64 = 24 * 60 * 60;

/// RFC 3339 to the letter, as CloudEvents wants it: `t` and `z` may be lower-case, and a second may
/// be a leap second.
pub(crate) fn is_timestamp(text: &str) -> bool {
    if is_rfc3339(text) {
        return true;
    }
    if !text.is_ascii() {
        return false;
    }
    let mut upper = text.to_ascii_uppercase();
    if upper.get(16..19) == Some(":60") {
        upper.replace_range(16..19, ":59");
    }
    is_rfc3339(&upper)
}

/// A [`is_timestamp`] in milliseconds since 1970; a time before that is 0.
///
/// By hand, because every one of them counts: to the last second of the year 9999, which many mean
/// by "never", and with a fraction of any length.
pub(crate) fn parse_ms(text: &str) -> Option<u64> {
    let bytes = Some(text).filter(|text| is_timestamp(text))?.as_bytes();
    let (head, rest) = bytes.split_at_checked(19)?;
    let [year, month, day] = [&head[..4], &head[5..7], &head[8..10]].map(number);
    let [hour, minute, second] = [&head[11..13], &head[14..16], &head[17..]].map(number);
    let days = days_since_1970(year, month) + i64::from(day) - 1;
    let seconds = i64::from(hour * 3600 + minute * 60 + second);
    let zone = after_fraction(rest);
    let fraction = &rest[..rest.len() - zone.len()];
    let ms = [1, 2, 3].map(|place| fraction.get(place).map_or(b'0', |digit| *digit));
    let at_ms = (days * DAY_S + seconds - ahead_s(zone)) * 1000 + i64::from(number(&ms));
    Some(u64::try_from(at_ms).unwrap_or_default())
}

/// The days before the first of a month; negative before 1970.
fn days_since_1970(year: u32, month: u32) -> i64 {
    // Leap years before this one, counted from the year 0; before 1970 there were 478.
    let leaps = |year: u32| year.div_ceil(4) - year.div_ceil(100) + year.div_ceil(400);
    let years = (i64::from(year) - 1970) * 365 + i64::from(leaps(year)) - 478;
    let months = (1..month).map(|month| days_in_month(year, month)).sum::<u32>();
    years + i64::from(months)
}

/// How many seconds a zone is ahead of UTC.
fn ahead_s(zone: &[u8]) -> i64 {
    match zone {
        [sign, h1, h2, b':', m1, m2] => {
            let ahead = i64::from(number(&[*h1, *h2]) * 3600 + number(&[*m1, *m2]) * 60);
            if *sign == b'-' { -ahead } else { ahead }
        }
        _ => 0,
    }
}

/// RFC 3339 as the original read it: upper-case `T` and `Z`, a fraction of any length, a day that
/// exists, no second 60.
pub(crate) fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((head, rest)) = bytes.split_at_checked(19) else { return false };
    let shape = head.iter().enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-',
        10 => *byte == b'T',
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    });
    if !shape {
        return false;
    }
    let (year, month, day) = (number(&head[..4]), number(&head[5..7]), number(&head[8..10]));
    let (hour, minute, second) =
        (number(&head[11..13]), number(&head[14..16]), number(&head[17..]));
    let in_range = (1..=days_in_month(year, month)).contains(&day);
    in_range && hour < 24 && minute < 60 && second < 60 && is_zone(after_fraction(rest))
}

fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'))
}

fn days_in_month(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    }
}

fn after_fraction(rest: &[u8]) -> &[u8] {
    let Some(digits) = rest.strip_prefix(b".") else { return rest };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // A point without digits is no fraction: what is returned then is no zone either.
    if count == 0 { rest } else { &digits[count..] }
}

fn is_zone(zone: &[u8]) -> bool {
    match zone {
        b"Z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            let digits = [*h1, *h2, *m1, *m2];
            digits.iter().all(u8::is_ascii_digit)
                && number(&digits[..2]) < 24
                && number(&digits[2..]) < 60
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_timestamp_is_a_point_in_time() {
        for (text, at_ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59Z", 0),
            ("0000-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00-00:01", 60_000),
            ("1970-01-01T01:00:00.25+01:00", 250),
            ("1972-02-29t00:00:00.1239999999999z", 68_169_600_123),
            ("1990-12-31T23:59:60Z", 662_688_000_000),
            ("2000-03-01T00:00:00Z", 951_868_800_000),
            ("9999-12-31T23:59:59.9999999Z", 253_402_300_799_999),
            ("9999-12-31T23:59:59-23:59", 253_402_387_139_000),
        ] {
            assert_eq!(parse_ms(text), Some(at_ms), "{text}");
        }
        assert_eq!(parse_ms("2030-02-29T00:00:00Z"), None);
    }

    proptest! {
        #[test]
        fn a_calendar_agrees(at_ms in 0_i64..253_370_000_000_000, ahead_h in -23_i8..24) {
            let zone = jiff::tz::Offset::constant(ahead_h);
            let at = jiff::Timestamp::from_millisecond(at_ms).unwrap();
            let text = at.display_with_offset(zone).to_string();
            prop_assert_eq!(parse_ms(&text), Some(at_ms as u64), "{}", text);
        }
    }
}
