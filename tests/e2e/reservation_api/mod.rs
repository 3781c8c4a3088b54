//! Contract B as the Reservation API meets it: a stock client, a real server, a real engine. What
//! each refusal looks like is the unit tests' business; here is that the whole way works, on events
//! of a quantity and of seats.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the client, and what is on sale |
//! | `sequences.rs` | what the client does, from create to cancel |
//! | `time.rs` | how long holds last, and what comes after |
//! | `arguments.rs` | business outcomes are responses, bad arguments are errors |
//! | `status.rs` | how a sale stands |
//! | `both.rs` | both contracts on the same reservations |

mod arguments;
mod both;
mod sequences;
mod status;
mod time;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use inventory_proto::common::v1::{Seat, SeatStatus};
use inventory_proto::reservation::v1::inventory_service_client::InventoryServiceClient;
use inventory_proto::reservation::v1::*;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::client::{create, patient};
use crate::items::{Place, row, seat_event};
use crate::server::{Launch, Server};
use crate::stage::Stage;

const EVENT: &str = "evt_api";
const HALL: &str = "evt_hall";

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

// Holds for a moment, and waits until that is over by the clock that all share here.
async fn hold_and_outlive(api: &Api, mut call: ReserveSeatRequest) {
    let until = SystemTime::now() + Duration::from_millis(700);
    call.hold_expires_at = Some(until.into());
    let held = api.hold(call).await;
    assert_eq!(held.status(), HoldStatus::Active, "{held:?}");
    while SystemTime::now() <= until + Duration::from_millis(1) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn seconds_ahead(at: Option<prost_types::Timestamp>) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    at.unwrap().seconds - now.as_secs() as i64
}

[track_caller]
fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let bad = status.get_details_bad_request().unwrap();
    let fields = bad.field_violations.into_iter();
    fields.map(|violation| violation.field).collect()
}
