//! `inventory.v1.InventoryAudit` on ADMIN_PORT: verify and reconcile, with progress while they run.
//!
//! | file | what |
//! |---|---|
//! | `audit.rs` | the service: arguments, one audit at a time, statuses |
//! | `audit/walk.rs` | the order of reading, and of looking again |
//! | `audit/mend.rs` | carrying a plan out |
//! | `audit/message.rs` | reports and plans as messages |
//!
//! What must hold is [`inventory_core::audit`]'s business, reading and writing the [`AuditBackend`]'s.

mod mend;
mod message;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use inventory_proto::inventory::v1 as pb;
use inventory_proto::inventory::v1::inventory_audit_server::{
    InventoryAudit, InventoryAuditServer,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::admin::ERROR_DOMAIN;
use crate::limits;
use inventory_core::audit::{AuditRecord, Repair, Snapshot};
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_store::{AuditPage, AuditStripes, AuditToken, PlacedSeat, RepairOutcome, StoreError};
use walk::Walk;

/// Reads and mends what an audit asks for; the server implements it with messages to the shards.
/// Every read is strongly consistent.
#[tonic::async_trait]
pub trait AuditBackend: Send + Sync + 'static {
    /// Every stripe; `None` when there is no such event.
    async fn stripes(&self, event: &EventId) -> Result<Option<AuditStripes>, AuditError>;

    /// The next page of the event's records, in no order.
    async fn records(
        &self,
        event: &EventId,
        from: Option<AuditToken>,
    ) -> Result<AuditPage<AuditRecord>, AuditError>;

    /// The next page of the seats under the `key`-th of the event's `seat_keys` partition keys.
    async fn seats(
        &self,
        event: &EventId,
        key: u16,
        seat_keys: u16,
        from: Option<AuditToken>,
    ) -> Result<AuditPage<PlacedSeat>, AuditError>;

    /// Seats and records as of one instant, together at most
    /// [`limits::TRANSACTION_ACTIONS_MAX`]; `None` when other writes did not let it be read.
    async fn snapshot(
        &self,
        event: &EventId,
        seat_keys: u16,
        seats: Vec<SeatId>,
        records: Vec<ReservationId>,
    ) -> Result<Option<Snapshot>, AuditError>;

    /// Carries out one repair if all is as it was seen. Harmless to repeat.
    async fn repair(
        &self,
        event: &EventId,
        seat_keys: u16,
        repair: Repair,
    ) -> Result<RepairOutcome, AuditError>;
}

/// Why an audit came to no end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    #[error("there is no event {0}")]
    EventNotFound(EventId),
    /// The event has more of something than an audit keeps.
    #[error("event has more than {max} {what}: an audit keeps no more in memory")]
    TooLarge { what: &'static str, max: usize },
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A shard has too much to do.
    #[error("the server has too much to do")]
    Busy,
    /// The server is draining.
    #[error("the server is stopping")]
    Stopping,
    #[error("not done within {:?}", limits::AUDIT_TIME_MAX)]
    Late,
    /// Judging panicked; it is in the log.
    #[error("the server's log says what went wrong")]
    Internal,
}

/// The service.
pub(super) fn service(backend: Arc<dyn AuditBackend>) -> InventoryAuditServer<Audit> {
    let audit = Audit {
        backend,
        slots: Arc::new(Semaphore::new(limits::AUDITS_MAX)),
    };
    InventoryAuditServer::new(audit).max_decoding_message_size(limits::REQUEST_MESSAGE_BYTES_MAX)
}

/// See the module's head.
pub struct Audit {
    backend: Arc<dyn AuditBackend>,
    slots: Arc<Semaphore>,
}

type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl InventoryAudit for Audit {
    type VerifyStream = Updates<pb::VerifyUpdate>;
    type ReconcileStream = Updates<pb::ReconcileUpdate>;

    async fn verify(
        &self,
        request: Request<pb::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let event = event_id(request.into_inner().event_id)?;
        let slot = self.slot(&event)?;
        let backend = Arc::clone(&self.backend);
        Ok(streamed(slot, event.clone(), async move |updates| {
            let walk = Walk::new(&*backend, &event, message::in_verify, &updates);
            let (report, _) = walk.verify().await?;
            say(&updates, message::verified(&report)).await;
            Ok(())
        }))
    }

    async fn reconcile(
        &self,
        request: Request<pb::ReconcileRequest>,
    ) -> Result<Response<Self::ReconcileStream>, Status> {
        let pb::ReconcileRequest {
            event_id: id,
            apply,
        } = request.into_inner();
        let event = event_id(id)?;
        let slot = self.slot(&event)?;
        let backend = Arc::clone(&self.backend);
        Ok(streamed(slot, event.clone(), async move |updates| {
            let walk = Walk::new(&*backend, &event, message::in_reconcile, &updates);
            mend::reconcile(&walk, apply).await
        }))
    }
}

impl Audit {
    fn slot(&self, event: &EventId) -> Result<OwnedSemaphorePermit, Status> {
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        slot.map_err(|_| {
            refused(
                Code::ResourceExhausted,
                "AUDIT_UNDER_WAY",
                event,
                "another audit is under way in this process; try again when it has ended",
            )
        })
    }
}

/// Where an audit says what it finds.
type Out<T> = mpsc::Sender<Result<T, Status>>;

/// Who does not listen any more needs no word.
async fn say<T>(updates: &Out<T>, update: T) {
    let _ = updates.send(Ok(update)).await;
}

/// Runs `audit` on a task of its own, within its time, until it ends or its listener has gone.
fn streamed<T: Send + 'static, F>(
    slot: OwnedSemaphorePermit,
    event: EventId,
    audit: impl FnOnce(Out<T>) -> F + Send + 'static,
) -> Response<Updates<T>>
where
    F: Future<Output = Result<(), AuditError>> + Send + 'static,
{
    let (updates, told) = mpsc::channel(limits::AUDIT_MESSAGES_MAX);
    tokio::spawn(async move {
        let _slot = slot;
        let work = tokio::time::timeout(limits::AUDIT_TIME_MAX, audit(updates.clone()));
        let done = tokio::select! {
            // Nobody listens: a repair that was begun is written or not, and the next run sees which.
            () = updates.closed() => return,
            done = work => done.unwrap_or(Err(AuditError::Late)),
        };
        if let Err(error) = done {
            let _ = updates.send(Err(status(&error, &event))).await;
        }
    });
    let told = futures::stream::unfold(told, async |mut told| {
        let update = told.recv().await?;
        Some((update, told))
    });
    Response::new(Box::pin(told))
}

fn event_id(text: String) -> Result<EventId, Status> {
    EventId::try_from(text).map_err(|error| {
        let said = format!("event_id {error}");
        let mut details = ErrorDetails::with_bad_request_violation("event_id", error.to_string());
        details.set_error_info("INVALID_ARGUMENT", ERROR_DOMAIN, HashMap::new());
        Status::with_error_details(Code::InvalidArgument, said, details)
    })
}

fn status(error: &AuditError, event: &EventId) -> Status {
    let (code, reason) = match error {
        AuditError::EventNotFound(_) => (Code::NotFound, "EVENT_NOT_FOUND"),
        AuditError::TooLarge { .. } => (Code::OutOfRange, "EVENT_TOO_LARGE"),
        AuditError::Store(StoreError::Throttled(_)) | AuditError::Busy => {
            (Code::ResourceExhausted, "STORE_BUSY")
        }
        AuditError::Store(StoreError::Unavailable(_)) | AuditError::Stopping => {
            (Code::Unavailable, "STORE_UNAVAILABLE")
        }
        AuditError::Late => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        AuditError::Store(error) => {
            tracing::warn!(error = %error, "an audit failed at the store");
            (Code::Internal, "INTERNAL")
        }
        AuditError::Internal => (Code::Internal, "INTERNAL"),
    };
    refused(code, reason, event, &error.to_string())
}

fn refused(code: Code, reason: &str, event: &EventId, said: &str) -> Status {
    let metadata = HashMap::from([("event_id".to_owned(), event.to_string())]);
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
    Status::with_error_details(code, said, details)
}
