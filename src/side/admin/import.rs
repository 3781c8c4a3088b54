//! An import of seats: a stream of messages, and several writes of it in flight.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use inventory_proto::inventory::v1 as pb;
use tokio::task::JoinSet;
use tonic::Status;
use tonic_types::ErrorDetails;

use super::backend::{AdminBackend, AdminError, EventStock, Stock};
use super::check;
use super::status::{self, Subject, in_time};
use crate::limits;
use inventory_core::ids::{EventId, SeatId};
use inventory_core::seats::SeatFacts;

/// Takes the messages of one call to their end; how many seats were written.
pub(super) async fn run(
    backend: &Arc<dyn AdminBackend>,
    mut messages: impl Stream<Item = Result<pb::ImportSeatsRequest, Status>> + Unpin,
) -> Result<pb::ImportSeatsResponse, Status> {
    let unnamed = Subject::AllEvents;
    let first = next(&mut messages, &unnamed).await?.unwrap_or_default();
    let event = check::event_id(first.event_id)?;
    let subject = Subject::Event(event.clone());
    let EventStock { about, stock } = in_time(&subject, backend.get_event(event.clone())).await?;
    let Stock::Seats(standing) = stock else {
        return Err(status::of(&AdminError::NotSeated, &subject));
    };
    if about.closed {
        return Err(status::of(&AdminError::EventClosed, &subject));
    }
    let mut import = Import {
        announce: Announce {
            backend: Arc::clone(backend),
            event: event.clone(),
            done: false,
        },
        backend: Arc::clone(backend),
        event: event.clone(),
        seat_keys: about.seat_keys,
        writes: JoinSet::new(),
        written: 0,
        standing: usize::try_from(standing.counts.total).unwrap_or(usize::MAX),
    };
    import.take(check::new_seats(first.seats)?).await?;
    while let Some(message) = next(&mut messages, &subject).await? {
        if !message.event_id.is_empty() && message.event_id != event.as_str() {
            let wrong = "is another than in the first message; want the same throughout, or none";
            return Err(bad("event_id", wrong.to_owned()));
        }
        import.take(check::new_seats(message.seats)?).await?;
    }
    import.finish().await
}

/// The next message, if the client goes on.
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

struct Import {
    backend: Arc<dyn AdminBackend>,
    event: EventId,
    seat_keys: u16,
    /// Dropping it lets go of the answers only: what was handed over is written.
    writes: JoinSet<Result<(), Status>>,
    /// Seats of the messages taken so far.
    written: usize,
    /// Seats of the event, those included that are being written.
    standing: usize,
    // Dropped after the writes.
    announce: Announce,
}

impl Import {
    async fn take(&mut self, seats: Vec<(SeatId, SeatFacts)>) -> Result<(), Status> {
        self.count(&seats).await?;
        let mut seats = seats.into_iter().peekable();
        while seats.peek().is_some() {
            let part: Vec<_> = seats
                .by_ref()
                .take(limits::SEATS_WRITTEN_AT_ONCE_MAX)
                .collect();
            if self.writes.len() >= limits::SEAT_WRITES_IN_FLIGHT_MAX {
                self.settle_one().await?;
            }
            let (backend, event) = (Arc::clone(&self.backend), self.event.clone());
            let seat_keys = self.seat_keys;
            self.writes.spawn(async move {
                let subject = Subject::Event(event.clone());
                in_time(&subject, backend.put_seats(event, seat_keys, part)).await
            });
        }
        Ok(())
    }

    /// Sees to it that the event gets no more seats than it can be read with.
    async fn count(&mut self, seats: &[(SeatId, SeatFacts)]) -> Result<(), Status> {
        let subject = Subject::Event(self.event.clone());
        let ids = seats.iter().map(|(id, _)| id.clone()).collect();
        let new = self.backend.count_new_seats(self.event.clone(), ids);
        self.standing = self.standing.saturating_add(in_time(&subject, new).await?);
        if self.standing > limits::SEATS_PER_EVENT_MAX {
            let most = limits::SEATS_PER_EVENT_MAX;
            return Err(status::of(&AdminError::TooManySeats { most }, &subject));
        }
        self.written += seats.len();
        Ok(())
    }

    async fn settle_one(&mut self) -> Result<(), Status> {
        match self.writes.join_next().await {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(status))) => Err(status),
            // It panicked.
            Some(Err(_)) => {
                let subject = Subject::Event(self.event.clone());
                Err(status::of(&AdminError::Internal, &subject))
            }
        }
    }

    async fn finish(mut self) -> Result<pb::ImportSeatsResponse, Status> {
        while !self.writes.is_empty() {
            self.settle_one().await?;
        }
        // Whoever hears that the import is done finds the seats.
        self.backend.seats_changed(self.event.clone()).await;
        self.announce.done = true;
        Ok(pb::ImportSeatsResponse {
            event_id: self.event.to_string(),
            written: self.written as i64,
        })
    }
}

/// However an import ends, also by a client that went away, the shards hear of the new seats.
struct Announce {
    backend: Arc<dyn AdminBackend>,
    event: EventId,
    /// They have heard. A second time would only make them read it all again.
    done: bool,
}

impl Drop for Announce {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (backend, event) = (Arc::clone(&self.backend), self.event.clone());
        // Outside a runtime the process is ending, and nobody needs to hear.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { backend.seats_changed(event).await });
        }
    }
}
