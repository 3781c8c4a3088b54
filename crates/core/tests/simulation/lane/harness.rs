//! A harness for one pool of lanes: the test supplies all inputs, and the harness checks all outputs.

mod judge;
mod rivals;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use inventory_core::answer::{Answer, Rejection};
use inventory_core::counters::Counters;
use inventory_core::ids::{EventId, ReservationId, SeatId, Seats};
use inventory_core::lane::{
    LaneSettings, Pool, PoolContext, PoolKey, PoolKind, PoolOutput, Redecision, RedecisionCause,
    WriteIntent,
};
use inventory_core::limits;
use inventory_core::operation::{Operation, Selection, Verb};
use inventory_core::rules::{self, Decision, LateCommit};
use inventory_core::seats::{SeatFacts, SeatItem, SeatState};
use inventory_core::stripe_ownership::StripeSet;
use inventory_core::time::{Micros, Now, UnixMillis};
use inventory_core::transaction::{
    ActionOutcome, EventLayout, RecordView, RecordWrite, ReservationState, StripesRead,
    Transaction, TransactionOutcome,
};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::model::{Ask, Store, TOKEN_MEMORY};
use crate::violation::{Violation, ensure};
use judge::{is_busy, puts_off};

/// Rounds until a pool must be at rest: far more than entries times attempts.
const TURNS_MAX: usize = 100_000;

/// An operation to submit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneCall {
    pub(crate) verb: Verb,
    pub(crate) qty: u32,
    /// Milliseconds to its deadline.
    pub(crate) patience: u64,
    /// Prefix of the reservation id: what the store does with it.
    pub(crate) prefix: &'static str,
    /// Reuses a settled reservation, if there is one: the last, or one before it.
    pub(crate) repeated: Option<usize>,
    /// Whether the operation was decided on the current record, or on none.
    pub(crate) knows: bool,
    /// Names neither units nor seats, where that is allowed.
    pub(crate) whatever: bool,
}

impl LaneCall {
    /// A commit with a deadline that never passes.
    pub(crate) fn patient(qty: u32) -> Self {
        Self {
            verb: Verb::Commit,
            qty,
            patience: 1_000_000_000,
            prefix: "",
            repeated: None,
            knows: false,
            whatever: false,
        }
    }
}

/// The fate of a transaction.
#[derive(Clone, Debug)]
pub(crate) enum StoreFault {
    None,
    LostRequest,
    LostAnswer,
    Conflict,
    Throttled,
    Refused,
    /// Some actions, by these bits, conflict or are throttled.
    Meddled(u64),
    /// These actions get this outcome instead of their own.
    Reasons(Vec<Option<ActionOutcome>>),
    /// Cancelled, although every action was fine.
    Unexplained,
    /// Cancelled, with one outcome too few.
    Garbled,
}

#[derive(Debug)]
struct Entry {
    operation: Operation,
    /// What the reservation requests.
    selection: Selection,
    arrived: Micros,
    repeated: bool,
    /// Seats that belong to the entry while it is in the pool.
    claims: Option<Seats>,
    answer: Option<Answer>,
    /// It left the pool without an answer.
    returned: bool,
}

/// See the module head.
pub(crate) struct PoolHarness {
    pool: Pool,
    store: Store,
    event: EventId,
    shape: EventLayout,
    /// For stock in units.
    share: Option<StripeSet>,
    seats: Vec<SeatId>,
    late: LateCommit,
    now: Micros,
    rng: SmallRng,
    counters: Counters,
    entries: Vec<Entry>,
    /// Index of the entry by reservation, of those in the lane.
    waiting: BTreeMap<ReservationId, usize>,
    in_flight: BTreeMap<u16, Rc<Transaction>>,
    /// What a lane must send again before anything else.
    unresolved: BTreeMap<u16, Rc<Transaction>>,
    /// Lanes that ask for a resend.
    resend: BTreeSet<u16>,
    /// When what a lane has in flight was first sent.
    sent_at: BTreeMap<u16, Micros>,
    /// The `as_of` of the last output.
    as_of: Micros,
    /// The read in flight: its start, and its result if it succeeds.
    reading: Option<(Micros, StripesRead)>,
    reads: usize,
    sent: usize,
    rivals: u32,
    /// Only their order decides which entries are sent next.
    strict: bool,
    /// The lanes whose last outcome requires a backoff.
    put_off: BTreeSet<u16>,
    /// The store has refused something, or a read has failed.
    refused: bool,
}

impl PoolHarness {
    /// The lane of stripe `home` alone, of an event with this stock.
    pub(crate) fn new(stock: &[u64], home: u16, late: LateCommit) -> Self {
        let step = limits::STRIPES_MAX;
        Self::pooled(stock, StripeSet::every(home, step), late)
    }

    /// The lanes of these stripes, of an event with this stock.
    pub(crate) fn pooled(stock: &[u64], share: StripeSet, late: LateCommit) -> Self {
        let event: EventId = "evt".parse().expect("legal");
        let mut store = Store::new(TOKEN_MEMORY);
        store.create(&event, stock);
        let shape = EventLayout { stripes: stock.len() as u16, seat_keys: 0, closed: false };
        Self::with_store(store, event, shape, Some(share), late)
    }

    /// The unstriped lanes of an event with this many seats.
    pub(crate) fn seated(seats: usize, late: LateCommit) -> Self {
        let event: EventId = "evt".parse().expect("legal");
        let ids: Vec<SeatId> =
            (0..seats).map(|n| format!("S{n}").parse().expect("legal")).collect();
        let seat = |id: &SeatId| SeatItem {
            id: id.clone(),
            facts: SeatFacts::default(),
            state: SeatState::Available,
        };
        let mut store = Store::new(TOKEN_MEMORY);
        store.create_seated(&event, 3, ids.iter().map(seat).collect());
        let shape = EventLayout { stripes: 1, seat_keys: 3, closed: false };
        let seats = ids;
        Self { seats, ..Self::with_store(store, event, shape, None, late) }
    }

    fn with_store(
        store: Store,
        event: EventId,
        shape: EventLayout,
        share: Option<StripeSet>,
        late: LateCommit,
    ) -> Self {
        let key = PoolKey {
            event: event.clone(),
            kind: share.map_or(PoolKind::Unstriped, |_| PoolKind::Stripes),
        };
        let first = StripeSet::every(0, 1);
        let terms = LaneSettings { late_commit: late, sold_out_latch: Micros(0) };
        Self {
            pool: Pool::new(key, share.unwrap_or(first), shape, terms),
            store,
            event,
            shape,
            share,
            seats: Vec::new(),
            late,
            now: Micros(1_000),
            rng: SmallRng::seed_from_u64(1),
            counters: Counters::default(),
            entries: Vec::new(),
            waiting: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            unresolved: BTreeMap::new(),
            resend: BTreeSet::new(),
            sent_at: BTreeMap::new(),
            as_of: Micros(0),
            reading: None,
            reads: 0,
            sent: 0,
            rivals: 0,
            strict: false,
            put_off: BTreeSet::new(),
            refused: false,
        }
    }

    /// From now on every transaction must contain the entries that came first.
    pub(crate) fn strictly_in_order(mut self) -> Self {
        self.strict = true;
        self
    }

    /// The lanes with a transaction in flight.
    pub(crate) fn lanes_in_flight(&self) -> Vec<u16> {
        self.in_flight.keys().copied().collect()
    }

    /// Number of submitted entries, which is the number of the next.
    pub(crate) fn submitted(&self) -> usize {
        self.entries.len()
    }

    /// Number of transactions sent, without resends.
    pub(crate) fn transactions(&self) -> u64 {
        self.counters.transactions
    }

    pub(crate) fn depth(&self) -> usize {
        self.pool.depth()
    }

    /// Whether a requested read has not ended.
    pub(crate) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Records in the transactions in flight.
    pub(crate) fn members_in_flight(&self) -> usize {
        self.in_flight.values().map(|sent| sent.records.len()).sum()
    }

    pub(crate) fn is_waiting(&self, member: usize) -> bool {
        self.entries[member].answer.is_none()
    }

    pub(crate) fn answer_to(&self, member: usize) -> &Answer {
        self.entries[member].answer.as_ref().expect("answered")
    }

    fn now(&self) -> Now {
        Now { mono: self.now, unix: unix(self.now) }
    }

    /// Submits an entry as the engine does: not if its record is the answer, nor while its reservation or one of its
    /// seats is in the pool.
    pub(crate) fn submit(&mut self, member: LaneCall) -> Result<(), Violation> {
        let number = self.entries.len();
        let settled = |entry: &&Entry| !self.waiting.contains_key(&entry.operation.reservation);
        let mut earlier = self.entries.iter().rev().take(100).filter(settled);
        let earlier = member.repeated.and_then(|back| earlier.nth(back % 8));
        let (reservation, selection, repeated) = match earlier {
            Some(entry) => {
                let reservation = entry.operation.reservation.clone();
                (reservation, entry.selection.clone(), true)
            }
            None => {
                let id = format!("{}{number}", member.prefix);
                (id.parse().expect("legal"), self.wants(member, number), false)
            }
        };
        let asked = if member.whatever && member.verb != Verb::Hold {
            Selection::AsRecorded
        } else {
            selection.clone()
        };
        let deadline = self.now.plus(Micros::from_millis(member.patience));
        let operation = Operation {
            payment_intent: format!("pay-{reservation}"),
            hold_until: (member.verb == Verb::Hold)
                .then(|| UnixMillis(unix(self.now).0 + 1 + number as u64 % 7 * 60)),
            ..Operation::new(member.verb, reservation, self.event.clone(), asked, deadline)
        };
        let record = match member.knows {
            true => self.store.read_record(&operation.reservation).unwrap_or(None),
            false => None,
        };
        self.enter(operation, selection, repeated, record)
    }

    fn wants(&self, member: LaneCall, number: usize) -> Selection {
        if self.seats.is_empty() {
            return Selection::Quantity(member.qty);
        }
        // Adjacent seats, and sometimes one that does not exist.
        let first = (number * 5 + member.qty as usize) % (self.seats.len() + 1);
        let mut seats: Vec<SeatId> = self.seats.iter().skip(first).cloned().collect();
        seats.truncate(member.qty as usize);
        if seats.is_empty() {
            seats.push("nowhere".parse().expect("legal"));
        }
        Selection::Seats(seats.into())
    }

    fn enter(
        &mut self,
        operation: Operation,
        selection: Selection,
        repeated: bool,
        record: Option<RecordView>,
    ) -> Result<(), Violation> {
        let Some(plan) = self.plan(&operation, record) else {
            return Ok(());
        };
        let number = self.entries.len();
        self.entries.push(Entry {
            operation: operation.clone(),
            selection,
            arrived: self.now,
            repeated,
            claims: plan.seats.clone(),
            answer: None,
            returned: false,
        });
        self.waiting.insert(operation.reservation.clone(), number);
        self.with(|pool, turn| pool.submit(operation, plan, turn))
    }

    /// The write of `operation`, if it may enter the pool.
    fn plan(&self, operation: &Operation, record: Option<RecordView>) -> Option<WriteIntent> {
        let decision = rules::decide(operation, record.as_ref(), unix(self.now), self.late);
        let Decision::Write(transition) = decision else {
            return None;
        };
        let held = record.as_ref().and_then(|record| record.seats.clone());
        let seats = match (transition.stock_change(), held, &operation.selection) {
            (rules::StockChange::None, ..) => None,
            (_, Some(held), _) => Some(held),
            (_, None, Selection::Seats(seats)) => Some(Seats::clone(seats)),
            _ => None,
        };
        let claimed = |seat: &SeatId| {
            let others = self.waiting.values().map(|number| &self.entries[*number]);
            let mut claims = others.filter_map(|entry| entry.claims.as_ref());
            claims.any(|seats| seats.contains(seat))
        };
        if seats.iter().flat_map(|seats| seats.iter()).any(claimed) {
            return None;
        }
        Some(WriteIntent { transition, record, seats })
    }

    pub(crate) fn pass(&mut self, ms: u64) -> Result<(), Violation> {
        self.now = self.now.plus(Micros::from_millis(ms));
        if self.pool.wake_at().is_some_and(|at| at <= self.now) {
            self.with(|pool, turn| pool.wake(turn))?;
        }
        self.send_unresolved()
    }

    fn send_unresolved(&mut self) -> Result<(), Violation> {
        for lane in std::mem::take(&mut self.resend) {
            let transaction = self.pool.unresolved(lane);
            let transaction = transaction.ok_or_else(|| {
                Violation(format!("lane {lane} asked for a resend and has nothing unresolved"))
            })?;
            self.sends(lane, transaction)?;
        }
        Ok(())
    }

    /// Answers one of the transactions in flight, if there is one.
    pub(crate) fn answer(&mut self, fault: StoreFault) -> Result<(), Violation> {
        self.answer_one(0, fault)
    }

    /// Answers the `which`-th transaction in flight, modulo their number.
    pub(crate) fn answer_one(&mut self, which: usize, fault: StoreFault) -> Result<(), Violation> {
        let lanes = self.lanes_in_flight();
        if lanes.is_empty() {
            return Ok(());
        }
        let lane = lanes[which % lanes.len()];
        let transaction = self.in_flight.remove(&lane).expect("in flight");
        self.now = self.now.plus(Micros(700));
        let was_unknown = self.unresolved.contains_key(&lane);
        let sent_at = self.sent_at[&lane];
        let outcome = self.outcome(&transaction, was_unknown, fault)?;
        let sent = Rc::clone(&transaction);
        match outcome {
            TransactionOutcome::Unknown => {
                self.unresolved.insert(lane, transaction);
            }
            TransactionOutcome::Committed
            | TransactionOutcome::Cancelled(_)
            | TransactionOutcome::Rejected => {
                self.unresolved.remove(&lane);
            }
            // The outcome does not show what became of an earlier attempt.
            TransactionOutcome::Conflict
            | TransactionOutcome::Throttled
            | TransactionOutcome::Refused => {}
        }
        let refused_again = outcome == TransactionOutcome::Refused && was_unknown;
        let put_off = puts_off(&outcome, &sent) || refused_again;
        match put_off || is_busy(&outcome) {
            true => self.put_off.insert(lane),
            false => self.put_off.remove(&lane),
        };
        drop(sent);
        let committed = outcome == TransactionOutcome::Committed;
        self.with(|pool, turn| pool.handle_outcome(lane, outcome, turn))?;
        ensure!(
            !was_unknown || !committed || self.as_of <= sent_at,
            "what may have been written at {sent_at:?} is reported as of {:?}",
            self.as_of
        );
        ensure!(
            !self.in_flight.contains_key(&lane) || !put_off,
            "backed off, and sent again without a pause"
        );
        Ok(())
    }

    fn outcome(
        &mut self,
        sent: &Rc<Transaction>,
        was_unknown: bool,
        fault: StoreFault,
    ) -> Result<TransactionOutcome, Violation> {
        let now = self.now;
        self.refused |= matches!(fault, StoreFault::Refused);
        match fault {
            StoreFault::LostRequest => Ok(TransactionOutcome::Unknown),
            StoreFault::LostAnswer => {
                self.store.apply(sent, now, |_| None)?;
                Ok(TransactionOutcome::Unknown)
            }
            StoreFault::Conflict => Ok(TransactionOutcome::Conflict),
            StoreFault::Throttled => Ok(TransactionOutcome::Throttled),
            StoreFault::Refused => Ok(TransactionOutcome::Refused),
            StoreFault::Meddled(bits) => self.store.apply(sent, now, |action| {
                match bits.rotate_right(3 * action as u32) & 7 {
                    0 => Some(ActionOutcome::Conflict),
                    1 => Some(ActionOutcome::Throttled),
                    _ => None,
                }
            }),
            StoreFault::Reasons(reasons) => {
                self.store.apply(sent, now, |action| reasons.get(action).cloned().flatten())
            }
            // No store answers like this about a transaction that may have been applied.
            StoreFault::Unexplained if !was_unknown => {
                Ok(TransactionOutcome::Cancelled(vec![ActionOutcome::Fine; sent.action_count()]))
            }
            StoreFault::Garbled if !was_unknown => {
                let reasons = vec![ActionOutcome::Fine; sent.action_count() - 1];
                Ok(TransactionOutcome::Cancelled(reasons))
            }
            StoreFault::None | StoreFault::Unexplained | StoreFault::Garbled => {
                self.store.apply(sent, now, |_| None)
            }
        }
    }

    /// Ends the requested read, if there is one.
    pub(crate) fn end_read(&mut self, works: bool) -> Result<(), Violation> {
        let Some((began, mut read)) = self.reading.take() else {
            return Ok(());
        };
        if !works {
            self.refused = true;
            read = StripesRead::Unavailable;
        }
        self.now = self.now.plus(Micros(300));
        self.reads += 1;
        self.with(|pool, turn| pool.stripes_read(began, &read, turn))
    }

    /// Answers everything correctly until nothing is in flight. Returns how much was sent.
    pub(crate) fn answer_all(&mut self) -> Result<usize, Violation> {
        let before = self.sent;
        while !self.in_flight.is_empty() {
            self.answer(StoreFault::None)?;
        }
        Ok(self.sent - before)
    }

    /// Brings the pool to rest and checks the result.
    pub(crate) fn rest(&mut self) -> Result<(), Violation> {
        for _ in 0..TURNS_MAX {
            if !self.in_flight.is_empty() {
                self.answer(StoreFault::None)?;
            } else if self.reading.is_some() {
                self.end_read(true)?;
            } else if !self.resend.is_empty() {
                self.send_unresolved()?;
            } else if let Some(at) = self.pool.wake_at() {
                let until = at.since(self.now);
                self.now = self.now.plus(until);
                self.pass(0)?;
            } else {
                return self.at_rest();
            }
        }
        Err(Violation(format!("no rest in {TURNS_MAX} turns")))
    }

    fn with(&mut self, act: impl FnOnce(&mut Pool, &mut PoolContext<'_>)) -> Result<(), Violation> {
        let mut out = PoolOutput::default();
        let mut turn = PoolContext {
            now: self.now(),
            writer: 0,
            rng: &mut self.rng,
            counters: &mut self.counters,
            out: &mut out,
        };
        act(&mut self.pool, &mut turn);
        self.as_of = out.as_of;
        for settled in out.completions {
            self.settled(settled)?;
        }
        for (lane, transaction) in out.send {
            self.sends(lane, transaction)?;
        }
        self.resend.extend(out.unresolved);
        if out.read_stripes {
            ensure!(self.reading.is_none(), "asked twice for a read");
            // The earliest view that a correct read can give.
            self.reading = Some((self.now, self.store.read(&self.event, false)));
        }
        for returned in out.redecisions {
            self.returned(returned)?;
        }
        Ok(())
    }

    /// Takes back an operation for a new decision, and decides it.
    fn returned(&mut self, returned: Redecision) -> Result<(), Violation> {
        let Redecision { operation, cause, .. } = returned;
        let Some(number) = self.waiting.remove(&operation.reservation) else {
            return Err(Violation(format!("{operation:?} came back and was not there")));
        };
        let sent = &self.entries[number].operation;
        let same = Operation { expectation: sent.expectation, ..operation.clone() };
        ensure!(same == *sent, "{sent:?} came back as {operation:?}");
        self.entries[number].returned = true;
        match cause {
            RedecisionCause::Record(record) => {
                let Some(record) = record else {
                    return Err(Violation(format!("no record for {operation:?}")));
                };
                ensure!(
                    self.store.was(&operation.reservation, &record),
                    "{operation:?} met {record:?}, which never was"
                );
                let selection = self.entries[number].selection.clone();
                let decided = self.plan(&operation, Some(record));
                ensure!(
                    decided.is_some() || !self.seats.is_empty(),
                    "{operation:?} was redecided although its answer was known"
                );
                let record = self.store.read_record(&operation.reservation);
                self.enter(operation, selection, true, record.unwrap_or(None))
            }
            RedecisionCause::Shortage { remaining } => self.is_short(number, remaining),
            RedecisionCause::Seats(seats) => {
                ensure!(!seats.is_empty(), "{operation:?} came back for no seat");
                for (seat, state) in seats {
                    let seen = self.store.seat_during(&self.event, &seat, self.now, self.now);
                    let is = seen.last().map(|(_, state)| state.clone());
                    ensure!(
                        is == state && is != Some(SeatState::Available),
                        "{operation:?} came back for {seat} as {state:?}, which is {is:?}"
                    );
                }
                Ok(())
            }
        }
    }

    /// Decides like the engine about an entry that is too large for what a read showed: by its record.
    fn is_short(&mut self, number: usize, remaining: u64) -> Result<(), Violation> {
        let entry = &self.entries[number];
        let operation = entry.operation.clone();
        let selection = entry.selection.clone();
        let record = self.store.read_record(&operation.reservation).unwrap_or(None);
        let answer = match rules::decide(&operation, record.as_ref(), unix(self.now), self.late) {
            Decision::Answer(answer) => answer,
            Decision::Write(step) if step.stock_change() != rules::StockChange::Reserve => {
                return self.enter(operation, selection, true, record);
            }
            Decision::Write(step) => Answer::Rejected(match step.from {
                Some(_) => Rejection::HoldExpired,
                None => Rejection::InsufficientInventory { remaining },
            }),
        };
        self.judge(number, &answer)?;
        let entry = &mut self.entries[number];
        entry.answer = Some(answer);
        entry.returned = false;
        Ok(())
    }

    fn ask<'a>(&self, entry: &'a Entry) -> Ask<'a> {
        Ask {
            verb: entry.operation.verb,
            reservation: &entry.operation.reservation,
            event: &entry.operation.event,
            selection: &entry.operation.selection,
            payment: &entry.operation.payment_intent,
        }
    }

    fn sends(&mut self, lane: u16, transaction: Rc<Transaction>) -> Result<(), Violation> {
        self.sent += 1;
        ensure!(!self.in_flight.contains_key(&lane), "two transactions in flight for lane {lane}");
        let new = self.store.check_transaction(&transaction)?;
        if let Some(unresolved) = self.unresolved.get(&lane) {
            ensure!(
                *unresolved == transaction,
                "sent {transaction:?} before {unresolved:?} was known"
            );
        } else {
            ensure!(new, "a known outcome was sent again: {transaction:?}");
            self.may_be_sent(lane, &transaction)?;
        }
        if new {
            self.sent_at.insert(lane, self.now);
        }
        self.in_flight.insert(lane, transaction);
        Ok(())
    }

    /// A new transaction contains entries that wait, in time, in no other lane, and on the right stripe.
    fn may_be_sent(&self, lane: u16, transaction: &Transaction) -> Result<(), Violation> {
        let others = self.in_flight.values().chain(self.unresolved.values());
        let others: BTreeSet<&ReservationId> =
            others.flat_map(|sent| sent.records.iter().map(RecordWrite::reservation)).collect();
        let mut numbers = BTreeSet::new();
        for record in &transaction.records {
            let Some(number) = self.waiting.get(record.reservation()) else {
                return Err(Violation(format!("{} does not wait", record.reservation())));
            };
            ensure!(
                !others.contains(record.reservation()),
                "{} is in two lanes",
                record.reservation()
            );
            let deadline = self.entries[*number].operation.deadline;
            ensure!(
                deadline > self.now,
                "{} sent at {:?}, its deadline was {deadline:?}",
                record.reservation(),
                self.now
            );
            let takes = matches!(record.from, None | Some(ReservationState::Expired))
                && record.to != ReservationState::Released;
            let home = record.draws.first().map(|draw| draw.stripe);
            ensure!(
                // Only a read of all stripes sends a reservation of units to another stripe than the lane's.
                home.is_none_or(|home| home == lane) || (takes && self.reads > 0),
                "lane {lane} writes {record:?}"
            );
            numbers.insert(*number);
        }
        let waiting = self.waiting.iter();
        let left_behind = waiting.filter(|(id, _)| !others.contains(id));
        let left_behind = left_behind.map(|(_, number)| *number);
        let first = left_behind.filter(|number| !numbers.contains(number)).min();
        ensure!(
            !self.strict || first.is_none_or(|first| numbers.iter().all(|number| *number < first)),
            "lane {lane} sent {numbers:?}, and {first:?} came before"
        );
        Ok(())
    }
}

fn unix(now: Micros) -> UnixMillis {
    UnixMillis(now.0 / 1_000)
}
