//! Reading HTTP/1.1 from a socket with as little work as possible.
//!
//! The load generator shares its cores with the bus, so it does without an HTTP library: one buffer
//! a connection, `httparse` for the head, a length for the body. Both sides of a run are known, so
//! anything unusual (no length, a body in chunks) is refused rather than handled.

use std::io;
use std::ops::Range;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The largest head and body taken together: far above the largest event (1 MiB by default).
const LARGEST_BYTES: usize = 16 * 1024 * 1024;

/// Room for an ordinary request or answer; more is made when needed.
const FIRST_BYTES: usize = 4 * 1024;

const HEADERS_MAX: usize = 64;

/// What has been read from one connection and not been consumed.
#[derive(Debug)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    read: usize,
    consumed: usize,
}

/// The answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    /// The status code.
    pub(super) status: u16,
    /// Whether the connection ends with it.
    pub(super) is_last: bool,
    /// The header `Eventbus-Durability`, where there is one.
    pub(super) durability: Option<&'a [u8]>,
    /// The body, as it came.
    pub(super) body: &'a [u8],
}

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delivery<'a> {
    /// The path.
    pub(super) path: &'a str,
    /// The header `Kyma-Event-Id`, where there is one.
    pub(super) event_id: Option<&'a [u8]>,
    /// The body, as it came.
    pub(super) body: &'a [u8],
}

/// A head as far as it matters here; ranges count from its first byte.
#[derive(Debug, Default)]
struct Head {
    head_bytes: usize,
    body_bytes: usize,
    status: u16,
    is_last: bool,
    path: Range<usize>,
    event_id: Option<Range<usize>>,
    durability: Option<Range<usize>>,
}

impl Inbox {
    /// Nothing read yet.
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; FIRST_BYTES], read: 0, consumed: 0 }
    }

    /// The next answer.
    pub(super) async fn answer(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<Answer<'_>> {
        let Some(head) = self.next(stream, answer_head).await? else {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before an answer"));
        };
        let bytes = self.consumed(&head);
        Ok(Answer {
            status: head.status,
            is_last: head.is_last,
            durability: head.durability.map(|range| &bytes[range]),
            body: &bytes[head.head_bytes..],
        })
    }

    /// The next request; none when the other side has closed after the last one.
    pub(super) async fn delivery(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<Option<Delivery<'_>>> {
        let Some(head) = self.next(stream, request_head).await? else {
            return Ok(None);
        };
        let bytes = self.consumed(&head);
        Ok(Some(Delivery {
            path: std::str::from_utf8(&bytes[head.path]).unwrap_or_default(),
            event_id: head.event_id.map(|range| &bytes[range]),
            body: &bytes[head.head_bytes..],
        }))
    }

    /// What was consumed last: a head and its body.
    fn consumed(&self, head: &Head) -> &[u8] {
        &self.bytes[self.consumed - head.head_bytes - head.body_bytes..self.consumed]
    }

    /// Reads until a head and its body are there, and consumes them.
    async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        parse: impl Fn(&[u8]) -> io::Result<Option<Head>>,
    ) -> io::Result<Option<Head>> {
        self.make_room();
        let mut head = None;
        loop {
            if head.is_none() {
                head = parse(&self.bytes[..self.read])?;
            }
            let wanted_bytes =
                head.as_ref().map(|head| head.head_bytes.saturating_add(head.body_bytes));
            if wanted_bytes.unwrap_or(self.read) > LARGEST_BYTES {
                return Err(unusual("more bytes than any event has"));
            }
            if let Some(wanted_bytes) = wanted_bytes.filter(|wanted| *wanted <= self.read) {
                self.consumed = wanted_bytes;
                return Ok(head);
            }
            if self.read == self.bytes.len() {
                self.bytes.resize(self.bytes.len() * 2, 0);
            }
            match stream.read(&mut self.bytes[self.read..]).await? {
                0 if self.read == 0 => return Ok(None),
                0 => {
                    let closed = io::ErrorKind::UnexpectedEof;
                    return Err(io::Error::new(closed, "closed in the middle"));
                }
                read => self.read += read,
            }
        }
    }

    /// Forgets what was consumed. Mostly that is everything, and nothing has to be moved.
    fn make_room(&mut self) {
        self.bytes.copy_within(self.consumed..self.read, 0);
        self.read -= self.consumed;
        self.consumed = 0;
    }
}

fn answer_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = answer.parse(bytes).map_err(not_http)? else {
        return Ok(None);
    };
    let status = answer.code.unwrap_or_default();
    let (length, mut head) = of_headers(bytes, answer.headers)?;
    head.head_bytes = head_bytes;
    head.status = status;
    head.body_bytes = match status {
        // These have none, whatever the head says.
        100..=199 | 204 | 304 => 0,
        _ => length.ok_or_else(|| unusual("no Content-Length"))?,
    };
    Ok(Some(head))
}

fn request_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = request.parse(bytes).map_err(not_http)? else {
        return Ok(None);
    };
    let (length, mut head) = of_headers(bytes, request.headers)?;
    head.head_bytes = head_bytes;
    head.path = range(bytes, request.path.unwrap_or_default().as_bytes());
    head.body_bytes = length.ok_or_else(|| unusual("no Content-Length"))?;
    Ok(Some(head))
}

/// The length of the body, if one is named, and what else the headers say.
fn of_headers(bytes: &[u8], headers: &[httparse::Header<'_>]) -> io::Result<(Option<usize>, Head)> {
    let mut length = None;
    let mut head = Head::default();
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).unwrap_or_default();
            length = Some(text.parse().map_err(|_| unusual("a Content-Length not a number"))?);
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.is_last = header.value.eq_ignore_ascii_case(b"close");
        } else if header.name.eq_ignore_ascii_case("kyma-event-id") {
            head.event_id = Some(range(bytes, header.value));
        } else if header.name.eq_ignore_ascii_case("eventbus-durability") {
            head.durability = Some(range(bytes, header.value));
        }
    }
    Ok((length, head))
}

/// Where in `whole` its slice `part` lies.
fn range(whole: &[u8], part: &[u8]) -> Range<usize> {
    let from = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    from..from + part.len()
}

fn not_http(error: httparse::Error) -> io::Error {
    unusual(&format!("not HTTP/1.1 ({error})"))
}

fn unusual(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    const TWO: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nEventbus-Durability: synced\r\n\r\n\
        abcHTTP/1.1 204 No Content\r\nConnection: Close\r\n\r\n";

    #[tokio::test]
    async fn answers_are_read_however_they_are_cut() {
        for cut in 1..TWO.len() {
            let (mut near, mut far) = tokio::io::duplex(1024);
            let writing = tokio::spawn(async move {
                far.write_all(&TWO[..cut]).await.unwrap();
                tokio::task::yield_now().await;
                far.write_all(&TWO[cut..]).await.unwrap();
            });
            let mut inbox = Inbox::new();
            let first = inbox.answer(&mut near).await.unwrap();
            let durability = Some(&b"synced"[..]);
            let wanted = Answer { status: 200, is_last: false, durability, body: b"abc" };
            assert_eq!(first, wanted, "cut at {cut}");
            let second = inbox.answer(&mut near).await.unwrap();
            let wanted = Answer { status: 204, is_last: true, durability: None, body: b"" };
            assert_eq!(second, wanted, "cut at {cut}");
            writing.await.unwrap();
            assert!(inbox.answer(&mut near).await.is_err(), "closed");
        }
    }

    #[tokio::test]
    async fn a_request_larger_than_the_first_room_arrives_whole() {
        let body = "y".repeat(5 * FIRST_BYTES);
        let request = format!(
            "POST /7 HTTP/1.1\r\nKyma-Event-Id: abc\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut inbox = Inbox::new();
        let stream = &mut request.as_bytes();
        let delivery = inbox.delivery(stream).await.unwrap().unwrap();
        assert_eq!((delivery.path, delivery.event_id), ("/7", Some(&b"abc"[..])));
        assert_eq!(delivery.body, body.as_bytes());
        assert_eq!(inbox.delivery(stream).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_unusual_is_refused() {
        for answer in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
            "SMTP ready\r\n\r\n",
        ] {
            assert!(Inbox::new().answer(&mut answer.as_bytes()).await.is_err(), "{answer}");
        }
    }
}
