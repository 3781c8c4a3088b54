//! Bounds of the control plane: scrapes, METRICS_PORT and ADMIN_PORT.

use std::time::Duration;

use super::TRANSACTION_ACTIONS_MAX;

/// Time limit of a scrape for all shards together. A busy shard answers in well under a millisecond; Prometheus times out
/// after 10 s.
pub const SCRAPE_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections to METRICS_PORT. A further one takes the place of the idlest.
pub const HTTP_CONNECTIONS_MAX: usize = 64;

/// Bytes of a request line and its headers on METRICS_PORT.
pub const HTTP_HEADER_BYTES_MAX: usize = 16 * 1024;

/// Time limit for the request headers on METRICS_PORT, including the idle time before them.
pub(crate) const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum age of a connection to METRICS_PORT, so that a peer that reads nothing cannot hold a slot for longer than this
/// and the grace period.
pub(crate) const HTTP_CONNECTION_AGE_MAX: Duration = Duration::from_secs(120);

/// Grace period of a connection to METRICS_PORT after its maximum age.
pub(crate) const HTTP_CONNECTION_AGE_GRACE: Duration = Duration::from_secs(5);

/// Connections to ADMIN_PORT. A further one takes the place of the idlest.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;

/// Concurrent calls per connection to ADMIN_PORT; further ones get RESOURCE_EXHAUSTED.
pub(crate) const ADMIN_CALLS_PER_CONNECTION_MAX: usize = 32;

/// Time limit of an admin call: many times a transaction with its retries.
pub(crate) const ADMIN_CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of one message on ADMIN_PORT: [`SEATS_PER_CHUNK_MAX`] seats with all texts at their maximum length.
pub(crate) const ADMIN_MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Field violations in one error: enough to find the mistake, and less than the 16 KiB of headers that clients accept.
pub const FIELD_VIOLATIONS_MAX: usize = 20;

/// Seats in one import message, or in one call that blocks seats: five transactions.
pub const SEATS_PER_CHUNK_MAX: usize = 500;

/// Seats in one transaction of an import.
pub(crate) const SEATS_WRITTEN_AT_ONCE_MAX: usize = TRANSACTION_ACTIONS_MAX;

/// Writes in flight of an import at its start; more with each write that is not slow.
pub(crate) const SEAT_WRITES_IN_FLIGHT_MIN: usize = 2;

/// A write of an import that takes longer halves the writes in flight: far below the time-out of a store call.
pub(crate) const SEAT_WRITE_SLOW: Duration = Duration::from_secs(3);

/// Longest wait of an import for the end of any of its writes: a store call and its retries end before.
pub(crate) const SEAT_WRITE_WAIT_MAX: Duration = Duration::from_secs(60);

/// Progress messages of an import that wait for a client that reads slowly.
pub(crate) const IMPORT_PROGRESS_WAITING_MAX: usize = 16;

/// Writes in flight per import: at 20 ms each 40,000 seats per second, more than a table accepts.
pub(crate) const SEAT_WRITES_IN_FLIGHT_MAX: usize = 8;

/// Concurrent imports; they share the write capacity of the table with the sale.
pub(crate) const IMPORTS_MAX: usize = 4;

/// Retry delay for an import that finds no slot; other imports take seconds.
pub(crate) const IMPORTS_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Time limit for the next message of an import.
pub(crate) const ADMIN_CHUNK_WAIT_MAX: Duration = Duration::from_secs(10);

/// Bytes of the section, row or number of a seat, so that a seat item stays below 1 KB, one write unit.
pub(crate) const SEAT_TEXT_BYTES_MAX: usize = 64;

/// Bytes of the name or venue of an event.
pub(crate) const EVENT_TEXT_BYTES_MAX: usize = 256;

/// Maximum price in the smallest unit of the currency; exact in all number formats in use.
pub(crate) const PRICE_AMOUNT_MAX: i64 = 1_000_000_000_000;

/// Maximum age of a connection to ADMIN_PORT, far above the longest call.
pub(crate) const ADMIN_CONNECTION_AGE_MAX: Duration = Duration::from_secs(600);

/// Grace period of control plane connections at the stop; covers a running scrape.
pub const CONTROL_PLANE_STOP_GRACE: Duration = Duration::from_secs(2);

/// Time in which the same signal again does not count as a second one: `timeout` sends it to the process and to its group
/// within a millisecond, and a person who wants to abort waits longer.
pub const REPEATED_SIGNAL_WINDOW: Duration = Duration::from_millis(500);

/// Pause after a failed accept (for example without free file descriptors), so that the loop does not spin.
pub(crate) const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);
