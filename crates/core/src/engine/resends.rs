//! Which transactions with an unknown outcome are sent again, when, and how long each attempt may take.
//!
//! A resent transaction costs the store as much as a new one, also if its sender no longer waits. If every lane sent its
//! transaction again after each time-out, a store that is slower than the time-out would be kept busy by attempts that
//! nobody waits for, and no transaction would ever settle. Therefore, per shard:
//!
//! 1. At most `slots` resends are in flight: one after a failure, up to [`limits::RESEND_SLOTS_MAX`] while the store answers
//!    within the usual time-out. The others wait in order.
//! 2. A resend that times out doubles the time-out of the next one (`limit`), up to [`limits::RESEND_TIMEOUT_MAX`]; an
//!    answer lowers it to four times what the answer took.
//! 3. After failed resends in a row the next one waits for a pause, drawn between half of an interval and all of it.
//!    The interval doubles with each failure and, after a time-out, is not shorter than that time-out.
//!
//! The token stays the same. DynamoDB knows a token for ten minutes; afterwards the conditions on the records decide: a write
//! that was applied earlier finds its own record, and the record is the answer. Transitions never lead back to an earlier
//! state of a record, so no write is applied twice.

use std::collections::VecDeque;

use rand::rngs::SmallRng;

use crate::backoff;
use crate::effect::LaneId;
use crate::fault::{self, Fault};
use crate::limits;
use crate::time::Micros;
use crate::transaction::TransactionOutcome;

/// The transactions with an unknown outcome, and when each is sent again.
#[derive(Debug)]
pub(super) struct ResendQueue {
    /// The time-out of a first attempt.
    attempt_timeout: Micros,
    /// Lanes whose transaction is to be sent again, with the earliest time.
    waiting: VecDeque<(LaneId, Micros)>,
    in_flight: Vec<Resend>,
    slots: usize,
    /// The time-out of the next resend.
    limit: Micros,
    /// Resends in a row that settled nothing.
    failures: u32,
    paused_until: Micros,
}

#[derive(Debug)]
struct Resend {
    lane: LaneId,
    sent: Micros,
    limit: Micros,
}

impl ResendQueue {
    pub(super) fn new(attempt_timeout: Micros) -> Self {
        Self {
            attempt_timeout,
            waiting: VecDeque::new(),
            in_flight: Vec::new(),
            slots: limits::RESEND_SLOTS_MAX,
            limit: attempt_timeout,
            failures: 0,
            paused_until: Micros(0),
        }
    }

    /// The time-out of a first attempt.
    pub(super) fn attempt_timeout(&self) -> Micros {
        self.attempt_timeout
    }

    /// Transactions with an unknown outcome.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.in_flight.len()
    }

    /// Queues the transaction of a lane whose outcome is unknown.
    pub(super) fn push(&mut self, lane: LaneId, now: Micros, rng: &mut SmallRng) {
        self.waiting.push_back((lane, now.plus(backoff::pause(1, rng))));
    }

    /// The next lane whose transaction is to be sent now, and the time-out of this attempt.
    pub(super) fn take_due(&mut self, now: Micros) -> Option<(LaneId, Micros)> {
        if self.wake_at()? > now {
            return None;
        }
        let (lane, _) = self.waiting.pop_front()?;
        let limit = self.limit;
        self.in_flight.push(Resend { lane, sent: now, limit });
        Some((lane, limit))
    }

    /// When [`ResendQueue::take_due`] next returns a lane; `None`: not before another outcome.
    pub(super) fn wake_at(&self) -> Option<Micros> {
        let slots = match fault::planted(Fault::ResendsUnbounded) {
            true => usize::MAX,
            false => self.slots,
        };
        let (_, earliest) = self.waiting.front().filter(|_| self.in_flight.len() < slots)?;
        Some(self.paused_until.max(*earliest))
    }

    /// Records the outcome of a transaction, whether or not it was a resend.
    pub(super) fn record_outcome(
        &mut self,
        lane: LaneId,
        outcome: &TransactionOutcome,
        now: Micros,
        rng: &mut SmallRng,
    ) {
        use TransactionOutcome::{
            Cancelled, Committed, Conflict, Refused, Rejected, Throttled, Unknown,
        };
        let at = self.in_flight.iter().position(|resend| resend.lane == lane);
        let resend = at.map(|at| self.in_flight.swap_remove(at));
        match (resend, outcome) {
            (Some(resend), Committed | Cancelled(_) | Rejected) => {
                let took = now.since(resend.sent);
                self.failures = 0;
                self.paused_until = now;
                self.limit = self.limit.min(Micros(4 * took.0)).max(self.attempt_timeout);
                self.slots = match took <= self.attempt_timeout {
                    true => (2 * self.slots).min(limits::RESEND_SLOTS_MAX),
                    false => 1,
                };
            }
            (Some(resend), Unknown | Conflict | Throttled | Refused) => {
                self.failures = self.failures.saturating_add(1);
                self.slots = 1;
                let timed_out = *outcome == Unknown && now.since(resend.sent) >= resend.limit;
                if fault::planted(Fault::ResendsUnpaced) {
                    return;
                }
                if timed_out {
                    let max = Micros(limits::RESEND_TIMEOUT_MAX.as_micros() as u64);
                    let doubled = Micros(2 * resend.limit.0).min(max);
                    self.limit = self.limit.max(doubled);
                }
                let timed_out = timed_out.then_some(resend.limit);
                let pause = backoff::resend_pause(self.failures, timed_out, rng);
                self.paused_until = self.paused_until.max(now.plus(pause));
            }
            // The store answers others: the next resend need not wait for the end of its pause.
            (None, Committed | Cancelled(_) | Rejected) => self.store_answers(now),
            (None, Unknown | Conflict | Throttled | Refused) => {}
        }
    }

    /// The store answers again: ends the pause. A resend that began while it did not may still be waiting for its answer,
    /// so another one may be sent beside it.
    pub(super) fn store_answers(&mut self, now: Micros) {
        if self.paused_until > now {
            self.paused_until = now;
            self.slots = (self.in_flight.len() + 1).min(limits::RESEND_SLOTS_MAX);
        }
    }
}
