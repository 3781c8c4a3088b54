//! Every bound of the server, each with its reason. What can be configured has its default here.
//!
//! Relations between bounds are asserted at compile time at the end of the file.

use std::time::Duration;

// ---- Input --------------------------------------------------------------------------------------

/// Longest event, reservation or seat id, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// Longest payment_intent_id, in bytes: keeps a record well under 1 KB, one write unit.
pub const PAYMENT_INTENT_BYTES_MAX: usize = 256;

/// Default for the most units one reservation may take (MAX_QTY).
pub const QTY_MAX_DEFAULT: u32 = 10;

/// The most that MAX_QTY can be set to.
pub const QTY_MAX_CEILING: u32 = 1_000;

/// The most seats one reservation may name: one reservation must fit a transaction.
pub const SEATS_PER_RESERVATION_MAX: usize = 10;

/// Largest total of one event, in units.
pub const EVENT_TOTAL_MAX: i64 = 1_000_000_000;

/// Most stripes of one event: a strong read of all of them stays one BatchGetItem.
pub const STRIPES_MAX: u16 = 64;

// ---- The store ----------------------------------------------------------------------------------

/// Actions of one TransactWriteItems, by DynamoDB's own limit.
pub const TRANSACTION_ACTIONS_MAX: usize = 100;

/// Bytes of one TransactWriteItems, by DynamoDB's own limit.
pub const TRANSACTION_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Upper bound of one record as sent, in bytes: three ids, the payment intent, names and hashes.
pub const RECORD_BYTES_MAX: usize = 2 * 1024;

/// Reservations in one batch: what a transaction leaves beside one stripe.
pub const BATCH_MEMBERS_MAX: usize = TRANSACTION_ACTIONS_MAX - 1;

/// Keys of one BatchGetItem, by DynamoDB's own limit.
pub const BATCH_GET_KEYS_MAX: usize = 100;

/// Idle connections to the store that a shard keeps. One lane needs one; reads share the rest.
pub const STORE_IDLE_CONNECTIONS_MAX: usize = 32;

/// Connections to the store that a shard may have open. Past it a call waits for one to come free.
pub const STORE_CONNECTIONS_MAX: usize = 128;

/// An idle store connection older than this is closed: DynamoDB closes idle ones itself soon after.
pub const STORE_IDLE_CONNECTION_AGE_MAX: Duration = Duration::from_secs(20);

/// How long a TCP and TLS connect to the store may take.
pub const STORE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Default bound of one attempt at the store (DDB_TIMEOUT).
pub const STORE_ATTEMPT_TIMEOUT_DEFAULT: Duration = Duration::from_millis(200);

/// Released records are purged by the store's TTL after this: far longer than any client retries.
/// Confirmed ones are orders and are never purged.
pub const TOMBSTONE_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

// ---- The group commit ---------------------------------------------------------------------------

/// Members waiting in one lane: at 99 per 20 ms about 1.6 s of work, beyond any useful deadline.
pub const LANE_QUEUE_MAX: usize = 8_192;

/// A full lane looks this often for callers that have gone: looking costs a pass over the queue,
/// which must not become the price of every call that is shed.
pub const LANE_SWEEP_EVERY: Duration = Duration::from_millis(10);

/// Lanes of one shard. An idle lane is dropped, so this bounds events being sold at one instant.
pub const LANES_MAX: usize = 16_384;

/// Events whose stripe count a shard remembers.
pub const EVENTS_KNOWN_MAX: usize = 16_384;

/// Operations a shard has taken and not answered.
pub const OPERATIONS_IN_FLIGHT_MAX: usize = 65_536;

/// Calls joined to, or queued behind, one reservation_id in flight.
pub const CALLS_PER_RESERVATION_MAX: usize = 64;

/// Calls waiting for one read of one event.
pub const READ_WAITERS_MAX: usize = 16_384;

/// First pause after a conflict or a throttle; doubled each time, jittered from half to full.
pub const RETRY_BACKOFF_MIN: Duration = Duration::from_millis(4);

/// Longest pause between tries.
pub const RETRY_BACKOFF_MAX: Duration = Duration::from_millis(200);

/// What a caller is told to wait when a queue is full or the store is busy.
pub const RETRY_AFTER: Duration = Duration::from_millis(100);

// ---- The wire -----------------------------------------------------------------------------------

/// Default deadline of a call that brings none (GRPC_TIMEOUT).
pub const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_millis(250);

/// Longest deadline a client may ask for; a longer one is cut to this.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Streams of one connection at a time (GRPC_MAX_CONCURRENCY).
pub const STREAMS_PER_CONNECTION_DEFAULT: u32 = 1_000;

/// Connections of one shard; one more is closed with a log line.
pub const CONNECTIONS_PER_SHARD_MAX: usize = 10_000;

/// Header list of a request, in bytes as HTTP/2 counts them.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// One request message. The largest legal one is under 3 KiB.
pub const REQUEST_MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Receive window of a connection: a thousand small requests in flight without an update.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Receive window of a stream: one largest message and its prefix.
pub const STREAM_WINDOW_BYTES: u32 = 64 * 1024 + 5;

/// Bytes buffered for one connection before its requests are read no further.
pub const WRITE_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// Response bytes that one stream may hold in the HTTP/2 layer.
pub const STREAM_SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// From accept to the end of the HTTP/2 preface.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Streams reset by the peer and not yet taken up: beyond it the connection is closed (rapid reset).
pub const PENDING_RESETS_MAX: usize = 100;

/// Default pause after which the server pings an idle peer (GRPC_KEEP_ALIVE_PERIOD).
pub const KEEP_ALIVE_PERIOD_DEFAULT: Duration = Duration::from_secs(30);

/// How long a peer may take to answer that ping: longer than a stop-the-world GC pause.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Default age at which a connection is asked to leave (MAX_CONNECTION_AGE), jittered by a tenth.
pub const CONNECTION_AGE_DEFAULT: Duration = Duration::from_secs(30 * 60);

/// What a connection that was asked to leave has left for its calls.
pub const CONNECTION_AGE_GRACE: Duration = Duration::from_secs(30);

/// Calls on the cold services (health, reflection) under way at once in the whole process.
pub const COLD_CALLS_MAX: usize = 256;

/// Body frames buffered in each direction of a cold call.
pub const COLD_FRAMES_BUFFERED: usize = 8;

// ---- The shard ----------------------------------------------------------------------------------

/// Registered buffer memory of one executor. Its default pins 30 MiB; nothing here does file I/O.
pub const RING_BUFFER_BYTES: usize = 64 * 1024;

/// Messages waiting in one shard's inbox from other shards and the side thread.
pub const INBOX_MAX: usize = 65_536;

/// Default for the settled answers a shard remembers (IDEMPOTENCY_CACHE_SIZE).
pub const ANSWERS_CACHED_DEFAULT: usize = 10_000;

/// Default for how long it remembers them (IDEMPOTENCY_TTL_SECONDS).
pub const ANSWERS_CACHED_FOR_DEFAULT: Duration = Duration::from_secs(300);

/// Default for how long a stop may take (SHUTDOWN_GRACE).
pub const SHUTDOWN_GRACE_DEFAULT: Duration = Duration::from_secs(30);

const _: () = {
    assert!(BATCH_MEMBERS_MAX < TRANSACTION_ACTIONS_MAX);
    assert!(RECORD_BYTES_MAX * TRANSACTION_ACTIONS_MAX < TRANSACTION_BYTES_MAX);
    assert!(4 * ID_BYTES_MAX + PAYMENT_INTENT_BYTES_MAX < RECORD_BYTES_MAX);
    assert!(STRIPES_MAX as usize <= BATCH_GET_KEYS_MAX);
    // A reservation drawn from every stripe must still fit one transaction.
    assert!((STRIPES_MAX as usize) < TRANSACTION_ACTIONS_MAX);
    assert!(LANE_QUEUE_MAX <= OPERATIONS_IN_FLIGHT_MAX);
    assert!(STREAM_WINDOW_BYTES as usize >= REQUEST_MESSAGE_BYTES_MAX + 5);
    assert!(STORE_IDLE_CONNECTIONS_MAX <= STORE_CONNECTIONS_MAX);
};
