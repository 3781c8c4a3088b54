//! Answers as outcomes: gRPC statuses and their reasons, and on contract B what the message says.

use h2::RecvStream;
use http::{HeaderMap, Response};
use inventory_proto::common::v1 as common;
use inventory_proto::inventory::v1 as a;
use inventory_proto::reservation::v1 as b;
use prost::Message;

use crate::limits;
use crate::outcome::{Answer, Method, Order, Outcome};
use crate::scenario::Contract;

/// What the head of a response leaves to do.
pub(crate) enum Head {
    /// A status without a message, or no gRPC at all.
    Done(Outcome),
    Body,
}

/// Reads the head of a response.
pub(crate) fn head(response: &Response<RecvStream>) -> Head {
    if response.status() != http::StatusCode::OK {
        return Head::Done(match response.status().as_u16() {
            429 | 502..=504 => Outcome::Unavailable,
            _ => Outcome::Malformed,
        });
    }
    if response.headers().contains_key("grpc-status") {
        return Head::Done(status(response.headers()));
    }
    match response.body().is_end_stream() {
        true => Head::Done(Outcome::Malformed),
        false => Head::Body,
    }
}

/// The outcome of a whole call: its message and its trailers.
pub(crate) fn whole(
    contract: Contract,
    method: Method,
    body: &[u8],
    trailers: &HeaderMap,
) -> Answer {
    match status(trailers) {
        Outcome::Ok => message(contract, method, body).unwrap_or(Answer::of(Outcome::Malformed)),
        refused => Answer::of(refused),
    }
}

/// What `grpc-status` and the details beside it say.
pub(crate) fn status(headers: &HeaderMap) -> Outcome {
    let Some(code) = headers.get("grpc-status") else {
        return Outcome::Malformed;
    };
    let code: u32 = match code.to_str().ok().and_then(|code| code.parse().ok()) {
        Some(0) => return Outcome::Ok,
        Some(code) => code,
        None => return Outcome::Malformed,
    };
    let details = headers.get("grpc-status-details-bin");
    let reason = details.and_then(|value| error_reason(value.as_bytes()));
    match reason.as_deref().and_then(of_reason) {
        Some(outcome) => outcome,
        None => of_code(code),
    }
}

fn of_code(code: u32) -> Outcome {
    match code {
        1 | 4 => Outcome::Deadline,
        3 | 11 => Outcome::Invalid,
        5 => Outcome::NotFound,
        6 => Outcome::Conflict,
        8 => Outcome::Shed,
        9 => Outcome::Released,
        10 => Outcome::SoldOut,
        14 => Outcome::Unavailable,
        _ => Outcome::Internal,
    }
}

fn of_reason(reason: &str) -> Option<Outcome> {
    Some(match reason {
        "INSUFFICIENT_INVENTORY" => Outcome::SoldOut,
        "SEAT_UNAVAILABLE" => Outcome::SeatTaken,
        "RESERVATION_RELEASED" => Outcome::Released,
        "RESERVATION_COMMITTED" => Outcome::Committed,
        "HOLD_EXPIRED" => Outcome::HoldExpired,
        "EVENT_CLOSED" => Outcome::Closed,
        "IDEMPOTENCY_CONFLICT" => Outcome::Conflict,
        "EVENT_NOT_FOUND" | "SEAT_NOT_FOUND" | "RESERVATION_NOT_FOUND" => Outcome::NotFound,
        "INVALID_ARGUMENT" => Outcome::Invalid,
        // Others are told well enough by their code.
        _ => return None,
    })
}

/// `google.rpc.Status`, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.ErrorInfo`, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
}

fn error_reason(details: &[u8]) -> Option<String> {
    if details.len() > limits::ANSWER_BYTES_MAX {
        return None;
    }
    let status = RpcStatus::decode(base64(details)?.as_slice()).ok()?;
    let info = status
        .details
        .iter()
        .find(|any| any.type_url.ends_with("google.rpc.ErrorInfo"))?;
    Some(ErrorInfo::decode(info.value.as_slice()).ok()?.reason)
}

/// Standard base64, with or without padding.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii_end();
    let text = text
        .strip_suffix(b"==")
        .or(text.strip_suffix(b"="))
        .unwrap_or(text);
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for b in text {
        let value = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

fn message(contract: Contract, method: Method, body: &[u8]) -> Option<Answer> {
    let (prefix, rest) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?) as usize;
    if prefix[0] != 0 || rest.len() != length {
        return None;
    }
    match contract {
        Contract::A => message_a(method, rest),
        Contract::B => message_b(method, rest),
    }
}

fn checked(available: bool) -> Answer {
    Answer::of(match available {
        true => Outcome::Ok,
        false => Outcome::NotAvailable,
    })
}

fn held(ends: Option<prost_types::Timestamp>) -> Option<Answer> {
    let ends = ends?;
    let millis = ends.seconds.wrapping_mul(1_000) + i64::from(ends.nanos / 1_000_000);
    Some(Answer {
        ends: millis as u32,
        ..Answer::of(Outcome::Ok)
    })
}

fn ordered(order_id: &str) -> Option<Answer> {
    Some(Answer {
        order: Some(Order::of(order_id)?),
        ..Answer::of(Outcome::Ok)
    })
}

fn message_a(method: Method, body: &[u8]) -> Option<Answer> {
    match method {
        Method::Check => Some(checked(a::CheckRes::decode(body).ok()?.available)),
        Method::Hold => {
            let told = a::PlaceHoldRes::decode(body).ok()?;
            (told.status == "HELD").then(|| held(told.hold_expires_at))?
        }
        Method::Commit | Method::DirectCommit => {
            let told = a::CommitRes::decode(body).ok()?;
            (told.status == "CONFIRMED").then(|| ordered(&told.order_id))?
        }
        Method::Release => {
            let told = a::ReleaseRes::decode(body).ok()?;
            (told.status == "RELEASED").then(|| Answer::of(Outcome::Ok))
        }
    }
}

fn message_b(method: Method, body: &[u8]) -> Option<Answer> {
    match method {
        Method::Check => {
            let told = b::CheckAvailabilityResponse::decode(body).ok()?;
            Some(refused(told.error.as_ref()).unwrap_or(checked(told.available)))
        }
        Method::Hold => {
            let told = b::ReserveSeatResponse::decode(body).ok()?;
            match refused(told.error.as_ref()) {
                Some(answer) => Some(answer),
                None if told.status() == b::HoldStatus::Active => held(told.hold_expires_at),
                None => None,
            }
        }
        Method::Commit | Method::DirectCommit => {
            let told = b::CommitReservationResponse::decode(body).ok()?;
            match refused(told.error.as_ref()) {
                Some(answer) => Some(answer),
                None if told.status() == b::CommitStatus::Success => ordered(&told.order_id),
                None => None,
            }
        }
        Method::Release => {
            let told = b::ReleaseHoldResponse::decode(body).ok()?;
            use b::ReleaseStatus::{AlreadyReleased, Success};
            match refused(told.error.as_ref()) {
                Some(answer) => Some(answer),
                None => matches!(told.status(), Success | AlreadyReleased)
                    .then(|| Answer::of(Outcome::Ok)),
            }
        }
    }
}

/// What an error inside a message says; `None` when there is none.
fn refused(error: Option<&common::Error>) -> Option<Answer> {
    use common::ErrorCode as Code;
    let error = error?;
    let reasons = error.details.iter().map(|detail| detail.reason.as_str());
    let outcome = reasons.filter_map(of_reason).next();
    Some(Answer::of(outcome.unwrap_or(match error.code() {
        Code::Unspecified => return None,
        Code::InsufficientInventory => Outcome::SoldOut,
        Code::InventoryConflict => Outcome::SeatTaken,
        Code::NotFound => Outcome::NotFound,
        Code::IdempotencyConflict => Outcome::Conflict,
        Code::ReservationExpired => Outcome::HoldExpired,
        Code::FailedPrecondition => Outcome::Released,
        Code::InvalidArgument => Outcome::Invalid,
        Code::RateLimited | Code::QuotaExceeded => Outcome::Shed,
        Code::Unavailable => Outcome::Unavailable,
        Code::Timeout | Code::UpstreamTimeout => Outcome::Deadline,
        _ => Outcome::Internal,
    })))
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, StatusExt};

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
    fn the_reason_decides_and_without_one_the_code() {
        for (code, reason, expected) in [
            (
                tonic::Code::Aborted,
                "INSUFFICIENT_INVENTORY",
                Outcome::SoldOut,
            ),
            (tonic::Code::Aborted, "SEAT_UNAVAILABLE", Outcome::SeatTaken),
            (
                tonic::Code::FailedPrecondition,
                "HOLD_EXPIRED",
                Outcome::HoldExpired,
            ),
            (
                tonic::Code::FailedPrecondition,
                "EVENT_CLOSED",
                Outcome::Closed,
            ),
            (tonic::Code::ResourceExhausted, "OVERLOADED", Outcome::Shed),
            (tonic::Code::Unavailable, "STORE_BUSY", Outcome::Unavailable),
        ] {
            let details =
                ErrorDetails::with_error_info(reason, "d", [("k".to_owned(), "v".to_owned())]);
            let status = tonic::Status::with_error_details(code, "m", details);
            assert_eq!(super::status(&trailers(&status)), expected);
        }
        for (code, expected) in [
            (tonic::Code::Aborted, Outcome::SoldOut),
            (tonic::Code::DeadlineExceeded, Outcome::Deadline),
            (tonic::Code::Unknown, Outcome::Internal),
        ] {
            assert_eq!(
                super::status(&trailers(&tonic::Status::new(code, ""))),
                expected
            );
        }
        assert_eq!(super::status(&HeaderMap::new()), Outcome::Malformed);
    }

    #[test]
    fn only_a_whole_and_meant_answer_is_a_success() {
        let ok = trailers(&tonic::Status::ok(""));
        let answer = |message: &a::CommitRes| {
            whole(Contract::A, Method::DirectCommit, &framed(message), &ok)
        };
        let good = a::CommitRes {
            order_id: "ord_97c42ccd0e7f05c61e74ba7eda007525".to_owned(),
            status: "CONFIRMED".to_owned(),
        };
        assert_eq!(answer(&good).order.unwrap().to_string(), good.order_id);
        let nameless = a::CommitRes {
            order_id: String::new(),
            ..good.clone()
        };
        assert_eq!(answer(&nameless).outcome, Outcome::Malformed);
        let other = a::CommitRes {
            status: "HELD".to_owned(),
            ..good.clone()
        };
        assert_eq!(answer(&other).outcome, Outcome::Malformed);
        let mut cut = framed(&good);
        cut.pop();
        let told = whole(Contract::A, Method::DirectCommit, &cut, &ok);
        assert_eq!(told.outcome, Outcome::Malformed);
    }

    #[test]
    fn contract_b_refuses_inside_the_message() {
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
        let told = |message: &b::ReserveSeatResponse| {
            whole(Contract::B, Method::Hold, &framed(message), &ok)
        };
        assert_eq!(told(&message).outcome, Outcome::SeatTaken);
        message.error = None;
        assert_eq!(told(&message).outcome, Outcome::Malformed);
        message.status = b::HoldStatus::Active.into();
        let at = prost_types::Timestamp {
            seconds: 7,
            nanos: 5_000_000,
        };
        message.hold_expires_at = Some(at);
        assert_eq!(told(&message).ends, 7_005);
    }

    #[test]
    fn base64_is_read_with_and_without_padding() {
        for text in ["Zm9vYg==", "Zm9vYg"] {
            assert_eq!(base64(text.as_bytes()).unwrap(), b"foob");
        }
        assert_eq!(base64(b"Zm9v!"), None);
    }
}
