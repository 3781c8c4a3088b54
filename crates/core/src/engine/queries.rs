//! Queries about an event: from a snapshot of its stripes or a strong read of them, or from the map
//! of its seats.

use super::seated_event::SeatMapWaiter;
use super::{Engine, rejection_of};
use crate::answer::Rejection;
use crate::counters::TIME_BOUNDS_US;
use crate::effect::{CallId, Effect};
use crate::ids::{EventId, SeatId};
use crate::limits;
use crate::query::{EventStatus, Query, QueryResult, StatusVersion, StockCounts};
use crate::seat_map::SeatView;
use crate::seats::{SeatItem, SeatState};
use crate::stock_reads::{FinishedRead, StockReadWaiter};
use crate::time::{Micros, Now};
use crate::transaction::{EventLayout, StripeUpdate, StripeView, StripesRead};

impl Engine {
    /// The answer to a query that arrived at `asked`, if it is known well enough without a read. It
    /// costs no [`CallId`]; a read may begin that spares the next query the wait.
    pub fn cached_query_result(
        &mut self,
        event: &EventId,
        query: &Query,
        asked: Micros,
        fx: &mut Vec<Effect>,
    ) -> Option<QueryResult> {
        let answer = self.snapshots.answer(event, query, asked)?;
        self.counters.snapshot_answers += 1;
        let ages = &mut self.counters.snapshot_ages;
        ages.record(&TIME_BOUNDS_US, answer.age.0);
        if answer.needs_refresh
            && self
                .stock_reads
                .refresh(event, Some(answer.stripes), asked, fx)
        {
            self.counters.snapshot_refreshes += 1;
        }
        Some(answer.result)
    }

    /// Takes a query of a caller of this shard that [`Engine::cached_query_result`] has no answer for.
    pub fn handle_query(
        &mut self,
        call: CallId,
        event: EventId,
        query: Query,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let shape = self.events.get(&event).copied();
        match shape.filter(|shape| shape.is_seated()) {
            Some(shape) => self.ask_owner(call, event, shape, query, now, fx),
            None => {
                let hint = shape.map(|shape| shape.stripes);
                self.ask_store(call, &event, hint, query, now.mono, now, fx);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one query, taken apart")]
    fn ask_store(
        &mut self,
        call: CallId,
        event: &EventId,
        hint: Option<u16>,
        query: Query,
        asked: Micros,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let waiter = StockReadWaiter::Query { call, query, asked };
        if self
            .stock_reads
            .request(event, hint, waiter, now.mono, fx)
            .is_err()
        {
            self.counters.rejected_overloaded += 1;
            tell(call, Err(Rejection::overloaded()), fx);
        }
    }

    /// The mark of what a query for the status of a whole seated event would be answered now;
    /// `None` where the answer is not in this shard's memory. A read may begin, as of a query.
    pub fn status_version(
        &mut self,
        event: &EventId,
        now: Now,
        fx: &mut Vec<Effect>,
    ) -> Option<StatusVersion> {
        let shape = *self.events.get(event)?;
        let is_here = self.seated_events.get(event).is_some_and(|seated| {
            seated.is_younger_than(limits::STATUS_AGE_MAX, now.mono) || seated.is_fresh(now.mono)
        });
        if !is_here {
            return None;
        }
        self.read_seats_soon(event, shape, now, fx);
        let seated = self.seated_event(event, now.mono);
        Some(StatusVersion {
            as_of: seated.read_unix,
            closed: shape.closed,
            changes: seated.map()?.changes(now.unix),
        })
    }

    /// Takes a query that another shard passed on: the event's seats are remembered here.
    pub fn handle_forwarded_query(
        &mut self,
        call: CallId,
        event: &EventId,
        shape: EventLayout,
        query: Query,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let seated = self.seated_event(event, now.mono);
        // What a seat is like hardly changes, and a status says of when it is: neither is worth the
        // wait for a read while the map is of some use.
        let may_be_old = match query {
            Query::Describe { .. } => seated.map().is_some(),
            Query::Status { .. } => seated.is_younger_than(limits::STATUS_AGE_MAX, now.mono),
            Query::Availability { .. } | Query::Seats { .. } => false,
        };
        if may_be_old || seated.is_fresh(now.mono) {
            self.events.get_or_insert(event.clone(), || shape);
            self.read_seats_soon(event, shape, now, fx);
            self.answer_from_map(call, event, query, now, fx);
        } else {
            let waiter = SeatMapWaiter::Query { call, query };
            self.wait_for_map(event, shape, waiter, now, fx);
        }
    }

    fn ask_owner(
        &mut self,
        call: CallId,
        event: EventId,
        shape: EventLayout,
        query: Query,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let shard = self.pools.owner(&event, 0);
        if shard == self.settings.shard {
            self.handle_forwarded_query(call, &event, shape, query, now, fx);
        } else {
            fx.push(Effect::ForwardQuery {
                shard,
                call,
                event,
                shape,
                query,
            });
        }
    }

    /// Remembers what a read of the stripes has found.
    pub(super) fn keep_snapshot(
        &mut self,
        event: &EventId,
        done: &FinishedRead,
        read: &StripesRead,
        now: Now,
    ) {
        if let StripesRead::Found(stripes) = read
            && !EventLayout::of(stripes).is_seated()
            && !done.is_stale
        {
            self.snapshots
                .store(event, done.began, stripes, &done.deltas, now);
        }
    }

    /// This shard has written to the stripes, or may have; see [`crate::stock_snapshots`].
    pub(super) fn stock_moved(
        &mut self,
        event: &EventId,
        written: &[StripeUpdate],
        sent: Option<Micros>,
        now: Micros,
    ) {
        if !written.is_empty() && !self.snapshots.is_off() {
            self.stock_reads.record_write(event, written);
            self.snapshots.record_write(event, written, sent, now);
        }
    }

    /// Answers a query that came while the read was under way: from the snapshot it has made, or
    /// else from the next read.
    #[expect(clippy::too_many_arguments, reason = "one query, taken apart")]
    pub(super) fn answer_who_joined(
        &mut self,
        call: CallId,
        event: &EventId,
        query: Query,
        asked: Micros,
        read: &StripesRead,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let shape = match read {
            StripesRead::Found(stripes) => Some(EventLayout::of(stripes)),
            _ => None,
        };
        let Some(shape) = shape.filter(|shape| !shape.is_seated()) else {
            self.answer_from_read(call, event, query, read, now, fx);
            return;
        };
        match self.snapshots.answer(event, &query, asked) {
            Some(answer) => {
                self.counters.read_answers += 1;
                tell(call, Ok(answer.result), fx);
            }
            None => {
                let hint = Some(shape.stripes);
                self.ask_store(call, event, hint, query, asked, now, fx);
            }
        }
    }

    /// Answers a query that waited for a read of the stripes, or passes it on to where the seats
    /// are remembered.
    pub(super) fn answer_from_read(
        &mut self,
        call: CallId,
        event: &EventId,
        query: Query,
        read: &StripesRead,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let stripes = match read {
            StripesRead::Found(stripes) => stripes,
            other => {
                let rejection = rejection_of(other).unwrap_or(Rejection::Internal);
                tell(call, Err(rejection), fx);
                return;
            }
        };
        let shape = EventLayout::of(stripes);
        if shape.is_seated() {
            self.ask_owner(call, event.clone(), shape, query, now, fx);
            return;
        }
        self.counters.read_answers += 1;
        tell(call, Ok(of_stripes(query, stripes, shape, now)), fx);
    }

    pub(super) fn answer_from_map(
        &mut self,
        call: CallId,
        event: &EventId,
        query: Query,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let closed = self.events.get(event).is_some_and(|shape| shape.closed);
        let seated = self.seated_events.get_mut(event);
        let as_of = seated
            .as_ref()
            .map(|seated| seated.read_unix)
            .unwrap_or_default();
        let Some((map, claimed)) = seated.and_then(|seated| seated.map_and_locks()) else {
            tell(call, Err(Rejection::store_unavailable()), fx);
            return;
        };
        let found = match query {
            Query::Availability { qty, section } => {
                let section = section.as_deref();
                let picked = match closed {
                    true => None,
                    false => map.pick(qty, section, now, &claimed, &mut self.rng),
                };
                let seats: Vec<SeatItem> = picked
                    .iter()
                    .flatten()
                    .filter_map(|seat| map.get(seat))
                    .map(|seat| as_of_now(&seat, now))
                    .collect();
                QueryResult::Offer {
                    seats,
                    remaining: map.remaining(section, now.unix),
                }
            }
            Query::Seats { seats } | Query::Describe { seats } => {
                let mut known = Vec::with_capacity(seats.len());
                let mut unknown: Vec<SeatId> = Vec::new();
                for id in seats.iter() {
                    match map.get(id) {
                        Some(seat) => known.push(as_of_now(&seat, now)),
                        None => unknown.push(id.clone()),
                    }
                }
                QueryResult::Seats { known, unknown }
            }
            Query::Status { section } => {
                let section = section.as_deref();
                // Of a section that the event does not have there is nothing.
                let sections = map.status(section, now.unix).unwrap_or_default();
                let counts = map.counts(section, now.unix).unwrap_or_default();
                QueryResult::Status(Box::new(EventStatus {
                    counts,
                    sections,
                    as_of,
                    seated: true,
                    closed,
                }))
            }
        };
        tell(call, Ok(found), fx);
    }
}

/// The seat, with a hold that is past its time counting for nothing.
fn as_of_now(seat: &SeatView<'_>, now: Now) -> SeatItem {
    let mut shown = seat.to_seat();
    if seat.can_be_had(now.unix) {
        shown.state = SeatState::Available;
    }
    shown
}

fn of_stripes(query: Query, stripes: &[StripeView], shape: EventLayout, now: Now) -> QueryResult {
    let remaining: u64 = stripes.iter().map(|s| s.remaining).sum();
    match query {
        Query::Availability { qty, .. } => QueryResult::Units {
            remaining,
            available: !shape.closed && remaining >= u64::from(qty),
        },
        Query::Seats { seats } | Query::Describe { seats } => QueryResult::Seats {
            known: Vec::new(),
            unknown: seats.to_vec(),
        },
        Query::Status { .. } => {
            let total: u64 = stripes.iter().map(|s| s.capacity).sum();
            let counts = StockCounts {
                total,
                available: remaining,
                held: 0,
                sold: total.saturating_sub(remaining),
                blocked: 0,
            };
            QueryResult::Status(Box::new(EventStatus {
                counts,
                sections: Vec::new(),
                as_of: now.unix,
                seated: false,
                closed: shape.closed,
            }))
        }
    }
}

fn tell(call: CallId, result: Result<QueryResult, Rejection>, fx: &mut Vec<Effect>) {
    fx.push(Effect::AnswerQuery { call, result });
}
