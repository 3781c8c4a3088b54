//! What a call does, turn by turn: ask the rules, write, learn from what came back.
//!
//! Every write is conditional on the record and, where it takes units, on the stock, in one
//! transaction: whatever a call believes, it cannot sell twice or too much. It ends after a bounded
//! number of turns, of retries and of time.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use crate::limits::{EVENTS_KNOWN_MAX, PAUSE_FIRST, PAUSE_MAX, TURNS_MAX};
use crate::record::{Draw, Millis, NewRecord, Record, Step, order_of};
use crate::refusal::Refusal;
use crate::rules::{Answer, Call, Decision, Verb, Write, decide};
use crate::store::{Failure, RecordChange, Store, Transaction, Written};
use crate::stripe::{Move, Stripe, draw};

/// How stock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Written at once, conditional on enough remaining.
    Transaction,
    /// The record is read, then the stock, then both are written conditional on the stock's version:
    /// the way of the original Go server, with the record in the same transaction.
    Optimistic,
}

/// Sells.
pub struct Sale {
    store: Store,
    mode: Mode,
    /// How often a write that met another is made again.
    retries: u32,
    /// How many stripes an event has: it never changes.
    stripes: RwLock<HashMap<String, u16>>,
}

/// Where the stock of one call is to come from.
enum Plan {
    /// Not thought about yet, or the last thought was wrong.
    Open,
    /// This much was seen to be too little on one of several stripes: look at all.
    Short,
    /// Said by the store to be impossible; the record was not looked at since.
    Refused(Refusal),
}

impl Sale {
    pub fn new(store: Store, mode: Mode, retries: u32) -> Self {
        Self {
            store,
            mode,
            retries,
            stripes: RwLock::default(),
        }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Runs `call` to its outcome. Dropping the future leaves a write on its way to end by itself; a
    /// repeat of the call learns what became of it. A pause that would outlast `deadline` is not made.
    ///
    /// # Errors
    /// As [`Refusal`] says.
    pub async fn run(&self, call: &Call, deadline: Instant) -> Result<Answer, Refusal> {
        let looks_first = self.mode == Mode::Optimistic || call.verb == Verb::Release;
        let mut record = match looks_first {
            true => self.store.record(&call.reservation).await?,
            false => None,
        };
        let mut plan = Plan::Open;
        let mut retries = 0;
        for _ in 0..TURNS_MAX.saturating_add(self.retries) {
            let now = Millis::now();
            let write = match decide(call, record.as_ref(), now) {
                Decision::Answer(answer) => return answer,
                Decision::Write(write) => write,
            };
            // "Sold out" is no answer to a copy of a call that was sold to in the meantime.
            if let Plan::Refused(why) = plan {
                let seen = self.store.record(&call.reservation).await?;
                if seen == record {
                    return Err(why.of(write));
                }
                (record, plan) = (seen, Plan::Open);
                continue;
            }
            let moves = match self.moves(call, write, record.as_ref(), &plan).await? {
                Ok(moves) => moves,
                Err(why) => {
                    plan = Plan::Refused(why);
                    continue;
                }
            };
            let written = self.write(call, write, moves, now).await?;
            plan = match written {
                Written::Done => return Ok(answer_written(call, write)),
                Written::Record(found) => {
                    record = found;
                    Plan::Open
                }
                Written::Short { remaining } => match self.known_stripes(&call.event) {
                    // All failed conditions are told: the record was as expected in that very instant.
                    Some(1) => {
                        let none = Refusal::InsufficientInventory { remaining };
                        return Err(none.of(write));
                    }
                    _ => Plan::Short,
                },
                Written::Closed => return Err(Refusal::EventClosed),
                Written::NoStripe => {
                    self.forget(&call.event);
                    Plan::Open
                }
                Written::Stale | Written::Busy => {
                    if retries >= self.retries || !pause(retries, deadline).await {
                        return Err(Refusal::StoreBusy);
                    }
                    retries += 1;
                    plan
                }
            };
        }
        Err(Refusal::StoreBusy)
    }

    /// Whether `qty` units could be had now.
    ///
    /// # Errors
    /// As [`Refusal`] says.
    pub async fn is_available(&self, event: &str, qty: u32) -> Result<bool, Refusal> {
        let stripes = match self.known_stripes(event) {
            Some(count) if count > 1 => self.store.stripes(event, count).await?,
            _ => match self.first_stripe(event).await? {
                Err(why) => return Err(why),
                Ok(first) if first.stripes == 1 => vec![first],
                Ok(first) => self.store.stripes(event, first.stripes).await?,
            },
        };
        let remaining: u64 = stripes.iter().map(|stripe| stripe.remaining).sum();
        let closed = stripes.iter().any(|stripe| stripe.closed);
        Ok(!closed && remaining >= u64::from(qty))
    }

    /// What a write does to the stock. The inner error is what the stock says.
    async fn moves(
        &self,
        call: &Call,
        write: Write,
        record: Option<&Record>,
        plan: &Plan,
    ) -> Result<Result<Vec<(Draw, Move)>, Refusal>, Refusal> {
        if write.gives() {
            // What goes back is what the record says.
            let draws = record.map(|record| record.draws.clone());
            let back = draws.unwrap_or_default().into_iter();
            return Ok(Ok(back.map(|draw| (draw, Move::Give)).collect()));
        }
        if !write.takes() {
            return Ok(Ok(Vec::new()));
        }
        let (count, first) = match self.known_stripes(&call.event) {
            Some(count) => (count, None),
            None => match self.first_stripe(&call.event).await? {
                Ok(first) => (first.stripes, Some(first)),
                Err(why) => return Ok(Err(why)),
            },
        };
        if matches!(plan, Plan::Short) {
            let stripes = self.store.stripes(&call.event, count).await?;
            return Ok(self.among(call, &stripes));
        }
        let stripe = match count {
            1 => 0,
            _ => rand::rng().random_range(0..count),
        };
        let take = Draw {
            stripe,
            units: call.qty,
        };
        if self.mode == Mode::Transaction {
            return Ok(Ok(vec![(take, Move::Take)]));
        }
        let seen = match first {
            Some(first) if stripe == 0 => Some(first),
            _ => self.store.stripe(&call.event, stripe).await?,
        };
        Ok(match seen {
            None => Err(Refusal::EventNotFound),
            Some(seen) if seen.closed => Err(Refusal::EventClosed),
            Some(seen) if seen.remaining >= u64::from(call.qty) => {
                Ok(vec![(take, Move::TakeAt(seen.version))])
            }
            Some(seen) if count == 1 => Err(Refusal::InsufficientInventory {
                remaining: seen.remaining,
            }),
            Some(_) => {
                let stripes = self.store.stripes(&call.event, count).await?;
                self.among(call, &stripes)
            }
        })
    }

    /// Chooses among all stripes as they were just read.
    fn among(&self, call: &Call, stripes: &[Stripe]) -> Result<Vec<(Draw, Move)>, Refusal> {
        if stripes.iter().any(|stripe| stripe.closed) {
            return Err(Refusal::EventClosed);
        }
        let draws = draw(stripes, call.qty, &mut rand::rng());
        let draws = draws.ok_or_else(|| Refusal::InsufficientInventory {
            remaining: stripes.iter().map(|stripe| stripe.remaining).sum(),
        })?;
        let take = |draw: Draw| match (self.mode, stripes.get(usize::from(draw.stripe))) {
            (Mode::Optimistic, Some(seen)) => (draw, Move::TakeAt(seen.version)),
            _ => (draw, Move::Take),
        };
        Ok(draws.into_iter().map(take).collect())
    }

    async fn write(
        &self,
        call: &Call,
        write: Write,
        moves: Vec<(Draw, Move)>,
        at: Millis,
    ) -> Result<Written, Failure> {
        let draws: Vec<Draw> = match write.takes() {
            true => moves.iter().map(|(draw, _)| *draw).collect(),
            false => Vec::new(),
        };
        let record = match write.from {
            None => RecordChange::New(NewRecord {
                reservation: &call.reservation,
                event: &call.event,
                qty: call.qty,
                hash: &call.hash,
                payment: &call.payment,
                state: write.to,
                draws: &draws,
                hold_until: call.hold_until,
                at,
            }),
            Some(from) => RecordChange::Step(Step::of(
                &call.reservation,
                from,
                write.to,
                &call.payment,
                &draws,
                at,
            )),
        };
        let transaction = Transaction {
            event: &call.event,
            reservation: &call.reservation,
            stripes: moves,
            record,
            at,
        };
        self.store.write(&transaction).await
    }

    /// Reads stripe 0, which says what the event is like, and remembers how many stripes there are. The
    /// inner error: no event to sell from.
    async fn first_stripe(&self, event: &str) -> Result<Result<Stripe, Refusal>, Refusal> {
        let Some(first) = self.store.stripe(event, 0).await? else {
            return Ok(Err(Refusal::EventNotFound));
        };
        if first.seat_keys > 0 {
            return Ok(Err(Refusal::Seats));
        }
        let mut known = self.stripes.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= EVENTS_KNOWN_MAX {
            known.clear();
        }
        known.insert(event.to_owned(), first.stripes);
        Ok(Ok(first))
    }

    fn known_stripes(&self, event: &str) -> Option<u16> {
        let known = self.stripes.read().unwrap_or_else(PoisonError::into_inner);
        known.get(event).copied()
    }

    fn forget(&self, event: &str) {
        let mut known = self.stripes.write().unwrap_or_else(PoisonError::into_inner);
        known.remove(event);
    }
}

impl Refusal {
    /// As told to whoever wanted `write`: of an expired hold, what it had cannot be taken again.
    fn of(self, write: Write) -> Self {
        match self {
            Self::InsufficientInventory { .. } if write.from.is_some() => Self::HoldExpired,
            other => other,
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Busy => Self::StoreBusy,
            Failure::Unavailable => Self::StoreUnavailable,
            Failure::Broken => Self::Internal,
        }
    }
}

fn answer_written(call: &Call, write: Write) -> Answer {
    use crate::record::State;
    match write.to {
        State::Held => Answer::Held(call.hold_until),
        State::Confirmed => Answer::Confirmed(order_of(&call.reservation)),
        State::Released | State::Expired | State::Refunded => Answer::Released,
    }
}

/// Waits before retry `retry` (from 0); false, at once, when that would outlast `deadline`.
async fn pause(retry: u32, deadline: Instant) -> bool {
    let longest = PAUSE_FIRST
        .saturating_mul(1 << retry.min(16))
        .min(PAUSE_MAX);
    let pause: Duration = longest.mul_f64(rand::rng().random_range(0.0..=1.0));
    if Instant::now() + pause >= deadline {
        return false;
    }
    tokio::time::sleep(pause).await;
    true
}
