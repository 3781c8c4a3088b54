//! When to read which part of the expiry index, so that every overdue hold is found however long ago it expired.
//!
//! A state machine without I/O, one per shard. The driver calls [`ExpirySearch::poll_read`] until it returns `None`,
//! executes the reads, expires what they find, reports to [`ExpirySearch::handle_read`], and polls again at
//! [`ExpirySearch::poll_timeout`]. The driver waits for the expiries of a page for at most [`limits::RECLAIM_TIMEOUT`]: an expiry
//! may wait much longer for an earlier write of its reservation, and few reads are in flight at once. Two kinds of reads
//! share the work:
//!
//! 1. **Buckets** of the last minutes, every few seconds. Their cost does not depend on the number of holds.
//! 2. **Segments** of a scan of the whole index, which find holds in any bucket. The index contains held records only.
//!    The interval of the scan grows with the number of holds, so that its cost per second is bounded.
//!
//! Why no hold stays overdue:
//! 1. A bucket leaves `reads` only after a complete read that began [`limits::RECLAIM_SETTLE`] after the end of its
//!    minute and found nothing, or by its age.
//! 2. A bucket that leaves by its age was never known to be empty: all segments become due at once. The same follows a
//!    start, a clock that jumped, a search that did not run, and reads that failed for a while.
//! 3. A segment never leaves `reads`. After a failure, and after holds that could not be expired, it is read again.
//!
//! The processes that sell from one store share the reads ([`turn`]). The members are a hint: they decide how often a
//! process reads a part, never whether it does.
//!
//! Not here: reading, expiring, a clock.

#[cfg(test)]
mod tests;
mod turn;

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::SmallRng;

use crate::fault::{self, Fault};
use crate::ids::{ReservationId, fnv1a};
use crate::limits;
use crate::membership::Members;
use crate::time::{Micros, Now, UnixMillis};
pub use turn::ReadTurn;

/// Key of the expiry index: the minute in which a hold expires, and the part of that minute that the reservation
/// belongs to. Stored data: must not change between versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExpiryBucket {
    /// Minutes since the Unix epoch.
    pub minute: u64,
    /// Below [`limits::EXPIRY_PARTS`].
    pub part: u16,
}

impl ExpiryBucket {
    /// The bucket of a hold.
    pub fn of(reservation: &ReservationId, expires_at: UnixMillis) -> Self {
        let parts = u32::from(limits::EXPIRY_PARTS);
        let part = (fnv1a(reservation.as_str()) % parts) as u16;
        Self { minute: minute_of(expires_at), part }
    }

    /// The first instant after its minute.
    fn end(self) -> u64 {
        (self.minute + 1).saturating_mul(MINUTE)
    }
}

/// The stored form.
impl fmt::Display for ExpiryBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.minute, self.part)
    }
}

/// One read of the expiry index, all of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IndexRead {
    Bucket(ExpiryBucket),
    /// A segment of a scan of the whole index, below [`SearchSettings::segments`].
    Segment(u16),
}

impl IndexRead {
    /// Sort key, the oldest first: a segment contains holds of every age.
    fn minute(self) -> u64 {
        match self {
            Self::Bucket(bucket) => bucket.minute,
            Self::Segment(_) => 0,
        }
    }

    const fn at_once(self) -> usize {
        match self {
            Self::Bucket(_) => limits::RECLAIM_BUCKETS_AT_ONCE,
            Self::Segment(_) => limits::RECLAIM_SEGMENTS_AT_ONCE,
        }
    }
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexReadResult {
    Complete {
        /// Records that the store examined, overdue or not.
        examined: u64,
        /// Overdue holds.
        found: usize,
        /// Overdue holds among them that could not be expired, or not within [`limits::RECLAIM_TIMEOUT`].
        unexpired: usize,
        /// Expiry of the oldest of these.
        oldest: Option<UnixMillis>,
    },
    /// A page could not be read.
    Failed,
}

/// What a search is built with.
#[derive(Clone, Copy, Debug)]
pub struct SearchSettings {
    /// This shard, from 0.
    pub shard: usize,
    /// Number of shards of this process.
    pub shards: usize,
    /// Parts of a minute: [`limits::EXPIRY_PARTS`].
    pub parts: u16,
    /// Segments of a scan: [`limits::EXPIRY_SEGMENTS`].
    pub segments: u16,
    /// Interval of the reads: [`limits::RECLAIM_EVERY`].
    pub every: Micros,
}

impl SearchSettings {
    fn own(self, all: u16) -> impl Iterator<Item = u16> {
        (0..all).filter(move |part| usize::from(*part) % self.shards == self.shard)
    }
}

/// What is known about overdue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchStatus {
    /// Expiry of the oldest overdue hold that was found and is not known to be expired.
    pub oldest_overdue: Option<UnixMillis>,
    /// Every recent bucket was read completely at or after this time.
    pub buckets_read: Micros,
    /// Every segment was read completely at or after this time.
    pub segments_read: Micros,
}

/// Reads have begun or ceased to fail. For the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchEvent {
    /// Several reads in a row have failed.
    Failing,
    /// A read has succeeded again, after this time.
    Recovered(Micros),
}

#[derive(Debug)]
struct ReadState {
    due: Micros,
    /// Random order of reads that are due at the same time, so that processes do not read in the same order.
    tie_break: u32,
    /// Start of the read in flight.
    began: Option<Now>,
    /// The read in flight is to be repeated.
    repeat: bool,
    /// Reads in a row that found holds and expired none.
    stuck: u32,
    /// Start of the last complete read.
    complete: Option<Micros>,
    oldest: Option<UnixMillis>,
}

/// Reads of one kind.
#[derive(Debug, Default)]
struct ReadHealth {
    in_flight: usize,
    /// Failures in a row, and when the first of them was reported.
    failures: u32,
    failing_since: Micros,
    /// While reads fail: when the next one may begin.
    probe_at: Micros,
}

impl ReadHealth {
    fn is_failing(&self) -> bool {
        self.failures >= limits::RECLAIM_FAILURES_MIN
    }

    /// When a read that is due at `due` may begin; `None`: after another one has ended.
    fn earliest(&self, due: Micros, at_once: usize) -> Option<Micros> {
        match self.is_failing() {
            true => (self.in_flight == 0).then(|| due.max(self.probe_at)),
            false => (self.in_flight < at_once).then_some(due),
        }
    }
}

/// The clocks at the last poll.
#[derive(Clone, Copy, Debug)]
struct SearchClock {
    last: Now,
    /// The latest wall-clock time since the start or the last jump.
    latest: UnixMillis,
    /// Start of the search.
    started: Micros,
}

/// Decides which buckets of the expiry index are searched, and when.
#[derive(Debug)]
pub struct ExpirySearch {
    settings: SearchSettings,
    rng: SmallRng,
    /// `None`: this process reads alone.
    members: Option<Rc<Members>>,
    reads: BTreeMap<IndexRead, ReadState>,
    clock: Option<SearchClock>,
    buckets: ReadHealth,
    segments: ReadHealth,
    /// For each part of this shard: start of the last complete read of a recent bucket.
    parts_read: BTreeMap<u16, Micros>,
    /// The whole index must have been read at or after this time: a write that was delayed by the same disturbance may
    /// place a hold in an old bucket.
    scan_again_at: Micros,
    event: Option<SearchEvent>,
}

const MINUTE: u64 = 60_000;

fn minute_of(at: UnixMillis) -> u64 {
    at.0 / MINUTE
}

const fn micros(span: Duration) -> Micros {
    Micros(span.as_micros() as u64)
}

const fn millis(span: Duration) -> u64 {
    span.as_millis() as u64
}

impl ExpirySearch {
    /// `rng` spreads the reads of several processes.
    pub fn new(settings: SearchSettings, rng: SmallRng) -> Self {
        let mut search = Self {
            settings,
            rng,
            members: None,
            reads: BTreeMap::new(),
            clock: None,
            buckets: ReadHealth::default(),
            segments: ReadHealth::default(),
            parts_read: BTreeMap::new(),
            scan_again_at: Micros(0),
            event: None,
        };
        for segment in settings.own(settings.segments) {
            search.add(IndexRead::Segment(segment), Micros(0));
        }
        search
    }

    /// The next read to begin now. `None`: none is due, or enough are in flight.
    pub fn poll_read(&mut self, now: Now) -> Option<IndexRead> {
        self.follow_clock(now);
        let is_due = |read: &IndexRead, state: &ReadState| {
            let earliest = self.health(*read).earliest(state.due, read.at_once());
            let is_due = state.began.is_none() && earliest.is_some_and(|at| at <= now.mono);
            is_due && self.turn(*read).reads()
        };
        let due = self.reads.iter().filter(|(read, state)| is_due(read, state));
        let first = due.min_by_key(|(read, state)| (state.due, read.minute(), state.tie_break));
        let read = *first?.0;
        if let Some(state) = self.reads.get_mut(&read) {
            state.began = Some(now);
        }
        self.health_mut(read).in_flight += 1;
        Some(read)
    }

    /// When to call [`ExpirySearch::poll_read`] again, unless a read ends before.
    pub fn poll_timeout(&self, now: Micros) -> Micros {
        let is_waiting =
            |read: &IndexRead, state: &ReadState| state.began.is_none() && self.turn(*read).reads();
        let waiting = self.reads.iter().filter(|(read, state)| is_waiting(read, state));
        let earliest = waiting
            .filter_map(|(read, state)| self.health(*read).earliest(state.due, read.at_once()))
            .min();
        // The clocks are compared at least once per interval.
        let latest = now.plus(self.settings.every);
        earliest.map_or(latest, |at| at.clamp(now, latest))
    }

    /// A page of `read` contains overdue holds; `oldest` is the earliest of their expiries. The page shows that the store
    /// answers: their expiries may wait for writes that the engine sends again only when it knows that.
    pub fn handle_overdue(&mut self, read: IndexRead, oldest: UnixMillis, now: Micros) {
        if !fault::planted(Fault::FoundHoldsShowNothing) {
            self.handle_success(read, now);
        }
        if let Some(state) = self.reads.get_mut(&read) {
            state.oldest = Some(state.oldest.map_or(oldest, |known| known.min(oldest)));
        }
    }

    /// The read has ended, and the expiries of the holds that it found have been answered or count as unexpired.
    pub fn handle_read(&mut self, read: IndexRead, result: IndexReadResult, now: Now) {
        let retry = self.jittered(self.settings.every);
        let health = self.health_mut(read);
        health.in_flight = health.in_flight.saturating_sub(1);
        if result == IndexReadResult::Failed {
            self.handle_failure(read, now.mono, retry);
            return;
        }
        self.handle_success(read, now.mono);
        match read {
            IndexRead::Bucket(bucket) => self.end_bucket(bucket, result, now.mono),
            IndexRead::Segment(_) => self.end_segment(read, result, now.mono),
        }
    }

    /// The processes that sell from this store, as far as this one knows.
    pub fn handle_membership(&mut self, members: &Rc<Members>, now: Micros) {
        if self.members.as_ref().is_some_and(|known| Rc::ptr_eq(known, members)) {
            return;
        }
        let before = self.members.replace(Rc::clone(members));
        let reads: Vec<IndexRead> = self.reads.keys().copied().collect();
        for read in reads {
            let turn_before = before.as_ref().map_or(ReadTurn::First, |m| ReadTurn::of(read, m));
            let turn = self.turn(read);
            if turn < turn_before {
                let soon = now.plus(self.drawn(turn.interval(self.settings.every)));
                if let Some(state) = self.reads.get_mut(&read) {
                    state.due = state.due.min(soon);
                }
            }
        }
    }

    /// The position of this process for a read.
    pub fn turn(&self, read: IndexRead) -> ReadTurn {
        self.members.as_ref().map_or(ReadTurn::First, |members| ReadTurn::of(read, members))
    }

    fn has_others(&self) -> bool {
        self.members.as_ref().is_some_and(|members| members.count() > 1)
    }

    /// The read is for holds that expired at this time or earlier.
    pub fn expired_by(&self, read: IndexRead, now: UnixMillis) -> UnixMillis {
        let turn = match read {
            // Young holds are found in their bucket, whose first reader is another process than that of the segment.
            IndexRead::Segment(_) if self.has_others() => self.turn(read).max(ReadTurn::Second),
            _ => self.turn(read),
        };
        let overdue_min = turn.overdue_min(self.settings.every);
        UnixMillis(now.0.saturating_sub(overdue_min.0 / 1_000))
    }

    /// What changed since the last call, for the log.
    pub fn poll_event(&mut self) -> Option<SearchEvent> {
        self.event.take()
    }

    pub fn status(&self) -> SearchStatus {
        let started = self.clock.map_or(Micros(0), |clock| clock.started);
        let segments = self.settings.own(self.settings.segments).filter_map(|segment| {
            let state = self.reads.get(&IndexRead::Segment(segment))?;
            Some(state.complete.unwrap_or(started))
        });
        let latest = self.clock.map_or(Micros(0), |clock| clock.last.mono);
        SearchStatus {
            oldest_overdue: self.reads.values().filter_map(|state| state.oldest).min(),
            // A shard without parts or segments is never late.
            buckets_read: self.parts_read.values().copied().min().unwrap_or(latest),
            segments_read: segments.min().unwrap_or(latest),
        }
    }
}

/// Time.
impl ExpirySearch {
    /// Adds the buckets of minutes that have begun, drops old ones, and reads everything after a jump.
    fn follow_clock(&mut self, now: Now) {
        let step = millis(limits::RECLAIM_CLOCK_STEP);
        let minute = minute_of(now.unix);
        let oldest = minute.saturating_sub(limits::RECLAIM_WINDOW_MINUTES);
        let Some(clock) = &mut self.clock else {
            self.clock = Some(SearchClock { last: now, latest: now.unix, started: now.mono });
            for part in self.settings.own(self.settings.parts) {
                self.parts_read.insert(part, now.mono);
            }
            self.add_minutes(oldest, minute, now.mono);
            self.scan_now(now.mono);
            return;
        };
        let last = clock.last;
        clock.last = now;
        let is_back = now.unix.0 + step < clock.latest.0;
        clock.latest = if is_back { now.unix } else { clock.latest.max(now.unix) };
        let wall = now.unix.0.saturating_sub(last.unix.0);
        let run = now.mono.since(last.mono).0 / 1_000;
        let is_ahead = wall > run + step;
        // The process was suspended, or its shard was.
        let is_late = run > millis(limits::RECLAIM_OUTAGE_MIN);
        if is_back {
            // Buckets that were read too early, by a clock that was wrong, count as unread.
            self.reads.retain(|read, _| !matches!(read, IndexRead::Bucket(b) if b.minute > minute));
            self.add_minutes(oldest, minute, now.mono);
        } else if minute > minute_of(last.unix) {
            let first = oldest.max(minute_of(last.unix) + 1);
            self.add_minutes(first, minute, now.mono);
        }
        let before = self.reads.len();
        self.reads.retain(|read, _| !matches!(read, IndexRead::Bucket(b) if b.minute < oldest));
        let lost_some = self.reads.len() < before;
        let has_jumped = (is_back || is_ahead) && !fault::planted(Fault::ClockJumpIgnored);
        if has_jumped || is_late || lost_some {
            self.scan_now(now.mono);
        }
    }

    fn add_minutes(&mut self, first: u64, last: u64, now: Micros) {
        for minute in first..=last {
            for part in self.settings.own(self.settings.parts) {
                // The part of the last minute was read at some time within the interval.
                let read = IndexRead::Bucket(ExpiryBucket { minute, part });
                let due = match minute == last && first == last {
                    true => now.plus(self.drawn(self.interval(read))),
                    false => now,
                };
                self.add(read, due);
            }
        }
    }

    fn add(&mut self, read: IndexRead, due: Micros) {
        let tie_break = self.rng.random();
        self.reads.entry(read).or_insert(ReadState {
            due,
            tie_break,
            began: None,
            repeat: false,
            stuck: 0,
            complete: None,
            oldest: None,
        });
    }

    /// The whole index is to be read now, and once more when delayed writes have settled.
    fn scan_now(&mut self, now: Micros) {
        self.scan_again_at = now.plus(micros(limits::RECLAIM_SETTLE));
        for (read, state) in &mut self.reads {
            if matches!(read, IndexRead::Segment(_)) {
                state.repeat = state.began.is_some();
                state.due = state.due.min(now);
            }
        }
    }

    /// Interval of the regular reads of this kind and part.
    fn interval(&self, read: IndexRead) -> Micros {
        self.turn(read).interval(self.settings.every)
    }

    /// Between 0 and `span`.
    fn drawn(&mut self, span: Micros) -> Micros {
        Micros(self.rng.random_range(0..=span.0))
    }

    /// `span`, a tenth more or less.
    fn jittered(&mut self, span: Micros) -> Micros {
        Micros(self.rng.random_range(span.0 - span.0 / 10..=span.0 + span.0 / 10))
    }
}

/// Ends of reads.
impl ExpirySearch {
    fn health(&self, read: IndexRead) -> &ReadHealth {
        match read {
            IndexRead::Bucket(_) => &self.buckets,
            IndexRead::Segment(_) => &self.segments,
        }
    }

    fn health_mut(&mut self, read: IndexRead) -> &mut ReadHealth {
        match read {
            IndexRead::Bucket(_) => &mut self.buckets,
            IndexRead::Segment(_) => &mut self.segments,
        }
    }

    fn handle_failure(&mut self, read: IndexRead, now: Micros, retry: Micros) {
        let health = self.health_mut(read);
        let was_failing = health.is_failing();
        if health.failures == 0 {
            health.failing_since = now;
        }
        health.failures = health.failures.saturating_add(1);
        health.probe_at = now.plus(retry);
        if health.is_failing() && !was_failing {
            self.event = Some(SearchEvent::Failing);
        }
        if fault::planted(Fault::OverdueScanGivesUp) && matches!(read, IndexRead::Segment(_)) {
            self.reads.remove(&read);
        }
        if fault::planted(Fault::UnreadBucketEmpty) && matches!(read, IndexRead::Bucket(_)) {
            self.reads.remove(&read);
        }
        if let Some(state) = self.reads.get_mut(&read) {
            state.began = None;
            state.repeat = false;
            // Others first: this one may fail for a reason of its own.
            state.due = now.plus(retry);
        }
    }

    fn handle_success(&mut self, read: IndexRead, now: Micros) {
        let health = self.health_mut(read);
        let was_failing = health.is_failing();
        let failed_for = now.since(health.failing_since);
        health.failures = 0;
        if was_failing {
            self.event = Some(SearchEvent::Recovered(failed_for));
            if failed_for >= micros(limits::RECLAIM_OUTAGE_MIN) {
                self.scan_now(now);
            }
        }
    }

    fn end_bucket(&mut self, bucket: ExpiryBucket, result: IndexReadResult, now: Micros) {
        let read = IndexRead::Bucket(bucket);
        let every = self.jittered(self.interval(read));
        let settling = self.jittered(micros(limits::RECLAIM_SETTLE_EVERY)).max(every);
        let IndexReadResult::Complete { found, unexpired, oldest, .. } = result else { return };
        let Some(state) = self.reads.get_mut(&read) else { return };
        let Some(began) = state.began.take() else { return };
        state.complete = Some(began.mono);
        state.oldest = oldest;
        let is_recent = bucket.minute + 1 >= minute_of(began.unix);
        if is_recent && let Some(read_at) = self.parts_read.get_mut(&bucket.part) {
            *read_at = began.mono.max(*read_at);
        }
        let since_end = began.unix.0.checked_sub(bucket.end());
        let has_settled = since_end.is_some_and(|ms| ms >= millis(limits::RECLAIM_SETTLE));
        if has_settled && found == 0 {
            self.reads.remove(&read);
            return;
        }
        let is_fresh = since_end.is_none_or(|ms| ms < millis(limits::RECLAIM_LOOK_BACK));
        state.due = match state.retry_after(found, unexpired, every) {
            // More holds may expire in it.
            _ if is_fresh => began.mono.plus(every),
            Some(pause) => now.plus(pause),
            None if found > 0 => began.mono.plus(every),
            None => began.mono.plus(settling),
        };
    }

    fn end_segment(&mut self, read: IndexRead, result: IndexReadResult, now: Micros) {
        let every = self.jittered(self.interval(read));
        let IndexReadResult::Complete { examined, found, unexpired, oldest } = result else {
            return;
        };
        let interval = match self.turn(read) {
            ReadTurn::First => self.scan_interval(examined),
            ReadTurn::Second | ReadTurn::Later => self.scan_interval(examined).max(every),
        };
        let scan_again_at = self.scan_again_at;
        let Some(state) = self.reads.get_mut(&read) else { return };
        let Some(began) = state.began.take() else { return };
        state.complete = Some(began.mono);
        state.oldest = oldest;
        let regular = began.mono.plus(interval);
        state.due = match state.retry_after(found, unexpired, every) {
            _ if std::mem::take(&mut state.repeat) => now,
            Some(pause) => regular.min(now.plus(pause)),
            None if began.mono < scan_again_at => regular.min(scan_again_at),
            None => regular,
        };
    }

    /// The pause until a segment is read again in which the store examined this many records.
    fn scan_interval(&mut self, examined: u64) -> Micros {
        let all = examined.saturating_mul(u64::from(self.settings.segments));
        let span = Micros(all.saturating_mul(1_000_000) / limits::RECLAIM_SCAN_RATE);
        let (min, max) = (self.settings.every, micros(limits::RECLAIM_SCAN_EVERY_MAX));
        let span = self.jittered(span.clamp(min, max));
        span.min(max)
    }
}

impl ReadState {
    /// The pause before a read that left holds behind is repeated: it grows while none of them can be expired.
    fn retry_after(&mut self, found: usize, unexpired: usize, every: Micros) -> Option<Micros> {
        if unexpired == 0 {
            self.stuck = 0;
            return None;
        }
        self.stuck = if unexpired < found { 0 } else { self.stuck + 1 };
        let doublings = self.stuck.saturating_sub(1).min(16);
        Some(Micros(every.0 << doublings).min(micros(limits::RECLAIM_STUCK_EVERY_MAX)))
    }
}
