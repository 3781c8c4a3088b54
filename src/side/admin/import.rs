//! An import of seats: a stream of messages, and several writes of it in flight.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use inventory_proto::inventory::v1 as pb;
use tokio::task::JoinSet;
use tonic::Status;
use tonic_types::ErrorDetails;

use super::backend::{AdminBackend, AdminError};
use super::status::{self, Subject, in_time};
use super::check;
use crate::domain::ids::{EventId, SeatId};
use crate::domain::seats::SeatFacts;
use crate::limits;

/// Takes the messages of one call to their end; how many seats were written.
pub(super) async fn run(
    backend: &Arc<dyn AdminBackend>,
    mut messages: impl Stream<Item = Result<pb::ImportSeatsRequest, Status>> + Unpin,
) -> Result<pb::ImportSeatsResponse, Status> {
    let unnamed = Subject::AllEvents;
    let first = next(&mut messages, &unnamed).await?.unwrap_or_default();
    let event = check::event_id(first.event_id)?;
    let subject = Subject::Event(event.clone());
    let about = in_time(&subject, backend.describe_event(event.clone())).await?;
    if about.seat_keys == 0 {
        return Err(status::of(&AdminError::NotSeated, &subject));
    }
    if about.closed {
        return Err(status::of(&AdminError::EventClosed, &subject));
    }
    let mut import = Import {
        _announce: Announce {
            backend: Arc::clone(backend),
            event: event.clone(),
        },
        backend: Arc::clone(backend),
        event: event.clone(),
        seat_keys: about.seat_keys,
        writes: JoinSet::new(),
        taken: 0,
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
    taken: usize,
    // Dropped after the writes.
    _announce: Announce,
}

impl Import {
    async fn take(&mut self, seats: Vec<(SeatId, SeatFacts)>) -> Result<(), Status> {
        self.taken += seats.len();
        if self.taken > limits::SEATS_PER_EVENT_MAX {
            let most = limits::SEATS_PER_EVENT_MAX;
            let wrong = format!("are more than {most} in all; want at most {most} in an event");
            return Err(bad("seats", wrong));
        }
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
        Ok(pb::ImportSeatsResponse {
            event_id: self.event.to_string(),
            written: self.taken as i64,
        })
    }
}

/// However an import ends, also by a client that went away, the shards hear of the new seats.
struct Announce {
    backend: Arc<dyn AdminBackend>,
    event: EventId,
}

impl Drop for Announce {
    fn drop(&mut self) {
        let (backend, event) = (Arc::clone(&self.backend), self.event.clone());
        // Outside a runtime the process is ending, and nobody needs to hear.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { backend.seats_changed(event).await });
        }
    }
}
