//! A commit wakes the cursors it is for, and no others.

use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use eventbus_log::disk::FaultyDisk;

use crate::support::*;

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Count {
    fn wake_ups(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn events_of_one_type_wake_no_cursor_of_another() {
    let disk = FaultyDisk::new(1 << 30);
    let log = open_with(small(&disk), &clock()).unwrap();
    let orders = cursor(&log, "orders", "a").await;
    let others = cursor(&log, "others", "b").await;
    // Both types have been seen: neither is new to the log any more.
    for (cursor, event_type) in [(&others, "b"), (&orders, "a")] {
        fill(&log, event_type, 1, 10).await;
        cursor.settle(acks(lease(cursor, 1).await)).await.unwrap();
    }

    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut waiting = pin!(others.lease(NonZeroUsize::MIN));
    assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    for _ in 0..20 {
        fill(&log, "a", 1, 10).await;
        orders.settle(acks(lease(&orders, 1).await)).await.unwrap();
    }
    assert_eq!(count.wake_ups(), 0, "woken for events of another type");

    fill(&log, "b", 1, 10).await;
    until("its own event wakes it", || count.wake_ups() > 0).await;
    let woken = waiting.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(matches!(woken, Poll::Ready(Ok(leases)) if leases.len() == 1));
}
