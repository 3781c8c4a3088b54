//! Lanes, alone and sharing a queue, under any interleaving of submits, outcomes, wake-ups and reads: what the
//! group commit promises to every entry.
//!
//! The store answers correctly from the model, or loses, delays and rejects as the steps say.

mod harness;

use inventory_core::answer::{Answer, Rejection};
use inventory_core::limits;
use inventory_core::operation::Verb;
use inventory_core::rules::LateCommit;
use inventory_core::stripe_ownership::StripeSet;
use inventory_core::transaction::ActionOutcome;
use proptest::prelude::*;

use super::model;
use super::violation::Violation;
use harness::{LaneCall, PoolHarness, StoreFault};

#[derive(Clone, Debug)]
enum LaneStep {
    Submit(LaneCall),
    /// Time passes, in milliseconds; the pool wakes up if its timer is due.
    Pass(u64),
    /// The store answers one of the transactions in flight, if there is one.
    Answer(usize, StoreFault),
    /// The requested read ends, if there is one.
    Read(bool),
    /// Another process sells from a stripe.
    Rival(u16, u64),
    /// Another process expires or releases a hold.
    RivalEnds(usize, bool),
    /// An operator blocks or unblocks a seat.
    Blocks(usize),
    Closes,
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![
        3 => Just(Verb::Hold),
        5 => Just(Verb::Commit),
        2 => Just(Verb::Release),
        1 => Just(Verb::Expire),
        1 => Just(Verb::Refund),
    ]
}

fn step(stripes: u16) -> impl Strategy<Value = LaneStep> {
    let member =
        (
            verb(),
            1_u32..=4,
            prop_oneof![1_u64..40, Just(5_000), Just(5_000)],
            prop_oneof![12 => Just(""), 1 => Just(model::POISON), 1 => Just(model::INVALID)],
            prop::option::of(0_usize..8),
            prop::bool::weighted(0.7),
            prop::bool::weighted(0.2),
        )
            .prop_map(|(verb, qty, patience, prefix, repeated, knows, whatever)| {
                LaneCall { verb, qty, patience, prefix, repeated, knows, whatever }
            });
    prop_oneof![
        24 => member.prop_map(LaneStep::Submit),
        8 => (0_u64..250).prop_map(LaneStep::Pass),
        16 => (0_usize..8, fault()).prop_map(|(which, fault)| LaneStep::Answer(which, fault)),
        8 => any::<bool>().prop_map(LaneStep::Read),
        4 => (0..stripes, 0_u64..4).prop_map(|(stripe, units)| LaneStep::Rival(stripe, units)),
        4 => (0_usize..20, any::<bool>()).prop_map(|(which, over)| LaneStep::RivalEnds(which, over)),
        2 => (0_usize..20).prop_map(LaneStep::Blocks),
        1 => prop::bool::weighted(0.2).prop_map(|closes| match closes {
            true => LaneStep::Closes,
            false => LaneStep::Pass(1),
        }),
    ]
}

/// New calls only, and a store that is late, busy or silent but has stock for all of them.
fn step_of_a_crowd() -> impl Strategy<Value = LaneStep> {
    let member = (1_u32..=4, prop_oneof![1_u64..40, Just(5_000)])
        .prop_map(|(qty, patience)| LaneCall { patience, ..LaneCall::patient(qty) });
    let fault = prop_oneof![
        6 => Just(StoreFault::None),
        1 => Just(StoreFault::LostRequest),
        1 => Just(StoreFault::LostAnswer),
        2 => Just(StoreFault::Conflict),
        1 => Just(StoreFault::Throttled),
        1 => any::<u64>().prop_map(StoreFault::Meddled),
    ];
    prop_oneof![
        16 => member.prop_map(LaneStep::Submit),
        3 => (0_u64..60).prop_map(LaneStep::Pass),
        8 => (0_usize..8, fault).prop_map(|(which, fault)| LaneStep::Answer(which, fault)),
    ]
}

fn fault() -> impl Strategy<Value = StoreFault> {
    prop_oneof![
        8 => Just(StoreFault::None),
        1 => Just(StoreFault::LostRequest),
        1 => Just(StoreFault::LostAnswer),
        1 => Just(StoreFault::Conflict),
        1 => Just(StoreFault::Throttled),
        1 => Just(StoreFault::Refused),
        2 => any::<u64>().prop_map(StoreFault::Meddled),
        1 => Just(StoreFault::Unexplained),
        1 => Just(StoreFault::Garbled),
    ]
}

fn late() -> impl Strategy<Value = LateCommit> {
    prop_oneof![2 => Just(LateCommit::Reacquire), 1 => Just(LateCommit::Reject)]
}

fn run(mut harness: PoolHarness, steps: Vec<LaneStep>) -> Result<(), Violation> {
    for step in steps {
        match step {
            LaneStep::Submit(member) => harness.submit(member)?,
            LaneStep::Pass(ms) => harness.pass(ms)?,
            LaneStep::Answer(which, fault) => harness.answer_one(which, fault)?,
            LaneStep::Read(works) => harness.end_read(works)?,
            LaneStep::Rival(stripe, units) => harness.rival(stripe, units)?,
            LaneStep::RivalEnds(which, over) => harness.rival_ends(which, over)?,
            LaneStep::Blocks(which) => harness.rival_blocks(which),
            LaneStep::Closes => harness.close(),
        }
    }
    harness.rest()
}

fn failed(violation: Violation) -> TestCaseError {
    TestCaseError::fail(violation.0)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|c| c.parse().ok()).unwrap_or(1_500),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_lane_over_one_stripe_keeps_every_promise(
        stock in 0_u64..25,
        late in late(),
        steps in prop::collection::vec(step(1), 1..70),
    ) {
        run(PoolHarness::new(&[stock], 0, late), steps).map_err(failed)?;
    }

    #[test]
    fn a_lane_over_several_stripes_keeps_every_promise(
        stock in prop::collection::vec(0_u64..10, 2..5),
        home in 0_u16..2,
        late in late(),
        steps in prop::collection::vec(step(5), 1..70),
    ) {
        run(PoolHarness::new(&stock, home, late), steps).map_err(failed)?;
    }

    #[test]
    fn lanes_that_share_a_queue_keep_every_promise(
        stock in prop::collection::vec(0_u64..12, 2..9),
        first in 0_u16..2,
        step in 1_u16..3,
        late in late(),
        steps in prop::collection::vec(self::step(9), 1..90),
    ) {
        run(PoolHarness::pooled(&stock, StripeSet::every(first, step), late), steps).map_err(failed)?;
    }

    #[test]
    fn lanes_that_share_a_queue_are_fair(
        stripes in 2_usize..6,
        steps in prop::collection::vec(step_of_a_crowd(), 1..120),
    ) {
        let share = StripeSet::every(0, 1);
        let stock = vec![100_000; stripes];
        let mut harness = PoolHarness::pooled(&stock, share, LateCommit::default()).strictly_in_order();
        // More than one transaction takes; else every order is correct.
        for _ in 0..250 {
            harness.submit(LaneCall::patient(1)).map_err(failed)?;
        }
        run(harness, steps).map_err(failed)?;
    }

    #[test]
    fn a_lane_of_seats_keeps_every_promise(
        seats in 1_usize..25,
        late in late(),
        steps in prop::collection::vec(step(1), 1..70),
    ) {
        run(PoolHarness::seated(seats, late), steps).map_err(failed)?;
    }

    #[test]
    fn rejected_entries_do_not_harm_others(
        batch in prop::collection::vec(prop::bool::weighted(0.1), 2..99),
    ) {
        let mut harness = PoolHarness::new(&[1_000], 0, LateCommit::default());
        // The first entry is sent alone, the others wait and are sent together.
        for poisonous in std::iter::once(&false).chain(&batch) {
            let prefix = if *poisonous { model::POISON } else { "" };
            harness.submit(LaneCall { prefix, ..LaneCall::patient(1) }).map_err(failed)?;
        }
        let sent = harness.answer_all().map_err(failed)?;
        harness.rest().map_err(failed)?;
        for (n, poisonous) in batch.iter().enumerate() {
            let answer = harness.answer_to(n + 1);
            if *poisonous {
                prop_assert_eq!(answer, &Answer::Rejected(Rejection::Internal));
            } else {
                prop_assert!(matches!(answer, Answer::Confirmed { .. }), "{:?}", answer);
            }
        }
        // Halving finds each culprit in at most log2(99) steps of two.
        let culprits = batch.iter().filter(|poisonous| **poisonous).count();
        prop_assert!(sent <= 2 + culprits * 14, "{} sent for {} culprits", sent, culprits);
    }

    #[test]
    fn a_short_stripe_serves_first_come_first_served(
        stock in 0_u64..60,
        qtys in prop::collection::vec(1_u32..=4, 2..99),
    ) {
        let mut harness = PoolHarness::new(&[stock], 0, LateCommit::default());
        for qty in &qtys {
            harness.submit(LaneCall::patient(*qty)).map_err(failed)?;
        }
        harness.answer_all().map_err(failed)?;
        harness.rest().map_err(failed)?;
        // Exactly the entries that are served if each takes what is there in turn.
        let mut left = stock;
        for (n, qty) in qtys.iter().enumerate() {
            let served = u64::from(*qty) <= left;
            left -= if served { u64::from(*qty) } else { 0 };
            let confirmed = matches!(harness.answer_to(n), Answer::Confirmed { .. });
            prop_assert_eq!(confirmed, served, "member {} of {:?}", n, qtys);
        }
    }
}

/// Fills a lane to its bound while one transaction is in flight.
#[test]
fn full_lane_rejects_and_removes_late_entries() {
    let mut harness = PoolHarness::new(&[1_000_000], 0, LateCommit::default());
    harness.submit(LaneCall::patient(1)).unwrap();
    for _ in 0..limits::LANE_QUEUE_MAX {
        let patience = 50;
        let member = LaneCall { patience, ..LaneCall::patient(1) };
        harness.submit(member).unwrap();
    }
    let first_refused = harness.submitted();
    harness.submit(LaneCall::patient(1)).unwrap();
    let overloaded =
        |answer: &Answer| matches!(answer, Answer::Rejected(Rejection::Overloaded { .. }));
    assert!(overloaded(harness.answer_to(first_refused)));
    assert!(harness.depth() <= limits::LANE_QUEUE_MAX + limits::BATCH_ENTRIES_MAX);

    harness.pass(60).unwrap();
    let taken = harness.submitted();
    harness.submit(LaneCall::patient(1)).unwrap();
    assert!(harness.is_waiting(taken), "the others' deadlines have passed");
    harness.answer_all().unwrap();
    harness.rest().unwrap();
}

/// A rejected body is halved until the culprit is alone. These small transactions do not show how fast the queue
/// moves, whether calls wait behind the first of them or a measurement began before them: no call with a second
/// to go is rejected because of them.
#[test]
fn split_does_not_lower_the_measured_rate() {
    for (members, early, late) in [(14, 0, 40), (limits::BATCH_ENTRIES_MAX, 50, 0)] {
        let mut harness = PoolHarness::new(&[1_000], 0, LateCommit::default());
        harness.submit(LaneCall::patient(1)).unwrap();
        let culprit = LaneCall { prefix: model::POISON, ..LaneCall::patient(1) };
        harness.submit(culprit).unwrap();
        for _ in 1..members + early {
            harness.submit(LaneCall::patient(1)).unwrap();
        }
        harness.answer(StoreFault::None).unwrap();
        assert_eq!(harness.members_in_flight(), members);
        for _ in 0..late {
            harness.submit(LaneCall::patient(1)).unwrap();
        }
        while harness.is_waiting(1) {
            harness.pass(50).unwrap();
            harness.answer(StoreFault::None).unwrap();
        }
        for _ in 0..8 {
            harness.pass(50).unwrap();
            harness.answer(StoreFault::None).unwrap();
            for _ in 0..90 {
                let number = harness.submitted();
                let member = LaneCall { patience: 1_000, ..LaneCall::patient(1) };
                harness.submit(member).unwrap();
                assert!(harness.is_waiting(number), "{:?}", harness.answer_to(number));
            }
        }
        harness.rest().unwrap();
    }
}

/// A lane that yields the queue because its stripe collides still returns units to that stripe. These
/// transactions do not show how fast the queue moves.
#[test]
fn returns_do_not_lower_the_measured_rate() {
    let share = StripeSet::every(0, 1);
    let mut harness = PoolHarness::pooled(&[1_000, 1_000], share, LateCommit::default());
    let member = |verb, repeated| LaneCall { verb, repeated, knows: true, ..LaneCall::patient(1) };
    for n in 0..5 {
        harness.submit(member(Verb::Hold, None)).unwrap();
        assert_eq!(harness.lanes_in_flight(), [n % 2]);
        harness.answer(StoreFault::None).unwrap();
    }
    // The last hold goes back to stripe 0, which collides until its lane yields for long.
    harness.submit(member(Verb::Release, Some(0))).unwrap();
    for _ in 0..8 {
        assert_eq!(harness.lanes_in_flight(), [0]);
        harness.answer(StoreFault::Conflict).unwrap();
        while harness.lanes_in_flight().is_empty() {
            harness.pass(1).unwrap();
        }
    }
    harness.answer(StoreFault::None).unwrap();
    for _ in 0..40 {
        harness.submit(LaneCall::patient(1)).unwrap();
    }
    assert_eq!(harness.lanes_in_flight(), [1]);
    // So are the third and the first.
    for back in [3, 6] {
        harness.submit(member(Verb::Release, Some(back))).unwrap();
        assert_eq!(harness.lanes_in_flight(), [0, 1]);
        harness.pass(60).unwrap();
        harness.answer_one(0, StoreFault::None).unwrap();
    }
    let number = harness.submitted();
    let hurried = LaneCall { patience: 1_000, ..LaneCall::patient(1) };
    harness.submit(hurried).unwrap();
    assert!(harness.is_waiting(number), "{:?}", harness.answer_to(number));
    harness.rest().unwrap();
}

/// Entries that wait for a read of all stripes take room too.
#[test]
fn entries_that_wait_for_a_read_count_against_the_bound() {
    let mut harness = PoolHarness::new(&[0, 1_000_000], 0, LateCommit::default());
    for _ in 0..3 * limits::LANE_QUEUE_MAX / 2 {
        harness.submit(LaneCall::patient(1)).unwrap();
        // The read hangs, and the stripe reports a shortage for one batch after the other.
        harness.answer(StoreFault::None).unwrap();
    }
    let bound = limits::LANE_QUEUE_MAX + limits::BATCH_ENTRIES_MAX;
    assert!(harness.depth() <= bound, "{} members", harness.depth());
    harness.answer_all().unwrap();
    harness.rest().unwrap();
}

/// A busy record does not show whether it exists, so stock does not decide about its call.
#[test]
fn a_retry_is_never_answered_sold_out() {
    for busy in [ActionOutcome::Conflict, ActionOutcome::Throttled] {
        let mut harness = PoolHarness::new(&[1], 0, LateCommit::default());
        harness.submit(LaneCall::patient(1)).unwrap();
        harness.answer(StoreFault::None).unwrap();
        let repeat = harness.submitted();
        let repeated = LaneCall { repeated: Some(0), ..LaneCall::patient(1) };
        harness.submit(repeated).unwrap();
        harness.answer(StoreFault::Reasons(vec![None, Some(busy)])).unwrap();
        harness.rest().unwrap();
        let answer = harness.answer_to(repeat);
        assert!(matches!(answer, Answer::Confirmed { .. }), "{answer:?}");
    }
}

#[test]
fn late_entries_use_no_capacity_of_a_batch() {
    let mut harness = PoolHarness::new(&[1_000], 0, LateCommit::default());
    harness.submit(LaneCall::patient(1)).unwrap();
    for n in 0..2 * limits::BATCH_ENTRIES_MAX {
        let mut member = LaneCall::patient(1);
        if n % 2 == 0 {
            member.patience = 20;
        }
        harness.submit(member).unwrap();
    }
    harness.pass(30).unwrap();
    harness.answer(StoreFault::None).unwrap();
    assert_eq!(harness.members_in_flight(), limits::BATCH_ENTRIES_MAX);
    harness.rest().unwrap();
}

/// A lane that is never idle must not delay the read for entries that its stripe is too short for.
#[test]
fn a_busy_lane_requests_a_read_for_short_entries_at_once() {
    let mut harness = PoolHarness::new(&[3, 10], 0, LateCommit::default());
    harness.submit(LaneCall::patient(4)).unwrap();
    harness.submit(LaneCall::patient(1)).unwrap();
    harness.answer(StoreFault::None).unwrap();
    assert!(harness.is_reading(), "the first is short");
    assert_eq!(harness.members_in_flight(), 1, "and the second goes on");
    harness.end_read(true).unwrap();
    harness.rest().unwrap();
    assert!(matches!(harness.answer_to(0), Answer::Confirmed { .. }));
}

/// No call waits while a lane is idle, and the stripes are used in turn.
#[test]
fn an_idle_lane_sends_an_arrival_at_once() {
    let share = StripeSet::every(1, 2);
    let mut harness = PoolHarness::pooled(&[100; 8], share, LateCommit::default());
    for expected in [&[1][..], &[1, 3], &[1, 3, 5], &[1, 3, 5, 7]] {
        harness.submit(LaneCall::patient(1)).unwrap();
        assert_eq!(harness.lanes_in_flight(), expected);
    }
    for _ in 0..10 {
        harness.submit(LaneCall::patient(1)).unwrap();
    }
    assert_eq!(harness.members_in_flight(), 4, "the others wait");
    harness.answer_one(2, StoreFault::None).unwrap();
    assert_eq!(harness.members_in_flight(), 3 + 10, "for whichever lane is first");
    harness.rest().unwrap();
}

/// While lanes are busy, the next calls are batched, but not where another process writes: a large transaction
/// blocks the other process for longer, and delays more calls when the other was first.
#[test]
fn callers_are_batched_unless_another_process_writes() {
    for is_contested in [false, true] {
        let mut share = StripeSet::every(0, 1);
        if is_contested {
            share.shared = share.owned;
        }
        let mut harness = PoolHarness::pooled(&[100; 8], share, LateCommit::default());
        harness.submit(LaneCall::patient(1)).unwrap();
        harness.answer(StoreFault::None).unwrap();
        for _ in 0..2 {
            harness.submit(LaneCall::patient(1)).unwrap();
            harness.pass(3).unwrap();
        }
        let before = harness.members_in_flight();
        assert_eq!(before, 2);
        harness.submit(LaneCall::patient(1)).unwrap();
        harness.pass(1).unwrap();
        for _ in 0..2 {
            harness.submit(LaneCall::patient(1)).unwrap();
        }
        let at_once = harness.members_in_flight() - before;
        assert_eq!(at_once, if is_contested { 2 } else { 1 });
        harness.pass(1).unwrap();
        assert_eq!(harness.members_in_flight() - before, 3, "after two milliseconds");
        harness.rest().unwrap();
    }
}

/// A call that one stripe delays, or has too little for, is sent through another lane at once.
#[test]
fn entries_use_another_lane_if_a_stripe_is_short() {
    let share = StripeSet::every(0, 1);
    for (stock, fault) in [([9, 9], StoreFault::Conflict), ([0, 9], StoreFault::None)] {
        let mut harness = PoolHarness::pooled(&stock, share, LateCommit::default());
        harness.submit(LaneCall::patient(2)).unwrap();
        assert_eq!(harness.lanes_in_flight(), [0]);
        harness.answer(fault).unwrap();
        assert_eq!(harness.lanes_in_flight(), [1]);
        harness.answer(StoreFault::None).unwrap();
        assert!(matches!(harness.answer_to(0), Answer::Confirmed { .. }));
        harness.rest().unwrap();
    }
}

/// A call that waits for a read of the only stripe is not overtaken by later calls.
#[test]
fn entries_that_wait_for_a_read_come_before_later_entries() {
    let mut harness = PoolHarness::new(&[3], 0, LateCommit::default());
    let hold = |qty, patience| LaneCall { verb: Verb::Hold, patience, ..LaneCall::patient(qty) };
    for _ in 0..2 {
        harness.submit(hold(2, 1_000)).unwrap();
    }
    harness.answer(StoreFault::None).unwrap();
    harness.answer(StoreFault::None).unwrap();
    harness.submit(hold(2, 1_000)).unwrap();
    assert!(harness.is_reading(), "there is one unit");
    harness.rival_ends(0, false).unwrap();
    harness.end_read(false).unwrap();
    // The first of them times out; the second arrived after the start of the read that the first waits for.
    harness.submit(hold(2, 1)).unwrap();
    assert!(harness.is_reading());
    harness.submit(hold(1, 1_000)).unwrap();
    harness.submit(hold(2, 1_000)).unwrap();
    harness.end_read(true).unwrap();
    harness.submit(hold(2, 1_000)).unwrap();
    harness.pass(2).unwrap();
    harness.rest().unwrap();
    assert!(matches!(harness.answer_to(4), Answer::Held { .. }));
    assert!(matches!(harness.answer_to(5), Answer::Held { .. }), "of the three units");
    assert!(!matches!(harness.answer_to(6), Answer::Held { .. }), "it came last");
}

/// A stripe that is known to be short is not used while another is not.
#[test]
fn empty_stripe_gets_no_further_writes() {
    let share = StripeSet::every(0, 1);
    let mut harness = PoolHarness::pooled(&[0, 100], share, LateCommit::default());
    for _ in 0..20 {
        harness.submit(LaneCall::patient(1)).unwrap();
        harness.answer_all().unwrap();
    }
    assert_eq!(harness.transactions(), 21, "one write failed, for all of them");
    harness.rest().unwrap();
}
