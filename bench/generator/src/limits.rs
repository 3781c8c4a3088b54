//! Every bound of the generator, each with its reason.

use std::time::Duration;

// ---- A scenario ---------------------------------------------------------------------------------

/// Calls per second of one run: far above what two cores can serve.
pub const RATE_MAX: f64 = 1_000_000.0;

/// Seconds of one run, warm-up included: the series keeps a few KB for each.
pub const SECONDS_MAX: f64 = 7_200.0;

/// Calls of one run: reservations are numbered in 32 bits, and the ledger keeps 32 bytes of each.
pub const CALLS_MAX: f64 = 100_000_000.0;

/// Steps of a rate curve.
pub const STEPS_MAX: usize = 64;

/// Events of one run: an index of them is kept in 16 bits.
pub const EVENTS_MAX: u32 = 10_000;

/// Stripes and seat keys of one event, as the contract says.
pub const STRIPES_MAX: u32 = 64;

/// Units of one event, as the contract says.
pub const STOCK_MAX: u64 = 1_000_000_000;

/// Seats of all events of a run: the read-back keeps some 150 bytes for each.
pub const SEATS_MAX: u64 = 2_000_000;

/// Units or seats of one reservation: the server's default.
pub const QTY_MAX: u32 = 10;

/// A key of seats is given this many holds per second by `seat_keys = "auto"`. A partition takes 500,
/// and keys fall on partitions by lot: with five on one it still has to do (docs/sizing.md).
pub const HOLDS_PER_SEAT_KEY: f64 = 100.0;

/// The longest `grpc-timeout` of a call, and what a call without one is given.
pub const DEADLINE_MAX: Duration = Duration::from_secs(60);

/// The longest hold that the server grants by default.
pub const HOLD_MAX: Duration = Duration::from_secs(900);

/// Connections of one run: far below the usual limit of open files.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Worker threads: one is enough for 30,000 calls per second.
pub const THREADS_MAX: usize = 16;

/// The longest scenario file.
pub const SCENARIO_BYTES_MAX: u64 = 64 * 1024;

// ---- A run --------------------------------------------------------------------------------------

/// Calls in flight over all connections when nothing is said: a second and a half at 30,000/s. An
/// arrival that finds it full is counted as not sent.
pub const IN_FLIGHT_DEFAULT: usize = 50_000;

/// The most that may be asked for: some 2 KB each.
pub const IN_FLIGHT_MAX: usize = 1_000_000;

/// How late an arrival may be put on a connection, for want of a free stream, before it counts as
/// not sent.
pub const LATE_MAX: Duration = Duration::from_secs(2);

/// Lateness (scheduled to written), at the 99th percentile, above which the generator was the limit.
pub const LATENESS_P99_MAX: Duration = Duration::from_millis(5);

/// The least part of the planned calls that must have been sent.
pub const OFFERED_MIN: f64 = 0.99;

/// The shortest pause between two turns while calls fall due faster than that: they share a write, and
/// answers that arrive meanwhile are heard together. A quarter of a millisecond is 7 calls at
/// 30,000/s; it is the resolution of what is measured above 4,000/s.
pub const TURN_MIN: Duration = Duration::from_micros(250);

/// Calls in a row that go to one connection before the next has its turn: a write on a socket costs
/// more than the call in it.
pub const CALLS_IN_A_ROW: u32 = 4;

/// Calls written in one turn before answers are read again.
pub const CALLS_PER_TURN_MAX: usize = 256;

/// Turns of the inner loop before the reactor is asked again.
pub const ROUNDS_PER_TURN_MAX: usize = 16;

/// How often overdue calls are looked for and the live figures renewed.
pub const HOUSEKEEPING_PERIOD: Duration = Duration::from_millis(100);

/// What a call may take beyond its deadline before the client gives it up.
pub const DEADLINE_SLACK: Duration = Duration::from_secs(1);

/// How long a connect with its settings may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Lost connections a run makes anew, each at most once in [`RECONNECT_PAUSE`].
pub const RECONNECTS_MAX: u64 = 1_000;
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// Unwritten bytes of one connection before h2 is told to wait.
pub const CORK_MAX: usize = 256 * 1024;

/// Flow-control windows: no answer ever waits for this client.
pub const STREAM_WINDOW: u32 = 1 << 20;
pub const CONNECTION_WINDOW: u32 = 1 << 30;

/// Streams assumed on a new connection until the server's settings tell.
pub const STREAMS_ASSUMED: usize = 100;

/// The longest answer that is read.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Holds a worker remembers for later commits and releases; beyond it the oldest are left to expire.
pub const HOLDS_REMEMBERED_MAX: usize = 200_000;

/// Looks for a hold that is still young before a commit becomes a hold instead.
pub const HOLD_PICKS_MAX: usize = 8;

/// Repeats that wait for their time on one worker. Beyond it a repeat is sent at once.
pub const LATER_REPEATS_MAX: usize = 200_000;

/// When a later repeat is sent, after the first.
pub const REPEAT_AFTER_MIN: Duration = Duration::from_millis(100);
pub const REPEAT_AFTER_MAX: Duration = Duration::from_millis(2_000);

/// Latencies above this are recorded as this.
pub const LATENCY_MAX_US: u64 = 60_000_000;

/// Broken promises that are quoted. All are counted.
pub const QUOTED_MAX: usize = 20;

/// How long the server's admin port may take for one request.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(60);

/// Seats of one message of an import, as the contract says.
pub const SEATS_PER_IMPORT: usize = 500;

// ---- Reading the store back ---------------------------------------------------------------------

/// Scans at once when nothing is said.
pub const SEGMENTS_DEFAULT: u32 = 4;
pub const SEGMENTS_MAX: u32 = 64;

/// How long one request to the store may take.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(60);

/// Tries of one request that is throttled or not answered, and the pause before the second, doubled
/// each time.
pub const STORE_TRIES: u32 = 8;
pub const STORE_PAUSE: Duration = Duration::from_millis(50);

/// The longest page that is read: DynamoDB's are 1 MB of data, whose JSON is some three times that.
pub const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long the stripes of the events must not change before they are read back: with holds, longer
/// than the server's looks after expired ones are apart (docs/operating.md); without, a write's time.
pub const STILL_WITH_HOLDS: Duration = Duration::from_secs(6);
pub const STILL_WITHOUT: Duration = Duration::from_secs(2);

/// How often they are looked at while they are waited for.
pub const STILL_PERIOD: Duration = Duration::from_millis(500);

/// How long to wait for that when nothing is said: a hold of a minute, and its reclaim.
pub const SETTLE_DEFAULT_S: u64 = 120;

/// Pause before the store is read once more, because something moved or is wrong.
pub const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Rounds of reading everything, when something moved meanwhile.
pub const READ_ROUNDS_MAX: u32 = 4;

const _: () = {
    assert!(IN_FLIGHT_DEFAULT <= IN_FLIGHT_MAX);
    assert!(TURN_MIN.as_micros() * 4 < LATENESS_P99_MAX.as_micros());
    assert!(SEGMENTS_DEFAULT <= SEGMENTS_MAX);
};
