//! The seat map against simple models of it: choices and counts.

#![allow(clippy::unwrap_used)]

mod counting;
mod crowd;
mod hall;
mod picking;

use super::{SeatMap, SeatRow, SeatSection, SeatSlot};
use crate::ids::SeatId;
use crate::seats::Price;
use crate::time::Micros;

/// Figures for tests only.
impl SeatMap {
    /// Number of seats in the map.
    fn len(&self) -> usize {
        self.total.total as usize
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Approximate memory of the map in bytes, with ids and reservation ids of usual length.
    fn bytes(&self) -> usize {
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
            + self.rows.capacity() * (size_of::<SeatRow>() + size_of::<u32>())
            + self.sections.capacity() * size_of::<SeatSection>()
            + self.prices.capacity() * size_of::<Price>()
            + self.free.heap_bytes()
            + self.offered.heap_bytes()
            + texts
            + queued
            + names.sum::<usize>()
    }

    /// Start of the last complete read in the map.
    fn read_began(&self) -> Micros {
        self.read
    }

    /// Seats of the last complete read beyond [`crate::limits::SEATS_PER_EVENT_MAX`], which are not in the map.
    fn left_out(&self) -> usize {
        self.left_out
    }

    /// When the write or read that returned the seat's state began.
    fn recorded_at(&self, seat: &SeatId) -> Option<Micros> {
        Some(self.slots[self.place_of(seat)?].recorded_at)
    }
}
