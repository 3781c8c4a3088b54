//! What happens to a request on its way to the store and back.

use inventory_core::time::Micros;
use inventory_core::transaction::{ActionOutcome, TransactionOutcome};
use rand::Rng;
use rand::rngs::SmallRng;

use super::scenario::Faults;

/// The time after which a sender gives up on one attempt: the default of DDB_TIMEOUT.
const ATTEMPT_TIMEOUT: Micros = Micros::from_millis(200);

/// One arrival of a transaction at the store.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: Micros,
    /// The whole call's fate, decided before any condition is looked at.
    pub(crate) verdict: Option<TransactionOutcome>,
    /// Some of its actions conflict or are throttled.
    pub(crate) meddled: bool,
    /// When the answer reaches the sender, if it does.
    pub(crate) answered: Option<Micros>,
    /// The sender has given up on it by then.
    pub(crate) late: bool,
    /// The same request for a second time.
    pub(crate) echo: bool,
}

/// All that becomes of one send.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fate {
    pub(crate) arrivals: Vec<Arrival>,
    /// When the sender gives up, if no answer comes before.
    pub(crate) unknown_at: Option<Micros>,
    /// The faults that were injected.
    pub(crate) faults: Vec<&'static str>,
}

impl Fate {
    pub(crate) fn of_transaction(now: Micros, faults: &Faults, rng: &mut SmallRng) -> Self {
        let timeout = now.plus(ATTEMPT_TIMEOUT);
        let at = now.plus(latency(rng));
        let answered = at.plus(latency(rng));
        let mut arrival = Arrival {
            at,
            verdict: None,
            meddled: happens(faults.action_fault, rng),
            answered: Some(answered),
            late: false,
            echo: false,
        };
        if happens(faults.lost_request, rng) {
            return Self {
                arrivals: Vec::new(),
                unknown_at: Some(timeout),
                faults: vec!["lost requests"],
            };
        }
        if happens(faults.lost_answer, rng) {
            arrival.answered = None;
            // A broken connection is noticed at once, a lost packet at the timeout.
            let noticed = if rng.random() { answered } else { timeout };
            return Self {
                arrivals: vec![arrival],
                unknown_at: Some(noticed.min(timeout)),
                faults: vec!["lost answers"],
            };
        }
        if happens(faults.late_request, rng) {
            arrival.at = timeout.plus(Micros(rng.random_range(1..400_000)));
            arrival.answered = None;
            arrival.late = true;
            return Self {
                arrivals: vec![arrival],
                unknown_at: Some(timeout),
                faults: vec!["late requests"],
            };
        }
        if happens(faults.conflict, rng) {
            arrival.verdict = Some(TransactionOutcome::Conflict);
        } else if happens(faults.throttle, rng) {
            arrival.verdict = Some(TransactionOutcome::Throttled);
        } else if happens(faults.refused, rng) {
            arrival.verdict = Some(TransactionOutcome::Refused);
        }
        let mut fate = Self::default();
        fate.faults.extend(match &arrival.verdict {
            Some(TransactionOutcome::Conflict) => Some("whole conflicts"),
            Some(TransactionOutcome::Throttled) => Some("whole throttles"),
            Some(_) => Some("refused requests"),
            None if arrival.meddled => Some("conflicts or throttles of single actions"),
            None => None,
        });
        if answered >= timeout {
            // The request was on time, its answer was not.
            fate.faults.push("late answers");
            arrival.answered = None;
            fate.unknown_at = Some(timeout);
        }
        if happens(faults.echo, rng) {
            fate.faults.push("duplicated requests");
            let mut echo = arrival.clone();
            echo.at = at.plus(Micros(rng.random_range(1..300_000)));
            echo.answered = None;
            echo.echo = true;
            fate.arrivals.push(echo);
        }
        fate.arrivals.push(arrival);
        fate
    }
}

/// The reason that a meddled transaction's action gets in the place of its own, if any.
pub(crate) fn meddle(rng: &mut SmallRng) -> Option<ActionOutcome> {
    match rng.random_range(0..8) {
        0 => Some(ActionOutcome::Conflict),
        1 => Some(ActionOutcome::Throttled),
        _ => None,
    }
}

/// One way to or from the store: a few milliseconds, sometimes many.
pub(crate) fn latency(rng: &mut SmallRng) -> Micros {
    match rng.random_range(0..60) {
        0 => Micros(rng.random_range(20_000..150_000)),
        _ => Micros(rng.random_range(500..8_000)),
    }
}

/// One way between two shards of a process.
pub(crate) fn hop(rng: &mut SmallRng) -> Micros {
    Micros(rng.random_range(1..300))
}

pub(crate) fn happens(thousandths: u32, rng: &mut SmallRng) -> bool {
    rng.random_range(0..1_000) < thousandths
}
