//! JetStream passes the suite that says what a broker is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventbus_core::conformance::{Harness, Limits, Traits};
use eventbus_core::testing::SeededEntropy;
use eventbus_core::{Broker, Clock};
use eventbus_nats::{Nats, NatsConfig};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Runtime;

use crate::server::{NatsServer, Options};
use crate::world::{MachineClock, machine_clock, unique};

/// A server, and the processes of the bus that use it. Each has a runtime of its own, so that it
/// can be ended as a process is.
struct JetStream {
    server: NatsServer,
    processes: Mutex<Vec<(Arc<dyn Broker>, Runtime)>>,
    clock: Arc<MachineClock>,
}

async fn jetstream() -> Option<JetStream> {
    let server = NatsServer::start(Options::default()).await?;
    let clock = machine_clock();
    Some(JetStream { server, processes: Mutex::default(), clock })
}

impl Harness for JetStream {
    fn traits(&self) -> Traits {
        Traits { shared: true, lease_time: Duration::from_secs(10) }
    }

    fn start(&self, limits: Limits) -> BoxFuture<'_, Arc<dyn Broker>> {
        async move {
            let config = NatsConfig {
                history_bytes: limits.history_bytes,
                max_bytes: limits.max_bytes,
                backlog_max_bytes: Some(limits.backlog_max_bytes),
                age: limits.age,
                deduplication_time: limits.deduplication_time,
                ..NatsConfig::at(self.server.url())
            };
            let runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
            let (clock, entropy) = (self.clock.clone(), Arc::new(SeededEntropy::new(unique())));
            let opened = runtime.spawn(Nats::open(config, clock, entropy));
            let broker: Arc<dyn Broker> = Arc::new(opened.await.unwrap().unwrap());
            let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
            processes.push((broker.clone(), runtime));
            broker
        }
        .boxed()
    }

    fn kill(&self, broker: Arc<dyn Broker>) -> BoxFuture<'_, ()> {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let at = processes.iter().position(|(running, _)| Arc::ptr_eq(running, &broker));
        let (_, runtime) = processes.remove(at.expect("it runs"));
        runtime.shutdown_background();
        async {}.boxed()
    }

    fn reach(&self, reachable: bool) -> BoxFuture<'_, bool> {
        async move {
            if reachable {
                self.server.run().await;
            } else {
                self.server.kill();
            }
            true
        }
        .boxed()
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        tokio::time::sleep(time).boxed()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(time).boxed()
    }
}

impl Drop for JetStream {
    fn drop(&mut self) {
        let processes = self.processes.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (_, runtime) in processes.drain(..) {
            runtime.shutdown_background();
        }
    }
}

eventbus_core::conformance!(jetstream);
eventbus_core::conformance_of_servers!(jetstream);
