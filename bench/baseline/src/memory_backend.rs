//! Reservations in memory, for the stub server: wire costs are measured without a store, and the load
//! generator's tests run against it.
//!
//! One short lock, no I/O, no work that a plain implementation would not do. Expired holds are not
//! returned to the stock.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::time::Instant;

use crate::error::BaselineError;
use crate::record::{Millis, ReservationItem};
use crate::rules::{NextStep, SaleOutcome, SaleRequest, StateChange, next_step};
use crate::service::SaleBackend;

/// Clones share the stock.
#[derive(Clone, Default)]
pub struct MemoryBackend {
    tables: Arc<RwLock<MemoryTables>>,
}

#[derive(Default)]
struct MemoryTables {
    remaining: HashMap<String, u64>,
    records: HashMap<String, ReservationItem>,
}

impl MemoryBackend {
    /// A backend with these events and their units.
    pub fn new<S: Into<String>>(events: impl IntoIterator<Item = (S, u64)>) -> Self {
        let remaining = events.into_iter().map(|(id, n)| (id.into(), n)).collect();
        let tables = MemoryTables { remaining, records: HashMap::new() };
        Self { tables: Arc::new(RwLock::new(tables)) }
    }

    /// Units available of an event.
    pub fn remaining(&self, event: &str) -> Option<u64> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        tables.remaining.get(event).copied()
    }

    /// The outcome of a retry, under the shared lock.
    fn recorded(
        &self,
        request: &SaleRequest,
        now: Millis,
    ) -> Option<Result<SaleOutcome, BaselineError>> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let record = tables.records.get(&request.reservation)?;
        match next_step(request, Some(record), now) {
            NextStep::Finish(outcome) => Some(outcome),
            NextStep::Write(_) => None,
        }
    }

    fn write(&self, request: &SaleRequest, now: Millis) -> Result<SaleOutcome, BaselineError> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let record = tables.records.get(&request.reservation);
        let change = match next_step(request, record, now) {
            NextStep::Finish(outcome) => return outcome,
            NextStep::Write(change) => change,
        };
        tables.move_stock(request, change)?;
        let outcome = request.outcome(change.to);
        let order = match &outcome {
            SaleOutcome::Confirmed(order) => Some(order.clone()),
            _ => None,
        };
        let record = request.record(change.to, order, now);
        tables.records.insert(request.reservation.clone(), record);
        Ok(outcome)
    }
}

impl MemoryTables {
    fn move_stock(
        &mut self,
        request: &SaleRequest,
        change: StateChange,
    ) -> Result<(), BaselineError> {
        let units = u64::from(request.qty);
        if change.takes_stock() {
            let remaining = self.remaining.get_mut(&request.event);
            let remaining = remaining.ok_or(BaselineError::EventNotFound)?;
            *remaining = remaining.checked_sub(units).ok_or_else(|| {
                change.stock_error(BaselineError::InsufficientInventory { remaining: *remaining })
            })?;
        } else if change.returns_stock()
            && let Some(remaining) = self.remaining.get_mut(&request.event)
        {
            *remaining += units;
        }
        Ok(())
    }
}

impl SaleBackend for MemoryBackend {
    async fn execute(
        &self,
        request: &SaleRequest,
        _: Instant,
    ) -> Result<SaleOutcome, BaselineError> {
        let now = Millis::now();
        match self.recorded(request, now) {
            Some(outcome) => outcome,
            None => self.write(request, now),
        }
    }

    async fn is_available(&self, event: &str, qty: u32) -> Result<bool, BaselineError> {
        let remaining = self.remaining(event).ok_or(BaselineError::EventNotFound)?;
        Ok(remaining >= u64::from(qty))
    }

    async fn record(&self, reservation: &str) -> Result<Option<ReservationItem>, BaselineError> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        Ok(tables.records.get(reservation).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::SaleOperation;

    fn request(operation: SaleOperation, reservation: &str, qty: u32) -> SaleRequest {
        SaleRequest {
            operation,
            reservation: reservation.to_owned(),
            event: "evt".to_owned(),
            qty,
            payment: String::new(),
            hold_until: Millis(u64::MAX),
        }
    }

    #[test]
    fn stock_moves_once_per_reservation() {
        use SaleOperation::{Commit, Hold, Release};
        let backend = MemoryBackend::new([("evt", 5)]);
        let now = Millis::now();
        for (operation, reservation, qty, remaining) in [
            (Hold, "a", 2, 3),
            (Hold, "a", 2, 3),
            (Commit, "a", 2, 3),
            (Commit, "a", 2, 3),
            (Hold, "b", 3, 0),
            (Release, "b", 3, 3),
            (Release, "b", 3, 3),
            (Release, "c", 1, 3),
        ] {
            let request = request(operation, reservation, qty);
            backend.write(&request, now).unwrap();
            let step = format!("{operation:?} {reservation}");
            assert_eq!(backend.remaining("evt"), Some(remaining), "{step}");
        }
        let sold_out = backend.write(&request(Commit, "d", 4), now);
        assert_eq!(sold_out, Err(BaselineError::InsufficientInventory { remaining: 3 }));
        assert_eq!(backend.remaining("evt"), Some(3));
    }
}
