//! Validation of the requests of `inventory.v1.Inventory`, one function per method. Each reports all invalid fields at once.
//!
//! Not here: the rules of each field (`validate`), and what is done with a request.

use inventory_proto::inventory::v1::{
    CheckReq, CommitReq, GetReservationReq, PlaceHoldReq, ReleaseReq, SeatRef,
};

use crate::api::rejection::{self, ErrorSubject};
use crate::api::reservation_service::{RequestLimits, ReservationRequest};
use crate::api::validate::{FieldViolations, INVENTORY_V1};
use inventory_core::ids::{EventId, ReservationId};
use inventory_core::operation::Selection;
use inventory_core::time::UnixMillis;
use inventory_grpc::Status;

/// How a quantity and seats are validated.
type ReadSelection = fn(&mut FieldViolations, i32, Vec<String>, u32) -> Option<Selection>;

pub(in crate::api) fn check(
    request: CheckReq,
    limits: &RequestLimits,
) -> Result<(EventId, Selection), Status> {
    let mut violations = FieldViolations::of(INVENTORY_V1);
    let event = violations.event(request.event_id);
    let selection = violations.selection(request.qty, seat_ids(request.seat_ids), limits.qty_max);
    match (event, selection) {
        (Some(event), Some(selection)) => Ok((event, selection)),
        (event, _) => {
            let subject = ErrorSubject::of(event, None);
            Err(rejection::invalid_argument(violations, &subject))
        }
    }
}

pub(in crate::api) fn commit(
    request: CommitReq,
    limits: &RequestLimits,
) -> Result<ReservationRequest, Status> {
    let mut violations = FieldViolations::of(INVENTORY_V1);
    violations.payment_intent(&request.payment_intent_id);
    let mut checked = reservation_request(
        violations,
        (request.event_id, request.reservation_id),
        (request.qty, request.seat_ids),
        limits,
        FieldViolations::repeated_selection,
    )?;
    checked.payment_intent = request.payment_intent_id;
    Ok(checked)
}

pub(in crate::api) fn release(
    request: ReleaseReq,
    limits: &RequestLimits,
) -> Result<ReservationRequest, Status> {
    reservation_request(
        FieldViolations::of(INVENTORY_V1),
        (request.event_id, request.reservation_id),
        (request.qty, request.seat_ids),
        limits,
        FieldViolations::repeated_selection,
    )
}

pub(in crate::api) fn hold(
    request: PlaceHoldReq,
    limits: &RequestLimits,
    now: UnixMillis,
) -> Result<ReservationRequest, Status> {
    let mut violations = FieldViolations::of(INVENTORY_V1);
    let section = violations.section(request.section);
    let hold_until = limits.hold_until(&mut violations, request.hold_expires_at.as_ref(), now);
    let mut checked = reservation_request(
        violations,
        (request.event_id, request.reservation_id),
        (request.qty, request.seat_ids),
        limits,
        FieldViolations::selection,
    )?;
    checked.section = section;
    checked.hold_until = hold_until;
    Ok(checked)
}

pub(in crate::api) fn reservation(request: GetReservationReq) -> Result<ReservationId, Status> {
    let mut violations = FieldViolations::of(INVENTORY_V1);
    let reservation = violations.reservation(request.reservation_id);
    reservation.ok_or_else(|| rejection::invalid_argument(violations, &ErrorSubject::default()))
}

fn reservation_request(
    mut violations: FieldViolations,
    (event, reservation): (String, String),
    (qty, seats): (i32, Vec<SeatRef>),
    limits: &RequestLimits,
    select: ReadSelection,
) -> Result<ReservationRequest, Status> {
    let event = violations.event(event);
    let reservation = violations.reservation(reservation);
    let selection = select(&mut violations, qty, seat_ids(seats), limits.qty_max);
    ReservationRequest::checked(violations, event, reservation, selection)
}

fn seat_ids(seats: Vec<SeatRef>) -> Vec<String> {
    seats.into_iter().map(|seat| seat.seat_id).collect()
}
