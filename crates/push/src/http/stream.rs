//! The bytes of a connection, plain or through TLS, with a count of what comes before an answer's
//! head: so endless interim answers end, which the HTTP machine alone would read for ever.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use eventbus_core::limits;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// A connection's bytes.
pub(super) type Bytes = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Bytes that may come before the head of an answer is complete: a head, and as much again of
/// interim answers before it.
const BEFORE_HEAD: usize = 2 * limits::ANSWER_HEAD_BYTES;

/// A connection's bytes, counted.
pub(super) struct Stream {
    bytes: Bytes,
    tally: Arc<Tally>,
}

/// How much may still be read before the head of an answer.
pub(super) struct Tally(AtomicUsize);

impl Tally {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(BEFORE_HEAD)))
    }

    /// A request is sent: its answer begins.
    pub(super) fn begin(&self) {
        self.0.store(BEFORE_HEAD, Ordering::Relaxed);
    }

    /// The head is here: from now on only the body's own limit counts.
    pub(super) fn head_is_complete(&self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }

    /// Has nothing been read since the request was sent?
    pub(super) fn is_untouched(&self) -> bool {
        self.0.load(Ordering::Relaxed) == BEFORE_HEAD
    }

    /// Was too much read without a complete head?
    pub(super) fn is_exhausted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn count(&self, bytes: usize) {
        // Only the task that reads the connection counts: load and store need not be one step.
        let left = self.0.load(Ordering::Relaxed);
        if left != usize::MAX {
            self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
        }
    }
}

impl Stream {
    pub(super) fn new(bytes: Bytes, tally: Arc<Tally>) -> Self {
        Self { bytes, tally }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.tally.is_exhausted() {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.bytes).poll_read(cx, buffer);
        self.tally.count(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.bytes.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write_vectored(cx, slices)
    }
}
