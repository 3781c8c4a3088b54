//! `inventory.v1.Inventory`: the handlers of contract A.
//!
//! A repeat of a settled reservation is answered on the spot, without an await. Everything else is
//! handed to the driver; the future that waits for the answer may be dropped, the write goes on.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use futures::FutureExt;
use futures::channel::oneshot;
use inventory_proto::inventory::v1::{
    CheckReq, CheckRes, CommitReq, CommitRes, ReleaseReq, ReleaseRes, SeatRef,
};

use super::refusal::{self, Subject};
use super::validate::{Violations, Wanted};
use crate::domain::answer::{Answer, Refusal};
use crate::domain::ids::{EventId, Fingerprint, ReservationId};
use crate::domain::operation::{Operation, Verb};
use crate::domain::question::{Found, Question};
use crate::runtime::clock;
use crate::shard::driver::Driver;
use crate::telemetry::recorder::{InventoryType, Recorder};
use crate::wire::{Call, Inventory, Status};

const CONFIRMED: &str = "CONFIRMED";
const RELEASED: &str = "RELEASED";

/// One per shard.
pub struct InventoryHandlers {
    driver: Rc<Driver>,
    recorder: Rc<Recorder>,
    qty_max: u32,
}

/// A valid commit or release.
struct Request {
    event: EventId,
    reservation: ReservationId,
    wanted: Wanted,
}

impl InventoryHandlers {
    pub fn new(driver: Rc<Driver>, recorder: Rc<Recorder>, qty_max: u32) -> Self {
        Self {
            driver,
            recorder,
            qty_max,
        }
    }

    /// The answer to a repeat of a settled reservation, or the way to the answer.
    ///
    /// What has to wait is boxed: a call answered from memory then carries no room for it, and
    /// moving that room was a tenth of the call's cost.
    fn begin<'a>(
        &'a self,
        call: &'a Call,
        verb: Verb,
        request: Request,
        payment: String,
    ) -> Begun<'a> {
        let Request {
            event,
            reservation,
            wanted,
        } = request;
        let qty = match wanted {
            Wanted::Quantity(qty) => qty,
            Wanted::Seats(seats) => {
                let subject = subject(&event, Some(&reservation));
                return Begun::Waits(Box::pin(async move {
                    Err(self.no_such_seats(call, event, &seats, &subject).await)
                }));
            }
        };
        let operation = Operation {
            verb,
            fingerprint: Fingerprint::of_quantity(&event, qty),
            reservation,
            event,
            wanted: crate::domain::operation::Wanted::Quantity(qty),
            section: None,
            hold_until: None,
            expect: crate::domain::operation::Expect::New,
            payment_intent: payment,
            deadline: call.deadline,
        };
        let replayed = self.driver.replay(&operation, call.arrived);
        self.recorder.idempotency(label(verb), replayed.is_some());
        match replayed {
            Some(Answer::Refused(why)) => {
                Begun::Answered(Err(self.refused(&why, &subject_of(&operation))))
            }
            Some(answer) => Begun::Answered(Ok(answer)),
            None => Begun::Waits(Box::pin(self.submit(call, operation))),
        }
    }

    /// Runs one operation to its answer.
    async fn submit(&self, call: &Call, operation: Operation) -> Result<Answer, Status> {
        let subject = subject_of(&operation);
        match answer_of(self.driver.submit(operation), call, &subject).await? {
            Answer::Refused(why) => Err(self.refused(&why, &subject)),
            answer => Ok(answer),
        }
    }

    fn refused(&self, why: &Refusal, subject: &Subject) -> Status {
        let status = refusal::status_of(why, subject);
        if met_another(why) {
            self.recorder.conflict(status.reason());
        }
        status
    }

    async fn stock(
        &self,
        call: &Call,
        event: EventId,
        qty: u32,
        about: &Subject,
    ) -> Result<Found, Status> {
        let question = Question::Availability { qty, section: None };
        let found = answer_of(self.driver.ask(event, question), call, about).await?;
        found.map_err(|why| refusal::status_of(&why, about))
    }

    /// Quantity events have no seats; whether the event exists at all is told first.
    async fn no_such_seats(
        &self,
        call: &Call,
        event: EventId,
        seats: &[String],
        about: &Subject,
    ) -> Status {
        match self.stock(call, event, 1, about).await {
            Ok(_) => refusal::seats_not_found(seats, about),
            Err(status) => status,
        }
    }

    fn request(
        &self,
        event: String,
        reservation: String,
        qty: i32,
        seats: Vec<SeatRef>,
        payment: &str,
    ) -> Result<Request, Status> {
        let mut violations = Violations::default();
        let event = violations.event(event);
        let reservation = violations.reservation(reservation);
        let wanted = violations.wanted(qty, seat_ids(seats), self.qty_max);
        violations.payment_intent(payment);
        match (event, reservation, wanted, violations.is_empty()) {
            (Some(event), Some(reservation), Some(wanted), true) => Ok(Request {
                event,
                reservation,
                wanted,
            }),
            (event, reservation, ..) => {
                let about = Subject::of(event, reservation);
                Err(refusal::invalid(violations, &about))
            }
        }
    }
}

/// A commit or release that has been looked at.
enum Begun<'a> {
    Answered(Result<Answer, Status>),
    Waits(Pin<Box<dyn Future<Output = Result<Answer, Status>> + 'a>>),
}

impl Begun<'_> {
    async fn end(self) -> Result<Answer, Status> {
        match self {
            Self::Answered(answer) => answer,
            Self::Waits(answer) => answer.await,
        }
    }
}

impl Inventory for InventoryHandlers {
    async fn check_availability(&self, call: &Call, request: CheckReq) -> Result<CheckRes, Status> {
        let mut violations = Violations::default();
        let event = violations.event(request.event_id);
        let wanted = violations.wanted(request.qty, seat_ids(request.seat_ids), self.qty_max);
        let (event, wanted) = match (event, wanted) {
            (Some(event), Some(wanted)) => (event, wanted),
            (event, _) => {
                let about = Subject::of(event, None);
                return Err(refusal::invalid(violations, &about));
            }
        };
        let about = subject(&event, None);
        let (qty, seats) = match wanted {
            Wanted::Quantity(qty) => (qty, Vec::new()),
            Wanted::Seats(seats) => (1, seats),
        };
        let found = Box::pin(self.stock(call, event, qty, &about)).await;
        let answer = found.map(|found| CheckRes {
            // Quantity events have no seats, and unknown seats are never available.
            available: matches!(
                found,
                Found::Units {
                    available: true,
                    ..
                }
            ) && seats.is_empty(),
            unavailable_seats: seats,
        });
        let result = match &answer {
            Ok(found) if found.available => "available",
            Ok(_) => "unavailable",
            Err(_) => "error",
        };
        self.recorder.check(InventoryType::Quantity, result);
        answer
    }

    async fn commit_reservation(
        &self,
        call: &Call,
        request: CommitReq,
    ) -> Result<CommitRes, Status> {
        let payment = request.payment_intent_id;
        let checked = self.request(
            request.event_id,
            request.reservation_id,
            request.qty,
            request.seat_ids,
            &payment,
        )?;
        let outcome = self.begin(call, Verb::Commit, checked, payment).end().await;
        let status = outcome.as_ref().map_or_else(Status::reason, |_| CONFIRMED);
        self.recorder.commit(InventoryType::Quantity, status);
        match outcome? {
            Answer::Confirmed { order, .. } => Ok(CommitRes {
                order_id: order.to_text(),
                status: CONFIRMED.to_owned(),
            }),
            _ => Err(unexpected()),
        }
    }

    async fn release_hold(&self, call: &Call, request: ReleaseReq) -> Result<ReleaseRes, Status> {
        let checked = self.request(
            request.event_id,
            request.reservation_id,
            request.qty,
            request.seat_ids,
            "",
        )?;
        let outcome = self
            .begin(call, Verb::Release, checked, String::new())
            .end()
            .await;
        let status = outcome.as_ref().map_or_else(Status::reason, |_| RELEASED);
        self.recorder.release(InventoryType::Quantity, status);
        match outcome? {
            Answer::Released { .. } => Ok(ReleaseRes {
                status: RELEASED.to_owned(),
            }),
            _ => Err(unexpected()),
        }
    }
}

/// Whether an operation was refused because of what others had done, which is a conflict.
fn met_another(why: &Refusal) -> bool {
    match why {
        Refusal::InsufficientInventory { .. }
        | Refusal::IdempotencyConflict
        | Refusal::ReservationReleased
        | Refusal::ReservationCommitted
        | Refusal::SeatsUnavailable { .. }
        | Refusal::HoldExpired
        | Refusal::EventClosed
        | Refusal::ReservationNotConfirmed
        | Refusal::StoreBusy { .. } => true,
        Refusal::EventNotFound
        | Refusal::SeatsNotFound { .. }
        | Refusal::ReservationNotFound
        | Refusal::DeadlineExceeded
        | Refusal::Overloaded { .. }
        | Refusal::StoreUnavailable { .. }
        | Refusal::Internal => false,
    }
}

/// Waits for an answer of the driver until the call's deadline. The wire polls once more then, and
/// that is when this gives up, with a status that says whom it is about.
async fn answer_of<T>(
    mut answer: oneshot::Receiver<T>,
    call: &Call,
    about: &Subject,
) -> Result<T, Status> {
    poll_fn(|cx| match answer.poll_unpin(cx) {
        Poll::Ready(Ok(answer)) => Poll::Ready(Ok(answer)),
        Poll::Ready(Err(_)) => Poll::Ready(Err(refusal::interrupted(about))),
        Poll::Pending if clock::monotonic() >= call.deadline => {
            Poll::Ready(Err(refusal::late(about)))
        }
        Poll::Pending => Poll::Pending,
    })
    .await
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

fn seat_ids(seats: Vec<SeatRef>) -> Vec<String> {
    seats.into_iter().map(|seat| seat.seat_id).collect()
}

fn subject(event: &EventId, reservation: Option<&ReservationId>) -> Subject {
    Subject {
        event: event.to_string(),
        reservation: reservation.map_or_else(String::new, ToString::to_string),
    }
}

fn subject_of(operation: &Operation) -> Subject {
    subject(&operation.event, Some(&operation.reservation))
}

/// The rules never answer one verb with the other's success.
fn unexpected() -> Status {
    Status::internal(
        refusal::reason::INTERNAL,
        "the answer does not fit the call",
    )
}
