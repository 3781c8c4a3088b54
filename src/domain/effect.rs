//! What the domain wants done. The driver carries it out; the domain never waits for it.

use std::rc::Rc;

use super::answer::{Answer, Refusal};
use super::ids::EventId;
use super::operation::Operation;
use super::transaction::{RecordView, Transaction};

/// A caller, by the number the driver gave it. The domain only hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);

/// A lane of this shard, for as long as it has work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u64);

/// What an availability check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Availability {
    pub remaining: u64,
    pub available: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell a caller. `learned` is what the store is now known to hold for that reservation, so
    /// that the shard a forwarded operation came from can remember it too.
    Answer {
        call: CallId,
        answer: Answer,
        learned: Option<RecordView>,
    },
    /// Tell a caller that asked for availability.
    Checked {
        call: CallId,
        result: Result<Availability, Refusal>,
    },
    /// Send to the store; report with `Coordinator::transaction_settled`.
    Transact {
        lane: LaneId,
        transaction: Rc<Transaction>,
    },
    /// Read all stripes strongly; report with `Coordinator::event_read`.
    ReadEvent {
        event: EventId,
        stripes_hint: Option<u16>,
    },
    /// Hand to another shard's `submit_forwarded`; report with `Coordinator::forward_settled`.
    Forward {
        shard: usize,
        route: Route,
        operation: Operation,
    },
}

/// The stripe an operation was routed to, and how many the event has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub stripe: u16,
    pub stripes: u16,
}
