//! Layout of the map: seats in map order, distinct names and prices, rows and sections.
//!
//! Costs about 100 name lookups per millisecond and one sort; done when seats are added, removed or moved, not when they
//! are sold.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use hashbrown::HashTable;

use super::bit_set::BitSet;
use super::expiry_queue::ExpiryQueue;
use super::order::natural;
use super::{EffectiveState, NO_PRICE, SeatMap, SeatRow, SeatSection, SeatSlot};
use crate::ids::SeatId;
use crate::query::StockCounts;
use crate::seats::{SeatFacts, SeatState};
use crate::time::Micros;

/// A seat to be placed.
pub(super) struct SeatPlacement {
    pub(super) seat_id: SeatId,
    pub(super) facts: SeatFacts,
    pub(super) state: Option<SeatState>,
    pub(super) recorded_at: Micros,
    pub(super) offered_until: Micros,
    pub(super) is_missing: bool,
}

/// Distinct values, numbered in the order of their first use.
struct Interner<T> {
    numbers: HashMap<T, u32, foldhash::fast::RandomState>,
}

impl<T: Eq + Hash> Interner<T> {
    fn new() -> Self {
        Self { numbers: HashMap::default() }
    }

    fn number(&mut self, value: T) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(value).or_insert(next)
    }

    fn into_values(self) -> Vec<T> {
        let mut values: Vec<(u32, T)> = self.numbers.into_iter().map(|(v, n)| (n, v)).collect();
        values.sort_unstable_by_key(|(number, _)| *number);
        values.into_iter().map(|(_, value)| value).collect()
    }
}

/// Rank of every value under an order, so that names compare as numbers.
fn ranks(names: &[Box<str>], order: impl Fn(&str, &str) -> Ordering) -> Vec<u32> {
    let mut sorted: Vec<u32> = (0..names.len() as u32).collect();
    sorted.sort_unstable_by(|a, b| order(&names[*a as usize], &names[*b as usize]));
    let mut ranks = vec![0; names.len()];
    for (rank, name) in sorted.into_iter().enumerate() {
        ranks[name as usize] = rank as u32;
    }
    ranks
}

/// A slot whose row is not numbered yet.
struct PlacedSlot {
    section: u32,
    row: u32,
    slot: SeatSlot,
}

impl SeatMap {
    /// Lays out `drafts`, with distinct ids, and replaces the previous layout.
    pub(super) fn build(&mut self, placements: Vec<SeatPlacement>) {
        let mut names = Interner::new();
        let mut prices = Interner::new();
        let mut placed: Vec<PlacedSlot> = Vec::with_capacity(placements.len());
        for placement in placements {
            let facts = placement.facts;
            placed.push(PlacedSlot {
                section: names.number(facts.section.into_boxed_str()),
                row: names.number(facts.row.into_boxed_str()),
                slot: SeatSlot {
                    id: placement.seat_id,
                    state: placement.state,
                    recorded_at: placement.recorded_at,
                    offered_until: placement.offered_until,
                    is_missing: placement.is_missing,
                    row: 0,
                    number: names.number(facts.number.into_boxed_str()),
                    price: facts.price.map_or(NO_PRICE, |price| prices.number(price)),
                },
            });
        }
        self.names = names.into_values();
        self.prices = prices.into_values();
        // Sections in listing order; rows and seats in the order in which people count them.
        let by_text = ranks(&self.names, str::cmp);
        let by_count = ranks(&self.names, natural);
        let key = |seat: &PlacedSlot| {
            let count = |name: u32| by_count[name as usize];
            (by_text[seat.section as usize], count(seat.row), count(seat.slot.number))
        };
        placed.sort_unstable_by(|a, b| {
            let order = key(a).cmp(&key(b));
            order.then_with(|| natural(a.slot.id.as_str(), b.slot.id.as_str()))
        });
        self.build_rows(placed);
        self.index();
        self.recompute_counts();
    }

    fn build_rows(&mut self, placed: Vec<PlacedSlot>) {
        self.slots = Vec::with_capacity(placed.len());
        self.rows = Vec::new();
        self.sections = Vec::new();
        for mut seat in placed {
            let place = self.slots.len() as u32;
            if self.sections.last().is_none_or(|s| s.name != seat.section) {
                let row = self.rows.len() as u32;
                self.sections.push(SeatSection {
                    name: seat.section,
                    rows: row..row,
                    counts: StockCounts::default(),
                    prices: Box::default(),
                });
            }
            let section = self.sections.len() as u32 - 1;
            let same = |row: &SeatRow| row.section == section && row.name == seat.row;
            if !self.rows.last().is_some_and(same) {
                self.rows.push(SeatRow {
                    name: seat.row,
                    section,
                    start: place,
                    end: place,
                    free: 0,
                });
                self.sections[section as usize].rows.end += 1;
            }
            let row = self.rows.len() - 1;
            self.rows[row].end += 1;
            seat.slot.row = row as u32;
            self.slots.push(seat.slot);
        }
        self.rows.shrink_to_fit();
    }

    fn index(&mut self) {
        let hash = |slots: &[SeatSlot], place: &u32| {
            self.hasher.hash_one(slots[*place as usize].id.as_str())
        };
        self.places = HashTable::with_capacity(self.slots.len());
        for place in 0..self.slots.len() as u32 {
            let slots = &self.slots;
            self.places.insert_unique(hash(slots, &place), place, |place| hash(slots, place));
        }
    }

    /// Computes everything that is kept about seat states from scratch.
    fn recompute_counts(&mut self) {
        self.free = BitSet::with_room(self.slots.len());
        self.missing = BitSet::default();
        self.missing_count = 0;
        self.offered = BitSet::with_room(self.slots.len());
        self.offers = ExpiryQueue::default();
        self.holds = ExpiryQueue::default();
        self.total = StockCounts::default();
        self.longest = vec![0; self.rows.len()];
        // Of another layout.
        self.parts = None;
        for place in 0..self.slots.len() {
            let slot = &self.slots[place];
            if slot.is_missing {
                self.missing.set(place);
                self.missing_count += 1;
            }
            if slot.offered_until != Micros::default() {
                self.offered.set(place);
                self.offers.add(slot.offered_until.0, place as u32);
            }
            let state = slot.state.as_ref();
            let effective_state = state.map(|state| EffectiveState::of(state, self.clock));
            self.add_to_counts(place, effective_state);
        }
        for section in 0..self.sections.len() {
            self.sections[section].prices = self.price_ranges(section);
        }
        self.divide();
    }

    fn price_ranges(&self, section: usize) -> Box<[(u32, u32)]> {
        let price = |number: u32| &self.prices[number as usize];
        let mut ranges = Vec::<(u32, u32)>::new();
        for slot in self.slots_of(section).iter().filter(|slot| slot.price != NO_PRICE) {
            let currency = price(slot.price).currency.as_str();
            let at =
                ranges.binary_search_by(|(low, _)| price(*low).currency.as_str().cmp(currency));
            match at {
                Err(at) => ranges.insert(at, (slot.price, slot.price)),
                Ok(at) => {
                    let (low, high) = &mut ranges[at];
                    if price(slot.price).amount < price(*low).amount {
                        *low = slot.price;
                    }
                    if price(slot.price).amount > price(*high).amount {
                        *high = slot.price;
                    }
                }
            }
        }
        ranges.into()
    }

    fn slots_of(&self, section: usize) -> &[SeatSlot] {
        let rows = &self.sections[section].rows;
        match &self.rows[rows.start as usize..rows.end as usize] {
            [] => &[],
            [first, .., last] => &self.slots[first.start as usize..last.end as usize],
            [row] => &self.slots[row.seats()],
        }
    }
}
