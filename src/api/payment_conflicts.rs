//! Log lines of payment conflicts: a buyer may have paid twice, so an operator must check the payment.
//!
//! Must not live here: the counter, which counts every conflict (`telemetry::recorder`).

use std::cell::Cell;

use super::rejection::ErrorSubject;
use crate::limits;
use inventory_core::ids::OrderId;
use inventory_core::time::Micros;

/// One per shard.
#[derive(Default)]
pub(super) struct PaymentConflictLog {
    /// No line before this instant.
    next: Cell<Micros>,
    /// Conflicts without a line since the last line.
    omitted: Cell<u64>,
}

impl PaymentConflictLog {
    /// Logs the conflict, unless the last line is too recent.
    pub(super) fn log(&self, subject: &ErrorSubject, order: OrderId, now: Micros) {
        let Some(omitted) = self.admit(now) else {
            return;
        };
        tracing::warn!(
            event_id = subject.event,
            reservation_id = subject.reservation,
            order_id = order.to_text(),
            omitted,
            "payment conflict"
        );
    }

    /// The number of conflicts without a line before this one; `None`: this one gets no line either.
    fn admit(&self, now: Micros) -> Option<u64> {
        if now < self.next.get() {
            self.omitted.set(self.omitted.get() + 1);
            return None;
        }
        let pause = Micros(limits::PAYMENT_CONFLICT_LOG_PAUSE.as_micros() as u64);
        self.next.set(now.plus(pause));
        Some(self.omitted.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_pause_counts_the_others() {
        let log = PaymentConflictLog::default();
        let pause = limits::PAYMENT_CONFLICT_LOG_PAUSE.as_micros() as u64;
        assert_eq!(log.admit(Micros(5)), Some(0));
        assert_eq!(log.admit(Micros(6)), None);
        assert_eq!(log.admit(Micros(pause)), None);
        assert_eq!(log.admit(Micros(5 + pause)), Some(2));
        assert_eq!(log.admit(Micros(5 + 2 * pause)), Some(0));
    }
}
