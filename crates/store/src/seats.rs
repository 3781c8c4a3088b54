//! Seats of an event: importing, blocking and unblocking.
//!
//! Not here: reading the seats, and selling a seat, which is part of a reservation's transaction.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt};

use super::batch::{BatchProgress, ReadFailure};
use super::codec;
use super::conditional_update::UpdateOutcome;
use super::{Store, StoreError};
use crate::limits;
use inventory_core::ids::{EventId, SeatId};
use inventory_core::seats::{SeatFacts, SeatState};
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
