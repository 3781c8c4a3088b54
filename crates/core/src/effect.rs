//! Effects: what the engine asks its driver to do. The engine never waits for one; the driver reports
//! each result by the `handle_*` method that the variant names.

use std::rc::Rc;

use super::answer::{Answer, Rejection};
use super::ids::{EventId, ReservationId};
use super::operation::Operation;
use super::query::{Query, QueryResult};
use super::time::{Micros, UnixMillis};
use super::transaction::{EventLayout, RecordView, Transaction};

/// A caller, by the number that the driver gave it. The engine only returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);

impl CallId {
    /// The caller of an operation that the engine itself starts: the driver has nobody to answer.
    pub const INTERNAL: Self = Self(u64::MAX);
}

/// Identifies a pool of lanes of this shard. An id is not used again after its pool was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolId(pub u64);

/// One lane of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId {
    pub pool: PoolId,
    pub lane: u16,
}

/// A read of records in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecordReadId(pub u64);

/// What is known of a reservation's record, and how reliably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordHint {
    /// Nothing is known, except what the shard's record cache may hold.
    None,
    /// The record was this some time ago. Good enough for a write, whose condition fails if the record
    /// has changed; not for an answer, unless the state is final.
    Cached(RecordView),
    /// The store returned this for the operation at hand; `None`: there is no record.
    Confirmed(Option<RecordView>),
}

impl RecordHint {
    /// The record, if one is known to exist.
    pub(crate) fn record(&self) -> Option<&RecordView> {
        match self {
            Self::None => None,
            Self::Cached(record) => Some(record),
            Self::Confirmed(record) => record.as_ref(),
        }
    }

    pub(crate) fn into_record(self) -> Option<RecordView> {
        match self {
            Self::None => None,
            Self::Cached(record) => Some(record),
            Self::Confirmed(record) => record,
        }
    }

    /// Whether the store returned it for the operation at hand.
    pub(crate) fn is_confirmed(&self) -> bool {
        matches!(self, Self::Confirmed(_))
    }

    /// What remains of the hint after a wait: a record may have changed. An absent record remains a valid basis for a
    /// write, whose condition checks it.
    #[must_use]
    pub(crate) fn after_wait(self) -> Self {
        match self {
            Self::Confirmed(Some(record)) => Self::Cached(record),
            other => other,
        }
    }

    /// What another shard can use of the hint: a record, as a guess.
    #[must_use]
    pub(crate) fn for_other_shard(self) -> Self {
        self.into_record().map_or(Self::None, Self::Cached)
    }
}

/// One thing that the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer the caller of an operation.
    Answer {
        call: CallId,
        answer: Answer,
        /// What the store is now known to hold for the reservation.
        record: Option<RecordView>,
    },
    /// Answer the shard that forwarded an operation, by its `Engine::handle_forward_outcome`.
    AnswerForwarded {
        shard: usize,
        event: EventId,
        reservation: ReservationId,
        answer: Answer,
        /// As in [`Effect::Answer`]: the other shard caches it too.
        record: Option<RecordView>,
    },
    /// Answer the caller of a query.
    AnswerQuery { call: CallId, result: Result<QueryResult, Rejection> },
    /// Pass a caller's query to another shard's `handle_forwarded_query`, which answers it.
    ForwardQuery { shard: usize, call: CallId, event: EventId, layout: EventLayout, query: Query },
    /// Send to the store, and wait for at most `limit`; report with `Engine::handle_transaction_outcome`.
    Transact { lane: LaneId, transaction: Rc<Transaction>, limit: Micros },
    /// Read all stripes of an event strongly, and its confirmation counters if `with_counters`; report with
    /// `Engine::handle_stripes_read`.
    ReadStripes { event: EventId, stripes_hint: Option<u16>, with_counters: bool },
    /// Read records strongly; report with `Engine::handle_records_read`.
    ReadRecords { read: RecordReadId, reservations: Vec<ReservationId> },
    /// Read all seats of an event strongly; report with `Engine::handle_seats_read`.
    ReadSeats { event: EventId, seat_keys: u16 },
    /// Read strongly which seats of an event are available at `at`; report with
    /// `Engine::handle_free_seats_read`.
    ReadFreeSeats { event: EventId, seat_keys: u16, at: UnixMillis },
    /// Pass an operation to the shard that executes it, by `Engine::handle_forwarded_call`; report its
    /// answer with `Engine::handle_forward_outcome`.
    Forward { shard: usize, layout: EventLayout, operation: Operation, hint: RecordHint },
}
