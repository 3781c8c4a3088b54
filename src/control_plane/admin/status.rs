//! Errors of the admin service as gRPC statuses with reason and metadata.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::ERROR_DOMAIN;
use super::backend::AdminError;
use crate::limits;
use inventory_core::ids::{EventId, ReservationId};
use inventory_store::NewEvent;

/// The object of a call; becomes metadata of its errors.
#[derive(Clone, Debug)]
pub(super) enum Subject {
    Event(EventId),
    Reservation(ReservationId),
    AllEvents,
}

impl Subject {
    fn metadata(&self) -> HashMap<String, String> {
        match self {
            Self::Event(id) => HashMap::from([("event_id".to_owned(), id.to_string())]),
            Self::Reservation(id) => HashMap::from([("reservation_id".to_owned(), id.to_string())]),
            Self::AllEvents => HashMap::new(),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Event(id) => format!("event {id}"),
            Self::Reservation(id) => format!("reservation {id}"),
            Self::AllEvents => "listing".to_owned(),
        }
    }
}

/// Runs `work` with the limit [`limits::ADMIN_CALL_TIMEOUT`] and maps its error.
pub(super) async fn in_time<T>(
    subject: &Subject,
    work: impl Future<Output = Result<T, AdminError>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limits::ADMIN_CALL_TIMEOUT, work).await {
        Ok(done) => done.map_err(|error| of(&error, subject)),
        Err(_elapsed) => Err(late(subject)),
    }
}

fn late(subject: &Subject) -> Status {
    let limit = limits::ADMIN_CALL_TIMEOUT;
    let description =
        format!("no result within {limit:?}; read {} to see the outcome", subject.name());
    refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", subject, [], description)
}

/// The client of a stream stopped sending.
pub(super) fn silent(subject: &Subject) -> Status {
    let limit = limits::ADMIN_CHUNK_WAIT_MAX;
    let description = format!("no message within {limit:?}; written seats stay, repeat the import");
    refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", subject, [], description)
}

/// No write of an import ended in time.
pub(super) fn stalled(subject: &Subject) -> Status {
    let limit = limits::SEAT_WRITE_WAIT_MAX;
    let text = format!("no seat was stored within {limit:?}; stored seats stay, repeat the import");
    refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", subject, [], text)
}

/// The process has no log, as in tests.
pub(super) fn no_log() -> Status {
    let description = "this process has no log";
    refused(Code::Unimplemented, "NO_LOG", &Subject::AllEvents, [], description)
}

/// The maximum number of concurrent imports and lists of seats is reached.
pub(super) fn crowded(subject: &Subject) -> Status {
    let description =
        format!("{} imports or lists of seats are running (the maximum)", limits::IMPORTS_MAX);
    again(
        Code::ResourceExhausted,
        "IMPORTS_BUSY",
        subject,
        limits::IMPORTS_RETRY_AFTER,
        &description,
    )
}

/// INVALID_ARGUMENT with the violations in `details`.
pub(super) fn invalid(mut details: ErrorDetails) -> Status {
    let violations = details.bad_request().map(|bad| &bad.field_violations[..]);
    let description: Vec<String> = violations
        .unwrap_or_default()
        .iter()
        .map(|violation| format!("{} {}", violation.field, violation.description))
        .collect();
    details.set_error_info("INVALID_ARGUMENT", ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(Code::InvalidArgument, description.join("; "), details)
}

pub(super) fn of(error: &AdminError, subject: &Subject) -> Status {
    let name = subject.name();
    let failed =
        |reason, description| refused(Code::FailedPrecondition, reason, subject, [], description);
    match error {
        AdminError::EventNotFound => {
            refused(Code::NotFound, "EVENT_NOT_FOUND", subject, [], format!("there is no {name}"))
        }
        AdminError::EventExists(existing) => refused(
            Code::AlreadyExists,
            "EVENT_EXISTS",
            subject,
            [],
            format!("{name} exists with {}", described(existing)),
        ),
        AdminError::NotSeated => failed("EVENT_NOT_SEATED", format!("{name} has no seats")),
        AdminError::Seated => {
            failed("EVENT_SEATED", format!("{name} is seated; its total is its number of seats"))
        }
        AdminError::EventClosed => failed("EVENT_CLOSED", format!("{name} is closed")),
        AdminError::TooManySeats { most } => failed(
            "TOO_MANY_SEATS",
            format!("{name} would have more than {most} seats; seats written before stay"),
        ),
        AdminError::TotalTooSmall { total, taken } => refused(
            Code::FailedPrecondition,
            "TOTAL_TOO_SMALL",
            subject,
            [("total", *total), ("taken", *taken)],
            format!("{name} has a total of {total}, of which {taken} are held or sold"),
        ),
        AdminError::ReservationNotFound => refused(
            Code::NotFound,
            "RESERVATION_NOT_FOUND",
            subject,
            [],
            format!("there is no {name}"),
        ),
        AdminError::ReservationNotConfirmed => failed(
            "RESERVATION_NOT_CONFIRMED",
            format!("{name} is not confirmed; only confirmed reservations can be refunded"),
        ),
        AdminError::Busy { retry_after } => again(
            Code::ResourceExhausted,
            "STORE_BUSY",
            subject,
            *retry_after,
            "overloaded; the call was not executed",
        ),
        AdminError::Unfinished { retry_after } => again(
            Code::Unavailable,
            "STORE_UNAVAILABLE",
            subject,
            *retry_after,
            "the store throttles; the call, or a part of it, may be stored: repeat it",
        ),
        AdminError::Unavailable { retry_after } => again(
            Code::Unavailable,
            "STORE_UNAVAILABLE",
            subject,
            *retry_after,
            "the store is unreachable, or the server is draining",
        ),
        AdminError::Internal => refused(
            Code::Internal,
            "INTERNAL",
            subject,
            [],
            "internal error; see the log of the server",
        ),
    }
}

fn described(event: &NewEvent) -> String {
    let mut description = match event.seat_keys {
        0 if event.stripes == 1 => format!("total {} over 1 stripe", event.total),
        0 => format!("total {} over {} stripes", event.total, event.stripes),
        1 => "seats over 1 key".to_owned(),
        keys => format!("seats over {keys} keys"),
    };
    for (what, text) in [("name", &event.name), ("venue", &event.venue)] {
        if !text.is_empty() {
            description.push_str(&format!(", {what} {text:?}"));
        }
    }
    description
}

fn refused<const N: usize>(
    code: Code,
    reason: &str,
    subject: &Subject,
    numbers: [(&str, u64); N],
    description: impl Into<String>,
) -> Status {
    let mut metadata = subject.metadata();
    for (name, number) in numbers {
        metadata.insert(name.to_owned(), number.to_string());
    }
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
    Status::with_error_details(code, description, details)
}

/// An error that a later retry may not get, with the time to wait.
fn again(
    code: Code,
    reason: &str,
    subject: &Subject,
    after: Duration,
    description: &str,
) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, subject.metadata());
    details.set_retry_info(Some(after));
    let mut status = Status::with_error_details(code, description, details);
    let pushback = (after.as_millis() as u64).into();
    status.metadata_mut().insert("grpc-retry-pushback-ms", pushback);
    status
}
