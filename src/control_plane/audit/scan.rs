//! Reads an event for an audit: stripes, records, seats, stripes again; then the suspect seats until they are resolved.

use inventory_proto::inventory::v1 as pb;
use tokio::time::{Instant, sleep};

use super::{AuditBackend, AuditError, UpdateSender};
use crate::limits;
use inventory_core::audit::{
    AuditReport, CounterReads, EventRecords, InstantSnapshot, Judgement, KnownBalances,
    StripeReads, SuspectCheck, SuspectOutcome, SuspectSeat, judge, look,
};
use inventory_core::ids::{EventId, ReservationId};
use inventory_core::time::UnixMillis;

/// One audit of one event.
pub(super) struct AuditScan<'a, T> {
    pub(super) backend: &'a dyn AuditBackend,
    pub(super) event: &'a EventId,
    pub(super) updates: &'a UpdateSender<T>,
    /// Wraps progress in the message type of the stream.
    wrap: fn(pb::AuditProgress) -> T,
    /// Time of the next progress message; a mutex because the future must be `Send`.
    next: std::sync::Mutex<Instant>,
}

impl<'a, T> AuditScan<'a, T> {
    pub(super) fn new(
        backend: &'a dyn AuditBackend,
        event: &'a EventId,
        wrap: fn(pb::AuditProgress) -> T,
        updates: &'a UpdateSender<T>,
    ) -> Self {
        Self { backend, event, updates, wrap, next: std::sync::Mutex::new(Instant::now()) }
    }

    /// Sends progress at most every [`limits::AUDIT_PROGRESS_EVERY`]; does not wait for the client.
    pub(super) fn progress(&self, step: &str, round: u32, examined: u64, found: u64) {
        let mut next = self.next.lock().unwrap_or_else(|broken| broken.into_inner());
        let now = Instant::now();
        if now < *next {
            return;
        }
        *next = now + limits::AUDIT_PROGRESS_EVERY;
        let progress = pb::AuditProgress {
            step: step.to_owned(),
            round: round as i32,
            examined: examined as i64,
            found: found as i64,
        };
        let _ = self.updates.try_send(Ok((self.wrap)(progress)));
    }

    /// Reads the event until every stripe was unchanged in one round, at most [`limits::AUDIT_ROUNDS_MAX`] times, then
    /// resolves suspect seats. Returns the report and the seat keys of the event.
    pub(super) async fn verify(&self) -> Result<(AuditReport, u16), AuditError> {
        let mut known = KnownBalances::default();
        let mut round = 1;
        let (judged, seat_keys) = loop {
            let (books, began) = self.read(round).await?;
            let seat_keys = books.seat_keys;
            let judged: Judgement = run_blocking(move || judge(&books, &known, began)).await?;
            if judged.units_unchanged() || round == limits::AUDIT_ROUNDS_MAX {
                break (judged, seat_keys);
            }
            known = judged.known();
            round += 1;
        };
        let settled = self.settle(&judged.suspects, seat_keys, round).await?;
        let report = run_blocking(move || judged.settle(settled)).await?;
        Ok((report, seat_keys))
    }

    /// Reads all items once. Returns the time at which the reads began.
    async fn read(&self, round: u32) -> Result<(EventRecords, UnixMillis), AuditError> {
        let stripes = async || {
            let found = self.backend.stripes(self.event).await?;
            found.ok_or_else(|| AuditError::EventNotFound(self.event.clone()))
        };
        let before = stripes().await?;
        let mut books = EventRecords::new(self.event.clone(), Vec::new(), before.seat_keys);
        self.read_records(&mut books, round).await?;
        for key in 0..before.seat_keys {
            self.read_seats(&mut books, key, round).await?;
        }
        let after = stripes().await?;
        books.stripes = StripeReads::pair(&before.stripes, after.stripes);
        books.counters = CounterReads::pair(&before.counters, after.counters);
        Ok((books, before.at))
    }

    async fn read_records(&self, books: &mut EventRecords, round: u32) -> Result<(), AuditError> {
        let (mut from, mut examined) = (None, 0);
        loop {
            let page = self.backend.records(self.event, from).await?;
            for item in page.items {
                match item {
                    Ok(record) => books.record(record),
                    Err(unread) => books.unreadable_records.push(unread),
                }
            }
            if books.records_kept() > limits::AUDIT_RECORDS_MAX {
                return Err(AuditError::TooLarge {
                    what: "live reservations",
                    max: limits::AUDIT_RECORDS_MAX,
                });
            }
            examined += page.examined;
            self.progress("reservations", round, examined, books.records_seen());
            from = page.next;
            if from.is_none() {
                return Ok(());
            }
            sleep(limits::AUDIT_PAGE_PAUSE).await;
        }
    }

    async fn read_seats(
        &self,
        books: &mut EventRecords,
        key: u16,
        round: u32,
    ) -> Result<(), AuditError> {
        let mut from = None;
        loop {
            let seat_keys = books.seat_keys;
            let page = self.backend.seats(self.event, key, seat_keys, from);
            let page = page.await?;
            for item in page.items {
                match item {
                    Ok(Ok(seat)) => books.seats.push(seat),
                    Ok(Err(misplaced)) => books.misplaced.push(misplaced),
                    Err(unread) => books.unreadable_seats.push(unread),
                }
            }
            let kept = books.seats_kept();
            if kept > limits::AUDIT_SEATS_MAX {
                return Err(AuditError::TooLarge { what: "seats", max: limits::AUDIT_SEATS_MAX });
            }
            self.progress("seats", round, kept as u64, kept as u64);
            from = page.next;
            if from.is_none() {
                return Ok(());
            }
            sleep(limits::AUDIT_PAGE_PAUSE).await;
        }
    }

    /// Resolves the suspects, at most [`limits::AUDIT_SUSPECTS_MAX`].
    async fn settle(
        &self,
        suspects: &[SuspectSeat],
        seat_keys: u16,
        round: u32,
    ) -> Result<Vec<SuspectOutcome>, AuditError> {
        let suspects = &suspects[..suspects.len().min(limits::AUDIT_SUSPECTS_MAX)];
        let mut settled = Vec::with_capacity(suspects.len());
        for group in suspects.chunks(limits::AUDIT_SEATS_PER_LOOK) {
            settled.extend(self.look_at(group, seat_keys).await?);
            let done = settled.len() as u64;
            self.progress("suspect seats", round, done, suspects.len() as u64);
        }
        Ok(settled)
    }

    async fn look_at(
        &self,
        group: &[SuspectSeat],
        seat_keys: u16,
    ) -> Result<Vec<SuspectOutcome>, AuditError> {
        let mut settled = vec![SuspectOutcome::Moving; group.len()];
        let mut open: Vec<(usize, SuspectSeat)> = group.iter().cloned().enumerate().collect();
        let mut at_once = group.len();
        for _ in 0..limits::AUDIT_LOOKS_MAX {
            let mut again = Vec::new();
            let mut single = false;
            for part in open.chunks(at_once.max(1)) {
                let Some(snapshot) = self.snapshot(part, seat_keys).await? else {
                    // One of them is written continuously: read the others one by one.
                    single = true;
                    again.extend_from_slice(part);
                    continue;
                };
                for (at, suspect) in part {
                    match look(suspect, &snapshot) {
                        SuspectCheck::Fine => settled[*at] = SuspectOutcome::Fine,
                        SuspectCheck::Wrong(kind) => settled[*at] = SuspectOutcome::Wrong(kind),
                        SuspectCheck::With(id) => again.push((*at, with(suspect, id))),
                    }
                }
            }
            if again.is_empty() {
                break;
            }
            if single {
                at_once = 1;
            }
            open = again;
        }
        Ok(settled)
    }

    async fn snapshot(
        &self,
        part: &[(usize, SuspectSeat)],
        seat_keys: u16,
    ) -> Result<Option<InstantSnapshot>, AuditError> {
        let seats = part.iter().map(|(_, suspect)| suspect.seat.clone());
        let mut records: Vec<ReservationId> =
            part.iter().flat_map(|(_, suspect)| suspect.involved.iter()).cloned().collect();
        records.sort_unstable();
        records.dedup();
        let snapshot = self.backend.snapshot(self.event, seat_keys, seats.collect(), records);
        snapshot.await
    }
}

/// The suspect with one more record to read; drops the oldest one if necessary.
fn with(suspect: &SuspectSeat, id: ReservationId) -> SuspectSeat {
    let mut suspect = suspect.clone();
    if suspect.involved.len() >= limits::AUDIT_RECORDS_PER_SEAT {
        suspect.involved.remove(0);
    }
    suspect.involved.push(id);
    suspect
}

/// Runs blocking work on the thread pool, so that probes are not delayed.
pub(super) async fn run_blocking<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, AuditError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| AuditError::Internal)
}
