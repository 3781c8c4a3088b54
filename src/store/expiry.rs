//! Finding what expires.
//!
//! A held record is in the index `expiry` under a bucket: the minute in which it expires, and a
//! number that spreads a minute's holds over so many keys that none is hot.

use crate::domain::ids::{ReservationId, fnv1a};
use crate::domain::time::UnixMillis;
use crate::limits;

/// The key of the expiry index for holds of `shard` (below [`limits::EXPIRY_SHARDS`]) that expire in
/// the minute of `expires_at`.
pub fn expiry_bucket(expires_at: UnixMillis, shard: u16) -> String {
    format!("{}#{shard}", expiry_minute(expires_at))
}

/// The minute of an instant, counted from the Unix epoch.
pub fn expiry_minute(at: UnixMillis) -> u64 {
    at.0 / 60_000
}

/// The part of the expiry index that a reservation's hold is in, below [`limits::EXPIRY_SHARDS`].
/// Stored data: it must not change from one version to the next.
pub fn expiry_shard(reservation: &ReservationId) -> u16 {
    let shards = u32::from(limits::EXPIRY_SHARDS);
    (fnv1a(reservation.as_str()) % shards) as u16
}

/// See [`expiry_bucket`].
pub(super) fn bucket_of(reservation: &ReservationId, expires_at: UnixMillis) -> String {
    expiry_bucket(expires_at, expiry_shard(reservation))
}
