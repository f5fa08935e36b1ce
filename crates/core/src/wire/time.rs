//! Points in time as publishers write them: RFC 3339.

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
pub(crate) fn parse_ms(text: &str) -> Option<u64> {
    let timestamp: jiff::Timestamp = Some(text).filter(|text| is_timestamp(text))?.parse().ok()?;
    Some(u64::try_from(timestamp.as_millisecond()).unwrap_or_default())
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
