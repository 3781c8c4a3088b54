//! Which gRPC status a refusal is. The table is the contract's; clients decide by the reason.

use std::time::Duration;

use super::validate::FieldViolations;
use inventory_core::answer::Rejection;
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_core::time::Micros;
use inventory_grpc::{Code, Status};

/// `ErrorInfo.reason` of every business error.
pub mod reason {
    pub const INSUFFICIENT_INVENTORY: &str = "INSUFFICIENT_INVENTORY";
    pub const EVENT_NOT_FOUND: &str = "EVENT_NOT_FOUND";
    pub const SEAT_NOT_FOUND: &str = "SEAT_NOT_FOUND";
    pub const IDEMPOTENCY_CONFLICT: &str = "IDEMPOTENCY_CONFLICT";
    pub const RESERVATION_RELEASED: &str = "RESERVATION_RELEASED";
    pub const RESERVATION_COMMITTED: &str = "RESERVATION_COMMITTED";
    pub const RESERVATION_NOT_FOUND: &str = "RESERVATION_NOT_FOUND";
    pub const RESERVATION_NOT_CONFIRMED: &str = "RESERVATION_NOT_CONFIRMED";
    pub const SEAT_UNAVAILABLE: &str = "SEAT_UNAVAILABLE";
    pub const HOLD_EXPIRED: &str = "HOLD_EXPIRED";
    pub const EVENT_CLOSED: &str = "EVENT_CLOSED";
    pub const DEADLINE_EXCEEDED: &str = inventory_grpc::reason::DEADLINE_EXCEEDED;
    pub const OVERLOADED: &str = "OVERLOADED";
    pub const STORE_BUSY: &str = "STORE_BUSY";
    pub const STORE_UNAVAILABLE: &str = "STORE_UNAVAILABLE";
    pub const INVALID_ARGUMENT: &str = "INVALID_ARGUMENT";
    pub const INTERNAL: &str = "INTERNAL";
}

/// Whom a status is about; goes into `ErrorInfo.metadata`.
#[derive(Clone, Debug, Default)]
pub struct ErrorSubject {
    pub event: String,
    /// Empty where the call has none.
    pub reservation: String,
}

impl ErrorSubject {
    /// As far as they are known.
    pub fn of(event: Option<EventId>, reservation: Option<ReservationId>) -> Self {
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

/// The reason of a refusal, the same on both contracts and in the metrics.
pub fn reason_of(refusal: &Rejection) -> &'static str {
    match refusal {
        Rejection::InsufficientInventory { .. } => reason::INSUFFICIENT_INVENTORY,
        Rejection::EventNotFound => reason::EVENT_NOT_FOUND,
        Rejection::EventClosed => reason::EVENT_CLOSED,
        Rejection::SeatsUnavailable { .. } => reason::SEAT_UNAVAILABLE,
        Rejection::SeatsNotFound { .. } => reason::SEAT_NOT_FOUND,
        Rejection::IdempotencyConflict => reason::IDEMPOTENCY_CONFLICT,
        Rejection::ReservationReleased => reason::RESERVATION_RELEASED,
        Rejection::ReservationCommitted => reason::RESERVATION_COMMITTED,
        Rejection::HoldExpired => reason::HOLD_EXPIRED,
        Rejection::ReservationNotFound => reason::RESERVATION_NOT_FOUND,
        Rejection::ReservationNotConfirmed => reason::RESERVATION_NOT_CONFIRMED,
        Rejection::DeadlineExceeded => reason::DEADLINE_EXCEEDED,
        Rejection::Overloaded { .. } => reason::OVERLOADED,
        Rejection::StoreBusy { .. } => reason::STORE_BUSY,
        Rejection::StoreUnavailable { .. } => reason::STORE_UNAVAILABLE,
        Rejection::Internal => reason::INTERNAL,
    }
}

/// Whether an operation was refused because of what others had done, which is a conflict.
pub fn is_conflict(refusal: &Rejection) -> bool {
    match refusal {
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
        | Rejection::ReservationNotFound
        | Rejection::DeadlineExceeded
        | Rejection::Overloaded { .. }
        | Rejection::StoreUnavailable { .. }
        | Rejection::Internal => false,
    }
}

/// The status of a refusal.
pub fn status_of(refusal: &Rejection, subject: &ErrorSubject) -> Status {
    let reason = reason_of(refusal);
    let status = match refusal {
        Rejection::InsufficientInventory { remaining } => Status::new(
            Code::Aborted,
            reason,
            format!("not enough left: {remaining} remaining"),
        )
        .with_metadata("remaining", remaining.to_string()),
        Rejection::EventNotFound => Status::new(Code::NotFound, reason, "no such event"),
        Rejection::EventClosed => Status::new(
            Code::FailedPrecondition,
            reason,
            "the event takes no new reservations",
        ),
        Rejection::SeatsUnavailable { seats } => {
            let seats = listed(seats);
            let said = format!("others have these seats: {seats}");
            Status::new(Code::Aborted, reason, said).with_metadata("seat_ids", seats)
        }
        Rejection::SeatsNotFound { seats } => {
            let seats = listed(seats);
            let said = format!("the event has no such seats: {seats}");
            Status::new(Code::NotFound, reason, said).with_metadata("seat_ids", seats)
        }
        Rejection::HoldExpired => Status::new(
            Code::FailedPrecondition,
            reason,
            "the hold is past its time and what it had is gone; a new one needs a new reservation_id",
        ),
        Rejection::ReservationNotFound => {
            Status::new(Code::NotFound, reason, "there is no such reservation")
        }
        Rejection::ReservationNotConfirmed => Status::new(
            Code::FailedPrecondition,
            reason,
            "only a confirmed reservation can be refunded",
        ),
        Rejection::IdempotencyConflict => Status::new(
            Code::AlreadyExists,
            reason,
            "this reservation_id was used with another event, quantity or seats",
        ),
        Rejection::ReservationReleased => Status::new(
            Code::FailedPrecondition,
            reason,
            "the reservation is released; a new one needs a new reservation_id",
        ),
        Rejection::ReservationCommitted => Status::new(
            Code::FailedPrecondition,
            reason,
            "the reservation is confirmed; a sold ticket is not released",
        ),
        Rejection::DeadlineExceeded => Status::new(
            Code::DeadlineExceeded,
            reason,
            "the deadline passed before the write was sent; nothing was done",
        ),
        Rejection::Overloaded { retry_after } => Status::new(
            Code::ResourceExhausted,
            reason,
            "too much is queued; nothing was done",
        )
        .with_retry_after(span(*retry_after)),
        Rejection::StoreBusy { retry_after } => Status::new(
            Code::Unavailable,
            reason,
            "the store is throttling or contended; nothing was done",
        )
        .with_retry_after(span(*retry_after)),
        Rejection::StoreUnavailable { retry_after } => {
            Status::new(Code::Unavailable, reason, "the store cannot be used now")
                .with_retry_after(span(*retry_after))
        }
        Rejection::Internal => {
            Status::internal(reason, "the store did not accept this reservation")
        }
    };
    subject.describe(status)
}

/// The status of a call whose deadline passed while its outcome was still open.
pub fn deadline_status(subject: &ErrorSubject) -> Status {
    subject.describe(Status::new(
        Code::DeadlineExceeded,
        reason::DEADLINE_EXCEEDED,
        "the deadline passed before the outcome was known; a repeat of the call learns it",
    ))
}

/// The status of a call whose answer was lost with the shard: the write may have taken effect.
pub fn shutdown_status(subject: &ErrorSubject) -> Status {
    subject.describe(Status::new(
        Code::Unavailable,
        inventory_grpc::reason::SHUTTING_DOWN,
        "the server is leaving; repeat the call with the same reservation_id",
    ))
}

/// The status of a request with bad fields.
pub fn invalid_argument(violations: FieldViolations, subject: &ErrorSubject) -> Status {
    let violations = violations.into_vec();
    let listed: Vec<String> = violations
        .iter()
        .map(|v| format!("{} {}", v.field, v.problem))
        .collect();
    let mut status = Status::new(
        Code::InvalidArgument,
        reason::INVALID_ARGUMENT,
        listed.join("; "),
    );
    for violation in violations {
        status = status.with_violation(violation.field, violation.problem);
    }
    subject.describe(status)
}

/// An answer that does not fit the call: the rules never give one verb another's success.
pub fn unexpected_answer() -> Status {
    Status::internal(reason::INTERNAL, "the answer does not fit the call")
}

fn listed(seats: &[SeatId]) -> String {
    let ids: Vec<&str> = seats.iter().map(SeatId::as_str).collect();
    ids.join(",")
}

fn span(micros: Micros) -> Duration {
    Duration::from_micros(micros.0)
}
