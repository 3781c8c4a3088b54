//! Looking along rows for seats side by side.
//!
//! A search sees the seats that can be had, less those offered a moment ago, less those it was told
//! to leave alone. The last are asked about one by one and only where they matter, for asking costs
//! more than looking.

use std::ops::Range;

use rand::Rng;

use super::bit_set::{BitRun, BitSet, next_run, run_around};
use super::{SeatRow, SeatSlot};
use crate::ids::SeatId;
use crate::limits;

/// What a cut does to the run it is taken from. Better ones come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SplitQuality {
    /// Nothing is left of the run.
    Whole,
    /// What is left can be sold to two or more.
    Clean,
    /// A single seat is left over.
    Orphan,
}

/// Seats side by side in one row.
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

/// One search in one map.
pub(super) struct Search<'a, R> {
    pub(super) slots: &'a [SeatSlot],
    pub(super) rows: &'a [SeatRow],
    pub(super) free: &'a BitSet,
    /// What was offered a moment ago; `None` to look at that too.
    pub(super) offered: Option<&'a BitSet>,
    /// What turned out to be avoided, and what was chosen.
    pub(super) closed: BitSet,
    pub(super) longest: &'a mut [u32],
    pub(super) avoid: &'a dyn Fn(&SeatId) -> bool,
    pub(super) rng: &'a mut R,
    /// At least the longest run of the rows that were looked through.
    pub(super) widest: usize,
    /// Runs that were long enough, so far.
    pub(super) compared: usize,
}

impl<R: Rng> Search<'_, R> {
    pub(super) fn word(&self, number: usize) -> u64 {
        let offered = self.offered.map_or(0, |offered| offered.word(number));
        self.free.word(number) & !offered & !self.closed.word(number)
    }

    /// Whether a row could have `len` seats side by side, by what is known of it.
    pub(super) fn may_have(&self, row: usize, len: usize) -> bool {
        self.longest[row] as usize >= len
    }

    /// The best cut of `len` seats in `row`, looking from the seat `from` on and then from the
    /// row's start; only one that is better than `beat`.
    pub(super) fn best_cut(
        &mut self,
        row: usize,
        from: usize,
        len: usize,
        beat: Option<SplitQuality>,
    ) -> Option<SeatRun> {
        // Every further round knows of one more seat at least that is to be avoided.
        loop {
            let (run, quality) = self.best_run(row, from, len)?;
            if beat.is_some_and(|beat| beat <= quality) {
                return None;
            }
            let start = self.place_in(run, len);
            if !self.meets_avoided(run, start..start + len) {
                return Some(SeatRun {
                    start,
                    len,
                    quality,
                });
            }
        }
    }

    fn best_run(&mut self, row: usize, from: usize, len: usize) -> Option<(BitRun, SplitQuality)> {
        let seats = self.rows[row].seats();
        // Never from within a run: it would look like two.
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

    /// Whether a cut is good enough, by what was compared, to look no further.
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
        words
            .into_iter()
            .all(|number| self.word(number) == self.free.word(number))
    }

    /// Where in `run` to take `len` seats. From an end, which leaves one piece; a coin says which
    /// end. A run that is longer than any row of a theatre is seats without rows: there any place
    /// will do that leaves no single seat, so that nodes that choose at once do not meet.
    fn place_in(&mut self, run: BitRun, len: usize) -> usize {
        let spare = run.len - len;
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

    /// Whether `cut`, or one of two seats beside it in `run`, is to be avoided. Those are closed.
    ///
    /// Two, for one seat that is left over beside an avoided one is an orphan.
    fn meets_avoided(&mut self, run: BitRun, cut: Range<usize>) -> bool {
        let first = cut.start.saturating_sub(2).max(run.start);
        let end = (cut.end + 2).min(run.end());
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
