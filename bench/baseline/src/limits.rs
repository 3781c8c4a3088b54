//! Every bound of the baseline service with its reason. Bounds of the stored format and of the contract
//! are the server's.

use std::time::Duration;

/// Length of an id in bytes, by contract.
pub const ID_BYTES_MAX: usize = 128;

/// Length of a payment intent in bytes; the server's bound.
pub const PAYMENT_INTENT_BYTES_MAX: usize = 256;

/// Units of one reservation; the server's default.
pub const QTY_MAX: u32 = 10;

/// Stripes of one event, by the stored format.
pub const STRIPES_MAX: u16 = 64;

/// Buckets per minute of the expiry index, by the stored format.
pub const EXPIRY_SHARDS: u32 = 32;

/// Hold duration without a requested expiry, and the longest one; the server's defaults.
pub const HOLD_TTL_DEFAULT: Duration = Duration::from_secs(60);
pub const HOLD_TTL_MAX: Duration = Duration::from_secs(15 * 60);

/// Retention of a released record; the server's value.
pub const TOMBSTONE_RETENTION: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Deadline of calls without a grpc-timeout, and the longest deadline; the server's defaults.
pub const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_millis(250);
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Part of the deadline reserved for a response with a reason: tonic ends an overdue call without one.
pub const RESPONSE_MARGIN: Duration = Duration::from_millis(2);

/// Calls in flight before new calls are rejected; the default of the original Go server. Each may hold
/// one store connection, because the SDK's pool is unbounded.
pub const CONCURRENCY_DEFAULT: usize = 1_000;
pub const CONCURRENCY_MAX: usize = 100_000;

/// Retries of a conflicting or throttled write; the default of the original Go server, and the largest
/// setting. The SDK's own retries come on top.
pub const RETRIES_DEFAULT: u32 = 3;
pub const RETRIES_MAX: u32 = 100;

/// Steps of one call that read new state (a record, an empty stripe). Each needs a concurrent change by
/// another caller, so a few are enough.
pub const STEPS_MAX: u32 = 16;

/// First retry delay, doubled each time, with full jitter: the AWS SDKs' values for DynamoDB.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(25);
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Retry delay that clients are asked for; the server's value.
pub const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Events whose stripe count is cached. A full cache is cleared.
pub const CACHED_EVENTS_MAX: usize = 16_384;

/// Rounds for keys that BatchGetItem returns unprocessed.
pub const UNPROCESSED_ROUNDS_MAX: u32 = 4;

/// Size of a request message; the server's bound.
pub const REQUEST_MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Streams of one connection; the server's default.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 1_000;

/// Worker threads of the runtime, far beyond the cores of a benchmark machine.
pub const THREADS_MAX: usize = 256;

/// Store errors logged to standard error: enough for a diagnosis, too few to fill a disk.
pub const LOGGED_ERRORS_MAX: u32 = 100;

/// Time that a shutdown waits for calls in flight.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

const _: () = {
    // All stripes of a reservation and its record fit into one transaction.
    assert!((STRIPES_MAX as usize) < 100);
    // All stripes of an event fit into one BatchGetItem.
    assert!(STRIPES_MAX <= 100);
    assert!(BACKOFF_FIRST.as_millis() <= BACKOFF_MAX.as_millis());
};
