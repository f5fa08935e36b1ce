//! One HTTP/1.1 connection, driven by the task that uses it.
//!
//! It has no task of its own: the attempt that sends a request also reads and writes. So an
//! exchange wakes one task once, and an idle connection is nothing but a value.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use eventbus_core::delivery::Outcome;
use eventbus_core::limits;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::pool::Descriptor;
use super::stream::{self, Stream, Tally};

/// The body of a request: the publisher's bytes.
pub(super) type Payload = Full<bytes::Bytes>;

/// An open connection.
pub(super) struct Connection {
    sender: http1::SendRequest<Payload>,
    driver: http1::Connection<TokioIo<Stream>, Payload>,
    /// Has the driver ended? Then it may not be polled again.
    ended: bool,
    /// Was a request sent over it before this one?
    was_used: bool,
    tally: Arc<Tally>,
    _descriptor: Descriptor,
}

/// An exchange that brought no answer.
pub(super) struct Failure {
    pub(super) outcome: Outcome,
    /// Not one byte of the request was written: an idle connection fails so when its peer has
    /// closed it. In every other case the peer may have read the request.
    pub(super) is_unsent: bool,
}

impl Connection {
    /// Begins to speak HTTP over `bytes`.
    pub(super) async fn open(
        bytes: stream::Bytes,
        descriptor: Descriptor,
    ) -> Result<Self, Outcome> {
        let tally = Tally::new();
        let io = TokioIo::new(Stream::new(bytes, tally.clone()));
        let (sender, driver) = http1::Builder::new()
            .title_case_headers(true)
            .max_buf_size(limits::ANSWER_HEAD_BYTES)
            .handshake(io)
            .await
            .map_err(|_| Outcome::Broken)?;
        let (ended, was_used) = (false, false);
        Ok(Self { sender, driver, ended, was_used, tally, _descriptor: descriptor })
    }

    /// Sends a request and reads the answer; tells its status.
    pub(super) async fn exchange(&mut self, request: Request<Payload>) -> Result<u16, Failure> {
        self.tally.begin(std::mem::replace(&mut self.was_used, true));
        let mut answer = pin!(self.sender.send_request(request));
        let answer = poll_fn(|cx| {
            let driven = self.drive(cx);
            match answer.as_mut().poll(cx) {
                Poll::Pending if driven.is_ready() => Poll::Ready(None),
                other => other.map(Some),
            }
        })
        .await;
        let answer = match answer {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => return Err(self.failure(Some(&error))),
            None => return Err(self.failure(None)),
        };
        self.tally.head_is_complete();
        let status = answer.status().as_u16();
        self.read_body(answer).await.map_err(|error| self.failure(Some(&error)))?;
        Ok(status)
    }

    /// Readies the connection for waiting in the pool. False when it cannot be used again.
    ///
    /// It also makes the connection forget the task that used it: a waker keeps its task's memory.
    pub(super) fn rest(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.drive(&mut cx).is_pending() && self.sender.is_ready()
    }

    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ended {
            // Its error, if any, reaches the answer.
            self.ended = Pin::new(&mut self.driver).poll(cx).is_ready();
        }
        if self.ended { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Reads the body of an answer up to its limit; the connection ends when there is more.
    async fn read_body(&mut self, answer: Response<Incoming>) -> Result<(), hyper::Error> {
        let mut body = answer.into_body();
        let mut left = limits::ANSWER_BYTES;
        while !body.is_end_stream() {
            if body.size_hint().lower() > left as u64 {
                self.ended = true;
                break;
            }
            let frame = poll_fn(|cx| {
                let driven = self.drive(cx);
                match Pin::new(&mut body).poll_frame(cx) {
                    Poll::Pending if driven.is_ready() => Poll::Ready(None),
                    other => other,
                }
            });
            let Some(frame) = frame.await.transpose()? else { break };
            let bytes = frame.data_ref().map_or(0, bytes::Bytes::len);
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => {
                    self.ended = true;
                    break;
                }
            }
        }
        Ok(())
    }

    fn failure(&self, error: Option<&hyper::Error>) -> Failure {
        let is_no_http = self.tally.is_exhausted() || error.is_some_and(hyper::Error::is_parse);
        Failure {
            outcome: if is_no_http { Outcome::BadAnswer } else { Outcome::Broken },
            is_unsent: !self.tally.is_sent(),
        }
    }
}
