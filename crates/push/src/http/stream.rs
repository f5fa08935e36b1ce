//! The bytes of a connection, plain or through TLS, with a count of what comes before an answer's
//! head: so endless interim answers end, which the HTTP machine alone would read for ever. And with
//! a note of whether a byte of the request went out: so it is known what may be sent again.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use eventbus_core::limits;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
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

/// What is told of an exchange's bytes. Only the task that has the connection changes it, so that
/// load and store need not be one step.
pub(super) struct Tally {
    /// How much may still be read before the head of an answer.
    before_head: AtomicUsize,
    /// Was a byte of the request written?
    is_sent: AtomicBool,
    /// Was the connection idle, and was it not looked at since?
    was_idle: AtomicBool,
}

impl Tally {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            before_head: AtomicUsize::new(BEFORE_HEAD),
            is_sent: AtomicBool::new(false),
            was_idle: AtomicBool::new(false),
        })
    }

    /// A request is to be sent, over a connection that may have been idle: its answer begins.
    pub(super) fn begin(&self, was_idle: bool) {
        self.before_head.store(BEFORE_HEAD, Ordering::Relaxed);
        self.is_sent.store(false, Ordering::Relaxed);
        self.was_idle.store(was_idle, Ordering::Relaxed);
    }

    /// The head is here: from now on only the body's own limit counts.
    pub(super) fn head_is_complete(&self) {
        self.before_head.store(usize::MAX, Ordering::Relaxed);
    }

    /// Was a byte of the request written? Then its peer may have read it.
    pub(super) fn is_sent(&self) -> bool {
        self.is_sent.load(Ordering::Relaxed)
    }

    /// Was too much read without a complete head?
    pub(super) fn is_exhausted(&self) -> bool {
        self.before_head.load(Ordering::Relaxed) == 0
    }

    fn count_read(&self, bytes: usize) {
        let left = self.before_head.load(Ordering::Relaxed);
        if left != usize::MAX {
            self.before_head.store(left.saturating_sub(bytes), Ordering::Relaxed);
        }
    }

    fn count_written(&self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.is_sent.store(true, Ordering::Relaxed);
        }
    }
}

impl Stream {
    pub(super) fn new(bytes: Bytes, tally: Arc<Tally>) -> Self {
        Self { bytes, tally }
    }

    /// Has nothing come, not even the end? Asks the kernel: the runtime hears of it later.
    fn is_silent(&self) -> bool {
        let socket = match &self.bytes {
            Either::Left(plain) => plain,
            Either::Right(secure) => secure.get_ref().0,
        };
        let peeked = recv(socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        peeked.is_err_and(|error| error == Errno::WOULDBLOCK)
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
        self.tally.count_read(buffer.filled().len() - before);
        // The HTTP machine reads before it writes: what an idle connection's peer closed, or said
        // unasked, is seen before the request is on its way.
        if self.tally.was_idle.swap(false, Ordering::Relaxed)
            && read.is_pending()
            && !self.is_silent()
        {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.bytes).poll_write(cx, bytes);
        self.tally.count_written(&written);
        written
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
        let written = Pin::new(&mut self.bytes).poll_write_vectored(cx, slices);
        self.tally.count_written(&written);
        written
    }
}
