//! Connections between two exchanges, and the process's budget of descriptors for them.
//!
//! One least-recently-used order for the whole process, so that thousands of endpoints share the
//! idle connections by use. An idle connection is closed when a descriptor is wanted elsewhere.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventbus_core::limits;

use super::connection::Connection;
use crate::endpoint::Origin;

/// Idle connections.
pub(super) struct Pool {
    idle: Mutex<Idle>,
    idle_max: usize,
    open: Arc<AtomicUsize>,
    open_max: usize,
}

/// One descriptor of the budget, given back when dropped.
pub(super) struct Descriptor(Arc<AtomicUsize>);

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Idle {
    /// By the order in which they fell idle.
    connections: BTreeMap<u64, Pooled>,
    /// The same by origin, oldest first.
    by_origin: HashMap<Arc<Origin>, VecDeque<u64>>,
    next: u64,
}

struct Pooled {
    origin: Arc<Origin>,
    connection: Box<Connection>,
    since: Duration,
}

impl Pool {
    /// A pool for a process that may hold `open_max` connections, busy and idle.
    pub(super) fn new(open_max: usize) -> Self {
        let idle_max = limits::IDLE_CONNECTIONS.min(open_max);
        Self { idle: Mutex::default(), idle_max, open: Arc::default(), open_max }
    }

    /// A descriptor for a connection about to be opened. When the budget is used up, the connection
    /// idle for longest makes room: there is one, as attempts under way never use up the budget.
    pub(super) fn descriptor(&self) -> Descriptor {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.open_max {
            drop(self.idle().pop_oldest());
        }
        Descriptor(self.open.clone())
    }

    /// The connection to `origin` that fell idle last: the likeliest to be still open. Whether it
    /// is shows when it is used.
    pub(super) fn take(&self, origin: &Origin) -> Option<Box<Connection>> {
        self.idle().pop_newest(origin)
    }

    /// Keeps a connection that may be used again. `now` is the process's time.
    pub(super) fn put(&self, origin: &Arc<Origin>, connection: Box<Connection>, now: Duration) {
        let pooled = Pooled { origin: origin.clone(), connection, since: now };
        // What is closed is closed outside the lock.
        let crowded_out = {
            let mut idle = self.idle();
            idle.push(pooled);
            if idle.connections.len() > self.idle_max { idle.pop_oldest() } else { None }
        };
        drop(crowded_out);
    }

    /// Closes what has been idle for too long.
    pub(super) fn tidy(&self, now: Duration) {
        let is_old = |oldest: &Pooled| now.saturating_sub(oldest.since) >= limits::IDLE_TIME;
        let next = || {
            let mut idle = self.idle();
            let oldest = idle.connections.values().next();
            if oldest.is_some_and(is_old) { idle.pop_oldest() } else { None }
        };
        while let Some(old) = next() {
            drop(old);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn push(&mut self, pooled: Pooled) {
        let ticket = self.next;
        self.next += 1;
        match self.by_origin.get_mut(&pooled.origin) {
            Some(tickets) => tickets.push_back(ticket),
            None => drop(self.by_origin.insert(pooled.origin.clone(), VecDeque::from([ticket]))),
        }
        self.connections.insert(ticket, pooled);
    }

    fn pop_newest(&mut self, origin: &Origin) -> Option<Box<Connection>> {
        let tickets = self.by_origin.get_mut(origin)?;
        let ticket = tickets.pop_back()?;
        if tickets.is_empty() {
            self.by_origin.remove(origin);
        }
        self.connections.remove(&ticket).map(|pooled| pooled.connection)
    }

    fn pop_oldest(&mut self) -> Option<Box<Connection>> {
        let (_, pooled) = self.connections.pop_first()?;
        // The oldest of all is the oldest of its origin.
        if let Some(tickets) = self.by_origin.get_mut(&pooled.origin) {
            tickets.pop_front();
            if tickets.is_empty() {
                self.by_origin.remove(&pooled.origin);
            }
        }
        Some(pooled.connection)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};
    use tokio_util::either::Either;

    use super::*;

    struct Peer(TcpListener);

    impl Peer {
        async fn start() -> Self {
            Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
        }

        fn origin(&self) -> Arc<Origin> {
            let port = self.0.local_addr().unwrap().port();
            Arc::new(Origin { secure: false, host: "127.0.0.1".to_owned(), port })
        }

        /// Both ends of a connection.
        async fn connect(&self, pool: &Pool) -> (Box<Connection>, TcpStream) {
            let descriptor = pool.descriptor();
            let stream = TcpStream::connect(self.0.local_addr().unwrap()).await.unwrap();
            let mut connection = Connection::new(Either::Left(stream), descriptor);
            assert!(connection.fall_idle());
            (Box::new(connection), self.0.accept().await.unwrap().0)
        }
    }

    fn open(pool: &Pool) -> usize {
        pool.open.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn the_longest_idle_makes_room_for_a_new_connection() {
        let (one, other) = (Peer::start().await, Peer::start().await);
        let pool = Pool::new(2);
        let mut ends = Vec::new();
        for peer in [&one, &other] {
            let (connection, end) = peer.connect(&pool).await;
            pool.put(&peer.origin(), connection, Duration::ZERO);
            ends.push(end);
        }
        assert_eq!(open(&pool), 2);
        let third = pool.descriptor();
        assert_eq!(open(&pool), 2);
        assert!(pool.take(&one.origin()).is_none(), "it was idle for longest");
        let second = pool.take(&other.origin());
        assert!(second.is_some());
        drop((second, third));
        assert_eq!(open(&pool), 0);
    }

    #[tokio::test]
    async fn what_is_old_is_closed() {
        let peer = Peer::start().await;
        let pool = Pool::new(10);
        let mut ends = Vec::new();
        for second in 0..3 {
            let (connection, end) = peer.connect(&pool).await;
            pool.put(&peer.origin(), connection, Duration::from_secs(second));
            ends.push(end);
        }
        pool.tidy(limits::IDLE_TIME);
        assert_eq!(open(&pool), 2);
        pool.tidy(limits::IDLE_TIME + Duration::from_secs(2));
        assert_eq!(open(&pool), 0);
        assert!(pool.take(&peer.origin()).is_none());
    }
}
