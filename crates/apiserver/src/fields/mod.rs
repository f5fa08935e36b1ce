//! Who set which field: `metadata.managedFields`, and server-side apply on top of it.
//!
//! Every write takes the fields it changes away from their owners. An apply says instead which
//! fields its client has an opinion on: it may not silently change what somebody else owns, and
//! what it no longer names goes, unless somebody else owns it too. That is how a controller,
//! `kubectl` and a person can each keep their part of one object.
//!
//! `set` is a set of fields, `extract` finds the fields of a value, `merge` lays values over each
//! other, `entries` reads and writes the stored form, `apply` decides. How a schema takes a value
//! apart is in `schema::parts`.

mod apply;
mod entries;
mod extract;
mod merge;
mod set;

use std::{cmp::Ordering, sync::LazyLock};

use serde_json::{Value, json};

pub(crate) use self::apply::Application;
use self::{extract::Differences, set::FieldSet};
use crate::{limits, schema::Schema};

/// Who writes: what an entry of `managedFields` says besides its fields.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Author {
    /// The `fieldManager` of the request, or the name in its `User-Agent`.
    pub(crate) name: String,
    /// Whether fields are applied; they are taken by a change otherwise.
    pub(crate) applies: bool,
    /// The version that the fields are named in.
    pub(crate) api_version: String,
    /// `status`, or empty for the object itself.
    pub(crate) subresource: String,
    /// When, as Kubernetes writes it.
    pub(crate) time: String,
}

impl Author {
    /// Whether both have one entry: an applier keeps its own through all versions.
    fn is_same(&self, other: &Self) -> bool {
        self.applies == other.applies
            && self.name == other.name
            && self.subresource == other.subresource
            && (self.applies || self.api_version == other.api_version)
    }

    /// The order of entries: appliers first, then whoever wrote longest ago.
    fn order(&self, other: &Self) -> Ordering {
        let key = |author: &Self| {
            let Author { name, applies, api_version, subresource, time } = author.clone();
            (!applies, time, name, api_version, subresource)
        };
        key(self).cmp(&key(other))
    }
}

/// An author with what they own.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Share {
    author: Author,
    fields: FieldSet,
}

/// Who owns which fields of an object.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Ownership(Vec<Share>);

/// Fields that nobody owns: they name the object, or the server alone sets them.
static NOBODYS: LazyLock<FieldSet> = LazyLock::new(|| {
    let written = json!({
        "f:apiVersion": {}, "f:kind": {}, "f:metadata": {
            ".": {}, "f:name": {}, "f:namespace": {}, "f:uid": {}, "f:creationTimestamp": {},
            "f:generation": {}, "f:resourceVersion": {}, "f:selfLink": {}, "f:managedFields": {},
        },
    });
    FieldSet::read(&written).unwrap_or_default()
});

/// Takes `managedFields` out of an object.
pub(crate) fn detach(object: &mut Value) -> Option<Value> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    metadata.remove("managedFields")
}

impl Ownership {
    /// Of a new object, all of which is its author's.
    pub(crate) fn of_new(schema: &Schema, object: &Value, author: &Author) -> Self {
        let mut ownership = Self::default();
        ownership.take(&Differences::between(Some(schema), &json!({}), object), author);
        ownership
    }

    /// As it is before a write that brings `managedFields` of its own: those count, as far as they
    /// can be read, and one empty entry wipes out all. A list without entries does not: clients
    /// that know nothing of the field send it.
    pub(crate) fn with_brought(self, brought: Option<&Value>) -> Self {
        if brought.is_some_and(|brought| *brought == json!([{}])) {
            return Self::default();
        }
        match brought.and_then(Self::read) {
            Some(brought) if !brought.0.is_empty() => brought,
            _ => self,
        }
    }

    /// Gives the fields that a write changed to its author. An object of which nobody owns anything
    /// is not followed until somebody applies to it.
    pub(crate) fn follow(
        &mut self,
        schema: &Schema,
        before: &Value,
        after: &Value,
        author: &Author,
    ) {
        if !self.0.is_empty() && before != after {
            self.take(&Differences::between(Some(schema), before, after), author);
        }
    }

    fn take(&mut self, differences: &Differences, author: &Author) {
        for share in &mut self.0 {
            share.fields.remove(&differences.changed);
            share.fields.remove(&differences.removed);
        }
        let mut taken = differences.changed.clone();
        taken.remove(&NOBODYS);
        if !taken.is_empty() {
            let share = self.share_of(author);
            share.author.time.clone_from(&author.time);
            share.fields.add(&taken);
        }
        self.0.retain(|share| !share.fields.is_empty());
        self.forget_the_oldest();
    }

    fn share_of(&mut self, author: &Author) -> &mut Share {
        let known = self.0.iter().position(|share| share.author.is_same(author));
        let at = known.unwrap_or(self.0.len());
        if known.is_none() {
            self.0.push(Share { author: author.clone(), fields: FieldSet::default() });
        }
        &mut self.0[at]
    }

    /// Whether the same authors own the same, whenever they last wrote.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let in_order = |ownership: &Self| {
            let mut shares = ownership.0.clone();
            shares.iter_mut().for_each(|share| share.author.time.clear());
            shares.sort_by(|left, right| left.author.order(&right.author));
            shares
        };
        self.0.len() == other.0.len() && in_order(self) == in_order(other)
    }

    /// Puts the shares of the authors that have not written for longest under one name while there
    /// are more than [`limits::FIELD_AUTHORS`]. Appliers keep theirs: they come back for it.
    fn forget_the_oldest(&mut self) {
        let writers = |ownership: &Self| {
            let writers = ownership.0.iter().filter(|share| !share.author.applies);
            writers.filter(|share| share.author.name != ANCIENT).count()
        };
        while writers(self) > limits::FIELD_AUTHORS {
            let oldest = self
                .0
                .iter()
                .enumerate()
                .filter(|(_, share)| !share.author.applies && share.author.name != ANCIENT)
                .min_by(|(_, left), (_, right)| left.author.time.cmp(&right.author.time))
                .map(|(at, _)| at);
            let Some(oldest) = oldest else { return };
            let Share { author, fields } = self.0.remove(oldest);
            let share = self.share_of(&Author { name: ANCIENT.into(), ..author.clone() });
            share.fields.add(&fields);
            share.author.time = author.time;
        }
    }
}

/// The name under which authors are put together that have not written for long.
const ANCIENT: &str = "ancient-changes";
