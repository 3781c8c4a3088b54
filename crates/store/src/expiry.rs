//! Finds overdue holds.
//!
//! A held record is in the index [`EXPIRY_INDEX`](super::tables::EXPIRY_INDEX) under a bucket: the minute in which it
//! expires, and a number that spreads the holds of a minute over several keys, so that no key is hot. Only held
//! records have a bucket and are in the index.
//!
//! The index is eventually consistent, some milliseconds behind the table: the hold of an entry may have ended already,
//! and a new hold may be missing. The condition of the write decides.
//!
//! Not here: expiring a hold, scheduling of the searches.

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};

use super::codec::{self, Item};
use super::page::{Page, PageToken, start_key};
use super::tables::EXPIRY_INDEX;
use super::{Store, StoreError, StoredRecord};
use crate::limits;
use inventory_core::expiry_search::ExpiryBucket;
use inventory_core::time::UnixMillis;

impl Store {
    /// Returns the holds of one bucket that are overdue at `now`, oldest first: at most `limit`, and at most
    /// [`limits::STORE_DUE_PAGE_MAX`].
    ///
    /// Records that cannot be understood are logged and skipped.
    ///
    /// # Errors
    /// Any [`StoreError`] of the call.
    pub async fn due_holds(
        &self,
        bucket: ExpiryBucket,
        now: UnixMillis,
        limit: usize,
        from: Option<&PageToken>,
    ) -> Result<Page<StoredRecord>, StoreError> {
        let table = &self.tables().idempotency;
        let limit = page_limit(limit);
        let bucket = bucket.to_string();
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

    /// Returns some of the holds that are overdue at `now`, in any bucket and order, from one of `segments` parts of
    /// the index. Examines at most [`limits::STORE_SCAN_PAGE_MAX`] held records.
    ///
    /// Records that cannot be understood are logged and skipped.
    ///
    /// # Errors
    /// Any [`StoreError`] of the call.
    pub async fn scan_due_holds(
        &self,
        segment: u16,
        segments: u16,
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
                .segment(i32::from(segment))
                .total_segments(i32::from(segments))
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
