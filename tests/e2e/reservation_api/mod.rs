//! reservation.v1 as the Reservation API calls it, on events of a quantity and of seats. The details of each rejection are
//! tested by the unit tests of the contract.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | client and events |
//! | `sequences.rs` | create, confirm, cancel |
//! | `time.rs` | hold duration and late commits |
//! | `arguments.rs` | business outcomes and invalid arguments |
//! | `refusals.rs` | refusals that name their cause |
//! | `status.rs` | inventory status |
//! | `both.rs` | both contracts on the same reservations |

mod arguments;
mod both;
mod refusals;
mod sequences;
mod status;
mod time;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::fake_store::FakeStore;
use inventory_proto::common::v1::{Seat, SeatStatus};
use inventory_proto::reservation::v1::inventory_service_client::InventoryServiceClient;
use inventory_proto::reservation::v1::*;
use inventory_testkit::server::{ServerCommand, TestServer};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

use crate::client::{create, with_deadline};
use crate::items::{HallSeat, row, seat_event};

const EVENT: &str = "evt_api";
const HALL: &str = "evt_hall";

/// A client of reservation.v1. Calls without `try_` must succeed.
#[derive(Clone)]
struct ReservationApi(InventoryServiceClient<Channel>);

impl ReservationApi {
    async fn of(server: &TestServer) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
        Self(InventoryServiceClient::new(endpoint.connect().await.unwrap()))
    }

    async fn check(&self, call: CheckAvailabilityRequest) -> CheckAvailabilityResponse {
        ok(self.0.clone().check_availability(with_deadline(call)).await)
    }

    async fn hold(&self, call: ReserveSeatRequest) -> ReserveSeatResponse {
        ok(self.try_hold(call).await)
    }

    async fn try_hold(
        &self,
        call: ReserveSeatRequest,
    ) -> Result<Response<ReserveSeatResponse>, Status> {
        self.0.clone().reserve_seat(with_deadline(call)).await
    }

    async fn commit(&self, call: CommitReservationRequest) -> CommitReservationResponse {
        ok(self.0.clone().commit_reservation(with_deadline(call)).await)
    }

    async fn release(&self, call: ReleaseHoldRequest) -> ReleaseHoldResponse {
        ok(self.0.clone().release_hold(with_deadline(call)).await)
    }

    async fn status(&self, event: &str, section: &str) -> GetInventoryStatusResponse {
        let call =
            GetInventoryStatusRequest { event_id: event.to_owned(), section: section.to_owned() };
        ok(self.0.clone().get_inventory_status(with_deadline(call)).await)
    }
}

#[track_caller]
fn ok<T>(answer: Result<Response<T>, Status>) -> T {
    answer.unwrap_or_else(|status| panic!("a gRPC error: {status:?}")).into_inner()
}

fn check(event: &str, quantity: i32) -> CheckAvailabilityRequest {
    CheckAvailabilityRequest {
        event_id: event.to_owned(),
        quantity,
        ..CheckAvailabilityRequest::default()
    }
}

/// As the Reservation API sends it: without an idempotency key, and with seats as well as their number.
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

/// As the Reservation API sends it: ids only.
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
fn hall() -> Vec<HallSeat> {
    let rows = [row("A", "1", 5, 9_900), row("A", "2", 5, 8_800), row("B", "1", 4, 5_000)];
    rows.concat()
}

/// A server, an event of ten units and a hall of fourteen seats over three partition keys.
async fn selling() -> (FakeStore, TestServer, ReservationApi) {
    selling_as(|command| command).await
}

async fn selling_as(
    change: impl FnOnce(ServerCommand) -> ServerCommand,
) -> (FakeStore, TestServer, ReservationApi) {
    let store = FakeStore::start();
    seat_event(&store, HALL, 3, &hall());
    let server = change(store.server_command()).start();
    create(&server, EVENT, 10, 1).await;
    let api = ReservationApi::of(&server).await;
    (store, server, api)
}

/// Checks facts and state of every seat of a response.
#[track_caller]
fn assert_described(seats: &[Seat], status: SeatStatus) {
    for seat in seats {
        assert_eq!(seat.status(), status, "{seat:?}");
        let place = hall().into_iter().find(|place| place.id == seat.id);
        let place = place.unwrap_or_else(|| panic!("no such seat: {seat:?}"));
        assert_eq!((&seat.section[..], &seat.row[..]), (place.section, place.row));
        assert_eq!(seat.number, place.number.to_string());
        let price = seat.price.as_ref().unwrap();
        assert_eq!((price.amount, &price.currency[..]), (place.price, "KRW"));
    }
}

/// Holds for 700 ms and waits until the hold has expired.
async fn hold_and_outlive(api: &ReservationApi, mut call: ReserveSeatRequest) {
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

/// The invalid fields.
#[track_caller]
fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let bad = status.get_details_bad_request().unwrap();
    let fields = bad.field_violations.into_iter();
    fields.map(|violation| violation.field).collect()
}
