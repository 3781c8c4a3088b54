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

use super::names::EventNames;
use super::refusal::{self, Subject};
use super::stored;
use super::validate::Violations;
use crate::limits;
use crate::shard::driver::Driver;
use crate::telemetry::recorder::{InventoryType, Recorder};
use inventory_core::answer::{Answer, Refusal};
use inventory_core::ids::{EventId, ReservationId, SeatId, Seats};
use inventory_core::operation::{Expect, Operation, Verb, Wanted};
use inventory_core::question::{Found, Question, StatusMark};
use inventory_core::seats::Seat;
use inventory_core::time::UnixMillis;
use inventory_grpc::{Call, Status};
use inventory_runtime::clock;
use inventory_store::{StoreError, StoredRecord};

/// What an operator allows.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Units of one reservation, at least 1.
    pub qty_max: u32,
    /// How long a hold lasts that names no end.
    pub hold_ttl: Duration,
    /// How long one may last.
    pub hold_ttl_max: Duration,
}

/// One per shard.
pub struct Clerk {
    driver: Rc<Driver>,
    recorder: Rc<Recorder>,
    terms: Terms,
    names: Rc<EventNames>,
}

/// A request that writes, every field as it must be.
pub(super) struct Request {
    pub(super) event: EventId,
    pub(super) reservation: ReservationId,
    pub(super) wanted: Wanted,
    pub(super) section: Option<String>,
    pub(super) payment_intent: String,
    pub(super) hold_until: Option<UnixMillis>,
}

impl Request {
    /// # Errors
    /// INVALID_ARGUMENT with all violations, when there are any.
    pub(super) fn checked(
        violations: Violations,
        event: Option<EventId>,
        reservation: Option<ReservationId>,
        wanted: Option<Wanted>,
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
                let about = Subject::of(event, reservation);
                Err(refusal::invalid(violations, &about))
            }
        }
    }

    pub(super) fn operation(self, verb: Verb, expect: Expect, call: &Call) -> Operation {
        Operation {
            verb,
            fingerprint: Operation::fingerprint_of(&self.event, &self.wanted),
            reservation: self.reservation,
            event: self.event,
            wanted: self.wanted,
            section: self.section,
            payment_intent: self.payment_intent,
            hold_until: self.hold_until,
            expect,
            deadline: call.deadline,
        }
    }
}

/// Why a call got no success.
#[derive(Debug)]
pub(super) enum Failure {
    /// The domain's word.
    Refused(Refusal, Subject),
    /// The domain's word did not come.
    Unanswered(Status),
}

impl Failure {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Refused(why, _) => refusal::reason_of(why),
            Self::Unanswered(status) => status.reason(),
        }
    }

    pub(super) fn into_status(self) -> Status {
        match self {
            Self::Refused(why, about) => refusal::status_of(&why, &about),
            Self::Unanswered(status) => status,
        }
    }
}

/// An operation that has been looked at.
pub(super) enum Begun<'a> {
    Answered(Result<Answer, Failure>),
    Waits(Pin<Box<dyn Future<Output = Result<Answer, Failure>> + 'a>>),
}

impl Begun<'_> {
    /// Never [`Answer::Refused`]: that is a failure.
    pub(super) async fn end(self) -> Result<Answer, Failure> {
        match self {
            Self::Answered(answer) => answer,
            Self::Waits(answer) => answer.await,
        }
    }
}

impl Clerk {
    pub fn new(driver: Rc<Driver>, recorder: Rc<Recorder>, terms: Terms) -> Rc<Self> {
        let names = EventNames::new(Rc::clone(driver.store()));
        Rc::new(Self {
            driver,
            recorder,
            terms,
            names,
        })
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub(super) fn qty_max(&self) -> u32 {
        self.terms.qty_max
    }

    /// When a hold ends that asks for `wish`; `None`, and a violation, when it cannot.
    pub(super) fn hold_until(
        &self,
        violations: &mut Violations,
        wish: Option<&prost_types::Timestamp>,
    ) -> Option<UnixMillis> {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let usual = millis(self.terms.hold_ttl);
        let longest = millis(self.terms.hold_ttl_max);
        violations.hold_until(wish, clock::now().unix, usual, longest)
    }

    /// The answer to a repeat of a settled reservation, or the way to the answer.
    ///
    /// What has to wait is boxed: a call answered from memory then carries no room for it, and
    /// moving that room was a tenth of the call's cost.
    pub(super) fn begin<'a>(&'a self, call: &'a Call, operation: Operation) -> Begun<'a> {
        let replayed = self.driver.replay(&operation, call.arrived);
        call.about(operation.event.as_str(), operation.reservation.as_str());
        let verb = label(operation.verb);
        self.recorder.idempotency(verb, replayed.is_some());
        match replayed {
            Some(Answer::Refused(why)) => Begun::Answered(Err(self.refused(why, &operation))),
            Some(answer) => Begun::Answered(Ok(answer)),
            None => Begun::Waits(Box::pin(self.submit(call, operation))),
        }
    }

    /// Runs one operation to its answer.
    async fn submit(&self, call: &Call, operation: Operation) -> Result<Answer, Failure> {
        let about = subject(&operation.event, Some(&operation.reservation));
        match answer_of(
            self.driver.submit(operation, call.note.clone()),
            call,
            &about,
        )
        .await?
        {
            Answer::Refused(why) => {
                self.count_conflict(&why);
                Err(Failure::Refused(why, about))
            }
            answer => Ok(answer),
        }
    }

    fn refused(&self, why: Refusal, operation: &Operation) -> Failure {
        self.count_conflict(&why);
        let about = subject(&operation.event, Some(&operation.reservation));
        Failure::Refused(why, about)
    }

    fn count_conflict(&self, why: &Refusal) {
        if refusal::met_another(why) {
            self.recorder.conflict(refusal::reason_of(why));
        }
    }

    /// The answer to a question that needs no waiting for.
    pub(super) fn known(&self, call: &Call, event: &EventId, question: &Question) -> Option<Found> {
        call.about(event.as_str(), "");
        self.driver.known(event, question, call.arrived)
    }

    /// See [`Driver::status_mark`].
    pub(super) fn status_mark(&self, event: &EventId) -> Option<StatusMark> {
        self.driver.status_mark(event)
    }

    /// The answer to a question that is not [`Clerk::known`].
    pub(super) async fn ask(
        &self,
        call: &Call,
        event: EventId,
        question: Question,
    ) -> Result<Found, Failure> {
        let about = subject(&event, None);
        let found = answer_of(
            self.driver.ask(event, question, call.note.clone()),
            call,
            &about,
        )
        .await?;
        found.map_err(|why| Failure::Refused(why, about))
    }

    /// What is known of seats, in the order given; `Err` where nothing is. Never in the way of the
    /// answer it is for: neither a failure nor a slow read keeps that back.
    pub(super) async fn describe(
        &self,
        call: &Call,
        event: EventId,
        seats: &Seats,
    ) -> Vec<Result<Seat, SeatId>> {
        let question = Question::Describe {
            seats: Seats::clone(seats),
        };
        let found = in_passing(call, self.driver.ask(event, question, None)).await;
        let mut known = match found {
            Some(Ok(Ok(Found::Seats { known, .. }))) => known,
            _ => Vec::new(),
        };
        let mut take = |id: &SeatId| {
            let at = known.iter().position(|seat| seat.id == *id);
            at.map_or_else(|| Err(id.clone()), |at| Ok(known.swap_remove(at)))
        };
        seats.iter().map(&mut take).collect()
    }

    /// The event's name, empty when it has none; `None` when it cannot be had soon.
    pub(super) async fn name(&self, call: &Call, event: &EventId) -> Option<String> {
        let name = self.names.of(event, call.arrived);
        let known = in_passing(call, name).await?.ok()?;
        Some(known.map_or_else(String::new, |name| name.to_string()))
    }

    /// A reservation as the store has it, read strongly.
    pub(super) async fn read(
        &self,
        call: &Call,
        reservation: &ReservationId,
    ) -> Result<StoredRecord, Failure> {
        call.about("", reservation.as_str());
        let about = Subject::of(None, Some(reservation.clone()));
        let read = pin!(stored::reservation(self.driver.store(), reservation));
        let Some(read) = until_deadline(call, read).await else {
            return Err(Failure::Unanswered(refusal::late(&about)));
        };
        let why = match read {
            Ok(Some(record)) => return Ok(record),
            Ok(None) => Refusal::ReservationNotFound,
            Err(StoreError::Throttled(_)) => Refusal::store_busy(),
            Err(StoreError::Unavailable(_)) => Refusal::store_unavailable(),
            Err(StoreError::Invalid(_) | StoreError::Refused(_) | StoreError::Corrupt(_)) => {
                Refusal::Internal
            }
        };
        Err(Failure::Refused(why, about))
    }
}

/// How the stock of a call is kept, as far as the call itself or its answer tells.
pub(super) fn kind(wanted: &Wanted) -> InventoryType {
    match wanted {
        Wanted::Seats(_) => InventoryType::Seat,
        Wanted::Quantity(_) | Wanted::Whatever => InventoryType::Quantity,
    }
}

/// See [`kind`]; an answer that has seats knows better.
pub(super) fn kind_answered(
    asked: InventoryType,
    answer: &Result<Answer, Failure>,
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
async fn answer_of<T>(
    answer: oneshot::Receiver<T>,
    call: &Call,
    about: &Subject,
) -> Result<T, Failure> {
    let status = match until_deadline(call, answer).await {
        Some(Ok(answer)) => return Ok(answer),
        Some(Err(oneshot::Canceled)) => refusal::interrupted(about),
        None => refusal::late(about),
    };
    Err(Failure::Unanswered(status))
}

/// `None` once the call's deadline has passed.
async fn until_deadline<F: Future + Unpin>(call: &Call, mut future: F) -> Option<F::Output> {
    poll_fn(|cx| match future.poll_unpin(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if clock::monotonic() >= call.deadline => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Waits for what only adorns an answer, and not for long.
async fn in_passing<F: Future + Unpin>(call: &Call, mut future: F) -> Option<F::Output> {
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

fn subject(event: &EventId, reservation: Option<&ReservationId>) -> Subject {
    Subject {
        event: event.to_string(),
        reservation: reservation.map_or_else(String::new, ToString::to_string),
    }
}

fn label(verb: Verb) -> &'static str {
    match verb {
        Verb::Commit => "commit",
        Verb::Release => "release",
        Verb::Hold => "hold",
        Verb::Expire => "expire",
        Verb::Refund => "refund",
    }
}
