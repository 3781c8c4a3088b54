//! Every bound of the rounds, each with its reason.

use std::time::Duration;

/// How long a child may take to say where it listens: a start, and the tables it makes.
pub(crate) const START_MAX: Duration = Duration::from_secs(30);

/// How long one run of the generator may take beyond what is measured: making the events (50,000
/// seats), and reading millions of records back.
pub(crate) const AROUND_A_RUN_MAX: Duration = Duration::from_secs(300);

/// How long a server may take to settle and end once it is told to.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(40);

/// How long the model may take to report on itself.
pub(crate) const REPORT_MAX: Duration = Duration::from_secs(20);

/// Rounds of one benchmark: an evening's worth.
pub(crate) const ROUNDS_MAX: u32 = 25;

/// Seconds of one run: an hour.
pub(crate) const SECONDS_MAX: u32 = 3_600;
