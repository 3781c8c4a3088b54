//! Seat counts by state, updated as seats change, so that a query costs one step per section.

use super::{SeatMap, SeatSection};
use crate::answer::UnknownSection;
use crate::ids::SeatId;
use crate::query::{SectionStatus, StockCounts};
use crate::seats::SeatPrices;
use crate::time::UnixMillis;

impl SeatMap {
    /// Unchanged as long as no count of this map has changed, including holds that expire by `now`. May restart after the
    /// map is read again.
    pub(crate) fn changes(&mut self, now: UnixMillis) -> u64 {
        self.advance(now);
        self.changes
    }

    /// Counts of `section`, or of all seats. `None`: no such section. A hold that has expired at `now` counts as
    /// available.
    pub(crate) fn counts(&mut self, section: Option<&str>, now: UnixMillis) -> Option<StockCounts> {
        self.advance(now);
        match section {
            None => Some(self.total),
            Some(name) => {
                let section = &self.sections[self.section_of(name)?];
                is_there(section).then_some(section.counts)
            }
        }
    }

    /// The prices of these seats; `None` if the map lacks one of the seats.
    pub(crate) fn prices(&self, seats: &[SeatId]) -> Option<SeatPrices> {
        let known: Option<Vec<_>> = seats.iter().map(|seat| self.get(seat)).collect();
        SeatPrices::of(known?.iter().map(|seat| seat.price))
    }

    /// What a rejection of `section` reports; `None`: there is such a section.
    pub(crate) fn unknown_section(&self, section: &str) -> Option<UnknownSection> {
        if self.section_of(section).is_some_and(|at| is_there(&self.sections[at])) {
            return None;
        }
        let there = self.sections.iter().filter(|section| is_there(section));
        Some(UnknownSection::among(there.map(|there| self.name(there.name)), section))
    }

    /// Available seats in `section`, or in all; 0 for an unknown section.
    pub(crate) fn remaining(&mut self, section: Option<&str>, now: UnixMillis) -> u64 {
        self.counts(section, now).unwrap_or_default().available
    }

    /// Counts of every section, or of the one asked for. `None`: no such section.
    ///
    /// A seat that turned out not to exist still counts for the price range until a complete read confirms it.
    pub(crate) fn status(
        &mut self,
        section: Option<&str>,
        now: UnixMillis,
    ) -> Option<Vec<SectionStatus>> {
        self.advance(now);
        match section {
            None => {
                let there = self.sections.iter().filter(|section| is_there(section));
                Some(there.map(|section| self.section_status(section)).collect())
            }
            Some(name) => {
                let section = &self.sections[self.section_of(name)?];
                is_there(section).then(|| vec![self.section_status(section)])
            }
        }
    }

    fn section_status(&self, section: &SeatSection) -> SectionStatus {
        let price = |number: u32| self.prices[number as usize].clone();
        SectionStatus {
            section: self.name(section.name).to_owned(),
            counts: section.counts,
            prices: section.prices.iter().map(|(low, high)| (price(*low), price(*high))).collect(),
        }
    }
}

/// A section whose last seat turned out not to exist is not listed.
fn is_there(section: &SeatSection) -> bool {
    section.counts.total > 0
}
