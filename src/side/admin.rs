//! `inventory.v1.InventoryAdmin` on ADMIN_PORT: what an operator does.
//!
//! Arguments are checked and statuses made here; the work is the [`AdminBackend`]'s.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use inventory_proto::inventory::v1 as pb;
use inventory_proto::inventory::v1::inventory_admin_server::{
    InventoryAdmin, InventoryAdminServer, SERVICE_NAME,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::connections::Acceptor;
use super::readiness::Readiness;
use super::{cold, stopped};
use crate::domain::ids::EventId;
use crate::domain::transaction::StripeView;
use crate::limits;

/// `google.rpc.ErrorInfo.domain` of every error of this service.
pub const ERROR_DOMAIN: &str = "inventory-api";

/// Does what the admin service is asked for; the server implements it with messages to a shard.
/// A call's future may be dropped at its deadline: the work itself must then run on to its end.
#[tonic::async_trait]
pub trait AdminBackend: Send + Sync + 'static {
    /// Creates `event` with `total` units (1 to [`limits::EVENT_TOTAL_MAX`]) over `stripes` items (1
    /// to [`limits::STRIPES_MAX`], at most `total`), or finds it standing with the same arguments.
    async fn create_event(
        &self,
        event: EventId,
        total: u64,
        stripes: u16,
    ) -> Result<Created, AdminError>;

    /// Reads every stripe of `event`, strongly.
    async fn get_event(&self, event: EventId) -> Result<EventStock, AdminError>;
}

/// What [`AdminBackend::create_event`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub stock: EventStock,
    /// False when the event stood there already with the same arguments.
    pub created: bool,
}

/// An event's stock, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventStock {
    pub event: EventId,
    /// Every stripe, by index.
    pub stripes: Vec<StripeView>,
}

impl EventStock {
    /// Units the event was given.
    pub fn total(&self) -> u64 {
        self.stripes.iter().map(|s| s.capacity).sum()
    }

    /// Units still to be sold.
    pub fn remaining(&self) -> u64 {
        self.stripes.iter().map(|s| s.remaining).sum()
    }

    /// Units of confirmed reservations: what a stripe has given away, for nothing else takes from it.
    pub fn confirmed(&self) -> u64 {
        self.total().saturating_sub(self.remaining())
    }
}

/// Why the backend did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminError {
    EventNotFound,
    /// The event stands there with other arguments.
    EventExists {
        total: u64,
        stripes: u16,
    },
    /// The shard or the store has too much to do; nothing was done.
    Busy {
        retry_after: Duration,
    },
    /// The store cannot be reached, or the process is draining.
    Unavailable {
        retry_after: Duration,
    },
    /// The store refused this very request, or holds what cannot be understood; it is in the log.
    Internal,
}

/// The admin service with its health and reflection.
pub(super) fn routes(backend: Arc<dyn AdminBackend>, readiness: &Readiness) -> Routes {
    let service = InventoryAdminServer::new(Admin { backend })
        .max_decoding_message_size(limits::REQUEST_MESSAGE_BYTES_MAX);
    cold::services_for(SERVICE_NAME, readiness).add_service(service)
}

/// Serves until told to stop, then until every connection has finished its calls.
pub(super) async fn serve(listener: TcpListener, routes: Routes, stopping: watch::Receiver<bool>) {
    let acceptor = Acceptor::new(listener, limits::ADMIN_CONNECTIONS_MAX, "admin");
    let served = Server::builder()
        .max_concurrent_streams(limits::ADMIN_CALLS_PER_CONNECTION_MAX as u32)
        .concurrency_limit_per_connection(limits::ADMIN_CALLS_PER_CONNECTION_MAX)
        .load_shed(true)
        .http2_max_header_list_size(limits::HEADER_LIST_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(limits::PENDING_RESETS_MAX))
        .http2_keepalive_interval(Some(limits::KEEP_ALIVE_PERIOD_DEFAULT))
        .http2_keepalive_timeout(Some(limits::KEEP_ALIVE_TIMEOUT))
        // With a grace the connection is cut, also one that never sent a byte; without one, tonic
        // would ask it to leave and wait for ever.
        .max_connection_age(limits::ADMIN_CONNECTION_AGE_MAX)
        .max_connection_age_grace(limits::ADMIN_CALL_TIMEOUT)
        .add_routes(routes)
        .serve_with_incoming_shutdown(acceptor.into_stream(), stopped(stopping))
        .await;
    if let Err(error) = served {
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::error!(error, "the admin server ended");
    }
}

struct Admin {
    backend: Arc<dyn AdminBackend>,
}

#[tonic::async_trait]
impl InventoryAdmin for Admin {
    async fn create_event(
        &self,
        request: Request<pb::CreateEventRequest>,
    ) -> Result<Response<pb::CreateEventResponse>, Status> {
        let NewEvent {
            event,
            total,
            stripes,
        } = NewEvent::check(request.into_inner())?;
        let work = self.backend.create_event(event.clone(), total, stripes);
        let made = in_time(&event, work).await?;
        Ok(Response::new(pb::CreateEventResponse {
            event: Some(message(&made.stock)),
            created: made.created,
        }))
    }

    async fn get_event(
        &self,
        request: Request<pb::GetEventRequest>,
    ) -> Result<Response<pb::GetEventResponse>, Status> {
        let mut details = ErrorDetails::new();
        let event = event_id(request.into_inner().event_id, &mut details);
        let event = event.ok_or_else(|| invalid(details))?;
        let stock = in_time(&event, self.backend.get_event(event.clone())).await?;
        Ok(Response::new(pb::GetEventResponse {
            event: Some(message(&stock)),
        }))
    }
}

/// A CreateEventRequest within all its bounds.
struct NewEvent {
    event: EventId,
    total: u64,
    stripes: u16,
}

impl NewEvent {
    /// Names every field that is out of bounds, not the first one only.
    fn check(request: pb::CreateEventRequest) -> Result<Self, Status> {
        let mut details = ErrorDetails::new();
        let event = event_id(request.event_id, &mut details);
        let total = request.total;
        let total_is_legal = (1..=limits::EVENT_TOTAL_MAX).contains(&total);
        if !total_is_legal {
            let max = limits::EVENT_TOTAL_MAX;
            details.add_bad_request_violation("total", format!("is {total}; want 1 to {max}"));
        }
        let stripes = match request.stripes {
            0 => 1,
            other => other,
        };
        if !(1..=i32::from(limits::STRIPES_MAX)).contains(&stripes) {
            let max = limits::STRIPES_MAX;
            let wrong = format!("is {stripes}; want 1 to {max}, or 0 for 1");
            details.add_bad_request_violation("stripes", wrong);
        } else if total_is_legal && i64::from(stripes) > total {
            let wrong = format!("is {stripes}; want at most total, which is {total}");
            details.add_bad_request_violation("stripes", wrong);
        }
        match (event, u64::try_from(total), u16::try_from(stripes)) {
            (Some(event), Ok(total), Ok(stripes)) if !details.has_bad_request_violations() => {
                Ok(Self {
                    event,
                    total,
                    stripes,
                })
            }
            _ => Err(invalid(details)),
        }
    }
}

fn event_id(text: String, details: &mut ErrorDetails) -> Option<EventId> {
    EventId::try_from(text)
        .inspect_err(|error| {
            details.add_bad_request_violation("event_id", error.to_string());
        })
        .ok()
}

/// INVALID_ARGUMENT with the violations gathered in `details`.
fn invalid(mut details: ErrorDetails) -> Status {
    let violations = details.bad_request().map(|bad| &bad.field_violations[..]);
    let said: Vec<String> = violations
        .unwrap_or_default()
        .iter()
        .map(|violation| format!("{} {}", violation.field, violation.description))
        .collect();
    details.set_error_info("INVALID_ARGUMENT", ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(Code::InvalidArgument, said.join("; "), details)
}

/// The result of `work` on `event`, or why there is none, within [`limits::ADMIN_CALL_TIMEOUT`].
async fn in_time<T>(
    event: &EventId,
    work: impl Future<Output = Result<T, AdminError>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limits::ADMIN_CALL_TIMEOUT, work).await {
        Ok(done) => done.map_err(|error| status(&error, event)),
        Err(_elapsed) => Err(refused(
            Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
            event,
            format!(
                "no answer within {:?}; get the event to see what became of it",
                limits::ADMIN_CALL_TIMEOUT
            ),
        )),
    }
}

fn status(error: &AdminError, event: &EventId) -> Status {
    match error {
        AdminError::EventNotFound => refused(
            Code::NotFound,
            "EVENT_NOT_FOUND",
            event,
            format!("there is no event {event}"),
        ),
        AdminError::EventExists { total, stripes } => refused(
            Code::AlreadyExists,
            "EVENT_EXISTS",
            event,
            format!("event {event} exists with total {total} over {stripes} stripes"),
        ),
        AdminError::Busy { retry_after } => again(
            Code::ResourceExhausted,
            "STORE_BUSY",
            event,
            *retry_after,
            "too much to do; nothing was done",
        ),
        AdminError::Unavailable { retry_after } => again(
            Code::Unavailable,
            "STORE_UNAVAILABLE",
            event,
            *retry_after,
            "the store cannot be reached, or the server is draining",
        ),
        AdminError::Internal => refused(
            Code::Internal,
            "INTERNAL",
            event,
            "the server's log says what went wrong",
        ),
    }
}

fn about(reason: &str, event: &EventId) -> ErrorDetails {
    let metadata = HashMap::from([("event_id".to_owned(), event.to_string())]);
    ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata)
}

fn refused(code: Code, reason: &str, event: &EventId, said: impl Into<String>) -> Status {
    Status::with_error_details(code, said, about(reason, event))
}

/// A refusal that a later try may not meet, with the pause before it.
fn again(code: Code, reason: &str, event: &EventId, after: Duration, said: &str) -> Status {
    let mut details = about(reason, event);
    details.set_retry_info(Some(after));
    let mut status = Status::with_error_details(code, said, details);
    let pushback = (after.as_millis() as u64).into();
    status
        .metadata_mut()
        .insert("grpc-retry-pushback-ms", pushback);
    status
}

fn message(stock: &EventStock) -> pb::EventStock {
    // Stored numbers are within EVENT_TOTAL_MAX; a damaged one shows as the largest there is.
    let signed = |units: u64| i64::try_from(units).unwrap_or(i64::MAX);
    let stripe = |(index, view): (usize, &StripeView)| pb::StripeStock {
        index: index as i32,
        capacity: signed(view.capacity),
        remaining: signed(view.remaining),
        version: signed(view.version),
    };
    pb::EventStock {
        event_id: stock.event.to_string(),
        total: signed(stock.total()),
        remaining: signed(stock.remaining()),
        confirmed: signed(stock.confirmed()),
        stripes: stock.stripes.iter().enumerate().map(stripe).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stuck;

    #[tonic::async_trait]
    impl AdminBackend for Stuck {
        async fn create_event(&self, _: EventId, _: u64, _: u16) -> Result<Created, AdminError> {
            std::future::pending().await
        }

        async fn get_event(&self, _: EventId) -> Result<EventStock, AdminError> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stuck_backend_ends_in_deadline_exceeded() {
        let backend = Arc::new(Stuck);
        let event_id = "evt".to_owned();
        let request = Request::new(pb::GetEventRequest { event_id });
        let began = tokio::time::Instant::now();
        let error = Admin { backend }.get_event(request).await.err();
        let error = error.expect("a refusal");
        assert_eq!(
            began.elapsed().as_secs(),
            limits::ADMIN_CALL_TIMEOUT.as_secs()
        );
        assert_eq!(error.code(), Code::DeadlineExceeded);
        let info = error.get_details_error_info().expect("an ErrorInfo");
        assert_eq!(info.reason, "DEADLINE_EXCEEDED");
    }
}
