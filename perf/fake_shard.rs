//! A shard without HTTP/2, store and clock: a request from its bytes to the bytes of the response, through decoding,
//! validation, the engine and encoding, on one thread. `allocations.rs` and `guard.rs` count what a request costs.

use bytes::{Bytes, BytesMut};
use inventory_api::api::validate::{FieldViolations, INVENTORY_V1};
use inventory_core::answer::Answer;
use inventory_core::counters::Counters;
use inventory_core::effect::{CallId, Effect};
use inventory_core::engine::{Engine, EngineSettings};
use inventory_core::limits;
use inventory_core::operation::{Operation, Selection, Verb};
use inventory_core::query::{Query, QueryResult};
use inventory_core::rules::LateCommit;
use inventory_core::time::{Micros, Now, UnixMillis};
use inventory_core::transaction::{StripeView, StripesRead, TransactionOutcome};
use inventory_proto::inventory::v1::{CheckReq, CheckRes, CommitReq, CommitRes};
use prost::Message;
use rand::SeedableRng;
use rand::rngs::SmallRng;

const EVENT: &str = "evt_2025_1001";

/// The only shard of its server.
pub(crate) struct FakeShard {
    engine: Engine,
    effects: Vec<Effect>,
    replies: BytesMut,
}

impl FakeShard {
    pub(crate) fn new() -> Self {
        let settings = EngineSettings {
            shard: 0,
            shards: 1,
            cache_capacity: CACHED_ANSWERS_MAX,
            cache_for: Micros::from_millis(600_000),
            late_commit: LateCommit::Reacquire,
            read_staleness: Micros(inventory_api::limits::READ_STALENESS_DEFAULT.as_micros() as u64),
            attempt_timeout: Micros::from_millis(200),
            sold_out_latch: Micros(limits::SOLD_OUT_LATCH_DEFAULT.as_micros() as u64),
        };
        let mut shard = Self {
            engine: Engine::new(settings, SmallRng::seed_from_u64(1)),
            effects: Vec::with_capacity(1_024),
            replies: BytesMut::with_capacity(1 << 20),
        };
        // The layout of the event is cached before anything is counted.
        let event = EVENT.parse().unwrap();
        let status = Query::Status;
        shard.engine.handle_query(CallId(0), event, status, at(0));
        shard.serve_reads(0);
        while shard.engine.poll_effect().is_some() {}
        shard
    }

    fn serve_reads(&mut self, now: u64) {
        let read = StripesRead::Found(vec![StripeView {
            capacity: 1_000_000_000,
            remaining: 1_000_000_000,
            version: 1,
            stripes: Some(1),
            confirmed_holds: Some(0),
            ..StripeView::default()
        }]);
        let event = EVENT.parse().unwrap();
        self.engine.handle_stripes_read(&event, &read, at(now));
    }

    fn reply(&mut self, message: &impl Message) {
        self.replies.clear();
        message.encode(&mut self.replies).unwrap();
    }

    fn confirmed(&mut self, answer: &Answer) {
        let Answer::Confirmed { order, .. } = answer else {
            panic!("{answer:?}");
        };
        self.reply(&CommitRes { order_id: order.to_text(), status: "CONFIRMED".to_owned() });
    }

    /// A commit from its bytes; the answer if it is cached.
    fn commit(&mut self, call: u64, body: &Bytes) -> Option<Answer> {
        let request: CommitReq = inventory_grpc::decode(body.clone()).unwrap();
        let mut violations = FieldViolations::of(INVENTORY_V1);
        violations.payment_intent(&request.payment_intent_id);
        let event = violations.event(request.event_id).unwrap();
        let reservation = violations.reservation(request.reservation_id).unwrap();
        let selection = Selection::Quantity(request.qty as u32);
        let operation = Operation {
            payment_intent: request.payment_intent_id,
            ..Operation::new(Verb::Commit, reservation, event, selection, Micros(u64::MAX))
        };
        let answer = self.engine.cached_answer(&operation, Micros(1));
        if answer.is_none() {
            self.engine.handle_call(CallId(call), operation, at(1));
        }
        answer
    }

    /// Commits all transactions that were sent, and encodes the answers; transactions that follow stay queued. Returns the
    /// number of answers.
    fn commit_transactions(&mut self) -> usize {
        let mut answered = 0;
        let mut now = std::mem::take(&mut self.effects);
        now.extend(std::iter::from_fn(|| self.engine.poll_effect()));
        for effect in now.drain(..) {
            match effect {
                Effect::Transact { lane, transaction, .. } => {
                    drop(transaction);
                    let outcome = TransactionOutcome::Committed;
                    self.engine.handle_transaction_outcome(lane, outcome, at(1));
                }
                Effect::Answer { answer, .. } => {
                    self.confirmed(&answer);
                    answered += 1;
                }
                other => panic!("unexpected effect: {other:?}"),
            }
        }
        // The buffer is kept.
        self.effects = now;
        answered
    }

    /// Direct commits in full batches; returns when all are answered.
    pub(crate) fn commit_all(&mut self, bodies: &[Bytes]) {
        // The first commit is sent alone; the others queue behind it and form full batches.
        let mut answered = 0;
        for (round, batch) in bodies.chunks(limits::BATCH_ENTRIES_MAX).enumerate() {
            for (n, body) in batch.iter().enumerate() {
                let call = (round * limits::BATCH_ENTRIES_MAX + n) as u64;
                assert!(self.commit(call, body).is_none());
            }
            answered += self.commit_transactions();
        }
        while answered < bodies.len() {
            answered += self.commit_transactions();
        }
    }

    /// The same commit repeatedly, answered from the cache.
    pub(crate) fn repeat(&mut self, body: &Bytes, times: u64) {
        for call in 1..=times {
            let answer = self.commit(call, body);
            self.confirmed(&answer.unwrap());
        }
    }

    /// One commit, until it is answered.
    pub(crate) fn commit_one(&mut self, body: &Bytes) {
        assert!(self.commit(0, body).is_none());
        while self.commit_transactions() == 0 {}
    }

    /// Checks answered from a snapshot, one every 10 µs, so that the snapshot becomes stale and is read again.
    pub(crate) fn check(&mut self, body: &Bytes, times: u64) {
        for now in (0..times).map(|n| n * 10) {
            let request: CheckReq = inventory_grpc::decode(body.clone()).unwrap();
            let mut violations = FieldViolations::of(INVENTORY_V1);
            let event = violations.event(request.event_id).unwrap();
            let qty = request.qty as u32;
            let question = Query::Availability { qty, section: None };
            let found = self.engine.cached_query_result(&event, &question, Micros(now));
            let Some(QueryResult::Units { available, .. }) = found else {
                panic!("{found:?} at {now}");
            };
            self.reply(&CheckRes { available, unavailable_seats: Vec::new() });
            let mut reads = false;
            while self.engine.poll_effect().is_some() {
                reads = true;
            }
            if reads {
                self.serve_reads(now);
            }
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.engine.counters()
    }
}

/// More than the calls of any measurement.
const CACHED_ANSWERS_MAX: usize = 100_000;

fn at(mono: u64) -> Now {
    Now { mono: Micros(mono), unix: UnixMillis(1_760_000_000_000) }
}

/// The bodies of `count` commits.
pub(crate) fn commits(count: u64) -> Vec<Bytes> {
    let request = |n| CommitReq {
        reservation_id: format!("rsv_0123456789_{n}"),
        event_id: EVENT.to_owned(),
        qty: 2,
        seat_ids: Vec::new(),
        payment_intent_id: format!("pay_0123456789_{n}"),
    };
    let bodies = (0..count).map(|n| request(n).encode_to_vec().into());
    bodies.collect()
}

/// The body of a check.
pub(crate) fn check() -> Bytes {
    CheckReq { event_id: EVENT.to_owned(), qty: 2, seat_ids: Vec::new() }.encode_to_vec().into()
}
