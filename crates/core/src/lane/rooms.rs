//! What the stripes of a cancelled transaction have left, and which of its members fit.

use super::member::Member;
use super::settle::Put;
use super::shared::Shared;
use super::{LaneOutput, Turn};
use crate::answer::Refusal;
use crate::rules::Movement;
use crate::time::Micros;
use crate::transaction::{Reason, StripeUpdate, StripeView};

/// What the action of a member that stays said about its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// It is as the write needs it.
    Fine,
    Unsaid,
}

/// What a stripe's action said.
#[derive(Clone, Copy, Debug)]
pub(super) enum Room {
    /// It was not the reason, or it did not say.
    Unsaid,
    /// It has this much; what the members before have been given of it is subtracted.
    Left { reported: u64, left: u64 },
    /// It was too short, but for what members of the same transaction give back: nobody who takes
    /// is judged before they have.
    Refilling,
    /// The event takes no new reservations.
    Closed,
    /// There is no such item.
    Missing,
}

/// The members of a cancelled transaction that stay in the game.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Together they fit what the stripes have left.
    pub(super) fitting: Vec<Member>,
    /// They wait for what becomes of the others.
    pub(super) later: Vec<Member>,
    /// Their stripe has too little for them: they try others.
    pub(super) too_big: Vec<Member>,
}

/// What each stripe's action said. A stripe that has enough and failed all the same was changed in
/// between: a conflict.
pub(super) fn rooms(
    updates: &[StripeUpdate],
    reasons: &[Reason],
    put: &mut Option<Put>,
    shared: &mut Shared,
    out: &mut LaneOutput,
) -> Vec<(u16, Room)> {
    let mut rooms = Vec::with_capacity(updates.len());
    for (update, reason) in updates.iter().zip(reasons) {
        let room = match reason {
            Reason::Stripe(Some(view)) => {
                learn_shape(view, shared, out);
                if view.closed && update.take > 0 {
                    Room::Closed
                } else if view.remaining.saturating_add(update.give) >= update.take {
                    put.get_or_insert(Put::Conflicted);
                    Room::Unsaid
                } else if update.give > 0 {
                    Room::Refilling
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

fn learn_shape(view: &StripeView, shared: &mut Shared, out: &mut LaneOutput) {
    if let Some(stripes) = view.stripes {
        shared.shape.stripes = stripes.max(1);
        shared.shape.seat_keys = view.seat_keys;
    }
    shared.shape.closed |= view.closed;
    out.learned_shape = Some(shared.shape);
}

/// Splits the members that stay in the game: those the stripes have room for, first come first
/// served, and those that must wait for what becomes of them. A member larger than what its stripe
/// reported leaves, refused, if that stripe is all there is; else it tries the others.
/// What was sent at `sent` was looked at then or later.
/// But stock decides nothing about a member that may have a record: it asks again.
pub(super) fn admit(
    members: Vec<(Member, Record)>,
    rooms: &mut [(u16, Room)],
    sent: Micros,
    shared: &mut Shared,
    turn: &mut Turn<'_>,
) -> Admitted {
    let mut fitting = Vec::with_capacity(members.len());
    let mut later = Vec::new();
    let mut too_big = Vec::new();
    for (mut member, record) in members {
        match fit(&member, rooms) {
            Fit::Yes => {
                for draw in drawn(&member) {
                    if let Some(Room::Left { left, .. }) = room_of(rooms, draw.stripe) {
                        *left -= u64::from(draw.units);
                    }
                }
                fitting.push(member);
            }
            Fit::NotNow => later.push(member),
            _ if record == Record::Unsaid => later.push(member),
            Fit::Closed => turn.out.refuse(member, Refusal::EventClosed),
            Fit::NoSuchStripe(0) => turn.out.refuse(member, Refusal::EventNotFound),
            Fit::NoSuchStripe(_) => turn.out.refuse(member, Refusal::Internal),
            Fit::TooBig { reported } => {
                turn.counters.short += 1;
                if shared.shape.stripes <= 1 {
                    shared.learn_total(reported, sent);
                    let why = member.too_little(reported);
                    turn.out.refuse(member, why);
                } else {
                    member.head.planned = false;
                    too_big.push(member);
                }
            }
        }
    }
    Admitted {
        fitting,
        later,
        too_big,
    }
}

enum Fit {
    Yes,
    /// It would fit alone, but members before it have been given the room, or are about to make it.
    NotNow,
    /// It would not fit alone.
    TooBig {
        reported: u64,
    },
    Closed,
    NoSuchStripe(u16),
}

/// What a member takes from stripes.
fn drawn(member: &Member) -> &[crate::transaction::Draw] {
    match member.movement() {
        Movement::Take => &member.write.draws,
        _ => &[],
    }
}

fn fit(member: &Member, rooms: &mut [(u16, Room)]) -> Fit {
    if member.movement() == Movement::Give {
        let missing = |draw: &&crate::transaction::Draw| {
            matches!(
                rooms.iter().find(|(index, _)| *index == draw.stripe),
                Some((_, Room::Missing))
            )
        };
        return match member.write.draws.iter().find(missing) {
            // It has units of a stripe that is gone: whoever asks is told that this is damaged.
            Some(_) => Fit::NoSuchStripe(u16::MAX),
            None => Fit::Yes,
        };
    }
    let mut verdict = Fit::Yes;
    for draw in drawn(member) {
        let units = u64::from(draw.units);
        match room_of(rooms, draw.stripe) {
            Some(Room::Missing) => return Fit::NoSuchStripe(draw.stripe),
            Some(Room::Closed) => return Fit::Closed,
            Some(Room::Left { reported, .. }) if units > *reported => {
                return Fit::TooBig {
                    reported: *reported,
                };
            }
            Some(Room::Refilling) => verdict = Fit::NotNow,
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
