//! Cached stock of the events that are queried, so that a query costs no read.
//!
//! A query is answered from a snapshot whose read began at most the maximum age before the query arrived. The writes of
//! this shard since then are included as follows.
//!
//! - Finished before the read began: the strong read has seen the write.
//! - First sent after the read had ended: the read has not seen the write, so it is added.
//! - Otherwise the read may or may not have seen the write: it is uncertain. A stripe then has between
//!   `low` and `high` units; a reservation lowers `low`, a return raises `high`. The same applies to
//!   what another shard answered for this one, and to a write whose outcome was lost.
//!
//! The held units of an event have the same bounds, if the read included the confirmation counters. Only a status needs
//! them.
//!
//! All figures of a stripe leave out the units that were moved between stripes, so a move changes none of them; see
//! [`StockTotals`].
//!
//! What other processes wrote since the read is not included: with several processes, an answer may be wrong by what
//! they sold and got back within the age of the snapshot.
//!
//! A unit that this shard sold before the query is never reported as free: `low` is reported. Uncertainty alone never
//! reports a shortage: where `low` and `high` give different answers, the snapshot does not answer the query, which
//! waits for a read that begins after it.
//!
//! A snapshot decides nothing about a sale. Not here: reading, and when to read.

use crate::fault::{self, Fault};
use std::num::NonZeroUsize;

use lru::LruCache;
use smallvec::SmallVec;

use super::answer::Rejection;
use super::ids::EventId;
use super::query::{EventStatus, Query, QueryResult, StockCounts};
use super::time::{Micros, Now, UnixMillis};
use super::transaction::{
    EventLayout, RecordView, ReservationState, StockTotals, StripeUpdate, StripeView, held_units,
};
use crate::limits;

/// Changes of an event's stock by one or more writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StockDeltas {
    /// Per stripe, the units taken and returned, net of each write. At most one entry per stripe, without `held`.
    stripes: SmallVec<[StripeUpdate; 2]>,
    /// Units that became held.
    held_more: u64,
    /// Units that are no longer held.
    held_less: u64,
}

impl StockDeltas {
    /// Of one write, which also confirmed holds of `confirmed` units.
    pub(super) fn of(written: &[StripeUpdate], confirmed: u64) -> Self {
        let mut deltas = Self { held_less: confirmed, ..Self::default() };
        for update in written {
            deltas.add_update(update);
        }
        deltas
    }

    /// Of a record that may or may not have been written just now.
    pub(super) fn of_record(record: &RecordView) -> Self {
        let takes = matches!(record.state, ReservationState::Held | ReservationState::Confirmed);
        let mut deltas = Self::default();
        for draw in &record.draws {
            let units = u64::from(draw.units);
            let (take, give) = if takes { (units, 0) } else { (0, units) };
            let stripe = draw.stripe;
            let update = StripeUpdate { stripe, take, give, ..StripeUpdate::default() };
            deltas.add_update(&update);
            match record.state {
                _ if !record.counted => {}
                ReservationState::Held => deltas.held_more += units,
                _ => deltas.held_less += units,
            }
        }
        deltas
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stripes.is_empty() && self.held_more == 0 && self.held_less == 0
    }

    /// Adds later writes.
    pub(super) fn add(&mut self, later: &Self) {
        for update in &later.stripes {
            self.add_update(update);
        }
        self.held_more += later.held_more;
        self.held_less += later.held_less;
    }

    fn add_update(&mut self, update: &StripeUpdate) {
        let take = update.take.saturating_sub(update.give);
        let give = update.give.saturating_sub(update.take);
        match update.held {
            0.. => self.held_more += update.held.unsigned_abs(),
            _ => self.held_less += update.held.unsigned_abs(),
        }
        match self.stripes.iter_mut().find(|d| d.stripe == update.stripe) {
            Some(known) => {
                known.take = known.take.saturating_add(take);
                known.give = known.give.saturating_add(give);
            }
            None => {
                let stripe = update.stripe;
                self.stripes.push(StripeUpdate { stripe, take, give, ..StripeUpdate::default() });
            }
        }
    }
}

/// Bounds of the held units of an event. Negative while holds that other processes placed since the read have ended here.
#[derive(Clone, Copy, Debug)]
struct HeldBounds {
    low: i64,
    high: i64,
}

impl HeldBounds {
    fn apply(&mut self, deltas: &StockDeltas) {
        let moved = |held: i64| {
            held.saturating_add_unsigned(deltas.held_more).saturating_sub_unsigned(deltas.held_less)
        };
        (self.low, self.high) = (moved(self.low), moved(self.high));
    }

    fn widen(&mut self, deltas: &StockDeltas) {
        self.low = self.low.saturating_sub_unsigned(deltas.held_less);
        self.high = self.high.saturating_add_unsigned(deltas.held_more);
    }

    /// At least this many units are held.
    fn least(self) -> u64 {
        u64::try_from(self.low).unwrap_or(0)
    }

    fn is_certain(self) -> bool {
        self.low == self.high
    }
}

/// Units of a stripe, without moved units.
#[derive(Clone, Copy, Debug)]
struct StripeBounds {
    capacity: i64,
    /// Lower bound of the remaining units. Negative if more was moved here than remains.
    low: i64,
    /// Upper bound of the remaining units.
    high: i64,
}

/// What a write adds to the remaining units, without moved units.
fn net(update: &StripeUpdate) -> i64 {
    update.change().saturating_sub(update.moved)
}

impl StripeBounds {
    /// The units after `update`, at most the capacity, because other processes write to the stripe too.
    fn moved(&self, units: i64, update: &StripeUpdate) -> i64 {
        units.saturating_add(net(update)).min(self.capacity)
    }

    fn apply(&mut self, update: &StripeUpdate) {
        self.low = self.moved(self.low, update);
        self.high = self.moved(self.high, update);
    }

    fn widen(&mut self, update: &StripeUpdate) {
        let net = net(update);
        if net < 0 {
            self.low = self.low.saturating_add(net);
        } else {
            let most = self.capacity.max(self.high);
            self.high = self.high.saturating_add(net).min(most);
        }
    }
}

/// One read of an event, and the writes since.
#[derive(Debug)]
struct StockSnapshot {
    began: Micros,
    ended: Micros,
    /// When the read began, for the status.
    as_of: UnixMillis,
    closed: bool,
    stripes: SmallVec<[StripeBounds; 2]>,
    /// Sums over the stripes.
    total: u64,
    low: u64,
    high: u64,
    /// `None` if the read did not include the confirmation counters.
    held: Option<HeldBounds>,
}

impl StockSnapshot {
    fn sum_up(&mut self) {
        let total = |of: fn(&StripeBounds) -> i64| {
            let sum = self.stripes.iter().map(of).fold(0, i64::saturating_add);
            u64::try_from(sum).unwrap_or(0)
        };
        (self.low, self.high) = (total(|stripe| stripe.low), total(|stripe| stripe.high));
    }

    fn answer(&self, query: &Query) -> Option<QueryResult> {
        match query {
            Query::Availability { .. } | Query::Seats { .. } if self.closed => {
                Some(QueryResult::NotOnSale(Rejection::EventClosed))
            }
            Query::Availability { qty, .. } => {
                let qty = u64::from(*qty);
                let is_clear =
                    qty <= self.low || qty > self.high || fault::planted(Fault::ShortageInDoubt);
                is_clear.then_some(QueryResult::Units {
                    remaining: self.low,
                    available: qty <= self.low,
                })
            }
            Query::Seats { seats } | Query::Describe { seats } => {
                Some(QueryResult::Seats { known: Vec::new(), unknown: seats.to_vec() })
            }
            Query::Status => {
                let held = self.held?;
                let is_clear = (self.low == self.high || fault::planted(Fault::StatusInDoubt))
                    && (held.is_certain() || fault::planted(Fault::HeldInDoubt));
                is_clear.then(|| {
                    QueryResult::Status(Box::new(EventStatus {
                        counts: StockCounts::of_totals(self.total, self.low, held.least()),
                        sections: Vec::new(),
                        as_of: self.as_of,
                        seated: false,
                        closed: self.closed,
                    }))
                })
            }
        }
    }
}

/// An answer from a snapshot.
#[derive(Debug)]
pub(super) struct SnapshotAnswer {
    pub(super) result: QueryResult,
    /// Number of stripes of the event.
    pub(super) stripes: u16,
    /// Time between the start of the read and the query.
    pub(super) age: Micros,
    /// Three quarters of the maximum age are over: a read now saves the next query the wait.
    pub(super) needs_refresh: bool,
}

/// The stock snapshots of a shard, by event.
#[derive(Debug)]
pub(super) struct StockSnapshots {
    /// `None`: off.
    by_event: Option<LruCache<EventId, StockSnapshot, foldhash::fast::RandomState>>,
    age_max: Micros,
}

impl StockSnapshots {
    /// Answers from snapshots of up to `age_max`; 0: from none.
    pub(super) fn new(age_max: Micros) -> Self {
        let most = NonZeroUsize::new(limits::SNAPSHOTS_MAX).unwrap_or(NonZeroUsize::MIN);
        let by_event = (age_max > Micros(0))
            .then(|| LruCache::with_hasher(most, foldhash::fast::RandomState::default()));
        Self { by_event, age_max }
    }

    /// The answer to a query that arrived at `asked`; `None`: a read has to answer it.
    pub(super) fn answer(
        &mut self,
        event: &EventId,
        query: &Query,
        asked: Micros,
    ) -> Option<SnapshotAnswer> {
        let by_event = self.by_event.as_mut()?;
        let snapshot = match fault::planted(Fault::SnapshotOfOtherEvent) {
            true => by_event.iter().next()?.1,
            false => by_event.get(event)?,
        };
        let age = asked.since(snapshot.began);
        if age > self.age_max && !fault::planted(Fault::SnapshotNeverStale) {
            return None;
        }
        Some(SnapshotAnswer {
            result: snapshot.answer(query)?,
            stripes: snapshot.stripes.len() as u16,
            age,
            needs_refresh: age.0 >= self.age_max.0 / 4 * 3,
        })
    }

    /// Stores the result of a read that began at `began` and has just ended; `deltas` finished meanwhile.
    pub(super) fn store(
        &mut self,
        event: &EventId,
        began: Micros,
        read: &[StripeView],
        deltas: &StockDeltas,
        now: Now,
    ) {
        let Some(by_event) = self.by_event.as_mut() else {
            return;
        };
        let took = now.mono.since(began);
        let mut snapshot = StockSnapshot {
            began,
            ended: now.mono,
            as_of: UnixMillis(now.unix.0.saturating_sub(took.0 / 1_000)),
            closed: EventLayout::of(read).closed,
            stripes: SmallVec::with_capacity(read.len()),
            total: StockTotals::of(read).capacity,
            low: 0,
            high: 0,
            held: held_units(read).map(|held| {
                let held = i64::try_from(held).unwrap_or(i64::MAX);
                HeldBounds { low: held, high: held }
            }),
        };
        snapshot.stripes.extend(read.iter().map(|view| StripeBounds {
            capacity: view.capacity_before_moves(),
            low: view.remaining_before_moves(),
            high: view.remaining_before_moves(),
        }));
        let deltas = match fault::planted(Fault::DeltasForgotten) {
            true => &StockDeltas::default(),
            false => deltas,
        };
        if let Some(held) = snapshot.held.as_mut() {
            held.widen(deltas);
        }
        for update in &deltas.stripes {
            if let Some(stripe) = snapshot.stripes.get_mut(usize::from(update.stripe)) {
                let taken = StripeUpdate { take: update.take, ..StripeUpdate::default() };
                let given = StripeUpdate { give: update.give, ..StripeUpdate::default() };
                stripe.widen(&taken);
                stripe.widen(&given);
            }
        }
        snapshot.sum_up();
        match by_event.get_mut(event) {
            Some(kept) => *kept = snapshot,
            None => drop(by_event.put(event.clone(), snapshot)),
        }
    }

    /// Records a write that was first sent at `sent`; `None`: some time ago, if at all.
    pub(super) fn record_write(
        &mut self,
        event: &EventId,
        written: &StockDeltas,
        sent: Option<Micros>,
        now: Micros,
    ) {
        let Some(by_event) = self.by_event.as_mut() else {
            return;
        };
        let Some(snapshot) = by_event.peek_mut(event) else {
            return;
        };
        if fault::planted(Fault::OwnWritesMissing) {
            return;
        }
        if now.since(snapshot.began) > self.age_max {
            by_event.pop(event);
            return;
        }
        let unseen = sent.is_some_and(|sent| sent > snapshot.ended);
        match snapshot.held.as_mut() {
            Some(held) if unseen => held.apply(written),
            Some(_) if fault::planted(Fault::UncertaintyIgnored) => {}
            Some(held) => held.widen(written),
            None => {}
        }
        for update in &written.stripes {
            match snapshot.stripes.get_mut(usize::from(update.stripe)) {
                Some(stripe) if unseen => stripe.apply(update),
                Some(_) if fault::planted(Fault::UncertaintyIgnored) => {}
                Some(stripe) => stripe.widen(update),
                None => {}
            }
        }
        snapshot.sum_up();
    }

    pub(super) fn invalidate(&mut self, event: &EventId) {
        if let Some(by_event) = self.by_event.as_mut() {
            by_event.pop(event);
        }
    }

    pub(super) fn is_off(&self) -> bool {
        self.by_event.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE_MAX: Micros = Micros::from_millis(50);

    fn event(n: usize) -> EventId {
        format!("evt-{n}").parse().expect("legal")
    }

    fn read(remaining: &[u64]) -> Vec<StripeView> {
        let stripe = |left: &u64| StripeView {
            capacity: 100,
            remaining: *left,
            version: 1,
            held: 10,
            confirmed_holds: Some(2 * remaining.len() as i64),
            ..StripeView::default()
        };
        remaining.iter().map(stripe).collect()
    }

    fn at(mono: u64) -> Now {
        Now { mono: Micros(mono), unix: UnixMillis(1_000_000) }
    }

    fn update(stripe: u16, take: u64, give: u64) -> StripeUpdate {
        StripeUpdate { stripe, take, give, ..StripeUpdate::default() }
    }

    fn deltas(written: &[StripeUpdate]) -> StockDeltas {
        StockDeltas::of(written, 0)
    }

    /// Of a read from 1,000 to 2,000 µs.
    fn kept(remaining: &[u64], pending: &[StripeUpdate]) -> StockSnapshots {
        let mut snapshots = StockSnapshots::new(AGE_MAX);
        let read = read(remaining);
        snapshots.store(&event(0), Micros(1_000), &read, &deltas(pending), at(2_000));
        snapshots
    }

    /// The result for a query for `qty`, if there is one.
    fn told(snapshots: &mut StockSnapshots, qty: u32, asked: u64) -> Option<(u64, bool)> {
        let query = Query::Availability { qty, section: None };
        let answer = snapshots.answer(&event(0), &query, Micros(asked))?;
        match answer.result {
            QueryResult::Units { remaining, available } => Some((remaining, available)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn age_counts_from_the_start_of_the_read() {
        let mut snapshots = kept(&[3, 4], &[]);
        let last = 1_000 + AGE_MAX.0;
        assert_eq!(told(&mut snapshots, 7, last), Some((7, true)));
        assert_eq!(told(&mut snapshots, 8, last), Some((7, false)));
        assert_eq!(told(&mut snapshots, 7, last + 1), None);
        let ages = [(1_000 + AGE_MAX.0 / 4 * 3 - 1, false), (1_000 + AGE_MAX.0 / 4 * 3, true)];
        for (asked, needs_refresh) in ages {
            let query = Query::Status;
            let answer = snapshots.answer(&event(0), &query, Micros(asked));
            assert_eq!(answer.expect("young").needs_refresh, needs_refresh, "{asked}");
        }
    }

    #[test]
    fn writes_after_the_read_are_added_within_the_capacity() {
        let mut snapshots = kept(&[3, 98], &[]);
        snapshots.record_write(
            &event(0),
            &deltas(&[update(0, 5, 0)]),
            Some(Micros(2_001)),
            Micros(9_000),
        );
        // Two units of stripe 0 have come back, or have been moved there from stripe 1, since the read.
        assert_eq!(told(&mut snapshots, 1, 9_000), Some((96, true)));
        snapshots.record_write(
            &event(0),
            &deltas(&[update(1, 1, 9)]),
            Some(Micros(2_001)),
            Micros(9_000),
        );
        assert_eq!(told(&mut snapshots, 1, 9_000), Some((98, true)));
    }

    /// Whichever of the two stripes a read has seen before the move.
    #[test]
    fn moved_units_are_counted_once() {
        let stripe = |remaining, moved: i64| StripeView {
            capacity: 100_u64.saturating_add_signed(moved),
            remaining,
            moved,
            ..StripeView::default()
        };
        let (before, after) = ([(4, 0), (90, 0)], [(44, 40), (50, -40)]);
        for [first, second] in [
            [before[0], before[1]],
            [before[0], after[1]],
            [after[0], before[1]],
            [after[0], after[1]],
        ] {
            let read = [stripe(first.0, first.1), stripe(second.0, second.1)];
            assert_eq!(StockTotals::of(&read), StockTotals { capacity: 200, remaining: 94 });
            let mut snapshots = StockSnapshots::new(AGE_MAX);
            snapshots.store(&event(0), Micros(1_000), &read, &deltas(&[]), at(2_000));
            assert_eq!(told(&mut snapshots, 95, 3_000), Some((94, false)));
            // This shard's own move, with a sale of one unit.
            let moved = [
                StripeUpdate { moved: 20, ..update(0, 1, 0) },
                StripeUpdate { moved: -20, ..update(1, 0, 0) },
            ];
            snapshots.record_write(&event(0), &deltas(&moved), Some(Micros(2_001)), Micros(9_000));
            assert_eq!(told(&mut snapshots, 95, 9_000), Some((93, false)));
        }
    }

    #[test]
    fn uncertain_takes_lower_the_lower_bound_only() {
        for in_flight in [true, false] {
            let mut snapshots = match in_flight {
                true => kept(&[6, 10], &[update(0, 5, 0)]),
                false => kept(&[6, 10], &[]),
            };
            if !in_flight {
                let sent = Some(Micros(2_000));
                snapshots.record_write(&event(0), &deltas(&[update(0, 9, 4)]), sent, Micros(9_000));
            }
            assert_eq!(told(&mut snapshots, 11, 9_000), Some((11, true)));
            assert_eq!(told(&mut snapshots, 12, 9_000), None, "in doubt");
            assert_eq!(told(&mut snapshots, 16, 9_000), None, "in doubt");
            assert_eq!(told(&mut snapshots, 17, 9_000), Some((11, false)));
            let status = Query::Status;
            assert!(snapshots.answer(&event(0), &status, Micros(9_000)).is_none());
        }
    }

    #[test]
    fn uncertain_returns_raise_the_upper_bound_only() {
        let mut snapshots = kept(&[6], &[update(0, 0, 2)]);
        snapshots.record_write(&event(0), &deltas(&[update(0, 1, 3)]), None, Micros(9_000));
        assert_eq!(told(&mut snapshots, 6, 9_000), Some((6, true)));
        assert_eq!(told(&mut snapshots, 10, 9_000), None);
        assert_eq!(told(&mut snapshots, 11, 9_000), Some((6, false)));
    }

    #[test]
    fn least_used_snapshot_is_evicted() {
        let mut snapshots = kept(&[1], &[]);
        for n in 1..=limits::SNAPSHOTS_MAX {
            assert_eq!(told(&mut snapshots, 1, 3_000), Some((1, true)));
            snapshots.store(&event(n), Micros(1_000), &read(&[1]), &deltas(&[]), at(2_000));
        }
        let query = Query::Status;
        assert!(snapshots.answer(&event(1), &query, Micros(3_000)).is_none());
        assert!(snapshots.answer(&event(2), &query, Micros(3_000)).is_some());

        let mut off = StockSnapshots::new(Micros(0));
        off.store(&event(0), Micros(1_000), &read(&[1]), &deltas(&[]), at(1_000));
        assert_eq!(told(&mut off, 1, 1_000), None);
    }

    #[test]
    fn delta_of_a_record_has_the_right_sign() {
        let mut record = RecordView {
            fingerprint: crate::ids::Fingerprint([0; 16]),
            state: ReservationState::Confirmed,
            order: None,
            payment: None,
            qty: 2,
            draws: crate::lane::drawn_from(3, 2),
            seats: None,
            expires_at: None,
            counted: false,
            at: UnixMillis(0),
        };
        assert_eq!(StockDeltas::of_record(&record), deltas(&[update(3, 2, 0)]));
        record.state = ReservationState::Released;
        assert_eq!(StockDeltas::of_record(&record), deltas(&[update(3, 0, 2)]));
        record.counted = true;
        let ended = StripeUpdate { held: -2, ..update(3, 0, 2) };
        assert_eq!(StockDeltas::of_record(&record), deltas(&[ended]));
    }

    /// The held units of a status, if there is one.
    fn held(snapshots: &mut StockSnapshots) -> Option<u64> {
        let answer = snapshots.answer(&event(0), &Query::Status, Micros(9_000))?;
        match answer.result {
            QueryResult::Status(status) => Some(status.counts.held),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn status_has_the_held_units_after_later_writes() {
        let mut snapshots = kept(&[30, 40], &[]);
        // Ten on each stripe less four that were confirmed.
        assert_eq!(held(&mut snapshots), Some(16));
        let later = Some(Micros(2_001));
        let hold = StripeUpdate { held: 5, ..update(0, 5, 0) };
        snapshots.record_write(&event(0), &deltas(&[hold]), later, Micros(9_000));
        assert_eq!(held(&mut snapshots), Some(21));
        let confirmed = StockDeltas::of(&[], 3);
        snapshots.record_write(&event(0), &confirmed, later, Micros(9_000));
        assert_eq!(held(&mut snapshots), Some(18));
        // A write that the read may have seen moves no unit of the stripes, and puts the held units in doubt.
        snapshots.record_write(&event(0), &confirmed, Some(Micros(1_500)), Micros(9_000));
        assert_eq!(held(&mut snapshots), None);
        assert_eq!(told(&mut snapshots, 65, 9_000), Some((65, true)));
    }

    #[test]
    fn snapshot_of_a_read_without_counters_answers_no_status() {
        let mut read = read(&[30, 40]);
        read[0].confirmed_holds = None;
        let mut snapshots = StockSnapshots::new(AGE_MAX);
        snapshots.store(&event(0), Micros(1_000), &read, &deltas(&[]), at(2_000));
        assert_eq!(held(&mut snapshots), None);
        assert_eq!(told(&mut snapshots, 70, 9_000), Some((70, true)));
    }
}
