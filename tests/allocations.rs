//! How many allocations a request costs, from its bytes to the bytes of its answer, but for HTTP/2 and
//! the SDK: counted, and held to what it was when it was last looked at.
//!
//! On one thread, through the pieces that the server is made of: decode and validate (`wire`, `api`),
//! the coordinator and its lanes (`domain`), encode. A bound is that figure and a little: whoever adds an
//! allocation to the way of every request sees it here, and whoever takes one away lowers the bound.

#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write as _;

use bytes::{Bytes, BytesMut};
use inventory_api::api::validate::{INVENTORY, Violations};
use inventory_api::domain::answer::Answer;
use inventory_api::domain::coordinator::{Coordinator, Settings};
use inventory_api::domain::effect::{CallId, Effect};
use inventory_api::domain::operation::{Expect, Operation, Verb, Wanted};
use inventory_api::domain::question::{Found, Question};
use inventory_api::domain::rules::LateCommit;
use inventory_api::domain::time::{Micros, Now, UnixMillis};
use inventory_api::domain::transaction::{EventRead, Outcome, StripeView};
use inventory_api::limits;
use inventory_proto::inventory::v1::{CheckReq, CheckRes, CommitReq, CommitRes};
use prost::Message;
use rand::SeedableRng;
use rand::rngs::SmallRng;

/// The system's allocator, counting what each thread asks of it.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending asks for nothing that a test looks at.
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
}

// SAFETY: every method hands its arguments to the system's allocator unchanged, under the contract
// that its caller keeps, and returns what that returns; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: see above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: see above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: see above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Requests of one measurement: a batch's members a hundred times and more.
const REQUESTS: u64 = 99 * 200;

/// Measured: 12.14, five of them those of a repeat, and the share of a batch.
const DIRECT_COMMIT_MAX: f64 = 12.25;

/// Measured: 5. Three texts of the request, two of the answer.
const REPEATED_COMMIT_MAX: f64 = 5.05;

/// Measured: 1, the event's name. The reads between are a hundredth of one.
const CHECK_MAX: f64 = 1.05;

const EVENT: &str = "evt_2025_1001";

/// A shard that serves alone, and what it is asked and answers with.
struct Shard {
    coordinator: Coordinator,
    effects: Vec<Effect>,
    replies: BytesMut,
}

impl Shard {
    fn new() -> Self {
        let settings = Settings {
            shard: 0,
            shards: 1,
            cache_capacity: REQUESTS as usize,
            cache_for: Micros::from_millis(600_000),
            late_commit: LateCommit::Reacquire,
            read_staleness: Micros(limits::READ_STALENESS_DEFAULT.as_micros() as u64),
            sold_out_latch: Micros(limits::SOLD_OUT_LATCH_DEFAULT.as_micros() as u64),
        };
        let mut shard = Self {
            coordinator: Coordinator::new(settings, SmallRng::seed_from_u64(1)),
            effects: Vec::with_capacity(1_024),
            replies: BytesMut::with_capacity(1 << 20),
        };
        // What the event is like is known before anything is counted.
        let event = EVENT.parse().unwrap();
        let status = Question::Status { section: None };
        let effects = &mut shard.effects;
        shard
            .coordinator
            .ask(CallId(0), event, status, at(0), effects);
        shard.serve_reads(0);
        shard.effects.clear();
        shard
    }

    fn serve_reads(&mut self, now: u64) {
        let read = EventRead::Found(vec![StripeView {
            capacity: 1_000_000_000,
            remaining: 1_000_000_000,
            version: 1,
            stripes: Some(1),
            seat_keys: 0,
            closed: false,
        }]);
        let event = EVENT.parse().unwrap();
        let effects = &mut self.effects;
        self.coordinator.event_read(&event, &read, at(now), effects);
    }

    fn reply(&mut self, message: &impl Message) {
        self.replies.clear();
        message.encode(&mut self.replies).unwrap();
    }

    fn confirmed(&mut self, answer: &Answer) {
        let Answer::Confirmed { order, .. } = answer else {
            panic!("{answer:?}");
        };
        self.reply(&CommitRes {
            order_id: order.to_text(),
            status: "CONFIRMED".to_owned(),
        });
    }

    /// A commit from its bytes; the answer if it is remembered.
    fn commit(&mut self, call: u64, body: &Bytes) -> Option<Answer> {
        let request: CommitReq = inventory_api::wire::decode(body.clone()).unwrap();
        let mut violations = Violations::of(INVENTORY);
        violations.payment_intent(&request.payment_intent_id);
        let event = violations.event(request.event_id).unwrap();
        let reservation = violations.reservation(request.reservation_id).unwrap();
        let wanted = Wanted::Quantity(request.qty as u32);
        let operation = Operation {
            verb: Verb::Commit,
            fingerprint: Operation::fingerprint_of(&event, &wanted),
            reservation,
            event,
            wanted,
            section: None,
            payment_intent: request.payment_intent_id,
            hold_until: None,
            expect: Expect::New,
            deadline: Micros(u64::MAX),
        };
        let answer = self.coordinator.replay(&operation, Micros(1));
        if answer.is_none() {
            let effects = &mut self.effects;
            self.coordinator
                .submit(CallId(call), operation, at(1), effects);
        }
        answer
    }

    /// Has the store commit what was sent, and answers; what is sent by that stays. How many were
    /// answered.
    fn settle(&mut self) -> usize {
        let mut answered = 0;
        let mut now = std::mem::take(&mut self.effects);
        for effect in now.drain(..) {
            match effect {
                Effect::Transact { lane, transaction } => {
                    drop(transaction);
                    let effects = &mut self.effects;
                    let outcome = Outcome::Committed;
                    self.coordinator
                        .transaction_settled(lane, outcome, at(1), effects);
                }
                Effect::Answer { answer, .. } => {
                    self.confirmed(&answer);
                    answered += 1;
                }
                other => panic!("nobody asked for {other:?}"),
            }
        }
        // The larger buffer is kept, as the driver does.
        now.append(&mut self.effects);
        self.effects = now;
        answered
    }
}

fn at(mono: u64) -> Now {
    Now {
        mono: Micros(mono),
        unix: UnixMillis(1_760_000_000_000),
    }
}

fn commits() -> Vec<Bytes> {
    let request = |n| CommitReq {
        reservation_id: format!("rsv_0123456789_{n}"),
        event_id: EVENT.to_owned(),
        qty: 2,
        seat_ids: Vec::new(),
        payment_intent_id: format!("pay_0123456789_{n}"),
    };
    let bodies = (0..REQUESTS).map(|n| request(n).encode_to_vec().into());
    bodies.collect()
}

/// Allocations per request of what `act` does for all of them.
fn per_request(what: &str, most: f64, act: impl FnOnce()) {
    let before = ASKED.get();
    act();
    let each = (ASKED.get() - before) as f64 / REQUESTS as f64;
    // Past the capture: the figure is part of every run's result.
    let _ = writeln!(
        std::io::stderr(),
        "allocations: {what}: {each:.2} a request, at most {most}"
    );
    assert!(
        each <= most,
        "{what}: {each:.2} allocations a request, want {most} or less"
    );
    assert!(
        each > most - 1.0,
        "{what}: {each:.2} allocations a request; lower the bound of {most}"
    );
}

#[test]
fn direct_commits_in_full_batches() {
    let mut shard = Shard::new();
    let bodies = commits();
    // The first goes alone, so that all others gather behind it.
    let mut answered = 0;
    per_request("a direct commit", DIRECT_COMMIT_MAX, || {
        for (round, batch) in bodies.chunks(limits::BATCH_MEMBERS_MAX).enumerate() {
            for (n, body) in batch.iter().enumerate() {
                let call = (round * limits::BATCH_MEMBERS_MAX + n) as u64;
                assert!(shard.commit(call, body).is_none());
            }
            answered += shard.settle();
        }
        while answered < bodies.len() {
            answered += shard.settle();
        }
    });
    let counters = shard.coordinator.counters();
    assert!(
        counters.members / counters.transactions > 90,
        "{counters:?}"
    );
}

#[test]
fn repeated_commits_from_memory() {
    let mut shard = Shard::new();
    let bodies = commits();
    assert!(shard.commit(0, &bodies[0]).is_none());
    while shard.settle() == 0 {}
    per_request("a repeated commit", REPEATED_COMMIT_MAX, || {
        for call in 1..=REQUESTS {
            let answer = shard.commit(call, &bodies[0]);
            shard.confirmed(&answer.unwrap());
        }
    });
}

#[test]
fn checks_from_a_snapshot() {
    let mut shard = Shard::new();
    let body: Bytes = CheckReq {
        event_id: EVENT.to_owned(),
        qty: 2,
        seat_ids: Vec::new(),
    }
    .encode_to_vec()
    .into();
    per_request("a check", CHECK_MAX, || {
        // One in ten µs, so that the snapshot grows old and is read anew.
        for now in (0..REQUESTS).map(|n| n * 10) {
            let request: CheckReq = inventory_api::wire::decode(body.clone()).unwrap();
            let mut violations = Violations::of(INVENTORY);
            let event = violations.event(request.event_id).unwrap();
            let qty = request.qty as u32;
            let question = Question::Availability { qty, section: None };
            let effects = &mut shard.effects;
            let found = shard
                .coordinator
                .known(&event, &question, Micros(now), effects);
            let Some(Found::Units { available, .. }) = found else {
                panic!("{found:?} at {now}");
            };
            shard.reply(&CheckRes {
                available,
                unavailable_seats: Vec::new(),
            });
            if !shard.effects.is_empty() {
                shard.effects.clear();
                shard.serve_reads(now);
            }
        }
    });
    assert!(shard.coordinator.counters().snapshot_refreshes > 3);
}
