//! `reservation.v1.InventoryService`: the handlers of contract B.
//!
//! The client's circuit breaker counts gRPC errors. So whatever is the business's own (sold out, a
//! taken seat, an expired hold, an unknown event) is a response with gRPC status OK that says so;
//! gRPC errors are for bad arguments, overload, deadlines and an unreachable store.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the handlers: from a call to its response |
//! | `outcome.rs` | what a hold, a commit, a release ended with, as a response |
//! | `inquiry.rs` | what was found of an event, as a response |
//! | `statuses.rs` | statuses that were encoded, for as long as nothing changes |
//! | `error.rs` | which refusals are in the response, with which code |

mod error;
mod inquiry;
mod outcome;
mod statuses;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use inventory_proto::common::v1 as common;
use inventory_proto::reservation::v1::{
    CheckAvailabilityRequest, CheckAvailabilityResponse, CommitReservationRequest,
    CommitReservationResponse, GetInventoryStatusRequest, GetInventoryStatusResponse,
    ReleaseHoldRequest, ReleaseHoldResponse, ReserveSeatRequest, ReserveSeatResponse,
};

use self::error::trace_id;
use self::statuses::Statuses;
use super::clerk::{Clerk, Failure, Request, kind, kind_answered};
use super::convert;
use super::refusal::{self, Subject};
use super::validate::{RESERVATION, Violations};
use crate::telemetry::recorder::InventoryType;
use inventory_core::answer::{Answer, Refusal};
use inventory_core::ids::{EventId, Seats};
use inventory_core::operation::{Expect, Verb, Wanted};
use inventory_core::question::Question;
use inventory_grpc::{Call, InventoryService, Kept, Status};
use inventory_runtime::clock;

/// One per shard.
pub struct ReservationHandlers {
    clerk: Rc<Clerk>,
    statuses: Statuses,
}

impl ReservationHandlers {
    pub fn new(clerk: Rc<Clerk>) -> Self {
        Self {
            clerk,
            statuses: Statuses::new(),
        }
    }

    /// What an operation ended with, counted. `Ok` is for the response, also when it is a refusal.
    fn counted(
        call: &Call,
        outcome: Result<Answer, Failure>,
        kind: InventoryType,
        done: &'static str,
        count: impl FnOnce(InventoryType, &'static str),
    ) -> Result<Result<Answer, Refusal>, Status> {
        let status = outcome.as_ref().map_or_else(Failure::reason, |_| done);
        count(kind_answered(kind, &outcome), status);
        call.outcome(status);
        told(outcome)
    }

    /// The seats of an answer with what is known of them.
    async fn seats(
        &self,
        call: &Call,
        event: EventId,
        seats: Option<&Seats>,
        status: common::SeatStatus,
    ) -> Vec<common::Seat> {
        let Some(seats) = seats else {
            return Vec::new();
        };
        let described = Box::pin(self.clerk.describe(call, event, seats)).await;
        let shown = described.into_iter().map(|seat| match seat {
            Ok(seat) => convert::seat(seat, status),
            Err(id) => convert::bare_seat(&id, status),
        });
        shown.collect()
    }

    async fn status(
        &self,
        call: &Call,
        request: GetInventoryStatusRequest,
    ) -> Result<Kept<GetInventoryStatusResponse>, Status> {
        let mut violations = Violations::of(RESERVATION);
        let event = violations.event(request.event_id);
        let section = violations.section(request.section);
        let event = match (event, violations.is_empty()) {
            (Some(event), true) => event,
            (event, _) => {
                let about = Subject::of(event, None);
                return Err(refusal::invalid(violations, &about));
            }
        };
        // Before the question: the answer is as new as its mark, or newer.
        let mark = match section {
            None => self.clerk.status_mark(&event),
            Some(_) => None,
        };
        if let Some(kept) = mark.and_then(|mark| self.statuses.get(&event, mark)) {
            return Ok(Kept::Encoded(kept));
        }
        // Of the whole event in any case: the response tells its totals too.
        let question = Question::Status { section: None };
        let found = match self.clerk.known(call, &event, &question) {
            Some(found) => Ok(found),
            None => self.clerk.ask(call, event.clone(), question).await,
        };
        match told(found)? {
            Ok(found) => {
                let name = self.clerk.name(call, &event).await;
                let trace = trace_id(&call.headers);
                let mark = mark.filter(|_| name.is_some());
                let name = name.unwrap_or_default();
                let status =
                    inquiry::status(event.clone(), name, section.as_deref(), found, trace)?;
                // A name that came too late for this answer is in the next.
                if let Some(mark) = mark {
                    let encoded = self.statuses.keep(event, mark, &status);
                    return Ok(Kept::Encoded(encoded));
                }
                Ok(Kept::Message(Box::new(status)))
            }
            Err(why) => {
                let refused = inquiry::no_status(&why, trace_id(&call.headers))?;
                Ok(Kept::Message(Box::new(refused)))
            }
        }
    }
}

impl InventoryService for ReservationHandlers {
    async fn check_availability(
        &self,
        call: &Call,
        request: CheckAvailabilityRequest,
    ) -> Result<CheckAvailabilityResponse, Status> {
        let mut violations = Violations::of(RESERVATION);
        let event = violations.event(request.event_id);
        let section = violations.section(request.section);
        let qty_max = self.clerk.qty_max();
        let wanted = violations.wanted(request.quantity, request.seat_ids, qty_max);
        let (event, wanted) = match (event, wanted, violations.is_empty()) {
            (Some(event), Some(wanted), true) => (event, wanted),
            (event, ..) => {
                let about = Subject::of(event, None);
                return Err(refusal::invalid(violations, &about));
            }
        };
        let (asked, kind) = (wanted.clone(), kind(&wanted));
        let question = match wanted {
            Wanted::Quantity(qty) => Question::Availability { qty, section },
            Wanted::Seats(seats) => Question::Seats { seats },
            Wanted::Whatever => return Err(refusal::unexpected()),
        };
        let found = told(match self.clerk.known(call, &event, &question) {
            Some(found) => Ok(found),
            // Boxed: a call answered at once carries no room for it.
            None => Box::pin(self.clerk.ask(call, event, question)).await,
        });
        let answer = found.and_then(|found| match found {
            Ok(found) => inquiry::availability(&asked, found, clock::now().unix),
            Err(why) => inquiry::unavailable(&why, trace_id(&call.headers)),
        });
        let result = match &answer {
            Ok(found) if found.error.is_some() => "error",
            Ok(found) if found.available => "available",
            Ok(_) => "unavailable",
            Err(_) => "error",
        };
        self.clerk.recorder().check(kind, result);
        call.outcome(result);
        answer
    }

    async fn reserve_seat(
        &self,
        call: &Call,
        request: ReserveSeatRequest,
    ) -> Result<ReserveSeatResponse, Status> {
        let mut violations = Violations::of(RESERVATION);
        violations.opaque("user_id", &request.user_id);
        violations.opaque("idempotency_key", &request.idempotency_key);
        let wish = request.hold_expires_at;
        let hold_until = self.clerk.hold_until(&mut violations, wish.as_ref());
        let qty_max = self.clerk.qty_max();
        let wanted = violations.wanted(request.quantity, request.seat_ids, qty_max);
        let event = violations.event(request.event_id);
        let reservation = violations.reservation(request.reservation_id);
        let mut checked = Request::checked(violations, event, reservation, wanted)?;
        checked.hold_until = hold_until;
        let (event, hold) = (checked.event.clone(), checked.reservation.to_string());
        let kind = kind(&checked.wanted);
        let operation = checked.operation(Verb::Hold, Expect::New, call);
        let count = |kind, status| self.clerk.recorder().hold(kind, status);
        let outcome = self.clerk.begin(call, operation).end().await;
        match Self::counted(call, outcome, kind, "HELD", count)? {
            Ok(Answer::Held {
                expires_at, seats, ..
            }) => {
                let status = common::SeatStatus::Reserved;
                let seats = self.seats(call, event, seats.as_ref(), status).await;
                Ok(outcome::held(hold, seats, expires_at))
            }
            Ok(_) => Err(refusal::unexpected()),
            Err(why) => outcome::not_held(hold, &why, trace_id(&call.headers)),
        }
    }

    async fn commit_reservation(
        &self,
        call: &Call,
        request: CommitReservationRequest,
    ) -> Result<CommitReservationResponse, Status> {
        let mut violations = Violations::of(RESERVATION);
        violations.opaque("user_id", &request.user_id);
        violations.opaque("idempotency_key", &request.idempotency_key);
        violations.payment_intent(&request.payment_intent_id);
        let qty_max = self.clerk.qty_max();
        let wanted = violations.wanted_or_held(request.quantity, request.seat_ids, qty_max);
        let event = violations.event(request.event_id);
        let reservation = violations.reservation(request.reservation_id);
        let mut checked = Request::checked(violations, event, reservation, wanted)?;
        checked.payment_intent = request.payment_intent_id;
        let event = checked.event.clone();
        let kind = kind(&checked.wanted);
        let operation = checked.operation(Verb::Commit, Expect::Known, call);
        let count = |kind, status| self.clerk.recorder().commit(kind, status);
        let outcome = self.clerk.begin(call, operation).end().await;
        match Self::counted(call, outcome, kind, "CONFIRMED", count)? {
            Ok(Answer::Confirmed { order, at, seats }) => {
                let status = common::SeatStatus::Sold;
                let seats = self.seats(call, event, seats.as_ref(), status).await;
                Ok(outcome::confirmed(order, seats, at))
            }
            Ok(_) => Err(refusal::unexpected()),
            Err(why) => outcome::not_confirmed(&why, trace_id(&call.headers)),
        }
    }

    async fn release_hold(
        &self,
        call: &Call,
        request: ReleaseHoldRequest,
    ) -> Result<ReleaseHoldResponse, Status> {
        let mut violations = Violations::of(RESERVATION);
        violations.opaque("reason", &request.reason);
        violations.opaque("idempotency_key", &request.idempotency_key);
        let qty_max = self.clerk.qty_max();
        let wanted = violations.wanted_or_held(request.quantity, request.seat_ids, qty_max);
        let event = violations.event(request.event_id);
        let reservation = violations.reservation(request.reservation_id);
        let checked = Request::checked(violations, event, reservation, wanted)?;
        let event = checked.event.clone();
        let kind = kind(&checked.wanted);
        let operation = checked.operation(Verb::Release, Expect::Known, call);
        let count = |kind, status| self.clerk.recorder().release(kind, status);
        let outcome = self.clerk.begin(call, operation).end().await;
        match Self::counted(call, outcome, kind, "RELEASED", count)? {
            Ok(Answer::Released { how, at, seats }) => {
                let given_back = outcome::gave_back(how, seats.as_ref());
                let status = common::SeatStatus::Available;
                let seats = self.seats(call, event, given_back, status).await;
                Ok(outcome::released(how, seats, at))
            }
            Ok(_) => Err(refusal::unexpected()),
            Err(why) => outcome::not_released(&why, trace_id(&call.headers)),
        }
    }

    async fn get_inventory_status(
        &self,
        call: &Call,
        request: GetInventoryStatusRequest,
    ) -> Result<Kept<GetInventoryStatusResponse>, Status> {
        // The largest of them all: the other calls carry no room for it.
        Box::pin(self.status(call, request)).await
    }
}

/// Parts what the response tells from what is a gRPC error.
fn told<T>(outcome: Result<T, Failure>) -> Result<Result<T, Refusal>, Status> {
    match outcome {
        Ok(answer) => Ok(Ok(answer)),
        Err(Failure::Refused(why, _)) if error::is_business(&why) => Ok(Err(why)),
        Err(failure) => Err(failure.into_status()),
    }
}
