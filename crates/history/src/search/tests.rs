//! The search against histories of registers, against another checker, and against its bound.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History as TodcHistory};
use todc_utils::specifications::Specification;

use super::*;
use crate::rules::SEARCH_STEPS_MAX;

/// A register of small numbers.
struct Register;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RegisterOp {
    Write(u8),
    /// Writes the second number if the register has the first.
    Swap(u8, u8),
    Read(u8),
}

impl SequentialModel for Register {
    type State = u8;
    type Op = RegisterOp;

    fn initial(&self) -> u8 {
        0
    }

    fn answered(&self, state: &u8, op: &RegisterOp) -> Option<u8> {
        match *op {
            RegisterOp::Write(value) => Some(value),
            RegisterOp::Swap(old, new) => (old == *state).then_some(new),
            RegisterOp::Read(value) => (value == *state).then_some(value),
        }
    }

    fn only_reads(&self, op: &RegisterOp) -> bool {
        matches!(op, RegisterOp::Read(_))
    }

    fn effect(&self, state: &u8, op: &RegisterOp) -> u8 {
        match *op {
            RegisterOp::Write(value) => value,
            RegisterOp::Swap(old, new) if old == *state => new,
            _ => *state,
        }
    }
}

fn call(started: u64, ended: impl Into<Option<u64>>, op: RegisterOp) -> TimedOp<RegisterOp> {
    let ended = ended.into().map(Duration::from_millis);
    TimedOp { started: Duration::from_millis(started), ended, op }
}

fn verdict(calls: &[TimedOp<RegisterOp>]) -> SearchVerdict {
    linearize(&Register, calls, SEARCH_STEPS_MAX)
}

use RegisterOp::{Read, Swap, Write};
use SearchVerdict::{Linearizable, NotDecided, NotLinearizable};

#[test]
fn order_of_calls_that_do_not_overlap_is_kept() {
    let calls = [call(0, 1, Write(1)), call(2, 3, Write(2)), call(4, 5, Read(1))];
    assert_eq!(verdict(&calls), NotLinearizable);
    let calls = [call(0, 3, Write(1)), call(2, 3, Write(2)), call(4, 5, Read(1))];
    assert_eq!(verdict(&calls), Linearizable);
    // Calls that touch overlap.
    let calls = [call(0, 2, Write(1)), call(2, 3, Write(2)), call(4, 5, Read(1))];
    assert_eq!(verdict(&calls), Linearizable);
}

#[test]
fn overlapping_writes_take_effect_in_any_order_but_only_in_one() {
    let writes = [call(0, 20, Write(1)), call(1, 20, Write(2)), call(2, 20, Write(3))];
    let reads = [call(3, 4, Read(3)), call(5, 6, Read(2)), call(7, 8, Read(1))];
    assert_eq!(verdict(&[writes.as_slice(), &reads].concat()), Linearizable);
    let again = [call(9, 10, Read(3))];
    assert_eq!(verdict(&[writes.as_slice(), &reads, &again].concat()), NotLinearizable);
}

#[test]
fn unanswered_call_takes_effect_late_or_never_but_not_before_its_start() {
    let write = call(2, None, Write(1));
    assert_eq!(verdict(std::slice::from_ref(&write)), Linearizable);
    assert_eq!(verdict(&[write.clone(), call(100, 101, Read(1))]), Linearizable);
    assert_eq!(verdict(&[write.clone(), call(100, 101, Read(0))]), Linearizable);
    assert_eq!(verdict(&[write.clone(), call(0, 1, Read(1))]), NotLinearizable);
    let back = [write, call(3, 4, Read(1)), call(5, 6, Read(0))];
    assert_eq!(verdict(&back), NotLinearizable);
}

#[test]
fn no_calls_have_an_order() {
    assert_eq!(verdict(&[]), Linearizable);
}

#[test]
fn shortest_prefix_ends_with_the_first_answer_that_has_no_order() {
    let mut calls = vec![call(0, 1, Write(1)), call(2, 3, Read(1)), call(4, 5, Read(2))];
    calls.extend((0..20).map(|n| call(10 + 2 * n, 11 + 2 * n, Write(3))));
    let (shown, last) = shortest_prefix(&Register, &calls, SEARCH_STEPS_MAX);
    assert_eq!((shown, last), (vec![0, 2], 2), "the first read is not needed");
}

/// 200 calls that all overlap.
fn overlapping(op: impl Fn(u64) -> RegisterOp) -> Vec<TimedOp<RegisterOp>> {
    (0..200).map(|n| call(n, 1000 + n, op(n))).collect()
}

#[test]
fn two_hundred_overlapping_retries_are_decided_within_a_second() {
    let started = std::time::Instant::now();
    let mut calls = overlapping(|_| Swap(0, 1));
    calls[0].ended = None;
    // One swap only finds the 0.
    assert_eq!(verdict(&calls), NotLinearizable);
    let mut unanswered = calls.clone();
    unanswered.iter_mut().for_each(|call| call.ended = None);
    unanswered.push(call(2000, 2001, Read(2)));
    assert_eq!(verdict(&unanswered), NotLinearizable);
    let mut writes = overlapping(|_| Write(1));
    writes.push(call(2000, 2001, Read(2)));
    assert_eq!(verdict(&writes), NotLinearizable);
    let mut reads = overlapping(|n| Read((n % 2) as u8));
    reads.push(call(0, 3000, Write(1)));
    assert_eq!(verdict(&reads), Linearizable);
    reads.push(call(2000, 2001, Read(0)));
    assert_eq!(verdict(&reads), NotLinearizable);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn search_that_is_too_long_is_not_decided() {
    let started = std::time::Instant::now();
    // Each subset of the writes leads to another set of calls that are left, and none to a 99.
    let mut calls = overlapping(|n| Write(n as u8));
    calls.push(call(2000, 2001, Read(201)));
    assert_eq!(verdict(&calls), NotDecided);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(linearize(&Register, &[call(0, 1, Write(1))], 0), NotDecided);
}

/// The register in the form of `todc-utils`. Its histories are complete: a call without an answer gets one at the end,
/// where its effect is not seen any more.
struct TodcRegister;

#[derive(Clone, Copy, Debug)]
struct TodcOp {
    op: RegisterOp,
    is_answered: bool,
}

impl Specification for TodcRegister {
    type State = u8;
    type Operation = TodcOp;

    fn init() -> u8 {
        Register.initial()
    }

    fn apply(of: &TodcOp, state: &u8) -> (bool, u8) {
        if !of.is_answered {
            return (true, Register.effect(state, &of.op));
        }
        match Register.answered(state, &of.op) {
            Some(next) => (true, next),
            None => (false, *state),
        }
    }
}

fn todc_accepts(calls: &[TimedOp<RegisterOp>]) -> bool {
    // At one instant starts precede ends: calls that touch overlap.
    let mut actions = Vec::new();
    for (process, call) in calls.iter().enumerate() {
        let op = TodcOp { op: call.op, is_answered: call.ended.is_some() };
        actions.push((call.started, 0, (process, Action::Call(op))));
        let end = call.ended.unwrap_or(Duration::MAX);
        actions.push((end, 1, (process, Action::Response(op))));
    }
    actions.sort_by_key(|(at, order, (process, _))| (*at, *order, *process));
    WGLChecker::<TodcRegister>::is_linearizable(TodcHistory::from_actions(
        actions.into_iter().map(|(.., action)| action).collect(),
    ))
}

fn register_calls() -> impl Strategy<Value = Vec<TimedOp<RegisterOp>>> {
    let op = prop_oneof![
        (0..3_u8).prop_map(Write),
        (0..3_u8, 0..3_u8).prop_map(|(old, new)| Swap(old, new)),
        (0..3_u8).prop_map(Read),
    ];
    let one = (0..30_u64, 1..12_u64, prop::bool::weighted(0.2), op);
    let one =
        one.prop_map(|(at, length, is_lost, op)| call(at, (!is_lost).then_some(at + length), op));
    prop::collection::vec(one, 1..9)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn verdict_and_shortest_prefix_are_right_by_another_checker(calls in register_calls()) {
        if todc_accepts(&calls) {
            prop_assert_eq!(verdict(&calls), Linearizable);
            return Ok(());
        }
        prop_assert_eq!(verdict(&calls), NotLinearizable);
        let (shown, last) = shortest_prefix(&Register, &calls, SEARCH_STEPS_MAX);
        let until = calls[last].ended.unwrap();
        let prefix: Vec<_> = shown
            .iter()
            .map(|at| TimedOp { ended: calls[*at].ended.filter(|end| *end <= until), ..calls[*at] })
            .collect();
        prop_assert!(!todc_accepts(&prefix));
        let distinct: BTreeSet<_> = shown.iter().collect();
        prop_assert!(distinct.len() == shown.len() && shown.contains(&last));
        // Without the answer that ends the prefix, the rest has an order.
        let before: Vec<_> = prefix
            .iter()
            .map(|call| TimedOp { ended: call.ended.filter(|end| *end < until), ..*call })
            .collect();
        prop_assert!(todc_accepts(&before));
    }
}
