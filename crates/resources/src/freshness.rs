//! Is the catalog as fresh as the API itself? Asked before an event is declared unwanted, so that a
//! Subscription made a moment ago is heard.

use std::sync::atomic::{AtomicU64, Ordering};

use eventbus_core::limits;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use tokio::sync::{Mutex, watch};

use crate::definitions::{DEFINITIONS, Kind};
use crate::manifests;
use crate::watch::Versions;

/// Objects of one page: a list of ten thousand in one piece would lie in memory as a whole.
const PAGE: u32 = 500;

/// Compares the catalog with lists of the API, one list at a time for everybody who asks.
pub struct Freshness {
    client: Client,
    versions: watch::Receiver<Option<Versions>>,
    /// Lists begun so far.
    begun: AtomicU64,
    latest: Mutex<Latest>,
}

/// What the latest list that ended saw.
#[derive(Default)]
struct Latest {
    /// Its number.
    number: u64,
    versions: Versions,
    /// The collections' own versions: while one stays, nothing in it can have changed.
    collections: [Option<String>; DEFINITIONS.len()],
}

impl Freshness {
    /// Compares the snapshots that `versions` speaks of with what `client` lists.
    pub fn new(client: Client, versions: watch::Receiver<Option<Versions>>) -> Self {
        Self { client, versions, begun: AtomicU64::new(0), latest: Mutex::default() }
    }

    /// Waits until the catalog holds every Subscription of a list that began after this call.
    /// False when that could not be reached within [`limits::CATALOG_WAIT`].
    pub async fn reached(&self) -> bool {
        let reached = async {
            let listed = self.list().await.ok()?;
            let mut versions = self.versions.clone();
            let holds = |versions: &Option<Versions>| {
                versions.is_some_and(|seen| seen.iter().zip(listed).all(|(s, l)| *s >= l))
            };
            versions.wait_for(holds).await.ok().map(|_| ())
        };
        matches!(tokio::time::timeout(limits::CATALOG_WAIT, reached).await, Ok(Some(())))
    }

    /// The versions seen by a list that began after this call, be it another caller's.
    async fn list(&self) -> Result<Versions, kube::Error> {
        let begun_before = self.begun.load(Ordering::SeqCst);
        let mut latest = self.latest.lock().await;
        if latest.number > begun_before {
            return Ok(latest.versions);
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        for (at, definition) in DEFINITIONS.into_iter().enumerate() {
            if definition.kind == Kind::Subscription {
                let api: Api<DynamicObject> =
                    Api::all_with(self.client.clone(), &definition.api_resource());
                // A page of one tells whether the whole needs to be looked at.
                let page = api.list_metadata(&ListParams::default().limit(1)).await?;
                let version = page.metadata.resource_version;
                if version.is_some() && version == latest.collections[at] {
                    continue;
                }
                (latest.versions[at], latest.collections[at]) = newest(&api).await?;
            }
        }
        latest.number = number;
        Ok(latest.versions)
    }
}

/// The version of the newest object of a whole list, and the list's own.
async fn newest(api: &Api<DynamicObject>) -> Result<(u64, Option<String>), kube::Error> {
    let (mut newest, mut pages) = (0, ListParams::default().limit(PAGE));
    loop {
        let page = match api.list_metadata(&pages).await {
            // The pages' moment is past: begun again, within the time that whoever asks has.
            Err(kube::Error::Api(status)) if status.code == 410 => {
                (newest, pages) = (0, ListParams::default().limit(PAGE));
                continue;
            }
            page => page?,
        };
        let versions = page.iter().map(|object| manifests::version(&object.metadata));
        newest = versions.fold(newest, u64::max);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => pages = pages.continue_token(&token),
            None => return Ok((newest, page.metadata.resource_version)),
        }
    }
}
