//! How a client begins: with TLS or without, with HTTP/1 or HTTP/2.

use std::time::Duration;

use eventbus_core::limits;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::tls::{HTTP2, Identity};

/// The two versions of HTTP that a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// A connection whose client has said what it speaks.
pub(crate) type Greeted = Either<TcpStream, TlsStream<TcpStream>>;

/// What a client of HTTP/2 says first, and no request of HTTP/1 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client of TLS says first (RFC 8446, section 5.1), and no request begins with.
const HANDSHAKE: u8 = 22;

/// A pause before a first line that came in pieces is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Learns what the client speaks; none when it does not begin in time, or cannot be understood.
pub(crate) async fn greet(
    stream: TcpStream,
    identity: Option<&Identity>,
) -> Option<(Version, Greeted)> {
    let greeting = async {
        match identity {
            Some(identity) if first_byte(&stream).await? == HANDSHAKE => {
                let stream = identity.accept(stream).await.ok()?;
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
                let version = if is_http2 { Version::Http2 } else { Version::Http1 };
                Some((version, Either::Right(stream)))
            }
            _ => Some((version(&stream).await?, Either::Left(stream))),
        }
    };
    timeout(limits::HEAD_TIME, greeting).await.ok().flatten()
}

async fn first_byte(stream: &TcpStream) -> Option<u8> {
    let mut first = [0];
    stream.peek(&mut first).await.ok().filter(|length| *length > 0)?;
    Some(first[0])
}

/// The version that the client begins to speak without TLS.
async fn version(stream: &TcpStream) -> Option<Version> {
    let mut begun = [0; PREFACE.len()];
    loop {
        let length = stream.peek(&mut begun).await.ok().filter(|length| *length > 0)?;
        if !PREFACE.starts_with(&begun[..length]) {
            return Some(Version::Http1);
        }
        if length == PREFACE.len() {
            return Some(Version::Http2);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
