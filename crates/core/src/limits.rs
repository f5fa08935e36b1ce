//! Every limit in one place, with its reason. Settings may lower or raise those that say so.

use std::time::Duration;

// Publish

/// Bytes of one event's request body: 1 MiB, the largest message NATS takes by default (a setting).
pub const EVENT_BYTES: usize = 1024 * 1024;

/// Publish requests in work at once; one more is answered 429 (a setting). At 1 MiB each this
/// bounds the memory of all bodies together.
pub const REQUESTS_IN_WORK: usize = 1024;

/// Bytes read and dropped of a body that is too large, so that the answer can be read: 16 MiB.
pub const REFUSED_BODY_BYTES: u64 = 16 * 1024 * 1024;

/// Time spent reading and dropping a body that is too large.
pub const REFUSED_BODY_TIME: Duration = Duration::from_secs(5);

/// Characters of a source part, a source id or an event type (contract of the Event Bus 0.9).
pub const NAME_CHARS: usize = 253;

/// Characters of an event type version.
pub const VERSION_CHARS: usize = 64;

/// Characters of a tracing header that are carried through; a longer one is left out.
/// W3C Trace Context asks for at least 512 of `tracestate`.
pub const TRACE_HEADER_CHARS: usize = 1024;

/// How long publish waits for its catalog to hold every Subscription before it stores an event that
/// nobody seems to want.
pub const CATALOG_WAIT: Duration = Duration::from_secs(1);

/// What a refused publisher is told to wait (`Retry-After`), in seconds.
pub const RETRY_AFTER_S: u64 = 1;

// Connections

/// Connections a port serves at once. Each costs a descriptor and about 10 KiB.
pub const CONNECTIONS: usize = 4096;

/// Time for the head of a request to arrive whole: what ends a slow-header attack.
pub const HEAD_TIME: Duration = Duration::from_secs(10);

/// Time for the body of a request to arrive whole.
pub const BODY_TIME: Duration = Duration::from_secs(30);

/// Idle keep-alive connections to endpoints, in the whole process.
pub const IDLE_CONNECTIONS: usize = 1024;

/// Connections to endpoints, idle and busy, in the whole process, where the descriptor limit allows.
pub const PUSH_CONNECTIONS: usize = 16 * 1024;

/// An idle connection to an endpoint is closed after this time.
pub const IDLE_TIME: Duration = Duration::from_secs(30);

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

/// Time for attempts under way to end when the program drains; then they are abandoned and come
/// again. Below the ten seconds in which the program promises to be gone.
pub const DRAIN_TIME: Duration = Duration::from_secs(8);

// Log

/// The longest pause before a retry, spread included: due times are pulled back to it when the clock
/// was set back.
pub const PAUSE_MAX_MS: u64 = BACKOFF_MAX_MS * (100 + BACKOFF_JITTER_PERCENT) / 100;
