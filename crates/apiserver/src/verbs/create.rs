//! Create: a new object, in a namespace that is made if it is not there.

use std::sync::Arc;

use eventbus_core::Entropy;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Api, Call, Written};
use crate::{
    admit, builtin,
    definition::Resource,
    fields::{self, Ownership},
    object,
    status::{ApiError, Cause},
    store::{Key, Transaction, serialised},
};

/// How often another name is tried when a generated one is taken.
const NAME_TRIES: usize = 8;
/// What generated names end with: no vowels, so no words; nothing that looks like something else.
const NAME_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// How many of them.
const NAME_SUFFIX: usize = 5;
/// A generated name keeps this much of its beginning.
const NAME_BASE: usize = 63 - NAME_SUFFIX;

/// Creates the object of the body.
pub(crate) async fn create(api: &Api, call: &Call) -> Result<Written, ApiError> {
    let resource = Arc::clone(call.resource());
    let decoded = call.object()?;
    let mut object = decoded.value;
    let (dry, validation) = (call.query.dry_run()?, call.query.field_validation()?);
    admit::check_kind(&resource, &object)?;
    place(&resource, call.target.namespace.as_deref(), &mut object)?;
    let warnings = admit::prune(&resource, &mut object, &decoded.duplicates, validation)
        .map_err(|unknown| unknown.in_object(&resource))?;
    fields::detach(&mut object);
    let is_named = !object::name(&object).is_empty();
    let newborn = Newborn::of(api);
    newborn.prepare(&resource, &mut object)?;
    admit::validate(&resource, &object)?;
    let author = call.author()?;
    Ownership::of_new(&resource.schema, &object, &author).attach(&mut object);
    let body = api
        .store
        .write(move |transaction| {
            if !is_named {
                newborn.find_name(transaction, &resource, &mut object)?;
            }
            newborn.insert(transaction, &resource, object, dry)
        })
        .await?;
    Ok(Written { code: StatusCode::CREATED, body, warnings })
}

/// The namespace of the path counts; a body may repeat it.
fn place(resource: &Resource, namespace: Option<&str>, object: &mut Value) -> Result<(), ApiError> {
    let given = object::text(object, "namespace");
    match namespace {
        Some(namespace) if given.is_empty() || given == namespace => {
            object::set(object, "namespace", Some(namespace.into()));
            Ok(())
        }
        None if !resource.namespaced && given.is_empty() => Ok(()),
        _ => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// What a new object is given.
#[derive(Clone)]
pub(super) struct Newborn {
    entropy: Arc<dyn Entropy>,
    now_ms: u64,
}

impl Newborn {
    pub(super) fn of(api: &Api) -> Self {
        Self { entropy: Arc::clone(&api.entropy), now_ms: api.clock.now_ms() }
    }

    /// Fills in what the server decides, and takes away what the client may not.
    pub(super) fn prepare(&self, resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
        if !object::text(object, "resourceVersion").is_empty() {
            let text = "resourceVersion should not be set on objects to be created";
            return Err(ApiError::bad_request(text));
        }
        if resource.has_status
            && let Some(members) = object.as_object_mut()
        {
            members.remove("status");
        }
        resource.schema.complete(object);
        builtin::complete(resource, object, self.now_ms);
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            object::set(object, field, None);
        }
        if object::name(object).is_empty() {
            self.name(object);
        }
        if object::name(object).is_empty() {
            let text = "Required value: name or generateName is required".into();
            let field = "metadata.name".into();
            let cause = Cause { reason: "FieldValueRequired", text, field };
            return Err(ApiError::invalid(resource, "", vec![cause]));
        }
        if resource.is_namespace() {
            label_namespace(object);
        }
        object::set(object, "uid", Some(self.uid().into()));
        object::set(object, "creationTimestamp", Some(object::moment(self.now_ms)));
        if resource.has_generation() {
            object::set(object, "generation", Some(1.into()));
        }
        Ok(())
    }

    pub(super) fn insert(
        &self,
        transaction: &mut Transaction<'_>,
        resource: &Resource,
        mut object: Value,
        dry: bool,
    ) -> Result<bytes::Bytes, ApiError> {
        let key = Key::of(resource, &object);
        if transaction.get(&key)?.is_some() {
            return Err(ApiError::already_exists(resource, &key.name));
        }
        if resource.namespaced {
            self.ensure_namespace(transaction, resource, &key, dry)?;
        }
        if dry {
            return serialised(&object);
        }
        if resource.is_event() {
            builtin::events::make_room(transaction, &key)?;
        }
        transaction.insert(&key, &mut object)
    }

    /// Gives the object another generated name while its own is taken.
    fn find_name(
        &self,
        transaction: &Transaction<'_>,
        resource: &Resource,
        object: &mut Value,
    ) -> Result<(), ApiError> {
        for _ in 0..NAME_TRIES {
            if transaction.get(&Key::of(resource, object))?.is_none() {
                break;
            }
            self.name(object);
        }
        Ok(())
    }

    /// Makes the namespace of a new object if it is not there; one that is going takes nothing in.
    /// An Event makes none: who tells of what was in a namespace must not bring it back.
    fn ensure_namespace(
        &self,
        transaction: &mut Transaction<'_>,
        resource: &Resource,
        key: &Key,
        dry: bool,
    ) -> Result<(), ApiError> {
        let Some(namespaces) = transaction.registry().namespaces() else { return Ok(()) };
        let at = Key {
            resource: namespaces.index,
            namespace: String::new(),
            name: key.namespace.clone(),
        };
        match transaction.get(&at)? {
            Some(stored) if object::is_deleting(&stored.object()?) => {
                let why = format!(
                    "unable to create new content in namespace {} because it is being terminated",
                    key.namespace
                );
                Err(ApiError::forbidden(resource, &key.name, &why))
            }
            Some(_) => Ok(()),
            None if resource.is_event() => Err(ApiError::not_found(namespaces, &key.namespace)),
            None if dry => Ok(()),
            None => {
                let mut namespace = json!({
                    "apiVersion": "v1", "kind": "Namespace",
                    "metadata": { "name": key.namespace },
                });
                self.prepare(namespaces, &mut namespace)?;
                transaction.insert(&at, &mut namespace)?;
                Ok(())
            }
        }
    }

    /// Names the object after its `generateName`.
    fn name(&self, object: &mut Value) {
        let base = object::text(object, "generateName");
        if base.is_empty() {
            return;
        }
        let mut name: String = base.chars().take(NAME_BASE).collect();
        let mut random = self.entropy.next_u64();
        let letters = NAME_LETTERS.len() as u64;
        for _ in 0..NAME_SUFFIX {
            let letter = usize::try_from(random % letters).unwrap_or_default();
            name.extend(NAME_LETTERS.get(letter).map(|letter| char::from(*letter)));
            random /= letters;
        }
        object::set(object, "name", Some(name.into()));
    }

    fn uid(&self) -> String {
        let (high, low) = (self.entropy.next_u64(), self.entropy.next_u64());
        let bits = u128::from(high) << 64 | u128::from(low);
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().hyphenated().to_string()
    }
}

/// Every namespace is selectable by its name.
pub(super) fn label_namespace(object: &mut Value) {
    let name = object::name(object).to_owned();
    let labels = &mut object["metadata"]["labels"];
    if labels.is_null() {
        *labels = json!({});
    }
    if let Some(labels) = labels.as_object_mut() {
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
}

/// Makes a namespace at start, if it is not there.
pub(crate) async fn ensure_namespace(api: &Api, name: &str) -> Result<(), ApiError> {
    let newborn = Newborn::of(api);
    let namespace = name.to_owned();
    api.store
        .write(move |transaction| {
            let Some(namespaces) = transaction.registry().namespaces() else { return Ok(()) };
            let key = Key { resource: namespaces.index, namespace, name: String::new() };
            match newborn.ensure_namespace(transaction, namespaces, &key, false) {
                // It is there, though going: the collector will finish.
                Err(error) if error.code() == StatusCode::FORBIDDEN => Ok(()),
                done => done,
            }
        })
        .await
}
