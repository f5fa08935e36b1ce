//! Reading HTTP/1.1 from a socket with as little work as possible.
//!
//! The load generator shares its cores with the bus, so it does without an HTTP library: one buffer
//! a connection, `httparse` for the head, a length or chunks for the body. What no bus does (a body
//! that ends with its connection) is refused.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    /// The status code.
    pub(super) status: u16,
    /// Whether the connection ends with it.
    pub(super) is_last: bool,
    /// The header `Eventbus-Durability`, where there is one.
    pub(super) durability: Option<&'a [u8]>,
    /// The header `Eventbus-Status`, where there is one.
    pub(super) outcome: Option<&'a [u8]>,
    /// The header `Eventbus-Event-Id`, where there is one.
    pub(super) event_id: Option<&'a [u8]>,
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
    /// The header `ce-id`, where there is one.
    pub(super) ce_id: Option<&'a [u8]>,
    /// The body, as it came; chunks are put together.
    pub(super) body: &'a [u8],
}

/// A head as far as it matters here; ranges count from its first byte.
#[derive(Debug, Default)]
struct Head {
    head_bytes: usize,
    /// None when the body comes in chunks that are not all there yet.
    body_bytes: Option<usize>,
    status: u16,
    is_last: bool,
    path: Range<usize>,
    event_id: Option<Range<usize>>,
    ce_id: Option<Range<usize>>,
    durability: Option<Range<usize>>,
    outcome: Option<Range<usize>>,
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
        Ok(Answer {
            status: head.status,
            is_last: head.is_last,
            durability: head.durability.clone().map(|range| &self.bytes[range]),
            outcome: head.outcome.clone().map(|range| &self.bytes[range]),
            event_id: head.event_id.clone().map(|range| &self.bytes[range]),
            body: self.body(&head),
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
        Ok(Some(Delivery {
            path: std::str::from_utf8(&self.bytes[head.path.clone()]).unwrap_or_default(),
            event_id: head.event_id.clone().map(|range| &self.bytes[range]),
            ce_id: head.ce_id.clone().map(|range| &self.bytes[range]),
            body: self.body(&head),
        }))
    }

    /// The body of what was consumed last. Its head is at the beginning.
    fn body(&self, head: &Head) -> &[u8] {
        &self.bytes[head.head_bytes..head.head_bytes + head.body_bytes.unwrap_or_default()]
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
            let mut wanted_bytes = None;
            if let Some(head) = &mut head {
                wanted_bytes = match head.body_bytes {
                    Some(bytes) => Some(head.head_bytes.saturating_add(bytes)),
                    None => self.put_together(head)?,
                };
            }
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

    /// Puts the chunks of a body together, once all are there; returns where they ended.
    fn put_together(&mut self, head: &mut Head) -> io::Result<Option<usize>> {
        let Some((chunks, end)) = chunks(&self.bytes[head.head_bytes..self.read])? else {
            return Ok(None);
        };
        let mut to = head.head_bytes;
        for chunk in chunks {
            let from = head.head_bytes + chunk.start;
            self.bytes.copy_within(from..from + chunk.len(), to);
            to += chunk.len();
        }
        head.body_bytes = Some(to - head.head_bytes);
        Ok(Some(head.head_bytes + end))
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
    // These have no body, whatever the head says.
    let may_have_body = !matches!(status, 100..=199 | 204 | 304);
    let head = of_headers(bytes, answer.headers, may_have_body)?;
    Ok(Some(Head { status, head_bytes, ..head }))
}

fn request_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = request.parse(bytes).map_err(not_http)? else {
        return Ok(None);
    };
    let head = of_headers(bytes, request.headers, true)?;
    let path = range(bytes, request.path.unwrap_or_default().as_bytes());
    Ok(Some(Head { path, head_bytes, ..head }))
}

/// What the headers of a head say.
fn of_headers(
    bytes: &[u8],
    headers: &[httparse::Header<'_>],
    may_have_body: bool,
) -> io::Result<Head> {
    let (mut length, mut is_chunked) = (None, false);
    let mut head = Head::default();
    for header in headers {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let text = std::str::from_utf8(header.value).unwrap_or_default();
            length = Some(text.parse().map_err(|_| unusual("a Content-Length not a number"))?);
        } else if is("transfer-encoding") {
            is_chunked = header.value.eq_ignore_ascii_case(b"chunked");
        } else if is("connection") {
            head.is_last = header.value.eq_ignore_ascii_case(b"close");
        } else if is("kyma-event-id") || is("eventbus-event-id") {
            head.event_id = Some(range(bytes, header.value));
        } else if is("ce-id") {
            head.ce_id = Some(range(bytes, header.value));
        } else if is("eventbus-durability") {
            head.durability = Some(range(bytes, header.value));
        } else if is("eventbus-status") {
            head.outcome = Some(range(bytes, header.value));
        }
    }
    head.body_bytes = match length {
        _ if !may_have_body => Some(0),
        _ if is_chunked => None,
        Some(length) => Some(length),
        None => return Err(unusual("no Content-Length")),
    };
    Ok(head)
}

/// Where the chunks of a body are, and where it ends; none while it has not come whole.
fn chunks(bytes: &[u8]) -> io::Result<Option<(Vec<Range<usize>>, usize)>> {
    const LINE_END: usize = 2;
    let (mut at, mut found) = (0, Vec::new());
    loop {
        let size = httparse::parse_chunk_size(bytes.get(at..).unwrap_or_default());
        let size = size.map_err(|_| unusual("a chunk without a size"))?;
        let httparse::Status::Complete((head_bytes, size)) = size else {
            return Ok(None);
        };
        let from = at + head_bytes;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        at = from.saturating_add(size).saturating_add(LINE_END);
        if size > LARGEST_BYTES {
            return Err(unusual("more bytes than any event has"));
        }
        if at > bytes.len() {
            return Ok(None);
        }
        if size == 0 {
            // Trailers are announced, and nobody asked for any.
            return match &bytes[from..at] {
                b"\r\n" => Ok(Some((found, at))),
                _ => Err(unusual("trailers")),
            };
        }
        found.push(from..from + size);
    }
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
            let nothing = Answer {
                status: 204,
                is_last: true,
                durability: None,
                outcome: None,
                event_id: None,
                body: b"",
            };
            let wanted =
                Answer { status: 200, is_last: false, durability, body: b"abc", ..nothing };
            assert_eq!(first, wanted, "cut at {cut}");
            let second = inbox.answer(&mut near).await.unwrap();
            assert_eq!(second, nothing, "cut at {cut}");
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
    async fn chunks_are_put_together_however_they_are_cut() {
        let two = b"POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\nce-id: 7\r\n\r\n\
            3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n\
            POST /2 HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi";
        for cut in 1..two.len() {
            let mut stream = two[..cut].chain(&two[cut..]);
            let mut inbox = Inbox::new();
            let first = inbox.delivery(&mut stream).await.unwrap().unwrap();
            assert_eq!((first.path, first.body), ("/1", &b"abcdefg"[..]), "cut at {cut}");
            assert_eq!(first.ce_id, Some(&b"7"[..]));
            let second = inbox.delivery(&mut stream).await.unwrap().unwrap();
            assert_eq!((second.path, second.body), ("/2", &b"hi"[..]), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn what_is_unusual_is_refused() {
        for answer in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
            "SMTP ready\r\n\r\n",
        ] {
            assert!(Inbox::new().answer(&mut answer.as_bytes()).await.is_err(), "{answer}");
        }
    }
}
