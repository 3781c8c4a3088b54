//! Best available: chooses seats for a request of a number of seats.
//!
//! Seats side by side in one row if there is such a row, else in as few pieces as possible ([`split`]). If several rows
//! qualify, the search starts at a random one and continues from there until it has compared
//! [`limits::SEAT_RUNS_COMPARED`] runs: a run of exactly the requested length is best, then an end of a longer one. A
//! choice that leaves a single seat is used only if there is no other in the whole venue, or in the requested section, or
//! not among [`limits::SEAT_ORPHANS_COMPARED_MAX`] runs. The first row of a section is drawn twice as often as its last,
//! and a section in proportion to its number of qualifying rows.
//!
//! Chosen seats are marked as offered for [`limits::SEAT_OFFER_AGE`] and not chosen again while there is any other choice,
//! including one in pieces: concurrent requests get different seats before any of them is held.
//!
//! [`split`]: super::split

use std::iter::chain;
use std::ops::Range;

use rand::Rng;

use super::bit_set::{BitSet, count};
use super::search::{Search, SeatRun};
use super::{SeatMap, SeatRow, SeatSection};
use crate::ids::SeatId;
use crate::limits;
use crate::time::{Micros, Now};

impl SeatMap {
    /// Returns `qty` available seats, in map order, in `section` or anywhere: see the module head. `None` only if there are
    /// fewer, or no such section.
    ///
    /// `avoid` returns whether a seat must not be chosen, such as one with a write in flight. It is called for few more
    /// seats than are chosen.
    ///
    /// Costs one step per row, and the seats of a few rows; if seats side by side are rare, one bit per seat of the rows
    /// that may have them, and then no more until seats become available there.
    pub(crate) fn pick(
        &mut self,
        qty: u32,
        section: Option<&str>,
        now: Now,
        avoid: &dyn Fn(&SeatId) -> bool,
        rng: &mut impl Rng,
    ) -> Option<Vec<SeatId>> {
        self.lapse_offers(now.mono);
        if self.remaining(section, now.unix) < u64::from(qty) {
            return None;
        }
        let sections = match section {
            None => 0..self.sections.len(),
            Some(name) => {
                let section = self.section_of(name)?;
                section..section + 1
            }
        };
        let qty = qty as usize;
        if qty == 0 {
            return Some(Vec::new());
        }
        let places = self
            .choose(&sections, qty, true, avoid, rng)
            .or_else(|| self.choose(&sections, qty, false, avoid, rng))?;
        let until = now.mono.plus(Micros(limits::SEAT_OFFER_AGE.as_micros() as u64));
        for place in &places {
            self.mark_offered(*place, until);
        }
        Some(places.iter().map(|p| self.slots[*p].id.clone()).collect())
    }

    /// Chosen places, in order. `fresh`: only seats without an offer mark.
    fn choose(
        &mut self,
        sections: &Range<usize>,
        qty: usize,
        fresh: bool,
        avoid: &dyn Fn(&SeatId) -> bool,
        rng: &mut impl Rng,
    ) -> Option<Vec<usize>> {
        if fresh && self.offers.is_empty() {
            // The other search would find the same.
            return None;
        }
        let area = Area::new(&self.sections, sections, &self.rows)?;
        let mut search = Search {
            slots: &self.slots,
            rows: &self.rows,
            free: &self.free,
            offered: fresh.then_some(&self.offered),
            closed: BitSet::default(),
            longest: &mut self.longest,
            avoid,
            rng,
            widest: 0,
            compared: 0,
        };
        if count(|number| search.word(number), area.seats.clone(), qty) < qty {
            return None;
        }
        match search.side_by_side(&area, qty) {
            Some(cut) => Some(cut.seats().collect()),
            None => search.in_pieces(&area, qty),
        }
    }

    fn mark_offered(&mut self, place: usize, until: Micros) {
        let slot = &mut self.slots[place];
        let before = std::mem::replace(&mut slot.offered_until, until);
        if before != Micros::default() {
            self.offers.remove(before.0, place as u32);
        }
        self.offers.add(until.0, place as u32);
        self.offered.set(place);
    }

    fn lapse_offers(&mut self, now: Micros) {
        while let Some(seat) = self.offers.pop(now.0) {
            self.slots[seat as usize].offered_until = Micros::default();
            self.offered.clear(seat as usize);
        }
    }
}

/// The sections to search: adjacent and complete.
pub(super) struct Area<'a> {
    sections: &'a [SeatSection],
    pub(super) rows: Range<usize>,
    pub(super) seats: Range<usize>,
}

impl<'a> Area<'a> {
    /// `None` if it contains no seats.
    fn new(sections: &'a [SeatSection], which: &Range<usize>, rows: &[SeatRow]) -> Option<Self> {
        let first = sections.get(which.clone())?.first()?.rows.start as usize;
        let end = sections.get(which.clone())?.last()?.rows.end as usize;
        Some(Self {
            sections,
            rows: first..end,
            seats: rows[first].start as usize..rows[end - 1].end as usize,
        })
    }

    /// The rows of the section that contains `row`.
    pub(super) fn section_rows(&self, row: &SeatRow) -> Range<usize> {
        let rows = &self.sections[row.section as usize].rows;
        rows.start as usize..rows.end as usize
    }
}

impl<R: Rng> Search<'_, R> {
    /// `qty` adjacent seats of one row, if the search finds such.
    fn side_by_side(&mut self, area: &Area<'_>, qty: usize) -> Option<SeatRun> {
        let start = self.row_by_lot(area, qty)?;
        let section = area.section_rows(&self.rows[start]);
        // From there to the end of the section, then from its start, then the other sections likewise.
        let here = chain(start..section.end, section.start..start);
        let others = chain(section.end..area.rows.end, area.rows.start..section.start);
        let mut best: Option<SeatRun> = None;
        for row in here.chain(others) {
            if !self.may_have(row, qty) {
                continue;
            }
            let from = match row == start {
                true => self.seat_by_lot(row),
                false => self.rows[row].start as usize,
            };
            let beat = best.map(|cut| cut.quality);
            best = self.best_cut(row, from, qty, beat).or(best);
            if self.is_enough(best.map(|cut| cut.quality)) {
                break;
            }
        }
        best
    }

    /// A random row that may have `len` seats side by side; `None` if no row may.
    pub(super) fn row_by_lot(&mut self, area: &Area<'_>, len: usize) -> Option<usize> {
        let any = self.rows_that_may(area.rows.clone(), len);
        if any == 0 {
            return None;
        }
        let lot = self.rng.random_range(0..any);
        let row = self.nth_that_may(area.rows.clone(), len, lot)?;
        let section = area.section_rows(&self.rows[row]);
        let any = match section == area.rows {
            true => any,
            false => self.rows_that_may(section.clone(), len),
        };
        // Once in three times the smaller of two draws: density 4/3 at the front, falling to 2/3.
        let mut lot = self.rng.random_range(0..any);
        if self.rng.random_ratio(1, 3) {
            lot = lot.min(self.rng.random_range(0..any));
        }
        self.nth_that_may(section, len, lot)
    }

    /// Where to begin in a row: at its first seat, or anywhere in a row that is longer than any numbered row.
    pub(super) fn seat_by_lot(&mut self, row: usize) -> usize {
        let seats = self.rows[row].seats();
        match seats.len() > limits::SEAT_RUN_LONG {
            true => self.rng.random_range(seats),
            false => seats.start,
        }
    }

    fn rows_that_may(&self, rows: Range<usize>, len: usize) -> usize {
        let longest = self.longest[rows].iter();
        longest.filter(|longest| **longest as usize >= len).count()
    }

    /// Counts by blocks, several times as fast as row by row.
    fn nth_that_may(&self, rows: Range<usize>, len: usize, n: usize) -> Option<usize> {
        const BLOCK: usize = 64;
        let mut before = n;
        for start in rows.clone().step_by(BLOCK) {
            let block = start..rows.end.min(start + BLOCK);
            let may = self.rows_that_may(block.clone(), len);
            if before < may {
                return block.filter(|row| self.may_have(*row, len)).nth(before);
            }
            before -= may;
        }
        None
    }
}
