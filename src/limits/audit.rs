//! Bounds of an audit: what it keeps in memory, how long it takes, and how much it leaves to the sale.

use std::time::Duration;

/// Live reservations of one event that an audit keeps in memory: about 170 bytes each, so a sixth of
/// a GiB at most.
pub const AUDIT_RECORDS_MAX: usize = 1_000_000;

/// Seats of one event that an audit keeps in memory: more than any venue has.
pub const AUDIT_SEATS_MAX: usize = 500_000;

/// Audits of one process at a time: their memory is bounded each.
pub const AUDITS_MAX: usize = 1;

/// Pause between two pages, which belongs to the sale.
pub const AUDIT_PAGE_PAUSE: Duration = Duration::from_millis(1);

/// Times an audit reads the records of an event whose stripes move: each reads the whole table.
pub const AUDIT_ROUNDS_MAX: u32 = 3;

/// Looks at one seat that changes hands between looks.
pub const AUDIT_LOOKS_MAX: u32 = 4;

/// Seats looked at again in one read; with the records of each it must fit a transaction's items.
pub const AUDIT_SEATS_PER_LOOK: usize = 20;

/// Records read beside one seat: two that claim it, the one it names, and one more that just came.
pub const AUDIT_RECORDS_PER_SEAT: usize = 4;

/// Seats looked at again in one audit: past it the event needs more than this tool.
pub const AUDIT_SUSPECTS_MAX: usize = 20_000;

/// Repairs of one run, each a write of its own. What is left over is left to the next run.
pub const AUDIT_REPAIRS_MAX: usize = 5_000;

/// How long one audit may take, repairs and second reading included.
pub const AUDIT_TIME_MAX: Duration = Duration::from_secs(540);

/// How often an audit that is under way says how far it is.
pub const AUDIT_PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// Messages of an audit that wait for a slow reader.
pub const AUDIT_MESSAGES_MAX: usize = 16;
