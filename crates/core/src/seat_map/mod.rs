//! The seats of one event in memory: which there are, whose they are, which could be had.
//!
//! Advisory: it is fed by whole reads and by what our own writes tell, other nodes sell meanwhile,
//! and the conditional write decides. It answers availability, best available and the standing of
//! a sale without the store, and refuses what is known to be taken without a write.
//!
//! Seats lie in house order, section by section, row by row, each row in natural order
//! ([`order`]), and every set of seats is a bit per seat in that order ([`bit_set`]). Reads come in by
//! [`refresh`], which lays the house out anew ([`layout`]) only if seats came, went or moved.
//! [`counts`] sums up; [`pick`] chooses, and [`search`] knows how to look along rows.
//!
//! Costs: a lookup is one hash; a change of a seat costs that and, for a hold, the logarithm of the
//! holds. About 100 bytes a seat and the text of its id, and of its reservation when it is taken.
//!
//! Must not live here: a clock, a source of randomness, the store, reservations in flight.

mod bit_set;
mod counts;
mod expiry_queue;
mod layout;
mod order;
mod pick;
mod refresh;
mod search;
mod split;
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
pub use view::SeatView;

/// See the module's head.
///
/// Instants are taken as they come: one that lies before an earlier one changes nothing.
#[derive(Default)]
pub struct SeatMap {
    /// In house order.
    slots: Vec<SeatSlot>,
    /// Where in `slots` a seat is, by its id.
    places: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    /// In house order, as are `sections`.
    rows: Vec<SeatRow>,
    /// At least the longest run of free seats of each row: exact once the row was looked through,
    /// too much after seats were taken.
    longest: Vec<u32>,
    sections: Vec<SeatSection>,
    /// Names of sections, rows and seats, each once.
    names: Vec<Box<str>>,
    prices: Vec<Price>,
    /// Seats that can be had at `clock`.
    free: BitSet,
    /// Seats marked as offered; their marks end by `offers`.
    offered: BitSet,
    offers: ExpiryQueue,
    /// Ends of the holds that are not over at `clock`.
    holds: ExpiryQueue,
    /// All sections together.
    total: StockCounts,
    /// The latest instant told. Holds that end by then are over.
    clock: UnixMillis,
    /// When the last whole read began.
    read: Micros,
    /// The read that is coming in.
    incoming: Option<refresh::PartialRead>,
    left_out: usize,
    /// Grows whenever a count changes.
    changes: u64,
}

struct SeatSlot {
    id: SeatId,
    /// `None`: it turned out not to exist. It keeps its place until a later read confirms it.
    state: Option<SeatState>,
    learned: Micros,
    /// When its mark of having been offered ends; zero without one.
    offered_until: Micros,
    row: u32,
    number: u32,
    /// [`NO_PRICE`] without one.
    price: u32,
}

const NO_PRICE: u32 = u32::MAX;

/// Seats to either side that are looked at for the run that a free seat is in.
const LOOK_MAX: usize = 1_024;

struct SeatRow {
    name: u32,
    section: u32,
    start: u32,
    end: u32,
    /// Seats that can be had.
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
    /// The cheapest and the dearest, when all are in one currency, as of the layout.
    price: Option<(u32, u32)>,
}

/// How a seat counts at an instant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SeatStanding {
    /// Or held by nobody any more.
    Available,
    /// Until then.
    Held(UnixMillis),
    Sold,
    Blocked,
}

impl SeatStanding {
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
    /// What a write of ours, or a failed condition, has told at `at`: the seat's state, or `None`
    /// where there is no such seat. The latest that was told counts; a seat never read is ignored,
    /// for its place in the house is not known.
    pub fn learn(&mut self, seat: &SeatId, state: Option<SeatState>, at: Micros) {
        if let Some(place) = self.place_of(seat)
            && self.slots[place].learned <= at
        {
            self.set(place, state, at);
        }
    }

    /// `None`: no such seat.
    pub fn get(&self, seat: &SeatId) -> Option<SeatView<'_>> {
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
            learned: slot.learned,
        })
    }

    /// Whether the seat is known to be blocked, or somebody else's than `me`, on word not older
    /// than [`limits::SEAT_MEMORY_AGE`]: a write for it would be wasted.
    pub fn known_taken(&self, seat: &SeatId, me: &ReservationId, now: Now) -> bool {
        let Some(slot) = self.place_of(seat).map(|place| &self.slots[place]) else {
            return false;
        };
        let Some(state) = &slot.state else {
            return false;
        };
        if now.mono.since(slot.learned).0 > limits::SEAT_MEMORY_AGE.as_micros() as u64 {
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

    /// The section of that name, among `sections`: they lie by name.
    fn section_of(&self, name: &str) -> Option<usize> {
        self.sections
            .binary_search_by(|section| self.name(section.name).cmp(name))
            .ok()
    }

    /// Gives the seat at `place` another state; `None` takes it out of everything.
    fn set(&mut self, place: usize, state: Option<SeatState>, learned: Micros) {
        let slot = &mut self.slots[place];
        let before = std::mem::replace(&mut slot.state, state);
        slot.learned = learned;
        let before = before.map(|state| SeatStanding::of(&state, self.clock));
        let after = slot.state.as_ref();
        let after = after.map(|state| SeatStanding::of(state, self.clock));
        if before != after {
            self.changes += 1;
            self.leave(place, before);
            self.enter(place, after);
        }
    }

    /// Lets the holds that are over at `now` go.
    fn advance(&mut self, now: UnixMillis) {
        self.clock = self.clock.max(now);
        while let Some(seat) = self.holds.pop(self.clock.0) {
            self.changes += 1;
            let place = seat as usize;
            for counts in self.counts_of(place) {
                counts.total -= 1;
                counts.held -= 1;
            }
            self.enter(place, Some(SeatStanding::Available));
        }
    }

    /// Takes a seat that stood like `standing` out of the counts and sets.
    fn leave(&mut self, place: usize, standing: Option<SeatStanding>) {
        let Some(standing) = standing else {
            return;
        };
        for counts in self.counts_of(place) {
            counts.total -= 1;
            *counted(counts, standing) -= 1;
        }
        match standing {
            SeatStanding::Available => self.set_taken(place),
            SeatStanding::Held(until) => self.holds.remove(until.0, place as u32),
            SeatStanding::Sold | SeatStanding::Blocked => {}
        }
    }

    /// The reverse of [`Self::leave`].
    fn enter(&mut self, place: usize, standing: Option<SeatStanding>) {
        let Some(standing) = standing else {
            return;
        };
        for counts in self.counts_of(place) {
            counts.total += 1;
            *counted(counts, standing) += 1;
        }
        match standing {
            SeatStanding::Available => self.set_free(place),
            SeatStanding::Held(until) => self.holds.add(until.0, place as u32),
            SeatStanding::Sold | SeatStanding::Blocked => {}
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
        // Not further than this, so that a row without an end costs no more than another.
        let look = seats.start.max(place.saturating_sub(LOOK_MAX))..seats.end.min(place + LOOK_MAX);
        let Some(run) = bit_set::run_around(|word| self.free.word(word), look.clone(), place)
        else {
            return;
        };
        let cut_off = (run.start == look.start && look.start > seats.start)
            || (run.end() == look.end && look.end < seats.end);
        let longest = if cut_off { free } else { run.len as u32 };
        self.longest[number] = self.longest[number].max(longest);
    }

    fn set_taken(&mut self, place: usize) {
        self.free.clear(place);
        let number = self.slots[place].row as usize;
        let row = &mut self.rows[number];
        row.free -= 1;
        self.longest[number] = self.longest[number].min(row.free);
    }
}

fn counted(counts: &mut StockCounts, standing: SeatStanding) -> &mut u64 {
    match standing {
        SeatStanding::Available => &mut counts.available,
        SeatStanding::Held(_) => &mut counts.held,
        SeatStanding::Sold => &mut counts.sold,
        SeatStanding::Blocked => &mut counts.blocked,
    }
}
