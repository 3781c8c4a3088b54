//! Members → one transaction within the store's limits.
//!
//! Holds that end in crowds would each need the stripe's item, which sales need too. So a bundle ends
//! up to 99 of them in one transaction that touches no stripe: what they had goes to a *slip*, a
//! record of its own that is held and past its time. The slip is then ended as any such hold: the
//! stripe sees one give-back for 99 reservations. At every moment each unit is in the stripe or in
//! one record, and a slip that a crash leaves behind is found by the next reclaimer.

use std::collections::VecDeque;

use super::line::Line;
use super::pool::Kind;
use super::shared::{Shared, bit};
use super::{Head, Member, drawn_from, room_for};
use crate::ids::{EventId, Fingerprint, ReservationId};
use crate::limits;
use crate::rules::{self, Movement};
use crate::time::{Micros, UnixMillis};
use crate::transaction::{
    Draws, Due, EventShape, RecordWrite, ReservationState, StripeUpdate, Token, Transaction,
};

/// Members that go into one transaction, and those found to be too late for it.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) members: Vec<Member>,
    pub(super) expired: Vec<Member>,
    /// Actions of the members' records and seats.
    actions: usize,
    stripes: Vec<u16>,
    /// The front of the line is not for this stripe.
    pub(super) leaves_line: bool,
    /// It was filled from the line that lanes share.
    pub(super) serves_line: bool,
    /// Callers that it took from there.
    pub(super) from_line: usize,
}

impl Batch {
    /// A group stays together: it was part of a legal transaction before.
    pub(super) fn of_group(members: Vec<Member>) -> Self {
        Self {
            members,
            ..Self::default()
        }
    }

    /// Takes members from a lane's own line and from the one it shares, who came first first, while
    /// one more fits; then from the quiet ones, for which a quarter of the room is kept.
    pub(super) fn gather(lane: u16, own: &mut Line, shared: &mut Shared, now: Micros) -> Self {
        let all = room_for(shared.key.kind);
        // Only lanes that share the line take from it.
        let shares = bit(lane) & shared.serving() != 0 && !shared.is_paced(now);
        let waiting = own.len() + if shares { shared.line.len() } else { 0 };
        let any_quiet = !own.quiet.is_empty() || (shares && !shared.line.quiet.is_empty());
        let loud = if any_quiet { all - all / 4 } else { all };
        let mut batch = Self {
            members: Vec::with_capacity(waiting.min(all)),
            serves_line: shares,
            ..Self::default()
        };
        while batch.takes_next(lane, own, shared, shares, loud, now) {}
        batch.fill_quiet(&mut own.quiet, all, now);
        if shares {
            batch.fill_quiet(&mut shared.line.quiet, all, now);
        }
        batch
    }

    /// Takes in who came first of the two lines. False: nobody is there, or does not fit.
    fn takes_next(
        &mut self,
        lane: u16,
        own: &mut Line,
        shared: &mut Shared,
        shares: bool,
        most: usize,
        now: Micros,
    ) -> bool {
        let number = |line: &Line| line.loud.front().map(|member| member.head.number);
        let in_line = number(&shared.line).filter(|_| shares && !self.leaves_line);
        let is_own = match (number(own), in_line) {
            (None, None) => return false,
            (Some(own), Some(other)) => own < other,
            (own, _) => own.is_some(),
        };
        let popped = match is_own {
            true => own.loud.pop_front(),
            false => shared.line.loud.pop_front(),
        };
        let Some(mut member) = popped else {
            return false;
        };
        let is_late = member.head.deadline <= now;
        let draws = shared.key.kind == Kind::Stripes && shared.is_for_any(&member);
        let units = member.write.qty;
        if draws {
            member.write.draws = drawn_from(lane, units);
        }
        let has_no_room = shared.minds_left(&member) && !shared.may_have(lane, units);
        if !is_own && !is_late && (has_no_room || shared.must_look(&member)) {
            // For another stripe, or for a read. What is this lane's own does not wait behind it.
            shared.line.loud.push_front(member);
            self.leaves_line = true;
            return true;
        }
        match self.take(member, most, now) {
            None => {
                self.from_line += usize::from(!is_own && !is_late);
                if draws && !is_late {
                    shared.promise(lane, units);
                }
                return true;
            }
            Some(member) if is_own => own.loud.push_front(member),
            Some(member) => shared.line.loud.push_front(member),
        }
        false
    }

    /// Takes a member in, or notes that it is too late for it; gives it back if it does not fit.
    fn take(&mut self, member: Member, most: usize, now: Micros) -> Option<Member> {
        if member.head.deadline <= now {
            self.expired.push(member);
        } else if self.takes_in(&member.write, most) {
            self.members.push(member);
        } else {
            return Some(member);
        }
        None
    }

    fn fill_quiet(&mut self, from: &mut VecDeque<Member>, most: usize, now: Micros) {
        while let Some(member) = from.pop_front() {
            if let Some(member) = self.take(member, most, now) {
                from.push_front(member);
                break;
            }
        }
    }

    /// Whether one more write, and the stripes it is the first to touch, fits; counts it in.
    fn takes_in(&mut self, write: &RecordWrite, most: usize) -> bool {
        let known = self.stripes.len();
        if moves_units(write) {
            for draw in &write.draws {
                if !self.stripes.contains(&draw.stripe) {
                    self.stripes.push(draw.stripe);
                }
            }
        }
        let actions = self.actions + 1 + write.seats_moved().len();
        // A reservation that is too large for its share still goes alone.
        let fits = self.stripes.len() + actions <= most
            || (self.members.is_empty()
                && self.stripes.len() + actions <= limits::TRANSACTION_ACTIONS_MAX);
        match fits {
            true => self.actions = actions,
            false => self.stripes.truncate(known),
        }
        fits
    }

    pub(super) fn drop_expired(&mut self, now: Micros) {
        if self.members.iter().all(|m| m.head.deadline > now) {
            return;
        }
        for member in std::mem::take(&mut self.members) {
            if member.head.deadline > now {
                self.members.push(member);
            } else {
                self.expired.push(member);
            }
        }
    }

    /// Moves the writes into a transaction; the heads stay behind in the same order.
    pub(super) fn into_transaction(
        self,
        event: &EventId,
        shape: EventShape,
        token: Token,
        at: UnixMillis,
    ) -> (Vec<Head>, Transaction) {
        let mut heads = Vec::with_capacity(self.members.len());
        let mut records = Vec::with_capacity(self.members.len());
        for member in self.members {
            heads.push(member.head);
            records.push(member.write);
        }
        let transaction = Transaction {
            token,
            event: event.clone(),
            seat_keys: shape.seat_keys,
            stripes: updates(&records),
            records,
            at,
        };
        (heads, transaction)
    }
}

/// Sends what the writes of `transaction` give back to a slip instead of to the stripes.
pub(super) fn bundle(transaction: &mut Transaction) {
    let mut draws = Draws::new();
    for draw in transaction.records.iter().flat_map(|write| &write.draws) {
        match draws.iter_mut().find(|d| d.stripe == draw.stripe) {
            Some(sum) => sum.units += draw.units,
            None => draws.push(*draw),
        }
    }
    let slip = RecordWrite {
        reservation: ReservationId::of_slip(transaction.token.0),
        fingerprint: Fingerprint::of_whatever(&transaction.event),
        from: None,
        due: Due::Any,
        to: ReservationState::Held,
        qty: draws.iter().map(|draw| draw.units).sum(),
        draws,
        seats: None,
        order: None,
        payment_intent: String::new(),
        // Past its time from the beginning.
        expires_at: Some(transaction.at),
    };
    transaction.stripes.clear();
    transaction.records.push(slip);
}

fn moves_units(write: &RecordWrite) -> bool {
    matches!(
        rules::movement(write.from, write.to),
        Movement::Take | Movement::Give
    )
}

/// One update per stripe, with the sums of what the writes take from it and give back to it.
fn updates(writes: &[RecordWrite]) -> Vec<StripeUpdate> {
    let mut updates: Vec<StripeUpdate> = Vec::with_capacity(1);
    for write in writes {
        let (takes, gives) = match rules::movement(write.from, write.to) {
            Movement::Take => (1, 0),
            Movement::Give => (0, 1),
            Movement::Keep | Movement::None => continue,
        };
        for draw in &write.draws {
            let units = u64::from(draw.units);
            let (take, give) = (takes * units, gives * units);
            match updates.iter_mut().find(|u| u.stripe == draw.stripe) {
                Some(update) => {
                    update.take += take;
                    update.give += give;
                }
                None => updates.push(StripeUpdate {
                    stripe: draw.stripe,
                    take,
                    give,
                }),
            }
        }
    }
    updates
}
