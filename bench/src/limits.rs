//! Bounds of the measurements, each with its reason.

use std::time::Duration;

/// Longer latencies are recorded as this: one minute, in microseconds.
pub const LATENCY_MAX_US: u64 = 60_000_000;

/// How long one round of h2load may take.
pub const ROUND_TIMEOUT: Duration = Duration::from_secs(120);
