//! Encoding of calls: request heads are built once, messages are encoded into a reused buffer.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method as Verb, Request, Uri, Version, header};
use inventory_proto::inventory::v1 as a;
use inventory_proto::reservation::v1 as b;
use prost::Message;

use crate::outcome::CallMethod;
use crate::scenario::Contract;

/// The content of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallSpec<'a> {
    pub(crate) method: CallMethod,
    pub(crate) event: &'a str,
    /// Number of the reservation; unused by a check.
    pub(crate) reservation: u32,
    pub(crate) qty: u32,
    /// Numbers of the seats; empty for a call by quantity.
    pub(crate) seats: &'a [u32],
}

/// Builds requests. One per worker; reuses its buffers.
pub(crate) struct RequestEncoder {
    contract: Contract,
    heads: [Request<()>; 5],
    /// Prefix of reservation ids.
    run: String,
    hold: HoldEnd,
    buffer: BytesMut,
    id: String,
}

impl RequestEncoder {
    pub(crate) fn new(
        contract: Contract,
        target: &str,
        run: &str,
        deadline_ms: u64,
        hold: HoldEnd,
    ) -> Result<Self, http::Error> {
        let head = |method| head(contract, target, method, deadline_ms);
        let [check, hold_head, commit, direct, release] = CallMethod::ALL;
        Ok(Self {
            contract,
            heads: [head(check)?, head(hold_head)?, head(commit)?, head(direct)?, head(release)?],
            run: run.to_owned(),
            hold,
            buffer: BytesMut::with_capacity(64 * 1024),
            id: String::new(),
        })
    }

    pub(crate) fn head(&self, method: CallMethod) -> Request<()> {
        self.heads[method as usize].clone()
    }

    /// The message with its gRPC length prefix.
    pub(crate) fn message(&mut self, spec: &CallSpec<'_>) -> Bytes {
        self.id.clear();
        reservation_id(&self.run, spec.reservation, &mut self.id);
        match self.contract {
            Contract::InventoryV1 => self.message_a(spec),
            Contract::ReservationV1 => self.message_b(spec),
        }
    }

    fn message_a(&mut self, spec: &CallSpec<'_>) -> Bytes {
        let reservation_id = self.id.clone();
        let event_id = spec.event.to_owned();
        let qty = i32::try_from(spec.qty).unwrap_or(i32::MAX);
        let seat_ids = spec.seats.iter().map(|seat| a::SeatRef { seat_id: seat_id(*seat) });
        let seat_ids = seat_ids.collect();
        match spec.method {
            CallMethod::Check => self.frame(&a::CheckReq { event_id, qty, seat_ids }),
            CallMethod::Hold => self.frame(&a::PlaceHoldReq {
                reservation_id,
                event_id,
                qty,
                seat_ids,
                section: String::new(),
                hold_expires_at: self.hold.timestamp(),
            }),
            CallMethod::Commit | CallMethod::DirectCommit => self.frame(&a::CommitReq {
                payment_intent_id: format!("pay_{}", spec.reservation),
                reservation_id,
                event_id,
                qty,
                seat_ids,
            }),
            CallMethod::Release => {
                self.frame(&a::ReleaseReq { reservation_id, event_id, qty, seat_ids })
            }
        }
    }

    fn message_b(&mut self, spec: &CallSpec<'_>) -> Bytes {
        let reservation_id = self.id.clone();
        let event_id = spec.event.to_owned();
        let quantity = match spec.seats.is_empty() {
            true => i32::try_from(spec.qty).unwrap_or(i32::MAX),
            false => 0,
        };
        let seat_ids = spec.seats.iter().map(|seat| seat_id(*seat)).collect();
        match spec.method {
            CallMethod::Check => self.frame(&b::CheckAvailabilityRequest {
                event_id,
                seat_ids,
                quantity,
                section: String::new(),
            }),
            CallMethod::Hold => self.frame(&b::ReserveSeatRequest {
                reservation_id,
                event_id,
                seat_ids,
                quantity,
                hold_expires_at: self.hold.timestamp(),
                ..Default::default()
            }),
            // A commit of a hold names neither seats nor quantity.
            CallMethod::Commit => self.frame(&b::CommitReservationRequest {
                payment_intent_id: format!("pay_{}", spec.reservation),
                reservation_id,
                event_id,
                ..Default::default()
            }),
            CallMethod::DirectCommit => self.frame(&b::CommitReservationRequest {
                payment_intent_id: format!("pay_{}", spec.reservation),
                reservation_id,
                event_id,
                seat_ids,
                quantity,
                ..Default::default()
            }),
            CallMethod::Release => self.frame(&b::ReleaseHoldRequest {
                reservation_id,
                event_id,
                reason: "CANCELLED".to_owned(),
                ..Default::default()
            }),
        }
    }

    fn frame(&mut self, message: &impl Message) -> Bytes {
        let length = message.encoded_len();
        self.buffer.reserve(5 + length);
        self.buffer.put_u8(0);
        self.buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        message.encode_raw(&mut self.buffer);
        self.buffer.split().freeze()
    }
}

/// Appends `RUN-NUMBER` to `to`, the number in hexadecimal.
pub(crate) fn reservation_id(run: &str, number: u32, to: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(to, "{run}-{number:x}");
}

/// The number in a reservation id of this run.
pub(crate) fn reservation_number(run: &str, id: &str) -> Option<u32> {
    let digits = id.strip_prefix(run)?.strip_prefix('-')?;
    let canonical = !digits.starts_with('0') || digits == "0";
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (canonical && digits.bytes().all(lower)).then(|| u32::from_str_radix(digits, 16).ok())?
}

/// Seats per row and rows per section of the events that the generator creates.
pub(crate) const SEATS_PER_ROW: u32 = 50;
pub(crate) const ROWS_PER_SECTION: u32 = 20;

/// Section, row and number of the n-th seat: row by row from the front.
pub(crate) fn seat_place(n: u32) -> (u32, u32, u32) {
    let row = n / SEATS_PER_ROW;
    (row / ROWS_PER_SECTION, row, n % SEATS_PER_ROW)
}

/// The id of the n-th seat. Ids sort in the order of the seats.
pub(crate) fn seat_id(n: u32) -> String {
    let (section, row, number) = seat_place(n);
    format!("S{section:03}-R{row:05}-{number:02}")
}

/// The `hold_expires_at` of holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum HoldEnd {
    /// Not sent: the default of the server applies.
    ServerDefault,
    /// This long after the call is encoded.
    After(Duration),
    /// The same for all holds, in Unix milliseconds.
    AtUnixMs(u64),
}

impl HoldEnd {
    /// In whole milliseconds, the resolution that the server stores.
    fn timestamp(self) -> Option<prost_types::Timestamp> {
        let since_epoch = match self {
            Self::ServerDefault => return None,
            Self::After(after) => {
                (SystemTime::now() + after).duration_since(UNIX_EPOCH).unwrap_or_default()
            }
            Self::AtUnixMs(ms) => Duration::from_millis(ms),
        };
        Some(prost_types::Timestamp {
            seconds: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since_epoch.subsec_millis() * 1_000_000).unwrap_or(0),
        })
    }
}

fn head(
    contract: Contract,
    target: &str,
    method: CallMethod,
    deadline_ms: u64,
) -> Result<Request<()>, http::Error> {
    let name = match (contract, method) {
        (_, CallMethod::Check) => "CheckAvailability",
        (Contract::InventoryV1, CallMethod::Hold) => "PlaceHold",
        (Contract::ReservationV1, CallMethod::Hold) => "ReserveSeat",
        (_, CallMethod::Commit | CallMethod::DirectCommit) => "CommitReservation",
        (_, CallMethod::Release) => "ReleaseHold",
    };
    let service = match contract {
        Contract::InventoryV1 => "inventory.v1.Inventory",
        Contract::ReservationV1 => "reservation.v1.InventoryService",
    };
    let uri = Uri::builder()
        .scheme("http")
        .authority(target)
        .path_and_query(format!("/{service}/{name}"))
        .build()?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if deadline_ms > 0 {
        headers.insert("grpc-timeout", format!("{deadline_ms}m").parse()?);
    }
    let mut request = Request::new(());
    *request.method_mut() = Verb::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservation_ids_round_trip() {
        for number in [0, 1, 255, 70_000, u32::MAX] {
            let mut id = String::new();
            reservation_id("g1", number, &mut id);
            assert_eq!(reservation_number("g1", &id), Some(number));
            assert_eq!(reservation_number("g", &id), None);
        }
        for foreign in ["g1", "g1-", "g1-0a", "g1-x", "g1-A", "g1-+1", "g1-1ffffffff"] {
            assert_eq!(reservation_number("g1", foreign), None, "{foreign}");
        }
    }

    #[test]
    fn seat_ids_sort_from_the_front() {
        let ids: Vec<_> = (0..60_000).step_by(7).map(seat_id).collect();
        assert!(ids.is_sorted());
        assert_eq!(seat_id(1_051), "S001-R00021-01");
    }

    #[test]
    fn encoded_messages_decode_to_the_call() {
        let hold = HoldEnd::After(Duration::from_secs(9));
        let mut encoder =
            RequestEncoder::new(Contract::InventoryV1, "h:1", "run", 250, hold).unwrap();
        let spec = CallSpec {
            method: CallMethod::DirectCommit,
            event: "evt",
            reservation: 16,
            qty: 2,
            seats: &[0, 1],
        };
        let bytes = encoder.message(&spec);
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
        assert_eq!((bytes[0], length as usize), (0, bytes.len() - 5));
        let read = a::CommitReq::decode(&bytes[5..]).unwrap();
        assert_eq!((read.reservation_id.as_str(), read.qty), ("run-10", 2));
        assert_eq!(read.seat_ids[1].seat_id, "S000-R00000-01");
        let head = encoder.head(CallMethod::DirectCommit);
        assert_eq!(head.uri().path(), "/inventory.v1.Inventory/CommitReservation");
        assert_eq!(head.headers()["grpc-timeout"], "250m");
        let mut encoder =
            RequestEncoder::new(Contract::ReservationV1, "h:1", "run", 0, hold).unwrap();
        let bytes = encoder.message(&CallSpec { method: CallMethod::Hold, ..spec });
        let read = b::ReserveSeatRequest::decode(&bytes[5..]).unwrap();
        assert_eq!((read.quantity, read.seat_ids.len()), (0, 2));
        assert!(read.hold_expires_at.unwrap().seconds > 1_600_000_000);
    }
}
