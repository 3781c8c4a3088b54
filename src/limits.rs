//! Every bound of the server, with its reason, and the defaults of the settings.
//!
//! The bounds of the crates under `crates/` are re-exported, so that all bounds can be found here. Relations between
//! bounds are asserted at compile time in `limits/coherence.rs`.

mod audit;
mod coherence;
mod control_plane;
mod seats;
mod telemetry;
mod tls;
mod top;

use std::time::Duration;

pub(crate) use inventory_core::limits::*;
pub(crate) use inventory_grpc::limits::*;
pub(crate) use inventory_runtime::limits::*;
pub(crate) use inventory_store::limits::*;

pub(crate) use self::audit::*;
pub use self::control_plane::*;
pub(crate) use self::seats::*;
pub(crate) use self::telemetry::*;
pub use self::tls::*;
pub(crate) use self::top::*;

// ---- Input --------------------------------------------------------------------------------------

/// Longest user_id, idempotency_key or reason, in bytes: accepted from clients and not interpreted.
pub(crate) const OPAQUE_BYTES_MAX: usize = 256;

/// Longest section name, in bytes.
pub(crate) const SECTION_BYTES_MAX: usize = 128;

/// Text of one error, in bytes. Trailers have it up to four times, three of these in base64, and clients accept 8 KB of
/// trailers: a longer error would be lost, with its reason. Invalid fields and seats that do not fit are counted.
pub(crate) const ERROR_TEXT_BYTES_MAX: usize = 1_536;

/// Text of one problem, in bytes, which may quote what was sent.
pub(crate) const PROBLEM_BYTES_MAX: usize = 256;

/// Default of HOLD_TTL: duration of holds without hold_expires_at.
pub(crate) const HOLD_TTL_DEFAULT: Duration = Duration::from_secs(60);

/// Default of HOLD_TTL_MAX: longest hold a client may request.
pub(crate) const HOLD_TTL_MAX_DEFAULT: Duration = Duration::from_secs(15 * 60);

/// Upper bound of HOLD_TTL_MAX.
pub(crate) const HOLD_TTL_CEILING: Duration = Duration::from_secs(24 * 3_600);

// ---- The group commit ---------------------------------------------------------------------------

/// Upper bound of SOLD_OUT_LATCH_MS: units returned by another process stay off sale for up to this long.
pub(crate) const SOLD_OUT_LATCH_MAX: Duration = Duration::from_secs(1);

/// Calls of a shard's own clients, and queries of other shards, that wait for an answer.
pub(crate) const CALLS_WAITING_MAX: usize = 2 * OPERATIONS_IN_FLIGHT_MAX;

/// Default of READ_STALENESS_MS: the time of about ten strong reads, and shorter than a person notices.
pub const READ_STALENESS_DEFAULT: Duration = Duration::from_millis(50);

/// Lower bound of READ_STALENESS_MS besides 0: a read takes about that long, so that below it every check would wait.
pub(crate) const READ_STALENESS_MIN: Duration = Duration::from_millis(1);

/// Upper bound of READ_STALENESS_MS: an older check is of no use.
pub(crate) const READ_STALENESS_MAX: Duration = Duration::from_secs(1);

/// Shortest time between two log lines about payment conflicts on a shard.
pub(crate) const PAYMENT_CONFLICT_LOG_PAUSE: Duration = Duration::from_secs(1);

// ---- gRPC ---------------------------------------------------------------------------------------

/// Connections of one shard, fewer if RLIMIT_NOFILE has no room for them. A further one takes the place of the idlest.
pub(crate) const CONNECTIONS_PER_SHARD_MAX: usize = 10_000;

/// Connections that the kernel queues per listener while its shard or the control plane is busy.
pub(crate) const LISTEN_BACKLOG: i32 = 1_024;

/// Connections that a shard accepts before its other tasks run: a flood of connections keeps the backlog full.
pub(crate) const ACCEPTS_PER_POLL_MAX: usize = 16;

// ---- The shard ----------------------------------------------------------------------------------

/// Messages waiting in one shard's inbox, from other shards and from the control plane.
pub(crate) const INBOX_MAX: usize = 65_536;

/// Holds of one page of a bucket, which are expired in parallel.
pub(crate) const RECLAIM_PAGE: usize = 200;

/// Default of SHUTDOWN_GRACE: time limit of a shutdown.
pub(crate) const SHUTDOWN_GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// Time for the other shards to complete their writes after one shard has failed: far longer than a write takes; calls
/// that wait for the failed shard never complete.
pub(crate) const FAILED_GRACE: Duration = Duration::from_secs(2);

/// Time for a shard to end after the grace period: a few reads of its inbox. A shard that has not ended by then hangs,
/// and the process exits without it.
pub(crate) const ABORT_GRACE: Duration = Duration::from_secs(2);

// ---- Ranges of settings -------------------------------------------------------------------------

/// Most shards of one process: more than any machine has cores, so that a typing error in SHARDS is an error.
pub(crate) const SHARDS_MAX: usize = 1_024;

/// Lower bound of deadlines and timeouts: the resolution of the shard's timer.
pub(crate) const CONFIGURED_SPAN_MIN: Duration = Duration::from_millis(1);

/// Upper bound of DDB_TIMEOUT: no call lives longer.
pub(crate) const STORE_ATTEMPT_TIMEOUT_MAX: Duration = CALL_TIMEOUT_MAX;

/// Upper bound of DDB_MAX_RETRIES: more retries would exceed every deadline.
pub(crate) const STORE_READ_RETRIES_MAX: u32 = 10;

/// Upper bound of GRPC_MAX_CONCURRENCY: the operations in flight of a shard.
pub(crate) const STREAMS_PER_CONNECTION_MAX: u32 = OPERATIONS_IN_FLIGHT_MAX as u32;

/// Shortest hold: a shorter one expires before its buyer has seen it.
pub(crate) const HOLD_TTL_MIN: Duration = Duration::from_secs(1);

/// Lower bound of GRPC_KEEP_ALIVE_PERIOD: more frequent pings are a load.
pub(crate) const KEEP_ALIVE_PERIOD_MIN: Duration = Duration::from_secs(1);

/// Upper bound of GRPC_KEEP_ALIVE_PERIOD: load balancers drop connections that are idle for longer.
pub(crate) const KEEP_ALIVE_PERIOD_MAX: Duration = Duration::from_secs(3_600);

/// Lower bound of MAX_CONNECTION_AGE besides 0, which means unlimited.
pub(crate) const CONNECTION_AGE_MIN: Duration = Duration::from_secs(1);

/// Upper bound of MAX_CONNECTION_AGE.
pub(crate) const CONNECTION_AGE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Upper bound of IDEMPOTENCY_CACHE_SIZE: about a quarter of a GiB of records per shard.
pub(crate) const ANSWERS_CACHED_MAX: usize = 1_000_000;

/// Lower bound of IDEMPOTENCY_TTL_SECONDS.
pub(crate) const ANSWERS_CACHED_FOR_MIN: Duration = Duration::from_secs(1);

/// Upper bound of IDEMPOTENCY_TTL_SECONDS.
pub(crate) const ANSWERS_CACHED_FOR_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Upper bound of SHUTDOWN_GRACE; zero stops at once.
pub(crate) const SHUTDOWN_GRACE_MAX: Duration = Duration::from_secs(600);

/// Upper bound of SPIN_BEFORE_PARK: a longer spin burns the core without better latency.
pub(crate) const SPIN_BEFORE_PARK_MAX: Duration = Duration::from_millis(1);

/// Longest service name, version, profile or region, in bytes: these become labels and log fields.
pub(crate) const LABEL_BYTES_MAX: usize = 128;

/// Shortest table name, in bytes: DynamoDB's limit.
pub(crate) const TABLE_NAME_BYTES_MIN: usize = 3;

/// Longest table name, in bytes: DynamoDB's limit.
pub(crate) const TABLE_NAME_BYTES_MAX: usize = 255;

// ---- Commands and the machine -------------------------------------------------------------------

/// Time limit of a command for connecting to a running server.
pub(crate) const COMMAND_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time limit of a command for the answer: creating an event writes up to [`STRIPES_MAX`] items.
pub(crate) const COMMAND_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Events that `event list` sorts in memory and prints.
pub(crate) const EVENTS_LISTED_MAX: usize = 100_000;

/// Events that `event list --stock` reads at the same time: a quarter of the calls that a connection may make.
pub(crate) const EVENTS_READ_AT_ONCE: usize = 8;

/// Largest message of a listing: a page of [`STORE_SCAN_PAGE_MAX`] reservations of the largest size.
pub(crate) const ADMIN_ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Largest seat file, in bytes: [`SEATS_PER_EVENT_MAX`] lines with all texts at their longest.
pub(crate) const IMPORT_FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Invalid lines that an import lists; further ones are counted.
pub(crate) const IMPORT_PROBLEMS_SHOWN: usize = 20;

/// How long an import waits and tries again while nothing is stored: longer than the server waits for its writes.
pub(crate) const IMPORT_STALL_MAX: Duration = Duration::from_secs(90);

/// Pause before an import is tried again, unless the server asks for a longer one.
pub(crate) const IMPORT_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Symbolic links that the name of an output file may go through: Linux's own bound.
pub(crate) const OUTPUT_LINKS_MAX: usize = 40;

/// Names that are tried for a temporary file: those of outputs of one process that were killed.
pub(crate) const OUTPUT_TEMPORARY_NAMES_MAX: usize = 100;

/// Ping interval of a waiting command, to detect a server that has gone.
pub(crate) const COMMAND_PING_EVERY: Duration = Duration::from_secs(10);

/// Time limit of `health`: probes usually have little more.
pub(crate) const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Time limit of `check` for the store.
pub(crate) const PREFLIGHT_STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Most tickets of one `demo`: more only take longer.
pub(crate) const DEMO_TICKETS_MAX: u64 = 1_000_000;

/// Most buyers of one `demo`, for the same reason.
pub(crate) const DEMO_BUYERS_MAX: u64 = 5_000_000;

/// Connections of one `demo`, which share the process's descriptors with the server.
pub(crate) const DEMO_CONNECTIONS_MAX: u32 = 256;

/// Oldest kernel whose io_uring serves the executor.
pub(crate) const KERNEL_MIN: (u32, u32) = (5, 8);

/// With a smaller RLIMIT_MEMLOCK an executor refuses to start.
pub(crate) const MEMLOCK_FLOOR_BYTES: u64 = 512 * 1024;

/// Locked memory of one shard: [`RING_BUFFER_BYTES`] registered with each of three rings (192 KiB, measured as VmPin) and
/// the rings at [`RING_DEPTH`] (104 KiB each), rounded up. Kernels from 5.12 to about 6.13 count only the registered part.
pub(crate) const MEMLOCK_SHARD_BYTES: u64 = 512 * 1024;

/// Descriptors of the process besides connections of clients: standard streams, logs, the connections of the control plane.
pub(crate) const DESCRIPTORS_OF_PROCESS: u64 =
    64 + (HTTP_CONNECTIONS_MAX + ADMIN_CONNECTIONS_MAX) as u64;

/// Descriptors of one shard besides connections: three rings, an eventfd, timers, the listener.
pub(crate) const DESCRIPTORS_OF_SHARD: u64 = 16;

/// With fewer client connections per shard, serving is pointless.
pub(crate) const CONNECTIONS_PER_SHARD_USEFUL: u64 = 64;

/// With fewer client connections per shard, the operator is warned.
pub(crate) const CONNECTIONS_PER_SHARD_USUAL: u64 = 1_000;
