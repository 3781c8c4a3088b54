//! Gives back what holds have that are past their time.
//!
//! Every shard of every process looks through its part of the expiry index again and again; there is
//! no leader. That two of them find the same hold harms nothing: the write that ends it is
//! conditional, so one of them does it and the other learns that it is done. The order in which keys
//! are looked at is random, so that they seldom meet.
//!
//! Must not live here: what ends a hold (`domain::rules`), how it is written (`domain::lane`).

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

/// One shard's part of the work.
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
    /// Since the epoch.
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

    /// Works until it is dropped.
    pub(super) async fn run(mut self) {
        // What expired while nobody ran may lie in any minute: one shard looks through them all.
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
                .for_each_concurrent(limits::RECLAIM_KEYS_AT_ONCE, |key| {
                    self.expire_key(key, now)
                })
                .await;
            round = round.wrapping_add(1);
        }
    }

    /// Everything in the index that is past its time.
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

    /// What is past its time under one key.
    async fn expire_key(&self, key: ExpiryKey, now: UnixMillis) {
        let mut from = None;
        loop {
            let store = self.driver.store();
            let page = store
                .due_holds(
                    key.minute,
                    key.part,
                    now,
                    limits::RECLAIM_PAGE,
                    from.as_ref(),
                )
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
            let often = Micros(limits::RECLAIM_COMPLAIN_EVERY.as_micros() as u64);
            let quiet = self
                .last_warning
                .get()
                .is_some_and(|at| now.since(at) < often);
            if !quiet {
                self.last_warning.set(Some(now));
                tracing::warn!(%error, "expired holds cannot be looked for; trying again");
            }
        })
        .ok()
    }

    /// Ends these holds and waits until that is done, or has to be tried again in the next round.
    async fn expire(&self, records: Vec<StoredRecord>) {
        let patience = Micros(limits::RECLAIM_TIMEOUT.as_micros() as u64);
        let deadline = clock::monotonic().plus(patience);
        let ended = records.into_iter().map(|record| {
            let StoredRecord {
                event,
                reservation,
                view,
                ..
            } = record;
            let kind = match view.seats {
                Some(_) => InventoryType::Seat,
                None => InventoryType::Quantity,
            };
            let due = view.expires_at.unwrap_or_default();
            let answer = self.driver.reclaim(event, reservation, view, deadline);
            async move {
                let is_done = matches!(answer.await, Ok(Answer::Expired));
                if is_done {
                    let late = clock::now().unix.0.saturating_sub(due.0);
                    self.recorder.reclaimed(kind, Micros::from_millis(late));
                }
                is_done
            }
        });
        let ended: Vec<_> = ended.collect();
        let asked = ended.len();
        let done = join_all(ended)
            .await
            .into_iter()
            .filter(|done| *done)
            .count();
        if asked > 0 {
            tracing::debug!(asked, done, "holds past their time");
        }
    }
}

/// The keys that this shard looks at in this round: every time the current minute, in which holds
/// come to their end one after the other; the one before it while it may still have some, and from
/// time to time; and every few minutes all that a hold may lie in.
fn keys(now: UnixMillis, round: u32, shard: usize, shards: usize) -> Vec<ExpiryKey> {
    let minute = now.0 / 60_000;
    let into = Duration::from_millis(now.0 % 60_000);
    let mut back = 0;
    if into < limits::RECLAIM_LOOK_BACK || round.is_multiple_of(limits::RECLAIM_LAST_MINUTE_EVERY) {
        back = 1;
    }
    if round.is_multiple_of(limits::RECLAIM_WIDE_EVERY) {
        back = limits::RECLAIM_WIDE_MINUTES;
    }
    let parts = (0..limits::EXPIRY_SHARDS).filter(|part| usize::from(*part) % shards == shard);
    let minutes = minute.saturating_sub(back)..=minute;
    parts
        .flat_map(|part| {
            minutes
                .clone()
                .map(move |minute| ExpiryKey { minute, part })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shards_together_look_at_every_part_of_this_minute_once() {
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
    fn the_minute_before_is_looked_at_while_it_may_have_some() {
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
