//! Bounds of the load generator, each with its reason.

use std::time::Duration;

// ---- Scenario -----------------------------------------------------------------------------------

/// Calls per second of one run: far above what two CPUs can serve.
pub(crate) const RATE_MAX: f64 = 1_000_000.0;

/// Seconds of one run, including the warm-up: the series needs a few KB per second.
pub(crate) const SECONDS_MAX: f64 = 7_200.0;

/// Calls of one run: reservations have 32-bit numbers, and the ledger needs 32 bytes for each.
pub(crate) const CALLS_MAX: f64 = 100_000_000.0;

/// Steps of a rate curve.
pub(crate) const STEPS_MAX: usize = 64;

/// Events of one run: their indexes have 16 bits.
pub(crate) const EVENTS_MAX: u32 = 10_000;

/// Stripes and seat keys of one event, as in the contract.
pub(crate) const STRIPES_MAX: u32 = 64;

/// Units of one event, as in the contract.
pub(crate) const STOCK_MAX: u64 = 1_000_000_000;

/// Seats of all events of a run: the read-back needs about 150 bytes for each.
pub(crate) const SEATS_MAX: u64 = 2_000_000;

/// Units or seats of one reservation: the default of the server.
pub(crate) const QTY_MAX: u32 = 10;

/// Holds per second and seat key with `seat_keys = "auto"`. A partition takes 500, and keys are distributed
/// over partitions at random: five keys on one partition must still fit (docs/sizing.md).
pub(crate) const HOLDS_PER_SEAT_KEY: f64 = 100.0;

/// The longest `grpc-timeout` of a call, and the timeout of a call without one.
pub(crate) const DEADLINE_MAX: Duration = Duration::from_secs(60);

/// The longest hold that the server accepts by default.
pub(crate) const HOLD_MAX: Duration = Duration::from_secs(900);

/// Connections of one run: far below the usual limit of open files.
/// Also the bound of users in a closed loop.
pub(crate) const CONNECTIONS_MAX: usize = 10_000;

/// Worker threads: one thread reaches 30,000 calls per second.
pub(crate) const THREADS_MAX: usize = 16;

/// Maximum size of a scenario file.
pub(crate) const SCENARIO_BYTES_MAX: u64 = 64 * 1024;

// ---- Run ----------------------------------------------------------------------------------------

/// Default bound of calls in flight over all connections: 1.5 seconds at 30,000/s. A call that is due beyond
/// this bound counts as not sent.
pub(crate) const IN_FLIGHT_DEFAULT: usize = 50_000;

/// Maximum of that bound: a call in flight needs about 2 KB.
pub(crate) const IN_FLIGHT_MAX: usize = 1_000_000;

/// How long a call may wait for a free stream before it counts as not sent.
pub(crate) const LATE_MAX: Duration = Duration::from_secs(2);

/// Lateness (due to written) at the 99th percentile above which the generator was the limit.
pub(crate) const LATENESS_P99_MAX: Duration = Duration::from_millis(5);

/// Minimum share of the planned calls that must have been sent.
pub(crate) const OFFERED_MIN: f64 = 0.99;

/// Minimum interval between two turns while calls are due faster than that: the calls share a write, and the
/// answers that arrive in between are processed together. A quarter of a millisecond is 7 calls at 30,000/s;
/// it is the resolution of the measurement above 4,000/s.
pub(crate) const TURN_MIN: Duration = Duration::from_micros(250);

/// Consecutive calls on one connection before the next connection is used: a write to a socket costs more
/// than the call in it.
pub(crate) const CONSECUTIVE_CALLS: u32 = 4;

/// Calls sent in one turn before answers are read again.
pub(crate) const CALLS_PER_TURN_MAX: usize = 256;

/// Iterations of the inner loop before the runtime polls the sockets again.
pub(crate) const ROUNDS_PER_TURN_MAX: usize = 16;

/// Interval of the search for timed-out calls and of the progress update.
pub(crate) const HOUSEKEEPING_PERIOD: Duration = Duration::from_millis(100);

/// Time beyond its deadline after which the client gives up a call.
pub(crate) const DEADLINE_SLACK: Duration = Duration::from_secs(1);

/// Time limit of a connect with its HTTP/2 handshake.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reconnects of one run, each after [`RECONNECT_DELAY`].
pub(crate) const RECONNECTS_MAX: u64 = 1_000;
pub(crate) const RECONNECT_DELAY: Duration = Duration::from_millis(200);

/// Unwritten bytes of one connection before h2 must wait.
pub(crate) const CORK_MAX: usize = 256 * 1024;

/// Flow-control windows: large enough that no answer waits for this client.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 1 << 30;

/// Stream limit of a new connection until the settings of the server arrive.
pub(crate) const STREAMS_ASSUMED: usize = 100;

/// Maximum size of an answer.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Holds that a worker keeps for later commits and releases; further holds are left to expire.
pub(crate) const HOLDS_REMEMBERED_MAX: usize = 200_000;

/// Attempts to find a recent hold before a commit is replaced by a hold.
pub(crate) const HOLD_PICKS_MAX: usize = 8;

/// Delayed repeats per worker. Further repeats are sent at once.
pub(crate) const DELAYED_REPEATS_MAX: usize = 200_000;

/// Delay of a delayed repeat after the first call.
pub(crate) const REPEAT_AFTER_MIN: Duration = Duration::from_millis(100);
pub(crate) const REPEAT_AFTER_MAX: Duration = Duration::from_millis(2_000);

/// Longer latencies are recorded as this.
pub(crate) const LATENCY_MAX_US: u64 = 60_000_000;

/// Broken promises that are kept as examples. All are counted.
pub(crate) const EXAMPLES_MAX: usize = 20;

/// Time limit of one request to the admin port.
pub(crate) const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Seats of one import message, as in the contract.
pub(crate) const SEATS_PER_IMPORT: usize = 500;

// ---- Read-back of the store ---------------------------------------------------------------------

/// Default number of parallel scans.
pub(crate) const SEGMENTS_DEFAULT: u32 = 4;
pub(crate) const SEGMENTS_MAX: u32 = 64;

/// Time limit of one request to the store.
pub(crate) const STORE_TIMEOUT: Duration = Duration::from_secs(60);

/// Attempts of one request that is throttled or not answered, and the delay before the second attempt,
/// doubled each time.
pub(crate) const STORE_ATTEMPTS: u32 = 8;
pub(crate) const STORE_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Maximum size of a page: DynamoDB pages hold 1 MB of data, about 3 MB of JSON.
pub(crate) const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long the stripes must not change before the read-back: with holds longer than the interval of the
/// reclaimer (docs/operating.md), without holds longer than a write.
pub(crate) const STABLE_WITH_HOLDS: Duration = Duration::from_secs(6);
pub(crate) const STABLE_WITHOUT_HOLDS: Duration = Duration::from_secs(2);

/// Polling interval of that wait.
pub(crate) const STABLE_PERIOD: Duration = Duration::from_millis(500);

/// Default time limit of that wait: a hold of one minute and its reclaim.
pub(crate) const SETTLE_DEFAULT_S: u64 = 120;

/// Delay before the store is read again because something changed or is wrong.
pub(crate) const REREAD_DELAY: Duration = Duration::from_secs(1);

/// Maximum number of complete reads while something changes.
pub(crate) const READ_ROUNDS_MAX: u32 = 4;

const _: () = {
    assert!(IN_FLIGHT_DEFAULT <= IN_FLIGHT_MAX);
    assert!(TURN_MIN.as_micros() * 4 < LATENESS_P99_MAX.as_micros());
    assert!(SEGMENTS_DEFAULT <= SEGMENTS_MAX);
};
