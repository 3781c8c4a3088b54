//! The store's answer to a transaction → answers, retries, splits.

use std::rc::Rc;

use rand::Rng;

use super::{Flight, Lane, LaneOutput, Member, Settled};
use crate::domain::answer::Refusal;
use crate::domain::backoff;
use crate::domain::counters::Counters;
use crate::domain::time::Now;
use crate::domain::transaction::{
    RecordWrite, Outcome, Reason, StripeUpdate, StripeView, Transaction,
};

/// Why a lane waits before its next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    Conflicted,
    Throttled,
}

/// What the action of a member that stays said about its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    /// There is none.
    None,
    Unsaid,
}

/// What a stripe's action said.
#[derive(Clone, Copy, Debug)]
enum Room {
    /// It was not the reason, or it did not say.
    Unsaid,
    /// It has this much; what the members before have been given of it is subtracted.
    Left { reported: u64, left: u64 },
    /// There is no such item.
    Missing,
}

impl Lane {
    /// Takes the outcome of the transaction in flight. A late or stray outcome is ignored.
    pub fn settled(
        &mut self,
        outcome: Outcome,
        now: Now,
        rng: &mut impl Rng,
        counters: &mut Counters,
        out: &mut LaneOutput,
    ) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        match outcome {
            Outcome::Committed => {
                self.attempts = 0;
                let at = flight.transaction.at;
                for record in into_records(flight.transaction) {
                    out.written(record, at);
                }
            }
            Outcome::Unknown => {
                counters.unknown_outcomes += 1;
                self.resend_later(flight, now, rng);
                return;
            }
            // A repeat of an unknown try that is put off leaves the first try unknown.
            Outcome::Conflict | Outcome::Throttled | Outcome::Refused if flight.was_unknown => {
                self.resend_later(flight, now, rng);
                return;
            }
            Outcome::Conflict => self.put_off(
                into_members(flight),
                Put::Conflicted,
                now,
                rng,
                counters,
                out,
            ),
            Outcome::Throttled => self.put_off(
                into_members(flight),
                Put::Throttled,
                now,
                rng,
                counters,
                out,
            ),
            Outcome::Rejected => {
                self.attempts = 0;
                self.split(into_members(flight), counters, out);
            }
            Outcome::Refused => {
                self.attempts = 0;
                for member in into_members(flight) {
                    out.refuse(member, Refusal::store_unavailable());
                }
            }
            Outcome::Cancelled(reasons) => {
                self.cancelled(flight, &reasons, now, rng, counters, out);
            }
        }
        self.dispatch(now, rng, counters, out);
        self.want_read(out);
    }

    /// Keeps the transaction and sends the same body under the same token again after a pause.
    fn resend_later(&mut self, mut flight: Flight, now: Now, rng: &mut impl Rng) {
        self.attempts = self.attempts.saturating_add(1);
        flight.was_unknown = true;
        flight.resend_at = Some(now.mono.plus(backoff::pause(self.attempts, rng)));
        self.flight = Some(flight);
    }

    /// Puts members back to the front, in order, and pauses. Who would be too late
    /// after the pause is told now.
    fn put_off(
        &mut self,
        members: Vec<Member>,
        why: Put,
        now: Now,
        rng: &mut impl Rng,
        counters: &mut Counters,
        out: &mut LaneOutput,
    ) {
        match why {
            Put::Conflicted => counters.conflicts += 1,
            Put::Throttled => counters.throttles += 1,
        }
        self.attempts = self.attempts.saturating_add(1);
        let until = now.mono.plus(backoff::pause(self.attempts, rng));
        self.pause_until = Some(until);
        let mut kept = Vec::with_capacity(members.len());
        for member in members {
            if member.head.deadline > until {
                kept.push(member);
            } else {
                counters.expired += 1;
                out.refuse(member, Refusal::store_busy());
            }
        }
        self.back_to_front(kept);
    }

    /// Members of the transaction that has just settled come before all others again, in order:
    /// before the queue, and before groups that were split off behind them.
    fn back_to_front(&mut self, members: Vec<Member>) {
        if self.groups.is_empty() {
            for member in members.into_iter().rev() {
                self.queue.push_front(member);
            }
        } else if !members.is_empty() {
            self.groups.push(members);
        }
    }

    /// The body was refused without saying whose fault it is: halve until the culprit is alone.
    fn split(&mut self, mut members: Vec<Member>, counters: &mut Counters, out: &mut LaneOutput) {
        if members.len() <= 1 {
            for member in members {
                out.refuse(member, Refusal::Internal);
            }
            return;
        }
        counters.splits += 1;
        let second = members.split_off(members.len() / 2);
        self.groups.push(second);
        self.groups.push(members);
    }

    /// Reads every reason; each member is answered, put off, or sent again on its own account.
    fn cancelled(
        &mut self,
        flight: Flight,
        reasons: &[Reason],
        now: Now,
        rng: &mut impl Rng,
        counters: &mut Counters,
        out: &mut LaneOutput,
    ) {
        let updates = flight.transaction.stripes.clone();
        let members = into_members(flight);
        if reasons.len() != updates.len() + members.len() {
            // Not applied, but who is at fault was not understood: as good as a conflict.
            self.put_off(members, Put::Conflicted, now, rng, counters, out);
            return;
        }
        let (of_stripes, of_records) = reasons.split_at(updates.len());
        let mut put = put_off_by(reasons);
        let mut rooms = self.rooms(&updates, of_stripes, &mut put, out);

        let before = out.settled.len() + self.short.len();
        let mut again = Vec::with_capacity(members.len());
        for (member, reason) in members.into_iter().zip(of_records) {
            match reason {
                Reason::Record(view) => {
                    counters.duplicates += 1;
                    let record = &member.record;
                    let answer = crate::domain::answer::Answer::Refused(Refusal::Internal);
                    out.settled.push(Settled {
                        reservation: member.record.reservation,
                        answer,
                        learned: Some(view.clone()),
                    });
                }
                Reason::RecordUnreadable | Reason::RecordMissing | Reason::Seat(_) | Reason::Invalid => {
                    out.refuse(member, Refusal::Internal);
                }
                // The store did not get to say whether a record exists.
                Reason::Conflict | Reason::Throttled => again.push((member, Record::Unsaid)),
                Reason::Fine | Reason::Stripe(_) => again.push((member, Record::None)),
            }
        }
        let (fitting, later) = self.admit(again, &mut rooms, counters, out);
        let nobody_left = out.settled.len() + self.short.len() == before;
        if put.is_none() && nobody_left && later.is_empty() {
            // Nothing explains the cancellation: never spin on it.
            put = Some(Put::Conflicted);
        }
        self.back_to_front(later);
        match put {
            Some(why) => self.put_off(fitting, why, now, rng, counters, out),
            None => {
                self.attempts = 0;
                if !fitting.is_empty() {
                    self.groups.push(fitting);
                }
            }
        }
    }

    /// What each stripe's action said. A stripe that has enough and failed all the same was
    /// changed in between: a conflict.
    fn rooms(
        &mut self,
        updates: &[StripeUpdate],
        reasons: &[Reason],
        put: &mut Option<Put>,
        out: &mut LaneOutput,
    ) -> Vec<(u16, Room)> {
        let mut rooms = Vec::with_capacity(updates.len());
        for (update, reason) in updates.iter().zip(reasons) {
            let room = match reason {
                Reason::Stripe(Some(view)) => {
                    self.learn_stripes(view, out);
                    if view.remaining >= update.take {
                        put.get_or_insert(Put::Conflicted);
                        Room::Unsaid
                    } else {
                        Room::Left {
                            reported: view.remaining,
                            left: view.remaining,
                        }
                    }
                }
                Reason::Stripe(None) => Room::Missing,
                _ => Room::Unsaid,
            };
            rooms.push((update.stripe, room));
        }
        rooms
    }

    fn learn_stripes(&mut self, view: &StripeView, out: &mut LaneOutput) {
        if let Some(stripes) = view.stripes {
            self.stripes = stripes.max(1);
            out.learned_stripes = Some(self.stripes);
        }
    }

    /// Splits the members that stay in the game: those the stripes have room for, first come first
    /// served, and those that must wait for what becomes of them. A member larger than what its
    /// stripe reported leaves: refused if that stripe is all there is or the others were looked at
    /// before, else to the other stripes.
    /// But stock decides nothing about a member that may have a record: it asks again.
    fn admit(
        &mut self,
        members: Vec<(Member, Record)>,
        rooms: &mut [(u16, Room)],
        counters: &mut Counters,
        out: &mut LaneOutput,
    ) -> (Vec<Member>, Vec<Member>) {
        let mut fitting = Vec::with_capacity(members.len());
        let mut later = Vec::new();
        for (member, record) in members {
            match fit(&member, rooms) {
                Fit::Yes => {
                    for draw in &member.record.draws {
                        if let Some(Room::Left { left, .. }) = room_of(rooms, draw.stripe) {
                            *left -= u64::from(draw.units);
                        }
                    }
                    fitting.push(member);
                }
                Fit::NotNow => later.push(member),
                _ if record == Record::Unsaid => later.push(member),
                Fit::NoSuchStripe(0) => out.refuse(member, Refusal::EventNotFound),
                Fit::NoSuchStripe(_) => out.refuse(member, Refusal::Internal),
                Fit::TooBig { reported } => {
                    counters.short += 1;
                    let only_one = (self.stripes <= 1).then_some(reported);
                    match only_one.or(member.head.too_few) {
                        Some(remaining) => {
                            out.refuse(member, Refusal::InsufficientInventory { remaining });
                        }
                        None => self.short.push(member),
                    }
                }
            }
        }
        (fitting, later)
    }
}

enum Fit {
    Yes,
    /// It would fit alone, but members before it have been given the room.
    NotNow,
    /// It would not fit alone.
    TooBig {
        reported: u64,
    },
    NoSuchStripe(u16),
}

fn fit(member: &Member, rooms: &mut [(u16, Room)]) -> Fit {
    let mut verdict = Fit::Yes;
    for draw in &member.record.draws {
        let units = u64::from(draw.units);
        match room_of(rooms, draw.stripe) {
            Some(Room::Missing) => return Fit::NoSuchStripe(draw.stripe),
            Some(Room::Left { reported, .. }) if units > *reported => {
                return Fit::TooBig {
                    reported: *reported,
                };
            }
            Some(Room::Left { left, .. }) if units > *left => verdict = Fit::NotNow,
            _ => {}
        }
    }
    verdict
}

fn room_of(rooms: &mut [(u16, Room)], stripe: u16) -> Option<&mut Room> {
    rooms
        .iter_mut()
        .find(|(index, _)| *index == stripe)
        .map(|(_, room)| room)
}

/// Throttling wins over conflict: it is the one to go easy on.
fn put_off_by(reasons: &[Reason]) -> Option<Put> {
    if reasons.contains(&Reason::Throttled) {
        Some(Put::Throttled)
    } else if reasons.contains(&Reason::Conflict) {
        Some(Put::Conflicted)
    } else {
        None
    }
}

fn into_records(transaction: Rc<Transaction>) -> Vec<RecordWrite> {
    // The driver has dropped its half by now; the copy is for a driver that has not.
    Rc::try_unwrap(transaction)
        .unwrap_or_else(|shared| (*shared).clone())
        .records
}

fn into_members(flight: Flight) -> Vec<Member> {
    flight
        .heads
        .into_iter()
        .zip(into_records(flight.transaction))
        .map(|(head, record)| Member { head, record })
        .collect()
}
