//! Questions about an event: from a snapshot of its stripes or a strong read of them, or from the map
//! of its seats.

use super::desk::MapWaiter;
use super::{Coordinator, refusal_of};
use crate::answer::Refusal;
use crate::counters::TIME_BOUNDS_US;
use crate::effect::{CallId, Effect};
use crate::ids::{EventId, SeatId};
use crate::limits;
use crate::question::{Counts, EventStatus, Found, Question, StatusMark};
use crate::reads::{Done, Waiter};
use crate::seat_map::SeatRef;
use crate::seats::{Seat, SeatState};
use crate::time::{Micros, Now};
use crate::transaction::{EventRead, EventShape, StripeUpdate, StripeView};

impl Coordinator {
    /// The answer to a question that arrived at `asked`, if it is known well enough without a read. It
    /// costs no [`CallId`]; a read may begin that spares the next question the wait.
    pub fn known(
        &mut self,
        event: &EventId,
        question: &Question,
        asked: Micros,
        fx: &mut Vec<Effect>,
    ) -> Option<Found> {
        let glance = self.snapshots.answer(event, question, asked)?;
        self.counters.snapshot_answers += 1;
        let ages = &mut self.counters.snapshot_ages;
        ages.record(&TIME_BOUNDS_US, glance.age.0);
        if glance.is_aging && self.reads.refresh(event, Some(glance.stripes), asked, fx) {
            self.counters.snapshot_refreshes += 1;
        }
        Some(glance.found)
    }

    /// Takes a question of a caller of this shard that [`Coordinator::known`] has no answer for.
    pub fn ask(
        &mut self,
        call: CallId,
        event: EventId,
        question: Question,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let shape = self.events.get(&event).copied();
        match shape.filter(|shape| shape.is_seated()) {
            Some(shape) => self.ask_owner(call, event, shape, question, now, fx),
            None => {
                let hint = shape.map(|shape| shape.stripes);
                self.ask_store(call, &event, hint, question, now.mono, now, fx);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one question, taken apart")]
    fn ask_store(
        &mut self,
        call: CallId,
        event: &EventId,
        hint: Option<u16>,
        question: Question,
        asked: Micros,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let waiter = Waiter::Ask {
            call,
            question,
            asked,
        };
        if self.reads.want(event, hint, waiter, now.mono, fx).is_err() {
            self.counters.shed += 1;
            tell(call, Err(Refusal::overloaded()), fx);
        }
    }

    /// The mark of what a question for the status of a whole seated event would be answered now;
    /// `None` where the answer is not in this shard's memory. A read may begin, as of a question.
    pub fn status_mark(
        &mut self,
        event: &EventId,
        now: Now,
        fx: &mut Vec<Effect>,
    ) -> Option<StatusMark> {
        let shape = *self.events.get(event)?;
        let is_here = self.desks.get(event).is_some_and(|desk| {
            desk.is_younger_than(limits::STATUS_AGE_MAX, now.mono) || desk.is_fresh(now.mono)
        });
        if !is_here {
            return None;
        }
        self.read_seats_soon(event, shape, now, fx);
        let desk = self.desk(event, now.mono);
        Some(StatusMark {
            as_of: desk.read_unix,
            closed: shape.closed,
            changes: desk.map()?.changes(now.unix),
        })
    }

    /// Takes a question that another shard passed on: the event's seats are remembered here.
    pub fn ask_forwarded(
        &mut self,
        call: CallId,
        event: &EventId,
        shape: EventShape,
        question: Question,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let desk = self.desk(event, now.mono);
        // What a seat is like hardly changes, and a status says of when it is: neither is worth the
        // wait for a read while the map is of some use.
        let may_be_old = match question {
            Question::Describe { .. } => desk.map().is_some(),
            Question::Status { .. } => desk.is_younger_than(limits::STATUS_AGE_MAX, now.mono),
            Question::Availability { .. } | Question::Seats { .. } => false,
        };
        if may_be_old || desk.is_fresh(now.mono) {
            self.events.get_or_insert(event.clone(), || shape);
            self.read_seats_soon(event, shape, now, fx);
            self.answer_from_map(call, event, question, now, fx);
        } else {
            let waiter = MapWaiter::Ask { call, question };
            self.wait_for_map(event, shape, waiter, now, fx);
        }
    }

    fn ask_owner(
        &mut self,
        call: CallId,
        event: EventId,
        shape: EventShape,
        question: Question,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let shard = self.lanes.owner(&event, 0);
        if shard == self.settings.shard {
            self.ask_forwarded(call, &event, shape, question, now, fx);
        } else {
            fx.push(Effect::AskShard {
                shard,
                call,
                event,
                shape,
                question,
            });
        }
    }

    /// Remembers what a read of the stripes has found.
    pub(super) fn keep_snapshot(
        &mut self,
        event: &EventId,
        done: &Done,
        read: &EventRead,
        now: Now,
    ) {
        if let EventRead::Found(stripes) = read
            && !EventShape::of(stripes).is_seated()
            && !done.is_spoiled
        {
            self.snapshots
                .keep(event, done.began, stripes, &done.doubts, now);
        }
    }

    /// This shard has written to the stripes, or may have; see [`crate::snapshots`].
    pub(super) fn stock_moved(
        &mut self,
        event: &EventId,
        written: &[StripeUpdate],
        sent: Option<Micros>,
        now: Micros,
    ) {
        if !written.is_empty() && !self.snapshots.is_off() {
            self.reads.moved(event, written);
            self.snapshots.moved(event, written, sent, now);
        }
    }

    /// Answers a question that came while the read was under way: from the snapshot it has made, or
    /// else from the next read.
    #[expect(clippy::too_many_arguments, reason = "one question, taken apart")]
    pub(super) fn answer_who_joined(
        &mut self,
        call: CallId,
        event: &EventId,
        question: Question,
        asked: Micros,
        read: &EventRead,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let shape = match read {
            EventRead::Found(stripes) => Some(EventShape::of(stripes)),
            _ => None,
        };
        let Some(shape) = shape.filter(|shape| !shape.is_seated()) else {
            self.answer_from_read(call, event, question, read, now, fx);
            return;
        };
        match self.snapshots.answer(event, &question, asked) {
            Some(glance) => {
                self.counters.read_answers += 1;
                tell(call, Ok(glance.found), fx);
            }
            None => {
                let hint = Some(shape.stripes);
                self.ask_store(call, event, hint, question, asked, now, fx);
            }
        }
    }

    /// Answers a question that waited for a read of the stripes, or passes it on to where the seats
    /// are remembered.
    pub(super) fn answer_from_read(
        &mut self,
        call: CallId,
        event: &EventId,
        question: Question,
        read: &EventRead,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let stripes = match read {
            EventRead::Found(stripes) => stripes,
            other => {
                let refusal = refusal_of(other).unwrap_or(Refusal::Internal);
                tell(call, Err(refusal), fx);
                return;
            }
        };
        let shape = EventShape::of(stripes);
        if shape.is_seated() {
            self.ask_owner(call, event.clone(), shape, question, now, fx);
            return;
        }
        self.counters.read_answers += 1;
        tell(call, Ok(of_stripes(question, stripes, shape, now)), fx);
    }

    pub(super) fn answer_from_map(
        &mut self,
        call: CallId,
        event: &EventId,
        question: Question,
        now: Now,
        fx: &mut Vec<Effect>,
    ) {
        let closed = self.events.get(event).is_some_and(|shape| shape.closed);
        let desk = self.desks.get_mut(event);
        let as_of = desk.as_ref().map(|desk| desk.read_unix).unwrap_or_default();
        let Some((map, claimed)) = desk.and_then(|desk| desk.map_and_claims()) else {
            tell(call, Err(Refusal::store_unavailable()), fx);
            return;
        };
        let found = match question {
            Question::Availability { qty, section } => {
                let section = section.as_deref();
                let picked = match closed {
                    true => None,
                    false => map.pick(qty, section, now, &claimed, &mut self.rng),
                };
                let seats: Vec<Seat> = picked
                    .iter()
                    .flatten()
                    .filter_map(|seat| map.get(seat))
                    .map(|seat| as_of_now(&seat, now))
                    .collect();
                Found::Offer {
                    seats,
                    remaining: map.remaining(section, now.unix),
                }
            }
            Question::Seats { seats } | Question::Describe { seats } => {
                let mut known = Vec::with_capacity(seats.len());
                let mut unknown: Vec<SeatId> = Vec::new();
                for id in seats.iter() {
                    match map.get(id) {
                        Some(seat) => known.push(as_of_now(&seat, now)),
                        None => unknown.push(id.clone()),
                    }
                }
                Found::Seats { known, unknown }
            }
            Question::Status { section } => {
                let section = section.as_deref();
                // Of a section that the event does not have there is nothing.
                let sections = map.status(section, now.unix).unwrap_or_default();
                let counts = map.counts(section, now.unix).unwrap_or_default();
                Found::Status(Box::new(EventStatus {
                    counts,
                    sections,
                    as_of,
                    seated: true,
                    closed,
                }))
            }
        };
        tell(call, Ok(found), fx);
    }
}

/// The seat, with a hold that is past its time counting for nothing.
fn as_of_now(seat: &SeatRef<'_>, now: Now) -> Seat {
    let mut shown = seat.to_seat();
    if seat.can_be_had(now.unix) {
        shown.state = SeatState::Available;
    }
    shown
}

fn of_stripes(question: Question, stripes: &[StripeView], shape: EventShape, now: Now) -> Found {
    let remaining: u64 = stripes.iter().map(|s| s.remaining).sum();
    match question {
        Question::Availability { qty, .. } => Found::Units {
            remaining,
            available: !shape.closed && remaining >= u64::from(qty),
        },
        Question::Seats { seats } | Question::Describe { seats } => Found::Seats {
            known: Vec::new(),
            unknown: seats.to_vec(),
        },
        Question::Status { .. } => {
            let total: u64 = stripes.iter().map(|s| s.capacity).sum();
            let counts = Counts {
                total,
                available: remaining,
                held: 0,
                sold: total.saturating_sub(remaining),
                blocked: 0,
            };
            Found::Status(Box::new(EventStatus {
                counts,
                sections: Vec::new(),
                as_of: now.unix,
                seated: false,
                closed: shape.closed,
            }))
        }
    }
}

fn tell(call: CallId, result: Result<Found, Refusal>, fx: &mut Vec<Effect>) {
    fx.push(Effect::Told { call, result });
}
