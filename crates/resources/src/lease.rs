//! One of several processes works: whoever holds the Lease.
//!
//! The protocol is that of the Kubernetes components: a Lease names its holder, who renews it; when
//! it was not renewed for as long as it says, another may take it. Only this process's own clock is
//! asked, so it does not matter whether clocks agree: a Lease is stale when it was seen unchanged
//! for its whole duration.

use std::sync::Arc;
use std::time::Duration;

use eventbus_core::Clock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use tracing::{info, warn};

/// The Lease's name.
pub(crate) const NAME: &str = "eventbus";

/// So long a Lease counts that nobody renews; the defaults of Kubernetes' own components.
const LASTS: Duration = Duration::from_secs(15);

/// A holder that could not renew for so long has lost it: well before another takes it.
const RENEWED_WITHIN: Duration = Duration::from_secs(10);

/// How often the holder renews, and everybody else looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A request that takes longer than this has failed.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// A process's part in the election.
pub struct Leadership {
    leases: Api<Lease>,
    identity: String,
    clock: Arc<dyn Clock>,
    /// The version of the Lease seen last, and since when.
    seen: Option<(String, Duration)>,
}

impl Leadership {
    /// Takes part in `namespace` under `identity`, which no other process may have.
    pub fn new(client: Client, namespace: &str, identity: String, clock: Arc<dyn Clock>) -> Self {
        Self { leases: Api::namespaced(client, namespace), identity, clock, seen: None }
    }

    /// Ends when this process holds the Lease.
    pub async fn acquire(&mut self) {
        let mut complained = false;
        loop {
            match self.look().await {
                Ok(true) => {
                    info!(identity = self.identity, "this process holds the Lease {NAME}");
                    return;
                }
                Ok(false) if !complained => {
                    info!("another process holds the Lease {NAME}: waiting for it");
                    complained = true;
                }
                Ok(false) => {}
                Err(why) => warn!(why, "the Lease {NAME} cannot be taken, trying again"),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Renews the Lease; ends when it is lost.
    pub async fn keep(&mut self) {
        let mut renewed = self.clock.elapsed();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.look().await {
                Ok(true) => renewed = self.clock.elapsed(),
                Ok(false) => {
                    warn!("another process has taken the Lease {NAME}");
                    return;
                }
                Err(why) => {
                    warn!(why, "the Lease {NAME} cannot be renewed, trying again");
                    if self.clock.elapsed() - renewed >= RENEWED_WITHIN {
                        return;
                    }
                }
            }
        }
    }

    /// Gives the Lease up, so that another need not wait until it is stale.
    pub async fn release(&mut self) {
        let released = async {
            let Some(mut lease) = self.leases.get_opt(NAME).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = None;
            self.leases.replace(NAME, &PostParams::default(), &lease).await.map(drop)
        };
        match tokio::time::timeout(ANSWERED_WITHIN, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the Lease {NAME} could not be given up"),
            Err(_) => warn!("the Lease {NAME} could not be given up in time"),
        }
    }

    /// Takes or renews the Lease. True when this process holds it afterwards.
    async fn look(&mut self) -> Result<bool, String> {
        let written = async {
            match self.leases.get_opt(NAME).await? {
                None => self.leases.create(&PostParams::default(), &self.first()).await.map(Some),
                Some(lease) if self.may_write(&lease) => {
                    let ours = self.ours(lease);
                    self.leases.replace(NAME, &PostParams::default(), &ours).await.map(Some)
                }
                Some(_) => Ok(None),
            }
        };
        match tokio::time::timeout(ANSWERED_WITHIN, written).await {
            Ok(Ok(written)) => Ok(written.is_some()),
            // Somebody else was faster.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(false),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the API does not answer".to_owned()),
        }
    }

    /// Is the Lease ours, nobody's, or stale?
    fn may_write(&mut self, lease: &Lease) -> bool {
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            return true;
        }
        let (version, now) = (lease.resource_version().unwrap_or_default(), self.clock.elapsed());
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => {
                self.seen = Some((version, now));
                now
            }
        };
        let lasts = spec
            .lease_duration_seconds
            .map_or(LASTS, |seconds| Duration::from_secs(seconds.max(0).unsigned_abs().into()));
        now - since >= lasts
    }

    fn first(&self) -> Lease {
        let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
        self.ours(Lease { metadata, ..Lease::default() })
    }

    fn ours(&self, mut lease: Lease) -> Lease {
        let before = lease.spec.take().unwrap_or_default();
        let now = i64::try_from(self.clock.now_ms()).unwrap_or(i64::MAX);
        let now = Timestamp::from_millisecond(now).map(MicroTime).ok();
        let stays = before.holder_identity.as_deref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        lease.spec = Some(LeaseSpec {
            acquire_time: if stays { before.acquire_time } else { now.clone() },
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LASTS.as_secs()).ok(),
            lease_transitions: Some(if stays { transitions } else { transitions + 1 }),
            renew_time: now,
            ..before
        });
        lease
    }
}
