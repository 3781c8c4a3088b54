//! The lanes of one event on one shard that share a queue: admission control, and which lane is next.
//!
//! An entry that takes units may use any stripe, so it waits until any lane is free, not for the transaction of one
//! lane. Its stripe is fixed when it is put into a transaction. An entry that returns units belongs to the stripe that
//! its record names, and waits there.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::Lane;
use super::batch_entry::{BatchEntry, WriteIntent};
use super::output::PoolContext;
use super::pool_state::{LaneSettings, PoolKey, PoolKind, PoolState, SoldOutHint, bit};
use crate::answer::Rejection;
use crate::limits;
use crate::operation::Operation;
use crate::rules::StockChange;
use crate::stripe_ownership::StripeSet;
use crate::time::Micros;
use crate::transaction::{EventLayout, Transaction, TransactionOutcome};

/// Decision about the first entry of the queue.
enum Next {
    Lane(u16),
    /// No lane that may write the entry is free.
    Wait,
    /// All stripes of this shard are known to have too few units: all stripes must be read.
    NeedsRead,
}

/// The lanes of one event on this shard, and their shared queue.
#[derive(Debug)]
pub struct Pool {
    pub(super) state: PoolState,
    stripes: StripeSet,
    pub(super) lanes: BTreeMap<u16, Lane>,
    /// The lane after the one that last took from the queue.
    cursor: u32,
    timers: BTreeSet<(Micros, u16)>,
    /// Number of the next entry.
    next_sequence: u64,
    pub(super) is_reading_stripes: bool,
    /// All units that the last read of all stripes showed are planned for entries in lanes.
    pub(super) is_all_planned: bool,
    /// When a full queue is next searched for entries whose deadline has passed.
    sweep_due: Micros,
    /// End of short-queue mode: see [`Pool::exceeds_short_queue`].
    short_queue_until: Micros,
}

impl Pool {
    pub fn new(
        key: PoolKey,
        stripes: StripeSet,
        layout: EventLayout,
        settings: LaneSettings,
    ) -> Self {
        let owned = lanes_of(key.kind, stripes, layout);
        let mut state = PoolState::new(key, layout, settings, owned);
        if state.key.kind == PoolKind::Stripes {
            state.shared = stripes.shared;
        }
        state.processes = stripes.processes;
        Self {
            state,
            stripes,
            lanes: BTreeMap::new(),
            cursor: 0,
            timers: BTreeSet::new(),
            next_sequence: 0,
            is_reading_stripes: false,
            is_all_planned: false,
            sweep_due: Micros(0),
            short_queue_until: Micros(0),
        }
    }

    pub(crate) fn key(&self) -> &PoolKey {
        &self.state.key
    }

    /// The layout of the event, as last read.
    pub(crate) fn layout(&self) -> EventLayout {
        self.state.layout
    }

    /// Sets the stripes that the queue is sold from. Entries that belong to other stripes stay in their lanes. A shard
    /// that has no stripe any more sells what is queued from those that it had.
    pub(crate) fn set_stripes(&mut self, stripes: StripeSet) {
        self.stripes = match stripes.owned {
            0 => StripeSet { shared: self.stripes.owned, ..self.stripes },
            _ => stripes,
        };
        self.state.shared = self.stripes.shared;
        self.state.processes = self.stripes.processes;
        self.set_layout(self.state.layout);
        for lane in self.lanes.values_mut().filter(|lane| bit(lane.index) & self.state.owned == 0) {
            lane.incoming = None;
        }
    }

    /// Sets the number of processes among which the calls for the event are divided.
    pub(crate) fn set_processes(&mut self, processes: u16) {
        self.state.processes = processes;
    }

    /// The number of processes, and whether other processes write the stripes of these lanes.
    #[cfg(test)]
    pub(crate) fn sharing(&self) -> (u16, bool) {
        (self.state.processes, self.state.shared != 0)
    }

    /// Lanes that have been used.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Whether nothing is queued, in flight or waited for: the pool can be dropped.
    pub fn is_idle(&self) -> bool {
        self.state.queue.is_empty()
            && self.state.awaiting_read.is_empty()
            && !self.is_reading_stripes
            && self.lanes.values().all(Lane::is_idle)
    }

    /// Operations in the pool that have not been answered.
    pub fn depth(&self) -> usize {
        let own: usize = self.lanes.values().map(Lane::depth).sum();
        own + self.state.queue.len() + self.state.awaiting_read.len()
    }

    /// Callers that wait in the shared queue, or for a read of all stripes; not those that only one lane can serve.
    pub(crate) fn waiting(&self) -> usize {
        self.state.queue.foreground.len() + self.state.awaiting_read.len()
    }

    /// When [`Pool::wake`] is next due.
    pub fn wake_at(&self) -> Option<Micros> {
        let lane = self.timers.first().map(|(at, _)| *at);
        match (lane, self.state.delay_ends()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// What the last read of all stripes shows for a call for `units` that arrived at `arrived`.
    pub(crate) fn sold_out_hint(&self, units: u32, arrived: Micros) -> SoldOutHint {
        self.state.sold_out_hint(units, arrived)
    }

    /// An operator may have added stock.
    pub(crate) fn discard_sold_out_hint(&mut self, now: Micros) {
        self.state.discard_sold_out_hint(now);
    }

    /// Queues an operation, and dispatches if a lane that may write it is free and the queue is not delayed.
    ///
    /// The same reservation must not be submitted again before it has left the pool, nor another one with
    /// one of its seats.
    pub fn submit(&mut self, operation: Operation, intent: WriteIntent, cx: &mut PoolContext<'_>) {
        let mut entry = BatchEntry::new(operation, intent, self.next_sequence, cx.now.mono);
        self.next_sequence += 1;
        if entry.actions() > limits::TRANSACTION_ACTIONS_MAX {
            // No transaction would ever take the entry, nor anything behind it in the queue.
            cx.out.reject(entry, Rejection::Internal);
            return;
        }
        let own_lane = self.own_lane(&entry);
        let now = cx.now.mono;
        if !entry.is_background() && self.is_full(own_lane) && self.sweep_due <= now {
            self.reject_late(cx);
        }
        let full = match (entry.is_background(), own_lane) {
            (false, _) => self.is_full(own_lane),
            (true, Some(stripe)) => is_background_full(&self.lane(stripe).own),
            (true, None) => is_background_full(&self.state.queue),
        };
        if full {
            cx.counters.rejected_overloaded += u64::from(!entry.is_background());
            if own_lane.is_none() && !entry.is_background() {
                self.enter_short_queue_mode(now);
            }
            cx.out.reject(entry, Rejection::overloaded());
            return;
        }
        if self.is_stuck(own_lane, now) {
            cx.out.reject(entry, Rejection::store_unavailable());
            return;
        }
        if own_lane.is_none() {
            let ahead = self.state.queue.foreground.len();
            let expected = self.state.latency.expected_wait(ahead, now);
            let is_too_late =
                expected.is_some_and(|wait| self.would_miss_deadline(wait, &entry, now));
            let exceeds_short_queue = self.exceeds_short_queue(&entry, now);
            if is_too_late || exceeds_short_queue {
                cx.counters.rejected_overloaded += 1;
                cx.counters.rejected_by_admission += 1;
                let short_queue_deadline =
                    Micros(limits::SHORT_QUEUE_DEADLINE_MIN.as_micros() as u64);
                if exceeds_short_queue || entry.deadline().since(now) >= short_queue_deadline {
                    self.enter_short_queue_mode(now);
                }
                let wait = expected.unwrap_or_default();
                cx.out.reject(entry, Rejection::overloaded_for(wait));
                return;
            }
            entry.queue.expected_wait = expected.unwrap_or_default();
        }
        let queue = match own_lane {
            Some(stripe) => &mut self.lane(stripe).own,
            None => &mut self.state.queue,
        };
        match entry.is_background() {
            true => queue.background.push_back(entry),
            false => queue.foreground.push_back(entry),
        }
        if let Some(stripe) = own_lane {
            self.with_lane(stripe, |lane, state| lane.dispatch(state, cx));
        }
        self.dispatch_queue(cx);
    }

    /// Handles the outcome of the transaction that a lane has in flight.
    pub fn handle_outcome(
        &mut self,
        lane: u16,
        outcome: TransactionOutcome,
        cx: &mut PoolContext<'_>,
    ) {
        if !self.lanes.contains_key(&lane) {
            return;
        }
        self.with_lane(lane, |lane, state| lane.handle_outcome(outcome, state, cx));
        self.set_layout(self.state.layout);
        self.request_read(cx);
        self.dispatch_queue(cx);
    }

    /// The transaction of a lane whose outcome is unknown.
    pub fn unresolved(&self, lane: u16) -> Option<Rc<Transaction>> {
        self.lanes.get(&lane)?.unresolved()
    }

    /// Does what is due: ends pauses, and rejects what waits behind transactions that stay unresolved.
    pub fn wake(&mut self, cx: &mut PoolContext<'_>) {
        let now = cx.now.mono;
        while let Some((at, index)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            self.with_lane(index, |lane, state| lane.wake(state, cx));
        }
        if self.is_stuck(None, now) {
            for entry in self.state.queue.take_all() {
                cx.out.reject(entry, Rejection::store_unavailable());
            }
        }
        self.dispatch_queue(cx);
    }

    /// Whether all lanes that may write an entry are stuck: its only lane, or those that serve the queue.
    fn is_stuck(&self, own_lane: Option<u16>, now: Micros) -> bool {
        let is_stuck = |index| self.lanes.get(&index).is_some_and(|lane| lane.is_stuck(now));
        match own_lane {
            Some(own_lane) => is_stuck(own_lane),
            None => {
                let owned = self.state.owned;
                let mut lanes = (0..limits::STRIPES_MAX).filter(|index| owned & bit(*index) != 0);
                // Most of the time a lane is free.
                self.state.busy & owned == owned && lanes.all(is_stuck)
            }
        }
    }

    /// Whether an entry with this expected wait would most likely miss its deadline. False for returns, for
    /// background entries and for entries that find a lane free: admission control does not concern them.
    fn would_miss_deadline(&self, wait: Micros, entry: &BatchEntry, now: Micros) -> bool {
        let gives = entry.stock_change() == StockChange::Return;
        if self.has_lane_free() || gives || entry.is_background() {
            return false;
        }
        let latency = &self.state.latency;
        let done = now.plus(latency.wait_bound(wait)).plus(latency.transaction_time_bound());
        done > entry.deadline()
    }

    /// Starts or extends short-queue mode.
    fn enter_short_queue_mode(&mut self, now: Micros) {
        self.short_queue_until = now.plus(Micros(limits::SHORT_QUEUE_DURATION.as_micros() as u64));
    }

    /// Whether the queue already fills the next transaction while more entries arrive than can be served.
    ///
    /// While all entries can be served in time, a long queue is a burst, and no entry is rejected. Once entries are
    /// rejected, a short queue serves as many entries as a long one, and serves them earlier. So in short-queue
    /// mode, entries that find a full transaction in the queue are rejected too. Entries in the queue stay.
    fn exceeds_short_queue(&self, entry: &BatchEntry, now: Micros) -> bool {
        let takes = self.state.key.kind == PoolKind::Stripes
            && entry.stock_change() == StockChange::Reserve;
        if now >= self.short_queue_until || !takes {
            return false;
        }
        self.state.queue.foreground.len() >= limits::BATCH_ENTRIES_MAX && !self.has_lane_free()
    }

    /// Whether a lane that takes from the queue could send at once.
    fn has_lane_free(&self) -> bool {
        self.state.serving() & !self.state.busy != 0
    }

    /// The only lane that may write an entry, if there is such a lane.
    fn own_lane(&self, entry: &BatchEntry) -> Option<u16> {
        if self.state.is_for_any(entry) {
            return None;
        }
        let draws = &entry.write.draws;
        Some(draws.first().map_or(0, |draw| draw.stripe))
    }

    fn is_full(&self, own_lane: Option<u16>) -> bool {
        let own = own_lane.and_then(|own_lane| self.lanes.get(&own_lane));
        match own_lane {
            Some(_) => own.map_or(0, Lane::waiting) >= limits::LANE_QUEUE_MAX,
            None => self.waiting() >= limits::LANE_QUEUE_MAX,
        }
    }

    /// Sets the layout of the event.
    pub(super) fn set_layout(&mut self, layout: EventLayout) {
        self.state.layout = layout;
        self.state.owned = lanes_of(self.state.key.kind, self.stripes, layout);
    }

    fn lane(&mut self, index: u16) -> &mut Lane {
        self.lanes.entry(index).or_insert_with(|| Lane::new(index))
    }

    /// Calls a lane, and updates whether it is free and when its timer is due.
    pub(super) fn with_lane(&mut self, index: u16, act: impl FnOnce(&mut Lane, &mut PoolState)) {
        let lane = self.lanes.entry(index).or_insert_with(|| Lane::new(index));
        let old_timer = lane.timer;
        act(lane, &mut self.state);
        match lane.is_free() {
            true => self.state.busy &= !bit(index),
            false => self.state.busy |= bit(index),
        }
        lane.timer = lane.wake_at();
        // A timer that has gone off is removed already, and may be set again.
        if let Some(old) = old_timer {
            self.timers.remove(&(old, index));
        }
        if let Some(due) = lane.timer {
            self.timers.insert((due, index));
        }
    }

    /// Gives the queue to the free lanes, one transaction each.
    pub(super) fn dispatch_queue(&mut self, cx: &mut PoolContext<'_>) {
        self.state.clear_ended_delays(cx.now.mono);
        let mut requests_read = false;
        while !self.state.queue.is_empty() {
            match self.next(cx.now.mono) {
                Next::Lane(index) => {
                    let len_before = self.state.queue.len();
                    self.with_lane(index, |lane, state| lane.dispatch(state, cx));
                    self.cursor = (u32::from(index) + 1) % u64::BITS;
                    let is_unsent = self.state.busy & bit(index) == 0;
                    if is_unsent && self.state.queue.len() == len_before {
                        break;
                    }
                }
                Next::Wait => break,
                Next::NeedsRead => {
                    self.state.awaiting_read.extend(self.state.queue.foreground.pop_front());
                    requests_read = true;
                }
            }
        }
        if self.state.queue.foreground.is_empty() {
            self.state.latency.reset_window();
        }
        // Planned entries may have missed their deadlines, without a transaction whose outcome would request the read.
        if requests_read || self.is_all_planned {
            self.request_read_for_arrivals(cx);
        }
    }

    fn next(&mut self, now: Micros) -> Next {
        let serving = self.state.serving();
        let ready = serving & !self.state.busy;
        let front = self.state.queue.foreground.front();
        if front.is_some_and(|entry| self.state.needs_read(entry)) {
            return Next::NeedsRead;
        }
        if self.state.is_delayed(now) {
            return Next::Wait;
        }
        let Some(units) = front.filter(|m| self.state.needs_remainder(m)).map(|m| m.write.qty)
        else {
            return self.next_in_rotation(ready).map_or(Next::Wait, Next::Lane);
        };
        let mut scarce = self.state.scarce();
        if scarce != 0 {
            self.state.evict_old_remainders(now);
            scarce = self.state.scarce();
        }
        if let Some(lane) = self.next_in_rotation(ready & !scarce) {
            return Next::Lane(lane);
        }
        let lanes_with_units = |state: &PoolState, lanes: u64| {
            let lanes = (0..limits::STRIPES_MAX).filter(|index| lanes & bit(*index) != 0);
            let enough = lanes.filter(|index| state.may_have(*index, units));
            enough.fold(0, |bits, index| bits | bit(index))
        };
        match self.next_in_rotation(lanes_with_units(&self.state, ready & scarce)) {
            Some(lane) => Next::Lane(lane),
            None if lanes_with_units(&self.state, serving & self.state.busy) != 0 => Next::Wait,
            None if self.state.owned & self.state.yielding != 0 => {
                // Use the lanes that yielded the queue, too.
                self.state.yielding = 0;
                self.next(now)
            }
            None => Next::NeedsRead,
        }
    }

    /// The next of these lanes in rotation, so that stripes are used evenly.
    fn next_in_rotation(&self, lanes: u64) -> Option<u16> {
        if lanes == 0 {
            return None;
        }
        let ahead = lanes.rotate_right(self.cursor).trailing_zeros();
        Some(((self.cursor + ahead) % u64::BITS) as u16)
    }

    /// Rejects entries whose deadline has passed, in queues and waiting for a read.
    fn reject_late(&mut self, cx: &mut PoolContext<'_>) {
        let now = cx.now.mono;
        self.sweep_due = now.plus(Micros(limits::LANE_SWEEP_EVERY.as_micros() as u64));
        for lane in self.lanes.values_mut() {
            lane.reject_late(cx);
        }
        let mut late = Vec::new();
        let short = std::mem::take(&mut self.state.awaiting_read);
        for entry in short {
            match entry.deadline() <= now {
                true => late.push(entry),
                false => self.state.awaiting_read.push(entry),
            }
        }
        self.state.queue.remove_late(now, &mut late);
        let why = self.lateness_rejection();
        for entry in late {
            cx.counters.deadline_missed += 1;
            cx.out.reject(entry, why.clone());
        }
    }

    /// If the store made every lane back off, the store is the reason for a missed deadline.
    fn lateness_rejection(&self) -> Rejection {
        let mut lanes = self.lanes.values();
        let back_off = |lane: &Lane| lane.consecutive_backoffs > 0 && lane.in_flight.is_none();
        if !self.lanes.is_empty() && lanes.all(back_off) {
            Rejection::store_busy()
        } else {
            Rejection::DeadlineExceeded
        }
    }
}

fn is_background_full(queue: &super::Queue) -> bool {
    queue.background.len() >= limits::LANE_BACKGROUND_MAX
}

/// The lanes that take from the queue, one bit each.
fn lanes_of(kind: PoolKind, stripes: StripeSet, layout: EventLayout) -> u64 {
    let first = |lanes: u16| (0..lanes).fold(0, |bits, index| bits | bit(index));
    match kind {
        PoolKind::Unstriped if layout.is_seated() => first(limits::SEAT_LANES),
        PoolKind::ContendedSeats => first(limits::SEAT_LANES),
        PoolKind::Unstriped => first(limits::UNSTRIPED_LANES),
        PoolKind::ExpiryBatch { .. } => first(limits::EXPIRY_BATCH_LANES),
        PoolKind::Stripes => {
            match stripes.owned & first(layout.stripes.clamp(1, limits::STRIPES_MAX)) {
                // No reservation is forwarded to a shard without a stripe. If one arrives after a
                // change of the layout or of the members, the first stripe serves it.
                0 => bit(0),
                owned => owned,
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::answer::Answer;
    use crate::counters::Counters;
    use crate::ids::SeatId;
    use crate::lane::PoolOutput;
    use crate::operation::{Selection, Verb};
    use crate::rules::{self, Decision, LateCommit};
    use crate::time::{Now, UnixMillis};

    /// Calls the pool at 1 ms, and returns its output.
    pub(in crate::lane) fn call(
        pool: &mut Pool,
        act: impl FnOnce(&mut Pool, &mut PoolContext<'_>),
    ) -> PoolOutput {
        let mut out = PoolOutput::default();
        let mut cx = PoolContext {
            writer: 0,
            now: Now { mono: Micros(1_000), unix: UnixMillis(1) },
            rng: &mut SmallRng::seed_from_u64(1),
            counters: &mut Counters::default(),
            out: &mut out,
        };
        act(pool, &mut cx);
        out
    }

    /// Submits a direct commit of so many seats: one action more than seats.
    fn submit(pool: &mut Pool, number: usize, seats: usize) -> PoolOutput {
        let seat = |seat| -> SeatId { format!("s-{number}-{seat}").parse().expect("legal") };
        let seats = (0..seats).map(seat).collect();
        let reservation = format!("r-{number}").parse().expect("legal");
        let selection = Selection::Seats(seats);
        let seats = match &selection {
            Selection::Seats(seats) => Some(seats.clone()),
            _ => None,
        };
        let event = "evt".parse().expect("legal");
        let operation =
            Operation::new(Verb::Commit, reservation, event, selection, Micros(1_000_000));
        let late = LateCommit::default();
        let Decision::Write(transition) = rules::decide(&operation, None, UnixMillis(1), late)
        else {
            panic!("there is no record");
        };
        let intent = WriteIntent { transition, record: None, seats };
        call(pool, |pool, cx| pool.submit(operation, intent, cx))
    }

    #[test]
    fn an_entry_that_fits_no_transaction_is_rejected_and_the_queue_goes_on() {
        let key = PoolKey { event: "evt".parse().expect("legal"), kind: PoolKind::Unstriped };
        let layout = EventLayout { stripes: 1, seat_keys: 1, closed: false };
        let own = StripeSet::every(0, 1);
        let mut pool = Pool::new(key, own, layout, LaneSettings::default());
        let max = limits::TRANSACTION_ACTIONS_MAX;

        // The largest that fits is sent alone.
        let out = submit(&mut pool, 0, max - 1);
        let (first, transaction) = &out.send[0];
        assert_eq!((transaction.action_count(), out.completions.len()), (max, 0));
        let lanes = usize::from(limits::SEAT_LANES);
        for number in 1..lanes {
            submit(&mut pool, number, max - 1);
        }
        // All lanes are busy, and two entries wait.
        let waiting = [lanes, lanes + 1];
        for number in waiting {
            let out = submit(&mut pool, number, 1);
            assert!(out.send.is_empty() && out.completions.is_empty());
        }
        let out = submit(&mut pool, lanes + 2, max);
        assert_eq!(out.completions.len(), 1);
        assert_eq!(out.completions[0].answer, Answer::Rejected(Rejection::Internal));
        submit(&mut pool, lanes + 3, 1);

        let committed = TransactionOutcome::Committed;
        let out = call(&mut pool, |pool, cx| pool.handle_outcome(*first, committed, cx));
        let (_, transaction) = &out.send[0];
        let sent = transaction.records.iter().map(|write| write.operation.reservation.as_str());
        let expected = [waiting[0], waiting[1], lanes + 3].map(|number| format!("r-{number}"));
        assert_eq!(sent.collect::<Vec<_>>(), expected);
    }
}
