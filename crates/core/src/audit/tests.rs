//! Consistent events are clean; every kind of breach is reported with its code; repairs end their breach and change
//! nothing else; a running sale is no breach.
#![allow(clippy::unwrap_used)]

mod totals;

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::ids::{OrderId, ReservationId, SeatId};
use crate::limits;
use crate::seats::SeatState;
use crate::time::UnixMillis;
use crate::transaction::{ReservationState, StripeAllocation, StripeAllocations};

const NOW: UnixMillis = UnixMillis(1_000_000);
const STATES: [ReservationState; 5] = [
    ReservationState::Held,
    ReservationState::Confirmed,
    ReservationState::Released,
    ReservationState::Expired,
    ReservationState::Refunded,
];

fn id(number: usize) -> ReservationId {
    format!("r{number}").parse().unwrap()
}

fn seat_id(number: usize) -> SeatId {
    format!("s{number}").parse().unwrap()
}

fn record(
    number: usize,
    state: ReservationState,
    draws: &[(u16, u32)],
    seats: &[usize],
) -> AuditRecord {
    let reservation = id(number);
    let drawn: u32 = draws.iter().map(|(_, units)| units).sum();
    let hold = |state| !matches!(state, ReservationState::Confirmed);
    AuditRecord {
        qty: drawn + seats.len() as u32,
        draws: draws.iter().map(|&(stripe, units)| StripeAllocation { stripe, units }).collect(),
        seats: (!seats.is_empty()).then(|| seats.iter().map(|n| seat_id(*n)).collect()),
        order: (state == ReservationState::Confirmed).then(|| OrderId::of(&reservation)),
        expires_at: hold(state).then_some(UnixMillis(NOW.0 + 1 + number as u64)),
        counted: !draws.is_empty(),
        state,
        reservation,
    }
}

fn sight(capacity: u64, remaining: i64) -> StripeReads {
    StripeReads {
        item: StoredItem::Read(StripeAmounts {
            capacity,
            remaining,
            version: 7,
            closed: false,
            held: 0,
            moved: 0,
        }),
        still: true,
        moved_still: true,
    }
}

fn books(stripes: Vec<StripeReads>, seat_keys: u16) -> EventRecords {
    EventRecords::new("evt".parse().unwrap(), stripes, seat_keys)
}

fn amounts(books: &mut EventRecords, stripe: u16) -> &mut StripeAmounts {
    match &mut books.stripes[usize::from(stripe)].item {
        StoredItem::Read(item) => item,
        other => panic!("{other:?}"),
    }
}

/// A quantity event that balances: `sales` are state, stripe and units.
fn quantity(stripes: u16, spare: u64, sales: &[(usize, u16, u32)]) -> EventRecords {
    let mut drawn = vec![0_u64; usize::from(stripes)];
    let mut records = Vec::new();
    for (number, &(state, stripe, units)) in sales.iter().enumerate() {
        let stripe = stripe % stripes;
        // Every third draws on a second stripe too.
        let second = (stripe + 1) % stripes;
        let draws = match number % 3 == 0 && second != stripe {
            true => vec![(stripe, units), (second, 1)],
            false => vec![(stripe, units)],
        };
        let record = record(number, STATES[state], &draws, &[]);
        if record.is_live() {
            for draw in &record.draws {
                drawn[usize::from(draw.stripe)] += u64::from(draw.units);
            }
        }
        records.push(record);
    }
    let sights = drawn.iter().map(|n| sight(n + spare, spare as i64));
    let mut books = books(sights.collect(), 0);
    // Every confirmed record was a hold before.
    let mut counters = vec![0; 4];
    for (number, record) in records.iter().enumerate().filter(|(_, record)| record.is_live()) {
        for draw in &record.draws {
            amounts(&mut books, draw.stripe).held += i64::from(draw.units);
        }
        if record.state == ReservationState::Confirmed {
            counters[number % 4] += record.units() as i64;
        }
    }
    let counter = |units| match units {
        0 => StoredItem::Missing,
        units => StoredItem::Read(units),
    };
    books.counters.items = counters.into_iter().map(counter).collect();
    records.into_iter().for_each(|record| books.record(record));
    books
}

/// A seated event that balances: `sales` are state and number of seats, each followed by a free seat.
fn seated(sales: &[(usize, usize)]) -> EventRecords {
    let mut books = books(vec![sight(0, 0)], 2);
    let mut next = 0;
    for (number, &(state, count)) in sales.iter().enumerate() {
        let seats: Vec<usize> = (next..next + count).collect();
        next += count + 1;
        let record = record(number, STATES[state], &[], &seats);
        let reservation = record.reservation.clone();
        let state = match record.state {
            ReservationState::Held => {
                SeatState::Hold { reservation, until: record.expires_at.unwrap() }
            }
            ReservationState::Confirmed => SeatState::Sold { reservation },
            _ => SeatState::Available,
        };
        for seat in &seats {
            books.seats.push(AuditSeat { id: seat_id(*seat), state: state.clone() });
        }
        books.seats.push(AuditSeat {
            id: seat_id(next - 1),
            state: match number % 2 {
                0 => SeatState::Available,
                _ => SeatState::Blocked,
            },
        });
        books.record(record);
    }
    books
}

fn report(books: &EventRecords) -> AuditReport {
    judge(books, &KnownBalances::default(), NOW).at_rest()
}

fn codes(report: &AuditReport) -> Vec<(BreachSubject, &'static str)> {
    let code = |breach: &Breach| (breach.subject.clone(), breach.kind.code());
    report.breaches.iter().map(code).collect()
}

fn reservation_subject(number: usize) -> BreachSubject {
    BreachSubject::Reservation(id(number).into_string())
}

fn seat_subject(number: usize) -> BreachSubject {
    BreachSubject::Seat(seat_id(number).into_string())
}

/// What the store has once `repair` is written.
fn apply(books: &mut EventRecords, repair: &Repair) {
    let mut set = |seat: &SeatId, seen: &SeatState, to: SeatState| {
        let item = books.seats.iter_mut().find(|item| item.id == *seat).unwrap();
        assert_eq!(item.state, *seen, "a repair is of what was seen");
        item.state = to;
    };
    match repair {
        Repair::Remaining { seen, to } => {
            let sight = &mut books.stripes[usize::from(seen.index)];
            let StoredItem::Read(item) = &mut sight.item else {
                panic!("a repair of what was not read")
            };
            assert_eq!(item.version, seen.version);
            item.remaining = i64::try_from(*to).unwrap();
            item.version += 1;
        }
        Repair::Counter { counter, seen, to } => {
            let item = &mut books.counters.items[usize::from(*counter)];
            assert_eq!(item.read().copied().unwrap_or(0), *seen);
            *item = StoredItem::Read(*to);
        }
        Repair::Moved { stripe, seen, to } => {
            let item = amounts(books, *stripe);
            assert_eq!(item.moved, *seen);
            item.moved = *to;
            item.version += 1;
        }
        Repair::Free { seat, seen, .. } => set(seat, seen, SeatState::Available),
        Repair::Give { seat, seen, claim } => set(seat, seen, claim.seat_state().unwrap()),
    }
}

/// Carries the plan out, checks that it touched its subjects only, and judges again.
fn reconciled(books: &mut EventRecords) -> (RepairPlan, AuditReport) {
    let plan = plan(&report(books)).unwrap();
    let subjects: HashSet<BreachSubject> = plan.repairs.iter().map(Repair::subject).collect();
    assert_eq!(subjects.len(), plan.repairs.len(), "one repair per item");
    let before = books.clone();
    for repair in &plan.repairs {
        apply(books, repair);
    }
    assert_eq!(before.live, books.live, "records are never touched");
    for (index, (was, is)) in before.stripes.iter().zip(&books.stripes).enumerate() {
        let repaired = subjects.contains(&BreachSubject::Stripe(index as u16));
        assert_eq!(was != is, repaired, "stripe {index}");
    }
    for (was, is) in before.seats.iter().zip(&books.seats) {
        let repaired = subjects.contains(&BreachSubject::Seat(was.id.as_str().to_owned()));
        assert_eq!(was != is, repaired, "seat {}", was.id);
    }
    (plan, report(books))
}

fn sales() -> impl Strategy<Value = Vec<(usize, u16, u32)>> {
    proptest::collection::vec((0..5_usize, 0..4_u16, 1..=10_u32), 0..40)
}

fn seat_sales() -> impl Strategy<Value = Vec<(usize, usize)>> {
    proptest::collection::vec((0..5_usize, 1..=4_usize), 1..20)
}

proptest! {
    #[test]
    fn balanced_units_are_clean(stripes in 1..=4_u16, spare in 0..50_u64, sales in sales()) {
        let books = quantity(stripes, spare, &sales);
        let report = report(&books);
        prop_assert_eq!(&report.breaches, &vec![]);
        prop_assert_eq!(report.verdict(), AuditVerdict::Clean);
        let counts = report.reservations;
        let all = counts.held + counts.confirmed + counts.released + counts.expired + counts.refunded;
        prop_assert_eq!(all, sales.len() as u64);
        prop_assert_eq!(report.orders, counts.confirmed);
        prop_assert_eq!(plan(&report), Ok(RepairPlan::default()));
    }

    #[test]
    fn balanced_seats_are_clean(sales in seat_sales()) {
        let report = report(&seated(&sales));
        prop_assert_eq!(&report.breaches, &vec![]);
        prop_assert_eq!(report.seats.difference(), 0);
        prop_assert_eq!(report.seats.hold, report.seats.held);
        prop_assert_eq!(report.seats.sold, report.seats.confirmed);
    }

        /// Any manual change of the remaining units of a stripe is reported and repaired.
    #[test]
    fn inconsistent_stripe_is_reported_and_repaired(
        stripes in 1..=4_u16, spare in 0..50_u64, sales in sales(),
        at in 0..4_u16, off in prop_oneof![-60..=-1_i64, 1..=60_i64],
    ) {
        let mut books = quantity(stripes, spare, &sales);
        let at = at % stripes;
        if let StoredItem::Read(item) = &mut books.stripes[usize::from(at)].item {
            item.remaining += off;
        }
        let found = report(&books);
        prop_assert_eq!(codes(&found), vec![(BreachSubject::Stripe(at), "REMAINING_DIFFERS")]);
        prop_assert_eq!(found.verdict(), AuditVerdict::Breached);
        let (plan, after) = reconciled(&mut books);
        prop_assert_eq!(plan.left, vec![]);
        prop_assert_eq!(after.breaches, vec![]);
    }

        /// Any manual change of a seat that no record names, or of one that a record names, is reported.
    #[test]
    fn inconsistent_seat_is_reported_and_repaired(
        sales in seat_sales(), at in any::<prop::sample::Index>(), to in 0..4_usize,
    ) {
        let mut books = seated(&sales);
        let at = at.index(books.seats.len());
        let was = books.seats[at].state.clone();
        let stranger = "stranger".parse().unwrap();
        books.seats[at].state = match to {
            0 => SeatState::Available,
            1 => SeatState::Blocked,
            2 => SeatState::Sold { reservation: stranger },
            _ => SeatState::Hold { reservation: stranger, until: NOW },
        };
        let owned = matches!(was, SeatState::Hold { .. } | SeatState::Sold { .. });
        let subject = BreachSubject::Seat(books.seats[at].id.as_str().to_owned());
        let expected = match (owned, to) {
            (true, _) => vec![(subject, "SEAT_DIFFERS")],
            // An operator may block and unblock what nobody has.
            (false, 0 | 1) => vec![],
            (false, _) => vec![(subject, "SEAT_ORPHAN")],
        };
        prop_assert_eq!(codes(&report(&books)), expected);
        let (plan, after) = reconciled(&mut books);
                // A sold seat that an operator blocked is not repaired.
        let left = usize::from(owned && to == 1);
        prop_assert_eq!(plan.left.len(), left);
        prop_assert_eq!(after.breaches.len(), left);
        if left == 0 && owned {
            prop_assert_eq!(&books.seats[at].state, &was);
        }
    }

    /// A record that is gone: its units go back, its seats go back.
    #[test]
    fn drift_of_a_deleted_record_is_repaired(
        sales in sales(), seat_sales in seat_sales(), at in any::<prop::sample::Index>(),
    ) {
        for mut books in [quantity(3, 5, &sales), seated(&seat_sales)] {
            if books.live.is_empty() {
                continue;
            }
            let gone = books.live.remove(at.index(books.live.len()));
            let found = report(&books);
            let touched = match &gone.seats {
                Some(seats) => seats.len(),
                // A hold is missing among the held units too.
                None => gone.draws.len() + usize::from(gone.state == ReservationState::Held),
            };
            prop_assert_eq!(found.breaches.len(), touched);
            let (plan, after) = reconciled(&mut books);
            prop_assert_eq!(plan.repairs.len(), touched);
            prop_assert_eq!(after.breaches, vec![]);
        }
    }
}

/// A confirmed, a held and a released sale of units, in that order.
fn three_sales() -> EventRecords {
    quantity(2, 10, &[(1, 0, 2), (0, 1, 3), (2, 0, 4)])
}

/// A confirmed sale of s0 and s1, a hold of s3; s2 is free, s4 blocked.
fn two_seat_sales() -> EventRecords {
    seated(&[(1, 2), (0, 1)])
}

#[test]
fn each_breach_of_a_record_is_reported_and_not_repaired() {
    type Damage = fn(&mut EventRecords);
    let cases: [(&str, Damage); 8] = [
        ("DRAWS_DIFFER", |books| books.live[1].qty += 1),
        ("DRAWS_NOWHERE", |books| books.live[1].draws[0].stripe = 2),
        ("ORDER_MISSING", |books| books.live[0].order = None),
        ("ORDER_FOREIGN", |books| {
            books.live[0].order = Some(OrderId::of(&id(77)));
        }),
        ("EXPIRY_MISSING", |books| books.live[1].expires_at = None),
        ("SEATS_DIFFER", |books| {
            books.live[1].draws = StripeAllocations::new();
            books.live[1].seats = Some([seat_id(0)].into());
        }),
        ("UNITS_AND_SEATS", |books| {
            books.live[1].seats = Some([seat_id(0)].into());
        }),
        ("SEAT_REPEATED", |books| {
            books.live[1].draws = StripeAllocations::new();
            books.live[1].seats = Some([seat_id(0), seat_id(1), seat_id(0)].into());
        }),
    ];
    for (code, damage) in cases {
        let mut books = three_sales();
        damage(&mut books);
        let found = report(&books);
        let hit = found.breaches.iter().find(|breach| breach.kind.code() == code);
        let hit = hit.unwrap_or_else(|| panic!("no {code} in {:?}", codes(&found)));
        assert_eq!(hit.subject.kind(), "reservation");
        let plan = plan(&found).unwrap();
        assert!(plan.left.iter().any(|left| left.breach == *hit), "{code}");
    }
}

#[test]
fn duplicate_order_is_reported() {
    // Once taken from a neighbour, once the same strange one twice.
    let mut books = quantity(1, 0, &[(1, 0, 1), (1, 0, 1), (1, 0, 1)]);
    books.live[2].order = Some(OrderId::of(&id(0)));
    let found = report(&books);
    let twice = (reservation_subject(0), "ORDER_TWICE");
    assert_eq!(codes(&found), [(reservation_subject(2), "ORDER_FOREIGN"), twice]);
    assert_eq!(found.orders, 2);

    books.live[0].order = Some(OrderId::of(&id(9)));
    books.live[2].order = Some(OrderId::of(&id(9)));
    let found = codes(&report(&books));
    assert!(found.contains(&(reservation_subject(2), "ORDER_TWICE")), "{found:?}");
}

#[test]
fn no_stripe_is_repaired_while_a_record_is_damaged() {
    let mut books = three_sales();
    let seen = UnreadableItem { id: "r9".to_owned(), why: "status is 7".to_owned() };
    books.unreadable_records.push(seen);
    books.live.remove(0);
    let found = report(&books);
    assert!(codes(&found).contains(&(BreachSubject::Reservation("r9".to_owned()), "UNREADABLE")));
    let plan = plan(&found).unwrap();
    assert_eq!(plan.repairs, []);
    assert!(plan.left.iter().any(|left| left.why.contains("may hold units")));
}

#[test]
fn oversold_stripe_is_reported_and_not_repaired() {
    let mut books = quantity(1, 0, &[(1, 0, 5), (1, 0, 5)]);
    if let StoredItem::Read(item) = &mut books.stripes[0].item {
        item.capacity = 7;
    }
    let found = report(&books);
    assert!(found.breaches[0].to_string().contains("oversold by 3"), "{}", found.breaches[0]);
    let plan = plan(&found).unwrap();
    assert_eq!(plan.repairs, []);
    assert!(plan.left[0].why.contains("oversold"));
}

#[test]
fn missing_and_unreadable_stripes_are_reported() {
    let mut books = three_sales();
    books.stripes[0].item = StoredItem::Missing;
    books.stripes[1].item = StoredItem::Unreadable("remaining is no number".to_owned());
    let found = codes(&report(&books));
    assert_eq!(
        found,
        [(BreachSubject::Stripe(0), "STRIPE_MISSING"), (BreachSubject::Stripe(1), "UNREADABLE")]
    );
}

#[test]
fn two_reservations_of_one_seat_are_reported_and_not_repaired() {
    let mut books = two_seat_sales();
    books.record(record(8, ReservationState::Confirmed, &[], &[1]));
    let found = report(&books);
    assert_eq!(codes(&found), [(seat_subject(1), "SEAT_CLAIMED_TWICE")]);
    let said = found.breaches[0].to_string();
    assert!(said.contains("r0") && said.contains("r8"), "{said}");
    let (plan, after) = reconciled(&mut books);
    assert_eq!((plan.repairs.len(), plan.left.len()), (0, 1));
    assert_eq!(after.breaches.len(), 1);
}

#[test]
fn differing_expiry_of_a_held_seat_is_repaired() {
    let mut books = two_seat_sales();
    let at = books.seats.iter().position(|seat| seat.id == seat_id(3)).unwrap();
    books.seats[at].state = SeatState::Hold { reservation: id(1), until: UnixMillis(5) };
    assert_eq!(codes(&report(&books)), [(seat_subject(3), "SEAT_DIFFERS")]);
    let (_, after) = reconciled(&mut books);
    assert_eq!(after.breaches, []);
}

#[test]
fn missing_unreadable_and_misplaced_seats_are_reported_and_not_repaired() {
    let mut books = two_seat_sales();
    books.seats.retain(|seat| seat.id != seat_id(0) && seat.id != seat_id(1));
    books
        .unreadable_seats
        .push(UnreadableItem { id: seat_id(1).into_string(), why: "status is GONE".to_owned() });
    books.misplaced.push(MisplacedSeat {
        seat: seat_id(9),
        lies_under: "evt#1".to_owned(),
        belongs_under: "evt".to_owned(),
    });
    let found = report(&books);
    assert_eq!(
        codes(&found),
        [
            (seat_subject(1), "UNREADABLE"),
            (seat_subject(9), "SEAT_MISPLACED"),
            (seat_subject(0), "SEAT_MISSING"),
        ]
    );
    let plan = plan(&found).unwrap();
    assert_eq!((plan.repairs.len(), plan.left.len()), (0, 3));
}

#[test]
fn seat_with_an_unreadable_record_keeps_its_holder() {
    let mut books = two_seat_sales();
    books.live.remove(0);
    books
        .unreadable_records
        .push(UnreadableItem { id: id(0).into_string(), why: "qty is missing".to_owned() });
    let plan = plan(&report(&books)).unwrap();
    assert_eq!(plan.repairs, []);
    assert_eq!(plan.left.len(), 3);
}

#[test]
fn overdue_hold_is_a_breach_from_a_bound_on() {
    let mut books = three_sales();
    let max = limits::AUDIT_OVERDUE_MAX.as_millis() as u64;
    for (late, breaches) in [(1_500, 0), (max, 0), (max + 1, 1)] {
        books.live[1].expires_at = Some(UnixMillis(NOW.0 - late));
        let report = report(&books);
        assert_eq!(report.overdue.count, 1);
        assert_eq!(report.overdue.latest, [(id(1), late)]);
        let overdue = BreachKind::Overdue { late_ms: late };
        let subject = BreachSubject::Reservation(id(1).into_string());
        let expected = Breach { subject, kind: overdue };
        assert_eq!(report.breaches, vec![expected; breaches]);
        // The reclaimer writes it, not a repair.
        let plan = plan(&report).unwrap();
        assert_eq!((plan.repairs.len(), plan.left.len()), (0, breaches));
    }
}

// ---- While the sale runs ------------------------------------------------------------------------

#[test]
fn changed_stripe_is_not_judged_and_nothing_is_repaired() {
    let mut books = three_sales();
    books.live.pop();
    books.stripes[0].still = false;
    books.stripes[1].still = false;
    let report = report(&books);
    assert_eq!(report.breaches, []);
    assert_eq!(report.moving_stripes, [0, 1]);
    assert_eq!(report.verdict(), AuditVerdict::Moving);
    assert_eq!(plan(&report), Err(EventChanged));
}

#[test]
fn breach_is_reported_while_other_items_change() {
    let mut books = three_sales();
    books.stripes[0].still = false;
    if let StoredItem::Read(item) = &mut books.stripes[1].item {
        item.remaining -= 1;
    }
    let report = report(&books);
    assert_eq!(codes(&report), [(BreachSubject::Stripe(1), "REMAINING_DIFFERS")]);
    assert_eq!(plan(&report), Err(EventChanged));
}

#[test]
fn unchanged_stripe_of_an_earlier_round_is_judged() {
    let mut first = three_sales();
    first.stripes[1].still = false;
    let round = judge(&first, &KnownBalances::default(), NOW);
    assert!(!round.units_unchanged());
    // Now the other one moves, in the middle of a sale.
    let mut second = three_sales();
    second.stripes[0].still = false;
    if let StoredItem::Read(item) = &mut second.stripes[0].item {
        item.remaining -= 4;
    }
    let round = judge(&second, &round.known(), NOW);
    assert!(!round.units_unchanged(), "the held units need a round without any change");
    let known = round.known();
    let report = round.at_rest();
    assert_eq!((report.verdict(), report.moving_held), (AuditVerdict::Moving, true));
    assert_eq!((report.breaches.len(), report.moving_stripes.len()), (0, 0));
    assert_eq!(plan(&report), Err(EventChanged), "it is not at rest");
    let report = judge(&three_sales(), &known, NOW).at_rest();
    assert_eq!(report.verdict(), AuditVerdict::Clean);
}

#[test]
fn any_difference_between_two_reads_is_a_change() {
    let item = |remaining| {
        StoredItem::Read(StripeAmounts {
            capacity: 9,
            remaining,
            version: 1,
            closed: false,
            held: 0,
            moved: 0,
        })
    };
    let still = |before: &[StoredItem<StripeAmounts>], after| {
        let pair = StripeReads::pair(before, after);
        pair.iter().map(|sight| sight.still).collect::<Vec<_>>()
    };
    assert_eq!(still(&[item(1), item(2)], vec![item(1), item(3)]), [true, false]);
    assert_eq!(still(&[item(1)], vec![item(1), item(2)]), [false, false]);
}

/// A seat read in HOLD of a reservation whose record was read before it was written.
fn suspect() -> (EventRecords, SuspectSeat) {
    let mut books = two_seat_sales();
    let free = books.seats.iter_mut().find(|seat| seat.id == seat_id(2)).unwrap();
    free.state = SeatState::Hold { reservation: id(5), until: UnixMillis(NOW.0 + 6) };
    let judged = judge(&books, &KnownBalances::default(), NOW);
    let [suspect] = &judged.suspects[..] else { panic!("{judged:?}") };
    (books, suspect.clone())
}

fn snapshot(state: SeatState, records: &[AuditRecord]) -> InstantSnapshot {
    let pair =
        |record: &AuditRecord| (record.reservation.clone(), StoredItem::Read(record.clone()));
    InstantSnapshot {
        seats: [(seat_id(2), StoredItem::Read(state))].into(),
        records: records.iter().map(pair).collect(),
    }
}

#[test]
fn a_sale_between_two_reads_is_no_breach() {
    let (books, suspect) = suspect();
    assert_eq!(suspect.involved, [id(5)]);
    let held = record(5, ReservationState::Held, &[], &[2]);
    let in_hold = SeatState::Hold { reservation: id(5), until: held.expires_at.unwrap() };
    assert_eq!(
        look(&suspect, &snapshot(in_hold.clone(), std::slice::from_ref(&held))),
        SuspectCheck::Fine
    );
    // Released and gone to the next one meanwhile: that one's record is needed too.
    let sold = SeatState::Sold { reservation: id(6) };
    let released = record(5, ReservationState::Released, &[], &[2]);
    let seen = snapshot(sold.clone(), std::slice::from_ref(&released));
    assert_eq!(look(&suspect, &seen), SuspectCheck::With(id(6)));
    let mut wider = suspect.clone();
    wider.involved.push(id(6));
    let next = record(6, ReservationState::Confirmed, &[], &[2]);
    let both = [released, next];
    assert_eq!(look(&wider, &snapshot(sold.clone(), &both)), SuspectCheck::Fine);
    // It may be there already, read for the seat beside this one that it has as well.
    assert_eq!(look(&suspect, &snapshot(sold, &both)), SuspectCheck::Fine);
    // The record is not there at the same instant: that is a breach.
    let mut seen = snapshot(in_hold, &[]);
    seen.records.insert(id(5), StoredItem::Missing);
    let SuspectCheck::Wrong(kind) = look(&suspect, &seen) else {
        panic!("a seat without its record")
    };
    assert!(matches!(kind, BreachKind::Orphan { named: RecordLookup::NoRecord, .. }));

    let settle = |settled| judge(&books, &KnownBalances::default(), NOW).settle(settled);
    let fine = settle(vec![SuspectOutcome::Fine]);
    assert_eq!((fine.verdict(), fine.restless), (AuditVerdict::Clean, true));
    assert_eq!(settle(vec![SuspectOutcome::Moving]).verdict(), AuditVerdict::Moving);
    assert_eq!(settle(vec![]).verdict(), AuditVerdict::Moving, "not looked at");
    let wrong = settle(vec![SuspectOutcome::Wrong(kind)]);
    assert_eq!(codes(&wrong), [(seat_subject(2), "SEAT_ORPHAN")]);
    assert!(!wrong.restless);
}

#[test]
fn snapshot_finds_every_fault() {
    let (_, suspect) = suspect();
    let other = record(1, ReservationState::Held, &[], &[3]);
    let ended = record(5, ReservationState::Expired, &[], &[2]);
    let sold = |number| SeatState::Sold { reservation: id(number) };
    let look_at = |state, involved: &[usize], records: &[AuditRecord]| {
        let suspect =
            SuspectSeat { involved: involved.iter().map(|n| id(*n)).collect(), ..suspect.clone() };
        match look(&suspect, &snapshot(state, records)) {
            SuspectCheck::Wrong(kind) => kind,
            other => panic!("{other:?}"),
        }
    };
    let kind = look_at(sold(5), &[5], std::slice::from_ref(&ended));
    let expired = RecordLookup::Ended(ReservationState::Expired);
    assert!(matches!(kind, BreachKind::Orphan { named, .. } if named == expired));
    let kind = look_at(sold(1), &[1], std::slice::from_ref(&other));
    let elsewhere = RecordLookup::Elsewhere(ReservationState::Held);
    assert!(matches!(kind, BreachKind::Orphan { named, .. } if named == elsewhere));
    let mine = record(5, ReservationState::Confirmed, &[], &[2]);
    let kind = look_at(sold(1), &[5, 1], &[mine.clone(), other]);
    assert!(matches!(kind, BreachKind::Differs { named: Some(named), .. } if named == elsewhere));
    let twin = record(6, ReservationState::Held, &[], &[2]);
    let kind = look_at(sold(5), &[5, 6], &[mine, twin]);
    assert!(matches!(kind, BreachKind::ClaimedTwice { .. }));
}
