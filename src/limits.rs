//! Every bound of the server, each with its reason. What can be configured has its default here.
//!
//! The bounds of the crates below are re-exported, so that this module names all of them. Relations between
//! bounds are asserted at compile time in `limits/coherence.rs`.

mod audit;
mod coherence;
mod control_plane;
mod seats;
mod telemetry;
mod top;

use std::time::Duration;

pub use inventory_core::limits::*;
pub use inventory_grpc::limits::*;
pub use inventory_runtime::limits::*;
pub use inventory_store::limits::*;

pub use self::audit::*;
pub use self::control_plane::*;
pub use self::seats::*;
pub use self::telemetry::*;
pub use self::top::*;

// ---- Input --------------------------------------------------------------------------------------

/// Longest user_id, idempotency_key or reason, in bytes: taken from clients and not interpreted.
pub const OPAQUE_BYTES_MAX: usize = 256;

/// Longest name of a section, in bytes.
pub const SECTION_BYTES_MAX: usize = 128;

/// Default for how long a hold lasts that names no end (HOLD_TTL).
pub const HOLD_TTL_DEFAULT: Duration = Duration::from_secs(60);

/// Default for the longest hold a client may ask for (HOLD_TTL_MAX).
pub const HOLD_TTL_MAX_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// The most that HOLD_TTL_MAX can be set to.
pub const HOLD_TTL_CEILING: Duration = Duration::from_secs(24 * 3_600);

// ---- The group commit ---------------------------------------------------------------------------

/// The longest that can be set: what comes back on another node is not on sale for so long.
pub const SOLD_OUT_LATCH_MAX: Duration = Duration::from_secs(1);

/// Calls of a shard that wait for an answer, of its own clients and of other shards.
pub const CALLS_WAITING_MAX: usize = 2 * OPERATIONS_IN_FLIGHT_MAX;

/// Default for how old what a check is answered from may be (READ_STALENESS_MS): ten strong reads'
/// time, and less than a person notices.
pub const READ_STALENESS_DEFAULT: Duration = Duration::from_millis(50);

/// Shortest that can be set beside 0: below it every check would wait for a read all the same.
pub const READ_STALENESS_MIN: Duration = Duration::from_millis(1);

/// Longest that can be set: a check that is older advises nobody.
pub const READ_STALENESS_MAX: Duration = Duration::from_secs(1);

// ---- The wire -----------------------------------------------------------------------------------

/// Connections of one shard; one more is closed with a log line.
pub const CONNECTIONS_PER_SHARD_MAX: usize = 10_000;

// ---- The shard ----------------------------------------------------------------------------------

/// Messages waiting in one shard's inbox from other shards and the side thread.
pub const INBOX_MAX: usize = 65_536;

/// Pause between two looks of a shard for holds that are past their time. What is found is given
/// back within five seconds of its time: this, the lag of the index, and a few transactions.
pub const RECLAIM_EVERY: Duration = Duration::from_millis(2_500);

/// Keys of the expiry index that a shard works through at a time: enough to fill its bundles, and no
/// more, for sales share the store with them.
pub const RECLAIM_KEYS_AT_ONCE: usize = 2;

/// Holds of one page of the index, whose ends are under way together.
pub const RECLAIM_PAGE: usize = 200;

/// How far into a minute the one before it is looked at each time.
pub const RECLAIM_LOOK_BACK: Duration = Duration::from_secs(15);

/// After that it is looked at once in so many rounds.
pub const RECLAIM_LAST_MINUTE_EVERY: u32 = 8;

/// Once in so many rounds, about every five minutes, all minutes are looked at that a hold which
/// was missed may lie in.
pub const RECLAIM_WIDE_EVERY: u32 = 120;

/// How many minutes that is at most; what is older is found by the next start.
pub const RECLAIM_WIDE_MINUTES: u64 = 30;

/// A store that cannot be asked for expired holds is complained about this often.
pub const RECLAIM_COMPLAIN_EVERY: Duration = Duration::from_secs(30);

/// Default for the settled answers a shard remembers (IDEMPOTENCY_CACHE_SIZE).
pub const ANSWERS_CACHED_DEFAULT: usize = 10_000;

/// Default for how long it remembers them (IDEMPOTENCY_TTL_SECONDS).
pub const ANSWERS_CACHED_FOR_DEFAULT: Duration = Duration::from_secs(300);

/// Default for how long a stop may take (SHUTDOWN_GRACE).
pub const SHUTDOWN_GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// What the other shards have left to settle when one has failed: far more than a write takes, and
/// what waits for the failed one never ends.
pub const FAILED_GRACE: Duration = Duration::from_secs(2);

/// What a shard has left to end once it is told that the grace is over: a few looks into its inbox.
/// One that has not ended then hangs, and the process ends without it.
pub const ABORT_GRACE: Duration = Duration::from_secs(2);

// ---- What can be configured, and how far --------------------------------------------------------

/// Shards of one process: beyond any machine sold, and a typing error in SHARDS stays an error.
pub const SHARDS_MAX: usize = 1_024;

/// Shortest span that can be set for a deadline or a timeout: what the shard's timer resolves.
pub const CONFIGURED_SPAN_MIN: Duration = Duration::from_millis(1);

/// Longest attempt at the store that can be set (DDB_TIMEOUT): no call lives longer.
pub const STORE_ATTEMPT_TIMEOUT_MAX: Duration = CALL_TIMEOUT_MAX;

/// The most read retries that can be set: more would outlive every deadline.
pub const STORE_READ_RETRIES_MAX: u32 = 10;

/// The most streams per connection that can be set: what a shard takes in flight altogether.
pub const STREAMS_PER_CONNECTION_MAX: u32 = OPERATIONS_IN_FLIGHT_MAX as u32;

/// Shortest hold that can be set: shorter ends before its buyer has seen it.
pub const HOLD_TTL_MIN: Duration = Duration::from_secs(1);

/// Shortest pause between the server's own pings that can be set: shorter is a load of its own.
pub const KEEP_ALIVE_PERIOD_MIN: Duration = Duration::from_secs(1);

/// Longest pause between pings that can be set: beyond it load balancers drop idle connections.
pub const KEEP_ALIVE_PERIOD_MAX: Duration = Duration::from_secs(3_600);

/// Shortest connection age that can be set; zero turns ageing off.
pub const CONNECTION_AGE_MIN: Duration = Duration::from_secs(1);

/// Longest connection age that can be set.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// The most answers per shard that can be cached: about a quarter of a GiB of records.
pub const ANSWERS_CACHED_MAX: usize = 1_000_000;

/// Shortest memory for a settled answer that can be set.
pub const ANSWERS_CACHED_FOR_MIN: Duration = Duration::from_secs(1);

/// Longest memory for a settled answer that can be set.
pub const ANSWERS_CACHED_FOR_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Longest grace of a stop that can be set; zero stops at once.
pub const SHUTDOWN_GRACE_MAX: Duration = Duration::from_secs(600);

/// Longest spin before a shard sleeps that can be set: longer burns the core for no better latency.
pub const SPIN_BEFORE_PARK_MAX: Duration = Duration::from_millis(1);

/// Bytes of a service name, version, profile, region: they become labels and log fields.
pub const LABEL_BYTES_MAX: usize = 128;

/// Bytes of a table name, by DynamoDB's own limits.
pub const TABLE_NAME_BYTES_MIN: usize = 3;

/// See [`TABLE_NAME_BYTES_MIN`].
pub const TABLE_NAME_BYTES_MAX: usize = 255;

// ---- What the process asks of the machine -------------------------------------------------------

/// How long a command waits for a running server to take its connection.
pub const COMMAND_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a command waits for the answer: creating an event writes up to [`STRIPES_MAX`] items.
pub const COMMAND_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Events that `event list` sorts and prints: as many as memory takes without a thought.
pub const EVENTS_LISTED_MAX: usize = 100_000;

/// One message of a listing: a page of [`STORE_SCAN_PAGE_MAX`] reservations with all they can have.
pub const ADMIN_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of a file of seats: [`SEATS_PER_EVENT_MAX`] lines with every text at its longest.
pub const IMPORT_FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Wrong lines that an import tells; the others are counted.
pub const IMPORT_PROBLEMS_SHOWN: usize = 20;

/// How long an import waits for a server that takes nothing: longer than any write it makes of it.
pub const IMPORT_STALL_MAX: Duration = Duration::from_secs(30);

/// Pause between two pings of a command that waits: a server that has gone is found out.
pub const COMMAND_PING_EVERY: Duration = Duration::from_secs(10);

/// How long `health` waits in all: probes are usually given little more.
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// How long `check` waits for the store: a look at it, not a siege.
pub const PREFLIGHT_STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Tickets and buyers of one `demo`: more would only take longer to tell the same.
pub const DEMO_TICKETS_MAX: u64 = 1_000_000;

/// See [`DEMO_TICKETS_MAX`].
pub const DEMO_BUYERS_MAX: u64 = 5_000_000;

/// Connections of one `demo`: they share the machine's descriptors with the server.
pub const DEMO_CONNECTIONS_MAX: u32 = 256;

/// Oldest kernel whose io_uring serves the executor.
pub const KERNEL_MIN: (u32, u32) = (5, 8);

/// Below this RLIMIT_MEMLOCK an executor refuses to start, whatever it needs.
pub const MEMLOCK_FLOOR_BYTES: u64 = 512 * 1024;

/// Locked memory of one shard: [`RING_BUFFER_BYTES`] registered with each of three rings (measured
/// as VmPin: 192 KiB) and the rings themselves at [`RING_DEPTH`] (104 KiB each), rounded up. Kernels
/// from 5.12 to about 6.13 count only the registered part.
pub const MEMLOCK_SHARD_BYTES: u64 = 512 * 1024;

/// Descriptors of the process beside connections: standard streams, logs, the side thread's sockets.
pub const DESCRIPTORS_OF_PROCESS: u64 = 64;

/// Descriptors of one shard beside connections: three rings, an eventfd, timers, the listener.
pub const DESCRIPTORS_OF_SHARD: u64 = 16;

/// Client connections of one shard under which serving is pointless.
pub const CONNECTIONS_PER_SHARD_USEFUL: u64 = 64;

/// Client connections of one shard under which an operator should know of the limit.
pub const CONNECTIONS_PER_SHARD_USUAL: u64 = 1_000;
