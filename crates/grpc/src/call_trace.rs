//! What is told of one call beside its answer: made only for calls that somebody wants to know more of,
//! by the observer; filled by the handler; read when the call ends.
//!
//! Must not live here: who wants to know (the observer), how it is told.

use std::cell::RefCell;

/// Of a trace: 128 and 64 random bits, as W3C trace context has them. Neither is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanIds {
    pub trace: u128,
    pub span: u64,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct CallTrace {
    /// The call's own span, when it is sampled, and the caller's.
    pub span: Option<(SpanIds, Option<u64>)>,
    /// Drawn to be logged, also where calls are not.
    pub is_log_sampled: bool,
    set_subject: RefCell<CallAttributes>,
}

/// What the handler knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallAttributes {
    /// Empty where there is none, or it was no legal id.
    pub event: String,
    pub reservation: String,
    /// In a word or two; empty when the handler was left before it knew.
    pub outcome: &'static str,
    /// Capacity units of the store: this call's share of what was written and read together with others.
    pub read_units: f64,
    pub write_units: f64,
}

impl CallTrace {
    /// Of a call whose span is `span`, called from a span of the same trace.
    pub fn sampled(span: SpanIds, parent: Option<u64>, is_drawn: bool) -> Self {
        Self {
            span: Some((span, parent)),
            ..Self::unsampled(is_drawn)
        }
    }

    /// Of a call that has no span.
    pub fn unsampled(is_drawn: bool) -> Self {
        Self {
            is_log_sampled: is_drawn,
            ..Self::default()
        }
    }

    /// Whom the call is about.
    pub fn about(&self, event: &str, reservation: &str) {
        let mut about = self.set_subject.borrow_mut();
        about.event = event.to_owned();
        about.reservation = reservation.to_owned();
    }

    /// What came of it.
    pub fn set_outcome(&self, outcome: &'static str) {
        self.set_subject.borrow_mut().outcome = outcome;
    }

    /// What it cost the store, added to what it did before.
    pub fn add_capacity(&self, read_units: f64, write_units: f64) {
        let mut about = self.set_subject.borrow_mut();
        about.read_units += read_units;
        about.write_units += write_units;
    }

    /// All of it.
    pub fn attributes(&self) -> CallAttributes {
        self.set_subject.borrow().clone()
    }
}
