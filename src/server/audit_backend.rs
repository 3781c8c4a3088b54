//! What an audit reads and mends, as messages to the shards: each page goes to the next one, so that
//! no shard's sales wait for a whole audit.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;

use crate::control_plane::audit::{AuditBackend, AuditError};
use crate::shard::ask;
use crate::shard::inbox::{Mailbox, ShardMessage};
use inventory_core::audit::{AuditRecord, InstantSnapshot, Repair, UnreadableItem};
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_store::{
    AuditStripes, Page, PageToken, PlacedSeat, RepairOutcome, Store, StoreError,
};

/// See the module's head.
pub(super) struct ShardAuditBackend {
    mailboxes: Vec<Mailbox>,
    next: AtomicUsize,
}

impl ShardAuditBackend {
    pub(super) fn new(mailboxes: Vec<Mailbox>) -> Self {
        Self {
            mailboxes,
            next: AtomicUsize::new(0),
        }
    }

    /// Runs `work` on some shard, to its end even if nobody waits for it any more.
    async fn on_shard<T, F>(
        &self,
        work: impl FnOnce(Rc<Store>) -> F + Send + 'static,
    ) -> Result<T, AuditError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + 'static,
    {
        let (reply, answer) = ask();
        let job = ShardMessage::Job(Box::new(move |driver| {
            async move {
                let done = work(Rc::clone(driver.store())).await;
                // Whoever asked may have gone.
                let _ = reply.send(done);
            }
            .boxed_local()
        }));
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.mailboxes.len().max(1);
        let shard = self.mailboxes.get(turn).ok_or(AuditError::Stopping)?;
        shard.send(job).map_err(|_| AuditError::Busy)?;
        Ok(answer.await.map_err(|_| AuditError::Stopping)??)
    }
}

#[tonic::async_trait]
impl AuditBackend for ShardAuditBackend {
    async fn stripes(&self, event: &EventId) -> Result<Option<AuditStripes>, AuditError> {
        let event = event.clone();
        self.on_shard(async move |store| store.audit_stripes(&event).await)
            .await
    }

    async fn records(
        &self,
        event: &EventId,
        from: Option<PageToken>,
    ) -> Result<Page<Result<AuditRecord, UnreadableItem>>, AuditError> {
        let event = event.clone();
        self.on_shard(async move |store| store.audit_records(&event, from.as_ref()).await)
            .await
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
            store
                .audit_seats(&event, key, seat_keys, from.as_ref())
                .await
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
            store
                .audit_snapshot(&event, seat_keys, &seats, &records)
                .await
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
        self.on_shard(async move |store| store.repair(&event, seat_keys, &repair).await)
            .await
    }
}
