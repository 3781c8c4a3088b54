//! An event's stock: reading all of its stripes, and creating them.

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::AttributeValue;

use super::batch::Unread;
use super::codec::{self, Item};
use super::failure::{Failure, Kind};
use super::{Store, StoreError};
use crate::domain::ids::{EventId, stripe_key};
use crate::domain::transaction::{EventRead, StripeView};
use crate::limits;
use crate::runtime::clock;

/// What [`Store::create_event`] found or did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateEvent {
    /// The event is new, with these stripes.
    Created(Vec<StripeView>),
    /// It was there with the same total and the same number of stripes: nothing was changed.
    Existing(Vec<StripeView>),
    /// It was there with another total or another number of stripes: nothing was changed.
    Conflict(Vec<StripeView>),
}

impl Store {
    /// Strongly consistent: everything acknowledged before the call is in the answer.
    ///
    /// `stripes_hint` is how many stripes the caller believes the event has; when it is right, one
    /// call to the store is enough. Without one, stripe 0 is asked first.
    pub async fn read_event(&self, event: &EventId, stripes_hint: Option<u16>) -> EventRead {
        match self.read_known(event, stripes_hint.unwrap_or(1)).await {
            Ok(Some(stripes)) => EventRead::Found(stripes),
            Ok(None) => EventRead::NotFound,
            Err(Unread::Throttled) => EventRead::Throttled,
            Err(Unread::Unavailable) => EventRead::Unavailable,
        }
    }

    async fn read_known(
        &self,
        event: &EventId,
        believed: u16,
    ) -> Result<Option<Vec<StripeView>>, Unread> {
        let believed = believed.clamp(1, limits::STRIPES_MAX);
        let read = self.read_stripes(event, believed).await?;
        let Some(first) = read[0] else {
            return Ok(None);
        };
        // An item made before there were stripes does not say how many: it is the only one.
        let count = first.stripes.unwrap_or(1);
        let read = match count == believed {
            true => read,
            false => self.read_stripes(event, count).await?,
        };
        let mut stripes = Vec::with_capacity(read.len());
        for (index, stripe) in read.into_iter().enumerate() {
            let Some(stripe) = stripe else {
                self.log(&format!(
                    "event {event} is damaged: stripe {index} of {count} is missing"
                ));
                return Err(Unread::Unavailable);
            };
            stripes.push(stripe);
        }
        Ok(Some(stripes))
    }

    /// The first `count` stripe items, `None` where there is no such item.
    async fn read_stripes(
        &self,
        event: &EventId,
        count: u16,
    ) -> Result<Vec<Option<StripeView>>, Unread> {
        let items = match count {
            1 => vec![self.get_first(event).await?],
            _ => {
                let keys: Vec<String> = (0..count).map(|n| stripe_key(event, n)).collect();
                let table = &self.tables().inventory;
                let read = self.get_batch(table, codec::EVENT_ID, &keys, event);
                read.await?
            }
        };
        let view = |(index, item): (usize, Option<Item>)| {
            let Some(item) = item else { return Ok(None) };
            codec::stripe_view(&item).map(Some).map_err(|why| {
                self.log(&format!("event {event} is damaged: stripe {index}: {why}"));
                Unread::Unavailable
            })
        };
        items.into_iter().enumerate().map(view).collect()
    }

    async fn get_first(&self, event: &EventId) -> Result<Option<Item>, Unread> {
        let table = &self.tables().inventory;
        let attempt = || {
            self.client()
                .get_item()
                .table_name(table)
                .key(codec::EVENT_ID, AttributeValue::S(stripe_key(event, 0)))
                .consistent_read(true)
                .send()
        };
        match self.read("GetItem", table, attempt).await {
            Ok(output) => Ok(output.item),
            Err(failure) => Err(self.unread("GetItem", event, failure.kind, || failure.text())),
        }
    }

    /// Creates an event of `total` units in `stripes` stripes, split as evenly as possible, all in
    /// one transaction. Made again with the same arguments it changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when `total` is not 1 to [`limits::EVENT_TOTAL_MAX`] or `stripes` not
    /// 1 to [`limits::STRIPES_MAX`]; [`StoreError::Corrupt`] when items of a damaged event are in
    /// the way; the others as they say.
    pub async fn create_event(
        &self,
        event: &EventId,
        total: u64,
        stripes: u16,
    ) -> Result<CreateEvent, StoreError> {
        check_shape(total, stripes)?;
        let capacities = split(total, stripes);
        let failure = match self.put_stripes(event, &capacities, stripes).await? {
            Ok(()) => return Ok(CreateEvent::Created(fresh(&capacities, stripes))),
            Err(failure) if failure.kind == Kind::Cancelled => failure,
            Err(failure) => return Err(failure.into()),
        };
        // Something is there: perhaps this very event, by an earlier try whose answer was lost.
        match self.read_event(event, Some(stripes)).await {
            EventRead::Found(found) => {
                let same = found.len() == usize::from(stripes)
                    && found.iter().map(|stripe| stripe.capacity).sum::<u64>() == total;
                Ok(match same {
                    true => CreateEvent::Existing(found),
                    false => CreateEvent::Conflict(found),
                })
            }
            EventRead::NotFound => Err(StoreError::Corrupt(format!(
                "stripes of {event} without its first one ({})",
                failure.text()
            ))),
            EventRead::Throttled => Err(StoreError::Throttled(failure.text())),
            EventRead::Unavailable => Err(StoreError::Unavailable(format!(
                "{event} exists and cannot be read"
            ))),
        }
    }

    async fn put_stripes(
        &self,
        event: &EventId,
        capacities: &[u64],
        stripes: u16,
    ) -> Result<Result<(), Failure<TransactWriteItemsError>>, StoreError> {
        let table = &self.tables().inventory;
        let at = clock::now().unix;
        let put = |(index, capacity): (u16, &u64)| {
            codec::event_stripe(table, event, index, *capacity, stripes, at)
        };
        let puts: Result<Vec<_>, _> = (0..stripes).zip(capacities).map(put).collect();
        let puts = puts.map_err(|error| StoreError::Invalid(error.to_string()))?;
        Ok(self.write_together(table, puts).await)
    }
}

fn check_shape(total: u64, stripes: u16) -> Result<(), StoreError> {
    let total_max = limits::EVENT_TOTAL_MAX.unsigned_abs();
    if total == 0 || total > total_max {
        let why = format!("total is {total}; want 1 to {total_max}");
        return Err(StoreError::Invalid(why));
    }
    if stripes == 0 || stripes > limits::STRIPES_MAX {
        let why = format!("stripes is {stripes}; want 1 to {}", limits::STRIPES_MAX);
        return Err(StoreError::Invalid(why));
    }
    Ok(())
}

/// `total` in `stripes` parts that differ by one at most; the first ones get more.
fn split(total: u64, stripes: u16) -> Vec<u64> {
    let stripes = u64::from(stripes);
    let (share, rest) = (total / stripes, total % stripes);
    (0..stripes).map(|n| share + u64::from(n < rest)).collect()
}

fn fresh(capacities: &[u64], stripes: u16) -> Vec<StripeView> {
    let view = |(index, &capacity): (usize, &u64)| StripeView {
        capacity,
        remaining: capacity,
        version: 0,
        stripes: (index == 0).then_some(stripes),
        seat_keys: 0,
        closed: false,
    };
    capacities.iter().enumerate().map(view).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_split_evenly_and_wholly() {
        assert_eq!(split(10, 1), [10]);
        assert_eq!(split(10, 4), [3, 3, 2, 2]);
        assert_eq!(split(2, 4), [1, 1, 0, 0]);
    }

    #[test]
    fn shapes_out_of_bounds_are_named() {
        for (total, stripes, word) in [
            (0, 1, "total"),
            (1_000_000_001, 1, "total"),
            (5, 0, "stripes"),
            (5, 65, "stripes"),
        ] {
            let error = check_shape(total, stripes).err().map(|e| e.to_string());
            assert!(error.is_some_and(|text| text.contains(word)));
        }
        assert!(check_shape(1, 64).is_ok());
    }
}
