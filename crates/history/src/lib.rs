//! Recorded histories of calls to real server processes, and the checks of a history.
//!
//! Clients record each attempt in a [`HistoryRecorder`]: who called what, when, and what came back. At the end the test
//! reads the store into a [`FinalState`].
//!
//! Nothing here starts a process, sends a call or reads a store, and nothing uses the server's own rules: the rules are
//! written again, short and sequential, so that a fault in the server's rules cannot hide here.

mod call;
mod final_state;
mod recorder;

pub use self::call::{AttemptId, CallEffect, CallOperation, RecordedCall, StockSelection};
pub use self::final_state::{
    FinalEvent, FinalReservation, FinalSeat, FinalSeatState, FinalState, FinalStatus,
};
pub use self::recorder::{CALLS_MAX, History, HistoryRecorder};
