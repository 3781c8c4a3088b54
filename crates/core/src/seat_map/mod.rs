//! Seats of one event in memory: which exist, their states, and which are available.
//!
//! Advisory: the map is fed by complete reads and by this shard's own writes. Other processes sell meanwhile, and the
//! condition of each write decides. The map answers availability, best available and status queries without the store,
//! and rejects seats that are known to be taken without a write.
//!
//! Seats are in map order: section by section, row by row, each row in natural order ([`order`]); every set of seats has
//! one bit per seat in this order ([`bit_set`]). [`refresh`] takes in reads and lays the map out again ([`layout`]) only
//! if seats were added, removed or moved. [`counts`] aggregates, [`pick`] chooses seats, [`search`] searches rows, and
//! [`part`] divides the hall among the processes that sell it.
//!
//! Costs: a lookup is one hash; a state change costs one hash and, for a hold, the logarithm of the number of holds.
//! About 100 bytes per seat, plus its id and the id of its reservation.
//!
//! Not here: clocks, randomness, the store, reservations in flight.

mod bit_set;
mod counts;
mod expiry_queue;
mod layout;
mod order;
mod part;
mod pick;
mod refresh;
mod search;
mod split;
#[cfg(test)]
mod tests;
mod view;

use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::HashTable;

use super::ids::{ReservationId, SeatId};
use super::query::StockCounts;
use super::seats::{Price, SeatState};
use super::time::{Micros, Now, UnixMillis};
use crate::limits;
use bit_set::BitSet;
use expiry_queue::ExpiryQueue;
pub use order::natural as natural_order;
use part::{Division, Parts};
pub(crate) use pick::Reach;
pub(crate) use refresh::FreeSeatsFound;
pub(crate) use view::SeatView;

/// Map of one event's seats.
///
/// Times may arrive out of order: one before the latest changes nothing.
#[derive(Default)]
pub(crate) struct SeatMap {
    /// In map order.
    slots: Vec<SeatSlot>,
    /// Index into `slots` by seat id.
    places: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    /// In map order, like `sections`.
    rows: Vec<SeatRow>,
    /// Upper bound of the longest run of free seats in each row: exact after the row was searched, too large after seats
    /// were taken.
    longest: Vec<u32>,
    /// The seats that this process prefers; `None`: it sells alone.
    parts: Option<Parts>,
    division: Division,
    sections: Vec<SeatSection>,
    /// Distinct names of sections, rows and seats.
    names: Vec<Box<str>>,
    prices: Vec<Price>,
    /// Seats available at `clock`.
    free: BitSet,
    /// Free seats that a read of the free seats did not return: others have taken them. Not chosen until a result shows their
    /// state.
    missing: BitSet,
    missing_count: usize,
    /// Seats marked as offered; the marks end by `offers`.
    offered: BitSet,
    offers: ExpiryQueue,
    /// Expiry times of the holds that are current at `clock`.
    holds: ExpiryQueue,
    /// Totals over all sections.
    total: StockCounts,
    /// The latest time seen. Holds that expire by then have ended.
    clock: UnixMillis,
    /// When the last complete read began.
    read: Micros,
    /// The read in progress.
    incoming: Option<refresh::PartialRead>,
    left_out: usize,
    /// Incremented whenever a count changes.
    changes: u64,
}

struct SeatSlot {
    id: SeatId,
    /// `None`: the seat turned out not to exist. It keeps its slot until a later read confirms it.
    state: Option<SeatState>,
    recorded_at: Micros,
    /// When its offer mark ends; zero without a mark.
    offered_until: Micros,
    /// As in [`SeatMap::missing`].
    is_missing: bool,
    row: u32,
    number: u32,
    /// [`NO_PRICE`] without one.
    price: u32,
}

const NO_PRICE: u32 = u32::MAX;

/// Seats on either side that are examined to find the run of a free seat.
const RUN_SEARCH_MAX: usize = 1_024;

struct SeatRow {
    name: u32,
    section: u32,
    start: u32,
    end: u32,
    /// Available seats.
    free: u32,
}

impl SeatRow {
    fn seats(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

struct SeatSection {
    name: u32,
    rows: Range<u32>,
    counts: StockCounts,
    /// Lowest and highest price in each currency, by currency, as of the layout.
    prices: Box<[(u32, u32)]>,
}

/// How a seat counts at a given time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EffectiveState {
    /// Available, or its hold has expired.
    Available,
    /// Held until then.
    Held(UnixMillis),
    Sold,
    Blocked,
}

impl EffectiveState {
    fn of(state: &SeatState, now: UnixMillis) -> Self {
        match state {
            SeatState::Available => Self::Available,
            SeatState::Hold { until, .. } if *until > now => Self::Held(*until),
            SeatState::Hold { .. } => Self::Available,
            SeatState::Sold { .. } => Self::Sold,
            SeatState::Blocked => Self::Blocked,
        }
    }
}

impl SeatMap {
    /// Takes in the result of a write or of a failed condition at `at`: the seat's state, `None` if the seat does not
    /// exist. The latest result wins; an unknown seat is ignored, because its place is not known.
    pub(crate) fn record_result(&mut self, seat: &SeatId, state: Option<SeatState>, at: Micros) {
        if let Some(place) = self.place_of(seat)
            && self.slots[place].recorded_at <= at
        {
            self.set(place, state, at);
        }
    }

    /// `None`: no such seat.
    pub(crate) fn get(&self, seat: &SeatId) -> Option<SeatView<'_>> {
        let slot = &self.slots[self.place_of(seat)?];
        let row = &self.rows[slot.row as usize];
        let section = &self.sections[row.section as usize];
        Some(SeatView {
            id: &slot.id,
            section: self.name(section.name),
            row: self.name(row.name),
            number: self.name(slot.number),
            price: self.prices.get(slot.price as usize),
            state: slot.state.as_ref()?,
        })
    }

    /// Whether the seat is known to be blocked or to belong to another reservation than `me`, by information not older
    /// than [`limits::SEAT_MEMORY_AGE`]: a write for it would be wasted.
    pub(crate) fn known_taken(&self, seat: &SeatId, me: &ReservationId, now: Now) -> bool {
        let Some(slot) = self.place_of(seat).map(|place| &self.slots[place]) else {
            return false;
        };
        let Some(state) = &slot.state else {
            return false;
        };
        if now.mono.since(slot.recorded_at).0 > limits::SEAT_MEMORY_AGE.as_micros() as u64 {
            return false;
        }
        match state {
            SeatState::Available => false,
            SeatState::Hold { reservation, until } => *until > now.unix && reservation != me,
            SeatState::Sold { reservation } => reservation != me,
            SeatState::Blocked => true,
        }
    }

    fn place_of(&self, seat: &SeatId) -> Option<usize> {
        let hash = self.hasher.hash_one(seat.as_str());
        let is_it = |place: &u32| self.slots[*place as usize].id == *seat;
        self.places.find(hash, is_it).map(|place| *place as usize)
    }

    fn name(&self, name: u32) -> &str {
        &self.names[name as usize]
    }

    /// The section with that name; `sections` is sorted by name.
    fn section_of(&self, name: &str) -> Option<usize> {
        self.sections.binary_search_by(|section| self.name(section.name).cmp(name)).ok()
    }

    /// Changes the state of the seat at `place`; `None` removes it from all sets and counts.
    fn set(&mut self, place: usize, state: Option<SeatState>, recorded_at: Micros) {
        let slot = &mut self.slots[place];
        if std::mem::take(&mut slot.is_missing) {
            self.missing.clear(place);
            self.missing_count -= 1;
        }
        let before = std::mem::replace(&mut slot.state, state);
        slot.recorded_at = recorded_at;
        let before = before.map(|state| EffectiveState::of(&state, self.clock));
        let after = slot.state.as_ref();
        let after = after.map(|state| EffectiveState::of(state, self.clock));
        if before != after {
            self.changes += 1;
            self.remove_from_counts(place, before);
            self.add_to_counts(place, after);
        }
    }

    /// Ends the holds that have expired by `now`.
    fn advance(&mut self, now: UnixMillis) {
        self.clock = self.clock.max(now);
        while let Some(seat) = self.holds.pop(self.clock.0) {
            self.changes += 1;
            let place = seat as usize;
            for counts in self.counts_of(place) {
                counts.total -= 1;
                counts.held -= 1;
            }
            self.add_to_counts(place, Some(EffectiveState::Available));
        }
    }

    /// Removes a seat with this standing from counts and sets.
    fn remove_from_counts(&mut self, place: usize, effective_state: Option<EffectiveState>) {
        let Some(effective_state) = effective_state else {
            return;
        };
        for counts in self.counts_of(place) {
            counts.total -= 1;
            *counted(counts, effective_state) -= 1;
        }
        match effective_state {
            EffectiveState::Available => self.set_taken(place),
            EffectiveState::Held(until) => self.holds.remove(until.0, place as u32),
            EffectiveState::Sold | EffectiveState::Blocked => {}
        }
    }

    /// The reverse of [`Self::leave`].
    fn add_to_counts(&mut self, place: usize, effective_state: Option<EffectiveState>) {
        let Some(effective_state) = effective_state else {
            return;
        };
        for counts in self.counts_of(place) {
            counts.total += 1;
            *counted(counts, effective_state) += 1;
        }
        match effective_state {
            EffectiveState::Available => self.set_free(place),
            EffectiveState::Held(until) => self.holds.add(until.0, place as u32),
            EffectiveState::Sold | EffectiveState::Blocked => {}
        }
    }

    fn counts_of(&mut self, place: usize) -> [&mut StockCounts; 2] {
        let section = self.rows[self.slots[place].row as usize].section;
        let section = &mut self.sections[section as usize];
        [&mut section.counts, &mut self.total]
    }

    fn set_free(&mut self, place: usize) {
        self.free.set(place);
        let number = self.slots[place].row as usize;
        let row = &mut self.rows[number];
        row.free += 1;
        let (seats, free) = (row.seats(), row.free);
        // Bounded, so that a very long row costs no more than others.
        let range = seats.start.max(place.saturating_sub(RUN_SEARCH_MAX))
            ..seats.end.min(place + RUN_SEARCH_MAX);
        let Some(run) = bit_set::run_around(|word| self.free.word(word), range.clone(), place)
        else {
            return;
        };
        let is_cut_off = (run.start == range.start && range.start > seats.start)
            || (run.end() == range.end && range.end < seats.end);
        let longest = if is_cut_off { free } else { run.len as u32 };
        self.longest[number] = self.longest[number].max(longest);
        if let Some(parts) = &mut self.parts {
            parts.set_free(place, number, self.longest[number]);
        }
    }

    fn set_taken(&mut self, place: usize) {
        self.free.clear(place);
        let number = self.slots[place].row as usize;
        let row = &mut self.rows[number];
        row.free -= 1;
        self.longest[number] = self.longest[number].min(row.free);
        if let Some(parts) = &mut self.parts {
            parts.set_taken(place, number, row.free);
        }
    }
}

fn counted(counts: &mut StockCounts, effective_state: EffectiveState) -> &mut u64 {
    match effective_state {
        EffectiveState::Available => &mut counts.available,
        EffectiveState::Held(_) => &mut counts.held,
        EffectiveState::Sold => &mut counts.sold,
        EffectiveState::Blocked => &mut counts.blocked,
    }
}
