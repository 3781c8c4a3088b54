//! Administrative changes of events: listing, changing the total, closing. Every change is idempotent and can be
//! resumed after a crash.
//!
//! Not here: creating an event (`events`), seats (`seats`), refunds, which are transactions of a
//! reservation.

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use futures::{StreamExt, TryStreamExt};

use super::codec::{self, ConditionalUpdate};
use super::conditional_update::UpdateOutcome;
use super::events::split;
use super::page::{Page, PageToken, start_key};
use super::{EventAbout, Store, StoreError};
use crate::limits;
use inventory_core::ids::EventId;
use inventory_core::transaction::{StockTotals, StripeView, StripesRead};
use inventory_runtime::clock;

/// Outcome of [`Store::set_total`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetTotalOutcome {
    /// The event has the total, by this call or already before; these are its stripes.
    Set(Vec<StripeView>),
    /// Fewer units are available than would have to be removed.
    Refused {
        /// Current total of the event.
        total: u64,
        /// Units of it that are held or sold.
        taken: u64,
    },
    /// The event is seated.
    Seated,
    NotFound,
}

impl Store {
    /// Returns an event without its stock, strongly consistent; `None` if it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for an item that cannot be understood, or any other [`StoreError`] of the call.
    pub async fn describe_event(&self, event: &EventId) -> Result<Option<EventAbout>, StoreError> {
        let table = &self.tables().inventory;
        let read = self.read("GetItem", table, || {
            self.client()
                .get_item()
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .table_name(table)
                .key(codec::EVENT_ID, AttributeValue::S(event.to_string()))
                .consistent_read(true)
                .send()
        });
        let item = read.await?.item;
        let about = item.map(|item| codec::event_about(&item)).transpose();
        about.map_err(|why| StoreError::Corrupt(format!("event {event}: {why}")))
    }

    /// Returns one page of all events, unordered. Examines at most [`limits::STORE_SCAN_PAGE_MAX`] stripes. Events
    /// that cannot be understood are logged and skipped.
    ///
    /// # Errors
    /// Any [`StoreError`] of the call.
    pub async fn list_events(
        &self,
        from: Option<&PageToken>,
    ) -> Result<Page<EventAbout>, StoreError> {
        let table = &self.tables().inventory;
        let page = self.call_with_retries("Scan", table, || {
            self.client()
                .scan()
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .table_name(table)
                .consistent_read(true)
                .limit(limits::STORE_SCAN_PAGE_MAX)
                .set_exclusive_start_key(start_key(from))
                .send()
        });
        let page = page.await?;
        let key = |item: &codec::Item| Some(item.get(codec::EVENT_ID)?.as_s().ok()?.clone());
        let mut events = Vec::new();
        for item in page.items() {
            let key = key(item).unwrap_or_default();
            // Other stripes: no event id contains this character.
            if key.contains('#') {
                continue;
            }
            match codec::event_about(item) {
                Ok(about) => events.push(about),
                Err(why) => self.log(&format!("event {key} cannot be understood: {why}")),
            }
        }
        Ok(Page::new(events, page.scanned_count, page.last_evaluated_key))
    }

    /// Changes the total of an event, including held and sold units: adds evenly to its stripes, or removes
    /// available units from the stripes with most of them. Each stripe is changed in its own write and stays
    /// balanced; the sale continues meanwhile.
    ///
    /// Refused before any change when too few units are available. If buyers take them during the change, units
    /// that were removed stay removed, and the outcome has the current total.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when `total` is not 1 to [`limits::EVENT_TOTAL_MAX`]; [`StoreError::Unavailable`] when
    /// concurrent changes or sales win repeatedly. A repeated call completes the change.
    pub async fn set_total(
        &self,
        event: &EventId,
        total: u64,
    ) -> Result<SetTotalOutcome, StoreError> {
        super::events::check_total(total)?;
        let mut pause = limits::RETRY_BACKOFF_MIN;
        for _ in 0..limits::SET_TOTAL_ATTEMPTS_MAX {
            let Some(stripes) = self.read_all(event).await? else {
                return Ok(SetTotalOutcome::NotFound);
            };
            if stripes.first().is_some_and(|first| first.seat_keys > 0) {
                return Ok(SetTotalOutcome::Seated);
            }
            let StockTotals { capacity, remaining } = StockTotals::of(&stripes);
            if capacity == total {
                return Ok(SetTotalOutcome::Set(stripes));
            }
            let taken = capacity.saturating_sub(remaining);
            if total < taken {
                return Ok(SetTotalOutcome::Refused { total: capacity, taken });
            }
            // `None`: the read missed units that are being moved between two stripes.
            let capacities = spread(&stripes, capacity, total).unwrap_or_default();
            let at = clock::now().unix;
            let changes = stripes.iter().zip(capacities).enumerate();
            let changes = changes.filter(|(_, (stripe, to))| stripe.capacity != *to).map(
                |(index, (stripe, to))| {
                    codec::capacity_change(event, index as u16, (stripe.capacity, to), at)
                },
            );
            // The next read of all stripes shows which updates were applied.
            if self.change_stripes(changes.collect()).await? == 0 {
                inventory_runtime::sleep(pause).await;
                pause = (pause * 4).min(limits::RETRY_BACKOFF_MAX);
            }
        }
        Err(StoreError::Unavailable(format!(
            "the total of {event} could not be changed: a concurrent change, or sales of the units to \
             be removed, keep interfering; repeat the command"
        )))
    }

    /// Closes an event, seated or not: units can be returned, but no longer reserved. Seat sales write no stripe; for
    /// a seated event the next read of its stripes shows that it is closed.
    ///
    /// Returns false if the event does not exist.
    ///
    /// # Errors
    /// Any [`StoreError`], [`StoreError::Corrupt`] when a stripe is missing. A repeated call completes the change.
    pub async fn close_event(&self, event: &EventId) -> Result<bool, StoreError> {
        let Some(about) = self.describe_event(event).await? else {
            return Ok(false);
        };
        if about.closed {
            return Ok(true);
        }
        let at = clock::now().unix;
        let closing = |index| codec::closing(event, index, at);
        // Stripe 0 is last: when it is closed, all stripes are.
        let others: Vec<_> = (1..about.stripes).map(closing).collect();
        let count = others.len();
        if self.change_stripes(others).await? != count
            || self.change_stripes(vec![closing(0)]).await? != 1
        {
            let why = format!("event {event} lacks one of its {} stripes", about.stripes);
            return Err(StoreError::Corrupt(why));
        }
        Ok(true)
    }

    /// Applies these updates and returns how many were applied.
    async fn change_stripes(&self, changes: Vec<ConditionalUpdate>) -> Result<usize, StoreError> {
        let table = &self.tables().inventory;
        let one = |change: ConditionalUpdate| async move {
            let changed = self.update_if(table, &change).await?;
            Ok(usize::from(matches!(changed, UpdateOutcome::Applied)))
        };
        futures::stream::iter(changes)
            .map(one)
            .buffer_unordered(limits::STORE_ADMIN_CALLS_IN_PARALLEL)
            .try_fold(0, async |sum, one| Ok(sum + one))
            .await
    }

    async fn read_all(&self, event: &EventId) -> Result<Option<Vec<StripeView>>, StoreError> {
        match self.read_event(event, None).await {
            StripesRead::Found(stripes) => Ok(Some(stripes)),
            StripesRead::NotFound => Ok(None),
            StripesRead::Throttled => Err(StoreError::Throttled(format!("reading {event}"))),
            StripesRead::Unavailable => {
                let why = format!("event {event} cannot be read");
                Err(StoreError::Unavailable(why))
            }
        }
    }
}

/// The new capacity of each stripe, by which the total changes from `capacity` to `total`. `None`: fewer units are
/// available than would have to be removed.
fn spread(stripes: &[StripeView], capacity: u64, total: u64) -> Option<Vec<u64>> {
    let count = u16::try_from(stripes.len()).ok()?;
    if total >= capacity {
        let more = split(total - capacity, count);
        let capacities = stripes.iter().zip(more).map(|(s, more)| s.capacity + more);
        return Some(capacities.collect());
    }
    let less = capacity - total;
    let left: u64 = stripes.iter().map(|stripe| stripe.remaining).sum();
    if less > left {
        return None;
    }
    // Each stripe's share, rounded down, and the rest from stripes with available units.
    let share = |stripe: &StripeView| {
        let part = u128::from(less) * u128::from(stripe.remaining) / u128::from(left);
        u64::try_from(part).unwrap_or(stripe.remaining)
    };
    let mut parts: Vec<u64> = stripes.iter().map(share).collect();
    let mut rest = less - parts.iter().sum::<u64>();
    for (part, stripe) in parts.iter_mut().zip(stripes) {
        let more = rest.min(stripe.remaining - *part).min(1);
        *part += more;
        rest -= more;
    }
    let capacities = stripes.iter().zip(parts).map(|(s, part)| s.capacity - part);
    (rest == 0).then(|| capacities.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripes(of: &[(u64, u64)]) -> Vec<StripeView> {
        let view =
            |&(capacity, remaining)| StripeView { capacity, remaining, ..StripeView::default() };
        of.iter().map(view).collect()
    }

    #[test]
    fn added_units_are_split_evenly() {
        let now = stripes(&[(4, 0), (3, 3), (3, 1)]);
        assert_eq!(spread(&now, 10, 15), Some(vec![6, 5, 4]));
        assert_eq!(spread(&now, 10, 10), Some(vec![4, 3, 3]));
    }

    #[test]
    fn removed_units_come_from_stripes_that_have_them() {
        let now = stripes(&[(10, 0), (10, 9), (10, 3)]);
        assert_eq!(spread(&now, 30, 26), Some(vec![10, 7, 9]));
        assert_eq!(spread(&now, 30, 18), Some(vec![10, 1, 7]));
        assert_eq!(spread(&now, 30, 17), None);
        let nothing = stripes(&[(5, 0), (5, 0)]);
        assert_eq!(spread(&nothing, 10, 9), None);
    }

    #[test]
    fn every_possible_total_is_reached_exactly() {
        let now = stripes(&[(7, 5), (7, 0), (6, 6), (6, 1), (6, 2)]);
        let (capacity, left) = (32, 14);
        for total in capacity - left..=capacity {
            let capacities = spread(&now, capacity, total).unwrap_or_default();
            assert_eq!(capacities.iter().sum::<u64>(), total);
            for (stripe, capacity) in now.iter().zip(capacities) {
                assert!(capacity <= stripe.capacity);
                assert!(stripe.capacity - capacity <= stripe.remaining, "{total}");
            }
        }
    }
}
