//! Strong reads of an event's stripes, shared by all who may share them.
//!
//! At most one read per event is under way. A lane that wants one meanwhile joins the next, because
//! the promise is a read that began after the call arrived; who only needs to know how many stripes
//! there are may join the one under way. So may a question, if that read began no longer before it
//! than the bound on a snapshot's age: it is then answered from the snapshot the read makes.
//!
//! A read remembers what this shard has written to the stripes while it was under way: it may or may
//! not have seen it. See [`super::snapshots`].

use std::collections::HashMap;

use super::effect::{CallId, Effect, Known, PoolId};
use super::ids::EventId;
use super::operation::Operation;
use super::question::Question;
use super::snapshots::{Doubts, doubt};
use super::time::Micros;
use super::transaction::StripeUpdate;
use crate::limits;

/// Who waits for a read.
#[derive(Debug)]
pub(super) enum Waiter {
    /// A question about the event, which arrived at `asked`.
    Ask {
        call: CallId,
        question: Question,
        asked: Micros,
    },
    /// An operation that cannot be routed before it is known what the event is like.
    Route(Box<(Operation, Known)>),
    /// Nobody: what the event is like is looked at again.
    Nobody,
    /// Lanes whose stripes are short.
    Pool(PoolId),
}

#[derive(Debug)]
struct Under {
    began: Micros,
    current: Vec<Waiter>,
    next: Vec<Waiter>,
    /// What has settled since it began.
    doubts: Doubts,
    /// An operator has changed the event since it began.
    is_spoiled: bool,
}

impl Under {
    fn new(began: Micros, current: Vec<Waiter>) -> Self {
        Self {
            began,
            current,
            next: Vec::new(),
            doubts: Doubts::new(),
            is_spoiled: false,
        }
    }
}

/// A read that has ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) began: Micros,
    pub(super) waiters: Vec<Waiter>,
    /// What has settled since it began.
    pub(super) doubts: Doubts,
    /// It may be older than what an operator did: nobody should remember it.
    pub(super) is_spoiled: bool,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Reads {
    under_way: HashMap<EventId, Under, foldhash::fast::RandomState>,
    waiting: usize,
    /// How long before a question the read may have begun that answers it; 0: not at all.
    age_max: Micros,
}

impl Reads {
    pub(super) fn new(age_max: Micros) -> Self {
        Self {
            under_way: HashMap::default(),
            waiting: 0,
            age_max,
        }
    }

    /// Starts or joins a read. Gives the waiter back when too many wait already.
    pub(super) fn want(
        &mut self,
        event: &EventId,
        stripes_hint: Option<u16>,
        waiter: Waiter,
        now: Micros,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Waiter> {
        // A pool's wish is one per pool and must not be lost.
        if self.waiting >= limits::READ_WAITERS_MAX && !matches!(waiter, Waiter::Pool(_)) {
            return Err(waiter);
        }
        self.waiting += 1;
        let Some(under) = self.under_way.get_mut(event) else {
            self.start(event, stripes_hint, vec![waiter], now, fx);
            return Ok(());
        };
        let joins = match &waiter {
            Waiter::Route(..) | Waiter::Nobody => true,
            Waiter::Pool(_) => false,
            Waiter::Ask { asked, .. } => {
                let is_young = asked.since(under.began) <= self.age_max;
                self.age_max > Micros(0) && is_young && !under.is_spoiled
            }
        };
        match joins {
            true => under.current.push(waiter),
            false => under.next.push(waiter),
        }
        Ok(())
    }

    /// Starts a read that nobody waits for, unless one is under way. Whether it did.
    pub(super) fn refresh(
        &mut self,
        event: &EventId,
        stripes_hint: Option<u16>,
        now: Micros,
        fx: &mut Vec<Effect>,
    ) -> bool {
        let is_full = self.under_way.len() >= limits::READ_WAITERS_MAX;
        let starts = !is_full && !self.under_way.contains_key(event);
        if starts {
            self.start(event, stripes_hint, Vec::new(), now, fx);
        }
        starts
    }

    fn start(
        &mut self,
        event: &EventId,
        stripes_hint: Option<u16>,
        current: Vec<Waiter>,
        now: Micros,
        fx: &mut Vec<Effect>,
    ) {
        self.under_way
            .insert(event.clone(), Under::new(now, current));
        fx.push(Effect::ReadEvent {
            event: event.clone(),
            stripes_hint,
        });
    }

    /// This shard's writes to the stripes have settled.
    pub(super) fn moved(&mut self, event: &EventId, written: &[StripeUpdate]) {
        if let Some(under) = self.under_way.get_mut(event) {
            doubt(&mut under.doubts, written);
        }
    }

    /// An operator has changed the event.
    pub(super) fn spoil(&mut self, event: &EventId) {
        if let Some(under) = self.under_way.get_mut(event) {
            under.is_spoiled = true;
        }
    }

    /// Ends the read of an event, and starts the next one if anybody waits for that.
    pub(super) fn done(
        &mut self,
        event: &EventId,
        stripes_hint: Option<u16>,
        now: Micros,
        fx: &mut Vec<Effect>,
    ) -> Option<Done> {
        let under = self.under_way.remove(event)?;
        self.waiting -= under.current.len();
        if !under.next.is_empty() {
            self.start(event, stripes_hint, under.next, now, fx);
        }
        Some(Done {
            began: under.began,
            waiters: under.current,
            doubts: under.doubts,
            is_spoiled: under.is_spoiled,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}
