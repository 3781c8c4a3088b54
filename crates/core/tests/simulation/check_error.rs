//! How wrong CheckAvailability may be with several processes: by what the others sold and got back within the age of the
//! snapshot. The writes of the own shard are included at once.
//!
//! Three processes, each with an engine of one shard, sell one event in virtual time and are asked for its stock. Reads
//! are torn: the stripes are read one after the other. Every write is logged with the times at which it was sent, applied
//! and settled, and the range of correct answers to each check follows from that log alone.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use inventory_core::answer::{Answer, Rejection};
use inventory_core::effect::{CallId, Effect, LaneId, RecordReadId};
use inventory_core::engine::{Engine, EngineSettings};
use inventory_core::ids::{EventId, ReservationId};
use inventory_core::membership::{Member, Members, ProcessId};
use inventory_core::operation::{Operation, RecordExpectation, Selection, Verb};
use inventory_core::query::{Query, QueryResult};
use inventory_core::rules::LateCommit;
use inventory_core::time::{Micros, Now, UnixMillis};
use inventory_core::transaction::{
    RecordsRead, StripeView, StripesRead, Transaction, TransactionOutcome,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::model::{Store, TOKEN_MEMORY};
use super::scenario::event;

const MS: u64 = 1_000;

const PROCESSES: usize = 3;

/// Maximum age of a snapshot.
const AGE_MAX: u64 = 50 * MS;

/// Mean time between two checks of each process. The first one is asked so often that its snapshot is refreshed before it
/// is too old; the last one so rarely that most of its checks find a snapshot that is too old, or none.
const ASKED_EVERY: [u64; PROCESSES] = [2 * MS, 15 * MS, 40 * MS];

/// Of each sale.
const SPAN: u64 = 1_500 * MS;

#[derive(Debug)]
enum CheckStep {
    /// A direct commit, or a hold that is released a moment later.
    Sells(usize),
    Releases(usize, ReservationId, u32),
    Asks(usize),
    Wakes(usize),
    Applies {
        process: usize,
        lane: LaneId,
        transaction: Rc<Transaction>,
        sent: u64,
    },
    Settled {
        process: usize,
        lane: LaneId,
        outcome: TransactionOutcome,
        write: Option<usize>,
    },
    ReadsStripe(usize, Vec<StripeView>),
    StripesRead(usize, Vec<StripeView>),
    RecordsRead(usize, RecordReadId, RecordsRead),
}

/// A write that was applied.
#[derive(Debug)]
struct LoggedWrite {
    process: usize,
    applied: u64,
    /// When its process got the outcome.
    settled: Option<u64>,
    taken: u64,
    given: u64,
}

/// An answered check.
#[derive(Debug)]
struct LoggedCheck {
    process: usize,
    asked: u64,
    answered: u64,
    qty: u32,
    remaining: u64,
    available: bool,
}

/// The remaining units that a check may report, by the log.
#[derive(Debug, PartialEq, Eq)]
struct Bounds {
    least: i64,
    most: i64,
    /// What remained when the check was answered.
    actual: i64,
}

struct CheckedSale {
    event: EventId,
    stock: i64,
    store: Store,
    engines: Vec<Engine>,
    wakes: Vec<Option<u64>>,
    agenda: BTreeMap<(u64, u64), CheckStep>,
    made: u64,
    now: u64,
    rng: SmallRng,
    calls: u64,
    /// Calls in flight; a hold with what to release.
    called: HashMap<CallId, Option<(usize, ReservationId, u32)>>,
    asked: HashMap<CallId, (usize, u64, u32)>,
    writes: Vec<LoggedWrite>,
    checks: Vec<LoggedCheck>,
    moves: u64,
    sold_out: u64,
}

impl CheckedSale {
    fn new(stripes: &[u64], seed: u64) -> Self {
        let event = event(0);
        let mut store = Store::new(TOKEN_MEMORY);
        store.create(&event, stripes);
        let engine = |process: usize| {
            let settings = EngineSettings {
                shard: 0,
                shards: 1,
                cache_capacity: 100,
                cache_for: Micros(1_000 * MS),
                late_commit: LateCommit::Reacquire,
                sold_out_latch: Micros(0),
                read_staleness: Micros(AGE_MAX),
                attempt_timeout: Micros(1_000 * MS),
            };
            let rng = SmallRng::seed_from_u64(seed << 8 | process as u64);
            let mut engine = Engine::new(settings, rng);
            let member = |process: usize| Member { id: ProcessId(process as u64 + 1), shards: 1 };
            let others = (0..PROCESSES).filter(|other| *other != process).map(member);
            let now = Now { mono: Micros(0), unix: UnixMillis(0) };
            engine.handle_membership(Rc::new(Members::new(member(process), others)), now);
            engine
        };
        Self {
            event,
            stock: stripes.iter().sum::<u64>() as i64,
            store,
            engines: (0..PROCESSES).map(engine).collect(),
            wakes: vec![None; PROCESSES],
            agenda: BTreeMap::new(),
            made: 0,
            now: 0,
            rng: SmallRng::seed_from_u64(seed ^ 0x0c0e_cced),
            calls: 0,
            called: HashMap::new(),
            asked: HashMap::new(),
            writes: Vec::new(),
            checks: Vec::new(),
            moves: 0,
            sold_out: 0,
        }
    }

    fn clock(&self) -> Now {
        Now { mono: Micros(self.now), unix: UnixMillis(self.now / MS) }
    }

    fn plan(&mut self, after: u64, step: CheckStep) {
        self.made += 1;
        self.agenda.insert((self.now + after, self.made), step);
    }

    /// Sells with this many calls of each process per second, and asks each process at its own pace.
    fn run(mut self, rates: [u64; PROCESSES]) -> Self {
        for (process, rate) in rates.into_iter().enumerate() {
            for _ in 0..rate * SPAN / (1_000 * MS) {
                let at = self.rng.random_range(0..SPAN);
                self.plan(at, CheckStep::Sells(process));
            }
            let mut at = 0;
            while at < SPAN {
                self.plan(at, CheckStep::Asks(process));
                at += self.rng.random_range(0..2 * ASKED_EVERY[process]);
            }
        }
        self.run_while(|_| true);
        assert!(self.called.is_empty() && self.asked.is_empty(), "not all calls are answered");
        self
    }

    fn run_while(&mut self, condition: impl Fn(&Self) -> bool) {
        while condition(self)
            && let Some(((at, _), step)) = self.agenda.pop_first()
        {
            self.now = at;
            self.step(step);
        }
    }

    fn step(&mut self, step: CheckStep) {
        let now = self.clock();
        let process = match step {
            CheckStep::Sells(process) => {
                self.sell(process);
                process
            }
            CheckStep::Releases(process, reservation, qty) => {
                let expectation = RecordExpectation::Present;
                let operation = self.operation(Verb::Release, reservation, qty);
                self.call(process, Operation { expectation, ..operation }, None);
                process
            }
            CheckStep::Asks(process) => {
                self.calls += 1;
                let call = CallId(self.calls);
                let qty = self.rng.random_range(1..=40);
                self.asked.insert(call, (process, self.now, qty));
                let query = Query::Availability { qty, section: None };
                let engine = &mut self.engines[process];
                match engine.cached_query_result(&self.event, &query, now.mono) {
                    Some(result) => self.checked(call, result),
                    None => engine.handle_query(call, self.event.clone(), query, now),
                }
                process
            }
            CheckStep::Wakes(process) => {
                self.wakes[process] = None;
                self.engines[process].handle_timeout(now);
                process
            }
            CheckStep::Applies { process, lane, transaction, sent } => {
                self.apply(process, lane, &transaction, sent);
                return;
            }
            CheckStep::Settled { process, lane, outcome, write } => {
                if let Some(write) = write {
                    self.writes[write].settled = Some(self.now);
                }
                self.engines[process].handle_transaction_outcome(lane, outcome, now);
                process
            }
            CheckStep::ReadsStripe(process, mut seen) => {
                let StripesRead::Found(stripes) = self.store.read(&self.event, false) else {
                    panic!("the event exists");
                };
                seen.push(stripes[seen.len()]);
                let is_last = seen.len() == stripes.len();
                let takes = self.rng.random_range(0..2 * MS);
                let next = match is_last {
                    true => CheckStep::StripesRead(process, seen),
                    false => CheckStep::ReadsStripe(process, seen),
                };
                self.plan(takes, next);
                return;
            }
            CheckStep::StripesRead(process, seen) => {
                let (event, read) = (self.event.clone(), StripesRead::Found(seen));
                self.engines[process].handle_stripes_read(&event, &read, now);
                process
            }
            CheckStep::RecordsRead(process, read, found) => {
                self.engines[process].handle_records_read(read, &found, now);
                process
            }
        };
        self.execute(process);
    }

    fn operation(&self, verb: Verb, reservation: ReservationId, qty: u32) -> Operation {
        let deadline = Micros(self.now + 10_000 * MS);
        let selection = Selection::Quantity(qty);
        Operation::new(verb, reservation, self.event.clone(), selection, deadline)
    }

    fn sell(&mut self, process: usize) {
        let reservation: ReservationId = format!("r-{}", self.calls).parse().unwrap();
        let qty = self.rng.random_range(1..=3);
        match self.rng.random() {
            true => {
                let operation = self.operation(Verb::Commit, reservation, qty);
                self.call(process, operation, None);
            }
            false => {
                let mut operation = self.operation(Verb::Hold, reservation.clone(), qty);
                operation.hold_until = Some(UnixMillis(self.now / MS + 600_000));
                // Another process may get the call that releases the hold.
                let releases = self.rng.random_range(0..PROCESSES - 1);
                self.call(process, operation, Some((releases, reservation, qty)));
            }
        }
    }

    fn call(
        &mut self,
        process: usize,
        operation: Operation,
        release: Option<(usize, ReservationId, u32)>,
    ) {
        self.calls += 1;
        let call = CallId(self.calls);
        self.called.insert(call, release);
        let now = self.clock();
        self.engines[process].handle_call(call, operation, now);
    }

    fn execute(&mut self, process: usize) {
        while let Some(effect) = self.engines[process].poll_effect() {
            match effect {
                Effect::Answer { call, answer, .. } => self.answered(call, &answer),
                Effect::AnswerQuery { call, result } => self.checked(call, result.unwrap()),
                Effect::Transact { lane, transaction, .. } => {
                    let sent = self.now;
                    let takes = self.rng.random_range(4 * MS..15 * MS);
                    self.plan(takes, CheckStep::Applies { process, lane, transaction, sent });
                }
                Effect::ReadStripes { .. } => {
                    let takes = self.rng.random_range(0..3 * MS);
                    self.plan(takes, CheckStep::ReadsStripe(process, Vec::new()));
                }
                Effect::ReadRecords { read, reservations } => {
                    let found = reservations.iter().map(|id| self.store.read_record(id));
                    let found = RecordsRead::Found(found.collect());
                    self.plan(4 * MS, CheckStep::RecordsRead(process, read, found));
                }
                other => panic!("one shard does not need {other:?}"),
            }
        }
        if let Some(due) = self.engines[process].poll_timeout() {
            let due = due.0.max(self.now + 1);
            if self.wakes[process].is_none_or(|at| due < at) {
                self.wakes[process] = Some(due);
                self.plan(due - self.now, CheckStep::Wakes(process));
            }
        }
    }

    fn apply(&mut self, process: usize, lane: LaneId, transaction: &Rc<Transaction>, sent: u64) {
        let outcome = self.store.apply(transaction, Micros(self.now), |_| None).unwrap();
        let write = (outcome == TransactionOutcome::Committed).then_some(self.writes.len());
        if write.is_some() {
            let sum = |of: fn(u64, u64) -> u64| {
                let stripes = transaction.stripes.iter();
                stripes.map(|update| of(update.take, update.give)).sum()
            };
            self.moves += u64::from(transaction.stripes.iter().any(|update| update.moved != 0));
            self.writes.push(LoggedWrite {
                process,
                applied: self.now,
                settled: None,
                taken: sum(|take, _| take),
                given: sum(|_, give| give),
            });
        }
        let takes = (self.now - sent) / 4;
        self.plan(takes, CheckStep::Settled { process, lane, outcome, write });
    }

    fn answered(&mut self, call: CallId, answer: &Answer) {
        let release = self.called.remove(&call).unwrap();
        match answer {
            Answer::Held { .. } => {
                let (process, reservation, qty) = release.unwrap();
                let after = self.rng.random_range(0..60 * MS);
                self.plan(after, CheckStep::Releases(process, reservation, qty));
            }
            Answer::Rejected(Rejection::InsufficientInventory { .. }) => self.sold_out += 1,
            Answer::Confirmed { .. } | Answer::Released { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn checked(&mut self, call: CallId, result: QueryResult) {
        let (process, asked, qty) = self.asked.remove(&call).unwrap();
        let QueryResult::Units { remaining, available } = result else {
            panic!("{result:?}");
        };
        let answered = self.now;
        self.checks.push(LoggedCheck { process, asked, answered, qty, remaining, available });
    }

    /// The bounds of a check.
    ///
    /// 1. The read behind the answer began at most the maximum age before the check was asked. So it contains every write
    ///    that was applied before that, and no write that was applied after the answer.
    /// 2. A write of the same process that had settled when the check was asked is included, whatever the read contains.
    /// 3. Units that the process has taken with a transaction that overlaps the read may count twice, and units that it has
    ///    returned with one may not count yet: the answer must not show a unit that was sold.
    fn bounds(&self, check: &LoggedCheck) -> Bounds {
        let oldest = check.asked.saturating_sub(AGE_MAX);
        let mut bounds = Bounds { least: self.stock, most: self.stock, actual: self.stock };
        for write in self.writes.iter().filter(|write| write.applied <= check.answered) {
            let (taken, given) = (write.taken as i64, write.given as i64);
            let settled = write.settled.filter(|_| write.process == check.process);
            let is_read = write.applied < oldest;
            let is_known = is_read || settled.is_some_and(|settled| settled < check.asked);
            let is_in_doubt = settled.is_some_and(|at| (oldest..=check.answered).contains(&at));
            bounds.actual += given - taken;
            bounds.most += given - if is_known { taken } else { 0 };
            bounds.least -= taken + if is_in_doubt { taken } else { 0 };
            bounds.least += if is_read && !is_in_doubt { given } else { 0 };
        }
        bounds
    }
}

#[test]
fn a_check_is_wrong_by_at_most_what_other_processes_changed_within_the_age_of_the_snapshot() {
    let mut has_moves = false;
    // Much stock, and a process that sells nothing, so that no write discards its old snapshot. And a sale that ends, in
    // which the first process gets most of the calls and moves units to its stripes.
    for (stripes, rates) in [([3_000; 6], [700, 700, 0]), ([300; 6], [1_400, 200, 200])] {
        for seed in 0..3 {
            let sale = CheckedSale::new(&stripes, seed).run(rates);
            has_moves |= sale.moves > 0;
            let (mut too_high, mut too_low, mut exact) = (0, 0, 0);
            for check in &sale.checks {
                let bounds = sale.bounds(check);
                let remaining = check.remaining as i64;
                assert!(
                    (bounds.least..=bounds.most).contains(&remaining),
                    "{check:?} is not within {bounds:?}, seed {seed}"
                );
                assert_eq!(check.available, check.remaining >= check.qty.into(), "{check:?}");
                too_high = too_high.max(remaining - bounds.actual);
                too_low = too_low.max(bounds.actual - remaining);
                exact += u64::from(remaining == bounds.actual);
            }
            println!(
                "{stripes:?}, calls/s {rates:?}: {} checks, {exact} exact, at most {too_high} too high, {too_low} too low; \
                 {} moves, {} calls sold out",
                sale.checks.len(),
                sale.moves,
                sale.sold_out,
            );
            let from_snapshots =
                sale.engines.iter().map(|engine| engine.counters().snapshot_answers);
            assert!(from_snapshots.sum::<u64>() as usize > sale.checks.len() / 2);
            // The snapshots of the other processes' sales are old, so a check that is never wrong proves nothing.
            assert!(too_high > 0 && too_low > 0);
            assert_eq!(sale.sold_out > 0, stripes[0] < 1_000);
        }
    }
    assert!(has_moves);
}

/// A shard that is asked right after the answer to its own call includes it, although its snapshot is older.
#[test]
fn the_own_writes_of_a_shard_are_in_its_next_check() {
    let mut sale = CheckedSale::new(&[1_000; 3], 1).run([0, 0, 0]);
    assert_eq!(sale.checks.last().unwrap().remaining as i64, sale.stock);
    let before = sale.engines[0].counters().snapshot_answers;
    for sold in 1..=20 {
        let reservation: ReservationId = format!("own-{sold}").parse().unwrap();
        let operation = sale.operation(Verb::Commit, reservation, 2);
        sale.call(0, operation, None);
        sale.execute(0);
        sale.run_while(|sale| !sale.called.is_empty());
        let checks = sale.checks.len();
        sale.plan(1, CheckStep::Asks(0));
        sale.run_while(|sale| sale.checks.len() == checks);
        let check = sale.checks.last().unwrap();
        let bounds = sale.bounds(check);
        assert_eq!((bounds.actual, bounds.most), (sale.stock - 2 * sold, bounds.actual));
        assert!(
            (bounds.least..=bounds.most).contains(&(check.remaining as i64)),
            "{check:?} {bounds:?}"
        );
    }
    let from_snapshots = sale.engines[0].counters().snapshot_answers - before;
    assert!(from_snapshots >= 10, "{from_snapshots} of 20 checks are answered from snapshots");
}
