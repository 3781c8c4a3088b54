//! The admin service on its port, with a backend in memory.

mod fake_backend;

use std::time::Duration;

use futures::stream;
use inventory_api::limits;
use inventory_proto::inventory::v1 as pb;
use inventory_proto::inventory::v1::inventory_admin_client::InventoryAdminClient;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub(crate) use fake_backend::Events;

use crate::{channel, client, start};

type TestAdminClient = InventoryAdminClient<Channel>;

/// Runs `calls` against a new server.
fn with_admin(calls: impl AsyncFnOnce(TestAdminClient)) {
    let (control_plane, _readiness) = start();
    client(async {
        let channel = channel(control_plane.admin_address().unwrap());
        calls(InventoryAdminClient::new(channel)).await;
    });
}

fn seated(event_id: &str, seat_keys: i32) -> pb::CreateEventRequest {
    pb::CreateEventRequest { seat_keys, ..create(event_id, 0, 0) }
}

#[track_caller]
fn assert_error(error: &Status, code: Code, reason: &str) {
    assert_eq!(error.code(), code, "{error}");
    let info = error.get_details_error_info().unwrap();
    assert_eq!(info.reason, reason, "{error}");
    assert_eq!(info.domain, "inventory-api");
}

/// The fields in the violations of an error.
#[track_caller]
fn violated_fields(error: &Status) -> Vec<String> {
    assert_error(error, Code::InvalidArgument, "INVALID_ARGUMENT");
    let bad = error.get_details_bad_request().unwrap();
    for violation in &bad.field_violations {
        let says = |word| violation.description.contains(word);
        assert!(says("want ") || says("must be "), "{violation:?}");
        assert!(error.message().contains(&violation.description), "{error}");
    }
    bad.field_violations.into_iter().map(|v| v.field).collect()
}

fn create(event_id: &str, total: i64, stripes: i32) -> pb::CreateEventRequest {
    let event_id = event_id.to_owned();
    pb::CreateEventRequest { event_id, total, stripes, ..pb::CreateEventRequest::default() }
}

#[test]
fn create_event_is_idempotent_and_readable() {
    let (control_plane, _readiness) = start();
    client(async {
        let mut admin = InventoryAdminClient::new(channel(control_plane.admin_address().unwrap()));
        let made = admin.create_event(create("evt", 101, 4)).await.unwrap().into_inner();
        assert!(made.created);
        let event = made.event.unwrap();
        assert_eq!((event.total, event.remaining), (101, 97));
        assert_eq!((event.held, event.confirmed), (1, 3));
        let shares: Vec<_> = event.stripes.iter().map(|s| (s.index, s.capacity)).collect();
        assert_eq!(shares, [(0, 26), (1, 25), (2, 25), (3, 25)]);
        let again = admin.create_event(create("evt", 101, 4)).await.unwrap().into_inner();
        assert!(!again.created);
        assert_eq!(again.event.as_ref(), Some(&event));
        let event_id = "evt".to_owned();
        let read = admin.get_event(pb::GetEventRequest { event_id }).await.unwrap();
        assert_eq!(read.into_inner().event, Some(event));
        // With 0 stripes the server chooses the number.
        let many = admin.create_event(create("evt-2", 1_000, 0)).await.unwrap();
        assert_eq!(many.into_inner().event.unwrap().stripes.len(), 4);
        let one = admin.create_event(create("evt-1", 5, 0)).await.unwrap().into_inner();
        assert_eq!(one.event.unwrap().stripes.len(), 1);
    });
}

#[test]
fn every_invalid_field_is_reported() {
    let long = "e".repeat(129);
    let text = |name: &str, venue: &str| pb::CreateEventRequest {
        name: name.to_owned(),
        venue: venue.to_owned(),
        ..create("evt", 10, 1)
    };
    let cases = [
        (create("", 10, 1), vec!["event_id"]),
        (create(&long, 10, 1), vec!["event_id"]),
        (create("evt#1", 10, 1), vec!["event_id"]),
        (create("evt", 0, 1), vec!["total"]),
        (create("evt", -5, 1), vec!["total"]),
        (create("evt", 1_000_000_001, 1), vec!["total"]),
        (create("evt", 10, -1), vec!["stripes"]),
        (create("evt", 1_000, 65), vec!["stripes"]),
        (create("evt", 10, 11), vec!["stripes"]),
        (create("e v t", 0, i32::MIN), vec!["event_id", "total", "stripes"]),
        (text(&"n".repeat(257), "\u{1b}[2J"), vec!["name", "venue"]),
        (seated("evt", 65), vec!["seat_keys"]),
        (seated("evt", -1), vec!["seat_keys"]),
        (pb::CreateEventRequest { seat_keys: 1, ..create("evt", 10, 1) }, vec!["total", "stripes"]),
    ];
    with_admin(async |mut admin| {
        for (request, want) in cases {
            let error = admin.create_event(request.clone()).await.unwrap_err();
            assert_eq!(violated_fields(&error), want, "{request:?}");
        }
        let error = admin.get_event(pb::GetEventRequest::default()).await;
        assert_eq!(violated_fields(&error.unwrap_err()), ["event_id"]);
        let error = admin.close_event(pb::CloseEventRequest::default()).await;
        assert_eq!(violated_fields(&error.unwrap_err()), ["event_id"]);
        let error = admin.set_total(pb::SetTotalRequest::default()).await;
        assert_eq!(violated_fields(&error.unwrap_err()), ["event_id", "total"]);
        let error = admin.get_reservation(pb::GetReservationRequest::default()).await;
        assert_eq!(violated_fields(&error.unwrap_err()), ["reservation_id"]);
        let error = admin.refund_reservation(pb::RefundReservationRequest::default()).await;
        assert_eq!(violated_fields(&error.unwrap_err()), ["reservation_id"]);
        let listing = pb::ListReservationsRequest { event_id: String::new(), status: 6 };
        let error = admin.list_reservations(listing).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["event_id", "status"]);
    });
}

#[test]
fn errors_have_status_reason_and_event() {
    let (control_plane, _readiness) = start();
    client(async {
        let mut admin = InventoryAdminClient::new(channel(control_plane.admin_address().unwrap()));
        admin.create_event(create("evt", 10, 1)).await.unwrap();
        let other = admin.create_event(create("evt", 11, 1)).await.unwrap_err();
        assert!(other.message().contains("total 10 over 1"), "{other}");
        let mut refusals = vec![(other, Code::AlreadyExists, "EVENT_EXISTS", "evt")];
        for (event, code, reason) in [
            ("nowhere", Code::NotFound, "EVENT_NOT_FOUND"),
            ("busy", Code::ResourceExhausted, "STORE_BUSY"),
            ("down", Code::Unavailable, "STORE_UNAVAILABLE"),
            ("broken", Code::Internal, "INTERNAL"),
        ] {
            let event_id = event.to_owned();
            let error = admin.get_event(pb::GetEventRequest { event_id }).await.unwrap_err();
            refusals.push((error, code, reason, event));
        }
        for (error, code, reason, event) in refusals {
            assert_eq!(error.code(), code, "{event}");
            let info = error.get_details_error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.metadata["event_id"].as_str()), (reason, event));
            let transient = matches!(event, "busy" | "down");
            let retry = error.get_details_retry_info();
            let pause = retry.map(|retry| retry.retry_delay.unwrap_or_default());
            assert_eq!(pause, transient.then_some(Duration::from_millis(100)), "{event}");
            let pushback = error.metadata().get("grpc-retry-pushback-ms");
            assert_eq!(pushback.map(|ms| ms.to_str().unwrap()), transient.then_some("100"));
        }
    });
}

#[test]
fn events_are_listed_in_pages() {
    with_admin(async |mut admin| {
        for event in ["evt_1", "evt_2"] {
            admin.create_event(create(event, 10, 2)).await.unwrap();
        }
        let named = pb::CreateEventRequest {
            name: "Opening night".to_owned(),
            venue: "The hall".to_owned(),
            ..seated("evt_3", 4)
        };
        admin.create_event(named).await.unwrap();
        let event_id = "evt_3".to_owned();
        let closed = admin.close_event(pb::CloseEventRequest { event_id }).await;
        assert!(closed.unwrap().into_inner().event.unwrap().closed);
        let listing = admin.list_events(pb::ListEventsRequest {}).await.unwrap();
        let mut listing = listing.into_inner();
        let mut pages = Vec::new();
        while let Some(page) = listing.message().await.unwrap() {
            pages.push(page.events);
        }
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        let last = pages[1][0].clone();
        let expected = pb::EventSummary {
            event_id: "evt_3".to_owned(),
            name: "Opening night".to_owned(),
            venue: "The hall".to_owned(),
            seated: true,
            closed: true,
            stripes: 1,
            seat_keys: 4,
        };
        assert_eq!(last, expected);
    });
}

#[test]
fn total_cannot_be_set_below_taken_units() {
    with_admin(async |mut admin| {
        admin.create_event(create("evt", 10, 2)).await.unwrap();
        admin.create_event(seated("seats", 1)).await.unwrap();
        let set =
            |event_id: &str, total| pb::SetTotalRequest { event_id: event_id.to_owned(), total };
        for total in [20, 2] {
            let set = admin.set_total(set("evt", total)).await.unwrap();
            assert_eq!(set.into_inner().event.unwrap().total, total);
        }
        let error = admin.set_total(set("evt", 1)).await.unwrap_err();
        assert_error(&error, Code::FailedPrecondition, "TOTAL_TOO_SMALL");
        assert!(error.message().contains("total of 2, of which 2"), "{error}");
        let numbers = error.get_details_error_info().unwrap().metadata;
        assert_eq!((&*numbers["total"], &*numbers["taken"]), ("2", "2"));
        let error = admin.set_total(set("seats", 1)).await.unwrap_err();
        assert_error(&error, Code::FailedPrecondition, "EVENT_SEATED");
        let error = admin.set_total(set("nowhere", 1)).await.unwrap_err();
        assert_error(&error, Code::NotFound, "EVENT_NOT_FOUND");
    });
}

fn seat(seat_id: impl ToString, amount: i64) -> pb::NewSeat {
    pb::NewSeat {
        seat_id: seat_id.to_string(),
        section: "A".to_owned(),
        row: "1".to_owned(),
        number: "1".to_owned(),
        price: Some(pb::Price { amount, currency: "KRW".to_owned() }),
    }
}

fn import(event_id: &str, seats: Vec<pb::NewSeat>) -> pb::ImportSeatsRequest {
    pb::ImportSeatsRequest { event_id: event_id.to_owned(), seats }
}

#[test]
fn seat_import_can_be_repeated() {
    with_admin(async |mut admin| {
        admin.create_event(seated("evt", 4)).await.unwrap();
        let chunk = limits::SEATS_PER_CHUNK_MAX as i64;
        let of = |range: std::ops::Range<i64>| range.map(|n| seat(n, n)).collect();
        let messages = vec![
            import("evt", Vec::new()),
            import("", of(0..chunk)),
            import("evt", of(chunk..chunk + 7)),
        ];
        for repeat in [false, true] {
            let done = admin.import_seats(stream::iter(messages.clone())).await;
            let done = done.unwrap().into_inner();
            assert_eq!((&*done.event_id, done.written), ("evt", chunk + 7));
            let (added, unchanged) = if repeat { (0, chunk + 7) } else { (chunk + 7, 0) };
            assert_eq!((done.added, done.changed, done.unchanged), (added, 0, unchanged));
            let event_id = "evt".to_owned();
            let read = admin.get_event(pb::GetEventRequest { event_id }).await;
            let event = read.unwrap().into_inner().event.unwrap();
            assert_eq!((event.total, event.remaining), (chunk + 7, chunk + 7));
            assert!(event.seated && event.seat_keys == 4 && event.stripes.is_empty());
            let price = |price: &Option<pb::Price>| price.clone().unwrap().amount;
            let section = &event.sections[0];
            assert_eq!((price(&section.min_price), price(&section.max_price)), (0, chunk + 6));
        }
    });
}

#[test]
fn seats_are_listed_by_section_row_and_number() {
    with_admin(async |mut admin| {
        admin.create_event(seated("evt", 4)).await.unwrap();
        admin.create_event(create("units", 10, 1)).await.unwrap();
        let count = limits::SEATS_PER_CHUNK_MAX as i64 + 1;
        let of = |number: i64| pb::NewSeat { number: number.to_string(), ..seat(number, number) };
        for part in [0..count - 1, count - 1..count] {
            let seats = part.map(of).collect();
            admin.import_seats(stream::iter([import("evt", seats)])).await.unwrap();
        }
        let block = pb::BlockSeatsRequest {
            event_id: "evt".to_owned(),
            seat_ids: vec!["3".to_owned(), "20".to_owned()],
        };
        admin.block_seats(block).await.unwrap();
        let request = |event_id: &str, state: pb::SeatState| pb::ListSeatsRequest {
            event_id: event_id.to_owned(),
            state: state.into(),
        };
        let mut pages = Vec::new();
        let all = admin.list_seats(request("evt", pb::SeatState::Unspecified)).await.unwrap();
        let mut all = all.into_inner();
        while let Some(page) = all.message().await.unwrap() {
            pages.push(page.seats);
        }
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [count as usize - 1, 1]);
        // 2 before 10.
        let numbers: Vec<i64> = pages.concat().iter().map(|s| s.number.parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        let blocked = admin.list_seats(request("evt", pb::SeatState::Blocked)).await.unwrap();
        let blocked = blocked.into_inner().message().await.unwrap().unwrap().seats;
        let expected = pb::StoredSeat {
            seat_id: "3".to_owned(),
            section: "A".to_owned(),
            row: "1".to_owned(),
            number: "3".to_owned(),
            price: Some(pb::Price { amount: 3, currency: "KRW".to_owned() }),
            state: pb::SeatState::Blocked.into(),
            ..pb::StoredSeat::default()
        };
        assert_eq!((blocked.len(), &blocked[0]), (2, &expected));
        let error = admin.list_seats(request("units", pb::SeatState::Unspecified)).await;
        assert_error(&error.unwrap_err(), Code::FailedPrecondition, "EVENT_NOT_SEATED");
        let error = admin.list_seats(request("nowhere", pb::SeatState::Unspecified)).await;
        assert_error(&error.unwrap_err(), Code::NotFound, "EVENT_NOT_FOUND");
        let wrong = pb::ListSeatsRequest { event_id: String::new(), state: 5 };
        let error = admin.list_seats(wrong).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["event_id", "state"]);
    });
}

#[test]
fn invalid_import_reports_field_or_event() {
    let many = (0..=limits::SEATS_PER_CHUNK_MAX).map(|n| seat(n, 1)).collect();
    let text = pb::NewSeat {
        section: "s".repeat(65),
        row: "\n".to_owned(),
        price: Some(pb::Price { amount: -1, currency: "won".to_owned() }),
        ..seat("a b", 1)
    };
    with_admin(async |mut admin| {
        admin.create_event(seated("evt", 1)).await.unwrap();
        admin.create_event(create("units", 10, 1)).await.unwrap();
        for (messages, fields) in [
            (vec![], vec!["event_id"]),
            (vec![import("", vec![seat(1, 1)])], vec!["event_id"]),
            (vec![import("evt", vec![]), import("other", vec![])], vec!["event_id"]),
            (vec![import("evt", many)], vec!["seats"]),
            (vec![import("evt", vec![seat("x", 1), seat("x", 1)])], vec!["seats[1].seat_id"]),
            (
                vec![import("evt", vec![seat(1, 1), text])],
                vec![
                    "seats[1].seat_id",
                    "seats[1].section",
                    "seats[1].row",
                    "seats[1].price.amount",
                    "seats[1].price.currency",
                ],
            ),
        ] {
            let error = admin.import_seats(stream::iter(messages)).await.unwrap_err();
            assert_eq!(violated_fields(&error), fields);
        }
        // The size of an error is bounded.
        let wrong = (0..limits::SEATS_PER_CHUNK_MAX).map(|_| seat("", -1)).collect();
        let messages = stream::iter([import("evt", wrong)]);
        let error = admin.import_seats(messages).await.unwrap_err();
        assert_eq!(violated_fields(&error).len(), limits::FIELD_VIOLATIONS_MAX);

        for (event, code, reason) in [
            ("units", Code::FailedPrecondition, "EVENT_NOT_SEATED"),
            ("nowhere", Code::NotFound, "EVENT_NOT_FOUND"),
        ] {
            let messages = stream::iter([import(event, vec![seat(1, 1)])]);
            let error = admin.import_seats(messages).await.unwrap_err();
            assert_error(&error, code, reason);
        }
        let messages = stream::iter([import("evt", vec![seat("busy", 1)])]);
        let error = admin.import_seats(messages).await.unwrap_err();
        assert_error(&error, Code::ResourceExhausted, "STORE_BUSY");
        let event_id = "evt".to_owned();
        admin.close_event(pb::CloseEventRequest { event_id }).await.unwrap();
        let messages = stream::iter([import("evt", vec![seat(1, 1)])]);
        let error = admin.import_seats(messages).await.unwrap_err();
        assert_error(&error, Code::FailedPrecondition, "EVENT_CLOSED");
    });
}

#[test]
fn blocking_returns_one_outcome_per_seat() {
    use pb::SeatOutcome::{Changed, Held, NotFound, Sold, Unchanged};
    with_admin(async |mut admin| {
        admin.create_event(seated("evt", 1)).await.unwrap();
        let seats = ["x", "y", "held", "sold"].map(|id| seat(id, 1));
        let messages = stream::iter([import("evt", seats.to_vec())]);
        admin.import_seats(messages).await.unwrap();
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let block = |seats: &[&str]| pb::BlockSeatsRequest {
            event_id: "evt".to_owned(),
            seat_ids: ids(seats),
        };
        let outcomes = |seats: &[pb::SeatResult]| {
            let one = |seat: &pb::SeatResult| (seat.seat_id.clone(), seat.outcome());
            seats.iter().map(one).collect::<Vec<_>>()
        };
        let done = admin.block_seats(block(&["y", "sold", "held", "z"])).await;
        let done = outcomes(&done.unwrap().into_inner().seats);
        let expected = [("y", Changed), ("sold", Sold), ("held", Held), ("z", NotFound)];
        assert_eq!(done, expected.map(|(id, what)| (id.to_owned(), what)));
        let done = admin.block_seats(block(&["y", "x"])).await;
        let done = outcomes(&done.unwrap().into_inner().seats);
        assert_eq!(done, [("y".to_owned(), Unchanged), ("x".to_owned(), Changed)]);
        let unblock =
            pb::UnblockSeatsRequest { event_id: "evt".to_owned(), seat_ids: ids(&["x", "sold"]) };
        let done = admin.unblock_seats(unblock).await.unwrap().into_inner();
        let expected = [("x", Changed), ("sold", Unchanged)];
        assert_eq!(outcomes(&done.seats), expected.map(|(id, what)| (id.to_owned(), what)));

        let many: Vec<String> = (0..501).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for (seats, fields) in [
            (vec![], vec!["seat_ids"]),
            (many, vec!["seat_ids"]),
            (vec!["x", "a b", "x"], vec!["seat_ids[1]", "seat_ids[2]"]),
        ] {
            let error = admin.block_seats(block(&seats)).await.unwrap_err();
            assert_eq!(violated_fields(&error), fields);
        }
    });
}

#[test]
fn reservation_is_read_and_refunded() {
    with_admin(async |mut admin| {
        let read = |id: &str| pb::GetReservationRequest { reservation_id: id.to_owned() };
        let found = admin.get_reservation(read("held")).await.unwrap();
        let expected = pb::Reservation {
            reservation_id: "held".to_owned(),
            event_id: "evt".to_owned(),
            status: pb::ReservationStatus::Held.into(),
            quantity: 3,
            seat_ids: vec!["A-1".to_owned(), "A-2".to_owned()],
            order_id: String::new(),
            expires_at_ms: 1_704_110_460_000,
            changed_at_ms: 1_704_110_400_000,
            draws: vec![pb::StripeDraw { stripe: 2, units: 3 }],
            payment_intent_id: "pi_1".to_owned(),
            created_at_ms: 1_704_110_300_000,
            seat_prices: Vec::new(),
        };
        assert_eq!(found.into_inner().reservation, Some(expected));
        let error = admin.get_reservation(read("none")).await.unwrap_err();
        assert_error(&error, Code::NotFound, "RESERVATION_NOT_FOUND");
        let metadata = error.get_details_error_info().unwrap().metadata;
        assert_eq!(metadata["reservation_id"], "none");

        let refund = |id: &str| pb::RefundReservationRequest { reservation_id: id.to_owned() };
        for (id, by_this_call) in [("confirmed", true), ("refunded", false)] {
            let answer = admin.refund_reservation(refund(id)).await.unwrap();
            assert_eq!(answer.into_inner().refunded, by_this_call);
        }
        let refunded = admin.refund_reservation(refund("confirmed")).await.unwrap();
        let refunded = refunded.into_inner().reservation.unwrap();
        assert_eq!(refunded.status(), pb::ReservationStatus::Refunded);
        assert!(refunded.order_id.starts_with("ord_"));
        let error = admin.refund_reservation(refund("held")).await.unwrap_err();
        assert_error(&error, Code::FailedPrecondition, "RESERVATION_NOT_CONFIRMED");
    });
}

#[test]
fn reservations_are_listed_in_pages_and_by_status() {
    with_admin(async |mut admin| {
        for event in ["evt", "half"] {
            admin.create_event(create(event, 10, 1)).await.unwrap();
        }
        let mut list = async |event_id: &str, status: pb::ReservationStatus| {
            let request = pb::ListReservationsRequest {
                event_id: event_id.to_owned(),
                status: status.into(),
            };
            let mut listing = admin.list_reservations(request).await?.into_inner();
            let mut pages = Vec::new();
            while let Some(page) = listing.message().await? {
                let ids = page.reservations.into_iter().map(|one| one.reservation_id);
                pages.push(ids.collect::<Vec<_>>());
            }
            Ok::<_, Status>(pages)
        };
        let all = list("evt", pb::ReservationStatus::Unspecified).await.unwrap();
        assert_eq!(all, [vec!["held", "confirmed"], vec!["refunded"]]);
        // An empty page keeps the stream alive.
        let some = list("evt", pb::ReservationStatus::Confirmed).await.unwrap();
        assert_eq!(some, [vec!["confirmed"], vec![]]);
        // An error within a listing ends the stream with that error.
        let error = list("half", pb::ReservationStatus::Held).await.unwrap_err();
        assert_error(&error, Code::Internal, "INTERNAL");
        let error = list("nowhere", pb::ReservationStatus::Held).await.unwrap_err();
        assert_error(&error, Code::NotFound, "EVENT_NOT_FOUND");
    });
}

#[test]
fn members_are_listed_with_the_answering_process_first() {
    with_admin(async |mut admin| {
        let answer = admin.list_members(pb::ListMembersRequest {}).await.unwrap().into_inner();
        assert_eq!(answer.source(), pb::MembershipSource::Store);
        assert_eq!((answer.own_share, answer.last_success_ms), (1.0, Some(1_250)));
        let [own, other] = &answer.members[..] else { panic!("{answer:?}") };
        assert_eq!(
            (own.state(), other.state()),
            (pb::MemberState::Self_, pb::MemberState::Forgotten)
        );
        assert_eq!((own.process_id.as_str(), own.shards), ("0000000000000002", 2));
        assert_eq!((own.version.as_str(), own.address.as_str()), ("1.2.3", "host-2:8080"));
        assert_eq!((own.started_at_ms, own.beat_at_ms), (1_704_110_400_000, 1_704_110_400_250));
        assert_eq!(
            (own.beat_age_ms, own.clock_ahead_ms, own.clock_error_ms),
            (Some(1_250), Some(-20), Some(80))
        );
        assert_eq!(other.clock_ahead_ms, None);
    });
}
