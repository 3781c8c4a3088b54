//! `inventory.v1` over tonic: validates fields, enforces deadlines, and rejects calls beyond the
//! concurrency limit. The backend executes the call.

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
use tonic::transport::server::{Router, Server, TcpIncoming};
use tonic::{Request, Response, Status};

use crate::error::{BaselineError, ErrorSubject, invalid_argument};
use crate::limits::{
    CALL_TIMEOUT_DEFAULT, CALL_TIMEOUT_MAX, HOLD_TTL_DEFAULT, HOLD_TTL_MAX, ID_BYTES_MAX,
    PAYMENT_INTENT_BYTES_MAX, QTY_MAX, REQUEST_MESSAGE_BYTES_MAX, RESPONSE_MARGIN,
    STREAMS_PER_CONNECTION_MAX,
};
use crate::record::{Millis, ReservationItem, StoredState};
use crate::rules::{SaleOperation, SaleOutcome, SaleRequest};

/// Executes validated calls.
pub trait SaleBackend: Send + Sync + 'static {
    /// Runs `request` to its outcome, at best before `deadline`.
    fn execute(
        &self,
        request: &SaleRequest,
        deadline: Instant,
    ) -> impl Future<Output = Result<SaleOutcome, BaselineError>> + Send;

    /// Whether `qty` units are available now.
    fn is_available(
        &self,
        event: &str,
        qty: u32,
    ) -> impl Future<Output = Result<bool, BaselineError>> + Send;

    /// The record of a reservation.
    fn record(
        &self,
        reservation: &str,
    ) -> impl Future<Output = Result<Option<ReservationItem>, BaselineError>> + Send;
}

/// The tonic service. Clones share backend and admission.
pub struct BaselineService<B> {
    backend: Arc<B>,
    permits: Arc<Semaphore>,
}

impl<B> Clone for BaselineService<B> {
    fn clone(&self) -> Self {
        Self { backend: self.backend.clone(), permits: self.permits.clone() }
    }
}

/// Binds `address` (port 0: a free port) with TCP_NODELAY on accepted connections. Needs a tokio runtime.
///
/// # Errors
/// As the operating system reports it.
pub fn bind(address: std::net::SocketAddr) -> std::io::Result<TcpIncoming> {
    Ok(TcpIncoming::bind(address)?.with_nodelay(Some(true)))
}

/// A tonic server of `service`, to be run with `serve_with_incoming`.
pub fn router(service: impl Inventory) -> Router {
    let service =
        InventoryServer::new(service).max_decoding_message_size(REQUEST_MESSAGE_BYTES_MAX);
    Server::builder().max_concurrent_streams(STREAMS_PER_CONNECTION_MAX).add_service(service)
}

impl<B: SaleBackend> BaselineService<B> {
    /// At most `concurrency` calls are in flight at once.
    pub fn new(backend: B, concurrency: usize) -> Self {
        Self { backend: Arc::new(backend), permits: Arc::new(Semaphore::new(concurrency)) }
    }

    /// Runs `work` within the deadline and the concurrency limit.
    async fn run<T>(
        &self,
        deadline: Instant,
        subject: ErrorSubject<'_>,
        work: impl Future<Output = Result<T, BaselineError>>,
    ) -> Result<Response<T>, Status> {
        let _permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                return Err(BaselineError::Overloaded.status(subject));
            }
        };
        let outcome = timeout_at(deadline, work).await;
        outcome
            .unwrap_or(Err(BaselineError::DeadlineExceeded))
            .map(Response::new)
            .map_err(|error| error.status(subject))
    }

    /// Executes a validated call; `response` maps its outcome.
    async fn execute<T>(
        &self,
        deadline: Instant,
        request: Result<SaleRequest, Status>,
        response: impl FnOnce(SaleOutcome) -> Option<T>,
    ) -> Result<Response<T>, Status> {
        let request = request?;
        let subject = ErrorSubject { event: &request.event, reservation: &request.reservation };
        let work = async {
            let outcome = self.backend.execute(&request, deadline).await?;
            response(outcome).ok_or(BaselineError::Internal)
        };
        self.run(deadline, subject, work).await
    }
}

#[tonic::async_trait]
impl<B: SaleBackend> Inventory for BaselineService<B> {
    async fn check_availability(
        &self,
        request: Request<CheckReq>,
    ) -> Result<Response<CheckRes>, Status> {
        let deadline = deadline(request.metadata());
        let message = request.into_inner();
        let mut fields = FieldChecks::default();
        fields.id("event_id", &message.event_id);
        let qty = fields.quantity(message.qty, &message.seat_ids);
        let subject = ErrorSubject { event: &message.event_id, reservation: "" };
        let qty = fields.finish(qty, subject)?;
        let work = async {
            let available = self.backend.is_available(&message.event_id, qty).await?;
            Ok(CheckRes { available, unavailable_seats: Vec::new() })
        };
        self.run(deadline, subject, work).await
    }

    async fn commit_reservation(
        &self,
        request: Request<CommitReq>,
    ) -> Result<Response<CommitRes>, Status> {
        let deadline = deadline(request.metadata());
        let message = request.into_inner();
        let mut fields = FieldChecks::default();
        fields.payment_intent(&message.payment_intent_id);
        let ids = (message.reservation_id, message.event_id);
        let request = fields.request(SaleOperation::Commit, ids, message.qty, &message.seat_ids);
        let request =
            request.map(|request| SaleRequest { payment: message.payment_intent_id, ..request });
        let response = |outcome| match outcome {
            SaleOutcome::Confirmed(order_id) => {
                Some(CommitRes { order_id, status: StoredState::Confirmed.name().to_owned() })
            }
            _ => None,
        };
        self.execute(deadline, request, response).await
    }

    async fn release_hold(
        &self,
        request: Request<ReleaseReq>,
    ) -> Result<Response<ReleaseRes>, Status> {
        let deadline = deadline(request.metadata());
        let message = request.into_inner();
        let ids = (message.reservation_id, message.event_id);
        let request = FieldChecks::default().request(
            SaleOperation::Release,
            ids,
            message.qty,
            &message.seat_ids,
        );
        let response = |outcome| match outcome {
            SaleOutcome::Released => {
                Some(ReleaseRes { status: StoredState::Released.name().to_owned() })
            }
            _ => None,
        };
        self.execute(deadline, request, response).await
    }

    async fn place_hold(
        &self,
        request: Request<PlaceHoldReq>,
    ) -> Result<Response<PlaceHoldRes>, Status> {
        let deadline = deadline(request.metadata());
        let message = request.into_inner();
        let mut fields = FieldChecks::default();
        let hold_until = fields.hold_until(message.hold_expires_at.as_ref(), Millis::now());
        let ids = (message.reservation_id, message.event_id);
        let request = fields.request(SaleOperation::Hold, ids, message.qty, &message.seat_ids);
        let request = request.map(|request| SaleRequest { hold_until, ..request });
        let response = |outcome| match outcome {
            SaleOutcome::Held(until) => Some(PlaceHoldRes {
                status: StoredState::Held.name().to_owned(),
                hold_expires_at: Some(timestamp(until)),
                seat_ids: Vec::new(),
            }),
            _ => None,
        };
        self.execute(deadline, request, response).await
    }

    async fn get_reservation(
        &self,
        request: Request<GetReservationReq>,
    ) -> Result<Response<GetReservationRes>, Status> {
        let deadline = deadline(request.metadata());
        let reservation = request.into_inner().reservation_id;
        let mut fields = FieldChecks::default();
        fields.id("reservation_id", &reservation);
        let subject = ErrorSubject { event: "", reservation: &reservation };
        fields.finish((), subject)?;
        let work = async {
            let record = self.backend.record(&reservation).await?;
            let record = record.ok_or(BaselineError::ReservationNotFound)?;
            Ok(reservation_message(reservation.clone(), record, Millis::now()))
        };
        self.run(deadline, subject, work).await
    }
}

fn reservation_message(
    reservation: String,
    record: ReservationItem,
    now: Millis,
) -> GetReservationRes {
    let is_expired = record.expires_at.is_some_and(|at| at <= now);
    let state = match record.state {
        StoredState::Held if is_expired => StoredState::Expired,
        state => state,
    };
    GetReservationRes {
        reservation_id: reservation,
        event_id: record.event,
        status: state.name().to_owned(),
        qty: i32::try_from(record.qty).unwrap_or(i32::MAX),
        seat_ids: record.seats.into_iter().map(|seat_id| SeatRef { seat_id }).collect(),
        order_id: record.order.unwrap_or_default(),
        hold_expires_at: record.expires_at.map(timestamp),
        updated_at: Some(timestamp(record.updated_at)),
    }
}

fn timestamp(at: Millis) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(at.0 % 1_000).unwrap_or(0) * 1_000_000,
    }
}

/// Deadline of the response: the call's grpc-timeout or the default, less a margin, because tonic enforces
/// the same timeout and ends the call without a reason.
fn deadline(metadata: &MetadataMap) -> Instant {
    let requested = metadata.get("grpc-timeout");
    let requested = requested.and_then(|value| parse_timeout(value.to_str().ok()?));
    let timeout = requested.unwrap_or(CALL_TIMEOUT_DEFAULT).min(CALL_TIMEOUT_MAX);
    Instant::now() + timeout.saturating_sub(RESPONSE_MARGIN)
}

/// A grpc-timeout: up to eight digits and a unit.
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

/// Collects the field violations of a request.
#[derive(Default)]
struct FieldChecks {
    violations: Vec<(&'static str, String)>,
    has_seats: bool,
}

impl FieldChecks {
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
            _ => "contains an invalid character".to_owned(),
        };
        let problem = format!("{problem}; must be 1 to {ID_BYTES_MAX} bytes of [A-Za-z0-9._:-]");
        self.add(field, problem);
    }

    fn quantity(&mut self, qty: i32, seats: &[SeatRef]) -> u32 {
        self.has_seats = !seats.is_empty();
        match u32::try_from(qty) {
            Ok(units) if (1..=QTY_MAX).contains(&units) => return units,
            // Seats take precedence over a quantity.
            _ if self.has_seats => {}
            _ => self.add("qty", format!("is {qty}; must be 1 to {QTY_MAX}")),
        }
        0
    }

    fn payment_intent(&mut self, text: &str) {
        let (bytes, max) = (text.len(), PAYMENT_INTENT_BYTES_MAX);
        if bytes > max {
            let problem = format!("has {bytes} bytes; must have at most {max}");
            self.add("payment_intent_id", problem);
        }
    }

    /// Expiry of a hold: as requested, at most the longest hold; the default without a request.
    fn hold_until(&mut self, requested: Option<&Timestamp>, now: Millis) -> Millis {
        const FIELD: &str = "hold_expires_at";
        let after = |span: Duration| Millis(now.0.saturating_add(span.as_millis() as u64));
        let Some(requested) = requested else {
            return after(HOLD_TTL_DEFAULT);
        };
        let millis = |requested: &Timestamp| {
            let nanos = u64::try_from(requested.nanos).ok().filter(|n| *n < 1_000_000_000)?;
            let seconds = u64::try_from(requested.seconds).ok()?;
            seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)
        };
        match millis(requested).map(Millis) {
            Some(at) if at > now => return at.min(after(HOLD_TTL_MAX)),
            Some(_) => self.add(FIELD, "is in the past; must be a future time".to_owned()),
            None => self.add(FIELD, "is not a valid timestamp; must be a future time".to_owned()),
        }
        now
    }

    fn request(
        mut self,
        operation: SaleOperation,
        (reservation, event): (String, String),
        qty: i32,
        seats: &[SeatRef],
    ) -> Result<SaleRequest, Status> {
        self.id("event_id", &event);
        self.id("reservation_id", &reservation);
        let qty = self.quantity(qty, seats);
        let subject = ErrorSubject { event: &event, reservation: &reservation };
        let qty = self.finish(qty, subject)?;
        Ok(SaleRequest {
            operation,
            reservation,
            event,
            qty,
            payment: String::new(),
            hold_until: Millis::default(),
        })
    }

    /// Returns `value` if no field was invalid.
    fn finish<T>(self, value: T, subject: ErrorSubject<'_>) -> Result<T, Status> {
        match self.violations.is_empty() {
            false => Err(invalid_argument(&self.violations, subject)),
            true if self.has_seats => Err(BaselineError::SeatsUnsupported.status(subject)),
            true => Ok(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_parsed() {
        for (text, millis) in [("250m", 250), ("1S", 1_000), ("2M", 120_000), ("5000u", 5)] {
            let expected = Some(Duration::from_millis(millis));
            assert_eq!(parse_timeout(text), expected, "{text}");
        }
        for bad in ["", "m", "1", "1x", "-1S", "+1S", "123456789S", "é"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_invalid_field_is_reported() {
        let mut fields = FieldChecks::default();
        fields.payment_intent(&"x".repeat(257));
        let ids = ("bad id".to_owned(), String::new());
        let status = fields.request(SaleOperation::Commit, ids, -5, &[]).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        for field in ["payment_intent_id", "reservation_id", "event_id", "qty is -5"] {
            assert!(status.message().contains(field), "{status}");
        }
    }

    #[test]
    fn hold_expiry_is_in_the_future_and_bounded() {
        let now = Millis(1_000_000);
        let at = |millis| timestamp(Millis(millis));
        let mut fields = FieldChecks::default();
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
