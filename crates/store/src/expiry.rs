//! Finds overdue holds.
//!
//! A held record is in the index [`EXPIRY_INDEX`](super::tables::EXPIRY_INDEX) under a bucket: the minute in which it
//! expires, and a number that spreads the holds of a minute over several keys, so that no key is hot. A record
//! without stock has no bucket and is not in the index.
//!
//! The index is eventually consistent, some milliseconds behind the table: an entry may be over already, and a new
//! hold may be missing. The condition of the write decides.
//!
//! Must not be put here: expiring a hold, scheduling of the searches.

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};

use super::codec::{self, Item};
use super::page::{Page, PageToken, start_key};
use super::tables::EXPIRY_INDEX;
use super::{Store, StoreError, StoredRecord};
use crate::limits;
use inventory_core::ids::{ReservationId, fnv1a};
use inventory_core::time::UnixMillis;

/// Key of the expiry index for holds of `shard` (below [`limits::EXPIRY_SHARDS`]) that expire in the minute
/// of `expires_at`.
pub fn expiry_bucket(expires_at: UnixMillis, shard: u16) -> String {
    bucket(expiry_minute(expires_at), shard)
}

/// Minutes since the Unix epoch.
pub fn expiry_minute(at: UnixMillis) -> u64 {
    at.0 / 60_000
}

/// The part of the expiry index that a reservation belongs to, below [`limits::EXPIRY_SHARDS`]. Stored data:
/// must not change between versions.
pub fn expiry_shard(reservation: &ReservationId) -> u16 {
    let shards = u32::from(limits::EXPIRY_SHARDS);
    (fnv1a(reservation.as_str()) % shards) as u16
}

/// See [`expiry_bucket`].
pub(super) fn bucket_of(reservation: &ReservationId, expires_at: UnixMillis) -> String {
    expiry_bucket(expires_at, expiry_shard(reservation))
}

fn bucket(minute: u64, shard: u16) -> String {
    format!("{minute}#{shard}")
}

impl Store {
    /// Returns the holds of one bucket (minutes since the Unix epoch, and a part below
    /// [`limits::EXPIRY_SHARDS`]) that are overdue at `now`, oldest first: at most `limit`, and at most
    /// [`limits::STORE_DUE_PAGE_MAX`].
    ///
    /// Records that cannot be understood are logged and skipped.
    ///
    /// # Errors
    /// Any [`StoreError`] of the call.
    pub async fn due_holds(
        &self,
        minute: u64,
        shard: u16,
        now: UnixMillis,
        limit: usize,
        from: Option<&PageToken>,
    ) -> Result<Page<StoredRecord>, StoreError> {
        let table = &self.tables().idempotency;
        let limit = page_limit(limit);
        let bucket = bucket(minute, shard);
        let page = self.call_with_retries("Query", table, || {
            self.client()
                .query()
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .table_name(table)
                .index_name(EXPIRY_INDEX)
                .limit(limit)
                .key_condition_expression("#b = :b AND #x <= :x")
                .expression_attribute_names("#b", codec::EXPIRY_BUCKET)
                .expression_attribute_names("#x", codec::EXPIRES_AT)
                .expression_attribute_values(":b", AttributeValue::S(bucket.clone()))
                .expression_attribute_values(":x", AttributeValue::N(now.0.to_string()))
                .set_exclusive_start_key(start_key(from))
                .send()
        });
        let page = page.await?;
        let records = self.due_records(page.items());
        Ok(Page::new(records, page.scanned_count, page.last_evaluated_key))
    }

    /// Returns some of all holds that are overdue at `now`, in any bucket and order: for the first search after
    /// a long time without one. Examines at most [`limits::STORE_SCAN_PAGE_MAX`] held records.
    ///
    /// Records that cannot be understood are logged and skipped.
    ///
    /// # Errors
    /// Any [`StoreError`] of the call.
    pub async fn scan_due_holds(
        &self,
        now: UnixMillis,
        from: Option<&PageToken>,
    ) -> Result<Page<StoredRecord>, StoreError> {
        let table = &self.tables().idempotency;
        let page = self.call_with_retries("Scan", table, || {
            self.client()
                .scan()
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .table_name(table)
                .index_name(EXPIRY_INDEX)
                .limit(limits::STORE_SCAN_PAGE_MAX)
                .filter_expression("#x <= :x")
                .expression_attribute_names("#x", codec::EXPIRES_AT)
                .expression_attribute_values(":x", AttributeValue::N(now.0.to_string()))
                .set_exclusive_start_key(start_key(from))
                .send()
        });
        let page = page.await?;
        let records = self.due_records(page.items());
        Ok(Page::new(records, page.scanned_count, page.last_evaluated_key))
    }

    fn due_records(&self, items: &[Item]) -> Vec<StoredRecord> {
        let read = |item: &Item| {
            let record = codec::record(item);
            let logged = record.map_err(|why| {
                let id = item.get(codec::RESERVATION_ID);
                let id = id.and_then(|id| id.as_s().ok());
                let id = id.map_or("without an id", String::as_str);
                self.log(&format!("the hold {id} cannot be understood: {why}"));
            });
            logged.ok()
        };
        items.iter().filter_map(read).collect()
    }
}

fn page_limit(limit: usize) -> i32 {
    let limit = limit.clamp(1, limits::STORE_DUE_PAGE_MAX);
    i32::try_from(limit).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn bucket_is_the_minute_and_the_part() {
        let at = UnixMillis(1_763_800_079_999);
        assert_eq!(expiry_bucket(at, 7), "29396667#7");
        assert_eq!(expiry_bucket(UnixMillis(at.0 + 1), 7), "29396668#7");
        assert_eq!(expiry_minute(at), 29_396_667);
    }

    #[test]
    fn index_part_is_stable() {
        for (id, shard) in [("r1", 12), ("rsv_abc123", 9)] {
            assert_eq!(expiry_shard(&id.parse().unwrap()), shard);
        }
    }

    #[test]
    fn consecutive_ids_use_all_parts() {
        let mut counts = [0_u32; limits::EXPIRY_SHARDS as usize];
        for n in 0..32_000 {
            let id = format!("rsv_{n:08}").parse().unwrap();
            counts[usize::from(expiry_shard(&id))] += 1;
        }
        assert!(counts.iter().all(|count| (500..2_000).contains(count)), "{counts:?}");
    }
}
