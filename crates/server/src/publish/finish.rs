//! A publish is finished, also for a publisher who has gone away: its event may be stored by then,
//! and what is stored is counted and traced.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Publish;

/// The work on a request. Dropped before its end, it goes on in a task of the port's.
pub(super) struct Finished<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    publish: Arc<Publish>,
    /// `None` once it has ended.
    work: Option<Pin<Box<F>>>,
}

impl<F> Finished<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    pub(super) fn new(publish: Arc<Publish>, work: F) -> Self {
        Self { publish, work: Some(Box::pin(work)) }
    }
}

impl<F> Future for Finished<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let ended = work.as_mut().poll(context);
        if ended.is_ready() {
            self.work = None;
        }
        ended
    }
}

impl<F> Drop for Finished<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    fn drop(&mut self) {
        // Without a runtime the process is at its end.
        if let (Some(work), Ok(runtime)) = (self.work.take(), tokio::runtime::Handle::try_current())
        {
            self.publish.unfinished.spawn_on(work, &runtime);
        }
    }
}
