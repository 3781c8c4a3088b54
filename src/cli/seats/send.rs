//! Sends seats in one stream, as fast as the store accepts them, and again after an interruption.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use inventory_proto::inventory::v1 as pb;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::progress::ImportProgress;
use crate::cli::CommandError;
use crate::cli::admin::{AdminClient, AdminPort};
use crate::cli::views::{counted, grouped};
use crate::limits::{IMPORT_RETRY_PAUSE, IMPORT_STALL_MAX, SEATS_PER_CHUNK_MAX};
use crate::output;
use inventory_core::ids::EventId;

/// Why not all seats were stored.
enum ImportError {
    Refused(Status),
    Stalled,
}

/// An import: the state that all attempts share.
pub(super) struct SeatSender<'a> {
    port: &'a AdminPort<'a>,
    event: &'a EventId,
    seats: Arc<[pb::NewSeat]>,
    progress: &'a ImportProgress,
    /// Most seats that an attempt has stored.
    stored: i64,
    /// When that number last grew.
    grew: Instant,
    /// What the attempts that failed had reported, so that a seat counts as what the first attempt found.
    failed: pb::ImportSeatsResponse,
}

impl<'a> SeatSender<'a> {
    pub(super) fn new(
        port: &'a AdminPort<'a>,
        event: &'a EventId,
        seats: Vec<pb::NewSeat>,
        progress: &'a ImportProgress,
    ) -> Self {
        Self {
            port,
            event,
            seats: seats.into(),
            progress,
            stored: 0,
            grew: Instant::now(),
            failed: pb::ImportSeatsResponse::default(),
        }
    }

    /// Sends all seats until they are stored. After an interruption the seats are sent again, as long as some are
    /// stored from time to time: the server skips those that are stored.
    pub(super) async fn send(
        mut self,
        mut admin: AdminClient,
    ) -> Result<pb::ImportSeatsResponse, CommandError> {
        self.grew = Instant::now();
        let mut reported = String::new();
        loop {
            let error = match self.attempt(&mut admin).await {
                Ok(stored) => return Ok(self.sum(stored)),
                Err(error) => error,
            };
            let is_passing = matches!(&error, ImportError::Refused(status) if is_passing(status));
            let pause = error.pause();
            if !is_passing || self.grew.elapsed() + pause > IMPORT_STALL_MAX {
                return Err(self.give_up(error));
            }
            let reason = self.explain(error).message;
            if reason != reported {
                output::report(format_args!("{reason}; trying again"));
                reported = reason;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends all seats once.
    async fn attempt(
        &mut self,
        admin: &mut AdminClient,
    ) -> Result<pb::ImportSeatsResponse, ImportError> {
        let messages = messages(self.event.to_string(), Arc::clone(&self.seats));
        let answer = admin.import_seats_with_progress(messages).await;
        let mut answers = answer.map_err(ImportError::Refused)?.into_inner();
        let mut last = pb::ImportSeatsResponse::default();
        loop {
            let left = IMPORT_STALL_MAX.saturating_sub(self.grew.elapsed());
            let next = tokio::time::timeout(left, answers.message()).await;
            let next = next.map_err(|_| ImportError::Stalled);
            let next = match next.and_then(|next| next.map_err(ImportError::Refused)) {
                Ok(next) => next,
                Err(error) => {
                    add(&mut self.failed, &last);
                    return Err(error);
                }
            };
            let Some(stored) = next else {
                break;
            };
            // A progress message may arrive after the final one, with a smaller number.
            if stored.written >= last.written {
                last = stored;
            }
            if last.written > self.stored {
                (self.stored, self.grew) = (last.written, Instant::now());
                self.progress.at(self.stored);
            }
        }
        match last.written == self.seats.len() as i64 {
            true => Ok(last),
            false => Err(ImportError::Refused(Status::unavailable("the answer is not complete"))),
        }
    }

    fn explain(&self, error: ImportError) -> CommandError {
        match error {
            ImportError::Refused(status) => self.port.explain(&self.event, &status),
            ImportError::Stalled => CommandError::failed(format!(
                "the server at {} has stored nothing for {IMPORT_STALL_MAX:?}",
                self.port.shown()
            )),
        }
    }

    /// [`SeatSender::explain`] at the end of an import.
    fn give_up(&self, error: ImportError) -> CommandError {
        let reason = match &error {
            ImportError::Refused(status) => reason_of(status),
            ImportError::Stalled => String::new(),
        };
        let is_passing = match &error {
            ImportError::Refused(status) => is_passing(status),
            ImportError::Stalled => true,
        };
        let mut error = self.explain(error);
        match reason.as_str() {
            "EVENT_NOT_FOUND" if self.stored == 0 => {
                let event = self.event;
                error.message = format!(
                    "there is no event {event}: add --create to create it; nothing was written"
                );
            }
            "EVENT_NOT_SEATED" | "EVENT_CLOSED" if self.stored == 0 => {
                error.message.push_str("; nothing was written");
            }
            _ => {
                let (stored, seats) =
                    (grouped(self.stored), counted(self.seats.len() as i64, "seat"));
                error
                    .message
                    .push_str(&format!("\nat least {stored} of {seats} are stored and stay"));
                if is_passing {
                    error.message.push_str("; the same command goes on from there");
                }
            }
        }
        error
    }

    /// The result of all attempts: a seat that an attempt before stored is not unchanged.
    fn sum(&self, last: pb::ImportSeatsResponse) -> pb::ImportSeatsResponse {
        let mut sum = last;
        let by_others = self.failed.added + self.failed.changed;
        let (written, unchanged) = (sum.written, sum.unchanged);
        add(&mut sum, &self.failed);
        sum.written = written;
        sum.unchanged = (unchanged - by_others).max(0);
        sum
    }
}

fn add(sum: &mut pb::ImportSeatsResponse, part: &pb::ImportSeatsResponse) {
    sum.added += part.added;
    sum.changed += part.changed;
    sum.changed_held += part.changed_held;
    sum.changed_sold += part.changed_sold;
}

fn reason_of(status: &Status) -> String {
    status.get_details_error_info().map_or_else(String::new, |info| info.reason)
}

impl ImportError {
    /// Pause before the next attempt.
    fn pause(&self) -> Duration {
        match self {
            Self::Refused(status) => {
                let requested = status.get_details_retry_info().and_then(|info| info.retry_delay);
                requested.unwrap_or(IMPORT_RETRY_PAUSE).max(IMPORT_RETRY_PAUSE)
            }
            Self::Stalled => IMPORT_RETRY_PAUSE,
        }
    }
}

/// Whether a later attempt may succeed.
fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::ResourceExhausted
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Cancelled
    )
}

/// The messages of an import.
fn messages(
    event_id: String,
    seats: Arc<[pb::NewSeat]>,
) -> impl Stream<Item = pb::ImportSeatsRequest> + Send + 'static {
    let first = pb::ImportSeatsRequest { event_id, seats: Vec::new() };
    let mut taken = 0;
    let rest = std::iter::from_fn(move || {
        let part: Vec<_> = seats.iter().skip(taken).take(SEATS_PER_CHUNK_MAX).cloned().collect();
        taken += part.len();
        (!part.is_empty()).then(|| pb::ImportSeatsRequest { event_id: String::new(), seats: part })
    });
    futures::stream::iter(std::iter::once(first).chain(rest))
        // Yields after each message; otherwise all messages would be encoded before the first is sent.
        .then(|message| async {
            tokio::task::yield_now().await;
            message
        })
}
