//! What the handlers of both contracts share: from a checked request to the domain's answer.
//!
//! A repeat of a settled reservation, and a question that a snapshot answers, are answered on the spot,
//! without an await. Everything else is handed to the driver; the future that waits for the answer may be dropped, the write goes on.
//!
//! Must not live here: anything that one contract spells differently from the other.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{Either, select};

use super::event_names::EventNames;
use super::rejection::{self, ErrorSubject};
use super::store_reads;
use super::validate::FieldViolations;
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

/// What an operator allows.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Units of one reservation, at least 1.
    pub qty_max: u32,
    /// How long a hold lasts that names no end.
    pub hold_ttl: Duration,
    /// How long one may last.
    pub hold_ttl_max: Duration,
}

/// One per shard.
pub struct ReservationService {
    driver: Rc<Driver>,
    recorder: Rc<Recorder>,
    limits: RequestLimits,
    names: Rc<EventNames>,
}

/// A request that writes, every field as it must be.
pub(super) struct ReservationRequest {
    pub(super) event: EventId,
    pub(super) reservation: ReservationId,
    pub(super) wanted: Selection,
    pub(super) section: Option<String>,
    pub(super) payment_intent: String,
    pub(super) hold_until: Option<UnixMillis>,
}

impl ReservationRequest {
    /// # Errors
    /// INVALID_ARGUMENT with all violations, when there are any.
    pub(super) fn checked(
        violations: FieldViolations,
        event: Option<EventId>,
        reservation: Option<ReservationId>,
        wanted: Option<Selection>,
    ) -> Result<Self, Status> {
        match (event, reservation, wanted, violations.is_empty()) {
            (Some(event), Some(reservation), Some(wanted), true) => Ok(Self {
                event,
                reservation,
                wanted,
                section: None,
                payment_intent: String::new(),
                hold_until: None,
            }),
            (event, reservation, ..) => {
                let about = ErrorSubject::of(event, reservation);
                Err(rejection::invalid_argument(violations, &about))
            }
        }
    }

    pub(super) fn operation(
        self,
        verb: Verb,
        expect: RecordExpectation,
        call: &CallContext,
    ) -> Operation {
        Operation {
            verb,
            fingerprint: Operation::fingerprint_of(&self.event, &self.wanted),
            reservation: self.reservation,
            event: self.event,
            selection: self.wanted,
            section: self.section,
            payment_intent: self.payment_intent,
            hold_until: self.hold_until,
            expectation: expect,
            deadline: call.deadline,
        }
    }
}

/// Why a call got no success.
#[derive(Debug)]
pub(super) enum CallFailure {
    /// The domain's word.
    Refused(Rejection, ErrorSubject),
    /// The domain's word did not come.
    Unanswered(Status),
}

impl CallFailure {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Refused(why, _) => rejection::reason_of(why),
            Self::Unanswered(status) => status.reason(),
        }
    }

    pub(super) fn into_status(self) -> Status {
        match self {
            Self::Refused(why, about) => rejection::status_of(&why, &about),
            Self::Unanswered(status) => status,
        }
    }
}

/// An operation that has been looked at.
pub(super) enum OperationCall<'a> {
    Completed(Result<Answer, CallFailure>),
    Pending(Pin<Box<dyn Future<Output = Result<Answer, CallFailure>> + 'a>>),
}

impl OperationCall<'_> {
    /// Never [`Answer::Rejected`]: that is a failure.
    pub(super) async fn outcome(self) -> Result<Answer, CallFailure> {
        match self {
            Self::Completed(answer) => answer,
            Self::Pending(answer) => answer.await,
        }
    }
}

impl ReservationService {
    pub fn new(driver: Rc<Driver>, recorder: Rc<Recorder>, limits: RequestLimits) -> Rc<Self> {
        let names = EventNames::new(Rc::clone(driver.store()));
        Rc::new(Self {
            driver,
            recorder,
            limits,
            names,
        })
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub(super) fn qty_max(&self) -> u32 {
        self.limits.qty_max
    }

    /// When a hold ends that asks for `wish`; `None`, and a violation, when it cannot.
    pub(super) fn hold_until(
        &self,
        violations: &mut FieldViolations,
        wish: Option<&prost_types::Timestamp>,
    ) -> Option<UnixMillis> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let usual = millis(self.limits.hold_ttl);
        let longest = millis(self.limits.hold_ttl_max);
        violations.hold_until(wish, clock::now().unix, usual, longest)
    }

    /// The answer to a repeat of a settled reservation, or the way to the answer.
    ///
    /// What has to wait is boxed: a call answered from memory then carries no room for it, and
    /// moving that room was a tenth of the call's cost.
    pub(super) fn submit<'a>(
        &'a self,
        call: &'a CallContext,
        operation: Operation,
    ) -> OperationCall<'a> {
        let replayed = self.driver.cached_answer(&operation, call.arrived);
        call.set_subject(operation.event.as_str(), operation.reservation.as_str());
        let verb = verb_label(operation.verb);
        self.recorder.idempotency(verb, replayed.is_some());
        match replayed {
            Some(Answer::Rejected(why)) => {
                OperationCall::Completed(Err(self.refused(why, &operation)))
            }
            Some(answer) => OperationCall::Completed(Ok(answer)),
            None => OperationCall::Pending(Box::pin(self.run(call, operation))),
        }
    }

    /// Runs one operation to its answer.
    async fn run(&self, call: &CallContext, operation: Operation) -> Result<Answer, CallFailure> {
        let about = subject(&operation.event, Some(&operation.reservation));
        match await_answer(
            self.driver.submit(operation, call.trace.clone()),
            call,
            &about,
        )
        .await?
        {
            Answer::Rejected(why) => {
                self.count_conflict(&why);
                Err(CallFailure::Refused(why, about))
            }
            answer => Ok(answer),
        }
    }

    fn refused(&self, why: Rejection, operation: &Operation) -> CallFailure {
        self.count_conflict(&why);
        let about = subject(&operation.event, Some(&operation.reservation));
        CallFailure::Refused(why, about)
    }

    fn count_conflict(&self, why: &Rejection) {
        if rejection::is_conflict(why) {
            self.recorder.conflict(rejection::reason_of(why));
        }
    }

    /// The answer to a question that needs no waiting for.
    pub(super) fn query_cached(
        &self,
        call: &CallContext,
        event: &EventId,
        question: &Query,
    ) -> Option<QueryResult> {
        call.set_subject(event.as_str(), "");
        self.driver
            .cached_query_result(event, question, call.arrived)
    }

    /// See [`Driver::status_mark`].
    pub(super) fn status_mark(&self, event: &EventId) -> Option<StatusVersion> {
        self.driver.status_version(event)
    }

    /// The answer to a question that is not [`ReservationService::known`].
    pub(super) async fn query(
        &self,
        call: &CallContext,
        event: EventId,
        question: Query,
    ) -> Result<QueryResult, CallFailure> {
        let about = subject(&event, None);
        let found = await_answer(
            self.driver.query(event, question, call.trace.clone()),
            call,
            &about,
        )
        .await?;
        found.map_err(|why| CallFailure::Refused(why, about))
    }

    /// What is known of seats, in the order given; `Err` where nothing is. Never in the way of the
    /// answer it is for: neither a failure nor a slow read keeps that back.
    pub(super) async fn describe_seats(
        &self,
        call: &CallContext,
        event: EventId,
        seats: &Seats,
    ) -> Vec<Result<SeatItem, SeatId>> {
        let question = Query::Describe {
            seats: Seats::clone(seats),
        };
        let found = within_decoration_wait(call, self.driver.query(event, question, None)).await;
        let mut known = match found {
            Some(Ok(Ok(QueryResult::Seats { known, .. }))) => known,
            _ => Vec::new(),
        };
        let mut take = |id: &SeatId| {
            let at = known.iter().position(|seat| seat.id == *id);
            at.map_or_else(|| Err(id.clone()), |at| Ok(known.swap_remove(at)))
        };
        seats.iter().map(&mut take).collect()
    }

    /// The event's name, empty when it has none; `None` when it cannot be had soon.
    pub(super) async fn event_name(&self, call: &CallContext, event: &EventId) -> Option<String> {
        let name = self.names.of(event, call.arrived);
        let known = within_decoration_wait(call, name).await?.ok()?;
        Some(known.map_or_else(String::new, |name| name.to_string()))
    }

    /// A reservation as the store has it, read strongly.
    pub(super) async fn read_reservation(
        &self,
        call: &CallContext,
        reservation: &ReservationId,
    ) -> Result<StoredRecord, CallFailure> {
        call.set_subject("", reservation.as_str());
        let about = ErrorSubject::of(None, Some(reservation.clone()));
        let read = pin!(store_reads::reservation(self.driver.store(), reservation));
        let Some(read) = until_deadline(call, read).await else {
            return Err(CallFailure::Unanswered(rejection::deadline_status(&about)));
        };
        let why = match read {
            Ok(Some(record)) => return Ok(record),
            Ok(None) => Rejection::ReservationNotFound,
            Err(StoreError::Throttled(_)) => Rejection::store_busy(),
            Err(StoreError::Unavailable(_)) => Rejection::store_unavailable(),
            Err(StoreError::Invalid(_) | StoreError::Refused(_) | StoreError::Corrupt(_)) => {
                Rejection::Internal
            }
        };
        Err(CallFailure::Refused(why, about))
    }
}

/// How the stock of a call is kept, as far as the call itself or its answer tells.
pub(super) fn inventory_type(wanted: &Selection) -> InventoryType {
    match wanted {
        Selection::Seats(_) => InventoryType::Seat,
        Selection::Quantity(_) | Selection::AsRecorded => InventoryType::Quantity,
    }
}

/// See [`kind`]; an answer that has seats knows better.
pub(super) fn answered_inventory_type(
    asked: InventoryType,
    answer: &Result<Answer, CallFailure>,
) -> InventoryType {
    match answer {
        Ok(
            Answer::Held { seats, .. }
            | Answer::Confirmed { seats, .. }
            | Answer::Released { seats, .. },
        ) if seats.is_some() => InventoryType::Seat,
        _ => asked,
    }
}

/// Waits for an answer of the driver until the call's deadline. The wire polls once more then, and
/// that is when this gives up, with a status that says whom it is about.
async fn await_answer<T>(
    answer: oneshot::Receiver<T>,
    call: &CallContext,
    about: &ErrorSubject,
) -> Result<T, CallFailure> {
    let status = match until_deadline(call, answer).await {
        Some(Ok(answer)) => return Ok(answer),
        Some(Err(oneshot::Canceled)) => rejection::shutdown_status(about),
        None => rejection::deadline_status(about),
    };
    Err(CallFailure::Unanswered(status))
}

/// `None` once the call's deadline has passed.
async fn until_deadline<F: Future + Unpin>(call: &CallContext, mut future: F) -> Option<F::Output> {
    poll_fn(|cx| match future.poll_unpin(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if clock::monotonic() >= call.deadline => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Waits for what only adorns an answer, and not for long.
async fn within_decoration_wait<F: Future + Unpin>(
    call: &CallContext,
    mut future: F,
) -> Option<F::Output> {
    // Most of it is there at once.
    if let Some(value) = (&mut future).now_or_never() {
        return Some(value);
    }
    let left = Duration::from_micros(call.remaining(clock::monotonic()).0);
    let wait = limits::ADORNMENT_WAIT_MAX.min(left / 2);
    match select(future, pin!(inventory_runtime::sleep(wait))).await {
        Either::Left((value, _)) => Some(value),
        Either::Right(_) => None,
    }
}

fn subject(event: &EventId, reservation: Option<&ReservationId>) -> ErrorSubject {
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
