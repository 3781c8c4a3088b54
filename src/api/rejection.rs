//! The gRPC status and reason of each rejection. Clients decide by the reason, never by the text.

use std::time::Duration;

use super::validate::{FieldNames, FieldViolations};
use crate::limits;
use inventory_core::answer::{Rejection, UnknownSection};
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_core::time::Micros;
use inventory_grpc::{Code, Status};

/// `ErrorInfo.reason` of every business error.
pub(crate) mod reason {
    pub(crate) const INSUFFICIENT_INVENTORY: &str = "INSUFFICIENT_INVENTORY";
    pub(crate) const EVENT_NOT_FOUND: &str = "EVENT_NOT_FOUND";
    pub(crate) const SEAT_NOT_FOUND: &str = "SEAT_NOT_FOUND";
    pub(crate) const SECTION_NOT_FOUND: &str = "SECTION_NOT_FOUND";
    pub(crate) const IDEMPOTENCY_CONFLICT: &str = "IDEMPOTENCY_CONFLICT";
    pub(crate) const RESERVATION_RELEASED: &str = "RESERVATION_RELEASED";
    pub(crate) const RESERVATION_COMMITTED: &str = "RESERVATION_COMMITTED";
    pub(crate) const RESERVATION_NOT_FOUND: &str = "RESERVATION_NOT_FOUND";
    pub(crate) const RESERVATION_NOT_CONFIRMED: &str = "RESERVATION_NOT_CONFIRMED";
    pub(crate) const SEAT_UNAVAILABLE: &str = "SEAT_UNAVAILABLE";
    pub(crate) const HOLD_EXPIRED: &str = "HOLD_EXPIRED";
    pub(crate) const EVENT_CLOSED: &str = "EVENT_CLOSED";
    pub(crate) const DEADLINE_EXCEEDED: &str = inventory_grpc::reason::DEADLINE_EXCEEDED;
    pub(crate) const OVERLOADED: &str = "OVERLOADED";
    pub(crate) const STORE_BUSY: &str = "STORE_BUSY";
    pub(crate) const STORE_UNAVAILABLE: &str = "STORE_UNAVAILABLE";
    pub(crate) const INVALID_ARGUMENT: &str = "INVALID_ARGUMENT";
    pub(crate) const INTERNAL: &str = "INTERNAL";
}

/// The field that differs in a payment conflict, in both contracts.
pub(crate) const PAYMENT_FIELD: &str = "payment_intent_id";

/// The event and reservation of a status, for `ErrorInfo.metadata`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ErrorSubject {
    pub(crate) event: String,
    /// Empty if the call has none.
    pub(crate) reservation: String,
}

impl ErrorSubject {
    /// The subject, as far as it is known.
    pub(crate) fn of(event: Option<EventId>, reservation: Option<ReservationId>) -> Self {
        Self {
            event: event.map_or_else(String::new, EventId::into_string),
            reservation: reservation.map_or_else(String::new, ReservationId::into_string),
        }
    }

    fn describe(&self, mut status: Status) -> Status {
        if !self.event.is_empty() {
            status = status.with_metadata("event_id", self.event.as_str());
        }
        if !self.reservation.is_empty() {
            status = status.with_metadata("reservation_id", self.reservation.as_str());
        }
        status
    }
}

/// The reason of a rejection, the same in both contracts and in the metrics.
pub(crate) fn reason_of(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::InsufficientInventory { .. } => reason::INSUFFICIENT_INVENTORY,
        Rejection::EventNotFound => reason::EVENT_NOT_FOUND,
        Rejection::EventClosed => reason::EVENT_CLOSED,
        Rejection::SeatsUnavailable { .. } => reason::SEAT_UNAVAILABLE,
        Rejection::SeatsNotFound { .. } => reason::SEAT_NOT_FOUND,
        Rejection::SectionNotFound(_) => reason::SECTION_NOT_FOUND,
        Rejection::TooManySeats { .. } => reason::INVALID_ARGUMENT,
        Rejection::IdempotencyConflict | Rejection::PaymentConflict { .. } => {
            reason::IDEMPOTENCY_CONFLICT
        }
        Rejection::ReservationReleased => reason::RESERVATION_RELEASED,
        Rejection::ReservationCommitted => reason::RESERVATION_COMMITTED,
        Rejection::HoldExpired => reason::HOLD_EXPIRED,
        Rejection::ReservationNotFound => reason::RESERVATION_NOT_FOUND,
        Rejection::ReservationNotConfirmed => reason::RESERVATION_NOT_CONFIRMED,
        Rejection::DeadlineExceeded => reason::DEADLINE_EXCEEDED,
        Rejection::Overloaded { .. } => reason::OVERLOADED,
        Rejection::StoreBusy { .. } => reason::STORE_BUSY,
        Rejection::StoreUnavailable { .. } | Rejection::OutcomeUnknown { .. } => {
            reason::STORE_UNAVAILABLE
        }
        Rejection::Internal => reason::INTERNAL,
    }
}

/// The type of conflict that a rejection counts as; `None` if other operations are not the cause.
pub(crate) fn conflict_type(rejection: &Rejection) -> Option<&'static str> {
    let is_conflict = match rejection {
        // Two payments for one order: counted apart, because somebody may have paid twice.
        Rejection::PaymentConflict { .. } => return Some("PAYMENT_CONFLICT"),
        Rejection::InsufficientInventory { .. }
        | Rejection::IdempotencyConflict
        | Rejection::ReservationReleased
        | Rejection::ReservationCommitted
        | Rejection::SeatsUnavailable { .. }
        | Rejection::HoldExpired
        | Rejection::EventClosed
        | Rejection::ReservationNotConfirmed
        | Rejection::StoreBusy { .. } => true,
        Rejection::EventNotFound
        | Rejection::SeatsNotFound { .. }
        | Rejection::SectionNotFound(_)
        | Rejection::TooManySeats { .. }
        | Rejection::ReservationNotFound
        | Rejection::DeadlineExceeded
        | Rejection::Overloaded { .. }
        | Rejection::StoreUnavailable { .. }
        | Rejection::OutcomeUnknown { .. }
        | Rejection::Internal => false,
    };
    is_conflict.then(|| reason_of(rejection))
}

/// The status of a rejection, with the contract's names of fields.
pub(crate) fn status_of(
    rejection: &Rejection,
    subject: &ErrorSubject,
    names: FieldNames,
) -> Status {
    let reason = reason_of(rejection);
    let status = |code, message: &'static str| Status::new(code, reason, message);
    let status = match rejection {
        Rejection::InsufficientInventory { remaining } => {
            let message = format!("insufficient inventory: {remaining} available");
            Status::new(Code::Aborted, reason, message)
                .with_metadata("remaining", remaining.to_string())
        }
        Rejection::EventNotFound => status(Code::NotFound, "event not found"),
        Rejection::EventClosed => {
            status(Code::FailedPrecondition, "the event is closed for new reservations")
        }
        Rejection::SeatsUnavailable { seats } => {
            let (seats, more) = listed(seats);
            let message = format!("seats not available: {seats}{more}");
            Status::new(Code::Aborted, reason, message).with_metadata("seat_ids", seats)
        }
        Rejection::SeatsNotFound { seats, seated } => seats_status(seats, *seated, names),
        Rejection::SectionNotFound(unknown) => section_status(unknown),
        Rejection::TooManySeats { most } => {
            let mut violations = FieldViolations::of(names);
            let problem = format!("must be 1 to {most} in an event with seats");
            violations.add(names.quantity, problem);
            return invalid_argument(violations, subject);
        }
        Rejection::HoldExpired => {
            status(Code::FailedPrecondition, "the hold has expired; use a new reservation_id")
        }
        Rejection::ReservationNotFound => status(Code::NotFound, "reservation not found"),
        Rejection::ReservationNotConfirmed => {
            status(Code::FailedPrecondition, "only a confirmed reservation can be refunded")
        }
        Rejection::IdempotencyConflict => status(
            Code::AlreadyExists,
            "this reservation_id was used with another event, quantity or seats",
        ),
        Rejection::PaymentConflict { order } => status(
            Code::AlreadyExists,
            "the reservation is confirmed with another payment_intent_id; this payment is not recorded",
        )
        .with_metadata("order_id", order.to_text())
        .with_metadata("field", PAYMENT_FIELD),
        Rejection::ReservationReleased => status(
            Code::FailedPrecondition,
            "the reservation was released or refunded; use a new reservation_id",
        ),
        Rejection::ReservationCommitted => status(
            Code::FailedPrecondition,
            "the reservation is confirmed; it can be neither held again nor released",
        ),
        Rejection::DeadlineExceeded => status(
            Code::DeadlineExceeded,
            "the deadline passed before the write was sent; the request was not executed",
        ),
        Rejection::Overloaded { retry_after } => {
            status(Code::ResourceExhausted, "overloaded; the request was not executed")
                .with_retry_after(span(*retry_after))
        }
        Rejection::StoreBusy { retry_after } => status(
            Code::Unavailable,
            "the store throttles or has conflicting writes; the request was not executed",
        )
        .with_retry_after(span(*retry_after)),
        Rejection::StoreUnavailable { retry_after } => {
            status(Code::Unavailable, "the store is unavailable")
                .with_retry_after(span(*retry_after))
        }
        Rejection::OutcomeUnknown { retry_after } => status(
            Code::Unavailable,
            "the store did not answer in time; the request may have been executed: repeat it",
        )
        .with_retry_after(span(*retry_after)),
        Rejection::Internal => {
            Status::internal(reason, "the store did not accept this reservation")
        }
    };
    subject.describe(status)
}

fn seats_status(seats: &[SeatId], seated: bool, names: FieldNames) -> Status {
    let (seats, more) = listed(seats);
    let message = match seated {
        true => format!("seats not found: {seats}{more}"),
        false => {
            let quantity = names.quantity;
            format!("the event has no seats; request {quantity} instead of seat_ids: {seats}{more}")
        }
    };
    Status::new(Code::NotFound, reason::SEAT_NOT_FOUND, message).with_metadata("seat_ids", seats)
}

fn section_status(unknown: &UnknownSection) -> Status {
    let UnknownSection { section, nearest, known } = unknown;
    let hint = match nearest {
        Some(nearest) => format!("; the nearest is {nearest:?}"),
        None => String::new(),
    };
    let message = format!("section not found: {section:?}{hint}");
    let status = Status::new(Code::NotFound, reason::SECTION_NOT_FOUND, message)
        .with_metadata("section", section.as_str())
        .with_metadata("sections", known.join(","));
    match nearest {
        Some(nearest) => status.with_metadata("nearest", nearest.as_str()),
        None => status,
    }
}

/// The status of a call whose deadline passed while its outcome was still open.
pub(crate) fn deadline_status(subject: &ErrorSubject) -> Status {
    subject.describe(Status::new(
        Code::DeadlineExceeded,
        reason::DEADLINE_EXCEEDED,
        "the deadline passed before the outcome was known; retry with the same reservation_id to get the outcome",
    ))
}

/// The status of a call whose answer was lost with its shard: the write may have succeeded.
pub(crate) fn shutdown_status(subject: &ErrorSubject) -> Status {
    subject.describe(Status::new(
        Code::Unavailable,
        inventory_grpc::reason::SHUTTING_DOWN,
        "the server is shutting down; retry with the same reservation_id",
    ))
}

/// The status of a request with invalid fields.
pub(crate) fn invalid_argument(violations: FieldViolations, subject: &ErrorSubject) -> Status {
    let omitted = violations.omitted();
    let violations = violations.into_vec();
    let mut listed: Vec<String> =
        violations.iter().map(|v| format!("{} {}", v.field, v.problem)).collect();
    if omitted > 0 {
        listed.push(format!("and {omitted} more"));
    }
    let mut status =
        Status::new(Code::InvalidArgument, reason::INVALID_ARGUMENT, listed.join("; "));
    for violation in violations {
        status = status.with_violation(violation.field, violation.problem);
    }
    subject.describe(status)
}

/// The status for an answer of another verb, which the rules never produce.
pub(crate) fn unexpected_answer() -> Status {
    Status::internal(reason::INTERNAL, "unexpected answer to this call")
}

/// The seats, separated by commas, as many as fit into an error, and a text about further ones.
fn listed(seats: &[SeatId]) -> (String, String) {
    let mut bytes = 0;
    let fitting = seats.iter().take_while(|seat| {
        bytes += seat.as_str().len() + 1;
        bytes <= limits::ERROR_TEXT_BYTES_MAX
    });
    let ids: Vec<&str> = fitting.map(SeatId::as_str).collect();
    let more = match seats.len() - ids.len() {
        0 => String::new(),
        further => format!(" and {further} more"),
    };
    (ids.join(","), more)
}

fn span(micros: Micros) -> Duration {
    Duration::from_micros(micros.0)
}
