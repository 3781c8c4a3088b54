//! Engines before a store that takes one transaction after the other and is slower than their time-outs, in virtual time.
//!
//! The store executes every transaction that reaches it, in order of arrival, whether or not the sender still waits, and a
//! repeated token takes as long as a new one. If attempts for unknown outcomes were sent as fast as they time out, such a
//! store would be busy with them for ever after one burst of calls.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use inventory_core::answer::Answer;
use inventory_core::effect::{CallId, Effect, LaneId};
use inventory_core::engine::{Engine, EngineSettings};
use inventory_core::ids::EventId;
use inventory_core::operation::{Operation, Selection, Verb};
use inventory_core::rules::LateCommit;
use inventory_core::time::{Micros, Now, UnixMillis};
use inventory_core::transaction::{
    RecordsRead, StripeView, StripesRead, Transaction, TransactionOutcome,
};
use rand::SeedableRng;
use rand::rngs::SmallRng;

const MS: u64 = 1_000;
const SECOND: u64 = 1_000 * MS;

/// The default of DDB_TIMEOUT.
const ATTEMPT_TIMEOUT: u64 = 200 * MS;

/// Stripes of each event.
const STRIPES: u16 = 16;

/// How long callers wait.
const PATIENCE: u64 = 2 * SECOND;

#[derive(Debug)]
enum StoreStep {
    Wakes(usize),
    /// The sender's time-out, or the answer of the store, whichever comes first.
    Answered(usize, LaneId, TransactionOutcome),
    Read(usize, EventId),
}

struct SlowStore {
    engines: Vec<Engine>,
    wakes: Vec<Option<u64>>,
    agenda: BTreeMap<(u64, u64), StoreStep>,
    made: u64,
    now: u64,
    /// Time of one transaction.
    takes: u64,
    /// When the store is done with all that has arrived.
    free_at: u64,
    tokens: HashSet<u128>,
    /// Transactions that reached the store.
    sent: u64,
    calls: u64,
    confirmed: HashMap<CallId, bool>,
}

impl SlowStore {
    fn new(shards: usize, takes: u64) -> Self {
        let engine = |shard| {
            let settings = EngineSettings {
                shard,
                shards,
                cache_capacity: 0,
                cache_for: Micros(0),
                late_commit: LateCommit::Reacquire,
                sold_out_latch: Micros(0),
                read_staleness: Micros(0),
                attempt_timeout: Micros(ATTEMPT_TIMEOUT),
            };
            Engine::new(settings, SmallRng::seed_from_u64(shard as u64))
        };
        Self {
            engines: (0..shards).map(engine).collect(),
            wakes: vec![None; shards],
            agenda: BTreeMap::new(),
            made: 0,
            now: SECOND,
            takes,
            free_at: 0,
            tokens: HashSet::new(),
            sent: 0,
            calls: 0,
            confirmed: HashMap::new(),
        }
    }

    fn clock(&self) -> Now {
        Now { mono: Micros(self.now), unix: UnixMillis(self.now / MS) }
    }

    fn plan(&mut self, at: u64, step: StoreStep) {
        self.made += 1;
        self.agenda.insert((at, self.made), step);
    }

    /// A commit on the shard that sells its stripe.
    fn commit(&mut self, shard: usize, event: &str) -> CallId {
        self.calls += 1;
        let call = CallId(self.calls);
        let reservation = format!("r-{}", self.calls).parse().unwrap();
        let deadline = Micros(self.now + PATIENCE);
        let selection = Selection::Quantity(1);
        let event = event.parse().unwrap();
        let operation = Operation::new(Verb::Commit, reservation, event, selection, deadline);
        let now = self.clock();
        self.engines[shard].handle_call(call, operation, now);
        self.execute(shard);
        call
    }

    fn execute(&mut self, shard: usize) {
        while let Some(effect) = self.engines[shard].poll_effect() {
            let now = self.clock();
            match effect {
                Effect::Answer { call, answer, .. } => {
                    let sold = matches!(answer, Answer::Confirmed { .. });
                    self.confirmed.insert(call, sold);
                }
                Effect::Transact { lane, transaction, limit } => {
                    self.transact(shard, lane, &transaction, limit);
                }
                Effect::ReadStripes { event, .. } => {
                    self.plan(self.now + MS, StoreStep::Read(shard, event))
                }
                Effect::ReadRecords { read, reservations } => {
                    let found = RecordsRead::Found(vec![Ok(None); reservations.len()]);
                    self.engines[shard].handle_records_read(read, &found, now);
                }
                Effect::Forward { shard: to, layout, operation, hint } => {
                    self.engines[to].handle_forwarded_call(shard, operation, layout, hint, now);
                    self.execute(to);
                }
                Effect::AnswerForwarded { shard: to, event, reservation, answer, record } => {
                    let origin = &mut self.engines[to];
                    origin.handle_forward_outcome(&event, &reservation, answer, record, now);
                    self.execute(to);
                }
                _ => {}
            }
        }
        if let Some(due) = self.engines[shard].poll_timeout() {
            let due = due.0.max(self.now + 1);
            if self.wakes[shard].is_none_or(|at| due < at) {
                self.wakes[shard] = Some(due);
                self.plan(due, StoreStep::Wakes(shard));
            }
        }
    }

    fn transact(
        &mut self,
        shard: usize,
        lane: LaneId,
        transaction: &Rc<Transaction>,
        limit: Micros,
    ) {
        self.sent += 1;
        self.tokens.insert(transaction.token.0);
        self.free_at = self.free_at.max(self.now) + self.takes;
        let timeout = self.now + limit.0;
        let (at, outcome) = match self.free_at < timeout {
            true => (self.free_at, TransactionOutcome::Committed),
            false => (timeout, TransactionOutcome::Unknown),
        };
        self.plan(at, StoreStep::Answered(shard, lane, outcome));
    }

    /// Runs until `until`, or until nothing is in flight.
    fn run(&mut self, until: u64) {
        while let Some(((at, _), _)) = self.agenda.first_key_value() {
            if *at > until {
                break;
            }
            let ((at, _), step) = self.agenda.pop_first().unwrap();
            self.now = at;
            let now = self.clock();
            let shard = match step {
                StoreStep::Wakes(shard) => {
                    self.wakes[shard] = None;
                    self.engines[shard].handle_timeout(now);
                    shard
                }
                StoreStep::Answered(shard, lane, outcome) => {
                    self.engines[shard].handle_transaction_outcome(lane, outcome, now);
                    shard
                }
                StoreStep::Read(shard, event) => {
                    let stripes = (0..STRIPES).map(|stripe| StripeView {
                        capacity: 1_000_000,
                        remaining: 1_000_000,
                        version: 1,
                        stripes: (stripe == 0).then_some(STRIPES),
                        ..StripeView::default()
                    });
                    let read = StripesRead::Found(stripes.collect());
                    self.engines[shard].handle_stripes_read(&event, &read, now);
                    shard
                }
            };
            self.execute(shard);
            if self.is_settled() {
                break;
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.engines.iter().all(Engine::is_idle)
    }
}

/// The burst of the report: 3,000 commits at once, and then no client at all.
fn burst(shards: usize, takes: u64) -> SlowStore {
    let mut store = SlowStore::new(shards, takes);
    for call in 0..3_000 {
        store.commit(call % shards, &format!("evt-{}", call % 2));
    }
    store.run(store.now + PATIENCE);
    store
}

#[test]
fn a_burst_settles_soon_however_slow_the_store_is() {
    for shards in [1, 4] {
        for takes in [1, 10, 50, 150, 300, 1_000, 5_000] {
            let mut store = burst(shards, takes * MS);
            let (ended, before) = (store.now, store.sent);
            // What the store has taken in, and what is still to be settled.
            let backlog = store.free_at.saturating_sub(ended) / MS;
            let open = store.tokens.len() as u64;
            store.run(ended + 3_600 * SECOND);
            let took = (store.now - ended) / MS;
            let resent = store.sent - before;
            println!(
                "{shards} shard(s), {takes} ms: {open} transactions, backlog {backlog} ms; settled after {took} ms, \
                 {resent} sent after the end of the load"
            );
            assert!(store.is_settled(), "{shards} shard(s), {takes} ms: not settled in an hour");
            assert!(resent <= 3 * open + 16 * shards as u64, "{resent} for {open}");
            let fair = 2 * backlog + 4 * open * takes + 90 * 1_000;
            assert!(took <= fair, "{took} ms, and {fair} would be fair");
        }
    }
}

/// While a burst settles, the transactions of others reach the store and are answered.
#[test]
fn other_transactions_are_sent_while_a_burst_settles() {
    for takes in [10, 150] {
        let mut store = burst(2, takes * MS);
        let mut sold = 0;
        for _ in 0..20 {
            let call = store.commit(0, "evt-other");
            let until = store.now + PATIENCE;
            store.run(until);
            store.now = until;
            sold += u32::from(store.confirmed.get(&call) == Some(&true));
        }
        println!("{takes} ms: {sold} of 20 sold");
        assert!(sold >= 15, "{takes} ms: {sold} of 20 sold while a burst settles");
    }
}

/// The lanes of an event are stuck: its callers get an error at once, not at their deadlines.
#[test]
fn callers_do_not_wait_behind_unknown_outcomes() {
    let mut store = SlowStore::new(1, 3_600 * SECOND);
    let pass = |store: &mut SlowStore, span: u64| {
        let until = store.now + span;
        store.run(until);
        store.now = until;
    };
    for _ in 0..STRIPES {
        store.commit(0, "evt");
        pass(&mut store, 10 * MS);
    }
    let queued = store.commit(0, "evt");
    pass(&mut store, 500 * MS);
    assert_eq!(store.confirmed.get(&queued), None, "a lost answer may still be resolved");
    pass(&mut store, SECOND);
    assert_eq!(store.confirmed.get(&queued), Some(&false));
    let later = store.commit(0, "evt");
    assert_eq!(store.confirmed.get(&later), Some(&false));
}
