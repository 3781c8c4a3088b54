//! Bounds of seats: what is remembered of them, and how they are chosen.

use std::time::Duration;

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
