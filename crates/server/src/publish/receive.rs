//! The body of a request, within its limits.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use eventbus_core::limits;
use futures::poll;
use http::header::{CONTENT_LENGTH, EXPECT};
use http::request;
use http_body::Body;
use http_body_util::BodyExt;
use std::task::Poll;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::unread::drain;

/// A body in one piece up to this size is copied: it lies in the connection's read buffer, which
/// grows to 400 KiB and would stay as long as the event does.
const COPIED_BYTES: usize = 200 * 1024;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is larger than allowed.
    TooLarge,
    /// It did not arrive in time.
    TooSlow,
    /// The connection broke, or the framing is wrong.
    Broken,
    /// Too many bytes of other bodies are arriving.
    TooMany,
}

/// Reads the whole body, at most `max` bytes of it, within [`limits::BODY_TIME`].
///
/// A body that did not come with its head takes its bytes out of `arriving` as they come: who
/// announces much and sends nothing keeps nobody else waiting.
pub(crate) async fn body<B>(
    head: &request::Parts,
    body: B,
    max: usize,
    arriving: &Semaphore,
) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut body = body;
    let share = Share { arriving, is_late: AtomicBool::new(false) };
    let whole = async {
        if announced(head).is_some_and(|bytes| bytes > max as u64) {
            return Err(BodyError::TooLarge);
        }
        collect(&mut body, announced(head), max, &share).await
    };
    let received = {
        let mut whole = pin!(whole);
        // Most bodies came with their head: those need no timer.
        match poll!(&mut whole) {
            Poll::Ready(received) => received,
            Poll::Pending => {
                share.is_late.store(true, Ordering::Relaxed);
                tokio::time::timeout(limits::BODY_TIME, whole)
                    .await
                    .unwrap_or(Err(BodyError::TooSlow))
            }
        }
    };
    // Who asks first is told at once; others are still writing, and would not see the answer.
    if received == Err(BodyError::TooLarge) && !head.headers.contains_key(EXPECT) {
        drain(body, limits::REFUSED_BODY_BYTES, limits::REFUSED_BODY_TIME).await;
    }
    received
}

/// What a body takes of the bytes that may be arriving at once.
struct Share<'a> {
    arriving: &'a Semaphore,
    /// Is there anything of the body that did not come with its head?
    is_late: AtomicBool,
}

impl<'a> Share<'a> {
    /// Makes `held` as large as `bytes`, where the body is late.
    fn grow(&self, held: &mut Option<SemaphorePermit<'a>>, bytes: usize) -> Result<(), BodyError> {
        if !self.is_late.load(Ordering::Relaxed) {
            return Ok(());
        }
        let more = bytes.saturating_sub(held.as_ref().map_or(0, SemaphorePermit::num_permits));
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let more = self.arriving.try_acquire_many(more).map_err(|_| BodyError::TooMany)?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

fn announced(head: &request::Parts) -> Option<u64> {
    head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Joins the pieces of a body in a buffer that is as large as was announced: one that grows would
/// be copied, and end up to twice as large.
async fn collect<B>(
    body: &mut B,
    announced: Option<u64>,
    max: usize,
    share: &Share<'_>,
) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    let mut held = None;
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        let so_far = first.len().max(joined.len());
        if so_far + piece.len() > max {
            return Err(BodyError::TooLarge);
        }
        share.grow(&mut held, so_far + piece.len())?;
        if so_far == 0 {
            first = piece;
        } else {
            if joined.is_empty() {
                let whole = announced.map_or(0, |bytes| bytes as usize).min(max);
                joined.reserve(whole.max(first.len() + piece.len()));
                joined.extend_from_slice(&std::mem::take(&mut first));
            }
            joined.extend_from_slice(&piece);
        }
    }
    Ok(match joined.is_empty() {
        true if first.len() <= COPIED_BYTES => Bytes::copy_from_slice(&first),
        true => first,
        false => joined.freeze(),
    })
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::channel::mpsc::{self, UnboundedSender};
    use futures::{FutureExt, StreamExt, stream};
    use http::Request;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn head(length: usize) -> request::Parts {
        let request = Request::post("/").header(CONTENT_LENGTH, length);
        request.body(()).unwrap().into_parts().0
    }

    /// A body of which nothing has come yet.
    fn late() -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>())
    }

    /// A body whose pieces are sent by the test.
    fn sent() -> (UnboundedSender<Bytes>, impl Body<Data = Bytes, Error = Infallible> + Unpin) {
        let (sender, pieces) = mpsc::unbounded();
        (sender, StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece))).boxed()))
    }

    #[tokio::test]
    async fn slow_bodies_keep_only_slow_ones_waiting() {
        let arriving = Semaphore::new(1500);
        let piece = |bytes: usize| Bytes::from(vec![b'x'; bytes]);
        // Who announces much and sends nothing takes nothing.
        let idle_head = head(2000);
        let mut idle = pin!(body(&idle_head, late(), 2000, &arriving));
        assert!((&mut idle).now_or_never().is_none());
        assert_eq!(arriving.available_permits(), 1500);
        let (sender, slow) = sent();
        let slow_head = head(1000);
        let mut slow = pin!(body(&slow_head, slow, 2000, &arriving));
        assert!((&mut slow).now_or_never().is_none());
        for bytes in [600, 300] {
            sender.unbounded_send(piece(bytes)).unwrap();
            assert!((&mut slow).now_or_never().is_none());
        }
        assert_eq!(arriving.available_permits(), 600);
        let (other, second) = sent();
        let second_head = head(1000);
        let mut second = pin!(body(&second_head, second, 2000, &arriving));
        assert!((&mut second).now_or_never().is_none());
        other.unbounded_send(piece(601)).unwrap();
        assert_eq!((&mut second).now_or_never(), Some(Err(BodyError::TooMany)));
        let at_once = Full::new(piece(1000));
        assert!(body(&head(1000), at_once, 2000, &arriving).await.is_ok());
        sender.unbounded_send(piece(100)).unwrap();
        drop(sender);
        assert_eq!(slow.await.map(|body| body.len()), Ok(1000));
        assert_eq!(arriving.available_permits(), 1500);
    }

    #[tokio::test]
    async fn a_body_keeps_no_more_memory_than_it_has() {
        let buffer = Bytes::from(vec![b'x'; 8192]);
        let pieces = [buffer.slice(..100)].map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        let piece = StreamBody::new(stream::iter(pieces).boxed());
        let body = body(&head(100), piece, 2000, &Semaphore::new(0)).await.unwrap();
        assert_eq!(body, buffer.slice(..100));
        assert!(buffer.is_unique(), "the whole read buffer is kept");
    }

    #[tokio::test]
    async fn who_asks_first_is_told_at_once() {
        let mut asking = head(3000);
        asking.headers.insert(EXPECT, http::HeaderValue::from_static("100-continue"));
        let refused = body(&asking, late(), 2000, &Semaphore::new(0)).now_or_never();
        assert_eq!(refused, Some(Err(BodyError::TooLarge)));
    }
}
