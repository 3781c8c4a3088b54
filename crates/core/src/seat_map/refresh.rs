//! Takes in reads of the seats, page by page.
//!
//! A result that is newer than the start of a read wins over the read; otherwise the read wins. While a read returns the
//! known seats and no others, each page costs one lookup per seat and no layout.
//!
//! Also takes in reads of the free seats only, which verify the known states.

use super::bit_set::{BitSet, next_run};
use super::layout::SeatPlacement;
use super::{EffectiveState, SeatMap, SeatSlot};
use crate::ids::SeatId;
use crate::limits;
use crate::seats::{SeatFacts, SeatItem, SeatState};
use crate::time::{Micros, UnixMillis};

/// What a read of the free seats has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FreeSeatsFound {
    /// The map agrees with the read, after it took in what it returned.
    pub(crate) agrees: bool,
    /// Seats that were free by the map and are not.
    pub(crate) taken_by_others: usize,
    /// Free seats that this process does not prefer.
    pub(crate) free_of_others: usize,
}

/// A read whose pages have not all arrived.
pub(super) struct PartialRead {
    began: Micros,
    /// Places of returned seats whose facts are unchanged.
    seen: BitSet,
    seen_count: usize,
    /// Places of returned seats whose facts have changed.
    moved: BitSet,
    /// Seats that have no place, or not the right one.
    unplaced: Vec<SeatItem>,
    left_out: usize,
}

impl SeatMap {
    /// Builds the map from a complete read that began at `began`.
    pub(crate) fn new(seats: Vec<SeatItem>, began: Micros) -> Self {
        let mut map = Self::default();
        map.refresh(seats, began);
        map
    }

    /// Takes in a complete read that began at `began`: seats that it does not return disappear, new ones appear. A read
    /// that began before the last one taken in is ignored.
    ///
    /// Large reads should be taken in page by page: see [`Self::refresh_page`].
    pub(crate) fn refresh(&mut self, seats: Vec<SeatItem>, began: Micros) {
        self.refresh_page(seats, began);
        self.refresh_end(began);
    }

    /// Takes in a page of the read that began at `began`. States take effect at once; seats are added, moved and removed
    /// at [`Self::refresh_end`]. A read that began later replaces an unfinished one; one that began earlier is ignored.
    pub(crate) fn refresh_page(&mut self, seats: Vec<SeatItem>, began: Micros) {
        let Some(mut incoming) = self.incoming_of(began) else {
            return;
        };
        let room = limits::SEATS_PER_EVENT_MAX;
        for seat in seats {
            match self.place_of(&seat.id) {
                Some(place) if self.is_where_it_was(place, &seat) => {
                    if !incoming.seen.get(place) {
                        incoming.seen.set(place);
                        incoming.seen_count += 1;
                    }
                    if self.slots[place].recorded_at <= began {
                        self.set(place, Some(seat.state), began);
                    }
                }
                Some(place) => {
                    incoming.moved.set(place);
                    incoming.unplaced.push(seat);
                }
                None if self.slots.len() + incoming.unplaced.len() < room => {
                    incoming.unplaced.push(seat);
                }
                None => incoming.left_out += 1,
            }
        }
        self.incoming = Some(incoming);
    }

    /// Completes the read that began at `began`.
    pub(crate) fn refresh_end(&mut self, began: Micros) {
        let Some(incoming) = self.incoming_of(began) else {
            return;
        };
        self.read = began;
        self.left_out = incoming.left_out;
        let all_seen = incoming.seen_count == self.slots.len();
        let is_same_layout = incoming.unplaced.is_empty() && (all_seen || self.all_stay(&incoming));
        if !is_same_layout {
            let placements = self.placements(incoming);
            self.build(placements);
        }
        self.divide_after_read(began);
    }

    /// Applies a read that began at `began` and returned only the seats available at `at`. Results newer than
    /// `began` are kept.
    ///
    /// Such a read cannot correct the map if it returned an unknown seat, or did not return a seat that is free by the
    /// map, so that its holder is unknown. Then it does not agree, and the missing seats are not chosen until a result shows
    /// their state. A seat that `is_locked` may be missing: a write in flight may have been applied.
    pub(crate) fn verify(
        &mut self,
        free: Vec<(SeatId, SeatState)>,
        began: Micros,
        at: UnixMillis,
        is_locked: &dyn Fn(&SeatId) -> bool,
    ) -> FreeSeatsFound {
        let mut found = FreeSeatsFound { agrees: true, ..FreeSeatsFound::default() };
        let mut seen = BitSet::with_room(self.slots.len());
        for (seat, state) in free {
            match self.place_of(&seat) {
                Some(place) => {
                    seen.set(place);
                    found.free_of_others += usize::from(!self.is_own(place));
                    if self.slots[place].recorded_at <= began {
                        self.set(place, Some(state), began);
                    }
                }
                None => found.agrees = false,
            }
        }
        self.advance(at);
        let unseen = |word| self.free.word(word) & !seen.word(word) & !self.missing.word(word);
        let mut from = 0;
        let mut missing = Vec::new();
        while let Some(run) = next_run(unseen, from..self.slots.len()) {
            from = run.end();
            missing.extend((run.start..from).filter(|place| {
                let slot = &self.slots[*place];
                let state = slot.state.as_ref();
                // The hold may have expired since.
                let was_free =
                    state.is_some_and(|s| EffectiveState::of(s, at) == EffectiveState::Available);
                slot.recorded_at <= began && was_free && !is_locked(&slot.id)
            }));
        }
        found.agrees &= missing.is_empty() && self.missing_count == 0;
        for place in missing {
            found.taken_by_others += 1;
            self.set_missing(place, began);
        }
        found
    }

    /// Whether there are seats whose state only a read of all seats shows: they are not chosen, and may be free again.
    pub(crate) fn has_missing(&self) -> bool {
        self.missing_count > 0
    }

    fn set_missing(&mut self, place: usize, at: Micros) {
        let slot = &mut self.slots[place];
        slot.recorded_at = at;
        slot.is_missing = true;
        self.missing.set(place);
        self.missing_count += 1;
    }

    /// The unfinished read that began at `began`; `None` if a later one is known.
    fn incoming_of(&mut self, began: Micros) -> Option<PartialRead> {
        if began < self.read {
            return None;
        }
        match self.incoming.take() {
            Some(later) if later.began > began => {
                self.incoming = Some(later);
                None
            }
            Some(same) if same.began == began => Some(same),
            _ => Some(PartialRead {
                began,
                seen: BitSet::with_room(self.slots.len()),
                seen_count: 0,
                moved: BitSet::default(),
                unplaced: Vec::new(),
                left_out: 0,
            }),
        }
    }

    fn is_where_it_was(&self, place: usize, seat: &SeatItem) -> bool {
        let slot = &self.slots[place];
        let row = &self.rows[slot.row as usize];
        let section = &self.sections[row.section as usize];
        seat.facts.section == self.name(section.name)
            && seat.facts.row == self.name(row.name)
            && seat.facts.number == self.name(slot.number)
            && seat.facts.price.as_ref() == self.prices.get(slot.price as usize)
    }

    fn all_stay(&self, incoming: &PartialRead) -> bool {
        let mut slots = self.slots.iter().enumerate();
        slots.all(|(place, slot)| incoming.keeps(place, slot))
    }

    /// The new layout, unordered.
    fn placements(&mut self, incoming: PartialRead) -> Vec<SeatPlacement> {
        let mut placements = Vec::with_capacity(incoming.unplaced.len() + incoming.seen_count);
        for place in 0..self.slots.len() {
            if incoming.keeps(place, &self.slots[place]) {
                placements.push(self.placement_of(place));
            }
        }
        let began = incoming.began;
        let mut unplaced = incoming.unplaced;
        // Normally a read returns each seat once.
        unplaced.sort_by(|a, b| a.id.cmp(&b.id));
        unplaced.dedup_by(|a, b| a.id == b.id);
        for seat in unplaced {
            let mut placement = SeatPlacement {
                seat_id: seat.id,
                facts: seat.facts,
                state: Some(seat.state),
                recorded_at: began,
                offered_until: Micros::default(),
                is_missing: false,
            };
            if let Some(place) = self.place_of(&placement.seat_id) {
                let slot = &mut self.slots[place];
                placement.offered_until = slot.offered_until;
                if slot.recorded_at > began {
                    placement.state = slot.state.take();
                    placement.recorded_at = slot.recorded_at;
                    placement.is_missing = slot.is_missing;
                }
            }
            placements.push(placement);
        }
        placements
    }

    fn placement_of(&mut self, place: usize) -> SeatPlacement {
        let row = &self.rows[self.slots[place].row as usize];
        let section = &self.sections[row.section as usize];
        let facts = SeatFacts {
            section: self.name(section.name).to_owned(),
            row: self.name(row.name).to_owned(),
            number: self.name(self.slots[place].number).to_owned(),
            price: self.prices.get(self.slots[place].price as usize).cloned(),
        };
        let slot = &mut self.slots[place];
        SeatPlacement {
            seat_id: slot.id.clone(),
            facts,
            state: slot.state.take(),
            recorded_at: slot.recorded_at,
            offered_until: slot.offered_until,
            is_missing: slot.is_missing,
        }
    }
}

impl PartialRead {
    /// Whether the seat at `place` still exists with the same section, row and number.
    fn keeps(&self, place: usize, slot: &SeatSlot) -> bool {
        !self.moved.get(place) && (self.seen.get(place) || slot.recorded_at > self.began)
    }
}
