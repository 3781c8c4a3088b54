//! States and counts of the map, against a model with a plain list that is counted each time.

use std::collections::BTreeMap;

use crate::ids::SeatId;
use crate::query::{SectionStatus, StockCounts};
use crate::seat_map::SeatMap;
use crate::seats::{Price, SeatFacts, SeatItem, SeatState};
use crate::time::{Micros, Now, UnixMillis};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::hall::{at, held, reservation, seat, sold};

struct ExpectedSeat {
    facts: SeatFacts,
    state: Option<SeatState>,
    recorded_at: u64,
    /// Free, and not returned by a later read of the free seats.
    is_missing: bool,
}

impl ExpectedSeat {
    fn is_free(&self, at: u64) -> bool {
        match &self.state {
            Some(SeatState::Available) => true,
            Some(SeatState::Hold { until, .. }) => until.0 <= at,
            _ => false,
        }
    }
}

#[derive(Default)]
struct Model {
    seats: BTreeMap<SeatId, ExpectedSeat>,
    read: u64,
    clock: u64,
}

impl Model {
    fn record_result(&mut self, seat: &SeatId, state: Option<SeatState>, at: u64) {
        if let Some(known) = self.seats.get_mut(seat)
            && known.recorded_at <= at
        {
            known.state = state;
            known.recorded_at = at;
            known.is_missing = false;
        }
    }

    fn refresh(&mut self, read: Vec<SeatItem>, began: u64) {
        if began < self.read {
            return;
        }
        self.read = began;
        let mut told: BTreeMap<SeatId, SeatItem> =
            read.into_iter().map(|s| (s.id.clone(), s)).collect();
        self.seats.retain(|id, known| {
            let later = known.recorded_at > began;
            match told.remove(id) {
                None => later,
                Some(seat) => {
                    known.facts = seat.facts;
                    if !later {
                        known.state = Some(seat.state);
                        known.recorded_at = began;
                        known.is_missing = false;
                    }
                    true
                }
            }
        });
        for (id, seat) in told {
            let state = Some(seat.state);
            let known =
                ExpectedSeat { facts: seat.facts, state, recorded_at: began, is_missing: false };
            self.seats.insert(id, known);
        }
    }

    /// Takes in a read of the free seats that began at `began`; false if it misses a seat.
    fn verify(&mut self, free: &[(SeatId, SeatState)], began: u64, claimed: &[SeatId]) -> bool {
        let mut agrees = true;
        for (seat, state) in free {
            agrees &= self.seats.contains_key(seat);
            self.record_result(seat, Some(state.clone()), began);
        }
        let told = |seat: &SeatId| free.iter().any(|(id, _)| id == seat);
        let clock = self.clock.max(began);
        agrees &= self.seats.values().all(|known| !known.is_missing);
        for (id, known) in &mut self.seats {
            let is_unexplained = known.recorded_at <= began && !told(id) && !claimed.contains(id);
            let was_free = known.is_free(clock) && known.is_free(began);
            if was_free && is_unexplained && !known.is_missing {
                known.is_missing = true;
                known.recorded_at = began;
                agrees = false;
            }
        }
        agrees
    }

    /// Counts by section, including sections without seats.
    fn sections(&self) -> BTreeMap<String, SectionStatus> {
        let mut sections = BTreeMap::<String, SectionStatus>::new();
        let mut prices = BTreeMap::<&str, Vec<&Price>>::new();
        for known in self.seats.values() {
            let name = &known.facts.section;
            let section = sections.entry(name.clone()).or_default();
            section.section = name.clone();
            prices.entry(name).or_default().extend(&known.facts.price);
            let Some(state) = &known.state else { continue };
            let counts = &mut section.counts;
            counts.total += 1;
            *match state {
                SeatState::Hold { until, .. } if until.0 > self.clock => &mut counts.held,
                SeatState::Available | SeatState::Hold { .. } => &mut counts.available,
                SeatState::Sold { .. } => &mut counts.sold,
                SeatState::Blocked => &mut counts.blocked,
            } += 1;
        }
        for (name, prices) in prices {
            let mut ranges = BTreeMap::<&str, (&Price, &Price)>::new();
            for price in prices {
                let (low, high) = ranges.entry(&price.currency).or_insert((price, price));
                *low = (*low).min(price);
                *high = (*high).max(price);
            }
            let ranges = ranges.into_values().map(|(low, high)| (low.clone(), high.clone()));
            sections.get_mut(name).unwrap().prices = ranges.collect();
        }
        sections
    }
}

fn sum(sections: &BTreeMap<String, SectionStatus>) -> StockCounts {
    let mut sum = StockCounts::default();
    for section in sections.values() {
        sum.total += section.counts.total;
        sum.available += section.counts.available;
        sum.held += section.counts.held;
        sum.sold += section.counts.sold;
        sum.blocked += section.counts.blocked;
    }
    sum
}

/// The possible seats. `version` moves one seat to another place or price.
fn candidate(n: usize, version: usize, state: SeatState) -> SeatItem {
    let mut seat = seat(n % 3, n / 12, n, state);
    if n.is_multiple_of(5) {
        seat.facts.row = format!("{version}");
    }
    if n % 4 == 1 {
        seat.facts.section = format!("section {}", version % 4);
    }
    seat.facts.price = (!n.is_multiple_of(3)).then(|| Price {
        amount: (n * 10 + version % 2) as i64,
        currency: if n.is_multiple_of(7) { "USD" } else { "KRW" }.to_owned(),
    });
    seat
}

const SEATS: usize = 40;

#[derive(Clone, Debug)]
enum CountingStep {
    Pass(u64),
    /// A call with a clock that is behind.
    Lag(u64),
    /// A seat, its state, and the age of this information.
    Record(usize, Option<SeatState>, u64),
    /// How long ago the read began, which seats it returns, of which version, their states, and
    /// whether it came in pages, with a result in between.
    Refresh(u64, Vec<bool>, usize, Vec<SeatState>, Option<(usize, Option<SeatState>)>),
    Pick(u32),
    /// How long ago a read of the free seats began, what it returned besides the seats that the
    /// list knows as free, which of those it left out, and which are claimed.
    Verify(u64, Vec<(usize, SeatState)>, Vec<usize>, Vec<usize>),
}

fn states() -> impl Strategy<Value = SeatState> {
    prop_oneof![
        2 => Just(SeatState::Available),
        1 => Just(sold()),
        1 => Just(SeatState::Blocked),
        3 => (0_u64..3_000).prop_map(held),
    ]
}

fn steps() -> impl Strategy<Value = CountingStep> {
    let maybe = || prop::option::weighted(0.8, states());
    let told = prop_oneof![
        Just(vec![true; SEATS]),
        prop::collection::vec(prop::bool::weighted(0.9), SEATS),
        Just(vec![false; SEATS]),
    ];
    // Mostly the same seats.
    let version = prop_oneof![6 => Just(1_usize), 1 => 0_usize..4];
    let meanwhile = prop::option::of((0..SEATS, maybe()));
    let refresh = (0_u64..60, told, version, prop::collection::vec(states(), SEATS), meanwhile);
    let free = prop_oneof![Just(SeatState::Available), (0_u64..100).prop_map(held)];
    let few = || prop::collection::vec(0..SEATS, 0..2);
    let others = prop::collection::vec((0..SEATS + 2, free), 0..3);
    let sights = (0_u64..60, others, few(), few());
    let sights = sights.prop_map(|(ago, o, l, c)| CountingStep::Verify(ago, o, l, c));
    prop_oneof![
        3 => (0_u64..400).prop_map(CountingStep::Pass),
        1 => (0_u64..400).prop_map(CountingStep::Lag),
        8 => (0..SEATS + 2, maybe(), 0_u64..30).prop_map(|(n, s, ago)| CountingStep::Record(n, s, ago)),
        3 => refresh.prop_map(|(ago, t, v, s, m)| CountingStep::Refresh(ago, t, v, s, m)),
        2 => (1_u32..6).prop_map(CountingStep::Pick),
        3 => sights,
    ]
}

fn id(n: usize) -> SeatId {
    candidate(n, 0, sold()).id
}

fn same(map: &mut SeatMap, model: &Model, now: UnixMillis) -> Result<(), TestCaseError> {
    let mut sections = model.sections();
    prop_assert_eq!(map.counts(None, now), Some(sum(&sections)));
    for (name, section) in &sections {
        let there = (section.counts.total > 0).then_some(section.counts);
        prop_assert_eq!(map.counts(Some(name), now), there);
        prop_assert_eq!(map.remaining(Some(name), now), section.counts.available);
        prop_assert_eq!(map.status(Some(name), now), there.map(|_| vec![section.clone()]));
    }
    sections.retain(|_, section| section.counts.total > 0);
    let status = map.status(None, now).unwrap();
    prop_assert_eq!(status, sections.into_values().collect::<Vec<_>>());
    for n in 0..SEATS + 2 {
        let id = id(n);
        let known = model.seats.get(&id).filter(|known| known.state.is_some());
        let found = map.get(&id);
        prop_assert_eq!(found.is_some(), known.is_some());
        if let (Some(found), Some(known)) = (found, known) {
            let seat = found.to_seat();
            prop_assert_eq!(&seat.facts, &known.facts);
            prop_assert_eq!(Some(seat.state), known.state.clone());
            prop_assert_eq!(map.recorded_at(&id), Some(Micros(known.recorded_at)));
        }
    }
    prop_assert_eq!(map.counts(Some("section nowhere"), now), None);
    prop_assert_eq!(map.status(Some("section nowhere"), now), None);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn counts_and_seats_are_those_of_a_plain_list(steps in prop::collection::vec(steps(), 1..40)) {
        let (mut map, mut model) = (SeatMap::default(), Model::default());
        let mut rng = SmallRng::seed_from_u64(1);
        let mut now = 100_u64;
        for step in steps {
            let mut asked = now;
            match step {
                CountingStep::Pass(ms) => {
                    now += ms;
                    asked = now;
                }
                CountingStep::Lag(ms) => asked = now.saturating_sub(ms),
                CountingStep::Record(n, state, ago) => {
                    map.record_result(&id(n), state.clone(), Micros(now - ago));
                    model.record_result(&id(n), state, now - ago);
                }
                CountingStep::Refresh(ago, told, version, states, meanwhile) => {
                    let began = now - ago;
                    let told = (0..SEATS).filter(|n| told[*n]);
                    let seats = told.map(|n| candidate(n, version, states[n].clone()));
                    let seats: Vec<SeatItem> = seats.collect();
                    if let Some((n, state)) = meanwhile {
                        // A result between two pages, so after the read began.
                        now += 1;
                        asked = now;
                        let (first, second) = seats.split_at(seats.len() / 2);
                        map.refresh_page(first.to_vec(), Micros(began));
                        map.record_result(&id(n), state.clone(), Micros(now));
                        map.refresh_page(second.to_vec(), Micros(began));
                        map.refresh_end(Micros(began));
                        model.record_result(&id(n), state, now);
                    } else {
                        map.refresh(seats.clone(), Micros(began));
                    }
                    model.refresh(seats, began);
                }
                CountingStep::Pick(qty) => {
                    let at = Now { mono: Micros(now), unix: UnixMillis(now) };
                    let picked = map.pick(qty, None, at, &|_| false, &mut rng);
                    model.clock = model.clock.max(now);
                    let free = model.seats.values().filter(|known| known.is_free(model.clock));
                    let free = free.filter(|known| !known.is_missing).count();
                    prop_assert_eq!(picked.is_some(), free >= qty as usize);
                }
                CountingStep::Verify(ago, others, left_out, claimed) => {
                    let began = now - ago;
                    let others = others.into_iter().filter(|(_, state)| match state {
                        SeatState::Hold { until, .. } => until.0 <= began,
                        _ => true,
                    });
                    let mut free: BTreeMap<_, _> = others.map(|(n, s)| (id(n), s)).collect();
                    let left_out: Vec<_> = left_out.into_iter().map(id).collect();
                    for (seat, known) in &model.seats {
                        let is_free = match &known.state {
                            Some(SeatState::Hold { until, .. }) => until.0 <= began,
                            state => *state == Some(SeatState::Available),
                        };
                        if is_free && !left_out.contains(seat) {
                            let state = known.state.clone().unwrap();
                            free.entry(seat.clone()).or_insert(state);
                        }
                    }
                    let free: Vec<_> = free.into_iter().collect();
                    let claimed: Vec<_> = claimed.into_iter().map(id).collect();
                    let agrees = model.verify(&free, began, &claimed);
                    let is_locked = |seat: &SeatId| claimed.contains(seat);
                    let told = map.verify(free, Micros(began), UnixMillis(began), &is_locked);
                    model.clock = model.clock.max(began);
                    prop_assert_eq!(told.agrees, agrees);
                }
            }
            model.clock = model.clock.max(asked);
            same(&mut map, &model, UnixMillis(asked))?;
        }
    }
}

#[test]
fn known_taken_needs_recent_information_about_another_holder() {
    let me = reservation(1);
    let other = reservation(0);
    let mut map = SeatMap::new(vec![seat(0, 0, 0, SeatState::Available)], Micros(0));
    let one = id_of(0);
    let now = at(10_000);
    assert!(!map.known_taken(&one, &me, now));
    map.record_result(&one, Some(sold()), at(9_000).mono);
    assert!(map.known_taken(&one, &me, now));
    assert!(!map.known_taken(&one, &other, now));
    let old = Now { mono: at(10_000).mono.plus(Micros(1)), ..now };
    assert!(!map.known_taken(&one, &me, old));
    map.record_result(&one, Some(held(10_001)), now.mono);
    assert!(map.known_taken(&one, &me, now));
    assert!(!map.known_taken(&one, &other, now));
    assert!(!map.known_taken(&one, &me, at(10_001)));
    map.record_result(&one, Some(SeatState::Blocked), now.mono);
    assert!(map.known_taken(&one, &me, now) && map.known_taken(&one, &other, now));
    map.record_result(&one, None, now.mono);
    assert!(!map.known_taken(&one, &me, now));
    assert!(map.get(&one).is_none() && map.is_empty());
    assert!(!map.known_taken(&id_of(1), &me, now));
    // A read counts from its beginning.
    map.refresh(vec![seat(0, 0, 0, sold())], at(10_500).mono);
    assert!(map.known_taken(&one, &me, at(11_500)) && !map.known_taken(&one, &me, at(11_501)));
}

fn id_of(n: usize) -> SeatId {
    seat(0, 0, n, sold()).id
}

#[test]
fn overlapping_and_repeated_reads_change_nothing() {
    let hall = |n: usize| (0..n).map(|n| seat(0, 0, n, SeatState::Available));
    let mut map = SeatMap::default();
    map.refresh_page(hall(2).collect(), Micros(10));
    // A later read replaces it, and the remaining pages of the earlier one are ignored.
    map.refresh_page(hall(3).chain(hall(2)).collect(), Micros(20));
    map.refresh_page(hall(9).collect(), Micros(10));
    map.refresh_end(Micros(10));
    assert_eq!(map.len(), 0);
    map.refresh_end(Micros(20));
    assert_eq!((map.len(), map.read_began()), (3, Micros(20)));
    map.refresh(hall(3).chain(hall(3)).collect(), Micros(30));
    // Two items of one seat do not replace the missing one.
    let twice = hall(2).chain(hall(1));
    map.refresh(twice.collect(), Micros(35));
    assert_eq!(map.len(), 2);
    let moved = || seat(0, 4, 1, sold());
    let mut again = moved();
    again.id = id_of(1);
    map.refresh(hall(3).chain([again.clone(), again]).collect(), Micros(40));
    assert_eq!(map.len(), 3);
    // A read that ends without a page returned no seats.
    map.refresh_end(Micros(50));
    assert!(map.is_empty() && map.status(None, UnixMillis(0)) == Some(vec![]));
    assert_eq!(map.left_out(), 0);
}

#[test]
fn sections_are_found_and_listed_by_name() {
    let seats = [2, 10, 1, 0].map(|section| seat(section, 0, 0, SeatState::Available));
    let mut map = SeatMap::new(seats.to_vec(), Micros(0));
    let listed = map.status(None, UnixMillis(0)).unwrap();
    let names: Vec<&str> = listed.iter().map(|s| s.section.as_str()).collect();
    assert_eq!(names, ["section 0", "section 1", "section 10", "section 2"]);
    for name in names {
        assert_eq!(map.remaining(Some(name), UnixMillis(0)), 1);
    }
}

#[test]
fn memory_is_about_a_hundred_bytes_a_seat_and_its_texts() {
    let seats: Vec<SeatItem> =
        (0..50_000).map(|n| seat(n / 5_000, n / 50 % 100, n % 50, SeatState::Available)).collect();
    let mut map = SeatMap::new(seats.clone(), Micros(0));
    let empty = map.bytes() / 50_000;
    for seat in &seats {
        map.record_result(&seat.id, Some(sold()), Micros(1));
    }
    let full = map.bytes() / 50_000;
    assert!((80..=130).contains(&empty), "{empty}");
    assert!((120..=180).contains(&full), "{full}");
}
