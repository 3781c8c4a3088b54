//! Executes a repair plan: sends the plan, executes each repair as a conditional write, and verifies again.

use inventory_proto::inventory::v1 as pb;

use super::scan::AuditScan;
use super::{AuditError, RepairLog, message, send};
use crate::limits;
use inventory_core::audit::{Repair, plan};
use inventory_store::RepairOutcome;

type ReconcileScan<'a> = AuditScan<'a, pb::ReconcileUpdate>;

/// Reports the repairs that were written to `written`.
pub(super) async fn reconcile(
    scan: &ReconcileScan<'_>,
    apply: bool,
    written: &mut RepairLog,
) -> Result<(), AuditError> {
    let (report, seat_keys) = scan.verify().await?;
    send(scan.updates, message::reported(&report)).await;
    let planned = plan(&report);
    send(scan.updates, message::planned(planned.as_ref())).await;
    let Ok(mut plan) = planned else {
        return Ok(());
    };
    if !apply || plan.repairs.is_empty() {
        return Ok(());
    }
    plan.repairs.truncate(limits::AUDIT_REPAIRS_MAX);
    let done = execute(scan, seat_keys, &plan.repairs, written).await;
    send(scan.updates, message::done(done)).await;
    let (report, _) = scan.verify().await?;
    send(scan.updates, message::reported(&report)).await;
    Ok(())
}

/// Executes the repairs one at a time, to limit the load on the store.
async fn execute(
    scan: &ReconcileScan<'_>,
    seat_keys: u16,
    repairs: &[Repair],
    written: &mut RepairLog,
) -> pb::RepairsDone {
    let mut sum = pb::RepairsDone::default();
    for (number, repair) in repairs.iter().enumerate() {
        scan.progress("repairing", 1, number as u64, repairs.len() as u64);
        let why = match scan.backend.repair(scan.event, seat_keys, repair.clone()).await {
            Ok(RepairOutcome::Done) => {
                sum.done += 1;
                written.add(repair);
                continue;
            }
            Ok(RepairOutcome::Stale) => {
                sum.stale += 1;
                "the item changed after it was read".to_owned()
            }
            Err(error) => {
                sum.failed += 1;
                error.to_string()
            }
        };
        if sum.not_done.len() < limits::AUDIT_ITEMS_SHOWN_MAX {
            sum.not_done.push(pb::RepairNotDone { repair: Some(message::repair(repair)), why });
        }
    }
    sum
}
