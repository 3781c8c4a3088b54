//! The lanes of one event on one shard that share a line: submitting, and which lane goes next.
//!
//! What takes units may go by any stripe, so it waits until ANY lane is free, not for one lane's
//! transaction to settle. Which stripe it draws on is fixed when it is put into a transaction.
//! What gives units back belongs to the stripe that its record names, and waits there.

use std::collections::{BTreeMap, BTreeSet};

use super::Lane;
use super::member::{Member, Plan};
use super::output::Turn;
use super::shared::{Latch, Shared, bit};
use crate::answer::Refusal;
use crate::ids::EventId;
use crate::limits;
use crate::operation::Operation;
use crate::rules::{LateCommit, Movement};
use crate::time::Micros;
use crate::transaction::{EventShape, Outcome};

/// What the lanes of a pool write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Units: a lane per stripe, each with one transaction at a time.
    Stripes,
    /// What has no stripe. Several lanes work side by side.
    Loose,
    /// Holds past their time, when there are many: what they had goes to one slip per transaction,
    /// and this stripe sees only the slip. See [`super::batch`].
    Bundle(u16),
}

/// Which pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    pub event: EventId,
    pub kind: Kind,
}

/// The stripes of an event that a shard sells from: `first`, and then every `step`-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub first: u16,
    /// At least 1.
    pub step: u16,
}

/// What is configured, as far as lanes must know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    pub late: LateCommit,
    /// For how long after a strong read of all stripes began what it showed decides about callers who
    /// come later; zero: never.
    pub latch: Micros,
}

/// Where the front of the line goes.
enum Next {
    Lane(u16),
    /// No lane that may serve it is free.
    Wait,
    /// No stripe here is known to have room for it.
    Short,
}

/// See the module's head.
#[derive(Debug)]
pub struct Pool {
    pub(super) shared: Shared,
    share: Share,
    pub(super) lanes: BTreeMap<u16, Lane>,
    /// The lane after the one that took from the line last.
    cursor: u32,
    timers: BTreeSet<(Micros, u16)>,
    /// The number of the next member.
    number: u64,
    pub(super) reading: bool,
    /// A full line is searched for callers that have gone from here on.
    sweep_due: Micros,
    /// Until then the line is kept short: see [`Pool::is_long_enough`].
    short_until: Micros,
}

impl Pool {
    pub fn new(key: PoolKey, share: Share, shape: EventShape, terms: Terms) -> Self {
        let mine = lanes_of(key.kind, share, shape);
        Self {
            shared: Shared::new(key, shape, terms, mine),
            share,
            lanes: BTreeMap::new(),
            cursor: 0,
            timers: BTreeSet::new(),
            number: 0,
            reading: false,
            sweep_due: Micros(0),
            short_until: Micros(0),
        }
    }

    pub fn key(&self) -> &PoolKey {
        &self.shared.key
    }

    /// Lanes that have been used.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Nothing queued, in flight or waited for: the pool can be dropped.
    pub fn is_idle(&self) -> bool {
        self.shared.line.is_empty()
            && self.shared.short.is_empty()
            && !self.reading
            && self.lanes.values().all(Lane::is_idle)
    }

    /// Operations in the pool that have not been answered.
    pub fn depth(&self) -> usize {
        let own: usize = self.lanes.values().map(Lane::depth).sum();
        own + self.shared.line.len() + self.shared.short.len()
    }

    /// Callers that wait for any of its lanes, or for a read.
    pub fn waiting(&self) -> usize {
        self.shared.line.loud.len() + self.shared.short.len()
    }

    /// When [`Pool::wake`] is next due.
    pub fn wake_at(&self) -> Option<Micros> {
        let lane = self.timers.first().map(|(at, _)| *at);
        match (lane, self.shared.pause_ends()) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// What the last look at all stripes says to somebody who wants `units` and came at `arrived`.
    pub fn latch(&self, units: u32, arrived: Micros) -> Latch {
        self.shared.latch(units, arrived)
    }

    /// An operator may have added stock.
    pub fn reopen(&mut self, now: Micros) {
        self.shared.reopen(now);
    }

    /// Takes an operation on; dispatches at once if a lane that may write it is free.
    ///
    /// The same reservation must not be submitted again before it has settled, nor one with a seat
    /// of it.
    pub fn submit(&mut self, operation: Operation, plan: Plan, turn: &mut Turn<'_>) {
        let mut member = Member::new(operation, plan, self.number, turn.now.mono);
        self.number += 1;
        let home = self.home_of(&member);
        let now = turn.now.mono;
        if !member.is_quiet() && self.is_full(home) && self.sweep_due <= now {
            self.drop_expired(turn);
        }
        let full = match (member.is_quiet(), home) {
            (false, _) => self.is_full(home),
            (true, Some(stripe)) => is_full_of_quiet(&self.lane(stripe).own),
            (true, None) => is_full_of_quiet(&self.shared.line),
        };
        if full {
            turn.counters.shed += u64::from(!member.is_quiet());
            if home.is_none() && !member.is_quiet() {
                self.keep_short(now);
            }
            turn.out.refuse(member, Refusal::overloaded());
            return;
        }
        if home.is_none() {
            let ahead = self.shared.line.loud.len();
            let expected = self.shared.flow.wait_for(ahead, now);
            let is_too_late = expected.is_some_and(|wait| self.is_too_long(wait, &member, now));
            let is_long_enough = self.is_long_enough(&member, now);
            if is_too_late || is_long_enough {
                turn.counters.shed += 1;
                turn.counters.shed_in_line += 1;
                let usual = Micros(limits::PATIENCE_USUAL_MIN.as_micros() as u64);
                if is_long_enough || member.head.deadline.since(now) >= usual {
                    self.keep_short(now);
                }
                let wait = expected.unwrap_or_default();
                turn.out.refuse(member, Refusal::overloaded_for(wait));
                return;
            }
            member.head.expected = expected.unwrap_or_default();
        }
        let line = match home {
            Some(stripe) => &mut self.lane(stripe).own,
            None => &mut self.shared.line,
        };
        match member.is_quiet() {
            true => line.quiet.push_back(member),
            false => line.loud.push_back(member),
        }
        if let Some(stripe) = home {
            self.with(stripe, |lane, shared| lane.dispatch(shared, turn));
        }
        self.feed(turn);
    }

    /// Takes the outcome of the transaction that a lane has in flight.
    pub fn settled(&mut self, lane: u16, outcome: Outcome, turn: &mut Turn<'_>) {
        if !self.lanes.contains_key(&lane) {
            return;
        }
        self.with(lane, |lane, shared| lane.settled(outcome, shared, turn));
        self.take_shape(self.shared.shape);
        self.want_read(turn);
        self.feed(turn);
    }

    /// Does what is due: sends unresolved transactions again, and ends pauses.
    pub fn wake(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        while let Some((at, index)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if let Some(lane) = self.lanes.get(&index)
                && lane.flight.is_some()
                && self.sweep_due <= now
            {
                self.drop_expired(turn);
            }
            self.with(index, |lane, shared| lane.wake(shared, turn));
        }
        self.feed(turn);
    }

    /// Whether a member of which this wait is expected would most likely be too late at its end. What
    /// gives something back is never turned away, nor who finds a lane free.
    fn is_too_long(&self, wait: Micros, member: &Member, now: Micros) -> bool {
        let gives = member.movement() == Movement::Give;
        if self.has_lane_free() || gives || member.is_quiet() {
            return false;
        }
        let flow = &self.shared.flow;
        let done = now.plus(flow.most_of(wait)).plus(flow.most_take());
        done > member.head.deadline
    }

    /// More come than can be served: somebody is turned away, and not for his own haste.
    fn keep_short(&mut self, now: Micros) {
        self.short_until = now.plus(Micros(limits::SHORT_LINE_FOR.as_micros() as u64));
    }

    /// Whether the line has who the next lane will take, and more come than can be served.
    ///
    /// Where all can be served a long line is a crowd, and patience pays. Once some are turned away it
    /// pays no more: as many are sold to with a short line as with a long one, only later. So as long
    /// as anybody is turned away, who comes to a line that fills a transaction is too. What is in it
    /// stays.
    fn is_long_enough(&self, member: &Member, now: Micros) -> bool {
        let takes = self.shared.key.kind == Kind::Stripes && member.movement() == Movement::Take;
        if now >= self.short_until || !takes {
            return false;
        }
        self.shared.line.loud.len() >= limits::BATCH_MEMBERS_MAX && !self.has_lane_free()
    }

    /// Whether a lane that takes from the line could send at once.
    fn has_lane_free(&self) -> bool {
        self.shared.serving() & !self.shared.busy != 0
    }

    /// The lane that alone may write a member.
    fn home_of(&self, member: &Member) -> Option<u16> {
        if self.shared.is_for_any(member) {
            return None;
        }
        let draws = &member.write.draws;
        Some(draws.first().map_or(0, |draw| draw.stripe))
    }

    fn is_full(&self, home: Option<u16>) -> bool {
        let own = home.and_then(|home| self.lanes.get(&home));
        match home {
            Some(_) => own.map_or(0, Lane::waiting) >= limits::LANE_QUEUE_MAX,
            None => self.waiting() >= limits::LANE_QUEUE_MAX,
        }
    }

    /// Takes what the event was last seen to be like.
    pub(super) fn take_shape(&mut self, shape: EventShape) {
        self.shared.shape = shape;
        self.shared.mine = lanes_of(self.shared.key.kind, self.share, shape);
    }

    fn lane(&mut self, index: u16) -> &mut Lane {
        self.lanes.entry(index).or_insert_with(|| Lane::new(index))
    }

    /// Lets a lane do something, and takes note of whether it is free and when it wants to be woken.
    pub(super) fn with(&mut self, index: u16, act: impl FnOnce(&mut Lane, &mut Shared)) {
        let lane = self.lanes.entry(index).or_insert_with(|| Lane::new(index));
        let before = lane.timer;
        act(lane, &mut self.shared);
        match lane.is_free() {
            true => self.shared.busy &= !bit(index),
            false => self.shared.busy |= bit(index),
        }
        lane.timer = lane.wake_at();
        // A timer that has gone off is not there any more, and may be wanted again.
        if let Some(old) = before {
            self.timers.remove(&(old, index));
        }
        if let Some(due) = lane.timer {
            self.timers.insert((due, index));
        }
    }

    /// Hands the line to the lanes that are free, one transaction's worth each.
    pub(super) fn feed(&mut self, turn: &mut Turn<'_>) {
        self.shared.end_pause(turn.now.mono);
        let mut newly_short = false;
        while !self.shared.line.is_empty() {
            match self.next(turn.now.mono) {
                Next::Lane(index) => {
                    let before = self.shared.line.len();
                    self.with(index, |lane, shared| lane.dispatch(shared, turn));
                    self.cursor = (u32::from(index) + 1) % u64::BITS;
                    let is_stuck = self.shared.busy & bit(index) == 0;
                    if is_stuck && self.shared.line.len() == before {
                        break;
                    }
                }
                Next::Wait => break,
                Next::Short => {
                    self.shared.short.extend(self.shared.line.loud.pop_front());
                    newly_short = true;
                }
            }
        }
        if self.shared.line.loud.is_empty() {
            self.shared.flow.interrupted();
        }
        if newly_short {
            self.want_read(turn);
        }
    }

    fn next(&mut self, now: Micros) -> Next {
        let serving = self.shared.serving();
        let ready = serving & !self.shared.busy;
        let front = self.shared.line.loud.front();
        if front.is_some_and(|member| self.shared.must_look(member)) {
            return Next::Short;
        }
        if self.shared.is_paced(now) {
            return Next::Wait;
        }
        let Some(units) = front
            .filter(|m| self.shared.minds_left(m))
            .map(|m| m.write.qty)
        else {
            return self.in_turn(ready).map_or(Next::Wait, Next::Lane);
        };
        let mut scarce = self.shared.scarce();
        if scarce != 0 {
            self.shared.forget_old(now);
            scarce = self.shared.scarce();
        }
        if let Some(lane) = self.in_turn(ready & !scarce) {
            return Next::Lane(lane);
        }
        let may_have = |shared: &Shared, lanes: u64| {
            let lanes = (0..limits::STRIPES_MAX).filter(|index| lanes & bit(*index) != 0);
            let enough = lanes.filter(|index| shared.may_have(*index, units));
            enough.fold(0, |bits, index| bits | bit(index))
        };
        match self.in_turn(may_have(&self.shared, ready & scarce)) {
            Some(lane) => Next::Lane(lane),
            None if may_have(&self.shared, serving & self.shared.busy) != 0 => Next::Wait,
            None if self.shared.mine & self.shared.yielding != 0 => {
                // Those that left the line to these are needed after all.
                self.shared.yielding = 0;
                self.next(now)
            }
            None => Next::Short,
        }
    }

    /// The next of these lanes in rotation, so that stripes are drawn on evenly.
    fn in_turn(&self, lanes: u64) -> Option<u16> {
        if lanes == 0 {
            return None;
        }
        let ahead = lanes.rotate_right(self.cursor).trailing_zeros();
        Some(((self.cursor + ahead) % u64::BITS) as u16)
    }

    /// Frees the room of callers that have gone, be it in a line or waiting for a read.
    fn drop_expired(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.mono;
        self.sweep_due = now.plus(Micros(limits::LANE_SWEEP_EVERY.as_micros() as u64));
        for lane in self.lanes.values_mut() {
            lane.drop_expired(turn);
        }
        let mut gone = Vec::new();
        let short = std::mem::take(&mut self.shared.short);
        for member in short {
            match member.head.deadline <= now {
                true => gone.push(member),
                false => self.shared.short.push(member),
            }
        }
        self.shared.line.drop_expired(now, &mut gone);
        let why = self.why_late();
        for member in gone {
            turn.counters.expired += 1;
            turn.out.refuse(member, why.clone());
        }
    }

    /// Nobody is to blame for a long line but the store, where it has put off every lane.
    fn why_late(&self) -> Refusal {
        let mut lanes = self.lanes.values();
        let put_off = |lane: &Lane| lane.attempts > 0 && lane.flight.is_none();
        if !self.lanes.is_empty() && lanes.all(put_off) {
            Refusal::store_busy()
        } else {
            Refusal::DeadlineExceeded
        }
    }
}

fn is_full_of_quiet(line: &super::Line) -> bool {
    line.quiet.len() >= limits::LANE_QUIET_MAX
}

/// The lanes that take from the line, a bit each.
fn lanes_of(kind: Kind, share: Share, shape: EventShape) -> u64 {
    let first = |lanes: u16| (0..lanes).fold(0, |bits, index| bits | bit(index));
    match kind {
        Kind::Loose if shape.is_seated() => first(limits::SEAT_LANES),
        Kind::Loose => first(limits::LOOSE_LANES),
        Kind::Bundle(_) => first(limits::BUNDLE_LANES),
        Kind::Stripes => {
            let stripes = shape.stripes.clamp(1, limits::STRIPES_MAX);
            let mine = (share.first..stripes).step_by(usize::from(share.step.max(1)));
            match mine.fold(0, |bits, index| bits | bit(index)) {
                // A shard that has no stripe is sent nothing to sell; what comes all the same is
                // taken from the first.
                0 => bit(0),
                mine => mine,
            }
        }
    }
}
