//! Text in headers, as CloudEvents writes it: percent-encoded, once.

use std::io::Write as _;

use bytes::Bytes;
use http::HeaderValue;

use crate::event::Text;

/// A header value for `text`. Shares its bytes where nothing in it has to be encoded; otherwise
/// space, `"`, `%` and every byte that is not printable ASCII become `%` and two upper-case
/// hexadecimal digits. So no text can forge a header, and each is read back exactly.
pub fn encode(text: &Text) -> HeaderValue {
    if text.bytes().all(is_plain) {
        // Printable ASCII is always a header value.
        return HeaderValue::from_maybe_shared(text.as_bytes().clone())
            .unwrap_or_else(|_| HeaderValue::from_static(""));
    }
    encode_str(text)
}

/// [`encode`], for text that is not shared.
pub fn encode_str(text: &str) -> HeaderValue {
    let mut encoded = Vec::with_capacity(text.len());
    write(text, &mut encoded);
    HeaderValue::from_maybe_shared(Bytes::from(encoded))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// [`encode`], behind what is written already.
pub(crate) fn write(text: &str, out: &mut Vec<u8>) {
    if text.bytes().all(is_plain) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for byte in text.bytes() {
        if is_plain(byte) {
            out.push(byte);
        } else {
            // Writing to memory does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// Bytes of `text` as it is written in a header.
pub(crate) fn written_bytes(text: &str) -> usize {
    text.bytes().map(|byte| if is_plain(byte) { 1 } else { 3 }).sum()
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'%')
}

/// Reads a header value: a quoted string is unquoted first, then `%` and two hexadecimal digits are
/// a byte, exactly once. Publishers who do not encode write a percent sign as it is
/// ([`decoded_bytes`]). `None`: it is not UTF-8.
pub fn decode(value: &[u8]) -> Option<Text> {
    let value = value.trim_ascii();
    let unquoted = unquoted(value);
    let value = unquoted.as_deref().unwrap_or(value);
    if memchr::memchr(b'%', value).is_none() {
        return std::str::from_utf8(value).ok().map(Text::from);
    }
    String::from_utf8(decoded_bytes(value)).ok().map(Text::from)
}

/// The bytes that `%` and two hexadecimal digits stand for; a percent sign that begins no such
/// thing stands for itself.
pub fn decoded_bytes(value: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(&byte) = value.get(at) {
        let hex = |at: usize| value.get(at).and_then(|&digit| char::from(digit).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.extend(u8::try_from(high * 16 + low));
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// What stands between quotation marks (RFC 7230), a backslash before a byte taken away; `None`
/// where it is no quoted string.
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => plain.push(*bytes.next()?),
            b'"' => return None,
            byte => plain.push(byte),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> Option<String> {
        decode(value.as_bytes()).map(|text| text.to_string())
    }

    #[test]
    fn the_examples_of_the_specification() {
        let euro = "Euro € 😀";
        assert_eq!(encode_str(euro), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        for written in
            ["Euro%20%E2%82%AC%20%F0%9F%98%80", "\"Euro %e2%82%AC \\%F0%9F%98%80\"", euro]
        {
            assert_eq!(read(written).as_deref(), Some(euro), "{written}");
        }
        assert_eq!(read("%C0%A0"), None);
        assert_eq!(decode(b"\xC0\xA0"), None);
    }

    #[test]
    fn it_is_decoded_once_and_what_is_no_code_stays() {
        for (written, meant) in [
            ("%2541", "%41"),
            ("%41%42", "AB"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("\"a\\\"b\"", "a\"b"),
            ("\"a\"b\"", "\"a\"b\""),
            ("\"", "\""),
            ("\"\"", ""),
            ("", ""),
        ] {
            assert_eq!(read(written).as_deref(), Some(meant), "{written}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_back(text in "\\PC{0,20}|[ -~]{0,20}|(?s).{0,20}") {
            for value in [encode(&text.as_str().into()), encode_str(&text)] {
                prop_assert_eq!(value.len(), written_bytes(&text));
                prop_assert!(value.as_bytes().iter().all(|byte| (b'!'..=b'~').contains(byte)));
                let meant = decode(value.as_bytes()).map(|text| text.to_string());
                prop_assert_eq!(meant.as_ref(), Some(&text));
            }
        }
    }
}
