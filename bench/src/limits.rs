//! Bounds of the benchmark runner, each with its reason.

use std::time::Duration;

/// Time limit of the commands that prepare a case.
pub(crate) const PREPARE_MAX: Duration = Duration::from_secs(30);

/// Time limit of one run of the generator beyond the measured part: creation of the events (50,000 seats) and
/// read-back of millions of records.
pub(crate) const RUN_OVERHEAD_MAX: Duration = Duration::from_secs(300);

/// Time limit of a server to finish its calls and exit after SIGTERM.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(40);

/// Time limit of a request to the store model or to the metrics port.
pub(crate) const HTTP_REQUEST_MAX: Duration = Duration::from_secs(20);

/// Time limit of the processes of a fleet to find each other: several of their beats.
pub(crate) const MEMBERS_MAX: Duration = Duration::from_secs(30);

/// Interval at which they are asked.
pub(crate) const MEMBERS_POLL: Duration = Duration::from_millis(100);

/// Time limit of one round of h2load.
pub(crate) const H2LOAD_MAX: Duration = Duration::from_secs(120);

/// Calls of one round of h2load: its log needs about 25 bytes per call.
pub(crate) const H2LOAD_CALLS_MAX: u64 = 100_000_000;

/// Most rounds of one benchmark: about four hours at the default duration.
pub(crate) const ROUNDS_MAX: u32 = 25;

/// Seconds of one run: one hour.
pub(crate) const SECONDS_MAX: u32 = 3_600;

/// Time limit of the return of expired holds.
pub(crate) const EXPIRY_MAX: Duration = Duration::from_secs(120);
