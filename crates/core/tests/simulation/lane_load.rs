//! Pools of lanes under load, in virtual time: queueing times, overload, and processes that share stripes.
//!
//! The store has stock for every call, unless a test gives it a stock. A transaction takes longer the larger it is, with scatter, and cancels
//! another one on the same stripe, as DynamoDB does.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use inventory_core::answer::{Answer, Rejection};
use inventory_core::counters::Counters;
use inventory_core::ids::{EventId, ReservationId};
use inventory_core::lane::{
    LaneSettings, Pool, PoolContext, PoolKey, PoolKind, PoolOutput, RedecisionCause, WriteIntent,
};
use inventory_core::operation::{Operation, Selection, Verb};
use inventory_core::rules::{self, Decision, LateCommit};
use inventory_core::stripe_ownership::StripeSet;
use inventory_core::time::{Micros, Now, UnixMillis};
use inventory_core::transaction::{
    EventLayout, StripeView, StripesRead, Transaction, TransactionOutcome,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::model::{Store, TOKEN_MEMORY};

/// The default of SOLD_OUT_LATCH_MS.
pub(crate) const LATCH: Micros = Micros::from_millis(50);

/// Time of one way to the store or back.
const ONE_WAY: u64 = 1_000;

#[derive(Debug)]
enum LoadStep {
    Arrives(usize),
    AtStore(usize, u16, Rc<Transaction>),
    /// The store has executed the transaction and answers.
    Done(usize, u16, Rc<Transaction>),
    Settled(usize, u16, TransactionOutcome),
    /// The store reads this stripe after those that it has read.
    Reads(usize, u64, Vec<StripeView>),
    StripesRead(usize, u64, Vec<StripeView>),
    Wakes(usize),
}

#[derive(Debug)]
pub(crate) struct LoadResult {
    pub(crate) called: u64,
    pub(crate) at: u64,
    pub(crate) sold: bool,
    /// Too few units.
    pub(crate) short: bool,
    pub(crate) shed: bool,
}

/// Processes, each with a pool of its own on the same stripes.
pub(crate) struct LoadTest {
    pools: Vec<Pool>,
    pub(crate) counters: Vec<Counters>,
    pub(crate) now: u64,
    made: u64,
    agenda: BTreeMap<(u64, u64), LoadStep>,
    /// Stripes of the transactions that the store is executing.
    taken: BTreeSet<u16>,
    rng: SmallRng,
    event: EventId,
    /// Microseconds between two calls of one process; `None`: no calls.
    every: Option<u64>,
    /// Share of the calls of each process; empty: all the same.
    pub(crate) weights: Vec<u64>,
    patience: u64,
    calls: BTreeMap<ReservationId, u64>,
    called: u64,
    pub(crate) results: Vec<LoadResult>,
    /// The stock, if it is limited.
    store: Option<Store>,
    pub(crate) reads: u64,
    /// The scheduled timer of each process.
    wakes: Vec<Option<u64>>,
    /// When transactions conflicted, and when they were sent.
    conflicts: Vec<u64>,
    sent: Vec<u64>,
}

impl LoadTest {
    /// One process for each of these shares of the stripes.
    pub(crate) fn new(shares: &[StripeSet], stripes: u16) -> Self {
        let event: EventId = "evt".parse().unwrap();
        let shape = EventLayout { stripes, seat_keys: 0, closed: false };
        let pool = |share: &StripeSet| {
            let key = PoolKey { event: event.clone(), kind: PoolKind::Stripes };
            Pool::new(
                key,
                *share,
                shape,
                LaneSettings { sold_out_latch: LATCH, ..LaneSettings::default() },
            )
        };
        let pools: Vec<Pool> = shares.iter().map(pool).collect();
        Self {
            counters: vec![Counters::default(); pools.len()],
            wakes: vec![None; pools.len()],
            pools,
            now: 1_000_000,
            made: 0,
            agenda: BTreeMap::new(),
            taken: BTreeSet::new(),
            rng: SmallRng::seed_from_u64(7),
            event,
            every: None,
            weights: Vec::new(),
            patience: 250_000,
            calls: BTreeMap::new(),
            called: 0,
            results: Vec::new(),
            store: None,
            reads: 0,
            conflicts: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// Limits the stock to this, per stripe.
    pub(crate) fn with_stock(mut self, stock: &[u64]) -> Self {
        let mut store = Store::new(TOKEN_MEMORY);
        store.create(&self.event, stock);
        self.store = Some(store);
        self
    }

    /// Units that are not sold.
    pub(crate) fn unsold(&self) -> u64 {
        self.store.as_ref().map_or(0, |store| store.remaining(&self.event))
    }

    /// The least and the most that were not sold at some time between these.
    pub(crate) fn unsold_between(&self, from: u64, until: u64) -> Vec<u64> {
        let store = self.store.as_ref().unwrap();
        store.remaining_during(&self.event, Micros(from), Micros(until)).collect()
    }

    pub(crate) fn transactions(&self) -> usize {
        self.sent.len()
    }

    /// Runs with `per_second` calls to each process for `ms` milliseconds.
    pub(crate) fn run(&mut self, per_second: u64, ms: u64) {
        self.every = (per_second > 0).then(|| 1_000_000 / per_second);
        if self.every.is_some() {
            for process in 0..self.pools.len() {
                self.make(self.now + process as u64, LoadStep::Arrives(process));
            }
        }
        let until = self.now + ms * 1_000;
        while let Some(((at, _), _)) = self.agenda.first_key_value() {
            if *at >= until {
                break;
            }
            let ((at, _), step) = self.agenda.pop_first().unwrap();
            self.now = at;
            self.run_step(step);
        }
        self.now = until;
        self.agenda.retain(|_, step| !matches!(step, LoadStep::Arrives(_)));
    }

    fn make(&mut self, at: u64, step: LoadStep) {
        self.made += 1;
        self.agenda.insert((at, self.made), step);
    }

    fn run_step(&mut self, step: LoadStep) {
        match step {
            LoadStep::Arrives(process) => {
                let caller = self.caller_of(process);
                self.call(caller);
                if let Some(every) = self.every {
                    self.make(self.now + every, LoadStep::Arrives(process));
                }
            }
            LoadStep::AtStore(process, lane, transaction) => {
                let mut stripes = transaction.stripes.iter().map(|update| update.stripe);
                if stripes.any(|stripe| self.taken.contains(&stripe)) {
                    self.conflicts.push(self.now);
                    let settled = LoadStep::Settled(process, lane, TransactionOutcome::Conflict);
                    self.make(self.now + ONE_WAY, settled);
                    return;
                }
                self.taken.extend(transaction.stripes.iter().map(|u| u.stripe));
                let took = self.takes(transaction.action_count());
                self.make(self.now + took, LoadStep::Done(process, lane, transaction));
            }
            LoadStep::Done(process, lane, transaction) => {
                for update in &transaction.stripes {
                    self.taken.remove(&update.stripe);
                }
                let outcome = match &mut self.store {
                    None => TransactionOutcome::Committed,
                    Some(store) => store.apply(&transaction, Micros(self.now), |_| None).unwrap(),
                };
                drop(transaction);
                self.make(self.now + ONE_WAY, LoadStep::Settled(process, lane, outcome));
            }
            LoadStep::Reads(process, began, mut seen) => {
                let store = self.store.as_ref().expect("pools read a limited stock only");
                let StripesRead::Found(stripes) = store.read(&self.event, false) else {
                    panic!("the event exists");
                };
                seen.push(stripes[seen.len()]);
                let (at, step) = match seen.len() < stripes.len() {
                    true => (self.now + 20, LoadStep::Reads(process, began, seen)),
                    false => (self.now + ONE_WAY, LoadStep::StripesRead(process, began, seen)),
                };
                self.make(at, step);
            }
            LoadStep::StripesRead(process, began, seen) => {
                let read = StripesRead::Found(seen);
                self.with(process, |pool, turn| pool.stripes_read(Micros(began), &read, turn));
            }
            LoadStep::Settled(process, lane, outcome) => {
                self.with(process, |pool, turn| pool.handle_outcome(lane, outcome, turn));
            }
            LoadStep::Wakes(process) => {
                if self.wakes[process].is_some_and(|at| at <= self.now) {
                    self.wakes[process] = None;
                }
                self.with(process, |pool, turn| pool.wake(turn));
            }
        }
    }

    /// 13 ms for a few actions, 26 ms for a hundred, plus or minus a quarter; one in twenty takes twice that.
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

    /// The process that gets the next call of the stream of calls of `process`.
    fn caller_of(&mut self, process: usize) -> usize {
        let all: u64 = self.weights.iter().sum();
        if all == 0 {
            return process;
        }
        let mut pick = self.rng.random_range(0..all);
        let mut weights = self.weights.iter();
        let is_picked = |weight: &u64| {
            let is_here = pick < *weight;
            pick = pick.saturating_sub(*weight);
            is_here
        };
        weights.position(is_picked).unwrap_or(process)
    }

    fn call(&mut self, process: usize) {
        self.called += 1;
        let reservation: ReservationId = format!("r-{}", self.called).parse().unwrap();
        self.calls.insert(reservation.clone(), self.now);
        let selection = Selection::Quantity(1);
        let (event, deadline) = (self.event.clone(), Micros(self.now + self.patience));
        let operation = Operation::new(Verb::Commit, reservation, event, selection, deadline);
        let late = LateCommit::default();
        let Decision::Write(transition) = rules::decide(&operation, None, UnixMillis(0), late)
        else {
            panic!("nothing is known of it");
        };
        let plan = WriteIntent { transition, record: None, seats: None };
        self.with(process, |pool, turn| pool.submit(operation, plan, turn));
    }

    fn with(&mut self, process: usize, act: impl FnOnce(&mut Pool, &mut PoolContext<'_>)) {
        let mut out = PoolOutput::default();
        let now = Now { mono: Micros(self.now), unix: UnixMillis(self.now / 1_000) };
        let mut turn = PoolContext {
            writer: process,
            now,
            rng: &mut self.rng,
            counters: &mut self.counters[process],
            out: &mut out,
        };
        act(&mut self.pools[process], &mut turn);
        for (lane, transaction) in out.send {
            self.sent.push(self.now);
            self.make(self.now + ONE_WAY, LoadStep::AtStore(process, lane, transaction));
        }
        if out.read_stripes {
            self.reads += 1;
            self.make(self.now + ONE_WAY, LoadStep::Reads(process, self.now, Vec::new()));
        }
        // The engine reads the record once more, which does not exist.
        for decided in out.redecisions {
            let is_short = matches!(decided.cause, RedecisionCause::Shortage { .. });
            assert!(is_short, "{decided:?}");
            let called = self.calls.remove(&decided.operation.reservation).expect("called once");
            self.results.push(LoadResult {
                called,
                at: self.now,
                sold: false,
                short: true,
                shed: false,
            });
        }
        for settled in out.completions {
            let called = self.calls.remove(&settled.reservation).expect("called once");
            self.results.push(LoadResult {
                called,
                at: self.now,
                sold: matches!(settled.answer, Answer::Confirmed { .. }),
                short: false,
                shed: matches!(settled.answer, Answer::Rejected(Rejection::Overloaded { .. })),
            });
        }
        let due = self.pools[process].wake_at().map(|at| at.0.max(self.now));
        if let Some(due) = due.filter(|due| self.wakes[process].is_none_or(|set| *due < set)) {
            self.wakes[process] = Some(due);
            self.make(due, LoadStep::Wakes(process));
        }
    }

    /// The results of the calls made from `from` to `until`, in microseconds.
    pub(crate) fn results_between(
        &self,
        from: u64,
        until: u64,
    ) -> impl Iterator<Item = &LoadResult> {
        self.results.iter().filter(move |result| (from..until).contains(&result.called))
    }
}

const ALL: StripeSet = StripeSet::every(0, 1);

/// The latency in milliseconds that this share of the sold calls did not exceed.
pub(crate) fn percentile<'a>(results: impl Iterator<Item = &'a LoadResult>, share: f64) -> f64 {
    let sold = results.filter(|result| result.sold);
    let mut spans: Vec<u64> = sold.map(|result| result.at - result.called).collect();
    assert!(!spans.is_empty(), "nobody bought");
    spans.sort_unstable();
    let index = ((spans.len() - 1) as f64 * share) as usize;
    spans[index] as f64 / 1_000.0
}

/// Calls sold per second when more arrive than can be sold.
fn capacity(stripes: u16) -> f64 {
    let mut load = LoadTest::new(&[ALL], stripes);
    load.patience = 60_000_000;
    load.run(20_000, 400);
    let from = load.now;
    load.run(20_000, 1_000);
    let during = |result: &&LoadResult| result.sold && (from..load.now).contains(&result.at);
    load.results.iter().filter(during).count() as f64
}

/// With a queue of its own, a lane makes its callers wait for its own transaction; with one shared queue they
/// wait for whichever transaction ends first.
#[test]
fn one_queue_for_eight_lanes_shortens_the_wait() {
    let (mut own, mut shared) = (Vec::new(), Vec::new());
    let apart: Vec<StripeSet> = (0..8).map(|first| StripeSet::every(first, 8)).collect();
    for (shares, per_second, p) in [(&apart[..], 1_000, &mut own), (&[ALL][..], 8_000, &mut shared)]
    {
        let mut load = LoadTest::new(shares, 8);
        load.run(per_second, 2_000);
        let from = load.now - 1_500_000;
        *p = [0.5, 0.95]
            .map(|share| percentile(load.results_between(from, load.now), share))
            .to_vec();
    }
    println!("p50 and p95 in ms: {own:?} with a line each, {shared:?} with one for all");
    // The rest is the transaction itself.
    assert!(shared[0] < 0.9 * own[0], "{shared:?} and {own:?}");
    assert!(shared[1] < 0.9 * own[1], "{shared:?} and {own:?}");
}

/// Lanes that always took what is queued would empty the queue at once with small transactions, and a crowd
/// would wait until the first lane is free again.
#[test]
fn transactions_of_many_lanes_are_paced() {
    let mut load = LoadTest::new(&[ALL], 20);
    load.run(30_000, 3_000);
    let from = load.now - 2_000_000;
    let results = || load.results_between(from, load.now - 250_000);
    let [p50, p95] = [0.5, 0.95].map(|share| percentile(results(), share));
    let members = load.counters[0].entries as f64 / load.counters[0].transactions as f64;
    // The time of a transaction of this size, and both ways.
    let usual = (load.typical(members as usize + 1) + 2 * ONE_WAY) as f64 / 1_000.0;
    println!("p50 {p50:.1}, p95 {p95:.1} ms; {members:.1} members take {usual:.1} ms");
    assert!(p50 < usual + 2.0, "{p50} ms");
    assert!((20.0..40.0).contains(&members), "{members}");
}

/// A transaction costs two write units of its stripe, and the server as much as ten of its entries. With many
/// callers it pays to wait two milliseconds for more entries.
#[test]
fn callers_are_batched_while_lanes_are_free() {
    for (per_second, least) in [(2_000, 3.5), (4_000, 7.0), (10_000, 14.0)] {
        let mut load = LoadTest::new(&[ALL], 20);
        load.run(per_second, 3_000);
        let from = load.now - 2_000_000;
        let results = || load.results_between(from, load.now - 250_000);
        let [p50, p95] = [0.5, 0.95].map(|share| percentile(results(), share));
        let members = load.counters[0].entries as f64 / load.counters[0].transactions as f64;
        let usual = (load.typical(members as usize + 1) + 2 * ONE_WAY) as f64 / 1_000.0;
        println!(
            "{per_second}/s: p50 {p50:.1}, p95 {p95:.1} ms; {members:.1} members take {usual:.1} ms"
        );
        assert!(members >= least, "{members} at {per_second} a second");
        assert!(p50 < usual + 1.5, "{p50} ms at {per_second} a second");
    }
}

/// Few callers do not wait, however many lanes there are.
#[test]
fn few_callers_are_sent_at_once() {
    let mut load = LoadTest::new(&[ALL], 20);
    load.run(200, 3_000);
    let sent = load.sent.len();
    assert!(sent as f64 > 0.95 * load.called as f64, "{sent} transactions");
    let lone = (load.typical(2) + 2 * ONE_WAY) as f64 / 1_000.0;
    let p50 = percentile(load.results.iter(), 0.5);
    assert!(p50 < lone + 0.5, "{p50} ms, and one alone takes {lone}");
}

/// At three times the capacity, admitted calls are served in time, rejected calls are answered at once, and no
/// capacity is lost. Afterwards the pool is as before.
#[test]
fn overload_is_rejected_at_admission() {
    let capacity = capacity(2);
    let mut load = LoadTest::new(&[ALL], 2);
    load.run(1_000, 500);
    let began = load.now;
    load.run((3.0 * capacity) as u64, 3_000);
    let (from, until) = (began + 500_000, load.now - 250_000);
    let seconds = (until - from) as f64 / 1e6;
    let in_time = |result: &&LoadResult| result.sold && result.at - result.called <= load.patience;
    let good = load.results_between(from, until).filter(in_time).count() as f64;
    let shed = load.results_between(from, until).filter(|result| result.shed).count();
    let admitted = load.results_between(from, until).count() - shed;
    let p99 = percentile(load.results_between(from, until), 0.99);
    println!(
        "capacity {capacity:.0}/s, sold in time {:.0}/s, {admitted} admitted, {shed} shed, p99 {p99:.0} ms",
        good / seconds
    );
    assert!(good / seconds >= 0.9 * capacity, "{good} in {seconds} s");
    assert!(good >= 0.95 * admitted as f64, "{good} of {admitted} admitted");
    assert!(p99 <= load.patience as f64 / 1_000.0, "{p99}");
    let slowest = load.results_between(from, until).filter(|result| result.shed);
    let slowest = slowest.map(|result| result.at - result.called).max().unwrap();
    assert!(slowest < 5_000, "shed after {slowest} µs");

    load.run((0.5 * capacity) as u64, 2_000);
    let calm = load.now;
    load.run((0.5 * capacity) as u64, 2_000);
    let results: Vec<&LoadResult> = load.results_between(calm, load.now - 250_000).collect();
    assert!(results.len() > 100 && results.iter().all(|result| result.sold));
    let p95 = percentile(results.iter().copied(), 0.95);
    assert!(p95 < 80.0, "{p95} ms after the storm");
}

/// While calls are rejected, admitted calls wait for one transaction, not until just before their deadlines.
#[test]
fn admitted_calls_do_not_wait_under_overload() {
    for (stripes, waits) in [(2, 0.9), (8, 0.4)] {
        let capacity = capacity(stripes);
        let mut load = LoadTest::new(&[ALL], stripes);
        load.run((3.0 * capacity) as u64, 1_000);
        let from = load.now;
        load.run((3.0 * capacity) as u64, 3_000);
        let until = load.now - 250_000;
        let sold = || load.results_between(from, until).filter(|result| result.sold);
        let rate = sold().count() as f64 / ((until - from) as f64 / 1e6);
        let (p50, p95) = (percentile(sold(), 0.5), percentile(sold(), 0.95));
        let full = (load.typical(100) + 2 * ONE_WAY) as f64 / 1_000.0;
        println!(
            "{stripes} stripes: capacity {capacity:.0}/s, sold {rate:.0}/s, p50 {p50:.1}, p95 {p95:.1} ms; \
             a full transaction takes {full:.1} ms"
        );
        assert!(rate >= 0.9 * capacity, "{rate} of {capacity}");
        assert!(p50 < (1.0 + waits) * full, "{p50} ms");
        let counters = &load.counters[0];
        assert_eq!(
            counters.rejected_overloaded, counters.rejected_by_admission,
            "no line was full"
        );
    }
}

/// A burst that can be served in time is served, however long the queue.
#[test]
fn a_burst_that_fits_is_not_rejected() {
    let mut load = LoadTest::new(&[ALL], 1);
    let from = load.now;
    for _ in 0..20 {
        load.run(10_000, 30);
        load.run(0, 200);
    }
    assert!(load.results_between(from, load.now).count() > 5_000);
    assert!(load.results_between(from, load.now).all(|result| result.sold));
}

/// A call with a short deadline that is rejected does not affect calls with longer deadlines.
#[test]
fn a_short_deadline_does_not_start_short_queue_mode() {
    let mut load = LoadTest::new(&[ALL], 1);
    let patience = load.patience;
    let (mut patient, mut hurried) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        for is_hurried in [false, true, false] {
            load.patience = if is_hurried { 50_000 } else { patience };
            let from = load.now;
            load.run(10_000, 12);
            let group = if is_hurried { &mut hurried } else { &mut patient };
            group.push((from, load.now));
        }
        load.run(0, 250);
    }
    let called = |within: &[(u64, u64)]| {
        let of =
            |result: &&LoadResult| within.iter().any(|(a, b)| (a..b).contains(&&result.called));
        load.results.iter().filter(of).collect::<Vec<_>>()
    };
    assert!(called(&hurried).iter().any(|result| result.shed));
    let patient = called(&patient);
    assert!(patient.len() > 4_000, "{}", patient.len());
    let shed = patient.iter().filter(|result| !result.sold).count();
    assert_eq!(shed, 0, "of {}", patient.len());
}

/// A lone call with a short deadline is sent at once.
#[test]
fn an_idle_pool_rejects_no_call() {
    let mut load = LoadTest::new(&[ALL], 2);
    load.run(20_000, 1_000);
    load.run(0, 1_000);
    load.patience = 2_000;
    let from = load.now;
    load.run(20, 1_000);
    assert!(load.results_between(from, load.now).all(|result| result.sold));
    assert!(load.results_between(from, load.now).count() > 15);
}

/// Conflicts per hundred transactions during this time.
pub(crate) fn conflicts_of(load: &LoadTest, from: u64, until: u64) -> f64 {
    let within = |times: &[u64]| times.iter().filter(|at| (from..until).contains(at)).count();
    100.0 * within(&load.conflicts) as f64 / within(&load.sent).max(1) as f64
}

#[test]
fn conflicts_between_processes_decline() {
    for processes in [2, 4] {
        let mut load = LoadTest::new(&vec![ALL; processes], 8);
        let per_second = 12_000 / processes as u64;
        load.run(per_second, 6_000);
        let (first, last) = (load.now - 6_000_000, load.now);
        let early = conflicts_of(&load, first, first + 300_000);
        let late = conflicts_of(&load, last - 3_000_000, last);
        let results = || load.results_between(last - 3_000_000, last - 300_000);
        let sold = results().filter(|result| result.sold).count() as f64 / results().count() as f64;
        let p95 = percentile(results(), 0.95);
        println!(
            "{processes} processes: {early:.0} % of the transactions conflict at first, {late:.1} % later; \
             {:.1} % sold, p95 {p95:.0} ms",
            100.0 * sold
        );
        assert!(late < early / 3.0, "{processes}: {early} % and then {late} %");
        assert!(sold > 0.99, "{processes}: {sold}");
    }
}
