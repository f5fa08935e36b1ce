//! One connection: a request out, its answer in, one after the other.
//!
//! A connection has no task of its own: the attempt that sends a request also reads and writes. So
//! an exchange wakes one task once, and an idle connection is nothing but a value.
//!
//! Head and body go out in one call, the body from where the publisher's bytes lie.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use eventbus_core::delivery::Outcome;
use eventbus_core::wire::lines::Lines;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::task::coop;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tokio_util::io::poll_read_buf;

use super::answer::{Answer, Answered, NoAnswer};
use super::pool::Descriptor;
use super::request;
use crate::transport::Delivery;

/// A connection's bytes, plain or through TLS.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Bytes that are asked for at once: most answers are shorter.
const READ_BYTES: usize = 512;

/// Bytes that an idle connection keeps for the head of the next request: most are shorter.
const HEAD_BYTES: usize = 4096;

/// An open connection.
pub(super) struct Connection {
    stream: Stream,
    /// The head of the request; kept because the next one is about as long.
    head: Lines,
    /// What was read and is not understood yet.
    unread: Vec<u8>,
    /// Was a request sent over it before this one?
    was_used: bool,
    _descriptor: Descriptor,
}

/// An exchange that brought no answer.
#[derive(Clone, Copy)]
pub(super) struct Failure {
    pub(super) outcome: Outcome,
    /// Not one byte of the request was written: an idle connection fails so when its peer has
    /// closed it. In every other case the peer may have read the request.
    pub(super) is_unsent: bool,
}

impl Connection {
    pub(super) fn new(stream: Stream, descriptor: Descriptor) -> Self {
        let (head, unread, was_used) = (Lines::default(), Vec::new(), false);
        Self { stream, head, unread, was_used, _descriptor: descriptor }
    }

    /// Sends a request and reads the answer.
    pub(super) async fn exchange(&mut self, delivery: &Delivery<'_>) -> Result<Answered, Failure> {
        let body = request::write(delivery, &mut self.head);
        let was_idle = std::mem::replace(&mut self.was_used, true);
        let Self { stream, head, unread, .. } = self;
        let mut exchange = Exchange {
            stream,
            unwritten: [head.as_bytes(), &body],
            is_sent: false,
            is_flushed: false,
            answer: Answer::new(),
            unread,
        };
        let exchanged = poll_fn(|cx| {
            // What an idle connection's peer closed, or said unasked, is seen before the request is
            // on its way.
            if was_idle && !exchange.is_sent {
                // A task whose turn is over is told that nothing came, whatever did.
                ready!(coop::poll_proceed(cx)).made_progress();
                if !exchange.is_silent(cx) {
                    return Poll::Ready(Err(Outcome::Broken));
                }
            }
            exchange.poll(cx)
        });
        exchanged.await.map_err(|outcome| Failure { outcome, is_unsent: !exchange.is_sent })
    }

    /// Readies the connection for waiting in the pool. False when it cannot be used again.
    ///
    /// It also makes the connection forget the task that used it, for a waker keeps its task's
    /// memory. Where the task's budget is used up nothing is read, and the connection keeps the
    /// waker until it is used or closed.
    pub(super) fn fall_idle(&mut self) -> bool {
        self.unread.clear();
        self.unread.shrink_to(READ_BYTES);
        self.head.shrink_to(HEAD_BYTES);
        let mut cx = Context::from_waker(Waker::noop());
        read(&mut self.stream, &mut self.unread, &mut cx).is_pending()
    }
}

/// A request on its way, and its answer.
struct Exchange<'a> {
    stream: &'a mut Stream,
    /// What is left of head and body.
    unwritten: [&'a [u8]; 2],
    /// Was a byte written?
    is_sent: bool,
    is_flushed: bool,
    answer: Answer,
    unread: &'a mut Vec<u8>,
}

impl Exchange<'_> {
    /// Writes and reads at the same time: who answers before it has read all may read no more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answered, Outcome>> {
        let written = self.write(cx);
        loop {
            match read(self.stream, self.unread, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(self.answer.end().map_err(outcome)),
                // An answer to nothing is none.
                Poll::Ready(Ok(_)) if !self.is_sent => return Poll::Ready(Err(Outcome::Broken)),
                Poll::Ready(Ok(_)) => match self.answer.read(self.unread) {
                    Ok(Some(answered)) => {
                        let lasts = answered.lasts && matches!(written, Poll::Ready(Ok(())));
                        return Poll::Ready(Ok(Answered { lasts, ..answered }));
                    }
                    Ok(None) => {}
                    Err(no_answer) => return Poll::Ready(Err(outcome(no_answer))),
                },
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Outcome::Broken)),
                Poll::Pending => break,
            }
        }
        match written {
            Poll::Ready(Err(_)) => Poll::Ready(Err(Outcome::Broken)),
            _ => Poll::Pending,
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(&mut *self.stream);
        while self.unwritten.iter().any(|part| !part.is_empty()) {
            let parts = self.unwritten.map(IoSlice::new);
            let mut written = ready!(stream.as_mut().poll_write_vectored(cx, &parts))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_sent = true;
            for part in &mut self.unwritten {
                let of_this = written.min(part.len());
                (*part, written) = (&part[of_this..], written - of_this);
            }
        }
        if !self.is_flushed {
            ready!(stream.poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Has nothing come, not even the end? Asks the kernel: the runtime hears of it later.
    fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        // What TLS says for itself is read by this.
        if read(self.stream, self.unread, cx).is_ready() {
            return false;
        }
        let socket = match &*self.stream {
            Either::Left(plain) => plain,
            Either::Right(secure) => secure.get_ref().0,
        };
        let peeked = recv(socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        peeked.is_err_and(|error| error == Errno::WOULDBLOCK)
    }
}

/// Reads what is there, behind what is unread; 0 bytes are the end.
fn read(
    stream: &mut Stream,
    unread: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    unread.reserve(READ_BYTES);
    poll_read_buf(Pin::new(stream), cx, unread)
}

fn outcome(no_answer: NoAnswer) -> Outcome {
    match no_answer {
        NoAnswer::Bad => Outcome::BadAnswer,
        NoAnswer::Ended => Outcome::Broken,
    }
}
