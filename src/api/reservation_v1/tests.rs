//! The mapping of every answer and every rejection, for each call of `reservation.v1`.
#![allow(clippy::unwrap_used)]

use inventory_proto::common::v1::{self as common, ErrorCode, SeatStatus};
use inventory_proto::reservation::v1::{CommitStatus, HoldStatus, ReleaseStatus};

use super::in_band_error::{code_of, error_of};
use super::{outcomes, queries};
use crate::api::rejection::{ErrorSubject, invalid_argument, reason, reason_of, status_of};
use crate::api::validate::{FieldViolations, INVENTORY_V1};
use crate::limits;
use crate::telemetry::code_name;
use inventory_core::answer::{Rejection, ReleaseOutcome, UnknownSection};
use inventory_core::ids::{OrderId, ReservationId, SeatId, Seats};
use inventory_core::operation::Selection;
use inventory_core::query::{EventStatus, QueryResult, SectionStatus, StockCounts};
use inventory_core::seats::{Price, SeatFacts, SeatItem, SeatState};
use inventory_core::time::{Micros, UnixMillis};
use inventory_grpc::Code;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const NOW: UnixMillis = UnixMillis(1_795_362_000_000);

fn ids(texts: &[&str]) -> Vec<SeatId> {
    texts.iter().map(|id| id.parse().unwrap()).collect()
}

/// One rejection of each kind. A new rejection does not compile without a place here.
fn every_rejection() -> Vec<Rejection> {
    let mut all = vec![Rejection::InsufficientInventory { remaining: 3 }];
    let retry_after = Micros(5);
    loop {
        all.push(match all.last().unwrap() {
            Rejection::InsufficientInventory { .. } => Rejection::EventNotFound,
            Rejection::EventNotFound => Rejection::EventClosed,
            Rejection::EventClosed => Rejection::SeatsUnavailable { seats: ids(&["A-1", "A-2"]) },
            Rejection::SeatsUnavailable { .. } => {
                Rejection::SeatsNotFound { seats: ids(&["Z-9"]), seated: true }
            }
            Rejection::SeatsNotFound { .. } => Rejection::SectionNotFound(Box::new(
                UnknownSection::among(["STALLS", "BALCONY"].into_iter(), "Stalls"),
            )),
            Rejection::SectionNotFound(_) => Rejection::TooManySeats { most: 99 },
            Rejection::TooManySeats { .. } => Rejection::IdempotencyConflict,
            Rejection::IdempotencyConflict => Rejection::PaymentConflict { order: order() },
            Rejection::PaymentConflict { .. } => Rejection::ReservationReleased,
            Rejection::ReservationReleased => Rejection::ReservationCommitted,
            Rejection::ReservationCommitted => Rejection::HoldExpired,
            Rejection::HoldExpired => Rejection::ReservationNotFound,
            Rejection::ReservationNotFound => Rejection::ReservationNotConfirmed,
            Rejection::ReservationNotConfirmed => Rejection::DeadlineExceeded,
            Rejection::DeadlineExceeded => Rejection::Overloaded { retry_after },
            Rejection::Overloaded { .. } => Rejection::StoreBusy { retry_after },
            Rejection::StoreBusy { .. } => Rejection::StoreUnavailable { retry_after },
            Rejection::StoreUnavailable { .. } => Rejection::OutcomeUnknown { retry_after },
            Rejection::OutcomeUnknown { .. } => Rejection::Internal,
            Rejection::Internal => return all,
        });
    }
}

fn order() -> OrderId {
    OrderId::of(&"r1".parse().unwrap())
}

/// A rejection in `reservation.v1`: its code and its status in each response, or the code of the gRPC error.
struct Row {
    reason: &'static str,
    expected: Result<(ErrorCode, HoldStatus, CommitStatus, ReleaseStatus), Code>,
}

#[rustfmt::skip]
fn table() -> Vec<Row> {
    use {CommitStatus as C, ErrorCode as E, HoldStatus as H, ReleaseStatus as R};
    let conflict = |reason, code| Row { reason, expected: Ok((code, H::Unspecified, C::FailedConflict, R::Failed)) };
    let row = |reason, code, hold, commit, release| Row { reason, expected: Ok((code, hold, commit, release)) };
    let wire = |reason, code| Row { reason, expected: Err(code) };
    vec![
        conflict(reason::INSUFFICIENT_INVENTORY, E::InsufficientInventory),
        row(reason::EVENT_NOT_FOUND, E::NotFound, H::Unspecified, C::FailedConflict, R::NotFound),
        conflict(reason::EVENT_CLOSED, E::FailedPrecondition),
        conflict(reason::SEAT_UNAVAILABLE, E::InventoryConflict),
        conflict(reason::SEAT_NOT_FOUND, E::NotFound),
        conflict(reason::SECTION_NOT_FOUND, E::NotFound),
        wire(reason::INVALID_ARGUMENT, Code::InvalidArgument),
        conflict(reason::IDEMPOTENCY_CONFLICT, E::IdempotencyConflict),
        conflict(reason::IDEMPOTENCY_CONFLICT, E::IdempotencyConflict),
        row(reason::RESERVATION_RELEASED, E::FailedPrecondition, H::Released, C::FailedConflict, R::Failed),
        row(reason::RESERVATION_COMMITTED, E::FailedPrecondition, H::Committed, C::FailedConflict, R::Failed),
        row(reason::HOLD_EXPIRED, E::ReservationExpired, H::Expired, C::FailedExpired, R::Failed),
        row(reason::RESERVATION_NOT_FOUND, E::NotFound, H::Unspecified, C::FailedConflict, R::NotFound),
        conflict(reason::RESERVATION_NOT_CONFIRMED, E::FailedPrecondition),
        wire(reason::DEADLINE_EXCEEDED, Code::DeadlineExceeded),
        wire(reason::OVERLOADED, Code::ResourceExhausted),
        wire(reason::STORE_BUSY, Code::Unavailable),
        wire(reason::STORE_UNAVAILABLE, Code::Unavailable),
        wire(reason::STORE_UNAVAILABLE, Code::Unavailable),
        wire(reason::INTERNAL, Code::Internal),
    ]
}

#[test]
fn every_rejection_is_mapped_as_in_the_table() {
    let (rejections, table) = (every_rejection(), table());
    assert_eq!(rejections.len(), table.len());
    for (rejection, row) in rejections.iter().zip(table) {
        assert_eq!(reason_of(rejection), row.reason);
        let hold = outcomes::not_held("r1".to_owned(), rejection, TRACE.to_owned());
        let commit = outcomes::not_confirmed(rejection, TRACE.to_owned());
        let release = outcomes::not_released(rejection, TRACE.to_owned());
        let check = queries::unavailable(&Selection::Quantity(1), rejection, TRACE.to_owned());
        let status = queries::no_status(rejection, TRACE.to_owned());
        let (code, held, committed, released) = match row.expected {
            Ok(statuses) => statuses,
            Err(code) => {
                let statuses = [
                    hold.unwrap_err(),
                    commit.unwrap_err(),
                    release.unwrap_err(),
                    check.unwrap_err(),
                    status.unwrap_err(),
                ];
                for status in statuses {
                    assert_eq!((status.code(), status.reason()), (code, row.reason));
                }
                continue;
            }
        };
        let hold = hold.unwrap();
        let commit = commit.unwrap();
        let release = release.unwrap();
        assert_eq!(hold.status(), held, "{rejection:?}");
        assert_eq!(commit.status(), committed, "{rejection:?}");
        assert_eq!(release.status(), released, "{rejection:?}");
        // The hold id is set only if the hold exists or existed.
        let named = if held == HoldStatus::Unspecified { "" } else { "r1" };
        assert_eq!(hold.hold_id, named);
        // The order id is set only if another payment has paid for it.
        let is_paid = matches!(rejection, Rejection::PaymentConflict { .. });
        let paid = if is_paid { order().to_text() } else { String::new() };
        assert_eq!((commit.order_id, commit.committed_at), (paid, None));
        assert!(hold.reserved_seats.is_empty() && hold.hold_expires_at.is_none());
        assert!(commit.sold_seats.is_empty() && release.released_seats.is_empty());
        let check = check.unwrap();
        assert!(!check.available && check.available_seats.is_empty());
        let errors = [hold.error, commit.error, release.error, check.error, status.unwrap().error];
        for error in errors {
            let error = error.unwrap();
            assert_eq!(error.code(), code, "{rejection:?}");
            assert_eq!(error.trace_id, TRACE);
            assert_ne!(error.message, "");
            assert!(!error.details.is_empty(), "{rejection:?}");
            for detail in error.details {
                assert_eq!(detail.reason, row.reason);
                assert_ne!(detail.field, "");
            }
        }
    }
}

#[test]
fn each_unavailable_seat_is_one_detail_and_so_is_the_remaining_quantity() {
    let taken = Rejection::SeatsUnavailable { seats: ids(&["A-1", "A-2"]) };
    let error = error_of(&taken, String::new());
    let details: Vec<_> = error
        .details
        .iter()
        .map(|d| (d.field.as_str(), d.reason.as_str(), d.value.as_str()))
        .collect();
    assert_eq!(
        details,
        [("seat_ids", "SEAT_UNAVAILABLE", "A-1"), ("seat_ids", "SEAT_UNAVAILABLE", "A-2")]
    );
    let few = error_of(&Rejection::InsufficientInventory { remaining: 3 }, String::new());
    assert_eq!(few.details.len(), 1);
    assert_eq!(few.details[0].field, "quantity");
    assert_eq!(few.details[0].value, "3");
}

#[test]
fn store_errors_are_never_in_band() {
    let business = every_rejection().iter().filter_map(code_of).count();
    assert_eq!(business, 13);
}

/// `docs/reference/statuses.md` has every rejection. With UPDATE_DOCS=1 the test rewrites the table.
#[test]
fn the_reference_lists_every_rejection() {
    const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/statuses.md");
    let mut table =
        "| reason | `inventory.v1` | `reservation.v1` | hold, commit, release | message |\n\
                     |---|---|---|---|---|\n"
            .to_owned();
    for rejection in every_rejection() {
        let status = status_of(&rejection, &ErrorSubject::default(), INVENTORY_V1);
        let code = code_name(status.code() as usize);
        let inside = match outcomes::not_held(String::new(), &rejection, String::new()) {
            Err(_) => "gRPC status | ".to_owned(),
            Ok(hold) => {
                let commit = outcomes::not_confirmed(&rejection, String::new()).unwrap();
                let release = outcomes::not_released(&rejection, String::new()).unwrap();
                format!(
                    "`{}` | `{}`, `{}`, `{}`",
                    hold.error.as_ref().unwrap().code().as_str_name(),
                    hold.status().as_str_name(),
                    commit.status().as_str_name(),
                    release.status().as_str_name()
                )
            }
        };
        let (reason, message) = (reason_of(&rejection), status.message());
        table += &format!("| `{reason}` | `{code}` | {inside} | {message} |\n");
    }
    inventory_testkit::documents::check_block(DOCUMENT.as_ref(), "rejections", &table);
}

// ---- Successes ---- -----------------------------------------------------------------------------

fn facts() -> SeatFacts {
    SeatFacts {
        section: "A".to_owned(),
        row: "12".to_owned(),
        number: "7".to_owned(),
        price: Some(Price { amount: 9_900, currency: "KRW".to_owned() }),
    }
}

fn seat(id: &str, state: SeatState) -> SeatItem {
    SeatItem { id: id.parse().unwrap(), facts: facts(), state }
}

fn held_until(until: UnixMillis) -> SeatState {
    SeatState::Hold { reservation: "r9".parse().unwrap(), until }
}

fn sold() -> SeatState {
    SeatState::Sold { reservation: "r9".parse().unwrap() }
}

#[test]
fn a_hold_response_has_id_seats_and_expiry() {
    let seats = vec![common::Seat::default()];
    let response = outcomes::held("r1".to_owned(), seats.clone(), NOW);
    assert_eq!(response.hold_id, "r1");
    assert_eq!(response.status(), HoldStatus::Active);
    assert_eq!(response.reserved_seats, seats);
    let at = response.hold_expires_at.unwrap();
    assert_eq!((at.seconds, at.nanos), (1_795_362_000, 0));
    assert_eq!(response.error, None);
}

#[test]
fn a_commit_response_has_order_seats_and_time() {
    let order = OrderId::of(&"r1".parse::<ReservationId>().unwrap());
    let response = outcomes::confirmed(order, vec![common::Seat::default()], NOW);
    assert_eq!(response.order_id, order.to_string());
    assert_eq!(response.status(), CommitStatus::Success);
    assert_eq!(response.sold_seats.len(), 1);
    assert_eq!(response.committed_at.unwrap().seconds, 1_795_362_000);
    assert_eq!(response.error, None);
}

#[test]
fn a_release_response_lists_only_the_seats_that_it_returned() {
    let had: Seats = ids(&["A-1"]).into();
    for (how, status, lists, has_time) in [
        (ReleaseOutcome::Released, ReleaseStatus::Success, true, true),
        (ReleaseOutcome::AlreadyReleased, ReleaseStatus::AlreadyReleased, false, true),
        (ReleaseOutcome::NoReservation, ReleaseStatus::NotFound, false, false),
    ] {
        assert_eq!(outcomes::returned_seats(how, Some(&had)).is_some(), lists);
        let response = outcomes::released(how, Vec::new(), NOW);
        assert_eq!(response.status(), status);
        assert_eq!(response.released_at.is_some(), has_time);
        assert_eq!(response.error, None, "none of these releases is an error");
    }
}

#[test]
fn a_seat_has_its_details_and_the_state_of_the_response() {
    let response = crate::api::convert::seat(seat("A-1", sold()), SeatStatus::Reserved);
    assert_eq!(response.id, "A-1");
    assert_eq!(
        (response.section.as_str(), response.row.as_str(), response.number.as_str()),
        ("A", "12", "7")
    );
    assert_eq!(response.status(), SeatStatus::Reserved);
    let price = response.price.unwrap();
    assert_eq!((price.amount, price.currency.as_str()), (9_900, "KRW"));
    let bare = crate::api::convert::bare_seat(&"A-2".parse().unwrap(), SeatStatus::Sold);
    assert_eq!((bare.id.as_str(), bare.status()), ("A-2", SeatStatus::Sold));
    assert_eq!(bare.price, None);
}

// ---- Queries ----------------------------------------------------------------------------------

#[test]
fn a_quantity_event_reports_the_remaining_quantity_and_no_seats() {
    for (available, remaining) in [(true, 5), (false, 1)] {
        let found = QueryResult::Units { remaining, available };
        let response = queries::availability(&Selection::Quantity(2), found, NOW).unwrap();
        assert_eq!(response.available, available);
        assert_eq!(response.remaining_in_section, remaining as i32);
        assert!(response.available_seats.is_empty() && response.unavailable_seat_ids.is_empty());
        assert_eq!(response.error, None);
    }
}

#[test]
fn offer_has_the_requested_number_of_seats_or_none() {
    let offer = |count: usize| {
        let seats = ["A-1", "A-2", "A-3"][..count].iter();
        let found = QueryResult::Offer {
            seats: seats.map(|id| seat(id, SeatState::Available)).collect(),
            remaining: 40,
        };
        queries::availability(&Selection::Quantity(2), found, NOW).unwrap()
    };
    for wrong in [0, 1, 3] {
        let response = offer(wrong);
        assert!(!response.available && response.available_seats.is_empty());
        assert_eq!(response.remaining_in_section, 40);
    }
    let response = offer(2);
    assert!(response.available);
    let shown: Vec<_> = response.available_seats.iter().map(|s| &s.id[..]).collect();
    assert_eq!(shown, ["A-1", "A-2"]);
    let state = |s: &common::Seat| s.status() == SeatStatus::Available && s.section == "A";
    assert!(response.available_seats.iter().all(state));
}

#[test]
fn each_requested_seat_is_either_available_or_unavailable() {
    let all = ["A-1", "A-2", "A-3", "A-4", "A-5", "Z-9"];
    let asked = Selection::Seats(ids(&all).into());
    let found = QueryResult::Seats {
        known: vec![
            seat("A-1", SeatState::Available),
            seat("A-2", sold()),
            seat("A-3", held_until(UnixMillis(NOW.0 + 1))),
            // Expired: available.
            seat("A-4", held_until(NOW)),
            seat("A-5", SeatState::Blocked),
        ],
        unknown: ids(&["Z-9"]),
    };
    let response = queries::availability(&asked, found, NOW).unwrap();
    assert!(!response.available);
    let free: Vec<_> = response.available_seats.iter().map(|s| &s.id[..]).collect();
    assert_eq!(free, ["A-1", "A-4"]);
    assert_eq!(response.unavailable_seat_ids, ["A-2", "A-3", "A-5", "Z-9"]);
    assert_eq!(response.error, None);

    let asked = Selection::Seats(ids(&["A-1"]).into());
    let found =
        QueryResult::Seats { known: vec![seat("A-1", SeatState::Available)], unknown: Vec::new() };
    let response = queries::availability(&asked, found, NOW).unwrap();
    assert!(response.available && response.unavailable_seat_ids.is_empty());
}

#[test]
fn a_result_of_another_query_is_an_internal_error() {
    let offer = QueryResult::Offer { seats: Vec::new(), remaining: 0 };
    let asked = Selection::Seats(ids(&["A-1"]).into());
    let status = queries::availability(&asked, offer.clone(), NOW).unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    let event = "evt".parse().unwrap();
    let status = queries::status(event, String::new(), None, offer, String::new());
    assert_eq!(status.unwrap_err().code(), Code::Internal);
}

fn counts(total: u64, available: u64, held: u64, sold: u64, blocked: u64) -> StockCounts {
    StockCounts { total, available, held, sold, blocked }
}

fn seated() -> QueryResult {
    let price = |amount| Price { amount, currency: "KRW".to_owned() };
    QueryResult::Status(Box::new(EventStatus {
        counts: counts(8, 2, 1, 4, 1),
        sections: vec![
            SectionStatus {
                section: "A".to_owned(),
                counts: counts(6, 1, 1, 3, 1),
                prices: vec![(price(100), price(900))],
            },
            SectionStatus {
                section: "B".to_owned(),
                counts: counts(2, 1, 0, 1, 0),
                prices: Vec::new(),
            },
        ],
        as_of: NOW,
        seated: true,
        closed: false,
    }))
}

#[test]
fn status_has_the_event_its_sections_and_their_sum() {
    let event = || "evt".parse().unwrap();
    let response =
        queries::status(event(), "Final".to_owned(), None, seated(), String::new()).unwrap();
    let shown = response.event.unwrap();
    assert_eq!((shown.id.as_str(), shown.name.as_str()), ("evt", "Final"));
    assert_eq!((shown.total_seats, shown.remaining_seats), (8, 2));
    let stats = response.stats.unwrap();
    assert_eq!((stats.total_seats, stats.available_seats), (8, 2));
    assert_eq!((stats.reserved_seats, stats.sold_seats), (1, 4));
    assert_eq!(stats.blocked_seats, 1);
    assert!((stats.availability_percentage - 25.0).abs() < 1e-6);
    assert_eq!(stats.last_updated.unwrap().seconds, 1_795_362_000);
    assert_eq!(response.sections.len(), 2);
    let a = &response.sections[0];
    assert_eq!((a.section_id.as_str(), a.section_name.as_str()), ("A", "A"));
    assert_eq!((a.total_seats, a.available_seats), (6, 1));
    assert_eq!((a.reserved_seats, a.sold_seats, a.blocked_seats), (1, 3, 1));
    assert_eq!(a.min_price.as_ref().unwrap().amount, 100);
    assert_eq!(a.max_price.as_ref().unwrap().amount, 900);
    assert_eq!(response.sections[1].min_price, None);
    assert_eq!(response.error, None);
}

#[test]
fn status_of_one_section_keeps_the_totals_of_the_event() {
    let event = || "evt".parse().unwrap();
    let response =
        queries::status(event(), String::new(), Some("B"), seated(), String::new()).unwrap();
    assert_eq!(response.event.unwrap().total_seats, 8);
    assert_eq!(response.sections.len(), 1);
    assert_eq!(response.sections[0].section_id, "B");
    let stats = response.stats.unwrap();
    assert_eq!((stats.total_seats, stats.available_seats), (2, 1));
    assert!((stats.availability_percentage - 50.0).abs() < 1e-6);

    let none = queries::status(event(), String::new(), Some("X"), seated(), TRACE.to_owned());
    let error = none.as_ref().unwrap().error.as_ref().unwrap();
    assert_eq!(error.code(), ErrorCode::NotFound);
    assert_eq!(error.details[0].field, "section");
    assert_eq!(error.details[0].value, "X");
    assert!(none.unwrap().stats.is_none());
}

#[test]
fn an_empty_event_is_none_percent_available() {
    let found = QueryResult::Status(Box::default());
    let event = "evt".parse().unwrap();
    let response = queries::status(event, String::new(), None, found, String::new()).unwrap();
    assert!(response.stats.unwrap().availability_percentage.abs() < 1e-9);
}

#[test]
fn an_error_about_many_seats_fits_into_the_trailers() {
    let seats: Vec<SeatId> = (0..99).map(|n| format!("{n:0>128}").parse().unwrap()).collect();
    for rejection in [
        Rejection::SeatsUnavailable { seats: seats.clone() },
        Rejection::SeatsNotFound { seats: seats.clone(), seated: false },
    ] {
        let status = status_of(&rejection, &ErrorSubject::default(), INVENTORY_V1);
        assert!(status.message().len() < limits::ERROR_TEXT_BYTES_MAX + 200, "{status:?}");
        assert!(status.message().ends_with(" and 88 more"), "{}", status.message());
    }
    let mut violations = FieldViolations::of(INVENTORY_V1);
    let wrong = (0..99).map(|n| format!("A {n}")).collect();
    assert_eq!(violations.selection(1, wrong, 99), None);
    let status = invalid_argument(violations, &ErrorSubject::default());
    assert!(status.message().len() < limits::ERROR_TEXT_BYTES_MAX + 200, "{status:?}");
    assert!(status.message().ends_with(" more"), "{}", status.message());
    // Ten seats, which every server accepts, are always listed.
    let rejection = Rejection::SeatsUnavailable { seats: seats[..10].to_vec() };
    let status = status_of(&rejection, &ErrorSubject::default(), INVENTORY_V1);
    assert!(!status.message().contains("more"), "{}", status.message());
}
