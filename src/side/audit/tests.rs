//! The walk and the mending against a store that is told what to say.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use pb::reconcile_update::Update;
use tokio::sync::Notify;

use super::*;
use inventory_core::audit::{AuditSeat, Item, StripeItem};
use inventory_core::ids::OrderId;
use inventory_core::seats::SeatState;
use inventory_core::time::UnixMillis;
use inventory_core::transaction::{Draws, ReservationState};

/// An event of two seats, s1 sold to r1 and s2 free, and a stripe that is sold from at every reading
/// if `sold_at_every_reading`.
#[derive(Default)]
struct Told {
    reads: AtomicU64,
    sold_at_every_reading: bool,
    /// What s2's item says when the seats are read.
    seat: Mutex<Option<SeatState>>,
    /// What later looks at s2 and its records find; the last one again and again. `None`: others
    /// wrote to it.
    looks: Mutex<Vec<Option<Snapshot>>>,
    /// What repairs come to.
    repairs: Mutex<Vec<Result<RepairOutcome, AuditError>>>,
    /// Held back until told, if there.
    gate: Option<Arc<Notify>>,
}

fn seat(id: &str) -> SeatId {
    id.parse().unwrap()
}

fn sold(to: &str) -> SeatState {
    SeatState::Sold {
        reservation: to.parse().unwrap(),
    }
}

fn record(id: &str, state: ReservationState, of: &str) -> AuditRecord {
    let reservation: ReservationId = id.parse().unwrap();
    AuditRecord {
        state,
        qty: 1,
        draws: Draws::new(),
        seats: Some([seat(of)].into()),
        order: Some(OrderId::of(&reservation)),
        expires_at: None,
        reservation,
    }
}

fn snapshot(state: SeatState, records: &[AuditRecord]) -> Snapshot {
    let known = |record: &AuditRecord| (record.reservation.clone(), Item::Read(record.clone()));
    Snapshot {
        seats: [(seat("s2"), Item::Read(state))].into(),
        records: records.iter().map(known).collect(),
    }
}

fn page<T>(items: Vec<T>) -> AuditPage<T> {
    AuditPage {
        examined: items.len() as u64,
        items: items.into_iter().map(Ok).collect(),
        next: None,
    }
}

#[tonic::async_trait]
impl AuditBackend for Told {
    async fn stripes(&self, event: &EventId) -> Result<Option<AuditStripes>, AuditError> {
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        if event.as_str() == "nowhere" {
            return Ok(None);
        }
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        let version = if self.sold_at_every_reading { reads } else { 1 };
        Ok(Some(AuditStripes {
            stripes: vec![Item::Read(StripeItem {
                capacity: 0,
                remaining: 0,
                version,
                closed: false,
            })],
            seat_keys: 1,
            at: UnixMillis(1_000),
        }))
    }

    async fn records(
        &self,
        _: &EventId,
        _: Option<AuditToken>,
    ) -> Result<AuditPage<AuditRecord>, AuditError> {
        Ok(page(vec![record("r1", ReservationState::Confirmed, "s1")]))
    }

    async fn seats(
        &self,
        _: &EventId,
        _: u16,
        _: u16,
        _: Option<AuditToken>,
    ) -> Result<AuditPage<PlacedSeat>, AuditError> {
        let other = self.seat.lock().unwrap().clone();
        let item = |(id, state)| {
            Ok(AuditSeat {
                id: seat(id),
                state,
            })
        };
        let other = ("s2", other.unwrap_or(SeatState::Available));
        Ok(page([("s1", sold("r1")), other].map(item).into()))
    }

    async fn snapshot(
        &self,
        _: &EventId,
        _: u16,
        _: Vec<SeatId>,
        _: Vec<ReservationId>,
    ) -> Result<Option<Snapshot>, AuditError> {
        let mut looks = self.looks.lock().unwrap();
        let look = looks[0].clone();
        if looks.len() > 1 {
            looks.remove(0);
        }
        Ok(look)
    }

    async fn repair(
        &self,
        _: &EventId,
        _: u16,
        repair: Repair,
    ) -> Result<RepairOutcome, AuditError> {
        let result = self.repairs.lock().unwrap().remove(0);
        if result == Ok(RepairOutcome::Done) {
            assert_eq!(repair.subject().id(), "s2");
            *self.seat.lock().unwrap() = None;
        }
        result
    }
}

fn audit(told: Told) -> Audit {
    Audit {
        backend: Arc::new(told),
        slots: Arc::new(Semaphore::new(limits::AUDITS_MAX)),
    }
}

async fn started(audit: &Audit, event: &str) -> Result<Updates<pb::VerifyUpdate>, Status> {
    let event_id = event.to_owned();
    let request = Request::new(pb::VerifyRequest { event_id });
    audit.verify(request).await.map(Response::into_inner)
}

async fn verified(told: Told) -> Result<pb::AuditReport, Status> {
    let updates = started(&audit(told), "evt").await?;
    let updates: Vec<_> = updates.collect().await;
    match updates.into_iter().next_back().unwrap()?.update.unwrap() {
        pb::verify_update::Update::Report(report) => Ok(report),
        other => panic!("{other:?} came last"),
    }
}

async fn reconciled(told: Told) -> Vec<Update> {
    let event_id = "evt".to_owned();
    let request = Request::new(pb::ReconcileRequest {
        event_id,
        apply: true,
    });
    let updates = audit(told).reconcile(request).await.unwrap().into_inner();
    let updates: Vec<_> = updates.collect().await;
    let updates = updates
        .into_iter()
        .map(|update| update.unwrap().update.unwrap());
    let progress = |update: &Update| matches!(update, Update::Progress(_));
    updates.filter(|update| !progress(update)).collect()
}

fn orphan() -> Told {
    let found = record("r9", ReservationState::Released, "s2");
    Told {
        seat: Mutex::new(Some(sold("r9"))),
        looks: Mutex::new(vec![Some(snapshot(sold("r9"), &[found]))]),
        ..Told::default()
    }
}

#[tokio::test]
async fn an_event_at_rest_is_read_once_and_clean() {
    let report = verified(Told::default()).await.unwrap();
    assert_eq!(report.verdict(), pb::AuditVerdict::Clean);
    assert_eq!(report.orders, 1);
}

#[tokio::test]
async fn a_stripe_that_never_stands_still_is_read_so_often_and_no_more() {
    let told = Told {
        sold_at_every_reading: true,
        ..Told::default()
    };
    let audit = audit(told);
    let updates = started(&audit, "evt").await.unwrap();
    let last = updates.collect::<Vec<_>>().await.pop().unwrap().unwrap();
    let Some(pb::verify_update::Update::Report(report)) = last.update else {
        panic!("no report")
    };
    assert_eq!(report.verdict(), pb::AuditVerdict::Moving);
    assert_eq!(report.moving_stripes, [0]);
    assert_eq!(report.breach_count, 0);
}

#[tokio::test]
async fn a_seat_is_looked_at_again_until_it_is_known() {
    let gone = record("r9", ReservationState::Released, "s2");
    let next = record("r10", ReservationState::Confirmed, "s2");
    // Written to; gone to another buyer, whose record is not read yet; read with it.
    let fine = Told {
        seat: Mutex::new(Some(sold("r9"))),
        looks: Mutex::new(vec![
            None,
            Some(snapshot(sold("r10"), std::slice::from_ref(&gone))),
            Some(snapshot(sold("r10"), &[gone, next])),
        ]),
        ..Told::default()
    };
    let report = verified(fine).await.unwrap();
    assert_eq!(report.verdict(), pb::AuditVerdict::Clean);
    assert!(report.restless);

    let report = verified(orphan()).await.unwrap();
    assert_eq!(report.breaches[0].code, "SEAT_ORPHAN");

    let busy = Told {
        looks: Mutex::new(vec![None]),
        ..orphan()
    };
    let report = verified(busy).await.unwrap();
    assert_eq!(report.verdict(), pb::AuditVerdict::Moving);
    assert_eq!(report.moving_seats, 1);
}

#[tokio::test]
async fn repairs_are_told_then_made_then_read_back() {
    let told = Told {
        repairs: Mutex::new(vec![Ok(RepairOutcome::Done)]),
        ..orphan()
    };
    let updates = reconciled(told).await;
    let [
        Update::Report(before),
        Update::Plan(plan),
        Update::Done(done),
        Update::Report(after),
    ] = &updates[..]
    else {
        panic!("{updates:#?}")
    };
    assert_eq!(before.verdict(), pb::AuditVerdict::Breached);
    assert_eq!(plan.repairs[0].code, "FREE_SEAT");
    assert_eq!((done.done, done.stale, done.failed), (1, 0, 0));
    assert_eq!(after.verdict(), pb::AuditVerdict::Clean);
}

#[tokio::test]
async fn a_repair_that_came_to_nothing_is_told_with_its_reason() {
    for (result, why) in [
        (Ok(RepairOutcome::Stale), "had changed"),
        (Err(AuditError::Busy), "too much to do"),
    ] {
        let told = Told {
            repairs: Mutex::new(vec![result]),
            ..orphan()
        };
        let updates = reconciled(told).await;
        let Update::Done(done) = &updates[2] else {
            panic!("{updates:#?}")
        };
        assert_eq!((done.done, done.stale + done.failed), (0, 1));
        assert!(done.not_done[0].why.contains(why), "{done:?}");
        let Update::Report(after) = &updates[3] else {
            panic!("{updates:#?}")
        };
        assert_eq!(after.verdict(), pb::AuditVerdict::Breached);
    }
}

#[tokio::test]
async fn one_audit_at_a_time_and_the_next_when_its_listener_has_gone() {
    let audit = audit(Told {
        gate: Some(Arc::new(Notify::new())),
        ..Told::default()
    });
    let first = started(&audit, "evt").await.unwrap();
    let refused = started(&audit, "evt").await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let info = refused.get_details_error_info().unwrap();
    assert_eq!(info.reason, "AUDIT_UNDER_WAY");
    drop(first);
    while started(&audit, "evt").await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_audit_that_hangs_ends_in_deadline_exceeded() {
    let audit = audit(Told {
        gate: Some(Arc::new(Notify::new())),
        ..Told::default()
    });
    let mut updates = started(&audit, "evt").await.unwrap();
    let error = updates.next().await.unwrap().err().unwrap();
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn what_there_is_not_and_what_is_no_event_are_told_apart() {
    let nowhere = started(&audit(Told::default()), "nowhere").await.unwrap();
    let error = nowhere
        .collect::<Vec<_>>()
        .await
        .pop()
        .unwrap()
        .err()
        .unwrap();
    assert_eq!(error.code(), Code::NotFound);
    let illegal = started(&audit(Told::default()), "a b").await.err().unwrap();
    assert_eq!(illegal.code(), Code::InvalidArgument);
    assert!(
        illegal.message().contains("event_id"),
        "{}",
        illegal.message()
    );
}
