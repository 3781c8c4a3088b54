//! Every bound of the store client and the embedded engine, each with its reason.

use std::time::Duration;

pub(crate) use inventory_core::limits::{
    BATCH_GET_KEYS_MAX, MEMBERS_MAX, RETRY_BACKOFF_MAX, RETRY_BACKOFF_MIN, SEAT_KEYS_IN_PARALLEL,
    SEATS_PER_EVENT_MAX, STRIPES_MAX, TRANSACTION_ACTIONS_MAX,
};

// ---- Input --------------------------------------------------------------------------------------

/// Largest total of one event, in units.
pub const EVENT_TOTAL_MAX: i64 = 1_000_000_000;

/// Most partition keys over which an event's seats are spread. Selling a seat takes two of the 1,000 write units that a
/// partition has per second: 32,000 seats per second if keys are spread evenly. Keys are hashed to partitions; with up
/// to five keys on one partition about 6,000 seats per second remain.
pub const SEAT_KEYS_MAX: u16 = 64;

// ---- The store ----------------------------------------------------------------------------------

/// Stripe reads in flight on a shard from which the reads of further events are batched into one request. With two, an
/// event waits on average for half of another event's read; with one, it would wait for a whole one.
pub const STRIPE_READS_BEFORE_BATCHING: usize = 2;

/// Time after which a read in flight no longer delays the batched reads: about three reads. A slower read is probably
/// being retried.
pub const STRIPE_READ_BATCHING_MAX: Duration = Duration::from_millis(20);

/// Idle connections to the store that a shard keeps: one for each busy lane, and the rest for reads.
pub const STORE_IDLE_CONNECTIONS_MAX: usize = 32;

/// Idle connections above [`STORE_IDLE_CONNECTIONS_MAX`] are closed after this time, so that bursts of calls reuse
/// connections.
pub(crate) const STORE_SPARE_CONNECTION_AGE_MAX: Duration = Duration::from_secs(1);

/// Connections to the store that a shard may have open. Above it a call waits for a free connection.
pub const STORE_CONNECTIONS_MAX: usize = 128;

/// An idle store connection older than this is closed: DynamoDB closes idle ones itself soon after.
pub(crate) const STORE_IDLE_CONNECTION_AGE_MAX: Duration = Duration::from_secs(20);

/// How long a TCP and TLS connect to the store may take.
pub(crate) const STORE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause between two connects to a store that could not be connected to; calls fail at once meanwhile. A shard then
/// makes at most 20 connects a second, and notices within this time that the store is back.
pub(crate) const STORE_RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Addresses of one name that a connect tries in turn, all within the connect timeout.
pub(crate) const STORE_ADDRESSES_TRIED_MAX: usize = 4;

/// How long a resolved name is used for new connections: the time to live of DynamoDB's own names.
pub(crate) const STORE_RESOLVED_AGE_MAX: Duration = Duration::from_secs(5);

/// Names whose addresses a shard caches: the store and the sources of its credentials.
pub(crate) const STORE_NAMES_RESOLVED_MAX: usize = 16;

/// Maximum age of a request template. A changed endpoint or clock offset takes effect after at most this time; under
/// load one call in about 100,000 then uses the SDK.
pub(crate) const REQUEST_TEMPLATE_AGE_MAX: Duration = Duration::from_secs(60);

/// Read buffer of one store connection. An answer with 99 stored records fits in a few of them.
pub(crate) const STORE_READ_BUFFER_BYTES: usize = 16 * 1024;

/// Largest answer of the store: BatchGetItem's 16 MB as JSON, with room for its overhead.
pub(crate) const STORE_RESPONSE_BYTES_MAX: usize = 24 * 1024 * 1024;

/// How long a call outside the request path (tables, creating an event, a scan page) may take.
pub(crate) const STORE_ADMIN_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Attempts of a call outside the request path that was throttled or whose outcome is unknown.
pub const STORE_ADMIN_ATTEMPTS_MAX: u32 = 5;

/// How long a write of many items outside the request path is retried while the store throttles it: an import sends
/// seats faster than their partitions accept them. Shorter than the time limit of an admin call.
pub const STORE_ADMIN_THROTTLE_RETRY_MAX: Duration = Duration::from_secs(5);

/// Rounds of one BatchGetItem: what is still unprocessed after them counts as throttled.
pub const STORE_UNPROCESSED_ROUNDS_MAX: u32 = 4;

/// Records examined by one page of a scan: about a tenth of the 1 MB that the store allows.
pub const STORE_SCAN_PAGE_MAX: i32 = 500;

/// Seats in one page of a read of the seats. Decoding a page takes about a millisecond (estimated); the shard yields
/// between pages.
pub const STORE_SEATS_PAGE_MAX: i32 = 1_000;

/// Single writes of one call outside the request path that run in parallel.
pub(crate) const STORE_ADMIN_CALLS_IN_PARALLEL: usize = 8;

/// Attempts to change an event's total. Each retry means that another change, or a sale of the units to be removed,
/// intervened.
pub(crate) const SET_TOTAL_ATTEMPTS_MAX: u32 = 8;

/// Lines a shard logs about the store in one second; further lines are counted and dropped.
pub(crate) const STORE_LOG_LINES_PER_SECOND: u32 = 10;

/// A failure that is equal to an earlier one (operation, status and error code) is counted and logged once in this
/// time.
pub(crate) const STORE_LOG_REPEAT: Duration = Duration::from_secs(60);

/// Kinds of failures that are distinguished for this.
pub(crate) const STORE_LOG_KINDS_MAX: usize = 32;

/// How long one measurement of the clock skew takes in answers: long enough for some at every time of a second.
pub(crate) const CLOCK_SKEW_WINDOW: Duration = Duration::from_secs(60);

/// How long one probe of a failing store may take.
pub(crate) const STORE_PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest text of the store that goes into a log line, in bytes.
pub(crate) const STORE_LOG_BYTES_MAX: usize = 2 * 1024;

/// How long a fetch of credentials may take.
pub(crate) const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(10);

/// Credentials are renewed this long before they expire, off the request path.
pub(crate) const CREDENTIALS_RENEW_AHEAD: Duration = Duration::from_secs(5 * 60);

/// Pause between checks of the credentials' expiry, and between renewals that the store's refusals cause.
pub(crate) const CREDENTIALS_LOOK_EVERY: Duration = Duration::from_secs(20);

/// Attempts to get the first credentials: with the pauses, as long as an agent on the node takes to restart.
pub(crate) const CREDENTIALS_START_TRIES: u32 = 4;

/// First pause after a fetch of credentials that failed; doubles each time.
pub(crate) const CREDENTIALS_RETRY_PAUSE_MIN: Duration = Duration::from_millis(500);

/// Longest pause between renewals that fail: five of them before credentials expire.
pub(crate) const CREDENTIALS_RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Bytes of a proxy's answer to CONNECT: a status line and some headers.
pub(crate) const PROXY_ANSWER_BYTES_MAX: usize = 8 * 1024;

/// Holds in one page of overdue holds: about two transactions, because many of the holds have already ended when they
/// are found. Decoding a page takes about 1 ms.
pub(crate) const STORE_DUE_PAGE_MAX: usize = 200;

/// How long `tables create` waits for a table or an index to become ACTIVE.
pub(crate) const TABLE_ACTIVE_WAIT_MAX: Duration = Duration::from_secs(180);

/// Poll interval while a table is being created.
pub(crate) const TABLE_POLL: Duration = Duration::from_millis(250);

/// How long the embedded engine may take to finish its requests when it is stopped.
pub(crate) const ENGINE_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Default bound of one attempt at the store (DDB_TIMEOUT).
pub(crate) const STORE_ATTEMPT_TIMEOUT_DEFAULT: Duration = Duration::from_millis(200);

/// Released records are purged by the store's TTL after this: far longer than any client retries.
/// Confirmed ones are orders and are never purged.
pub const TOMBSTONE_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// Entries of the membership item that are read: far more than processes list, so that a damaged item costs little.
pub(crate) const MEMBERS_READ_MAX: usize = 256;

// ---- Defaults of settings -----------------------------------------------------------------------

/// Default for the retries of a read (DDB_MAX_RETRIES).
pub(crate) const STORE_READ_RETRIES_DEFAULT: u32 = 3;

// ---- The audit ----------------------------------------------------------------------------------

/// Items that one page of an audit examines. Decoding a page takes about 1 ms, which is the longest delay for sales.
pub(crate) const AUDIT_PAGE_ITEMS: i32 = 200;

// Relations between these bounds.
const _: () = {
    assert!(AUDIT_PAGE_ITEMS <= STORE_SCAN_PAGE_MAX);
    assert!(MEMBERS_MAX < MEMBERS_READ_MAX);
    assert!(STORE_SPARE_CONNECTION_AGE_MAX.as_secs() < STORE_IDLE_CONNECTION_AGE_MAX.as_secs());
    assert!(STORE_IDLE_CONNECTIONS_MAX <= STORE_CONNECTIONS_MAX);
    assert!(CREDENTIALS_LOOK_EVERY.as_secs() < CREDENTIALS_RENEW_AHEAD.as_secs());
};
