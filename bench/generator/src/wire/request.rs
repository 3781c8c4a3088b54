//! Calls as bytes: heads made once, messages encoded from reused parts.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method as Verb, Request, Uri, Version, header};
use inventory_proto::inventory::v1 as a;
use inventory_proto::reservation::v1 as b;
use prost::Message;

use crate::outcome::Method;
use crate::scenario::Contract;

/// One call, as far as its bytes go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) method: Method,
    pub(crate) event: &'a str,
    /// Not of a check.
    pub(crate) reservation: u32,
    pub(crate) qty: u32,
    /// Seat ids, by their place in the hall; empty: by quantity.
    pub(crate) seats: &'a [u32],
}

/// Makes requests. One per worker; keeps its buffers.
pub(crate) struct Encoder {
    contract: Contract,
    heads: [Request<()>; 5],
    /// What reservation ids begin with.
    run: String,
    hold: Option<Duration>,
    buffer: BytesMut,
    id: String,
}

impl Encoder {
    pub(crate) fn new(
        contract: Contract,
        target: &str,
        run: &str,
        deadline_ms: u64,
        hold: Option<Duration>,
    ) -> Result<Self, http::Error> {
        let head = |method| head(contract, target, method, deadline_ms);
        let [check, hold_head, commit, direct, release] = Method::ALL;
        Ok(Self {
            contract,
            heads: [
                head(check)?,
                head(hold_head)?,
                head(commit)?,
                head(direct)?,
                head(release)?,
            ],
            run: run.to_owned(),
            hold,
            buffer: BytesMut::with_capacity(64 * 1024),
            id: String::new(),
        })
    }

    pub(crate) fn head(&self, method: Method) -> Request<()> {
        self.heads[method as usize].clone()
    }

    /// The message with its gRPC prefix.
    pub(crate) fn message(&mut self, wanted: &Wanted<'_>) -> Bytes {
        self.id.clear();
        reservation_id(&self.run, wanted.reservation, &mut self.id);
        match self.contract {
            Contract::A => self.message_a(wanted),
            Contract::B => self.message_b(wanted),
        }
    }

    fn message_a(&mut self, wanted: &Wanted<'_>) -> Bytes {
        let reservation_id = self.id.clone();
        let event_id = wanted.event.to_owned();
        let qty = i32::try_from(wanted.qty).unwrap_or(i32::MAX);
        let seat_ids = wanted.seats.iter().map(|seat| a::SeatRef {
            seat_id: seat_id(*seat),
        });
        let seat_ids = seat_ids.collect();
        match wanted.method {
            Method::Check => self.frame(&a::CheckReq {
                event_id,
                qty,
                seat_ids,
            }),
            Method::Hold => self.frame(&a::PlaceHoldReq {
                reservation_id,
                event_id,
                qty,
                seat_ids,
                section: String::new(),
                hold_expires_at: self.hold.map(from_now),
            }),
            Method::Commit | Method::DirectCommit => self.frame(&a::CommitReq {
                payment_intent_id: format!("pay_{}", wanted.reservation),
                reservation_id,
                event_id,
                qty,
                seat_ids,
            }),
            Method::Release => self.frame(&a::ReleaseReq {
                reservation_id,
                event_id,
                qty,
                seat_ids,
            }),
        }
    }

    fn message_b(&mut self, wanted: &Wanted<'_>) -> Bytes {
        let reservation_id = self.id.clone();
        let event_id = wanted.event.to_owned();
        let quantity = match wanted.seats.is_empty() {
            true => i32::try_from(wanted.qty).unwrap_or(i32::MAX),
            false => 0,
        };
        let seat_ids = wanted.seats.iter().map(|seat| seat_id(*seat)).collect();
        match wanted.method {
            Method::Check => self.frame(&b::CheckAvailabilityRequest {
                event_id,
                seat_ids,
                quantity,
                section: String::new(),
            }),
            Method::Hold => self.frame(&b::ReserveSeatRequest {
                reservation_id,
                event_id,
                seat_ids,
                quantity,
                hold_expires_at: self.hold.map(from_now),
                ..Default::default()
            }),
            // Of a hold: what is held.
            Method::Commit => self.frame(&b::CommitReservationRequest {
                payment_intent_id: format!("pay_{}", wanted.reservation),
                reservation_id,
                event_id,
                ..Default::default()
            }),
            Method::DirectCommit => self.frame(&b::CommitReservationRequest {
                payment_intent_id: format!("pay_{}", wanted.reservation),
                reservation_id,
                event_id,
                seat_ids,
                quantity,
                ..Default::default()
            }),
            Method::Release => self.frame(&b::ReleaseHoldRequest {
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
        self.buffer
            .put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        message.encode_raw(&mut self.buffer);
        self.buffer.split().freeze()
    }
}

/// `RUN-NUMBER`, the number in hexadecimal.
pub(crate) fn reservation_id(run: &str, number: u32, to: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(to, "{run}-{number:x}");
}

/// The number of a reservation of this run.
pub(crate) fn reservation_number(run: &str, id: &str) -> Option<u32> {
    let digits = id.strip_prefix(run)?.strip_prefix('-')?;
    let canonical = !digits.starts_with('0') || digits == "0";
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (canonical && digits.bytes().all(lower)).then(|| u32::from_str_radix(digits, 16).ok())?
}

/// Seats of one row, and rows of one section, of the halls that the generator builds.
pub(crate) const SEATS_PER_ROW: u32 = 50;
pub(crate) const ROWS_PER_SECTION: u32 = 20;

/// Section, row and number of the n-th best seat: row by row from the front.
pub(crate) fn seat_place(n: u32) -> (u32, u32, u32) {
    let row = n / SEATS_PER_ROW;
    (row / ROWS_PER_SECTION, row, n % SEATS_PER_ROW)
}

/// The id of the n-th best seat. Ids sort as the seats do.
pub(crate) fn seat_id(n: u32) -> String {
    let (section, row, number) = seat_place(n);
    format!("S{section:03}-R{row:05}-{number:02}")
}

fn from_now(after: Duration) -> prost_types::Timestamp {
    let at = SystemTime::now() + after;
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    prost_types::Timestamp {
        seconds: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
        // Whole milliseconds: what the server stores.
        nanos: i32::try_from(at.subsec_millis() * 1_000_000).unwrap_or(0),
    }
}

fn head(
    contract: Contract,
    target: &str,
    method: Method,
    deadline_ms: u64,
) -> Result<Request<()>, http::Error> {
    let name = match (contract, method) {
        (_, Method::Check) => "CheckAvailability",
        (Contract::A, Method::Hold) => "PlaceHold",
        (Contract::B, Method::Hold) => "ReserveSeat",
        (_, Method::Commit | Method::DirectCommit) => "CommitReservation",
        (_, Method::Release) => "ReleaseHold",
    };
    let service = match contract {
        Contract::A => "inventory.v1.Inventory",
        Contract::B => "reservation.v1.InventoryService",
    };
    let uri = Uri::builder()
        .scheme("http")
        .authority(target)
        .path_and_query(format!("/{service}/{name}"))
        .build()?;
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
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
    fn a_reservation_is_known_by_its_id() {
        for number in [0, 1, 255, 70_000, u32::MAX] {
            let mut id = String::new();
            reservation_id("g1", number, &mut id);
            assert_eq!(reservation_number("g1", &id), Some(number));
            assert_eq!(reservation_number("g", &id), None);
        }
        for foreign in [
            "g1",
            "g1-",
            "g1-0a",
            "g1-x",
            "g1-A",
            "g1-+1",
            "g1-1ffffffff",
        ] {
            assert_eq!(reservation_number("g1", foreign), None, "{foreign}");
        }
    }

    #[test]
    fn seats_sort_from_the_front() {
        let ids: Vec<_> = (0..60_000).step_by(7).map(seat_id).collect();
        assert!(ids.is_sorted());
        assert_eq!(seat_id(1_051), "S001-R00021-01");
    }

    #[test]
    fn a_message_reads_as_it_was_meant() {
        let hold = Some(Duration::from_secs(9));
        let mut encoder = Encoder::new(Contract::A, "h:1", "run", 250, hold).unwrap();
        let wanted = Wanted {
            method: Method::DirectCommit,
            event: "evt",
            reservation: 16,
            qty: 2,
            seats: &[0, 1],
        };
        let bytes = encoder.message(&wanted);
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap());
        assert_eq!((bytes[0], length as usize), (0, bytes.len() - 5));
        let read = a::CommitReq::decode(&bytes[5..]).unwrap();
        assert_eq!((read.reservation_id.as_str(), read.qty), ("run-10", 2));
        assert_eq!(read.seat_ids[1].seat_id, "S000-R00000-01");
        let head = encoder.head(Method::DirectCommit);
        assert_eq!(
            head.uri().path(),
            "/inventory.v1.Inventory/CommitReservation"
        );
        assert_eq!(head.headers()["grpc-timeout"], "250m");
        let mut encoder = Encoder::new(Contract::B, "h:1", "run", 0, hold).unwrap();
        let bytes = encoder.message(&Wanted {
            method: Method::Hold,
            ..wanted
        });
        let read = b::ReserveSeatRequest::decode(&bytes[5..]).unwrap();
        assert_eq!((read.quantity, read.seat_ids.len()), (0, 2));
        assert!(read.hold_expires_at.unwrap().seconds > 1_600_000_000);
    }
}
