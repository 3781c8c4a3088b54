//! Confirmation counters: commits of holds add to one per transaction, and lanes to different ones.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;

use super::tests::{SETTINGS, at, drain, one_stripe, sent};
use super::*;
use crate::membership::{Member, ProcessId};
use crate::operation::{Selection, Verb};
use crate::time::UnixMillis;
use crate::transaction::{ActionOutcome, StripeView, Transaction};

fn event() -> EventId {
    "evt".parse().expect("legal")
}

fn operation(verb: Verb, n: u64) -> Operation {
    let reservation = format!("r{n}").parse().expect("legal");
    let selection = Selection::Quantity(2);
    Operation {
        hold_until: (verb == Verb::Hold).then_some(UnixMillis(60_000)),
        ..Operation::new(verb, reservation, event(), selection, Micros(9_000_000))
    }
}

/// A shard of this process with so many holds in its cache, of an event with 12 stripes.
fn shard_with_holds(process: u64, holds: u64) -> Engine {
    let cache_for = Micros(9_000_000);
    let settings = EngineSettings { cache_capacity: 1_000, cache_for, ..SETTINGS };
    let mut shard = Engine::new(settings, SmallRng::seed_from_u64(process));
    let member = |id| Member { id: ProcessId(id), shards: 1 };
    let members = Members::new(member(process), [member(1), member(2), member(3)]);
    shard.handle_membership(Rc::new(members), at(0));
    let stripe = |index| StripeView {
        capacity: 1_000,
        remaining: 1_000,
        stripes: (index == 0).then_some(12),
        ..one_stripe(0)
    };
    let read = StripesRead::Found((0..12).map(stripe).collect());
    shard.handle_stripes_read(&event(), &read, at(0));
    for n in 0..holds {
        shard.handle_call(CallId(n), operation(Verb::Hold, n), at(0));
    }
    assert!(settle(&mut shard).iter().all(|sent| sent.counter.is_none()));
    shard
}

/// Settles everything as committed, and returns what was sent.
fn settle(shard: &mut Engine) -> Vec<Transaction> {
    let mut all = Vec::new();
    let mut ms = 0;
    loop {
        let mut fx = Vec::new();
        drain(shard, &mut fx);
        let transactions = sent(&fx);
        match shard.poll_timeout() {
            None if transactions.is_empty() => return all,
            Some(due) if transactions.is_empty() => shard.handle_timeout(at(due.0)),
            _ => {}
        }
        ms += 1;
        for (lane, transaction) in transactions {
            all.push(transaction);
            shard.handle_transaction_outcome(lane, TransactionOutcome::Committed, at(ms));
        }
    }
}

/// The counters of the transactions that are sent first, one of each lane.
fn counters_of(shard: &mut Engine) -> BTreeSet<u16> {
    for n in 0..4 {
        shard.handle_call(CallId(1_000 + n), operation(Verb::Commit, n), at(9_000));
    }
    let mut fx = Vec::new();
    drain(shard, &mut fx);
    sent(&fx).iter().filter_map(|(_, sent)| Some(sent.counter?.counter)).collect()
}

#[test]
fn full_transaction_has_ninety_nine_commits_of_holds_and_one_counter() {
    let mut shard = shard_with_holds(1, 300);
    for n in 0..300 {
        shard.handle_call(CallId(1_000 + n), operation(Verb::Commit, n), at(9_000));
    }
    let all = settle(&mut shard);
    for sent in &all {
        let units: u64 = sent.records.iter().map(|write| u64::from(write.qty)).sum();
        assert_eq!(sent.counter.map(|counter| counter.units), Some(units));
        assert!(sent.stripes.is_empty(), "{:?}", sent.stripes);
        assert!(sent.action_count() <= limits::TRANSACTION_ACTIONS_MAX);
    }
    let largest = all.iter().map(|sent| sent.records.len()).max();
    assert_eq!(largest, Some(limits::TRANSACTION_ACTIONS_MAX - 1));
    assert_eq!(all.iter().map(|sent| sent.records.len()).sum::<usize>(), 300);
}

#[test]
fn lanes_of_all_processes_use_different_counters() {
    let mut all = BTreeSet::new();
    for process in 1..=3 {
        let counters = counters_of(&mut shard_with_holds(process, 4));
        assert_eq!(counters.len(), 4, "one for each lane");
        all.extend(counters);
    }
    assert_eq!(all.len(), 12, "{all:?}");
}

#[test]
fn lane_leaves_a_counter_that_conflicts() {
    let mut shard = shard_with_holds(1, 1);
    shard.handle_call(CallId(9), operation(Verb::Commit, 0), at(9_000));
    let mut last = BTreeMap::new();
    let (mut repeats, mut now) = (0, 9_000);
    // Each of the four lanes gets the commit more than once.
    for round in 0..12 {
        let mut fx = Vec::new();
        drain(&mut shard, &mut fx);
        while sent(&fx).is_empty() {
            // The lane pauses, or leaves the queue to another.
            now = now.max(shard.poll_timeout().expect("a pause").0);
            shard.handle_timeout(at(now));
            drain(&mut shard, &mut fx);
        }
        let [(lane, transaction)] = &sent(&fx)[..] else { panic!("{fx:?}") };
        let counter = transaction.counter.expect("a hold is confirmed").counter;
        if let Some(before) = last.insert(lane.lane, counter) {
            repeats += 1;
            assert_ne!(before, counter, "lane {}", lane.lane);
        }
        // The item of an edited counter may not be a number.
        let reason = [ActionOutcome::Conflict, ActionOutcome::Invalid][round % 2].clone();
        let outcome = TransactionOutcome::Cancelled(vec![ActionOutcome::Fine, reason]);
        now += 1_000;
        shard.handle_transaction_outcome(*lane, outcome, at(now));
    }
    assert!(repeats > 4, "{repeats}");
}
