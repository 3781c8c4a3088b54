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
    /// When an outage of the store last ended.
    available_since: Micros,
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
            available_since: Micros(0),
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
            // The failure shows only that the store was away when the resend was sent.
            (Some(resend), Unknown | Conflict | Throttled | Refused)
                if resend.sent < self.available_since => {}
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

    /// The store answers other calls: ends the pause. A resend that began while it did not may still be waiting for its
    /// answer, so another one may be sent beside it.
    fn store_answers(&mut self, now: Micros) {
        if self.paused_until > now {
            self.end_pause(now);
        }
    }

    /// An outage of the store has ended. Resends that were sent before may wait for their answers for a long time yet, and
    /// show nothing about the store then.
    pub(super) fn store_available(&mut self, now: Micros) {
        self.available_since = now;
        self.failures = 0;
        self.end_pause(now);
    }

    fn end_pause(&mut self, now: Micros) {
        self.paused_until = self.paused_until.min(now);
        self.slots = (self.in_flight.len() + 1).min(limits::RESEND_SLOTS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::PoolId;
    use rand::SeedableRng;

    fn lane(lane: u16) -> LaneId {
        LaneId { pool: PoolId(0), lane }
    }

    /// A queue of four lanes after an outage in which every resend timed out, and the time of the last resend, which
    /// still waits for its answer.
    fn after_outage(rng: &mut SmallRng) -> (ResendQueue, Micros) {
        let mut queue = ResendQueue::new(Micros::from_millis(200));
        for number in 0..4 {
            queue.push(lane(number), Micros(0), rng);
        }
        let mut now = Micros(0);
        for _ in 0..12 {
            now = queue.wake_at().unwrap_or_default().max(now);
            let (lane, limit) = queue.take_due(now).expect("due");
            now = now.plus(limit);
            queue.record_outcome(lane, &TransactionOutcome::Unknown, now, rng);
            queue.push(lane, now, rng);
        }
        now = queue.wake_at().unwrap_or_default();
        queue.take_due(now).expect("due");
        (queue, now)
    }

    #[test]
    fn resend_of_an_outage_that_times_out_later_delays_no_other() {
        let mut rng = SmallRng::seed_from_u64(1);
        let (mut queue, sent) = after_outage(&mut rng);
        assert_eq!(queue.wake_at(), None, "one resend at a time");
        let available = sent.plus(Micros::from_millis(5_000));
        queue.store_available(available);
        assert!(queue.wake_at().is_some_and(|at| at <= available), "beside the one that waits");
        let late = sent.plus(Micros::from_millis(15_000));
        let waiting = queue.in_flight.first().map_or(lane(0), |resend| resend.lane);
        queue.record_outcome(waiting, &TransactionOutcome::Unknown, late, &mut rng);
        assert!(queue.wake_at().is_some_and(|at| at <= late), "{queue:?}");
        // A resend that was sent since then counts.
        let (next, limit) = queue.take_due(late).expect("due");
        let later = late.plus(limit);
        queue.record_outcome(next, &TransactionOutcome::Unknown, later, &mut rng);
        assert!(queue.wake_at().is_some_and(|at| at > later), "{queue:?}");
    }
}
