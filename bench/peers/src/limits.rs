//! Every bound of the peer, each with its reason. What is part of the stored format or of the
//! contract is as the server has it.

use std::time::Duration;

/// An id, in bytes: the contract's.
pub const ID_BYTES_MAX: usize = 128;

/// A payment intent, in bytes: the server's.
pub const PAYMENT_INTENT_BYTES_MAX: usize = 256;

/// Units of one reservation: the server's default.
pub const QTY_MAX: u32 = 10;

/// Stripes of one event: the stored format's.
pub const STRIPES_MAX: u16 = 64;

/// Parts of a minute in the expiry index: the stored format's.
pub const EXPIRY_SHARDS: u32 = 32;

/// A hold without a wish, and the longest: the server's defaults.
pub const HOLD_TTL_DEFAULT: Duration = Duration::from_secs(60);
pub const HOLD_TTL_MAX: Duration = Duration::from_secs(15 * 60);

/// How long the store keeps what was released: the server's.
pub const TOMBSTONE_RETENTION: Duration = Duration::from_secs(30 * 24 * 3_600);

/// A call without a deadline of its own, and the longest of any: the server's defaults.
pub const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_millis(250);
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// What is kept of a deadline to answer it with a reason, before tonic ends the call without one.
pub const ANSWER_AHEAD: Duration = Duration::from_millis(2);

/// Calls under way at once, beyond which calls are shed: the default of the original Go server. Each
/// may have a connection to the store of its own, for the SDK's pool has no upper bound.
pub const CONCURRENCY_DEFAULT: usize = 1_000;
pub const CONCURRENCY_MAX: usize = 100_000;

/// How often a write that met another, or a throttled one, is made again: the default of the
/// original Go server, and what may be asked for. The SDK's own retries come on top.
pub const RETRIES_DEFAULT: u32 = 3;
pub const RETRIES_MAX: u32 = 100;

/// Turns of one call in which it learns something new (a record, an empty stripe): each of them
/// needs somebody else to have moved, so a handful is enough.
pub const TURNS_MAX: u32 = 16;

/// First pause before a repeat, doubled each time, jittered from nothing to full: what the AWS SDKs'
/// newer retry rules take for DynamoDB.
pub const PAUSE_FIRST: Duration = Duration::from_millis(25);
pub const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a caller is told to wait: the server's.
pub const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Events whose number of stripes is remembered; past it all are forgotten and read again.
pub const EVENTS_KNOWN_MAX: usize = 16_384;

/// Rounds for the keys that BatchGetItem leaves unprocessed.
pub const UNPROCESSED_ROUNDS_MAX: u32 = 4;

/// A request message: the server's.
pub const REQUEST_MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Streams of one connection: the server's default.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 1_000;

/// Threads of the runtime: far more than cores that this is of use on.
pub const THREADS_MAX: usize = 256;

/// Complaints on standard error: enough to tell what is wrong, not enough to fill a disk.
pub const COMPLAINTS_MAX: u32 = 100;

/// How long a stop waits for calls under way.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

const _: () = {
    // All of a reservation's stripes and its record fit one transaction.
    assert!((STRIPES_MAX as usize) < 100);
    // All stripes of an event fit one BatchGetItem.
    assert!(STRIPES_MAX <= 100);
    assert!(PAUSE_FIRST.as_millis() <= PAUSE_MAX.as_millis());
};
