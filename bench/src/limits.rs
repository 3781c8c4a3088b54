//! Every bound of the load client and the measurements, each with its reason.

use std::time::Duration;

/// Buyers of one run: the ledger keeps one entry each, some 60 bytes when confirmed.
pub const BUYERS_MAX: u64 = 10_000_000;

/// Connections of one run: far below the usual limit of open files.
pub const CONNECTIONS_MAX: usize = 512;

/// Calls in flight on one connection: below the queue of a tonic channel, so none waits unseen.
pub const CALLS_PER_CONNECTION_MAX: usize = 500;

/// Addresses one client moves between.
pub const ADDRESSES_MAX: usize = 16;

/// Broken rules a report quotes in words. All of them are counted.
pub const VIOLATIONS_QUOTED_MAX: usize = 32;

/// Different errors a report tells apart, and how many it shows with their message.
pub const ERROR_NAMES_MAX: usize = 64;
pub const ERROR_EXAMPLES_MAX: usize = 8;

/// Attempts of one call, whatever patience allows: a server that answers at once with
/// UNAVAILABLE must not be hammered for ever.
pub const ATTEMPTS_MAX: u32 = 1_000;

/// First pause before a repeat; doubled each time, jittered from half to full.
pub const PAUSE_MIN: Duration = Duration::from_millis(5);

/// Longest pause between repeats, also when the server asks for more.
pub const PAUSE_MAX: Duration = Duration::from_millis(500);

/// How long a TCP connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a call may take beyond its deadline before the client itself gives it up.
pub const DEADLINE_SLACK: Duration = Duration::from_secs(1);

/// Rounds through all addresses with calls that were never processed, before the call fails.
pub const MOVE_ROUNDS_MAX: usize = 3;

/// Latencies above this are recorded as this: one minute, in microseconds.
pub const LATENCY_MAX_US: u64 = 60_000_000;

/// How often the progress watch is renewed.
pub const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

/// How long a started server may take until it prints its address.
pub const BANNER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one round of h2load may take.
pub const ROUND_TIMEOUT: Duration = Duration::from_secs(120);

const _: () = {
    assert!(CALLS_PER_CONNECTION_MAX * 2 <= 1_024);
    assert!(PAUSE_MIN.as_micros() < PAUSE_MAX.as_micros());
};
