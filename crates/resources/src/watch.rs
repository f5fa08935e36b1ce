//! From the watch to the catalog: follows every kind of resource and compiles what it sees into
//! snapshots.
//!
//! A client that fails changes nothing: the last snapshot stays until the watch is back. There is
//! no snapshot of half a world, because the place of a Subscription that is absent is forgotten.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use eventbus_core::{Catalog, Source, Subscription, Text};
use futures::stream::{SelectAll, StreamExt};
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::definitions::{DEFINITIONS, Kind};
use crate::manifests;

/// The catalog is compiled at most once in this time: a snapshot of 10,000 Subscriptions costs
/// about a millisecond.
const COMPILE_EVERY: Duration = Duration::from_millis(20);

/// What the watch tells.
#[derive(Debug)]
pub struct Watched {
    /// The latest snapshot.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// Up to which version of each of [`DEFINITIONS`] the snapshot holds everything; `None` until
    /// all were listed once.
    pub versions: watch::Receiver<Option<Versions>>,
}

/// A resource version for each of [`DEFINITIONS`].
pub type Versions = [u64; DEFINITIONS.len()];

/// Follows all resources until `stop`. The future is the task; run it once.
pub fn watch(client: Client, stop: CancellationToken) -> (Watched, impl Future<Output = ()>) {
    let (catalog, catalog_receiver) = watch::channel(Arc::default());
    let (versions, versions_receiver) = watch::channel(None);
    let watched = Watched { catalog: catalog_receiver, versions: versions_receiver };
    let compiler = Compiler { kinds: Default::default(), catalog, versions };
    let task = async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = compiler.run(client) => {}
        }
    };
    (watched, task)
}

/// What was seen of one kind in one group.
#[derive(Default)]
struct Seen {
    objects: HashMap<Text, Object>,
    /// What a list under way has shown so far. It counts when it is whole: a list has no order, so
    /// half of it may hold a version and not what is older.
    listed: HashMap<Text, Object>,
    listed_version: u64,
    version: u64,
    is_listed: bool,
}

enum Object {
    Subscription(Arc<Subscription>),
    /// In a box, because nearly all objects are Subscriptions.
    Activation(Box<(Text, Source)>),
    /// It cannot be run; it is remembered so that it is complained of once.
    Broken,
}

struct Compiler {
    kinds: [Seen; DEFINITIONS.len()],
    catalog: watch::Sender<Arc<Catalog>>,
    versions: watch::Sender<Option<Versions>>,
}

type Change = (usize, Result<Event<DynamicObject>, watcher::Error>);

impl Compiler {
    async fn run(mut self, client: Client) {
        let mut changes = SelectAll::new();
        for (at, definition) in DEFINITIONS.into_iter().enumerate() {
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &definition.api_resource());
            let stream = watcher::watcher(api, watcher::Config::default()).default_backoff();
            changes.push(stream.map(move |change| (at, change)).boxed());
        }
        let mut compile_at: Option<Instant> = None;
        // What comes alone is compiled at once, what comes in a burst together.
        let mut not_before = Instant::now();
        loop {
            let compile = async {
                match compile_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = compile => {
                    self.compile();
                    compile_at = None;
                    not_before = Instant::now() + COMPILE_EVERY;
                }
                Some(change) = changes.next() => {
                    if self.apply(change) {
                        compile_at.get_or_insert(not_before);
                    }
                }
            }
        }
    }

    /// Takes in a change. True when there is something to compile.
    fn apply(&mut self, (at, change): Change) -> bool {
        let definition = DEFINITIONS[at];
        let seen = &mut self.kinds[at];
        match change {
            Ok(Event::Init) => {
                seen.listed = HashMap::new();
                return false;
            }
            Ok(Event::InitApply(object)) => {
                seen.listed_version = seen.listed_version.max(version(&object));
                let (uid, object) = seen.read(at, object);
                seen.listed.insert(uid, object);
                return false;
            }
            Ok(Event::InitDone) => {
                seen.objects = std::mem::take(&mut seen.listed);
                seen.version = seen.version.max(seen.listed_version);
                seen.is_listed = true;
            }
            Ok(Event::Apply(object)) => {
                seen.version = seen.version.max(version(&object));
                let (uid, object) = seen.read(at, object);
                seen.objects.insert(uid, object);
            }
            Ok(Event::Delete(object)) => {
                let uid = Text::from(object.uid().unwrap_or_default());
                seen.version = seen.version.max(version(&object));
                if definition.kind == Kind::Subscription {
                    info!(uid = &*uid, name = object.name_any(), "Subscription deleted");
                }
                seen.objects.remove(&uid);
            }
            Err(error) => {
                let resource = definition.api_resource().plural;
                warn!(%error, resource, group = definition.group, "the watch failed, trying again");
                return false;
            }
        }
        seen.is_listed
    }

    fn compile(&self) {
        // Nothing is decided on half a world: a kind not listed yet would look deserted.
        if !self.kinds.iter().all(|seen| seen.is_listed) {
            return;
        }
        let objects = || self.kinds.iter().flat_map(|seen| seen.objects.values());
        let kinds = DEFINITIONS.iter().zip(&self.kinds);
        let subscribing = kinds.filter(|(one, _)| one.kind == Kind::Subscription);
        let broken = subscribing.flat_map(|(_, seen)| &seen.objects);
        let broken = broken.filter(|(_, object)| matches!(object, Object::Broken));
        let broken = broken.map(|(uid, _)| uid.clone());
        let subscriptions = objects().filter_map(|object| match object {
            Object::Subscription(subscription) => Some(subscription.clone()),
            _ => None,
        });
        let activations = objects().filter_map(|object| match object {
            Object::Activation(activation) => Some((**activation).clone()),
            _ => None,
        });
        let catalog = Catalog::new(subscriptions, activations.collect()).with_broken(broken);
        self.catalog.send_replace(Arc::new(catalog));
        self.versions.send_replace(Some(self.kinds.each_ref().map(|seen| seen.version)));
    }
}

impl Seen {
    /// Reads an object, and complains of one that cannot be run unless that was done before.
    fn read(&self, at: usize, object: DynamicObject) -> (Text, Object) {
        let uid = Text::from(object.uid().unwrap_or_default());
        let definition = DEFINITIONS[at];
        let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
        let object = match definition.kind {
            Kind::Subscription => manifests::subscription(definition, object)
                .map(|subscription| Object::Subscription(Arc::new(subscription))),
            Kind::EventActivation => manifests::activation(object)
                .map(|activation| Object::Activation(Box::new(activation))),
        };
        let object = object.unwrap_or_else(|error| {
            if !matches!(self.objects.get(&uid), Some(Object::Broken)) {
                warn!(name, group = definition.group, %error, "a manifest cannot be run");
            }
            Object::Broken
        });
        (uid, object)
    }
}

fn version(object: &DynamicObject) -> u64 {
    manifests::version(&object.metadata)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, version: u64) -> DynamicObject {
        let object = json!({
            "metadata": {
                "name": name, "namespace": "stage", "uid": name,
                "resourceVersion": version.to_string(),
            },
            "spec": {
                "endpoint": "http://127.0.0.1:1/", "event_type": "order.created",
                "event_type_version": "v1", "source_id": "shop",
            },
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn half_a_list_raises_no_version_and_hides_nothing() {
        let (catalog, catalog_seen) = watch::channel(Arc::default());
        let (versions, versions_seen) = watch::channel(None);
        let mut compiler = Compiler { kinds: Default::default(), catalog, versions };
        let seen = || {
            let mut uids: Vec<_> = catalog_seen
                .borrow()
                .subscriptions()
                .map(|subscription| subscription.identity.uid.to_string())
                .collect();
            uids.sort();
            (uids, versions_seen.borrow().map(|versions| versions[0]))
        };
        let mut take = |at, event| {
            let compiles = compiler.apply((at, Ok(event)));
            compiler.compile();
            compiles
        };
        for at in 0..DEFINITIONS.len() {
            take(at, Event::Init);
            assert!(take(at, Event::InitDone));
        }
        assert!(take(0, Event::Apply(object("old", 5))));
        assert!(!take(0, Event::Init));
        assert!(!take(0, Event::InitApply(object("z", 9))));
        // An event of another kind compiles in the middle of the list.
        assert!(take(2, Event::Apply(object("other", 8))));
        assert_eq!(seen(), (vec!["old".into(), "other".into()], Some(5)));
        assert!(!take(0, Event::InitApply(object("a", 7))));
        assert!(take(0, Event::InitDone));
        assert_eq!(seen(), (vec!["a".into(), "other".into(), "z".into()], Some(9)));
        assert!(catalog_seen.borrow().lacks("old"));
    }
}
