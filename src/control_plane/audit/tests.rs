//! Tests of the scan and of repairs with a scripted backend.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use pb::reconcile_update::Update;
use tokio::sync::Notify;

use super::*;
use inventory_core::audit::{AuditSeat, StoredItem, StripeAmounts};
use inventory_core::ids::OrderId;
use inventory_core::seats::SeatState;
use inventory_core::time::UnixMillis;
use inventory_core::transaction::{ReservationState, StripeAllocations};

/// A backend with an event of two seats (s1 sold to r1, s2 available) and one stripe, which changes at every read if
/// `stripe_moves`.
#[derive(Default)]
struct ScriptedBackend {
    reads: AtomicU64,
    stripe_moves: bool,
    /// State of s2 in the scan.
    seat: Mutex<Option<SeatState>>,
    /// Results of the later reads of s2 and its records; the last one repeats. `None`: a concurrent write.
    looks: Mutex<Vec<Option<InstantSnapshot>>>,
    /// Results of the repairs.
    repairs: Mutex<Vec<Result<RepairOutcome, AuditError>>>,
    /// If present, blocks the first read until notified.
    gate: Option<Arc<Notify>>,
}

fn seat(id: &str) -> SeatId {
    id.parse().unwrap()
}

fn sold(to: &str) -> SeatState {
    SeatState::Sold { reservation: to.parse().unwrap() }
}

fn record(id: &str, state: ReservationState, of: &str) -> AuditRecord {
    let reservation: ReservationId = id.parse().unwrap();
    AuditRecord {
        state,
        qty: 1,
        draws: StripeAllocations::new(),
        seats: Some([seat(of)].into()),
        order: Some(OrderId::of(&reservation)),
        expires_at: None,
        counted: false,
        reservation,
    }
}

fn snapshot(state: SeatState, records: &[AuditRecord]) -> InstantSnapshot {
    let known =
        |record: &AuditRecord| (record.reservation.clone(), StoredItem::Read(record.clone()));
    InstantSnapshot {
        seats: [(seat("s2"), StoredItem::Read(state))].into(),
        records: records.iter().map(known).collect(),
    }
}

fn page<T>(items: Vec<T>) -> Page<Result<T, UnreadableItem>> {
    Page { examined: items.len() as u64, items: items.into_iter().map(Ok).collect(), next: None }
}

#[tonic::async_trait]
impl AuditBackend for ScriptedBackend {
    async fn stripes(&self, event: &EventId) -> Result<Option<AuditStripes>, AuditError> {
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        if event.as_str() == "nowhere" {
            return Ok(None);
        }
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        let version = if self.stripe_moves { reads } else { 1 };
        Ok(Some(AuditStripes {
            stripes: vec![StoredItem::Read(StripeAmounts {
                capacity: 0,
                remaining: 0,
                version,
                closed: false,
                held: 0,
                moved: 0,
            })],
            counters: Vec::new(),
            seat_keys: 1,
            at: UnixMillis(1_000),
        }))
    }

    async fn records(
        &self,
        _: &EventId,
        _: Option<PageToken>,
    ) -> Result<Page<Result<AuditRecord, UnreadableItem>>, AuditError> {
        Ok(page(vec![record("r1", ReservationState::Confirmed, "s1")]))
    }

    async fn seats(
        &self,
        _: &EventId,
        _: u16,
        _: u16,
        _: Option<PageToken>,
    ) -> Result<Page<Result<PlacedSeat, UnreadableItem>>, AuditError> {
        let other = self.seat.lock().unwrap().clone();
        let item = |(id, state)| Ok(AuditSeat { id: seat(id), state });
        let other = ("s2", other.unwrap_or(SeatState::Available));
        Ok(page([("s1", sold("r1")), other].map(item).into()))
    }

    async fn snapshot(
        &self,
        _: &EventId,
        _: u16,
        _: Vec<SeatId>,
        _: Vec<ReservationId>,
    ) -> Result<Option<InstantSnapshot>, AuditError> {
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

fn audit(backend: ScriptedBackend) -> AuditService {
    AuditService { backend: Arc::new(backend), slots: Arc::new(Semaphore::new(limits::AUDITS_MAX)) }
}

async fn started(audit: &AuditService, event: &str) -> Result<Updates<pb::VerifyUpdate>, Status> {
    let event_id = event.to_owned();
    let request = Request::new(pb::VerifyRequest { event_id });
    audit.verify(request).await.map(Response::into_inner)
}

async fn verified(backend: ScriptedBackend) -> Result<pb::AuditReport, Status> {
    let updates = started(&audit(backend), "evt").await?;
    let updates: Vec<_> = updates.collect().await;
    match updates.into_iter().next_back().unwrap()?.update.unwrap() {
        pb::verify_update::Update::Report(report) => Ok(report),
        other => panic!("{other:?} came last"),
    }
}

async fn reconciled(backend: ScriptedBackend) -> Vec<Update> {
    let event_id = "evt".to_owned();
    let request = Request::new(pb::ReconcileRequest { event_id, apply: true });
    let updates = audit(backend).reconcile(request).await.unwrap().into_inner();
    let updates: Vec<_> = updates.collect().await;
    let updates = updates.into_iter().map(|update| update.unwrap().update.unwrap());
    let progress = |update: &Update| matches!(update, Update::Progress(_));
    updates.filter(|update| !progress(update)).collect()
}

fn orphan() -> ScriptedBackend {
    let found = record("r9", ReservationState::Released, "s2");
    ScriptedBackend {
        seat: Mutex::new(Some(sold("r9"))),
        looks: Mutex::new(vec![Some(snapshot(sold("r9"), &[found]))]),
        ..ScriptedBackend::default()
    }
}

#[tokio::test]
async fn idle_event_is_read_once_and_clean() {
    let report = verified(ScriptedBackend::default()).await.unwrap();
    assert_eq!(report.verdict(), pb::AuditVerdict::Clean);
    assert_eq!(report.orders, 1);
}

#[tokio::test]
async fn moving_stripe_is_read_at_most_the_maximum_number_of_rounds() {
    let backend = ScriptedBackend { stripe_moves: true, ..ScriptedBackend::default() };
    let audit = audit(backend);
    let updates = started(&audit, "evt").await.unwrap();
    let last = updates.collect::<Vec<_>>().await.pop().unwrap().unwrap();
    let Some(pb::verify_update::Update::Report(report)) = last.update else { panic!("no report") };
    assert_eq!(report.verdict(), pb::AuditVerdict::Moving);
    assert_eq!(report.moving_stripes, [0]);
    assert_eq!(report.breach_count, 0);
}

#[tokio::test]
async fn suspect_seat_is_read_until_it_is_resolved() {
    let released = record("r9", ReservationState::Released, "s2");
    let next = record("r10", ReservationState::Confirmed, "s2");
    // First a concurrent write, then sold to a reservation whose record is not read yet, then with that record.
    let fine = ScriptedBackend {
        seat: Mutex::new(Some(sold("r9"))),
        looks: Mutex::new(vec![
            None,
            Some(snapshot(sold("r10"), std::slice::from_ref(&released))),
            Some(snapshot(sold("r10"), &[released, next])),
        ]),
        ..ScriptedBackend::default()
    };
    let report = verified(fine).await.unwrap();
    assert_eq!(report.verdict(), pb::AuditVerdict::Clean);
    assert!(report.restless);

    let report = verified(orphan()).await.unwrap();
    assert_eq!(report.breaches[0].code, "SEAT_ORPHAN");

    let busy = ScriptedBackend { looks: Mutex::new(vec![None]), ..orphan() };
    let report = verified(busy).await.unwrap();
    assert_eq!(report.verdict(), pb::AuditVerdict::Moving);
    assert_eq!(report.moving_seats, 1);
}

#[tokio::test]
async fn reconcile_sends_plan_executes_repairs_and_verifies() {
    let backend =
        ScriptedBackend { repairs: Mutex::new(vec![Ok(RepairOutcome::Done)]), ..orphan() };
    let updates = reconciled(backend).await;
    let [Update::Report(before), Update::Plan(plan), Update::Done(done), Update::Report(after)] =
        &updates[..]
    else {
        panic!("{updates:#?}")
    };
    assert_eq!(before.verdict(), pb::AuditVerdict::Breached);
    assert_eq!(plan.repairs[0].code, "FREE_SEAT");
    assert_eq!((done.done, done.stale, done.failed), (1, 0, 0));
    assert_eq!(after.verdict(), pb::AuditVerdict::Clean);
}

#[tokio::test]
async fn failed_repair_is_reported_with_its_reason() {
    for (result, why) in
        [(Ok(RepairOutcome::Stale), "changed after"), (Err(AuditError::Busy), "overloaded")]
    {
        let backend = ScriptedBackend { repairs: Mutex::new(vec![result]), ..orphan() };
        let updates = reconciled(backend).await;
        let Update::Done(done) = &updates[2] else { panic!("{updates:#?}") };
        assert_eq!((done.done, done.stale + done.failed), (0, 1));
        assert!(done.not_done[0].why.contains(why), "{done:?}");
        let Update::Report(after) = &updates[3] else { panic!("{updates:#?}") };
        assert_eq!(after.verdict(), pb::AuditVerdict::Breached);
    }
}

#[tokio::test]
async fn only_one_audit_runs_and_a_disconnect_frees_the_slot() {
    let audit = audit(ScriptedBackend {
        gate: Some(Arc::new(Notify::new())),
        ..ScriptedBackend::default()
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
async fn hanging_audit_ends_with_deadline_exceeded() {
    let audit = audit(ScriptedBackend {
        gate: Some(Arc::new(Notify::new())),
        ..ScriptedBackend::default()
    });
    let mut updates = started(&audit, "evt").await.unwrap();
    let error = updates.next().await.unwrap().err().unwrap();
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn unknown_event_and_invalid_id_have_different_statuses() {
    let nowhere = started(&audit(ScriptedBackend::default()), "nowhere").await.unwrap();
    let error = nowhere.collect::<Vec<_>>().await.pop().unwrap().err().unwrap();
    assert_eq!(error.code(), Code::NotFound);
    let illegal = started(&audit(ScriptedBackend::default()), "a b").await.err().unwrap();
    assert_eq!(illegal.code(), Code::InvalidArgument);
    assert!(illegal.message().contains("event_id"), "{}", illegal.message());
}
