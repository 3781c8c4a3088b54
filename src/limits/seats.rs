//! Bounds of seats: what is remembered of them, and how they are chosen.

use std::time::Duration;

/// Seats of one event that are known in memory, about 30 MB: twice the largest stadium.
pub const SEATS_PER_EVENT_MAX: usize = 200_000;

/// How long a seat that is known to be taken is refused without a write. The word may have been
/// overtaken by a release on another node; a buyer who comes back finds it gone by then.
pub const SEAT_MEMORY_AGE: Duration = Duration::from_secs(1);

/// How long seats that were offered are offered to nobody else: a client's way from the answer to
/// its hold, and the write of that.
pub const SEAT_OFFER_AGE: Duration = Duration::from_millis(300);

/// Runs of free seats compared for one that fits best. More would send a crowd to the same few.
pub const SEAT_RUNS_COMPARED: usize = 16;

/// Runs looked at for one that leaves no single seat. Rarely more than a few are needed; where every
/// run is one seat too long, looking at all of a large house would take a fifth of a millisecond.
pub const SEAT_ORPHANS_COMPARED_MAX: usize = 4_096;

/// Free seats side by side beyond which a run is taken to be seats without rows, and cut anywhere
/// rather than at its ends: longer than the rows of nearly every house.
pub const SEAT_RUN_LONG: usize = 64;

/// Names of events that a shard remembers, for answers about an event.
pub const EVENT_NAMES_KNOWN_MAX: usize = 4_096;

/// How long it remembers them: a name changes rarely, and an operator who changed one wants to see
/// it.
pub const EVENT_NAME_AGE_MAX: Duration = Duration::from_secs(60);

/// How long an answer that is there waits for what only adorns it (a seat's row, an event's name),
/// and never for more than half of what the caller has left.
pub const ADORNMENT_WAIT_MAX: Duration = Duration::from_millis(100);

/// Encoded statuses of seated events that a shard keeps, and the largest it keeps: 4 MiB in all.
pub const STATUSES_KEPT_MAX: usize = 64;
pub const STATUS_KEPT_BYTES_MAX: usize = 64 * 1024;
