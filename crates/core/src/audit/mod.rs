//! Proving that an event's books balance, and planning how to mend those that an operator's hand
//! put out of balance. Pure: what was read comes in, a [`Report`] and a [`Plan`] go out.
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
//!   [`Suspect`], to be read again together with every record involved, in one read that is a single
//!   instant for all of them ([`Snapshot`]).
//!
//! Must not live here: a read, a clock, a write, the wire.

mod books;
mod judge;
mod plan;
mod report;
mod seats;
#[cfg(test)]
mod tests;

pub use books::{AuditRecord, AuditSeat, Books, Item, Misplaced, StripeItem, StripeSight, Unread};
pub use judge::{Judged, judge};
pub use plan::{Left, Moving, Plan, Repair, plan};
pub use report::{
    Breach, Fault, Overdue, Report, Reservations, SeatLine, StripeLine, Subject, Verdict,
};
pub use seats::{Claim, Look, Named, Settled, Snapshot, Suspect, holder, look};
