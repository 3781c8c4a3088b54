//! Seat counts by state, updated as seats change, so that a query costs one step per section.

use super::{SeatMap, SeatSection, SeatSlot};
use crate::query::{SectionStatus, StockCounts};
use crate::seats::Price;
use crate::time::UnixMillis;

impl SeatMap {
    /// Seats that are there.
    pub fn len(&self) -> usize {
        self.total.total as usize
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Unchanged as long as no count of this map has changed, including holds that expire by `now`. May restart after the
    /// map is read again.
    pub(crate) fn changes(&mut self, now: UnixMillis) -> u64 {
        self.advance(now);
        self.changes
    }

    /// Counts of `section`, or of all seats. `None`: no such section. A hold that has expired at `now` counts as
    /// available.
    pub fn counts(&mut self, section: Option<&str>, now: UnixMillis) -> Option<StockCounts> {
        self.advance(now);
        match section {
            None => Some(self.total),
            Some(name) => {
                let section = &self.sections[self.section_of(name)?];
                is_there(section).then_some(section.counts)
            }
        }
    }

    /// Available seats in `section`, or in all; 0 for an unknown section.
    pub fn remaining(&mut self, section: Option<&str>, now: UnixMillis) -> u64 {
        self.counts(section, now).unwrap_or_default().available
    }

    /// Counts of every section, or of the one asked for. `None`: no such section.
    ///
    /// A seat that turned out not to exist still counts for the price range until a complete read confirms it.
    pub fn status(&mut self, section: Option<&str>, now: UnixMillis) -> Option<Vec<SectionStatus>> {
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
            price: section.price.map(|(low, high)| (price(low), price(high))),
        }
    }

    /// Approximate memory of the map in bytes, with ids and reservation ids of usual length.
    pub fn bytes(&self) -> usize {
        /// A short id, as an allocator rounds it up.
        const ID: usize = 16;
        /// A UUID, likewise.
        const RESERVATION: usize = 48;
        let taken = (self.total.held + self.total.sold) as usize;
        let texts = self.slots.len() * ID + taken * RESERVATION;
        let queued = (self.holds.len() + self.offers.len()) * 2 * size_of::<(u64, u32)>();
        let names = self.names.iter().map(|name| name.len() + size_of::<Box<str>>());
        self.slots.capacity() * size_of::<SeatSlot>()
            + self.places.allocation_size()
            + self.rows.capacity() * (size_of::<super::SeatRow>() + size_of::<u32>())
            + self.sections.capacity() * size_of::<SeatSection>()
            + self.prices.capacity() * size_of::<Price>()
            + self.free.heap_bytes()
            + self.offered.heap_bytes()
            + texts
            + queued
            + names.sum::<usize>()
    }
}

/// A section whose last seat turned out not to exist is not listed.
fn is_there(section: &SeatSection) -> bool {
    section.counts.total > 0
}
