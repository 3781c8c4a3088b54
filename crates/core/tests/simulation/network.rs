//! Delay, loss and duplication of requests to the store and of their answers.

use inventory_core::time::Micros;
use inventory_core::transaction::{ActionOutcome, TransactionOutcome};
use rand::Rng;
use rand::rngs::SmallRng;

use super::scenario::Faults;

/// The time after which a sender gives up on a first attempt: the default of DDB_TIMEOUT.
pub(crate) const ATTEMPT_TIMEOUT: Micros = Micros::from_millis(200);

/// One arrival of a transaction at the store.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: Micros,
    /// The outcome of the whole request, decided before any condition.
    pub(crate) verdict: Option<TransactionOutcome>,
    /// Some of its actions conflict or are throttled.
    pub(crate) has_action_faults: bool,
    /// When the answer reaches the sender, if it does.
    pub(crate) answered: Option<Micros>,
    /// The sender has given up before the arrival.
    pub(crate) late: bool,
    /// A duplicate of the request.
    pub(crate) echo: bool,
}

/// Everything that follows from one send.
#[derive(Clone, Debug, Default)]
pub(crate) struct Delivery {
    pub(crate) arrivals: Vec<Arrival>,
    /// When the sender gives up, if no answer arrives before.
    pub(crate) unknown_at: Option<Micros>,
    /// The injected faults.
    pub(crate) faults: Vec<&'static str>,
}

impl Delivery {
    /// `limit`: the time after which the sender gives up.
    pub(crate) fn of_transaction(
        now: Micros,
        limit: Micros,
        faults: &Faults,
        rng: &mut SmallRng,
    ) -> Self {
        let timeout = now.plus(limit);
        let at = now.plus(latency(rng));
        let answered = at.plus(latency(rng));
        let mut arrival = Arrival {
            at,
            verdict: None,
            has_action_faults: occurs(faults.action_fault, rng),
            answered: Some(answered),
            late: false,
            echo: false,
        };
        if occurs(faults.lost_request, rng) {
            return Self {
                arrivals: Vec::new(),
                unknown_at: Some(timeout),
                faults: vec!["lost requests"],
            };
        }
        if occurs(faults.lost_answer, rng) {
            arrival.answered = None;
            // A broken connection is noticed at once, a lost packet at the timeout.
            let noticed = if rng.random() { answered } else { timeout };
            return Self {
                arrivals: vec![arrival],
                unknown_at: Some(noticed.min(timeout)),
                faults: vec!["lost answers"],
            };
        }
        if occurs(faults.late_request, rng) {
            arrival.at = timeout.plus(Micros(rng.random_range(1..400_000)));
            arrival.answered = None;
            arrival.late = true;
            return Self {
                arrivals: vec![arrival],
                unknown_at: Some(timeout),
                faults: vec!["late requests"],
            };
        }
        if occurs(faults.conflict, rng) {
            arrival.verdict = Some(TransactionOutcome::Conflict);
        } else if occurs(faults.throttle, rng) {
            arrival.verdict = Some(TransactionOutcome::Throttled);
        } else if occurs(faults.check_rejection, rng) {
            arrival.verdict = Some(TransactionOutcome::Refused);
        }
        let mut delivery = Self::default();
        delivery.faults.extend(match &arrival.verdict {
            Some(TransactionOutcome::Conflict) => Some("whole conflicts"),
            Some(TransactionOutcome::Throttled) => Some("whole throttles"),
            Some(_) => Some("refused requests"),
            None if arrival.has_action_faults => Some("conflicts or throttles of single actions"),
            None => None,
        });
        if answered >= timeout {
            // The request was in time, its answer was not.
            delivery.faults.push("late answers");
            arrival.answered = None;
            delivery.unknown_at = Some(timeout);
        }
        if occurs(faults.echo, rng) {
            delivery.faults.push("duplicated requests");
            let mut echo = arrival.clone();
            echo.at = at.plus(Micros(rng.random_range(1..300_000)));
            echo.answered = None;
            echo.echo = true;
            delivery.arrivals.push(echo);
        }
        delivery.arrivals.push(arrival);
        delivery
    }
}

/// The reason that replaces the reason of one action, if any.
pub(crate) fn action_fault_reason(rng: &mut SmallRng) -> Option<ActionOutcome> {
    match rng.random_range(0..8) {
        0 => Some(ActionOutcome::Conflict),
        1 => Some(ActionOutcome::Throttled),
        _ => None,
    }
}

/// Time of one way to or from the store: a few milliseconds, sometimes many.
pub(crate) fn latency(rng: &mut SmallRng) -> Micros {
    match rng.random_range(0..60) {
        0 => Micros(rng.random_range(20_000..150_000)),
        _ => Micros(rng.random_range(500..8_000)),
    }
}

/// Time of one way between two shards of a process.
pub(crate) fn hop(rng: &mut SmallRng) -> Micros {
    Micros(rng.random_range(1..300))
}

pub(crate) fn occurs(thousandths: u32, rng: &mut SmallRng) -> bool {
    rng.random_range(0..1_000) < thousandths
}
