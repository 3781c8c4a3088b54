//! The reads and repairs of an audit, as jobs on the shards. Each page is read by the next shard, so that
//! an audit does not occupy one shard.

use std::rc::Rc;
use std::sync::Arc;

use super::shard_pool::{JobError, ShardPool};
use crate::control_plane::audit::{AuditBackend, AuditError};
use crate::shard::driver::Driver;
use inventory_core::audit::{AuditRecord, InstantSnapshot, Repair, UnreadableItem};
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_store::{
    AuditStripes, Page, PageToken, PlacedSeat, RepairOutcome, Store, StoreError,
};

/// Runs the reads and repairs of an audit on the shards.
pub(super) struct ShardAuditBackend {
    shards: Arc<ShardPool>,
}

impl ShardAuditBackend {
    pub(super) fn new(shards: Arc<ShardPool>) -> Self {
        Self { shards }
    }

    /// Runs `work` on a shard. The work runs to its end, even if this future is dropped.
    async fn on_shard<T, F>(
        &self,
        work: impl FnOnce(Rc<Store>) -> F + Send + 'static,
    ) -> Result<T, AuditError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + 'static,
    {
        let job = move |driver: Rc<Driver>| work(Rc::clone(driver.store()));
        match self.shards.run(job).await {
            Ok(result) => Ok(result?),
            Err(JobError::InboxFull) => Err(AuditError::Busy),
            Err(JobError::Stopped) => Err(AuditError::Stopping),
        }
    }
}

#[tonic::async_trait]
impl AuditBackend for ShardAuditBackend {
    async fn stripes(&self, event: &EventId) -> Result<Option<AuditStripes>, AuditError> {
        let event = event.clone();
        self.on_shard(async move |store| store.audit_stripes(&event).await).await
    }

    async fn records(
        &self,
        event: &EventId,
        from: Option<PageToken>,
    ) -> Result<Page<Result<AuditRecord, UnreadableItem>>, AuditError> {
        let event = event.clone();
        self.on_shard(async move |store| store.audit_records(&event, from.as_ref()).await).await
    }

    async fn seats(
        &self,
        event: &EventId,
        key: u16,
        seat_keys: u16,
        from: Option<PageToken>,
    ) -> Result<Page<Result<PlacedSeat, UnreadableItem>>, AuditError> {
        let event = event.clone();
        self.on_shard(async move |store| {
            store.audit_seats(&event, key, seat_keys, from.as_ref()).await
        })
        .await
    }

    async fn snapshot(
        &self,
        event: &EventId,
        seat_keys: u16,
        seats: Vec<SeatId>,
        records: Vec<ReservationId>,
    ) -> Result<Option<InstantSnapshot>, AuditError> {
        let event = event.clone();
        self.on_shard(async move |store| {
            store.audit_snapshot(&event, seat_keys, &seats, &records).await
        })
        .await
    }

    async fn repair(
        &self,
        event: &EventId,
        seat_keys: u16,
        repair: Repair,
    ) -> Result<RepairOutcome, AuditError> {
        let event = event.clone();
        self.on_shard(async move |store| store.repair(&event, seat_keys, &repair).await).await
    }
}
