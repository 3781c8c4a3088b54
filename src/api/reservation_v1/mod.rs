//! The handlers of `reservation.v1.InventoryService`.
//!
//! The client's circuit breaker counts gRPC errors. So a business rejection (sold out, seat taken, hold
//! expired, event unknown) is a response with gRPC status OK; gRPC errors are for invalid arguments,
//! overload, deadlines and an unavailable store.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | the handlers: from a call to its response |
//! | `outcomes.rs` | responses to hold, commit and release |
//! | `requests.rs` | validation of the requests |
//! | `queries.rs` | responses to availability and status queries |
//! | `status_cache.rs` | encoded status responses, reused while nothing changes |
//! | `in_band_error.rs` | which rejections are part of the response, with which code |

mod in_band_error;
mod outcomes;
mod queries;
pub(in crate::api) mod requests;
mod status_cache;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use inventory_proto::common::v1 as common;
use inventory_proto::reservation::v1::{
    CheckAvailabilityRequest, CheckAvailabilityResponse, CommitReservationRequest,
    CommitReservationResponse, GetInventoryStatusRequest, GetInventoryStatusResponse,
    ReleaseHoldRequest, ReleaseHoldResponse, ReserveSeatRequest, ReserveSeatResponse,
};

use self::in_band_error::trace_id;
use self::status_cache::StatusCache;
use super::convert;
use super::rejection;
use super::reservation_service::{
    ReservationError, ReservationService, answered_inventory_type, inventory_type,
};
use super::validate::RESERVATION_V1;
use crate::telemetry::recorder::InventoryType;
use inventory_core::answer::{Answer, Rejection};
use inventory_core::ids::{EventId, Seats};
use inventory_core::operation::{RecordExpectation, Selection, Verb};
use inventory_core::query::Query;
use inventory_core::seats::SeatPrices;
use inventory_grpc::{CacheableResponse, CallContext, InventoryService, Status};
use inventory_runtime::clock;

/// One per shard.
pub(crate) struct ReservationHandlers {
    service: Rc<ReservationService>,
    status_cache: StatusCache,
}

impl ReservationHandlers {
    pub(crate) fn new(service: Rc<ReservationService>) -> Self {
        Self { service, status_cache: StatusCache::new() }
    }

    /// Counts the outcome of an operation. `Ok` is for the response, including in-band rejections.
    fn counted(
        call: &CallContext,
        outcome: Result<Answer, ReservationError>,
        kind: InventoryType,
        done: &'static str,
        count: impl FnOnce(InventoryType, &'static str),
    ) -> Result<Result<Answer, Rejection>, Status> {
        let status = outcome.as_ref().map_or_else(ReservationError::reason, |_| done);
        count(answered_inventory_type(kind, &outcome), status);
        call.set_outcome(status);
        in_band(outcome)
    }

    /// The seats of an answer with their details.
    async fn described_seats(
        &self,
        call: &CallContext,
        event: EventId,
        seats: Option<&Seats>,
        status: common::SeatStatus,
    ) -> Vec<common::Seat> {
        let Some(seats) = seats else {
            return Vec::new();
        };
        let described = Box::pin(self.service.describe_seats(call, event, seats)).await;
        let mut recorded = seats.prices.as_ref().map(SeatPrices::iter);
        let shown = described.into_iter().map(|seat| {
            let mut seat = match seat {
                Ok(seat) => convert::seat(seat, status),
                Err(id) => convert::bare_seat(&id, status),
            };
            // A record of an earlier version has no prices: the seat map's are shown.
            if let Some(price) = recorded.as_mut().and_then(Iterator::next) {
                seat.price = price.as_ref().map(convert::money);
            }
            seat
        });
        shown.collect()
    }

    async fn inventory_status(
        &self,
        call: &CallContext,
        request: GetInventoryStatusRequest,
    ) -> Result<CacheableResponse<GetInventoryStatusResponse>, Status> {
        let (event, section) = requests::status(request)?;
        // Read before the query: the result is at least as new as its version.
        let version = match section {
            None => self.service.status_version(&event),
            Some(_) => None,
        };
        if let Some(cached) = version.and_then(|version| self.status_cache.get(&event, version)) {
            return Ok(CacheableResponse::Encoded(cached));
        }
        // Always of the whole event: the response has the event's totals too.
        let query = Query::Status;
        let result = match self.service.cached_query_result(call, &event, &query) {
            Some(result) => result,
            None => self.service.query(call, event.clone(), query).await,
        };
        match in_band(result)? {
            Ok(result) => {
                let name = self.service.event_name(call, &event).await;
                let version = version.filter(|_| name.is_some());
                // A cached response answers other calls too.
                let trace = version.map_or_else(|| trace_id(&call.headers), |_| String::new());
                let name = name.unwrap_or_default();
                let status =
                    queries::status(event.clone(), name, section.as_deref(), result, trace)?;
                // A response without the name is not cached.
                if let Some(version) = version {
                    let encoded = self.status_cache.insert(event, version, &status);
                    return Ok(CacheableResponse::Encoded(encoded));
                }
                Ok(CacheableResponse::Message(Box::new(status)))
            }
            Err(rejection) => {
                let refused = queries::no_status(&rejection, trace_id(&call.headers))?;
                Ok(CacheableResponse::Message(Box::new(refused)))
            }
        }
    }
}

impl InventoryService for ReservationHandlers {
    async fn check_availability(
        &self,
        call: &CallContext,
        request: CheckAvailabilityRequest,
    ) -> Result<CheckAvailabilityResponse, Status> {
        let (event, section, selection) = requests::check(request, self.service.limits())?;
        let (asked, kind) = (selection.clone(), inventory_type(&selection));
        let query = match selection {
            Selection::Quantity(qty) => Query::Availability { qty, section },
            Selection::Seats(seats) => Query::Seats { seats },
            Selection::AsRecorded => return Err(rejection::unexpected_answer()),
        };
        let result = in_band(match self.service.cached_query_result(call, &event, &query) {
            Some(result) => result,
            // Boxed, so that the future of a call answered at once stays small.
            None => Box::pin(self.service.query(call, event, query)).await,
        });
        let answer = result.and_then(|result| match result {
            Ok(result) => queries::availability(&asked, result, clock::now().unix),
            Err(rejection) => queries::unavailable(&asked, &rejection, trace_id(&call.headers)),
        });
        let result = match &answer {
            Ok(result) if result.error.is_some() => "error",
            Ok(result) if result.available => "available",
            Ok(_) => "unavailable",
            Err(_) => "error",
        };
        self.service.recorder().check(kind, result);
        call.set_outcome(result);
        answer
    }

    async fn reserve_seat(
        &self,
        call: &CallContext,
        request: ReserveSeatRequest,
    ) -> Result<ReserveSeatResponse, Status> {
        let checked = requests::hold(request, self.service.limits(), clock::now().unix)?;
        let (event, hold) = (checked.event.clone(), checked.reservation.to_string());
        let kind = inventory_type(&checked.selection);
        let operation = checked.operation(Verb::Hold, RecordExpectation::Absent, call);
        let count = |kind, status| self.service.recorder().hold(kind, status);
        let outcome = self.service.submit(call, operation).outcome().await;
        match Self::counted(call, outcome, kind, "HELD", count)? {
            Ok(Answer::Held { expires_at, seats, .. }) => {
                let status = common::SeatStatus::Reserved;
                let seats = self.described_seats(call, event, seats.as_ref(), status).await;
                Ok(outcomes::held(hold, seats, expires_at))
            }
            Ok(_) => Err(rejection::unexpected_answer()),
            Err(rejection) => outcomes::not_held(hold, &rejection, trace_id(&call.headers)),
        }
    }

    async fn commit_reservation(
        &self,
        call: &CallContext,
        request: CommitReservationRequest,
    ) -> Result<CommitReservationResponse, Status> {
        let checked = requests::commit(request, self.service.limits())?;
        let event = checked.event.clone();
        let kind = inventory_type(&checked.selection);
        let operation = checked.operation(Verb::Commit, RecordExpectation::Present, call);
        let count = |kind, status| self.service.recorder().commit(kind, status);
        let outcome = self.service.submit(call, operation).outcome().await;
        match Self::counted(call, outcome, kind, "CONFIRMED", count)? {
            Ok(Answer::Confirmed { order, at, seats }) => {
                let status = common::SeatStatus::Sold;
                let seats = self.described_seats(call, event, seats.as_ref(), status).await;
                Ok(outcomes::confirmed(order, seats, at))
            }
            Ok(_) => Err(rejection::unexpected_answer()),
            Err(rejection) => outcomes::not_confirmed(&rejection, trace_id(&call.headers)),
        }
    }

    async fn release_hold(
        &self,
        call: &CallContext,
        request: ReleaseHoldRequest,
    ) -> Result<ReleaseHoldResponse, Status> {
        let checked = requests::release(request, self.service.limits())?;
        let event = checked.event.clone();
        let kind = inventory_type(&checked.selection);
        let operation = checked.operation(Verb::Release, RecordExpectation::Present, call);
        let count = |kind, status| self.service.recorder().release(kind, status);
        let outcome = self.service.submit(call, operation).outcome().await;
        match Self::counted(call, outcome, kind, "RELEASED", count)? {
            Ok(Answer::Released { how, at, seats }) => {
                let returned = outcomes::returned_seats(how, seats.as_ref());
                let status = common::SeatStatus::Available;
                let seats = self.described_seats(call, event, returned, status).await;
                Ok(outcomes::released(how, seats, at))
            }
            Ok(_) => Err(rejection::unexpected_answer()),
            Err(rejection) => outcomes::not_released(&rejection, trace_id(&call.headers)),
        }
    }

    async fn get_inventory_status(
        &self,
        call: &CallContext,
        request: GetInventoryStatusRequest,
    ) -> Result<CacheableResponse<GetInventoryStatusResponse>, Status> {
        // Boxed, so that this future, the largest one, does not enlarge those of the other calls.
        Box::pin(self.inventory_status(call, request)).await
    }
}

/// Separates in-band rejections from gRPC errors.
fn in_band<T>(outcome: Result<T, ReservationError>) -> Result<Result<T, Rejection>, Status> {
    match outcome {
        Ok(answer) => Ok(Ok(answer)),
        Err(ReservationError::Rejected(rejection, _)) if in_band_error::is_business(&rejection) => {
            Ok(Err(rejection))
        }
        Err(failure) => Err(failure.into_status(RESERVATION_V1)),
    }
}
