//! The model itself, without sockets, clocks or threads: requests come in with the time, answers go out
//! when they are due. Chance comes from a seed.
//!
//! When things happen, as parts of a call's latency, which is drawn when it arrives:
//!
//! | call | at | what |
//! |---|---|---|
//! | read, plain write | 50 % | carried out: that is its instant |
//! | TransactWriteItems | 10 % | its items are locked, its conditions judged, its capacity taken; if anything is against it, it ends here, and its answer comes with the full latency |
//! | | 85 % | all of it is applied at once, and its items are unlocked: that is its instant |
//! | TransactGetItems | 10 % | its items are looked at |
//! | | 85 % | read at one instant; cancelled if one was locked at either look, or changed in between |
//! | any | 100 % | answered |
//!
//! Every instant lies between the arrival and the answer, and events are carried out in the order of
//! their times: the store is linearizable, as DynamoDB is for strong reads. What is locked, is locked for
//! 75 % of a transaction's latency: another transaction that meets it is cancelled with
//! TransactionConflict, a plain write fails with TransactionConflictException, plain reads see what was
//! there before. Kinder than DynamoDB: other readers never see a transaction half applied, an index
//! follows its table at once, and eventually consistent reads are strong.
//!
//! Must not live here: HTTP.

mod answers;
mod reads;
mod report;
mod writes;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value as Json;
use slab::Slab;

use crate::Micros;
use crate::capacity::Units;
use crate::error::{Code, Error};
use crate::expr::Cache;
use crate::faults::{self, Drawn, Fault, FaultKind};
use crate::latency::{Profile, Shape};
use crate::limits;
use crate::op::Op;
use crate::request::{Body, Parse, Request};
use crate::store::{Defaults, Tables};
use crate::tokens::Tokens;
use reads::Snapshot;
use writes::Locked;

/// When a transaction locks, in parts of 100 of its latency.
const LOCK_AT: Micros = 10;
/// When it is applied.
const APPLY_AT: Micros = 85;
/// When everything else is carried out.
const ACT_AT: Micros = 50;

/// How the model behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    pub profile: Profile,
    pub seed: u64,
    /// What a new on-demand table takes.
    pub warm: Units,
    /// The most that one takes, units a second.
    pub table_quota: u32,
    /// Capacity is counted and nobody is throttled.
    pub is_unlimited: bool,
    pub faults: Vec<Fault>,
    /// Seconds since the Unix epoch at the model's time 0; only shown.
    pub epoch: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            profile: Profile::InRegion,
            seed: 1,
            warm: Units {
                wcu: limits::ON_DEMAND_WCU,
                rcu: limits::ON_DEMAND_RCU,
            },
            table_quota: limits::TABLE_QUOTA,
            is_unlimited: false,
            faults: Vec::new(),
            epoch: 0,
        }
    }
}

/// A call under way. Used again once it was answered.
pub type Ticket = usize;

/// What a client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// HTTP's status, and a body of JSON.
    Answer { status: u16, body: Vec<u8> },
    /// The connection ends without an answer.
    Cut,
}

impl Reply {
    fn ok(body: Vec<u8>) -> Self {
        Reply::Answer { status: 200, body }
    }

    fn error(error: &Error) -> Self {
        Reply::Answer {
            status: error.code().status(),
            body: error.body(),
        }
    }
}

#[derive(Debug)]
enum Work {
    Request(Box<Request>),
    Locked(Box<Locked>),
    Snapshot(Box<Snapshot>),
    Nothing,
}

#[derive(Debug)]
struct Call {
    op: Option<Op>,
    began: Micros,
    latency: Micros,
    /// Put on top of the latency by a fault.
    delay: Micros,
    work: Work,
    /// Instead of the answer.
    instead: Option<Reply>,
    reply: Reply,
    /// For the report.
    outcome: &'static str,
}

/// What happens to a call at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Act,
    Lock,
    Apply,
}

/// A DynamoDB that is not there.
#[derive(Debug)]
pub struct Model {
    settings: Settings,
    rng: SmallRng,
    tables: Tables,
    cache: Cache,
    calls: Slab<Call>,
    stages: BinaryHeap<Reverse<(Micros, u64, Ticket, Stage)>>,
    answers: BinaryHeap<Reverse<(Micros, u64, Ticket)>>,
    /// So that what has one time happens in the order it was asked for.
    sequence: u64,
    /// Items of transactions that are decided and not yet applied.
    locks: HashSet<u64>,
    tokens: Tokens,
    /// By operation and outcome.
    counts: BTreeMap<(&'static str, &'static str), u64>,
    tally: Tally,
}

/// For the report.
#[derive(Debug, Default)]
struct Tally {
    actions: u64,
    conflicts: u64,
    throttled_by_partition: u64,
    throttled_by_table: u64,
    failed_conditions: u64,
    /// Write units of tables that were charged for writes that did not take place.
    wasted_wcu: f64,
    calls_peak: usize,
}

impl Model {
    pub fn new(settings: Settings) -> Self {
        let defaults = Defaults {
            warm: settings.warm,
            quota: settings.table_quota,
            enforced: !settings.is_unlimited,
            epoch: settings.epoch,
        };
        Self {
            rng: SmallRng::seed_from_u64(settings.seed),
            tables: Tables::new(defaults),
            cache: Cache::default(),
            calls: Slab::new(),
            stages: BinaryHeap::new(),
            answers: BinaryHeap::new(),
            sequence: 0,
            locks: HashSet::new(),
            tokens: Tokens::default(),
            counts: BTreeMap::new(),
            tally: Tally::default(),
            settings,
        }
    }

    /// Takes a request in. `operation` is the `x-amz-target` header's part behind the point, `body`
    /// the JSON. `now` must not be before that of an earlier call to the model.
    pub fn arrive(&mut self, now: Micros, operation: &str, body: &[u8]) -> Ticket {
        let is_full = self.calls.len() >= limits::CALLS_MAX;
        let op = Op::named(operation);
        let mut call = Call {
            op,
            began: now,
            latency: 0,
            delay: 0,
            work: Work::Nothing,
            instead: None,
            reply: Reply::Cut,
            outcome: "",
        };
        let refused = match op {
            _ if is_full => Err(Error::new(
                Code::ServiceUnavailable,
                format!("the model has {} calls under way", limits::CALLS_MAX),
            )),
            None => Err(Error::new(
                Code::UnknownOperation,
                format!("the model does not know the operation {operation:?}"),
            )),
            Some(op) if !op.is_on_items() => {
                call.latency = self.latency(Shape::Write);
                self.run(now);
                let answer = self.tables.request(op, body, now);
                answer.map(|body| call.finish("ok", Reply::ok(body)))
            }
            Some(op) => self.take_in(op, body, &mut call),
        };
        if let Err(error) = refused {
            if call.latency == 0 && !is_full {
                call.latency = self.latency(Shape::Reads(1));
            }
            call.fail(&error);
        }
        let is_ready = matches!(call.work, Work::Nothing);
        let stage = match &call.work {
            Work::Request(request) => first_stage(request),
            _ => Stage::Act,
        };
        let ticket = self.calls.insert(call);
        self.tally.calls_peak = self.tally.calls_peak.max(self.calls.len());
        if !is_ready {
            self.schedule(ticket, stage);
        }
        self.answer(ticket);
        if self.settings.profile == Profile::None {
            self.run(now);
        }
        ticket
    }

    /// Executes a request at once, without latency and faults, and returns status and body: for the setup and
    /// inspection of a test.
    pub fn execute(&mut self, now: Micros, operation: &str, body: &Json) -> (u16, Json) {
        let profile = std::mem::replace(&mut self.settings.profile, Profile::None);
        let faults = std::mem::take(&mut self.settings.faults);
        let ticket = self.arrive(now, operation, body.to_string().as_bytes());
        self.settings.profile = profile;
        self.settings.faults = faults;
        self.answers
            .retain(|Reverse((.., answered))| *answered != ticket);
        match self.calls.remove(ticket).reply {
            Reply::Answer { status, body } => {
                (status, serde_json::from_slice(&body).unwrap_or_default())
            }
            Reply::Cut => (0, Json::Null),
        }
    }

    /// A request on items: parsed, its latency and its fault drawn.
    fn take_in(&mut self, op: Op, body: &[u8], call: &mut Call) -> Result<(), Error> {
        let mut parse = Parse {
            tables: &self.tables,
            cache: &mut self.cache,
        };
        let request = parse.request(op, body)?;
        call.latency = self.latency(shape(&request));
        if let Body::TransactWrite(writes, _) = &request.body {
            self.tally.actions += writes.len() as u64;
        }
        let Some(fault) = faults::draw(&self.settings.faults, op, &mut self.rng) else {
            call.work = Work::Request(Box::new(request));
            return Ok(());
        };
        self.strike(call, fault, request);
        Ok(())
    }

    fn strike(&mut self, call: &mut Call, fault: Drawn, request: Request) {
        let (outcome, reply) = match fault.kind {
            FaultKind::LostAnswer => ("fault lost-answer", Some(Reply::Cut)),
            FaultKind::LostRequest => ("fault lost-request", Some(Reply::Cut)),
            FaultKind::DelayedAnswer => ("", None),
            FaultKind::Throttle => (
                "fault throttle",
                Some(Reply::error(&answers::throttled_by_fault(&request))),
            ),
            FaultKind::Conflict => (
                "fault conflict",
                Some(Reply::error(&answers::conflict_by_fault(&request))),
            ),
            FaultKind::Error500 => {
                let error = Error::new(Code::InternalServerError, "Internal server error");
                ("fault error-500", Some(Reply::error(&error)))
            }
        };
        call.delay = fault.delay;
        call.outcome = outcome;
        match fault.carried_out {
            true => {
                call.instead = reply;
                call.work = Work::Request(Box::new(request));
            }
            false => call.reply = reply.unwrap_or(Reply::Cut),
        }
    }

    fn latency(&mut self, shape: Shape) -> Micros {
        let uniform = self.rng.random();
        self.settings.profile.latency(shape, uniform)
    }

    fn schedule(&mut self, ticket: Ticket, stage: Stage) {
        let Some(call) = self.calls.get(ticket) else {
            return;
        };
        let percent = match stage {
            Stage::Act => ACT_AT,
            Stage::Lock => LOCK_AT,
            Stage::Apply => APPLY_AT,
        };
        let at = call.began + call.latency * percent / 100;
        self.sequence += 1;
        self.stages
            .push(Reverse((at, self.sequence, ticket, stage)));
    }

    /// When a call is answered is known from the start, and its stages come before.
    fn answer(&mut self, ticket: Ticket) {
        let Some(call) = self.calls.get(ticket) else {
            return;
        };
        let at = call.began + call.latency + call.delay;
        self.sequence += 1;
        self.answers.push(Reverse((at, self.sequence, ticket)));
    }

    /// When [`Model::due`] has something to say.
    pub fn next_due(&self) -> Option<Micros> {
        self.answers.peek().map(|Reverse((at, ..))| *at)
    }

    /// What is to be answered by `now`, in order.
    pub fn due(&mut self, now: Micros) -> Vec<(Ticket, Reply)> {
        self.run(now);
        let mut due = Vec::new();
        while let Some(Reverse((at, _, ticket))) = self.answers.peek().copied() {
            if at > now {
                break;
            }
            self.answers.pop();
            let Some(call) = self.calls.try_remove(ticket) else {
                continue;
            };
            let name = call.op.map_or("unknown", Op::name);
            *self.counts.entry((name, call.outcome)).or_default() += 1;
            due.push((ticket, call.instead.unwrap_or(call.reply)));
        }
        due
    }

    /// Carries out everything up to `now`.
    fn run(&mut self, now: Micros) {
        while let Some(Reverse((at, _, ticket, stage))) = self.stages.peek().copied() {
            if at > now {
                return;
            }
            self.stages.pop();
            self.step(at, ticket, stage);
        }
    }

    fn step(&mut self, at: Micros, ticket: Ticket, stage: Stage) {
        let Some(call) = self.calls.get_mut(ticket) else {
            return;
        };
        let work = std::mem::replace(&mut call.work, Work::Nothing);
        let (next, done) = match (work, stage) {
            (Work::Request(request), Stage::Lock) => self.lock(at, *request),
            (Work::Request(request), _) => (Work::Nothing, Some(self.act(at, &request))),
            (Work::Locked(locked), _) => (Work::Nothing, Some(self.apply(at, *locked))),
            (Work::Snapshot(snapshot), _) => {
                (Work::Nothing, Some(self.transact_read(at, &snapshot)))
            }
            (Work::Nothing, _) => return,
        };
        let Some(call) = self.calls.get_mut(ticket) else {
            return;
        };
        match done {
            None => {
                call.work = next;
                self.schedule(ticket, Stage::Apply);
            }
            Some(result) => match result {
                Ok(body) => call.finish("ok", Reply::ok(body)),
                Err(error) => call.fail(&error),
            },
        }
    }

    /// The first look of a transaction.
    fn lock(&mut self, at: Micros, request: Request) -> (Work, Option<Result<Vec<u8>, Error>>) {
        match request.body {
            Body::TransactWrite(writes, token) => {
                match self.decide(at, writes, token, &request.arena, request.told) {
                    Ok(writes::Decided::Locked(locked)) => (Work::Locked(Box::new(locked)), None),
                    Ok(writes::Decided::Before(body)) => (Work::Nothing, Some(Ok(body))),
                    Err(error) => (Work::Nothing, Some(Err(error))),
                }
            }
            Body::TransactGet(gets) => {
                let snapshot = self.look(gets, request.told);
                (Work::Snapshot(Box::new(snapshot)), None)
            }
            _ => (
                Work::Nothing,
                Some(Err(Error::unmodelled("this transaction"))),
            ),
        }
    }

    fn act(&mut self, at: Micros, request: &Request) -> Result<Vec<u8>, Error> {
        let (arena, told) = (&request.arena, request.told);
        match &request.body {
            Body::Write(write) => self.write(at, write, arena, told),
            Body::BatchWrite(writes) => self.batch_write(at, writes, arena, told),
            Body::Get(get) => self.get(at, get, told),
            Body::BatchGet(tables) => self.batch_get(at, tables, arena, told),
            Body::Page(page) => self.page(at, page, arena, told),
            Body::TransactWrite(..) | Body::TransactGet(_) => {
                Err(Error::unmodelled("this transaction"))
            }
        }
    }

    /// Exchanges the faults that are put in from now on.
    ///
    /// # Errors
    /// The first one that cannot be meant; then none is exchanged.
    pub fn set_faults(&mut self, faults: Vec<Fault>) -> Result<(), String> {
        if faults.len() > limits::FAULT_RULES_MAX {
            return Err(format!(
                "{} faults; want at most {}",
                faults.len(),
                limits::FAULT_RULES_MAX
            ));
        }
        faults.iter().try_for_each(Fault::check)?;
        self.settings.faults = faults;
        Ok(())
    }

    /// The report starts anew. With `tables` all tables are dropped, and all tokens forgotten; calls
    /// under way then find no table.
    pub fn reset(&mut self, now: Micros, tables: bool) {
        self.run(now);
        if tables {
            self.tables.clear();
            self.tokens = Tokens::default();
        }
        self.counts.clear();
        self.tally = Tally::default();
        for table in self.tables.iter_mut() {
            table.capacity.forget();
            table
                .indexes
                .iter_mut()
                .for_each(|index| index.capacity.forget());
        }
    }
}

impl Call {
    /// A fault's outcome stays.
    fn finish(&mut self, outcome: &'static str, reply: Reply) {
        self.reply = reply;
        if self.outcome.is_empty() {
            self.outcome = outcome;
        }
    }

    fn fail(&mut self, error: &Error) {
        self.finish(error.code().name(), Reply::error(error));
    }
}

fn first_stage(request: &Request) -> Stage {
    match &request.body {
        Body::TransactWrite(..) | Body::TransactGet(_) => Stage::Lock,
        _ => Stage::Act,
    }
}

fn shape(request: &Request) -> Shape {
    match &request.body {
        Body::Write(_) | Body::BatchWrite(_) => Shape::Write,
        Body::TransactWrite(writes, _) => Shape::Transaction(writes.len()),
        Body::TransactGet(gets) => Shape::Transaction(gets.len()),
        Body::Get(_) | Body::Page(_) => Shape::Reads(1),
        Body::BatchGet(tables) => Shape::Reads(tables.iter().map(|table| table.gets.len()).sum()),
    }
}
