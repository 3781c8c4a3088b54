//! Bounds of the checks: how far clocks may differ, how old a refusal may be, how long a search may last.

use std::time::Duration;

/// Steps of one search for a linearization, each a look at one call: some seconds in an unoptimised build. A history with
/// an order needs about the square of the number of its calls.
pub const SEARCH_STEPS_MAX: u64 = 20_000_000;

/// What the server under test promises, and what the machine allows to be observed.
#[derive(Clone, Copy, Debug)]
pub struct CheckRules {
    /// Largest difference between the clocks of a server and of the clients. Expiry is judged by the server's clock.
    pub clock_difference: Duration,
    /// How long before a call the read may have begun that answers INSUFFICIENT_INVENTORY: SOLD_OUT_LATCH_MS.
    pub sold_out_age: Duration,
    /// How long before a call the state of a seat may have been seen that answers SEAT_UNAVAILABLE.
    pub seat_age: Duration,
    /// How long after its end a hold may still be stored as HELD, with the store available.
    pub hold_return: Duration,
    /// Whether a commit of an expired hold takes the stock again: LATE_COMMIT=reacquire.
    pub late_commits: bool,
    /// See [`SEARCH_STEPS_MAX`].
    pub search_steps: u64,
}

impl Default for CheckRules {
    /// The defaults of the server, on one machine.
    fn default() -> Self {
        Self {
            clock_difference: Duration::from_secs(1),
            sold_out_age: Duration::from_millis(50),
            seat_age: Duration::from_secs(1),
            hold_return: Duration::from_secs(10),
            late_commits: true,
            search_steps: SEARCH_STEPS_MAX,
        }
    }
}
