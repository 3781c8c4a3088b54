//! Stock of an event: reading all stripes, and creating them.

use aws_sdk_dynamodb::operation::get_item::GetItemInput;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};

use super::batch::ReadFailure;
use super::codec::{self, Item};
use super::failure::{CallFailure, FailureKind};
use super::{Store, StoreError};
use crate::limits;
use inventory_core::ids::{EventId, counter_key, stripe_key};
use inventory_core::limits::confirmation_counters;
use inventory_core::transaction::{StockTotals, StripeView, StripesRead};
use inventory_runtime::clock;

/// An event to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    pub event: EventId,
    /// Units, 1 to [`limits::EVENT_TOTAL_MAX`]; 0 for a seated event.
    pub total: u64,
    /// 1 to [`limits::STRIPES_MAX`]; 1 for a seated event.
    pub stripes: u16,
    /// Number of partition keys for its seats, 1 to [`limits::SEAT_KEYS_MAX`]; 0 for a quantity event.
    pub seat_keys: u16,
    /// Display name; empty if not given. `venue` likewise.
    pub name: String,
    pub venue: String,
}

impl NewEvent {
    /// A quantity event of `total` units.
    pub fn of_quantity(event: EventId, total: u64, stripes: u16) -> Self {
        Self { event, total, stripes, seat_keys: 0, name: String::new(), venue: String::new() }
    }

    /// A seated event; its seats are imported later.
    pub fn of_seats(event: EventId, seat_keys: u16) -> Self {
        Self { seat_keys, ..Self::of_quantity(event, 0, 1) }
    }
}

/// An event without its stock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventAbout {
    pub event: EventId,
    pub stripes: u16,
    /// Number of partition keys for its seats; 0 for a quantity event.
    pub seat_keys: u16,
    /// Whether the event accepts no new reservations.
    pub closed: bool,
    /// Empty if not given; `venue` likewise.
    pub name: String,
    pub venue: String,
}

impl EventAbout {
    /// Whether the stock consists of seats.
    pub fn is_seated(&self) -> bool {
        self.seat_keys > 0
    }
}

/// Outcome of [`Store::create_event`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateEventOutcome {
    /// The event was created with these stripes.
    Created(Vec<StripeView>),
    /// The event exists with the same total, stripes and seat keys: nothing was changed.
    Existing(Vec<StripeView>),
    /// The event exists with another total, other stripes or other seat keys: nothing was changed.
    Conflict(Vec<StripeView>),
}

impl Store {
    /// Reads all stripes, strongly consistent: the result contains everything acknowledged before the call.
    ///
    /// `stripes_hint` is the expected number of stripes; if it is right, one request is enough. Without a hint,
    /// stripe 0 is read first.
    pub async fn read_event(&self, event: &EventId, stripes_hint: Option<u16>) -> StripesRead {
        self.read_all_stripes(event, stripes_hint, false).await
    }

    /// As [`Store::read_event`], with the confirmation counters: see [`StripeView::confirmed_holds`].
    pub async fn read_event_with_counters(
        &self,
        event: &EventId,
        stripes_hint: Option<u16>,
    ) -> StripesRead {
        self.read_all_stripes(event, stripes_hint, true).await
    }

    async fn read_all_stripes(
        &self,
        event: &EventId,
        stripes_hint: Option<u16>,
        with_counters: bool,
    ) -> StripesRead {
        match self.read_known(event, stripes_hint.unwrap_or(1), with_counters).await {
            Ok(Some(stripes)) => StripesRead::Found(stripes),
            Ok(None) => StripesRead::NotFound,
            Err(ReadFailure::Throttled) => StripesRead::Throttled,
            Err(ReadFailure::Unavailable) => StripesRead::Unavailable,
        }
    }

    async fn read_known(
        &self,
        event: &EventId,
        believed: u16,
        with_counters: bool,
    ) -> Result<Option<Vec<StripeView>>, ReadFailure> {
        let believed = believed.clamp(1, limits::STRIPES_MAX);
        let read = self.read_stripes(event, believed, with_counters).await?;
        let Some(first) = read[0] else {
            return Ok(None);
        };
        // Items written before stripes existed have no stripe count and are the only item.
        let count = first.stripes.unwrap_or(1);
        let read = match count == believed {
            true => read,
            false => self.read_stripes(event, count, with_counters).await?,
        };
        let mut stripes = Vec::with_capacity(read.len());
        for (index, stripe) in read.into_iter().enumerate() {
            let Some(stripe) = stripe else {
                self.report_damage(event, &format!("stripe {index} of {count} is missing"));
                return Err(ReadFailure::Unavailable);
            };
            stripes.push(stripe);
        }
        Ok(Some(stripes))
    }

    /// The first `count` stripe items, `None` where there is no item; with the sum of the confirmation counters of that
    /// many stripes, if it is asked for.
    async fn read_stripes(
        &self,
        event: &EventId,
        count: u16,
        with_counters: bool,
    ) -> Result<Vec<Option<StripeView>>, ReadFailure> {
        let mut items = match (count, with_counters) {
            (1, false) => vec![self.get_first(event).await?],
            _ => {
                let stripes = (0..count).map(|n| stripe_key(event, n));
                let counters = if with_counters { confirmation_counters(count) } else { 0 };
                let counters = (0..counters).map(|n| counter_key(event, n));
                self.get_stripes(event, stripes.chain(counters).collect()).await?
            }
        };
        let counters = items.split_off(usize::from(count));
        let view = |(index, item): (usize, Option<Item>)| {
            let Some(item) = item else { return Ok(None) };
            codec::stripe_view(&item).map(Some).map_err(|why| {
                self.report_damage(event, &format!("stripe {index}: {why}"));
                ReadFailure::Unavailable
            })
        };
        let views = items.into_iter().enumerate().map(view);
        let mut views: Vec<_> = views.collect::<Result<_, _>>()?;
        if let (true, Some(Some(first))) = (with_counters, views.first_mut()) {
            first.confirmed_holds = Some(self.sum_of_counters(event, &counters)?);
        }
        Ok(views)
    }

    fn sum_of_counters(
        &self,
        event: &EventId,
        counters: &[Option<Item>],
    ) -> Result<i64, ReadFailure> {
        let mut sum = 0_i64;
        for (index, item) in counters.iter().enumerate() {
            let units = item.as_ref().map_or(Ok(0), codec::confirmed_units).map_err(|why| {
                self.report_damage(event, &format!("confirmation counter {index}: {why}"));
                ReadFailure::Unavailable
            })?;
            sum = sum.saturating_add(units);
        }
        Ok(sum)
    }

    async fn get_first(&self, event: &EventId) -> Result<Option<Item>, ReadFailure> {
        let table = &self.tables().inventory;
        let attempt = || {
            let read = GetItemInput::builder()
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .table_name(table)
                .key(codec::EVENT_ID, AttributeValue::S(stripe_key(event, 0)))
                .consistent_read(true);
            self.send_read(read)
        };
        match self.read("GetItem", table, attempt).await {
            Ok(output) => Ok(output.item),
            Err(failure) => Err(self.read_failure("GetItem", event, &failure)),
        }
    }

    /// Creates an event in one transaction, its units split over its stripes as evenly as possible. Idempotent; an
    /// existing name or venue is kept.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when a number is out of its bounds (see [`NewEvent`]), [`StoreError::Corrupt`] when
    /// items of a damaged event exist, or any other [`StoreError`] of the call.
    pub async fn create_event(
        &self,
        new_event: &NewEvent,
    ) -> Result<CreateEventOutcome, StoreError> {
        check_stock(new_event)?;
        let event = &new_event.event;
        let capacities = split(new_event.total, new_event.stripes);
        let failure = match self.put_stripes(new_event, &capacities).await? {
            Ok(()) => return Ok(CreateEventOutcome::Created(fresh(new_event, &capacities))),
            Err(failure) if failure.kind == FailureKind::Cancelled => failure,
            Err(failure) => return Err(failure.into()),
        };
        // Something exists: perhaps this event, from an earlier attempt whose answer was lost.
        match self.read_event(event, Some(new_event.stripes)).await {
            StripesRead::Found(found) => {
                let same = found.len() == usize::from(new_event.stripes)
                    && StockTotals::of(&found).capacity == new_event.total
                    && found[0].seat_keys == new_event.seat_keys;
                Ok(match same {
                    true => CreateEventOutcome::Existing(found),
                    false => CreateEventOutcome::Conflict(found),
                })
            }
            StripesRead::NotFound => Err(StoreError::Corrupt(format!(
                "stripes of {event} without its first one ({})",
                failure.text()
            ))),
            StripesRead::Throttled => Err(StoreError::Throttled(failure.text())),
            StripesRead::Unavailable => {
                Err(StoreError::Unavailable(format!("{event} exists and cannot be read")))
            }
        }
    }

    async fn put_stripes(
        &self,
        event: &NewEvent,
        capacities: &[u64],
    ) -> Result<Result<(), CallFailure<TransactWriteItemsError>>, StoreError> {
        let table = &self.tables().inventory;
        let at = clock::now().unix;
        let put = |(index, capacity): (u16, &u64)| {
            codec::event_stripe(table, event, index, *capacity, at)
        };
        let puts: Result<Vec<_>, _> = (0..event.stripes).zip(capacities).map(put).collect();
        let puts = puts.map_err(|error| StoreError::Invalid(error.to_string()))?;
        Ok(self.transact_with_retries(table, puts).await)
    }
}

pub(super) fn check_total(total: u64) -> Result<(), StoreError> {
    let max = limits::EVENT_TOTAL_MAX.unsigned_abs();
    within("total", total, 1, max)
}

fn check_stock(new_event: &NewEvent) -> Result<(), StoreError> {
    if new_event.seat_keys == 0 {
        check_total(new_event.total)?;
        return within("stripes", new_event.stripes, 1, limits::STRIPES_MAX);
    }
    within("seat_keys", new_event.seat_keys, 1, limits::SEAT_KEYS_MAX)?;
    match (new_event.total, new_event.stripes) {
        (0, 1) => Ok(()),
        (total, stripes) => Err(StoreError::Invalid(format!(
            "total is {total} and stripes is {stripes}; want 0 and 1 where stock is seats"
        ))),
    }
}

fn within<N: PartialOrd + std::fmt::Display>(
    name: &str,
    value: N,
    min: N,
    max: N,
) -> Result<(), StoreError> {
    match min <= value && value <= max {
        true => Ok(()),
        false => Err(StoreError::Invalid(format!("{name} is {value}; want {min} to {max}"))),
    }
}

/// Splits `total` into `stripes` parts that differ by at most one; the first parts are larger.
pub(super) fn split(total: u64, stripes: u16) -> Vec<u64> {
    let stripes = u64::from(stripes);
    let (share, rest) = (total / stripes, total % stripes);
    (0..stripes).map(|n| share + u64::from(n < rest)).collect()
}

fn fresh(event: &NewEvent, capacities: &[u64]) -> Vec<StripeView> {
    let view = |(index, &capacity): (usize, &u64)| StripeView {
        capacity,
        remaining: capacity,
        stripes: (index == 0).then_some(event.stripes),
        seat_keys: if index == 0 { event.seat_keys } else { 0 },
        ..StripeView::default()
    };
    capacities.iter().enumerate().map(view).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn total_is_split_evenly_and_completely() {
        assert_eq!(split(10, 1), [10]);
        assert_eq!(split(10, 4), [3, 3, 2, 2]);
        assert_eq!(split(2, 4), [1, 1, 0, 0]);
    }

    #[test]
    fn invalid_stripe_and_key_numbers_are_named() {
        let shape = |total, stripes, seat_keys| {
            let event = EventId::try_from("evt".to_owned());
            let event = NewEvent::of_quantity(event.unwrap(), total, stripes);
            check_stock(&NewEvent { seat_keys, ..event })
        };
        for (total, stripes, seat_keys, word) in [
            (0, 1, 0, "total"),
            (1_000_000_001, 1, 0, "total"),
            (5, 0, 0, "stripes"),
            (5, 65, 0, "stripes"),
            (0, 1, 65, "seat_keys"),
            (5, 1, 1, "total"),
            (0, 2, 1, "stripes"),
        ] {
            let error = shape(total, stripes, seat_keys).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(shape(1, 64, 0).is_ok());
        assert!(shape(0, 1, 64).is_ok());
    }
}
