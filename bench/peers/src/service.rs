//! Contract A over tonic: fields checked, deadlines kept, calls past the most at once shed.

use std::sync::Arc;
use std::time::Duration;

use inventory_proto::inventory::v1::{
    CheckReq, CheckRes, CommitReq, CommitRes, GetReservationReq, GetReservationRes, PlaceHoldReq,
    PlaceHoldRes, ReleaseReq, ReleaseRes, SeatRef,
    inventory_server::{Inventory, InventoryServer},
};
use prost_types::Timestamp;
use tokio::sync::{Semaphore, TryAcquireError};
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;
use tonic::transport::server::{Router, Server};
use tonic::{Request, Response, Status};

use crate::limits::{
    ANSWER_AHEAD, CALL_TIMEOUT_DEFAULT, CALL_TIMEOUT_MAX, HOLD_TTL_DEFAULT, HOLD_TTL_MAX,
    ID_BYTES_MAX, PAYMENT_INTENT_BYTES_MAX, QTY_MAX, REQUEST_MESSAGE_BYTES_MAX,
    STREAMS_PER_CONNECTION_MAX,
};
use crate::record::{Millis, Record, State, hash_of_quantity};
use crate::refusal::{Refusal, Subject, invalid};
use crate::rules::{Answer, Call, Verb};
use crate::sale::Sale;

/// The peer. Clones share everything.
#[derive(Clone)]
pub struct Peer {
    sale: Arc<Sale>,
    room: Arc<Semaphore>,
}

impl Peer {
    /// At most `concurrency` calls at once.
    pub fn new(sale: Sale, concurrency: usize) -> Self {
        Self {
            sale: Arc::new(sale),
            room: Arc::new(Semaphore::new(concurrency)),
        }
    }

    /// A tonic server of it, to be run with `serve_with_incoming`.
    pub fn router(self) -> Router {
        let service =
            InventoryServer::new(self).max_decoding_message_size(REQUEST_MESSAGE_BYTES_MAX);
        Server::builder()
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .add_service(service)
    }

    /// Runs `work` inside the caller's deadline and the most at once.
    async fn within<T>(
        &self,
        due: Instant,
        about: Subject<'_>,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<Response<T>, Status> {
        let _place = match self.room.try_acquire() {
            Ok(place) => place,
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                return Err(Refusal::Overloaded.status(about));
            }
        };
        let outcome = timeout_at(due, work).await;
        outcome
            .unwrap_or(Err(Refusal::DeadlineExceeded))
            .map(Response::new)
            .map_err(|why| why.status(about))
    }

    async fn run<T>(
        &self,
        due: Instant,
        call: Result<Call, Status>,
        fit: impl FnOnce(Answer) -> Option<T>,
    ) -> Result<Response<T>, Status> {
        let call = call?;
        let about = Subject {
            event: &call.event,
            reservation: &call.reservation,
        };
        let work = async {
            let answer = self.sale.run(&call, due).await?;
            fit(answer).ok_or(Refusal::Internal)
        };
        self.within(due, about, work).await
    }
}

#[tonic::async_trait]
impl Inventory for Peer {
    async fn check_availability(
        &self,
        request: Request<CheckReq>,
    ) -> Result<Response<CheckRes>, Status> {
        let due = due(request.metadata());
        let asked = request.into_inner();
        let mut fields = Fields::default();
        fields.id("event_id", &asked.event_id);
        let qty = fields.quantity(asked.qty, &asked.seat_ids);
        let about = Subject {
            event: &asked.event_id,
            reservation: "",
        };
        let qty = fields.end(qty, about)?;
        let work = async {
            let available = self.sale.is_available(&asked.event_id, qty).await?;
            Ok(CheckRes {
                available,
                unavailable_seats: Vec::new(),
            })
        };
        self.within(due, about, work).await
    }

    async fn commit_reservation(
        &self,
        request: Request<CommitReq>,
    ) -> Result<Response<CommitRes>, Status> {
        let due = due(request.metadata());
        let asked = request.into_inner();
        let mut fields = Fields::default();
        fields.payment_intent(&asked.payment_intent_id);
        let named = (asked.reservation_id, asked.event_id);
        let call = fields.call(Verb::Commit, named, asked.qty, &asked.seat_ids);
        let call = call.map(|call| Call {
            payment: asked.payment_intent_id,
            ..call
        });
        let fit = |answer| match answer {
            Answer::Confirmed(order_id) => Some(CommitRes {
                order_id,
                status: State::Confirmed.name().to_owned(),
            }),
            _ => None,
        };
        self.run(due, call, fit).await
    }

    async fn release_hold(
        &self,
        request: Request<ReleaseReq>,
    ) -> Result<Response<ReleaseRes>, Status> {
        let due = due(request.metadata());
        let asked = request.into_inner();
        let named = (asked.reservation_id, asked.event_id);
        let call = Fields::default().call(Verb::Release, named, asked.qty, &asked.seat_ids);
        let fit = |answer| match answer {
            Answer::Released => Some(ReleaseRes {
                status: State::Released.name().to_owned(),
            }),
            _ => None,
        };
        self.run(due, call, fit).await
    }

    async fn place_hold(
        &self,
        request: Request<PlaceHoldReq>,
    ) -> Result<Response<PlaceHoldRes>, Status> {
        let due = due(request.metadata());
        let asked = request.into_inner();
        let mut fields = Fields::default();
        let hold_until = fields.hold_until(asked.hold_expires_at.as_ref(), Millis::now());
        let named = (asked.reservation_id, asked.event_id);
        let call = fields.call(Verb::Hold, named, asked.qty, &asked.seat_ids);
        let call = call.map(|call| Call { hold_until, ..call });
        let fit = |answer| match answer {
            Answer::Held(until) => Some(PlaceHoldRes {
                status: State::Held.name().to_owned(),
                hold_expires_at: Some(timestamp(until)),
                seat_ids: Vec::new(),
            }),
            _ => None,
        };
        self.run(due, call, fit).await
    }

    async fn get_reservation(
        &self,
        request: Request<GetReservationReq>,
    ) -> Result<Response<GetReservationRes>, Status> {
        let due = due(request.metadata());
        let reservation = request.into_inner().reservation_id;
        let mut fields = Fields::default();
        fields.id("reservation_id", &reservation);
        let about = Subject {
            event: "",
            reservation: &reservation,
        };
        fields.end((), about)?;
        let work = async {
            let record = self.sale.store().record(&reservation).await?;
            let record = record.ok_or(Refusal::ReservationNotFound)?;
            Ok(shown(reservation.clone(), record, Millis::now()))
        };
        self.within(due, about, work).await
    }
}

fn shown(reservation: String, record: Record, now: Millis) -> GetReservationRes {
    let over = record.expires_at.is_some_and(|at| at <= now);
    let state = match record.state {
        State::Held if over => State::Expired,
        state => state,
    };
    GetReservationRes {
        reservation_id: reservation,
        event_id: record.event,
        status: state.name().to_owned(),
        qty: i32::try_from(record.qty).unwrap_or(i32::MAX),
        seat_ids: record
            .seats
            .into_iter()
            .map(|seat_id| SeatRef { seat_id })
            .collect(),
        order_id: record.order.unwrap_or_default(),
        hold_expires_at: record.expires_at.map(timestamp),
        updated_at: Some(timestamp(record.at)),
    }
}

fn timestamp(at: Millis) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(at.0 % 1_000).unwrap_or(0) * 1_000_000,
    }
}

/// When the caller has gone: by its grpc-timeout or, without one, after the default. A little before,
/// for tonic keeps the same time and ends the call without a reason.
fn due(metadata: &MetadataMap) -> Instant {
    let asked = metadata.get("grpc-timeout");
    let asked = asked.and_then(|value| parse_timeout(value.to_str().ok()?));
    let span = asked.unwrap_or(CALL_TIMEOUT_DEFAULT).min(CALL_TIMEOUT_MAX);
    Instant::now() + span.saturating_sub(ANSWER_AHEAD)
}

/// As the gRPC protocol writes it: up to eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = is_number.then(|| digits.parse().ok())??;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The fields of a request that are not as they should be.
#[derive(Default)]
struct Fields {
    violations: Vec<(&'static str, String)>,
    /// Seats were asked for.
    seats: bool,
}

impl Fields {
    fn add(&mut self, field: &'static str, problem: String) {
        self.violations.push((field, problem));
    }

    fn id(&mut self, field: &'static str, id: &str) {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(legal) {
            return;
        }
        let problem = match id.len() {
            0 => "is empty".to_owned(),
            n if n > ID_BYTES_MAX => format!("has {n} bytes"),
            _ => "has an illegal character".to_owned(),
        };
        let want = format!("{problem}; want 1 to {ID_BYTES_MAX} bytes of [A-Za-z0-9._:-]");
        self.add(field, want);
    }

    fn quantity(&mut self, qty: i32, seats: &[SeatRef]) -> u32 {
        self.seats = !seats.is_empty();
        match u32::try_from(qty) {
            Ok(units) if (1..=QTY_MAX).contains(&units) => return units,
            // Seats win over a quantity.
            _ if self.seats => {}
            _ => self.add("qty", format!("is {qty}; want 1 to {QTY_MAX}")),
        }
        0
    }

    fn payment_intent(&mut self, text: &str) {
        let (bytes, most) = (text.len(), PAYMENT_INTENT_BYTES_MAX);
        if bytes > most {
            let problem = format!("has {bytes} bytes; want at most {most}");
            self.add("payment_intent_id", problem);
        }
    }

    /// As asked for, but not later than the longest hold; without a wish the usual one.
    fn hold_until(&mut self, wish: Option<&Timestamp>, now: Millis) -> Millis {
        const FIELD: &str = "hold_expires_at";
        let after = |span: Duration| Millis(now.0.saturating_add(span.as_millis() as u64));
        let Some(wish) = wish else {
            return after(HOLD_TTL_DEFAULT);
        };
        let millis = |wish: &Timestamp| {
            let nanos = u64::try_from(wish.nanos)
                .ok()
                .filter(|n| *n < 1_000_000_000)?;
            let seconds = u64::try_from(wish.seconds).ok()?;
            seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)
        };
        match millis(wish).map(Millis) {
            Some(at) if at > now => return at.min(after(HOLD_TTL_MAX)),
            Some(_) => self.add(FIELD, "is past; want a time that lies ahead".to_owned()),
            None => self.add(
                FIELD,
                "is no point in time; want one that lies ahead".to_owned(),
            ),
        }
        now
    }

    fn call(
        mut self,
        verb: Verb,
        (reservation, event): (String, String),
        qty: i32,
        seats: &[SeatRef],
    ) -> Result<Call, Status> {
        self.id("event_id", &event);
        self.id("reservation_id", &reservation);
        let qty = self.quantity(qty, seats);
        let about = Subject {
            event: &event,
            reservation: &reservation,
        };
        let qty = self.end(qty, about)?;
        Ok(Call {
            verb,
            hash: hash_of_quantity(&event, qty),
            reservation,
            event,
            qty,
            payment: String::new(),
            hold_until: Millis::default(),
        })
    }

    /// The value, if all fields are as they should be.
    fn end<T>(self, value: T, about: Subject<'_>) -> Result<T, Status> {
        match self.violations.is_empty() {
            false => Err(invalid(&self.violations, about)),
            true if self.seats => Err(Refusal::Seats.status(about)),
            true => Ok(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_as_the_protocol_writes_them() {
        for (text, millis) in [("250m", 250), ("1S", 1_000), ("2M", 120_000), ("5000u", 5)] {
            let wanted = Some(Duration::from_millis(millis));
            assert_eq!(parse_timeout(text), wanted, "{text}");
        }
        for bad in ["", "m", "1", "1x", "-1S", "+1S", "123456789S", "é"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_bad_field_is_named() {
        let mut fields = Fields::default();
        fields.payment_intent(&"x".repeat(257));
        let named = ("bad id".to_owned(), String::new());
        let status = fields.call(Verb::Commit, named, -5, &[]).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        for field in [
            "payment_intent_id",
            "reservation_id",
            "event_id",
            "qty is -5",
        ] {
            assert!(status.message().contains(field), "{status}");
        }
    }

    #[test]
    fn a_hold_ends_ahead_and_not_too_late() {
        let now = Millis(1_000_000);
        let at = |millis| timestamp(Millis(millis));
        let mut fields = Fields::default();
        assert_eq!(fields.hold_until(None, now), Millis(1_060_000));
        let far = fields.hold_until(Some(&at(10_000_000)), now);
        assert_eq!(far, Millis(1_900_000));
        let near = fields.hold_until(Some(&at(1_000_500)), now);
        assert_eq!(near, Millis(1_000_500));
        assert!(fields.violations.is_empty());
        fields.hold_until(Some(&at(1_000_000)), now);
        assert_eq!(fields.violations.len(), 1);
    }
}
