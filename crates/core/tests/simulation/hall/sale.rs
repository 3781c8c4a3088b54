//! A sale of a hall in virtual time: the processes, the store, and what is counted.

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
    ActionOutcome, FreeSeatsRead, RecordsRead, Transaction, TransactionOutcome,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::server::{
    CpuCosts, PageArrival, PagedReads, ReadPlan, ReadResult, SharedCpu, page_latency,
};
use crate::model::{Store, TOKEN_MEMORY};
use crate::scenario::event;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;

/// How long callers wait.
const PATIENCE: u64 = 10 * SECOND;

#[derive(Debug)]
enum HallStep {
    Call(usize),
    /// CPU time for the step was spent.
    Runs(Box<HallStep>),
    /// The engine of the process gets the call.
    Called {
        process: usize,
        call: u64,
    },
    Wakes(usize),
    Locks {
        process: usize,
        lane: LaneId,
        transaction: Rc<Transaction>,
        latency: u64,
    },
    Applies {
        process: usize,
        lane: LaneId,
        transaction: Rc<Transaction>,
        latency: u64,
    },
    Settled(usize, LaneId, TransactionOutcome),
    /// A page of a read of the seats.
    Page(u64),
    RecordsRead(usize, RecordReadId, RecordsRead),
}

/// The sizes of a hall, and how it is sold.
#[derive(Clone, Copy, Debug)]
pub(super) struct HallPlan {
    pub(super) sections: usize,
    /// Rows of a section.
    pub(super) rows: usize,
    /// Seats of a row.
    pub(super) seats: usize,
    /// Calls per second over all processes.
    pub(super) rate: u64,
    /// Most seats of a call.
    pub(super) qty_max: u32,
    pub(super) reads: ReadPlan,
    pub(super) cpu: CpuCosts,
    /// Only the first process has a seat map when the sale begins.
    pub(super) is_cold: bool,
    /// Of so many calls the first process gets all but one for each other process; `None`: all get the same.
    pub(super) first_gets: Option<u32>,
}

impl HallPlan {
    pub(super) const fn total(self) -> usize {
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
pub(super) struct HallReport {
    pub(super) sold: usize,
    pub(super) refused: usize,
    pub(super) failed: usize,
    pub(super) transactions: u64,
    /// Transactions that were cancelled.
    pub(super) cancelled: u64,
    pub(super) units: u64,
    pub(super) wasted: u64,
    /// Reads of all seats, and of the free ones.
    pub(super) seat_reads: u64,
    pub(super) free_reads: u64,
    /// Parties of two and more, and those that do not sit side by side.
    pub(super) parties: usize,
    pub(super) parties_apart: usize,
    /// Mean row of the first quarter of the sold seats, as a share of the rows: less is nearer to the front.
    pub(super) front: f64,
    /// Single free seats between sold ones when half of the hall was sold, in hundredths of all seats.
    pub(super) singles: f64,
    /// Wasted write units while the first 50, 90, 98 and 100 % of the seats were sold.
    pub(super) wasted_by: [u64; 4],
    /// Time from the call to the answer of sales, at the 95th percentile, in milliseconds; the same of those sales that
    /// were called in the first and last tenth.
    pub(super) p95_ms: f64,
    pub(super) first_p95_ms: f64,
    pub(super) last_p95_ms: f64,
    /// Time from the call to the answer of rejections, at the 95th percentile, in milliseconds.
    pub(super) refused_p95_ms: f64,
    /// CPU time for each reservation, in microseconds.
    pub(super) cpu_us: f64,
    /// From the first call to the last sale, in seconds.
    pub(super) sale_s: f64,
}

impl HallReport {
    pub(super) fn wasted_percent(&self) -> f64 {
        100.0 * self.wasted as f64 / self.units as f64
    }

    pub(super) fn cancelled_percent(&self) -> f64 {
        100.0 * self.cancelled as f64 / self.transactions as f64
    }
}

pub(super) struct Hall {
    plan: HallPlan,
    event: EventId,
    store: Store,
    engines: Vec<Engine>,
    cpu: SharedCpu,
    reads: PagedReads,
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
    /// When calls that got seats came, and how long they took.
    latencies: Vec<(u64, u64)>,
    refused: Vec<u64>,
    began: Option<u64>,
    last_sale: u64,
    singles_at_half: Option<f64>,
    report: HallReport,
}

impl Hall {
    /// `members`: the members by the view of each process, by id from 1.
    pub(super) fn new(plan: HallPlan, seed: u64, members: &[Vec<u64>]) -> Self {
        let event = event(0);
        let mut store = Store::new(TOKEN_MEMORY);
        store.create_seated(&event, plan.reads.keys as u16, plan.items());
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
            cpu: SharedCpu::default(),
            reads: PagedReads::default(),
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
            refused: Vec::new(),
            began: None,
            last_sale: 0,
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
    pub(super) fn sell(mut self, calls: u64) -> HallReport {
        let mut at = self.now;
        let processes = self.engines.len();
        // Each of them comes alone, so that the process has a seat map when the sale begins.
        let alone = if self.plan.is_cold { 1 } else { processes };
        for n in 0..calls {
            let first = (n as usize) < alone;
            let mean = if first { SECOND / 2 } else { SECOND / self.plan.rate };
            at += self.rng.random_range(0..=2 * mean);
            if n as usize == alone {
                at += SECOND;
                self.began = Some(at);
            }
            let process = match (first, self.plan.first_gets) {
                (true, _) => n as usize,
                (false, None) => self.rng.random_range(0..processes),
                (false, Some(all)) => match self.rng.random_range(0..all as usize) {
                    other if other < processes => other,
                    _ => 0,
                },
            };
            self.plan_step(at, HallStep::Call(process));
        }
        while let Some(((at, _), step)) = self.agenda.pop_first() {
            self.now = at;
            self.take_step(step);
        }
        assert!(self.called.is_empty(), "{} calls are not answered", self.called.len());
        self.finish()
    }

    /// Runs the step, after the CPU time that it needs.
    fn take_step(&mut self, step: HallStep) {
        let costs = self.plan.cpu;
        let cost = match &step {
            HallStep::Runs(_) => {
                let HallStep::Runs(step) = step else { return };
                return self.run_step(*step);
            }
            HallStep::Call(process) => {
                let call = self.call();
                let process = *process;
                let at = self.cpu.spend(self.now, costs.call);
                return self.plan_step(at, HallStep::Called { process, call });
            }
            // On the CPU of the store.
            HallStep::Locks { .. } | HallStep::Applies { .. } => 0,
            HallStep::Called { .. } | HallStep::Wakes(_) => 0,
            HallStep::Settled(_, _, outcome) => {
                let actions = match outcome {
                    TransactionOutcome::Cancelled(actions) => actions.len() as u64,
                    _ => 0,
                };
                costs.transaction / 2 + actions * costs.action
            }
            HallStep::Page(read) => {
                if self.reads.comes_half(*read) {
                    self.read_store(*read);
                }
                let one = self.reads.get(*read);
                let returned = match &one.found {
                    Some(ReadResult::Free(FreeSeatsRead::Found(free))) => free.len(),
                    _ if one.is_free => 0,
                    _ => self.plan.total(),
                };
                let seats = one.seats_of_page(returned) as u64;
                costs.request + costs.thousand_seats * seats / 1_000
            }
            HallStep::RecordsRead(..) => costs.request,
        };
        match cost {
            0 => self.run_step(step),
            cost => {
                let at = self.cpu.spend(self.now, cost);
                self.plan_step(at, HallStep::Runs(Box::new(step)));
            }
        }
    }

    fn run_step(&mut self, step: HallStep) {
        let now = self.clock();
        let process = match step {
            HallStep::Call(process) => process,
            HallStep::Runs(step) => return self.run_step(*step),
            HallStep::Called { process, call } => {
                self.submit(process, call);
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
            HallStep::Page(read) => match self.reads.arrive(read) {
                PageArrival::Wait => return,
                PageArrival::Next => return self.request_page(read),
                PageArrival::Done(read) => {
                    let event = self.event.clone();
                    let engine = &mut self.engines[read.process];
                    match read.found.expect("half of the pages have arrived") {
                        ReadResult::All(seats) => engine.handle_seats_read(&event, seats, now),
                        ReadResult::Free(free) => engine.handle_free_seats_read(&event, free, now),
                    }
                    read.process
                }
            },
            HallStep::RecordsRead(process, id, read) => {
                self.engines[process].handle_records_read(id, &read, now);
                process
            }
        };
        self.execute(process);
    }

    fn call(&mut self) -> u64 {
        self.calls += 1;
        let qty = self.rng.random_range(1..=self.plan.qty_max);
        self.called.insert(CallId(self.calls), (self.now, qty));
        self.calls
    }

    fn submit(&mut self, process: usize, call: u64) {
        let (at, qty) = self.called[&CallId(call)];
        let reservation: ReservationId = format!("r-{call}").parse().unwrap();
        let mut operation = Operation::new(
            Verb::Hold,
            reservation.clone(),
            self.event.clone(),
            Selection::Quantity(qty),
            Micros(at + PATIENCE),
        );
        operation.hold_until = Some(UnixMillis(self.now / MS + 600_000));
        self.reservations.insert(CallId(call), reservation);
        let now = self.clock();
        self.engines[process].handle_call(CallId(call), operation, now);
    }

    fn begin_read(&mut self, process: usize, is_free: bool) {
        let plan = self.plan.reads;
        let (read, at_once) = self.reads.begin(process, is_free, self.plan.total(), plan);
        (0..at_once).for_each(|_| self.request_page(read));
    }

    fn request_page(&mut self, read: u64) {
        let at = self.now + page_latency(&mut self.rng);
        self.plan_step(at, HallStep::Page(read));
    }

    fn read_store(&mut self, read: u64) {
        let found = match self.reads.get(read).is_free {
            true => {
                let free = self.store.read_free_seats(&self.event, self.clock().unix);
                ReadResult::Free(FreeSeatsRead::Found(free))
            }
            false => ReadResult::All(self.store.read_seats(&self.event)),
        };
        self.reads.get(read).found = Some(found);
    }

    fn execute(&mut self, process: usize) {
        while let Some(effect) = self.engines[process].poll_effect() {
            let now = self.clock();
            match effect {
                Effect::Answer { call, answer, .. } => self.answered(call, &answer),
                Effect::Transact { lane, transaction, .. } => {
                    let actions = actions(&transaction);
                    let costs = self.plan.cpu;
                    let cost = costs.transaction / 2 + actions as u64 * costs.action;
                    let sent = self.cpu.spend(self.now, cost);
                    let median = 13 * MS + actions as u64 * 150;
                    let latency = median * self.rng.random_range(80..140) / 100;
                    self.report.transactions += 1;
                    let at = sent + latency / 10;
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
                Effect::ReadSeats { .. } => {
                    self.report.seat_reads += 1;
                    self.begin_read(process, false);
                }
                Effect::ReadFreeSeats { .. } => {
                    self.report.free_reads += 1;
                    self.begin_read(process, true);
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
                if self.began.is_none_or(|began| at >= began) {
                    self.latencies.push((at, self.now - at));
                }
                self.last_sale = self.now;
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
                self.refused.push(self.now - at);
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
        let all = self.latencies.iter().map(|(_, took)| *took);
        self.report.p95_ms = p95_ms(all);
        let tenth = self.latencies.len() / 10;
        self.report.first_p95_ms = p95_ms(self.latencies[..tenth].iter().map(|(_, took)| *took));
        let last = &self.latencies[self.latencies.len() - tenth..];
        self.report.last_p95_ms = p95_ms(last.iter().map(|(_, took)| *took));
        self.report.refused_p95_ms = p95_ms(self.refused.iter().copied());
        self.report.cpu_us = self.cpu.used as f64 / self.parties.len().max(1) as f64;
        let began = self.began.unwrap_or_default();
        self.report.sale_s = self.last_sale.saturating_sub(began) as f64 / SECOND as f64;
        self.report
    }
}

fn p95_ms(times: impl Iterator<Item = u64>) -> f64 {
    let mut times: Vec<u64> = times.collect();
    times.sort_unstable();
    let p95 = times.get(times.len() * 95 / 100).copied();
    p95.unwrap_or_default() as f64 / MS as f64
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
