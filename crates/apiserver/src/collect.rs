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
        let swept = match sweep_all(&api).await {
            Ok(()) => events::expire(&api).await,
            failed => failed,
        };
        let rest = match swept {
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
    let mut changed = false;
    for key in transaction.orphans(limits::COLLECT_TURN)? {
        changed |= collect_orphan(transaction, deletion, &key)?;
    }
    let mut skip = 0;
    loop {
        let pending = transaction.pending(limits::COLLECT_TURN, skip)?;
        if pending.is_empty() || changed {
            return Ok(changed);
        }
        skip += pending.len();
        for key in pending {
            changed |= advance(transaction, deletion, &key)?;
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
    let mut object = stored.object()?;
    let (mut gone, mut left) = (Vec::new(), 0);
    for owner in object::owners(&object) {
        let served = transaction.registry().serves(owner.group, owner.kind);
        if served && !transaction.lives(owner.uid)? {
            gone.push(owner.uid.to_owned());
        } else {
            left += 1;
        }
    }
    if left == 0 && !is_kept(transaction, key) {
        return delete(transaction, deletion, key, &stored);
    }
    forget_owners(&mut object, |uid| gone.iter().any(|gone| gone == uid));
    transaction.update(key, &stored, &mut object)?;
    Ok(true)
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
            changed |= delete(transaction, deletion, &dependent, &stored)?;
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
