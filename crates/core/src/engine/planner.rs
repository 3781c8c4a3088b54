//! The way of one operation: what its event is like, what is known of its record, what is to be
//! written, and where.

use super::Engine;
use super::record_reads::RecordWaiter;
use crate::answer::{Answer, Rejection};
use crate::effect::{Effect, RecordHint, RecordReadId, Route};
use crate::fault::{self, Fault};
use crate::ids::EventId;
use crate::lane::{PoolKind, Redecision, RedecisionCause, SoldOutHint, WriteIntent};
use crate::limits;
use crate::operation::{Operation, RecordExpectation, Selection, Verb};
use crate::rules::{self, Decision, StockChange, Transition};
use crate::stock_reads::StockReadWaiter;
use crate::time::{Micros, Now};
use crate::transaction::{EventLayout, RecordView, RecordsRead, ReservationState};

impl Engine {
    /// Brings an operation one step further: to a read, to another shard, to its answer, or into a
    /// lane.
    pub(super) fn advance(
        &mut self,
        operation: Operation,
        route: Option<Route>,
        known: RecordHint,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        if operation.deadline <= now.mono {
            self.counters.expired += 1;
            self.end(
                &operation,
                Answer::Rejected(Rejection::DeadlineExceeded),
                None,
                now,
                fx,
            );
            return;
        }
        let shape = match route {
            Some(route) => Some(route.shape),
            None => self.events.get(&operation.event).copied(),
        };
        let Some(shape) = shape else {
            self.read_first(operation, known, now, fx);
            return;
        };
        let by_seat = shape.is_seated() || matches!(operation.selection, Selection::Seats(_));
        if by_seat && route.is_none() {
            let owner = self.pools.owner(&operation.event, 0);
            if owner != self.settings.shard {
                self.forward(owner, Route { shape }, operation, known, fx);
                return;
            }
        }
        // Whether the store has said it, for this very operation. Else it is remembered, or guessed
        // that there is none.
        let is_said = matches!(known, RecordHint::Confirmed(_));
        let record = match known {
            RecordHint::Confirmed(record) => {
                self.learn_habit(&operation, record.as_ref());
                record
            }
            RecordHint::Cached(record) => Some(record),
            RecordHint::None => match self.cache.get(&operation.reservation, now.mono) {
                None if operation.expectation == RecordExpectation::Present
                    || self.is_likely_held(&operation) =>
                {
                    self.look_up(operation, route, fx);
                    return;
                }
                remembered => remembered,
            },
        };
        let late = self.settings.late_commit;
        match rules::decide(&operation, record.as_ref(), now.unix, late) {
            // Another node may have moved it on since; a write would notice, an answer must look.
            Decision::Answer(_)
                if !is_said
                    && !record.as_ref().is_some_and(is_final)
                    && !fault::planted(Fault::HoldFromCache) =>
            {
                self.look_up(operation, route, fx);
            }
            // Nor is anything written to a closed event that would notice.
            Decision::Write(transition)
                if !is_said
                    && shape.closed
                    && transition.stock_change() == StockChange::Reserve
                    && !fault::planted(Fault::ClosedBeforeRecord) =>
            {
                self.look_up(operation, route, fx);
            }
            Decision::Answer(answer) => self.end(&operation, answer, record, now, fx),
            Decision::Write(transition) => {
                let has_seats = record.as_ref().map_or(by_seat, |r| {
                    r.seats.is_some() || (by_seat && r.draws.is_empty())
                });
                if has_seats {
                    let basis = Basis { record, is_said };
                    self.write_seats(operation, shape, transition, basis, now, fx);
                } else {
                    let basis = Basis { record, is_said };
                    self.write_units(operation, route, shape, transition, basis, now, fx);
                }
            }
        }
    }

    /// Whether an operation of which nothing is remembered is most likely about a hold.
    fn is_likely_held(&self, operation: &Operation) -> bool {
        operation.verb == Verb::Commit && self.hold_predictor.expects_hold(&operation.event)
    }

    /// Takes from what the store has of a commit how its event is sold. A record in any other state
    /// tells nothing: a repeat of what is over.
    fn learn_habit(&mut self, operation: &Operation, record: Option<&RecordView>) {
        if operation.verb != Verb::Commit {
            return;
        }
        match record.map(|record| record.state) {
            Some(ReservationState::Held) => self.hold_predictor.record_hold(&operation.event),
            None => self.hold_predictor.record_direct_sale(&operation.event),
            Some(_) => {}
        }
    }

    /// Ends an operation without a write of its own.
    pub(super) fn end(
        &mut self,
        operation: &Operation,
        answer: Answer,
        learned: Option<RecordView>,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        self.complete(
            &operation.event,
            &operation.reservation,
            answer,
            learned,
            now,
            fx,
        );
    }

    fn read_first(
        &mut self,
        operation: Operation,
        known: RecordHint,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let event = operation.event.clone();
        let waiter = StockReadWaiter::Operation(Box::new((operation, known)));
        if let Err(StockReadWaiter::Operation(routed)) =
            self.stock_reads.request(&event, None, waiter, now.mono, fx)
        {
            self.counters.rejected_overloaded += 1;
            self.end(
                &routed.0,
                Answer::Rejected(Rejection::overloaded()),
                None,
                now,
                fx,
            );
        }
    }

    pub(super) fn forward(
        &mut self,
        shard: usize,
        route: Route,
        operation: Operation,
        known: RecordHint,
        fx: &mut Vec<Effect>,
    ) {
        self.counters.forwarded += 1;
        self.in_flight
            .mark_forwarded(&operation.reservation, &operation.event);
        fx.push(Effect::Forward {
            shard,
            route,
            operation,
            known,
        });
    }

    pub(super) fn look_up(
        &mut self,
        operation: Operation,
        route: Option<Route>,
        fx: &mut Vec<Effect>,
    ) {
        self.counters.record_reads += 1;
        let waiter = RecordWaiter {
            operation,
            route,
            place: 0,
        };
        self.record_reads.request(waiter, fx);
    }

    /// Reports the result of [`Effect::ReadRecords`].
    pub fn handle_records_read(
        &mut self,
        lookup: RecordReadId,
        read: &RecordsRead,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        for waiter in self.record_reads.finish(lookup, fx) {
            let RecordWaiter {
                operation,
                route,
                place,
            } = waiter;
            let rejection = match read {
                RecordsRead::Found(records) => match records.get(place) {
                    Some(Ok(record)) => {
                        if let Some(record) = record {
                            let id = operation.reservation.clone();
                            self.cache.insert(id, record.clone(), now.mono);
                        }
                        let known = RecordHint::Confirmed(record.clone());
                        self.advance(operation, route, known, now, fx);
                        continue;
                    }
                    Some(Err(_)) => Rejection::Internal,
                    None => Rejection::store_unavailable(),
                },
                RecordsRead::Unavailable => Rejection::store_unavailable(),
                RecordsRead::Throttled => Rejection::store_busy(),
            };
            self.end(&operation, Answer::Rejected(rejection), None, now, fx);
        }
    }

    /// Writes what moves units, or touches no stock at all.
    #[expect(clippy::too_many_arguments, reason = "one operation, taken apart")]
    fn write_units(
        &mut self,
        mut operation: Operation,
        route: Option<Route>,
        shape: EventLayout,
        transition: Transition,
        basis: Basis,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let Basis {
            mut record,
            is_said,
        } = basis;
        let event = &operation.event;
        let kind = match transition.stock_change() {
            StockChange::Reserve if shape.closed => {
                self.end(
                    &operation,
                    Answer::Rejected(Rejection::EventClosed),
                    None,
                    now,
                    fx,
                );
                return;
            }
            StockChange::Reserve => {
                let reservation = &operation.reservation;
                let seller = match route {
                    Some(_) => self.settings.shard,
                    None => self.pools.seller(event, reservation, shape.stripes),
                };
                if seller != self.settings.shard {
                    let known = known_of(record);
                    self.forward(seller, Route { shape }, operation, known, fx);
                    return;
                }
                let basis = Basis { record, is_said };
                match self.unless_sold_out(operation, shape, transition, basis, now, fx) {
                    Some((same, its)) => (operation, record) = (same, its),
                    None => return,
                }
                PoolKind::Stripes
            }
            StockChange::Return => {
                let drawn = record.as_ref().and_then(|record| record.draws.first());
                let stripe = drawn.map_or(0, |draw| draw.stripe);
                let owner = self.pools.owner(event, stripe);
                if self.is_crowd(&operation) {
                    PoolKind::ExpiryBatch(stripe)
                } else if route.is_none() && owner != self.settings.shard {
                    let known = known_of(record);
                    self.forward(owner, Route { shape }, operation, known, fx);
                    return;
                } else {
                    PoolKind::Stripes
                }
            }
            StockChange::Keep | StockChange::None => PoolKind::Unstriped,
        };
        let plan = WriteIntent {
            transition,
            record,
            seats: None,
        };
        self.enqueue(operation, kind, shape, plan, now, fx);
    }

    /// Ends an operation that there are too few units for, or has its record looked up for that;
    /// gives it back if it is to be written.
    ///
    /// What the stripes were seen to have may be without what this very reservation has got,
    /// elsewhere and just now. So its record is looked up once more, after that was seen.
    fn unless_sold_out(
        &mut self,
        operation: Operation,
        shape: EventLayout,
        transition: Transition,
        basis: Basis,
        now: Now,
        fx: &mut Vec<Effect>,
    ) -> Option<(Operation, Option<RecordView>)> {
        let Basis { record, is_said } = basis;
        let (reservation, event) = (&operation.reservation, &operation.event);
        if is_said && let Some(remaining) = self.in_flight.shortage(reservation, event) {
            self.counters.sold_out += 1;
            let rejection = match transition.from {
                Some(_) => Rejection::HoldExpired,
                None => Rejection::InsufficientInventory { remaining },
            };
            self.end(&operation, Answer::Rejected(rejection), record, now, fx);
            return None;
        }
        let units = match (&record, &operation.selection) {
            (Some(record), _) => record.qty,
            (None, Selection::Quantity(qty)) => *qty,
            (None, _) => 0,
        };
        let since = self
            .in_flight
            .started_at(reservation, event)
            .unwrap_or(now.mono);
        let pool = self.pools.selling(event);
        let hint = pool.map_or(SoldOutHint::None, |pool| pool.sold_out_hint(units, since));
        match hint {
            SoldOutHint::None | SoldOutHint::Stale => Some((operation, record)),
            SoldOutHint::Fresh { remaining }
                if fault::planted(Fault::SoldOutUnread)
                    || (is_said && fault::planted(Fault::RecordReadTooEarly)) =>
            {
                let rejection = Rejection::InsufficientInventory { remaining };
                self.end(&operation, Answer::Rejected(rejection), record, now, fx);
                None
            }
            SoldOutHint::Fresh { remaining } => {
                self.is_too_few(operation, shape, remaining, fx);
                None
            }
        }
    }

    /// Lets an operation be refused unless its record says otherwise.
    fn is_too_few(
        &mut self,
        operation: Operation,
        shape: EventLayout,
        remaining: u64,
        fx: &mut Vec<Effect>,
    ) {
        let (reservation, event) = (&operation.reservation, &operation.event);
        self.in_flight
            .set_shortage(reservation, event, Some(remaining));
        self.look_up(operation, Some(Route { shape }), fx);
    }

    /// Whether so many holds end that they are better bundled.
    fn is_crowd(&self, operation: &Operation) -> bool {
        operation.verb == Verb::Expire
            && !operation.reservation.is_slip()
            && self.expiring > limits::EXPIRY_BATCH_THRESHOLD
    }

    pub(super) fn enqueue(
        &mut self,
        operation: Operation,
        kind: PoolKind,
        shape: EventLayout,
        plan: WriteIntent,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let Some(id) = self.pools.open(&operation.event, kind, shape) else {
            self.counters.rejected_overloaded += 1;
            self.end(
                &operation,
                Answer::Rejected(Rejection::overloaded()),
                None,
                now,
                fx,
            );
            return;
        };
        self.with_pool(id, now, fx, |pool, cx| pool.submit(operation, plan, cx));
    }

    /// An operation's write met something else than it was for: it is decided anew.
    pub(super) fn returned(
        &mut self,
        event: &EventId,
        returned: Redecision,
        as_of: Micros,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let Redecision {
            operation,
            from,
            cause,
        } = returned;
        if !self.in_flight.count_attempt(&operation.reservation, event) {
            self.end(
                &operation,
                Answer::Rejected(Rejection::store_busy()),
                None,
                now,
                fx,
            );
            return;
        }
        // From here on it is where it belongs: it came into a lane of this shard.
        let shape = self.events.get(event).copied();
        match cause {
            RedecisionCause::Record(record) => {
                if let Some(record) = &record {
                    let id = operation.reservation.clone();
                    self.cache.insert(id, record.clone(), now.mono);
                } else {
                    self.cache.remove(&operation.reservation);
                }
                self.unclaim(event, &operation.reservation, now, fx);
                let route = self.keeps_here(&operation, shape);
                self.advance(operation, route, RecordHint::Confirmed(record), now, fx);
            }
            RedecisionCause::Shortage { remaining } => match self.keeps_here(&operation, shape) {
                Some(Route { shape }) => self.is_too_few(operation, shape, remaining, fx),
                // Forgotten meanwhile: it starts anew.
                None => self.advance(operation, None, RecordHint::None, now, fx),
            },
            RedecisionCause::Seats(seats) => {
                let Some(shape) = shape else {
                    // Forgotten meanwhile: the next write tells of the seats once more.
                    self.unclaim(event, &operation.reservation, now, fx);
                    self.advance(operation, None, RecordHint::None, now, fx);
                    return;
                };
                self.seats_differ(operation, shape, from, seats, as_of, now, fx);
            }
        }
    }

    /// The route of an operation that has come to the shard it belongs to.
    fn keeps_here(&self, operation: &Operation, shape: Option<EventLayout>) -> Option<Route> {
        let shape = shape?;
        let seller = self
            .pools
            .seller(&operation.event, &operation.reservation, shape.stripes);
        // Else the call was forwarded here for what is another's.
        (shape.is_seated() || seller == self.settings.shard).then_some(Route { shape })
    }
}

/// What an operation on seats was decided on.
pub(super) struct Basis {
    pub(super) record: Option<RecordView>,
    /// The store has said so, for this very operation.
    pub(super) is_said: bool,
}

impl Basis {
    /// What of it counts after a wait.
    pub(super) fn into_known(self) -> RecordHint {
        match self.record {
            Some(record) => RecordHint::Cached(record),
            None if self.is_said => RecordHint::Confirmed(None),
            None => RecordHint::None,
        }
    }
}

/// Whether a record of this state never changes but by an operator's hand.
pub(super) fn is_final(record: &RecordView) -> bool {
    matches!(
        record.state,
        ReservationState::Confirmed | ReservationState::Released | ReservationState::Refunded
    )
}

/// What another shard is told of the record that a write was decided on.
fn known_of(record: Option<RecordView>) -> RecordHint {
    record.map_or(RecordHint::None, RecordHint::Cached)
}
