//! Bounds of the client and of the sale, each with its reason.

use std::time::Duration;

/// Buyers of one sale: the ledger keeps one entry each, some 60 bytes when confirmed.
pub(crate) const BUYERS_MAX: u64 = 10_000_000;

/// Connections of one sale: far below the usual limit of open files.
pub(crate) const CONNECTIONS_MAX: usize = 512;

/// Calls in flight on one connection: below the queue of a tonic channel, so that no call waits unseen.
pub(crate) const CALLS_PER_CONNECTION_MAX: usize = 500;

/// Servers of one client.
pub(crate) const ADDRESSES_MAX: usize = 16;

/// Broken rules that a report quotes in words. All of them are counted.
pub(crate) const VIOLATIONS_QUOTED_MAX: usize = 32;

/// Different errors that a report distinguishes, and how many it shows with their message.
pub(crate) const ERROR_NAMES_MAX: usize = 64;
pub(crate) const ERROR_EXAMPLES_MAX: usize = 8;

/// Attempts of one call within the retry time: a server that answers UNAVAILABLE at once must not be
/// called without end.
pub(crate) const ATTEMPTS_MAX: u32 = 1_000;

/// First delay before a retry; doubled each time, with jitter from half to full.
pub(crate) const RETRY_DELAY_MIN: Duration = Duration::from_millis(5);

/// Longest delay between retries, also when the server asks for more.
pub(crate) const RETRY_DELAY_MAX: Duration = Duration::from_millis(500);

/// Time limit of a TCP connect.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Time beyond its deadline after which the client itself gives up a call.
pub(crate) const DEADLINE_SLACK: Duration = Duration::from_secs(1);

/// Rounds through all addresses with a call that was never processed, before the call fails.
pub(crate) const FAILOVER_ROUNDS_MAX: usize = 3;

/// Longer latencies are recorded as this: one minute, in microseconds.
pub(crate) const LATENCY_MAX_US: u64 = 60_000_000;

/// Interval of progress updates.
pub(crate) const PROGRESS_PERIOD: Duration = Duration::from_millis(100);

const _: () = {
    assert!(CALLS_PER_CONNECTION_MAX * 2 <= 1_024);
    assert!(RETRY_DELAY_MIN.as_micros() < RETRY_DELAY_MAX.as_micros());
};
