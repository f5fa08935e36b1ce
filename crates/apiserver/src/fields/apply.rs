//! Server-side apply: what an object is after a client has applied its part, and whose it is.

use serde_json::Value;

use super::{
    Author, NOBODYS, Ownership, Share,
    extract::{self, Differences},
    merge,
    set::FieldSet,
};
use crate::{
    definition::Resource,
    limits, object,
    schema::Schema,
    status::{ApiError, Cause},
};

/// Owns what an object held before anybody applied to it, if nobody was known to own it.
const BEFORE: &str = "before-first-apply";

/// The name under which `kubectl apply --server-side` applies. It follows `kubectl apply`, which
/// notes in an annotation what it last applied.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Fields to be applied.
pub(crate) struct Application {
    /// The part of the object that the client has an opinion on.
    pub(crate) applied: Value,
    pub(crate) author: Author,
    /// Whether fields may be taken from their owners.
    pub(crate) force: bool,
}

/// Fields that belong to others, with their owners.
struct Conflicts(Vec<(Author, FieldSet)>);

impl Application {
    /// The object with the fields in it, and who owns it then. Of an object that does not exist yet
    /// `live` is empty. Fields of others that would change are a 409 unless `force` is set.
    pub(crate) fn apply(
        &self,
        resource: &Resource,
        live: &Value,
        ownership: &Ownership,
    ) -> Result<(Value, Ownership), ApiError> {
        let schema = &resource.schema;
        let scope = |value: &Value| self.in_scope(resource, value);
        let (live, applied) = (scope(live), scope(&self.applied));
        let mut ownership = ownership.clone();
        if ownership.0.is_empty() {
            let before = Author { name: BEFORE.into(), applies: false, ..self.author.clone() };
            ownership = Ownership::of_new(schema, &live, &before);
        }
        let mut mine = extract::set_by(Some(schema), &applied);
        mine.remove(&NOBODYS);
        let given_up = std::mem::replace(&mut ownership.share_of(&self.author).fields, mine);
        let mut kept = FieldSet::default();
        ownership.0.iter().for_each(|share| kept.add(&share.fields));
        let mut object = merge::merge(Some(schema), live.clone(), &applied);
        merge::prune(Some(schema), &mut object, &given_up, &kept);

        let differences = Differences::between(Some(schema), &live, &object);
        self.check_conflicts(schema, &live, &differences, &ownership)?;
        for share in &mut ownership.0 {
            if share.author.is_same(&self.author) {
                share.author = self.author.clone();
            } else {
                share.fields.remove(&differences.changed);
                share.fields.remove(&differences.removed);
            }
        }
        ownership.0.retain(|share| !share.fields.is_empty());
        if self.author.name == KUBECTL {
            self.note_last_applied(&mut object);
        }
        Ok((object, ownership))
    }

    /// The part of an object that this road writes: its status, or all but its status.
    fn in_scope(&self, resource: &Resource, object: &Value) -> Value {
        let mut object = object.clone();
        if let Some(members) = object.as_object_mut() {
            match self.author.subresource.as_str() {
                "" if resource.has_status => drop(members.remove("status")),
                "" => {}
                subresource => members.retain(|name, _| name == subresource),
            }
        }
        object
    }

    fn check_conflicts(
        &self,
        schema: &Schema,
        live: &Value,
        differences: &Differences,
        ownership: &Ownership,
    ) -> Result<(), ApiError> {
        if self.force {
            return Ok(());
        }
        let others = ownership.0.iter().filter(|share| !share.author.is_same(&self.author));
        let conflict = |share: &Share| (share.author.clone(), share.fields.clone());
        let mut conflicts: Vec<(Author, FieldSet)> = others
            .map(conflict)
            .map(|(author, fields)| (author, fields.shared(&differences.changed)))
            .collect();
        if self.author.name == KUBECTL
            && let Some(own) = last_applied(schema, live)
        {
            conflicts.iter_mut().for_each(|(_, fields)| fields.remove(&own));
        }
        conflicts.retain(|(_, fields)| !fields.is_empty());
        Conflicts(conflicts).refuse()
    }

    /// Keeps the annotation of `kubectl apply` in step, where there is one, so that a client that
    /// goes back to it takes away what it no longer names.
    fn note_last_applied(&self, object: &mut Value) {
        let annotations = object.pointer_mut("/metadata/annotations");
        let Some(annotations) = annotations.and_then(Value::as_object_mut) else { return };
        if !annotations.contains_key(LAST_APPLIED) {
            return;
        }
        let mut applied = self.applied.clone();
        super::detach(&mut applied);
        let known = applied.pointer_mut("/metadata/annotations");
        if let Some(known) = known.and_then(Value::as_object_mut) {
            known.remove(LAST_APPLIED);
        }
        let text = format!("{applied}\n");
        if text.len() < limits::ANNOTATION_BYTES {
            annotations.insert(LAST_APPLIED.into(), text.into());
        } else {
            annotations.remove(LAST_APPLIED);
        }
    }
}

/// The fields that `kubectl apply` set and that are still as it set them: they are no one else's,
/// whatever name it wrote under.
fn last_applied(schema: &Schema, live: &Value) -> Option<FieldSet> {
    let text = live["metadata"]["annotations"][LAST_APPLIED].as_str()?;
    let applied: Value = serde_json::from_str(text).ok()?;
    if object::depth(&applied) > limits::JSON_DEPTH {
        return None;
    }
    let mut fields = extract::set_by(Some(schema), &applied);
    let differences = Differences::between(Some(schema), live, &applied);
    fields.remove(&differences.changed);
    fields.remove(&differences.removed);
    Some(fields)
}

impl Conflicts {
    /// Says which fields are whose, in the real server's words.
    fn refuse(mut self) -> Result<(), ApiError> {
        self.0.sort_by(|(left, _), (right, _)| left.order(right));
        let mut causes = Vec::new();
        let mut text = String::new();
        for (author, fields) in &self.0 {
            let owner = owner(author);
            text.push_str(&format!("{}conflicts with {owner}:", line_break(&text)));
            for field in fields.paths() {
                text.push_str(&format!("\n- {field}"));
                let text = format!("conflict with {owner}");
                causes.push(Cause { reason: "FieldManagerConflict", text, field });
            }
        }
        let text = match causes.as_slice() {
            [] => return Ok(()),
            [Cause { text, field, .. }] => {
                format!("Apply failed with 1 conflict: {text}: {field}")
            }
            several => format!("Apply failed with {} conflicts: {text}", several.len()),
        };
        causes.truncate(limits::CAUSES);
        Err(ApiError::apply_conflict(text, &causes))
    }
}

fn line_break(text: &str) -> &'static str {
    if text.is_empty() { "" } else { "\n" }
}

/// An author as the real server names one in a conflict.
fn owner(author: &Author) -> String {
    let mut text = format!("{:?}", author.name);
    if !author.subresource.is_empty() {
        text.push_str(&format!(" with subresource {:?}", author.subresource));
    }
    if !author.applies {
        text.push_str(&format!(" using {}", author.api_version));
    }
    text
}
