//! Answers to calls whose write may have been applied.

use super::tests::{at, commit, drain, engine, one_stripe};
use super::*;
use crate::transaction::ActionOutcome;

/// Answer to a commit until 1 s whose resent transaction conflicts, and goes on conflicting. `first` is the outcome of
/// the first attempt.
fn answer_after_conflicts(first: TransactionOutcome) -> Answer {
    let mut shard = engine(0, 1);
    let mut fx = Vec::new();
    let event: EventId = "evt".parse().expect("legal");
    shard.handle_stripes_read(&event, &StripesRead::Found(vec![one_stripe(100)]), at(0));
    shard.handle_call(CallId(1), commit("r", "evt", 1), at(0));
    drain(&mut shard, &mut fx);
    let mut outcome = first;
    for now in (1..).map(|step| at(step * 1_000)) {
        for effect in std::mem::take(&mut fx) {
            match effect {
                Effect::Transact { lane, .. } => {
                    shard.handle_transaction_outcome(lane, outcome, now);
                    outcome = TransactionOutcome::Cancelled(vec![ActionOutcome::Conflict; 2]);
                }
                Effect::Answer { answer, .. } => return answer,
                _ => {}
            }
        }
        shard.handle_timeout(now);
        drain(&mut shard, &mut fx);
    }
    unreachable!("the loop ends with the answer")
}

#[test]
fn a_call_whose_first_attempt_may_have_been_applied_is_not_rejected_as_not_executed() {
    let conflict = TransactionOutcome::Cancelled(vec![ActionOutcome::Conflict; 2]);
    let not_executed = Answer::Rejected(Rejection::store_busy());
    assert_eq!(answer_after_conflicts(conflict), not_executed);
    let unknown = Answer::Rejected(Rejection::outcome_unknown());
    assert_eq!(answer_after_conflicts(TransactionOutcome::Unknown), unknown);
}
