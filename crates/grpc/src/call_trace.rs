//! Trace and log data of one call. The observer makes a [`CallTrace`] only for calls that are sampled or
//! logged, the handler fills it, and the observer reads it when the call ends.
//!
//! Not here: which calls are sampled (the observer), how spans and log lines look.

use std::cell::RefCell;

/// Trace and span id as W3C trace context has them: random, neither is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanIds {
    pub trace: u128,
    pub span: u64,
}

/// Trace and log data of one call.
#[derive(Debug, Default)]
pub struct CallTrace {
    /// The call's own span, if the call is sampled, and the span of its caller.
    pub span: Option<(SpanIds, Option<u64>)>,
    /// Selected for an info log line.
    pub is_log_sampled: bool,
    attributes: RefCell<CallAttributes>,
}

/// What the handler recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallAttributes {
    /// Empty if the request has none or an invalid one.
    pub event: String,
    pub reservation: String,
    /// One or two words; empty if the handler was dropped before the outcome was known.
    pub outcome: &'static str,
    /// Capacity units of the store: this call's share of batched reads and writes.
    pub read_units: f64,
    pub write_units: f64,
}

impl CallTrace {
    /// The trace of a sampled call whose span is `span`, with its caller's span of the same trace.
    pub fn sampled(span: SpanIds, parent: Option<u64>, is_log_sampled: bool) -> Self {
        Self { span: Some((span, parent)), ..Self::unsampled(is_log_sampled) }
    }

    /// The trace of a call that has no span.
    pub fn unsampled(is_log_sampled: bool) -> Self {
        Self { is_log_sampled, ..Self::default() }
    }

    /// Records the event and the reservation of the call.
    pub(crate) fn set_subject(&self, event: &str, reservation: &str) {
        let mut attributes = self.attributes.borrow_mut();
        attributes.event = event.to_owned();
        attributes.reservation = reservation.to_owned();
    }

    /// Records the outcome of the call.
    pub(crate) fn set_outcome(&self, outcome: &'static str) {
        self.attributes.borrow_mut().outcome = outcome;
    }

    /// Adds consumed capacity units.
    pub fn add_capacity(&self, read_units: f64, write_units: f64) {
        let mut attributes = self.attributes.borrow_mut();
        attributes.read_units += read_units;
        attributes.write_units += write_units;
    }

    /// Everything recorded so far.
    pub fn attributes(&self) -> CallAttributes {
        self.attributes.borrow().clone()
    }
}
