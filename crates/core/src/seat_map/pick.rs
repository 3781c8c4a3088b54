//! Best available: chooses seats for a request of a number of seats.
//!
//! Seats side by side in one row if there is such a row, else in as few pieces as possible ([`split`]). If several rows
//! qualify, the search starts at a random one and continues from there until it has compared
//! [`limits::SEAT_RUNS_COMPARED`] runs: a run of exactly the requested length is best, then an end of a longer one. A
//! choice that leaves a single seat is used only if there is no other in the whole venue, or in the requested section,
//! or not among [`limits::SEAT_ORPHANS_COMPARED_MAX`] runs. A section is chosen with a probability proportional to its
//! number of qualifying rows, and the first row of a section twice as often as its last.
//!
//! If other processes sell the same hall, seats side by side are first searched in the part of the hall that this process
//! prefers ([`part`]), then in the parts for which it is next in line, then in those of the others. If they have none, the whole hall is searched as
//! if there were no parts, so that "sold out" does not depend on them.
//!
//! Chosen seats are marked as offered for [`limits::SEAT_OFFER_AGE`] and not chosen again while there is any other choice,
//! including one in pieces: concurrent requests get different seats before any of them is held.
//!
//! [`split`]: super::split
//! [`part`]: super::part

use std::iter::chain;
use std::ops::Range;

use rand::Rng;

use super::bit_set::{BitSet, count};
use super::search::{Order, Search, SeatRun};
use super::{SeatMap, SeatRow, SeatSection};
use crate::fault::{self, Fault};
use crate::ids::SeatId;
use crate::limits;
use crate::time::{Micros, Now};

/// Which seats a choice may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Those that this process prefers.
    Own,
    /// Those of other processes for which this one is next in line.
    Next,
    /// Those of other processes for which a third one is next in line.
    Rest,
    All,
}

/// Which seats a search sees.
#[derive(Clone, Copy)]
struct SearchView {
    reach: Reach,
    order: Order,
    /// Only seats without an offer mark.
    fresh: bool,
}

impl SeatMap {
    /// Returns `qty` available seats, in map order, in `section` or anywhere: see the module head. `None` only if there are
    /// fewer, or no such section.
    pub(crate) fn pick(
        &mut self,
        qty: u32,
        section: Option<&str>,
        now: Now,
        avoid: &dyn Fn(&SeatId) -> bool,
        rng: &mut impl Rng,
    ) -> Option<Vec<SeatId>> {
        self.pick_within(Reach::All, qty, section, now, avoid, rng)
    }

    /// As [`SeatMap::pick`]. With [`Reach::Own`], `None` also if the part of this process has no good choice.
    ///
    /// `avoid` returns whether a seat must not be chosen, such as one with a write in flight. It is called for few more
    /// seats than are chosen.
    ///
    /// Costs one step per row, and the seats of a few rows; if seats side by side are rare, one bit per seat of the rows
    /// that may have them, and then no more until seats become available there.
    pub(crate) fn pick_within(
        &mut self,
        reach: Reach,
        qty: u32,
        section: Option<&str>,
        now: Now,
        avoid: &dyn Fn(&SeatId) -> bool,
        rng: &mut impl Rng,
    ) -> Option<Vec<SeatId>> {
        self.expire_offers(now.mono);
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
        let places = self.choose_within(&sections, qty, reach, avoid, rng)?;
        let until = now.mono.plus(Micros(limits::SEAT_OFFER_AGE.as_micros() as u64));
        for place in &places {
            self.mark_offered(*place, until);
        }
        Some(places.iter().map(|p| self.slots[*p].id.clone()).collect())
    }

    /// Chosen places, in order.
    fn choose_within(
        &mut self,
        sections: &Range<usize>,
        qty: usize,
        reach: Reach,
        avoid: &dyn Fn(&SeatId) -> bool,
        rng: &mut impl Rng,
    ) -> Option<Vec<usize>> {
        if let Some(parts) = &self.parts {
            let is_front = parts.is_own_low() || parts.is_contested;
            let order = if is_front { Order::Front } else { Order::Random };
            let view = SearchView { reach: Reach::Own, order, fresh: true };
            let own = self.choose(sections, qty, view, avoid, rng);
            if own.is_some() || reach == Reach::Own || fault::planted(Fault::OwnPartIsAll) {
                return own;
            }
            for reach in [Reach::Next, Reach::Rest] {
                let view = SearchView { reach, order: Order::Back, fresh: true };
                let others = self.choose(sections, qty, view, avoid, rng);
                if others.is_some() {
                    return others;
                }
            }
        }
        let mut view = SearchView { reach: Reach::All, order: Order::Random, fresh: true };
        // Without offers the other search would find the same.
        let fresh = match self.offers.is_empty() {
            true => None,
            false => self.choose(sections, qty, view, avoid, rng),
        };
        view.fresh = false;
        fresh.or_else(|| self.choose(sections, qty, view, avoid, rng))
    }

    /// What a search of this view finds. Pieces only with [`Reach::All`].
    fn choose(
        &mut self,
        sections: &Range<usize>,
        qty: usize,
        view: SearchView,
        avoid: &dyn Fn(&SeatId) -> bool,
        rng: &mut impl Rng,
    ) -> Option<Vec<usize>> {
        let area = Area::new(&self.sections, sections, &self.rows)?;
        let part = match (view.reach, &mut self.parts) {
            (Reach::Own, Some(parts)) => Some(&mut parts.own),
            (Reach::Next, Some(parts)) => Some(&mut parts.next),
            (Reach::Rest, Some(parts)) => Some(&mut parts.rest),
            _ => None,
        };
        let (part, longest) = match part {
            Some(part) => (Some(&part.seats), &mut part.longest),
            None => (None, &mut self.longest),
        };
        let mut search = Search {
            slots: &self.slots,
            rows: &self.rows,
            free: &self.free,
            part,
            order: view.order,
            offered: view.fresh.then_some(&self.offered),
            closed: if self.missing_count > 0 { self.missing.clone() } else { BitSet::default() },
            longest,
            avoid,
            rng,
            widest: 0,
            compared: 0,
        };
        if count(|number| search.word(number), area.seats.clone(), qty) < qty {
            return None;
        }
        match search.side_by_side(&area, qty) {
            Some(run) => Some(run.seats().collect()),
            None if view.reach != Reach::All => None,
            None => search.in_pieces(&area, qty),
        }
    }

    pub(super) fn mark_offered(&mut self, place: usize, until: Micros) {
        let slot = &mut self.slots[place];
        let before = std::mem::replace(&mut slot.offered_until, until);
        if before != Micros::default() {
            self.offers.remove(before.0, place as u32);
        }
        self.offers.add(until.0, place as u32);
        self.offered.set(place);
    }

    fn expire_offers(&mut self, now: Micros) {
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
        match self.order {
            Order::Random => self.side_by_side_at_random(area, qty),
            Order::Front => self.first_side_by_side(area.rows.clone(), qty),
            Order::Back => self.first_side_by_side(area.rows.clone().rev(), qty),
        }
    }

    /// The best choice in the first rows that have one.
    fn first_side_by_side(
        &mut self,
        rows: impl Iterator<Item = usize>,
        qty: usize,
    ) -> Option<SeatRun> {
        let mut best: Option<SeatRun> = None;
        for row in rows {
            if !self.may_have(row, qty) {
                continue;
            }
            let from = self.rows[row].start as usize;
            let better_than = best.map(|choice| choice.quality);
            best = self.best_choice(row, from, qty, better_than).or(best);
            if self.is_enough(best.map(|choice| choice.quality)) {
                break;
            }
        }
        best
    }

    fn side_by_side_at_random(&mut self, area: &Area<'_>, qty: usize) -> Option<SeatRun> {
        let start = self.random_row(area, qty)?;
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
                true => self.random_seat(row),
                false => self.rows[row].start as usize,
            };
            let better_than = best.map(|choice| choice.quality);
            best = self.best_choice(row, from, qty, better_than).or(best);
            if self.is_enough(best.map(|choice| choice.quality)) {
                break;
            }
        }
        best
    }

    /// A random row that may have `len` seats side by side; `None` if no row may.
    pub(super) fn random_row(&mut self, area: &Area<'_>, len: usize) -> Option<usize> {
        let any = self.count_candidate_rows(area.rows.clone(), len);
        if any == 0 {
            return None;
        }
        let number = self.rng.random_range(0..any);
        let row = self.nth_candidate_row(area.rows.clone(), len, number)?;
        let section = area.section_rows(&self.rows[row]);
        let any = match section == area.rows {
            true => any,
            false => self.count_candidate_rows(section.clone(), len),
        };
        // With probability 1/3 take the minimum of two uniform numbers, whose density falls from 2 to 0. The
        // density of the result is 2/3 + 1/3 × 2 = 4/3 at the front, and falls to 2/3.
        let mut number = self.rng.random_range(0..any);
        if self.rng.random_ratio(1, 3) {
            number = number.min(self.rng.random_range(0..any));
        }
        self.nth_candidate_row(section, len, number)
    }

    /// Where to begin in a row: at its first seat, or anywhere in a row that is longer than any numbered row.
    pub(super) fn random_seat(&mut self, row: usize) -> usize {
        let seats = self.rows[row].seats();
        match seats.len() > limits::SEAT_RUN_LONG {
            true => self.rng.random_range(seats),
            false => seats.start,
        }
    }

    fn count_candidate_rows(&self, rows: Range<usize>, len: usize) -> usize {
        let longest = self.longest[rows].iter();
        longest.filter(|longest| **longest as usize >= len).count()
    }

    /// Counts by blocks, several times as fast as row by row.
    fn nth_candidate_row(&self, rows: Range<usize>, len: usize, n: usize) -> Option<usize> {
        const BLOCK: usize = 64;
        let mut before = n;
        for start in rows.clone().step_by(BLOCK) {
            let block = start..rows.end.min(start + BLOCK);
            let may = self.count_candidate_rows(block.clone(), len);
            if before < may {
                return block.filter(|row| self.may_have(*row, len)).nth(before);
            }
            before -= may;
        }
        None
    }
}
