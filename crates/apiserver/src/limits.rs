//! Every bound of the API server, with its reason.

use std::time::Duration;

/// Bytes of a request body, as the real server's.
pub(crate) const BODY_BYTES: usize = 3 * 1024 * 1024;

/// Bytes of a stored object with all that the server notes in it, as etcd's: whoever lists or
/// watches it must hold it.
pub(crate) const OBJECT_BYTES: usize = 1536 * 1024;

/// Bytes that an object may have more while it is being deleted: a moment and a finalizer.
pub(crate) const DELETION_BYTES: usize = 4 * 1024;

/// Containers inside containers in an object. Real objects have ten; `serde_json` recurses to
/// 128, and a patch must not be able to build what could not be read again.
pub(crate) const JSON_DEPTH: usize = 100;

/// Operations of one JSON patch, as the real server's.
pub(crate) const PATCH_OPERATIONS: usize = 10_000;

/// Bytes that the `copy` operations of one JSON patch may copy, as the real server's: doubling
/// copies would fill memory otherwise.
pub(crate) const PATCH_COPY_BYTES: usize = 3 * 1024 * 1024;

/// Items of lists that one patch may look at or shift: some tenths of a second of a core at worst,
/// and a thousand times more than people's patches take.
pub(crate) const PATCH_STEPS: usize = 2_000_000;

/// Patches that are worked out at once: each holds its object several times over, and more of them
/// than cores, so that a long one does not keep the short ones waiting.
pub(crate) const DRAFTS: usize = 16;

/// How often a write is worked out anew because its object has changed, before it is done in the
/// writer's own turn.
pub(crate) const DRAFT_TRIES: usize = 3;

/// Writes waiting for the writer; more wait in their own requests.
pub(crate) const WRITE_QUEUE: usize = 1024;

/// Writes of one transaction: enough to share a sync among, few enough to answer soon.
pub(crate) const WRITE_BATCH: usize = 256;

/// Connections that read: a list of ten thousand takes a core for half a second, and two lists
/// must not keep a `get` waiting.
pub(crate) const READERS: usize = 3;

/// Page cache of a connection, KiB. The system caches the file anyway.
pub(crate) const PAGE_CACHE_KIB: i64 = 1024;

/// The write-ahead log is cut back to this after a checkpoint, bytes.
pub(crate) const WAL_BYTES: i64 = 8 * 1024 * 1024;

/// Recent changes kept for watchers, a resource: seconds of the busiest writing.
pub(crate) const RING_EVENTS: usize = 16_384;

/// Bytes of those changes, a resource.
pub(crate) const RING_BYTES: usize = 6 * 1024 * 1024;

// A change is kept with what was before it: the largest must find room.
const _: () = assert!(RING_BYTES > 2 * (OBJECT_BYTES + DELETION_BYTES) + 4 * 1024);

/// Bytes of objects, about, that a watch reads at once from what is there or from the ring, so that
/// it holds little while it waits for a slow client.
pub(crate) const WATCH_BYTES: usize = 256 * 1024;

/// Watches that are served at once: each may hold what it read for its client.
pub(crate) const WATCHES: usize = 1024;

/// Bytes of all lists that wait to be sent: ten thousand Subscriptions are about 20 MiB.
pub(crate) const LIST_BYTES: usize = 32 * 1024 * 1024;

/// How long a client may take for a list, as long as the real server gives a request.
pub(crate) const LIST_LASTS: Duration = Duration::from_secs(60);

/// How often an idle watch gets a bookmark.
pub(crate) const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// How often it is looked whether whoever watches still may: who is revoked sees no more than what
/// happens in this time.
pub(crate) const STANDING_EVERY: Duration = Duration::from_secs(1);

/// A watch without `timeoutSeconds` lasts this long at least and twice this at most.
pub(crate) const WATCH_LASTS: Duration = Duration::from_secs(30 * 60);

/// How long a read waits for a revision that is not reached yet, before 504.
pub(crate) const FRESH_WAIT: Duration = Duration::from_secs(3);

/// Objects that one collecting or deleting transaction takes, so that others get their turn.
pub(crate) const COLLECT_TURN: usize = 200;

/// How long the collector rests after a failure.
pub(crate) const COLLECT_RETRY: Duration = Duration::from_secs(1);

/// Causes named in one answer: an array of thousands of faults must not answer megabytes.
pub(crate) const CAUSES: usize = 256;

/// Bytes of a refused value that the answer repeats.
pub(crate) const QUOTED_BYTES: usize = 1024;

/// Bytes of all warnings of one answer, as the real server's.
pub(crate) const WARNING_BYTES: usize = 4096;

/// Bytes of all annotations of one object, as the real server's.
pub(crate) const ANNOTATION_BYTES: usize = 256 * 1024;

/// Terms of one selector: a real one has a handful, and each is tried on every object.
pub(crate) const SELECTOR_TERMS: usize = 256;

/// Events kept in a namespace: they tell why, and a thousand tell it as well as more.
pub(crate) const EVENTS: usize = 1000;

/// How long an event is kept after it happened last, milliseconds; as on the real server.
pub(crate) const EVENT_AGE_MS: u64 = 60 * 60 * 1000;

/// Bytes of one event: a few words and names.
pub(crate) const EVENT_BYTES: usize = 16 * 1024;

/// How often past events are looked for.
pub(crate) const EVENT_SWEEP: Duration = Duration::from_secs(60);

/// Bytes of all values of one Secret, as the real server's.
pub(crate) const SECRET_BYTES: usize = 1024 * 1024;

/// Bytes of the name of one value of a Secret, as the real server's.
pub(crate) const SECRET_KEY_BYTES: usize = 253;

/// Lines that wait for the audit log's writer; more wait in their own requests.
pub(crate) const AUDIT_QUEUE: usize = 1024;

/// Bytes of one file of the audit log: some fifty thousand writes.
pub(crate) const AUDIT_BYTES: u64 = 10 * 1024 * 1024;

/// Full files of the audit log that are kept beside the one being written.
pub(crate) const AUDIT_FILES: usize = 4;

/// Events of one YAML body: bounds what aliases can blow up.
pub(crate) const YAML_NODES: usize = 250_000;

/// Entries of `managedFields` for clients that write without applying, as the real server's: older
/// ones are put together, so that a client under ever new names does not grow an object.
pub(crate) const FIELD_AUTHORS: usize = 10;

/// Bytes of the name of one, as the real server's.
pub(crate) const FIELD_AUTHOR_BYTES: usize = 128;
