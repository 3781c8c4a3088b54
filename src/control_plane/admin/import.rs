//! Seat import: reads a stream of messages and keeps several writes in flight.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use futures::{Stream, StreamExt};
use inventory_proto::inventory::v1 as pb;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::Status;
use tonic_types::ErrorDetails;

use super::backend::{AdminBackend, AdminError, EventStock, Stock};
use super::check;
use super::status::{self, Subject, in_time};
use crate::limits;
use inventory_core::ids::{EventId, SeatId};
use inventory_core::seats::SeatFacts;
use inventory_store::SeatComparison;

/// Executes one import call and returns the number of seats stored. Calls `progress` when the event is known, and after each
/// write.
pub(super) async fn run(
    backend: &Arc<dyn AdminBackend>,
    mut messages: impl Stream<Item = Result<pb::ImportSeatsRequest, Status>> + Unpin,
    progress: impl Fn(pb::ImportSeatsResponse),
) -> Result<pb::ImportSeatsResponse, Status> {
    let unnamed = Subject::AllEvents;
    let first = next(&mut messages, &unnamed).await?.unwrap_or_default();
    let event = check::event_id(first.event_id)?;
    let subject = Subject::Event(event.clone());
    let EventStock { about, stock } = in_time(&subject, backend.get_event(event.clone())).await?;
    let Stock::Seats(current) = stock else {
        return Err(status::of(&AdminError::NotSeated, &subject));
    };
    if about.closed {
        return Err(status::of(&AdminError::EventClosed, &subject));
    }
    let mut import = SeatImport {
        notification: ShardNotification {
            backend: Arc::clone(backend),
            event: event.clone(),
            done: false,
        },
        backend: Arc::clone(backend),
        event: event.clone(),
        seat_keys: about.seat_keys,
        writes: JoinSet::new(),
        started: 0,
        writes_max: limits::SEAT_WRITES_IN_FLIGHT_MIN,
        stored: pb::ImportSeatsResponse {
            event_id: event.to_string(),
            ..pb::ImportSeatsResponse::default()
        },
        progress,
        total: usize::try_from(current.counts.total).unwrap_or(usize::MAX),
    };
    (import.progress)(import.stored.clone());
    import.take(check::new_seats(first.seats)?).await?;
    while let Some(message) = import.next_message(&mut messages, &subject).await? {
        if !message.event_id.is_empty() && message.event_id != event.as_str() {
            let wrong = "differs from the first message; want the same id or none";
            return Err(bad("event_id", wrong.to_owned()));
        }
        import.take(check::new_seats(message.seats)?).await?;
    }
    import.finish().await
}

/// The next message; `None` at the end of the stream.
async fn next(
    messages: &mut (impl Stream<Item = Result<pb::ImportSeatsRequest, Status>> + Unpin),
    subject: &Subject,
) -> Result<Option<pb::ImportSeatsRequest>, Status> {
    match tokio::time::timeout(limits::ADMIN_CHUNK_WAIT_MAX, messages.next()).await {
        Ok(message) => message.transpose(),
        Err(_elapsed) => Err(status::silent(subject)),
    }
}

fn bad(field: &str, wrong: String) -> Status {
    status::invalid(ErrorDetails::with_bad_request_violation(field, wrong))
}

/// A completed write.
struct SeatWrite {
    seats: usize,
    found: SeatComparison,
    took: Duration,
}

struct SeatImport<P> {
    backend: Arc<dyn AdminBackend>,
    event: EventId,
    seat_keys: u16,
    /// Dropping the set drops the results only; started writes complete.
    writes: JoinSet<Result<SeatWrite, AdminError>>,
    /// Writes of this call that were started.
    started: usize,
    /// Writes in flight: more while the store is fast, fewer while it is slow, so that each write is done within its
    /// time-out in a store of any speed.
    writes_max: usize,
    /// What is durable.
    stored: pb::ImportSeatsResponse,
    progress: P,
    /// Seats of the event, including those being written.
    total: usize,
    // Dropped after the writes.
    notification: ShardNotification,
}

impl<P: Fn(pb::ImportSeatsResponse)> SeatImport<P> {
    /// The next message; `None` at the end of the stream. Completed writes are counted meanwhile, so that a client that
    /// sends slowly, or goes, knows what is stored.
    async fn next_message(
        &mut self,
        messages: &mut (impl Stream<Item = Result<pb::ImportSeatsRequest, Status>> + Unpin),
        subject: &Subject,
    ) -> Result<Option<pb::ImportSeatsRequest>, Status> {
        let mut message = pin!(next(messages, subject));
        while !self.writes.is_empty() {
            match select(message, pin!(self.finish_one_write())).await {
                Either::Left((message, _)) => return message,
                Either::Right((written, waiting)) => {
                    written?;
                    message = waiting;
                }
            }
        }
        message.await
    }

    async fn take(&mut self, seats: Vec<(SeatId, SeatFacts)>) -> Result<(), Status> {
        let may_exist = self.count(&seats).await?;
        let mut seats = seats.into_iter().peekable();
        while seats.peek().is_some() {
            let part: Vec<_> = seats.by_ref().take(limits::SEATS_WRITTEN_AT_ONCE_MAX).collect();
            while self.writes.len() >= self.writes_max {
                self.finish_one_write().await?;
            }
            let (backend, event) = (Arc::clone(&self.backend), self.event.clone());
            let seat_keys = self.seat_keys;
            self.started += 1;
            self.writes.spawn(async move {
                let (seats, began) = (part.len(), Instant::now());
                // No time limit: a slow store slows the import down and does not end it.
                let mut found = backend.put_seats(event, seat_keys, part, may_exist).await?;
                // They are stored.
                found.to_write = Vec::new();
                Ok(SeatWrite { seats, found, took: began.elapsed() })
            });
        }
        Ok(())
    }

    /// Checks that the event does not exceed the maximum number of seats. Returns whether some of these seats exist.
    async fn count(&mut self, seats: &[(SeatId, SeatFacts)]) -> Result<bool, Status> {
        let subject = Subject::Event(self.event.clone());
        let ids = seats.iter().map(|(id, _)| id.clone()).collect();
        let (backend, has_started) = (&self.backend, self.started > 0);
        let new = async {
            let new = backend.count_new_seats(self.event.clone(), ids).await;
            new.map_err(|error| if has_started { error.after_write() } else { error })
        };
        let new = in_time(&subject, new).await?;
        self.total = self.total.saturating_add(new);
        if self.total > limits::SEATS_PER_EVENT_MAX {
            let most = limits::SEATS_PER_EVENT_MAX;
            return Err(status::of(&AdminError::TooManySeats { most }, &subject));
        }
        Ok(new < seats.len())
    }

    async fn finish_one_write(&mut self) -> Result<(), Status> {
        let subject = || Subject::Event(self.event.clone());
        let next = tokio::time::timeout(limits::SEAT_WRITE_WAIT_MAX, self.writes.join_next());
        let write = match next.await {
            Ok(None) => return Ok(()),
            Ok(Some(Ok(write))) => write.map_err(|error| {
                // Another write may be stored.
                let error = if self.started > 1 { error.after_write() } else { error };
                status::of(&error, &subject())
            })?,
            // The task panicked.
            Ok(Some(Err(_))) => return Err(status::of(&AdminError::Internal, &subject())),
            Err(_elapsed) => return Err(status::stalled(&subject())),
        };
        self.writes_max = match write.took > limits::SEAT_WRITE_SLOW {
            true => self.writes_max / 2,
            false => self.writes_max + 1,
        }
        .clamp(1, limits::SEAT_WRITES_IN_FLIGHT_MAX);
        self.stored.written += write.seats as i64;
        let found = &write.found;
        self.stored.unchanged += found.unchanged as i64;
        self.stored.added += found.added as i64;
        self.stored.changed += found.changed as i64;
        self.stored.changed_held += found.changed_held as i64;
        self.stored.changed_sold += found.changed_sold as i64;
        (self.progress)(self.stored.clone());
        Ok(())
    }

    async fn finish(mut self) -> Result<pb::ImportSeatsResponse, Status> {
        while !self.writes.is_empty() {
            self.finish_one_write().await?;
        }
        // Before the response, so that the client finds the imported seats.
        self.backend.seats_changed(self.event.clone()).await;
        self.notification.done = true;
        Ok(self.stored)
    }
}

/// Notifies the shards of new seats when an import ends in any way, including a disconnect of the client.
struct ShardNotification {
    backend: Arc<dyn AdminBackend>,
    event: EventId,
    /// The shards have been notified.
    done: bool,
}

impl Drop for ShardNotification {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (backend, event) = (Arc::clone(&self.backend), self.event.clone());
        // Outside a runtime the process is exiting.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { backend.seats_changed(event).await });
        }
    }
}
