//! Reads of the audit: items of an event page by page, with damaged items reported instead of fatal, and some items
//! at one instant. Repairs are in `audit/repair.rs`.
//!
//! Every read is strongly consistent.

mod repair;

use std::collections::HashMap;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::operation::transact_get_items::TransactGetItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, Get, ItemResponse, ReturnConsumedCapacity, TransactGetItem,
};
use futures::StreamExt;

pub use self::repair::RepairOutcome;
use super::failure::{CallFailure, FailureKind};
use super::page::{Page, PageToken, start_key};
use super::{Store, StoreError, codec};
use crate::limits;
use inventory_core::audit::{
    AuditRecord, AuditSeat, InstantSnapshot, MisplacedSeat, StoredItem, StripeAmounts,
    UnreadableItem,
};
use inventory_core::ids::{EventId, ReservationId, SeatId, counter_key, seat_key, stripe_key};
use inventory_core::limits::confirmation_counters;
use inventory_core::time::UnixMillis;
use inventory_runtime::clock;

type Attributes = HashMap<String, AttributeValue>;

/// Stripes per read: few enough that reading all stripes of an event does not exceed a partition's read rate.
const STRIPES_AT_ONCE: usize = 8;

/// Attempts of a read of several items at one instant, which conflicting writes cancel.
const INSTANT_TRIES: u32 = 3;

/// Stripes of an event, as the audit reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditStripes {
    /// By index.
    pub stripes: Vec<StoredItem<StripeAmounts>>,
    /// Units of each confirmation counter; empty for a seated event.
    pub counters: Vec<StoredItem<i64>>,
    /// See [`inventory_core::transaction::StripeView::seat_keys`].
    pub seat_keys: u16,
    /// Time of the read.
    pub at: UnixMillis,
}

/// A seat item where it was found: under its own partition key or under another.
pub type PlacedSeat = Result<AuditSeat, MisplacedSeat>;

impl Store {
    /// Every stripe of `event`; `None` when there is no such event.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn audit_stripes(&self, event: &EventId) -> Result<Option<AuditStripes>, StoreError> {
        let Some(first) = self.audit_item(stripe_key(event, 0)).await? else {
            return Ok(None);
        };
        // Items written before stripes existed have no stripe count and are the only item.
        let count = bounded(&first, codec::STRIPES, 1, limits::STRIPES_MAX);
        let seat_keys = bounded(&first, codec::SEAT_KEYS, 0, limits::SEAT_KEYS_MAX);
        let mut stripes = vec![match (&count, &seat_keys) {
            (Ok(_), Ok(_)) => stripe(Some(&first)),
            (Err(why), _) | (_, Err(why)) => StoredItem::Unreadable(why.clone()),
        }];
        let count = count.unwrap_or(1);
        let rest = futures::stream::iter(1..count)
            .map(|index| async move { self.audit_item(stripe_key(event, index)).await })
            .buffered(STRIPES_AT_ONCE);
        futures::pin_mut!(rest);
        while let Some(item) = rest.next().await {
            stripes.push(stripe(item?.as_ref()));
        }
        let seat_keys = seat_keys.unwrap_or(0);
        let counters = if seat_keys == 0 { confirmation_counters(count) } else { 0 };
        let items = futures::stream::iter(0..counters)
            .map(|index| async move { self.audit_item(counter_key(event, index)).await })
            .buffered(STRIPES_AT_ONCE);
        futures::pin_mut!(items);
        let mut counters = Vec::new();
        while let Some(item) = items.next().await {
            counters.push(counter(item?.as_ref()));
        }
        Ok(Some(AuditStripes { stripes, counters, seat_keys, at: clock::now().unix }))
    }

    /// An item of the inventory table.
    async fn audit_item(&self, key: String) -> Result<Option<Attributes>, StoreError> {
        let table = &self.tables().inventory;
        let got = self.call_with_retries("GetItem", table, || {
            self.client()
                .get_item()
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .table_name(table)
                .key(codec::EVENT_ID, AttributeValue::S(key.clone()))
                .consistent_read(true)
                .send()
        });
        Ok(got.await?.item)
    }

    /// Returns one page of the records of `event`, unordered: [`limits::AUDIT_PAGE_ITEMS`] records of the whole
    /// table are examined.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn audit_records(
        &self,
        event: &EventId,
        from: Option<&PageToken>,
    ) -> Result<Page<Result<AuditRecord, UnreadableItem>>, StoreError> {
        let page = self.scan_records(event, limits::AUDIT_PAGE_ITEMS, from).await?;
        let read = |item: &Attributes| {
            record(item).map_err(|why| unread(item, codec::RESERVATION_ID, why))
        };
        let items = page.items().iter().map(read).collect();
        Ok(Page::new(items, page.scanned_count, page.last_evaluated_key))
    }

    /// One page of the seats of `event` under the `key`-th of its `seat_keys` partition keys.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn audit_seats(
        &self,
        event: &EventId,
        key: u16,
        seat_keys: u16,
        from: Option<&PageToken>,
    ) -> Result<Page<Result<PlacedSeat, UnreadableItem>>, StoreError> {
        let table = &self.tables().seats;
        let lies_under = stripe_key(event, key);
        let page = self.call_with_retries("Query", table, || {
            self.client()
                .query()
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .table_name(table)
                .consistent_read(true)
                .limit(limits::AUDIT_PAGE_ITEMS)
                .key_condition_expression("#e = :e")
                .projection_expression("#i, #s, #r, #x")
                .expression_attribute_names("#e", codec::EVENT_ID)
                .expression_attribute_names("#i", codec::SEAT_ID)
                .expression_attribute_names("#s", codec::STATUS)
                .expression_attribute_names("#r", codec::RESERVATION_ID)
                .expression_attribute_names("#x", codec::HOLD_EXPIRES_AT)
                .expression_attribute_values(":e", AttributeValue::S(lies_under.clone()))
                .set_exclusive_start_key(start_key(from))
                .send()
        });
        let page = page.await?;
        let read = |item: &Attributes| {
            let seat = seat(item).map_err(|why| unread(item, codec::SEAT_ID, why))?;
            let belongs_under = seat_key(event, &seat.id, seat_keys);
            Ok(match belongs_under == lies_under {
                true => Ok(seat),
                false => Err(MisplacedSeat {
                    seat: seat.id,
                    lies_under: lies_under.clone(),
                    belongs_under,
                }),
            })
        };
        let items = page.items().iter().map(read).collect();
        Ok(Page::new(items, page.scanned_count, page.last_evaluated_key))
    }

    /// Returns these seats and records at one instant; `None` if conflicting writes prevented the read. Together
    /// at most [`limits::TRANSACTION_ACTIONS_MAX`], distinct.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn audit_snapshot(
        &self,
        event: &EventId,
        seat_keys: u16,
        seats: &[SeatId],
        records: &[ReservationId],
    ) -> Result<Option<InstantSnapshot>, StoreError> {
        let tables = self.tables();
        let seat_get = |seat: &SeatId| {
            let key = codec::seat_item_key(event, seat, seat_keys);
            get(&tables.seats, key)
        };
        let record_get = |record: &ReservationId| get(&tables.idempotency, record_key(record));
        let gets = seats.iter().map(seat_get);
        let gets: Result<Vec<_>, _> = gets.chain(records.iter().map(record_get)).collect();
        let gets = gets.map_err(|error| StoreError::Invalid(error.to_string()))?;
        let Some(responses) = self.get_at_once(&gets).await? else {
            return Ok(None);
        };
        if responses.len() != gets.len() {
            let why = format!("{} answers to {} gets", responses.len(), gets.len());
            return Err(StoreError::Unavailable(why));
        }
        let (of_seats, of_records) = responses.split_at(seats.len());
        let state = |response: &ItemResponse| match response.item() {
            None => StoredItem::Missing,
            Some(item) => {
                codec::seat_state(item).map_or_else(StoredItem::Unreadable, StoredItem::Read)
            }
        };
        let record = |response: &ItemResponse| match response.item() {
            None => StoredItem::Missing,
            Some(item) => match codec::record(item) {
                Err(why) => StoredItem::Unreadable(why),
                Ok(stored) => {
                    let is_ours = stored.event == *event;
                    let mut record = audited(stored);
                    if !is_ours {
                        // A reservation of another event does not concern this one.
                        record.draws.clear();
                        record.seats = None;
                    }
                    StoredItem::Read(record)
                }
            },
        };
        Ok(Some(InstantSnapshot {
            seats: seats.iter().cloned().zip(of_seats.iter().map(state)).collect(),
            records: records.iter().cloned().zip(of_records.iter().map(record)).collect(),
        }))
    }

    async fn get_at_once(
        &self,
        gets: &[TransactGetItem],
    ) -> Result<Option<Vec<ItemResponse>>, StoreError> {
        let mut pause = limits::RETRY_BACKOFF_MIN;
        for _ in 0..INSTANT_TRIES {
            let got = self.call_with_retries("TransactGetItems", &self.tables().seats, || {
                self.client()
                    .transact_get_items()
                    .return_consumed_capacity(ReturnConsumedCapacity::Total)
                    .set_transact_items(Some(gets.to_vec()))
                    .send()
            });
            match got.await {
                Ok(output) => return Ok(Some(output.responses.unwrap_or_default())),
                Err(failure) if failure.kind == FailureKind::Cancelled && is_conflict(&failure) => {
                }
                Err(failure) => return Err(failure.into()),
            }
            inventory_runtime::sleep(pause).await;
            pause = (pause * 4).min(limits::RETRY_BACKOFF_MAX);
        }
        Ok(None)
    }
}

// ---- Reading ------------------------------------------------------------------------------------

fn stripe(item: Option<&Attributes>) -> StoredItem<StripeAmounts> {
    let Some(item) = item else {
        return StoredItem::Missing;
    };
    let read = || {
        let must = |name: &str| integer(item, name)?.ok_or_else(|| format!("{name} is missing"));
        let natural = |name: &str, number: i64| {
            u64::try_from(number).map_err(|_| format!("{name} is {number}, out of its range"))
        };
        Ok(StripeAmounts {
            capacity: natural(codec::TOTAL_SEATS, must(codec::TOTAL_SEATS)?)?,
            remaining: must(codec::REMAINING)?,
            version: natural(codec::VERSION, integer(item, codec::VERSION)?.unwrap_or_default())?,
            closed: codec::is_closed(item),
            held: integer(item, codec::HELD_UNITS)?.unwrap_or_default(),
            moved: integer(item, codec::MOVED)?.unwrap_or_default(),
        })
    };
    read().map_or_else(StoredItem::Unreadable, StoredItem::Read)
}

fn counter(item: Option<&Attributes>) -> StoredItem<i64> {
    match item.map(codec::confirmed_units) {
        None => StoredItem::Missing,
        Some(units) => units.map_or_else(StoredItem::Unreadable, StoredItem::Read),
    }
}

/// A number of stripe 0, `least` if the item has none.
fn bounded(item: &Attributes, name: &str, least: u16, max: u16) -> Result<u16, String> {
    let number = integer(item, name)?.unwrap_or(i64::from(least));
    u16::try_from(number)
        .ok()
        .filter(|number| (least..=max).contains(number))
        .ok_or_else(|| format!("{name} is {number}; want {least} to {max}"))
}

/// A number that may be negative, because items may have been edited.
fn integer(item: &Attributes, name: &str) -> Result<Option<i64>, String> {
    match item.get(name) {
        None | Some(AttributeValue::Null(_)) => Ok(None),
        Some(AttributeValue::N(digits)) => {
            digits.parse().map(Some).map_err(|_| format!("{name} is {digits}, out of its range"))
        }
        Some(_) => Err(format!("{name} is no number")),
    }
}

fn record(item: &Attributes) -> Result<AuditRecord, String> {
    codec::record(item).map(audited)
}

fn audited(stored: super::StoredRecord) -> AuditRecord {
    let view = stored.view;
    AuditRecord {
        reservation: stored.reservation,
        state: view.state,
        qty: stored.qty,
        draws: stored.draws,
        seats: view.seats,
        order: view.order,
        expires_at: view.expires_at,
        counted: view.counted,
    }
}

fn seat(item: &Attributes) -> Result<AuditSeat, String> {
    let id = match item.get(codec::SEAT_ID) {
        Some(AttributeValue::S(id)) => id,
        _ => return Err(format!("{} is no text", codec::SEAT_ID)),
    };
    Ok(AuditSeat {
        id: id.parse().map_err(|error| format!("{} {error}", codec::SEAT_ID))?,
        state: codec::seat_state(item)?,
    })
}

fn unread(item: &Attributes, key: &str, why: String) -> UnreadableItem {
    let id = match item.get(key) {
        Some(AttributeValue::S(id)) => id.clone(),
        _ => String::new(),
    };
    UnreadableItem { id, why }
}

fn get(table: &str, key: Attributes) -> Result<TransactGetItem, BuildError> {
    let get = Get::builder().table_name(table).set_key(Some(key)).build()?;
    Ok(TransactGetItem::builder().get(get).build())
}

/// Whether a read was cancelled only because of conflicts or throttling.
fn is_conflict(failure: &CallFailure<TransactGetItemsError>) -> bool {
    let error = failure.error.as_ref().and_then(|error| error.as_service_error());
    let Some(TransactGetItemsError::TransactionCanceledException(cancelled)) = error else {
        return false;
    };
    let passing =
        ["None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"];
    let mut codes = cancelled.cancellation_reasons().iter().filter_map(|r| r.code());
    codes.all(|code| passing.contains(&code))
}

fn record_key(reservation: &ReservationId) -> Attributes {
    attributes([(codec::RESERVATION_ID, text(reservation.as_str()))])
}

fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

fn attributes(pairs: impl IntoIterator<Item = (&'static str, AttributeValue)>) -> Attributes {
    let owned = |(name, value): (&str, AttributeValue)| (name.to_owned(), value);
    pairs.into_iter().map(owned).collect()
}
