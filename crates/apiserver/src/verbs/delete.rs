//! Delete: at once, or marked until the finalizers let go; dependents by the policy asked for.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{Api, Call, options::Options};
use crate::{
    body::Body,
    definition::Resource,
    limits, object,
    selector::Selection,
    status::{ApiError, Cause},
    store::{Held, Key, PageError, PageRequest, Stored, Transaction},
};

/// How a deletion treats the object's dependents.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Propagation {
    /// The object goes, its dependents after it.
    #[default]
    Background,
    /// Its dependents go, the object after them.
    Foreground,
    /// Its dependents stay and forget it.
    Orphan,
}

/// What a deletion asks for, from its body and its query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deletion {
    pub(crate) propagation: Propagation,
    pub(crate) now_ms: u64,
    preconditions: Preconditions,
    dry: bool,
}

/// What became of the object.
#[derive(Clone, Debug)]
pub(crate) enum Deleted {
    /// It is gone; what it was.
    Gone(Value),
    /// It waits for its finalizers; what it is.
    Marked(Bytes),
}

#[derive(Clone, Debug, Default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// Deletes the object that the path names.
pub(crate) async fn delete(api: &Api, call: &Call) -> Result<Response<Body>, ApiError> {
    let deletion = Deletion::read(api, call)?;
    let (resource, key) = (Arc::clone(call.resource()), call.key());
    let deleted = api
        .store
        .write(move |transaction| {
            let stored = transaction.get(&key)?;
            let stored = stored.ok_or_else(|| ApiError::not_found(&resource, &key.name))?;
            deletion.delete(transaction, &resource, &key, &stored)
        })
        .await?;
    match deleted {
        Deleted::Marked(body) => call.form.object(StatusCode::OK, call.resource(), &body),
        Deleted::Gone(object) => {
            let mut details = call.resource().details(object::name(&object));
            details["uid"] = object::uid(&object).into();
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": details,
            });
            call.form.value(StatusCode::OK, &status)
        }
    }
}

/// Deletes every object that the query selects, and answers with what they were.
pub(crate) async fn delete_collection(api: &Api, call: &Call) -> Result<Response<Body>, ApiError> {
    let deletion = Deletion::read(api, call)?;
    let resource = call.resource();
    let (labels, fields) = (call.query.text("labelSelector"), call.query.text("fieldSelector"));
    let mut request = PageRequest {
        resource: resource.index,
        namespace: call.target.namespace.clone(),
        after: None,
        revision: None,
        limit: Some(limits::COLLECT_TURN),
        bytes: None,
        selection: Arc::new(Selection::parse(labels, fields, resource)?),
    };
    let mut bodies = Held::default();
    let revision = loop {
        let page = api.store.page(request.clone()).await.map_err(|error| match error {
            PageError::Failed(error) => error,
            PageError::Full => ApiError::too_many(),
            PageError::Expired => ApiError::internal("the present cannot expire".into()),
        })?;
        let (deletion, target) = (deletion.clone(), Arc::clone(resource));
        let found = page.bodies.bodies();
        api.store
            .write(move |transaction| deletion.delete_all(transaction, &target, &found))
            .await?;
        bodies.append(page.bodies);
        match page.next {
            Some(next) => request.after = Some(next),
            None => break page.revision,
        }
    };
    call.form.list(resource, bodies, json!({ "resourceVersion": revision.to_string() }))
}

impl Deletion {
    /// A deletion that the server itself asks for.
    pub(crate) fn background(now_ms: u64) -> Self {
        Self { now_ms, ..Self::default() }
    }

    fn read(api: &Api, call: &Call) -> Result<Self, ApiError> {
        let options = Options::read(call)?;
        let (policy, orphans) =
            (options.text("propagationPolicy")?, options.flag("orphanDependents")?);
        let policy = policy.unwrap_or(call.query.text("propagationPolicy"));
        let propagation = match policy {
            "" if orphans => Propagation::Orphan,
            "" | "Background" => Propagation::Background,
            "Foreground" => Propagation::Foreground,
            "Orphan" => Propagation::Orphan,
            other => {
                let known = ["Background".into(), "Foreground".into(), "Orphan".into()];
                let cause = Cause::not_supported("propagationPolicy", &other.into(), &known);
                return Err(ApiError::invalid_options("DeleteOptions", "meta.k8s.io", vec![cause]));
            }
        };
        let dry = call.query.dry_run()? | options.dry_run()?;
        let given = options.inner("preconditions")?;
        let owned = |name| Ok::<_, ApiError>(given.text(name)?.map(str::to_owned));
        let preconditions =
            Preconditions { uid: owned("uid")?, resource_version: owned("resourceVersion")? };
        Ok(Self { propagation, now_ms: api.clock.now_ms(), preconditions, dry })
    }

    /// Deletes each of these objects as far as it is still there.
    fn delete_all(
        &self,
        transaction: &mut Transaction<'_>,
        resource: &Resource,
        bodies: &[Bytes],
    ) -> Result<(), ApiError> {
        for body in bodies {
            let key = Key::of(resource, &object::read(body)?);
            if let Some(stored) = transaction.get(&key)? {
                self.delete(transaction, resource, &key, &stored)?;
            }
        }
        Ok(())
    }

    /// Deletes one object, or marks it for deletion.
    pub(crate) fn delete(
        &self,
        transaction: &mut Transaction<'_>,
        resource: &Resource,
        key: &Key,
        stored: &Stored,
    ) -> Result<Deleted, ApiError> {
        let mut object = stored.object()?;
        self.check_preconditions(resource, &object)?;
        if resource.is_namespace() && key.name == crate::DEFAULT_NAMESPACE {
            let why = "this namespace may not be deleted";
            return Err(ApiError::forbidden(resource, &key.name, why));
        }
        if object::is_deleting(&object) {
            return Ok(Deleted::Marked(stored.body.clone()));
        }
        let uid = object::uid(&object).to_owned();
        if self.propagation == Propagation::Foreground
            && !transaction.dependents(&uid, 1)?.is_empty()
        {
            hold(&mut object, object::FOREGROUND);
        }
        let held = !object::texts(&object, "finalizers").is_empty() || resource.is_namespace();
        if held {
            self.mark(resource, &mut object);
        }
        if self.dry {
            return Ok(match held {
                true => Deleted::Marked(object.to_string().into()),
                false => Deleted::Gone(object),
            });
        }
        if self.propagation == Propagation::Orphan {
            orphan(transaction, &uid)?;
        }
        if held {
            return transaction.update(key, stored, &mut object).map(Deleted::Marked);
        }
        transaction.remove(key, stored, &mut object)?;
        Ok(Deleted::Gone(object))
    }

    fn check_preconditions(&self, resource: &Resource, object: &Value) -> Result<(), ApiError> {
        let checks = [
            ("UID", self.preconditions.uid.as_deref(), "uid"),
            ("ResourceVersion", self.preconditions.resource_version.as_deref(), "resourceVersion"),
        ];
        for (word, wanted, field) in checks {
            let found = object::text(object, field);
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                let why = format!(
                    "Precondition failed: {word} in precondition: {wanted}, \
                     {word} in object meta: {found}"
                );
                return Err(ApiError::conflict(resource, object::name(object), &why));
            }
        }
        Ok(())
    }

    fn mark(&self, resource: &Resource, object: &mut Value) {
        object::set(object, "deletionTimestamp", Some(object::moment(self.now_ms)));
        object::set(object, "deletionGracePeriodSeconds", Some(0.into()));
        let generation = object["metadata"]["generation"].as_u64().unwrap_or_default();
        object::set(object, "generation", Some((generation + 1).into()));
        if resource.is_namespace() {
            object["status"] = json!({ "phase": "Terminating" });
        }
    }
}

/// Adds a finalizer.
fn hold(object: &mut Value, finalizer: &str) {
    let mut finalizers: Vec<Value> =
        object::texts(object, "finalizers").into_iter().map(Value::from).collect();
    finalizers.push(finalizer.into());
    object::set(object, "finalizers", Some(finalizers.into()));
}

/// Makes every dependent forget its owner.
fn orphan(transaction: &mut Transaction<'_>, uid: &str) -> Result<(), ApiError> {
    loop {
        let dependents = transaction.dependents(uid, limits::COLLECT_TURN)?;
        if dependents.is_empty() {
            return Ok(());
        }
        for key in dependents {
            let Some(stored) = transaction.get(&key)? else { continue };
            let mut object = stored.object()?;
            forget_owners(&mut object, |owner| owner == uid);
            transaction.update(&key, &stored, &mut object)?;
        }
    }
}

/// Takes the owners away whose uid is `gone`.
pub(crate) fn forget_owners(object: &mut Value, gone: impl Fn(&str) -> bool) {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let left: Vec<Value> = owners
        .into_iter()
        .flatten()
        .filter(|owner| !owner["uid"].as_str().is_some_and(&gone))
        .cloned()
        .collect();
    let left = (!left.is_empty()).then(|| left.into());
    object::set(object, "ownerReferences", left);
}
