//! The calls of a sale: which buyer, on which connection, with which retries.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use inventory_proto::inventory::v1::{CommitReq, ReleaseReq};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::{
    buyer::{Buyer, BuyerKind, buyer},
    ledger::{CallResult, LogicalTime, ReservationOutcome, SaleCall, SaleLedger, reservation_id},
    plan::SalePlan,
    report::{SaleProgress, SaleReport},
};
use crate::{
    connect::ConnectError,
    failover::FailoverClient,
    limits::{
        ATTEMPTS_MAX, ERROR_EXAMPLES_MAX, ERROR_NAMES_MAX, LATENCY_MAX_US, RETRY_DELAY_MAX,
        RETRY_DELAY_MIN,
    },
    outcome::{CallOutcome, code_name, reason},
};

/// Part of the sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SalePhase {
    Sale,
    /// After the sale: selected buyers commit once more.
    Repeats,
}

pub(super) struct BuyerPool {
    plan: SalePlan,
    /// One per connection of the plan.
    clients: Vec<FailoverClient>,
    next_buyer: [AtomicU64; 2],
    state: Mutex<SaleState>,
}

/// State changed by answers. One short lock per answer; never contended on a single thread.
struct SaleState {
    ledger: SaleLedger,
    latency_us: Histogram<u64>,
    calls: u64,
    retries: BTreeMap<&'static str, u64>,
    errors: BTreeMap<String, u64>,
    error_examples: Vec<String>,
    rng: SmallRng,
    buyers_done: u64,
    units_sold: u64,
    sale: Duration,
}

impl SaleState {
    /// Counts an error by name. Names beyond the bound share the name `other`.
    fn error(&mut self, mut name: String, message: &str) {
        if self.errors.len() >= ERROR_NAMES_MAX && !self.errors.contains_key(&name) {
            name = "other".to_owned();
        }
        if self.error_examples.len() < ERROR_EXAMPLES_MAX {
            self.error_examples.push(format!("{name}: {message}"));
        }
        *self.errors.entry(name).or_default() += 1;
    }
}

impl BuyerPool {
    /// Buyers of a validated plan. Connects lazily.
    pub(super) fn new(plan: SalePlan) -> Result<Self, ConnectError> {
        let clients = (0..plan.connections)
            .map(|connection| FailoverClient::new(&plan.addresses, connection))
            .collect::<Result<Vec<_>, _>>()?;
        let quantities = (0..plan.buyers).map(|index| buyer(&plan, index).quantity);
        let latency_us = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
            .unwrap_or_else(|_| unreachable!("one minute in microseconds is within bounds"));
        let state = SaleState {
            ledger: SaleLedger::new(&plan.prefix, quantities),
            latency_us,
            calls: 0,
            retries: BTreeMap::new(),
            errors: BTreeMap::new(),
            error_examples: Vec::new(),
            rng: SmallRng::seed_from_u64(plan.seed),
            buyers_done: 0,
            units_sold: 0,
            sale: Duration::ZERO,
        };
        Ok(Self { plan, clients, next_buyer: Default::default(), state: Mutex::new(state) })
    }

    /// Starts one task for each call that may be in flight; the tasks end after the last buyer.
    pub(super) fn start(self: &Arc<Self>, phase: SalePhase) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for number in 0..self.plan.connections * self.plan.calls_per_connection {
            let pool = Arc::clone(self);
            let connection = number % self.plan.connections;
            tasks.spawn(async move { pool.run_buyers(phase, connection).await });
        }
        tasks
    }

    async fn run_buyers(&self, phase: SalePhase, connection: usize) {
        loop {
            let index = self.next_buyer[phase as usize].fetch_add(1, Ordering::Relaxed);
            if index >= self.plan.buyers {
                return;
            }
            let buyer = buyer(&self.plan, index);
            match phase {
                SalePhase::Sale => {
                    self.run_buyer(index as usize, buyer, connection).await;
                    self.state().buyers_done += 1;
                }
                SalePhase::Repeats if buyer.repeats_at_end => {
                    self.commit(index as usize, buyer.quantity, self.other(connection)).await;
                }
                SalePhase::Repeats => {}
            }
        }
    }

    async fn run_buyer(&self, index: usize, buyer: Buyer, connection: usize) {
        let quantity = buyer.quantity;
        let other = self.other(connection);
        match buyer.kind {
            BuyerKind::Plain => self.commit(index, quantity, connection).await,
            BuyerKind::DuplicateAtOnce => {
                // The reservation starts here, whichever call is answered first.
                let started = self.state().ledger.now();
                tokio::join!(
                    self.call(index, SaleCall::Commit, started, quantity, connection),
                    self.call(index, SaleCall::Commit, started, quantity, other)
                );
            }
            BuyerKind::DuplicateLater => {
                self.commit(index, quantity, connection).await;
                self.commit(index, quantity, other).await;
            }
            BuyerKind::ReleasedFirst => {
                self.release(index, quantity, connection).await;
                if self.known(index, |outcome| *outcome == ReservationOutcome::Released) {
                    self.commit(index, quantity, other).await;
                }
            }
            BuyerKind::ReleasedAfter => {
                self.commit(index, quantity, connection).await;
                if self.is_confirmed(index) {
                    self.release(index, quantity, other).await;
                }
            }
            BuyerKind::OtherPayload => {
                self.commit(index, quantity, connection).await;
                if self.is_confirmed(index) {
                    // A valid quantity, whatever the largest quantity of the plan is.
                    let changed = if quantity > 1 { quantity - 1 } else { 2 };
                    let started = self.state().ledger.now();
                    self.call(index, SaleCall::CommitOtherPayload, started, changed, other).await;
                }
            }
        }
    }

    fn other(&self, connection: usize) -> usize {
        let clients = self.clients.len();
        if clients == 1 {
            return connection;
        }
        (connection + self.state().rng.random_range(1..clients)) % clients
    }

    fn known(&self, index: usize, is: impl Fn(&ReservationOutcome) -> bool) -> bool {
        self.state().ledger.outcome(index).is_some_and(is)
    }

    fn is_confirmed(&self, index: usize) -> bool {
        self.known(index, |outcome| matches!(outcome, ReservationOutcome::Confirmed { .. }))
    }

    async fn commit(&self, index: usize, quantity: i32, connection: usize) {
        let started = self.state().ledger.now();
        self.call(index, SaleCall::Commit, started, quantity, connection).await;
    }

    async fn release(&self, index: usize, quantity: i32, connection: usize) {
        let started = self.state().ledger.now();
        self.call(index, SaleCall::Release, started, quantity, connection).await;
    }

    /// Makes one call, retries it until it is answered or `retry_for` has passed, and records the answer.
    async fn call(
        &self,
        index: usize,
        call: SaleCall,
        started: LogicalTime,
        quantity: i32,
        connection: usize,
    ) {
        let sent = Instant::now();
        let result = self.call_with_retries(index, call, quantity, connection).await;
        let took = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut state = self.state();
        state.calls += 1;
        state.latency_us.saturating_record(took.clamp(1, LATENCY_MAX_US));
        match &result {
            CallResult::Confirmed { .. } if call == SaleCall::Commit => {
                let new = !matches!(
                    state.ledger.outcome(index),
                    Some(ReservationOutcome::Confirmed { .. })
                );
                state.units_sold += u64::from(new) * u64::from(quantity.unsigned_abs());
            }
            CallResult::Unexpected { status, message } => state.error(status.clone(), message),
            CallResult::NoAnswer { last, message } => {
                state.error(format!("no answer, last {last}"), message);
            }
            _ => {}
        }
        state.ledger.record(index, call, started, result);
    }

    async fn call_with_retries(
        &self,
        index: usize,
        call: SaleCall,
        quantity: i32,
        mut connection: usize,
    ) -> CallResult {
        let id = reservation_id(&self.plan.prefix, index);
        let until = Instant::now() + self.plan.retry_for;
        let mut delay = RETRY_DELAY_MIN;
        for attempt in 1.. {
            let status = match self.send(connection, call, &id, quantity).await {
                Ok(result) => return result,
                Err(status) => status,
            };
            let requested = match CallOutcome::of(&status) {
                CallOutcome::Answered => return refusal(&status),
                CallOutcome::Busy { retry_after } => retry_after.unwrap_or(delay),
                CallOutcome::NeverProcessed | CallOutcome::Lost => delay,
            };
            let jitter = self.state().rng.random_range(0.5..=1.0);
            let wait = requested.min(RETRY_DELAY_MAX).mul_f64(jitter);
            if attempt >= ATTEMPTS_MAX || Instant::now() + wait >= until {
                return CallResult::NoAnswer {
                    last: code_name(status.code()).to_owned(),
                    message: status.message().to_owned(),
                };
            }
            *self.state().retries.entry(retry_name(&status)).or_default() += 1;
            tokio::time::sleep(wait).await;
            delay = (delay * 2).min(RETRY_DELAY_MAX);
            connection = self.other(connection);
        }
        unreachable!("the last attempt returns")
    }

    async fn send(
        &self,
        connection: usize,
        call: SaleCall,
        id: &str,
        quantity: i32,
    ) -> Result<CallResult, Status> {
        let timeout = self.plan.call_timeout;
        let event_id = self.plan.event_id.clone();
        if call == SaleCall::Release {
            let request = ReleaseReq {
                reservation_id: id.to_owned(),
                event_id,
                qty: quantity,
                seat_ids: Vec::new(),
            };
            let answer = self.clients[connection].release(&request, timeout).await?;
            return Ok(match answer.status.as_str() {
                "RELEASED" => CallResult::Released,
                other => unexpected_status("release", other),
            });
        }
        let request = CommitReq {
            reservation_id: id.to_owned(),
            event_id,
            qty: quantity,
            seat_ids: Vec::new(),
            payment_intent_id: format!("pi-{id}"),
        };
        let answer = self.clients[connection].commit(&request, timeout).await?;
        Ok(match answer.status.as_str() {
            "CONFIRMED" if !answer.order_id.is_empty() => {
                CallResult::Confirmed { order_id: answer.order_id }
            }
            other => unexpected_status("commit", other),
        })
    }

    fn state(&self) -> MutexGuard<'_, SaleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end_phase(&self, phase: SalePhase, elapsed: Duration) {
        if phase == SalePhase::Sale {
            self.state().sale = elapsed;
        }
    }

    pub(super) fn progress(&self, elapsed: Duration) -> SaleProgress {
        let state = self.state();
        let counts = state.ledger.counts();
        SaleProgress {
            elapsed,
            tickets: self.plan.tickets,
            units_sold: state.units_sold,
            buyers: self.plan.buyers,
            buyers_done: state.buyers_done,
            sold_out: counts.sold_out,
            duplicates: counts.duplicates_identical,
            violations: counts.violations,
            calls: state.calls,
        }
    }

    pub(super) fn report(&self, elapsed: Duration) -> SaleReport {
        let state = self.state();
        SaleReport {
            tickets: self.plan.tickets,
            elapsed,
            sale: state.sale,
            calls: state.calls,
            moved: self.clients.iter().map(|connection| connection.stats().moved).sum(),
            retries: state
                .retries
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            errors: state.errors.clone(),
            error_examples: state.error_examples.clone(),
            latency_us: state.latency_us.clone(),
            ledger: state.ledger.clone(),
        }
    }
}

/// A refusal listed in the contract; every other status is unexpected.
fn refusal(status: &Status) -> CallResult {
    let reason = reason(status);
    match (status.code(), reason.as_str()) {
        (Code::Aborted, "INSUFFICIENT_INVENTORY") => CallResult::SoldOut,
        (Code::FailedPrecondition, "RESERVATION_RELEASED") => CallResult::ReservationReleased,
        (Code::FailedPrecondition, "RESERVATION_COMMITTED") => CallResult::ReservationCommitted,
        (Code::AlreadyExists, "IDEMPOTENCY_CONFLICT") => CallResult::Conflict,
        (code, reason) => CallResult::Unexpected {
            status: format!("{} {reason}", code_name(code)),
            message: status.message().to_owned(),
        },
    }
}

fn unexpected_status(what: &str, status: &str) -> CallResult {
    CallResult::Unexpected {
        status: format!("OK with an unexpected {what} status"),
        message: format!("{status:?}"),
    }
}

fn retry_name(status: &Status) -> &'static str {
    match CallOutcome::of(status) {
        CallOutcome::NeverProcessed => "never processed",
        CallOutcome::Lost if std::error::Error::source(status).is_some() => "connection lost",
        _ => code_name(status.code()),
    }
}
