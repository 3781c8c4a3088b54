//! A seat as whoever asks sees it.

use super::SeatStanding;
use crate::ids::SeatId;
use crate::seats::{Price, SeatFacts, SeatItem, SeatState};
use crate::time::{Micros, UnixMillis};

/// A seat as the map knows it.
#[derive(Clone, Copy, Debug)]
pub struct SeatView<'a> {
    pub id: &'a SeatId,
    pub section: &'a str,
    pub row: &'a str,
    pub number: &'a str,
    pub price: Option<&'a Price>,
    /// As stored: a hold may be past its time.
    pub state: &'a SeatState,
    /// When this was told by a write, or when the read that told it began.
    pub learned: Micros,
}

impl SeatView<'_> {
    /// Whether it is available, or held by nobody any more.
    pub fn can_be_had(&self, now: UnixMillis) -> bool {
        SeatStanding::of(self.state, now) == SeatStanding::Available
    }

    /// With texts of its own.
    pub fn to_seat(&self) -> SeatItem {
        SeatItem {
            id: self.id.clone(),
            facts: SeatFacts {
                section: self.section.to_owned(),
                row: self.row.to_owned(),
                number: self.number.to_owned(),
                price: self.price.cloned(),
            },
            state: self.state.clone(),
        }
    }
}
