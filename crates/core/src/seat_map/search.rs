//! Searches rows for seats side by side.
//!
//! A search sees the available seats, without recently offered ones and without those to be avoided. The latter are
//! checked one by one and only where they matter, because the check costs more than the search.

use std::ops::Range;

use rand::Rng;

use super::bit_set::{BitRun, BitSet, next_run, run_around};
use super::{SeatRow, SeatSlot};
use crate::ids::SeatId;
use crate::limits;

/// Effect of a choice on the run that it is taken from. Better ones come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SplitQuality {
    /// The whole run is taken.
    Whole,
    /// The rest can be sold to two or more.
    Clean,
    /// A single seat is left over.
    Orphan,
}

/// Adjacent seats of one row.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeatRun {
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) quality: SplitQuality,
}

impl SeatRun {
    pub(super) fn seats(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

/// Where a search begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// In a random row, so that concurrent choices of several processes differ.
    Random,
    Front,
    Back,
}

/// One search in one map.
pub(super) struct Search<'a, R> {
    pub(super) slots: &'a [SeatSlot],
    pub(super) rows: &'a [SeatRow],
    pub(super) free: &'a BitSet,
    /// The seats to search; `None`: all.
    pub(super) part: Option<&'a BitSet>,
    pub(super) order: Order,
    /// Recently offered seats; `None` to include them.
    pub(super) offered: Option<&'a BitSet>,
    /// Seats found to be avoided, and chosen seats.
    pub(super) closed: BitSet,
    /// Of the searched part.
    pub(super) longest: &'a mut [u32],
    pub(super) avoid: &'a dyn Fn(&SeatId) -> bool,
    pub(super) rng: &'a mut R,
    /// Upper bound of the longest run in the rows that were searched.
    pub(super) widest: usize,
    /// Number of runs of sufficient length found so far.
    pub(super) compared: usize,
}

impl<R: Rng> Search<'_, R> {
    pub(super) fn word(&self, number: usize) -> u64 {
        let offered = self.offered.map_or(0, |offered| offered.word(number));
        self.free_word(number) & !offered & !self.closed.word(number)
    }

    fn free_word(&self, number: usize) -> u64 {
        self.free.word(number) & self.part.map_or(!0, |part| part.word(number))
    }

    /// Whether a row may have `len` seats side by side, by the known bounds.
    pub(super) fn may_have(&self, row: usize, len: usize) -> bool {
        self.longest[row] as usize >= len
    }

    /// The best choice of `len` seats in `row`, searching from the seat `from` and then from the row's start; only one
    /// that is better than `better_than`.
    pub(super) fn best_choice(
        &mut self,
        row: usize,
        from: usize,
        len: usize,
        better_than: Option<SplitQuality>,
    ) -> Option<SeatRun> {
        // Every further round knows at least one more seat to be avoided.
        loop {
            let (run, quality) = self.best_run(row, from, len)?;
            if better_than.is_some_and(|better_than| better_than <= quality) {
                return None;
            }
            let start = self.place_in(run, len);
            if !self.meets_avoided(run, start..start + len) {
                return Some(SeatRun { start, len, quality });
            }
        }
    }

    fn best_run(&mut self, row: usize, from: usize, len: usize) -> Option<(BitRun, SplitQuality)> {
        let seats = self.rows[row].seats();
        // Never from within a run, which would then look like two.
        let around = run_around(|number| self.word(number), seats.clone(), from);
        let from = around.map_or(from, |run| run.start);
        let mut best: Option<(BitRun, SplitQuality)> = None;
        let mut longest = 0;
        for range in [from..seats.end, seats.start..from] {
            let mut at = range.start;
            while let Some(run) = next_run(|number| self.word(number), at..range.end) {
                at = run.end();
                longest = longest.max(run.len);
                if run.len < len {
                    continue;
                }
                let quality = quality(run.len, len);
                if best.is_none_or(|(_, best)| quality < best) {
                    best = Some((run, quality));
                }
                self.compared += 1;
                if self.is_enough(best.map(|(_, quality)| quality)) {
                    return best;
                }
            }
        }
        self.widest = self.widest.max(longest);
        if self.sees_all(&seats) {
            self.longest[row] = longest as u32;
        }
        best
    }

    /// Whether a choice is good enough to stop, given the number of compared runs.
    pub(super) fn is_enough(&self, best: Option<SplitQuality>) -> bool {
        match best {
            Some(SplitQuality::Whole) => true,
            Some(SplitQuality::Clean) => self.compared >= limits::SEAT_RUNS_COMPARED,
            Some(SplitQuality::Orphan) => self.compared >= limits::SEAT_ORPHANS_COMPARED_MAX,
            None => false,
        }
    }

    /// Whether the search sees every free seat among `seats`.
    fn sees_all(&self, seats: &Range<usize>) -> bool {
        let words = seats.start / 64..seats.end.div_ceil(64);
        words.into_iter().all(|number| self.word(number) == self.free_word(number))
    }

    /// Where in `run` to take `len` seats. From an end, drawn at random, which leaves one piece. A run that is longer than
    /// any numbered row is unnumbered seating: any place without a single leftover seat is fine, so that concurrent choices
    /// of several processes differ.
    fn place_in(&mut self, run: BitRun, len: usize) -> usize {
        let spare = run.len - len;
        match self.order {
            Order::Front => return run.start,
            Order::Back => return run.start + spare,
            Order::Random => {}
        }
        if run.len <= limits::SEAT_RUN_LONG {
            return run.start + if self.rng.random() { spare } else { 0 };
        }
        let step = len.max(2);
        let before = step * self.rng.random_range(0..=spare / step);
        if spare - before == 1 {
            return run.start;
        }
        run.start + before
    }

    /// Whether `choice`, or one of the two seats on either side in `run`, is to be avoided. Such seats are excluded.
    ///
    /// Two seats, because a leftover seat beside an avoided seat would also be isolated.
    fn meets_avoided(&mut self, run: BitRun, choice: Range<usize>) -> bool {
        let first = choice.start.saturating_sub(2).max(run.start);
        let end = (choice.end + 2).min(run.end());
        let mut met = false;
        for place in first..end {
            if (self.avoid)(&self.slots[place].id) {
                self.closed.set(place);
                met = true;
            }
        }
        met
    }
}

fn quality(run: usize, len: usize) -> SplitQuality {
    match run - len {
        0 => SplitQuality::Whole,
        1 => SplitQuality::Orphan,
        _ => SplitQuality::Clean,
    }
}
