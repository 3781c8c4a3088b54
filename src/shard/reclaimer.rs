//! Expires holds that are past their `expires_at` and returns their stock.
//!
//! Every shard of every process scans its part of the expiry index periodically; there is no leader. Two
//! reclaimers that find the same hold are harmless: the write is conditional, so one of them succeeds and the
//! other one reads that the hold is expired. The keys are scanned in random order, so that this is rare.
//!
//! Must not live here: when a hold expires (`inventory_core::rules`), how an expiry is written
//! (`inventory_core::lane`).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::driver::Driver;
use crate::limits;
use crate::telemetry::recorder::{InventoryType, Recorder};
use inventory_core::answer::Answer;
use inventory_core::time::{Micros, UnixMillis};
use inventory_runtime::clock;
use inventory_store::{Page, StoreError, StoredRecord};

/// The reclaimer of one shard.
pub(super) struct Reclaimer {
    driver: Rc<Driver>,
    recorder: Rc<Recorder>,
    shard: usize,
    shards: usize,
    rng: SmallRng,
    /// When the store was last last_warning about.
    last_warning: Cell<Option<Micros>>,
}

/// One key of the expiry index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ExpiryKey {
    /// Minutes since the Unix epoch.
    minute: u64,
    part: u16,
}

impl Reclaimer {
    pub(super) fn new(
        driver: Rc<Driver>,
        recorder: Rc<Recorder>,
        shard: usize,
        shards: usize,
    ) -> Self {
        Self {
            driver,
            recorder,
            shard,
            shards,
            rng: SmallRng::from_os_rng(),
            last_warning: Cell::new(None),
        }
    }

    /// Runs until the future is dropped.
    pub(super) async fn run(mut self) {
        // Holds that expired while no process ran can be in any minute: one shard scans the whole index.
        if self.shard == 0 {
            self.catch_up().await;
        }
        let mut round = 1_u32;
        loop {
            let pause = limits::RECLAIM_EVERY.mul_f64(self.rng.random_range(0.9..1.1));
            inventory_runtime::sleep(pause).await;
            let now = clock::now().unix;
            let mut keys = keys(now, round, self.shard, self.shards);
            keys.shuffle(&mut self.rng);
            stream::iter(keys)
                .for_each_concurrent(limits::RECLAIM_KEYS_AT_ONCE, |key| self.expire_key(key, now))
                .await;
            round = round.wrapping_add(1);
        }
    }

    /// Expires every overdue hold in the index.
    async fn catch_up(&self) {
        let mut from = None;
        loop {
            let now = clock::now().unix;
            let page = self.driver.store().scan_due_holds(now, from.as_ref()).await;
            let Some(page) = self.page(page) else { return };
            from = page.next;
            self.expire(page.items).await;
            if from.is_none() {
                return;
            }
        }
    }

    /// Expires the overdue holds of one key.
    async fn expire_key(&self, key: ExpiryKey, now: UnixMillis) {
        let mut from = None;
        loop {
            let store = self.driver.store();
            let page = store
                .due_holds(key.minute, key.part, now, limits::RECLAIM_PAGE, from.as_ref())
                .await;
            let Some(page) = self.page(page) else { return };
            from = page.next;
            self.expire(page.items).await;
            if from.is_none() {
                return;
            }
        }
    }

    fn page(&self, page: Result<Page<StoredRecord>, StoreError>) -> Option<Page<StoredRecord>> {
        page.inspect_err(|error| {
            let now = clock::monotonic();
            let interval = Micros(limits::RECLAIM_COMPLAIN_EVERY.as_micros() as u64);
            let is_recent = self.last_warning.get().is_some_and(|at| now.since(at) < interval);
            if !is_recent {
                self.last_warning.set(Some(now));
                tracing::warn!(%error, "cannot read expired holds");
            }
        })
        .ok()
    }

    /// Expires these holds and waits for the outcomes. A hold that fails is found again in the next round.
    async fn expire(&self, records: Vec<StoredRecord>) {
        let timeout = Micros(limits::RECLAIM_TIMEOUT.as_micros() as u64);
        let deadline = clock::monotonic().plus(timeout);
        let outcomes = records.into_iter().map(|record| {
            let StoredRecord { event, reservation, view, .. } = record;
            let kind = match view.seats {
                Some(_) => InventoryType::Seat,
                None => InventoryType::Quantity,
            };
            let due = view.expires_at.unwrap_or_default();
            let answer = self.driver.expire_hold(event, reservation, view, deadline);
            async move {
                let is_expired = matches!(answer.await, Ok(Answer::Expired));
                if is_expired {
                    let delay = clock::now().unix.0.saturating_sub(due.0);
                    self.recorder.reclaimed(kind, Micros::from_millis(delay));
                }
                is_expired
            }
        });
        let outcomes: Vec<_> = outcomes.collect();
        let found = outcomes.len();
        let expired = join_all(outcomes).await.into_iter().filter(|is_expired| *is_expired).count();
        if found > 0 {
            tracing::debug!(found, expired, "expired holds");
        }
    }
}

/// The keys that this shard scans in this round: always the current minute; the previous minute early in a
/// minute and every few rounds; and at longer intervals every minute that can have a hold.
fn keys(now: UnixMillis, round: u32, shard: usize, shards: usize) -> Vec<ExpiryKey> {
    let minute = now.0 / 60_000;
    let into_minute = Duration::from_millis(now.0 % 60_000);
    let mut back = 0;
    if into_minute < limits::RECLAIM_LOOK_BACK
        || round.is_multiple_of(limits::RECLAIM_LAST_MINUTE_EVERY)
    {
        back = 1;
    }
    if round.is_multiple_of(limits::RECLAIM_WIDE_EVERY) {
        back = limits::RECLAIM_WIDE_MINUTES;
    }
    let parts = (0..limits::EXPIRY_SHARDS).filter(|part| usize::from(*part) % shards == shard);
    let minutes = minute.saturating_sub(back)..=minute;
    parts.flat_map(|part| minutes.clone().map(move |minute| ExpiryKey { minute, part })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_scan_every_part_of_the_current_minute_once() {
        let now = UnixMillis(50_000 + 7 * 60_000);
        for shards in [1, 3, 64] {
            let mut parts: Vec<u16> = (0..shards)
                .flat_map(|shard| keys(now, 1, shard, shards))
                .inspect(|key| assert_eq!(key.minute, 7))
                .map(|key| key.part)
                .collect();
            parts.sort_unstable();
            let all: Vec<u16> = (0..limits::EXPIRY_SHARDS).collect();
            assert_eq!(parts, all, "{shards} shards");
        }
    }

    #[test]
    fn the_previous_minute_is_scanned_early_in_a_minute_and_every_few_rounds() {
        let minutes = |into: u64, round: u32| {
            let found = keys(UnixMillis(7 * 60_000 + into), round, 0, 1);
            let mut minutes: Vec<u64> = found.iter().map(|key| key.minute).collect();
            minutes.sort_unstable();
            minutes.dedup();
            minutes
        };
        assert_eq!(minutes(0, 1), [6, 7]);
        assert_eq!(minutes(59_000, 1), [7]);
        assert_eq!(minutes(59_000, limits::RECLAIM_LAST_MINUTE_EVERY), [6, 7]);
    }
}
