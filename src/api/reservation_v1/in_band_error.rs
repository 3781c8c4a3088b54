//! Rejections within a response: which ones, with which code and details.

use http::HeaderMap;
use inventory_proto::common::v1::{Error, ErrorCode, ErrorDetail};

use crate::api::rejection::{self, ErrorSubject};
use crate::api::validate::RESERVATION_V1;
use inventory_core::answer::Rejection;
use inventory_core::ids::SeatId;

/// W3C Trace Context.
const TRACEPARENT: &str = "traceparent";

/// The code of a business rejection; `None` for a rejection that is a gRPC error.
pub(super) fn code_of(rejection: &Rejection) -> Option<ErrorCode> {
    Some(match rejection {
        Rejection::InsufficientInventory { .. } => ErrorCode::InsufficientInventory,
        Rejection::SeatsUnavailable { .. } => ErrorCode::InventoryConflict,
        Rejection::EventNotFound
        | Rejection::SeatsNotFound { .. }
        | Rejection::SectionNotFound(_)
        | Rejection::ReservationNotFound => ErrorCode::NotFound,
        Rejection::IdempotencyConflict | Rejection::PaymentConflict { .. } => {
            ErrorCode::IdempotencyConflict
        }
        Rejection::HoldExpired => ErrorCode::ReservationExpired,
        Rejection::EventClosed
        | Rejection::ReservationReleased
        | Rejection::ReservationCommitted
        | Rejection::ReservationNotConfirmed => ErrorCode::FailedPrecondition,
        Rejection::TooManySeats { .. }
        | Rejection::DeadlineExceeded
        | Rejection::Overloaded { .. }
        | Rejection::StoreBusy { .. }
        | Rejection::StoreUnavailable { .. }
        | Rejection::OutcomeUnknown { .. }
        | Rejection::Internal => return None,
    })
}

pub(super) fn is_business(rejection: &Rejection) -> bool {
    code_of(rejection).is_some()
}

/// The error of a rejection that [`is_business`].
pub(super) fn error_of(rejection: &Rejection, trace_id: String) -> Error {
    let detail = |field: &str, value: String| ErrorDetail {
        field: field.to_owned(),
        reason: rejection::reason_of(rejection).to_owned(),
        value,
    };
    let seat_details = |seats: &[SeatId]| -> Vec<ErrorDetail> {
        let ids = seats.iter();
        ids.map(|id| detail("seat_ids", id.to_string())).collect()
    };
    let details = match rejection {
        Rejection::SeatsUnavailable { seats } | Rejection::SeatsNotFound { seats, .. } => {
            seat_details(seats)
        }
        Rejection::InsufficientInventory { remaining } => {
            vec![detail("quantity", remaining.to_string())]
        }
        Rejection::EventNotFound | Rejection::EventClosed => {
            vec![detail("event_id", String::new())]
        }
        Rejection::SectionNotFound(unknown) => vec![detail("section", unknown.section.clone())],
        Rejection::PaymentConflict { .. } => vec![detail(rejection::PAYMENT_FIELD, String::new())],
        _ => vec![detail("reservation_id", String::new())],
    };
    // The same text as the status of `inventory.v1`.
    let status = rejection::status_of(rejection, &ErrorSubject::default(), RESERVATION_V1);
    Error {
        code: code_of(rejection).unwrap_or(ErrorCode::Internal).into(),
        message: status.message().to_owned(),
        trace_id,
        details,
    }
}

/// The trace id of a call; empty if the call has none.
pub(super) fn trace_id(headers: &HeaderMap) -> String {
    let value = headers.get(TRACEPARENT).and_then(|v| v.to_str().ok());
    value.and_then(trace_of).unwrap_or_default().to_owned()
}

/// Parses `version-trace-parent-flags`; a later version may have more fields.
fn trace_of(header: &str) -> Option<&str> {
    let hex = |text: &str, length: usize| {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        text.len() == length && text.bytes().all(digit)
    };
    let mut parts = header.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let (parent, flags) = (parts.next()?, parts.next()?);
    let good = hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && hex(trace, 32)
        && trace.bytes().any(|b| b != b'0')
        && hex(parent, 16)
        && hex(flags, 2);
    good.then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_is_read_from_a_legal_header_only() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let header = |value: String| {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, value.parse().unwrap_or_else(|_| unreachable!()));
            trace_id(&headers)
        };
        assert_eq!(header(format!("00-{TRACE}-00f067aa0ba902b7-01")), TRACE);
        assert_eq!(header(format!("cc-{TRACE}-00f067aa0ba902b7-01-more")), TRACE);
        for bad in [
            String::new(),
            TRACE.to_owned(),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{TRACE}x-00f067aa0ba902b7-01"),
        ] {
            assert_eq!(header(bad.clone()), "", "{bad}");
        }
        assert_eq!(trace_id(&HeaderMap::new()), "");
    }
}
