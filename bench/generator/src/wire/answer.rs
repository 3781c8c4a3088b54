//! Decoding of answers: gRPC statuses with their reasons and, in `reservation.v1`, errors in the message.

use h2::RecvStream;
use http::{HeaderMap, Response};
use inventory_proto::common::v1 as common;
use inventory_proto::inventory::v1 as a;
use inventory_proto::reservation::v1 as b;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::outcome::{CallAnswer, CallMethod, OrderId, OutcomeKind};
use crate::scenario::Contract;

/// Result of reading the head of a response.
pub(crate) enum ResponseHead {
    /// The call is over: a status without a message, or not gRPC.
    Done(OutcomeKind),
    Body,
}

/// Reads the head of a response.
pub(crate) fn head(response: &Response<RecvStream>) -> ResponseHead {
    if response.status() != http::StatusCode::OK {
        return ResponseHead::Done(match response.status().as_u16() {
            429 | 502..=504 => OutcomeKind::Unavailable,
            _ => OutcomeKind::Malformed,
        });
    }
    if response.headers().contains_key("grpc-status") {
        return ResponseHead::Done(status(response.headers()));
    }
    match response.body().is_end_stream() {
        true => ResponseHead::Done(OutcomeKind::Malformed),
        false => ResponseHead::Body,
    }
}

/// The answer of a complete call: its message and its trailers.
pub(crate) fn whole(
    contract: Contract,
    method: CallMethod,
    body: &[u8],
    trailers: &HeaderMap,
) -> CallAnswer {
    match status(trailers) {
        OutcomeKind::Ok => {
            message(contract, method, body).unwrap_or(CallAnswer::of(OutcomeKind::Malformed))
        }
        refused => CallAnswer::of(refused),
    }
}

/// The outcome of a status: by its ErrorInfo reason, else by its code.
pub(crate) fn status(headers: &HeaderMap) -> OutcomeKind {
    let Some(code) = headers.get("grpc-status") else {
        return OutcomeKind::Malformed;
    };
    if code == "0" {
        return OutcomeKind::Ok;
    }
    let Some(status) = Status::from_header_map(headers) else {
        return OutcomeKind::Malformed;
    };
    let info = status.get_details_error_info();
    info.and_then(|info| of_reason(&info.reason)).unwrap_or_else(|| of_code(status.code()))
}

fn of_code(code: Code) -> OutcomeKind {
    match code {
        Code::Ok => OutcomeKind::Ok,
        Code::Cancelled | Code::DeadlineExceeded => OutcomeKind::Deadline,
        Code::InvalidArgument | Code::OutOfRange => OutcomeKind::Invalid,
        Code::NotFound => OutcomeKind::NotFound,
        Code::AlreadyExists => OutcomeKind::Conflict,
        Code::ResourceExhausted => OutcomeKind::Shed,
        Code::FailedPrecondition => OutcomeKind::Released,
        Code::Aborted => OutcomeKind::SoldOut,
        Code::Unavailable => OutcomeKind::Unavailable,
        _ => OutcomeKind::Internal,
    }
}

fn of_reason(reason: &str) -> Option<OutcomeKind> {
    Some(match reason {
        "INSUFFICIENT_INVENTORY" => OutcomeKind::SoldOut,
        "SEAT_UNAVAILABLE" => OutcomeKind::SeatTaken,
        "RESERVATION_RELEASED" => OutcomeKind::Released,
        "RESERVATION_COMMITTED" => OutcomeKind::Committed,
        "HOLD_EXPIRED" => OutcomeKind::HoldExpired,
        "EVENT_CLOSED" => OutcomeKind::Closed,
        "IDEMPOTENCY_CONFLICT" => OutcomeKind::Conflict,
        "EVENT_NOT_FOUND" | "SEAT_NOT_FOUND" | "RESERVATION_NOT_FOUND" => OutcomeKind::NotFound,
        "INVALID_ARGUMENT" => OutcomeKind::Invalid,
        // For all other reasons the code decides.
        _ => return None,
    })
}

fn message(contract: Contract, method: CallMethod, body: &[u8]) -> Option<CallAnswer> {
    let (prefix, rest) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?) as usize;
    if prefix[0] != 0 || rest.len() != length {
        return None;
    }
    match contract {
        Contract::InventoryV1 => message_a(method, rest),
        Contract::ReservationV1 => message_b(method, rest),
    }
}

fn checked(available: bool) -> CallAnswer {
    CallAnswer::of(match available {
        true => OutcomeKind::Ok,
        false => OutcomeKind::NotAvailable,
    })
}

fn held(expiry: Option<prost_types::Timestamp>) -> Option<CallAnswer> {
    let expiry = expiry?;
    let millis = expiry.seconds.wrapping_mul(1_000) + i64::from(expiry.nanos / 1_000_000);
    Some(CallAnswer { hold_expiry: millis as u32, ..CallAnswer::of(OutcomeKind::Ok) })
}

fn ordered(order_id: &str) -> Option<CallAnswer> {
    Some(CallAnswer { order: Some(OrderId::of(order_id)?), ..CallAnswer::of(OutcomeKind::Ok) })
}

fn message_a(method: CallMethod, body: &[u8]) -> Option<CallAnswer> {
    match method {
        CallMethod::Check => Some(checked(a::CheckRes::decode(body).ok()?.available)),
        CallMethod::Hold => {
            let message = a::PlaceHoldRes::decode(body).ok()?;
            (message.status == "HELD").then(|| held(message.hold_expires_at))?
        }
        CallMethod::Commit | CallMethod::DirectCommit => {
            let message = a::CommitRes::decode(body).ok()?;
            (message.status == "CONFIRMED").then(|| ordered(&message.order_id))?
        }
        CallMethod::Release => {
            let message = a::ReleaseRes::decode(body).ok()?;
            (message.status == "RELEASED").then(|| CallAnswer::of(OutcomeKind::Ok))
        }
    }
}

fn message_b(method: CallMethod, body: &[u8]) -> Option<CallAnswer> {
    match method {
        CallMethod::Check => {
            let message = b::CheckAvailabilityResponse::decode(body).ok()?;
            Some(refused(message.error.as_ref()).unwrap_or(checked(message.available)))
        }
        CallMethod::Hold => {
            let message = b::ReserveSeatResponse::decode(body).ok()?;
            match refused(message.error.as_ref()) {
                Some(answer) => Some(answer),
                None if message.status() == b::HoldStatus::Active => held(message.hold_expires_at),
                None => None,
            }
        }
        CallMethod::Commit | CallMethod::DirectCommit => {
            let message = b::CommitReservationResponse::decode(body).ok()?;
            match refused(message.error.as_ref()) {
                Some(answer) => Some(answer),
                None if message.status() == b::CommitStatus::Success => ordered(&message.order_id),
                None => None,
            }
        }
        CallMethod::Release => {
            let message = b::ReleaseHoldResponse::decode(body).ok()?;
            use b::ReleaseStatus::{AlreadyReleased, Success};
            match refused(message.error.as_ref()) {
                Some(answer) => Some(answer),
                None => matches!(message.status(), Success | AlreadyReleased)
                    .then(|| CallAnswer::of(OutcomeKind::Ok)),
            }
        }
    }
}

/// The outcome of an error in a message; `None` without an error.
fn refused(error: Option<&common::Error>) -> Option<CallAnswer> {
    use common::ErrorCode;
    let error = error?;
    let reasons = error.details.iter().map(|detail| detail.reason.as_str());
    let outcome = reasons.filter_map(of_reason).next();
    Some(CallAnswer::of(outcome.unwrap_or(match error.code() {
        ErrorCode::Unspecified => return None,
        ErrorCode::InsufficientInventory => OutcomeKind::SoldOut,
        ErrorCode::InventoryConflict => OutcomeKind::SeatTaken,
        ErrorCode::NotFound => OutcomeKind::NotFound,
        ErrorCode::IdempotencyConflict => OutcomeKind::Conflict,
        ErrorCode::ReservationExpired => OutcomeKind::HoldExpired,
        ErrorCode::FailedPrecondition => OutcomeKind::Released,
        ErrorCode::InvalidArgument => OutcomeKind::Invalid,
        ErrorCode::RateLimited | ErrorCode::QuotaExceeded => OutcomeKind::Shed,
        ErrorCode::Unavailable => OutcomeKind::Unavailable,
        ErrorCode::Timeout | ErrorCode::UpstreamTimeout => OutcomeKind::Deadline,
        _ => OutcomeKind::Internal,
    })))
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn framed(message: &impl Message) -> Vec<u8> {
        let mut body = vec![0; 5];
        message.encode(&mut body).unwrap();
        let length = u32::try_from(body.len() - 5).unwrap();
        body[1..5].copy_from_slice(&length.to_be_bytes());
        body
    }

    fn trailers(status: &tonic::Status) -> HeaderMap {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        headers
    }

    #[test]
    fn the_reason_decides_before_the_code() {
        for (code, reason, expected) in [
            (tonic::Code::Aborted, "INSUFFICIENT_INVENTORY", OutcomeKind::SoldOut),
            (tonic::Code::Aborted, "SEAT_UNAVAILABLE", OutcomeKind::SeatTaken),
            (tonic::Code::FailedPrecondition, "HOLD_EXPIRED", OutcomeKind::HoldExpired),
            (tonic::Code::FailedPrecondition, "EVENT_CLOSED", OutcomeKind::Closed),
            (tonic::Code::ResourceExhausted, "OVERLOADED", OutcomeKind::Shed),
            (tonic::Code::Unavailable, "STORE_BUSY", OutcomeKind::Unavailable),
        ] {
            let details =
                ErrorDetails::with_error_info(reason, "d", [("k".to_owned(), "v".to_owned())]);
            let status = tonic::Status::with_error_details(code, "m", details);
            assert_eq!(super::status(&trailers(&status)), expected);
        }
        for (code, expected) in [
            (tonic::Code::Aborted, OutcomeKind::SoldOut),
            (tonic::Code::DeadlineExceeded, OutcomeKind::Deadline),
            (tonic::Code::Unknown, OutcomeKind::Internal),
        ] {
            assert_eq!(super::status(&trailers(&tonic::Status::new(code, ""))), expected);
        }
        assert_eq!(super::status(&HeaderMap::new()), OutcomeKind::Malformed);
    }

    #[test]
    fn only_complete_answers_with_the_expected_status_succeed() {
        let ok = trailers(&tonic::Status::ok(""));
        let answer = |message: &a::CommitRes| {
            whole(Contract::InventoryV1, CallMethod::DirectCommit, &framed(message), &ok)
        };
        let good = a::CommitRes {
            order_id: "ord_97c42ccd0e7f05c61e74ba7eda007525".to_owned(),
            status: "CONFIRMED".to_owned(),
        };
        assert_eq!(answer(&good).order.unwrap().to_string(), good.order_id);
        let nameless = a::CommitRes { order_id: String::new(), ..good.clone() };
        assert_eq!(answer(&nameless).outcome, OutcomeKind::Malformed);
        let other = a::CommitRes { status: "HELD".to_owned(), ..good.clone() };
        assert_eq!(answer(&other).outcome, OutcomeKind::Malformed);
        let mut cut = framed(&good);
        cut.pop();
        let message = whole(Contract::InventoryV1, CallMethod::DirectCommit, &cut, &ok);
        assert_eq!(message.outcome, OutcomeKind::Malformed);
    }

    #[test]
    fn reservation_v1_rejects_in_band() {
        let ok = trailers(&tonic::Status::ok(""));
        let mut message = b::ReserveSeatResponse {
            error: Some(common::Error {
                code: common::ErrorCode::InventoryConflict.into(),
                details: vec![common::ErrorDetail {
                    reason: "SEAT_UNAVAILABLE".to_owned(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        };
        let decode = |message: &b::ReserveSeatResponse| {
            whole(Contract::ReservationV1, CallMethod::Hold, &framed(message), &ok)
        };
        assert_eq!(decode(&message).outcome, OutcomeKind::SeatTaken);
        message.error = None;
        assert_eq!(decode(&message).outcome, OutcomeKind::Malformed);
        message.status = b::HoldStatus::Active.into();
        let at = prost_types::Timestamp { seconds: 7, nanos: 5_000_000 };
        message.hold_expires_at = Some(at);
        assert_eq!(decode(&message).hold_expiry, 7_005);
    }
}
