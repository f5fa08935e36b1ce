//! Every limit in one place, with its reason. Settings may lower or raise those that say so.

use std::time::Duration;

// Publish

/// Bytes of one event's request body: 1 MiB, as much as NATS takes by default (a setting).
pub const EVENT_BYTES: usize = 1024 * 1024;

/// Publish requests in work at once; one more is answered 429 (a setting). At 1 MiB each this
/// bounds the memory of all bodies together.
pub const REQUESTS_IN_WORK: usize = 1024;

/// Bytes of bodies that may be arriving at once, those left out that came with their heads: one
/// more is answered 429. Each counts as much as has come.
pub const ARRIVING_BYTES: usize = 256 * 1024 * 1024;

/// Bytes read and dropped of a body that is too large, so that the answer can be read: 16 MiB.
pub const REFUSED_BODY_BYTES: u64 = 16 * 1024 * 1024;

/// Time spent reading and dropping a body that is too large.
pub const REFUSED_BODY_TIME: Duration = Duration::from_secs(5);

/// Characters of a source part, a source id or an event type (contract of the Event Bus 0.9).
pub const NAME_CHARS: usize = 253;

/// Characters of an event type version.
pub const VERSION_CHARS: usize = 64;

/// Characters of an attribute's name in the contract's event: as long as CloudEvents recommends.
pub const ATTRIBUTE_NAME_CHARS: usize = 20;

/// Bytes of an attribute's value in the contract's event: it travels as a header.
pub const ATTRIBUTE_VALUE_BYTES: usize = 1024;

/// Attributes of the contract's event.
pub const ATTRIBUTES: usize = 32;

/// Attributes of a CloudEvent beside its source, type, id and time. CloudEvents has no such limit;
/// each travels as a header, of which many servers take a hundred.
pub const EXTENSIONS: usize = 64;

/// Bytes of all that describes a CloudEvent, names and values together, as they are written in
/// headers: many servers take no more than 64 KiB of them.
pub const DESCRIPTION_BYTES: usize = 32 * 1024;

/// Bytes that the attributes and the tracing context in the headers of a batch's request may have
/// for all its events together: each event stores them.
pub const BATCH_HEAD_BYTES: usize = 4 * 1024 * 1024;

/// Characters that an answer repeats of a value that it refuses.
pub const REPEATED_CHARS: usize = 253;

/// Bytes of an event's id that an answer has in a header; a longer one stands in the body alone.
pub const ANSWERED_ID_BYTES: usize = 1024;

/// Bytes of a batch's request body: as many as are read of a body that is too large (a setting).
pub const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// Events of a batch (a setting): each has a result of its own in the answer.
pub const BATCH_EVENTS: usize = 10_000;

/// How long an event may be delayed: a year. What is planned longer belongs into a calendar.
pub const DELAY_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Characters of a tracing header that are carried through; a longer one is left out.
/// W3C Trace Context asks for at least 512 of `tracestate`.
pub const TRACE_HEADER_CHARS: usize = 1024;

/// How long publish waits for its catalog to hold every Subscription before it stores an event that
/// nobody seems to want.
pub const CATALOG_WAIT: Duration = Duration::from_secs(1);

/// What a refused publisher is told to wait (`Retry-After`), in seconds.
pub const RETRY_AFTER_S: u64 = 1;

// Log and traces

/// Bytes of one value in a line of the log, as it is written there.
pub const LOG_VALUE_BYTES: usize = 1024;

/// Tags there is room for from the start: an attempt has at most 10, and no span more.
pub const TAGS: usize = 12;

/// Bytes of a tag of a span: a name of the contract, and what fits the columns of usual stores.
pub const TAG_BYTES: usize = 256;

/// Spans that wait to be exported; one more is dropped. What a collector can cost that is slow or
/// dead is 22 MiB: a span has 12 tags of 40 bytes, and at most 8 texts of [`TAG_BYTES`].
pub const SPANS_WAITING: usize = 8 * 1024;

/// Spans of one request to the collector: together they stay below its usual limits.
pub const SPANS_AT_ONCE: usize = 512;

/// How long a span waits for others to be exported with.
pub const SPANS_LINGER: Duration = Duration::from_secs(1);

/// Time for the collector to answer; then its spans are dropped.
pub const SPANS_SEND_TIME: Duration = Duration::from_secs(5);

/// How long no span is lost before the log says so: a collector that takes them by turns is said
/// once.
pub const SPANS_WELL_TIME: Duration = Duration::from_secs(60);

/// Time for all spans that still wait when the process stops.
pub const SPANS_DRAIN_TIME: Duration = Duration::from_secs(1);

// Connections

/// Connections a port serves at once. Each costs a descriptor and about 10 KiB.
pub const CONNECTIONS: usize = 4096;

/// Time for the head of a request to arrive whole: what ends a slow-header attack.
pub const HEAD_TIME: Duration = Duration::from_secs(10);

/// Time for the body of a request to arrive whole.
pub const BODY_TIME: Duration = Duration::from_secs(30);

/// Idle keep-alive connections to endpoints, in the whole process.
pub const IDLE_CONNECTIONS: usize = 1024;

/// Connections to endpoints, idle and busy, in the whole process, where the descriptor limit
/// allows.
pub const PUSH_CONNECTIONS: usize = 16 * 1024;

/// How soon a subscription that wants more connections than its share looks whether it may have
/// more now. Seldom enough that thousands who look cost nothing.
pub const SLOTS_AGAIN: Duration = Duration::from_millis(250);

/// An idle connection to an endpoint is closed after this time.
pub const IDLE_TIME: Duration = Duration::from_secs(30);

/// How long the addresses of an endpoint's host are believed.
pub const DNS_CACHE_TIME: Duration = Duration::from_secs(5);

/// Hosts whose addresses are remembered. Beyond it the ones that were looked up first are dropped.
pub const DNS_HOSTS: usize = 4096;

/// Threads that look up host names at once. A lookup cannot be interrupted, so each gets a thread.
pub const DNS_THREADS: usize = 32;

/// The same for hosts whose last lookup took longer than [`DNS_SLOW`]: hanging name servers use up
/// these and no others.
pub const DNS_SLOW_THREADS: usize = 8;

/// A lookup that takes longer than this marks its host as slow.
pub const DNS_SLOW: Duration = Duration::from_secs(1);

// Delivery

/// Pause before the first retry.
pub const BACKOFF_FIRST_MS: u64 = 1_000;

/// The longest pause between two attempts.
pub const BACKOFF_MAX_MS: u64 = 30_000;

/// How far a pause is spread to either side, in percent, so that retries do not come in herds.
pub const BACKOFF_JITTER_PERCENT: u64 = 20;

/// Parallel requests of a Subscription that names no `max_inflight`.
pub const MAX_INFLIGHT_DEFAULT: u32 = 10;

/// The largest `max_inflight` (contract of the Event Bus).
pub const MAX_INFLIGHT_MAX: u32 = 400;

/// Timeout of an attempt when a Subscription names none, or 0.
pub const PUSH_TIMEOUT_DEFAULT_MS: u32 = 1_000;

/// The largest `push_request_timeout_ms`.
pub const PUSH_TIMEOUT_MAX_MS: u32 = 60_000;

/// Bytes of an answer that are read; more closes the connection. The status counts either way.
pub const ANSWER_BYTES: usize = 16 * 1024;

/// Bytes of the head of an answer.
pub const ANSWER_HEAD_BYTES: usize = 16 * 1024;

/// Characters of an endpoint URL (contract of the Event Bus).
pub const ENDPOINT_CHARS: usize = 512;

/// Events of one subscription that may wait for a retry; then nothing fresh is leased.
pub const WAITING_EVENTS: usize = 65_536;

/// Attempts remembered beside an event that waits.
pub const ATTEMPTS_REMEMBERED: usize = 10;

/// Failed attempts in a row, with no success between, after which a subscription is said to fail.
/// One alone is everyday.
pub const FAILURES_IN_A_ROW: u32 = 3;

/// Looks in a row that find nothing waiting, with no failure between, after which nothing fails:
/// what failed, here or before, was delivered by another process. Not one alone, because what a
/// broker says of a cursor may be older than the last failure.
pub const IDLE_LOOKS: u32 = 3;

/// Cursors being opened or forgotten at once: enough to share a broker's commits, few enough not to
/// flood one that comes back.
pub const CURSOR_CHORES: usize = 64;

/// First pause after the broker did not do as it was told; doubles up to [`BROKER_PAUSE_MAX`].
pub const BROKER_PAUSE_FIRST: Duration = Duration::from_millis(100);

/// The longest pause before the broker is asked again.
pub const BROKER_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long the deletion of a Subscription may be on its way to a process that finds its cursor
/// gone: a watch that was lost is there again by then. After that it was removed by mistake.
pub const DELETION_TIME: Duration = Duration::from_secs(15);

/// How often each active subscription's cursor is looked at for full waiting rooms and losses, and
/// idle connections for their age.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Of how many Subscriptions metrics tell the lag one by one, unless told otherwise: three series
/// each, some 300 KiB of a page, which Prometheus keeps for weeks.
pub const TOLD_SUBSCRIPTIONS: usize = 1_000;

/// How often the API server is asked whether it is there: soon enough for an alert, and too seldom
/// to be noticed by the server.
pub const API_LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long its answer may take before it counts as not there: what Kubernetes gives a probe is
/// one second, and a busy server may need more.
pub const API_LOOK_TIME: Duration = Duration::from_secs(5);

/// How long a Subscription that loses nothing more and is delivered well is still not `ready`: long
/// enough that who looks now and then finds it, and not so long that it hides what comes next. How
/// much was lost is told for ever.
pub const LOSS_SHOWN: Duration = Duration::from_secs(5 * 60);

/// A count of losses is told again when it has grown by a part as small as this, or after
/// [`LOSS_TOLD_WITHIN`]. Who loses events all the time would else cause a write at each look.
pub const LOSS_TOLD_PART: u64 = 10;

/// How old a count of losses may be that is told.
pub const LOSS_TOLD_WITHIN: Duration = Duration::from_secs(60);

/// How full a backlog is told to be, in percent of what it may hold back: first while there is time
/// to do something, and so seldom that one that fills causes three writes.
pub const BACKLOG_STEPS_PERCENT: [u64; 3] = [50, 75, 90];

/// How far below a step a backlog must fall, in percent, before it is told to be below it: one that
/// hovers there is no news.
pub const BACKLOG_SLACK_PERCENT: u64 = 5;

/// Time for attempts under way to end when the program drains; then they are abandoned and come
/// again. Below the ten seconds in which the program promises to be gone.
pub const DRAIN_TIME: Duration = Duration::from_secs(8);

/// Time for abandoned attempts to let go of their leases, after [`DRAIN_TIME`].
pub const ABANDON_TIME: Duration = Duration::from_millis(500);

// Log

/// The longest pause before a retry, spread included: due times are pulled back to it when the
/// clock was set back.
pub const PAUSE_MAX_MS: u64 = BACKOFF_MAX_MS * (100 + BACKOFF_JITTER_PERCENT) / 100;

/// Settled events kept for replay: 1 GiB (a setting).
pub const HISTORY_BYTES: u64 = 1024 * 1024 * 1024;

/// How long an event is kept at most, settled or not (a setting). The age of the original.
pub const EVENT_AGE: Duration = Duration::from_secs(24 * 3600);

/// Share of the volume the log may fill, in percent: the rest is for everybody else on it.
pub const VOLUME_PERCENT: u64 = 80;

/// Bytes of a segment: 64 MiB. A kill costs reading one, trimming frees one.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// The largest segment that may be configured: a byte in it is 32 bits on disk.
pub const SEGMENT_MAX_BYTES: u64 = 1024 * 1024 * 1024;

/// Bytes of the first segment, so that an empty directory is ready at once.
pub const FIRST_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// The smallest segment that may be configured: a few events of tests.
pub const SEGMENT_LEAST_BYTES: u64 = 64 * 1024;

/// Published events kept in memory for those subscribers that keep up.
pub const TAIL_CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Bytes that an event takes on disk beside its request body, at most.
pub const STORED_HEAD_BYTES: usize = 64 * 1024;

/// Bytes of one stored event, or of one atomic batch: as much as the largest body that a setting
/// allows, and what each of its events takes on disk beside its part of the body. Below a third of
/// a segment, so that no segment is left half empty.
pub const STORED_BATCH_BYTES: usize = REFUSED_BODY_BYTES as usize
    + STORED_HEAD_BYTES
    + BATCH_HEAD_BYTES
    + BATCH_EVENTS * STORED_RECORD_BYTES;

/// Bytes that a small event of a batch takes on disk beside its part of the request body, at most.
pub const STORED_RECORD_BYTES: usize = 256;

/// How long the ids are remembered that publishers gave: a repeat within this time is not stored
/// again. Long enough for a publisher to try again after a restart; as JetStream does by itself.
pub const DEDUPLICATION_TIME: Duration = Duration::from_secs(120);

/// Ids remembered at most, about 30 bytes each: beyond it the oldest leave before their time.
/// Enough for 8,000 events a second over the whole time.
pub const DEDUPLICATION_IDS: usize = 1_000_000;

/// Delayed events that may wait until they are due: ten a second for a day. Their index is read
/// when the log is opened.
pub const DELAYED_EVENTS: u64 = 1_000_000;

/// Bytes of delayed events that may wait: as much as is kept for replay. They are beside what the
/// log may fill.
pub const DELAYED_BYTES: u64 = 1024 * 1024 * 1024;

/// KiB of delayed events that batches have on their way to where they wait, all together; the
/// others of a batch wait for their turn. Less than the queue before it takes, so that a large
/// batch is not refused by halves, and events that come alone find room.
pub const BATCH_DELAYS_KIB: usize = 12 * 1024;

/// Each of them counts as so many KiB at least: 2,048 of them.
pub const BATCH_DELAY_KIB_LEAST: usize = 6;

/// Delayed events on their way to where they wait. All of them are kept by one sync; so many are
/// more than come while another one runs.
pub const DELAY_QUEUE_EVENTS: usize = 4_096;

/// Bytes of them, unless it is one alone.
pub const DELAY_QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Delayed events that are stored together when they are due: enough that the two syncs which that
/// takes are not what limits them.
pub const DUE_EVENTS: usize = 1_024;

/// Pause before a delayed event is stored that could not be stored when it was due.
pub const DUE_AGAIN: Duration = Duration::from_secs(1);

/// Pause before a delayed event is looked at again that cannot be read, or that the log's present
/// settings leave no room for: whoever has to do something about it is told each time.
pub const DUE_SET_ASIDE: Duration = Duration::from_secs(24 * 3600);

/// Bytes of events that wait to be written; then publishing is refused until the disk keeps up. As
/// many as may be arriving at once: large batches that came together are stored together.
pub const APPEND_QUEUE_BYTES: usize = ARRIVING_BYTES;

/// Events that wait to be written: sixteen full batches, and more.
pub const APPEND_QUEUE_EVENTS: usize = 1 << 18;

/// Bytes of one commit: beyond this a write takes so long that a second one had better begin.
pub const COMMIT_BYTES: usize = 4 * 1024 * 1024;

/// How long events may stay unsynced of which none was asked to be `synced`.
pub const SYNC_TIME: Duration = Duration::from_millis(100);

/// So long after the beginning of a sync by which [`PACED_APPENDS`] were answered the next commit
/// is written: what comes meanwhile is synced together, unless it is much. Many publishers lose
/// little by it, and a sync costs the processor as much as two events; who publishes one after the
/// other never waits for it.
pub const SYNC_PACE: Duration = Duration::from_micros(400);

/// Appends answered by one sync from which on more are expected at once.
pub const PACED_APPENDS: usize = 4;

/// Positions that may be written and not yet synced; after a crash so many are skipped, because a
/// power cut may have taken every trace of them and a position is never used twice.
pub const UNSYNCED_POSITIONS: u64 = 1 << 20;

/// How long settlements may stay unsynced: what a power cut repeats at most.
pub const LEDGER_SYNC_TIME: Duration = Duration::from_secs(1);

/// Bytes of the ledger beyond twice its live state; then it is replaced by a snapshot.
pub const LEDGER_BYTES: u64 = 16 * 1024 * 1024;

/// Turns that wait to be written to the ledger.
pub const LEDGER_QUEUE: usize = 65_536;

/// Positions a cursor keeps at hand; beyond them it finds events by the index. 16 KiB at most.
pub const RING_POSITIONS: usize = 1_024;

/// Payload bytes of a batch whose events go into that memory; those of a larger one are read back
/// from the disk. They share their request body, and each that is held holds all of it.
pub const TAIL_BATCH_BYTES: usize = 1024 * 1024;

/// Bytes of one read for a cursor that lags: a hundred events of the usual size.
pub const READ_BYTES: usize = 128 * 1024;

/// Such reads kept in memory, for all cursors together: 8 MiB.
pub const READS_KEPT: usize = 64;

/// Damaged positions remembered so that each is counted once.
pub const DAMAGED_REMEMBERED: usize = 4_096;

/// How often the log looks after itself: retention, spare files, indexes.
pub const UPKEEP_TIME: Duration = Duration::from_secs(1);

// NATS

/// Time for the server to acknowledge an event: a publisher hears within two seconds.
pub const APPEND_TIME: Duration = Duration::from_millis(1_800);

/// Time for the server to answer any other call.
pub const NATS_CALL_TIME: Duration = Duration::from_secs(5);

/// Time for what is left to be said to the server at the end.
pub const NATS_CLOSE_TIME: Duration = Duration::from_secs(1);

/// How often the connection is tried; after two silent times it counts as lost.
pub const NATS_PING_EVERY: Duration = Duration::from_secs(2);

/// The longest pause before the server is connected to again.
pub const NATS_RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a lease is kept without a word from its process: what a lost process delays.
pub const NATS_ACK_WAIT: Duration = Duration::from_secs(10);

/// How often a process says that it is still at its leases: three words may get lost.
pub const NATS_PROGRESS_EVERY: Duration = Duration::from_secs(3);

/// How long a request for events stays open. Ten thousand idle cursors ask 333 times a second.
pub const NATS_PULL_TIME: Duration = Duration::from_secs(30);

/// How long the process that sweeps may be silent before another one does.
pub const NATS_SWEEP_LEASE: Duration = Duration::from_secs(5);

/// Bytes of the stream of events: 8 GiB (a setting). The server sets them aside.
pub const NATS_MAX_BYTES: u64 = 8 * 1024 * 1024 * 1024;

// Reports: what processes tell each other of how deliveries go

/// Pause after a report: what changes in it is told together, five times a second at most.
pub const REPORT_PAUSE: Duration = Duration::from_millis(200);

/// How often a process that has nothing to tell says that it is there.
pub const REPORT_EVERY: Duration = Duration::from_secs(3);

/// How long a process may be silent before what it said is dropped: three of its words may get
/// lost.
pub const REPORT_SILENCE: Duration = Duration::from_secs(10);

/// How often everything is told again, for who did not hear it. Of 10,000 Subscriptions that is
/// 20 KiB a second.
pub const REPORT_ROUND: Duration = Duration::from_secs(30);

/// Subscriptions in one report: with the longest uids far below the 1 MiB that NATS takes.
pub const REPORT_SUBSCRIPTIONS: usize = 250;

/// Bytes of a Subscription's uid in a report. Kubernetes' have 36.
pub const REPORT_UID_BYTES: usize = 128;

/// Processes that are heard at once; one more is not. A bus has a few dozen at most.
pub const REPORT_PROCESSES: usize = 64;

/// Subscriptions of one process that are kept; one more is not. Ten times what a bus is measured
/// with; about 20 MiB.
pub const REPORT_KEPT: usize = 100_000;

// Notices: the Events of Subscriptions

/// Notices that wait to be written: half as many as the embedded API keeps Events of a namespace,
/// so that a storm leaves the other half alone. For one more the oldest is dropped.
pub const NOTICES_WAITING: usize = 500;

/// Those among them that tell of nothing wrong; one more is dropped. Thousands of Subscriptions
/// that become active at once are one piece of news, and not thousands.
pub const NOTICES_WAITING_NORMAL: usize = 100;

/// Pause after each notice: each is a sync of the API's store, on the disk to which the log syncs.
/// All that wait are written in two minutes.
pub const NOTICE_PAUSE: Duration = Duration::from_millis(200);

/// Notices of one Subscription that may follow each other at once: twice what a Subscription meets
/// that is made, activated, fails and recovers.
pub const NOTICES_AT_ONCE: u32 = 12;

/// How often one more may follow. What repeats in between is counted and written as one, so that
/// an endpoint that fails and recovers all the time causes six a minute.
pub const NOTICE_AGAIN: Duration = Duration::from_secs(10);
