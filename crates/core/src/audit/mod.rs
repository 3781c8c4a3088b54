//! Audit of an event: proves that stock, records and seats agree, and plans repairs. Pure: data that was read comes in, an
//! [`AuditReport`] and a [`RepairPlan`] go out.
//!
//! | file | content |
//! |---|---|
//! | `event_records.rs` | the data of an event |
//! | `judge.rs` | invariants of stripes, records and orders |
//! | `seats.rs` | agreement of seat items and records |
//! | `report.rs` | breaches and how they are displayed |
//! | `repair_plan.rs` | which repairs are safe |
//!
//! The sale may continue while the data is read, and must not produce false breaches:
//!
//! 1. A stripe is judged only if it was the same before and after the records were read. Every transaction that moves
//!    units of a stripe increments its version, so the units that records hold of it did not change in between. The commit
//!    of a hold does not touch the stripe and need not.
//! 2. Fields of one item (allocations, order ids) are written together, and judged as read.
//! 3. A seat and its record are read at different times. If they disagree, the seat becomes a [`SuspectSeat`], to be read
//!    again together with every record involved, in one read at a single instant ([`InstantSnapshot`]).
//! 4. The held units of an event are judged only if every stripe and every confirmation counter was the same before and
//!    after: the commit of a hold changes a counter.
//! 5. The moved units of the stripes are a breach only if every stripe was the same before and after: a move changes two
//!    stripes, which are read one after the other.
//!
//! Not here: reads, clocks, writes, gRPC.

mod event_records;
mod judge;
mod repair_plan;
mod report;
mod seats;
#[cfg(test)]
mod tests;

pub use event_records::{
    AuditRecord, AuditSeat, CounterReads, EventRecords, MisplacedSeat, RecordLookup, SeatClaim,
    StoredItem, StripeAmounts, StripeReads, UnreadableItem,
};
pub use judge::{Judgement, KnownBalances, judge};
pub use repair_plan::{EventChanged, Repair, RepairPlan, UnrepairedBreach, plan};
pub use report::{
    AuditReport, AuditVerdict, Breach, BreachKind, BreachSubject, HeldBalance, OverdueHolds,
    ReservationCounts, SeatCounts, StripeBalance,
};
pub use seats::{InstantSnapshot, SuspectCheck, SuspectOutcome, SuspectSeat, holder, look};
