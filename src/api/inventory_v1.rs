//! The handlers of `inventory.v1.Inventory`. Every failure is a gRPC status.

pub(in crate::api) mod requests;

use std::rc::Rc;

use inventory_proto::inventory::v1::{
    CheckReq, CheckRes, CommitReq, CommitRes, GetReservationReq, GetReservationRes, PlaceHoldReq,
    PlaceHoldRes, ReleaseReq, ReleaseRes,
};

use super::convert;
use super::rejection;
use super::reservation_service::{
    ReservationError, ReservationService, answered_inventory_type, inventory_type,
};
use super::validate::INVENTORY_V1;
use inventory_core::answer::Answer;
use inventory_core::ids::SeatId;
use inventory_core::operation::{RecordExpectation, Selection, Verb};
use inventory_core::query::{Query, QueryResult};
use inventory_core::time::UnixMillis;
use inventory_core::transaction::ReservationState;
use inventory_grpc::{CallContext, Inventory, Status};
use inventory_runtime::clock;
use inventory_store::StoredRecord;

const HELD: &str = "HELD";
const CONFIRMED: &str = "CONFIRMED";
const RELEASED: &str = "RELEASED";
const EXPIRED: &str = "EXPIRED";
const REFUNDED: &str = "REFUNDED";

/// One per shard.
pub(crate) struct InventoryHandlers {
    service: Rc<ReservationService>,
}

impl InventoryHandlers {
    pub(crate) fn new(service: Rc<ReservationService>) -> Self {
        Self { service }
    }
}

impl Inventory for InventoryHandlers {
    async fn check_availability(
        &self,
        call: &CallContext,
        request: CheckReq,
    ) -> Result<CheckRes, Status> {
        let (event, selection) = requests::check(request, self.service.limits())?;
        let kind = inventory_type(&selection);
        let query = match selection {
            Selection::Quantity(qty) => Query::Availability { qty, section: None },
            Selection::Seats(seats) => Query::Seats { seats },
            Selection::AsRecorded => return Err(rejection::unexpected_answer()),
        };
        let result = match self.service.cached_query_result(call, &event, &query) {
            Some(result) => result,
            // Boxed so that a call answered at once has no space for it.
            None => Box::pin(self.service.query(call, event, query)).await,
        };
        let answer = result.and_then(availability);
        let result = match &answer {
            Ok(result) if result.available => "available",
            Ok(_) => "unavailable",
            Err(_) => "error",
        };
        self.service.recorder().check(kind, result);
        call.set_outcome(result);
        answer.map_err(status)
    }

    async fn commit_reservation(
        &self,
        call: &CallContext,
        request: CommitReq,
    ) -> Result<CommitRes, Status> {
        let checked = requests::commit(request, self.service.limits())?;
        let kind = inventory_type(&checked.selection);
        let operation = checked.operation(Verb::Commit, RecordExpectation::Absent, call);
        let outcome = self.service.submit(call, operation).outcome().await;
        let done = outcome.as_ref().map_or_else(ReservationError::reason, |_| CONFIRMED);
        let kind = answered_inventory_type(kind, &outcome);
        self.service.recorder().commit(kind, done);
        call.set_outcome(done);
        match outcome.map_err(status)? {
            Answer::Confirmed { order, .. } => {
                Ok(CommitRes { order_id: order.to_text(), status: CONFIRMED.to_owned() })
            }
            _ => Err(rejection::unexpected_answer()),
        }
    }

    async fn release_hold(
        &self,
        call: &CallContext,
        request: ReleaseReq,
    ) -> Result<ReleaseRes, Status> {
        let checked = requests::release(request, self.service.limits())?;
        let kind = inventory_type(&checked.selection);
        let operation = checked.operation(Verb::Release, RecordExpectation::Present, call);
        let outcome = self.service.submit(call, operation).outcome().await;
        let done = outcome.as_ref().map_or_else(ReservationError::reason, |_| RELEASED);
        let kind = answered_inventory_type(kind, &outcome);
        self.service.recorder().release(kind, done);
        call.set_outcome(done);
        match outcome.map_err(status)? {
            Answer::Released { .. } => Ok(ReleaseRes { status: RELEASED.to_owned() }),
            _ => Err(rejection::unexpected_answer()),
        }
    }

    async fn place_hold(
        &self,
        call: &CallContext,
        request: PlaceHoldReq,
    ) -> Result<PlaceHoldRes, Status> {
        let checked = requests::hold(request, self.service.limits(), clock::now().unix)?;
        let kind = inventory_type(&checked.selection);
        let operation = checked.operation(Verb::Hold, RecordExpectation::Absent, call);
        let outcome = self.service.submit(call, operation).outcome().await;
        let done = outcome.as_ref().map_or_else(ReservationError::reason, |_| HELD);
        let kind = answered_inventory_type(kind, &outcome);
        self.service.recorder().hold(kind, done);
        call.set_outcome(done);
        match outcome.map_err(status)? {
            Answer::Held { expires_at, seats, .. } => Ok(PlaceHoldRes {
                status: HELD.to_owned(),
                hold_expires_at: Some(convert::timestamp(expires_at)),
                seat_ids: convert::seat_refs(seats.as_deref().unwrap_or_default()),
            }),
            _ => Err(rejection::unexpected_answer()),
        }
    }

    async fn get_reservation(
        &self,
        call: &CallContext,
        request: GetReservationReq,
    ) -> Result<GetReservationRes, Status> {
        let reservation = requests::reservation(request)?;
        let record = Box::pin(self.service.read_reservation(call, &reservation)).await;
        let record = record.map_err(status)?;
        Ok(reservation_response(record, clock::now().unix))
    }
}

fn status(error: ReservationError) -> Status {
    error.into_status(INVENTORY_V1)
}

fn availability(result: QueryResult) -> Result<CheckRes, ReservationError> {
    let available = |available| CheckRes { available, unavailable_seats: Vec::new() };
    match result {
        QueryResult::Units { available: some, .. } => Ok(available(some)),
        QueryResult::Offer { seats, .. } => Ok(available(!seats.is_empty())),
        QueryResult::Seats { known, unknown } => {
            let now = clock::now().unix;
            let taken = known.into_iter().filter(|s| !convert::is_free(s, now));
            let taken = taken.map(|seat| seat.id).chain(unknown);
            let unavailable_seats: Vec<String> = taken.map(SeatId::into_string).collect();
            Ok(CheckRes { available: unavailable_seats.is_empty(), unavailable_seats })
        }
        QueryResult::Status(_) | QueryResult::NotOnSale(_) => {
            Err(ReservationError::Failed(rejection::unexpected_answer()))
        }
    }
}

fn reservation_response(record: StoredRecord, now: UnixMillis) -> GetReservationRes {
    let view = &record.view;
    let expired = view.expires_at.is_some_and(|at| at <= now);
    let status = match view.state {
        ReservationState::Held if expired => EXPIRED,
        ReservationState::Held => HELD,
        ReservationState::Confirmed => CONFIRMED,
        ReservationState::Released => RELEASED,
        ReservationState::Expired => EXPIRED,
        ReservationState::Refunded => REFUNDED,
    };
    GetReservationRes {
        status: status.to_owned(),
        qty: convert::count(u64::from(record.qty)),
        seat_ids: convert::seat_refs(view.seats.as_deref().unwrap_or_default()),
        order_id: view.order.map_or_else(String::new, |order| order.to_text()),
        hold_expires_at: view.expires_at.map(convert::timestamp),
        updated_at: Some(convert::timestamp(view.at)),
        reservation_id: record.reservation.into_string(),
        event_id: record.event.into_string(),
    }
}
