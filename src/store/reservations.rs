//! Reading back an event's reservations, for verification: a scan, never on the request path.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::{Store, StoreError, StoredRecord, codec};
use crate::domain::ids::EventId;
use crate::limits;

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken(String);

/// A part of an event's reservations; may be empty and still have a next page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationPage {
    pub records: Vec<StoredRecord>,
    pub next: Option<PageToken>,
}

impl Store {
    /// One page of the reservations of `event`, strongly consistent, in no order. Examines at most
    /// [`limits::STORE_SCAN_PAGE_MAX`] records of the whole table, other events' included.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] at a record of this event that cannot be understood.
    pub async fn scan_reservations(
        &self,
        event: &EventId,
        from: Option<&PageToken>,
    ) -> Result<ReservationPage, StoreError> {
        let table = &self.tables().idempotency;
        let start = from.map(|PageToken(id)| {
            let id = AttributeValue::S(id.clone());
            HashMap::from([(codec::RESERVATION_ID.to_owned(), id)])
        });
        let page = self.persist("Scan", table, || {
            self.client()
                .scan()
                .table_name(table)
                .consistent_read(true)
                .limit(limits::STORE_SCAN_PAGE_MAX)
                .filter_expression("#e = :e")
                .expression_attribute_names("#e", codec::EVENT_ID)
                .expression_attribute_values(":e", AttributeValue::S(event.to_string()))
                .set_exclusive_start_key(start.clone())
                .send()
        });
        let page = page.await?;
        let read = |item| codec::record(item).map_err(StoreError::Corrupt);
        let next = page.last_evaluated_key().and_then(|key| {
            let id = key.get(codec::RESERVATION_ID)?.as_s().ok()?;
            Some(PageToken(id.clone()))
        });
        Ok(ReservationPage {
            records: page.items().iter().map(read).collect::<Result<_, _>>()?,
            next,
        })
    }
}
