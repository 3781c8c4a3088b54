//! Strong reads of an event's stripes, shared by all who may share them.
//!
//! At most one read per event is under way. Who asks while it is joins the next one, because the
//! promise is a read that began after the call arrived; who only needs to know how many stripes
//! there are may join the one under way.

use std::collections::HashMap;

use super::effect::{CallId, Effect, Known, PoolId};
use super::ids::EventId;
use super::operation::Operation;
use super::question::Question;
use super::time::Micros;
use crate::limits;

/// Who waits for a read.
#[derive(Debug)]
pub(super) enum Waiter {
    /// A question about the event.
    Ask { call: CallId, question: Question },
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
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Reads {
    under_way: HashMap<EventId, Under>,
    waiting: usize,
}

impl Reads {
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
        match self.under_way.get_mut(event) {
            Some(under) if matches!(waiter, Waiter::Route(..) | Waiter::Nobody) => {
                under.current.push(waiter)
            }
            Some(under) => under.next.push(waiter),
            None => {
                let under = Under {
                    began: now,
                    current: vec![waiter],
                    next: Vec::new(),
                };
                self.under_way.insert(event.clone(), under);
                fx.push(Effect::ReadEvent {
                    event: event.clone(),
                    stripes_hint,
                });
            }
        }
        Ok(())
    }

    /// Ends the read of an event: who waited for it, and when it began. Starts the next one if
    /// anybody waits for that.
    pub(super) fn done(
        &mut self,
        event: &EventId,
        stripes_hint: Option<u16>,
        now: Micros,
        fx: &mut Vec<Effect>,
    ) -> Option<(Micros, Vec<Waiter>)> {
        let under = self.under_way.get_mut(event)?;
        let began = under.began;
        let done = std::mem::take(&mut under.current);
        self.waiting -= done.len();
        if under.next.is_empty() {
            self.under_way.remove(event);
        } else {
            under.current = std::mem::take(&mut under.next);
            under.began = now;
            fx.push(Effect::ReadEvent {
                event: event.clone(),
                stripes_hint,
            });
        }
        Some((began, done))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}
