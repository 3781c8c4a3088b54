//! The state machine, without sockets, clocks or threads: requests arrive with the time, replies leave when they
//! are due. Randomness comes from a seed.
//!
//! Stages of a call, as parts of its latency, which is drawn at its arrival:
//!
//! | call | at | stage |
//! |---|---|---|
//! | read, plain write | 50 % | executed |
//! | TransactWriteItems | 10 % | conditions evaluated, capacity charged, items locked; a transaction that fails is decided here, and its reply comes after the full latency |
//! | | 85 % | all writes applied at once, items unlocked |
//! | TransactGetItems | 10 % | first look at the items |
//! | | 85 % | second look; cancelled if an item was locked at either look or changed between them |
//! | any | 100 % | reply |
//!
//! Every call takes effect between its arrival and its reply, and stages run in the order of their times: the
//! store is linearizable, as DynamoDB is for strong reads. Items stay locked for 75 % of a transaction's
//! latency: another transaction on them is cancelled with TransactionConflict, a plain write fails with
//! TransactionConflictException, plain reads return the item before the transaction. More favourable than
//! DynamoDB: readers never see a transaction half applied, indexes are updated at once, and eventually consistent
//! reads are strong.
//!
//! Not here: HTTP.

mod output;
mod reads;
mod report;
mod writes;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::Value as Json;
use slab::Slab;

use crate::ModelTime;
use crate::capacity::CapacityUnits;
use crate::catalog::{TableCatalog, TableDefaults};
use crate::error::{Code, Error};
use crate::expr::ExpressionCache;
use crate::faults::{self, FaultDecision, FaultKind, FaultRule};
use crate::latency::{LatencyClass, LatencyProfile};
use crate::limits;
use crate::operation::ApiOperation;
use crate::request::{ItemRequest, RequestBody, RequestParser};
use crate::tokens::TokenStore;
use reads::ReadSnapshot;
use writes::{PreparedTransaction, TransactionDecision};

/// First stage of a transaction, in percent of its latency.
const PREPARE_AT: ModelTime = 10;
/// Second stage of a transaction.
const APPLY_AT: ModelTime = 85;
/// Execution of all other calls.
const EXECUTE_AT: ModelTime = 50;

/// Behaviour of a model.
#[derive(Clone, Debug)]
pub struct ModelSettings {
    pub profile: LatencyProfile,
    pub seed: u64,
    /// Warm throughput of new on-demand tables.
    pub warm: CapacityUnits,
    /// Quota of one table, units per second.
    pub table_quota: u32,
    /// Capacity is counted and never throttled.
    pub is_unlimited: bool,
    pub faults: Vec<FaultRule>,
    /// Seconds since the Unix epoch at the model's time 0, for creation dates.
    pub epoch: u64,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            profile: LatencyProfile::InRegion,
            seed: 1,
            warm: CapacityUnits { wcu: limits::ON_DEMAND_WCU, rcu: limits::ON_DEMAND_RCU },
            table_quota: limits::TABLE_QUOTA,
            is_unlimited: false,
            faults: Vec::new(),
            epoch: 0,
        }
    }
}

/// A call in flight. Reused after its reply.
pub type Ticket = usize;

/// What a client receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelReply {
    /// HTTP status and JSON body.
    Response { status: u16, body: Vec<u8> },
    /// The connection is closed without a response.
    Closed,
}

impl ModelReply {
    fn ok(body: Vec<u8>) -> Self {
        ModelReply::Response { status: 200, body }
    }

    fn error(error: &Error) -> Self {
        ModelReply::Response { status: error.code().status(), body: error.body() }
    }
}

#[derive(Debug)]
enum StageWork {
    Request(Box<ItemRequest>),
    Prepared(Box<PreparedTransaction>),
    Snapshot(Box<ReadSnapshot>),
    None,
}

#[derive(Debug)]
struct ModelCall {
    operation: Option<ApiOperation>,
    arrived: ModelTime,
    latency: ModelTime,
    /// Additional delay by a fault.
    delay: ModelTime,
    state: StageWork,
    /// Replaces the reply.
    replacement: Option<ModelReply>,
    reply: ModelReply,
    /// Outcome in the report.
    outcome: &'static str,
}

/// A stage of a call, in the order in which simultaneous stages run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum CallStage {
    Execute,
    Prepare,
    Apply,
}

/// An in-memory model of DynamoDB.
#[derive(Debug)]
pub struct StoreModel {
    settings: ModelSettings,
    rng: SmallRng,
    tables: TableCatalog,
    cache: ExpressionCache,
    calls: Slab<ModelCall>,
    stages: BinaryHeap<Reverse<(ModelTime, u64, Ticket, CallStage)>>,
    replies: BinaryHeap<Reverse<(ModelTime, u64, Ticket)>>,
    /// Orders simultaneous stages and replies.
    sequence: u64,
    /// Locked items of prepared transactions.
    locks: HashSet<u64>,
    tokens: TokenStore,
    /// By operation and outcome.
    counts: BTreeMap<(&'static str, &'static str), u64>,
    counters: ModelCounters,
}

/// Counters of the report.
#[derive(Debug, Default)]
struct ModelCounters {
    actions: u64,
    conflicts: u64,
    /// Transactions with at least one action in conflict.
    conflicted_transactions: u64,
    throttled_by_partition: u64,
    throttled_by_table: u64,
    failed_conditions: u64,
    /// Write units charged to tables for failed writes.
    wasted_wcu: f64,
    calls_peak: usize,
}

impl StoreModel {
    pub fn new(settings: ModelSettings) -> Self {
        let defaults = TableDefaults {
            warm: settings.warm,
            quota: settings.table_quota,
            enforced: !settings.is_unlimited,
            epoch: settings.epoch,
        };
        Self {
            rng: SmallRng::seed_from_u64(settings.seed),
            tables: TableCatalog::new(defaults),
            cache: ExpressionCache::default(),
            calls: Slab::new(),
            stages: BinaryHeap::new(),
            replies: BinaryHeap::new(),
            sequence: 0,
            locks: HashSet::new(),
            tokens: TokenStore::default(),
            counts: BTreeMap::new(),
            counters: ModelCounters::default(),
            settings,
        }
    }

    /// Accepts a request. `operation` is the part of the `x-amz-target` header after the point, `body` the JSON.
    /// `now` must not go back.
    pub fn arrive(&mut self, now: ModelTime, operation: &str, body: &[u8]) -> Ticket {
        let is_full = self.calls.len() >= limits::CALLS_MAX;
        let (name, operation) = (operation, operation.parse::<ApiOperation>().ok());
        let mut call = ModelCall {
            operation,
            arrived: now,
            latency: 0,
            delay: 0,
            state: StageWork::None,
            replacement: None,
            reply: ModelReply::Closed,
            outcome: "",
        };
        let rejected = match operation {
            _ if is_full => Err(Error::new(
                Code::ServiceUnavailable,
                format!("the model has {} calls in flight", limits::CALLS_MAX),
            )),
            None => Err(Error::new(
                Code::UnknownOperation,
                format!("the model does not support the operation {name:?}"),
            )),
            Some(operation) if !operation.is_on_items() => {
                call.latency = self.latency(LatencyClass::Write);
                self.run(now);
                let output = self.tables.execute(operation, body, now);
                output.map(|body| call.finish("ok", ModelReply::ok(body)))
            }
            Some(operation) => self.accept(operation, body, &mut call),
        };
        if let Err(error) = rejected {
            if call.latency == 0 && !is_full {
                call.latency = self.latency(LatencyClass::Reads(1));
            }
            call.fail(&error);
        }
        let is_ready = matches!(call.state, StageWork::None);
        let stage = match &call.state {
            StageWork::Request(request) => first_stage(request),
            _ => CallStage::Execute,
        };
        let ticket = self.calls.insert(call);
        self.counters.calls_peak = self.counters.calls_peak.max(self.calls.len());
        if !is_ready {
            self.schedule(ticket, stage);
        }
        self.schedule_reply(ticket);
        if self.settings.profile == LatencyProfile::None {
            self.run(now);
        }
        ticket
    }

    /// Executes a request at once, without latency and faults, and returns status and body: for the setup and
    /// inspection of a test.
    pub fn execute(&mut self, now: ModelTime, operation: &str, body: &Json) -> (u16, Json) {
        let profile = std::mem::replace(&mut self.settings.profile, LatencyProfile::None);
        let faults = std::mem::take(&mut self.settings.faults);
        let ticket = self.arrive(now, operation, body.to_string().as_bytes());
        self.settings.profile = profile;
        self.settings.faults = faults;
        self.replies.retain(|Reverse((.., answered))| *answered != ticket);
        match self.calls.remove(ticket).reply {
            ModelReply::Response { status, body } => {
                (status, serde_json::from_slice(&body).unwrap_or_default())
            }
            ModelReply::Closed => (0, Json::Null),
        }
    }

    /// Parses a request on items and draws its latency and fault.
    fn accept(
        &mut self,
        operation: ApiOperation,
        body: &[u8],
        call: &mut ModelCall,
    ) -> Result<(), Error> {
        let mut parser = RequestParser { tables: &self.tables, cache: &mut self.cache };
        let request = parser.parse(operation, body)?;
        call.latency = self.latency(latency_class(&request));
        if let RequestBody::TransactWrite(writes, _) = &request.body {
            self.counters.actions += writes.len() as u64;
        }
        let Some(fault) = faults::draw(&self.settings.faults, operation, &mut self.rng) else {
            call.state = StageWork::Request(Box::new(request));
            return Ok(());
        };
        self.inject(call, fault, request);
        Ok(())
    }

    fn inject(&mut self, call: &mut ModelCall, fault: FaultDecision, request: ItemRequest) {
        let (outcome, reply) = match fault.kind {
            FaultKind::LostAnswer => ("fault lost-answer", Some(ModelReply::Closed)),
            FaultKind::LostRequest => ("fault lost-request", Some(ModelReply::Closed)),
            FaultKind::DelayedAnswer => ("", None),
            FaultKind::Throttle => {
                ("fault throttle", Some(ModelReply::error(&output::injected_throttling(&request))))
            }
            FaultKind::Conflict => {
                ("fault conflict", Some(ModelReply::error(&output::injected_conflict(&request))))
            }
            FaultKind::Error500 => {
                let error = Error::new(Code::InternalServerError, "Internal server error");
                ("fault error-500", Some(ModelReply::error(&error)))
            }
        };
        call.delay = fault.delay;
        call.outcome = outcome;
        match fault.is_executed {
            true => {
                call.replacement = reply;
                call.state = StageWork::Request(Box::new(request));
            }
            false => call.reply = reply.unwrap_or(ModelReply::Closed),
        }
    }

    fn latency(&mut self, class: LatencyClass) -> ModelTime {
        self.settings.profile.draw(class, &mut self.rng)
    }

    fn schedule(&mut self, ticket: Ticket, stage: CallStage) {
        let Some(call) = self.calls.get(ticket) else {
            return;
        };
        let percent = match stage {
            CallStage::Execute => EXECUTE_AT,
            CallStage::Prepare => PREPARE_AT,
            CallStage::Apply => APPLY_AT,
        };
        let at = call.arrived + call.latency * percent / 100;
        self.sequence += 1;
        self.stages.push(Reverse((at, self.sequence, ticket, stage)));
    }

    /// Schedules the reply, after all stages.
    fn schedule_reply(&mut self, ticket: Ticket) {
        let Some(call) = self.calls.get(ticket) else {
            return;
        };
        let at = call.arrived + call.latency + call.delay;
        self.sequence += 1;
        self.replies.push(Reverse((at, self.sequence, ticket)));
    }

    /// When the next reply is due.
    pub fn next_due(&self) -> Option<ModelTime> {
        self.replies.peek().map(|Reverse((at, ..))| *at)
    }

    /// The replies that are due by `now`, in order.
    pub fn due(&mut self, now: ModelTime) -> Vec<(Ticket, ModelReply)> {
        self.run(now);
        let mut due = Vec::new();
        while let Some(Reverse((at, _, ticket))) = self.replies.peek().copied() {
            if at > now {
                break;
            }
            self.replies.pop();
            let Some(call) = self.calls.try_remove(ticket) else {
                continue;
            };
            let name = call.operation.map_or("unknown", ApiOperation::name);
            *self.counts.entry((name, call.outcome)).or_default() += 1;
            due.push((ticket, call.replacement.unwrap_or(call.reply)));
        }
        due
    }

    /// Runs all stages up to `now`.
    fn run(&mut self, now: ModelTime) {
        while let Some(Reverse((at, _, ticket, stage))) = self.stages.peek().copied() {
            if at > now {
                return;
            }
            self.stages.pop();
            self.step(at, ticket, stage);
        }
    }

    fn step(&mut self, at: ModelTime, ticket: Ticket, stage: CallStage) {
        let Some(call) = self.calls.get_mut(ticket) else {
            return;
        };
        let work = std::mem::replace(&mut call.state, StageWork::None);
        let (next, done) = match (work, stage) {
            (StageWork::Request(request), CallStage::Prepare) => self.prepare(at, *request),
            (StageWork::Request(request), _) => {
                (StageWork::None, Some(self.execute_request(at, &request)))
            }
            (StageWork::Prepared(transaction), _) => {
                (StageWork::None, Some(Ok(self.apply(at, *transaction))))
            }
            (StageWork::Snapshot(snapshot), _) => {
                (StageWork::None, Some(self.transact_get(at, &snapshot)))
            }
            (StageWork::None, _) => return,
        };
        let Some(call) = self.calls.get_mut(ticket) else {
            return;
        };
        match done {
            None => {
                call.state = next;
                self.schedule(ticket, CallStage::Apply);
            }
            Some(result) => match result {
                Ok(body) => call.finish("ok", ModelReply::ok(body)),
                Err(error) => call.fail(&error),
            },
        }
    }

    /// The first stage of a transaction.
    fn prepare(
        &mut self,
        at: ModelTime,
        request: ItemRequest,
    ) -> (StageWork, Option<Result<Vec<u8>, Error>>) {
        match request.body {
            RequestBody::TransactWrite(writes, token) => {
                match self.decide(at, writes, token, request.detail) {
                    Ok(TransactionDecision::Prepared(transaction)) => {
                        (StageWork::Prepared(Box::new(transaction)), None)
                    }
                    Ok(TransactionDecision::Repeated(body)) => (StageWork::None, Some(Ok(body))),
                    Err(error) => (StageWork::None, Some(Err(error))),
                }
            }
            RequestBody::TransactGet(reads) => {
                let snapshot = self.snapshot(reads, request.detail);
                (StageWork::Snapshot(Box::new(snapshot)), None)
            }
            _ => (StageWork::None, Some(Err(Error::unsupported("this transaction")))),
        }
    }

    fn execute_request(&mut self, at: ModelTime, request: &ItemRequest) -> Result<Vec<u8>, Error> {
        match &request.body {
            RequestBody::Write(write) => self.write(at, write, request.detail),
            RequestBody::BatchWrite(writes) => self.batch_write(at, writes, request.detail),
            RequestBody::Get(read) => self.get(at, read, request.detail),
            RequestBody::BatchGet(tables) => self.batch_get(at, tables, request.detail),
            RequestBody::Page(page) => self.page(at, page, request.detail),
            RequestBody::TransactWrite(..) | RequestBody::TransactGet(_) => {
                Err(Error::unsupported("this transaction"))
            }
        }
    }

    /// Replaces the faults.
    ///
    /// # Errors
    /// The first invalid fault; then none is replaced.
    pub fn set_faults(&mut self, faults: Vec<FaultRule>) -> Result<(), String> {
        if faults.len() > limits::FAULT_RULES_MAX {
            return Err(format!(
                "{} faults; must be at most {}",
                faults.len(),
                limits::FAULT_RULES_MAX
            ));
        }
        faults.iter().try_for_each(FaultRule::check)?;
        self.settings.faults = faults;
        Ok(())
    }

    /// Resets the report. With `tables` all tables and tokens are deleted; calls in flight then find no table.
    pub fn reset(&mut self, now: ModelTime, tables: bool) {
        self.run(now);
        if tables {
            self.tables.clear();
            self.tokens = TokenStore::default();
        }
        self.counts.clear();
        self.counters = ModelCounters::default();
        for table in self.tables.iter_mut() {
            table.capacity.reset_meters();
            table.indexes.iter_mut().for_each(|index| index.capacity.reset_meters());
        }
    }
}

impl ModelCall {
    /// The outcome of a fault is kept.
    fn finish(&mut self, outcome: &'static str, reply: ModelReply) {
        self.reply = reply;
        if self.outcome.is_empty() {
            self.outcome = outcome;
        }
    }

    fn fail(&mut self, error: &Error) {
        self.finish(error.code().name(), ModelReply::error(error));
    }
}

fn first_stage(request: &ItemRequest) -> CallStage {
    match &request.body {
        RequestBody::TransactWrite(..) | RequestBody::TransactGet(_) => CallStage::Prepare,
        _ => CallStage::Execute,
    }
}

fn latency_class(request: &ItemRequest) -> LatencyClass {
    match &request.body {
        RequestBody::Write(_) | RequestBody::BatchWrite(_) => LatencyClass::Write,
        RequestBody::TransactWrite(writes, _) => LatencyClass::Transaction(writes.len()),
        RequestBody::TransactGet(reads) => LatencyClass::Transaction(reads.len()),
        RequestBody::Get(_) | RequestBody::Page(_) => LatencyClass::Reads(1),
        RequestBody::BatchGet(tables) => {
            LatencyClass::Reads(tables.iter().map(|table| table.reads.len()).sum())
        }
    }
}
