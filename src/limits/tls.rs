//! Bounds of TLS: handshakes, certificate files, and what is logged about them.

use std::time::Duration;

/// Time from accept to the end of a TLS handshake. Two round trips of a slow network and a wait for other handshakes;
/// clients give up after about the same time.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Unfinished TLS handshakes of one shard, about 20 KiB each. Beyond that a new one takes the place of the one that has
/// waited longest for its client; if none waits for its client, the new one is closed.
pub const TLS_HANDSHAKES_PER_SHARD_MAX: usize = 1_024;

/// CPU time of TLS handshakes that a shard spends in a row. Then handshakes pause for as long, so that they take at most
/// half of a shard, and a call waits for them at most this long at once. A handshake takes 0.4 to 1 ms, by the key.
pub(crate) const TLS_HANDSHAKE_SLICE: Duration = Duration::from_millis(2);

/// How often the files of certificates are read. A Kubernetes secret reaches a pod within a minute, so that seconds more
/// do not matter; the files have some kilobytes.
pub(crate) const TLS_FILES_READ_EVERY: Duration = Duration::from_secs(2);

/// Longest TLS_ALLOWED_CLIENTS, in bytes.
pub(crate) const TLS_ALLOWED_CLIENTS_BYTES_MAX: usize = 16 * 1024;

/// Shortest token of ADMIN_TOKEN_FILE, in characters: 128 bits in hexadecimal digits.
pub(crate) const ADMIN_TOKEN_BYTES_MIN: usize = 32;

/// Tokens in ADMIN_TOKEN_FILE: one for each person or tool, twice during a rotation.
pub(crate) const ADMIN_TOKENS_MAX: usize = 64;

/// Largest ADMIN_TOKEN_FILE, in bytes.
pub(crate) const ADMIN_TOKEN_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Seats that the audit log names of one change; further ones are counted.
pub(crate) const AUDIT_LOG_SEATS_MAX: usize = 20;
