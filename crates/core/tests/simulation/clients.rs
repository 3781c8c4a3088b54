//! The calls of one run: holds, commits and releases of a few reservations, and queries, in bursts. Calls are
//! retried with the same and with another payload, out of order and too late, on any shard of any process.

use inventory_core::answer::{Answer, Rejection};
use inventory_core::ids::{EventId, ReservationId, SeatId, Seats};
use inventory_core::operation::{Operation, RecordExpectation, Selection, Verb};
use inventory_core::query::Query;
use inventory_core::time::{Micros, UnixMillis};
use rand::Rng;
use rand::rngs::SmallRng;

use super::model::{ALIEN, Ask, INVALID, POISON};
use super::scenario::{SECTIONS, Scenario, StockKind, event, pick};

/// Retries of a call without a clear answer.
const TRIES_MAX: u32 = 4;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request {
    Write(Verb, ReservationId),
    Ask(Query),
}

/// One call of a client.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) what: Request,
    pub(crate) event: EventId,
    pub(crate) selection: Selection,
    pub(crate) section: Option<String>,
    /// Stored by a commit. Empty for none.
    pub(crate) payment: &'static str,
    pub(crate) hold_for: Micros,
    pub(crate) expectation: RecordExpectation,
    pub(crate) arrives: Micros,
    pub(crate) patience: Micros,
    pub(crate) tries: u32,
}

impl Call {
    pub(crate) fn deadline(&self) -> Micros {
        self.arrives.plus(self.patience)
    }

    pub(crate) fn ask<'a>(&'a self, verb: Verb, reservation: &'a ReservationId) -> Ask<'a> {
        let payment = self.payment;
        Ask { verb, reservation, event: &self.event, selection: &self.selection, payment }
    }

    /// The operation of the call, if it is a write.
    pub(crate) fn operation(&self, unix: UnixMillis) -> Option<Operation> {
        let Request::Write(verb, reservation) = &self.what else {
            return None;
        };
        let holds = *verb == Verb::Hold;
        let (id, event) = (reservation.clone(), self.event.clone());
        Some(Operation {
            section: self.section.clone(),
            payment_intent: match verb {
                Verb::Commit => self.payment.to_owned(),
                _ => String::new(),
            },
            hold_until: holds.then(|| UnixMillis(unix.0 + self.hold_for.0 / 1_000)),
            expectation: self.expectation,
            ..Operation::new(*verb, id, event, self.selection.clone(), self.deadline())
        })
    }

    /// A retry of the same call.
    pub(crate) fn again(&self, at: Micros) -> Self {
        Self { arrives: at, tries: self.tries + 1, ..self.clone() }
    }

    /// Another call about the same reservation.
    fn then(&self, verb: Verb, at: Micros, rng: &mut SmallRng) -> Option<Self> {
        let Request::Write(_, reservation) = &self.what else {
            return None;
        };
        Some(Self {
            what: Request::Write(verb, reservation.clone()),
            payment: payment(at),
            arrives: at,
            expectation: *pick(rng, &[RecordExpectation::Present, RecordExpectation::Absent]),
            tries: 0,
            ..self.clone()
        })
    }
}

/// What a reservation requests.
#[derive(Clone, Debug)]
struct SimulatedBuyer {
    reservation: ReservationId,
    event: EventId,
    selection: Selection,
    section: Option<String>,
}

/// All first calls of a run, in no particular order.
pub(crate) fn plan(scenario: &Scenario, rng: &mut SmallRng) -> Vec<Call> {
    let buyers: Vec<SimulatedBuyer> =
        (0..scenario.reservations).map(|n| buyer(n, scenario, rng)).collect();
    let bursts: Vec<u64> =
        (0..rng.random_range(1..=5)).map(|_| rng.random_range(0..=scenario.span.0)).collect();
    (0..scenario.calls)
        .map(|_| {
            let at = if rng.random_range(0..4) == 0 {
                rng.random_range(0..=scenario.span.0)
            } else {
                *pick(rng, &bursts) + rng.random_range(0..2_000)
            };
            call(&buyers, scenario, Micros(at), rng)
        })
        .collect()
}

fn buyer(n: usize, scenario: &Scenario, rng: &mut SmallRng) -> SimulatedBuyer {
    let prefix = match rng.random_range(0..40) {
        0 if !scenario.flood => POISON,
        1 => INVALID,
        2 => ALIEN,
        _ => "r-",
    };
    // Sometimes an event that does not exist.
    let known = scenario.events.len();
    let which = if rng.random_range(0..25) == 0 {
        known
    } else if scenario.flood {
        0
    } else {
        rng.random_range(0..known)
    };
    let (selection, section) = selection(scenario, which, rng);
    SimulatedBuyer {
        reservation: format!("{prefix}{n}").parse().expect("legal"),
        event: event(which),
        selection,
        section,
    }
}

fn selection(scenario: &Scenario, which: usize, rng: &mut SmallRng) -> (Selection, Option<String>) {
    let qty = rng.random_range(1..=scenario.qty_max);
    let stock = scenario.events.get(which).map(|(_, stock)| stock);
    let seats: &[_] = match stock {
        Some(StockKind::Seats { seats, .. }) => seats,
        // Sometimes a client requests seats of an event without seats.
        _ if rng.random_range(0..30) > 0 => return (Selection::Quantity(qty), None),
        _ => &[],
    };
    match rng.random_range(0..20) {
        0 => {
            let seats = [format!("nowhere-{qty}").parse().expect("legal")];
            (Selection::Seats(Seats::from(seats)), None)
        }
        1..9 => {
            let section = match rng.random_range(0..6) {
                0 => Some("nowhere".to_owned()),
                1 | 2 => Some((*pick(rng, &SECTIONS)).to_owned()),
                _ => None,
            };
            (Selection::Quantity(qty), section)
        }
        _ if seats.is_empty() => (Selection::Quantity(qty), None),
        // Adjacent seats, in any order.
        _ => {
            let first = rng.random_range(0..seats.len());
            let selection = seats.iter().skip(first).take(qty as usize);
            let mut selection: Vec<SeatId> = selection.map(|seat| seat.id.clone()).collect();
            if rng.random() {
                selection.reverse();
            }
            (Selection::Seats(selection.into()), None)
        }
    }
}

fn call(
    buyers: &[SimulatedBuyer],
    scenario: &Scenario,
    arrives: Micros,
    rng: &mut SmallRng,
) -> Call {
    let SimulatedBuyer { reservation, event: mut event_id, mut selection, section } =
        pick(rng, buyers).clone();
    let verb = match rng.random_range(0..20) {
        5.. if scenario.mass_expiry => Some(Verb::Hold),
        0..2 => None,
        2..5 => Some(Verb::Release),
        5 if scenario.operators.refunds > 0 => Some(Verb::Refund),
        6..13 if scenario.holds => Some(Verb::Hold),
        _ => Some(Verb::Commit),
    };
    match rng.random_range(0..30) {
        0 => selection = Selection::Quantity(rng.random_range(1..=scenario.qty_max)),
        1 => event_id = event(rng.random_range(0..scenario.events.len())),
        2..6 if verb.is_some_and(|verb| verb != Verb::Hold) => selection = Selection::AsRecorded,
        _ => {}
    }
    let what = match verb {
        Some(verb) => Request::Write(verb, reservation),
        None => Request::Ask(question(&selection, section.clone(), rng)),
    };
    Call {
        what,
        event: event_id,
        selection,
        section,
        payment: payment(arrives),
        hold_for: scenario.hold_for,
        expectation: match verb {
            Some(Verb::Hold) | None => RecordExpectation::Absent,
            _ => *pick(rng, &[RecordExpectation::Absent, RecordExpectation::Present]),
        },
        arrives,
        patience: Micros::from_millis(*pick(rng, &[2, 20, 100, 250, 1_000, 5_000])),
        tries: 0,
    }
}

fn question(selection: &Selection, section: Option<String>, rng: &mut SmallRng) -> Query {
    match selection {
        Selection::Seats(seats) if rng.random() => Query::Describe { seats: Seats::clone(seats) },
        Selection::Seats(seats) => Query::Seats { seats: Seats::clone(seats) },
        Selection::Quantity(qty) if rng.random() => Query::Availability { qty: *qty, section },
        _ => Query::Status,
    }
}

/// The payment of a call that arrives at this instant: mostly the same.
fn payment(arrives: Micros) -> &'static str {
    match arrives.0 % 16 {
        0 | 1 => "pay-second",
        2 => "",
        _ => "pay-first",
    }
}

/// Queries about units, more than other calls, in bursts.
pub(crate) fn queries(scenario: &Scenario, rng: &mut SmallRng) -> Vec<Call> {
    if !scenario.many_queries {
        return Vec::new();
    }
    let bursts: Vec<u64> = (0..rng.random_range(1..=8))
        .map(|_| rng.random_range(0..=scenario.span.0 + 30_000))
        .collect();
    (0..scenario.calls)
        .map(|_| {
            let known = event(rng.random_range(0..scenario.events.len()));
            let at = *pick(rng, &bursts) + rng.random_range(0..40_000);
            availability_query(&known, Micros(at), rng)
        })
        .collect()
}

/// A query about the remaining stock.
pub(crate) fn availability_query(event: &EventId, arrives: Micros, rng: &mut SmallRng) -> Call {
    let qty = rng.random_range(1..=10);
    let question = match rng.random_range(0..5) {
        0 => Query::Status,
        _ => Query::Availability { qty, section: None },
    };
    Call {
        what: Request::Ask(question),
        event: event.clone(),
        selection: Selection::Quantity(qty),
        section: None,
        payment: "",
        hold_for: Micros(0),
        expectation: RecordExpectation::Absent,
        arrives,
        patience: Micros::from_millis(5_000),
        tries: 0,
    }
}

/// The calls that follow this answer (`None`: the connection broke).
pub(crate) fn follow_ups(
    call: &Call,
    answer: Option<&Answer>,
    now: Micros,
    scenario: &Scenario,
    rng: &mut SmallRng,
) -> Vec<Call> {
    repeats(call, answer, now, rng)
        .into_iter()
        .chain(answer.and_then(|answer| follows(call, answer, now, scenario, rng)))
        .collect()
}

fn repeats(call: &Call, answer: Option<&Answer>, now: Micros, rng: &mut SmallRng) -> Option<Call> {
    if call.tries >= TRIES_MAX {
        return None;
    }
    let share = match answer {
        None => 80,
        Some(Answer::Rejected(
            Rejection::DeadlineExceeded
            | Rejection::Overloaded { .. }
            | Rejection::StoreBusy { .. }
            | Rejection::StoreUnavailable { .. }
            | Rejection::OutcomeUnknown { .. },
        )) => 50,
        Some(_) => 5,
    };
    let pause = rng.random_range(0..50_000);
    (rng.random_range(0..100) < share).then(|| call.again(now.plus(Micros(pause))))
}

/// After a hold: commit, release or nothing, in time or not. After a commit: sometimes a refund or a release.
fn follows(
    call: &Call,
    answer: &Answer,
    now: Micros,
    scenario: &Scenario,
    rng: &mut SmallRng,
) -> Option<Call> {
    let soon = Micros(rng.random_range(0..30_000));
    match (&call.what, answer) {
        (Request::Write(Verb::Hold, _), Answer::Held { seats, .. }) => {
            let end = call.hold_for.0;
            let pause = match rng.random_range(0..4) {
                0 | 1 => soon,
                2 => Micros(end.saturating_sub(30_000) + rng.random_range(0..60_000)),
                _ => Micros(end + rng.random_range(0..3_000_000)),
            };
            let verb = match rng.random_range(0..8) {
                0..5 => Verb::Commit,
                5 | 6 => Verb::Release,
                _ => return None,
            };
            if scenario.mass_expiry && rng.random_range(0..4) > 0 {
                return None;
            }
            let mut next = call.then(verb, now.plus(pause), rng)?;
            match (rng.random_range(0..3), seats) {
                (0, _) => next.selection = Selection::AsRecorded,
                (1, Some(seats)) => next.selection = Selection::Seats(Seats::clone(seats)),
                _ => {}
            }
            Some(next)
        }
        (Request::Write(Verb::Commit, _), Answer::Confirmed { .. }) => {
            let dice = rng.random_range(0..100);
            if dice < scenario.operators.refunds {
                call.then(Verb::Refund, now.plus(soon), rng)
            } else if dice > 95 {
                call.then(Verb::Release, now.plus(soon), rng)
            } else {
                None
            }
        }
        _ => None,
    }
}
