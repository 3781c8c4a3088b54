//! Sets of seats as bits, one bit per seat in map order, and the runs in them.
//!
//! Searches pass a function from word index to word, so that sets combine without copies. Not here: properties of
//! seats.

use std::ops::Range;

const WORD: usize = u64::BITS as usize;

/// Grows as bits are set; bits beyond the end are clear.
#[derive(Clone, Default)]
pub(super) struct BitSet {
    words: Vec<u64>,
}

impl BitSet {
    /// Empty, with room for `len` bits.
    pub(super) fn with_room(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(WORD)] }
    }

    pub(super) fn word(&self, number: usize) -> u64 {
        self.words.get(number).copied().unwrap_or(0)
    }

    pub(super) fn get(&self, at: usize) -> bool {
        self.word(at / WORD) >> (at % WORD) & 1 == 1
    }

    pub(super) fn set(&mut self, at: usize) {
        if self.words.len() <= at / WORD {
            self.words.resize(at / WORD + 1, 0);
        }
        self.words[at / WORD] |= 1 << (at % WORD);
    }

    pub(super) fn clear(&mut self, at: usize) {
        if let Some(word) = self.words.get_mut(at / WORD) {
            *word &= !(1 << (at % WORD));
        }
    }

    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}

/// A maximal run of set bits: the bits before and after are clear or outside the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BitRun {
    pub(super) start: usize,
    pub(super) len: usize,
}

impl BitRun {
    pub(super) fn end(self) -> usize {
        self.start + self.len
    }
}

/// The first set bit of `range`; the end of the range if there is none.
fn next_set(word: impl Fn(usize) -> u64, range: Range<usize>) -> usize {
    let mut number = range.start / WORD;
    let mut keep = !0 << (range.start % WORD);
    while number * WORD < range.end {
        let found = word(number) & keep;
        if found != 0 {
            return (number * WORD + found.trailing_zeros() as usize).min(range.end);
        }
        keep = !0;
        number += 1;
    }
    range.end
}

/// Start of the set bits that end just before `at`, at least `floor`; `at` if there are none.
fn begin_of_set(word: impl Fn(usize) -> u64, floor: usize, at: usize) -> usize {
    let mut end = at;
    while end > floor {
        let number = (end - 1) / WORD;
        // Shifts the bits below `end` to the top, so that leading ones are set bits.
        let shift = WORD - 1 - (end - 1) % WORD;
        let ones = ((word(number) << shift).leading_ones() as usize).min(WORD - shift);
        end -= ones;
        if ones < WORD - shift {
            break;
        }
    }
    end.max(floor)
}

/// The first run that begins in `range`, cut at the end of the range.
pub(super) fn next_run(word: impl Fn(usize) -> u64, range: Range<usize>) -> Option<BitRun> {
    let start = next_set(&word, range.clone());
    if start >= range.end {
        return None;
    }
    let end = next_set(|number| !word(number), start..range.end);
    Some(BitRun { start, len: end - start })
}

/// The run of `range` that contains `at`.
pub(super) fn run_around(
    word: impl Fn(usize) -> u64,
    range: Range<usize>,
    at: usize,
) -> Option<BitRun> {
    let start = begin_of_set(&word, range.start, at);
    let end = next_set(|number| !word(number), at..range.end);
    (end > at).then_some(BitRun { start, len: end - start })
}

/// Number of set bits in `range`, counted up to `enough`.
pub(super) fn count(word: impl Fn(usize) -> u64, range: Range<usize>, enough: usize) -> usize {
    let mut found = 0;
    let mut number = range.start / WORD;
    while number * WORD < range.end && found < enough {
        let mut bits = word(number);
        if number * WORD < range.start {
            bits &= !0 << (range.start % WORD);
        }
        if (number + 1) * WORD > range.end {
            bits &= !(!0 << (range.end % WORD));
        }
        found += bits.count_ones() as usize;
        number += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(from: &[bool]) -> BitSet {
        let mut bits = BitSet::default();
        for (at, set) in from.iter().enumerate() {
            if *set {
                bits.set(at);
            }
        }
        bits
    }

    /// Runs found bit by bit, as the model.
    fn runs_one_by_one(from: &[bool], range: Range<usize>) -> Vec<BitRun> {
        let mut runs: Vec<BitRun> = Vec::new();
        for at in range {
            match runs.last_mut() {
                Some(run) if from[at] && run.end() == at => run.len += 1,
                _ if from[at] => runs.push(BitRun { start: at, len: 1 }),
                _ => {}
            }
        }
        runs
    }

    proptest! {
        #[test]
        fn runs_are_those_found_one_by_one(
            // Mostly set or mostly clear, so that runs cross words.
            from in prop_oneof![
                proptest::collection::vec(proptest::bool::weighted(0.97), 1..300),
                proptest::collection::vec(proptest::bool::weighted(0.1), 1..300),
            ],
            cut in (0.0..1.0, 0.0..1.0),
        ) {
            let bits = bits(&from);
            let place = |share: f64| (share * (from.len() + 1) as f64) as usize;
            let (a, b) = (place(cut.0), place(cut.1));
            let range = a.min(b)..a.max(b);
            let word = |number| bits.word(number);
            let expected = runs_one_by_one(&from, range.clone());
            let mut found = Vec::new();
            let mut from_here = range.start;
            while let Some(run) = next_run(word, from_here..range.end) {
                from_here = run.end();
                found.push(run);
            }
            prop_assert_eq!(&found, &expected);
            for at in range.clone() {
                let around = expected.iter().find(|r| (r.start..r.end()).contains(&at));
                prop_assert_eq!(run_around(word, range.clone(), at), around.copied());
            }
            let set = range.clone().filter(|at| from[*at]).count();
            prop_assert_eq!(count(word, range.clone(), usize::MAX), set);
            prop_assert!(count(word, range, 3) >= set.min(3));
        }
    }

    #[test]
    fn unset_bits_are_clear() {
        let mut bits = BitSet::with_room(3);
        bits.clear(500);
        assert!(!bits.get(500));
        bits.set(500);
        assert!(bits.get(500) && !bits.get(499) && !bits.get(501));
        bits.clear(500);
        assert!(!bits.get(500));
    }
}
