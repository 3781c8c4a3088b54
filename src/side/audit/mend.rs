//! Carrying a plan out: the plan is told first, each repair stands on its own condition, and what
//! came of it is read back.

use inventory_proto::inventory::v1 as pb;

use super::walk::Walk;
use super::{AuditError, message, say};
use crate::limits;
use inventory_core::audit::{Repair, plan};
use inventory_store::RepairOutcome;

type Reconciling<'a> = Walk<'a, pb::ReconcileUpdate>;

pub(super) async fn reconcile(walk: &Reconciling<'_>, apply: bool) -> Result<(), AuditError> {
    let (report, seat_keys) = walk.verify().await?;
    say(walk.out, message::reported(&report)).await;
    let planned = plan(&report);
    say(walk.out, message::planned(planned.as_ref())).await;
    let Ok(mut plan) = planned else {
        return Ok(());
    };
    if !apply || plan.repairs.is_empty() {
        return Ok(());
    }
    plan.repairs.truncate(limits::AUDIT_REPAIRS_MAX);
    let done = carry_out(walk, seat_keys, &plan.repairs).await;
    say(walk.out, message::done(done)).await;
    let (report, _) = walk.verify().await?;
    say(walk.out, message::reported(&report)).await;
    Ok(())
}

/// One after the other, so that a sale elsewhere in the store does not feel it.
async fn carry_out(walk: &Reconciling<'_>, seat_keys: u16, repairs: &[Repair]) -> pb::RepairsDone {
    let mut sum = pb::RepairsDone::default();
    for (number, repair) in repairs.iter().enumerate() {
        walk.progress("repairing", 1, number as u64, repairs.len() as u64);
        let why = match walk
            .backend
            .repair(walk.event, seat_keys, repair.clone())
            .await
        {
            Ok(RepairOutcome::Done) => {
                sum.done += 1;
                continue;
            }
            Ok(RepairOutcome::Stale) => {
                sum.stale += 1;
                "it had changed since it was read".to_owned()
            }
            Err(error) => {
                sum.failed += 1;
                error.to_string()
            }
        };
        if sum.not_done.len() < limits::AUDIT_TOLD_MAX {
            sum.not_done.push(pb::RepairNotDone {
                repair: Some(message::repair(repair)),
                why,
            });
        }
    }
    sum
}
