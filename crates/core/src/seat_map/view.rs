//! Read access to one seat of the map.

use super::EffectiveState;
use crate::ids::SeatId;
use crate::seats::{Price, SeatFacts, SeatItem, SeatState};
use crate::time::UnixMillis;

/// A seat of the map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeatView<'a> {
    pub(crate) id: &'a SeatId,
    pub(crate) section: &'a str,
    pub(crate) row: &'a str,
    pub(crate) number: &'a str,
    pub(crate) price: Option<&'a Price>,
    /// As stored: a hold may have expired.
    pub(crate) state: &'a SeatState,
}

impl SeatView<'_> {
    /// Whether the seat is available, or its hold has expired.
    pub(crate) fn is_available(&self, now: UnixMillis) -> bool {
        EffectiveState::of(self.state, now) == EffectiveState::Available
    }

    /// An owned copy.
    pub(crate) fn to_seat(self) -> SeatItem {
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
