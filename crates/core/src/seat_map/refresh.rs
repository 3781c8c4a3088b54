//! Whole reads coming in, page by page.
//!
//! What was learned after a read began wins over it; else the read does. As long as a read tells of
//! the seats already known and of no others, each page costs a lookup per seat and nothing moves.
//!
//! And reads of the free seats only, which say whether what is known is so still.

use super::bit_set::{BitSet, next_run};
use super::layout::SeatPlacement;
use super::{SeatMap, SeatSlot, SeatStanding};
use crate::ids::SeatId;
use crate::limits;
use crate::seats::{SeatFacts, SeatItem, SeatState};
use crate::time::{Micros, UnixMillis};

/// A read of which not everything has come in.
pub(super) struct PartialRead {
    began: Micros,
    /// Places of seats that it told of, with the facts that are known.
    seen: BitSet,
    seen_count: usize,
    /// Places of seats that it told other facts of.
    moved: BitSet,
    /// Seats that have no place, or not the right one.
    strangers: Vec<SeatItem>,
    left_out: usize,
}

impl SeatMap {
    /// From a whole read that began at `began`.
    pub fn new(seats: Vec<SeatItem>, began: Micros) -> Self {
        let mut map = Self::default();
        map.refresh(seats, began);
        map
    }

    /// Takes in a whole read that began at `began`: seats it does not tell of disappear, seats not
    /// known before appear. A read that began before the last one taken in is ignored.
    ///
    /// Large reads are better taken page by page: see [`Self::refresh_page`].
    pub fn refresh(&mut self, seats: Vec<SeatItem>, began: Micros) {
        self.refresh_page(seats, began);
        self.refresh_end(began);
    }

    /// Takes in a part of the read that began at `began`. States count at once; seats come, move
    /// and go at [`Self::refresh_end`]. A read that began later takes the place of one that has
    /// not ended; one that began earlier is ignored.
    pub fn refresh_page(&mut self, seats: Vec<SeatItem>, began: Micros) {
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
                    if self.slots[place].learned <= began {
                        self.set(place, Some(seat.state), began);
                    }
                }
                Some(place) => {
                    incoming.moved.set(place);
                    incoming.strangers.push(seat);
                }
                None if self.slots.len() + incoming.strangers.len() < room => {
                    incoming.strangers.push(seat);
                }
                None => incoming.left_out += 1,
            }
        }
        self.incoming = Some(incoming);
    }

    /// The read that began at `began` has told everything.
    pub fn refresh_end(&mut self, began: Micros) {
        let Some(incoming) = self.incoming_of(began) else {
            return;
        };
        self.read = began;
        self.left_out = incoming.left_out;
        let all_seen = incoming.seen_count == self.slots.len();
        if incoming.strangers.is_empty() && (all_seen || self.all_stay(&incoming)) {
            return;
        }
        let drafts = self.drafts(incoming);
        self.lay_out(drafts);
    }

    /// Takes in a read that began at `began` of the seats that could be had at `at`, and of no others.
    /// What was learned since `began` wins, as ever.
    ///
    /// False: the map is wrong in more than such a read can tell. It told of a seat that is not known,
    /// or it did not tell of one that is free by what is known here, and who has that is not known. Of
    /// a seat that `is_claimed` it may not tell: a write that is under way may have been made.
    pub fn sight(
        &mut self,
        free: Vec<(SeatId, SeatState)>,
        began: Micros,
        at: UnixMillis,
        is_claimed: &dyn Fn(&SeatId) -> bool,
    ) -> bool {
        let mut is_right = true;
        let mut seen = BitSet::with_room(self.slots.len());
        for (seat, state) in free {
            match self.place_of(&seat) {
                Some(place) => {
                    seen.set(place);
                    if self.slots[place].learned <= began {
                        self.set(place, Some(state), began);
                    }
                }
                None => is_right = false,
            }
        }
        self.advance(at);
        let unseen = |word| self.free.word(word) & !seen.word(word);
        let mut from = 0;
        while let Some(run) = next_run(unseen, from..self.slots.len()) {
            from = run.end();
            is_right &= self.slots[run.start..from].iter().all(|slot| {
                let state = slot.state.as_ref();
                // Its hold may have ended since.
                let was_free =
                    state.is_some_and(|s| SeatStanding::of(s, at) == SeatStanding::Available);
                slot.learned > began || !was_free || is_claimed(&slot.id)
            });
        }
        is_right
    }

    /// When the last whole read that was taken in began.
    pub fn read_began(&self) -> Micros {
        self.read
    }

    /// Seats of the last whole read over [`limits::SEATS_PER_EVENT_MAX`], which are not known here:
    /// worth a line in the log.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// What has come in of the read that began at `began`, to go on with; `None` if a later one is
    /// known.
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
                strangers: Vec::new(),
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

    /// The house as it is to be, in no order.
    fn drafts(&mut self, incoming: PartialRead) -> Vec<SeatPlacement> {
        let mut drafts = Vec::with_capacity(incoming.strangers.len() + incoming.seen_count);
        for place in 0..self.slots.len() {
            if incoming.keeps(place, &self.slots[place]) {
                drafts.push(self.draft_of(place));
            }
        }
        let began = incoming.began;
        let mut strangers = incoming.strangers;
        // A well-behaved read tells of a seat once.
        strangers.sort_by(|a, b| a.id.cmp(&b.id));
        strangers.dedup_by(|a, b| a.id == b.id);
        for seat in strangers {
            let mut draft = SeatPlacement {
                seat_id: seat.id,
                facts: seat.facts,
                state: Some(seat.state),
                learned: began,
                offered_until: Micros::default(),
            };
            if let Some(place) = self.place_of(&draft.seat_id) {
                let slot = &mut self.slots[place];
                draft.offered_until = slot.offered_until;
                if slot.learned > began {
                    draft.state = slot.state.take();
                    draft.learned = slot.learned;
                }
            }
            drafts.push(draft);
        }
        drafts
    }

    fn draft_of(&mut self, place: usize) -> SeatPlacement {
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
            learned: slot.learned,
            offered_until: slot.offered_until,
        }
    }
}

impl PartialRead {
    /// Whether the seat at `place` is still there, and still there where it was.
    fn keeps(&self, place: usize, slot: &SeatSlot) -> bool {
        !self.moved.get(place) && (self.seen.get(place) || slot.learned > self.began)
    }
}
