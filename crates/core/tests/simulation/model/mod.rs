//! The store as a map: all-or-nothing conditional writes, the reason of every failed condition in order with
//! the stored item, and a memory of request tokens. It promises what DynamoDB promises, and no more.
//!
//! The model also checks what every transaction must satisfy, and keeps the history of each item for the oracle.
//! The rules of the core are written a second time here, from the rules that clients rely on.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | the items, the conditions, and the effect of a write |
//! | `validity.rs` | what every transaction must satisfy, whatever its outcome |
//! | `expected.rs` | the answer that a caller must get because of a record |
//! | `history.rs` | what was stored at an instant, or during a span |
//! | `conservation.rs` | invariants over everything that is stored |

mod conservation;
mod expected;
mod history;
mod validity;

use std::collections::BTreeMap;
use std::rc::Rc;

use inventory_core::ids::{EventId, Fingerprint, PaymentHash, ReservationId, SeatId};
use inventory_core::seats::{SeatFacts, SeatItem, SeatState};
use inventory_core::time::{Micros, UnixMillis};
use inventory_core::transaction::{
    ActionOutcome, CounterUpdate, ExpiryCondition, RecordView, RecordWrite, ReservationState,
    SeatsRead, StripeAllocation, StripeUpdate, StripeView, StripesRead, Transaction,
    TransactionOutcome, Unreadable,
};

use super::violation::{Violation, ensure};
pub(crate) use expected::{Ask, expected_answer};

/// DynamoDB remembers a request token for ten minutes.
pub(crate) const TOKEN_MEMORY: Micros = Micros::from_millis(600_000);

/// The store rejects a body with a reservation of this prefix without a reason.
pub(crate) const POISON: &str = "poison-";
/// The store calls the action of a reservation of this prefix invalid.
pub(crate) const INVALID: &str = "invalid-";
/// The record of a reservation of this prefix is unreadable: another program wrote it.
pub(crate) const ALIEN: &str = "alien-";

/// What a transition of a record does to stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StockEffect {
    Takes,
    Keeps,
    Gives,
    Nothing,
}

/// The valid transitions.
fn stock_effect(write: &RecordWrite) -> Option<StockEffect> {
    use ReservationState::{Confirmed, Expired, Held, Refunded, Released};
    Some(match (write.from, write.to) {
        (None, Held | Confirmed) | (Some(Expired), Confirmed) => StockEffect::Takes,
        (None, Released) => StockEffect::Nothing,
        (Some(Confirmed), Confirmed) if write.payment_added_to.is_some() => StockEffect::Nothing,
        (Some(Held), Confirmed) => StockEffect::Keeps,
        (Some(Held), Released | Expired) | (Some(Confirmed), Refunded) => StockEffect::Gives,
        _ => return None,
    })
}

/// The seats that a transition changes.
fn seats_of(write: &RecordWrite) -> &[SeatId] {
    match stock_effect(write) {
        None | Some(StockEffect::Nothing) => &[],
        Some(_) => write.seats.as_deref().unwrap_or_default(),
    }
}

#[derive(Clone, Debug)]
pub(crate) struct StoredRecord {
    pub(crate) event: EventId,
    pub(crate) view: RecordView,
    /// The views of the record, each from its instant on; the last is current.
    pub(crate) past: Vec<(Micros, RecordView)>,
    /// The version of the event's stock that each view came with, if it moved stock.
    states: Vec<usize>,
}

#[derive(Debug)]
struct StoredSeat {
    facts: SeatFacts,
    state: SeatState,
    past: Vec<(Micros, SeatState)>,
}

#[derive(Debug)]
struct Event {
    stripes: Vec<StripeView>,
    /// Units of held and confirmed records, per stripe.
    sold: Vec<u64>,
    /// The confirmation counters.
    counters: BTreeMap<u16, u64>,
    /// Units of held records that the stripes count as held.
    held: i64,
    seats: BTreeMap<SeatId, StoredSeat>,
    /// Remaining units of each stripe, as if none had been moved between stripes, each from its instant on.
    past: Vec<(Micros, Vec<i64>)>,
    /// Capacity of each stripe in each version, likewise.
    capacities: Vec<Vec<i64>>,
    /// Held units in each version, by stripes and counters.
    held_past: Vec<i64>,
    closed: Option<Micros>,
}

impl Event {
    fn note(&mut self, now: Micros) {
        let remaining = self.stripes.iter().map(|s| s.remaining as i64 - s.moved).collect();
        self.past.push((now, remaining));
        let capacities = self.stripes.iter().map(|s| s.capacity as i64 - s.moved).collect();
        self.capacities.push(capacities);
        self.held_past.push(self.held_units());
    }

    /// The held units by stripes and counters.
    fn held_units(&self) -> i64 {
        let held: i64 = self.stripes.iter().map(|stripe| stripe.held).sum();
        held - self.counters.values().sum::<u64>() as i64
    }

    fn set_seat(&mut self, seat: &SeatId, state: SeatState, now: Micros) {
        if let Some(stored) = self.seats.get_mut(seat) {
            stored.past.push((now, state.clone()));
            stored.state = state;
        }
    }
}

/// See the module head.
#[derive(Debug)]
pub(crate) struct Store {
    events: BTreeMap<EventId, Event>,
    records: BTreeMap<ReservationId, StoredRecord>,
    /// Tokens of applied transactions, with the end of their memory.
    applied: BTreeMap<u128, Micros>,
    /// The version of the stock that each applied transaction made, by token.
    made: BTreeMap<u128, usize>,
    /// Every body that was sent, to compare retries with.
    bodies: BTreeMap<u128, Rc<Transaction>>,
    /// Attempts still in flight although the sender has given up, by token.
    in_progress: BTreeMap<u128, u32>,
    token_memory: Micros,
}

impl Store {
    /// `token_memory` is [`TOKEN_MEMORY`], or less for a database that forgets tokens at a restart.
    pub(crate) fn new(token_memory: Micros) -> Self {
        Self {
            events: BTreeMap::new(),
            records: BTreeMap::new(),
            applied: BTreeMap::new(),
            made: BTreeMap::new(),
            bodies: BTreeMap::new(),
            in_progress: BTreeMap::new(),
            token_memory,
        }
    }

    /// Creates an event with one stripe per capacity.
    pub(crate) fn create(&mut self, event: &EventId, capacities: &[u64]) {
        self.put_event(event, capacities, 0, Vec::new());
    }

    /// Creates an event with these seats, spread over `keys` partition keys.
    pub(crate) fn create_seated(&mut self, event: &EventId, keys: u16, seats: Vec<SeatItem>) {
        self.put_event(event, &[0], keys, seats);
    }

    fn put_event(&mut self, event: &EventId, capacities: &[u64], keys: u16, seats: Vec<SeatItem>) {
        let stripe = |(index, capacity): (usize, &u64)| StripeView {
            capacity: *capacity,
            remaining: *capacity,
            version: 1,
            stripes: (index == 0).then_some(capacities.len() as u16),
            seat_keys: if index == 0 { keys } else { 0 },
            ..StripeView::default()
        };
        let seats = seats.into_iter().map(|seat| {
            let stored = StoredSeat {
                facts: seat.facts,
                past: vec![(Micros(0), seat.state.clone())],
                state: seat.state,
            };
            (seat.id, stored)
        });
        let mut created = Event {
            stripes: capacities.iter().enumerate().map(stripe).collect(),
            sold: vec![0; capacities.len()],
            counters: BTreeMap::new(),
            held: 0,
            seats: seats.collect(),
            past: Vec::new(),
            capacities: Vec::new(),
            held_past: Vec::new(),
            closed: None,
        };
        created.note(Micros(0));
        self.events.insert(event.clone(), created);
    }

    /// A hold of an earlier version, which counts no held units. False if no stripe has that many units, or the
    /// reservation has a record.
    pub(crate) fn put_uncounted_hold(
        &mut self,
        event_id: &EventId,
        reservation: &ReservationId,
        qty: u32,
        until: UnixMillis,
    ) -> bool {
        let next_state = self.states(event_id) + 1;
        let Some(event) = self.events.get_mut(event_id) else {
            return false;
        };
        let units = u64::from(qty);
        let enough = event.stripes.iter().position(|stripe| stripe.remaining >= units);
        let Some(stripe) = enough.filter(|_| !self.records.contains_key(reservation)) else {
            return false;
        };
        event.stripes[stripe].remaining -= units;
        event.stripes[stripe].version += 1;
        event.sold[stripe] += units;
        event.note(Micros(0));
        let view = RecordView {
            fingerprint: Fingerprint::of_quantity(event_id, qty),
            state: ReservationState::Held,
            order: None,
            payment: None,
            qty,
            draws: [StripeAllocation { stripe: stripe as u16, units: qty }].into_iter().collect(),
            seats: None,
            expires_at: Some(until),
            counted: false,
            at: UnixMillis(0),
        };
        let record = StoredRecord {
            event: event_id.clone(),
            past: vec![(Micros(0), view.clone())],
            view,
            states: vec![next_state],
        };
        self.records.insert(reservation.clone(), record);
        true
    }

    // ---- Operator actions ---------------------------------------------------------------------------

    pub(crate) fn restock(&mut self, event: &EventId, stripe: u16, units: u64, now: Micros) {
        if let Some(event) = self.events.get_mut(event)
            && let Some(item) = event.stripes.get_mut(usize::from(stripe))
        {
            item.capacity += units;
            item.remaining += units;
            item.version += 1;
            event.note(now);
        }
    }

    /// The event takes no new reservations from now on.
    pub(crate) fn close(&mut self, event: &EventId, now: Micros) {
        if let Some(event) = self.events.get_mut(event) {
            event.stripes.iter_mut().for_each(|item| item.closed = true);
            event.closed.get_or_insert(now);
        }
    }

    /// Blocks a free seat, or unblocks a blocked one.
    pub(crate) fn block(&mut self, event: &EventId, seat: &SeatId, now: Micros) {
        let Some(event) = self.events.get_mut(event) else {
            return;
        };
        let changed = match event.seats.get(seat).map(|seat| &seat.state) {
            Some(SeatState::Available) => SeatState::Blocked,
            Some(SeatState::Blocked) => SeatState::Available,
            _ => return,
        };
        event.set_seat(seat, changed, now);
    }

    // ---- Tokens ---------------------------------------------------------------------------------

    pub(crate) fn begin(&mut self, token: u128) {
        *self.in_progress.entry(token).or_default() += 1;
    }

    pub(crate) fn end(&mut self, token: u128) {
        if let Some(tries) = self.in_progress.get_mut(&token) {
            *tries = tries.saturating_sub(1);
        }
    }

    pub(crate) fn is_in_progress(&self, token: u128) -> bool {
        self.in_progress.get(&token).is_some_and(|tries| *tries > 0)
    }

    /// Whether a transaction of this token was applied, as far as the store remembers.
    pub(crate) fn remembers(&self, token: u128, now: Micros) -> bool {
        self.applied.get(&token).is_some_and(|until| *until > now)
    }

    // ---- Reads ----------------------------------------------------------------------------------

    /// All stripes at this instant, and the confirmation counters if they are asked for.
    pub(crate) fn read(&self, event: &EventId, with_counters: bool) -> StripesRead {
        match self.events.get(event) {
            Some(event) => {
                let mut stripes = event.stripes.clone();
                let confirmed = event.counters.values().sum::<u64>() as i64;
                stripes[0].confirmed_holds = with_counters.then_some(confirmed);
                StripesRead::Found(stripes)
            }
            None => StripesRead::NotFound,
        }
    }

    pub(crate) fn read_record(
        &self,
        reservation: &ReservationId,
    ) -> Result<Option<RecordView>, Unreadable> {
        if reservation.as_str().starts_with(ALIEN) {
            return Err(Unreadable);
        }
        Ok(self.records.get(reservation).map(|r| r.view.clone()))
    }

    /// All seats at this instant.
    pub(crate) fn read_seats(&self, event: &EventId) -> SeatsRead {
        let seats = self.events.get(event).into_iter().flat_map(|e| &e.seats);
        let seat = |(id, stored): (&SeatId, &StoredSeat)| SeatItem {
            id: id.clone(),
            facts: stored.facts.clone(),
            state: stored.state.clone(),
        };
        SeatsRead::Found(seats.map(seat).collect())
    }

    /// The seats that are free at `at`, at this instant.
    pub(crate) fn read_free_seats(
        &self,
        event: &EventId,
        at: UnixMillis,
    ) -> Vec<(SeatId, SeatState)> {
        let is_free = |state: &SeatState| match state {
            SeatState::Available => true,
            SeatState::Hold { until, .. } => *until <= at,
            SeatState::Sold { .. } | SeatState::Blocked => false,
        };
        let seats = self.events.get(event).into_iter().flat_map(|e| &e.seats);
        let free = seats.filter(|(_, stored)| is_free(&stored.state));
        free.map(|(id, stored)| (id.clone(), stored.state.clone())).collect()
    }

    /// The holds that are overdue at `unix`, as the expiry index lists them: as they were stored at `seen`.
    pub(crate) fn due_holds(
        &self,
        unix: UnixMillis,
        seen: Micros,
    ) -> Vec<(EventId, ReservationId, RecordView)> {
        let due = |view: &&RecordView| {
            view.state == ReservationState::Held && view.expires_at.is_some_and(|at| at <= unix)
        };
        let listed = self.records.iter().filter_map(|(id, record)| {
            let (_, view) = record.past.iter().rev().find(|(at, _)| *at <= seen)?;
            Some(view).filter(due).map(|view| (record.event.clone(), id.clone(), view.clone()))
        });
        listed.collect()
    }

    /// The holds, each with its expiry and the time of its write.
    pub(crate) fn holds(&self) -> impl Iterator<Item = (&ReservationId, UnixMillis, Micros)> {
        let held =
            |(_, r): &(&ReservationId, &StoredRecord)| r.view.state == ReservationState::Held;
        self.records.iter().filter(held).map(|(id, record)| {
            let written = record.past.last().map_or(Micros(0), |(at, _)| *at);
            (id, record.view.expires_at.unwrap_or_default(), written)
        })
    }

    pub(crate) fn record(&self, reservation: &ReservationId) -> Option<&StoredRecord> {
        self.records.get(reservation)
    }

    // ---- Writes ---------------------------------------------------------------------------------

    /// Applies the transaction, or returns why not. `action_fault_reason` may replace the reason of an action, which
    /// then cancels.
    pub(crate) fn apply(
        &mut self,
        transaction: &Rc<Transaction>,
        now: Micros,
        mut action_fault_reason: impl FnMut(usize) -> Option<ActionOutcome>,
    ) -> Result<TransactionOutcome, Violation> {
        self.check_transaction(transaction)?;
        let token = transaction.token.0;
        if self.remembers(token, now) {
            return Ok(TransactionOutcome::Committed);
        }
        if transaction.records.iter().any(|r| is(r, POISON)) {
            return Ok(TransactionOutcome::Rejected);
        }
        let mut reasons = self.reasons(transaction);
        for (action, reason) in reasons.iter_mut().enumerate() {
            if let Some(other) = action_fault_reason(action) {
                *reason = other;
            }
        }
        if reasons.iter().any(|reason| *reason != ActionOutcome::Fine) {
            return Ok(TransactionOutcome::Cancelled(reasons));
        }
        self.write(transaction, now)?;
        self.applied.insert(token, now.plus(self.token_memory));
        Ok(TransactionOutcome::Committed)
    }

    /// The store's reason for each action: stripes, records, the seats of each record, then the confirmation counter.
    fn reasons(&self, transaction: &Transaction) -> Vec<ActionOutcome> {
        let stripes = transaction.stripes.iter();
        let records = transaction.records.iter();
        let seats = transaction.records.iter().flat_map(|record| {
            let seats = seats_of(record).iter();
            seats.map(move |seat| self.of_seat(&transaction.event, record, seat))
        });
        stripes
            .map(|update| self.of_stripe(&transaction.event, update))
            .chain(records.map(|record| self.of_record(record, transaction.at)))
            .chain(seats)
            .chain(transaction.counter.map(|_| ActionOutcome::Fine))
            .collect()
    }

    fn of_stripe(&self, event: &EventId, update: &StripeUpdate) -> ActionOutcome {
        let event = self.events.get(event);
        let item = event.and_then(|event| event.stripes.get(usize::from(update.stripe)));
        let Some(item) = item else {
            return ActionOutcome::Stripe(None);
        };
        #[cfg(feature = "planted-faults")]
        if update.is_unconditional {
            return ActionOutcome::Fine;
        }
        let is_open = (update.take == 0 && update.moved == 0) || !item.closed;
        if is_open && left_after(item, update).is_some() {
            ActionOutcome::Fine
        } else {
            ActionOutcome::Stripe(Some(*item))
        }
    }

    fn of_record(&self, write: &RecordWrite, at: UnixMillis) -> ActionOutcome {
        if is(write, INVALID) {
            return ActionOutcome::Invalid;
        }
        if is(write, ALIEN) {
            return ActionOutcome::RecordUnreadable;
        }
        let stored = self.records.get(write.reservation()).map(|r| &r.view);
        match (stored, write.from) {
            (None, None) => ActionOutcome::Fine,
            (None, Some(_)) => ActionOutcome::RecordMissing,
            (Some(stored), from) => {
                let in_time = match write.due {
                    ExpiryCondition::Any => true,
                    ExpiryCondition::Expired => stored.expires_at.is_some_and(|end| end <= at),
                    ExpiryCondition::NotExpired => stored.expires_at.is_some_and(|end| end > at),
                };
                let may_pay = write.payment_added_to.is_none() || stored.payment.is_none();
                if from == Some(stored.state) && in_time && may_pay {
                    ActionOutcome::Fine
                } else {
                    ActionOutcome::Record(stored.clone())
                }
            }
        }
    }

    fn of_seat(&self, event: &EventId, write: &RecordWrite, seat: &SeatId) -> ActionOutcome {
        let event = self.events.get(event);
        let Some(stored) = event.and_then(|event| event.seats.get(seat)) else {
            return ActionOutcome::Seat(None);
        };
        let mine = write.reservation();
        let as_needed = match (&stored.state, write.from) {
            (SeatState::Available, None | Some(ReservationState::Expired)) => true,
            (SeatState::Hold { reservation, .. }, Some(ReservationState::Held)) => {
                reservation == mine
            }
            (SeatState::Sold { reservation }, Some(ReservationState::Confirmed)) => {
                reservation == mine
            }
            _ => false,
        };
        if as_needed {
            ActionOutcome::Fine
        } else {
            ActionOutcome::Seat(Some(stored.state.clone()))
        }
    }

    fn write(&mut self, transaction: &Transaction, now: Micros) -> Result<(), Violation> {
        let at = transaction.at;
        let next_state = self.states(&transaction.event) + 1;
        let moves_stock = !transaction.stripes.is_empty() || transaction.counter.is_some();
        if moves_stock {
            self.made.insert(transaction.token.0, next_state);
        }
        for write in &transaction.records {
            self.gives_what_it_has(write)?;
            let stored = self.records.get(write.reservation());
            let view = written(write, stored.map(|r| &r.view), at);
            let was_held = stored.map_or(0, |stored| counted_units(&stored.view));
            if let Some(event) = self.events.get_mut(&transaction.event) {
                event.held += counted_units(&view) - was_held;
            }
            let stored =
                self.records.entry(write.reservation().clone()).or_insert_with(|| StoredRecord {
                    event: transaction.event.clone(),
                    view: view.clone(),
                    past: Vec::new(),
                    states: Vec::new(),
                });
            ensure!(
                stored.event == transaction.event,
                "a record changed as one of another event: {} of {} in {}",
                write.reservation(),
                stored.event,
                transaction.event
            );
            stored.past.push((now, view.clone()));
            stored.states.push(next_state);
            stored.view = view;
        }
        if let Some(event) = self.events.get_mut(&transaction.event) {
            for update in &transaction.stripes {
                let stripe = usize::from(update.stripe);
                let item = &mut event.stripes[stripe];
                item.remaining = left_after(item, update).unwrap_or_default();
                item.capacity = item.capacity.saturating_add_signed(update.moved);
                item.moved += update.moved;
                item.held += update.held;
                item.version += 1;
                let sold = (event.sold[stripe] + update.take).checked_sub(update.give);
                ensure!(
                    sold.is_some(),
                    "more returned than was sold: {}#{stripe}",
                    transaction.event
                );
                event.sold[stripe] = sold.unwrap_or_default();
            }
            if let Some(CounterUpdate { counter, units }) = transaction.counter {
                *event.counters.entry(counter).or_default() += units;
            }
            if moves_stock {
                event.note(now);
            }
            for write in &transaction.records {
                for seat in seats_of(write) {
                    event.set_seat(seat, seat_written(write), now);
                }
            }
        }
        self.check_conservation(&transaction.event)
    }

    /// A write returns what the record holds, and leaves what it keeps.
    fn gives_what_it_has(&self, write: &RecordWrite) -> Result<(), Violation> {
        if !matches!(stock_effect(write), Some(StockEffect::Gives | StockEffect::Keeps)) {
            return Ok(());
        }
        let Some(stored) = self.records.get(write.reservation()) else {
            return Ok(());
        };
        let gives = stock_effect(write) == Some(StockEffect::Gives);
        ensure!(
            !gives || write.draws == stored.view.draws,
            "a write returns units that its record does not hold: {write:?} of {:?}",
            stored.view
        );
        ensure!(
            write.counted == stored.view.counted,
            "a write counts held units otherwise than its record: {write:?} of {:?}",
            stored.view
        );
        ensure!(
            write.seats == stored.view.seats,
            "a write of other seats than its record: {write:?} of {:?}",
            stored.view
        );
        Ok(())
    }
}

/// The remaining units after an update; `None`: there are too few.
fn left_after(item: &StripeView, update: &StripeUpdate) -> Option<u64> {
    let units = |units: u64| i128::from(units);
    let left = units(item.remaining) + units(update.give) - units(update.take);
    u64::try_from(left + i128::from(update.moved)).ok()
}

/// The record after a write: a new one is put whole; of an existing one only what the transition changes.
fn written(write: &RecordWrite, stored: Option<&RecordView>, at: UnixMillis) -> RecordView {
    let Some(stored) = stored else {
        return RecordView {
            fingerprint: write.fingerprint,
            state: write.to,
            order: write.order,
            payment: payment_written(write),
            qty: write.qty,
            draws: write.draws.clone(),
            seats: write.seats.clone(),
            expires_at: write.expires_at,
            counted: write.counted,
            at,
        };
    };
    let mut view = stored.clone();
    view.state = write.to;
    if write.payment_added_to.is_none() {
        view.at = at;
    }
    view.payment = payment_written(write);
    if write.to == ReservationState::Confirmed {
        view.order = write.order;
    }
    if stock_effect(write) == Some(StockEffect::Takes) {
        view.draws = write.draws.clone();
        view.seats = write.seats.clone();
    }
    view
}

/// The units of a record that the stripes count as held.
fn counted_units(view: &RecordView) -> i64 {
    match view.state {
        ReservationState::Held if view.counted => {
            view.draws.iter().map(|draw| i64::from(draw.units)).sum()
        }
        _ => 0,
    }
}

/// The payment that a confirmed record has.
fn payment_written(write: &RecordWrite) -> Option<PaymentHash> {
    let is_confirmed = write.to == ReservationState::Confirmed;
    is_confirmed.then(|| PaymentHash::of(&write.operation.payment_intent)).flatten()
}

fn seat_written(write: &RecordWrite) -> SeatState {
    let reservation = write.reservation().clone();
    match write.to {
        ReservationState::Held => {
            SeatState::Hold { reservation, until: write.expires_at.unwrap_or_default() }
        }
        ReservationState::Confirmed => SeatState::Sold { reservation },
        _ => SeatState::Available,
    }
}

fn is(write: &RecordWrite, prefix: &str) -> bool {
    write.reservation().as_str().starts_with(prefix)
}
