//! Halls for tests of the seat map, with simple functions that count their free seats and runs.

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

/// Sections of rows of seats, in map order; `true`: the seat is available.
#[derive(Clone, Debug)]
pub(crate) struct TestHall(pub(crate) Vec<Vec<Vec<bool>>>);

impl TestHall {
    pub(crate) fn empty(sections: usize, rows: usize, seats: usize) -> Self {
        Self(vec![vec![vec![true; seats]; rows]; sections])
    }

    /// A read of the hall. Seats that are not available are sold, blocked and held in turn; some available seats have a
    /// hold that expired at 1,000.
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

    /// The map after a read of the opposite hall and a result for each seat, in random order.
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
        let mut hall = self.clone();
        for place in avoided {
            hall.0[place.0][place.1][place.2] = false;
        }
        hall
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

/// The pieces of a choice: the first seat and the length of each.
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

/// Free seats of the same run before and after the chosen ones.
pub(crate) fn left_of_run(
    hall: &TestHall,
    (section, row, number): Place,
    len: usize,
) -> (usize, usize) {
    let row = &hall.0[section][row];
    let before = row[..number].iter().rev().take_while(|free| **free).count();
    let after = row[number + len..].iter().take_while(|free| **free).count();
    (before, after)
}

/// Halls of all kinds: full, nearly empty, fragmented, with rows much longer than 64 seats.
pub(crate) fn halls() -> impl Strategy<Value = TestHall> {
    let share = prop_oneof![Just(0.05), Just(0.3), Just(0.5), Just(0.8), Just(0.98)];
    let row = prop_oneof![6 => 1_usize..12, 2 => 12_usize..50, 1 => 50_usize..200];
    share.prop_flat_map(move |share| {
        let seats = row
            .clone()
            .prop_flat_map(move |len| prop::collection::vec(prop::bool::weighted(share), len));
        let rows = prop::collection::vec(seats, 1..8);
        prop::collection::vec(rows, 1..4).prop_map(TestHall)
    })
}
