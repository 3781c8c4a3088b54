//! Houses to test seat maps with, and the plainest way to see what is in them.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::ids::{ReservationId, SeatId};
use crate::seat_map::SeatMap;
use crate::seats::{SeatFacts, SeatItem, SeatState};
use crate::time::{Micros, Now, UnixMillis};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;

pub(crate) fn reservation(n: u32) -> ReservationId {
    format!("r{n}").parse().unwrap()
}

pub(crate) fn sold() -> SeatState {
    SeatState::Sold { reservation: reservation(0) }
}

pub(crate) fn held(until: u64) -> SeatState {
    SeatState::Hold { reservation: reservation(0), until: UnixMillis(until) }
}

pub(crate) fn at(ms: u64) -> Now {
    Now { mono: Micros::from_millis(ms), unix: UnixMillis(ms) }
}

pub(crate) fn seat(section: usize, row: usize, number: usize, state: SeatState) -> SeatItem {
    SeatItem {
        id: format!("s{section}.{row}.{number}").parse().unwrap(),
        facts: SeatFacts {
            section: format!("section {section}"),
            row: format!("{}", row + 1),
            number: format!("{}", number + 1),
            price: None,
        },
        state,
    }
}

/// Sections of rows of seats, in house order; `true` can be had.
#[derive(Clone, Debug)]
pub(crate) struct House(pub(crate) Vec<Vec<Vec<bool>>>);

impl House {
    pub(crate) fn empty(sections: usize, rows: usize, seats: usize) -> Self {
        Self(vec![vec![vec![true; seats]; rows]; sections])
    }

    /// A read of it. What cannot be had is sold, blocked or held in turn; some of what can be had
    /// is a hold whose time was over at 1,000.
    pub(crate) fn seats(&self) -> Vec<SeatItem> {
        let mut seats = Vec::new();
        for (section, rows) in self.0.iter().enumerate() {
            for (row, numbers) in rows.iter().enumerate() {
                for (number, free) in numbers.iter().enumerate() {
                    let state = match (free, seats.len() % 3) {
                        (true, 0) => held(1_000),
                        (true, _) => SeatState::Available,
                        (false, 0) => sold(),
                        (false, 1) => SeatState::Blocked,
                        (false, _) => held(u64::MAX),
                    };
                    seats.push(seat(section, row, number, state));
                }
            }
        }
        // A store returns seats in its own order.
        seats.sort_by_key(|seat| Reverse(seat.id.as_str().len()));
        seats
    }

    pub(crate) fn map(&self) -> SeatMap {
        SeatMap::new(self.seats(), Micros(0))
    }

    /// The same by what was learned seat by seat, of a house that was looked through when it was the
    /// other way round.
    pub(crate) fn map_of_results(&self, order: u64) -> SeatMap {
        let mut other = self.clone();
        for seat in other.0.iter_mut().flatten().flatten() {
            *seat = !*seat;
        }
        let mut map = other.map();
        let mut rng = SmallRng::seed_from_u64(order);
        for qty in 1..6 {
            map.pick(qty, None, at(1_000), &|_| false, &mut rng);
        }
        let mut seats = self.seats();
        seats.shuffle(&mut rng);
        for seat in seats {
            map.record_result(&seat.id, Some(seat.state), Micros(1));
        }
        map
    }

    /// Without the seats in `avoided`.
    pub(crate) fn without(&self, avoided: &BTreeSet<Place>) -> Self {
        let mut house = self.clone();
        for place in avoided {
            house.0[place.0][place.1][place.2] = false;
        }
        house
    }

    pub(crate) fn rows(&self, section: Option<usize>) -> impl Iterator<Item = &Vec<bool>> {
        let sections = self.0.iter().enumerate();
        let sections = sections.filter(move |(n, _)| section.is_none_or(|wanted| wanted == *n));
        sections.flat_map(|(_, rows)| rows)
    }

    pub(crate) fn free(&self, section: Option<usize>) -> usize {
        self.rows(section).flatten().filter(|free| **free).count()
    }

    /// Lengths of runs, longest first.
    pub(crate) fn runs(&self, section: Option<usize>) -> Vec<usize> {
        let mut runs: Vec<usize> = self.rows(section).flat_map(|row| runs(row)).collect();
        runs.sort_unstable_by(|a, b| b.cmp(a));
        runs
    }
}

fn runs(row: &[bool]) -> Vec<usize> {
    let runs = row.split(|free| !free).map(<[bool]>::len);
    runs.filter(|len| *len > 0).collect()
}

/// Section, row, seat: all from 0.
pub(crate) type Place = (usize, usize, usize);

pub(crate) fn place(seat: &SeatId) -> Place {
    let mut parts = seat.as_str()[1..].split('.').map(|n| n.parse().unwrap());
    let mut next = || parts.next().unwrap();
    (next(), next(), next())
}

/// As pieces: the first seat of each and its length.
pub(crate) fn pieces(picked: &[SeatId]) -> Vec<(Place, usize)> {
    let mut pieces: Vec<(Place, usize)> = Vec::new();
    for (section, row, number) in picked.iter().map(place) {
        match pieces.last_mut() {
            Some(((s, r, n), len)) if (*s, *r, *n + *len) == (section, row, number) => *len += 1,
            _ => pieces.push(((section, row, number), 1)),
        }
    }
    pieces
}

/// What a cut leaves of its run, before and after it.
pub(crate) fn left_of_run(
    house: &House,
    (section, row, number): Place,
    len: usize,
) -> (usize, usize) {
    let row = &house.0[section][row];
    let before = row[..number].iter().rev().take_while(|free| **free).count();
    let after = row[number + len..].iter().take_while(|free| **free).count();
    (before, after)
}

/// Houses of all kinds: full, nearly empty, in pieces, with rows far longer than a word.
pub(crate) fn houses() -> impl Strategy<Value = House> {
    let share = prop_oneof![Just(0.05), Just(0.3), Just(0.5), Just(0.8), Just(0.98)];
    let row = prop_oneof![6 => 1_usize..12, 2 => 12_usize..50, 1 => 50_usize..200];
    share.prop_flat_map(move |share| {
        let seats = row
            .clone()
            .prop_flat_map(move |len| prop::collection::vec(prop::bool::weighted(share), len));
        let rows = prop::collection::vec(seats, 1..8);
        prop::collection::vec(rows, 1..4).prop_map(House)
    })
}
