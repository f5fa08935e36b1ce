//! What goes because something else went: dependents of deleted owners, owners whose dependents
//! went first, the contents of namespaces and the emptied namespaces themselves; and events, once
//! they are past.
//!
//! The collector asks the store what there is to do, not events: so it finds after a restart what
//! it had not finished before, and a missed wake-up costs time only.

use std::sync::Arc;

use crate::{
    builtin::events,
    limits, object,
    status::ApiError,
    store::{Key, Stored, Transaction},
    verbs::{
        Api,
        delete::{Deletion, forget_owners},
    },
};

/// Collects until the server closes.
pub(crate) async fn run(api: Arc<Api>) {
    let mut closing = api.closing.subscribe();
    loop {
        // Each for itself: what cannot be collected does not keep what is past.
        let (swept, expired) = (sweep_all(&api).await, events::expire(&api).await);
        let rest = match swept.and(expired) {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(status = %error.status(), "collecting deleted objects failed");
                Some(limits::COLLECT_RETRY)
            }
        };
        let pause = async {
            match rest {
                Some(rest) => tokio::time::sleep(rest).await,
                None => {
                    let garbage = api.store.wait_for_garbage();
                    // In time or not: what is past is looked for in any case.
                    let _past = tokio::time::timeout(limits::EVENT_SWEEP, garbage).await;
                }
            }
        };
        tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => return,
            () = pause => {}
        }
    }
}

/// Sweeps, a transaction at a time, until nothing is left that can go.
async fn sweep_all(api: &Api) -> Result<(), ApiError> {
    loop {
        let deletion = Deletion::background(api.clock.now_ms());
        let changed = api.store.write(move |transaction| sweep(transaction, &deletion)).await?;
        if !changed || *api.closing.borrow() {
            return Ok(());
        }
    }
}

/// Takes a turn at everything; whether anything changed.
fn sweep(transaction: &mut Transaction<'_>, deletion: &Deletion) -> Result<bool, ApiError> {
    let orphans = turn(
        transaction,
        |at, limit, skip| at.orphans(limit, skip),
        |transaction, key| collect_orphan(transaction, deletion, key),
    )?;
    let pending = turn(
        transaction,
        |at, limit, skip| at.pending(limit, skip),
        |transaction, key| advance(transaction, deletion, key),
    )?;
    Ok(orphans || pending)
}

/// Takes what `find` finds, so many at a time, until some of it changed something. What fails is
/// passed over: one object must not hold up the others.
fn turn(
    transaction: &mut Transaction<'_>,
    find: fn(&Transaction<'_>, usize, usize) -> Result<Vec<Key>, ApiError>,
    take: impl Fn(&mut Transaction<'_>, &Key) -> Result<bool, ApiError>,
) -> Result<bool, ApiError> {
    let (mut changed, mut skip) = (false, 0);
    loop {
        let found = find(transaction, limits::COLLECT_TURN, skip)?;
        if found.is_empty() || changed {
            return Ok(changed);
        }
        skip += found.len();
        for key in found {
            match transaction.attempt(|transaction| take(transaction, &key)) {
                Ok(done) => changed |= done,
                Err(error) => {
                    if let Some(failure) = transaction.failure() {
                        return Err(failure.clone());
                    }
                    let status = error.status();
                    let (namespace, name) = (&key.namespace, &key.name);
                    tracing::warn!(namespace, name, %status, "an object cannot be collected");
                }
            }
        }
    }
}

/// Whether this is the one object that nothing may delete.
fn is_kept(transaction: &Transaction<'_>, key: &Key) -> bool {
    is_namespace(transaction, key) && key.name == crate::DEFAULT_NAMESPACE
}

fn is_namespace(transaction: &Transaction<'_>, key: &Key) -> bool {
    transaction.registry().at(key.resource).is_some_and(|resource| resource.is_namespace())
}

/// An object of which an owner is gone: it goes too if no owner is left, else it forgets that one.
/// Owners of kinds not served here may live elsewhere, so they hold it.
fn collect_orphan(
    transaction: &mut Transaction<'_>,
    deletion: &Deletion,
    key: &Key,
) -> Result<bool, ApiError> {
    let Some(stored) = transaction.get(key)? else { return Ok(false) };
    let object = stored.object()?;
    let (mut gone, mut left) = (Vec::new(), 0);
    for owner in object::owners(&object) {
        let served = transaction.registry().serves(owner.group, owner.kind);
        if served && !transaction.lives(owner.uid)? {
            gone.push(owner.uid.to_owned());
        } else {
            left += 1;
        }
    }
    if left == 0 {
        return leave(transaction, deletion, (key, &stored), &gone);
    }
    forget(transaction, (key, &stored), &gone)
}

/// An object that is being deleted: does what its deletion waits for, as far as that is ours.
fn advance(
    transaction: &mut Transaction<'_>,
    deletion: &Deletion,
    key: &Key,
) -> Result<bool, ApiError> {
    let Some(stored) = transaction.get(key)? else { return Ok(false) };
    let object = stored.object()?;
    if is_namespace(transaction, key) {
        return empty_namespace(transaction, deletion, key, &stored);
    }
    if object::texts(&object, "finalizers").contains(&object::FOREGROUND) {
        return delete_dependents(transaction, deletion, key, &stored);
    }
    Ok(false)
}

fn empty_namespace(
    transaction: &mut Transaction<'_>,
    deletion: &Deletion,
    key: &Key,
    stored: &Stored,
) -> Result<bool, ApiError> {
    let mut changed = false;
    for inside in transaction.within(&key.name, limits::COLLECT_TURN)? {
        if let Some(stored) = transaction.get(&inside)? {
            changed |= delete(transaction, deletion, &inside, &stored)?;
        }
    }
    let mut object = stored.object()?;
    let released = object::texts(&object, "finalizers").is_empty();
    if released && transaction.empty(&key.name)? {
        transaction.remove(key, stored, &mut object)?;
        changed = true;
    }
    Ok(changed)
}

fn delete_dependents(
    transaction: &mut Transaction<'_>,
    deletion: &Deletion,
    key: &Key,
    stored: &Stored,
) -> Result<bool, ApiError> {
    let mut object = stored.object()?;
    let uid = object::uid(&object).to_owned();
    let mut changed = false;
    for dependent in transaction.staying_dependents(&uid, limits::COLLECT_TURN)? {
        if let Some(stored) = transaction.get(&dependent)? {
            let owner = std::slice::from_ref(&uid);
            changed |= leave(transaction, deletion, (&dependent, &stored), owner)?;
        }
    }
    if changed || transaction.is_blocked(&uid)? {
        return Ok(changed);
    }
    let mut left = object::texts(&object, "finalizers");
    left.retain(|finalizer| *finalizer != object::FOREGROUND);
    let released = left.is_empty();
    let left = (!released).then(|| left.into());
    object::set(&mut object, "finalizers", left);
    if released {
        transaction.remove(key, stored, &mut object)?;
    } else {
        transaction.update(key, stored, &mut object)?;
    }
    Ok(true)
}

/// An object that shall follow its owners: it goes, or forgets them if nothing may delete it.
fn leave(
    transaction: &mut Transaction<'_>,
    deletion: &Deletion,
    (key, stored): (&Key, &Stored),
    owners: &[String],
) -> Result<bool, ApiError> {
    match is_kept(transaction, key) {
        true => forget(transaction, (key, stored), owners),
        false => delete(transaction, deletion, key, stored),
    }
}

fn forget(
    transaction: &mut Transaction<'_>,
    (key, stored): (&Key, &Stored),
    owners: &[String],
) -> Result<bool, ApiError> {
    let mut object = stored.object()?;
    forget_owners(&mut object, |uid| owners.iter().any(|gone| gone == uid));
    transaction.update(key, stored, &mut object)?;
    Ok(true)
}

fn delete(
    transaction: &mut Transaction<'_>,
    deletion: &Deletion,
    key: &Key,
    stored: &Stored,
) -> Result<bool, ApiError> {
    let Some(resource) = transaction.registry().at(key.resource) else { return Ok(false) };
    deletion.delete(transaction, resource, key, stored)?;
    Ok(true)
}
