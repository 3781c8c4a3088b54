//! `inventory.v1.InventoryAdmin` on ADMIN_PORT.
//!
//! | file | what |
//! |---|---|
//! | `backend.rs` | interface to the rest of the process |
//! | `check.rs` | validation of requests |
//! | `import.rs` | seat import |
//! | `message.rs` | conversion to messages |
//! | `status.rs` | errors as gRPC statuses |
//!
//! Validates arguments and maps errors; the [`AdminBackend`] executes the calls.

mod backend;
pub(crate) mod check;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod import;
mod message;
mod status;

use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use inventory_proto::inventory::v1 as pb;
use inventory_proto::inventory::v1::inventory_admin_server::{
    InventoryAdmin, InventoryAdminServer, SERVICE_NAME,
};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

pub use backend::{AdminBackend, AdminError, EventCreation, EventStock, Pages, Refund, Stock};

use self::status::{Subject, in_time};
use super::access::{AccessCheck, AdminCaller, ERROR_DOMAIN};
use super::admin_log::AdminChange;
use super::admin_stream;
use super::connections::LimitedListener;
use super::readiness::Readiness;
use super::{auxiliary, stop_requested};
use crate::limits;
use crate::telemetry::log;
use crate::tls::PortTls;
use inventory_core::ids::{EventId, SeatId};
use inventory_runtime::clock;
use inventory_store::StoredRecord;

/// The admin service with health and reflection.
pub(super) fn routes(
    backend: Arc<dyn AdminBackend>,
    readiness: &Readiness,
    access: AccessCheck,
) -> Routes {
    let service = InventoryAdminServer::new(Admin::new(backend))
        .max_decoding_message_size(limits::ADMIN_MESSAGE_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip);
    let service = InterceptedService::new(service, access);
    auxiliary::routes_for(SERVICE_NAME, readiness).add_service(service)
}

/// Serves until the stop, then until every connection has finished its calls.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<PortTls>,
    routes: Routes,
    stopping: watch::Receiver<bool>,
) {
    let listener = LimitedListener::new(listener, limits::ADMIN_CONNECTIONS_MAX, "admin");
    let connections = Box::pin(admin_stream::connections(listener, tls.as_ref()));
    let served = Server::builder()
        .max_concurrent_streams(limits::ADMIN_CALLS_PER_CONNECTION_MAX as u32)
        .concurrency_limit_per_connection(limits::ADMIN_CALLS_PER_CONNECTION_MAX)
        .load_shed(true)
        // A small window, so that the import progress of the client reflects the progress of the server.
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .http2_max_header_list_size(limits::HEADER_LIST_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(limits::PENDING_RESETS_MAX))
        .http2_keepalive_interval(Some(limits::KEEP_ALIVE_PERIOD_DEFAULT))
        .http2_keepalive_timeout(Some(limits::KEEP_ALIVE_TIMEOUT))
        // With a grace period tonic closes the connection; without one, it waits for the client without a limit.
        .max_connection_age(limits::ADMIN_CONNECTION_AGE_MAX)
        .max_connection_age_grace(limits::ADMIN_CALL_TIMEOUT)
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections, stop_requested(stopping))
        .await;
    if let Err(error) = served {
        let error: &(dyn std::error::Error + 'static) = &error;
        tracing::error!(error, "admin server failed");
    }
}

struct Admin {
    backend: Arc<dyn AdminBackend>,
    /// Limits concurrent imports and lists of seats: an import has several writes in flight, and a list has all seats of
    /// an event in memory.
    imports: Arc<Semaphore>,
}

impl Admin {
    fn new(backend: Arc<dyn AdminBackend>) -> Self {
        Self { backend, imports: Arc::new(Semaphore::new(limits::IMPORTS_MAX)) }
    }

    async fn change_seats(
        &self,
        caller: AdminCaller,
        event_id: String,
        seat_ids: Vec<String>,
        block: bool,
    ) -> Result<Vec<pb::SeatResult>, Status> {
        let (event, seats) = check::seats_of(event_id, seat_ids)?;
        let subject = Subject::Event(event.clone());
        let (action, names) = (if block { "block seats" } else { "unblock seats" }, some(&seats));
        let mut change = AdminChange::new(caller, action, &event);
        change.set_before(names);
        let done = in_time(&subject, self.backend.block_seats(event, seats, block)).await;
        let done = done.map(|done| done.into_iter().map(message::seat_result).collect::<Vec<_>>());
        change.log(&done, |seats| {
            let count = |outcome| seats.iter().filter(|one| one.outcome() == outcome).count();
            let outcomes = [pb::SeatOutcome::Changed, pb::SeatOutcome::Unchanged];
            let [changed, unchanged] = outcomes.map(count);
            let refused = seats.len() - changed - unchanged;
            format!("{changed} changed, {unchanged} unchanged, {refused} refused")
        });
        done
    }

    /// What an event has before a change, for the audit log.
    async fn event_before(&self, event: &EventId) -> String {
        match in_time(&Subject::Event(event.clone()), self.backend.get_event(event.clone())).await {
            Ok(stock) => stock_text(&message::stock(&stock)),
            Err(status) => format!("unknown ({})", status.message()),
        }
    }
}

/// The stock of an event, for the audit log.
fn stock_text(stock: &pb::EventStock) -> String {
    let state = if stock.closed { "closed" } else { "open" };
    format!("{state}, total {}", stock.total)
}

/// Notes what an import has stored so far.
fn note_import(change: &Mutex<AdminChange>, stored: &pb::ImportSeatsResponse) {
    let mut change = change.lock().unwrap_or_else(PoisonError::into_inner);
    change.set_progress(&stored.event_id, import_text(stored));
}

/// The first seats of a list, for the audit log.
fn some(seats: &[SeatId]) -> String {
    let first: Vec<&str> =
        seats.iter().take(limits::AUDIT_LOG_SEATS_MAX).map(SeatId::as_str).collect();
    let further = seats.len() - first.len();
    match further {
        0 => first.join(" "),
        _ => format!("{} and {further} more", first.join(" ")),
    }
}

/// What an import has stored, for the audit log.
fn import_text(stored: &pb::ImportSeatsResponse) -> String {
    let pb::ImportSeatsResponse { added, changed, unchanged, .. } = stored;
    format!("{added} added, {changed} changed, {unchanged} unchanged")
}

/// Converts a listing to a stream of messages. Each page has the time limit of a call.
fn pages<T: Send + 'static, M>(
    pages: Pages<T>,
    subject: Subject,
    message: impl Fn(Vec<T>) -> M + Send + 'static,
) -> impl Stream<Item = Result<M, Status>> + Send
where
    M: Send + 'static,
{
    futures::stream::unfold(Some((pages, subject, message)), async |state| {
        let (mut pages, subject, message) = state?;
        let next = async { pages.next().await.transpose() };
        match in_time(&subject, next).await {
            Ok(None) => None,
            Ok(Some(page)) => {
                let page = Ok(message(page));
                Some((page, Some((pages, subject, message))))
            }
            Err(status) => Some((Err(status), None)),
        }
    })
}

#[tonic::async_trait]
impl InventoryAdmin for Admin {
    type ListEventsStream = BoxStream<'static, Result<pb::ListEventsResponse, Status>>;
    type ImportSeatsWithProgressStream =
        BoxStream<'static, Result<pb::ImportSeatsResponse, Status>>;
    type ListSeatsStream = BoxStream<'static, Result<pb::ListSeatsResponse, Status>>;
    type ListReservationsStream = BoxStream<'static, Result<pb::ListReservationsResponse, Status>>;

    async fn create_event(
        &self,
        request: Request<pb::CreateEventRequest>,
    ) -> Result<Response<pb::CreateEventResponse>, Status> {
        let caller = AdminCaller::of(&request);
        let event = check::new_event(request.into_inner())?;
        let subject = Subject::Event(event.event.clone());
        let change = AdminChange::new(caller, "create event", &event.event);
        let made = in_time(&subject, self.backend.create_event(event)).await;
        change.log(&made, |made| {
            let stock = stock_text(&message::stock(&made.stock));
            if made.created { stock } else { format!("unchanged: {stock}") }
        });
        let made = made?;
        Ok(Response::new(pb::CreateEventResponse {
            event: Some(message::stock(&made.stock)),
            created: made.created,
        }))
    }

    async fn get_event(
        &self,
        request: Request<pb::GetEventRequest>,
    ) -> Result<Response<pb::GetEventResponse>, Status> {
        let event = check::event_id(request.into_inner().event_id)?;
        let subject = Subject::Event(event.clone());
        let stock = in_time(&subject, self.backend.get_event(event)).await?;
        Ok(Response::new(pb::GetEventResponse { event: Some(message::stock(&stock)) }))
    }

    async fn list_events(
        &self,
        _: Request<pb::ListEventsRequest>,
    ) -> Result<Response<Self::ListEventsStream>, Status> {
        let found = pages(self.backend.list_events(), Subject::AllEvents, |page| {
            let events = page.iter().map(message::summary).collect();
            pb::ListEventsResponse { events }
        });
        Ok(Response::new(found.boxed()))
    }

    async fn set_total(
        &self,
        request: Request<pb::SetTotalRequest>,
    ) -> Result<Response<pb::SetTotalResponse>, Status> {
        let caller = AdminCaller::of(&request);
        let (event, total) = check::set_total(request.into_inner())?;
        let subject = Subject::Event(event.clone());
        let before = self.event_before(&event).await;
        let mut change = AdminChange::new(caller, "set total", &event);
        change.set_before(before);
        let stock = in_time(&subject, self.backend.set_total(event, total)).await;
        change.log(&stock, |stock| stock_text(&message::stock(stock)));
        let stock = stock?;
        Ok(Response::new(pb::SetTotalResponse { event: Some(message::stock(&stock)) }))
    }

    async fn close_event(
        &self,
        request: Request<pb::CloseEventRequest>,
    ) -> Result<Response<pb::CloseEventResponse>, Status> {
        let caller = AdminCaller::of(&request);
        let event = check::event_id(request.into_inner().event_id)?;
        let subject = Subject::Event(event.clone());
        let before = self.event_before(&event).await;
        let mut change = AdminChange::new(caller, "close event", &event);
        change.set_before(before);
        let stock = in_time(&subject, self.backend.close_event(event)).await;
        change.log(&stock, |stock| stock_text(&message::stock(stock)));
        let stock = stock?;
        Ok(Response::new(pb::CloseEventResponse { event: Some(message::stock(&stock)) }))
    }

    async fn list_members(
        &self,
        _: Request<pb::ListMembersRequest>,
    ) -> Result<Response<pb::ListMembersResponse>, Status> {
        let (report, now) = self.backend.members();
        Ok(Response::new(message::members(&report, now)))
    }

    async fn set_log_level(
        &self,
        request: Request<pb::SetLogLevelRequest>,
    ) -> Result<Response<pb::SetLogLevelResponse>, Status> {
        let caller = AdminCaller::of(&request);
        let level = check::log_level(&request.into_inner().level)?;
        let before = log::level().ok_or_else(status::no_log)?;
        if let Some(level) = level {
            log::set_level(level);
            // A warning, so that it is logged at every level except error.
            tracing::warn!(before = before.as_str(), now = level.as_str(), "log level changed");
            let mut change = AdminChange::new(caller, "set log level", "process");
            change.set_before(before.as_str());
            change.log(&Ok(()), |()| level.as_str().to_owned());
        }
        Ok(Response::new(pb::SetLogLevelResponse {
            level: level.unwrap_or(before).as_str().to_owned(),
            before: before.as_str().to_owned(),
        }))
    }

    async fn import_seats(
        &self,
        request: Request<Streaming<pb::ImportSeatsRequest>>,
    ) -> Result<Response<pb::ImportSeatsResponse>, Status> {
        let Ok(_place) = self.imports.try_acquire() else {
            return Err(status::crowded(&Subject::AllEvents));
        };
        let caller = AdminCaller::of(&request);
        let change = Mutex::new(AdminChange::new(caller, "import seats", ""));
        let report = |stored: pb::ImportSeatsResponse| note_import(&change, &stored);
        let done = import::run(&self.backend, request.into_inner(), report).await;
        let change = change.into_inner().unwrap_or_else(PoisonError::into_inner);
        change.log(&done, import_text);
        done.map(Response::new)
    }

    async fn import_seats_with_progress(
        &self,
        request: Request<Streaming<pb::ImportSeatsRequest>>,
    ) -> Result<Response<Self::ImportSeatsWithProgressStream>, Status> {
        let Ok(place) = Arc::clone(&self.imports).try_acquire_owned() else {
            return Err(status::crowded(&Subject::AllEvents));
        };
        let (send, progress) = mpsc::channel(limits::IMPORT_PROGRESS_WAITING_MAX);
        let backend = Arc::clone(&self.backend);
        let caller = AdminCaller::of(&request);
        let import = async move {
            let _place = place;
            let change = Mutex::new(AdminChange::new(caller, "import seats", ""));
            let report = |stored: pb::ImportSeatsResponse| {
                note_import(&change, &stored);
                if stored.written > 0 {
                    // A client that reads slowly misses a message; a later one has its content.
                    let _ = send.try_send(Ok(stored));
                }
            };
            let done = import::run(&backend, request.into_inner(), report).await;
            let change = change.into_inner().unwrap_or_else(PoisonError::into_inner);
            change.log(&done, import_text);
            done
        };
        // Polled with the response: a client that goes ends the import.
        let progress = futures::stream::poll_fn({
            let mut progress = progress;
            move |context| progress.poll_recv(context)
        });
        let response = futures::stream::select(progress, futures::stream::once(import));
        Ok(Response::new(response.boxed()))
    }

    async fn list_seats(
        &self,
        request: Request<pb::ListSeatsRequest>,
    ) -> Result<Response<Self::ListSeatsStream>, Status> {
        let (event, state) = check::seat_listing(request.into_inner())?;
        let subject = Subject::Event(event.clone());
        let Ok(place) = Arc::clone(&self.imports).try_acquire_owned() else {
            return Err(status::crowded(&subject));
        };
        let about = in_time(&subject, self.backend.describe_event(event.clone())).await?;
        if !about.is_seated() {
            return Err(status::of(&AdminError::NotSeated, &subject));
        }
        // A large hall in a slow store takes longer than other calls; the client has its own limit.
        let seats = self.backend.list_seats(event).await;
        let seats = seats.map_err(|error| status::of(&error, &subject))?;
        let mut seats = message::seats(seats, state, clock::now().unix).into_iter().peekable();
        let pages = std::iter::from_fn(move || {
            let _place = &place;
            seats.peek()?;
            let page = seats.by_ref().take(limits::SEATS_PER_CHUNK_MAX).collect();
            Some(Ok(pb::ListSeatsResponse { seats: page }))
        });
        Ok(Response::new(futures::stream::iter(pages).boxed()))
    }

    async fn block_seats(
        &self,
        request: Request<pb::BlockSeatsRequest>,
    ) -> Result<Response<pb::BlockSeatsResponse>, Status> {
        let caller = AdminCaller::of(&request);
        let pb::BlockSeatsRequest { event_id, seat_ids } = request.into_inner();
        let seats = self.change_seats(caller, event_id, seat_ids, true).await?;
        Ok(Response::new(pb::BlockSeatsResponse { seats }))
    }

    async fn unblock_seats(
        &self,
        request: Request<pb::UnblockSeatsRequest>,
    ) -> Result<Response<pb::UnblockSeatsResponse>, Status> {
        let caller = AdminCaller::of(&request);
        let pb::UnblockSeatsRequest { event_id, seat_ids } = request.into_inner();
        let seats = self.change_seats(caller, event_id, seat_ids, false).await?;
        Ok(Response::new(pb::UnblockSeatsResponse { seats }))
    }

    async fn refund_reservation(
        &self,
        request: Request<pb::RefundReservationRequest>,
    ) -> Result<Response<pb::RefundReservationResponse>, Status> {
        let caller = AdminCaller::of(&request);
        let id = check::reservation_id(request.into_inner().reservation_id)?;
        let subject = Subject::Reservation(id.clone());
        let mut change = AdminChange::new(caller, "refund", &id);
        let refunded = in_time(&subject, self.backend.refund(id)).await;
        // A refund has exactly one state before it.
        change.set_before(match &refunded {
            Ok(Refund { refunded: true, .. }) => "confirmed",
            Ok(_) => "refunded",
            Err(_) => "",
        });
        change.log(&refunded, |_| "refunded".to_owned());
        let refunded = refunded?;
        Ok(Response::new(pb::RefundReservationResponse {
            reservation: Some(message::reservation(&refunded.record)),
            refunded: refunded.refunded,
        }))
    }

    async fn get_reservation(
        &self,
        request: Request<pb::GetReservationRequest>,
    ) -> Result<Response<pb::GetReservationResponse>, Status> {
        let id = check::reservation_id(request.into_inner().reservation_id)?;
        let subject = Subject::Reservation(id.clone());
        let found = in_time(&subject, self.backend.get_reservation(id)).await?;
        Ok(Response::new(pb::GetReservationResponse {
            reservation: Some(message::reservation(&found)),
        }))
    }

    async fn list_reservations(
        &self,
        request: Request<pb::ListReservationsRequest>,
    ) -> Result<Response<Self::ListReservationsStream>, Status> {
        let (event, state) = check::listing(request.into_inner())?;
        let subject = Subject::Event(event.clone());
        in_time(&subject, self.backend.describe_event(event.clone())).await?;
        let found = pages(
            self.backend.list_reservations(event),
            subject,
            move |page: Vec<StoredRecord>| {
                let wanted =
                    page.iter().filter(|one| state.is_none_or(|state| one.view.state == state));
                let reservations = wanted.map(message::reservation).collect();
                pb::ListReservationsResponse { reservations }
            },
        );
        Ok(Response::new(found.boxed()))
    }
}

#[cfg(test)]
mod tests;
