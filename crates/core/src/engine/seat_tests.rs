//! Choices of seats on the shard that owns the event, with a scripted store.

use rand::SeedableRng;

use super::tests::{SETTINGS, drain};
use super::*;
use crate::ids::SeatId;
use crate::operation::{Selection, Verb};
use crate::seats::{SeatFacts, SeatItem, SeatState};
use crate::time::UnixMillis;
use crate::transaction::{FreeSeatsRead, RecordsRead, SeatsRead, StripeView};

fn at(ms: u64) -> Now {
    Now { mono: Micros::from_millis(ms), unix: UnixMillis(ms) }
}

fn event() -> EventId {
    "evt".parse().expect("legal")
}

fn seat_id(name: &str) -> SeatId {
    name.parse().expect("legal")
}

fn sold() -> SeatState {
    SeatState::Sold { reservation: "another".parse().expect("legal") }
}

fn house(states: &[(&str, SeatState)]) -> SeatsRead {
    let seat = |(id, state): &(&str, SeatState)| SeatItem {
        id: seat_id(id),
        facts: SeatFacts::default(),
        state: state.clone(),
    };
    SeatsRead::Found(states.iter().map(seat).collect())
}

/// One shard that has just been asked about an event for the first time.
struct Stage {
    shard: Engine,
    fx: Vec<Effect>,
    calls: u64,
}

impl Stage {
    /// Knows a house of these seats, as of 0 ms.
    fn with(states: &[(&str, SeatState)]) -> Self {
        let mut stage = Self {
            shard: Engine::new(SETTINGS, SmallRng::seed_from_u64(1)),
            fx: Vec::new(),
            calls: 0,
        };
        stage.choose(0);
        stage.told_of_event(0);
        let _ = stage.looked_up(0);
        assert!(matches!(stage.fx[..], [Effect::ReadSeats { .. }, ..]));
        stage.told_of_event(0);
        stage.fx.clear();
        stage.shard.handle_seats_read(&event(), house(states), at(0));
        drain(&mut stage.shard, &mut stage.fx);
        stage
    }

    /// A call for any one seat, by a reservation without a cached record.
    fn choose(&mut self, ms: u64) {
        self.choose_in(None, ms);
    }

    fn choose_in(&mut self, section: Option<&str>, ms: u64) {
        self.calls += 1;
        let reservation = format!("r{}", self.calls).parse().expect("legal");
        let (selection, deadline) = (Selection::Quantity(1), Micros::from_millis(60_000));
        let operation = Operation {
            section: section.map(Into::into),
            hold_until: Some(UnixMillis(600_000)),
            ..Operation::new(Verb::Hold, reservation, event(), selection, deadline)
        };
        let call = CallId(self.calls);
        self.shard.handle_call(call, operation, at(ms));
        drain(&mut self.shard, &mut self.fx);
    }

    fn told_of_event(&mut self, ms: u64) {
        let read = StripesRead::Found(vec![StripeView {
            capacity: 0,
            remaining: 0,
            version: 1,
            stripes: Some(1),
            seat_keys: 1,
            closed: false,
        }]);
        self.fx.retain(|fx| !matches!(fx, Effect::ReadStripes { .. }));
        self.shard.handle_stripes_read(&event(), &read, at(ms));
        drain(&mut self.shard, &mut self.fx);
    }

    /// Lets every look at a record find none; how many there were.
    fn looked_up(&mut self, ms: u64) -> usize {
        let mut looks = 0;
        while let Some(found) =
            self.fx.iter().position(|fx| matches!(fx, Effect::ReadRecords { .. }))
        {
            let Effect::ReadRecords { read: read_id, reservations } = self.fx.remove(found) else {
                unreachable!("it was one");
            };
            let none = RecordsRead::Found(vec![Ok(None); reservations.len()]);
            self.shard.handle_records_read(read_id, &none, at(ms));
            drain(&mut self.shard, &mut self.fx);
            looks += 1;
        }
        looks
    }

    fn free(&mut self, read: FreeSeatsRead, ms: u64) {
        if self.count(|fx| matches!(fx, Effect::ReadStripes { .. })) > 0 {
            self.told_of_event(ms);
        }
        self.fx.clear();
        self.shard.handle_free_seats_read(&event(), read, at(ms));
        drain(&mut self.shard, &mut self.fx);
        self.looked_up(ms);
    }

    fn count(&self, is: fn(&Effect) -> bool) -> usize {
        self.fx.iter().filter(|fx| is(fx)).count()
    }

    fn refused_as_sold_out(&self) -> Vec<u64> {
        let sold_out = Answer::Rejected(Rejection::InsufficientInventory { remaining: 0 });
        let calls = self.fx.iter().filter_map(|fx| match fx {
            Effect::Answer { call, answer, .. } if *answer == sold_out => Some(call.0),
            _ => None,
        });
        calls.collect()
    }
}

fn is_look(fx: &Effect) -> bool {
    matches!(fx, Effect::ReadFreeSeats { .. })
}

fn is_read(fx: &Effect) -> bool {
    matches!(fx, Effect::ReadSeats { .. })
}

fn is_write(fx: &Effect) -> bool {
    matches!(fx, Effect::Transact { .. })
}

#[test]
fn a_house_that_is_known_to_be_sold_out_is_looked_at_and_not_read_again() {
    let mut stage = Stage::with(&[("A-1", sold()), ("A-2", sold())]);
    stage.looked_up(0);
    assert_eq!(stage.refused_as_sold_out(), [1]);
    stage.fx.clear();
    // What was read before they came does not do; one look does for both.
    stage.choose(10);
    stage.choose(11);
    assert_eq!((stage.count(is_look), stage.count(is_read)), (1, 0));
    stage.free(FreeSeatsRead::Found(Vec::new()), 15);
    // The look began before the second came: for that one there is another.
    assert_eq!(stage.refused_as_sold_out(), [2]);
    assert_eq!((stage.count(is_look), stage.count(is_read)), (1, 0));
    stage.free(FreeSeatsRead::Found(Vec::new()), 20);
    assert_eq!(stage.refused_as_sold_out(), [3]);
    assert!(stage.shard.is_idle());
}

#[test]
fn a_seat_that_came_free_elsewhere_is_sold_after_a_look() {
    let mut stage = Stage::with(&[("A-1", sold()), ("A-2", sold())]);
    stage.looked_up(0);
    stage.fx.clear();
    stage.choose(10);
    let free = vec![(seat_id("A-2"), SeatState::Available)];
    stage.free(FreeSeatsRead::Found(free), 15);
    assert_eq!((stage.count(is_write), stage.count(is_read)), (1, 0));
}

#[test]
fn what_a_look_cannot_tell_is_read() {
    let free = |seat| vec![(seat_id(seat), SeatState::Available)];
    // A seat that is not known.
    let mut stage = Stage::with(&[("A-1", sold())]);
    stage.looked_up(0);
    stage.fx.clear();
    stage.choose(10);
    stage.free(FreeSeatsRead::Found(free("A-2")), 15);
    assert_eq!(stage.refused_as_sold_out(), [0_u64; 0]);
    assert_eq!((stage.count(is_look), stage.count(is_read)), (0, 1));
    stage.fx.clear();
    let read = house(&[("A-1", sold()), ("A-2", SeatState::Available)]);
    stage.shard.handle_seats_read(&event(), read, at(20));
    drain(&mut stage.shard, &mut stage.fx);
    stage.looked_up(20);
    assert_eq!(stage.count(is_write), 1);
}

#[test]
fn a_failed_look_is_said_to_who_waits_for_it() {
    let mut stage = Stage::with(&[("A-1", sold())]);
    stage.looked_up(0);
    for (read, rejection) in [
        (FreeSeatsRead::Unavailable, Rejection::store_unavailable()),
        (FreeSeatsRead::Throttled, Rejection::store_busy()),
    ] {
        stage.choose(10);
        stage.free(read, 15);
        let rejected = Answer::Rejected(rejection);
        let [Effect::Answer { answer, .. }] = &stage.fx[..] else {
            panic!("{:?}", stage.fx);
        };
        assert_eq!(*answer, rejected);
        assert!(stage.shard.is_idle());
    }
}

#[test]
fn after_an_operator_changed_the_event_a_look_begun_before_is_not_enough() {
    let mut stage = Stage::with(&[("A-1", sold())]);
    stage.looked_up(0);
    stage.fx.clear();
    stage.choose(10);
    stage.shard.handle_event_changed(&event(), at(11));
    stage.free(FreeSeatsRead::Found(Vec::new()), 15);
    assert_eq!(stage.refused_as_sold_out(), [0_u64; 0]);
    assert_eq!(stage.count(is_read), 1, "{:?}", stage.fx);
}

#[test]
fn a_house_with_many_free_seats_elsewhere_is_read_rather_than_looked_at() {
    let names: Vec<_> = (0..=limits::VERIFIABLE_SEATS_MAX).map(|n| format!("B-{n}")).collect();
    let states: Vec<_> = names.iter().map(|name| (name.as_str(), SeatState::Available)).collect();
    let mut stage = Stage::with(&states);
    stage.looked_up(0);
    stage.fx.clear();
    stage.choose_in(Some("balcony"), 10);
    assert_eq!((stage.count(is_look), stage.count(is_read)), (0, 1));
}

/// A read shows the last seat as free while a write of this shard claims it. The write was made before
/// the next buyer came, and its answer was late: another node has given the seat back since. The late
/// outcome does not prove that the seat is taken.
#[test]
fn a_late_outcome_does_not_prove_that_the_last_seat_is_taken() {
    let mut stage = Stage::with(&[("A-1", SeatState::Available)]);
    stage.looked_up(0);
    let free = || FreeSeatsRead::Found(vec![(seat_id("A-1"), SeatState::Available)]);
    let lane = stage.fx.iter().find_map(|fx| match fx {
        Effect::Transact { lane, .. } => Some(*lane),
        _ => None,
    });
    let lane = lane.expect("the first buyer takes the seat");
    stage.fx.clear();
    stage.choose(100);
    stage.free(free(), 105);
    assert_eq!(stage.count(is_look), 0, "it waits for the write");
    stage.fx.clear();
    let outcome = TransactionOutcome::Committed;
    stage.shard.handle_transaction_outcome(lane, outcome, at(150));
    drain(&mut stage.shard, &mut stage.fx);
    stage.looked_up(150);
    assert_eq!(stage.refused_as_sold_out(), [0_u64; 0]);
    assert_eq!((stage.count(is_look), stage.count(is_write)), (1, 0));
    stage.free(free(), 155);
    assert_eq!(stage.count(is_write), 1, "{:?}", stage.fx);
}
