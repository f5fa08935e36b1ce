//! Host names to addresses: remembered for seconds, one lookup a host at a time, slow ones apart.
//!
//! The system's lookup blocks and cannot be interrupted. It runs on threads of its own, which exist
//! while there is something to look up: a name server that hangs then holds neither the runtime's
//! blocking threads, which others need, nor the end of the process. Hosts that were slow before are
//! looked up by a few threads set apart for them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use eventbus_core::{Clock, limits};
use tokio::sync::watch;

/// Addresses of a host, in the order in which they are to be tried.
pub(super) type Addresses = Arc<[IpAddr]>;

/// Looks host names up.
pub(super) struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    look_up: fn(&str) -> io::Result<Vec<IpAddr>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    hosts: HashMap<Arc<str>, Host>,
    /// Hosts in the order in which they were remembered.
    order: VecDeque<Arc<str>>,
    quick: Lane,
    slow: Lane,
}

/// Threads that look up, and hosts that wait for one.
#[derive(Default)]
struct Lane {
    threads: usize,
    queue: VecDeque<Arc<str>>,
}

struct Host {
    /// `None` while the lookup runs; no addresses when it found none.
    found: watch::Receiver<Option<Addresses>>,
    /// Taken by the thread that looks up.
    finder: Option<watch::Sender<Option<Addresses>>>,
    good_until: Duration,
    is_slow: bool,
}

impl Resolver {
    /// A resolver that asks the system.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with(clock, |host| {
            Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
        })
    }

    fn with(clock: Arc<dyn Clock>, look_up: fn(&str) -> io::Result<Vec<IpAddr>>) -> Self {
        Self { shared: Arc::new(Shared { clock, look_up, state: Mutex::default() }) }
    }

    /// The addresses of `host`; `None` when it has none, or cannot be found.
    pub(super) async fn resolve(&self, host: &str) -> Option<Addresses> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Some(Arc::new([address]));
        }
        let mut found = self.shared.find(host);
        let addresses = found.wait_for(Option::is_some).await.ok()?.clone()?;
        (!addresses.is_empty()).then_some(addresses)
    }
}

impl Shared {
    /// What is known of `host`, or will be.
    fn find(self: &Arc<Self>, host: &str) -> watch::Receiver<Option<Addresses>> {
        let now = self.clock.elapsed();
        let mut state = self.state();
        if let Some(known) = state.hosts.get(host) {
            let is_under_way = known.found.borrow().is_none() && known.found.has_changed().is_ok();
            if is_under_way || now < known.good_until {
                return known.found.clone();
            }
        }
        let (finder, found) = watch::channel(None);
        let (host, is_slow) = state.remember(host);
        let waiting = Host {
            found: found.clone(),
            finder: Some(finder),
            good_until: Duration::ZERO,
            is_slow,
        };
        state.hosts.insert(host.clone(), waiting);
        let (lane, threads_max) = state.lane(is_slow);
        lane.queue.push_back(host);
        if lane.threads < threads_max {
            lane.threads += 1;
            let shared = self.clone();
            let thread = thread::Builder::new().name("dns".to_owned());
            if thread.spawn(move || shared.look_up_all(is_slow)).is_err() {
                // No thread is to be had: who waits is told that nothing was found.
                let (lane, _) = state.lane(is_slow);
                lane.threads -= 1;
                if lane.threads == 0 {
                    for host in std::mem::take(&mut lane.queue) {
                        state.hosts.remove(&host);
                    }
                }
            }
        }
        found
    }

    /// Looks up what waits in a lane, until nothing does.
    fn look_up_all(&self, is_slow: bool) {
        while let Some((host, finder)) = self.next(is_slow) {
            let began = self.clock.elapsed();
            let addresses = (self.look_up)(&host).unwrap_or_default();
            let ended = self.clock.elapsed();
            if let Some(host) = self.state().hosts.get_mut(&host) {
                host.is_slow = ended.saturating_sub(began) > limits::DNS_SLOW;
                host.good_until = ended + limits::DNS_CACHE_TIME;
            }
            // Nobody may be waiting any more.
            let _ = finder.send(Some(addresses.into()));
        }
    }

    fn next(&self, is_slow: bool) -> Option<(Arc<str>, watch::Sender<Option<Addresses>>)> {
        let mut state = self.state();
        loop {
            let (lane, _) = state.lane(is_slow);
            let Some(host) = lane.queue.pop_front() else {
                lane.threads -= 1;
                return None;
            };
            // It may have been forgotten for lack of room; then who waited was told so.
            if let Some(finder) = state.hosts.get_mut(&host).and_then(|host| host.finder.take()) {
                return Some((host, finder));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lane(&mut self, is_slow: bool) -> (&mut Lane, usize) {
        if is_slow {
            (&mut self.slow, limits::DNS_SLOW_THREADS)
        } else {
            (&mut self.quick, limits::DNS_THREADS)
        }
    }

    /// Makes room for `host`; tells its shared name, and whether it was slow last time.
    fn remember(&mut self, host: &str) -> (Arc<str>, bool) {
        if let Some((name, known)) = self.hosts.get_key_value(host) {
            return (name.clone(), known.is_slow);
        }
        while self.order.len() >= limits::DNS_HOSTS {
            if let Some(oldest) = self.order.pop_front() {
                self.hosts.remove(&oldest);
            }
        }
        let name: Arc<str> = host.into();
        self.order.push_back(name.clone());
        (name, false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use eventbus_core::testing::ManualClock;

    use super::*;

    #[tokio::test]
    async fn an_address_needs_no_lookup() {
        let never: fn(&str) -> io::Result<Vec<IpAddr>> = |_| panic!("looked up");
        let resolver = Resolver::with(Arc::new(ManualClock::at(0)), never);
        assert_eq!(*resolver.resolve("::1").await.unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn a_host_is_looked_up_once_until_its_time_is_over() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        let clock = Arc::new(ManualClock::at(0));
        let resolver = Resolver::with(clock.clone(), |_| {
            LOOKUPS.fetch_add(1, Ordering::SeqCst);
            Ok(vec![[127, 0, 0, 1].into()])
        });
        let many = futures::future::join_all((0..100).map(|_| resolver.resolve("a"))).await;
        assert!(many.iter().all(Option::is_some));
        assert_eq!(LOOKUPS.load(Ordering::SeqCst), 1);
        clock.advance(limits::DNS_CACHE_TIME);
        assert!(resolver.resolve("a").await.is_some());
        assert_eq!(LOOKUPS.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_host_that_is_not_found_has_no_addresses() {
        let clock = Arc::new(ManualClock::at(0));
        let resolver = Resolver::with(clock, |host| match host {
            "empty" => Ok(Vec::new()),
            _ => Err(io::ErrorKind::NotFound.into()),
        });
        assert_eq!(resolver.resolve("empty").await, None);
        assert_eq!(resolver.resolve("unknown").await, None);
    }

    #[expect(clippy::await_holding_lock, reason = "the lookups that hang are on other threads")]
    #[tokio::test]
    async fn hosts_that_hang_are_set_apart() {
        static GATE: Mutex<()> = Mutex::new(());
        static HANGING: AtomicUsize = AtomicUsize::new(0);
        let clock = Arc::new(ManualClock::at(0));
        let resolver = Resolver::with(clock.clone(), |host| {
            if host.starts_with("hangs") {
                HANGING.fetch_add(1, Ordering::SeqCst);
                drop(GATE.lock());
            }
            Ok(vec![[127, 0, 0, 1].into()])
        });
        let hosts: Vec<_> = (0..limits::DNS_THREADS - 1).map(|n| format!("hangs{n}")).collect();

        let closed = GATE.lock().unwrap();
        let lookups: Vec<_> = hosts.iter().map(|host| resolver.shared.find(host)).collect();
        while HANGING.load(Ordering::SeqCst) < hosts.len() {
            tokio::task::yield_now().await;
        }
        assert!(resolver.resolve("healthy").await.is_some(), "one thread is left");
        clock.advance(limits::DNS_SLOW * 2);
        drop(closed);
        for mut lookup in lookups {
            lookup.wait_for(Option::is_some).await.unwrap();
        }

        clock.advance(limits::DNS_CACHE_TIME);
        let closed = GATE.lock().unwrap();
        let _lookups: Vec<_> = hosts.iter().map(|host| resolver.shared.find(host)).collect();
        assert_eq!(resolver.shared.state().slow.threads, limits::DNS_SLOW_THREADS);
        let healthy = (0..limits::DNS_THREADS).map(|n| format!("healthy{n}"));
        for host in healthy {
            assert!(resolver.resolve(&host).await.is_some());
        }
        drop(closed);
    }

    #[test]
    fn no_more_hosts_are_remembered_than_there_is_room_for() {
        let mut state = State::default();
        for number in 0..limits::DNS_HOSTS + 10 {
            let (name, _) = state.remember(&format!("host{number}"));
            let (finder, found) = watch::channel(None);
            let finder = Some(finder);
            let host = Host { found, finder, good_until: Duration::ZERO, is_slow: false };
            state.hosts.insert(name, host);
        }
        assert_eq!(state.hosts.len(), limits::DNS_HOSTS);
        assert_eq!(state.order.len(), limits::DNS_HOSTS);
        assert!(!state.hosts.contains_key("host9"));
    }
}
