//! Reports and plans for programs: the fields of the contract, under their names there.

use inventory_proto::inventory::v1 as pb;
use serde_json::{Value, json};

/// CLEAN, MOVING or BREACHED.
fn verdict(report: &pb::AuditReport) -> &'static str {
    let name = report.verdict().as_str_name();
    name.strip_prefix("AUDIT_VERDICT_").unwrap_or(name)
}

pub(super) fn report(report: &pb::AuditReport) -> Value {
    let stripe = |of: &pb::StripeAccount| {
        json!({
            "index": of.index,
            "capacity": of.capacity,
            "remaining": of.remaining,
            "held": of.held,
            "confirmed": of.confirmed,
            "difference": of.difference,
            "moving": of.moving,
        })
    };
    let seats = report.seats.unwrap_or_default();
    let reservations = report.reservations.unwrap_or_default();
    let late = |of: &pb::OverdueHold| {
        json!({
            "reservation_id": of.reservation_id,
            "late_ms": of.late_ms,
        })
    };
    json!({
        "event_id": report.event_id,
        "verdict": verdict(report),
        "closed": report.closed,
        "seated": report.seated,
        "stripes": report.stripes.iter().map(stripe).collect::<Vec<_>>(),
        "seats": {
            "total": seats.total,
            "available": seats.available,
            "hold": seats.hold,
            "sold": seats.sold,
            "blocked": seats.blocked,
            "unreadable": seats.unreadable,
            "held": seats.held,
            "confirmed": seats.confirmed,
            "difference": seats.difference,
        },
        "reservations": {
            "held": reservations.held,
            "confirmed": reservations.confirmed,
            "released": reservations.released,
            "expired": reservations.expired,
            "refunded": reservations.refunded,
            "unreadable": reservations.unreadable,
        },
        "orders": report.orders,
        "overdue_count": report.overdue_count,
        "overdue": report.overdue.iter().map(late).collect::<Vec<_>>(),
        "breach_count": report.breach_count,
        "breaches": report.breaches.iter().map(breach).collect::<Vec<_>>(),
        "moving_stripes": report.moving_stripes,
        "moving_seats": report.moving_seats,
        "restless": report.restless,
        "held": report.held.map(|of| json!({
            "stripes": of.stripes,
            "confirmed": of.confirmed,
            "reservations": of.reservations,
            "uncounted": of.uncounted,
            "difference": of.difference,
        })),
        "moving_held": report.moving_held,
    })
}

fn breach(of: &pb::AuditBreach) -> Value {
    json!({
        "kind": of.kind,
        "id": of.id,
        "code": of.code,
        "text": of.text,
    })
}

fn repair(of: &pb::PlannedRepair) -> Value {
    json!({
        "kind": of.kind,
        "id": of.id,
        "code": of.code,
        "text": of.text,
    })
}

pub(super) fn plan(plan: &pb::RepairPlan) -> Value {
    let left = |of: &pb::LeftBreach| {
        json!({
            "breach": of.breach.as_ref().map(breach),
            "why": of.why,
        })
    };
    json!({
        "moving": plan.moving,
        "repairs": plan.repairs.iter().map(repair).collect::<Vec<_>>(),
        "further_repairs": plan.further_repairs,
        "left": plan.left.iter().map(left).collect::<Vec<_>>(),
        "left_count": plan.left_count,
    })
}

pub(super) fn done(done: &pb::RepairsDone) -> Value {
    let not_done = |of: &pb::RepairNotDone| {
        json!({
            "repair": of.repair.as_ref().map(repair),
            "why": of.why,
        })
    };
    json!({
        "done": done.done,
        "stale": done.stale,
        "failed": done.failed,
        "not_done": done.not_done.iter().map(not_done).collect::<Vec<_>>(),
    })
}
