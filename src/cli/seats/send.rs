//! Sending seats: one stream, as fast as the server takes it, and a watch for stalls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use inventory_proto::inventory::v1 as pb;
use tokio::time::Instant;
use tonic::Status;

use super::progress::ImportProgress;
use crate::cli::CommandError;
use crate::cli::admin::{AdminClient, AdminPort};
use crate::limits::{IMPORT_STALL_MAX, SEATS_PER_CHUNK_MAX};
use inventory_core::ids::EventId;

/// How often the progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why not all seats were written.
pub(super) enum ImportError {
    Refused(Status),
    Stalled { sent: usize, seats: usize },
}

impl ImportError {
    pub(super) fn explain(self, port: &AdminPort, event: &str) -> CommandError {
        let mut failure = match self {
            Self::Refused(status) => port.explain(&event, &status),
            Self::Stalled { sent, seats } => CommandError::failed(format!(
                "the server at {} has taken nothing for {IMPORT_STALL_MAX:?}, at about {sent} of \
                 {seats} seats",
                port.shown()
            )),
        };
        failure.message.push_str("\nwhat was written stays; the same command goes on from there");
        failure
    }
}

/// Sends all seats; what the server says when it has written them.
pub(super) async fn all(
    mut admin: AdminClient,
    event: &EventId,
    seats: Vec<pb::NewSeat>,
    progress: &ImportProgress,
) -> Result<pb::ImportSeatsResponse, ImportError> {
    let count = seats.len();
    let sent = Arc::new(AtomicUsize::new(0));
    let messages = messages(event.to_string(), seats, Arc::clone(&sent));
    let answer = admin.import_seats(messages);
    futures::pin_mut!(answer);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        tokio::select! {
            answer = &mut answer => {
                return match answer {
                    Ok(answer) => {
                        progress.at(count);
                        Ok(answer.into_inner())
                    }
                    Err(status) => Err(ImportError::Refused(status)),
                };
            }
            _ = look.tick() => {
                let sent = sent.load(Ordering::Relaxed);
                if sent > last {
                    (last, moved) = (sent, Instant::now());
                    progress.at(sent);
                } else if moved.elapsed() > IMPORT_STALL_MAX {
                    return Err(ImportError::Stalled { sent, seats: count });
                }
            }
        }
    }
}

/// The messages of an import. `sent` follows how many seats of them were taken by the transport,
/// which is at most a window ahead of the server.
fn messages(
    event_id: String,
    seats: Vec<pb::NewSeat>,
    sent: Arc<AtomicUsize>,
) -> impl Stream<Item = pb::ImportSeatsRequest> + Send + 'static {
    let first = pb::ImportSeatsRequest { event_id, seats: Vec::new() };
    let mut seats = seats.into_iter();
    let mut taken = 0;
    let rest = std::iter::from_fn(move || {
        // Asked for one more: those before it are on their way.
        sent.store(taken, Ordering::Relaxed);
        let part: Vec<_> = seats.by_ref().take(SEATS_PER_CHUNK_MAX).collect();
        taken += part.len();
        (!part.is_empty()).then(|| pb::ImportSeatsRequest { event_id: String::new(), seats: part })
    });
    futures::stream::iter(std::iter::once(first).chain(rest))
        // A pause after each message: without one, all would be encoded before the first is sent.
        .then(|message| async {
            tokio::task::yield_now().await;
            message
        })
}
