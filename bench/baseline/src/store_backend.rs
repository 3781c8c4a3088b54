//! Reservations in DynamoDB: a call alternates between the state table and a conditional write until it
//! has an outcome.
//!
//! Every write is conditional on the record and, where it takes units, on the stock, in one transaction:
//! a call with stale knowledge can neither sell twice nor oversell. Steps, retries and time of a call are
//! bounded.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use crate::error::BaselineError;
use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX, CACHED_EVENTS_MAX, STEPS_MAX};
use crate::record::{Millis, NewRecord, RecordUpdate, ReservationItem, StripeUnits};
use crate::rules::{NextStep, SaleOperation, SaleOutcome, SaleRequest, StateChange, next_step};
use crate::service::SaleBackend;
use crate::stripe::{StockWrite, StoredStripe, allocate};
use crate::table_client::{RecordAction, SaleTransaction, TableClient, TableError, WriteOutcome};

/// How stock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// Written at once, conditional on the remaining units.
    Transaction,
    /// Record and stock are read first, then written conditional on the stock's version: the method of
    /// the original Go server, with the record in the same transaction.
    Optimistic,
}

/// The baseline service's access to the store.
pub struct StoreBackend {
    tables: TableClient,
    mode: WriteMode,
    /// Retries of a conflicting or throttled write.
    retries: u32,
    /// Stripe count by event, which never changes.
    stripe_counts: RwLock<HashMap<String, u16>>,
}

/// What the previous steps of a call found out about the stock.
enum StockView {
    Unknown,
    /// One of several stripes had too few units: read all of them.
    StripeInsufficient,
    /// The stock cannot serve the call; the record was not read since.
    Rejected(BaselineError),
}

/// Stripes to write, or why the stock cannot serve the call.
type StockPlan = Result<Vec<(StripeUnits, StockWrite)>, BaselineError>;

impl StoreBackend {
    pub fn new(tables: TableClient, mode: WriteMode, retries: u32) -> Self {
        Self { tables, mode, retries, stripe_counts: RwLock::default() }
    }

    /// Plans the stripe writes of `change`.
    async fn plan_stock(
        &self,
        request: &SaleRequest,
        change: StateChange,
        record: Option<&ReservationItem>,
        view: &StockView,
    ) -> Result<StockPlan, BaselineError> {
        if change.returns_stock() {
            // The record's allocation is returned.
            let allocation = record.map(|record| record.allocation.clone());
            let returned = allocation.unwrap_or_default().into_iter();
            return Ok(Ok(returned.map(|part| (part, StockWrite::Return)).collect()));
        }
        if !change.takes_stock() {
            return Ok(Ok(Vec::new()));
        }
        let (count, first) = match self.cached_stripe_count(&request.event) {
            Some(count) => (count, None),
            None => match self.read_first_stripe(&request.event).await? {
                Ok(first) => (first.stripes, Some(first)),
                Err(error) => return Ok(Err(error)),
            },
        };
        if matches!(view, StockView::StripeInsufficient) {
            let stripes = self.tables.stripes(&request.event, count).await?;
            return Ok(self.plan_among(request, &stripes));
        }
        let stripe = match count {
            1 => 0,
            _ => rand::rng().random_range(0..count),
        };
        let taken = StripeUnits { stripe, units: request.qty };
        if self.mode == WriteMode::Transaction {
            return Ok(Ok(vec![(taken, StockWrite::Take)]));
        }
        let seen = match first {
            Some(first) if stripe == 0 => Some(first),
            _ => self.tables.stripe(&request.event, stripe).await?,
        };
        Ok(match seen {
            None => Err(BaselineError::EventNotFound),
            Some(seen) if seen.closed => Err(BaselineError::EventClosed),
            Some(seen) if seen.remaining >= u64::from(request.qty) => {
                Ok(vec![(taken, StockWrite::TakeAtVersion(seen.version))])
            }
            Some(seen) if count == 1 => {
                Err(BaselineError::InsufficientInventory { remaining: seen.remaining })
            }
            Some(_) => {
                let stripes = self.tables.stripes(&request.event, count).await?;
                self.plan_among(request, &stripes)
            }
        })
    }

    /// Plans with a fresh read of all stripes.
    fn plan_among(&self, request: &SaleRequest, stripes: &[StoredStripe]) -> StockPlan {
        if stripes.iter().any(|stripe| stripe.closed) {
            return Err(BaselineError::EventClosed);
        }
        let allocation = allocate(stripes, request.qty, &mut rand::rng());
        let allocation = allocation.ok_or_else(|| BaselineError::InsufficientInventory {
            remaining: stripes.iter().map(|stripe| stripe.remaining).sum(),
        })?;
        let take = |taken: StripeUnits| match (self.mode, stripes.get(usize::from(taken.stripe))) {
            (WriteMode::Optimistic, Some(seen)) => (taken, StockWrite::TakeAtVersion(seen.version)),
            _ => (taken, StockWrite::Take),
        };
        Ok(allocation.into_iter().map(take).collect())
    }

    async fn write(
        &self,
        request: &SaleRequest,
        change: StateChange,
        stripes: Vec<(StripeUnits, StockWrite)>,
        now: Millis,
    ) -> Result<WriteOutcome, TableError> {
        let allocation: Vec<StripeUnits> = match change.takes_stock() {
            true => stripes.iter().map(|(taken, _)| *taken).collect(),
            false => Vec::new(),
        };
        let record = match change.from {
            None => RecordAction::Put(NewRecord {
                reservation: &request.reservation,
                event: &request.event,
                qty: request.qty,
                payment: &request.payment,
                state: change.to,
                allocation: &allocation,
                hold_until: request.hold_until,
                now,
            }),
            Some(from) => RecordAction::Update(RecordUpdate::new(
                &request.reservation,
                from,
                change.to,
                &request.payment,
                &allocation,
                now,
            )),
        };
        let transaction = SaleTransaction {
            event: &request.event,
            reservation: &request.reservation,
            stripes,
            record,
            now,
        };
        self.tables.write(&transaction).await
    }

    /// Reads stripe 0, which holds the event's layout, and caches the stripe count. The inner error: the
    /// event cannot be sold from.
    async fn read_first_stripe(
        &self,
        event: &str,
    ) -> Result<Result<StoredStripe, BaselineError>, BaselineError> {
        let Some(first) = self.tables.stripe(event, 0).await? else {
            return Ok(Err(BaselineError::EventNotFound));
        };
        if first.seat_keys > 0 {
            return Ok(Err(BaselineError::SeatsUnsupported));
        }
        let mut counts = self.stripe_counts.write().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= CACHED_EVENTS_MAX {
            counts.clear();
        }
        counts.insert(event.to_owned(), first.stripes);
        Ok(Ok(first))
    }

    fn cached_stripe_count(&self, event: &str) -> Option<u16> {
        let counts = self.stripe_counts.read().unwrap_or_else(PoisonError::into_inner);
        counts.get(event).copied()
    }

    fn evict_stripe_count(&self, event: &str) {
        let mut counts = self.stripe_counts.write().unwrap_or_else(PoisonError::into_inner);
        counts.remove(event);
    }
}

impl SaleBackend for StoreBackend {
    /// Dropping the future leaves a write in flight to its own end; a retry of the call reads its outcome.
    /// A backoff that would outlast `deadline` ends the call instead.
    async fn execute(
        &self,
        request: &SaleRequest,
        deadline: Instant,
    ) -> Result<SaleOutcome, BaselineError> {
        let reads_first =
            self.mode == WriteMode::Optimistic || request.operation == SaleOperation::Release;
        let mut record = match reads_first {
            true => self.tables.record(&request.reservation).await?,
            false => None,
        };
        let mut view = StockView::Unknown;
        let mut retries = 0;
        for _ in 0..STEPS_MAX.saturating_add(self.retries) {
            let now = Millis::now();
            let change = match next_step(request, record.as_ref(), now) {
                NextStep::Finish(outcome) => return outcome,
                NextStep::Write(change) => change,
            };
            // A concurrent copy of this call may have sold meanwhile: "sold out" needs a fresh record.
            if let StockView::Rejected(error) = view {
                let fresh = self.tables.record(&request.reservation).await?;
                if fresh == record {
                    return Err(change.stock_error(error));
                }
                (record, view) = (fresh, StockView::Unknown);
                continue;
            }
            let stripes = match self.plan_stock(request, change, record.as_ref(), &view).await? {
                Ok(stripes) => stripes,
                Err(error) => {
                    view = StockView::Rejected(error);
                    continue;
                }
            };
            view = match self.write(request, change, stripes, now).await? {
                WriteOutcome::Written => return Ok(request.outcome(change.to)),
                WriteOutcome::RecordChanged(found) => {
                    record = found;
                    StockView::Unknown
                }
                WriteOutcome::InsufficientStock { remaining } => {
                    match self.cached_stripe_count(&request.event) {
                        // All failed conditions are reported: the record was as expected at that instant.
                        Some(1) => {
                            let error = BaselineError::InsufficientInventory { remaining };
                            return Err(change.stock_error(error));
                        }
                        _ => StockView::StripeInsufficient,
                    }
                }
                WriteOutcome::EventClosed => return Err(BaselineError::EventClosed),
                WriteOutcome::StripeMissing => {
                    self.evict_stripe_count(&request.event);
                    StockView::Unknown
                }
                WriteOutcome::VersionChanged | WriteOutcome::Busy => {
                    if retries >= self.retries || !back_off(retries, deadline).await {
                        return Err(BaselineError::StoreBusy);
                    }
                    retries += 1;
                    view
                }
            };
        }
        Err(BaselineError::StoreBusy)
    }

    async fn is_available(&self, event: &str, qty: u32) -> Result<bool, BaselineError> {
        let stripes = match self.cached_stripe_count(event) {
            Some(count) if count > 1 => self.tables.stripes(event, count).await?,
            _ => match self.read_first_stripe(event).await?? {
                first if first.stripes == 1 => vec![first],
                first => self.tables.stripes(event, first.stripes).await?,
            },
        };
        let remaining: u64 = stripes.iter().map(|stripe| stripe.remaining).sum();
        let closed = stripes.iter().any(|stripe| stripe.closed);
        Ok(!closed && remaining >= u64::from(qty))
    }

    async fn record(&self, reservation: &str) -> Result<Option<ReservationItem>, BaselineError> {
        Ok(self.tables.record(reservation).await?)
    }
}

impl From<TableError> for BaselineError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Busy => Self::StoreBusy,
            TableError::Unavailable => Self::StoreUnavailable,
            TableError::Invalid => Self::Internal,
        }
    }
}

/// Waits before retry `retry` (from 0); returns false at once if that would outlast `deadline`.
async fn back_off(retry: u32, deadline: Instant) -> bool {
    let longest = BACKOFF_FIRST.saturating_mul(1 << retry.min(16)).min(BACKOFF_MAX);
    let delay: Duration = longest.mul_f64(rand::rng().random_range(0.0..=1.0));
    if Instant::now() + delay >= deadline {
        return false;
    }
    tokio::time::sleep(delay).await;
    true
}
