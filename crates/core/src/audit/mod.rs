//! Proving that an event's books balance, and planning how to mend those that an operator's hand
//! put out of balance. Pure: what was read comes in, a [`AuditReport`] and a [`RepairPlan`] go out.
//!
//! | file | what |
//! |---|---|
//! | `books.rs` | what is read of an event |
//! | `judge.rs` | what must hold of it: stripes, records, orders |
//! | `seats.rs` | whose a seat is, by its item and by the records |
//! | `report.rs` | what was found, and how it is said |
//! | `plan.rs` | which repairs are safe |
//!
//! The sale may run while its books are read, and nothing here may call that a breach:
//!
//! - A stripe is judged only if it was the same before and after the records were read. Every
//!   transaction that moves units of a stripe raises its version, so the units that records have of
//!   it did not change in between; the commit of a hold does not touch it and need not.
//! - What one item says by itself (draws, orders) is written whole, and judged as read.
//! - A seat and its record are read at different times. Where they disagree the seat is only a
//!   [`SuspectSeat`], to be read again together with every record involved, in one read that is a single
//!   instant for all of them ([`InstantSnapshot`]).
//!
//! Must not live here: a read, a clock, a write, the wire.

mod event_records;
mod judge;
mod repair_plan;
mod report;
mod seats;
#[cfg(test)]
mod tests;

pub use event_records::{
    AuditRecord, AuditSeat, EventRecords, MisplacedSeat, StoredItem, StripeAmounts, StripeReads,
    UnreadableItem,
};
pub use judge::{Judgement, judge};
pub use repair_plan::{EventChanged, Repair, RepairPlan, UnrepairedBreach, plan};
pub use report::{
    AuditReport, AuditVerdict, Breach, BreachKind, BreachSubject, OverdueHolds, ReservationCounts,
    SeatCounts, StripeBalance,
};
pub use seats::{
    InstantSnapshot, RecordLookup, SeatClaim, SuspectCheck, SuspectOutcome, SuspectSeat, holder,
    look,
};
