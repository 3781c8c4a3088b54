//! A batch: entries that become one transaction within the store's limits.

use crate::fault::{self, Fault};
use std::collections::VecDeque;

use super::pool_state::{PoolKind, PoolState, bit};
use super::queue::Queue;
use super::stock_move::StockMove;
use super::{BatchEntry, QueueMetadata, action_budget, drawn_from};
use crate::ids::{EventId, ReservationId};
use crate::limits;
use crate::operation::{Operation, Selection, Verb};
use crate::rules::{self, StockChange};
use crate::time::{Micros, UnixMillis};
use crate::transaction::{
    CounterUpdate, EventLayout, ExpiryCondition, HeldChange, RecordWrite, RequestToken,
    ReservationState, StripeAllocations, StripeUpdate, Transaction,
};

/// Entries that go into one transaction, and entries whose deadline has passed.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<BatchEntry>,
    pub(super) late: Vec<BatchEntry>,
    /// Actions of the entries' records and seats.
    actions: usize,
    stripes: Vec<u16>,
    /// An entry needs the action of the confirmation counter.
    has_counter: bool,
    /// The first entry of the shared queue cannot be written to this stripe.
    pub(super) front_is_for_other_stripe: bool,
    /// The batch takes entries from the shared queue.
    pub(super) uses_shared_queue: bool,
    /// Foreground entries taken from the shared queue.
    pub(super) taken_from_queue: usize,
}

impl Batch {
    /// A group stays together: it was part of a valid transaction before.
    pub(super) fn of_group(entries: Vec<BatchEntry>) -> Self {
        Self { entries, ..Self::default() }
    }

    /// An empty batch whose transaction moves units to the stripe of the lane.
    pub(super) fn for_move(lane: u16, stock_move: Option<StockMove>) -> Self {
        let stripes = stock_move.map_or_else(Vec::new, |stock_move| vec![lane, stock_move.from]);
        Self { stripes, ..Self::default() }
    }

    /// Takes entries from a lane's own queue and from the shared one, in order of arrival, while one more
    /// fits; then background entries, for which a quarter of the capacity is kept.
    pub(super) fn collect(
        &mut self,
        lane: u16,
        own: &mut Queue,
        state: &mut PoolState,
        now: Micros,
    ) {
        let budget = action_budget(state.key.kind);
        // Only lanes that share the queue take from it.
        let uses_shared_queue = bit(lane) & state.serving() != 0 && !state.is_delayed(now);
        let waiting = own.len() + if uses_shared_queue { state.queue.len() } else { 0 };
        let has_background =
            !own.background.is_empty() || (uses_shared_queue && !state.queue.background.is_empty());
        let foreground = if has_background { budget - budget / 4 } else { budget };
        self.entries.reserve(waiting.min(budget));
        self.uses_shared_queue = uses_shared_queue;
        while self.take_next(lane, own, state, uses_shared_queue, foreground, now) {}
        self.fill_from_background(&mut own.background, budget, now);
        if uses_shared_queue {
            self.fill_from_background(&mut state.queue.background, budget, now);
        }
    }

    /// Takes the older of the two front entries. False: there is none, or it does not fit.
    fn take_next(
        &mut self,
        lane: u16,
        own: &mut Queue,
        state: &mut PoolState,
        uses_shared_queue: bool,
        limit: usize,
        now: Micros,
    ) -> bool {
        let sequence = |queue: &Queue| queue.foreground.front().map(|entry| entry.queue.sequence);
        let front_of_queue =
            sequence(&state.queue).filter(|_| uses_shared_queue && !self.front_is_for_other_stripe);
        let is_own = match (sequence(own), front_of_queue) {
            (None, None) => return false,
            (Some(own), Some(other)) => own < other,
            (own, _) => own.is_some(),
        };
        let popped = match is_own {
            true => own.foreground.pop_front(),
            false => state.queue.foreground.pop_front(),
        };
        let Some(mut entry) = popped else {
            return false;
        };
        let is_late = entry.deadline() <= now;
        let draws = state.key.kind == PoolKind::Stripes && state.is_for_any(&entry);
        let units = entry.write.qty;
        if draws {
            let stripe = lane ^ u16::from(fault::planted(Fault::OtherStripe));
            entry.write.draws = drawn_from(stripe, units);
        }
        let is_too_short = state.needs_remainder(&entry) && !state.may_have(lane, units);
        if !is_own && !is_late && (is_too_short || state.needs_read(&entry)) {
            // The entry is for another stripe, or for a read. The lane's own entries do not wait behind it.
            state.queue.foreground.push_front(entry);
            self.front_is_for_other_stripe = true;
            return true;
        }
        match self.take(entry, limit, now) {
            None => {
                self.taken_from_queue += usize::from(!is_own && !is_late);
                if draws && !is_late {
                    state.reserve_units(lane, units);
                }
                return true;
            }
            Some(entry) if is_own => own.foreground.push_front(entry),
            Some(entry) => state.queue.foreground.push_front(entry),
        }
        false
    }

    /// Adds an entry to the batch, or to the late entries; returns it if it does not fit.
    fn take(&mut self, entry: BatchEntry, limit: usize, now: Micros) -> Option<BatchEntry> {
        if entry.deadline() <= now {
            self.late.push(entry);
        } else if self.fits(&entry.write, limit) {
            self.entries.push(entry);
        } else {
            return Some(entry);
        }
        None
    }

    fn fill_from_background(&mut self, from: &mut VecDeque<BatchEntry>, limit: usize, now: Micros) {
        while let Some(entry) = from.pop_front() {
            if let Some(entry) = self.take(entry, limit, now) {
                from.push_front(entry);
                break;
            }
        }
    }

    /// Whether one more write fits, with the stripes that it is the first to touch; counts it in.
    fn fits(&mut self, write: &RecordWrite, limit: usize) -> bool {
        let known = self.stripes.len();
        if moves_units(write) {
            for draw in &write.draws {
                if !self.stripes.contains(&draw.stripe) {
                    self.stripes.push(draw.stripe);
                }
            }
        }
        let actions = self.actions + 1 + write.seats_moved().len();
        let has_counter = self.has_counter || write.held_change() == HeldChange::Confirm;
        let all = self.stripes.len() + actions + usize::from(has_counter);
        // A reservation that exceeds the limit for foreground entries is sent alone.
        let fits =
            all <= limit || (self.entries.is_empty() && all <= limits::TRANSACTION_ACTIONS_MAX);
        match fits {
            true => (self.actions, self.has_counter) = (actions, has_counter),
            false => self.stripes.truncate(known),
        }
        fits
    }

    pub(super) fn remove_late(&mut self, now: Micros) {
        if self.entries.iter().all(|m| m.deadline() > now) {
            return;
        }
        for entry in std::mem::take(&mut self.entries) {
            if entry.deadline() > now {
                self.entries.push(entry);
            } else {
                self.late.push(entry);
            }
        }
    }

    /// Moves the writes into a transaction; what the queue needs stays behind in the same order. `counter` is the
    /// confirmation counter for its commits of holds.
    pub(super) fn into_transaction(
        self,
        event: &EventId,
        layout: EventLayout,
        token: RequestToken,
        at: UnixMillis,
        counter: u16,
    ) -> (Vec<QueueMetadata>, Transaction) {
        let mut queue = Vec::with_capacity(self.entries.len());
        let mut records = Vec::with_capacity(self.entries.len());
        for entry in self.entries {
            queue.push(entry.queue);
            records.push(entry.write);
        }
        let transaction = Transaction {
            token,
            event: event.clone(),
            seat_keys: layout.seat_keys,
            stripes: updates(&records),
            counter: counter_update(&records, counter),
            records,
            at,
        };
        (queue, transaction)
    }
}

/// Redirects the returned units of `transaction` from the stripes to a release record.
///
/// Each expiry of a hold returns units to a stripe's item, which sales need too. So when many holds expire, an expiry
/// batch writes up to 99 of them in one transaction that touches no stripe: their units go to a *release record*, which
/// is held and overdue. The release record is then expired like any hold, so the stripe gets one return for 99
/// reservations. At every moment each unit is in the stripe or in one record. After a crash in between, the next
/// reclaimer finds the release record.
pub(super) fn add_release_record(transaction: &mut Transaction) {
    let mut draws = StripeAllocations::new();
    for draw in transaction.records.iter().flat_map(|write| &write.draws) {
        match draws.iter_mut().find(|d| d.stripe == draw.stripe) {
            Some(sum) => sum.units += draw.units,
            None => draws.push(*draw),
        }
    }
    let (id, event) =
        (ReservationId::release_record(transaction.token.0), transaction.event.clone());
    let operation = Operation::new(Verb::Hold, id, event, Selection::AsRecorded, Micros(0));
    let release_record = RecordWrite {
        fingerprint: operation.fingerprint,
        operation,
        from: None,
        due: ExpiryCondition::Any,
        to: ReservationState::Held,
        qty: draws.iter().map(|draw| draw.units).sum(),
        draws,
        seats: None,
        order: None,
        // Overdue at once.
        expires_at: Some(transaction.at),
        payment_added_to: None,
        // The stripes go on counting the units as held until the release record has expired. The holds of an expiry
        // batch are equal in this: see `PoolKind::ExpiryBatch`.
        counted: transaction.records.iter().all(|write| write.counted),
    };
    transaction.stripes.clear();
    if fault::planted(Fault::ReleaseRecordMissing) {
        return;
    }
    transaction.records.push(release_record);
}

fn moves_units(write: &RecordWrite) -> bool {
    matches!(rules::stock_change(write.from, write.to), StockChange::Reserve | StockChange::Return)
}

/// One update per stripe, with the sums of what the writes take and return.
fn updates(writes: &[RecordWrite]) -> Vec<StripeUpdate> {
    let mut updates: Vec<StripeUpdate> = Vec::with_capacity(1);
    for write in writes {
        let (takes, gives) = match rules::stock_change(write.from, write.to) {
            StockChange::Reserve => (1, 0),
            StockChange::Return => (0, 1 + u64::from(fault::planted(Fault::UnitsReturnedTwice))),
            StockChange::Keep | StockChange::None => continue,
        };
        let holds = match write.held_change() {
            HeldChange::Add => 1,
            HeldChange::Remove => -1,
            HeldChange::None | HeldChange::Confirm => 0,
        };
        for draw in &write.draws {
            let units = u64::from(draw.units);
            let (take, give) = (takes * units, gives * units);
            let held = holds * i64::from(draw.units);
            match updates.iter_mut().find(|u| u.stripe == draw.stripe) {
                Some(update) => {
                    update.take += take;
                    update.give += give;
                    update.held += held;
                }
                None => {
                    let stripe = draw.stripe;
                    updates.push(StripeUpdate {
                        stripe,
                        take,
                        give,
                        held,
                        ..StripeUpdate::default()
                    });
                }
            }
        }
    }
    updates
}

/// The update of the confirmation counter, if the writes confirm counted units.
fn counter_update(writes: &[RecordWrite], counter: u16) -> Option<CounterUpdate> {
    let confirmed = writes.iter().filter(|write| write.held_change() == HeldChange::Confirm);
    let units: u64 = confirmed.map(|write| u64::from(write.qty)).sum();
    let times = 1 + u64::from(fault::planted(Fault::ConfirmCountedTwice));
    (units > 0).then_some(CounterUpdate { counter, units: times * units })
}
