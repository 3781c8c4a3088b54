//! Contract B as the Reservation API meets it: a stock client, a real server, a real engine. What
//! each refusal looks like is the unit tests' business; here is that the whole way works, on events
//! of a quantity and of seats.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use inventory_proto::common::v1::{ErrorCode, Seat, SeatStatus};
use inventory_proto::inventory::v1::{GetReservationReq, GetReservationRes, PlaceHoldReq};
use inventory_proto::reservation::v1::inventory_service_client::InventoryServiceClient;
use inventory_proto::reservation::v1::*;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::client::{
    Calls, Figures, assert_refused, client, commit, create, patient, release, seats as refs, stock,
};
use crate::items::{Place, row, seat_event};
use crate::server::{Launch, PATIENCE, Server};
use crate::stage::Stage;

const EVENT: &str = "evt_api";
const HALL: &str = "evt_hall";

// ---- The client ---------------------------------------------------------------------------------

/// One connection of contract B. Each call must end without a gRPC error unless it says otherwise.
#[derive(Clone)]
struct Api(InventoryServiceClient<Channel>);

impl Api {
    async fn of(server: &Server) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
        Self(InventoryServiceClient::new(
            endpoint.connect().await.unwrap(),
        ))
    }

    async fn check(&self, call: CheckAvailabilityRequest) -> CheckAvailabilityResponse {
        ok(self.0.clone().check_availability(patient(call)).await)
    }

    async fn hold(&self, call: ReserveSeatRequest) -> ReserveSeatResponse {
        ok(self.try_hold(call).await)
    }

    async fn try_hold(
        &self,
        call: ReserveSeatRequest,
    ) -> Result<Response<ReserveSeatResponse>, Status> {
        self.0.clone().reserve_seat(patient(call)).await
    }

    async fn commit(&self, call: CommitReservationRequest) -> CommitReservationResponse {
        ok(self.0.clone().commit_reservation(patient(call)).await)
    }

    async fn release(&self, call: ReleaseHoldRequest) -> ReleaseHoldResponse {
        ok(self.0.clone().release_hold(patient(call)).await)
    }

    async fn status(&self, event: &str, section: &str) -> GetInventoryStatusResponse {
        let call = GetInventoryStatusRequest {
            event_id: event.to_owned(),
            section: section.to_owned(),
        };
        ok(self.0.clone().get_inventory_status(patient(call)).await)
    }
}

#[track_caller]
fn ok<T>(answer: Result<Response<T>, Status>) -> T {
    answer
        .unwrap_or_else(|status| panic!("a gRPC error: {status:?}"))
        .into_inner()
}

fn check(event: &str, quantity: i32) -> CheckAvailabilityRequest {
    CheckAvailabilityRequest {
        event_id: event.to_owned(),
        quantity,
        ..CheckAvailabilityRequest::default()
    }
}

/// As the client sends it: without a key, with both seats and their number when it has seats.
fn hold(id: &str, event: &str, quantity: i32, seat_ids: &[String]) -> ReserveSeatRequest {
    ReserveSeatRequest {
        reservation_id: id.to_owned(),
        event_id: event.to_owned(),
        seat_ids: seat_ids.to_vec(),
        quantity,
        user_id: "user-1".to_owned(),
        hold_expires_at: Some((SystemTime::now() + Duration::from_secs(60)).into()),
        idempotency_key: String::new(),
    }
}

fn sell(id: &str, event: &str, quantity: i32, seat_ids: &[String]) -> CommitReservationRequest {
    CommitReservationRequest {
        reservation_id: id.to_owned(),
        event_id: event.to_owned(),
        seat_ids: seat_ids.to_vec(),
        quantity,
        payment_intent_id: "pi_1".to_owned(),
        user_id: "user-1".to_owned(),
        idempotency_key: String::new(),
    }
}

/// As the worker sends it: only what identifies the reservation.
fn give_up(id: &str, event: &str) -> ReleaseHoldRequest {
    ReleaseHoldRequest {
        reservation_id: id.to_owned(),
        event_id: event.to_owned(),
        ..ReleaseHoldRequest::default()
    }
}

fn ids(seats: &[Seat]) -> Vec<String> {
    seats.iter().map(|seat| seat.id.clone()).collect()
}

/// Two sections: A with two rows of five, B with one of four.
fn hall() -> Vec<Place> {
    let rows = [
        row("A", "1", 5, 9_900),
        row("A", "2", 5, 8_800),
        row("B", "1", 4, 5_000),
    ];
    rows.concat()
}

/// A server, an event of ten units and a hall of fourteen seats over three partition keys.
async fn selling() -> (Stage, Server, Api) {
    selling_as(|launch| launch).await
}

async fn selling_as(change: impl FnOnce(Launch) -> Launch) -> (Stage, Server, Api) {
    let stage = Stage::new();
    seat_event(stage.engine.address(), HALL, 3, &hall());
    let server = change(stage.launch()).start();
    create(&server, EVENT, 10, 1).await;
    let api = Api::of(&server).await;
    (stage, server, api)
}

/// Every seat of an answer has its facts and this state.
#[track_caller]
fn assert_described(seats: &[Seat], status: SeatStatus) {
    for seat in seats {
        assert_eq!(seat.status(), status, "{seat:?}");
        let place = hall().into_iter().find(|place| place.id == seat.id);
        let place = place.unwrap_or_else(|| panic!("no such seat: {seat:?}"));
        assert_eq!(
            (&seat.section[..], &seat.row[..]),
            (place.section, place.row)
        );
        assert_eq!(seat.number, place.number.to_string());
        let price = seat.price.as_ref().unwrap();
        assert_eq!((price.amount, &price.currency[..]), (place.price, "KRW"));
    }
}

// ---- The client's sequences ---------------------------------------------------------------------

#[tokio::test]
async fn create_and_confirm_an_event_of_a_quantity() {
    let (_stage, server, api) = selling().await;
    let found = api.check(check(EVENT, 2)).await;
    assert!(found.available && found.available_seats.is_empty());
    assert_eq!(found.remaining_in_section, 10);
    let call = hold("r1", EVENT, 2, &[]);
    let held = api.hold(call.clone()).await;
    assert_eq!(
        (held.status(), held.hold_id.as_str()),
        (HoldStatus::Active, "r1")
    );
    assert!(held.reserved_seats.is_empty() && held.error.is_none());
    let wished = call.hold_expires_at.unwrap();
    let got = held.hold_expires_at.unwrap();
    assert_eq!(got.seconds, wished.seconds);
    assert_eq!(stock(&server, EVENT).await.remaining, 8);
    let sold = api.commit(sell("r1", EVENT, 2, &[])).await;
    assert_eq!(sold.status(), CommitStatus::Success, "{sold:?}");
    assert!(sold.order_id.starts_with("ord_") && sold.committed_at.is_some());
    // A repeat is the same order, and the stock moved once.
    assert_eq!(api.commit(sell("r1", EVENT, 2, &[])).await, sold);
    assert_eq!(stock(&server, EVENT).await.remaining, 8);
}

#[tokio::test]
async fn create_and_confirm_with_exactly_the_seats_that_were_offered() {
    let (_stage, _server, api) = selling().await;
    let found = api.check(check(HALL, 3)).await;
    assert!(found.available, "{found:?}");
    assert_eq!(found.available_seats.len(), 3);
    assert_eq!(found.remaining_in_section, 14);
    assert_described(&found.available_seats, SeatStatus::Available);
    let offered = ids(&found.available_seats);
    let held = api.hold(hold("r1", HALL, 3, &offered)).await;
    assert_eq!(held.status(), HoldStatus::Active, "{held:?}");
    assert_eq!(ids(&held.reserved_seats), offered);
    assert_described(&held.reserved_seats, SeatStatus::Reserved);
    // Nobody else is offered them.
    for _ in 0..20 {
        let other = api.check(check(HALL, 3)).await;
        let other = ids(&other.available_seats);
        assert!(other.iter().all(|id| !offered.contains(id)), "{other:?}");
    }
    let sold = api.commit(sell("r1", HALL, 3, &offered)).await;
    assert_eq!(sold.status(), CommitStatus::Success, "{sold:?}");
    assert_eq!(ids(&sold.sold_seats), offered);
    assert_described(&sold.sold_seats, SeatStatus::Sold);
}

#[tokio::test]
async fn create_and_cancel_gives_everything_back_once() {
    let (_stage, server, api) = selling().await;
    api.hold(hold("r1", EVENT, 4, &[])).await;
    let seats = ["A-1-1".to_owned(), "A-1-2".to_owned()];
    api.hold(hold("r2", HALL, 2, &seats)).await;
    for (id, event, had) in [("r1", EVENT, 0), ("r2", HALL, 2)] {
        let cancel = ReleaseHoldRequest {
            reason: "CANCELLED".to_owned(),
            ..give_up(id, event)
        };
        let first = api.release(cancel.clone()).await;
        assert_eq!(first.status(), ReleaseStatus::Success, "{first:?}");
        assert_eq!(first.released_seats.len(), had);
        assert_described(&first.released_seats, SeatStatus::Available);
        assert!(first.released_at.is_some());
        // The worker's five, duplicated.
        for _ in 0..5 {
            let again = api.release(cancel.clone()).await;
            assert_eq!(again.status(), ReleaseStatus::AlreadyReleased);
            assert!(again.released_seats.is_empty() && again.error.is_none());
            assert_eq!(again.released_at, first.released_at);
        }
    }
    assert_eq!(stock(&server, EVENT).await.remaining, 10);
    let stats = api.status(HALL, "").await.stats.unwrap();
    assert_eq!((stats.available_seats, stats.reserved_seats), (14, 0));
}

#[tokio::test]
async fn cancel_after_confirm_is_refused_inside_the_response_and_nothing_is_unsold() {
    let (_stage, server, api) = selling().await;
    let seat = ["B-1-1".to_owned()];
    api.commit(sell("r1", EVENT, 2, &[])).await;
    api.commit(sell("r2", HALL, 1, &seat)).await;
    for (id, event) in [("r1", EVENT), ("r2", HALL)] {
        let refused = api.release(give_up(id, event)).await;
        assert_eq!(refused.status(), ReleaseStatus::Failed);
        let error = refused.error.unwrap();
        assert_eq!(error.code(), ErrorCode::FailedPrecondition);
        assert_eq!(error.details[0].reason, "RESERVATION_COMMITTED");
    }
    assert_eq!(stock(&server, EVENT).await.remaining, 8);
    let asked = CheckAvailabilityRequest {
        seat_ids: seat.to_vec(),
        ..check(HALL, 0)
    };
    let found = api.check(asked).await;
    assert!(!found.available);
    assert_eq!(found.unavailable_seat_ids, ["B-1-1"]);
}

#[tokio::test]
async fn a_release_that_overtook_its_hold_leaves_nothing_to_leak() {
    let (_stage, server, api) = selling().await;
    for (id, event, seats) in [
        ("r1", EVENT, Vec::new()),
        ("r2", HALL, vec!["A-1-1".to_owned()]),
    ] {
        let nothing = api.release(give_up(id, event)).await;
        assert_eq!(nothing.status(), ReleaseStatus::NotFound, "{nothing:?}");
        assert_eq!(nothing.error, None);
        let late = api.hold(hold(id, event, 1, &seats)).await;
        assert_eq!(late.status(), HoldStatus::Released, "{late:?}");
        assert_eq!(late.error.unwrap().code(), ErrorCode::FailedPrecondition);
        let later = api.commit(sell(id, event, 1, &seats)).await;
        assert_eq!(later.status(), CommitStatus::FailedConflict);
    }
    assert_eq!(stock(&server, EVENT).await.remaining, 10);
    let stats = api.status(HALL, "").await.stats.unwrap();
    assert_eq!(stats.available_seats, 14);
}

// ---- Time ---------------------------------------------------------------------------------------

/// Holds for a moment, and waits until that is over by the clock that all share here.
async fn hold_and_outlive(api: &Api, mut call: ReserveSeatRequest) {
    let until = SystemTime::now() + Duration::from_millis(700);
    call.hold_expires_at = Some(until.into());
    let held = api.hold(call).await;
    assert_eq!(held.status(), HoldStatus::Active, "{held:?}");
    while SystemTime::now() <= until + Duration::from_millis(1) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_late_commit_is_sold_while_its_stock_is_there() {
    let (_stage, server, api) = selling().await;
    let seat = ["A-1-3".to_owned()];
    hold_and_outlive(&api, hold("r1", EVENT, 3, &[])).await;
    hold_and_outlive(&api, hold("r2", HALL, 1, &seat)).await;
    for (id, event, qty, seats) in [("r1", EVENT, 3, &[][..]), ("r2", HALL, 1, &seat[..])] {
        let again = api.hold(hold(id, event, qty, seats)).await;
        assert_eq!(again.status(), HoldStatus::Expired, "{again:?}");
        let error = again.error.unwrap();
        assert_eq!(error.code(), ErrorCode::ReservationExpired);
        let sold = api.commit(sell(id, event, qty, seats)).await;
        assert_eq!(sold.status(), CommitStatus::Success, "{sold:?}");
    }
    assert_eq!(stock(&server, EVENT).await.remaining, 7);
}

#[tokio::test]
async fn a_late_commit_fails_as_expired_once_others_have_its_stock() {
    let (_stage, _server, api) = selling().await;
    let seat = ["A-1-3".to_owned()];
    hold_and_outlive(&api, hold("r1", EVENT, 3, &[])).await;
    hold_and_outlive(&api, hold("r2", HALL, 1, &seat)).await;
    // From its end on a hold counts for nothing, whether or not it has been cleared away.
    let deadline = Instant::now() + PATIENCE;
    let mut taken = 0;
    while taken < 10 {
        let id = format!("other-{taken}");
        let sold = api.commit(sell(&id, EVENT, 1, &[])).await;
        match sold.status() {
            CommitStatus::Success => taken += 1,
            _ => assert!(Instant::now() < deadline, "never free: {sold:?}"),
        }
    }
    let sold = api.commit(sell("other", HALL, 1, &seat)).await;
    assert_eq!(sold.status(), CommitStatus::Success, "{sold:?}");
    for (id, event, qty, seats) in [("r1", EVENT, 3, &[][..]), ("r2", HALL, 1, &seat[..])] {
        let late = api.commit(sell(id, event, qty, seats)).await;
        assert_eq!(late.status(), CommitStatus::FailedExpired, "{late:?}");
        assert_eq!(late.error.unwrap().code(), ErrorCode::ReservationExpired);
    }
}

#[tokio::test]
async fn an_operator_can_have_late_commits_rejected() {
    let (_stage, _server, api) = selling_as(|launch| launch.env("LATE_COMMIT", "reject")).await;
    let seat = ["A-1-3".to_owned()];
    hold_and_outlive(&api, hold("r1", EVENT, 3, &[])).await;
    hold_and_outlive(&api, hold("r2", HALL, 1, &seat)).await;
    for (id, event, qty, seats) in [("r1", EVENT, 3, &[][..]), ("r2", HALL, 1, &seat[..])] {
        let late = api.commit(sell(id, event, qty, seats)).await;
        assert_eq!(late.status(), CommitStatus::FailedExpired, "{late:?}");
    }
}

fn seconds_ahead(at: Option<prost_types::Timestamp>) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    at.unwrap().seconds - now.as_secs() as i64
}

#[tokio::test]
async fn a_hold_lasts_as_long_as_wished_for_or_usual_and_no_longer_than_allowed() {
    let (_stage, _server, api) =
        selling_as(|launch| launch.env("HOLD_TTL", "100s").env("HOLD_TTL_MAX", "200s")).await;
    let wish = |id: &str, ahead: Option<u64>| ReserveSeatRequest {
        hold_expires_at: ahead.map(|s| (SystemTime::now() + Duration::from_secs(s)).into()),
        ..hold(id, EVENT, 1, &[])
    };
    for (id, ahead, wanted) in [
        ("r1", None, 100),
        ("r2", Some(150), 150),
        ("r3", Some(100_000), 200),
    ] {
        let held = api.hold(wish(id, ahead)).await;
        let got = seconds_ahead(held.hold_expires_at);
        assert!((wanted - 5..=wanted).contains(&got), "{id}: {got}");
        // A repeat never extends, whatever it wishes for.
        let again = api.hold(wish(id, Some(190))).await;
        assert_eq!(again, held);
    }
    let past = ReserveSeatRequest {
        hold_expires_at: Some((SystemTime::now() - Duration::from_secs(1)).into()),
        ..hold("r4", EVENT, 1, &[])
    };
    let status = api.try_hold(past).await.unwrap_err();
    assert_eq!(fields(&status), ["hold_expires_at"]);
}

// ---- Business outcomes are no gRPC errors ---------------------------------------------------------

#[tokio::test]
async fn business_outcomes_are_ok_responses_and_the_breaker_stays_closed() {
    let (_stage, server, api) = selling().await;
    let seat = ["A-2-1".to_owned(), "A-2-2".to_owned()];
    api.hold(hold("held", HALL, 2, &seat)).await;
    let error = |of: ReserveSeatResponse| {
        assert_eq!(of.status(), HoldStatus::Unspecified, "{of:?}");
        assert!(of.hold_id.is_empty() && of.reserved_seats.is_empty());
        let error = of.error.unwrap();
        let values: Vec<String> = error.details.iter().map(|d| d.value.clone()).collect();
        (error.code(), values)
    };
    // Sold out: what is left is told.
    api.hold(hold("most", EVENT, 9, &[])).await;
    let few = error(api.hold(hold("r1", EVENT, 2, &[])).await);
    assert_eq!(
        few,
        (ErrorCode::InsufficientInventory, vec!["1".to_owned()])
    );
    // A taken seat is named, and takes nothing else with it.
    let mixed = ["A-2-3".to_owned(), "A-2-2".to_owned()];
    let taken = error(api.hold(hold("r2", HALL, 2, &mixed)).await);
    assert_eq!(
        taken,
        (ErrorCode::InventoryConflict, vec!["A-2-2".to_owned()])
    );
    let free = ["A-2-3".to_owned()];
    let held = api.hold(hold("r3", HALL, 1, &free)).await;
    assert_eq!(held.status(), HoldStatus::Active);
    // An unknown seat and an unknown event.
    let nowhere = ["Z-1".to_owned()];
    let unknown = error(api.hold(hold("r4", HALL, 1, &nowhere)).await);
    assert_eq!(unknown, (ErrorCode::NotFound, vec!["Z-1".to_owned()]));
    let unknown = error(api.hold(hold("r5", "evt_nowhere", 1, &[])).await);
    assert_eq!(unknown.0, ErrorCode::NotFound);
    let unknown = api.check(check("evt_nowhere", 1)).await;
    assert_eq!(unknown.error.unwrap().code(), ErrorCode::NotFound);
    let unknown = api.status("evt_nowhere", "").await;
    assert_eq!(unknown.error.unwrap().code(), ErrorCode::NotFound);
    let unknown = api.commit(sell("r5", "evt_nowhere", 1, &[])).await;
    assert_eq!(unknown.error.unwrap().code(), ErrorCode::NotFound);
    let unknown = api.release(give_up("r5", "evt_nowhere")).await;
    assert_eq!(unknown.status(), ReleaseStatus::NotFound);
    assert_eq!(unknown.error.unwrap().code(), ErrorCode::NotFound);
    // Another payload under the same id.
    let other = error(api.hold(hold("most", EVENT, 3, &[])).await);
    assert_eq!(other.0, ErrorCode::IdempotencyConflict);
    let other = api.commit(sell("held", HALL, 1, &free)).await;
    assert_eq!(other.status(), CommitStatus::FailedConflict);
    assert_eq!(other.error.unwrap().code(), ErrorCode::IdempotencyConflict);
    // What the breaker sees.
    let figures = Figures::of(&server).await;
    for method in [
        "CheckAvailability",
        "ReserveSeat",
        "CommitReservation",
        "ReleaseHold",
        "GetInventoryStatus",
    ] {
        let path = format!("/reservation.v1.InventoryService/{method}");
        let ok = format!(r#"grpc_requests_total{{method="{path}",status="OK"}}"#);
        let all = format!(r#"grpc_request_duration_seconds_count{{method="{path}"}}"#);
        assert!(figures.get(&ok) > 0.0, "{method}");
        assert_eq!(figures.get(&ok), figures.get(&all), "{method}");
    }
    for (figure, wanted) in [
        (r#"{inventory_type="quantity",status="HELD"}"#, 1.0),
        (r#"{inventory_type="seat",status="HELD"}"#, 2.0),
        (r#"{inventory_type="seat",status="SEAT_UNAVAILABLE"}"#, 1.0),
        (
            r#"{inventory_type="quantity",status="INSUFFICIENT_INVENTORY"}"#,
            1.0,
        ),
    ] {
        let name = format!("inventory_place_holds_total{figure}");
        assert_eq!(figures.get(&name), wanted, "{name}");
    }
}

#[tokio::test]
async fn an_error_carries_the_trace_of_its_call() {
    let (_stage, _server, api) = selling().await;
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut call = patient(give_up("r1", "evt_nowhere"));
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    call.metadata_mut()
        .insert("traceparent", parent.parse().unwrap());
    let answer = ok(api.0.clone().release_hold(call).await);
    assert_eq!(answer.error.unwrap().trace_id, TRACE);
}

// ---- Bad arguments are gRPC errors ----------------------------------------------------------------

#[track_caller]
fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let bad = status.get_details_bad_request().unwrap();
    let fields = bad.field_violations.into_iter();
    fields.map(|violation| violation.field).collect()
}

#[tokio::test]
async fn every_bad_argument_names_its_field_as_this_contract_spells_it() {
    let (_stage, server, api) = selling().await;
    let long = || "x".repeat(257);
    let many: Vec<String> = (0..11).map(|n| format!("A-{n}")).collect();
    let twice = ["A-1".to_owned(), "A-1".to_owned()];
    let good = || hold("r1", EVENT, 1, &[]);
    let holds: Vec<(ReserveSeatRequest, &[&str])> = vec![
        (hold("", EVENT, 1, &[]), &["reservation_id"]),
        (hold("r1", "a b", 1, &[]), &["event_id"]),
        (hold("r1", EVENT, 0, &[]), &["quantity"]),
        (hold("r1", EVENT, -5, &[]), &["quantity"]),
        (hold("r1", EVENT, 11, &[]), &["quantity"]),
        (hold("r1", EVENT, 1, &many), &["seat_ids"]),
        (hold("r1", EVENT, 1, &twice), &["seat_ids"]),
        (hold("r1", EVENT, 1, &["".to_owned()]), &["seat_ids"]),
        (
            ReserveSeatRequest {
                user_id: long(),
                ..good()
            },
            &["user_id"],
        ),
        (
            ReserveSeatRequest {
                idempotency_key: long(),
                ..good()
            },
            &["idempotency_key"],
        ),
        (
            ReserveSeatRequest {
                hold_expires_at: Some(prost_types::Timestamp {
                    seconds: 4_000_000_000,
                    nanos: -1,
                }),
                ..good()
            },
            &["hold_expires_at"],
        ),
        (
            hold("", "", 0, &[]),
            &["quantity", "event_id", "reservation_id"],
        ),
    ];
    for (call, wanted) in holds {
        let status = api.try_hold(call.clone()).await.unwrap_err();
        assert_eq!(fields(&status), wanted, "{call:?}");
    }
    let mut raw = api.0.clone();
    for (call, wanted) in [
        (sell("r1", EVENT, -1, &[]), "quantity"),
        (sell("r1", EVENT, 11, &[]), "quantity"),
        (
            CommitReservationRequest {
                payment_intent_id: long(),
                ..sell("r1", EVENT, 1, &[])
            },
            "payment_intent_id",
        ),
    ] {
        let status = raw.commit_reservation(patient(call)).await.unwrap_err();
        assert_eq!(fields(&status), [wanted]);
    }
    for (call, wanted) in [
        (
            ReleaseHoldRequest {
                quantity: -1,
                ..give_up("r1", EVENT)
            },
            "quantity",
        ),
        (
            ReleaseHoldRequest {
                reason: long(),
                ..give_up("r1", EVENT)
            },
            "reason",
        ),
    ] {
        let status = raw.release_hold(patient(call)).await.unwrap_err();
        assert_eq!(fields(&status), [wanted]);
    }
    for (call, wanted) in [
        (check(EVENT, 0), "quantity"),
        (check("", 1), "event_id"),
        (
            CheckAvailabilityRequest {
                section: long(),
                ..check(EVENT, 1)
            },
            "section",
        ),
    ] {
        let status = raw.check_availability(patient(call)).await.unwrap_err();
        assert_eq!(fields(&status), [wanted]);
    }
    let status = raw
        .get_inventory_status(patient(GetInventoryStatusRequest::default()))
        .await
        .unwrap_err();
    assert_eq!(fields(&status), ["event_id"]);
    assert_eq!(stock(&server, EVENT).await.stripes[0].version, 0);
}

#[tokio::test]
async fn another_idempotency_key_is_taken_and_the_reservation_counts() {
    let (_stage, server, api) = selling().await;
    let keyed = |key: &str| ReserveSeatRequest {
        idempotency_key: key.to_owned(),
        ..hold("r1", EVENT, 2, &[])
    };
    let first = api.hold(keyed("key-1")).await;
    assert_eq!(first.status(), HoldStatus::Active);
    assert_eq!(api.hold(keyed("key-2")).await, first);
    assert_eq!(stock(&server, EVENT).await.remaining, 8);
}

// ---- Status ---------------------------------------------------------------------------------------

#[tokio::test]
async fn the_status_counts_every_seat_once() {
    let (_stage, _server, api) = selling().await;
    let a = ["A-1-1".to_owned(), "A-1-2".to_owned()];
    api.hold(hold("r1", HALL, 2, &a)).await;
    api.commit(sell("r2", HALL, 1, &["B-1-4".to_owned()])).await;
    let told = api.status(HALL, "").await;
    let event = told.event.unwrap();
    assert_eq!((event.id.as_str(), event.total_seats), (HALL, 14));
    assert_eq!(event.remaining_seats, 11);
    let stats = told.stats.unwrap();
    assert_eq!((stats.total_seats, stats.available_seats), (14, 11));
    assert_eq!((stats.reserved_seats, stats.sold_seats), (2, 1));
    assert!((stats.availability_percentage - 100.0 * 11.0 / 14.0).abs() < 0.01);
    assert!(seconds_ahead(stats.last_updated).abs() < 60);
    let sections = told.sections.iter();
    let sections: Vec<_> = sections
        .map(|s| (&s.section_id[..], s.total_seats, s.available_seats))
        .collect();
    assert_eq!(sections, [("A", 10, 8), ("B", 4, 3)]);
    let price = told.sections[0].min_price.as_ref().unwrap().amount;
    assert_eq!(price, 8_800);
    let b = api.status(HALL, "B").await;
    assert_eq!(b.sections.len(), 1);
    assert_eq!(b.stats.unwrap().sold_seats, 1);
    assert_eq!(b.event.unwrap().total_seats, 14);
    let none = api.status(HALL, "C").await;
    assert_eq!(none.error.unwrap().code(), ErrorCode::NotFound);
}

#[tokio::test]
async fn the_status_of_a_quantity_tells_what_is_taken_and_has_no_sections() {
    let (_stage, _server, api) = selling().await;
    api.hold(hold("r1", EVENT, 3, &[])).await;
    let told = api.status(EVENT, "").await;
    assert!(told.sections.is_empty() && told.error.is_none());
    let stats = told.stats.unwrap();
    assert_eq!((stats.total_seats, stats.available_seats), (10, 7));
    assert_eq!((stats.reserved_seats, stats.sold_seats), (0, 3));
}

#[tokio::test]
async fn the_status_names_the_event() {
    let (_stage, _server, api) = selling().await;
    let event = api.status(HALL, "").await.event.unwrap();
    assert_eq!(event.name, "The last night");
}

#[tokio::test]
async fn a_section_narrows_what_is_offered() {
    let (_stage, _server, api) = selling().await;
    let in_section = |section: &str, quantity| CheckAvailabilityRequest {
        section: section.to_owned(),
        ..check(HALL, quantity)
    };
    let found = api.check(in_section("B", 4)).await;
    assert!(found.available);
    assert!(found.available_seats.iter().all(|seat| seat.section == "B"));
    assert_eq!(found.remaining_in_section, 4);
    let found = api.check(in_section("B", 5)).await;
    assert!(!found.available && found.available_seats.is_empty());
    assert_eq!(found.remaining_in_section, 4);
}

// ---- Both contracts, the same reservations --------------------------------------------------------

async fn shown(server: &Server, id: &str) -> Result<GetReservationRes, Status> {
    let call = GetReservationReq {
        reservation_id: id.to_owned(),
    };
    let answer = client(server).await.get_reservation(patient(call)).await;
    answer.map(Response::into_inner)
}

fn place(id: &str, event: &str, qty: i32, seats: &[&str]) -> PlaceHoldReq {
    PlaceHoldReq {
        reservation_id: id.to_owned(),
        event_id: event.to_owned(),
        qty,
        seat_ids: refs(seats),
        section: String::new(),
        hold_expires_at: None,
    }
}

#[tokio::test]
async fn what_one_contract_holds_the_other_sells() {
    let (_stage, server, api) = selling().await;
    let mut inventory = client(&server).await;
    let held = inventory
        .place_hold(patient(place("r1", HALL, 0, &["A-1-1", "A-1-2"])))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(held.status, "HELD");
    assert_eq!(held.seat_ids, refs(&["A-1-1", "A-1-2"]));
    let left = seconds_ahead(held.hold_expires_at);
    assert!((55..=60).contains(&left), "{left}");
    let seen = shown(&server, "r1").await.unwrap();
    assert_eq!((&seen.status[..], seen.qty), ("HELD", 2));
    assert_eq!((&seen.event_id[..], &seen.order_id[..]), (HALL, ""));
    assert_eq!(seen.seat_ids, held.seat_ids);
    assert_eq!(seen.hold_expires_at, held.hold_expires_at);
    // Contract B says neither seats nor a quantity: what is held.
    let sold = api.commit(sell("r1", HALL, 0, &[])).await;
    assert_eq!(sold.status(), CommitStatus::Success, "{sold:?}");
    assert_eq!(ids(&sold.sold_seats), ["A-1-1", "A-1-2"]);
    let seen = shown(&server, "r1").await.unwrap();
    assert_eq!(
        (&seen.status[..], seen.order_id),
        ("CONFIRMED", sold.order_id)
    );
    assert!(seconds_ahead(seen.updated_at).abs() < 60);

    // And the other way round.
    api.hold(hold("r2", EVENT, 2, &[])).await;
    let order = client(&server).await.order(commit("r2", EVENT, 2)).await;
    assert_eq!(shown(&server, "r2").await.unwrap().order_id, order);
    let status = client(&server)
        .await
        .releases(release("r2", EVENT, 2))
        .await;
    let code = Code::FailedPrecondition;
    assert_refused(
        &status.unwrap_err(),
        code,
        "RESERVATION_COMMITTED",
        EVENT,
        "r2",
    );
}

#[tokio::test]
async fn a_reservation_is_shown_in_every_state() {
    let (_stage, server, api) = selling().await;
    let status = shown(&server, "nobody").await.unwrap_err();
    assert_refused(
        &status,
        Code::NotFound,
        "RESERVATION_NOT_FOUND",
        "",
        "nobody",
    );
    let status = shown(&server, "a b").await.unwrap_err();
    assert_eq!(fields(&status), ["reservation_id"]);
    api.hold(hold("held", EVENT, 2, &[])).await;
    api.commit(sell("sold", EVENT, 1, &[])).await;
    api.hold(hold("given", EVENT, 1, &[])).await;
    api.release(give_up("given", EVENT)).await;
    api.release(give_up("never", EVENT)).await;
    hold_and_outlive(&api, hold("over", EVENT, 1, &[])).await;
    for (id, state) in [
        ("held", "HELD"),
        ("sold", "CONFIRMED"),
        ("given", "RELEASED"),
        ("never", "RELEASED"),
        ("over", "EXPIRED"),
    ] {
        let seen = shown(&server, id).await.unwrap();
        assert_eq!((&seen.status[..], &seen.reservation_id[..]), (state, id));
        assert_eq!(seen.event_id, EVENT);
    }
}

#[tokio::test]
async fn contract_a_refuses_holds_by_status_and_names_the_seats() {
    let (_stage, server, _api) = selling().await;
    let mut inventory = client(&server).await;
    let held = place("r1", HALL, 0, &["A-1-1"]);
    inventory.place_hold(patient(held)).await.unwrap();
    for (call, code, reason, seats) in [
        (
            place("r2", HALL, 0, &["A-1-2", "A-1-1"]),
            Code::Aborted,
            "SEAT_UNAVAILABLE",
            "A-1-1",
        ),
        (
            place("r3", HALL, 0, &["Z-9"]),
            Code::NotFound,
            "SEAT_NOT_FOUND",
            "Z-9",
        ),
    ] {
        let id = call.reservation_id.clone();
        let status = inventory.place_hold(patient(call)).await.unwrap_err();
        assert_refused(&status, code, reason, HALL, &id);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["seat_ids"], seats);
    }
    let bad = PlaceHoldReq {
        hold_expires_at: Some((SystemTime::now() - Duration::from_secs(1)).into()),
        ..place("", "", 0, &[])
    };
    let status = inventory.place_hold(patient(bad)).await.unwrap_err();
    let wanted = ["hold_expires_at", "event_id", "reservation_id", "qty"];
    assert_eq!(fields(&status), wanted);
}
