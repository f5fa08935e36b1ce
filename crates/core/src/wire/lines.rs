//! The header lines of a request, written as they go out.

use std::io::Write as _;

use super::percent;

/// Header lines, each with its end. Used again and again, it does not grow any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// Takes all lines away.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes all lines away, and what room they had beyond so many bytes.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.0.clear();
        self.0.shrink_to(bytes);
    }

    /// Everything written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A line that is no header: the one before them, and the empty one behind.
    pub fn line(&mut self, parts: &[&[u8]]) {
        for part in parts {
            debug_assert!(memchr::memchr2(b'\r', b'\n', part).is_none(), "two lines");
            self.0.extend_from_slice(part);
        }
        self.end();
    }

    /// A header whose value is legal as it is.
    pub fn header(&mut self, name: &str, value: &[u8]) {
        debug_assert!(memchr::memchr2(b'\r', b'\n', value).is_none(), "two lines");
        self.name(name.as_bytes());
        self.0.extend_from_slice(value);
        self.end();
    }

    /// A header whose value is a number.
    pub fn number(&mut self, name: &str, number: usize) {
        self.name(name.as_bytes());
        // Writing to memory does not fail.
        let _ = write!(self.0, "{number}");
        self.end();
    }

    /// A header with any text, percent-encoded where that is necessary.
    pub fn text(&mut self, name: &str, text: &str) {
        self.name(name.as_bytes());
        percent::write(text, &mut self.0);
        self.end();
    }

    /// A header with any text, unless it is empty.
    pub(super) fn some_text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.text(name, text);
        }
    }

    /// [`Lines::text`], where the name is a prefix and the name of an attribute: letters and
    /// digits, or there is no such header.
    pub(super) fn text_of(&mut self, prefix: &str, attribute: &str, text: &str) {
        let [first, rest @ ..] = attribute.as_bytes() else { return };
        if attribute.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            self.0.extend_from_slice(prefix.as_bytes());
            self.0.push(first.to_ascii_uppercase());
            self.name(rest);
            percent::write(text, &mut self.0);
            self.end();
        }
    }

    fn name(&mut self, name: &[u8]) {
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(b": ");
    }

    fn end(&mut self) {
        self.0.extend_from_slice(b"\r\n");
    }
}

/// May a header have this value, and is there anything in it? (RFC 9110, section 5.5.)
pub(super) fn is_value(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f)
}
