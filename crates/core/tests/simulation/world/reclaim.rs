//! The reclaimers: each shard drives its search for overdue holds as the server does.

use std::collections::BTreeMap;

use inventory_core::answer::Answer;
use inventory_core::expiry_search::{ExpiryBucket, IndexRead, IndexReadResult, SearchEvent};
use inventory_core::ids::{EventId, ReservationId};
use inventory_core::limits;
use inventory_core::time::{Micros, Now, UnixMillis};
use inventory_core::transaction::RecordView;

use super::super::network::{ATTEMPT_TIMEOUT, latency, occurs};
use super::super::oracle::unix;
use super::super::violation::{Violation, ensure};
use super::{InternalCaller, ShardRef, World, WorldStep};

/// Parts and segments of the index: fewer than in production, so that a run has fewer steps.
pub(super) const PARTS: u16 = 4;
pub(super) const SEGMENTS: u16 = 2;

/// Maximum time for which a hold may be overdue while the store answers: far more than a reclaimer and its write need
/// when most writes fail. An expiry waits for the write with an unknown outcome before it. The shard resolves such writes
/// one after the other while they fail; if 40 of 100 requests are lost or late, five writes with a pause of up to a minute
/// before each may be in front of it (seed 1382664: more than 120 s).
const OVERDUE_MAX: Micros = Micros::from_millis(300_000);

/// Interval of the checks of that rule.
const CHECK_EVERY: Micros = Micros::from_millis(1_000);

/// Overdue holds of one read whose expiry is not answered yet.
#[derive(Debug)]
pub(super) struct OpenRead {
    /// Distinguishes the reads of one part.
    number: u64,
    found: usize,
    unanswered: BTreeMap<ReservationId, UnixMillis>,
    unexpired: usize,
    oldest: Option<UnixMillis>,
}

impl OpenRead {
    /// Counts a hold that was not expired.
    fn leave(&mut self, due: UnixMillis) {
        self.unexpired += 1;
        self.oldest = Some(self.oldest.map_or(due, |oldest| oldest.min(due)));
    }
}

/// What a reclaimer read, as the index lists it.
pub(super) type OverdueList = Vec<(EventId, ReservationId, RecordView)>;

impl World {
    /// Schedules the first poll of each search of a process.
    pub(super) fn start_searches(&mut self, process: usize) {
        let life = self.processes[process].life;
        for shard in 0..self.processes[process].shards.len() {
            self.schedule_search(ShardRef { process, shard, life }, self.now);
        }
    }

    /// A step of a search, which alone does not keep the run going.
    fn make_search_step(&mut self, at: Micros, step: WorldStep) {
        self.searches_ahead += 1;
        self.make(at, step);
    }

    /// Schedules the next poll, unless nothing else happens and nothing is held.
    fn schedule_search(&mut self, at: ShardRef, due: Micros) {
        let is_at_rest = self.agenda.len() == self.searches_ahead;
        if is_at_rest && self.store.holds().next().is_none() {
            return;
        }
        let shard = &mut self.processes[at.process].shards[at.shard];
        if shard.search_at.is_none_or(|scheduled| due < scheduled) {
            shard.search_at = Some(due);
            self.make_search_step(due, WorldStep::Search(at));
        }
    }

    /// The search of a shard begins the reads that are due, and continues while there are holds.
    pub(super) fn searches(&mut self, at: ShardRef) -> Result<(), Violation> {
        self.searches_ahead -= 1;
        self.check_overdue()?;
        let now = Now { mono: self.now, unix: self.clock(at.process) };
        if !self.lives(at) {
            return Ok(());
        }
        let shard = &mut self.processes[at.process].shards[at.shard];
        // Unless an earlier poll was scheduled later.
        if shard.search_at.is_none_or(|due| due > now.mono) {
            return Ok(());
        }
        shard.search_at = None;
        let reads: Vec<_> = std::iter::from_fn(|| shard.search.poll_read(now)).collect();
        let due = shard.search.poll_timeout(now.mono).max(now.mono.plus(Micros(1)));
        for read in reads {
            let arrives = self.now.plus(latency(&mut self.network_rng));
            self.make_search_step(arrives, WorldStep::IndexAtStore(at, read));
        }
        self.schedule_search(at, due);
        Ok(())
    }

    pub(super) fn reads_index(&mut self, at: ShardRef, read: IndexRead) {
        self.searches_ahead -= 1;
        if occurs(self.faults().read_fault, &mut self.network_rng) {
            self.report.fault("failed reads");
            let failed = self.now.plus(ATTEMPT_TIMEOUT);
            self.make_search_step(failed, WorldStep::IndexRead(at, read, None));
            return;
        }
        let seen = Micros(self.now.0.saturating_sub(self.scenario.index_lag.0));
        // Of a later life if the process has crashed; the result is dropped then.
        let search = &self.processes[at.process].shards[at.shard].search;
        let expired_by = search.expired_by(read, self.clock(at.process));
        let mut found = self.store.due_holds(expired_by, seen);
        found.retain(|(_, reservation, record)| {
            let expires_at = record.expires_at.unwrap_or_default();
            let ExpiryBucket { minute, part } = ExpiryBucket::of(reservation, expires_at);
            match read {
                IndexRead::Bucket(bucket) => bucket == ExpiryBucket { minute, part: part % PARTS },
                IndexRead::Segment(segment) => part % SEGMENTS == segment,
            }
        });
        let answered = self.now.plus(latency(&mut self.network_rng));
        self.make_search_step(answered, WorldStep::IndexRead(at, read, Some(found)));
    }

    /// What a read of the index found; `None`: it failed.
    pub(super) fn index_read(
        &mut self,
        at: ShardRef,
        read: IndexRead,
        found: Option<OverdueList>,
    ) -> Result<(), Violation> {
        self.searches_ahead -= 1;
        if !self.lives(at) {
            return Ok(());
        }
        let Some(found) = found else {
            return self.end_read(at, read, IndexReadResult::Failed);
        };
        let due_of = |record: &RecordView| record.expires_at.unwrap_or_default();
        let Some(oldest) = found.iter().map(|(_, _, record)| due_of(record)).min() else {
            let (examined, found, unexpired, oldest) = (0, 0, 0, None);
            let result = IndexReadResult::Complete { examined, found, unexpired, oldest };
            return self.end_read(at, read, result);
        };
        let number = self.made;
        let deadline = self.now.plus(Micros(limits::RECLAIM_TIMEOUT.as_micros() as u64));
        let shard = &mut self.processes[at.process].shards[at.shard];
        shard.search.handle_overdue(read, oldest, self.now);
        let unanswered = BTreeMap::new();
        let mut open =
            OpenRead { number, found: found.len(), unanswered, unexpired: 0, oldest: None };
        let mut expiries = Vec::new();
        for (event, reservation, record) in found {
            let due = due_of(&record);
            if shard.expiring.insert(reservation.clone()) {
                open.unanswered.insert(reservation.clone(), due);
                expiries.push((event, reservation, record));
            } else {
                open.leave(due);
            }
        }
        shard.open_reads.insert(read, open);
        self.follow_search(at)?;
        if expiries.is_empty() {
            return self.end_open_read(at, read);
        }
        self.make_search_step(deadline, WorldStep::ExpiriesTimedOut(at, read, number));
        for (event, reservation, record) in expiries {
            let caller = InternalCaller::Reclaimer(at, read, number, reservation.clone());
            let call = self.internal(caller);
            self.with(at, |shard, now| {
                let at = &mut shard.engine;
                at.handle_expired_hold(call, event, reservation, record, deadline, now);
            })?;
        }
        Ok(())
    }

    /// The answer to the expiry of one hold.
    pub(super) fn hold_expired(
        &mut self,
        at: ShardRef,
        read: IndexRead,
        number: u64,
        reservation: &ReservationId,
        answer: &Answer,
    ) -> Result<(), Violation> {
        let shard = &mut self.processes[at.process].shards[at.shard];
        shard.expiring.remove(reservation);
        // Without an open read, or with a later one: this one did not wait so long.
        let Some(open) = shard.open_reads.get_mut(&read).filter(|open| open.number == number)
        else {
            return Ok(());
        };
        let Some(due) = open.unanswered.remove(reservation) else {
            return Err(Violation(format!("a second answer to the expiry of {reservation}")));
        };
        if !matches!(answer, Answer::Expired | Answer::Held { .. }) {
            open.leave(due);
        }
        match open.unanswered.is_empty() {
            true => self.end_open_read(at, read),
            false => Ok(()),
        }
    }

    /// The expiries of this read have taken too long: those without an answer count as unexpired.
    pub(super) fn expiries_timed_out(
        &mut self,
        at: ShardRef,
        read: IndexRead,
        number: u64,
    ) -> Result<(), Violation> {
        self.searches_ahead -= 1;
        if !self.lives(at) {
            return Ok(());
        }
        let shard = &mut self.processes[at.process].shards[at.shard];
        let Some(open) = shard.open_reads.get_mut(&read).filter(|open| open.number == number)
        else {
            return Ok(());
        };
        for due in std::mem::take(&mut open.unanswered).into_values() {
            open.leave(due);
        }
        self.end_open_read(at, read)
    }

    fn end_open_read(&mut self, at: ShardRef, read: IndexRead) -> Result<(), Violation> {
        let shard = &mut self.processes[at.process].shards[at.shard];
        let Some(OpenRead { found, unexpired, oldest, .. }) = shard.open_reads.remove(&read) else {
            return Err(Violation(format!("a read ended twice: {read:?}")));
        };
        let examined = found as u64;
        self.end_read(at, read, IndexReadResult::Complete { examined, found, unexpired, oldest })
    }

    fn end_read(
        &mut self,
        at: ShardRef,
        read: IndexRead,
        result: IndexReadResult,
    ) -> Result<(), Violation> {
        let now = Now { mono: self.now, unix: self.clock(at.process) };
        let search = &mut self.processes[at.process].shards[at.shard].search;
        search.handle_read(read, result, now);
        self.follow_search(at)
    }

    /// Passes on what the search has learned, and polls it.
    fn follow_search(&mut self, at: ShardRef) -> Result<(), Violation> {
        let search = &mut self.processes[at.process].shards[at.shard].search;
        if let Some(SearchEvent::Recovered(_)) = search.poll_event() {
            self.with(at, |shard, now| shard.engine.handle_store_available(now))?;
        }
        self.schedule_search(at, self.now);
        Ok(())
    }

    /// No hold is overdue for longer than a bound once the store answers.
    pub(super) fn check_overdue(&mut self) -> Result<(), Violation> {
        let is_away =
            self.scenario.outage.is_some_and(|(from, to)| from <= self.now && self.now < to);
        if is_away || self.now.since(self.overdue_checked) < CHECK_EVERY {
            return Ok(());
        }
        self.overdue_checked = self.now;
        let ended = self.scenario.outage.filter(|(_, to)| *to <= self.now).map(|(_, to)| to);
        for (reservation, expires_at, written) in self.store.holds() {
            let expired = Micros::from_millis(expires_at.0.saturating_sub(unix(Micros(0)).0));
            let since = expired.max(written).max(ended.unwrap_or_default());
            ensure!(
                self.now.since(since) <= OVERDUE_MAX,
                "an overdue hold is not expired: {reservation} expired at {expired:?}, was written at {written:?}, \
                 outage {:?}",
                self.scenario.outage
            );
        }
        Ok(())
    }
}
