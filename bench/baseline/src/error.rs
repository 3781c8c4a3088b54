//! gRPC status of each failure: code, reason and details as the contract's table defines them.

use std::collections::HashMap;
use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::limits::RETRY_AFTER;

/// `ErrorInfo.domain`.
const DOMAIN: &str = "inventory.v1";

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaselineError {
    InsufficientInventory {
        remaining: u64,
    },
    EventNotFound,
    EventClosed,
    /// The event has seats, or the call asks for seats: the baseline sells quantities only.
    SeatsUnsupported,
    IdempotencyConflict,
    ReservationReleased,
    ReservationCommitted,
    ReservationNotFound,
    HoldExpired,
    /// The outcome may be unknown.
    DeadlineExceeded,
    Overloaded,
    /// Conflicts or throttling outlasted the retries; nothing was written.
    StoreBusy,
    /// The SDK gave up: the outcome is unknown until the call is retried.
    StoreUnavailable,
    Internal,
}

/// Ids that a status names; empty where unknown.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorSubject<'a> {
    pub event: &'a str,
    pub reservation: &'a str,
}

impl BaselineError {
    fn code_and_reason(&self) -> (Code, &'static str) {
        match self {
            Self::InsufficientInventory { .. } => (Code::Aborted, "INSUFFICIENT_INVENTORY"),
            Self::EventNotFound => (Code::NotFound, "EVENT_NOT_FOUND"),
            Self::EventClosed => (Code::FailedPrecondition, "EVENT_CLOSED"),
            Self::SeatsUnsupported => (Code::Unimplemented, "SEATS_NOT_SOLD_HERE"),
            Self::IdempotencyConflict => (Code::AlreadyExists, "IDEMPOTENCY_CONFLICT"),
            Self::ReservationReleased => (Code::FailedPrecondition, "RESERVATION_RELEASED"),
            Self::ReservationCommitted => (Code::FailedPrecondition, "RESERVATION_COMMITTED"),
            Self::ReservationNotFound => (Code::NotFound, "RESERVATION_NOT_FOUND"),
            Self::HoldExpired => (Code::FailedPrecondition, "HOLD_EXPIRED"),
            Self::DeadlineExceeded => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            Self::Overloaded => (Code::ResourceExhausted, "OVERLOADED"),
            Self::StoreBusy => (Code::Unavailable, "STORE_BUSY"),
            Self::StoreUnavailable => (Code::Unavailable, "STORE_UNAVAILABLE"),
            Self::Internal => (Code::Internal, "INTERNAL"),
        }
    }

    fn message(&self) -> String {
        match self {
            Self::InsufficientInventory { remaining } => {
                return format!("insufficient inventory: {remaining} remaining");
            }
            Self::EventNotFound => "event not found",
            Self::EventClosed => "the event is closed for new reservations",
            Self::SeatsUnsupported => "the baseline service sells quantities, not seats",
            Self::IdempotencyConflict => {
                "this reservation_id was used with another event, quantity or seats"
            }
            Self::ReservationReleased => {
                "the reservation was released; use a new reservation_id for a new reservation"
            }
            Self::ReservationCommitted => {
                "the reservation is confirmed; a sold ticket cannot be released"
            }
            Self::ReservationNotFound => "reservation not found",
            Self::HoldExpired => {
                "the hold expired and its units were sold; use a new reservation_id for a new reservation"
            }
            Self::DeadlineExceeded => {
                "deadline exceeded before the outcome was known; retry with the same reservation_id to get it"
            }
            Self::Overloaded => "overloaded; the request was not executed",
            Self::StoreBusy => "the store throttles or is contended; the request was not executed",
            Self::StoreUnavailable => {
                "the store is unavailable; retry with the same reservation_id to get the outcome"
            }
            Self::Internal => "the store rejected this reservation",
        }
        .to_owned()
    }

    /// Retry delay of transient errors.
    fn retry_after(&self) -> Option<Duration> {
        let is_transient =
            matches!(self, Self::Overloaded | Self::StoreBusy | Self::StoreUnavailable);
        is_transient.then_some(RETRY_AFTER)
    }

    /// The status with the details that the contract promises.
    pub fn status(&self, subject: ErrorSubject<'_>) -> Status {
        let (code, reason) = self.code_and_reason();
        let mut info = subject.metadata();
        if let Self::InsufficientInventory { remaining } = self {
            info.insert("remaining".to_owned(), remaining.to_string());
        }
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, info);
        let mut metadata = MetadataMap::new();
        if let Some(delay) = self.retry_after() {
            details.set_retry_info(Some(delay));
            if let Ok(millis) = delay.as_millis().to_string().parse() {
                metadata.insert("grpc-retry-pushback-ms", millis);
            }
        }
        Status::with_error_details_and_metadata(code, self.message(), details, metadata)
    }
}

/// The status of a request with these field violations.
pub fn invalid_argument(
    violations: &[(&'static str, String)],
    subject: ErrorSubject<'_>,
) -> Status {
    let mut details = ErrorDetails::with_error_info("INVALID_ARGUMENT", DOMAIN, subject.metadata());
    for (field, problem) in violations {
        details.add_bad_request_violation(*field, problem);
    }
    let listed: Vec<String> =
        violations.iter().map(|(field, problem)| format!("{field} {problem}")).collect();
    Status::with_error_details(Code::InvalidArgument, listed.join("; "), details)
}

impl ErrorSubject<'_> {
    fn metadata(self) -> HashMap<String, String> {
        [("event_id", self.event), ("reservation_id", self.reservation)]
            .into_iter()
            .filter(|(_, id)| !id.is_empty())
            .map(|(name, id)| (name.to_owned(), id.to_owned()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_transient_errors_carry_a_retry_delay() {
        let subject = ErrorSubject { event: "evt", reservation: "r1" };
        let status = BaselineError::StoreBusy.status(subject);
        assert_eq!(status.code(), Code::Unavailable);
        let delay = status.get_details_retry_info().unwrap().retry_delay;
        assert_eq!(delay, Some(RETRY_AFTER));
        let pushback = status.metadata().get("grpc-retry-pushback-ms");
        assert_eq!(pushback.unwrap(), "100");
        let status = BaselineError::HoldExpired.status(subject);
        assert!(status.get_details_retry_info().is_none());
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("HOLD_EXPIRED", DOMAIN));
        assert_eq!(info.metadata["reservation_id"], "r1");
    }

    #[test]
    fn insufficient_inventory_reports_the_remaining_units() {
        let status =
            BaselineError::InsufficientInventory { remaining: 3 }.status(ErrorSubject::default());
        assert_eq!(status.code(), Code::Aborted);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["remaining"], "3");
        assert!(!info.metadata.contains_key("event_id"));
    }
}
