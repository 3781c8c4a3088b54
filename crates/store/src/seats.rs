//! Seats of an event: reading all of them, importing, blocking and unblocking.
//!
//! Not here: selling a seat, which is part of a reservation's transaction.

use std::collections::{HashMap, HashSet};

use aws_sdk_dynamodb::operation::query::QueryInput;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;

use futures::{StreamExt, TryStreamExt};

use super::batch::{BatchProgress, ReadFailure};
use super::codec::{self, Item};
use super::conditional_update::UpdateOutcome;
use super::{Store, StoreError};
use crate::limits;
use inventory_core::ids::{EventId, SeatId, stripe_key};
use inventory_core::seats::{SeatFacts, SeatState};
use inventory_core::time::UnixMillis;
use inventory_core::transaction::{FreeSeatsRead, SeatsRead};
use inventory_runtime::clock;

/// Outcome of blocking or unblocking one seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatOutcome {
    Changed,
    /// The seat was already in the requested state.
    Unchanged,
    /// Not changed: a reservation holds the seat.
    Held,
    /// Not changed: the seat is sold.
    Sold,
    /// The event has no such seat.
    NotFound,
}

/// How seats differ from those that are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeatComparison {
    /// Seats that are not stored with these facts.
    pub to_write: Vec<(SeatId, SeatFacts)>,
    /// Seats that are not stored.
    pub added: usize,
    /// Seats that are stored with other facts.
    pub changed: usize,
    /// Of the changed seats, those that a reservation holds.
    pub changed_held: usize,
    /// Of the changed seats, those that are sold.
    pub changed_sold: usize,
    pub unchanged: usize,
}

impl SeatComparison {
    /// Seats that are all new: the store has none of them.
    pub fn of_new_seats(seats: Vec<(SeatId, SeatFacts)>) -> Self {
        Self { added: seats.len(), to_write: seats, ..Self::default() }
    }
}

/// A change between a blocked seat and an available one.
#[derive(Clone, Copy)]
enum SeatBlocking {
    Block,
    Unblock,
}

impl Store {
    /// Reads all seats of an event that are spread over `seat_keys` partition keys. Each key is read strongly
    /// consistently, but not all at one instant: a seat that is sold meanwhile may be returned as available.
    ///
    /// A seat whose state cannot be understood is returned as blocked, one without a valid id is skipped; both are
    /// logged. Returns Unavailable for an event of more than [`limits::SEATS_PER_EVENT_MAX`] seats.
    pub async fn read_seats(&self, event: &EventId, seat_keys: u16) -> SeatsRead {
        let mut seats = Vec::new();
        for index in 0..seat_keys.max(1) {
            let page = codec::SeatPage::new(stripe_key(event, index));
            let mut take = |item: &Item| {
                let (seat, fault) = codec::seat(item);
                if let Some(why) = fault {
                    let id = seat.as_ref().map_or("without an id", |s| s.id.as_str());
                    self.log(&format!("event {event} is damaged: seat {id}: {why}"));
                }
                seats.extend(seat);
                seats.len() <= limits::SEATS_PER_EVENT_MAX
            };
            match self.read_key(event, &page, &mut take).await {
                Ok(()) => {}
                Err(ReadFailure::Throttled) => return SeatsRead::Throttled,
                Err(ReadFailure::Unavailable) => return SeatsRead::Unavailable,
            }
        }
        SeatsRead::Found(seats)
    }

    /// As [`Store::read_seats`], but only seats that are available at `at`, several keys in parallel. It consumes the
    /// same read units, but transfers almost no data for a sold-out event. Unreadable seats are skipped.
    pub async fn read_free_seats(
        &self,
        event: &EventId,
        seat_keys: u16,
        at: UnixMillis,
    ) -> FreeSeatsRead {
        let key = |index| async move {
            let page = codec::SeatPage::free(stripe_key(event, index), at);
            let mut seats = Vec::new();
            let mut take = |item: &Item| {
                seats.extend(codec::free_seat(item).ok());
                seats.len() <= limits::SEATS_PER_EVENT_MAX
            };
            self.read_key(event, &page, &mut take).await?;
            Ok(seats)
        };
        let keys = futures::stream::iter(0..seat_keys.max(1));
        let read: Result<Vec<_>, _> = keys
            .map(key)
            .buffer_unordered(limits::VERIFICATION_KEYS_IN_PARALLEL)
            .try_collect()
            .await;
        match read {
            Ok(seats) => FreeSeatsRead::Found(seats.concat()),
            Err(ReadFailure::Throttled) => FreeSeatsRead::Throttled,
            Err(ReadFailure::Unavailable) => FreeSeatsRead::Unavailable,
        }
    }

    /// Reads the seats of one partition key page by page, yielding between pages. `take` receives each seat and
    /// returns false when there are too many.
    async fn read_key(
        &self,
        event: &EventId,
        shape: &codec::SeatPage,
        take: &mut dyn FnMut(&Item) -> bool,
    ) -> Result<(), ReadFailure> {
        let mut from = None;
        loop {
            let (page, next) = self.read_page(event, shape, from).await?;
            if !page.iter().all(&mut *take) {
                let max = limits::SEATS_PER_EVENT_MAX;
                self.log(&format!("event {event} has more than {max} seats"));
                return Err(ReadFailure::Unavailable);
            }
            from = match next {
                Some(next) => Some(next),
                None => return Ok(()),
            };
            inventory_runtime::yield_now().await;
        }
    }

    async fn read_page(
        &self,
        event: &EventId,
        shape: &codec::SeatPage,
        from: Option<Item>,
    ) -> Result<(Vec<Item>, Option<Item>), ReadFailure> {
        const OPERATION: &str = "Query";
        let table = &self.tables().seats;
        let attempt = || {
            let read = QueryInput::builder()
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .table_name(table)
                .consistent_read(true)
                .limit(limits::STORE_SEATS_PAGE_MAX)
                .key_condition_expression(codec::SeatPage::KEY)
                .set_filter_expression(shape.filter.clone())
                .projection_expression(&shape.projection)
                .set_expression_attribute_names(Some(shape.names.clone()))
                .set_expression_attribute_values(Some(shape.values.clone()))
                .set_exclusive_start_key(from.clone());
            self.send_read(read)
        };
        let output = self.read(OPERATION, table, attempt).await;
        let output = output.map_err(|failure| self.read_failure(OPERATION, event, &failure))?;
        Ok((output.items.unwrap_or_default(), output.last_evaluated_key))
    }

    /// Compares these seats, at most [`limits::TRANSACTION_ACTIONS_MAX`], with those that are stored. A seat that cannot be
    /// understood counts as changed.
    ///
    /// # Errors
    /// [`StoreError::Throttled`] or [`StoreError::Unavailable`] if the seats cannot be read.
    pub async fn compare_seats(
        &self,
        event: &EventId,
        seat_keys: u16,
        seats: Vec<(SeatId, SeatFacts)>,
    ) -> Result<SeatComparison, StoreError> {
        let now = clock::now().unix;
        let mut stored = HashMap::new();
        let keys = seats.iter().map(|(id, _)| codec::seat_item_key(event, id, seat_keys)).collect();
        let table = &self.tables().seats;
        let read = self.get_distinct(table, keys, event, |progress| {
            let BatchProgress::Found(item) = progress else {
                return;
            };
            if let (Some(seat), fault) = codec::seat(&item) {
                stored.insert(seat.id, (fault.is_none().then_some(seat.facts), seat.state));
            }
        });
        read.await.map_err(|failure| match failure {
            ReadFailure::Throttled => StoreError::Throttled(format!("reading seats of {event}")),
            ReadFailure::Unavailable => {
                StoreError::Unavailable(format!("seats of {event} cannot be read"))
            }
        })?;
        let mut found = SeatComparison::default();
        for (id, facts) in seats {
            match stored.get(&id) {
                None => found.added += 1,
                Some((Some(known), _)) if *known == facts => {
                    found.unchanged += 1;
                    continue;
                }
                Some((_, state)) => {
                    found.changed += 1;
                    match state {
                        SeatState::Hold { until, .. } if *until > now => found.changed_held += 1,
                        SeatState::Sold { .. } => found.changed_sold += 1,
                        SeatState::Hold { .. } | SeatState::Available | SeatState::Blocked => {}
                    }
                }
            }
            found.to_write.push((id, facts));
        }
        Ok(found)
    }

    /// Writes all of these seats or none. A seat that exists gets these facts and keeps its state, so that an
    /// import can be repeated and resumed during a sale.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for more than [`limits::TRANSACTION_ACTIONS_MAX`] seats or a duplicate, or any
    /// other [`StoreError`] of the call.
    pub async fn put_seats(
        &self,
        event: &EventId,
        seat_keys: u16,
        seats: &[(SeatId, SeatFacts)],
    ) -> Result<(), StoreError> {
        check_seats(seats)?;
        if seats.is_empty() {
            return Ok(());
        }
        let table = &self.tables().seats;
        let at = clock::now().unix;
        let put = |(id, facts): &(SeatId, SeatFacts)| {
            codec::seat_put(table, event, seat_keys, id, facts, at)
        };
        let puts: Result<Vec<_>, _> = seats.iter().map(put).collect();
        let puts = puts.map_err(|error| StoreError::Invalid(error.to_string()))?;
        Ok(self.transact_with_retries(table, puts).await?)
    }

    /// Blocks each seat that is available. Outcomes are in the order of the seats.
    ///
    /// # Errors
    /// Any [`StoreError`] of the call, or [`StoreError::Corrupt`] for a seat that cannot be understood; seats
    /// before it may be blocked by then. A repeated call completes the change.
    pub async fn block_seats(
        &self,
        event: &EventId,
        seat_keys: u16,
        seats: &[SeatId],
    ) -> Result<Vec<(SeatId, SeatOutcome)>, StoreError> {
        self.set_seats_blocked(event, seat_keys, seats, SeatBlocking::Block).await
    }

    /// Makes blocked seats available again, the reverse of [`Store::block_seats`].
    ///
    /// # Errors
    /// As [`Store::block_seats`].
    pub async fn unblock_seats(
        &self,
        event: &EventId,
        seat_keys: u16,
        seats: &[SeatId],
    ) -> Result<Vec<(SeatId, SeatOutcome)>, StoreError> {
        self.set_seats_blocked(event, seat_keys, seats, SeatBlocking::Unblock).await
    }

    async fn set_seats_blocked(
        &self,
        event: &EventId,
        seat_keys: u16,
        seats: &[SeatId],
        turn: SeatBlocking,
    ) -> Result<Vec<(SeatId, SeatOutcome)>, StoreError> {
        let one = |seat: SeatId| async move {
            let outcome = self.set_seat_blocked(event, seat_keys, &seat, turn).await?;
            Ok((seat, outcome))
        };
        futures::stream::iter(seats.to_vec())
            .map(one)
            .buffered(limits::STORE_ADMIN_CALLS_IN_PARALLEL)
            .try_collect()
            .await
    }

    async fn set_seat_blocked(
        &self,
        event: &EventId,
        seat_keys: u16,
        seat: &SeatId,
        turn: SeatBlocking,
    ) -> Result<SeatOutcome, StoreError> {
        let (from, to) = match turn {
            SeatBlocking::Block => (codec::AVAILABLE, codec::BLOCKED),
            SeatBlocking::Unblock => (codec::BLOCKED, codec::AVAILABLE),
        };
        let table = &self.tables().seats;
        let at = clock::now().unix;
        let change = codec::seat_turn(event, seat_keys, seat, (from, to), at);
        let item = match self.update_if(table, &change).await? {
            UpdateOutcome::Applied => return Ok(SeatOutcome::Changed),
            UpdateOutcome::ConditionFailed(None) => return Ok(SeatOutcome::NotFound),
            UpdateOutcome::ConditionFailed(Some(item)) => item,
        };
        match codec::seat_state(&item) {
            Ok(SeatState::Available | SeatState::Blocked) => Ok(SeatOutcome::Unchanged),
            Ok(SeatState::Sold { .. }) => Ok(SeatOutcome::Sold),
            Ok(SeatState::Hold { .. }) => Ok(SeatOutcome::Held),
            Err(why) => Err(StoreError::Corrupt(format!("seat {seat} of {event}: {why}"))),
        }
    }
}

fn check_seats(seats: &[(SeatId, SeatFacts)]) -> Result<(), StoreError> {
    let max = limits::TRANSACTION_ACTIONS_MAX;
    if seats.len() > max {
        let count = seats.len();
        let why = format!("{count} seats at once; want at most {max}");
        return Err(StoreError::Invalid(why));
    }
    let mut seen = HashSet::with_capacity(seats.len());
    match seats.iter().find(|(id, _)| !seen.insert(id)) {
        Some((id, _)) => Err(StoreError::Invalid(format!("seat {id} is named twice"))),
        None => Ok(()),
    }
}
