//! Reads reservations: some by id, or all of an event by a scan, which must never be used on the request path.

use aws_sdk_dynamodb::operation::get_item::GetItemInput;
use aws_sdk_dynamodb::operation::scan::ScanOutput;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};

use super::batch::ReadFailure;
use super::page::{Page, PageToken, start_key};
use super::{Store, StoreError, StoredRecord, codec};
use crate::limits;
use inventory_core::ids::{EventId, ReservationId};
use inventory_core::transaction::{RecordsRead, Unreadable};

impl Store {
    /// Returns the records of these reservations, strongly consistent, in their order. One request for each
    /// [`limits::BATCH_GET_KEYS_MAX`] of them.
    pub async fn read_records(&self, ids: &[ReservationId]) -> RecordsRead {
        let table = &self.tables().idempotency;
        let keys: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let mut found = Vec::with_capacity(ids.len());
        for keys in keys.chunks(limits::BATCH_GET_KEYS_MAX) {
            let read = self.get_batch(table, codec::RESERVATION_ID, keys, &"reservations");
            let items = match read.await {
                Ok(items) => items,
                Err(ReadFailure::Throttled) => return RecordsRead::Throttled,
                Err(ReadFailure::Unavailable) => return RecordsRead::Unavailable,
            };
            for (id, item) in keys.iter().zip(items) {
                let view = item.map(|item| codec::record_view(&item)).transpose();
                found.push(view.map_err(|why| {
                    self.log(&format!("reservation {id} cannot be understood: {why}"));
                    Unreadable
                }));
            }
        }
        RecordsRead::Found(found)
    }

    /// Returns the complete record of one reservation, strongly consistent; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a record that cannot be understood, or any other [`StoreError`] of the call.
    pub async fn read_reservation(
        &self,
        id: &ReservationId,
    ) -> Result<Option<StoredRecord>, StoreError> {
        let table = &self.tables().idempotency;
        let read = self.read("GetItem", table, || {
            let read = GetItemInput::builder()
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .table_name(table)
                .key(codec::RESERVATION_ID, AttributeValue::S(id.to_string()))
                .consistent_read(true);
            self.send_read(read)
        });
        let item = read.await?.item;
        let record = item.map(|item| codec::record(&item)).transpose();
        record.map_err(|why| StoreError::Corrupt(format!("reservation {id}: {why}")))
    }

    /// Returns one page of the reservations of `event`, strongly consistent, unordered. Examines at most
    /// [`limits::STORE_SCAN_PAGE_MAX`] records of the whole table, including those of other events.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a record of this event that cannot be understood.
    pub async fn scan_reservations(
        &self,
        event: &EventId,
        from: Option<&PageToken>,
    ) -> Result<Page<StoredRecord>, StoreError> {
        let page = self.scan_records(event, limits::STORE_SCAN_PAGE_MAX, from).await?;
        let read = |item| codec::record(item).map_err(StoreError::Corrupt);
        let records = page.items().iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page::new(records, page.scanned_count, page.last_evaluated_key))
    }

    /// The items of [`Store::scan_reservations`]; examines at most `limit` of the table.
    pub(super) async fn scan_records(
        &self,
        event: &EventId,
        limit: i32,
        from: Option<&PageToken>,
    ) -> Result<ScanOutput, StoreError> {
        let table = &self.tables().idempotency;
        let page = self.call_with_retries("Scan", table, || {
            self.client()
                .scan()
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .table_name(table)
                .consistent_read(true)
                .limit(limit)
                .filter_expression("#e = :e")
                .expression_attribute_names("#e", codec::EVENT_ID)
                .expression_attribute_values(":e", AttributeValue::S(event.to_string()))
                .set_exclusive_start_key(start_key(from))
                .send()
        });
        Ok(page.await?)
    }
}
