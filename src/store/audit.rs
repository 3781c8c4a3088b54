//! What an audit needs that no one else does: an event's items page by page, damaged ones named
//! instead of fatal; some of them as of one instant; repairs on the condition of what was seen.
//!
//! Every read is strongly consistent. A repair is one transaction, harmless to repeat: once it is
//! written its condition no longer holds, and what is found then is what it wanted.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::operation::transact_get_items::TransactGetItemsError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, ConditionCheck, Get, ItemResponse,
    ReturnValuesOnConditionCheckFailure, TransactGetItem, TransactWriteItem, Update,
};
use futures::StreamExt;

use super::failure::{Failure, Kind};
use super::{Store, StoreError, codec};
use crate::audit::{
    self, AuditRecord, AuditSeat, Claim, Item, Misplaced, Repair, Snapshot, StripeItem, StripeLine,
    Unread,
};
use crate::domain::ids::{EventId, OrderId, ReservationId, SeatId, seat_key, stripe_key};
use crate::domain::seats::SeatState;
use crate::domain::time::UnixMillis;
use crate::domain::transaction::ReservationState;
use crate::limits;
use crate::runtime::{self, clock};

type Attributes = HashMap<String, AttributeValue>;

/// How many stripes are read at a time: all of an event's without a burst.
const STRIPES_AT_ONCE: usize = 8;

/// Tries of a read as of one instant, which other writes cancel.
const INSTANT_TRIES: u32 = 3;

/// An event's stripes, as an audit reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditStripes {
    /// By index.
    pub stripes: Vec<Item<StripeItem>>,
    /// See [`crate::domain::transaction::StripeView::seat_keys`].
    pub seat_keys: u16,
    /// When they were read.
    pub at: UnixMillis,
}

/// Where an audit's next page begins.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditToken(Attributes);

/// A part of an event's items, each read or named; may be empty and still have a next page.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditPage<T> {
    pub items: Vec<Result<T, Unread>>,
    /// Items looked at, other events' included.
    pub examined: u64,
    pub next: Option<AuditToken>,
}

/// A seat's item where it lies: in its place or not.
pub type PlacedSeat = Result<AuditSeat, Misplaced>;

/// What became of a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// It is as the repair wants it, by this very call or an earlier one.
    Done,
    /// Something it depends on has changed since it was seen: nothing was written.
    Stale,
}

impl Store {
    /// Every stripe of `event`; `None` when there is no such event.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn audit_stripes(&self, event: &EventId) -> Result<Option<AuditStripes>, StoreError> {
        let Some(first) = self.audit_stripe(event, 0).await? else {
            return Ok(None);
        };
        // An item made before there were stripes does not say how many: it is the only one.
        let count = bounded(&first, codec::STRIPES, 1, limits::STRIPES_MAX);
        let seat_keys = bounded(&first, codec::SEAT_KEYS, 0, limits::SEAT_KEYS_MAX);
        let mut stripes = vec![match (&count, &seat_keys) {
            (Ok(_), Ok(_)) => stripe(Some(&first)),
            (Err(why), _) | (_, Err(why)) => Item::Unreadable(why.clone()),
        }];
        let count = count.unwrap_or(1);
        let rest = futures::stream::iter(1..count)
            .map(|index| async move { self.audit_stripe(event, index).await })
            .buffered(STRIPES_AT_ONCE);
        futures::pin_mut!(rest);
        while let Some(item) = rest.next().await {
            stripes.push(stripe(item?.as_ref()));
        }
        Ok(Some(AuditStripes {
            stripes,
            seat_keys: seat_keys.unwrap_or(0),
            at: clock::now().unix,
        }))
    }

    async fn audit_stripe(
        &self,
        event: &EventId,
        index: u16,
    ) -> Result<Option<Attributes>, StoreError> {
        let table = &self.tables().inventory;
        let got = self.persist("GetItem", table, || {
            self.client()
                .get_item()
                .table_name(table)
                .key(codec::EVENT_ID, AttributeValue::S(stripe_key(event, index)))
                .consistent_read(true)
                .send()
        });
        Ok(got.await?.item)
    }

    /// One page of the records of `event`, in no order: [`limits::AUDIT_PAGE_ITEMS`] of the whole
    /// table, of which those of the event are told.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn audit_records(
        &self,
        event: &EventId,
        from: Option<&AuditToken>,
    ) -> Result<AuditPage<AuditRecord>, StoreError> {
        let table = &self.tables().idempotency;
        let page = self.persist("Scan", table, || {
            self.client()
                .scan()
                .table_name(table)
                .consistent_read(true)
                .limit(limits::AUDIT_PAGE_ITEMS)
                .filter_expression("#e = :e")
                .expression_attribute_names("#e", codec::EVENT_ID)
                .expression_attribute_values(":e", AttributeValue::S(event.to_string()))
                .set_exclusive_start_key(from.map(|AuditToken(key)| key.clone()))
                .send()
        });
        let page = page.await?;
        let read = |item: &Attributes| {
            record(item).map_err(|why| unread(item, codec::RESERVATION_ID, why))
        };
        Ok(AuditPage {
            items: page.items().iter().map(read).collect(),
            examined: u64::try_from(page.scanned_count).unwrap_or(0),
            next: page.last_evaluated_key.map(AuditToken),
        })
    }

    /// One page of the seats of `event` under the `key`-th of its `seat_keys` partition keys.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn audit_seats(
        &self,
        event: &EventId,
        key: u16,
        seat_keys: u16,
        from: Option<&AuditToken>,
    ) -> Result<AuditPage<PlacedSeat>, StoreError> {
        let table = &self.tables().seats;
        let lies_under = stripe_key(event, key);
        let page = self.persist("Query", table, || {
            self.client()
                .query()
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
                .set_exclusive_start_key(from.map(|AuditToken(key)| key.clone()))
                .send()
        });
        let page = page.await?;
        let read = |item: &Attributes| {
            let seat = seat(item).map_err(|why| unread(item, codec::SEAT_ID, why))?;
            let belongs_under = seat_key(event, &seat.id, seat_keys);
            Ok(match belongs_under == lies_under {
                true => Ok(seat),
                false => Err(Misplaced {
                    seat: seat.id,
                    lies_under: lies_under.clone(),
                    belongs_under,
                }),
            })
        };
        Ok(AuditPage {
            items: page.items().iter().map(read).collect(),
            examined: u64::try_from(page.scanned_count).unwrap_or(0),
            next: page.last_evaluated_key.map(AuditToken),
        })
    }

    /// These seats and records as they are at one instant; `None` when other writes did not let it
    /// be read. Together at most [`limits::TRANSACTION_ACTIONS_MAX`], each once.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn audit_snapshot(
        &self,
        event: &EventId,
        seat_keys: u16,
        seats: &[SeatId],
        records: &[ReservationId],
    ) -> Result<Option<Snapshot>, StoreError> {
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
            None => Item::Missing,
            Some(item) => codec::seat_state(item).map_or_else(Item::Unreadable, Item::Read),
        };
        let record = |response: &ItemResponse| match response.item() {
            None => Item::Missing,
            Some(item) => match codec::record(item) {
                Err(why) => Item::Unreadable(why),
                Ok(stored) => {
                    let is_ours = stored.event == *event;
                    let mut record = audited(stored);
                    if !is_ours {
                        // A reservation of another event has nothing of this one.
                        record.draws.clear();
                        record.seats = None;
                    }
                    Item::Read(record)
                }
            },
        };
        Ok(Some(Snapshot {
            seats: seats
                .iter()
                .cloned()
                .zip(of_seats.iter().map(state))
                .collect(),
            records: records
                .iter()
                .cloned()
                .zip(of_records.iter().map(record))
                .collect(),
        }))
    }

    async fn get_at_once(
        &self,
        gets: &[TransactGetItem],
    ) -> Result<Option<Vec<ItemResponse>>, StoreError> {
        let mut pause = limits::RETRY_BACKOFF_MIN;
        for _ in 0..INSTANT_TRIES {
            let got = self.persist("TransactGetItems", &self.tables().seats, || {
                self.client()
                    .transact_get_items()
                    .set_transact_items(Some(gets.to_vec()))
                    .send()
            });
            match got.await {
                Ok(output) => return Ok(Some(output.responses.unwrap_or_default())),
                Err(failure) if failure.kind == Kind::Cancelled && is_conflict(&failure) => {}
                Err(failure) => return Err(failure.into()),
            }
            runtime::sleep(pause).await;
            pause = (pause * 4).min(limits::RETRY_BACKOFF_MAX);
        }
        Ok(None)
    }

    /// Carries out one repair of `event`, if everything it depends on is as it was seen.
    ///
    /// # Errors
    /// When the store cannot be asked; then it may or may not have been carried out, and can be
    /// asked for again.
    pub async fn repair(
        &self,
        event: &EventId,
        seat_keys: u16,
        repair: &Repair,
    ) -> Result<Repaired, StoreError> {
        let at = codec::timestamp(clock::now().unix);
        let actions = self.repair_actions(event, seat_keys, repair, &at);
        let actions = actions.map_err(|error| StoreError::Invalid(error.to_string()))?;
        if actions.is_empty() {
            return Ok(Repaired::Stale);
        }
        let written = self.persist("TransactWriteItems", &self.tables().inventory, || {
            self.client()
                .transact_write_items()
                .set_transact_items(Some(actions.clone()))
                .send()
        });
        match written.await {
            Ok(_) => Ok(Repaired::Done),
            Err(failure) if failure.kind == Kind::Cancelled => not_repaired(repair, failure),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The item to repair first, then the record it depends on. Empty when what was seen is not
    /// enough to be sure.
    fn repair_actions(
        &self,
        event: &EventId,
        seat_keys: u16,
        repair: &Repair,
        at: &str,
    ) -> Result<Vec<TransactWriteItem>, BuildError> {
        let tables = self.tables();
        let seat_action = |seat: &SeatId, seen: &SeatState, to: &SeatState| {
            let key = codec::seat_item_key(event, seat, seat_keys);
            seat_update(seen, to, at).action(&tables.seats, key)
        };
        match repair {
            Repair::Remaining { seen, to } => {
                let key = [(codec::EVENT_ID, text(stripe_key(event, seen.index)))];
                let update = stripe_update(seen, *to, at);
                Ok(vec![update.action(&tables.inventory, attributes(key))?])
            }
            Repair::Free { seat, seen, named } => {
                let (Some(holder), Some(state)) = (audit::holder(seen), named.state()) else {
                    return Ok(Vec::new());
                };
                Ok(vec![
                    seat_action(seat, seen, &SeatState::Available)?,
                    record_check(&tables.idempotency, holder, state, None)?,
                ])
            }
            Repair::Give { seat, seen, claim } => {
                let Some(to) = claim.seat_state() else {
                    return Ok(Vec::new());
                };
                let Claim {
                    reservation, until, ..
                } = claim;
                let until = until.filter(|_| !claim.confirmed);
                let state = Some(claim.state());
                Ok(vec![
                    seat_action(seat, seen, &to)?,
                    record_check(&tables.idempotency, reservation, state, until)?,
                ])
            }
        }
    }
}

// ---- Reading ------------------------------------------------------------------------------------

fn stripe(item: Option<&Attributes>) -> Item<StripeItem> {
    let Some(item) = item else {
        return Item::Missing;
    };
    let read = || {
        let must = |name: &str| integer(item, name)?.ok_or_else(|| format!("{name} is missing"));
        let natural = |name: &str, number: i64| {
            u64::try_from(number).map_err(|_| format!("{name} is {number}, out of its range"))
        };
        Ok(StripeItem {
            capacity: natural(codec::TOTAL_SEATS, must(codec::TOTAL_SEATS)?)?,
            remaining: must(codec::REMAINING)?,
            version: natural(
                codec::VERSION,
                integer(item, codec::VERSION)?.unwrap_or_default(),
            )?,
            closed: codec::is_closed(item),
        })
    };
    read().map_or_else(Item::Unreadable, Item::Read)
}

/// A number of stripe 0, `least` where the item does not say.
fn bounded(item: &Attributes, name: &str, least: u16, max: u16) -> Result<u16, String> {
    let number = integer(item, name)?.unwrap_or(i64::from(least));
    u16::try_from(number)
        .ok()
        .filter(|number| (least..=max).contains(number))
        .ok_or_else(|| format!("{name} is {number}; want {least} to {max}"))
}

/// A number that may be below zero, for a hand may have written it.
fn integer(item: &Attributes, name: &str) -> Result<Option<i64>, String> {
    match item.get(name) {
        None | Some(AttributeValue::Null(_)) => Ok(None),
        Some(AttributeValue::N(digits)) => digits
            .parse()
            .map(Some)
            .map_err(|_| format!("{name} is {digits}, out of its range")),
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
    }
}

fn seat(item: &Attributes) -> Result<AuditSeat, String> {
    let id = match item.get(codec::SEAT_ID) {
        Some(AttributeValue::S(id)) => id,
        _ => return Err(format!("{} is no text", codec::SEAT_ID)),
    };
    Ok(AuditSeat {
        id: id
            .parse()
            .map_err(|error| format!("{} {error}", codec::SEAT_ID))?,
        state: codec::seat_state(item)?,
    })
}

fn unread(item: &Attributes, key: &str, why: String) -> Unread {
    let id = match item.get(key) {
        Some(AttributeValue::S(id)) => id.clone(),
        _ => String::new(),
    };
    Unread { id, why }
}

fn get(table: &str, key: Attributes) -> Result<TransactGetItem, BuildError> {
    let get = Get::builder()
        .table_name(table)
        .set_key(Some(key))
        .build()?;
    Ok(TransactGetItem::builder().get(get).build())
}

/// Whether nothing but other writes, or too many, stood in the way of a cancelled read.
fn is_conflict(failure: &Failure<TransactGetItemsError>) -> bool {
    let error = failure
        .error
        .as_ref()
        .and_then(|error| error.as_service_error());
    let Some(TransactGetItemsError::TransactionCanceledException(cancelled)) = error else {
        return false;
    };
    let passing = [
        "None",
        "TransactionConflict",
        "ThrottlingError",
        "ProvisionedThroughputExceeded",
    ];
    let mut codes = cancelled
        .cancellation_reasons()
        .iter()
        .filter_map(|r| r.code());
    codes.all(|code| passing.contains(&code))
}

// ---- Repairing ----------------------------------------------------------------------------------

/// An update with its condition and all that both speak of.
struct Change {
    update: &'static str,
    condition: String,
    names: Vec<(&'static str, &'static str)>,
    values: Vec<(&'static str, AttributeValue)>,
}

impl Change {
    fn action(self, table: &str, key: Attributes) -> Result<TransactWriteItem, BuildError> {
        let update = Update::builder()
            .table_name(table)
            .set_key(Some(key))
            .update_expression(self.update)
            .condition_expression(self.condition)
            .set_expression_attribute_names(Some(aliases(&self.names)))
            .set_expression_attribute_values(Some(attributes(self.values)))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

fn stripe_update(seen: &StripeLine, to: u64, at: &str) -> Change {
    let version = match seen.version {
        // An item without a version reads as 0.
        0 => "(attribute_not_exists(#v) OR #v = :v)",
        _ => "#v = :v",
    };
    Change {
        // The version tells every other reader that units have moved.
        update: "SET #r = :to, #u = :u ADD #v :one",
        condition: format!("#r = :r AND #c = :c AND {version}"),
        names: vec![
            ("#r", codec::REMAINING),
            ("#c", codec::TOTAL_SEATS),
            ("#v", codec::VERSION),
            ("#u", codec::UPDATED_AT),
        ],
        values: vec![
            (":to", number(to)),
            (":u", text(at)),
            (":one", number(1)),
            (":r", number(seen.remaining)),
            (":c", number(seen.capacity)),
            (":v", number(seen.version)),
        ],
    }
}

fn seat_update(seen: &SeatState, to: &SeatState, at: &str) -> Change {
    let names = vec![
        ("#s", codec::STATUS),
        ("#u", codec::UPDATED_AT),
        ("#r", codec::RESERVATION_ID),
        ("#x", codec::HOLD_EXPIRES_AT),
        ("#o", codec::ORDER_ID),
    ];
    let mut values = vec![(":u", text(at))];
    let mut condition = "#s = :was".to_owned();
    values.push((":was", text(status(seen))));
    if let Some(holder) = audit::holder(seen) {
        condition.push_str(" AND #r = :holder");
        values.push((":holder", text(holder.as_str())));
    }
    if let SeatState::Hold { until, .. } = seen {
        match until.0 {
            // How a hold reads that does not say when it ends.
            u64::MAX => condition.push_str(" AND NOT attribute_type(#x, :n)"),
            _ => condition.push_str(" AND #x = :x"),
        }
        values.push(match until.0 {
            u64::MAX => (":n", text("N")),
            until => (":x", number(until)),
        });
    }
    values.push((":to", text(status(to))));
    let update = match to {
        SeatState::Hold { reservation, until } => {
            values.push((":r", text(reservation.as_str())));
            values.push((":until", number(until.0)));
            "SET #s = :to, #u = :u, #r = :r, #x = :until REMOVE #o"
        }
        SeatState::Sold { reservation } => {
            values.push((":r", text(reservation.as_str())));
            values.push((":o", text(OrderId::of(reservation).to_text())));
            "SET #s = :to, #u = :u, #r = :r, #o = :o REMOVE #x"
        }
        SeatState::Available | SeatState::Blocked => "SET #s = :to, #u = :u REMOVE #r, #x, #o",
    };
    Change {
        update,
        condition,
        names,
        values,
    }
}

/// That a record still is in `state` (`None`: that there is none), its hold ending at `until`.
fn record_check(
    table: &str,
    reservation: &ReservationId,
    state: Option<ReservationState>,
    until: Option<UnixMillis>,
) -> Result<TransactWriteItem, BuildError> {
    let check = ConditionCheck::builder()
        .table_name(table)
        .set_key(Some(record_key(reservation)));
    let check = match state {
        None => check
            .condition_expression("attribute_not_exists(#k)")
            .expression_attribute_names("#k", codec::RESERVATION_ID),
        Some(state) => {
            let check = check
                .expression_attribute_names("#s", codec::STATUS)
                .expression_attribute_values(":s", text(codec::state_name(state)));
            match until {
                None => check.condition_expression("#s = :s"),
                Some(until) => check
                    .condition_expression("#s = :s AND #x = :x")
                    .expression_attribute_names("#x", codec::EXPIRES_AT)
                    .expression_attribute_values(":x", number(until.0)),
            }
        }
    };
    let check = check.build()?;
    Ok(TransactWriteItem::builder().condition_check(check).build())
}

/// A condition failed: perhaps because this very repair was written before, its answer lost.
fn not_repaired(
    repair: &Repair,
    failure: Failure<TransactWriteItemsError>,
) -> Result<Repaired, StoreError> {
    let error = failure
        .error
        .as_ref()
        .and_then(|error| error.as_service_error());
    let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error else {
        return Err(failure.into());
    };
    let reasons = cancelled.cancellation_reasons();
    let failed = |reason: &&CancellationReason| reason.code() == Some("ConditionalCheckFailed");
    if !reasons.iter().any(|reason| failed(&reason)) {
        let codes: Vec<&str> = reasons.iter().filter_map(|reason| reason.code()).collect();
        return Err(
            match codes
                .iter()
                .all(|code| *code != "AccessDenied" && *code != "ValidationError")
            {
                true => StoreError::Unavailable(codes.join(", ")),
                false => StoreError::Refused(failure.text()),
            },
        );
    }
    let there = reasons.first().and_then(|reason| reason.item());
    let done = there.is_some_and(|item| is_done(repair, item));
    Ok(if done {
        Repaired::Done
    } else {
        Repaired::Stale
    })
}

fn is_done(repair: &Repair, item: &Attributes) -> bool {
    match repair {
        Repair::Remaining { seen, to } => stripe(Some(item)).read().is_some_and(|now| {
            now.version == seen.version + 1
                && now.capacity == seen.capacity
                && i64::try_from(*to) == Ok(now.remaining)
        }),
        Repair::Free { .. } => codec::seat_state(item) == Ok(SeatState::Available),
        Repair::Give { claim, .. } => codec::seat_state(item).ok() == claim.seat_state(),
    }
}

fn status(state: &SeatState) -> &'static str {
    match state {
        SeatState::Available => codec::AVAILABLE,
        SeatState::Hold { .. } => codec::HOLD,
        SeatState::Sold { .. } => codec::SOLD,
        SeatState::Blocked => codec::BLOCKED,
    }
}

fn record_key(reservation: &ReservationId) -> Attributes {
    attributes([(codec::RESERVATION_ID, text(reservation.as_str()))])
}

fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn attributes(pairs: impl IntoIterator<Item = (&'static str, AttributeValue)>) -> Attributes {
    let owned = |(name, value): (&str, AttributeValue)| (name.to_owned(), value);
    pairs.into_iter().map(owned).collect()
}

fn aliases(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let owned = |(alias, name): &(&str, &str)| ((*alias).to_owned(), (*name).to_owned());
    pairs.iter().map(owned).collect()
}
