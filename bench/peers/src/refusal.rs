//! Which gRPC status a refusal is: the contract's table, code by code and reason by reason.

use std::time::Duration;

use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::limits::RETRY_AFTER;

/// `ErrorInfo.domain`.
const DOMAIN: &str = "inventory.v1";

/// Why a call did not do what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    InsufficientInventory {
        remaining: u64,
    },
    EventNotFound,
    EventClosed,
    /// The event has seats, or seats were asked for: the peer sells quantities.
    Seats,
    IdempotencyConflict,
    ReservationReleased,
    ReservationCommitted,
    ReservationNotFound,
    HoldExpired,
    /// The outcome may still be open.
    DeadlineExceeded,
    Overloaded,
    /// Conflicts or throttling outlasted the retries; nothing was done.
    StoreBusy,
    /// The SDK gave up: the outcome is not known, and a repeat learns it.
    StoreUnavailable,
    Internal,
}

/// Whom a status is about; empty where it is not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    pub event: &'a str,
    pub reservation: &'a str,
}

impl Refusal {
    fn code_and_reason(&self) -> (Code, &'static str) {
        match self {
            Self::InsufficientInventory { .. } => (Code::Aborted, "INSUFFICIENT_INVENTORY"),
            Self::EventNotFound => (Code::NotFound, "EVENT_NOT_FOUND"),
            Self::EventClosed => (Code::FailedPrecondition, "EVENT_CLOSED"),
            Self::Seats => (Code::Unimplemented, "SEATS_NOT_SOLD_HERE"),
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
                return format!("not enough left: {remaining} remaining");
            }
            Self::EventNotFound => "no such event",
            Self::EventClosed => "the event takes no new reservations",
            Self::Seats => "this peer sells quantities, not seats",
            Self::IdempotencyConflict => {
                "this reservation_id was used with another event, quantity or seats"
            }
            Self::ReservationReleased => {
                "the reservation is released; a new one needs a new reservation_id"
            }
            Self::ReservationCommitted => {
                "the reservation is confirmed; a sold ticket is not released"
            }
            Self::ReservationNotFound => "there is no such reservation",
            Self::HoldExpired => {
                "the hold is past its time and what it had is gone; a new one needs a new \
                 reservation_id"
            }
            Self::DeadlineExceeded => {
                "the deadline passed before the outcome was known; a repeat of the call learns it"
            }
            Self::Overloaded => "too much is under way; nothing was done",
            Self::StoreBusy => "the store is throttling or contended; nothing was done",
            Self::StoreUnavailable => "the store cannot be used now; a repeat learns the outcome",
            Self::Internal => "the store did not accept this reservation",
        }
        .to_owned()
    }

    /// When to come back, of what passes.
    fn retry_after(&self) -> Option<Duration> {
        let passes = matches!(
            self,
            Self::Overloaded | Self::StoreBusy | Self::StoreUnavailable
        );
        passes.then_some(RETRY_AFTER)
    }

    /// The status, with the details that the contract promises.
    pub fn status(&self, about: Subject<'_>) -> Status {
        let (code, reason) = self.code_and_reason();
        let mut details = info(reason, about);
        let mut metadata = MetadataMap::new();
        if let Self::InsufficientInventory { remaining } = self
            && let Some(info) = details.error_info()
        {
            let mut info = info.clone();
            info.metadata
                .insert("remaining".to_owned(), remaining.to_string());
            details.set_error_info(info.reason, info.domain, info.metadata);
        }
        if let Some(pause) = self.retry_after() {
            details.set_retry_info(Some(pause));
            if let Ok(millis) = pause.as_millis().to_string().parse() {
                metadata.insert("grpc-retry-pushback-ms", millis);
            }
        }
        Status::with_error_details_and_metadata(code, self.message(), details, metadata)
    }
}

/// The status of a request with these bad fields.
pub fn invalid(violations: &[(&'static str, String)], about: Subject<'_>) -> Status {
    let mut details = info("INVALID_ARGUMENT", about);
    for (field, problem) in violations {
        details.add_bad_request_violation(*field, problem);
    }
    let listed: Vec<String> = violations
        .iter()
        .map(|(field, problem)| format!("{field} {problem}"))
        .collect();
    Status::with_error_details(Code::InvalidArgument, listed.join("; "), details)
}

fn info(reason: &str, about: Subject<'_>) -> ErrorDetails {
    let named = [
        ("event_id", about.event),
        ("reservation_id", about.reservation),
    ];
    let metadata = named
        .into_iter()
        .filter(|(_, id)| !id.is_empty())
        .map(|(name, id)| (name.to_owned(), id.to_owned()));
    ErrorDetails::with_error_info(
        reason,
        DOMAIN,
        metadata.collect::<std::collections::HashMap<_, _>>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_says_when_to_come_back() {
        let about = Subject {
            event: "evt",
            reservation: "r1",
        };
        let status = Refusal::StoreBusy.status(about);
        assert_eq!(status.code(), Code::Unavailable);
        let pause = status.get_details_retry_info().unwrap().retry_delay;
        assert_eq!(pause, Some(RETRY_AFTER));
        assert_eq!(
            status.metadata().get("grpc-retry-pushback-ms").unwrap(),
            "100"
        );
        let status = Refusal::HoldExpired.status(about);
        assert!(status.get_details_retry_info().is_none());
        let info = status.get_details_error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("HOLD_EXPIRED", DOMAIN)
        );
        assert_eq!(info.metadata["reservation_id"], "r1");
    }

    #[test]
    fn what_is_left_is_told() {
        let status = Refusal::InsufficientInventory { remaining: 3 }.status(Subject::default());
        assert_eq!(status.code(), Code::Aborted);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.metadata["remaining"], "3");
        assert!(!info.metadata.contains_key("event_id"));
    }
}
