//! Queries about an event: answered from a stock snapshot, from a strong read of its stripes, or from the
//! seat map on the shard that owns the seats. Nothing is written for a query.

use super::seated_event::SeatMapWaiter;
use super::{Engine, planner};
use crate::answer::{Rejection, UnknownSection};
use crate::counters::TIME_BOUNDS_US;
use crate::effect::{CallId, Effect};
use crate::fault::{self, Fault};
use crate::ids::{EventId, SeatId};
use crate::limits;
use crate::query::{EventStatus, Query, QueryResult, StatusVersion, StockCounts};
use crate::seat_map::SeatView;
use crate::seats::{SeatItem, SeatState};
use crate::stock_reads::{FinishedRead, StockReadWaiter};
use crate::time::{Micros, Now};
use crate::transaction::{EventLayout, StockTotals, StripeView, StripesRead};

impl Engine {
    /// See [`Engine::cached_query_result`].
    pub(super) fn query_snapshot(
        &mut self,
        event: &EventId,
        query: &Query,
        asked: Micros,
    ) -> Option<QueryResult> {
        let answer = self.snapshots.answer(event, query, asked)?;
        self.counters.snapshot_answers += 1;
        let ages = &mut self.counters.snapshot_ages;
        ages.record(&TIME_BOUNDS_US, answer.age.0);
        let with_counters = *query == Query::Status;
        if answer.needs_refresh && self.stock_reads.refresh(event, with_counters, asked) {
            self.send_stripes_read(event, Some(answer.stripes));
            self.counters.snapshot_refreshes += 1;
        }
        Some(answer.result)
    }

    /// See [`Engine::status_version`].
    pub(super) fn version_of_status(&mut self, event: &EventId) -> Option<StatusVersion> {
        let now = self.now;
        let layout = *self.layouts.get(event)?;
        let is_cached = self.seated_events.get_mut(event).is_some_and(|seated| {
            seated.is_younger_than(limits::STATUS_AGE_MAX, now.mono) || seated.is_fresh(now.mono)
        });
        if !is_cached {
            return None;
        }
        self.refresh_seats(event, layout);
        let seated = self.seated_events.open(event, now.mono);
        Some(StatusVersion {
            as_of: seated.read_began_unix,
            closed: layout.closed,
            changes: seated.map()?.changes(now.unix),
        })
    }

    /// Sends a query to the shard that owns the seats, or to a read of the stripes.
    pub(super) fn route_query(&mut self, call: CallId, event: EventId, query: Query) {
        let layout = self.layouts.get(&event).copied();
        match layout.filter(|layout| layout.is_seated()) {
            Some(layout) => self.query_owner(call, event, layout, query),
            None => {
                let hint = layout.map(|layout| layout.stripes);
                self.query_store(call, &event, hint, query, self.now.mono);
            }
        }
    }

    fn query_store(
        &mut self,
        call: CallId,
        event: &EventId,
        stripes_hint: Option<u16>,
        query: Query,
        asked: Micros,
    ) {
        let waiter = StockReadWaiter::Query { call, query, asked };
        match self.stock_reads.request(event, waiter, self.now.mono) {
            Ok(true) => self.send_stripes_read(event, stripes_hint),
            Ok(false) => {}
            Err(_) => {
                self.counters.rejected_overloaded += 1;
                self.answer_query(call, Err(Rejection::overloaded()));
            }
        }
    }

    fn query_owner(&mut self, call: CallId, event: EventId, layout: EventLayout, query: Query) {
        let shard = self.pools.shard_of_seats(&event);
        if shard == self.settings.shard {
            self.query_seats(call, &event, layout, query);
        } else {
            self.effects.push_back(Effect::ForwardQuery { shard, call, event, layout, query });
        }
    }

    /// Answers a query from the seat map, once that is recent enough.
    pub(super) fn query_seats(
        &mut self,
        call: CallId,
        event: &EventId,
        layout: EventLayout,
        query: Query,
    ) {
        let now = self.now.mono;
        let seated = self.seated_events.open(event, now);
        // Seat details rarely change, and a status contains its age: with a seat map, neither waits for a read.
        let accepts_stale = match query {
            Query::Describe { .. } => seated.map().is_some(),
            Query::Status => seated.is_younger_than(limits::STATUS_AGE_MAX, now),
            Query::Availability { .. } | Query::Seats { .. } => false,
        };
        if accepts_stale || seated.is_fresh(now) {
            self.layouts.get_or_insert(event.clone(), || layout);
            self.refresh_seats(event, layout);
            self.answer_from_seat_map(call, event, query);
        } else {
            let waiter = SeatMapWaiter::Query { call, query };
            self.wait_for_seat_map(event, layout, waiter);
        }
    }

    /// Stores what a read of the stripes returned as the event's snapshot.
    pub(super) fn store_snapshot(
        &mut self,
        event: &EventId,
        read: &FinishedRead,
        result: &StripesRead,
    ) {
        if let StripesRead::Found(stripes) = result
            && !EventLayout::of(stripes).is_seated()
            && !read.is_stale
        {
            self.snapshots.store(event, read.began, stripes, &read.deltas, self.now);
        }
    }

    /// Answers a query that waited for a read which began at `began`. A query that arrived later is
    /// answered from the snapshot that the read made, or else from the next read.
    pub(super) fn answer_after_read(
        &mut self,
        call: CallId,
        event: &EventId,
        query: Query,
        asked: Micros,
        began: Micros,
        result: &StripesRead,
    ) {
        let stripes = match result {
            StripesRead::Found(stripes) => stripes,
            other => {
                let rejection = rejection_of(other).unwrap_or(Rejection::Internal);
                self.answer_query(call, Err(rejection));
                return;
            }
        };
        let layout = EventLayout::of(stripes);
        if layout.is_seated() {
            self.query_owner(call, event.clone(), layout, query);
            return;
        }
        if asked <= began || fault::planted(Fault::JoinedQueryStale) {
            self.counters.read_answers += 1;
            let result = result_from_stripes(query, stripes, layout, self.now);
            self.answer_query(call, Ok(result));
            return;
        }
        match self.snapshots.answer(event, &query, asked) {
            Some(answer) => {
                self.counters.read_answers += 1;
                self.answer_query(call, Ok(answer.result));
            }
            None => self.query_store(call, event, Some(layout.stripes), query, asked),
        }
    }

    pub(super) fn answer_from_seat_map(&mut self, call: CallId, event: &EventId, query: Query) {
        let now = self.now;
        let closed = self.layouts.get(event).is_some_and(|layout| layout.closed);
        let seated = self.seated_events.get_mut(event);
        let as_of = seated.as_ref().map(|seated| seated.read_began_unix).unwrap_or_default();
        let Some((map, locked)) = seated.and_then(|seated| seated.map_and_locks()) else {
            self.answer_query(call, Err(Rejection::store_unavailable()));
            return;
        };
        let result = match query {
            Query::Availability { .. } | Query::Seats { .. } if closed => {
                QueryResult::NotOnSale(Rejection::EventClosed)
            }
            Query::Availability { qty, section } => {
                let section = section.as_deref();
                let unknown = section.and_then(|section| map.unknown_section(section));
                if let Some(rejection) = no_choice(unknown, qty) {
                    let result = Err(rejection);
                    self.effects.push_back(Effect::AnswerQuery { call, result });
                    return;
                }
                map.set_members(self.pools.members(), now.mono);
                let picked = map.pick(qty, section, now, &locked, &mut self.rng);
                let seats: Vec<SeatItem> = picked
                    .iter()
                    .flatten()
                    .filter_map(|seat| map.get(seat))
                    .map(|seat| current(&seat, now))
                    .collect();
                QueryResult::Offer { seats, remaining: map.remaining(section, now.unix) }
            }
            Query::Seats { seats } | Query::Describe { seats } => {
                let mut known = Vec::with_capacity(seats.len());
                let mut unknown: Vec<SeatId> = Vec::new();
                for id in seats.iter() {
                    match map.get(id) {
                        Some(seat) => known.push(current(&seat, now)),
                        None => unknown.push(id.clone()),
                    }
                }
                QueryResult::Seats { known, unknown }
            }
            Query::Status => {
                let sections = map.status(None, now.unix).unwrap_or_default();
                let counts = map.counts(None, now.unix).unwrap_or_default();
                QueryResult::Status(Box::new(EventStatus {
                    counts,
                    sections,
                    as_of,
                    seated: true,
                    closed,
                }))
            }
        };
        let result = Ok(result);
        self.effects.push_back(Effect::AnswerQuery { call, result });
    }
}

/// Why a choice of seats cannot be offered, whatever is available.
fn no_choice(unknown: Option<UnknownSection>, qty: u32) -> Option<Rejection> {
    let too_many = planner::too_many_seats(qty);
    let too_many = too_many.map(|most| Rejection::TooManySeats { most });
    too_many.or_else(|| unknown.map(|unknown| Rejection::SectionNotFound(Box::new(unknown))))
}

/// The seat, where a hold that is past its expiry does not count.
fn current(seat: &SeatView<'_>, now: Now) -> SeatItem {
    let mut shown = seat.to_seat();
    if seat.is_available(now.unix) {
        shown.state = SeatState::Available;
    }
    shown
}

fn result_from_stripes(
    query: Query,
    stripes: &[StripeView],
    layout: EventLayout,
    now: Now,
) -> QueryResult {
    let remaining = StockTotals::of(stripes).remaining;
    match query {
        Query::Availability { .. } | Query::Seats { .. } if layout.closed => {
            QueryResult::NotOnSale(Rejection::EventClosed)
        }
        Query::Availability { qty, .. } => {
            QueryResult::Units { remaining, available: remaining >= u64::from(qty) }
        }
        Query::Seats { seats } | Query::Describe { seats } => {
            QueryResult::Seats { known: Vec::new(), unknown: seats.to_vec() }
        }
        Query::Status => {
            let counts = StockCounts::of_units(stripes);
            QueryResult::Status(Box::new(EventStatus {
                counts,
                sections: Vec::new(),
                as_of: now.unix,
                seated: false,
                closed: layout.closed,
            }))
        }
    }
}

/// The rejection for a failed read that an operation needs.
pub(super) fn rejection_of(read: &StripesRead) -> Option<Rejection> {
    match read {
        StripesRead::Found(_) => None,
        StripesRead::NotFound => Some(Rejection::EventNotFound),
        StripesRead::Throttled => Some(Rejection::store_busy()),
        StripesRead::Unavailable => Some(Rejection::store_unavailable()),
    }
}
