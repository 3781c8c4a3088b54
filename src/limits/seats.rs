//! Bounds of cached data about seated events.

use std::time::Duration;

/// Event names that a shard caches, for answers about an event.
pub(crate) const EVENT_NAMES_KNOWN_MAX: usize = 4_096;

/// How long they are cached: a name rarely changes, and a change should be visible soon.
pub(crate) const EVENT_NAME_AGE_MAX: Duration = Duration::from_secs(60);

/// How long a complete answer waits for optional data (a seat's row, an event's name), and never longer than half of
/// the remaining deadline.
pub(crate) const OPTIONAL_DATA_WAIT_MAX: Duration = Duration::from_millis(100);

/// Encoded statuses of seated events that a shard caches, and their largest size: 4 MiB in total.
pub(crate) const STATUSES_KEPT_MAX: usize = 64;

pub(crate) const STATUS_KEPT_BYTES_MAX: usize = 64 * 1024;
