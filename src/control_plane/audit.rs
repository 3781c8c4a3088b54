//! `inventory.v1.InventoryAudit` on ADMIN_PORT: verify and reconcile, with progress messages.
//!
//! | file | content |
//! |---|---|
//! | `audit.rs` | the service: arguments, one audit at a time, statuses |
//! | `audit/scan.rs` | order of the reads, and repeated reads of suspect seats |
//! | `audit/reconcile.rs` | execution of a repair plan |
//! | `audit/message.rs` | reports and plans as messages |
//!
//! The rules are in [`inventory_core::audit`]; the [`AuditBackend`] reads and writes.

mod message;
mod reconcile;
mod scan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use inventory_proto::inventory::v1 as pb;
use inventory_proto::inventory::v1::inventory_audit_server::{
    InventoryAudit, InventoryAuditServer,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::access::AdminCaller;
use super::access::ERROR_DOMAIN;
use super::admin_log::AdminChange;
use crate::limits;
use inventory_core::audit::{AuditRecord, InstantSnapshot, Repair, UnreadableItem};
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_store::{AuditStripes, Page, PageToken, PlacedSeat, RepairOutcome, StoreError};
use scan::AuditScan;

/// Reads items and executes repairs; the server implements it with messages to the shards. All reads are strongly
/// consistent.
#[tonic::async_trait]
pub trait AuditBackend: Send + Sync + 'static {
    /// All stripes; `None` if the event does not exist.
    async fn stripes(&self, event: &EventId) -> Result<Option<AuditStripes>, AuditError>;

    /// The next page of reservation records of the event, in no particular order.
    async fn records(
        &self,
        event: &EventId,
        from: Option<PageToken>,
    ) -> Result<Page<Result<AuditRecord, UnreadableItem>>, AuditError>;

    /// The next page of seats in partition `key` of `seat_keys`.
    async fn seats(
        &self,
        event: &EventId,
        key: u16,
        seat_keys: u16,
        from: Option<PageToken>,
    ) -> Result<Page<Result<PlacedSeat, UnreadableItem>>, AuditError>;

    /// Seats and records of one instant, together at most [`limits::TRANSACTION_ACTIONS_MAX`]; `None` if concurrent
    /// writes prevented the read.
    async fn snapshot(
        &self,
        event: &EventId,
        seat_keys: u16,
        seats: Vec<SeatId>,
        records: Vec<ReservationId>,
    ) -> Result<Option<InstantSnapshot>, AuditError>;

    /// Executes one repair if the item is unchanged. Idempotent.
    async fn repair(
        &self,
        event: &EventId,
        seat_keys: u16,
        repair: Repair,
    ) -> Result<RepairOutcome, AuditError>;
}

/// An audit failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    #[error("event {0} does not exist")]
    EventNotFound(EventId),
    /// The event has more items than an audit keeps in memory.
    #[error("event has more than {max} {what}, the maximum that an audit keeps in memory")]
    TooLarge { what: &'static str, max: usize },
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A shard is overloaded.
    #[error("the server is overloaded")]
    Busy,
    /// The server is draining.
    #[error("the server is stopping")]
    Stopping,
    #[error("not finished within {:?}", limits::AUDIT_TIME_MAX)]
    Late,
    /// The check panicked; the log has the panic.
    #[error("internal error; see the log of the server")]
    Internal,
}

/// The audit service with its backend.
pub(super) fn service(backend: Arc<dyn AuditBackend>) -> InventoryAuditServer<AuditService> {
    let audit = AuditService { backend, slots: Arc::new(Semaphore::new(limits::AUDITS_MAX)) };
    InventoryAuditServer::new(audit)
        .max_decoding_message_size(limits::REQUEST_MESSAGE_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
}

/// The audit service.
pub(crate) struct AuditService {
    backend: Arc<dyn AuditBackend>,
    slots: Arc<Semaphore>,
}

type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl InventoryAudit for AuditService {
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
            let scan = AuditScan::new(&*backend, &event, message::in_verify, &updates);
            let (report, _) = scan.verify().await?;
            send(&updates, message::verified(&report)).await;
            Ok(())
        }))
    }

    async fn reconcile(
        &self,
        request: Request<pb::ReconcileRequest>,
    ) -> Result<Response<Self::ReconcileStream>, Status> {
        let caller = AdminCaller::of(&request);
        let pb::ReconcileRequest { event_id: id, apply } = request.into_inner();
        let event = event_id(id)?;
        let slot = self.slot(&event)?;
        let backend = Arc::clone(&self.backend);
        Ok(streamed(slot, event.clone(), async move |updates| {
            let scan = AuditScan::new(&*backend, &event, message::in_reconcile, &updates);
            let action = if apply { "reconcile" } else { "plan repairs" };
            let change = AdminChange::new(caller, action, &event);
            let mut written =
                RepairLog { change, event: event.clone(), count: 0, first: Vec::new() };
            let done = reconcile::reconcile(&scan, apply, &mut written).await;
            written.log(&done);
            done
        }))
    }
}

/// The repairs of one call, in the audit log when it ends, also by a disconnect.
struct RepairLog {
    change: AdminChange,
    event: EventId,
    count: usize,
    /// The first repairs in words; each has what was seen and what was written.
    first: Vec<String>,
}

impl RepairLog {
    fn add(&mut self, repair: &Repair) {
        self.count += 1;
        if self.first.len() < limits::AUDIT_LOG_SEATS_MAX {
            self.first.push(format!("{repair:?}"));
        }
        let (count, first) = (self.count, self.first.join("; "));
        self.change.set_progress(&self.event, format_args!("{count} repairs: {first}"));
    }

    fn log(self, done: &Result<(), AuditError>) {
        let result = done.as_ref().map_err(|error| status(error, &self.event));
        self.change.log(&result, |()| format!("{} repairs", self.count));
    }
}

impl AuditService {
    fn slot(&self, event: &EventId) -> Result<OwnedSemaphorePermit, Status> {
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        slot.map_err(|_| {
            refused(
                Code::ResourceExhausted,
                "AUDIT_UNDER_WAY",
                event,
                "another audit is running in this process; retry when it has finished",
            )
        })
    }
}

/// The update stream of an audit.
type UpdateSender<T> = mpsc::Sender<Result<T, Status>>;

/// Sends an update; ignores a client that has disconnected.
async fn send<T>(updates: &UpdateSender<T>, update: T) {
    let _ = updates.send(Ok(update)).await;
}

/// Runs `audit` in a task with a time limit, until it ends or the client disconnects.
fn streamed<T: Send + 'static, F>(
    slot: OwnedSemaphorePermit,
    event: EventId,
    audit: impl FnOnce(UpdateSender<T>) -> F + Send + 'static,
) -> Response<Updates<T>>
where
    F: Future<Output = Result<(), AuditError>> + Send + 'static,
{
    let (updates, stream) = mpsc::channel(limits::AUDIT_MESSAGES_MAX);
    tokio::spawn(async move {
        let _slot = slot;
        let work = tokio::time::timeout(limits::AUDIT_TIME_MAX, audit(updates.clone()));
        let done = tokio::select! {
            // The client disconnected. The next run detects whether a started repair was written.
            () = updates.closed() => return,
            done = work => done.unwrap_or(Err(AuditError::Late)),
        };
        if let Err(error) = done {
            let _ = updates.send(Err(status(&error, &event))).await;
        }
    });
    let stream = futures::stream::unfold(stream, async |mut stream| {
        let update = stream.recv().await?;
        Some((update, stream))
    });
    Response::new(Box::pin(stream))
}

fn event_id(text: String) -> Result<EventId, Status> {
    EventId::try_from(text).map_err(|error| {
        let description = format!("event_id {error}");
        let mut details = ErrorDetails::with_bad_request_violation("event_id", error.to_string());
        details.set_error_info("INVALID_ARGUMENT", ERROR_DOMAIN, HashMap::new());
        Status::with_error_details(Code::InvalidArgument, description, details)
    })
}

fn status(error: &AuditError, event: &EventId) -> Status {
    let (code, reason) = match error {
        AuditError::EventNotFound(_) => (Code::NotFound, "EVENT_NOT_FOUND"),
        AuditError::TooLarge { .. } => (Code::OutOfRange, "EVENT_TOO_LARGE"),
        AuditError::Store(StoreError::Throttled(_)) | AuditError::Busy => {
            (Code::ResourceExhausted, "STORE_BUSY")
        }
        AuditError::Store(StoreError::Unavailable(_) | StoreError::Refused(_))
        | AuditError::Stopping => (Code::Unavailable, "STORE_UNAVAILABLE"),
        AuditError::Late => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        AuditError::Store(error) => {
            tracing::warn!(error = %error, "audit failed: store error");
            (Code::Internal, "INTERNAL")
        }
        AuditError::Internal => (Code::Internal, "INTERNAL"),
    };
    refused(code, reason, event, &error.to_string())
}

fn refused(code: Code, reason: &str, event: &EventId, description: &str) -> Status {
    let metadata = HashMap::from([("event_id".to_owned(), event.to_string())]);
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
    Status::with_error_details(code, description, details)
}
