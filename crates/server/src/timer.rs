//! The timer of one connection, used again for each request.
//!
//! hyper asks for a timer with each head that it waits for, and lets go of it when the head is
//! there: twice a request the runtime's list of timers would be locked and changed. A timer that is
//! put off before it ends changes no list.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

type Asleep = Pin<Box<tokio::time::Sleep>>;

/// Gives out one timer at a time without making it anew.
#[derive(Clone, Default)]
pub(crate) struct OneTimer {
    kept: Arc<Mutex<Option<Asleep>>>,
}

/// A timer that goes back to where it came from.
struct Lent {
    asleep: Option<Asleep>,
    kept: Arc<Mutex<Option<Asleep>>>,
}

impl Timer for OneTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let asleep = match kept {
            Some(mut asleep) => {
                asleep.as_mut().reset(deadline.into());
                asleep
            }
            None => Box::pin(tokio::time::sleep_until(deadline.into())),
        };
        Box::pin(Lent { asleep: Some(asleep), kept: self.kept.clone() })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

impl Sleep for Lent {}

impl Future for Lent {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.asleep {
            Some(asleep) => asleep.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = self.asleep.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_is_used_again_ends_when_it_is_told() {
        let timer = OneTimer::default();
        for seconds in [5, 1, 9] {
            let (began, length) = (timer.now(), Duration::from_secs(seconds));
            drop(timer.sleep(Duration::from_secs(3)));
            assert!(timer.kept.lock().unwrap().is_some(), "it is kept");
            timer.sleep(length).await;
            assert_eq!(timer.now() - began, length);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_at_once_do_not_disturb_each_other() {
        let timer = OneTimer::default();
        let began = timer.now();
        let (short, long) =
            (timer.sleep(Duration::from_secs(1)), timer.sleep(Duration::from_secs(2)));
        short.await;
        assert_eq!(timer.now() - began, Duration::from_secs(1));
        long.await;
        assert_eq!(timer.now() - began, Duration::from_secs(2));
    }
}
