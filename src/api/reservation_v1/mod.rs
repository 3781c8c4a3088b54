//! `reservation.v1.InventoryService`: the handlers of contract B.
//!
//! The client's circuit breaker counts gRPC errors. So whatever is the business's own (sold out, a
//! taken seat, an expired hold, an unknown event) is a response with gRPC status OK that says so;
//! gRPC errors are for bad arguments, overload, deadlines and an unreachable store.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the handlers: from a call to its response |
//! | `outcome.rs` | what a hold, a commit, a release ended with, as a response |
//! | `queries.rs` | what was found of an event, as a response |
//! | `statuses.rs` | statuses that were encoded, for as long as nothing changes |
//! | `error.rs` | which refusals are in the response, with which code |

mod in_band_error;
mod outcomes;
mod queries;
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
use super::rejection::{self, ErrorSubject};
use super::reservation_service::{
    CallFailure, ReservationRequest, ReservationService, answered_inventory_type, inventory_type,
};
use super::validate::{FieldViolations, RESERVATION_V1};
use crate::telemetry::recorder::InventoryType;
use inventory_core::answer::{Answer, Rejection};
use inventory_core::ids::{EventId, Seats};
use inventory_core::operation::{RecordExpectation, Selection, Verb};
use inventory_core::query::Query;
use inventory_grpc::{CacheableResponse, CallContext, InventoryService, Status};
use inventory_runtime::clock;

/// One per shard.
pub struct ReservationHandlers {
    service: Rc<ReservationService>,
    status_cache: StatusCache,
}

impl ReservationHandlers {
    pub fn new(service: Rc<ReservationService>) -> Self {
        Self {
            service,
            status_cache: StatusCache::new(),
        }
    }

    /// What an operation ended with, counted. `Ok` is for the response, also when it is a refusal.
    fn counted(
        call: &CallContext,
        outcome: Result<Answer, CallFailure>,
        kind: InventoryType,
        done: &'static str,
        count: impl FnOnce(InventoryType, &'static str),
    ) -> Result<Result<Answer, Rejection>, Status> {
        let status = outcome.as_ref().map_or_else(CallFailure::reason, |_| done);
        count(answered_inventory_type(kind, &outcome), status);
        call.set_outcome(status);
        in_band(outcome)
    }

    /// The seats of an answer with what is known of them.
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
        let shown = described.into_iter().map(|seat| match seat {
            Ok(seat) => convert::seat(seat, status),
            Err(id) => convert::bare_seat(&id, status),
        });
        shown.collect()
    }

    async fn inventory_status(
        &self,
        call: &CallContext,
        request: GetInventoryStatusRequest,
    ) -> Result<CacheableResponse<GetInventoryStatusResponse>, Status> {
        let mut violations = FieldViolations::of(RESERVATION_V1);
        let event = violations.event(request.event_id);
        let section = violations.section(request.section);
        let event = match (event, violations.is_empty()) {
            (Some(event), true) => event,
            (event, _) => {
                let about = ErrorSubject::of(event, None);
                return Err(rejection::invalid_argument(violations, &about));
            }
        };
        // Before the question: the answer is as new as its mark, or newer.
        let mark = match section {
            None => self.service.status_mark(&event),
            Some(_) => None,
        };
        if let Some(kept) = mark.and_then(|mark| self.status_cache.get(&event, mark)) {
            return Ok(CacheableResponse::Encoded(kept));
        }
        // Of the whole event in any case: the response tells its totals too.
        let question = Query::Status { section: None };
        let found = match self.service.query_cached(call, &event, &question) {
            Some(found) => Ok(found),
            None => self.service.query(call, event.clone(), question).await,
        };
        match in_band(found)? {
            Ok(found) => {
                let name = self.service.event_name(call, &event).await;
                let trace = trace_id(&call.headers);
                let mark = mark.filter(|_| name.is_some());
                let name = name.unwrap_or_default();
                let status =
                    queries::status(event.clone(), name, section.as_deref(), found, trace)?;
                // A name that came too late for this answer is in the next.
                if let Some(mark) = mark {
                    let encoded = self.status_cache.keep(event, mark, &status);
                    return Ok(CacheableResponse::Encoded(encoded));
                }
                Ok(CacheableResponse::Message(Box::new(status)))
            }
            Err(why) => {
                let refused = queries::no_status(&why, trace_id(&call.headers))?;
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
        let mut violations = FieldViolations::of(RESERVATION_V1);
        let event = violations.event(request.event_id);
        let section = violations.section(request.section);
        let qty_max = self.service.qty_max();
        let wanted = violations.wanted(request.quantity, request.seat_ids, qty_max);
        let (event, wanted) = match (event, wanted, violations.is_empty()) {
            (Some(event), Some(wanted), true) => (event, wanted),
            (event, ..) => {
                let about = ErrorSubject::of(event, None);
                return Err(rejection::invalid_argument(violations, &about));
            }
        };
        let (asked, kind) = (wanted.clone(), inventory_type(&wanted));
        let question = match wanted {
            Selection::Quantity(qty) => Query::Availability { qty, section },
            Selection::Seats(seats) => Query::Seats { seats },
            Selection::AsRecorded => return Err(rejection::unexpected_answer()),
        };
        let found = in_band(match self.service.query_cached(call, &event, &question) {
            Some(found) => Ok(found),
            // Boxed: a call answered at once carries no room for it.
            None => Box::pin(self.service.query(call, event, question)).await,
        });
        let answer = found.and_then(|found| match found {
            Ok(found) => queries::availability(&asked, found, clock::now().unix),
            Err(why) => queries::unavailable(&why, trace_id(&call.headers)),
        });
        let result = match &answer {
            Ok(found) if found.error.is_some() => "error",
            Ok(found) if found.available => "available",
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
        let mut violations = FieldViolations::of(RESERVATION_V1);
        violations.opaque("user_id", &request.user_id);
        violations.opaque("idempotency_key", &request.idempotency_key);
        let wish = request.hold_expires_at;
        let hold_until = self.service.hold_until(&mut violations, wish.as_ref());
        let qty_max = self.service.qty_max();
        let wanted = violations.wanted(request.quantity, request.seat_ids, qty_max);
        let event = violations.event(request.event_id);
        let reservation = violations.reservation(request.reservation_id);
        let mut checked = ReservationRequest::checked(violations, event, reservation, wanted)?;
        checked.hold_until = hold_until;
        let (event, hold) = (checked.event.clone(), checked.reservation.to_string());
        let kind = inventory_type(&checked.wanted);
        let operation = checked.operation(Verb::Hold, RecordExpectation::Absent, call);
        let count = |kind, status| self.service.recorder().hold(kind, status);
        let outcome = self.service.submit(call, operation).outcome().await;
        match Self::counted(call, outcome, kind, "HELD", count)? {
            Ok(Answer::Held {
                expires_at, seats, ..
            }) => {
                let status = common::SeatStatus::Reserved;
                let seats = self
                    .described_seats(call, event, seats.as_ref(), status)
                    .await;
                Ok(outcomes::held(hold, seats, expires_at))
            }
            Ok(_) => Err(rejection::unexpected_answer()),
            Err(why) => outcomes::not_held(hold, &why, trace_id(&call.headers)),
        }
    }

    async fn commit_reservation(
        &self,
        call: &CallContext,
        request: CommitReservationRequest,
    ) -> Result<CommitReservationResponse, Status> {
        let mut violations = FieldViolations::of(RESERVATION_V1);
        violations.opaque("user_id", &request.user_id);
        violations.opaque("idempotency_key", &request.idempotency_key);
        violations.payment_intent(&request.payment_intent_id);
        let qty_max = self.service.qty_max();
        let wanted = violations.wanted_or_held(request.quantity, request.seat_ids, qty_max);
        let event = violations.event(request.event_id);
        let reservation = violations.reservation(request.reservation_id);
        let mut checked = ReservationRequest::checked(violations, event, reservation, wanted)?;
        checked.payment_intent = request.payment_intent_id;
        let event = checked.event.clone();
        let kind = inventory_type(&checked.wanted);
        let operation = checked.operation(Verb::Commit, RecordExpectation::Present, call);
        let count = |kind, status| self.service.recorder().commit(kind, status);
        let outcome = self.service.submit(call, operation).outcome().await;
        match Self::counted(call, outcome, kind, "CONFIRMED", count)? {
            Ok(Answer::Confirmed { order, at, seats }) => {
                let status = common::SeatStatus::Sold;
                let seats = self
                    .described_seats(call, event, seats.as_ref(), status)
                    .await;
                Ok(outcomes::confirmed(order, seats, at))
            }
            Ok(_) => Err(rejection::unexpected_answer()),
            Err(why) => outcomes::not_confirmed(&why, trace_id(&call.headers)),
        }
    }

    async fn release_hold(
        &self,
        call: &CallContext,
        request: ReleaseHoldRequest,
    ) -> Result<ReleaseHoldResponse, Status> {
        let mut violations = FieldViolations::of(RESERVATION_V1);
        violations.opaque("reason", &request.reason);
        violations.opaque("idempotency_key", &request.idempotency_key);
        let qty_max = self.service.qty_max();
        let wanted = violations.wanted_or_held(request.quantity, request.seat_ids, qty_max);
        let event = violations.event(request.event_id);
        let reservation = violations.reservation(request.reservation_id);
        let checked = ReservationRequest::checked(violations, event, reservation, wanted)?;
        let event = checked.event.clone();
        let kind = inventory_type(&checked.wanted);
        let operation = checked.operation(Verb::Release, RecordExpectation::Present, call);
        let count = |kind, status| self.service.recorder().release(kind, status);
        let outcome = self.service.submit(call, operation).outcome().await;
        match Self::counted(call, outcome, kind, "RELEASED", count)? {
            Ok(Answer::Released { how, at, seats }) => {
                let given_back = outcomes::gave_back(how, seats.as_ref());
                let status = common::SeatStatus::Available;
                let seats = self.described_seats(call, event, given_back, status).await;
                Ok(outcomes::released(how, seats, at))
            }
            Ok(_) => Err(rejection::unexpected_answer()),
            Err(why) => outcomes::not_released(&why, trace_id(&call.headers)),
        }
    }

    async fn get_inventory_status(
        &self,
        call: &CallContext,
        request: GetInventoryStatusRequest,
    ) -> Result<CacheableResponse<GetInventoryStatusResponse>, Status> {
        // The largest of them all: the other calls carry no room for it.
        Box::pin(self.inventory_status(call, request)).await
    }
}

/// Parts what the response tells from what is a gRPC error.
fn in_band<T>(outcome: Result<T, CallFailure>) -> Result<Result<T, Rejection>, Status> {
    match outcome {
        Ok(answer) => Ok(Ok(answer)),
        Err(CallFailure::Refused(why, _)) if in_band_error::is_business(&why) => Ok(Err(why)),
        Err(failure) => Err(failure.into_status()),
    }
}
