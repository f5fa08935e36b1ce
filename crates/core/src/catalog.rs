//! The catalog: a compiled snapshot of the manifests, read by publish, push and the sub-validator.
//!
//! A snapshot never changes; whoever watches the resources makes a new one. So readers take no
//! lock, and one decision sees one state of the world.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::event::{Event, Source, Text, TopicHash};
use crate::subscription::Subscription;

/// What is declared, at one moment.
#[derive(Debug, Default)]
pub struct Catalog {
    subscriptions: HashMap<Text, Arc<Subscription>>,
    listeners: HashMap<TopicHash, SmallVec<[Arc<Subscription>; 1]>>,
    activations: HashSet<(Text, Source)>,
    /// The uids of Subscriptions that exist and cannot be run.
    broken: HashSet<Text>,
    /// It was compiled of what is declared: what it does not know does not exist.
    is_complete: bool,
}

impl Catalog {
    /// Compiles a snapshot of all there is: of these Subscriptions and of these activations
    /// (namespace, source).
    pub fn new(
        subscriptions: impl IntoIterator<Item = Arc<Subscription>>,
        activations: HashSet<(Text, Source)>,
    ) -> Self {
        let mut catalog = Self { activations, is_complete: true, ..Self::default() };
        for subscription in subscriptions {
            let hash = subscription.interest.topic_hash();
            catalog.listeners.entry(hash).or_default().push(subscription.clone());
            catalog.subscriptions.insert(subscription.identity.uid.clone(), subscription);
        }
        catalog
    }

    /// The same where Subscriptions with these uids exist besides, which cannot be run.
    pub fn with_broken(self, uids: impl IntoIterator<Item = Text>) -> Self {
        Self { broken: uids.into_iter().collect(), ..self }
    }

    /// Is it known that no Subscription with this uid exists? Of the default catalog, which nobody
    /// compiled yet, nothing is known.
    pub fn lacks(&self, uid: &str) -> bool {
        self.is_complete && !self.subscriptions.contains_key(uid) && !self.broken.contains(uid)
    }

    /// How many Subscriptions exist and cannot be run.
    pub fn broken(&self) -> usize {
        self.broken.len()
    }

    /// Does any Subscription ask for this event? One that is inactive counts.
    pub fn has_listener(&self, event: &Event) -> bool {
        let candidates = self.listeners.get(&event.topic_hash());
        candidates.into_iter().flatten().any(|subscription| event.is_of(&subscription.interest))
    }

    /// Every Subscription, in no order.
    pub fn subscriptions(&self) -> impl ExactSizeIterator<Item = &Arc<Subscription>> {
        self.subscriptions.values()
    }

    /// The Subscription with this uid.
    pub fn subscription(&self, uid: &str) -> Option<&Arc<Subscription>> {
        self.subscriptions.get(uid)
    }

    /// Does an EventActivation with this source exist in the namespace?
    pub fn is_activated(&self, namespace: &Text, source: &Source) -> bool {
        self.activations.contains(&(namespace.clone(), source.clone()))
    }

    /// The types and versions that anybody asks of this source, in order.
    pub fn subscribed(&self, source: &Source) -> BTreeSet<(&str, &str)> {
        let of_source = self.subscriptions().filter(|s| s.interest.source == *source);
        of_source.map(|s| (&*s.interest.event_type, &*s.interest.event_type_version)).collect()
    }
}
