//! Chooses seats in pieces, where no row has enough adjacent seats.
//!
//! The longest piece comes first, drawn at random among the rows that have one, and then always the longest that is still
//! needed, which gives the fewest pieces. Among pieces of the same length the nearest to the first one is chosen: the
//! same row, then adjacent rows of its section, then others.

use std::iter::{chain, once};
use std::ops::Range;

use rand::Rng;

use super::pick::Area;
use super::search::{Search, SeatRun};

impl<R: Rng> Search<'_, R> {
    /// `qty` places, in order; `None` if the search sees fewer. [`Search::widest`] must be up to date for every row that may
    /// have `qty` seats.
    pub(super) fn in_pieces(&mut self, area: &Area<'_>, qty: usize) -> Option<Vec<usize>> {
        let mut places: Vec<usize> = Vec::with_capacity(qty);
        let mut size = self.longest_below(area, qty);
        let mut anchor: Option<(usize, usize)> = None;
        while places.len() < qty {
            let want = size.min(qty - places.len());
            if want == 0 {
                return None;
            }
            let Some((row, seat)) = anchor.or_else(|| self.anywhere(area, want)) else {
                size = want - 1;
                continue;
            };
            match self.nearest(area, row, seat, want) {
                Some((row, choice)) => {
                    choice.seats().for_each(|place| self.closed.set(place));
                    places.extend(choice.seats());
                    anchor.get_or_insert((row, choice.start));
                }
                None => size = want - 1,
            }
        }
        places.sort_unstable();
        Some(places)
    }

    /// Upper bound of the longest run, if no row has `qty` seats.
    fn longest_below(&self, area: &Area<'_>, qty: usize) -> usize {
        let longest = self.longest[area.rows.clone()].iter();
        let below = longest.map(|longest| *longest as usize).filter(|longest| *longest < qty);
        below.max().unwrap_or(0).max(self.widest)
    }

    fn anywhere(&mut self, area: &Area<'_>, want: usize) -> Option<(usize, usize)> {
        let row = self.random_row(area, want)?;
        Some((row, self.random_seat(row)))
    }

    /// The choice of `want` seats nearest to `seat` of `row`.
    fn nearest(
        &mut self,
        area: &Area<'_>,
        row: usize,
        seat: usize,
        want: usize,
    ) -> Option<(usize, SeatRun)> {
        let section = area.section_rows(&self.rows[row]);
        let inside = section.clone();
        let beyond = outward(area.rows.clone(), row).filter(move |other| !inside.contains(other));
        for other in outward(section, row).chain(beyond) {
            if !self.may_have(other, want) {
                continue;
            }
            let from = match other == row {
                true => seat,
                false => self.rows[other].start as usize,
            };
            self.compared = 0;
            if let Some(choice) = self.best_choice(other, from, want, None) {
                return Some((other, choice));
            }
        }
        None
    }
}

/// `middle` and then its neighbours by distance, within `range`.
fn outward(range: Range<usize>, middle: usize) -> impl Iterator<Item = usize> {
    let far = range.end.saturating_sub(middle).max(middle + 1 - range.start);
    let both = (1..far).flat_map(move |far| {
        let after = Some(middle + far);
        chain(after, middle.checked_sub(far))
    });
    chain(once(middle), both).filter(move |at| range.contains(at))
}
