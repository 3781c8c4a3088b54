//! Makes the calls of a plan: which buyer, on which connection, how often again.

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
    ledger::{Call, Ledger, Moment, Outcome, Told, reservation_id},
    plan::Plan,
    report::{Progress, Report},
    script::{Buyer, Kind, buyer},
};
use crate::{
    client::{ClientError, Fate, Fleet, fate, reason},
    limits::{
        ATTEMPTS_MAX, ERROR_EXAMPLES_MAX, ERROR_NAMES_MAX, LATENCY_MAX_US, PAUSE_MAX, PAUSE_MIN,
    },
};

/// What is being played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Sale,
    /// After the sale: the chosen ones commit once more.
    Repeats,
}

pub(super) struct Player {
    plan: Plan,
    /// One per connection of the plan.
    lanes: Vec<Fleet>,
    next_buyer: [AtomicU64; 2],
    books: Mutex<Books>,
}

/// All that answers change. One short lock per answer; on one thread it is never contended.
struct Books {
    ledger: Ledger,
    latency_us: Histogram<u64>,
    calls: u64,
    retries: BTreeMap<&'static str, u64>,
    errors: BTreeMap<String, u64>,
    error_examples: Vec<String>,
    dice: SmallRng,
    buyers_done: u64,
    units_sold: u64,
    sale: Duration,
}

impl Books {
    /// Counts an error by its name; past the bound of names, all others are one.
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

impl Player {
    /// A player of a validated plan. Connects lazily.
    pub(super) fn new(plan: Plan) -> Result<Self, ClientError> {
        let lanes = (0..plan.connections)
            .map(|lane| Fleet::new(&plan.addresses, lane))
            .collect::<Result<Vec<_>, _>>()?;
        let quantities = (0..plan.buyers).map(|index| buyer(&plan, index).quantity);
        let latency_us = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)
            .unwrap_or_else(|_| unreachable!("one minute in microseconds is within bounds"));
        let books = Books {
            ledger: Ledger::new(&plan.prefix, quantities),
            latency_us,
            calls: 0,
            retries: BTreeMap::new(),
            errors: BTreeMap::new(),
            error_examples: Vec::new(),
            dice: SmallRng::seed_from_u64(plan.seed),
            buyers_done: 0,
            units_sold: 0,
            sale: Duration::ZERO,
        };
        Ok(Self {
            plan,
            lanes,
            next_buyer: Default::default(),
            books: Mutex::new(books),
        })
    }

    /// Starts one task for each call that may be under way; they end when the buyers are through.
    pub(super) fn start(self: &Arc<Self>, phase: Phase) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for number in 0..self.plan.connections * self.plan.calls_per_connection {
            let player = Arc::clone(self);
            let lane = number % self.plan.connections;
            tasks.spawn(async move { player.serve_buyers(phase, lane).await });
        }
        tasks
    }

    async fn serve_buyers(&self, phase: Phase, lane: usize) {
        loop {
            let index = self.next_buyer[phase as usize].fetch_add(1, Ordering::Relaxed);
            if index >= self.plan.buyers {
                return;
            }
            let buyer = buyer(&self.plan, index);
            match phase {
                Phase::Sale => {
                    self.play(index as usize, buyer, lane).await;
                    self.books().buyers_done += 1;
                }
                Phase::Repeats if buyer.repeats_at_end => {
                    self.commit(index as usize, buyer.quantity, self.other(lane))
                        .await;
                }
                Phase::Repeats => {}
            }
        }
    }

    async fn play(&self, index: usize, buyer: Buyer, lane: usize) {
        let quantity = buyer.quantity;
        let other = self.other(lane);
        match buyer.kind {
            Kind::Plain => self.commit(index, quantity, lane).await,
            Kind::DuplicateAtOnce => {
                // Whichever is answered first, its reservation began here.
                let begun = self.books().ledger.now();
                tokio::join!(
                    self.tell(index, Call::Commit, begun, quantity, lane),
                    self.tell(index, Call::Commit, begun, quantity, other)
                );
            }
            Kind::DuplicateLater => {
                self.commit(index, quantity, lane).await;
                self.commit(index, quantity, other).await;
            }
            Kind::ReleasedFirst => {
                self.release(index, quantity, lane).await;
                if self.known(index, |outcome| *outcome == Outcome::Released) {
                    self.commit(index, quantity, other).await;
                }
            }
            Kind::ReleasedAfter => {
                self.commit(index, quantity, lane).await;
                if self.is_confirmed(index) {
                    self.release(index, quantity, other).await;
                }
            }
            Kind::OtherPayload => {
                self.commit(index, quantity, lane).await;
                if self.is_confirmed(index) {
                    // A legal quantity, whatever the largest one is.
                    let changed = if quantity > 1 { quantity - 1 } else { 2 };
                    let begun = self.books().ledger.now();
                    self.tell(index, Call::CommitOther, begun, changed, other)
                        .await;
                }
            }
        }
    }

    fn other(&self, lane: usize) -> usize {
        let lanes = self.lanes.len();
        if lanes == 1 {
            return lane;
        }
        (lane + self.books().dice.random_range(1..lanes)) % lanes
    }

    fn known(&self, index: usize, is: impl Fn(&Outcome) -> bool) -> bool {
        self.books().ledger.outcome(index).is_some_and(is)
    }

    fn is_confirmed(&self, index: usize) -> bool {
        self.known(index, |outcome| {
            matches!(outcome, Outcome::Confirmed { .. })
        })
    }

    async fn commit(&self, index: usize, quantity: i32, lane: usize) {
        let begun = self.books().ledger.now();
        self.tell(index, Call::Commit, begun, quantity, lane).await;
    }

    async fn release(&self, index: usize, quantity: i32, lane: usize) {
        let begun = self.books().ledger.now();
        self.tell(index, Call::Release, begun, quantity, lane).await;
    }

    /// Makes one call, repeats it until it is answered or patience ends, and enters what it was told.
    async fn tell(&self, index: usize, call: Call, begun: Moment, quantity: i32, lane: usize) {
        let asked = Instant::now();
        let told = self.ask(index, call, quantity, lane).await;
        let took = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut books = self.books();
        books.calls += 1;
        books
            .latency_us
            .saturating_record(took.clamp(1, LATENCY_MAX_US));
        match &told {
            Told::Confirmed { .. } if call == Call::Commit => {
                let new = !matches!(books.ledger.outcome(index), Some(Outcome::Confirmed { .. }));
                books.units_sold += u64::from(new) * u64::from(quantity.unsigned_abs());
            }
            Told::Unexpected { status, message } => books.error(status.clone(), message),
            Told::NoAnswer { last, message } => {
                books.error(format!("no answer, last {last}"), message);
            }
            _ => {}
        }
        books.ledger.enter(index, call, begun, told);
    }

    async fn ask(&self, index: usize, call: Call, quantity: i32, mut lane: usize) -> Told {
        let id = reservation_id(&self.plan.prefix, index);
        let give_up = Instant::now() + self.plan.patience;
        let mut pause = PAUSE_MIN;
        for attempt in 1.. {
            let status = match self.send(lane, call, &id, quantity).await {
                Ok(told) => return told,
                Err(status) => status,
            };
            let wanted = match fate(&status) {
                Fate::Answered => return refusal(&status),
                Fate::Busy { retry_after } => retry_after.unwrap_or(pause),
                Fate::NeverProcessed | Fate::Lost => pause,
            };
            let jitter = self.books().dice.random_range(0.5..=1.0);
            let wait = wanted.min(PAUSE_MAX).mul_f64(jitter);
            if attempt >= ATTEMPTS_MAX || Instant::now() + wait >= give_up {
                return Told::NoAnswer {
                    last: code_name(status.code()).to_owned(),
                    message: status.message().to_owned(),
                };
            }
            *self.books().retries.entry(retry_name(&status)).or_default() += 1;
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
            lane = self.other(lane);
        }
        unreachable!("the last attempt returns")
    }

    async fn send(&self, lane: usize, call: Call, id: &str, quantity: i32) -> Result<Told, Status> {
        let timeout = self.plan.call_timeout;
        let event_id = self.plan.event_id.clone();
        if call == Call::Release {
            let request = ReleaseReq {
                reservation_id: id.to_owned(),
                event_id,
                qty: quantity,
                seat_ids: Vec::new(),
            };
            let answer = self.lanes[lane].release(&request, timeout).await?;
            return Ok(match answer.status.as_str() {
                "RELEASED" => Told::Released,
                other => odd("release", other),
            });
        }
        let request = CommitReq {
            reservation_id: id.to_owned(),
            event_id,
            qty: quantity,
            seat_ids: Vec::new(),
            payment_intent_id: format!("pi-{id}"),
        };
        let answer = self.lanes[lane].commit(&request, timeout).await?;
        Ok(match answer.status.as_str() {
            "CONFIRMED" if !answer.order_id.is_empty() => Told::Confirmed {
                order_id: answer.order_id,
            },
            other => odd("commit", other),
        })
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn phase_over(&self, phase: Phase, elapsed: Duration) {
        if phase == Phase::Sale {
            self.books().sale = elapsed;
        }
    }

    pub(super) fn progress(&self, elapsed: Duration) -> Progress {
        let books = self.books();
        let counts = books.ledger.counts();
        Progress {
            elapsed,
            tickets: self.plan.tickets,
            units_sold: books.units_sold,
            buyers: self.plan.buyers,
            buyers_done: books.buyers_done,
            sold_out: counts.sold_out,
            duplicates: counts.duplicates_identical,
            violations: counts.violations,
            calls: books.calls,
        }
    }

    pub(super) fn report(&self, elapsed: Duration) -> Report {
        let books = self.books();
        Report {
            tickets: self.plan.tickets,
            elapsed,
            sale: books.sale,
            calls: books.calls,
            moved: self.lanes.iter().map(|lane| lane.tally().moved).sum(),
            retries: books
                .retries
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            errors: books.errors.clone(),
            error_examples: books.error_examples.clone(),
            latency_us: books.latency_us.clone(),
            ledger: books.ledger.clone(),
        }
    }
}

/// A refusal by the contract's table; everything else is unexpected.
fn refusal(status: &Status) -> Told {
    let reason = reason(status);
    match (status.code(), reason.as_str()) {
        (Code::Aborted, "INSUFFICIENT_INVENTORY") => Told::SoldOut,
        (Code::FailedPrecondition, "RESERVATION_RELEASED") => Told::ReservationReleased,
        (Code::FailedPrecondition, "RESERVATION_COMMITTED") => Told::ReservationCommitted,
        (Code::AlreadyExists, "IDEMPOTENCY_CONFLICT") => Told::Conflict,
        (code, reason) => Told::Unexpected {
            status: format!("{} {reason}", code_name(code)),
            message: status.message().to_owned(),
        },
    }
}

fn odd(what: &str, status: &str) -> Told {
    Told::Unexpected {
        status: format!("OK with a wrong {what} status"),
        message: format!("{status:?}"),
    }
}

fn retry_name(status: &Status) -> &'static str {
    match fate(status) {
        Fate::NeverProcessed => "never processed",
        Fate::Lost if std::error::Error::source(status).is_some() => "connection lost",
        _ => code_name(status.code()),
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
