//! State table of a reservation: what its record means for a call. Pure; the same table as the server's.

use crate::error::BaselineError;
use crate::record::{Millis, ReservationItem, StoredState, order_id};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaleOperation {
    Hold,
    Commit,
    Release,
}

/// A validated call.
#[derive(Clone, Debug)]
pub struct SaleRequest {
    pub operation: SaleOperation,
    pub reservation: String,
    pub event: String,
    pub qty: u32,
    /// May be empty.
    pub payment: String,
    /// Requested expiry of a hold.
    pub hold_until: Millis,
}

impl SaleRequest {
    /// The record that a first call writes.
    pub fn record(
        &self,
        state: StoredState,
        order: Option<String>,
        now: Millis,
    ) -> ReservationItem {
        ReservationItem {
            event: self.event.clone(),
            state,
            qty: self.qty,
            allocation: Vec::new(),
            seats: Vec::new(),
            order,
            expires_at: (state == StoredState::Held).then_some(self.hold_until),
            updated_at: now,
        }
    }

    /// Outcome of a write that led to state `to`.
    pub fn outcome(&self, to: StoredState) -> SaleOutcome {
        match to {
            StoredState::Held => SaleOutcome::Held(self.hold_until),
            StoredState::Confirmed => SaleOutcome::Confirmed(order_id(&self.reservation)),
            StoredState::Released | StoredState::Expired | StoredState::Refunded => {
                SaleOutcome::Released
            }
        }
    }

    /// Whether `record` was written for the same event and quantity. A tombstone without a quantity, left
    /// by a release "as recorded", matches every quantity of its event.
    fn matches(&self, record: &ReservationItem) -> bool {
        let same_qty = record.qty == self.qty && record.seats.is_empty();
        record.event == self.event && (same_qty || record.qty == 0)
    }
}

/// Result of a successful call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaleOutcome {
    /// With the expiry of the hold.
    Held(Millis),
    /// With the order id.
    Confirmed(String),
    Released,
}

/// State transition to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Expected state; `None`: no record exists.
    pub from: Option<StoredState>,
    pub to: StoredState,
}

impl StateChange {
    /// Whether units move from the stock to the reservation.
    pub fn takes_stock(self) -> bool {
        matches!(self.to, StoredState::Held | StoredState::Confirmed)
            && self.from != Some(StoredState::Held)
    }

    /// Whether units move back to the stock.
    pub fn returns_stock(self) -> bool {
        self.from == Some(StoredState::Held) && self.to == StoredState::Released
    }

    /// Maps an error of the stock: an expired hold that finds no stock is reported as expired.
    pub fn stock_error(self, error: BaselineError) -> BaselineError {
        match error {
            BaselineError::InsufficientInventory { .. } if self.from.is_some() => {
                BaselineError::HoldExpired
            }
            other => other,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    Finish(Result<SaleOutcome, BaselineError>),
    Write(StateChange),
}

/// Applies the state table to `record`, the stored state; `None`: no record exists.
pub fn next_step(request: &SaleRequest, record: Option<&ReservationItem>, now: Millis) -> NextStep {
    use SaleOperation::{Commit, Hold, Release};
    use StoredState::{Confirmed, Expired, Held, Refunded, Released};
    let Some(record) = record else {
        let to = match request.operation {
            Hold => Held,
            Commit => Confirmed,
            Release => Released,
        };
        return NextStep::Write(StateChange { from: None, to });
    };
    if !request.matches(record) {
        return reject(BaselineError::IdempotencyConflict);
    }
    let write = |to| {
        let from = Some(record.state);
        NextStep::Write(StateChange { from, to })
    };
    match (request.operation, record.state) {
        (Hold, Held) => match record.expires_at {
            Some(at) if at > now => NextStep::Finish(Ok(SaleOutcome::Held(at))),
            _ => reject(BaselineError::HoldExpired),
        },
        (Hold, Expired) => reject(BaselineError::HoldExpired),
        (Commit, Held | Expired) => write(Confirmed),
        (Commit, Confirmed) => match &record.order {
            Some(order) => NextStep::Finish(Ok(SaleOutcome::Confirmed(order.clone()))),
            None => reject(BaselineError::Internal),
        },
        (Hold | Commit, Released | Refunded) => reject(BaselineError::ReservationReleased),
        (Hold | Release, Confirmed) => reject(BaselineError::ReservationCommitted),
        (Release, Held) => write(Released),
        (Release, Released | Expired | Refunded) => NextStep::Finish(Ok(SaleOutcome::Released)),
    }
}

fn reject(error: BaselineError) -> NextStep {
    NextStep::Finish(Err(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_000);

    fn request(operation: SaleOperation, qty: u32) -> SaleRequest {
        SaleRequest {
            operation,
            reservation: "r".to_owned(),
            event: "evt".to_owned(),
            qty,
            payment: String::new(),
            hold_until: Millis(2_000),
        }
    }

    fn record(state: StoredState) -> ReservationItem {
        ReservationItem {
            expires_at: Some(Millis(2_000)),
            ..request(SaleOperation::Hold, 2).record(state, Some("ord".to_owned()), Millis(500))
        }
    }

    #[test]
    fn every_operation_meets_every_state() {
        use SaleOperation::{Commit, Hold, Release};
        use StoredState::{Confirmed, Expired, Held, Refunded, Released};
        let write = |from, to| {
            let from = Some(from);
            NextStep::Write(StateChange { from, to })
        };
        let finish = |outcome| NextStep::Finish(Ok(outcome));
        let order = || finish(SaleOutcome::Confirmed("ord".to_owned()));
        for (operation, state, expected) in [
            (Hold, Held, finish(SaleOutcome::Held(Millis(2_000)))),
            (Hold, Confirmed, reject(BaselineError::ReservationCommitted)),
            (Hold, Released, reject(BaselineError::ReservationReleased)),
            (Hold, Expired, reject(BaselineError::HoldExpired)),
            (Hold, Refunded, reject(BaselineError::ReservationReleased)),
            (Commit, Held, write(Held, Confirmed)),
            (Commit, Confirmed, order()),
            (Commit, Released, reject(BaselineError::ReservationReleased)),
            (Commit, Expired, write(Expired, Confirmed)),
            (Commit, Refunded, reject(BaselineError::ReservationReleased)),
            (Release, Held, write(Held, Released)),
            (Release, Confirmed, reject(BaselineError::ReservationCommitted)),
            (Release, Released, finish(SaleOutcome::Released)),
            (Release, Expired, finish(SaleOutcome::Released)),
            (Release, Refunded, finish(SaleOutcome::Released)),
        ] {
            let step = next_step(&request(operation, 2), Some(&record(state)), NOW);
            assert_eq!(step, expected, "{operation:?} of {state:?}");
        }
    }

    #[test]
    fn expired_holds_are_not_renewed_but_can_be_paid() {
        let (held, late) = (record(StoredState::Held), Millis(2_000));
        let step = next_step(&request(SaleOperation::Hold, 2), Some(&held), late);
        assert_eq!(step, reject(BaselineError::HoldExpired));
        let step = next_step(&request(SaleOperation::Commit, 2), Some(&held), late);
        assert!(matches!(step, NextStep::Write(change) if !change.takes_stock()));
    }

    #[test]
    fn units_move_once() {
        let change = |from, to| StateChange { from, to };
        assert!(change(None, StoredState::Confirmed).takes_stock());
        assert!(change(Some(StoredState::Expired), StoredState::Confirmed).takes_stock());
        assert!(!change(Some(StoredState::Held), StoredState::Confirmed).takes_stock());
        assert!(!change(None, StoredState::Released).takes_stock());
        assert!(change(Some(StoredState::Held), StoredState::Released).returns_stock());
        assert!(!change(None, StoredState::Released).returns_stock());
    }

    #[test]
    fn another_payload_conflicts_unless_the_record_is_a_tombstone_without_quantity() {
        let other = request(SaleOperation::Commit, 3);
        let step = next_step(&other, Some(&record(StoredState::Released)), NOW);
        assert_eq!(step, reject(BaselineError::IdempotencyConflict));
        let seats = ReservationItem {
            qty: 3,
            seats: vec!["A-1".to_owned()],
            ..record(StoredState::Confirmed)
        };
        let step = next_step(&other, Some(&seats), NOW);
        assert_eq!(step, reject(BaselineError::IdempotencyConflict));
        let tombstone = ReservationItem { qty: 0, ..record(StoredState::Released) };
        let step = next_step(&other, Some(&tombstone), NOW);
        assert_eq!(step, reject(BaselineError::ReservationReleased));
    }
}
