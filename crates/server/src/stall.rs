//! Connections whose clients take nothing: what waits to be sent lies in memory for as long.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A write that makes no progress for so long ends its connection: several times what a network
/// needs to lose packets and to send them again.
const STALL: Duration = Duration::from_secs(30);

/// A connection that ends when its client takes nothing for too long.
pub(crate) struct Unstalled<S> {
    inner: S,
    /// When the write that waits is given up; none while none waits.
    ends: Option<Pin<Box<Sleep>>>,
}

impl<S: Unpin> Unstalled<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, ends: None }
    }

    /// Passes on what became of a write, unless it has waited for too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.ends = None;
            return outcome;
        }
        let ends = self.ends.get_or_insert_with(|| Box::pin(sleep(STALL)));
        ready!(ends.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(context, pieces);
        self.watch(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(context);
        self.watch(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(context);
        self.watch(context, outcome)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (client, server) = duplex(16);
        let mut server = Unstalled::new(server);
        let error = server.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_gets_everything_and_a_silent_one_stays() {
        let (mut client, server) = duplex(16);
        let mut server = Unstalled::new(server);
        let slow = tokio::spawn(async move {
            let mut taken = [0; 8];
            for _ in 0..8 {
                sleep(STALL * 2 / 3).await;
                client.read_exact(&mut taken).await.unwrap();
            }
            // Nothing is to be sent now: there is nothing to take.
            sleep(STALL * 3).await;
            client.write_all(b"more").await.unwrap();
            client
        });
        server.write_all(&[0; 64]).await.unwrap();
        let mut asked = [0; 4];
        server.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"more");
        server.write_all(&[0; 8]).await.unwrap();
        drop(slow.await.unwrap());
    }
}
