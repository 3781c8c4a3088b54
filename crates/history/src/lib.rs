//! Recorded histories of calls to real server processes, and the checks of a history.
//!
//! Clients record each attempt in a [`HistoryRecorder`]: who called what, when, and what came back. At the end the test
//! reads the store into a [`FinalState`], and [`check`] judges both: what was acknowledged is stored, nothing is sold
//! twice, stock adds up, and one order of the calls of each reservation and each seat explains all answers.
//!
//! The search for that order is in `search.rs`, not in a crate: Cargo.toml has the reasons. Property tests compare it
//! with the checker of the crate `todc-utils`.
//!
//! Nothing here starts a process, sends a call or reads a store, and nothing uses the server's own rules: the rules are
//! written again, short and sequential, so that a fault in the server's rules cannot hide here.

mod call;
mod check;
mod final_state;
mod recorder;
mod report;
mod reservation_model;
mod rules;
mod search;
mod seat_model;

pub use self::call::{AttemptId, CallEffect, CallOperation, RecordedCall, StockSelection};
pub use self::check::check;
pub use self::final_state::{
    FinalEvent, FinalReservation, FinalSeat, FinalSeatState, FinalState, FinalStatus,
};
pub use self::recorder::{CALLS_MAX, History, HistoryRecorder};
pub use self::report::{HistoryReport, HistorySummary, HistoryViolation, ViolationKind};
pub use self::rules::{CheckRules, SEARCH_STEPS_MAX};
