//! The answer to a request, read as its bytes come: the status, and where it ends (RFC 9112). Pure.
//!
//! Nothing of the body is kept. What comes before the head is complete is counted, so that endless
//! interim answers end.

use std::mem::MaybeUninit;

use eventbus_core::limits;
use http::StatusCode;
use httparse::{Header, ParserConfig, Response, Status};

use super::chunks::Chunks;

/// Bytes that may come before the head of an answer is complete: a head, and as much again of
/// interim answers before it.
const BEFORE_HEAD: usize = 2 * limits::ANSWER_HEAD_BYTES;

/// Lines that a head may have.
const HEADERS: usize = 100;

/// An answer as far as it is known.
#[derive(Debug)]
pub(super) struct Answer {
    head: Option<Head>,
    /// Bytes that were read of the head, and of what came before it.
    before_head: usize,
    /// Bytes of the body that may still come.
    left: usize,
}

#[derive(Debug)]
struct Head {
    status: u16,
    body: Body,
    /// May the connection be used again when the body has ended?
    lasts: bool,
}

/// Where a body ends.
#[derive(Debug)]
enum Body {
    /// After so many bytes.
    Length(u64),
    Chunked(Chunks),
    /// With the connection.
    UntilEnd,
}

/// An answer that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) status: u16,
    /// May the connection be used again?
    pub(super) lasts: bool,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// It is not HTTP, or more than is read.
    Bad,
    /// The connection ended before it.
    Ended,
}

impl Answer {
    pub(super) fn new() -> Self {
        Self { head: None, before_head: 0, left: limits::ANSWER_BYTES }
    }

    /// Takes in what `unread` has more than before, and leaves there what it must see again.
    /// `None`: more is to come.
    pub(super) fn read(&mut self, unread: &mut Vec<u8>) -> Result<Option<Answered>, NoAnswer> {
        let mut from = 0;
        while self.head.is_none() {
            let rest = &unread[from..];
            match head(rest)? {
                Some((length, head)) => {
                    from += length;
                    self.before_head += length;
                    // Status 101 ends HTTP: no other answer follows it.
                    let is_interim = (100..200).contains(&head.status) && head.status != 101;
                    self.head = (!is_interim).then_some(head);
                }
                None if rest.len() >= limits::ANSWER_HEAD_BYTES => return Err(NoAnswer::Bad),
                None => break,
            }
            if self.before_head >= BEFORE_HEAD {
                return Err(NoAnswer::Bad);
            }
        }
        let Some(head) = &mut self.head else {
            unread.drain(..from);
            return Ok(None);
        };
        let bytes = &unread[from..];
        let (read, is_complete) = match &mut head.body {
            Body::Length(length) => {
                let read = bytes.len().min(usize::try_from(*length).unwrap_or(usize::MAX));
                *length -= read as u64;
                (read, *length == 0)
            }
            // No more than is read, however it comes.
            Body::Chunked(chunks) => {
                let bytes = &bytes[..bytes.len().min(self.left)];
                chunks.read(bytes).ok_or(NoAnswer::Bad)?
            }
            Body::UntilEnd => (bytes.len(), false),
        };
        // What follows was not asked for.
        let is_clean = read == bytes.len();
        unread.clear();
        self.left = self.left.saturating_sub(read);
        let is_too_long = match head.body {
            Body::Length(length) => length > self.left as u64,
            _ => self.left == 0,
        };
        let Head { status, lasts, .. } = *head;
        Ok(match (is_complete, is_too_long) {
            (true, _) => Some(Answered { status, lasts: lasts && is_clean }),
            // The status counts, whatever else it says.
            (false, true) => Some(Answered { status, lasts: false }),
            (false, false) => None,
        })
    }

    /// What the end of the connection makes of it.
    pub(super) fn end(&self) -> Result<Answered, NoAnswer> {
        match self.head {
            Some(Head { status, body: Body::UntilEnd, .. }) => {
                Ok(Answered { status, lasts: false })
            }
            _ => Err(NoAnswer::Ended),
        }
    }
}

/// Reads a head, if it is complete; tells its length, too.
fn head(bytes: &[u8]) -> Result<Option<(usize, Head)>, NoAnswer> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS];
    let mut response = Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut headers,
    );
    let Status::Complete(length) = parsed.map_err(|_| NoAnswer::Bad)? else { return Ok(None) };
    if length > limits::ANSWER_HEAD_BYTES {
        return Err(NoAnswer::Bad);
    }
    let (Some(status), Some(version)) = (response.code, response.version) else {
        return Err(NoAnswer::Bad);
    };
    let status = StatusCode::from_u16(status).map_err(|_| NoAnswer::Bad)?.as_u16();
    Ok(Some((length, framed(status, version, response.headers)?)))
}

/// What the headers say of the body, and of the connection.
fn framed(status: u16, minor_version: u8, headers: &[Header<'_>]) -> Result<Head, NoAnswer> {
    let (mut length, mut encoding) = (None, None);
    let (mut closes, mut lasts) = (false, minor_version >= 1);
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            for part in tokens(header.value) {
                let part = number(part).ok_or(NoAnswer::Bad)?;
                if length.replace(part).is_some_and(|before| before != part) {
                    return Err(NoAnswer::Bad);
                }
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            encoding = tokens(header.value).last().or(encoding);
        } else if header.name.eq_ignore_ascii_case("connection") {
            for option in tokens(header.value) {
                closes |= option.eq_ignore_ascii_case(b"close");
                lasts |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
    }
    let (body, has_end) = match (status, encoding, length) {
        (101, ..) => (Body::Length(0), false),
        // What it announces all the same may be on its way.
        (204, ..) => (Body::Length(0), encoding.is_none() && length.unwrap_or_default() == 0),
        (304, ..) => (Body::Length(0), encoding.is_none()),
        (_, Some(encoding), _) if encoding.eq_ignore_ascii_case(b"chunked") => {
            // With a length, too, or in HTTP/1.0, somebody on the way may have understood it
            // otherwise.
            (Body::Chunked(Chunks::default()), length.is_none() && minor_version >= 1)
        }
        (_, None, Some(length)) => (Body::Length(length), true),
        _ => (Body::UntilEnd, false),
    };
    Ok(Head { status, body, lasts: lasts && !closes && has_end })
}

/// The parts of a list.
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Digits alone: neither a sign nor nothing.
fn number(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads an answer in pieces of `size` bytes, and then the end.
    fn read(bytes: &[u8], size: usize) -> Result<Answered, NoAnswer> {
        let (mut answer, mut unread) = (Answer::new(), Vec::new());
        for piece in bytes.chunks(size) {
            unread.extend_from_slice(piece);
            if let Some(answered) = answer.read(&mut unread)? {
                return Ok(answered);
            }
        }
        answer.end()
    }

    fn answered(status: u16, lasts: bool) -> Result<Answered, NoAnswer> {
        Ok(Answered { status, lasts })
    }

    #[test]
    fn an_answer_ends_where_its_head_says() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", answered(200, true)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", answered(200, true)),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\n\
                 ok",
                answered(200, false),
            ),
            ("HTTP/1.1 204 No\r\n\r\n", answered(204, true)),
            ("HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n", answered(204, false)),
            ("HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", answered(204, false)),
            (
                "HTTP/1.0 200 OK\r\nConnection: close, keep-alive\r\nContent-Length: 0\r\n\r\n",
                answered(200, false),
            ),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n\
                 0\r\n\r\n",
                answered(200, false),
            ),
            ("HTTP/1.1 304 \r\nContent-Length: 7\r\n\r\n", answered(304, true)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", answered(200, false)),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
                answered(200, true),
            ),
            ("HTTP/1.1 200 OK\r\n\r\nuntil the end", answered(200, false)),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx", answered(200, false)),
            (
                "HTTP/1.1 500 No\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n\
                 3;a=b\r\nxyz\r\n0\r\nT: u\r\n\r\n",
                answered(500, true),
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n\
                 0\r\n\r\n",
                answered(200, false),
            ),
            (
                "HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 102 \r\nX: y\r\n\r\n\
                 HTTP/1.1 201 \r\nContent-Length: 0\r\n\r\n",
                answered(201, true),
            ),
            ("HTTP/1.1 101 Switch\r\n\r\n", answered(101, false)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", answered(200, false)),
        ] {
            for size in [1, 2, 7, answer.len()] {
                assert_eq!(read(answer.as_bytes(), size), expected, "{answer}");
            }
        }
    }

    #[test]
    fn what_follows_an_answer_ends_the_connection() {
        for body in
            ["Content-Length: 2\r\n\r\nokHTTP/1.1", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nx"]
        {
            let bytes = format!("HTTP/1.1 200 OK\r\n{body}");
            assert_eq!(read(bytes.as_bytes(), bytes.len()), answered(200, false));
        }
    }

    macro_rules! chunked {
        ($body:literal) => {
            concat!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", $body)
        };
    }

    #[test]
    fn what_is_no_answer_is_told() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", NoAnswer::Bad),
            ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", NoAnswer::Bad),
            ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok", NoAnswer::Bad),
            ("HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n", NoAnswer::Bad),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", NoAnswer::Bad),
            ("ICY 200 OK\r\n\r\n", NoAnswer::Bad),
            (chunked!("3\nabc\r\n"), NoAnswer::Bad),
            (chunked!("3;a\nabc\r\n"), NoAnswer::Bad),
            (chunked!("3;\ra\r\nabc\r\n"), NoAnswer::Bad),
            (chunked!("3 3\r\nabc\r\n"), NoAnswer::Bad),
            (chunked!("3\r\nabc\n"), NoAnswer::Bad),
            (chunked!("0\r\n\n"), NoAnswer::Bad),
            (chunked!("0\r\nT: u\n\r\n"), NoAnswer::Bad),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", NoAnswer::Ended),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", NoAnswer::Ended),
            ("HTTP/1.1 200 O", NoAnswer::Ended),
            ("", NoAnswer::Ended),
        ] {
            assert_eq!(read(answer.as_bytes(), 3), Err(expected), "{answer}");
        }
    }

    #[test]
    fn what_has_no_end_is_given_up() {
        let endless = |start: &str, more: &str| {
            let bytes = start.to_owned() + &more.repeat(BEFORE_HEAD / more.len() + 1);
            read(bytes.as_bytes(), 1000)
        };
        assert_eq!(endless("", "HTTP/1.1 103 Hints\r\nA: b\r\n\r\n"), Err(NoAnswer::Bad));
        assert_eq!(endless("HTTP/1.1 200 OK\r\nX: ", "x"), Err(NoAnswer::Bad));
        let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(17_000));
        assert_eq!(read(head.as_bytes(), head.len()), Err(NoAnswer::Bad));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(endless(chunked, "1\r\nx\r\n"), answered(200, false));
        assert_eq!(endless(&format!("{chunked}1;"), "x"), answered(200, false));
        assert_eq!(endless(&format!("{chunked}0\r\n"), "A: b\r\n"), answered(200, false));
    }

    /// What answers are made of, right and wrong.
    const PARTS: [&str; 24] = [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 500 No\r\n",
        "HTTP/1.1 100 Go\r\n",
        "HTTP/1.1 204 \r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 3, 4\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Connection: close\r\n",
        "X:\t\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        "abc",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "0\r\nT: u\r\n\r\n",
        "ffffffffffffffff\r\n",
        "fffffffffffffffff",
        ";",
        "\0",
        "\u{ff}",
    ];

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_an_answer_comes(
            parts in proptest::collection::vec(0..PARTS.len(), 0..12),
            size in 1..40_usize,
        ) {
            let bytes: String = parts.into_iter().map(|part| PARTS[part]).collect();
            let whole = read(bytes.as_bytes(), bytes.len().max(1)).map(|answered| answered.status);
            let pieces = read(bytes.as_bytes(), size).map(|answered| answered.status);
            prop_assert_eq!(whole, pieces, "{:?}", bytes);
        }
    }
}
