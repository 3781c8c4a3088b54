//! Answers to queries. Answers about seats and units may come from a cache of bounded age.

use inventory_core::answer::Rejection;
use inventory_core::effect::CallId;
use inventory_core::limits;
use inventory_core::query::{Query, QueryResult, StockCounts};
use inventory_core::seats::{SeatItem, SeatState};
use inventory_core::time::{Micros, UnixMillis};

use super::super::clients::{Call, Request};
use super::super::model::Store;
use super::super::scenario::AHEAD_MAX;
use super::super::violation::{Violation, ensure};
use super::super::world::ShardRef;
use super::stock::StockBounds;
use super::{Oracle, unix};

impl Oracle {
    pub(crate) fn told(
        &mut self,
        id: CallId,
        result: &Result<QueryResult, Rejection>,
        at: ShardRef,
        now: Micros,
        store: &Store,
    ) -> Result<(), Violation> {
        let call = self.close(id, None, now)?;
        let Request::Ask(question) = &call.what else {
            return Err(Violation(format!("a write answered as a query: {call:?} got {result:?}")));
        };
        let due = match result {
            Ok(found) => self.is_so(&call, question, found, at, now, store),
            Err(Rejection::EventNotFound) => !store.exists(&call.event),
            Err(Rejection::SectionNotFound(unknown)) => {
                call.section.as_ref() == Some(&unknown.section)
                    && store.lacks_section(&call.event, &unknown.section)
            }
            Err(
                Rejection::StoreBusy { .. }
                | Rejection::StoreUnavailable { .. }
                | Rejection::Overloaded { .. },
            ) => !self.fault_free,
            Err(_) => false,
        };
        ensure!(
            due,
            "the answer matches no state of the stock: {call:?} got {result:?} at {}",
            now.0
        );
        Ok(())
    }

    fn is_so(
        &self,
        call: &Call,
        question: &Query,
        found: &QueryResult,
        at: ShardRef,
        now: Micros,
        store: &Store,
    ) -> bool {
        let event = &call.event;
        let closed = store.closed_at(event);
        match (question, found) {
            (Query::Availability { qty, .. }, QueryResult::Units { remaining, available }) => {
                let units = Units {
                    remaining: *remaining,
                    selection: u64::from(*qty),
                    available: *available,
                };
                self.are_there(call, &units, at, now, store)
            }
            (Query::Availability { qty, section }, QueryResult::Offer { seats, .. }) => {
                let inside = |seat: &SeatItem| {
                    let is_in = store.section_of(event, &seat.id);
                    is_in.is_some() && section.as_deref().is_none_or(|name| is_in == Some(name))
                };
                let distinct = seats
                    .iter()
                    .enumerate()
                    .all(|(n, seat)| seats[..n].iter().all(|other| other.id != seat.id));
                section.as_ref().is_none_or(|section| !store.lacks_section(event, section))
                    && (seats.is_empty() || seats.len() == *qty as usize)
                    && distinct
                    && seats.iter().all(inside)
            }
            (
                Query::Seats { seats } | Query::Describe { seats },
                QueryResult::Seats { known, unknown },
            ) => {
                let is_there = |seat| store.section_of(event, seat).is_some();
                known.len() + unknown.len() == seats.len()
                    && known.iter().all(|seat| was(call, seat, now, store))
                    && !unknown.iter().any(is_there)
            }
            // A closed event reports that it is closed, whatever its stock.
            (Query::Availability { .. } | Query::Seats { .. }, QueryResult::NotOnSale(why)) => {
                *why == Rejection::EventClosed && closed.is_some_and(|at| at <= now)
            }
            (Query::Status, QueryResult::Status(status)) => {
                let counts = status.counts;
                let sum = counts.available + counts.held + counts.sold + counts.blocked;
                counts.total == sum
                    && status.seated == store.is_seated(event)
                    && (status.seated || self.is_left(call, &counts, at, now, store))
            }
            _ => false,
        }
    }
}

/// An answer about units.
struct Units {
    remaining: u64,
    selection: u64,
    available: bool,
}

impl Oracle {
    /// The earliest instant whose stock the answer may report.
    fn not_before(&self, call: &Call) -> Micros {
        Micros(call.arrives.since(self.staleness).0)
    }

    /// Whether the stock had this value at some instant since the call, as a later read finds it.
    fn was_left(&self, call: &Call, remaining: u64, now: Micros, store: &Store) -> bool {
        let (event, from) = (&call.event, call.arrives);
        if self.torn_reads {
            let least = store.least_during(event, from, now);
            return (least..=store.most_during(event, from, now)).contains(&remaining);
        }
        let mut seen = store.remaining_during(event, from, now);
        seen.any(|left| left == remaining)
    }

    fn are_there(
        &self,
        call: &Call,
        units: &Units,
        at: ShardRef,
        now: Micros,
        store: &Store,
    ) -> bool {
        let event = &call.event;
        let not_before = self.not_before(call);
        let closed = store.closed_at(event);
        let is_enough = units.remaining >= units.selection;
        let is_right = units.available == is_enough && closed.is_none_or(|at| at >= not_before);
        let from_memory = || {
            let spans = self.stock_views.spans(at, event, not_before, self.torn_reads, store);
            spans.iter().any(|span| {
                // Uncertainty alone never proves that there is too little.
                let is_short = span.least < units.selection
                    && (self.torn_reads || span.most < units.selection);
                (span.least..=span.most).contains(&units.remaining) && (units.available || is_short)
            })
        };
        is_right && (self.was_left(call, units.remaining, now, store) || from_memory())
    }

    /// Whether a status of units was correct; nothing in it may be uncertain.
    fn is_left(
        &self,
        call: &Call,
        counts: &StockCounts,
        at: ShardRef,
        now: Micros,
        store: &Store,
    ) -> bool {
        let event = &call.event;
        let not_before = self.not_before(call);
        let mut capacities = store.capacity_during(event, not_before, now);
        // Stripes and counters that are read at different times show held units that never were. A snapshot that misses
        // a restock shows no more held units than it has units.
        let taken = counts.total.saturating_sub(counts.available) as i64;
        let from_memory = || {
            let spans = self.stock_views.spans(at, event, not_before, self.torn_reads, store);
            let is_it = |span: &StockBounds| match self.torn_reads {
                true => (span.least..=span.most).contains(&counts.available),
                false => {
                    let held = span.held.clamp(0, taken);
                    span.most == counts.available && held == counts.held as i64
                }
            };
            spans.iter().any(is_it)
        };
        let was_so = match self.torn_reads {
            true => self.was_left(call, counts.available, now, store),
            false => {
                let counted = (counts.available, counts.held as i64);
                store.units_during(event, call.arrives, now).any(|units| units == counted)
            }
        };
        (self.torn_reads || capacities.any(|total| total == counts.total))
            && (was_so || from_memory())
    }
}

/// Whether the seat had this state within the age that the cache may have. A description may be older.
fn was(call: &Call, seat: &SeatItem, now: Micros, store: &Store) -> bool {
    let age = match &call.what {
        Request::Ask(Query::Describe { .. }) => call.arrives,
        _ => Micros(limits::SEAT_MAP_AGE_MAX.as_micros() as u64),
    };
    let from = Micros(call.arrives.since(age).0);
    let seen = store.seat_during(&call.event, &seat.id, from, now);
    // An overdue hold counts as free.
    let latest = UnixMillis(unix(now).0 + AHEAD_MAX);
    let over =
        |state: &SeatState| matches!(state, SeatState::Hold { until, .. } if *until <= latest);
    let free = seat.state == SeatState::Available;
    seen.iter().any(|(_, state)| *state == seat.state || (free && over(state)))
}
