//! The group commit: lanes with at most ONE transaction in flight each, which share a line.
//!
//! An idle lane dispatches at once. Busy lanes let members gather, and whichever settles first sends
//! what has gathered. There is no timer and no linger: the batch size follows the load.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | one lane: what is its own, dispatching, waking |
//! | `pool.rs` | the lanes of one event that share a line: submitting, and which lane goes next |
//! | `shared.rs` | what the lanes of a pool share: the line, and which stripes are known to be short |
//! | `line.rs` | members that wait, in order |
//! | `flow.rs` | how fast the line moves: who would be too late is turned away at the door |
//! | `member.rs` | one operation in it, and the write it became |
//! | `batch.rs` | members → one transaction within the store's limits |
//! | `settle.rs` | the store's answer → answers, retries, splits |
//! | `rooms.rs` | what short stripes have left, and who fits |
//! | `overflow.rs` | short stripes: strong read of all of them, draw on others, or sold out |
//! | `output.rs` | what goes in with each call, and what comes out |
//!
//! A lane is either a stripe's, which all units of that stripe go through, or a loose one, whose
//! writes touch nothing that others share: commits of holds, tombstones, seats.
//!
//! Must not live here: which shard owns a stripe, joining of equal calls, who may have which seat
//! (all `coordinator`).

mod batch;
mod flow;
mod line;
mod member;
mod output;
mod overflow;
mod pool;
mod rooms;
mod settle;
mod shared;

use std::rc::Rc;

use rand::Rng;

use self::batch::Batch;
use self::line::Line;
pub use self::member::Plan;
use self::member::{Head, Member};
pub use self::output::{Because, LaneOutput, Returned, Settled, Turn};
pub use self::pool::{Kind, Pool, PoolKey, Share, Terms};
pub use self::shared::Latch;
use self::shared::{Shared, bit};
use super::answer::Refusal;
use super::counters::{BATCH_BOUNDS, TIME_BOUNDS_US};
use super::time::Micros;
use super::transaction::{Draw, Draws, Token, Transaction};
use crate::limits;

/// A dispatched transaction. Its members' records live in it and come back out of it.
#[derive(Debug)]
struct Flight {
    heads: Vec<Head>,
    transaction: Rc<Transaction>,
    /// When it was first sent.
    sent: Micros,
    /// Set while the outcome of the last try is unknown: when to send the same body again.
    resend_at: Option<Micros>,
    /// Once unknown, a refusal of a repeat proves nothing about the first try.
    was_unknown: bool,
}

/// See the module's head.
#[derive(Debug)]
struct Lane {
    /// Its stripe, or which of several it is.
    index: u16,
    /// What only this lane can write: what goes back to its stripe, and what was planned for it.
    own: Line,
    /// Batches whose members must go together and before all others: halves of a refused body, or
    /// the members that a short stripe has room for.
    groups: Vec<Vec<Member>>,
    flight: Option<Flight>,
    /// Tries in a row that were put off.
    attempts: u32,
    pause_until: Option<Micros>,
    /// Collisions on its stripe, less the times it went well since.
    collisions: u32,
    /// Until then it leaves the line to other lanes: its stripe is another process's.
    yields_until: Option<Micros>,
    /// The wake-up that its pool has noted for it.
    timer: Option<Micros>,
}

impl Lane {
    fn new(index: u16) -> Self {
        Self {
            index,
            own: Line::default(),
            groups: Vec::new(),
            flight: None,
            attempts: 0,
            pause_until: None,
            collisions: 0,
            yields_until: None,
            timer: None,
        }
    }

    /// Nothing of its own waits, and nothing is in flight.
    fn is_idle(&self) -> bool {
        self.flight.is_none() && self.own.is_empty() && self.groups.is_empty()
    }

    /// Operations in the lane that have not been answered.
    fn depth(&self) -> usize {
        self.waiting() + self.own.quiet.len() + self.flight.as_ref().map_or(0, |f| f.heads.len())
    }

    /// Callers that wait for a transaction of this very lane.
    fn waiting(&self) -> usize {
        let grouped: usize = self.groups.iter().map(Vec::len).sum();
        self.own.loud.len() + grouped
    }

    /// When [`Lane::wake`] is next due.
    fn wake_at(&self) -> Option<Micros> {
        match &self.flight {
            Some(flight) => flight.resend_at,
            None => match (self.pause_until, self.yields_until) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
        }
    }

    /// It can send something at once.
    fn is_free(&self) -> bool {
        self.flight.is_none() && self.pause_until.is_none()
    }

    /// Does what is due: sends an unresolved transaction again, or ends a pause.
    fn wake(&mut self, shared: &mut Shared, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        match &mut self.flight {
            Some(flight) => {
                if flight.resend_at.is_some_and(|at| at <= now) {
                    flight.resend_at = None;
                    turn.counters.resends += 1;
                    let again = Rc::clone(&flight.transaction);
                    turn.out.send.push((self.index, again));
                    self.drop_expired(turn);
                }
            }
            None => {
                let over = |until: &mut Option<Micros>| until.take_if(|at| *at <= now);
                over(&mut self.pause_until);
                if over(&mut self.yields_until).is_some() {
                    shared.yielding &= !bit(self.index);
                }
                self.dispatch(shared, turn);
            }
        }
    }

    /// Sends the next batch unless one is in flight or the lane pauses: what is its own, and then
    /// from the front of the line that it shares.
    fn dispatch(&mut self, shared: &mut Shared, turn: &mut Turn<'_>) {
        if !self.is_free() {
            return;
        }
        let now = turn.now.mono;
        let batch = loop {
            let mut batch = match self.groups.pop() {
                Some(group) => Batch::of_group(group),
                None => Batch::gather(self.index, &mut self.own, shared, now),
            };
            batch.drop_expired(now);
            let found = !batch.expired.is_empty();
            for gone in batch.expired.drain(..) {
                turn.counters.expired += 1;
                turn.out.refuse(gone, self.why_late());
            }
            if !batch.members.is_empty() {
                break batch;
            }
            if !found && self.groups.is_empty() {
                return;
            }
        };
        if batch.from_line > 0 {
            shared.pace(now);
        }
        // A group that is sent again, or what is the lane's own, does not show how fast the line moves.
        if batch.serves_line {
            let is_full = !batch.leaves_line && !shared.line.loud.is_empty();
            shared.flow.dispatched(batch.from_line, is_full, now);
        }
        if let Some(last) = batch.members.last() {
            let waited = now.since(last.head.arrived);
            shared.flow.waited(last.head.expected, waited);
        }
        for member in &batch.members {
            let waited = now.since(member.head.arrived);
            turn.counters.waits.record(&TIME_BOUNDS_US, waited.0);
        }
        let members = batch.members.len() as u64;
        turn.counters.transactions += 1;
        turn.counters.batches.record(&BATCH_BOUNDS, members);
        turn.counters.members += members;
        turn.counters.members_max = turn.counters.members_max.max(members);
        let token = Token(turn.rng.random());
        let (heads, mut transaction) =
            batch.into_transaction(&shared.key.event, shared.shape, token, turn.now.unix);
        if matches!(shared.key.kind, Kind::Bundle(_)) {
            batch::bundle(&mut transaction);
        }
        let transaction = Rc::new(transaction);
        turn.out.send.push((self.index, Rc::clone(&transaction)));
        self.flight = Some(Flight {
            heads,
            transaction,
            sent: now,
            resend_at: None,
            was_unknown: false,
        });
    }

    /// Frees the room of callers that have gone.
    fn drop_expired(&mut self, turn: &mut Turn<'_>) {
        let mut gone = Vec::new();
        self.own.drop_expired(turn.now.mono, &mut gone);
        for member in gone {
            turn.counters.expired += 1;
            turn.out.refuse(member, self.why_late());
        }
    }

    /// A deadline that passed because the store kept putting the lane off is the store's doing.
    fn why_late(&self) -> Refusal {
        if self.attempts > 0 && self.flight.is_none() {
            Refusal::store_busy()
        } else {
            Refusal::DeadlineExceeded
        }
    }
}

/// All units from one stripe.
pub(super) fn drawn_from(stripe: u16, units: u32) -> Draws {
    smallvec::smallvec![Draw { stripe, units }]
}

/// Actions of one transaction that are for members.
fn room_for(kind: Kind) -> usize {
    match kind {
        // Its slip needs one.
        Kind::Bundle(_) => limits::TRANSACTION_ACTIONS_MAX - 1,
        Kind::Stripes | Kind::Loose => limits::TRANSACTION_ACTIONS_MAX,
    }
}
