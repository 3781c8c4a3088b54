//! Choices of seats on the shard that owns the event, with a scripted store.

use rand::SeedableRng;

use super::tests::{SETTINGS, drain};
use super::*;
use crate::ids::SeatId;
use crate::operation::{Selection, Verb};
use crate::seats::{SeatFacts, SeatItem, SeatState};
use crate::time::UnixMillis;
use crate::transaction::{ActionOutcome, FreeSeatsRead, RecordsRead, SeatsRead, StripeView};

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

fn seats_read(states: &[(&str, SeatState)]) -> SeatsRead {
    let seat = |(id, state): &(&str, SeatState)| SeatItem {
        id: seat_id(id),
        facts: SeatFacts::default(),
        state: state.clone(),
    };
    SeatsRead::Found(states.iter().map(seat).collect())
}

/// One shard that has just been asked about an event for the first time.
struct SeatFixture {
    shard: Engine,
    fx: Vec<Effect>,
    calls: u64,
}

impl SeatFixture {
    /// A shard with a seat map of these seats, read at 0 ms.
    fn with_map(states: &[(&str, SeatState)]) -> Self {
        let mut fixture = Self {
            shard: Engine::new(SETTINGS, SmallRng::seed_from_u64(1)),
            fx: Vec::new(),
            calls: 0,
        };
        fixture.choose(0);
        fixture.return_layout(0);
        let _ = fixture.return_no_records(0);
        assert!(matches!(fixture.fx[..], [Effect::ReadSeats { .. }, ..]));
        fixture.return_layout(0);
        fixture.fx.clear();
        fixture.shard.handle_seats_read(&event(), seats_read(states), at(0));
        drain(&mut fixture.shard, &mut fixture.fx);
        fixture
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

    fn return_layout(&mut self, ms: u64) {
        let read = StripesRead::Found(vec![StripeView {
            version: 1,
            stripes: Some(1),
            seat_keys: 1,
            ..StripeView::default()
        }]);
        self.fx.retain(|fx| !matches!(fx, Effect::ReadStripes { .. }));
        self.shard.handle_stripes_read(&event(), &read, at(ms));
        drain(&mut self.shard, &mut self.fx);
    }

    /// Answers every record read with no record. Returns the number of reads.
    fn return_no_records(&mut self, ms: u64) -> usize {
        let mut reads = 0;
        while let Some(found) =
            self.fx.iter().position(|fx| matches!(fx, Effect::ReadRecords { .. }))
        {
            let Effect::ReadRecords { read: read_id, reservations } = self.fx.remove(found) else {
                unreachable!("it was one");
            };
            let none = RecordsRead::Found(vec![Ok(None); reservations.len()]);
            self.shard.handle_records_read(read_id, &none, at(ms));
            drain(&mut self.shard, &mut self.fx);
            reads += 1;
        }
        reads
    }

    fn return_free_seats(&mut self, read: FreeSeatsRead, ms: u64) {
        if self.count(|fx| matches!(fx, Effect::ReadStripes { .. })) > 0 {
            self.return_layout(ms);
        }
        self.fx.clear();
        self.shard.handle_free_seats_read(&event(), read, at(ms));
        drain(&mut self.shard, &mut self.fx);
        self.return_no_records(ms);
    }

    fn time_out(&mut self, ms: u64) {
        self.fx.clear();
        self.shard.handle_timeout(at(ms));
        drain(&mut self.shard, &mut self.fx);
    }

    fn count(&self, is: fn(&Effect) -> bool) -> usize {
        self.fx.iter().filter(|fx| is(fx)).count()
    }

    fn rejected_as_sold_out(&self) -> Vec<u64> {
        let sold_out = Answer::Rejected(Rejection::InsufficientInventory { remaining: 0 });
        let calls = self.fx.iter().filter_map(|fx| match fx {
            Effect::Answer { call, answer, .. } if *answer == sold_out => Some(call.0),
            _ => None,
        });
        calls.collect()
    }
}

fn is_verification(fx: &Effect) -> bool {
    matches!(fx, Effect::ReadFreeSeats { .. })
}

fn is_read(fx: &Effect) -> bool {
    matches!(fx, Effect::ReadSeats { .. })
}

fn is_write(fx: &Effect) -> bool {
    matches!(fx, Effect::Transact { .. })
}

#[test]
fn sold_out_event_is_verified_and_not_read_again() {
    let mut fixture = SeatFixture::with_map(&[("A-1", sold()), ("A-2", sold())]);
    fixture.return_no_records(0);
    assert_eq!(fixture.rejected_as_sold_out(), [1]);
    fixture.fx.clear();
    // A read from before the calls arrived is too old; one verification serves both.
    fixture.choose(10);
    fixture.choose(11);
    assert_eq!((fixture.count(is_verification), fixture.count(is_read)), (1, 0));
    fixture.return_free_seats(FreeSeatsRead::Found(Vec::new()), 15);
    // The verification began before the second call arrived. The next one follows at the pace of verifications.
    assert_eq!(fixture.rejected_as_sold_out(), [2]);
    assert_eq!((fixture.count(is_verification), fixture.count(is_read)), (0, 0));
    let interval = limits::SEAT_VERIFICATION_INTERVAL.as_millis() as u64;
    assert_eq!(fixture.shard.poll_timeout(), Some(at(10 + interval).mono));
    fixture.time_out(10 + interval);
    assert_eq!((fixture.count(is_verification), fixture.count(is_read)), (1, 0));
    fixture.return_free_seats(FreeSeatsRead::Found(Vec::new()), 20 + interval);
    assert_eq!(fixture.shard.poll_timeout(), None);
    assert_eq!(fixture.rejected_as_sold_out(), [3]);
    assert!(fixture.shard.is_idle());
}

#[test]
fn seat_released_elsewhere_is_sold_after_verification() {
    let mut fixture = SeatFixture::with_map(&[("A-1", sold()), ("A-2", sold())]);
    fixture.return_no_records(0);
    fixture.fx.clear();
    fixture.choose(10);
    let free = vec![(seat_id("A-2"), SeatState::Available)];
    fixture.return_free_seats(FreeSeatsRead::Found(free), 15);
    assert_eq!((fixture.count(is_write), fixture.count(is_read)), (1, 0));
}

#[test]
fn inconclusive_verification_is_followed_by_a_full_read() {
    let free = |seat| vec![(seat_id(seat), SeatState::Available)];
    // A seat that is not known.
    let mut fixture = SeatFixture::with_map(&[("A-1", sold())]);
    fixture.return_no_records(0);
    fixture.fx.clear();
    fixture.choose(10);
    fixture.return_free_seats(FreeSeatsRead::Found(free("A-2")), 15);
    assert_eq!(fixture.rejected_as_sold_out(), [0_u64; 0]);
    assert_eq!((fixture.count(is_verification), fixture.count(is_read)), (0, 1));
    fixture.fx.clear();
    let read = seats_read(&[("A-1", sold()), ("A-2", SeatState::Available)]);
    fixture.shard.handle_seats_read(&event(), read, at(20));
    drain(&mut fixture.shard, &mut fixture.fx);
    fixture.return_no_records(20);
    assert_eq!(fixture.count(is_write), 1);
}

#[test]
fn failed_verification_rejects_its_waiters() {
    let mut fixture = SeatFixture::with_map(&[("A-1", sold())]);
    fixture.return_no_records(0);
    for (read, rejection) in [
        (FreeSeatsRead::Unavailable, Rejection::store_unavailable()),
        (FreeSeatsRead::Throttled, Rejection::store_busy()),
    ] {
        fixture.choose(10);
        fixture.return_free_seats(read, 15);
        let rejected = Answer::Rejected(rejection);
        let [Effect::Answer { answer, .. }] = &fixture.fx[..] else {
            panic!("{:?}", fixture.fx);
        };
        assert_eq!(*answer, rejected);
        assert!(fixture.shard.is_idle());
    }
}

#[test]
fn verification_older_than_an_operators_change_is_discarded() {
    let mut fixture = SeatFixture::with_map(&[("A-1", sold())]);
    fixture.return_no_records(0);
    fixture.fx.clear();
    fixture.choose(10);
    fixture.shard.handle_event_changed(&event(), at(11));
    fixture.return_free_seats(FreeSeatsRead::Found(Vec::new()), 15);
    assert_eq!(fixture.rejected_as_sold_out(), [0_u64; 0]);
    assert_eq!(fixture.count(is_read), 1, "{:?}", fixture.fx);
}

#[test]
fn many_free_seats_are_read_in_full() {
    let names: Vec<_> = (0..=limits::VERIFIABLE_SEATS_MAX).map(|n| format!("B-{n}")).collect();
    let states: Vec<_> = names.iter().map(|name| (name.as_str(), SeatState::Available)).collect();
    let mut fixture = SeatFixture::with_map(&states);
    fixture.return_no_records(0);
    fixture.fx.clear();
    fixture.choose_in(Some("balcony"), 10);
    assert_eq!((fixture.count(is_verification), fixture.count(is_read)), (0, 1));
}

/// 1. A write of this shard takes the last seat; its answer is late.
/// 2. Another node releases the seat.
/// 3. A second buyer arrives. A read shows the seat as free, while the first write still locks it.
/// 4. The late outcome arrives. It does not prove that the seat is taken.
#[test]
fn late_outcome_does_not_prove_that_the_last_seat_is_taken() {
    let mut fixture = SeatFixture::with_map(&[("A-1", SeatState::Available)]);
    fixture.return_no_records(0);
    let free = || FreeSeatsRead::Found(vec![(seat_id("A-1"), SeatState::Available)]);
    let lane = fixture.fx.iter().find_map(|fx| match fx {
        Effect::Transact { lane, .. } => Some(*lane),
        _ => None,
    });
    let lane = lane.expect("the first buyer takes the seat");
    fixture.fx.clear();
    fixture.choose(100);
    fixture.return_free_seats(free(), 105);
    assert_eq!(fixture.count(is_verification), 0, "it waits for the write");
    fixture.fx.clear();
    let outcome = TransactionOutcome::Committed;
    fixture.shard.handle_transaction_outcome(lane, outcome, at(150));
    drain(&mut fixture.shard, &mut fixture.fx);
    fixture.return_no_records(150);
    assert_eq!(fixture.rejected_as_sold_out(), [0_u64; 0]);
    fixture.time_out(180);
    assert_eq!((fixture.count(is_verification), fixture.count(is_write)), (1, 0));
    fixture.return_free_seats(free(), 185);
    assert_eq!(fixture.count(is_write), 1, "{:?}", fixture.fx);
}

/// Two buyers want all seats of an overdue hold. One expiry ends it, so that the holder's own call finds room among the
/// calls of its reservation.
#[test]
fn one_expiry_ends_an_overdue_hold_of_many_seats() {
    let holder: ReservationId = "holder".parse().expect("legal");
    let until = UnixMillis(5);
    let held = SeatState::Hold { reservation: holder.clone(), until };
    let names: Vec<String> = (0..40).map(|n| format!("A-{n}")).collect();
    let mut states: Vec<(&str, SeatState)> =
        names.iter().map(|name| (name.as_str(), held.clone())).collect();
    states.push(("B-1", SeatState::Available));
    let mut fixture = SeatFixture::with_map(&states);
    fixture.return_no_records(0);
    let before = fixture.shard.calls_in_flight();
    for buyer in 0..2 {
        let seats = names.iter().map(|name| seat_id(name));
        let selection = Selection::Seats(seats.collect());
        let (reservation, deadline) = (format!("b{buyer}"), Micros::from_millis(60_000));
        let reservation = reservation.parse().expect("legal");
        let operation = Operation::new(Verb::Commit, reservation, event(), selection, deadline);
        fixture.fx.clear();
        fixture.shard.handle_call(CallId(100 + buyer), operation, at(10));
        drain(&mut fixture.shard, &mut fixture.fx);
        let sent = fixture.fx.iter().find_map(|fx| match fx {
            Effect::Transact { lane, .. } => Some(*lane),
            _ => None,
        });
        // The second buyer waits for the locks of the first one, or of the expiry.
        let Some(lane) = sent else { continue };
        let mut reasons = vec![ActionOutcome::Fine];
        reasons.extend(names.iter().map(|_| ActionOutcome::Seat(Some(held.clone()))));
        let outcome = TransactionOutcome::Cancelled(reasons);
        fixture.shard.handle_transaction_outcome(lane, outcome, at(20));
        drain(&mut fixture.shard, &mut fixture.fx);
    }
    assert_eq!(fixture.shard.calls_in_flight() - before, 3, "two buyers and one expiry");
}
