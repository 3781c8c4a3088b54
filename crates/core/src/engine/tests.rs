//! Concurrent calls on one shard and across shards; each test scripts the answers of the store.

use std::collections::VecDeque;

use rand::SeedableRng;

use super::*;
use crate::ids::Fingerprint;
use crate::operation::{RecordExpectation, Selection, Verb};
use crate::rules;
use crate::time::UnixMillis;
use crate::transaction::{
    ActionOutcome, RecordsRead, ReservationState, StripeAllocation, StripeUpdate, StripeView,
    Transaction,
};

pub(super) const SETTINGS: EngineSettings = EngineSettings {
    shard: 0,
    shards: 1,
    cache_capacity: 0,
    cache_for: Micros(0),
    late_commit: LateCommit::Reacquire,
    sold_out_latch: Micros::from_millis(50),
    read_staleness: Micros(0),
    attempt_timeout: Micros::from_millis(200),
};

pub(super) fn at(mono: u64) -> Now {
    Now { mono: Micros(mono), unix: UnixMillis(0) }
}

pub(super) fn commit(reservation: &str, event: &str, qty: u32) -> Operation {
    let (reservation, event) = (reservation.parse(), event.parse());
    let (reservation, event) = (reservation.expect("legal"), event.expect("legal"));
    let selection = Selection::Quantity(qty);
    Operation::new(Verb::Commit, reservation, event, selection, Micros(1_000_000))
}

pub(super) fn one_stripe(remaining: u64) -> StripeView {
    StripeView {
        capacity: 100,
        remaining,
        version: 1,
        stripes: Some(1),
        confirmed_holds: Some(0),
        ..StripeView::default()
    }
}

pub(super) fn engine(shard: usize, shards: usize) -> Engine {
    let settings = EngineSettings { shard, shards, ..SETTINGS };
    Engine::new(settings, SmallRng::seed_from_u64(shard as u64))
}

/// Moves the engine's effects to the end of `fx`.
pub(super) fn drain(engine: &mut Engine, fx: &mut Vec<Effect>) {
    fx.extend(std::iter::from_fn(|| engine.poll_effect()));
}

/// Lets all effects happen at once, between shards too; every transaction commits, and there are no records but
/// `record`. Returns the calls answered.
fn settle_all(
    shards: &mut [Engine],
    first: Vec<(usize, Effect)>,
    record: Option<&RecordView>,
) -> Vec<CallId> {
    let mut effects = VecDeque::from(first);
    let mut answered = Vec::new();
    loop {
        let Some((on, effect)) = effects.pop_front() else {
            // Reads of records wait for others to join them.
            for (on, shard) in shards.iter_mut().enumerate() {
                let mut fx = Vec::new();
                shard.handle_timeout(at(100_000));
                drain(shard, &mut fx);
                effects.extend(fx.into_iter().map(|effect| (on, effect)));
            }
            if effects.is_empty() {
                return answered;
            }
            continue;
        };
        let mut fx = Vec::new();
        let mut to = on;
        match effect {
            Effect::Answer { call, .. } => answered.push(call),
            Effect::AnswerForwarded { shard, event, reservation, answer, record } => {
                to = shard;
                shards[to].handle_forward_outcome(&event, &reservation, answer, record, at(1));
                drain(&mut shards[to], &mut fx);
            }
            Effect::Transact { lane, .. } => {
                shards[on].handle_transaction_outcome(lane, TransactionOutcome::Committed, at(1));
                drain(&mut shards[on], &mut fx);
            }
            Effect::ReadStripes { event, .. } => {
                let read = StripesRead::Found(vec![one_stripe(100)]);
                shards[on].handle_stripes_read(&event, &read, at(1));
                drain(&mut shards[on], &mut fx);
            }
            Effect::Forward { shard, layout, operation, hint } => {
                to = shard;
                shards[to].handle_forwarded_call(on, operation, layout, hint, at(1));
                drain(&mut shards[to], &mut fx);
            }
            Effect::AnswerQuery { call, .. } => answered.push(call),
            Effect::ReadRecords { read, reservations } => {
                let found = reservations.iter().map(|_| Ok(record.cloned())).collect();
                shards[on].handle_records_read(read, &RecordsRead::Found(found), at(1));
                drain(&mut shards[on], &mut fx);
            }
            other => panic!("unexpected effect {other:?}"),
        }
        effects.extend(fx.into_iter().map(|effect| (to, effect)));
    }
}

#[test]
fn reservation_used_with_two_events_gets_two_answers() {
    // Events enough that some pair is owned crosswise: each shard forwards its own to the other.
    for (one, other) in (0..8).flat_map(|one| (0..8).map(move |other| (one, other + 8))) {
        let mut shards = [engine(0, 2), engine(1, 2)];
        let mut effects = Vec::new();
        for (shard, event) in [(0, format!("evt-{one}")), (1, format!("evt-{other}"))] {
            let mut fx = Vec::new();
            let call = CallId(shard as u64);
            shards[shard].handle_call(call, commit("r", &event, 1), at(0));
            drain(&mut shards[shard], &mut fx);
            effects.extend(fx.into_iter().map(|effect| (shard, effect)));
        }
        let mut answered = settle_all(&mut shards, effects, None);
        answered.sort_unstable_by_key(|call| call.0);
        assert_eq!(answered, [CallId(0), CallId(1)], "evt-{one} and evt-{other}");
        assert!(shards.iter().all(Engine::is_idle));
    }
}

#[test]
fn every_call_counts_as_in_flight_until_it_is_answered() {
    let mut shard = engine(0, 1);
    let mut fx = Vec::new();
    for call in 0..3 {
        shard.handle_call(CallId(call), commit("r", "evt", 1), at(0));
        drain(&mut shard, &mut fx);
    }
    shard.handle_call(CallId(3), commit("r", "evt-2", 1), at(0));
    drain(&mut shard, &mut fx);
    assert_eq!(shard.calls_in_flight(), 4);
    let mut shards = [shard];
    let effects = fx.into_iter().map(|effect| (0, effect)).collect();
    assert_eq!(settle_all(&mut shards, effects, None).len(), 4);
    assert_eq!(shards[0].calls_in_flight(), 0);
}

#[test]
fn waiter_that_joins_after_a_read_began_is_not_rejected_on_it() {
    let settings = EngineSettings { sold_out_latch: Micros(0), ..SETTINGS };
    let mut shard = Engine::new(settings, SmallRng::seed_from_u64(0));
    let mut fx = Vec::new();
    let event: EventId = "evt".parse().expect("legal");
    shard.handle_call(CallId(1), commit("r", "evt", 5), at(0));
    drain(&mut shard, &mut fx);
    // Routing needs the stripe count. Calls that arrive before the transaction is sent may share it.
    shard.handle_call(CallId(2), commit("r", "evt", 5), at(0));
    drain(&mut shard, &mut fx);
    let read = StripesRead::Found(vec![one_stripe(2)]);
    fx.clear();
    shard.handle_stripes_read(&event, &read, at(1));
    drain(&mut shard, &mut fx);
    let [Effect::Transact { lane, .. }] = fx[..] else {
        panic!("expected one transaction, got {fx:?}");
    };
    for call in [3, 4] {
        shard.handle_call(CallId(call), commit("r", "evt", 5), at(2));
        drain(&mut shard, &mut fx);
    }

    let short = || {
        TransactionOutcome::Cancelled(vec![
            ActionOutcome::Stripe(Some(one_stripe(2))),
            ActionOutcome::Fine,
        ])
    };
    fx.clear();
    shard.handle_transaction_outcome(lane, short(), at(3));
    drain(&mut shard, &mut fx);
    assert_eq!(refused_short(&fx), [CallId(1), CallId(2)]);
    // For the two later calls stripes and records are read once more, in one request each.
    assert_eq!(shard.calls_in_flight(), 2);
    assert!(matches!(fx.last(), Some(Effect::ReadStripes { .. })), "{fx:?}");
    fx.clear();
    shard.handle_stripes_read(&event, &read, at(4));
    drain(&mut shard, &mut fx);
    let [Effect::ReadRecords { read: read_id, .. }] = fx[..] else {
        panic!("expected one record read, got {fx:?}");
    };
    fx.clear();
    let none = RecordsRead::Found(vec![Ok(None)]);
    shard.handle_records_read(read_id, &none, at(5));
    drain(&mut shard, &mut fx);
    assert_eq!(refused_short(&fx), [CallId(3), CallId(4)]);
    assert!(shard.is_idle());
}

/// The record is read as expired, and another process confirms it by a late commit before a second release
/// arrives: that release gets an answer of its own.
#[test]
fn late_release_reads_the_record_again_after_a_read_of_an_expired_hold() {
    let mut shard = engine(0, 1);
    let mut fx = Vec::new();
    let event: EventId = "evt".parse().expect("legal");
    let layout = StripesRead::Found(vec![one_stripe(9)]);
    shard.handle_stripes_read(&event, &layout, at(0));
    let release = || Operation {
        verb: Verb::Release,
        expectation: RecordExpectation::Present,
        ..commit("h1", "evt", 2)
    };
    shard.handle_call(CallId(1), release(), at(1));
    shard.handle_call(CallId(2), release(), at(2));
    drain(&mut shard, &mut fx);
    let [Effect::ReadRecords { read, .. }] = fx[..] else {
        panic!("expected one read, got {fx:?}");
    };
    let expired = RecordView { state: ReservationState::Expired, ..hold_of(1, 2).1 };
    fx.clear();
    let found = RecordsRead::Found(vec![Ok(Some(expired))]);
    shard.handle_records_read(read, &found, at(3_000));
    drain(&mut shard, &mut fx);
    let answered = fx.iter().filter_map(|effect| match effect {
        Effect::Answer { call, .. } => Some(*call),
        _ => None,
    });
    assert_eq!(answered.collect::<Vec<_>>(), [CallId(1)]);
    let reads = |effect: &Effect| matches!(effect, Effect::ReadRecords { .. });
    assert_eq!(fx.iter().filter(|effect| reads(effect)).count(), 1);
}

/// The first read is sent at once. Records requested soon after wait for the batching delay, or until there are many.
#[test]
fn record_reads_that_follow_each_other_are_batched() {
    let mut shard = engine(0, 1);
    let event: EventId = "evt".parse().expect("legal");
    shard.handle_stripes_read(&event, &StripesRead::Found(vec![one_stripe(9)]), at(0));
    let mut next = 0;
    let mut release = |shard: &mut Engine, now: Now| {
        next += 1;
        let call = commit(&format!("h{next}"), "evt", 2);
        let call =
            Operation { verb: Verb::Release, expectation: RecordExpectation::Present, ..call };
        shard.handle_call(CallId(next), call, now);
    };
    let sent = |shard: &mut Engine| -> Vec<usize> {
        let mut fx = Vec::new();
        drain(shard, &mut fx);
        let read = |effect: &Effect| match effect {
            Effect::ReadRecords { reservations, .. } => Some(reservations.len()),
            _ => None,
        };
        fx.iter().filter_map(read).collect()
    };
    release(&mut shard, at(0));
    assert_eq!(sent(&mut shard), [1]);
    for now in [1, 2, 1_999] {
        release(&mut shard, at(now));
        assert_eq!(sent(&mut shard), [] as [usize; 0]);
        assert_eq!(shard.poll_timeout(), Some(Micros(2_000)));
    }
    shard.handle_timeout(at(2_000));
    assert_eq!(sent(&mut shard), [3]);
    for _ in 0..limits::BATCHING_DELAY_ENTRIES_MAX {
        release(&mut shard, at(2_001));
    }
    assert_eq!(sent(&mut shard), [limits::BATCHING_DELAY_ENTRIES_MAX]);

    // With several processes each of them has fewer calls, and waits longer.
    let mut shard = engine(0, 1);
    shard.handle_stripes_read(&event, &StripesRead::Found(vec![one_stripe(9)]), at(0));
    let member = |id| crate::membership::Member { id: crate::membership::ProcessId(id), shards: 1 };
    shard.handle_membership(Members::new(member(1), [member(2), member(3)]).into(), at(10_000));
    release(&mut shard, at(20_000));
    assert_eq!(sent(&mut shard), [1]);
    release(&mut shard, at(20_001));
    assert_eq!(sent(&mut shard), [] as [usize; 0]);
    assert_eq!(shard.poll_timeout(), Some(Micros(26_000)));
}

/// "Sold out" from a failed condition is reused for calls that arrive soon after, once their records were read.
#[test]
fn sold_out_latch_rejects_early_calls_and_later_calls_read_again() {
    let mut shard = engine(0, 1);
    let mut fx = Vec::new();
    let event: EventId = "evt".parse().expect("legal");
    let read = StripesRead::Found(vec![one_stripe(2)]);
    shard.handle_stripes_read(&event, &read, at(0));
    drain(&mut shard, &mut fx);
    shard.handle_call(CallId(1), commit("r1", "evt", 5), at(0));
    drain(&mut shard, &mut fx);
    let lane = sent(&fx)[0].0;
    let short = TransactionOutcome::Cancelled(vec![
        ActionOutcome::Stripe(Some(one_stripe(2))),
        ActionOutcome::Fine,
    ]);
    fx.clear();
    shard.handle_transaction_outcome(lane, short, at(3));
    drain(&mut shard, &mut fx);
    assert_eq!(refused_short(&fx), [CallId(1)]);

    let soon = at(limits::SOLD_OUT_LATCH_DEFAULT.as_micros() as u64);
    let earlier = at(soon.mono.0 / 2);
    for (call, record, now) in [(2, None, earlier), (3, Some(hold_of(0, 5).1), soon)] {
        fx.clear();
        let buyer = commit(&format!("r{call}"), "evt", 5);
        shard.handle_call(CallId(call), buyer, now);
        drain(&mut shard, &mut fx);
        let [Effect::ReadRecords { read: read_id, .. }] = fx[..] else {
            panic!("expected a record read and no write, got {fx:?}");
        };
        fx.clear();
        let read = RecordsRead::Found(vec![Ok(record.clone())]);
        shard.handle_records_read(read_id, &read, now);
        drain(&mut shard, &mut fx);
        // A call whose copy has bought the units is not rejected.
        let rejected = if record.is_none() { vec![CallId(call)] } else { vec![] };
        assert_eq!(refused_short(&fx), rejected, "{fx:?}");
    }

    // A later call reads by itself, and writes nothing either.
    let late = at(soon.mono.0 + 1);
    fx.clear();
    // A hold: a commit would be looked at first, now that one was found to be of a hold.
    let holder = Operation {
        verb: Verb::Hold,
        hold_until: Some(UnixMillis(60_000)),
        ..commit("r4", "evt", 5)
    };
    shard.handle_call(CallId(4), holder, late);
    drain(&mut shard, &mut fx);
    assert!(matches!(fx[..], [Effect::ReadStripes { .. }]), "{fx:?}");
    // An operator has changed the event: nothing is known any more.
    shard.handle_event_changed(&event, late);
    fx.clear();
    let more = StripesRead::Found(vec![one_stripe(50)]);
    shard.handle_stripes_read(&event, &more, late);
    drain(&mut shard, &mut fx);
    assert_eq!(sent(&fx).len(), 1, "{fx:?}");
}

/// What was looked up before the shortage was seen does not count: a copy of the call may have been what
/// made it short.
#[test]
fn record_is_read_after_the_shortage_was_found() {
    let mut shard = engine(0, 1);
    let mut fx = Vec::new();
    let event: EventId = "evt".parse().expect("legal");
    let read = StripesRead::Found(vec![one_stripe(2)]);
    shard.handle_stripes_read(&event, &read, at(0));
    drain(&mut shard, &mut fx);
    shard.handle_call(CallId(1), commit("r1", "evt", 5), at(0));
    drain(&mut shard, &mut fx);
    let lane = sent(&fx)[0].0;
    let second = Operation { expectation: RecordExpectation::Present, ..commit("r2", "evt", 5) };
    fx.clear();
    shard.handle_call(CallId(2), second, at(1));
    drain(&mut shard, &mut fx);
    let [Effect::ReadRecords { read: read_id, .. }] = fx[..] else {
        panic!("expected a record read, got {fx:?}");
    };
    let empty = StripeView { remaining: 0, ..one_stripe(2) };
    let short = TransactionOutcome::Cancelled(vec![
        ActionOutcome::Stripe(Some(empty)),
        ActionOutcome::Fine,
    ]);
    fx.clear();
    shard.handle_transaction_outcome(lane, short, at(3));
    drain(&mut shard, &mut fx);

    let none = RecordsRead::Found(vec![Ok(None)]);
    fx.clear();
    shard.handle_records_read(read_id, &none, at(4_000));
    drain(&mut shard, &mut fx);
    let [Effect::ReadRecords { read: read_id, .. }] = fx[..] else {
        panic!("expected another record read, got {fx:?}");
    };
    fx.clear();
    shard.handle_records_read(read_id, &none, at(5_000));
    drain(&mut shard, &mut fx);
    let rejected = Answer::Rejected(Rejection::InsufficientInventory { remaining: 0 });
    assert!(matches!(&fx[..], [Effect::Answer { answer, .. }] if *answer == rejected), "{fx:?}");
}

#[test]
fn commit_reads_its_record_first_after_one_found_a_hold() {
    let mut shard = engine(0, 1);
    let mut fx = Vec::new();
    for event in ["evt", "other"] {
        let read = StripesRead::Found(vec![one_stripe(100)]);
        let event = event.parse().expect("legal");
        shard.handle_stripes_read(&event, &read, at(0));
        drain(&mut shard, &mut fx);
    }
    shard.handle_call(CallId(1), commit("r1", "evt", 2), at(0));
    drain(&mut shard, &mut fx);
    let lane = sent(&fx)[0].0;
    let held = RecordView {
        fingerprint: commit("r1", "evt", 2).fingerprint,
        expires_at: Some(UnixMillis(60_000)),
        ..hold_of(1, 2).1
    };
    let was_held =
        TransactionOutcome::Cancelled(vec![ActionOutcome::Fine, ActionOutcome::Record(held)]);
    fx.clear();
    shard.handle_transaction_outcome(lane, was_held, at(1));
    drain(&mut shard, &mut fx);
    let [(lane, transaction)] = &sent(&fx)[..] else {
        panic!("expected the hold to be confirmed, got {fx:?}");
    };
    assert!(transaction.stripes.is_empty(), "its units are its own");
    let lane = *lane;
    fx.clear();
    shard.handle_transaction_outcome(lane, TransactionOutcome::Committed, at(2));
    drain(&mut shard, &mut fx);

    fx.clear();
    shard.handle_call(CallId(2), commit("r2", "evt", 2), at(3));
    drain(&mut shard, &mut fx);
    let [Effect::ReadRecords { read: read_id, .. }] = fx[..] else {
        panic!("expected a record read, got {fx:?}");
    };
    fx.clear();
    shard.handle_call(CallId(3), commit("r3", "other", 2), at(3));
    drain(&mut shard, &mut fx);
    assert_eq!(sent(&fx).len(), 1, "another event is another matter: {fx:?}");
    let none = RecordsRead::Found(vec![Ok(None)]);
    fx.clear();
    shard.handle_records_read(read_id, &none, at(4));
    drain(&mut shard, &mut fx);
    assert_eq!(sent(&fx).len(), 1, "it was direct after all: {fx:?}");
    fx.clear();
    shard.handle_call(CallId(4), commit("r4", "evt", 2), at(5));
    drain(&mut shard, &mut fx);
    let looks = fx.iter().any(|e| matches!(e, Effect::ReadRecords { .. }));
    assert!(!looks, "one of each: {fx:?}");
}

fn refused_short(fx: &[Effect]) -> Vec<CallId> {
    let short = |effect: &Effect| match effect {
        Effect::Answer {
            call,
            answer: Answer::Rejected(Rejection::InsufficientInventory { remaining: 2 }),
            ..
        } => Some(*call),
        _ => None,
    };
    fx.iter().filter_map(short).collect()
}

#[test]
fn sweep_evicts_only_idle_lanes() {
    let mut shards = [engine(0, 1)];
    // More events at once than idle lanes are kept, twice, so that the first are idle the second time.
    for round in 0..2 {
        let mut effects = Vec::new();
        for n in 0..1_500 {
            let mut fx = Vec::new();
            let event = format!("evt-{round}-{n}");
            let reservation = format!("r-{round}-{n}");
            let call = CallId(1_000_000 + n);
            shards[0].handle_call(call, commit(&reservation, &event, 1), at(0));
            drain(&mut shards[0], &mut fx);
            effects.extend(fx.into_iter().map(|effect| (0, effect)));
        }
        assert_eq!(settle_all(&mut shards, effects, None).len(), 1_500);
        assert!(shards[0].is_idle());
    }
}

fn hold_of(n: u64, units: u32) -> (ReservationId, RecordView) {
    let event: EventId = "evt".parse().expect("legal");
    let record = RecordView {
        fingerprint: Fingerprint::of_quantity(&event, units),
        state: ReservationState::Held,
        order: None,
        payment: None,
        qty: units,
        draws: smallvec::smallvec![StripeAllocation { stripe: 0, units }],
        seats: None,
        expires_at: Some(UnixMillis(5)),
        counted: true,
        at: UnixMillis(0),
    };
    (format!("h{n}").parse().expect("legal"), record)
}

pub(super) fn sent(fx: &[Effect]) -> Vec<(LaneId, Transaction)> {
    let sent = fx.iter().filter_map(|effect| match effect {
        Effect::Transact { lane, transaction, .. } => Some((*lane, (**transaction).clone())),
        _ => None,
    });
    sent.collect()
}

/// Units that leave live records and units that come into them, and what the stripe gives for it.
fn balance(transaction: &Transaction) -> i64 {
    let units = |draws: &[StripeAllocation]| draws.iter().map(|d| i64::from(d.units)).sum::<i64>();
    let of =
        transaction.records.iter().map(|write| match rules::stock_change(write.from, write.to) {
            rules::StockChange::Reserve => units(&write.draws),
            rules::StockChange::Return => -units(&write.draws),
            _ => 0,
        });
    let stripes = transaction.stripes.iter();
    let stripes = stripes.map(|s: &StripeUpdate| s.give as i64 - s.take as i64);
    of.sum::<i64>() + stripes.sum::<i64>()
}

#[test]
fn many_expiries_go_to_release_records_and_the_stripe_gets_few_writes() {
    let mut shard = engine(0, 1);
    let event: EventId = "evt".parse().expect("legal");
    let mut fx = Vec::new();
    shard.handle_stripes_read(&event, &StripesRead::Found(vec![one_stripe(0)]), at(0));
    drain(&mut shard, &mut fx);
    let now = Now { mono: Micros(0), unix: UnixMillis(10) };
    let holds = 600;
    for n in 0..holds {
        let (reservation, record) = hold_of(n, 2);
        let deadline = Micros(1_000_000);
        shard.handle_expired_hold(CallId(n), event.clone(), reservation, record, deadline, now);
        drain(&mut shard, &mut fx);
    }
    let (mut given_back, mut of_stripe, mut done, mut bundles) = (0, 0, 0, 0);
    while !fx.is_empty() {
        let mut next = Vec::new();
        for (lane, transaction) in sent(&fx) {
            assert_eq!(balance(&transaction), 0, "{transaction:?}");
            assert!(transaction.action_count() <= limits::TRANSACTION_ACTIONS_MAX);
            given_back += transaction.stripes.iter().map(|s| s.give).sum::<u64>();
            of_stripe += usize::from(!transaction.stripes.is_empty());
            bundles += usize::from(transaction.stripes.is_empty());
            shard.handle_transaction_outcome(lane, TransactionOutcome::Committed, now);
            drain(&mut shard, &mut next);
        }
        let expired = |e: &&Effect| matches!(e, Effect::Answer { answer: Answer::Expired, .. });
        done += fx.iter().filter(expired).count();
        fx = next;
    }
    assert_eq!(given_back, 2 * holds, "every unit once");
    // Release records are expired without a caller.
    assert!(done >= holds as usize, "{done}");
    assert!(bundles >= 6 && of_stripe < 40, "{bundles} bundles, {of_stripe} for the stripe");
    assert!(shard.is_idle());
}

#[test]
fn expiry_batch_drops_a_hold_that_was_confirmed_meanwhile() {
    let shape = EventLayout { stripes: 1, seat_keys: 0, closed: false };
    let mut shard = engine(0, 1);
    let mut fx = Vec::new();
    let event: EventId = "evt".parse().expect("legal");
    shard.handle_stripes_read(&event, &StripesRead::Found(vec![one_stripe(0)]), at(0));
    drain(&mut shard, &mut fx);
    let now = Now { mono: Micros(0), unix: UnixMillis(10) };
    for n in 0..60 {
        let (reservation, record) = hold_of(n, 1);
        shard.handle_expired_hold(
            CallId(n),
            event.clone(),
            reservation,
            record,
            Micros(9_999),
            now,
        );
        drain(&mut shard, &mut fx);
    }
    // The first expiry batch has one entry; the second has those that were queued meanwhile.
    let is_bundle = |t: &Transaction| t.stripes.is_empty() && t.records.len() > 1;
    let (mut lane, mut bundle) = sent(&fx).into_iter().find(|(_, t)| is_bundle(t)).expect("one");
    fx.clear();
    for _ in 0..2 {
        if bundle.records.len() < 4 {
            shard.handle_transaction_outcome(lane, TransactionOutcome::Committed, now);
            drain(&mut shard, &mut fx);
            let next = sent(&fx).into_iter().find(|(l, t)| *l == lane && is_bundle(t));
            (lane, bundle) = next.expect("the next bundle of that lane");
            fx.clear();
        }
    }
    let (_, mut confirmed) = hold_of(0, 1);
    confirmed.state = ReservationState::Confirmed;
    let mut reasons = vec![ActionOutcome::Fine; bundle.action_count()];
    reasons[1] = ActionOutcome::Record(confirmed);
    shard.handle_transaction_outcome(lane, TransactionOutcome::Cancelled(reasons), now);
    drain(&mut shard, &mut fx);
    let (_, again) = sent(&fx).into_iter().find(|(l, _)| *l == lane).expect("sent again");
    assert_eq!(again.records.len(), bundle.records.len() - 1);
    assert_eq!(balance(&again), 0);
    assert_eq!(shape.seat_keys, again.seat_keys);
    let left_out = bundle.records[1].reservation();
    assert!(again.records.iter().all(|write| write.reservation() != left_out));
}

/// A release of a hold's units, and a refund of its order's units since a late commit, each on the shard whose stripe
/// the other is about.
#[test]
fn crossing_release_and_refund_do_not_deadlock() {
    let event: EventId = "evt".parse().expect("legal");
    let owner = (0..2).find(|shard| {
        let lanes = Pools::new(*shard, 2, LaneSettings::default());
        lanes.shard_of_seats(&event) == *shard
    });
    let first = owner.expect("one of the two");
    let mut shards = [engine(0, 2), engine(1, 2)];
    let record = |state, stripe| RecordView {
        fingerprint: Fingerprint::of_quantity(&event, 1),
        state,
        order: None,
        payment: None,
        qty: 1,
        draws: [StripeAllocation { stripe, units: 1 }].into_iter().collect(),
        seats: None,
        expires_at: Some(UnixMillis(1_000_000)),
        counted: true,
        at: UnixMillis(0),
    };
    // The owner of stripe 0 releases what was taken from stripe 1, the other one refunds.
    let calls = [
        (first, Verb::Release, record(ReservationState::Held, 1)),
        (1 - first, Verb::Refund, record(ReservationState::Confirmed, 0)),
    ];
    let mut forwards = Vec::new();
    for (shard, verb, record) in calls {
        let mut fx = Vec::new();
        let operation =
            Operation { verb, expectation: RecordExpectation::Present, ..commit("r", "evt", 1) };
        let stripes = StripesRead::Found(vec![one_stripe(5), one_stripe(5)]);
        let at_shard = &mut shards[shard];
        at_shard.handle_call(CallId(shard as u64), operation, at(0));
        drain(at_shard, &mut fx);
        at_shard.handle_stripes_read(&event, &stripes, at(0));
        drain(at_shard, &mut fx);
        let read_id = fx.iter().find_map(|effect| match effect {
            Effect::ReadRecords { read: read_id, .. } => Some(*read_id),
            _ => None,
        });
        let read = RecordsRead::Found(vec![Ok(Some(record))]);
        fx.clear();
        at_shard.handle_records_read(read_id.expect("it looks first"), &read, at(0));
        drain(at_shard, &mut fx);
        assert!(matches!(fx[..], [Effect::Forward { .. }]), "{fx:?}");
        forwards.extend(fx.into_iter().map(|effect| (shard, effect)));
    }
    let confirmed = record(ReservationState::Confirmed, 0);
    let answered = settle_all(&mut shards, forwards, Some(&confirmed));
    assert_eq!(answered.len(), 2, "each is answered: {answered:?}");
    assert!(shards.iter().all(Engine::is_idle));
}

/// A release becomes the leader and is forwarded at once, while an expiry that the other shard has forwarded still waits
/// for its turn behind it. The release may wait there for the leader of that expiry.
#[test]
fn forwarded_waiter_does_not_wait_for_a_leader_that_was_forwarded_meanwhile() {
    let event: EventId = "evt".parse().expect("legal");
    let owner = (0..2).find(|shard| {
        Pools::new(*shard, 2, LaneSettings::default()).shard_of_seats(&event) == *shard
    });
    let first = owner.expect("one of the two");
    let settings = EngineSettings {
        shard: first,
        shards: 2,
        cache_capacity: 10,
        cache_for: Micros::from_millis(1_000),
        ..SETTINGS
    };
    let mut shard = Engine::new(settings, SmallRng::seed_from_u64(1));
    let held = RecordView {
        fingerprint: Fingerprint::of_quantity(&event, 1),
        state: ReservationState::Held,
        order: None,
        payment: None,
        qty: 1,
        draws: [StripeAllocation { stripe: 1, units: 1 }].into_iter().collect(),
        seats: None,
        expires_at: Some(UnixMillis(1_000_000)),
        counted: true,
        at: UnixMillis(0),
    };
    let mut fx = Vec::new();
    // Of another quantity than the record: rejected once the record is read.
    let known = RecordExpectation::Present;
    let operation = Operation { expectation: known, ..commit("r", "evt", 2) };
    shard.handle_call(CallId(1), operation, at(0));
    let stripes = StripesRead::Found(vec![one_stripe(5), one_stripe(5)]);
    shard.handle_stripes_read(&event, &stripes, at(0));
    drain(&mut shard, &mut fx);
    let read = fx.iter().find_map(|effect| match effect {
        Effect::ReadRecords { read, .. } => Some(*read),
        _ => None,
    });
    let release = Operation { verb: Verb::Release, expectation: known, ..commit("r", "evt", 1) };
    shard.handle_call(CallId(2), release, at(0));
    let reservation = "r".parse().expect("legal");
    let expiry = seats::expiry(event.clone(), reservation, Micros(1_000_000));
    let layout = shard.layouts.get(&event).copied().expect("read");
    let hint = RecordHint::Confirmed(Some(held.clone()));
    shard.handle_forwarded_call(1 - first, expiry, layout, hint, at(0));
    fx.clear();
    let records = RecordsRead::Found(vec![Ok(Some(held))]);
    shard.handle_records_read(read.expect("it looks first"), &records, at(0));
    drain(&mut shard, &mut fx);
    let forwarded = fx.iter().any(|effect| {
        matches!(effect, Effect::Forward { operation, .. } if operation.verb == Verb::Release)
    });
    let ended = fx.iter().any(|effect| {
        let busy = Answer::Rejected(Rejection::store_busy());
        matches!(effect, Effect::AnswerForwarded { answer, .. } if *answer == busy)
    });
    assert!(forwarded && ended, "{fx:?}");
}

/// One hot event uses half of a shard; other events are not affected.
#[test]
fn hot_event_uses_at_most_half_of_a_shard() {
    let mut shard = engine(0, 1);
    let full = |fx: &[Effect]| {
        let is_full = |effect: &Effect| {
            let Effect::Answer { answer, .. } = effect else {
                return false;
            };
            matches!(answer, Answer::Rejected(Rejection::Overloaded { .. }))
        };
        fx.iter().any(is_full)
    };
    // Reads of stripes have a bound of their own: the layouts are read before.
    let mut fx = Vec::new();
    for event in ["hot", "cold", "new"] {
        let read = StripesRead::Found(vec![one_stripe(100)]);
        shard.handle_stripes_read(&event.parse().expect("legal"), &read, at(0));
        drain(&mut shard, &mut fx);
    }
    let mut taken = 0;
    // Calls about records to be looked up first stay in flight, without a bound of their own.
    let look = |n: usize, event: &str| Operation {
        verb: Verb::Release,
        expectation: RecordExpectation::Present,
        ..commit(&format!("{event}-{n}"), event, 1)
    };
    for n in 0..limits::OPERATIONS_IN_FLIGHT_MAX {
        fx.clear();
        shard.handle_call(CallId(n as u64), look(n, "hot"), at(1));
        drain(&mut shard, &mut fx);
        if full(&fx) {
            break;
        }
        taken += 1;
    }
    assert_eq!(taken, limits::OPERATIONS_IN_FLIGHT_MAX / 2);
    for n in 0..limits::OPERATIONS_IN_FLIGHT_MAX / 3 {
        fx.clear();
        shard.handle_call(CallId(n as u64), look(n, "cold"), at(1));
        drain(&mut shard, &mut fx);
        assert!(!full(&fx), "call {n} of another event");
    }
    fx.clear();
    shard.handle_call(CallId(1), look(0, "new"), at(1));
    drain(&mut shard, &mut fx);
    assert!(!full(&fx), "nor is a third rejected");
}
