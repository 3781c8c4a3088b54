//! Fuzz target of requests: any bytes as the message of any method of both contracts, decoded and validated as for a
//! handler. Compiled for tests, which replay the corpus, and for the programs in `tests/fuzz`.

use std::collections::HashSet;
use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use inventory_proto::inventory::v1::{
    CheckReq, CommitReq, GetReservationReq, PlaceHoldReq, ReleaseReq,
};
use inventory_proto::reservation::v1::{
    CheckAvailabilityRequest, CommitReservationRequest, GetInventoryStatusRequest,
    ReleaseHoldRequest, ReserveSeatRequest,
};
use prost::Message;

use super::reservation_service::{RequestLimits, ReservationRequest};
use super::{inventory_v1, reservation_v1};
use crate::fuzzed_messages::message_bytes;
use crate::limits;
use crate::text::control_character;
use inventory_core::ids::SeatId;
use inventory_core::operation::Selection;
use inventory_core::time::UnixMillis;
use inventory_grpc::{Code, Status};

/// From this method on the message is built from the rest of the input.
const BUILT: u8 = 128;

/// Time of the call.
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// Values of MAX_QTY: the default, the lowest and the highest one.
const QTY_MAX: [u32; 3] = [limits::QTY_MAX_DEFAULT, 1, limits::QTY_MAX_CEILING];

/// Size of the text of an error. Trailers have it three times, twice in base64, and clients accept 8 KB of them.
const MESSAGE_BYTES_MAX: usize = 2 * 1024;

/// Names of the fields of both contracts that can be invalid.
const FIELDS: [&str; 12] = [
    "event_id",
    "reservation_id",
    "qty",
    "quantity",
    "seat_ids",
    "section",
    "hold_expires_at",
    "payment_intent_id",
    "user_id",
    "idempotency_key",
    "reason",
    "and ",
];

/// One byte for the method, one for the limits, and the rest is the message, or builds it. A request that is accepted is within its limits;
/// the error of any other request names a field and fits into the trailers.
pub fn requests(input: &[u8]) {
    let Some(([method, limits], body)) = input.split_first_chunk() else {
        return;
    };
    let limits = RequestLimits {
        qty_max: QTY_MAX[usize::from(*limits) % QTY_MAX.len()],
        hold_ttl: limits::HOLD_TTL_DEFAULT,
        hold_ttl_max: limits::HOLD_TTL_MAX_DEFAULT,
    };
    let body = Bytes::from(message_bytes(*method >= BUILT, body));
    let own = Validator { limits: &limits, accepts_recorded: false };
    match method % 10 {
        method @ 0..5 => inventory_v1_request(method, &body, &own),
        method => reservation_v1_request(method - 5, &body, &own),
    }
}

fn inventory_v1_request(method: u8, body: &Bytes, own: &Validator<'_>) {
    let limits = own.limits;
    match method {
        0 => own.run(
            body,
            |message: CheckReq| inventory_v1::requests::check(message, limits),
            |accepted| {
                own.assert_selection(&accepted.1);
            },
        ),
        1 => own.run(
            body,
            |message: CommitReq| inventory_v1::requests::commit(message, limits),
            |accepted| {
                own.assert_request(accepted);
            },
        ),
        2 => own.run(
            body,
            |message: ReleaseReq| inventory_v1::requests::release(message, limits),
            |accepted| {
                own.assert_request(accepted);
            },
        ),
        3 => own.run(
            body,
            |message: PlaceHoldReq| inventory_v1::requests::hold(message, limits, NOW),
            |accepted| {
                own.assert_request(accepted);
                own.assert_hold(accepted);
            },
        ),
        _ => own.run(
            body,
            |message: GetReservationReq| inventory_v1::requests::reservation(message),
            |_| {},
        ),
    }
}

fn reservation_v1_request(method: u8, body: &Bytes, own: &Validator<'_>) {
    let limits = own.limits;
    let other = Validator { limits, accepts_recorded: true };
    match method {
        0 => own.run(
            body,
            |message: CheckAvailabilityRequest| reservation_v1::requests::check(message, limits),
            |accepted| {
                assert_section(accepted.1.as_deref());
                own.assert_selection(&accepted.2);
            },
        ),
        1 => own.run(
            body,
            |message: ReserveSeatRequest| reservation_v1::requests::hold(message, limits, NOW),
            |accepted| {
                own.assert_request(accepted);
                own.assert_hold(accepted);
            },
        ),
        2 => other.run(
            body,
            |message: CommitReservationRequest| reservation_v1::requests::commit(message, limits),
            |accepted| {
                other.assert_request(accepted);
            },
        ),
        3 => other.run(
            body,
            |message: ReleaseHoldRequest| reservation_v1::requests::release(message, limits),
            |accepted| {
                other.assert_request(accepted);
            },
        ),
        _ => own.run(
            body,
            |message: GetInventoryStatusRequest| reservation_v1::requests::status(message),
            |accepted| {
                assert_section(accepted.1.as_deref());
            },
        ),
    }
}

struct Validator<'a> {
    limits: &'a RequestLimits,
    /// A request without units and seats means those of the record.
    accepts_recorded: bool,
}

impl Validator<'_> {
    fn run<M, T>(&self, body: &Bytes, validate: impl Fn(M) -> Result<T, Status>, check: impl Fn(&T))
    where
        M: Message + Default + Clone + PartialEq + Debug,
    {
        let message = match inventory_grpc::decode::<M>(body.clone()) {
            Ok(message) => message,
            Err(status) => {
                assert_eq!(status.code(), Code::Internal, "{status:?}");
                return assert_size(&status);
            }
        };
        let encoded = Bytes::from(message.encode_to_vec());
        let again = inventory_grpc::decode::<M>(encoded).ok();
        assert_eq!(again.as_ref(), Some(&message), "encoded and decoded again");
        match validate(message) {
            Ok(accepted) => check(&accepted),
            Err(status) => {
                assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
                assert_size(&status);
                let mut parts = status.message().split("; ");
                // A problem may have a semicolon itself; the first part begins with a field.
                let first = parts.next().unwrap_or_default();
                assert!(FIELDS.iter().any(|field| first.starts_with(field)), "{status:?}");
            }
        }
    }

    fn assert_request(&self, request: &ReservationRequest) {
        self.assert_selection(&request.selection);
        assert_section(request.section.as_deref());
        let payment = &request.payment_intent;
        assert!(payment.len() <= limits::PAYMENT_INTENT_BYTES_MAX, "{} bytes", payment.len());
        assert_eq!(control_character(payment), None);
        for id in [request.event.as_str(), request.reservation.as_str()] {
            assert!((1..=limits::ID_BYTES_MAX).contains(&id.len()) && !id.contains('#'), "{id:?}");
        }
    }

    fn assert_hold(&self, request: &ReservationRequest) {
        let longest = self.limits.hold_ttl_max.max(self.limits.hold_ttl);
        let until = request.hold_until.map_or(NOW.0, |at| at.0);
        let span = Duration::from_millis(until.saturating_sub(NOW.0));
        assert!(span > Duration::ZERO && span <= longest, "a hold of {span:?}");
    }

    fn assert_selection(&self, selection: &Selection) {
        let qty_max = self.limits.qty_max;
        match selection {
            Selection::Quantity(units) => assert!((1..=qty_max).contains(units), "{units} units"),
            Selection::Seats(seats) => {
                let most = (qty_max as usize)
                    .clamp(limits::SEATS_PER_RESERVATION_MAX, limits::SEATS_PER_TRANSACTION_MAX);
                assert!((1..=most).contains(&seats.len()), "{} seats", seats.len());
                let distinct: HashSet<&SeatId> = seats.iter().collect();
                assert_eq!(distinct.len(), seats.len(), "a seat twice: {seats:?}");
            }
            Selection::AsRecorded => assert!(self.accepts_recorded, "no units and no seats"),
        }
    }
}

fn assert_section(section: Option<&str>) {
    let length = section.map_or(1, str::len);
    assert!((1..=limits::SECTION_BYTES_MAX).contains(&length), "{length} bytes");
}

fn assert_size(status: &Status) {
    let bytes = status.message().len();
    assert!(bytes <= MESSAGE_BYTES_MAX, "{bytes} bytes: {}", status.message());
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_requests_is_accepted_within_the_limits_or_refused_by_field() {
        inventory_testkit::corpus::replay("requests", super::requests);
    }
}
