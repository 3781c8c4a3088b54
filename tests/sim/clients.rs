//! The calls of one run: commits and releases of a few reservations, repeated with the same and
//! with another payload on any shard of any process, checks among them, in bursts.

use inventory_api::domain::answer::{Answer, Refusal};
use inventory_api::domain::ids::{EventId, Fingerprint, ReservationId};
use inventory_api::domain::operation::{Operation, Verb};
use inventory_api::domain::time::Micros;
use rand::Rng;
use rand::rngs::SmallRng;

use super::model::{ALIEN, INVALID, POISON};
use super::scenario::{Scenario, event, pick};

/// Times a client repeats a call that it got no clear answer to.
const TRIES_MAX: u32 = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Write(Verb, ReservationId),
    Check,
}

/// One call as a client makes it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) what: What,
    pub(crate) event: EventId,
    pub(crate) qty: u32,
    pub(crate) arrives: Micros,
    pub(crate) patience: Micros,
    pub(crate) tries: u32,
}

impl Call {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_quantity(&self.event, self.qty)
    }

    pub(crate) fn deadline(&self) -> Micros {
        self.arrives.plus(self.patience)
    }

    /// As an operation, if it writes.
    pub(crate) fn operation(&self) -> Option<Operation> {
        let What::Write(verb, reservation) = &self.what else {
            return None;
        };
        Some(Operation {
            verb: *verb,
            reservation: reservation.clone(),
            event: self.event.clone(),
            qty: self.qty,
            fingerprint: self.fingerprint(),
            payment_intent: String::new(),
            deadline: self.deadline(),
        })
    }

    /// The same call made again later.
    pub(crate) fn again(&self, at: Micros) -> Self {
        Self {
            arrives: at,
            tries: self.tries + 1,
            ..self.clone()
        }
    }
}

/// All first calls of a run, in no particular order.
pub(crate) fn plan(scenario: &Scenario, rng: &mut SmallRng) -> Vec<Call> {
    let reservations: Vec<(ReservationId, EventId, u32)> = (0..scenario.reservations)
        .map(|n| reservation(n, scenario, rng))
        .collect();
    let bursts: Vec<u64> = (0..rng.random_range(1..=5))
        .map(|_| rng.random_range(0..=scenario.span.0))
        .collect();
    (0..scenario.calls)
        .map(|_| {
            let at = if rng.random_range(0..4) == 0 {
                rng.random_range(0..=scenario.span.0)
            } else {
                *pick(rng, &bursts) + rng.random_range(0..2_000)
            };
            call(&reservations, scenario, Micros(at), rng)
        })
        .collect()
}

fn reservation(n: usize, scenario: &Scenario, rng: &mut SmallRng) -> (ReservationId, EventId, u32) {
    let prefix = match rng.random_range(0..40) {
        0 => POISON,
        1 => INVALID,
        2 => ALIEN,
        _ => "r-",
    };
    let id = format!("{prefix}{n}").parse().expect("legal");
    // Now and then an event that does not exist.
    let known = scenario.events.len();
    let which = if rng.random_range(0..25) == 0 {
        known
    } else {
        rng.random_range(0..known)
    };
    (id, event(which), rng.random_range(1..=scenario.qty_max))
}

fn call(
    reservations: &[(ReservationId, EventId, u32)],
    scenario: &Scenario,
    arrives: Micros,
    rng: &mut SmallRng,
) -> Call {
    let (id, event_id, qty) = pick(rng, reservations);
    let (mut event_id, mut qty) = (event_id.clone(), *qty);
    let what = match rng.random_range(0..20) {
        0..2 => What::Check,
        2..5 => What::Write(Verb::Release, id.clone()),
        _ => What::Write(Verb::Commit, id.clone()),
    };
    match rng.random_range(0..20) {
        0 => qty = qty % scenario.qty_max + 1,
        1 => event_id = event(rng.random_range(0..scenario.events.len())),
        _ => {}
    }
    let patience = Micros::from_millis(*pick(rng, &[2, 20, 100, 250, 1_000, 5_000]));
    Call {
        what,
        event: event_id,
        qty,
        arrives,
        patience,
        tries: 0,
    }
}

/// When the client calls again after this answer (`None`: the connection broke), if it does.
pub(crate) fn repeats(
    call: &Call,
    answer: Option<&Answer>,
    now: Micros,
    rng: &mut SmallRng,
) -> Option<Call> {
    if call.tries >= TRIES_MAX {
        return None;
    }
    let share = match answer {
        None => 80,
        Some(Answer::Refused(
            Refusal::DeadlineExceeded
            | Refusal::Overloaded { .. }
            | Refusal::StoreBusy { .. }
            | Refusal::StoreUnavailable { .. },
        )) => 50,
        Some(_) => 5,
    };
    let pause = rng.random_range(0..50_000);
    (rng.random_range(0..100) < share).then(|| call.again(now.plus(Micros(pause))))
}
