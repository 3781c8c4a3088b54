//! Converts reports and plans to messages. Numbers that do not fit are shown as the maximum.

use inventory_proto::inventory::v1 as pb;
use pb::reconcile_update::Update as Reconcile;
use pb::verify_update::Update as Verify;

use crate::limits;
use inventory_core::audit::{
    AuditReport, AuditVerdict, Breach, EventChanged, HeldBalance, Repair, RepairPlan,
    ReservationCounts, SeatCounts, StripeBalance,
};

pub(super) fn in_verify(progress: pb::AuditProgress) -> pb::VerifyUpdate {
    pb::VerifyUpdate { update: Some(Verify::Progress(progress)) }
}

pub(super) fn in_reconcile(progress: pb::AuditProgress) -> pb::ReconcileUpdate {
    reconcile(Reconcile::Progress(progress))
}

pub(super) fn verified(of: &AuditReport) -> pb::VerifyUpdate {
    pb::VerifyUpdate { update: Some(Verify::Report(report(of))) }
}

pub(super) fn reported(of: &AuditReport) -> pb::ReconcileUpdate {
    reconcile(Reconcile::Report(report(of)))
}

pub(super) fn planned(of: Result<&RepairPlan, &EventChanged>) -> pb::ReconcileUpdate {
    let plan = match of {
        Err(EventChanged) => pb::RepairPlan { moving: true, ..pb::RepairPlan::default() },
        Ok(RepairPlan { repairs, left }) => {
            let one_run = repairs.iter().take(limits::AUDIT_REPAIRS_MAX);
            let shown = left.iter().take(limits::AUDIT_ITEMS_SHOWN_MAX);
            pb::RepairPlan {
                moving: false,
                repairs: one_run.map(repair).collect(),
                further_repairs: repairs.len().saturating_sub(limits::AUDIT_REPAIRS_MAX) as i64,
                left: shown
                    .map(|left| pb::LeftBreach {
                        breach: Some(breach(&left.breach)),
                        why: left.why.to_owned(),
                    })
                    .collect(),
                left_count: left.len() as i64,
            }
        }
    };
    reconcile(Reconcile::Plan(plan))
}

pub(super) fn done(of: pb::RepairsDone) -> pb::ReconcileUpdate {
    reconcile(Reconcile::Done(of))
}

pub(super) fn repair(of: &Repair) -> pb::PlannedRepair {
    let subject = of.subject();
    pb::PlannedRepair {
        kind: subject.kind().to_owned(),
        id: subject.id(),
        code: of.code().to_owned(),
        text: of.to_string(),
    }
}

fn reconcile(update: Reconcile) -> pb::ReconcileUpdate {
    pb::ReconcileUpdate { update: Some(update) }
}

fn report(of: &AuditReport) -> pb::AuditReport {
    let verdict = match of.verdict() {
        AuditVerdict::Clean => pb::AuditVerdict::Clean,
        AuditVerdict::Moving => pb::AuditVerdict::Moving,
        AuditVerdict::Breached => pb::AuditVerdict::Breached,
    };
    let breaches = of.breaches.iter().take(limits::AUDIT_ITEMS_SHOWN_MAX);
    let late = of.overdue.latest.iter();
    let moving = of.moving_stripes.iter();
    pb::AuditReport {
        event_id: of.event.to_string(),
        verdict: verdict.into(),
        closed: of.closed,
        seated: of.seated,
        stripes: of.stripes.iter().map(stripe).collect(),
        seats: Some(seats(&of.seats)),
        reservations: Some(reservations(&of.reservations)),
        orders: signed(of.orders),
        overdue_count: signed(of.overdue.count),
        overdue: late
            .map(|(reservation, late_ms)| pb::OverdueHold {
                reservation_id: reservation.to_string(),
                late_ms: signed(*late_ms),
            })
            .collect(),
        breach_count: of.breaches.len() as i64,
        breaches: breaches.map(breach).collect(),
        moving_stripes: moving.map(|index| i32::from(*index)).collect(),
        moving_seats: signed(of.moving_seats),
        restless: of.restless,
        held: of.held.as_ref().map(held),
        moving_held: of.moving_held,
        moved: of.moved,
        moving_moved: of.moving_moved,
    }
}

fn breach(of: &Breach) -> pb::AuditBreach {
    pb::AuditBreach {
        kind: of.subject.kind().to_owned(),
        id: of.subject.id(),
        code: of.kind.code().to_owned(),
        text: of.kind.to_string(),
    }
}

fn stripe(line: &StripeBalance) -> pb::StripeAccount {
    pb::StripeAccount {
        index: i32::from(line.index),
        capacity: signed(line.capacity),
        remaining: line.remaining,
        held: signed(line.held),
        confirmed: signed(line.confirmed),
        difference: narrow(line.difference()),
        moving: !line.still,
        moved: line.moved,
    }
}

fn held(of: &HeldBalance) -> pb::HeldAccount {
    pb::HeldAccount {
        stripes: of.stripes,
        confirmed: of.confirmed,
        reservations: signed(of.records),
        uncounted: signed(of.uncounted),
        difference: narrow(of.difference()),
    }
}

fn seats(line: &SeatCounts) -> pb::SeatAccount {
    pb::SeatAccount {
        total: signed(line.total),
        available: signed(line.available),
        hold: signed(line.hold),
        sold: signed(line.sold),
        blocked: signed(line.blocked),
        unreadable: signed(line.unreadable),
        held: signed(line.held),
        confirmed: signed(line.confirmed),
        difference: narrow(line.difference()),
    }
}

fn reservations(of: &ReservationCounts) -> pb::ReservationAccount {
    pb::ReservationAccount {
        held: signed(of.held),
        confirmed: signed(of.confirmed),
        released: signed(of.released),
        expired: signed(of.expired),
        refunded: signed(of.refunded),
        unreadable: signed(of.unreadable),
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn narrow(difference: i128) -> i64 {
    i64::try_from(difference).unwrap_or(match difference < 0 {
        true => i64::MIN,
        false => i64::MAX,
    })
}
