//! What a client is still sending when its answer is there: it is read and dropped, within limits.
//!
//! A connection that is closed while bytes wait unread is reset, and the answer is lost on whoever
//! writes all before reading. So a refusal, which needs no more of the body, waits for it a little.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use eventbus_core::limits;
use http::Request;
use http::header::EXPECT;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::oneshot;

/// A request's body, which comes back if it is dropped before its end.
#[derive(Debug)]
pub struct Lent<B: Body + Unpin> {
    body: Option<B>,
    back: Option<oneshot::Sender<B>>,
}

/// Answers a request by `service`; before the answer goes out, what is left of the body is read
/// and dropped, as much as [`drain`] takes.
pub async fn answer<B, S, F>(request: Request<B>, service: S) -> F::Output
where
    B: Body<Data = Bytes> + Unpin,
    S: FnOnce(Request<Lent<B>>) -> F,
    F: Future,
{
    // Who asks first whether to send is told at once.
    let asks_first = request.headers().contains_key(EXPECT);
    let (back, mut left) = oneshot::channel();
    let lend = |body| Lent { body: Some(body), back: Some(back) };
    let answer = service(request.map(lend)).await;
    if !asks_first && let Ok(body) = left.try_recv() {
        drain(body, limits::REFUSED_BODY_BYTES, limits::REFUSED_BODY_TIME).await;
    }
    answer
}

/// Reads on and drops what comes, at most so many bytes and for so long.
pub(crate) async fn drain<B>(mut body: B, mut bytes: u64, time: Duration)
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

impl<B: Body + Unpin> Body for Lent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl<B: Body + Unpin> Drop for Lent<B> {
    fn drop(&mut self) {
        if let (Some(body), Some(back)) = (self.body.take(), self.back.take())
            && !body.is_end_stream()
        {
            // Nobody waits for it any more when the connection is gone.
            let _ = back.send(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{FutureExt, StreamExt, stream};
    use http_body_util::StreamBody;

    use super::*;

    /// Endless pieces, each counted as it is taken; of nothing more than `ready` it is known when.
    fn pieces(taken: &Arc<AtomicUsize>, ready: usize) -> impl Body<Data = Bytes> + Unpin + use<> {
        let taken = Arc::clone(taken);
        let piece = move |_| {
            taken.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; 1024 * 1024])))
        };
        StreamBody::new(stream::iter(0..ready).map(piece).chain(stream::pending()).boxed())
    }

    async fn one_piece<B: Body + Unpin>(request: Request<B>) -> bool {
        request.into_body().frame().await.is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_dropped_within_limits() {
        let taken = Arc::new(AtomicUsize::new(0));
        let limit = usize::try_from(limits::REFUSED_BODY_BYTES / 1024 / 1024).unwrap();
        assert!(answer(Request::new(pieces(&taken, 1000)), one_piece).await);
        assert_eq!(taken.swap(0, Ordering::Relaxed), 1 + limit + 1);
        // Who stops sending without an end gets the answer all the same.
        assert!(answer(Request::new(pieces(&taken, 2)), one_piece).await);
        assert_eq!(taken.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn who_asks_first_is_not_read() {
        let taken = Arc::new(AtomicUsize::new(0));
        let asking = Request::post("/").header(EXPECT, "100-continue");
        let asking = asking.body(pieces(&taken, 2)).unwrap();
        let refused = answer(asking, async |_| 417).now_or_never();
        assert_eq!((refused, taken.load(Ordering::Relaxed)), (Some(417), 0));
    }
}
