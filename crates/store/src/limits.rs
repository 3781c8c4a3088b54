//! Every bound of the store client and the embedded engine, each with its reason.

use std::time::Duration;

pub(crate) use inventory_core::limits::{
    BATCH_GET_KEYS_MAX, RETRY_BACKOFF_MAX, RETRY_BACKOFF_MIN, SEATS_PER_EVENT_MAX, STRIPES_MAX,
    TRANSACTION_ACTIONS_MAX,
};

// ---- Input --------------------------------------------------------------------------------------

/// Largest total of one event, in units.
pub const EVENT_TOTAL_MAX: i64 = 1_000_000_000;

/// Most partition keys over which an event's seats are spread. A seat is sold in a transaction, which
/// takes two units of the 1,000 that a partition has a second: evenly spread 32,000 seats a second,
/// and as keys fall on partitions by lot, up to five on one, some 6,000: a stadium in ten seconds.
pub const SEAT_KEYS_MAX: u16 = 64;

// ---- The store ----------------------------------------------------------------------------------

/// Reads of stripes that a shard has under way before those of further events gather for one request:
/// with one, an event would wait for another's read; with two, half of one.
pub const STRIPE_READS_BEFORE_GATHERING: usize = 2;

/// Longest time that they gather: three reads' time. What takes longer is being tried again.
pub const STRIPE_READS_GATHER_MAX: Duration = Duration::from_millis(20);

/// Idle connections to the store that a shard keeps. One lane needs one; reads share the rest.
pub const STORE_IDLE_CONNECTIONS_MAX: usize = 32;

/// Idle connections over that number are closed once they are idle for this long: calls that end
/// together and start again together must not open their connections anew each time.
pub const STORE_SPARE_CONNECTION_AGE_MAX: Duration = Duration::from_secs(1);

/// Connections to the store that a shard may have open. Past it a call waits for one to come free.
pub const STORE_CONNECTIONS_MAX: usize = 128;

/// An idle store connection older than this is closed: DynamoDB closes idle ones itself soon after.
pub const STORE_IDLE_CONNECTION_AGE_MAX: Duration = Duration::from_secs(20);

/// How long a TCP and TLS connect to the store may take.
pub const STORE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause between two connects to a store that could not be connected to; calls fail at once meanwhile. A shard then makes
/// at most 20 connects a second, and notices within this time that the store is back.
pub const STORE_RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Addresses of one name that a connect tries in turn, all within the connect timeout.
pub const STORE_ADDRESSES_TRIED_MAX: usize = 4;

/// How long a resolved name is used for new connections: the time to live of DynamoDB's own names.
pub const STORE_RESOLVED_AGE_MAX: Duration = Duration::from_secs(5);

/// Names whose addresses a shard remembers: the store and the sources of its credentials.
pub const STORE_NAMES_RESOLVED_MAX: usize = 16;

/// How long requests go the way that one of the SDK's took, before the SDK makes one again: as long as
/// an endpoint or a clock's correction may lag, and a call in some hundred thousand.
pub const STORE_WAY_AGE_MAX: Duration = Duration::from_secs(60);

/// Read buffer of one store connection. An answer with 99 stored records fits in a few of them.
pub const STORE_READ_BUFFER_BYTES: usize = 16 * 1024;

/// Largest answer of the store: BatchGetItem's 16 MB as JSON, with room for its overhead.
pub const STORE_RESPONSE_BYTES_MAX: usize = 24 * 1024 * 1024;

/// How long a call outside the request path (tables, creating an event, a scan page) may take.
pub const STORE_ADMIN_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Tries of a call outside the request path when it was throttled or its outcome is unknown.
pub const STORE_ADMIN_TRIES_MAX: u32 = 5;

/// How long a write of many items off the request path is tried again while the store throttles it:
/// an import brings seats faster than their partitions take them, and waits for them instead of
/// failing. Shorter than the time limit of an admin call.
pub const STORE_TOGETHER_PATIENCE: Duration = Duration::from_secs(5);

/// Rounds of one BatchGetItem: what is still unprocessed after them counts as throttled.
pub const STORE_UNPROCESSED_ROUNDS_MAX: u32 = 4;

/// Records examined by one page of a scan: about a tenth of the 1 MB that the store allows.
pub const STORE_SCAN_PAGE_MAX: i32 = 500;

/// Seats in one page of a read of all: making sense of a page holds the shard for a millisecond or
/// two, and others have their turn between two pages.
pub const STORE_SEATS_PAGE_MAX: i32 = 250;

/// Partition keys of which a look at the free seats asks at once, each for one page at a time: a
/// house of 20,000 seats on 34 keys in some 100 ms, with no key asked for more than two thirds of
/// what its partition takes in read units.
pub const SEAT_KEYS_SIGHTED_AT_ONCE: usize = 8;

/// Single writes of one call outside the request path that are under way at once.
pub const STORE_ADMIN_CALLS_AT_ONCE: usize = 8;

/// Looks at an event's stripes while its total is being changed: each but the first means that
/// somebody else changed it, or bought what was to be taken out, in between.
pub const SET_TOTAL_ROUNDS_MAX: u32 = 8;

/// Lines a shard logs about the store in one second; what is over is counted, not written.
pub const STORE_LOG_LINES_PER_SECOND: u32 = 10;

/// Longest text of the store that goes into a log line, in bytes.
pub const STORE_LOG_BYTES_MAX: usize = 2 * 1024;

/// How long the first or a renewed set of credentials may take to come.
pub const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(10);

/// Credentials are renewed this long before they expire, off the request path.
pub const CREDENTIALS_RENEW_AHEAD: Duration = Duration::from_secs(5 * 60);

/// Pause between looks at the credentials' expiry, and after a renewal that failed.
pub const CREDENTIALS_LOOK_EVERY: Duration = Duration::from_secs(20);

/// Parts of the expiry index for each minute. Every hold and its end write it once: a partition takes
/// 1,000 writes a second, so that holds and ends together may come to 32,000 a second in a minute.
/// Stored data: it must not change from one version to the next.
pub const EXPIRY_SHARDS: u16 = 32;

/// Holds in one page of those that are due: a transaction's worth and some, for many have ended
/// already when they are found; making sense of them holds the shard for about a millisecond.
pub const STORE_DUE_PAGE_MAX: usize = 200;

/// How long `tables create` waits for a table or an index to become ACTIVE.
pub const TABLE_ACTIVE_WAIT_MAX: Duration = Duration::from_secs(180);

/// Pause between two looks at a table that is being made.
pub const TABLE_POLL: Duration = Duration::from_millis(250);

/// How long the embedded engine may take to finish its requests when it is stopped.
pub const ENGINE_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Default bound of one attempt at the store (DDB_TIMEOUT).
pub const STORE_ATTEMPT_TIMEOUT_DEFAULT: Duration = Duration::from_millis(200);

/// Released records are purged by the store's TTL after this: far longer than any client retries.
/// Confirmed ones are orders and are never purged.
pub const TOMBSTONE_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

// ---- What can be configured, and how far --------------------------------------------------------

/// Default for how often a read is tried again (DDB_MAX_RETRIES).
pub const STORE_READ_RETRIES_DEFAULT: u32 = 3;

// ---- The audit ----------------------------------------------------------------------------------

/// Items that one page of an audit examines: reading a page takes a shard about a millisecond, and
/// the sale waits no longer for it.
pub const AUDIT_PAGE_ITEMS: i32 = 200;
