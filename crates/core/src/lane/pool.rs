//! The lanes of one event on one shard that share a queue: admission control, and which lane is next.
//!
//! An entry that takes units may use any stripe, so it waits until ANY lane is free, not for the
//! transaction of one lane. Its stripe is fixed when it is put into a transaction. An entry that
//! returns units belongs to the stripe that its record names, and waits there.

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
use crate::time::Micros;
use crate::transaction::{EventLayout, Transaction, TransactionOutcome};

/// The stripes of an event that a shard sells from: `first`, and then every `step`-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripeShare {
    pub first: u16,
    /// At least 1.
    pub step: u16,
}

/// Where the front of the queue goes.
enum Next {
    Lane(u16),
    /// No lane that may serve it is free.
    Wait,
    /// No stripe here is known to have capacity for it.
    Short,
}

/// See the module's head.
#[derive(Debug)]
pub struct Pool {
    pub(super) state: PoolState,
    share: StripeShare,
    pub(super) lanes: BTreeMap<u16, Lane>,
    /// The lane after the one that took from the queue last.
    cursor: u32,
    timers: BTreeSet<(Micros, u16)>,
    /// Number of the next entry.
    number: u64,
    pub(super) reading: bool,
    /// When a full queue is next searched for entries whose deadline has passed.
    sweep_due: Micros,
    /// End of short-queue mode: see [`Pool::exceeds_short_queue`].
    short_queue_until: Micros,
}

impl Pool {
    pub fn new(
        key: PoolKey,
        share: StripeShare,
        shape: EventLayout,
        settings: LaneSettings,
    ) -> Self {
        let mine = lanes_of(key.kind, share, shape);
        Self {
            state: PoolState::new(key, shape, settings, mine),
            share,
            lanes: BTreeMap::new(),
            cursor: 0,
            timers: BTreeSet::new(),
            number: 0,
            reading: false,
            sweep_due: Micros(0),
            short_queue_until: Micros(0),
        }
    }

    pub(crate) fn key(&self) -> &PoolKey {
        &self.state.key
    }

    /// Lanes that have been used.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Whether nothing is queued, in flight or waited for: the pool can be dropped.
    pub fn is_idle(&self) -> bool {
        self.state.queue.is_empty()
            && self.state.awaiting_read.is_empty()
            && !self.reading
            && self.lanes.values().all(Lane::is_idle)
    }

    /// Operations in the pool that have not been answered.
    pub fn depth(&self) -> usize {
        let own: usize = self.lanes.values().map(Lane::depth).sum();
        own + self.state.queue.len() + self.state.awaiting_read.len()
    }

    /// Callers that wait for any of the lanes, or for a read.
    pub(crate) fn waiting(&self) -> usize {
        self.state.queue.foreground.len() + self.state.awaiting_read.len()
    }

    /// When [`Pool::wake`] is next due.
    pub fn wake_at(&self) -> Option<Micros> {
        let lane = self.timers.first().map(|(at, _)| *at);
        match (lane, self.state.pause_ends()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// What the last read of all stripes shows for a call for `units` that arrived at `arrived`.
    pub(crate) fn sold_out_hint(&self, units: u32, arrived: Micros) -> SoldOutHint {
        self.state.sold_out_hint(units, arrived)
    }

    /// An operator may have added stock.
    pub(crate) fn reopen(&mut self, now: Micros) {
        self.state.reopen(now);
    }

    /// Queues an operation, and dispatches at once if a lane that may write it is free.
    ///
    /// The same reservation must not be submitted again before it has left the pool, nor another one with
    /// one of its seats.
    pub fn submit(&mut self, operation: Operation, plan: WriteIntent, cx: &mut PoolContext<'_>) {
        let mut entry = BatchEntry::new(operation, plan, self.number, cx.now.mono);
        self.number += 1;
        let home = self.own_lane(&entry);
        let now = cx.now.mono;
        if !entry.is_background() && self.is_full(home) && self.sweep_due <= now {
            self.reject_expired(cx);
        }
        let full = match (entry.is_background(), home) {
            (false, _) => self.is_full(home),
            (true, Some(stripe)) => is_background_full(&self.lane(stripe).own),
            (true, None) => is_background_full(&self.state.queue),
        };
        if full {
            cx.counters.rejected_overloaded += u64::from(!entry.is_background());
            if home.is_none() && !entry.is_background() {
                self.enter_short_queue_mode(now);
            }
            cx.out.reject(entry, Rejection::overloaded());
            return;
        }
        if self.is_stuck(home, now) {
            cx.out.reject(entry, Rejection::store_unavailable());
            return;
        }
        if home.is_none() {
            let ahead = self.state.queue.foreground.len();
            let expected = self.state.latency.expected_wait(ahead, now);
            let is_too_late =
                expected.is_some_and(|wait| self.would_miss_deadline(wait, &entry, now));
            let exceeds_short_queue = self.exceeds_short_queue(&entry, now);
            if is_too_late || exceeds_short_queue {
                cx.counters.rejected_overloaded += 1;
                cx.counters.rejected_by_admission += 1;
                let usual = Micros(limits::USUAL_DEADLINE_MIN.as_micros() as u64);
                if exceeds_short_queue || entry.deadline().since(now) >= usual {
                    self.enter_short_queue_mode(now);
                }
                let wait = expected.unwrap_or_default();
                cx.out.reject(entry, Rejection::overloaded_for(wait));
                return;
            }
            entry.queue.expected = expected.unwrap_or_default();
        }
        let queue = match home {
            Some(stripe) => &mut self.lane(stripe).own,
            None => &mut self.state.queue,
        };
        match entry.is_background() {
            true => queue.background.push_back(entry),
            false => queue.foreground.push_back(entry),
        }
        if let Some(stripe) = home {
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
        self.set_shape(self.state.shape);
        self.want_read(cx);
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
    fn is_stuck(&self, home: Option<u16>, now: Micros) -> bool {
        let is_stuck = |index| self.lanes.get(&index).is_some_and(|lane| lane.is_stuck(now));
        match home {
            Some(home) => is_stuck(home),
            None => {
                let owned = self.state.owned;
                let mut lanes = (0..limits::STRIPES_MAX).filter(|index| owned & bit(*index) != 0);
                // Most of the time a lane is free.
                self.state.busy & owned == owned && lanes.all(is_stuck)
            }
        }
    }

    /// Whether an entry with this expected wait would most likely miss its deadline. Returns are never
    /// rejected, nor are entries that find a lane free.
    fn would_miss_deadline(&self, wait: Micros, entry: &BatchEntry, now: Micros) -> bool {
        let gives = entry.movement() == StockChange::Return;
        if self.has_lane_free() || gives || entry.is_background() {
            return false;
        }
        let latency = &self.state.latency;
        let done = now.plus(latency.wait_bound(wait)).plus(latency.transaction_time_bound());
        done > entry.deadline()
    }

    /// More entries arrive than can be served: some are rejected, and not because of their own deadlines.
    fn enter_short_queue_mode(&mut self, now: Micros) {
        self.short_queue_until = now.plus(Micros(limits::SHORT_QUEUE_DURATION.as_micros() as u64));
    }

    /// Whether the queue already fills the next transaction while more entries arrive than can be served.
    ///
    /// As long as all entries can be served, a long queue is a burst, and waiting pays off. Once entries
    /// are rejected, it does not: a short queue serves as many as a long one, only sooner. So in
    /// short-queue mode, entries that find a full transaction in the queue are rejected too. What is in the
    /// queue stays.
    fn exceeds_short_queue(&self, entry: &BatchEntry, now: Micros) -> bool {
        let takes =
            self.state.key.kind == PoolKind::Stripes && entry.movement() == StockChange::Reserve;
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

    fn is_full(&self, home: Option<u16>) -> bool {
        let own = home.and_then(|home| self.lanes.get(&home));
        match home {
            Some(_) => own.map_or(0, Lane::waiting) >= limits::LANE_QUEUE_MAX,
            None => self.waiting() >= limits::LANE_QUEUE_MAX,
        }
    }

    /// Sets the layout of the event.
    pub(super) fn set_shape(&mut self, shape: EventLayout) {
        self.state.shape = shape;
        self.state.owned = lanes_of(self.state.key.kind, self.share, shape);
    }

    fn lane(&mut self, index: u16) -> &mut Lane {
        self.lanes.entry(index).or_insert_with(|| Lane::new(index))
    }

    /// Calls a lane, and updates whether it is free and when its timer is due.
    pub(super) fn with_lane(&mut self, index: u16, act: impl FnOnce(&mut Lane, &mut PoolState)) {
        let lane = self.lanes.entry(index).or_insert_with(|| Lane::new(index));
        let before = lane.timer;
        act(lane, &mut self.state);
        match lane.is_free() {
            true => self.state.busy &= !bit(index),
            false => self.state.busy |= bit(index),
        }
        lane.timer = lane.wake_at();
        // A timer that has gone off is removed already, and may be set again.
        if let Some(old) = before {
            self.timers.remove(&(old, index));
        }
        if let Some(due) = lane.timer {
            self.timers.insert((due, index));
        }
    }

    /// Gives the queue to the free lanes, one transaction each.
    pub(super) fn dispatch_queue(&mut self, cx: &mut PoolContext<'_>) {
        self.state.end_pause(cx.now.mono);
        let mut newly_short = false;
        while !self.state.queue.is_empty() {
            match self.next(cx.now.mono) {
                Next::Lane(index) => {
                    let before = self.state.queue.len();
                    self.with_lane(index, |lane, state| lane.dispatch(state, cx));
                    self.cursor = (u32::from(index) + 1) % u64::BITS;
                    let is_stuck = self.state.busy & bit(index) == 0;
                    if is_stuck && self.state.queue.len() == before {
                        break;
                    }
                }
                Next::Wait => break,
                Next::Short => {
                    self.state.awaiting_read.extend(self.state.queue.foreground.pop_front());
                    newly_short = true;
                }
            }
        }
        if self.state.queue.foreground.is_empty() {
            self.state.latency.reset_window();
        }
        if newly_short {
            self.want_read(cx);
        }
    }

    fn next(&mut self, now: Micros) -> Next {
        let serving = self.state.serving();
        let ready = serving & !self.state.busy;
        let front = self.state.queue.foreground.front();
        if front.is_some_and(|entry| self.state.needs_read(entry)) {
            return Next::Short;
        }
        if self.state.is_paced(now) {
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
        let may_have = |state: &PoolState, lanes: u64| {
            let lanes = (0..limits::STRIPES_MAX).filter(|index| lanes & bit(*index) != 0);
            let enough = lanes.filter(|index| state.may_have(*index, units));
            enough.fold(0, |bits, index| bits | bit(index))
        };
        match self.next_in_rotation(may_have(&self.state, ready & scarce)) {
            Some(lane) => Next::Lane(lane),
            None if may_have(&self.state, serving & self.state.busy) != 0 => Next::Wait,
            None if self.state.owned & self.state.yielding != 0 => {
                // The lanes that yielded the queue are needed after all.
                self.state.yielding = 0;
                self.next(now)
            }
            None => Next::Short,
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
    fn reject_expired(&mut self, cx: &mut PoolContext<'_>) {
        let now = cx.now.mono;
        self.sweep_due = now.plus(Micros(limits::LANE_SWEEP_EVERY.as_micros() as u64));
        for lane in self.lanes.values_mut() {
            lane.reject_expired(cx);
        }
        let mut gone = Vec::new();
        let short = std::mem::take(&mut self.state.awaiting_read);
        for entry in short {
            match entry.deadline() <= now {
                true => gone.push(entry),
                false => self.state.awaiting_read.push(entry),
            }
        }
        self.state.queue.reject_expired(now, &mut gone);
        let why = self.lateness_rejection();
        for entry in gone {
            cx.counters.expired += 1;
            cx.out.reject(entry, why.clone());
        }
    }

    /// If the store made every lane back off, the store is the reason for a missed deadline.
    fn lateness_rejection(&self) -> Rejection {
        let mut lanes = self.lanes.values();
        let back_off = |lane: &Lane| lane.attempts > 0 && lane.flight.is_none();
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
fn lanes_of(kind: PoolKind, share: StripeShare, shape: EventLayout) -> u64 {
    let first = |lanes: u16| (0..lanes).fold(0, |bits, index| bits | bit(index));
    match kind {
        PoolKind::Unstriped if shape.is_seated() => first(limits::SEAT_LANES),
        PoolKind::Unstriped => first(limits::UNSTRIPED_LANES),
        PoolKind::ExpiryBatch(_) => first(limits::EXPIRY_BATCH_LANES),
        PoolKind::Stripes => {
            let stripes = shape.stripes.clamp(1, limits::STRIPES_MAX);
            let mine = (share.first..stripes).step_by(usize::from(share.step.max(1)));
            match mine.fold(0, |bits, index| bits | bit(index)) {
                // A shard without a stripe is sent nothing to sell; what comes all the same is taken from the
                // first.
                0 => bit(0),
                mine => mine,
            }
        }
    }
}
