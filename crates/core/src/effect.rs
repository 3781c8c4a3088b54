//! What the domain wants done. The driver carries it out; the domain never waits for it.

use std::rc::Rc;

use super::answer::{Answer, Rejection};
use super::ids::{EventId, ReservationId};
use super::operation::Operation;
use super::query::{Query, QueryResult};
use super::time::UnixMillis;
use super::transaction::{EventLayout, RecordView, Transaction};

/// A caller, by the number the driver gave it. The domain only hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);

/// Lanes of this shard that share a line, for as long as they have work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u64);

/// One of these lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId {
    pub pool: PoolId,
    pub lane: u16,
}

impl CallId {
    /// Of an operation that the domain itself asks for: the driver has nobody to tell.
    pub const INTERNAL: Self = Self(u64::MAX);
}

/// A read of records under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordReadId(pub u64);

/// What is known of a reservation's record beside what the shard may remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordHint {
    None,
    /// It was this a while ago: good enough for a write, which fails if it is not so.
    Cached(RecordView),
    /// The store has just said this; `None`: that there is no record.
    Confirmed(Option<RecordView>),
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
    /// Tell a caller that asked a query.
    AnswerQuery {
        call: CallId,
        result: Result<QueryResult, Rejection>,
    },
    /// Let another shard answer a caller's query: hand it to that shard's `handle_forwarded_query`.
    ForwardQuery {
        shard: usize,
        call: CallId,
        event: EventId,
        shape: EventLayout,
        query: Query,
    },
    /// Send to the store; report with `Engine::handle_transaction_outcome`.
    Transact {
        lane: LaneId,
        transaction: Rc<Transaction>,
    },
    /// Read all stripes strongly; report with `Engine::handle_stripes_read`.
    ReadStripes {
        event: EventId,
        stripes_hint: Option<u16>,
    },
    /// Read records strongly; report with `Engine::handle_records_read`.
    ReadRecords {
        lookup: RecordReadId,
        reservations: Vec<ReservationId>,
    },
    /// Read all seats of an event strongly; report with `Engine::handle_seats_read`.
    ReadSeats { event: EventId, seat_keys: u16 },
    /// Read strongly which seats of an event can be had at `at`; report with
    /// `Engine::handle_free_seats_read`.
    ReadFreeSeats {
        event: EventId,
        seat_keys: u16,
        at: UnixMillis,
    },
    /// Hand to another shard's `handle_forwarded_call`; report with `Engine::handle_forward_outcome`.
    Forward {
        shard: usize,
        route: Route,
        operation: Operation,
        known: RecordHint,
    },
}

/// An operation has come to the shard it belongs to: what its event is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub shape: EventLayout,
}
