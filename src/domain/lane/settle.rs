//! The store's answer to a transaction → answers, retries, splits.

use std::rc::Rc;

use rand::Rng;

use super::member::Member;
use super::rooms::Record;
use super::{Because, Flight, Lane, LaneOutput, Returned, Settled};
use crate::domain::answer::Refusal;
use crate::domain::backoff;
use crate::domain::counters::Counters;
use crate::domain::operation::Verb;
use crate::domain::rules::{self, Decision, Movement};
use crate::domain::time::Now;
use crate::domain::transaction::{Outcome, Reason, RecordView, RecordWrite, Transaction};

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
        // A write that was unknown for a while may have been done long ago. One that was not took a
        // moment, in which nobody else has heard of it.
        out.as_of = match outcome {
            Outcome::Committed if !flight.was_unknown => now.mono,
            _ => flight.sent,
        };
        let is_written = outcome == Outcome::Committed;
        // An earlier try may have been written whose token the store no longer knows.
        let may_be =
            flight.was_unknown && matches!(outcome, Outcome::Cancelled(_) | Outcome::Rejected);
        if is_written || may_be {
            out.stock.extend_from_slice(&flight.transaction.stripes);
            out.stock_sent = is_written.then_some(flight.sent);
        }
        match outcome {
            Outcome::Committed => {
                self.attempts = 0;
                let at = flight.transaction.at;
                for record in into_writes(flight.transaction) {
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
            if member.is_quiet() {
                out.refuse(member, Refusal::store_busy());
            } else if member.head.deadline > until {
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
        let expected = flight.transaction.action_count();
        // A slip has a record and no member.
        let records = flight.transaction.records.len();
        let members = into_members(flight);
        if reasons.len() != expected {
            // Not applied, but who is at fault was not understood: as good as a conflict.
            self.put_off(members, Put::Conflicted, now, rng, counters, out);
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
        let mut rooms = self.rooms(&updates, of_stripes, &mut put, out);

        let before = self.gone(out);
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
                Verdict::Leaves => out.refuse(member, Refusal::store_busy()),
                Verdict::Broken => out.refuse(member, Refusal::Internal),
                Verdict::Differs(Because::Record(Some(view))) => {
                    counters.duplicates += 1;
                    self.exists(member, view, now, out);
                }
                Verdict::Differs(because) => self.hand_back(member, because, out),
            }
        }
        let (fitting, later) = self.admit(again, &mut rooms, counters, out);
        let nobody_left = self.gone(out) == before;
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

    /// Members that have left, or wait for a read.
    fn gone(&self, out: &LaneOutput) -> usize {
        out.settled.len() + out.returned.len() + self.short.len()
    }

    /// The record is not as the write needed it: perhaps that is the answer.
    fn exists(&self, member: Member, view: RecordView, now: Now, out: &mut LaneOutput) {
        let from = member.write.from;
        let operation = member.into_operation(self.key.event.clone());
        match rules::decide(&operation, Some(&view), now.unix, self.late) {
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

    fn hand_back(&self, member: Member, because: Because, out: &mut LaneOutput) {
        out.returned.push(Returned {
            from: member.write.from,
            operation: member.into_operation(self.key.event.clone()),
            because,
        });
    }
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
