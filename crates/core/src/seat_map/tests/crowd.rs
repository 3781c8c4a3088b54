//! Many concurrent choices: they must not choose the same seats.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::limits;
use crate::membership::{Member, Members, ProcessId};
use crate::seat_map::{FreeSeatsFound, Reach, SeatMap};
use crate::seats::{Price, SeatState};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::hall::{Place, TestHall, at, place, sold};

fn pick(map: &mut SeatMap, qty: u32, ms: u64, rng: &mut SmallRng) -> Option<Vec<Place>> {
    let picked = map.pick(qty, None, at(ms), &|_| false, rng)?;
    Some(picked.iter().map(place).collect())
}

#[test]
fn concurrent_picks_differ() {
    // More seats than requested; exactly as many; as many in rows with an odd number of seats.
    for (rows, seats) in [(40, 25), (20, 20), (20, 21), (25, 16), (134, 3)] {
        for seed in 0..10 {
            let mut map = TestHall::empty(1, rows, seats).map();
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut taken = BTreeSet::new();
            for n in 0..200 {
                // All within the age of an offer.
                let picked = pick(&mut map, 2, 1_000 + n, &mut rng).unwrap();
                for place in picked {
                    assert!(taken.insert(place), "{place:?} twice, {rows} rows of {seats}");
                }
            }
        }
    }
}

#[test]
fn offer_expires_at_its_age() {
    let age = limits::SEAT_OFFER_AGE.as_millis() as u64;
    let mut map = TestHall::empty(1, 1, 4).map();
    let mut rng = SmallRng::seed_from_u64(1);
    let first = pick(&mut map, 2, 1_000, &mut rng).unwrap();
    let second = pick(&mut map, 2, 1_000 + age - 1, &mut rng).unwrap();
    assert!(first.iter().all(|place| !second.contains(place)));
    // The first offer has lapsed, the second has not.
    assert_eq!(pick(&mut map, 2, 1_000 + age, &mut rng).unwrap(), first);
    // All seats have an offer mark: they are chosen nevertheless, and their marks are renewed.
    assert!(pick(&mut map, 4, 1_000 + age + 1, &mut rng).is_some());
    assert_eq!(pick(&mut map, 5, 1_000 + age + 2, &mut rng), None);
}

#[test]
fn repeated_offer_starts_its_age_again() {
    for seed in 0..20 {
        let mut map = TestHall::empty(1, 1, 4).map();
        let mut rng = SmallRng::seed_from_u64(seed);
        pick(&mut map, 4, 1_000, &mut rng).unwrap();
        let again = pick(&mut map, 2, 1_200, &mut rng).unwrap();
        let after = pick(&mut map, 2, 1_350, &mut rng).unwrap();
        assert!(again.iter().all(|place| !after.contains(place)));
    }
}

#[test]
fn offers_survive_a_read_and_a_new_layout() {
    let mut hall = TestHall::empty(1, 1, 4);
    let mut map = hall.map();
    let mut rng = SmallRng::seed_from_u64(1);
    let first = pick(&mut map, 2, 1_000, &mut rng).unwrap();
    map.refresh(hall.seats(), at(1_010).mono);
    hall.0.push(vec![vec![false; 3]]);
    // Those offered have another price by now.
    let mut seats = hall.seats();
    for seat in seats.iter_mut().filter(|seat| first.contains(&place(&seat.id))) {
        seat.facts.price = Some(Price { amount: 5, currency: "KRW".to_owned() });
    }
    map.refresh(seats, at(1_020).mono);
    assert_eq!(map.len(), 7);
    let second = pick(&mut map, 2, 1_030, &mut rng).unwrap();
    assert!(first.iter().all(|place| !second.contains(place)));
    // The marks expire nevertheless.
    assert_eq!(pick(&mut map, 2, 1_300, &mut rng).unwrap(), first);
}

/// How often each row was the first choice without any offer marks, as in many processes, each with a map of its own.
fn first_choices(map: &mut SeatMap, times: u64) -> BTreeMap<(usize, usize), u64> {
    let mut rng = SmallRng::seed_from_u64(7);
    let mut rows = BTreeMap::new();
    for n in 0..times {
        let picked = pick(map, 2, 1_000 + n * 1_000, &mut rng).unwrap();
        *rows.entry((picked[0].0, picked[0].1)).or_default() += 1;
    }
    rows
}

#[test]
fn concurrent_picks_spread_over_rows_with_a_preference_for_the_front() {
    let mut map = TestHall::empty(2, 20, 25).map();
    let rows = first_choices(&mut map, 20_000);
    assert_eq!(rows.len(), 40);
    // 500 each without a weight: from 667 at the front to 333 at the back.
    assert!(rows.values().all(|n| (250..=760).contains(n)), "{rows:?}");
    let front: u64 = (0..2).map(|section| rows[&(section, 0)]).sum();
    let back: u64 = (0..2).map(|section| rows[&(section, 19)]).sum();
    let weight = front as f64 / back as f64;
    assert!((1.6..=2.4).contains(&weight), "{weight}: {rows:?}");
}

#[test]
fn picks_spread_also_behind_sold_out_rows() {
    let mut hall = TestHall::empty(1, 50, 20);
    hall.0[0][..40].fill(vec![false; 20]);
    let rows = first_choices(&mut hall.map(), 2_000);
    assert_eq!(rows.len(), 10);
    assert!(rows.values().all(|n| (90..=330).contains(n)), "{rows:?}");

    // The same if single results, not a read, show that the rows are sold out.
    let hall = TestHall::empty(1, 50, 20);
    let mut map = hall.map();
    for seat in hall.seats() {
        if place(&seat.id).1 < 40 {
            map.record_result(&seat.id, Some(sold()), at(1).mono);
        }
    }
    let rows = first_choices(&mut map, 2_000);
    assert!(rows.values().all(|n| (90..=330).contains(n)), "{rows:?}");
}

#[test]
fn picks_spread_in_a_seat_map_without_rows() {
    let mut map = TestHall::empty(1, 1, 5_000).map();
    let mut rng = SmallRng::seed_from_u64(7);
    let mut places = BTreeMap::<Place, u64>::new();
    for n in 0..1_000 {
        let picked = pick(&mut map, 2, 1_000 + n * 1_000, &mut rng).unwrap();
        *places.entry(picked[0]).or_default() += 1;
    }
    assert!(places.len() > 700, "{}", places.len());
    // What is left before and after is never a single seat.
    assert!(places.keys().all(|(_, _, n)| *n != 1 && *n != 4_997));

    // Nor when every run is a short one.
    let mut hall = TestHall::empty(1, 1, 5_000);
    (0..5_000).step_by(5).for_each(|n| hall.0[0][0][n] = false);
    let mut map = hall.map();
    let mut places = BTreeSet::new();
    for n in 0..1_000 {
        places.insert(pick(&mut map, 2, 1_000 + n * 1_000, &mut rng).unwrap());
    }
    assert!(places.len() > 400, "{}", places.len());
}

fn members(own: u64, all: &[u64]) -> Rc<Members> {
    let member = |id: u64| Member { id: ProcessId(id), shards: 1 };
    Rc::new(Members::new(member(own), all.iter().map(|id| member(*id))))
}

/// What each of these processes chooses until its part has no seats.
fn parts(hall: &TestHall, ids: &[u64]) -> Vec<BTreeSet<Place>> {
    let part = |own: &u64| {
        let mut map = hall.map();
        map.set_members(&members(*own, ids), at(0).mono);
        let mut rng = SmallRng::seed_from_u64(*own);
        let mut chosen = BTreeSet::new();
        while let Some(seats) =
            map.pick_within(Reach::Own, 1, None, at(2_000), &|_| false, &mut rng)
        {
            chosen.extend(seats.iter().map(place));
        }
        chosen
    };
    ids.iter().map(part).collect()
}

#[test]
fn members_divide_a_hall_evenly_without_overlap() {
    // Blocks of a long row: three members may exceed their share by one, and the fourth gets what remains.
    for (hall, uneven) in [
        (TestHall::empty(3, 16, 25), 0),
        (TestHall::empty(40, 2, 20), 0),
        (TestHall::empty(1, 1, 5_000), 3 * limits::SEAT_RUN_LONG),
    ] {
        let parts = parts(&hall, &[7, 1, 90, 4]);
        let all: BTreeSet<Place> = parts.iter().flatten().copied().collect();
        let total = hall.free(None);
        assert_eq!(all.len(), total, "every seat is in a part");
        assert_eq!(parts.iter().map(BTreeSet::len).sum::<usize>(), total, "of one process");
        for part in &parts {
            assert!(part.len().abs_diff(total / 4) <= uneven, "{} of {total}", part.len());
        }
    }
}

#[test]
fn few_rows_move_when_a_member_leaves() {
    let hall = TestHall::empty(4, 40, 20);
    let before = parts(&hall, &[1, 2, 3, 4]);
    let after = parts(&hall, &[1, 2, 3]);
    let kept: usize = before.iter().zip(&after).map(|(a, b)| a.intersection(b).count()).sum();
    let total = hall.free(None);
    // Three quarters were theirs before.
    assert!(kept * 100 > total * 55, "{kept} of {total}");
}

#[test]
fn a_process_alone_chooses_as_without_members() {
    let mut alone = TestHall::empty(2, 20, 25).map();
    let mut single = TestHall::empty(2, 20, 25).map();
    single.set_members(&members(5, &[]), at(0).mono);
    let mut rngs = [SmallRng::seed_from_u64(9), SmallRng::seed_from_u64(9)];
    for n in 0..300 {
        let a = pick(&mut alone, 3, 1_000 + n, &mut rngs[0]);
        assert_eq!(pick(&mut single, 3, 1_000 + n, &mut rngs[1]), a);
    }
}

#[test]
fn new_members_divide_the_hall_after_the_next_read() {
    let hall = TestHall::empty(2, 20, 10);
    let mut map = hall.map();
    map.set_members(&members(1, &[]), at(100).mono);
    assert!(!map.is_divided() && !map.awaits_division());
    map.set_members(&members(1, &[2]), at(1_000).mono);
    assert!(map.awaits_division());
    map.refresh(hall.seats(), at(900).mono);
    assert!(map.awaits_division() && !map.is_divided(), "the read began before");
    map.refresh(hall.seats(), at(1_100).mono);
    assert!(map.is_divided() && !map.awaits_division());
}

/// A seat that a read of the free seats does not return is not chosen, until a result shows that it is free again.
#[test]
fn seats_that_others_have_taken_are_not_chosen() {
    let mut map = TestHall::empty(1, 1, 3).map();
    let mut rng = SmallRng::seed_from_u64(1);
    let seats = map.pick(3, None, at(1_000), &|_| false, &mut rng).unwrap();
    let free = vec![(seats[1].clone(), SeatState::Available)];
    let found = map.verify(free.clone(), at(1_010).mono, at(1_010).unix, &|seat| *seat == seats[2]);
    let expected = FreeSeatsFound { agrees: false, taken_by_others: 1, free_of_others: 0 };
    assert_eq!(found, expected);
    // Long after the marks of offered seats have ended. The third was locked by a write in flight.
    assert_eq!(map.pick(3, None, at(5_000), &|_| false, &mut rng), None);
    assert!(map.pick(2, None, at(5_000), &|_| false, &mut rng).is_some());
    // A read that began earlier does not count.
    map.record_result(&seats[0], Some(SeatState::Available), at(1_009).mono);
    assert_eq!(map.pick(3, None, at(5_000), &|_| false, &mut rng), None);
    assert!(!map.verify(free, at(1_020).mono, at(1_020).unix, &|seat| *seat == seats[2]).agrees);
    map.record_result(&seats[0], Some(SeatState::Available), at(1_030).mono);
    assert!(map.pick(3, None, at(5_000), &|_| false, &mut rng).is_some());
}

/// With several processes one chooses its own seats first, then others' from the back, and all in the end.
#[test]
fn seats_of_others_are_chosen_from_the_back() {
    let mut map = TestHall::empty(1, 12, 4).map();
    map.set_members(&members(1, &[2, 3, 4]), at(0).mono);
    let mut rng = SmallRng::seed_from_u64(1);
    let mut own = 0;
    while map.pick_within(Reach::Own, 4, None, at(1_000 + own), &|_| false, &mut rng).is_some() {
        own += 1;
    }
    assert_eq!(own, 3);
    let rows: Vec<_> = (0..9).map(|_| pick(&mut map, 4, 1_010, &mut rng).unwrap()[0].1).collect();
    let falls = rows.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!(falls <= 1, "one order for the rows in which it is next, one for the rest: {rows:?}");
}
