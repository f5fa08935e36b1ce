//! The body of a request, within its limits.

use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use eventbus_core::limits;
use futures::poll;
use http::header::CONTENT_LENGTH;
use http::request;
use http_body::Body;
use http_body_util::BodyExt;
use std::task::Poll;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is larger than allowed.
    TooLarge,
    /// It did not arrive in time.
    TooSlow,
    /// The connection broke, or the framing is wrong.
    Broken,
}

/// Reads the whole body, at most `max` bytes of it, within [`limits::BODY_TIME`].
///
/// A body in one piece is not copied.
pub(crate) async fn body<B>(head: &request::Parts, body: B, max: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut body = body;
    let whole = async {
        if announced(head).is_some_and(|bytes| bytes > max as u64) {
            return Err(BodyError::TooLarge);
        }
        collect(&mut body, max).await
    };
    let received = {
        let mut whole = pin!(whole);
        // Most bodies came with their head: those need no timer.
        match poll!(&mut whole) {
            Poll::Ready(received) => received,
            Poll::Pending => tokio::time::timeout(limits::BODY_TIME, whole)
                .await
                .unwrap_or(Err(BodyError::TooSlow)),
        }
    };
    if received == Err(BodyError::TooLarge) {
        drain(body, limits::REFUSED_BODY_BYTES, limits::REFUSED_BODY_TIME).await;
    }
    received
}

fn announced(head: &request::Parts) -> Option<u64> {
    head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn collect<B>(body: &mut B, max: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        let so_far = first.len().max(joined.len());
        if so_far + piece.len() > max {
            return Err(BodyError::TooLarge);
        }
        if so_far == 0 {
            first = piece;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&piece);
        }
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}

/// Reads on and drops what comes: a client that is still writing would not see the answer if the
/// connection were closed before.
async fn drain<B>(mut body: B, mut bytes: u64, time: Duration)
where
    B: Body<Data = Bytes> + Unpin,
{
    let drained = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            if length > bytes {
                break;
            }
            bytes -= length;
        }
    };
    // Whether it came to its end or not, the answer is the same.
    let _ = tokio::time::timeout(time, drained).await;
}
