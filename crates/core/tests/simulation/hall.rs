//! Several processes that sell the best available seats of one hall, in virtual time: how often their writes collide, what
//! that costs, and which seats are sold.
//!
//! Each process has an engine of one shard and a view of the members. The store locks the items of a transaction from a
//! tenth of its latency until it is applied, as the store model of the benchmarks does.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use inventory_core::answer::{Answer, Rejection};
use inventory_core::effect::{CallId, Effect, LaneId, RecordReadId};
use inventory_core::engine::{Engine, EngineSettings};
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_core::membership::{Member, Members, ProcessId};
use inventory_core::operation::{Operation, Selection, Verb};
use inventory_core::rules::LateCommit;
use inventory_core::seats::{SeatFacts, SeatItem, SeatState};
use inventory_core::time::{Micros, Now, UnixMillis};
use inventory_core::transaction::{
    ActionOutcome, FreeSeatsRead, RecordsRead, SeatsRead, Transaction, TransactionOutcome,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::model::{Store, TOKEN_MEMORY};
use super::scenario::event;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;

/// Time of a read of all seats, for each thousand of them.
const READ_PER_THOUSAND: u64 = 3 * MS;

/// How long callers wait.
const PATIENCE: u64 = 10 * SECOND;

#[derive(Debug)]
enum HallStep {
    Call(usize),
    Wakes(usize),
    Locks { process: usize, lane: LaneId, transaction: Rc<Transaction>, latency: u64 },
    Applies { process: usize, lane: LaneId, transaction: Rc<Transaction>, latency: u64 },
    Settled(usize, LaneId, TransactionOutcome),
    SeatsRead(usize, SeatsRead),
    FreeSeatsRead(usize, FreeSeatsRead),
    RecordsRead(usize, RecordReadId, RecordsRead),
}

/// The sizes of a hall.
#[derive(Clone, Copy, Debug)]
struct HallPlan {
    sections: usize,
    /// Rows of a section.
    rows: usize,
    /// Seats of a row.
    seats: usize,
    /// Calls per second over all processes.
    rate: u64,
    /// Most seats of a call.
    qty_max: u32,
}

impl HallPlan {
    const fn total(self) -> usize {
        self.sections * self.rows * self.seats
    }

    fn items(self) -> Vec<SeatItem> {
        let mut items = Vec::with_capacity(self.total());
        for section in 0..self.sections {
            for row in 0..self.rows {
                for number in 0..self.seats {
                    items.push(SeatItem {
                        id: format!("{section}.{row}.{number}").parse().unwrap(),
                        facts: SeatFacts {
                            section: format!("section {section}"),
                            row: format!("{}", row + 1),
                            number: format!("{}", number + 1),
                            price: None,
                        },
                        state: SeatState::Available,
                    });
                }
            }
        }
        items
    }
}

/// Section, row and number of a seat, from 0.
fn place(seat: &SeatId) -> (usize, usize, usize) {
    let mut parts = seat.as_str().split('.').map(|part| part.parse().unwrap());
    let mut next = || parts.next().unwrap();
    (next(), next(), next())
}

/// What a sale has cost, and which seats it has sold.
#[derive(Debug, Default)]
struct HallReport {
    sold: usize,
    refused: usize,
    failed: usize,
    transactions: u64,
    /// Transactions that were cancelled.
    cancelled: u64,
    units: u64,
    wasted: u64,
    seat_reads: u64,
    /// Parties of two and more, and those that do not sit side by side.
    parties: usize,
    parties_apart: usize,
    /// Mean row of the first quarter of the sold seats, as a share of the rows: less is nearer to the front.
    front: f64,
    /// Single free seats between sold ones when half of the hall was sold, in hundredths of all seats.
    singles: f64,
    /// Wasted write units while the first 50, 90, 98 and 100 % of the seats were sold.
    wasted_by: [u64; 4],
    /// Time from the call to the answer of sales, at the 95th percentile, in milliseconds.
    p95_ms: f64,
}

impl HallReport {
    fn wasted_percent(&self) -> f64 {
        100.0 * self.wasted as f64 / self.units as f64
    }

    fn cancelled_percent(&self) -> f64 {
        100.0 * self.cancelled as f64 / self.transactions as f64
    }
}

struct Hall {
    plan: HallPlan,
    event: EventId,
    store: Store,
    engines: Vec<Engine>,
    /// Processes that get calls.
    open: Vec<usize>,
    wakes: Vec<Option<u64>>,
    agenda: BTreeMap<(u64, u64), HallStep>,
    made: u64,
    now: u64,
    rng: SmallRng,
    /// Items of transactions between their lock and their end.
    locked: BTreeSet<SeatId>,
    calls: u64,
    called: HashMap<CallId, (u64, u32)>,
    /// Sold seats by call, in order of the answers.
    parties: Vec<Vec<SeatId>>,
    reservations: HashMap<CallId, ReservationId>,
    latencies: Vec<u64>,
    singles_at_half: Option<f64>,
    report: HallReport,
}

impl Hall {
    /// `members`: the members by the view of each process, by id from 1.
    fn new(plan: HallPlan, seed: u64, members: &[Vec<u64>]) -> Self {
        let event = event(0);
        let mut store = Store::new(TOKEN_MEMORY);
        store.create_seated(&event, 20, plan.items());
        let engine = |process: usize| {
            let settings = EngineSettings {
                shard: 0,
                shards: 1,
                cache_capacity: 100,
                cache_for: Micros(SECOND),
                late_commit: LateCommit::Reacquire,
                sold_out_latch: Micros(0),
                read_staleness: Micros(50 * MS),
                attempt_timeout: Micros(SECOND),
            };
            let rng = SmallRng::seed_from_u64(seed << 8 | process as u64);
            let mut engine = Engine::new(settings, rng);
            let member = |id: u64| Member { id: ProcessId(id), shards: 1 };
            let own = member(process as u64 + 1);
            let others = members[process].iter().map(|id| member(*id));
            let now = Now { mono: Micros(SECOND), unix: UnixMillis(1_000) };
            engine.handle_membership(Rc::new(Members::new(own, others)), now);
            engine
        };
        let processes = members.len();
        Self {
            plan,
            event,
            store,
            engines: (0..processes).map(engine).collect(),
            open: (0..processes).collect(),
            wakes: vec![None; processes],
            agenda: BTreeMap::new(),
            made: 0,
            now: SECOND,
            rng: SmallRng::seed_from_u64(seed ^ 0x4a11),
            locked: BTreeSet::new(),
            calls: 0,
            called: HashMap::new(),
            parties: Vec::new(),
            reservations: HashMap::new(),
            latencies: Vec::new(),
            singles_at_half: None,
            report: HallReport::default(),
        }
    }

    fn clock(&self) -> Now {
        Now { mono: Micros(self.now), unix: UnixMillis(self.now / MS) }
    }

    fn plan_step(&mut self, at: u64, step: HallStep) {
        self.made += 1;
        self.agenda.insert((at, self.made), step);
    }

    /// Sells until `calls` calls are answered.
    fn sell(mut self, calls: u64) -> HallReport {
        let mut at = self.now;
        for n in 0..calls {
            // The first call of each process comes alone, so that it has a seat map when the sale begins.
            let first = (n as usize) < self.open.len();
            let mean = if first { SECOND / 2 } else { SECOND / self.plan.rate };
            at += self.rng.random_range(0..=2 * mean);
            let open = match first {
                true => n as usize,
                false => self.rng.random_range(0..self.open.len()),
            };
            self.plan_step(at, HallStep::Call(self.open[open]));
        }
        while let Some(((at, _), step)) = self.agenda.pop_first() {
            self.now = at;
            self.run_step(step);
        }
        assert!(self.called.is_empty(), "{} calls are not answered", self.called.len());
        self.finish()
    }

    fn run_step(&mut self, step: HallStep) {
        let now = self.clock();
        let process = match step {
            HallStep::Call(process) => {
                self.call(process);
                process
            }
            HallStep::Wakes(process) => {
                self.wakes[process] = None;
                self.engines[process].handle_timeout(now);
                process
            }
            HallStep::Locks { process, lane, transaction, latency } => {
                self.lock(process, lane, transaction, latency);
                return;
            }
            HallStep::Applies { process, lane, transaction, latency } => {
                self.apply(process, lane, &transaction, latency);
                return;
            }
            HallStep::Settled(process, lane, outcome) => {
                self.engines[process].handle_transaction_outcome(lane, outcome, now);
                process
            }
            HallStep::SeatsRead(process, read) => {
                let event = self.event.clone();
                self.engines[process].handle_seats_read(&event, read, now);
                process
            }
            HallStep::FreeSeatsRead(process, read) => {
                let event = self.event.clone();
                self.engines[process].handle_free_seats_read(&event, read, now);
                process
            }
            HallStep::RecordsRead(process, id, read) => {
                self.engines[process].handle_records_read(id, &read, now);
                process
            }
        };
        self.execute(process);
    }

    fn call(&mut self, process: usize) {
        self.calls += 1;
        let call = CallId(self.calls);
        let reservation: ReservationId = format!("r-{}", self.calls).parse().unwrap();
        let qty = self.rng.random_range(1..=self.plan.qty_max);
        let selection = Selection::Quantity(qty);
        let deadline = Micros(self.now + PATIENCE);
        let mut operation = Operation::new(
            Verb::Hold,
            reservation.clone(),
            self.event.clone(),
            selection,
            deadline,
        );
        operation.hold_until = Some(UnixMillis(self.now / MS + 600_000));
        self.called.insert(call, (self.now, qty));
        self.reservations.insert(call, reservation);
        let now = self.clock();
        self.engines[process].handle_call(call, operation, now);
    }

    fn execute(&mut self, process: usize) {
        while let Some(effect) = self.engines[process].poll_effect() {
            let now = self.clock();
            match effect {
                Effect::Answer { call, answer, .. } => self.answered(call, &answer),
                Effect::Transact { lane, transaction, .. } => {
                    let actions = actions(&transaction);
                    let median = 13 * MS + actions as u64 * 150;
                    let latency = median * self.rng.random_range(80..140) / 100;
                    self.report.transactions += 1;
                    let at = self.now + latency / 10;
                    self.plan_step(at, HallStep::Locks { process, lane, transaction, latency });
                }
                Effect::ReadStripes { event, .. } => {
                    let read = self.store.read(&event, false);
                    self.engines[process].handle_stripes_read(&event, &read, now);
                }
                Effect::ReadRecords { read, reservations } => {
                    let found = reservations.iter().map(|id| self.store.read_record(id));
                    let found = RecordsRead::Found(found.collect());
                    let at = self.now + 4 * MS;
                    self.plan_step(at, HallStep::RecordsRead(process, read, found));
                }
                Effect::ReadSeats { event, .. } => {
                    self.report.seat_reads += 1;
                    let read = self.store.read_seats(&event);
                    let takes = READ_PER_THOUSAND * self.plan.total() as u64 / 1_000 + 3 * MS;
                    self.plan_step(self.now + takes, HallStep::SeatsRead(process, read));
                }
                Effect::ReadFreeSeats { event, at, .. } => {
                    let free = FreeSeatsRead::Found(self.store.read_free_seats(&event, at));
                    self.plan_step(self.now + 8 * MS, HallStep::FreeSeatsRead(process, free));
                }
                other => panic!("one shard does not need {other:?}"),
            }
        }
        if let Some(due) = self.engines[process].poll_timeout() {
            let due = due.0.max(self.now + 1);
            if self.wakes[process].is_none_or(|at| due < at) {
                self.wakes[process] = Some(due);
                self.plan_step(due, HallStep::Wakes(process));
            }
        }
    }

    /// The transaction locks its seats, or meets a lock.
    fn lock(&mut self, process: usize, lane: LaneId, transaction: Rc<Transaction>, latency: u64) {
        let units = units(&transaction);
        self.report.units += units;
        let end = self.now + latency * 9 / 10;
        let has_conflict = seats(&transaction).any(|seat| self.locked.contains(seat));
        if has_conflict {
            self.report.cancelled += 1;
            self.waste(units);
            let records = transaction.records.len() + transaction.stripes.len();
            let of_seats = seats(&transaction).map(|seat| match self.locked.contains(seat) {
                true => ActionOutcome::Conflict,
                false => ActionOutcome::Fine,
            });
            let outcomes = std::iter::repeat_n(ActionOutcome::Fine, records).chain(of_seats);
            let outcome = TransactionOutcome::Cancelled(outcomes.collect());
            self.plan_step(end, HallStep::Settled(process, lane, outcome));
            return;
        }
        self.locked.extend(seats(&transaction).cloned());
        let at = self.now + latency * 3 / 4;
        self.plan_step(at, HallStep::Applies { process, lane, transaction, latency });
    }

    fn apply(&mut self, process: usize, lane: LaneId, transaction: &Rc<Transaction>, latency: u64) {
        for seat in seats(transaction) {
            self.locked.remove(seat);
        }
        let outcome = self.store.apply(transaction, Micros(self.now), |_| None).unwrap();
        if outcome != TransactionOutcome::Committed {
            self.report.cancelled += 1;
            self.waste(units(transaction));
        }
        let at = self.now + latency * 3 / 20;
        self.plan_step(at, HallStep::Settled(process, lane, outcome));
    }

    fn waste(&mut self, units: u64) {
        let percent = 100 * self.report.sold / self.plan.total();
        let phase = [50, 90, 98].iter().filter(|end| percent >= **end).count();
        self.report.wasted_by[phase] += units;
        self.report.wasted += units;
    }

    fn answered(&mut self, call: CallId, answer: &Answer) {
        let (at, qty) = self.called.remove(&call).unwrap();
        let reservation = self.reservations.remove(&call).unwrap();
        match answer {
            Answer::Held { .. } => {
                self.latencies.push(self.now - at);
                let record = self.store.record(&reservation).unwrap();
                let seats = record.view.seats.as_deref().unwrap_or_default().to_vec();
                assert_eq!(seats.len(), qty as usize);
                self.report.sold += seats.len();
                self.parties.push(seats);
                if self.singles_at_half.is_none() && 2 * self.report.sold >= self.plan.total() {
                    self.singles_at_half = Some(self.singles());
                }
            }
            Answer::Rejected(Rejection::InsufficientInventory { .. }) => {
                self.report.refused += 1;
                let free = self.store.read_free_seats(&self.event, self.clock().unix).len();
                assert!(free < qty as usize, "sold out of {qty}, but {free} seats are free");
            }
            _ => self.report.failed += 1,
        }
    }

    /// Free seats whose neighbours are taken, in hundredths of all seats.
    fn singles(&self) -> f64 {
        let free = self.store.read_free_seats(&self.event, self.clock().unix);
        let free: BTreeSet<_> = free.iter().map(|(seat, _)| place(seat)).collect();
        let is_single = |(section, row, number): &&(usize, usize, usize)| {
            let is_free = |number| free.contains(&(*section, *row, number));
            !is_free(number + 1) && !number.checked_sub(1).is_some_and(is_free)
        };
        let singles = free.iter().filter(is_single).count();
        100.0 * singles as f64 / self.plan.total() as f64
    }

    fn finish(mut self) -> HallReport {
        for party in self.parties.iter().filter(|party| party.len() > 1) {
            let mut places: Vec<_> = party.iter().map(place).collect();
            places.sort_unstable();
            let is_next = |pair: &[(usize, usize, usize)]| {
                pair[0].0 == pair[1].0 && pair[0].1 == pair[1].1 && pair[0].2 + 1 == pair[1].2
            };
            self.report.parties += 1;
            self.report.parties_apart += usize::from(!places.windows(2).all(is_next));
        }
        let quarter = self.parties.iter().flatten().take(self.plan.total() / 4);
        let rows: Vec<f64> = quarter.map(|seat| place(seat).1 as f64).collect();
        let mean = rows.iter().sum::<f64>() / rows.len().max(1) as f64;
        self.report.front = mean / self.plan.rows as f64;
        self.report.singles = self.singles_at_half.unwrap_or(f64::NAN);
        self.latencies.sort_unstable();
        let p95 = self.latencies.get(self.latencies.len() * 95 / 100).copied();
        self.report.p95_ms = p95.unwrap_or_default() as f64 / MS as f64;
        self.report
    }
}

fn seats(transaction: &Transaction) -> impl Iterator<Item = &SeatId> {
    transaction.records.iter().flat_map(|record| record.seats.as_deref().unwrap_or_default())
}

fn actions(transaction: &Transaction) -> usize {
    transaction.records.len() + transaction.stripes.len() + seats(transaction).count()
}

/// Write units: two for each action, and one for the index entry of each hold.
fn units(transaction: &Transaction) -> u64 {
    (2 * actions(transaction) + transaction.records.len()) as u64
}

/// Each of `processes` processes knows all of them.
fn all_know_all(processes: u64) -> Vec<Vec<u64>> {
    (0..processes).map(|_| (1..=processes).collect()).collect()
}

/// Each of `processes` processes believes to be alone.
fn nobody_knows_others(processes: u64) -> Vec<Vec<u64>> {
    (1..=processes).map(|id| vec![id]).collect()
}

fn print(what: &str, report: &HallReport) {
    println!(
        "{what:>34}: {:>6} sold, {:>5} refused, cancelled {:>6.2} %, wasted {:>6.2} %, {:>3} seat reads, p95 {:>6.1} ms, \
         apart {} of {}, front {:.3}, singles {:.2} %, wasted by {:?}",
        report.sold,
        report.refused,
        report.cancelled_percent(),
        report.wasted_percent(),
        report.seat_reads,
        report.p95_ms,
        report.parties_apart,
        report.parties,
        report.front,
        report.singles,
        report.wasted_by,
    );
}

/// The hall of the benchmark.
const LARGE: HallPlan = HallPlan { sections: 20, rows: 40, seats: 25, rate: 5_000, qty_max: 1 };

/// One process, and four that know each other or not. Prints all three; returns the last two.
fn compare(name: &str, plan: HallPlan) -> (HallReport, HallReport) {
    let mean = 1.0 + f64::from(plan.qty_max - 1) / 2.0;
    let calls = (plan.total() as f64 / mean * 1.2) as u64;
    println!("{name}");
    let one = Hall::new(plan, 1, &all_know_all(1)).sell(calls);
    print("1 process", &one);
    let before = Hall::new(plan, 1, &nobody_knows_others(4)).sell(calls);
    print("4 processes, unknown to each other", &before);
    let after = Hall::new(plan, 1, &all_know_all(4)).sell(calls);
    print("4 processes", &after);
    assert_eq!((one.sold, one.failed), (plan.total(), 0));
    assert_eq!((after.sold, after.failed), (plan.total(), 0));
    (before, after)
}

#[test]
fn processes_that_know_each_other_rarely_choose_the_same_seats() {
    let plan = HallPlan { sections: 4, rows: 20, rate: 1_000, ..LARGE };
    let (before, after) = compare("2,000 seats, one each", plan);
    assert!(
        after.wasted_percent() < 10.0 && before.wasted_percent() > 20.0,
        "{before:?} {after:?}"
    );
    // Until the last seats nothing collides, and the choice is as good as that of one process.
    assert!(after.wasted_by[0] + after.wasted_by[1] == 0, "{after:?}");
    assert!(after.front < 0.5 && after.singles < 0.1, "{after:?}");
}

#[test]
fn parties_sit_side_by_side_however_many_processes_choose() {
    let plan = HallPlan { sections: 4, rows: 20, qty_max: 4, rate: 500, ..LARGE };
    let (_, after) = compare("2,000 seats, up to 4", plan);
    assert!(after.parties_apart * 50 <= after.parties, "{after:?}");
}

/// Members that do not exist prefer half of the hall, and the calls reach one process only: every seat is sold.
#[test]
fn seats_that_other_members_prefer_are_sold_by_any_process() {
    let plan = HallPlan { sections: 2, rows: 10, qty_max: 4, rate: 500, ..LARGE };
    for views in
        [vec![vec![1, 2, 100, 101]], vec![vec![2, 3], vec![1, 100], vec![3, 4, 5, 6, 7, 8]]]
    {
        let report = Hall::new(plan, 3, &views).sell(400);
        print("members that do not exist", &report);
        assert_eq!((report.sold, report.failed), (plan.total(), 0));
    }
}

/// As in the benchmark.
#[test]
#[ignore = "takes a minute in release builds"]
fn large_hall() {
    compare("20,000 seats, one each", LARGE);
    compare("20,000 seats, up to 4", HallPlan { qty_max: 4, rate: 2_500, ..LARGE });
}
