//! Bounds of an audit: memory, duration, and its share of the store.

use std::time::Duration;

/// Live reservations of one event that an audit keeps in memory: about 170 bytes each, at most a sixth of a GiB.
pub(crate) const AUDIT_RECORDS_MAX: usize = 1_000_000;

/// Seats of one event that an audit keeps in memory: more than any venue has.
pub(crate) const AUDIT_SEATS_MAX: usize = 500_000;

/// Concurrent audits per process, since each one may use the memory above.
pub(crate) const AUDITS_MAX: usize = 1;

/// Pause between two pages, left to sales.
pub(crate) const AUDIT_PAGE_PAUSE: Duration = Duration::from_millis(1);

/// How often an audit reads the records of an event whose stripes change: each time it reads the whole table.
pub(crate) const AUDIT_ROUNDS_MAX: u32 = 3;

/// How often an audit reads one seat that changes between reads.
pub(crate) const AUDIT_LOOKS_MAX: u32 = 4;

/// Seats read again in one transaction; with the records of each they must fit into its actions.
pub(crate) const AUDIT_SEATS_PER_LOOK: usize = 20;

/// Records read beside one seat: two that claim it, the one that it names, and a new one.
pub(crate) const AUDIT_RECORDS_PER_SEAT: usize = 4;

/// Seats read again in one audit: an event with more of them needs other tools.
pub(crate) const AUDIT_SUSPECTS_MAX: usize = 20_000;

/// Repairs of one run, each a separate write. The next run continues.
pub(crate) const AUDIT_REPAIRS_MAX: usize = 5_000;

/// Time limit of one audit, including repairs and the second read.
pub(crate) const AUDIT_TIME_MAX: Duration = Duration::from_secs(540);

/// Interval of progress messages.
pub(crate) const AUDIT_PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// Messages of an audit that are buffered for a slow client.
pub(crate) const AUDIT_MESSAGES_MAX: usize = 16;
