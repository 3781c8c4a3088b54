//! One lane on a bench: it gets what the test gives it, and everything it does is checked.

mod judge;

use std::collections::BTreeMap;
use std::rc::Rc;

use inventory_api::domain::answer::Answer;
use inventory_api::domain::counters::Counters;
use inventory_api::domain::ids::{EventId, Fingerprint, OrderId, ReservationId, StripeId};
use inventory_api::domain::lane::{Lane, LaneOutput};
use inventory_api::domain::operation::{Operation, Verb};
use inventory_api::domain::time::{Micros, Now, UnixMillis};
use inventory_api::domain::transaction::{
    Draw, EventRead, NewRecord, Outcome, Reason, ReservationState, StripeUpdate, Token, Transaction,
};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::broken::{Broken, must};
use super::model::{Store, TOKEN_MEMORY};
use judge::puts_off;

/// Turns a lane may take to come to rest: far more than members times tries.
const TURNS_MAX: usize = 100_000;

/// An operation to submit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) verb: Verb,
    pub(crate) qty: u32,
    /// Milliseconds to its deadline.
    pub(crate) patience: u64,
    /// Of its reservation: what the store thinks of it.
    pub(crate) prefix: &'static str,
    /// Of the reservation that settled last, if one has.
    pub(crate) repeated: bool,
}

impl Member {
    /// A commit that waits as long as it takes.
    pub(crate) fn patient(qty: u32) -> Self {
        Self {
            verb: Verb::Commit,
            qty,
            patience: 1_000_000_000,
            prefix: "",
            repeated: false,
        }
    }
}

/// What becomes of a transaction.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    None,
    LostRequest,
    LostAnswer,
    Conflict,
    Throttled,
    Refused,
    /// Some actions, by these bits, conflict or are throttled.
    Meddled(u64),
    /// These actions say this instead of their own reason.
    Reasons(Vec<Option<Reason>>),
    /// Cancelled, and every action was fine.
    Unexplained,
    /// Cancelled, with a reason too few.
    Garbled,
}

#[derive(Debug)]
struct Entry {
    verb: Verb,
    reservation: ReservationId,
    fingerprint: Fingerprint,
    qty: u32,
    arrived: Micros,
    deadline: Micros,
    repeated: bool,
    answer: Option<Answer>,
}

/// See the module's head.
pub(crate) struct Bench {
    lane: Lane,
    store: Store,
    event: EventId,
    stripes: usize,
    now: Micros,
    rng: SmallRng,
    counters: Counters,
    entries: Vec<Entry>,
    /// Index of the entry by reservation, of those not answered.
    waiting: BTreeMap<ReservationId, usize>,
    in_flight: Option<Rc<Transaction>>,
    /// What must be sent again before anything else is.
    unresolved: Option<Rc<Transaction>>,
    /// The read under way: when it began, and what it will say if it works.
    reading: Option<(Micros, EventRead)>,
    sent: usize,
    rivals: u32,
    /// The store's last word was to come back later.
    put_off: bool,
    /// The store has refused something, or failed to read, at least once.
    refused: bool,
}

impl Bench {
    /// A lane of stripe `home` of an event with this stock.
    pub(crate) fn new(stock: &[u64], home: u16) -> Self {
        let event: EventId = "evt".parse().expect("legal");
        let mut store = Store::new(TOKEN_MEMORY);
        store.create(&event, stock);
        let stripe = StripeId {
            event: event.clone(),
            index: home,
        };
        Self {
            lane: Lane::new(stripe, stock.len() as u16),
            store,
            event,
            stripes: stock.len(),
            now: Micros(1_000),
            rng: SmallRng::seed_from_u64(1),
            counters: Counters::default(),
            entries: Vec::new(),
            waiting: BTreeMap::new(),
            in_flight: None,
            unresolved: None,
            reading: None,
            sent: 0,
            rivals: 0,
            put_off: false,
            refused: false,
        }
    }

    /// Members submitted so far, which is the number of the next.
    pub(crate) fn submitted(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn depth(&self) -> usize {
        self.lane.depth()
    }

    /// Whether the lane has asked for a read that has not ended.
    pub(crate) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Records in the transaction in flight.
    pub(crate) fn members_in_flight(&self) -> usize {
        self.in_flight.as_ref().map_or(0, |sent| sent.records.len())
    }

    pub(crate) fn is_waiting(&self, member: usize) -> bool {
        self.entries[member].answer.is_none()
    }

    pub(crate) fn answer_to(&self, member: usize) -> &Answer {
        self.entries[member].answer.as_ref().expect("answered")
    }

    fn now(&self) -> Now {
        Now {
            mono: self.now,
            unix: UnixMillis(self.now.0 / 1_000),
        }
    }

    pub(crate) fn submit(&mut self, member: Member) -> Result<(), Broken> {
        let number = self.entries.len();
        let settled = |entry: &&Entry| !self.waiting.contains_key(&entry.reservation);
        let mut earlier = self.entries.iter().rev().take(100).filter(settled);
        let earlier = member.repeated.then(|| earlier.next()).flatten();
        let (reservation, qty, repeated) = match earlier {
            Some(earlier) => (earlier.reservation.clone(), earlier.qty, true),
            None => {
                let id = format!("{}{number}", member.prefix);
                (id.parse().expect("legal"), member.qty, false)
            }
        };
        let fingerprint = Fingerprint::of_quantity(&self.event, qty);
        let deadline = self.now.plus(Micros::from_millis(member.patience));
        self.entries.push(Entry {
            verb: member.verb,
            reservation: reservation.clone(),
            fingerprint,
            qty,
            arrived: self.now,
            deadline,
            repeated,
            answer: None,
        });
        self.waiting.insert(reservation.clone(), number);
        let operation = Operation {
            verb: member.verb,
            reservation,
            event: self.event.clone(),
            qty,
            fingerprint,
            payment_intent: String::new(),
            deadline,
        };
        self.with(|lane, now, rng, counters, out| lane.submit(operation, now, rng, counters, out))
    }

    pub(crate) fn pass(&mut self, ms: u64) -> Result<(), Broken> {
        self.now = self.now.plus(Micros::from_millis(ms));
        if self.lane.wake_at().is_some_and(|at| at <= self.now) {
            self.with(|lane, now, rng, counters, out| lane.wake(now, rng, counters, out))?;
        }
        Ok(())
    }

    /// Answers the transaction in flight, if there is one.
    pub(crate) fn answer(&mut self, fault: Fault) -> Result<(), Broken> {
        let Some(transaction) = self.in_flight.take() else {
            return Ok(());
        };
        self.now = self.now.plus(Micros(700));
        let outcome = self.outcome(&transaction, fault)?;
        match outcome {
            Outcome::Unknown => self.unresolved = Some(transaction),
            Outcome::Committed | Outcome::Cancelled(_) | Outcome::Rejected => {
                self.unresolved = None;
            }
            // Says nothing about an earlier try.
            Outcome::Conflict | Outcome::Throttled | Outcome::Refused => {}
        }
        let refused_again = outcome == Outcome::Refused && self.unresolved.is_some();
        let put_off = puts_off(&outcome) || refused_again;
        self.put_off = put_off;
        self.with(|lane, now, rng, counters, out| lane.settled(outcome, now, rng, counters, out))?;
        must!(
            self.in_flight.is_none() || !put_off,
            "put off, and sent again without a pause"
        );
        Ok(())
    }

    fn outcome(&mut self, sent: &Rc<Transaction>, fault: Fault) -> Result<Outcome, Broken> {
        let now = self.now;
        self.refused |= matches!(fault, Fault::Refused);
        match fault {
            Fault::LostRequest => Ok(Outcome::Unknown),
            Fault::LostAnswer => {
                self.store.apply(sent, now, |_| None)?;
                Ok(Outcome::Unknown)
            }
            Fault::Conflict => Ok(Outcome::Conflict),
            Fault::Throttled => Ok(Outcome::Throttled),
            Fault::Refused => Ok(Outcome::Refused),
            Fault::Meddled(bits) => self.store.apply(sent, now, |action| {
                match bits.rotate_right(3 * action as u32) & 7 {
                    0 => Some(Reason::Conflict),
                    1 => Some(Reason::Throttled),
                    _ => None,
                }
            }),
            Fault::Reasons(reasons) => self
                .store
                .apply(sent, now, |action| reasons.get(action).cloned().flatten()),
            // About a transaction that may have been applied, no store tells these lies.
            Fault::Unexplained if self.unresolved.is_none() => {
                Ok(Outcome::Cancelled(vec![Reason::Fine; sent.action_count()]))
            }
            Fault::Garbled if self.unresolved.is_none() => {
                let reasons = vec![Reason::Fine; sent.action_count() - 1];
                Ok(Outcome::Cancelled(reasons))
            }
            Fault::None | Fault::Unexplained | Fault::Garbled => {
                self.store.apply(sent, now, |_| None)
            }
        }
    }

    /// Ends the read that the lane asked for, if there is one.
    pub(crate) fn end_read(&mut self, works: bool) -> Result<(), Broken> {
        let Some((began, mut read)) = self.reading.take() else {
            return Ok(());
        };
        if !works {
            self.refused = true;
            read = EventRead::Unavailable;
        }
        self.now = self.now.plus(Micros(300));
        self.with(|lane, now, rng, counters, out| {
            lane.stripes_read(began, &read, now, rng, counters, out);
        })
    }

    /// Another buyer takes from a stripe, if it has that much.
    pub(crate) fn rival(&mut self, stripe: u16, units: u64) -> Result<(), Broken> {
        if usize::from(stripe) >= self.stripes || units == 0 {
            return Ok(());
        }
        self.rivals += 1;
        let reservation: ReservationId = format!("rival-{}", self.rivals).parse().expect("legal");
        let bought = Transaction {
            token: Token(u128::from(self.rivals)),
            event: self.event.clone(),
            stripes: vec![StripeUpdate {
                stripe,
                take: units,
            }],
            records: vec![NewRecord {
                fingerprint: Fingerprint::of_quantity(&self.event, units as u32),
                state: ReservationState::Confirmed,
                qty: units as u32,
                draws: vec![Draw {
                    stripe,
                    units: units as u32,
                }],
                order: Some(OrderId::of(&reservation)),
                reservation,
                payment_intent: String::new(),
            }],
            at: UnixMillis(0),
        };
        self.store.apply(&Rc::new(bought), self.now, |_| None)?;
        Ok(())
    }

    /// Answers everything honestly until nothing is in flight. How much was sent meanwhile.
    pub(crate) fn answer_all(&mut self) -> Result<usize, Broken> {
        let before = self.sent;
        while self.in_flight.is_some() {
            self.answer(Fault::None)?;
        }
        Ok(self.sent - before)
    }

    /// Brings the lane to rest and looks at what is left.
    pub(crate) fn rest(&mut self) -> Result<(), Broken> {
        for _ in 0..TURNS_MAX {
            if self.in_flight.is_some() {
                self.answer(Fault::None)?;
            } else if self.reading.is_some() {
                self.end_read(true)?;
            } else if let Some(at) = self.lane.wake_at() {
                let until = at.since(self.now);
                self.now = self.now.plus(until);
                self.pass(0)?;
            } else {
                return self.at_rest();
            }
        }
        Err(Broken(format!("no rest in {TURNS_MAX} turns")))
    }

    fn with(
        &mut self,
        act: impl FnOnce(&mut Lane, Now, &mut SmallRng, &mut Counters, &mut LaneOutput),
    ) -> Result<(), Broken> {
        let mut out = LaneOutput::default();
        let now = self.now();
        act(
            &mut self.lane,
            now,
            &mut self.rng,
            &mut self.counters,
            &mut out,
        );
        for settled in out.settled {
            self.settled(settled)?;
        }
        if let Some(transaction) = out.send {
            self.sends(transaction)?;
        }
        if out.read_stripes {
            must!(self.reading.is_none(), "asked twice for a read");
            must!(self.stripes > 1, "one stripe needs no read");
            // The earliest view that an honest read can give.
            self.reading = Some((self.now, self.store.read(&self.event)));
        }
        Ok(())
    }

    fn sends(&mut self, transaction: Rc<Transaction>) -> Result<(), Broken> {
        self.sent += 1;
        must!(self.in_flight.is_none(), "two transactions in flight");
        let new = self.store.inspect(&transaction)?;
        if let Some(unresolved) = &self.unresolved {
            must!(
                *unresolved == transaction,
                "sent {transaction:?} before {unresolved:?} was known"
            );
        } else {
            must!(new, "a known outcome was sent again: {transaction:?}");
            for record in &transaction.records {
                let Some(number) = self.waiting.get(&record.reservation) else {
                    return Err(Broken(format!("{} does not wait", record.reservation)));
                };
                let deadline = self.entries[*number].deadline;
                must!(
                    deadline > self.now,
                    "{} sent at {:?}, its deadline was {deadline:?}",
                    record.reservation,
                    self.now
                );
            }
        }
        self.in_flight = Some(transaction);
        Ok(())
    }
}
