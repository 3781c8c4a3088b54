//! The store's answer to a transaction → answers, retries, splits.

use std::rc::Rc;

use super::member::Member;
use super::rooms::{self, Record};
use super::shared::{Shared, bit};
use super::{Because, Flight, Lane, LaneOutput, Returned, Settled, Turn};
use crate::answer::Refusal;
use crate::backoff;
use crate::ids::EventId;
use crate::operation::Verb;
use crate::rules::{self, Decision, Movement};
use crate::time::Now;
use crate::transaction::{Outcome, Reason, RecordView, RecordWrite, Transaction};

/// Why a lane waits before its next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Conflicted,
    Throttled,
}

/// What becomes of a member of a cancelled transaction, by its own record and seats.
enum Verdict {
    Stays(Record),
    Leaves,
    /// The store calls it invalid, or it cannot be understood.
    Broken,
    Differs(Because),
}

impl Lane {
    /// Takes the outcome of the transaction in flight. A late or stray outcome is ignored.
    pub(super) fn settled(&mut self, outcome: Outcome, shared: &mut Shared, turn: &mut Turn<'_>) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        // A write that was unknown for a while may have been done long ago. One that was not took a
        // moment, in which nobody else has heard of it.
        turn.out.as_of = match outcome {
            Outcome::Committed if !flight.was_unknown => turn.now.mono,
            _ => flight.sent,
        };
        let is_written = outcome == Outcome::Committed;
        // An earlier try may have been written whose token the store no longer knows.
        let may_be =
            flight.was_unknown && matches!(outcome, Outcome::Cancelled(_) | Outcome::Rejected);
        if is_written || may_be {
            turn.out
                .stock
                .extend_from_slice(&flight.transaction.stripes);
            turn.out.stock_sent = is_written.then_some(flight.sent);
        }
        if flight.was_unknown {
            match outcome {
                Outcome::Committed => turn.counters.unknown_applied += 1,
                Outcome::Cancelled(_) | Outcome::Rejected => turn.counters.unknown_not_applied += 1,
                // Still unknown.
                _ => {}
            }
        }
        if outcome != Outcome::Unknown {
            shared.flow.settled(turn.now.mono.since(flight.sent));
        }
        match outcome {
            Outcome::Committed => {
                self.attempts = 0;
                self.collisions = self.collisions.saturating_sub(1);
                let at = flight.transaction.at;
                let mut given = 0;
                for record in into_writes(flight.transaction) {
                    if rules::movement(record.from, record.to) == Movement::Give {
                        shared.reopen(turn.now.mono);
                        for draw in &record.draws {
                            shared.regain(draw.stripe, draw.units);
                            given += u64::from(draw.units);
                        }
                    }
                    turn.out.written(record, at);
                }
                shared.let_short_try(given);
            }
            Outcome::Unknown => {
                turn.counters.unknown_outcomes += 1;
                self.resend_later(flight, turn);
                return;
            }
            // A repeat of an unknown try that is put off leaves the first try unknown.
            Outcome::Conflict | Outcome::Throttled | Outcome::Refused if flight.was_unknown => {
                self.resend_later(flight, turn);
                return;
            }
            Outcome::Conflict => {
                self.put_off(into_members(flight), Put::Conflicted, shared, turn);
            }
            Outcome::Throttled => {
                self.put_off(into_members(flight), Put::Throttled, shared, turn);
            }
            Outcome::Rejected => {
                self.attempts = 0;
                // The transactions of a split say nothing about those of the line behind them.
                shared.flow.interrupted();
                self.split(into_members(flight), turn);
            }
            Outcome::Refused => {
                self.attempts = 0;
                for member in into_members(flight) {
                    turn.out.refuse(member, Refusal::store_unavailable());
                }
            }
            Outcome::Cancelled(reasons) => self.cancelled(flight, &reasons, shared, turn),
        }
        self.dispatch(shared, turn);
    }

    /// Keeps the transaction and sends the same body under the same token again after a pause.
    fn resend_later(&mut self, mut flight: Flight, turn: &mut Turn<'_>) {
        self.attempts = self.attempts.saturating_add(1);
        flight.was_unknown = true;
        let pause = backoff::pause(self.attempts, turn.rng);
        flight.resend_at = Some(turn.now.mono.plus(pause));
        self.flight = Some(flight);
    }

    /// Puts members back to where they waited, in order, and pauses. Who waits for this lane alone
    /// and would be too late after the pause is told now.
    fn put_off(
        &mut self,
        members: Vec<Member>,
        why: Put,
        shared: &mut Shared,
        turn: &mut Turn<'_>,
    ) {
        match why {
            Put::Conflicted => turn.counters.conflicts += 1,
            Put::Throttled => turn.counters.throttles += 1,
        }
        self.attempts = self.attempts.saturating_add(1);
        let until = turn.now.mono.plus(backoff::pause(self.attempts, turn.rng));
        self.pause_until = Some(until);
        if why == Put::Conflicted && shared.has_several_lanes() {
            self.leave_the_line(shared, turn);
        }
        let mut kept = Vec::with_capacity(members.len());
        for member in members {
            let others = shared.has_several_lanes() && shared.is_for_any(&member);
            let by = if others { turn.now.mono } else { until };
            if member.is_quiet() {
                turn.out.refuse(member, Refusal::store_busy());
            } else if member.head.deadline > by {
                kept.push(member);
            } else {
                turn.counters.expired += 1;
                turn.out.refuse(member, Refusal::store_busy());
            }
        }
        self.back_to_front(kept, shared);
    }

    /// A lane whose stripe collides again and again serves the line less and less, as long as others
    /// do: so processes that share stripes come to have some of their own.
    fn leave_the_line(&mut self, shared: &mut Shared, turn: &mut Turn<'_>) {
        shared.contested(turn.now.mono);
        self.collisions = self.collisions.saturating_add(1);
        // The first may be anything.
        if let Some(times) = self.collisions.checked_sub(1).filter(|times| *times > 0) {
            let leave = backoff::leave(times, turn.rng);
            self.yields_until = Some(turn.now.mono.plus(leave));
            shared.yielding |= bit(self.index);
        }
    }

    /// Members of the transaction that has just settled come before all others again, in order: in
    /// the line if any lane may write them, and before groups that were split off behind them.
    fn back_to_front(&mut self, members: Vec<Member>, shared: &mut Shared) {
        let others = shared.has_several_lanes();
        let for_any = |member: &Member| shared.is_for_any(member);
        let goes = |member: &Member| for_any(member) && (others || self.groups.is_empty());
        let (to_line, own): (Vec<_>, Vec<_>) = members.into_iter().partition(goes);
        shared.put_back(to_line);
        if self.groups.is_empty() {
            self.own.put_back(own);
        } else if !own.is_empty() {
            self.groups.push(own);
        }
    }

    /// The body was refused without saying whose fault it is: halve until the culprit is alone.
    fn split(&mut self, mut members: Vec<Member>, turn: &mut Turn<'_>) {
        if members.len() <= 1 {
            for member in members {
                turn.out.refuse(member, Refusal::Internal);
            }
            return;
        }
        turn.counters.splits += 1;
        let second = members.split_off(members.len() / 2);
        self.groups.push(second);
        self.groups.push(members);
    }

    /// Reads every reason; each member is answered, put off, or sent again on its own account.
    fn cancelled(
        &mut self,
        flight: Flight,
        reasons: &[Reason],
        shared: &mut Shared,
        turn: &mut Turn<'_>,
    ) {
        let updates = flight.transaction.stripes.clone();
        let expected = flight.transaction.action_count();
        // A slip has a record and no member.
        let records = flight.transaction.records.len();
        let sent = flight.sent;
        let members = into_members(flight);
        if reasons.len() != expected {
            // Not applied, but who is at fault was not understood: as good as a conflict.
            self.put_off(members, Put::Conflicted, shared, turn);
            return;
        }
        let (of_stripes, rest) = reasons.split_at(updates.len());
        let (of_records, mut of_seats) = rest.split_at(records);
        // Who collided with another node is put off alone, throttling is meant for all: also when
        // whoever met it leaves.
        let mut put = match rest.contains(&Reason::Throttled) {
            true => Some(Put::Throttled),
            false => put_off_by(of_stripes),
        };
        let mut rooms = rooms::rooms(&updates, of_stripes, &mut put, shared, turn.out);

        let before = gone(turn.out);
        let mut again = Vec::with_capacity(members.len());
        for (member, of_record) in members.into_iter().zip(of_records) {
            let (seats, others) = of_seats.split_at(member.write.seats_moved().len());
            of_seats = others;
            match judge(&member, of_record, seats) {
                Verdict::Stays(record) => {
                    let own = put_off_by(std::slice::from_ref(of_record));
                    put = worse(put, worse(own, put_off_by(seats)));
                    again.push((member, record));
                }
                Verdict::Leaves => turn.out.refuse(member, Refusal::store_busy()),
                Verdict::Broken => turn.out.refuse(member, Refusal::Internal),
                Verdict::Differs(Because::Record(Some(view))) => {
                    turn.counters.duplicates += 1;
                    exists(member, view, shared, turn.now, turn.out);
                }
                Verdict::Differs(because) => {
                    hand_back(member, because, &shared.key.event, turn.out);
                }
            }
        }
        let rooms::Admitted {
            fitting,
            later,
            too_big,
        } = rooms::admit(again, &mut rooms, sent, shared, turn);
        let nobody_left = gone(turn.out) == before;
        if put.is_none() && nobody_left && later.is_empty() && too_big.is_empty() {
            // Nothing explains the cancellation: never spin on it.
            put = Some(Put::Conflicted);
        }
        shared.put_back(too_big);
        self.back_to_front(later, shared);
        match put {
            Some(why) => self.put_off(fitting, why, shared, turn),
            None => {
                self.attempts = 0;
                if !fitting.is_empty() {
                    self.groups.push(fitting);
                }
            }
        }
        for (stripe, room) in rooms {
            if let rooms::Room::Left { left, .. } = room {
                shared.learn_left(stripe, left, turn.now.mono);
            }
        }
    }
}

/// Members that have left.
fn gone(out: &LaneOutput) -> usize {
    out.settled.len() + out.returned.len()
}

/// The record is not as the write needed it: perhaps that is the answer.
fn exists(member: Member, view: RecordView, shared: &Shared, now: Now, out: &mut LaneOutput) {
    let from = member.write.from;
    let operation = member.into_operation(shared.key.event.clone());
    match rules::decide(&operation, Some(&view), now.unix, shared.late) {
        Decision::Answer(answer) => out.settled.push(Settled {
            reservation: operation.reservation,
            answer,
            learned: Some(view),
            wrote: false,
        }),
        Decision::Write(_) => out.returned.push(Returned {
            operation,
            from,
            because: Because::Record(Some(view)),
        }),
    }
}

fn hand_back(member: Member, because: Because, event: &EventId, out: &mut LaneOutput) {
    out.returned.push(Returned {
        from: member.write.from,
        operation: member.into_operation(event.clone()),
        because,
    });
}

/// What a member's own actions say about it. The record is looked at first: who finds its
/// reservation written is told what it says, whatever has become of its seats since.
fn judge(member: &Member, of_record: &Reason, of_seats: &[Reason]) -> Verdict {
    let put_off = |reason: &Reason| matches!(reason, Reason::Conflict | Reason::Throttled);
    match of_record {
        Reason::Record(view) => return Verdict::Differs(Because::Record(Some(view.clone()))),
        Reason::RecordMissing => return Verdict::Differs(Because::Record(None)),
        Reason::RecordUnreadable | Reason::Invalid => return Verdict::Broken,
        _ if member.is_quiet() && (put_off(of_record) || of_seats.iter().any(put_off)) => {
            return Verdict::Leaves;
        }
        // The store did not get to say what the record is.
        reason if put_off(reason) => return Verdict::Stays(Record::Unsaid),
        _ => {}
    }
    if of_seats.contains(&Reason::Invalid) {
        return Verdict::Broken;
    }
    let differs: Vec<_> = member
        .write
        .seats_moved()
        .iter()
        .zip(of_seats)
        .filter_map(|(seat, reason)| match reason {
            Reason::Seat(state) => Some((seat.clone(), state.clone())),
            _ => None,
        })
        .collect();
    if differs.is_empty() {
        return Verdict::Stays(Record::Fine);
    }
    match member.movement() {
        Movement::Take => Verdict::Differs(Because::Seats(differs)),
        // The record has seats that are not its own: somebody changed them by hand.
        _ if member.head.verb == Verb::Commit => Verdict::Differs(Because::Seats(differs)),
        _ => Verdict::Broken,
    }
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

fn worse(one: Option<Put>, other: Option<Put>) -> Option<Put> {
    match (one, other) {
        (Some(Put::Throttled), _) | (_, None) => one,
        _ => other,
    }
}

fn into_writes(transaction: Rc<Transaction>) -> Vec<RecordWrite> {
    // The driver has dropped its half by now; the copy is for a driver that has not.
    Rc::try_unwrap(transaction)
        .unwrap_or_else(|shared| (*shared).clone())
        .records
}

fn into_members(flight: Flight) -> Vec<Member> {
    flight
        .heads
        .into_iter()
        .zip(into_writes(flight.transaction))
        .map(|(head, write)| Member { head, write })
        .collect()
}
