//! A thread with a runtime of its own.
//!
//! Publishers and subscribers each live on one: no work moves between threads, and neither waits
//! for the other.

use std::io;
use std::thread::JoinHandle;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::cli::Fault;

/// Work on a thread of its own. Ends when it is done or dropped.
pub(super) struct Worker<T> {
    result: oneshot::Receiver<T>,
    /// Ends the thread when dropped.
    _thread: Thread,
}

struct Thread {
    end: CancellationToken,
    handle: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts the work that `make` makes on the new thread, which carries `name`.
    pub(super) fn start<F>(
        name: &str,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = T>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (give, result) = oneshot::channel();
        let end = CancellationToken::new();
        let ended = end.clone();
        let work = move || {
            runtime.block_on(async {
                if let Some(value) = ended.run_until_cancelled(make()).await {
                    // Nobody may wait for it any more.
                    let _ = give.send(value);
                }
            });
        };
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { result, _thread: Thread { end, handle: Some(handle) } })
    }

    /// Waits until the work is done.
    pub(super) async fn done(self) -> Result<T, Fault> {
        let gone = |_| Fault::Failed("a thread of the benchmark ended too early".to_owned());
        self.result.await.map_err(gone)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(handle) = self.handle.take() {
            // A panic in there has been reported by `done`.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere_and_ends_when_dropped() {
        let worker = Worker::start("a", || async { std::thread::current().id() }).unwrap();
        assert_ne!(worker.done().await.unwrap(), std::thread::current().id());
        let endless = Worker::start("b", std::future::pending::<()>).unwrap();
        drop(endless);
    }
}
