//! Expires holds that are past their `expires_at` and returns their stock.
//!
//! Every process reads the whole expiry index, each shard its part; there is no leader. Of the processes that sell from
//! one store the first in line reads a part most often, and others leave young holds to it. Two reclaimers that find
//! the same hold are harmless: the write is conditional, so one of them succeeds and the other one reads that the hold is
//! expired. A failed read, or a panic, ends one read and never the search.
//!
//! Not here: what to read and when (`inventory_core::expiry_search`), when a hold expires
//! (`inventory_core::rules`), how an expiry is written (`inventory_core::lane`).

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{Either, select};
use futures::stream::{FuturesUnordered, StreamExt as _};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::driver::Driver;
use super::pending_expiries::{ExpiryAnswer, PendingExpiry, UnansweredExpiries};
use crate::limits;
use crate::telemetry::recorder::{InventoryType, Recorder};
use inventory_core::answer::Answer;
use inventory_core::expiry_search::{
    ExpirySearch, IndexRead, IndexReadResult, SearchEvent, SearchSettings,
};
use inventory_core::time::{Micros, UnixMillis};
use inventory_runtime::clock;
use inventory_store::{Page, PageToken, StoreError, StoredRecord};

/// The reclaimer of one shard.
pub(super) struct Reclaimer {
    driver: Rc<Driver>,
    recorder: Rc<Recorder>,
    search: RefCell<ExpirySearch>,
    /// Expiries that their reads no longer wait for.
    unanswered: RefCell<UnansweredExpiries>,
    /// The last error of a read, for the log.
    last_error: RefCell<String>,
}

/// Overdue holds that one read has found so far.
#[derive(Default)]
struct ReclaimCounts {
    found: usize,
    unexpired: usize,
    /// Expiry of the oldest hold that was not expired.
    oldest: Option<UnixMillis>,
}

impl Reclaimer {
    pub(super) fn new(
        driver: Rc<Driver>,
        recorder: Rc<Recorder>,
        shard: usize,
        shards: usize,
    ) -> Self {
        let settings = SearchSettings {
            shard,
            shards,
            parts: limits::EXPIRY_PARTS,
            segments: limits::EXPIRY_SEGMENTS,
            every: Micros(limits::RECLAIM_EVERY.as_micros() as u64),
        };
        let search = ExpirySearch::new(settings, SmallRng::from_os_rng());
        Self {
            driver,
            recorder,
            search: RefCell::new(search),
            unanswered: RefCell::default(),
            last_error: RefCell::default(),
        }
    }

    /// Runs until the future is dropped.
    pub(super) async fn run(self) {
        let mut reads = FuturesUnordered::new();
        loop {
            let now = clock::now();
            let members = self.driver.members();
            self.search.borrow_mut().handle_membership(&members, now.mono);
            while let Some(read) = self.poll_read() {
                reads.push(self.execute(read));
            }
            self.record_late_answers();
            self.publish();
            let due = self.search.borrow().poll_timeout(now.mono);
            // At least a millisecond: a clock that is read twice may not have advanced.
            let wait = Duration::from_micros(due.since(now.mono).0.max(1_000));
            let timeout = pin!(inventory_runtime::sleep(wait));
            if reads.is_empty() {
                timeout.await;
            } else if let Either::Left((Some((read, result)), _)) =
                select(reads.next(), timeout).await
            {
                self.search.borrow_mut().handle_read(read, result, clock::now());
                self.handle_change();
            }
        }
    }

    fn poll_read(&self) -> Option<IndexRead> {
        self.search.borrow_mut().poll_read(clock::now())
    }

    /// Passes what is known about overdue holds to the metrics.
    fn publish(&self) {
        self.recorder.searched(self.search.borrow().status());
    }

    /// Logs when reads begin or cease to fail. Then the engine resolves what it could not write meanwhile.
    fn handle_change(&self) {
        let event = self.search.borrow_mut().poll_event();
        match event {
            Some(SearchEvent::Failing) => {
                let error = self.last_error.take();
                tracing::warn!(error, "cannot read expired holds");
            }
            Some(SearchEvent::Recovered(failed_for)) => {
                let failed_for_seconds = failed_for.0 as f64 / 1e6;
                tracing::info!(failed_for_seconds, "expired holds can be read again");
                self.driver.store_answers();
            }
            None => {}
        }
    }

    /// Executes one read, expires what it finds, and returns its result.
    async fn execute(&self, read: IndexRead) -> (IndexRead, IndexReadResult) {
        let result = AssertUnwindSafe(self.read_pages(read)).catch_unwind().await;
        let result = result.unwrap_or_else(|_| {
            tracing::error!(?read, "search for expired holds panicked");
            IndexReadResult::Failed
        });
        (read, result)
    }

    async fn read_pages(&self, read: IndexRead) -> IndexReadResult {
        let mut counts = ReclaimCounts::default();
        let (mut from, mut examined) = (None, 0);
        loop {
            let page = match self.page(read, from.as_ref()).await {
                Ok(page) => page,
                Err(error) => {
                    self.last_error.replace(error.to_string());
                    return IndexReadResult::Failed;
                }
            };
            examined += page.examined;
            from = page.next;
            self.expire(read, page.items, &mut counts).await;
            if from.is_none() {
                let ReclaimCounts { found, unexpired, oldest } = counts;
                return IndexReadResult::Complete { examined, found, unexpired, oldest };
            }
        }
    }

    async fn page(
        &self,
        read: IndexRead,
        from: Option<&PageToken>,
    ) -> Result<Page<StoredRecord>, StoreError> {
        let store = self.driver.store();
        let expired_by = self.search.borrow().expired_by(read, clock::now().unix);
        match read {
            IndexRead::Bucket(bucket) => {
                store.due_holds(bucket, expired_by, limits::RECLAIM_PAGE, from).await
            }
            IndexRead::Segment(segment) => {
                store.scan_due_holds(segment, limits::EXPIRY_SEGMENTS, expired_by, from).await
            }
        }
    }

    /// Expires these holds and waits for the outcomes, at most [`limits::RECLAIM_TIMEOUT`]. A hold that is not expired by
    /// then is found again by a later read.
    async fn expire(
        &self,
        read: IndexRead,
        records: Vec<StoredRecord>,
        counts: &mut ReclaimCounts,
    ) {
        let Some(oldest) = records.iter().filter_map(|record| record.view.expires_at).min() else {
            return;
        };
        self.search.borrow_mut().handle_overdue(read, oldest, clock::monotonic());
        self.handle_change();
        self.publish();
        self.record_late_answers();
        let timeout = Micros(limits::RECLAIM_TIMEOUT.as_micros() as u64);
        let deadline = clock::monotonic().plus(timeout);
        let found = records.len();
        let unexpired_before = counts.unexpired;
        counts.found += found;
        let mut expiries = FuturesUnordered::new();
        for record in records {
            let due = record.view.expires_at.unwrap_or_default();
            match self.unanswered.borrow_mut().contains(&record.reservation) {
                true => counts.leave(due),
                false => expiries.push(self.start_expiry(record, deadline)),
            }
        }
        let mut timeout = pin!(inventory_runtime::sleep(limits::RECLAIM_TIMEOUT));
        while let Either::Left((Some((due, kind, answer)), _)) =
            select(expiries.next(), &mut timeout).await
        {
            self.record(kind, due, &answer);
            // By the engine's clock a hold may not have expired yet.
            if !matches!(answer, Ok(Answer::Expired | Answer::Held { .. })) {
                counts.leave(due);
            }
        }
        for expiry in expiries {
            counts.leave(expiry.due);
            self.unanswered.borrow_mut().insert(expiry);
        }
        let expired = found - (counts.unexpired - unexpired_before);
        tracing::debug!(found, expired, "expired holds");
    }

    fn start_expiry(&self, record: StoredRecord, deadline: Micros) -> PendingExpiry {
        let StoredRecord { event, reservation, view, .. } = record;
        let kind = match view.seats {
            Some(_) => InventoryType::Seat,
            None => InventoryType::Quantity,
        };
        let due = view.expires_at.unwrap_or_default();
        let answer = self.driver.expire_hold(event, reservation.clone(), view, deadline);
        PendingExpiry { reservation, kind, due, answer }
    }

    /// Counts the holds that have been expired although their read no longer waited.
    fn record_late_answers(&self) {
        for (due, kind, answer) in self.unanswered.borrow_mut().take_answered() {
            self.record(kind, due, &answer);
        }
    }

    fn record(&self, kind: InventoryType, due: UnixMillis, answer: &ExpiryAnswer) {
        if matches!(answer, Ok(Answer::Expired)) {
            let delay = clock::now().unix.0.saturating_sub(due.0);
            self.recorder.reclaimed(kind, Micros::from_millis(delay));
        }
    }
}

impl ReclaimCounts {
    /// Counts a hold that was not expired.
    fn leave(&mut self, due: UnixMillis) {
        self.unexpired += 1;
        self.oldest = Some(self.oldest.map_or(due, |oldest| oldest.min(due)));
    }
}
