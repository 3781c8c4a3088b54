//! Read access to one seat of the map.

use super::SeatStanding;
use crate::ids::SeatId;
use crate::seats::{Price, SeatFacts, SeatItem, SeatState};
use crate::time::{Micros, UnixMillis};

/// A seat of the map.
#[derive(Clone, Copy, Debug)]
pub struct SeatView<'a> {
    pub id: &'a SeatId,
    pub section: &'a str,
    pub row: &'a str,
    pub number: &'a str,
    pub price: Option<&'a Price>,
    /// As stored: a hold may have expired.
    pub state: &'a SeatState,
    /// When the write that returned this, or the read that returned it, began.
    pub learned: Micros,
}

impl SeatView<'_> {
    /// Whether the seat is available, or its hold has expired.
    pub(crate) fn is_available(&self, now: UnixMillis) -> bool {
        SeatStanding::of(self.state, now) == SeatStanding::Available
    }

    /// An owned copy.
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
