//! Lanes, alone and sharing a line, under any interleaving of submits, outcomes, wake-ups and reads:
//! what the group commit promises to every single member.
//!
//! The store answers honestly from the model, or loses, delays and refuses as the steps say.

mod bench;

use inventory_core::answer::{Answer, Rejection};
use inventory_core::lane::StripeShare;
use inventory_core::limits;
use inventory_core::operation::Verb;
use inventory_core::rules::LateCommit;
use inventory_core::transaction::ActionOutcome;
use proptest::prelude::*;

use super::model;
use super::violation::Violation;
use bench::{Bench, Fault, Member};

#[derive(Clone, Debug)]
enum Step {
    Submit(Member),
    /// Time passes, by milliseconds; the lane is woken if it asked to be.
    Pass(u64),
    /// The store answers one of the transactions in flight, if there is one.
    Answer(usize, Fault),
    /// The read that the lane asked for ends, if there is one.
    Read(bool),
    /// Somebody else buys from a stripe.
    Rival(u16, u64),
    /// Somebody else ends a hold, past its time or not.
    RivalEnds(usize, bool),
    /// An operator blocks a seat or puts it back.
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

fn step(stripes: u16) -> impl Strategy<Value = Step> {
    let member = (
        verb(),
        1_u32..=4,
        prop_oneof![1_u64..40, Just(5_000), Just(5_000)],
        prop_oneof![12 => Just(""), 1 => Just(model::POISON), 1 => Just(model::INVALID)],
        prop::option::of(0_usize..8),
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |(verb, qty, patience, prefix, repeated, knows, whatever)| Member {
                verb,
                qty,
                patience,
                prefix,
                repeated,
                knows,
                whatever,
            },
        );
    prop_oneof![
        24 => member.prop_map(Step::Submit),
        8 => (0_u64..250).prop_map(Step::Pass),
        16 => (0_usize..8, fault()).prop_map(|(which, fault)| Step::Answer(which, fault)),
        8 => any::<bool>().prop_map(Step::Read),
        4 => (0..stripes, 0_u64..4).prop_map(|(stripe, units)| Step::Rival(stripe, units)),
        4 => (0_usize..20, any::<bool>()).prop_map(|(which, over)| Step::RivalEnds(which, over)),
        2 => (0_usize..20).prop_map(Step::Blocks),
        1 => prop::bool::weighted(0.2).prop_map(|closes| match closes {
            true => Step::Closes,
            false => Step::Pass(1),
        }),
    ]
}

/// New buyers, and a store that is late, busy or silent, but has stock for all of them.
fn step_of_a_crowd() -> impl Strategy<Value = Step> {
    let member =
        (1_u32..=4, prop_oneof![1_u64..40, Just(5_000)]).prop_map(|(qty, patience)| Member {
            patience,
            ..Member::patient(qty)
        });
    let fault = prop_oneof![
        6 => Just(Fault::None),
        1 => Just(Fault::LostRequest),
        1 => Just(Fault::LostAnswer),
        2 => Just(Fault::Conflict),
        1 => Just(Fault::Throttled),
        1 => any::<u64>().prop_map(Fault::Meddled),
    ];
    prop_oneof![
        16 => member.prop_map(Step::Submit),
        3 => (0_u64..60).prop_map(Step::Pass),
        8 => (0_usize..8, fault).prop_map(|(which, fault)| Step::Answer(which, fault)),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        8 => Just(Fault::None),
        1 => Just(Fault::LostRequest),
        1 => Just(Fault::LostAnswer),
        1 => Just(Fault::Conflict),
        1 => Just(Fault::Throttled),
        1 => Just(Fault::Refused),
        2 => any::<u64>().prop_map(Fault::Meddled),
        1 => Just(Fault::Unexplained),
        1 => Just(Fault::Garbled),
    ]
}

fn late() -> impl Strategy<Value = LateCommit> {
    prop_oneof![2 => Just(LateCommit::Reacquire), 1 => Just(LateCommit::Reject)]
}

fn run(mut bench: Bench, steps: Vec<Step>) -> Result<(), Violation> {
    for step in steps {
        match step {
            Step::Submit(member) => bench.submit(member)?,
            Step::Pass(ms) => bench.pass(ms)?,
            Step::Answer(which, fault) => bench.answer_one(which, fault)?,
            Step::Read(works) => bench.end_read(works)?,
            Step::Rival(stripe, units) => bench.rival(stripe, units)?,
            Step::RivalEnds(which, over) => bench.rival_ends(which, over)?,
            Step::Blocks(which) => bench.rival_blocks(which),
            Step::Closes => bench.close(),
        }
    }
    bench.rest()
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
        run(Bench::new(&[stock], 0, late), steps).map_err(failed)?;
    }

    #[test]
    fn a_lane_over_several_stripes_keeps_every_promise(
        stock in prop::collection::vec(0_u64..10, 2..5),
        home in 0_u16..2,
        late in late(),
        steps in prop::collection::vec(step(5), 1..70),
    ) {
        run(Bench::new(&stock, home, late), steps).map_err(failed)?;
    }

    #[test]
    fn lanes_that_share_a_line_keep_every_promise(
        stock in prop::collection::vec(0_u64..12, 2..9),
        first in 0_u16..2,
        step in 1_u16..3,
        late in late(),
        steps in prop::collection::vec(self::step(9), 1..90),
    ) {
        run(Bench::pooled(&stock, StripeShare { first, step }, late), steps).map_err(failed)?;
    }

    #[test]
    fn lanes_that_share_a_line_serve_first_come_first_served(
        stripes in 2_usize..6,
        steps in prop::collection::vec(step_of_a_crowd(), 1..120),
    ) {
        let share = StripeShare { first: 0, step: 1 };
        let stock = vec![100_000; stripes];
        let mut bench = Bench::pooled(&stock, share, LateCommit::default()).strictly_in_order();
        // More than one transaction takes, or any order would do.
        for _ in 0..250 {
            bench.submit(Member::patient(1)).map_err(failed)?;
        }
        run(bench, steps).map_err(failed)?;
    }

    #[test]
    fn a_lane_of_seats_keeps_every_promise(
        seats in 1_usize..25,
        late in late(),
        steps in prop::collection::vec(step(1), 1..70),
    ) {
        run(Bench::seated(seats, late), steps).map_err(failed)?;
    }

    #[test]
    fn poisonous_members_harm_nobody(
        batch in prop::collection::vec(prop::bool::weighted(0.1), 2..99),
    ) {
        let mut bench = Bench::new(&[1_000], 0, LateCommit::default());
        // The first leaves alone, the rest gather behind it and leave as one.
        for poisonous in std::iter::once(&false).chain(&batch) {
            let prefix = if *poisonous { model::POISON } else { "" };
            bench.submit(Member { prefix, ..Member::patient(1) }).map_err(failed)?;
        }
        let sent = bench.answer_all().map_err(failed)?;
        bench.rest().map_err(failed)?;
        for (n, poisonous) in batch.iter().enumerate() {
            let answer = bench.answer_to(n + 1);
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
        let mut bench = Bench::new(&[stock], 0, LateCommit::default());
        for qty in &qtys {
            bench.submit(Member::patient(*qty)).map_err(failed)?;
        }
        bench.answer_all().map_err(failed)?;
        bench.rest().map_err(failed)?;
        // Exactly who is served when each in turn takes what is there.
        let mut left = stock;
        for (n, qty) in qtys.iter().enumerate() {
            let served = u64::from(*qty) <= left;
            left -= if served { u64::from(*qty) } else { 0 };
            let confirmed = matches!(bench.answer_to(n), Answer::Confirmed { .. });
            prop_assert_eq!(confirmed, served, "member {} of {:?}", n, qtys);
        }
    }
}

/// Fills a lane to its bound while one transaction is in flight.
#[test]
fn a_full_lane_refuses_and_frees_the_room_of_callers_that_have_gone() {
    let mut bench = Bench::new(&[1_000_000], 0, LateCommit::default());
    bench.submit(Member::patient(1)).unwrap();
    for _ in 0..limits::LANE_QUEUE_MAX {
        let patience = 50;
        let member = Member {
            patience,
            ..Member::patient(1)
        };
        bench.submit(member).unwrap();
    }
    let first_refused = bench.submitted();
    bench.submit(Member::patient(1)).unwrap();
    let overloaded =
        |answer: &Answer| matches!(answer, Answer::Rejected(Rejection::Overloaded { .. }));
    assert!(overloaded(bench.answer_to(first_refused)));
    assert!(bench.depth() <= limits::LANE_QUEUE_MAX + limits::BATCH_ENTRIES_MAX);

    bench.pass(60).unwrap();
    let taken = bench.submitted();
    bench.submit(Member::patient(1)).unwrap();
    assert!(bench.is_waiting(taken), "the others' deadlines have passed");
    bench.answer_all().unwrap();
    bench.rest().unwrap();
}

/// A body that the store rejects is halved until the culprit is alone. These small transactions do not
/// show how fast the queue moves, whether callers wait behind the first of them or a measurement began
/// before them: no call with a second to go is turned away because of them.
#[test]
fn a_split_is_not_taken_for_a_slow_queue() {
    for (members, early, late) in [(14, 0, 40), (limits::BATCH_ENTRIES_MAX, 50, 0)] {
        let mut bench = Bench::new(&[1_000], 0, LateCommit::default());
        bench.submit(Member::patient(1)).unwrap();
        let culprit = Member {
            prefix: model::POISON,
            ..Member::patient(1)
        };
        bench.submit(culprit).unwrap();
        for _ in 1..members + early {
            bench.submit(Member::patient(1)).unwrap();
        }
        bench.answer(Fault::None).unwrap();
        assert_eq!(bench.members_in_flight(), members);
        for _ in 0..late {
            bench.submit(Member::patient(1)).unwrap();
        }
        while bench.is_waiting(1) {
            bench.pass(50).unwrap();
            bench.answer(Fault::None).unwrap();
        }
        for _ in 0..8 {
            bench.pass(50).unwrap();
            bench.answer(Fault::None).unwrap();
            for _ in 0..90 {
                let number = bench.submitted();
                let member = Member {
                    patience: 1_000,
                    ..Member::patient(1)
                };
                bench.submit(member).unwrap();
                assert!(bench.is_waiting(number), "{:?}", bench.answer_to(number));
            }
        }
        bench.rest().unwrap();
    }
}

/// A lane that leaves the queue to others because its stripe collides still gives units back to that
/// stripe. What it sends then does not show how fast the queue moves.
#[test]
fn returns_to_a_stripe_are_not_taken_for_a_slow_queue() {
    let share = StripeShare { first: 0, step: 1 };
    let mut bench = Bench::pooled(&[1_000, 1_000], share, LateCommit::default());
    let member = |verb, repeated| Member {
        verb,
        repeated,
        knows: true,
        ..Member::patient(1)
    };
    for n in 0..5 {
        bench.submit(member(Verb::Hold, None)).unwrap();
        assert_eq!(bench.lanes_in_flight(), [n % 2]);
        bench.answer(Fault::None).unwrap();
    }
    // The last hold goes back to stripe 0, which collides until its lane yields for long.
    bench.submit(member(Verb::Release, Some(0))).unwrap();
    for _ in 0..8 {
        assert_eq!(bench.lanes_in_flight(), [0]);
        bench.answer(Fault::Conflict).unwrap();
        while bench.lanes_in_flight().is_empty() {
            bench.pass(1).unwrap();
        }
    }
    bench.answer(Fault::None).unwrap();
    for _ in 0..40 {
        bench.submit(Member::patient(1)).unwrap();
    }
    assert_eq!(bench.lanes_in_flight(), [1]);
    // So do the third and the first.
    for back in [3, 6] {
        bench.submit(member(Verb::Release, Some(back))).unwrap();
        assert_eq!(bench.lanes_in_flight(), [0, 1]);
        bench.pass(60).unwrap();
        bench.answer_one(0, Fault::None).unwrap();
    }
    let number = bench.submitted();
    let hurried = Member {
        patience: 1_000,
        ..Member::patient(1)
    };
    bench.submit(hurried).unwrap();
    assert!(bench.is_waiting(number), "{:?}", bench.answer_to(number));
    bench.rest().unwrap();
}

/// Members that wait for a read of all stripes take room too.
#[test]
fn members_waiting_for_a_read_count_against_the_bound() {
    let mut bench = Bench::new(&[0, 1_000_000], 0, LateCommit::default());
    for _ in 0..3 * limits::LANE_QUEUE_MAX / 2 {
        bench.submit(Member::patient(1)).unwrap();
        // The read hangs; the home stripe goes on telling one batch after the other it is short.
        bench.answer(Fault::None).unwrap();
    }
    let bound = limits::LANE_QUEUE_MAX + limits::BATCH_ENTRIES_MAX;
    assert!(bench.depth() <= bound, "{} members", bench.depth());
    bench.answer_all().unwrap();
    bench.rest().unwrap();
}

/// A busy record says nothing about whether it exists: no stock decides about its caller.
#[test]
fn a_repeat_is_never_told_that_it_is_sold_out() {
    for busy in [ActionOutcome::Conflict, ActionOutcome::Throttled] {
        let mut bench = Bench::new(&[1], 0, LateCommit::default());
        bench.submit(Member::patient(1)).unwrap();
        bench.answer(Fault::None).unwrap();
        let repeat = bench.submitted();
        let repeated = Member {
            repeated: Some(0),
            ..Member::patient(1)
        };
        bench.submit(repeated).unwrap();
        bench
            .answer(Fault::Reasons(vec![None, Some(busy)]))
            .unwrap();
        bench.rest().unwrap();
        let answer = bench.answer_to(repeat);
        assert!(matches!(answer, Answer::Confirmed { .. }), "{answer:?}");
    }
}

#[test]
fn callers_that_have_gone_take_no_room_in_a_batch() {
    let mut bench = Bench::new(&[1_000], 0, LateCommit::default());
    bench.submit(Member::patient(1)).unwrap();
    for n in 0..2 * limits::BATCH_ENTRIES_MAX {
        let mut member = Member::patient(1);
        if n % 2 == 0 {
            member.patience = 20;
        }
        bench.submit(member).unwrap();
    }
    bench.pass(30).unwrap();
    bench.answer(Fault::None).unwrap();
    assert_eq!(bench.members_in_flight(), limits::BATCH_ENTRIES_MAX);
    bench.rest().unwrap();
}

/// A lane that is never idle ensure not leave the members waiting that its stripe is too short for.
#[test]
fn a_busy_lane_asks_for_its_short_members_at_once() {
    let mut bench = Bench::new(&[3, 10], 0, LateCommit::default());
    bench.submit(Member::patient(4)).unwrap();
    bench.submit(Member::patient(1)).unwrap();
    bench.answer(Fault::None).unwrap();
    assert!(bench.is_reading(), "the first is short");
    assert_eq!(bench.members_in_flight(), 1, "and the second goes on");
    bench.end_read(true).unwrap();
    bench.rest().unwrap();
    assert!(matches!(bench.answer_to(0), Answer::Confirmed { .. }));
}

/// Nobody waits while a lane is idle, and the stripes are drawn on in turn.
#[test]
fn an_arrival_goes_by_an_idle_lane_at_once() {
    let share = StripeShare { first: 1, step: 2 };
    let mut bench = Bench::pooled(&[100; 8], share, LateCommit::default());
    for expected in [&[1][..], &[1, 3], &[1, 3, 5], &[1, 3, 5, 7]] {
        bench.submit(Member::patient(1)).unwrap();
        assert_eq!(bench.lanes_in_flight(), expected);
    }
    for _ in 0..10 {
        bench.submit(Member::patient(1)).unwrap();
    }
    assert_eq!(bench.members_in_flight(), 4, "the others wait");
    bench.answer_one(2, Fault::None).unwrap();
    assert_eq!(
        bench.members_in_flight(),
        3 + 10,
        "for whichever lane is first"
    );
    bench.rest().unwrap();
}

/// While lanes are busy the next callers come together, but not where another process writes: a large
/// transaction is long in its way, and makes many wait when the other was first.
#[test]
fn callers_gather_for_a_moment_unless_another_process_is_there() {
    let share = StripeShare { first: 0, step: 1 };
    for is_contested in [false, true] {
        let mut bench = Bench::pooled(&[100; 8], share, LateCommit::default());
        bench.submit(Member::patient(1)).unwrap();
        bench.answer(Fault::None).unwrap();
        for _ in 0..2 {
            bench.submit(Member::patient(1)).unwrap();
            bench.pass(3).unwrap();
        }
        if is_contested {
            bench.answer(Fault::Conflict).unwrap();
            bench.pass(3).unwrap();
        }
        let before = bench.members_in_flight();
        assert_eq!(before, 2);
        bench.submit(Member::patient(1)).unwrap();
        bench.pass(1).unwrap();
        for _ in 0..2 {
            bench.submit(Member::patient(1)).unwrap();
        }
        let at_once = bench.members_in_flight() - before;
        assert_eq!(at_once, if is_contested { 2 } else { 1 });
        bench.pass(1).unwrap();
        assert_eq!(
            bench.members_in_flight() - before,
            3,
            "after two milliseconds"
        );
        bench.rest().unwrap();
    }
}

/// Who a stripe puts off, or has no room for, goes by another at once.
#[test]
fn what_one_stripe_cannot_take_another_does() {
    let share = StripeShare { first: 0, step: 1 };
    for (stock, fault) in [([9, 9], Fault::Conflict), ([0, 9], Fault::None)] {
        let mut bench = Bench::pooled(&stock, share, LateCommit::default());
        bench.submit(Member::patient(2)).unwrap();
        assert_eq!(bench.lanes_in_flight(), [0]);
        bench.answer(fault).unwrap();
        assert_eq!(bench.lanes_in_flight(), [1]);
        bench.answer(Fault::None).unwrap();
        assert!(matches!(bench.answer_to(0), Answer::Confirmed { .. }));
        bench.rest().unwrap();
    }
}

/// Who waits for a look at the only stripe is not overtaken by who comes after the look.
#[test]
fn who_waits_for_a_look_comes_before_who_comes_later() {
    let mut bench = Bench::new(&[3], 0, LateCommit::default());
    let hold = |qty, patience| Member {
        verb: Verb::Hold,
        patience,
        ..Member::patient(qty)
    };
    for _ in 0..2 {
        bench.submit(hold(2, 1_000)).unwrap();
    }
    bench.answer(Fault::None).unwrap();
    bench.answer(Fault::None).unwrap();
    bench.submit(hold(2, 1_000)).unwrap();
    assert!(bench.is_reading(), "there is one unit");
    bench.rival_ends(0, false).unwrap();
    bench.end_read(false).unwrap();
    // The first of them gives up, the second has come after the look began that the first waits for.
    bench.submit(hold(2, 1)).unwrap();
    assert!(bench.is_reading());
    bench.submit(hold(1, 1_000)).unwrap();
    bench.submit(hold(2, 1_000)).unwrap();
    bench.end_read(true).unwrap();
    bench.submit(hold(2, 1_000)).unwrap();
    bench.pass(2).unwrap();
    bench.rest().unwrap();
    assert!(matches!(bench.answer_to(4), Answer::Held { .. }));
    assert!(
        matches!(bench.answer_to(5), Answer::Held { .. }),
        "of the three units"
    );
    assert!(
        !matches!(bench.answer_to(6), Answer::Held { .. }),
        "it came last"
    );
}

/// A stripe that is known to be short is left alone while another is not.
#[test]
fn a_stripe_known_to_be_empty_is_asked_no_more() {
    let share = StripeShare { first: 0, step: 1 };
    let mut bench = Bench::pooled(&[0, 100], share, LateCommit::default());
    for _ in 0..20 {
        bench.submit(Member::patient(1)).unwrap();
        bench.answer_all().unwrap();
    }
    assert_eq!(
        bench.transactions(),
        21,
        "one write failed, for all of them"
    );
    bench.rest().unwrap();
}
