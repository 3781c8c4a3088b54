//! Validation of the requests of `reservation.v1.InventoryService`, one function per method. Each reports all invalid fields
//! at once.
//!
//! Not here: the rules of each field (`validate`), and what is done with a request.

use inventory_proto::reservation::v1::{
    CheckAvailabilityRequest, CommitReservationRequest, GetInventoryStatusRequest,
    ReleaseHoldRequest, ReserveSeatRequest,
};

use crate::api::rejection::{self, ErrorSubject};
use crate::api::reservation_service::{RequestLimits, ReservationRequest};
use crate::api::validate::{FieldViolations, RESERVATION_V1};
use inventory_core::ids::EventId;
use inventory_core::operation::Selection;
use inventory_core::time::UnixMillis;
use inventory_grpc::Status;

/// The event, and the section if the request names one.
pub(in crate::api) fn status(
    request: GetInventoryStatusRequest,
) -> Result<(EventId, Option<String>), Status> {
    let mut violations = FieldViolations::of(RESERVATION_V1);
    let event = violations.event(request.event_id);
    let section = violations.section(request.section);
    match (event, violations.is_empty()) {
        (Some(event), true) => Ok((event, section)),
        (event, _) => {
            let subject = ErrorSubject::of(event, None);
            Err(rejection::invalid_argument(violations, &subject))
        }
    }
}

/// The event, the section if the request names one, and the units or seats.
pub(in crate::api) fn check(
    request: CheckAvailabilityRequest,
    limits: &RequestLimits,
) -> Result<(EventId, Option<String>, Selection), Status> {
    let mut violations = FieldViolations::of(RESERVATION_V1);
    let event = violations.event(request.event_id);
    let section = violations.section(request.section);
    let selection = violations.selection(request.quantity, request.seat_ids, limits.qty_max);
    match (event, selection, violations.is_empty()) {
        (Some(event), Some(selection), true) => Ok((event, section, selection)),
        (event, ..) => {
            let subject = ErrorSubject::of(event, None);
            Err(rejection::invalid_argument(violations, &subject))
        }
    }
}

pub(in crate::api) fn hold(
    request: ReserveSeatRequest,
    limits: &RequestLimits,
    now: UnixMillis,
) -> Result<ReservationRequest, Status> {
    let mut violations = FieldViolations::of(RESERVATION_V1);
    violations.opaque("user_id", &request.user_id);
    violations.opaque("idempotency_key", &request.idempotency_key);
    let hold_until = limits.hold_until(&mut violations, request.hold_expires_at.as_ref(), now);
    let selection = violations.selection(request.quantity, request.seat_ids, limits.qty_max);
    let event = violations.event(request.event_id);
    let reservation = violations.reservation(request.reservation_id);
    let mut checked = ReservationRequest::checked(violations, event, reservation, selection)?;
    checked.hold_until = hold_until;
    Ok(checked)
}

pub(in crate::api) fn commit(
    request: CommitReservationRequest,
    limits: &RequestLimits,
) -> Result<ReservationRequest, Status> {
    let mut violations = FieldViolations::of(RESERVATION_V1);
    violations.opaque("user_id", &request.user_id);
    violations.opaque("idempotency_key", &request.idempotency_key);
    violations.payment_intent(&request.payment_intent_id);
    let selection =
        violations.selection_or_recorded(request.quantity, request.seat_ids, limits.qty_max);
    let event = violations.event(request.event_id);
    let reservation = violations.reservation(request.reservation_id);
    let mut checked = ReservationRequest::checked(violations, event, reservation, selection)?;
    checked.payment_intent = request.payment_intent_id;
    Ok(checked)
}

pub(in crate::api) fn release(
    request: ReleaseHoldRequest,
    limits: &RequestLimits,
) -> Result<ReservationRequest, Status> {
    let mut violations = FieldViolations::of(RESERVATION_V1);
    violations.opaque("reason", &request.reason);
    violations.opaque("idempotency_key", &request.idempotency_key);
    let selection =
        violations.selection_or_recorded(request.quantity, request.seat_ids, limits.qty_max);
    let event = violations.event(request.event_id);
    let reservation = violations.reservation(request.reservation_id);
    ReservationRequest::checked(violations, event, reservation, selection)
}
