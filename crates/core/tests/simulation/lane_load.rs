//! Pools of lanes under load, in virtual time: how long callers wait, what overload does to those who
//! are admitted, and how processes that share stripes come apart.
//!
//! The store here has stock for everybody. A transaction takes longer the larger it is, scatters, and
//! cancels another that meets it on a stripe, as DynamoDB's do.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use inventory_core::answer::{Answer, Rejection};
use inventory_core::counters::Counters;
use inventory_core::ids::{EventId, ReservationId};
use inventory_core::lane::{
    LaneSettings, Pool, PoolContext, PoolKey, PoolKind, PoolOutput, StripeShare, WriteIntent,
};
use inventory_core::operation::{Operation, RecordExpectation, Selection, Verb};
use inventory_core::rules::{self, Decision, LateCommit};
use inventory_core::time::{Micros, Now, UnixMillis};
use inventory_core::transaction::{EventLayout, Transaction, TransactionOutcome};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// One way to the store or back.
const WAY: u64 = 1_000;

#[derive(Debug)]
enum Happening {
    Arrives(usize),
    AtStore(usize, u16, Rc<Transaction>),
    /// The store has done with it and answers.
    Done(usize, u16, Rc<Transaction>),
    Settled(usize, u16, TransactionOutcome),
    Wakes(usize),
}

#[derive(Debug)]
struct Told {
    called: u64,
    at: u64,
    sold: bool,
    shed: bool,
}

/// Processes, each with a pool of its own on the same stripes.
struct Plant {
    pools: Vec<Pool>,
    counters: Vec<Counters>,
    now: u64,
    made: u64,
    happenings: BTreeMap<(u64, u64), Happening>,
    /// Stripes that a transaction has at this moment.
    taken: BTreeSet<u16>,
    rng: SmallRng,
    event: EventId,
    /// Microseconds between two calls of one process; `None`: none come.
    every: Option<u64>,
    patience: u64,
    calls: BTreeMap<ReservationId, u64>,
    called: u64,
    told: Vec<Told>,
    /// When each process is to be woken, as scheduled.
    wakes: Vec<Option<u64>>,
    /// When transactions conflicted, and when they were sent.
    conflicts: Vec<u64>,
    sent: Vec<u64>,
}

impl Plant {
    fn new(shares: &[StripeShare], stripes: u16) -> Self {
        let event: EventId = "evt".parse().unwrap();
        let shape = EventLayout {
            stripes,
            seat_keys: 0,
            closed: false,
        };
        let pool = |share: &StripeShare| {
            let key = PoolKey {
                event: event.clone(),
                kind: PoolKind::Stripes,
            };
            Pool::new(key, *share, shape, LaneSettings::default())
        };
        let pools: Vec<Pool> = shares.iter().map(pool).collect();
        Self {
            counters: vec![Counters::default(); pools.len()],
            wakes: vec![None; pools.len()],
            pools,
            now: 1_000_000,
            made: 0,
            happenings: BTreeMap::new(),
            taken: BTreeSet::new(),
            rng: SmallRng::seed_from_u64(7),
            event,
            every: None,
            patience: 250_000,
            calls: BTreeMap::new(),
            called: 0,
            told: Vec::new(),
            conflicts: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// Lets so many calls a second come to each process for so many milliseconds.
    fn run(&mut self, per_second: u64, ms: u64) {
        self.every = (per_second > 0).then(|| 1_000_000 / per_second);
        if self.every.is_some() {
            for process in 0..self.pools.len() {
                self.make(self.now + process as u64, Happening::Arrives(process));
            }
        }
        let until = self.now + ms * 1_000;
        while let Some(((at, _), _)) = self.happenings.first_key_value() {
            if *at >= until {
                break;
            }
            let ((at, _), happening) = self.happenings.pop_first().unwrap();
            self.now = at;
            self.happen(happening);
        }
        self.now = until;
        self.happenings
            .retain(|_, happening| !matches!(happening, Happening::Arrives(_)));
    }

    fn make(&mut self, at: u64, happening: Happening) {
        self.made += 1;
        self.happenings.insert((at, self.made), happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives(process) => {
                self.call(process);
                if let Some(every) = self.every {
                    self.make(self.now + every, Happening::Arrives(process));
                }
            }
            Happening::AtStore(process, lane, transaction) => {
                let mut stripes = transaction.stripes.iter().map(|update| update.stripe);
                if stripes.any(|stripe| self.taken.contains(&stripe)) {
                    self.conflicts.push(self.now);
                    let settled = Happening::Settled(process, lane, TransactionOutcome::Conflict);
                    self.make(self.now + WAY, settled);
                    return;
                }
                self.taken
                    .extend(transaction.stripes.iter().map(|u| u.stripe));
                let took = self.takes(transaction.action_count());
                self.make(self.now + took, Happening::Done(process, lane, transaction));
            }
            Happening::Done(process, lane, transaction) => {
                for update in &transaction.stripes {
                    self.taken.remove(&update.stripe);
                }
                drop(transaction);
                let settled = Happening::Settled(process, lane, TransactionOutcome::Committed);
                self.make(self.now + WAY, settled);
            }
            Happening::Settled(process, lane, outcome) => {
                self.with(process, |pool, turn| {
                    pool.handle_outcome(lane, outcome, turn)
                });
            }
            Happening::Wakes(process) => {
                if self.wakes[process].is_some_and(|at| at <= self.now) {
                    self.wakes[process] = None;
                }
                self.with(process, |pool, turn| pool.wake(turn));
            }
        }
    }

    /// 13 ms for a few actions, 26 for a hundred, some a quarter less or more, one in twenty twice that.
    fn takes(&mut self, actions: usize) -> u64 {
        let usual = self.typical(actions) * self.rng.random_range(75..125) / 100;
        match self.rng.random_range(0..20) {
            0 => 2 * usual,
            _ => usual,
        }
    }

    fn typical(&self, actions: usize) -> u64 {
        13_000 + 130 * actions as u64
    }

    fn call(&mut self, process: usize) {
        self.called += 1;
        let reservation: ReservationId = format!("r-{}", self.called).parse().unwrap();
        self.calls.insert(reservation.clone(), self.now);
        let selection = Selection::Quantity(1);
        let operation = Operation {
            verb: Verb::Commit,
            reservation,
            event: self.event.clone(),
            fingerprint: Operation::fingerprint_of(&self.event, &selection),
            selection,
            section: None,
            payment_intent: String::new(),
            hold_until: None,
            expectation: RecordExpectation::Absent,
            deadline: Micros(self.now + self.patience),
        };
        let late = LateCommit::default();
        let Decision::Write(transition) = rules::decide(&operation, None, UnixMillis(0), late)
        else {
            panic!("nothing is known of it");
        };
        let plan = WriteIntent {
            transition,
            record: None,
            seats: None,
        };
        self.with(process, |pool, turn| pool.submit(operation, plan, turn));
    }

    fn with(&mut self, process: usize, act: impl FnOnce(&mut Pool, &mut PoolContext<'_>)) {
        let mut out = PoolOutput::default();
        let now = Now {
            mono: Micros(self.now),
            unix: UnixMillis(self.now / 1_000),
        };
        let mut turn = PoolContext {
            now,
            rng: &mut self.rng,
            counters: &mut self.counters[process],
            out: &mut out,
        };
        act(&mut self.pools[process], &mut turn);
        for (lane, transaction) in out.send {
            self.sent.push(self.now);
            self.make(
                self.now + WAY,
                Happening::AtStore(process, lane, transaction),
            );
        }
        for settled in out.completions {
            let called = self
                .calls
                .remove(&settled.reservation)
                .expect("called once");
            self.told.push(Told {
                called,
                at: self.now,
                sold: matches!(settled.answer, Answer::Confirmed { .. }),
                shed: matches!(
                    settled.answer,
                    Answer::Rejected(Rejection::Overloaded { .. })
                ),
            });
        }
        let due = self.pools[process].wake_at().map(|at| at.0.max(self.now));
        if let Some(due) = due.filter(|due| self.wakes[process].is_none_or(|set| *due < set)) {
            self.wakes[process] = Some(due);
            self.make(due, Happening::Wakes(process));
        }
    }

    /// What was told to the calls made from `from` to `until`, in microseconds of this clock.
    fn told_to(&self, from: u64, until: u64) -> impl Iterator<Item = &Told> {
        self.told
            .iter()
            .filter(move |told| (from..until).contains(&told.called))
    }
}

const ALL: StripeShare = StripeShare { first: 0, step: 1 };

/// The latency, in milliseconds, that this share of the sold calls stayed under.
fn percentile<'a>(told: impl Iterator<Item = &'a Told>, share: f64) -> f64 {
    let sold = told.filter(|told| told.sold);
    let mut spans: Vec<u64> = sold.map(|told| told.at - told.called).collect();
    assert!(!spans.is_empty(), "nobody bought");
    spans.sort_unstable();
    let index = ((spans.len() - 1) as f64 * share) as usize;
    spans[index] as f64 / 1_000.0
}

/// Calls a second that are sold when more come than can be.
fn capacity(stripes: u16) -> f64 {
    let mut plant = Plant::new(&[ALL], stripes);
    plant.patience = 60_000_000;
    plant.run(20_000, 400);
    let from = plant.now;
    plant.run(20_000, 1_000);
    let during = |told: &&Told| told.sold && (from..plant.now).contains(&told.at);
    plant.told.iter().filter(during).count() as f64
}

/// With a line of its own a lane makes its callers wait for its own transaction; with one line for all
/// they wait for whichever ends first.
#[test]
fn one_line_for_eight_lanes_makes_the_wait_short() {
    let (mut own, mut shared) = (Vec::new(), Vec::new());
    let apart: Vec<StripeShare> = (0..8).map(|first| StripeShare { first, step: 8 }).collect();
    for (shares, per_second, p) in [
        (&apart[..], 1_000, &mut own),
        (&[ALL][..], 8_000, &mut shared),
    ] {
        let mut plant = Plant::new(shares, 8);
        plant.run(per_second, 2_000);
        let from = plant.now - 1_500_000;
        *p = [0.5, 0.95]
            .map(|share| percentile(plant.told_to(from, plant.now), share))
            .to_vec();
    }
    println!("p50 and p95 in ms: {own:?} with a line each, {shared:?} with one for all");
    // What is left is the transaction itself.
    assert!(shared[0] < 0.9 * own[0], "{shared:?} and {own:?}");
    assert!(shared[1] < 0.9 * own[1], "{shared:?} and {own:?}");
}

/// Lanes that took the line whenever they could would empty it together, all be away with next to
/// nothing, and let a crowd gather until the first was back.
#[test]
fn many_lanes_leave_at_even_distances() {
    let mut plant = Plant::new(&[ALL], 20);
    plant.run(30_000, 3_000);
    let from = plant.now - 2_000_000;
    let told = || plant.told_to(from, plant.now - 250_000);
    let [p50, p95] = [0.5, 0.95].map(|share| percentile(told(), share));
    let members = plant.counters[0].entries as f64 / plant.counters[0].transactions as f64;
    // What a transaction of that many takes, and the way there and back.
    let usual = (plant.typical(members as usize + 1) + 2 * WAY) as f64 / 1_000.0;
    println!("p50 {p50:.1}, p95 {p95:.1} ms; {members:.1} members take {usual:.1} ms");
    assert!(p50 < usual + 2.0, "{p50} ms");
    assert!((20.0..40.0).contains(&members), "{members}");
}

/// A transaction costs the store two write units for its stripe, and the server as much as ten of its
/// members: while its callers are many it is worth two milliseconds to let some of them come together.
#[test]
fn callers_in_plenty_gather_while_lanes_are_free() {
    for (per_second, least) in [(2_000, 3.5), (4_000, 7.0), (10_000, 14.0)] {
        let mut plant = Plant::new(&[ALL], 20);
        plant.run(per_second, 3_000);
        let from = plant.now - 2_000_000;
        let told = || plant.told_to(from, plant.now - 250_000);
        let [p50, p95] = [0.5, 0.95].map(|share| percentile(told(), share));
        let members = plant.counters[0].entries as f64 / plant.counters[0].transactions as f64;
        let usual = (plant.typical(members as usize + 1) + 2 * WAY) as f64 / 1_000.0;
        println!(
            "{per_second}/s: p50 {p50:.1}, p95 {p95:.1} ms; {members:.1} members take {usual:.1} ms"
        );
        assert!(members >= least, "{members} at {per_second} a second");
        assert!(p50 < usual + 1.5, "{p50} ms at {per_second} a second");
    }
}

/// Few callers wait for nobody, however many lanes there are.
#[test]
fn few_callers_go_at_once() {
    let mut plant = Plant::new(&[ALL], 20);
    plant.run(200, 3_000);
    let sent = plant.sent.len();
    assert!(
        sent as f64 > 0.95 * plant.called as f64,
        "{sent} transactions"
    );
    let lone = (plant.typical(2) + 2 * WAY) as f64 / 1_000.0;
    let p50 = percentile(plant.told.iter(), 0.5);
    assert!(p50 < lone + 0.5, "{p50} ms, and one alone takes {lone}");
}

/// At three times what can be sold: who is admitted is served in time, who is not hears it at once, and
/// no capacity is lost. Then it is as before.
#[test]
fn overload_is_turned_away_at_the_door() {
    let capacity = capacity(2);
    let mut plant = Plant::new(&[ALL], 2);
    plant.run(1_000, 500);
    let began = plant.now;
    plant.run((3.0 * capacity) as u64, 3_000);
    let (from, until) = (began + 500_000, plant.now - 250_000);
    let seconds = (until - from) as f64 / 1e6;
    let in_time = |told: &&Told| told.sold && told.at - told.called <= plant.patience;
    let good = plant.told_to(from, until).filter(in_time).count() as f64;
    let shed = plant.told_to(from, until).filter(|told| told.shed).count();
    let admitted = plant.told_to(from, until).count() - shed;
    let p99 = percentile(plant.told_to(from, until), 0.99);
    println!(
        "capacity {capacity:.0}/s, sold in time {:.0}/s, {admitted} admitted, {shed} shed, p99 {p99:.0} ms",
        good / seconds
    );
    assert!(good / seconds >= 0.9 * capacity, "{good} in {seconds} s");
    assert!(
        good >= 0.95 * admitted as f64,
        "{good} of {admitted} admitted"
    );
    assert!(p99 <= plant.patience as f64 / 1_000.0, "{p99}");
    let slowest = plant.told_to(from, until).filter(|told| told.shed);
    let slowest = slowest.map(|told| told.at - told.called).max().unwrap();
    assert!(slowest < 5_000, "shed after {slowest} µs");

    plant.run((0.5 * capacity) as u64, 2_000);
    let calm = plant.now;
    plant.run((0.5 * capacity) as u64, 2_000);
    let told: Vec<&Told> = plant.told_to(calm, plant.now - 250_000).collect();
    assert!(told.len() > 100 && told.iter().all(|told| told.sold));
    let p95 = percentile(told.iter().copied(), 0.95);
    assert!(p95 < 80.0, "{p95} ms after the storm");
}

/// Where callers are turned away, the others wait for one transaction to leave and not until just before
/// their deadlines.
#[test]
fn overload_makes_nobody_wait_who_is_admitted() {
    for (stripes, waits) in [(2, 0.9), (8, 0.4)] {
        let capacity = capacity(stripes);
        let mut plant = Plant::new(&[ALL], stripes);
        plant.run((3.0 * capacity) as u64, 1_000);
        let from = plant.now;
        plant.run((3.0 * capacity) as u64, 3_000);
        let until = plant.now - 250_000;
        let sold = || plant.told_to(from, until).filter(|told| told.sold);
        let rate = sold().count() as f64 / ((until - from) as f64 / 1e6);
        let (p50, p95) = (percentile(sold(), 0.5), percentile(sold(), 0.95));
        let full = (plant.typical(100) + 2 * WAY) as f64 / 1_000.0;
        println!(
            "{stripes} stripes: capacity {capacity:.0}/s, sold {rate:.0}/s, p50 {p50:.1}, p95 {p95:.1} ms; \
             a full transaction takes {full:.1} ms"
        );
        assert!(rate >= 0.9 * capacity, "{rate} of {capacity}");
        assert!(p50 < (1.0 + waits) * full, "{p50} ms");
        let counters = &plant.counters[0];
        assert_eq!(
            counters.rejected_overloaded, counters.rejected_by_admission,
            "no line was full"
        );
    }
}

/// A crowd that can be served in time is served, however long the line.
#[test]
fn a_crowd_that_fits_is_not_cut_short() {
    let mut plant = Plant::new(&[ALL], 1);
    let from = plant.now;
    for _ in 0..20 {
        plant.run(10_000, 30);
        plant.run(0, 200);
    }
    assert!(plant.told_to(from, plant.now).count() > 5_000);
    assert!(plant.told_to(from, plant.now).all(|told| told.sold));
}

/// One who is in haste and therefore turned away takes nothing from those who are not.
#[test]
fn a_hurried_caller_cuts_no_line_short() {
    let mut plant = Plant::new(&[ALL], 1);
    let patience = plant.patience;
    let (mut patient, mut hurried) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        for is_hurried in [false, true, false] {
            plant.patience = if is_hurried { 50_000 } else { patience };
            let from = plant.now;
            plant.run(10_000, 12);
            let group = if is_hurried {
                &mut hurried
            } else {
                &mut patient
            };
            group.push((from, plant.now));
        }
        plant.run(0, 250);
    }
    let called = |within: &[(u64, u64)]| {
        let of = |told: &&Told| within.iter().any(|(a, b)| (a..b).contains(&&told.called));
        plant.told.iter().filter(of).collect::<Vec<_>>()
    };
    assert!(called(&hurried).iter().any(|told| told.shed));
    let patient = called(&patient);
    assert!(patient.len() > 4_000, "{}", patient.len());
    let shed = patient.iter().filter(|told| !told.sold).count();
    assert_eq!(shed, 0, "of {}", patient.len());
}

/// A lone caller with little time is sent at once and takes its chance.
#[test]
fn nobody_is_turned_away_from_an_idle_pool() {
    let mut plant = Plant::new(&[ALL], 2);
    plant.run(20_000, 1_000);
    plant.run(0, 1_000);
    plant.patience = 2_000;
    let from = plant.now;
    plant.run(20, 1_000);
    assert!(plant.told_to(from, plant.now).all(|told| told.sold));
    assert!(plant.told_to(from, plant.now).count() > 15);
}

/// Conflicts in a hundred transactions, while so much time passes.
fn conflicts_of(plant: &Plant, from: u64, until: u64) -> f64 {
    let within = |times: &[u64]| times.iter().filter(|at| (from..until).contains(at)).count();
    100.0 * within(&plant.conflicts) as f64 / within(&plant.sent).max(1) as f64
}

#[test]
fn processes_that_share_stripes_come_apart() {
    for processes in [2, 4] {
        let mut plant = Plant::new(&vec![ALL; processes], 8);
        let per_second = 12_000 / processes as u64;
        plant.run(per_second, 6_000);
        let (first, last) = (plant.now - 6_000_000, plant.now);
        let early = conflicts_of(&plant, first, first + 300_000);
        let late = conflicts_of(&plant, last - 3_000_000, last);
        let told = || plant.told_to(last - 3_000_000, last - 300_000);
        let sold = told().filter(|told| told.sold).count() as f64 / told().count() as f64;
        let p95 = percentile(told(), 0.95);
        println!(
            "{processes} processes: {early:.0} % of the transactions conflict at first, {late:.1} % later; \
             {:.1} % sold, p95 {p95:.0} ms",
            100.0 * sold
        );
        assert!(
            late < early / 3.0,
            "{processes}: {early} % and then {late} %"
        );
        assert!(sold > 0.99, "{processes}: {sold}");
    }
}
