//! The logic that the handlers of both contracts share: from a validated request to the engine's answer.
//!
//! A retry of a settled reservation and a query that a snapshot answers complete at once, without an await.
//! Everything else goes to the driver. The future that waits for the answer may be dropped; the write
//! continues.
//!
//! Not here: whatever differs between the contracts.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;

use super::event_names::EventNames;
use super::payment_conflicts::PaymentConflictLog;
use super::rejection::{self, ErrorSubject};
use super::store_reads;
use super::validate::{FieldNames, FieldViolations};
use crate::limits;
use crate::shard::driver::Driver;
use crate::telemetry::recorder::{InventoryType, Recorder};
use inventory_core::answer::{Answer, Rejection};
use inventory_core::ids::{EventId, ReservationId, SeatId, Seats};
use inventory_core::operation::{Operation, RecordExpectation, Selection, Verb};
use inventory_core::query::{Query, QueryResult, StatusVersion};
use inventory_core::seats::SeatItem;
use inventory_core::time::UnixMillis;
use inventory_grpc::{CallContext, Status};
use inventory_runtime::clock;
use inventory_store::{StoreError, StoredRecord};

/// Limits applied at validation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLimits {
    /// Units of one reservation, at least 1.
    pub(crate) qty_max: u32,
    /// Length of a hold without `hold_expires_at`.
    pub(crate) hold_ttl: Duration,
    /// Longest hold.
    pub(crate) hold_ttl_max: Duration,
}

impl RequestLimits {
    /// The expiry of a hold that requests `requested` at `now`; `None`, and a violation, if that is invalid.
    pub(super) fn hold_until(
        &self,
        violations: &mut FieldViolations,
        requested: Option<&prost_types::Timestamp>,
        now: UnixMillis,
    ) -> Option<UnixMillis> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        violations.hold_until(requested, now, millis(self.hold_ttl), millis(self.hold_ttl_max))
    }
}

/// The shared core of the handlers, one per shard.
pub(crate) struct ReservationService {
    driver: Rc<Driver>,
    recorder: Rc<Recorder>,
    limits: RequestLimits,
    names: Rc<EventNames>,
    payment_conflicts: PaymentConflictLog,
}

/// A validated request that writes.
pub(super) struct ReservationRequest {
    pub(super) event: EventId,
    pub(super) reservation: ReservationId,
    pub(super) selection: Selection,
    pub(super) section: Option<String>,
    pub(super) payment_intent: String,
    pub(super) hold_until: Option<UnixMillis>,
}

impl ReservationRequest {
    /// # Errors
    /// INVALID_ARGUMENT with all violations, if there are any.
    pub(super) fn checked(
        violations: FieldViolations,
        event: Option<EventId>,
        reservation: Option<ReservationId>,
        selection: Option<Selection>,
    ) -> Result<Self, Status> {
        match (event, reservation, selection, violations.is_empty()) {
            (Some(event), Some(reservation), Some(selection), true) => Ok(Self {
                event,
                reservation,
                selection,
                section: None,
                payment_intent: String::new(),
                hold_until: None,
            }),
            (event, reservation, ..) => {
                let subject = ErrorSubject::of(event, reservation);
                Err(rejection::invalid_argument(violations, &subject))
            }
        }
    }

    pub(super) fn operation(
        self,
        verb: Verb,
        expectation: RecordExpectation,
        call: &CallContext,
    ) -> Operation {
        Operation {
            verb,
            fingerprint: Operation::fingerprint_of(&self.event, &self.selection),
            reservation: self.reservation,
            event: self.event,
            selection: self.selection,
            section: self.section,
            payment_intent: self.payment_intent,
            hold_until: self.hold_until,
            expectation,
            deadline: call.deadline,
        }
    }
}

/// Why a call failed.
#[derive(Debug)]
pub(super) enum ReservationError {
    /// A rejection with a reason, of the engine or of a read.
    Rejected(Rejection, ErrorSubject),
    /// No answer: the deadline passed, or the shard was lost.
    Failed(Status),
}

impl ReservationError {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Rejected(rejection, _) => rejection::reason_of(rejection),
            Self::Failed(status) => status.reason(),
        }
    }

    /// With the contract's names of fields.
    pub(super) fn into_status(self, names: FieldNames) -> Status {
        match self {
            Self::Rejected(rejection, subject) => rejection::status_of(&rejection, &subject, names),
            Self::Failed(status) => status,
        }
    }
}

/// A submitted operation.
pub(super) enum OperationCall<'a> {
    Completed(Result<Answer, ReservationError>),
    Pending(Pin<Box<dyn Future<Output = Result<Answer, ReservationError>> + 'a>>),
}

impl OperationCall<'_> {
    /// The answer; [`Answer::Rejected`] is returned as a failure.
    pub(super) async fn outcome(self) -> Result<Answer, ReservationError> {
        match self {
            Self::Completed(answer) => answer,
            Self::Pending(answer) => answer.await,
        }
    }
}

impl ReservationService {
    pub(crate) fn new(
        driver: Rc<Driver>,
        recorder: Rc<Recorder>,
        limits: RequestLimits,
    ) -> Rc<Self> {
        let names = EventNames::new(Rc::clone(driver.store()));
        let payment_conflicts = PaymentConflictLog::default();
        Rc::new(Self { driver, recorder, limits, names, payment_conflicts })
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub(super) fn limits(&self) -> &RequestLimits {
        &self.limits
    }

    /// Submits an operation. A retry of a settled reservation is answered from the cache.
    ///
    /// The pending future is boxed, so that the future of a call answered from the cache stays small; moving the large
    /// one cost 10 % of such a call.
    pub(super) fn submit<'a>(
        &'a self,
        call: &'a CallContext,
        operation: Operation,
    ) -> OperationCall<'a> {
        let cached = self.driver.cached_answer(&operation, call.arrived);
        call.set_subject(operation.event.as_str(), operation.reservation.as_str());
        let verb = verb_label(operation.verb);
        self.recorder.idempotency(verb, cached.is_some());
        match cached {
            Some(Answer::Rejected(rejection)) => {
                let subject = error_subject(&operation.event, Some(&operation.reservation));
                OperationCall::Completed(Err(self.rejected(rejection, subject)))
            }
            Some(answer) => OperationCall::Completed(Ok(answer)),
            None => OperationCall::Pending(Box::pin(self.run(call, operation))),
        }
    }

    /// Sends one operation to the engine and waits for the answer.
    async fn run(
        &self,
        call: &CallContext,
        operation: Operation,
    ) -> Result<Answer, ReservationError> {
        let subject = error_subject(&operation.event, Some(&operation.reservation));
        match await_answer(self.driver.submit(operation, call.trace.clone()), call, &subject)
            .await?
        {
            Answer::Rejected(rejection) => Err(self.rejected(rejection, subject)),
            answer => Ok(answer),
        }
    }

    /// Counts a rejection, and logs a payment conflict.
    fn rejected(&self, rejection: Rejection, subject: ErrorSubject) -> ReservationError {
        if let Some(kind) = rejection::conflict_type(&rejection) {
            self.recorder.conflict(kind);
        }
        if let Rejection::PaymentConflict { order } = rejection {
            self.payment_conflicts.log(&subject, order, clock::monotonic());
        }
        ReservationError::Rejected(rejection, subject)
    }

    /// The result of a query, if a snapshot answers it; [`QueryResult::NotOnSale`] is returned as a failure.
    pub(super) fn cached_query_result(
        &self,
        call: &CallContext,
        event: &EventId,
        query: &Query,
    ) -> Option<Result<QueryResult, ReservationError>> {
        call.set_subject(event.as_str(), "");
        match self.driver.cached_query_result(event, query, call.arrived)? {
            QueryResult::NotOnSale(why) => {
                Some(Err(ReservationError::Rejected(why, error_subject(event, None))))
            }
            result => Some(Ok(result)),
        }
    }

    /// See [`Driver::status_version`].
    pub(super) fn status_version(&self, event: &EventId) -> Option<StatusVersion> {
        self.driver.status_version(event)
    }

    /// Submits a query that [`ReservationService::cached_query_result`] does not answer. Failures are the same.
    pub(super) async fn query(
        &self,
        call: &CallContext,
        event: EventId,
        query: Query,
    ) -> Result<QueryResult, ReservationError> {
        let subject = error_subject(&event, None);
        let result =
            await_answer(self.driver.query(event, query, call.trace.clone()), call, &subject)
                .await?;
        match result {
            Ok(QueryResult::NotOnSale(why)) | Err(why) => {
                Err(ReservationError::Rejected(why, subject))
            }
            Ok(result) => Ok(result),
        }
    }

    /// The details of seats, in the given order; `Err` for a seat without details. Details are optional: an error
    /// leaves them out, and a slow read delays the response by at most [`limits::OPTIONAL_DATA_WAIT_MAX`].
    pub(super) async fn describe_seats(
        &self,
        call: &CallContext,
        event: EventId,
        seats: &Seats,
    ) -> Vec<Result<SeatItem, SeatId>> {
        let query = Query::Describe { seats: Seats::clone(seats) };
        let result = wait_for_details(call, self.driver.query(event, query, None)).await;
        let mut known = match result {
            Some(Ok(Ok(QueryResult::Seats { known, .. }))) => known,
            _ => Vec::new(),
        };
        let mut take = |id: &SeatId| {
            let at = known.iter().position(|seat| seat.id == *id);
            at.map_or_else(|| Err(id.clone()), |at| Ok(known.swap_remove(at)))
        };
        seats.iter().map(&mut take).collect()
    }

    /// The event's name, empty if it has none; `None` if the name is not available soon.
    pub(super) async fn event_name(&self, call: &CallContext, event: &EventId) -> Option<String> {
        let name = self.names.of(event, call.arrived);
        let known = wait_for_details(call, name).await?.ok()?;
        Some(known.map_or_else(String::new, |name| name.to_string()))
    }

    /// Reads a reservation from the store with strong consistency.
    pub(super) async fn read_reservation(
        &self,
        call: &CallContext,
        reservation: &ReservationId,
    ) -> Result<StoredRecord, ReservationError> {
        call.set_subject("", reservation.as_str());
        let subject = ErrorSubject::of(None, Some(reservation.clone()));
        let read = pin!(store_reads::reservation(self.driver.store(), reservation));
        let Some(read) = until_deadline(call, read).await else {
            return Err(ReservationError::Failed(rejection::deadline_status(&subject)));
        };
        let rejection = match read {
            Ok(Some(record)) => return Ok(record),
            Ok(None) => Rejection::ReservationNotFound,
            Err(StoreError::Throttled(_)) => Rejection::store_busy(),
            Err(StoreError::Unavailable(_) | StoreError::Refused(_)) => {
                Rejection::store_unavailable()
            }
            Err(StoreError::Invalid(_) | StoreError::Rejected(_) | StoreError::Corrupt(_)) => {
                Rejection::Internal
            }
        };
        Err(ReservationError::Rejected(rejection, subject))
    }
}

/// The inventory type of a request, as a metric label.
pub(super) fn inventory_type(selection: &Selection) -> InventoryType {
    match selection {
        Selection::Seats(_) => InventoryType::Seat,
        Selection::Quantity(_) | Selection::AsRecorded => InventoryType::Quantity,
    }
}

/// The inventory type of a call: an answer with seats overrides [`inventory_type`] of the request.
pub(super) fn answered_inventory_type(
    requested: InventoryType,
    answer: &Result<Answer, ReservationError>,
) -> InventoryType {
    match answer {
        Ok(
            Answer::Held { seats, .. }
            | Answer::Confirmed { seats, .. }
            | Answer::Released { seats, .. },
        ) if seats.is_some() => InventoryType::Seat,
        _ => requested,
    }
}

/// Waits for an answer of the driver until the call's deadline. The gRPC layer polls a call once more after
/// its deadline; that poll returns a status that names the event and the reservation.
async fn await_answer<T>(
    answer: oneshot::Receiver<T>,
    call: &CallContext,
    subject: &ErrorSubject,
) -> Result<T, ReservationError> {
    let status = match until_deadline(call, answer).await {
        Some(Ok(answer)) => return Ok(answer),
        Some(Err(oneshot::Canceled)) => rejection::shutdown_status(subject),
        None => rejection::deadline_status(subject),
    };
    Err(ReservationError::Failed(status))
}

/// `None` after the call's deadline.
async fn until_deadline<F: Future + Unpin>(call: &CallContext, mut future: F) -> Option<F::Output> {
    poll_fn(|cx| match future.poll_unpin(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if clock::monotonic() >= call.deadline => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Waits a short time for an optional part of a response.
async fn wait_for_details<F: Future + Unpin>(
    call: &CallContext,
    mut future: F,
) -> Option<F::Output> {
    // Usually ready at once.
    if let Some(value) = (&mut future).now_or_never() {
        return Some(value);
    }
    let left = Duration::from_micros(call.remaining(clock::monotonic()).0);
    let wait = limits::OPTIONAL_DATA_WAIT_MAX.min(left / 2);
    inventory_runtime::timeout(wait, future).await
}

fn error_subject(event: &EventId, reservation: Option<&ReservationId>) -> ErrorSubject {
    ErrorSubject {
        event: event.to_string(),
        reservation: reservation.map_or_else(String::new, ToString::to_string),
    }
}

fn verb_label(verb: Verb) -> &'static str {
    match verb {
        Verb::Commit => "commit",
        Verb::Release => "release",
        Verb::Hold => "hold",
        Verb::Expire => "expire",
        Verb::Refund => "refund",
    }
}
