//! Properties of one choice, in halls of all kinds.

use std::cell::Cell;
use std::collections::BTreeSet;

use crate::limits;
use crate::seat_map::SeatMap;
use crate::seats::SeatState;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::hall::{Place, TestHall, at, halls, held, left_of_run, pieces, place, seat, sold};

/// One choice in a new map.
#[derive(Clone, Debug)]
struct PickCase {
    qty: u32,
    section: Option<usize>,
    /// Percentage of seats that have a write in flight.
    avoided: u32,
    seed: u64,
    /// Whether the map is made from single results instead of a read.
    is_built_by_results: bool,
}

impl PickCase {
    /// After every offer has lapsed.
    fn map(&self, hall: &TestHall) -> SeatMap {
        match self.is_built_by_results {
            true => hall.map_of_results(self.seed),
            false => hall.map(),
        }
    }

    fn section(&self) -> Option<String> {
        self.section.map(|n| format!("section {n}"))
    }
}

fn pick_cases() -> impl Strategy<Value = PickCase> {
    let qty = prop_oneof![Just(1_u32), 1_u32..4, 1_u32..12];
    let section = prop_oneof![2 => Just(None), 1 => (0_usize..3).prop_map(Some)];
    let avoided = prop_oneof![Just(0_u32), Just(10), Just(60)];
    let rest = (any::<u64>(), any::<bool>());
    (qty, section, avoided, rest).prop_map(
        |(qty, section, avoided, (seed, is_built_by_results))| PickCase {
            qty,
            section,
            avoided,
            seed,
            is_built_by_results,
        },
    )
}

fn avoided(hall: &TestHall, case: &PickCase) -> BTreeSet<Place> {
    let mut avoided = BTreeSet::new();
    for (s, rows) in hall.0.iter().enumerate() {
        for (r, row) in rows.iter().enumerate() {
            for n in 0..row.len() {
                let hash = (s * 31 + r * 17 + n * 13) as u64 ^ case.seed;
                if (hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % 100 < u64::from(case.avoided)
                {
                    avoided.insert((s, r, n));
                }
            }
        }
    }
    avoided
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn pick_has_the_fewest_pieces(
        hall in halls(),
        case in pick_cases(),
    ) {
        let avoided = avoided(&hall, &case);
        let mut map = case.map(&hall);
        let mut rng = SmallRng::seed_from_u64(case.seed);
        let name = case.section();
        let avoid = |seat: &_| avoided.contains(&place(seat));
        let picked = map.pick(case.qty, name.as_deref(), at(2_000), &avoid, &mut rng);

        // The seats that can be chosen, by the model.
        let hall = hall.without(&avoided);
        let qty = case.qty as usize;
        let Some(picked) = picked else {
            prop_assert!(hall.free(case.section) < qty, "there were enough");
            return Ok(());
        };
        prop_assert_eq!(picked.len(), qty);
        let distinct: BTreeSet<_> = picked.iter().map(place).collect();
        prop_assert_eq!(distinct.len(), qty);
        prop_assert!(picked.is_sorted_by_key(place), "not in hall order: {:?}", picked);
        for (section, row, number) in distinct {
            prop_assert!(hall.0[section][row][number], "not to be had");
            prop_assert!(case.section.is_none_or(|wanted| wanted == section));
        }

        let mut fewest = 0;
        let mut left = qty;
        for run in hall.runs(case.section) {
            if left > 0 {
                left = left.saturating_sub(run);
                fewest += 1;
            }
        }
        prop_assert_eq!(pieces(&picked).len(), fewest, "{:?}", picked);
    }

    #[test]
    fn pick_leaves_no_single_seat_if_possible(
        hall in halls(),
        mut case in pick_cases(),
    ) {
        case.avoided = 0;
        let qty = case.qty as usize;
        let runs = hall.runs(case.section);
        let avoidable = runs.iter().any(|run| *run == qty || *run > qty + 1);
        let name = case.section();
        let mut rng = SmallRng::seed_from_u64(case.seed);
        let picked = case.map(&hall).pick(case.qty, name.as_deref(), at(2_000), &|_| false, &mut rng);
        if !avoidable {
            return Ok(());
        }
        let pieces = pieces(&picked.unwrap());
        prop_assert_eq!(pieces.len(), 1);
        let (before, after) = left_of_run(&hall, pieces[0].0, qty);
        prop_assert!(before != 1 && after != 1, "{} and {} are left", before, after);

        // Fewer runs than are compared: the best of all is found.
        if runs.len() < limits::SEAT_RUNS_COMPARED && runs.contains(&qty) {
            prop_assert_eq!((before, after), (0, 0));
        }
        if before + qty + after <= limits::SEAT_RUN_LONG {
            prop_assert!(before == 0 || after == 0, "cut from the middle");
        }
    }
}

fn pick_places(hall: &TestHall, qty: u32, seed: u64) -> Vec<Place> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let picked = hall.map().pick(qty, None, at(1_000), &|_| false, &mut rng);
    picked.unwrap().iter().map(place).collect()
}

#[test]
fn pieces_are_close_together() {
    // Single seats, one in each row, and one row with three of them.
    let mut hall = TestHall::empty(2, 40, 5);
    for rows in &mut hall.0 {
        for row in rows {
            *row = vec![false, false, true, false, false];
        }
    }
    for seed in 0..50 {
        let picked = pick_places(&hall, 4, seed);
        let (section, first, _) = picked[0];
        let (last_section, last, _) = picked[3];
        assert_eq!(section, last_section, "{picked:?}");
        assert!(last - first <= 6, "{picked:?}");
    }
    hall.0[1][20] = vec![true, false, true, false, true];
    let in_one_row = |picked: &[Place]| picked.iter().all(|p| (p.0, p.1) == (1, 20));
    assert!((0..2_000).any(|seed| in_one_row(&pick_places(&hall, 3, seed))));
}

#[test]
fn pieces_of_unnumbered_rows_are_close_together_anywhere() {
    let mut hall = TestHall::empty(1, 1, 1_000);
    (0..1_000).step_by(2).for_each(|n| hall.0[0][0][n] = false);
    let mut first = BTreeSet::new();
    for seed in 0..50 {
        let picked = pick_places(&hall, 3, seed);
        first.insert(picked[0]);
        // Unless the row ended.
        assert!(picked[2].2 - picked[0].2 <= 4 || picked[0].2 <= 3, "{picked:?}");
    }
    assert!(first.len() > 30, "{first:?}");
}

#[test]
fn choice_inside_a_long_run_leaves_no_single_seat() {
    for len in 65..70 {
        let hall = TestHall::empty(1, 1, len);
        let mut map = hall.map();
        let mut rng = SmallRng::seed_from_u64(1);
        for n in 0..900 {
            let qty = n % 3 + 1;
            let now = at(1_000 * (1 + u64::from(n)));
            let picked = map.pick(qty, None, now, &|_| false, &mut rng).unwrap();
            let picked: Vec<Place> = picked.iter().map(place).collect();
            let (before, after) = left_of_run(&hall, picked[0], qty as usize);
            assert!(before != 1 && after != 1, "{len}: {before}, {qty}, {after}");
        }
    }
}

#[test]
fn last_seats_of_a_nearly_sold_out_event_are_found() {
    // Every other seat is free, so that every row has many and none has two, but for one place.
    let mut hall = TestHall::empty(5, 50, 40);
    for row in hall.0.iter_mut().flatten() {
        (0..40).step_by(2).for_each(|n| row[n] = false);
    }
    hall.0[3][17][20] = true;
    for seed in 0..20 {
        assert_eq!(pick_places(&hall, 3, seed)[0], (3, 17, 19));
    }

    let mut hall = TestHall(vec![vec![vec![false; 40]; 50]; 5]);
    hall.0[0][3][39] = true;
    hall.0[4][49][39] = true;
    assert_eq!(pick_places(&hall, 2, 1), [(0, 3, 39), (4, 49, 39)]);
    let mut rng = SmallRng::seed_from_u64(1);
    assert_eq!(hall.map().pick(3, None, at(1_000), &|_| false, &mut rng), None);
}

#[test]
fn rows_are_searched_again_after_seats_are_returned() {
    let mut hall = TestHall::empty(1, 20, 20);
    for row in hall.0.iter_mut().flatten() {
        (0..20).step_by(2).for_each(|n| row[n] = false);
    }
    let mut map = hall.map();
    let mut rng = SmallRng::seed_from_u64(1);
    let mut picked = |map: &mut SeatMap, ms| {
        let picked = map.pick(3, None, at(ms), &|_| false, &mut rng).unwrap();
        pieces(&picked)
    };
    assert_eq!(picked(&mut map, 1_000).len(), 3);
    // Released.
    let freed = "s0.7.10".parse().unwrap();
    map.record_result(&freed, Some(SeatState::Available), at(1_400).mono);
    assert_eq!(picked(&mut map, 1_400), [((0, 7, 9), 3)]);
    map.record_result(&freed, Some(sold()), at(1_800).mono);
    assert_eq!(picked(&mut map, 1_800).len(), 3);
    // Held, and the hold expires.
    map.record_result(&freed, Some(held(2_500)), at(1_900).mono);
    assert_eq!(picked(&mut map, 2_499).len(), 3);
    assert_eq!(picked(&mut map, 2_900), [((0, 7, 9), 3)]);
}

#[test]
fn returned_seat_joins_two_runs() {
    let mut hall = TestHall::empty(1, 1, 5_000);
    for gap in [999, 2_500, 4_000] {
        hall.0[0][0][gap] = false;
    }
    let mut map = hall.map();
    let mut rng = SmallRng::seed_from_u64(1);
    let mut picked = |map: &mut SeatMap, ms| {
        let picked = map.pick(2_900, None, at(ms), &|_| false, &mut rng).unwrap();
        pieces(&picked).len()
    };
    assert_eq!(picked(&mut map, 1_000), 2);
    let gap = "s0.0.2500".parse().unwrap();
    map.record_result(&gap, Some(SeatState::Available), at(1_000).mono);
    assert_eq!(picked(&mut map, 2_000), 1);
}

#[test]
fn seats_without_rows_are_side_by_side_by_their_ids() {
    let mut seats = Vec::new();
    for n in 0..30 {
        let mut seat = seat(0, 0, n, SeatState::Available);
        seat.facts = Default::default();
        seat.id = format!("GA-{}", n + 1).parse().unwrap();
        if n != 8 && n != 9 && n != 10 {
            seat.state = sold();
        }
        seats.push(seat);
    }
    seats.sort_by(|a, b| a.id.cmp(&b.id));
    let mut map = SeatMap::new(seats, at(0).mono);
    let mut rng = SmallRng::seed_from_u64(1);
    let picked = map.pick(3, Some(""), at(0), &|_| false, &mut rng).unwrap();
    assert_eq!(format!("{picked:?}"), r#"["GA-9", "GA-10", "GA-11"]"#);
    assert_eq!(map.pick(1, Some("other"), at(0), &|_| false, &mut rng), None);
    assert_eq!(map.pick(0, None, at(0), &|_| false, &mut rng), Some(Vec::new()));
}

/// The callback `avoid` is expensive: it is called for little more than the chosen seats, however large the venue is
/// and however few seats are available.
#[test]
fn few_seats_are_examined_per_pick() {
    let full = TestHall::empty(10, 100, 50);
    let mut odd = full.clone();
    // Runs of three only: a pair leaves a single seat everywhere.
    for row in odd.0.iter_mut().flatten() {
        (3..50).step_by(4).for_each(|n| row[n] = false);
        row[48..].fill(false);
    }
    let mut single = full.clone();
    for row in single.0.iter_mut().flatten() {
        (0..50).step_by(2).for_each(|n| row[n] = false);
    }
    for hall in [full, odd, single] {
        let mut map = hall.map();
        let mut rng = SmallRng::seed_from_u64(1);
        for n in 0..50 {
            let asked = Cell::new(0);
            let avoid = |_: &_| {
                asked.set(asked.get() + 1);
                false
            };
            map.pick(2, None, at(1_000 + n), &avoid, &mut rng).unwrap();
            assert!(asked.get() <= 16, "asked {} times", asked.get());
        }
    }
}
