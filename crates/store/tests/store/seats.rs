//! Seats: transitions, conflicts, attributes that sales keep, imports, reads.

use aws_sdk_dynamodb::types::AttributeValue;
use inventory_core::ids::{SeatId, seat_key};
use inventory_core::limits as core_limits;
use inventory_core::seats::{Price, SeatFacts, SeatItem, SeatState};
use inventory_core::time::UnixMillis;
use inventory_core::transaction::{
    ActionOutcome, FreeSeatsRead, RecordWrite, ReservationState, SeatsRead, Transaction,
    TransactionOutcome,
};
use inventory_store::limits;
use inventory_store::{SeatComparison, SeatOutcome, Store, StoreError};

use crate::fixture::*;
use crate::transitions::{applied, refused, stored};

fn facts(number: usize) -> SeatFacts {
    SeatFacts {
        section: "Floor".to_owned(),
        row: "A".to_owned(),
        number: number.to_string(),
        price: Some(Price { amount: 9_900, currency: "KRW".to_owned() }),
    }
}

/// `A-1` to `A-n`.
async fn with_seats(store: &Store, seat_keys: u16, count: usize) -> Vec<(SeatId, SeatFacts)> {
    let seat = |n| (seat_id(&format!("A-{n}")), facts(n));
    let seats: Vec<_> = (1..=count).map(seat).collect();
    for seats in seats.chunks(core_limits::TRANSACTION_ACTIONS_MAX) {
        store.put_seats(&event(), seat_keys, seats).await.unwrap();
    }
    seats
}

async fn all(store: &Store, seat_keys: u16) -> Vec<SeatItem> {
    match store.read_seats(&event(), seat_keys).await {
        SeatsRead::Found(seats) => seats,
        other => panic!("{other:?}"),
    }
}

async fn state(store: &Store, seat_keys: u16, id: &str) -> SeatState {
    let seats = all(store, seat_keys).await;
    let seat = seats.into_iter().find(|seat| seat.id.as_str() == id);
    seat.unwrap().state
}

fn spread(seat_keys: u16, records: Vec<RecordWrite>) -> Transaction {
    Transaction { seat_keys, ..transaction(&[], records) }
}

fn held_by(hold: &RecordWrite) -> SeatState {
    SeatState::Hold { reservation: hold.reservation().clone(), until: hold.expires_at.unwrap() }
}

fn sold_to(record: &RecordWrite) -> SeatState {
    SeatState::Sold { reservation: record.reservation().clone() }
}

fn hold(id: &str, seats: &[&str]) -> RecordWrite {
    of_seats(held(id, &[]), seats)
}

fn sale(id: &str, seats: &[&str]) -> RecordWrite {
    of_seats(confirmed(id, &[]), seats)
}

/// Two seats through each sequence of states, with their state after each transition.
#[test]
fn seats_follow_their_reservation_and_keep_their_facts() {
    use ReservationState::{Confirmed, Expired, Held, Refunded, Released};
    let sequences: [&[ReservationState]; 5] = [
        &[Held, Confirmed, Refunded],
        &[Held, Released],
        &[Held, Expired, Confirmed],
        &[Confirmed, Refunded],
        &[Released],
    ];
    on_shard(async {
        for seat_keys in [0, 1, 4] {
            let store = with_tables(&settings(engine())).await;
            let imported = with_seats(&store, seat_keys, 5).await;
            for (number, sequence) in sequences.into_iter().enumerate() {
                let begun = first(&format!("r{number}"), sequence[0], &[]);
                let mut record = of_seats(begun, &["A-4", "A-2"]);
                for (at, to) in sequence.iter().enumerate() {
                    if at > 0 {
                        record = transition(&record, *to);
                    }
                    applied(&store, spread(seat_keys, vec![record.clone()])).await;
                    let expected = match to {
                        Held => held_by(&record),
                        Confirmed => sold_to(&record),
                        Released | Expired | Refunded => SeatState::Available,
                    };
                    for seat in all(&store, seat_keys).await {
                        let is_ours = ["A-4", "A-2"].contains(&seat.id.as_str());
                        let free = SeatState::Available;
                        assert_eq!(seat.state, if is_ours { expected.clone() } else { free });
                        let (_, facts) = imported.iter().find(|(id, _)| *id == seat.id).unwrap();
                        assert_eq!(seat.facts, *facts, "{sequence:?}");
                    }
                    let found = stored(&store).await;
                    let found = found.iter().find(|r| r.reservation == *record.reservation());
                    assert_eq!(found.unwrap().view, record.view(AT), "{sequence:?}");
                }
                // The next sequence starts with available seats.
                match record.to {
                    Confirmed => {
                        let refund = transition(&record, Refunded);
                        applied(&store, spread(seat_keys, vec![refund])).await;
                    }
                    _ => assert_eq!(state(&store, seat_keys, "A-2").await, SeatState::Available),
                }
            }
        }
    });
}

#[test]
fn returned_seat_has_no_attributes_of_its_holder() {
    on_shard(async {
        let settings = settings(engine());
        let store = with_tables(&settings).await;
        with_seats(&store, 1, 1).await;
        let record = hold("r1", &["A-1"]);
        applied(&store, spread(1, vec![record.clone()])).await;
        let record = transition(&record, ReservationState::Confirmed);
        applied(&store, spread(1, vec![record.clone()])).await;
        let sold = raw_seat(&settings, "A-1").await;
        assert_eq!(sold["status"], text("SOLD"));
        assert_eq!(sold["order_id"], text(&record.order.unwrap().to_text()));
        assert!(!sold.contains_key("hold_expires_at"));
        let refund = transition(&record, ReservationState::Refunded);
        applied(&store, spread(1, vec![refund])).await;
        let free = raw_seat(&settings, "A-1").await;
        let mut names: Vec<_> = free.keys().map(String::as_str).collect();
        names.sort_unstable();
        let expected = [
            "event_id",
            "number",
            "price_amount",
            "price_currency",
            "row",
            "seat_id",
            "section",
            "status",
            "updated_at",
        ];
        assert_eq!(names, expected);
    });
}

#[test]
fn unavailable_seat_is_reported_with_its_holder() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        with_seats(&store, 2, 6).await;
        let (first, second) = (hold("first", &["A-1", "A-2"]), sale("second", &["A-3"]));
        applied(&store, spread(2, vec![first.clone(), second.clone()])).await;
        let blocked = store.block_seats(&event(), 2, &[seat_id("A-4")]).await;
        assert_eq!(blocked.unwrap(), [(seat_id("A-4"), SeatOutcome::Changed)]);

        let late = vec![
            hold("r1", &["A-5", "A-1"]),
            sale("r2", &["A-6"]),
            sale("r3", &["A-3", "A-4", "A-99"]),
        ];
        let reasons = refused(&store, spread(2, late.clone())).await;
        let expected = [
            ActionOutcome::Fine,
            ActionOutcome::Fine,
            ActionOutcome::Fine,
            ActionOutcome::Fine,
            ActionOutcome::Seat(Some(held_by(&first))),
            ActionOutcome::Fine,
            ActionOutcome::Seat(Some(sold_to(&second))),
            ActionOutcome::Seat(Some(SeatState::Blocked)),
            ActionOutcome::Seat(None),
        ];
        assert_eq!(reasons, expected);
        assert_eq!(stored(&store).await.len(), 2);
        // The rejected sale wrote nothing, and the other reservation succeeds alone.
        assert_eq!(all(&store, 2).await.len(), 6);
        applied(&store, spread(2, vec![late[1].clone()])).await;
    });
}

#[test]
fn reservation_cannot_confirm_or_release_seats_of_another() {
    use ReservationState::{Confirmed, Expired, Held, Refunded, Released};
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        with_seats(&store, 1, 2).await;
        let (ours, sold) = (hold("ours", &["A-1"]), sale("sold", &["A-2"]));
        applied(&store, spread(1, vec![ours.clone(), sold.clone()])).await;
        // A reservation with a correct record, whose seats belong to another.
        let stranger = |id: &str, to, seat| {
            let has_none = RecordWrite { seats: None, ..of_seats(first(id, to, &[]), &[seat]) };
            (has_none.clone(), of_seats(has_none, &[seat]))
        };
        for (at, (from, to, seat, has)) in [
            (Held, Confirmed, "A-1", held_by(&ours)),
            (Held, Released, "A-1", held_by(&ours)),
            (Held, Expired, "A-1", held_by(&ours)),
            (Held, Released, "A-2", sold_to(&sold)),
            (Confirmed, Refunded, "A-2", sold_to(&sold)),
            (Confirmed, Refunded, "A-1", held_by(&ours)),
        ]
        .into_iter()
        .enumerate()
        {
            let (begun, claims) = stranger(&format!("stranger{at}"), from, seat);
            applied(&store, spread(1, vec![begun])).await;
            let reasons = refused(&store, spread(1, vec![transition(&claims, to)])).await;
            let expected = [ActionOutcome::Fine, ActionOutcome::Seat(Some(has))];
            assert_eq!(reasons, expected, "{from:?} to {to:?} of {seat}");
        }
        // Its own seat in another state than the transition starts with: sold instead of held.
        let wrong = RecordWrite { from: Some(Held), ..transition(&sold, Released) };
        let reasons = refused(&store, spread(1, vec![wrong])).await;
        let its = ActionOutcome::Record(sold.view(AT));
        assert_eq!(reasons, [its, ActionOutcome::Seat(Some(sold_to(&sold)))]);
    });
}

#[test]
fn repeated_import_keeps_states_and_clears_omitted_facts() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let mut seats = with_seats(&store, 3, 4).await;
        let (mut kept, sold) = (hold("kept", &["A-1"]), sale("sold", &["A-2"]));
        // Not expired by the clock of this machine.
        kept.expires_at = kept.expires_at.map(|at| UnixMillis(at.0 * 2));
        applied(&store, spread(3, vec![kept.clone(), sold.clone()])).await;
        let blocked = store.block_seats(&event(), 3, &[seat_id("A-3")]).await;
        blocked.unwrap();
        let before = all(&store, 3).await;
        store.put_seats(&event(), 3, &seats).await.unwrap();
        assert_eq!(all(&store, 3).await, before);
        // None of them needs a write, whatever its state; a seat that is not stored does.
        let same = store.compare_seats(&event(), 3, seats.clone()).await.unwrap();
        let expected = SeatComparison { unchanged: seats.len(), ..SeatComparison::default() };
        assert_eq!(same, expected);
        let new = (seat_id("B-1"), SeatFacts::default());
        let mut others = seats.clone();
        for (_, facts) in others.iter_mut().take(3) {
            facts.row = "B".to_owned();
        }
        others.push(new.clone());
        let found = store.compare_seats(&event(), 3, others.clone()).await.unwrap();
        let to_write: Vec<_> = others[..3].iter().cloned().chain([new]).collect();
        // Of the three, one is held, one is sold and one is blocked.
        let expected = SeatComparison {
            to_write,
            added: 1,
            changed: 3,
            changed_held: 1,
            changed_sold: 1,
            unchanged: seats.len() - 3,
        };
        assert_eq!(found, expected);

        for (_, facts) in &mut seats {
            facts.row = "B".to_owned();
            facts.section = String::new();
            facts.price = None;
        }
        store.put_seats(&event(), 3, &seats).await.unwrap();
        for (seat, before) in all(&store, 3).await.iter().zip(&before) {
            assert_eq!((&seat.id, &seat.state), (&before.id, &before.state));
            let (_, facts) = seats.iter().find(|(id, _)| *id == seat.id).unwrap();
            assert_eq!(seat.facts, *facts);
        }
    });
}

#[test]
fn import_with_too_many_or_duplicate_seats_writes_nothing() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let seat = |n: usize| (seat_id(&n.to_string()), SeatFacts::default());
        let many: Vec<_> = (0..=core_limits::TRANSACTION_ACTIONS_MAX).map(seat).collect();
        for (seats, word) in [(many, "101 seats"), (vec![seat(7), seat(7)], "seat 7")] {
            let error = store.put_seats(&event(), 1, &seats).await.unwrap_err();
            assert!(matches!(&error, StoreError::Invalid(why) if why.contains(word)));
        }
        store.put_seats(&event(), 1, &[]).await.unwrap();
        assert_eq!(all(&store, 1).await, []);
    });
}

#[test]
fn only_available_seats_are_blocked() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        with_seats(&store, 2, 4).await;
        let (kept, sold) = (hold("kept", &["A-1"]), sale("sold", &["A-2"]));
        applied(&store, spread(2, vec![kept.clone(), sold.clone()])).await;
        let ids = ["A-1", "A-2", "A-3", "A-4", "A-99"].map(seat_id);
        let kinds = |outcomes: Result<Vec<(SeatId, SeatOutcome)>, StoreError>| {
            let (named, outcomes): (Vec<_>, Vec<_>) = outcomes.unwrap().into_iter().unzip();
            assert_eq!(named, ids);
            outcomes
        };
        let expected = |first, second| {
            use SeatOutcome::{Held, NotFound, Sold};
            [Held, Sold, first, second, NotFound]
        };
        let only = store.block_seats(&event(), 2, &ids[2..3]).await.unwrap();
        assert_eq!(only[0].1, SeatOutcome::Changed);
        let blocked = kinds(store.block_seats(&event(), 2, &ids).await);
        assert_eq!(blocked, expected(SeatOutcome::Unchanged, SeatOutcome::Changed));
        let reasons = refused(&store, spread(2, vec![hold("r1", &["A-3"])])).await;
        assert_eq!(reasons[1], ActionOutcome::Seat(Some(SeatState::Blocked)));

        let freed = store.unblock_seats(&event(), 2, &ids[2..3]).await.unwrap();
        assert_eq!(freed[0].1, SeatOutcome::Changed);
        let freed = kinds(store.unblock_seats(&event(), 2, &ids).await);
        assert_eq!(freed, expected(SeatOutcome::Unchanged, SeatOutcome::Changed));
        applied(&store, spread(2, vec![hold("r1", &["A-3"])])).await;
    });
}

#[test]
fn seats_are_read_over_pages_and_partition_keys() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        let pages = limits::STORE_SEATS_PAGE_MAX as usize;
        let seats = with_seats(&store, 2, 3 * pages).await;
        let mut found = all(&store, 2).await;
        found.sort_by(|a, b| a.id.cmp(&b.id));
        let mut expected: Vec<_> = seats
            .into_iter()
            .map(|(id, facts)| SeatItem { id, facts, state: SeatState::Available })
            .collect();
        expected.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(found, expected);
        let other = store.read_seats(&"other".parse().unwrap(), 2).await;
        assert_eq!(other, SeatsRead::Found(Vec::new()));
    });
}

#[test]
fn free_seats_are_the_available_and_the_overdue() {
    on_shard(async {
        for seat_keys in [1, 3] {
            let settings = settings(engine());
            let store = with_tables(&settings).await;
            let pages = limits::STORE_SEATS_PAGE_MAX as usize;
            let seats = with_seats(&store, seat_keys, 2 * pages * usize::from(seat_keys)).await;
            let held = hold("r1", &["A-1", "A-2"]);
            let until = held.expires_at.unwrap();
            let records = vec![held.clone(), sale("r2", &["A-3"])];
            applied(&store, spread(seat_keys, records)).await;
            let ids = [seat_id("A-4")];
            store.block_seats(&event(), seat_keys, &ids).await.unwrap();
            let mut others = Vec::new();
            for (id, _) in &seats[4..] {
                others.push((id.clone(), SeatState::Available));
            }
            let overdue = ["A-1", "A-2"].map(|id| (seat_id(id), held_by(&held)));
            let before = UnixMillis(until.0 - 1);
            for (at, more) in [(before, &overdue[..0]), (until, &overdue[..])] {
                let read = store.read_free_seats(&event(), seat_keys, at).await;
                let FreeSeatsRead::Found(mut found) = read else {
                    panic!("{read:?}");
                };
                found.sort_by(|a, b| a.0.cmp(&b.0));
                let mut expected = [&others[..], more].concat();
                expected.sort_by(|a, b| a.0.cmp(&b.0));
                assert_eq!(found, expected);
            }
            let other = "other".parse().unwrap();
            let none = store.read_free_seats(&other, seat_keys, until).await;
            assert_eq!(none, FreeSeatsRead::Found(Vec::new()));
        }
    });
}

#[test]
fn foreign_seat_items_are_never_sold_twice() {
    on_shard(async {
        let settings = settings(engine());
        let store = with_tables(&settings).await;
        let put = |id: &'static str, more: Vec<(&'static str, AttributeValue)>| {
            let key = [("event_id", text(event().as_str())), ("seat_id", text(id))];
            key.into_iter().chain(more).collect::<Vec<_>>()
        };
        let nobody = ("reservation_id", AttributeValue::Null(true));
        let of = ("reservation_id", text("rsv_1"));
        for item in [
            put("S-1", vec![("status", text("AVAILABLE")), nobody.clone()]),
            put("S-2", vec![("status", text("HOLD")), of.clone()]),
            put("S-3", vec![("status", text("SOLD")), of]),
            put("S-4", vec![("status", text("SOLD")), nobody]),
            put("S-5", vec![("section", text("East"))]),
        ] {
            raw_put(&settings, &settings.tables.seats, item).await;
        }
        let reservation = reservation("rsv_1");
        let for_ever =
            SeatState::Hold { reservation: reservation.clone(), until: UnixMillis(u64::MAX) };
        let states: Vec<_> = all(&store, 1).await.into_iter().map(|s| s.state).collect();
        let sold = SeatState::Sold { reservation };
        let expected =
            [SeatState::Available, for_ever.clone(), sold, SeatState::Blocked, SeatState::Blocked];
        assert_eq!(states, expected);
        let buy = sale("r1", &["S-1", "S-2", "S-4", "S-5"]);
        let reasons = refused(&store, spread(1, vec![buy])).await;
        assert_eq!(reasons[1..3], [ActionOutcome::Fine, ActionOutcome::Seat(Some(for_ever))]);
        assert_eq!(reasons[3], ActionOutcome::Seat(Some(SeatState::Blocked)));
        assert_eq!(reasons[4], ActionOutcome::Seat(Some(SeatState::Blocked)));
        applied(&store, spread(1, vec![sale("r1", &["S-1"])])).await;
        let error = store.block_seats(&event(), 1, &[seat_id("S-4")]).await;
        let error = error.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
    });
}

#[test]
fn ten_reservations_of_nine_seats_fit_one_transaction() {
    on_shard(async {
        let store = with_tables(&settings(engine())).await;
        with_seats(&store, 4, 90).await;
        let ids: Vec<String> = (1..=90).map(|n| format!("A-{n}")).collect();
        let names: Vec<&str> = ids.iter().map(String::as_str).collect();
        let records: Vec<_> =
            names.chunks(9).enumerate().map(|(n, seats)| sale(&format!("r{n}"), seats)).collect();
        let batch = spread(4, records);
        assert_eq!(batch.action_count(), core_limits::TRANSACTION_ACTIONS_MAX);
        assert_eq!(store.transact(&batch).await, TransactionOutcome::Committed);
        assert!(
            all(&store, 4).await.iter().all(|seat| matches!(seat.state, SeatState::Sold { .. }))
        );
        // Every process computes the same partition key of a seat.
        assert_eq!(seat_key(&event(), &seat_id("A-1"), 4), "evt_2025_1001#2");
    });
}
