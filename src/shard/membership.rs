//! Membership on the shards: the first shard sends the beats of the process to the store, and every shard passes
//! changed members to its engine.
//!
//! After a beat that fails or panics the process keeps the members of its last read. Not here: the decision which
//! processes are members (`inventory_core::membership`).

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::select;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::sync::{Notify, watch};

use super::driver::Driver;
use super::membership_log::MembershipLog;
use crate::limits;
use crate::telemetry::membership::{BeatReport, MemberReport, MembershipReport, MembershipSource};
use inventory_core::membership::{
    Announcement, BeatTracker, ClockOffset, Members, MembersRead, ProcessId,
};
use inventory_core::time::Micros;
use inventory_runtime::{Task, clock};
use inventory_store::{ClockSkew, StoreError};

/// What a shard needs for its part of membership.
pub(crate) struct ShardMembership {
    pub(crate) members: watch::Receiver<Arc<Members>>,
    /// On the first shard, if the members are found through the store.
    pub(crate) beats: Option<BeatConfig>,
}

/// Everything that the beats of a process need.
pub(crate) struct BeatConfig {
    pub(crate) id: ProcessId,
    pub(crate) announcement: Announcement,
    pub(crate) members: watch::Sender<Arc<Members>>,
    pub(crate) report: watch::Sender<MembershipReport>,
}

/// Passes changed members to the engine until the future is dropped, or until no sender of members is left.
pub(super) async fn follow(driver: Rc<Driver>, mut members: watch::Receiver<Arc<Members>>) {
    while members.changed().await.is_ok() {
        pass_on(&driver, &mut members);
    }
}

/// Passes the current members to the engine.
pub(super) fn pass_on(driver: &Rc<Driver>, members: &mut watch::Receiver<Arc<Members>>) {
    let members = Members::clone(&members.borrow_and_update());
    driver.set_members(Rc::new(members));
}

/// The running beats of the process.
pub(super) struct Beats {
    task: Task<()>,
    leaving: Rc<LeaveSignal>,
}

#[derive(Default)]
struct LeaveSignal {
    /// When it was given.
    at: Cell<Option<Micros>>,
    set: Notify,
    has_left: Notify,
}

impl Beats {
    pub(super) fn start(driver: Rc<Driver>, config: BeatConfig) -> Self {
        let leaving = Rc::new(LeaveSignal::default());
        let task = inventory_runtime::spawn(run_beats(driver, config, Rc::clone(&leaving)));
        Self { task, leaving }
    }

    /// Announces that the process leaves. Returns at once.
    pub(super) fn leave(&self) {
        self.leaving.at.set(Some(clock::monotonic()));
        self.leaving.set.notify_one();
    }

    /// Waits until the process has left, at most until [`limits::LEAVE_TIMEOUT`] after [`Beats::leave`].
    pub(super) async fn wait_until_left(&self) {
        let since = clock::monotonic().since(self.leaving.at.get().unwrap_or_default());
        let rest = limits::LEAVE_TIMEOUT.saturating_sub(Duration::from_micros(since.0));
        let left = pin!(self.leaving.has_left.notified());
        select(left, pin!(inventory_runtime::sleep(rest))).await;
    }

    pub(super) async fn cancel(self) {
        self.task.cancel().await;
    }
}

/// Beats until the process has left; starts again after a panic.
async fn run_beats(driver: Rc<Driver>, config: BeatConfig, leaving: Rc<LeaveSignal>) {
    let counts = Cell::new(BeatCounts { at: clock::monotonic(), succeeded: 0, failed: 0 });
    loop {
        let tracker =
            BeatTracker::new(config.id, config.announcement.clone(), SmallRng::from_os_rng());
        let log = MembershipLog::new(config.id);
        let mut beat_task = BeatTask {
            driver: &driver,
            config: &config,
            leaving: &leaving,
            counts: &counts,
            tracker,
            log,
        };
        if AssertUnwindSafe(beat_task.run()).catch_unwind().await.is_ok() {
            break;
        }
        tracing::error!("membership beats panicked");
        inventory_runtime::sleep(limits::BEAT_INTERVAL).await;
    }
    leaving.has_left.notify_one();
}

/// Beats since the start of the process.
#[derive(Clone, Copy)]
struct BeatCounts {
    /// When the latest one succeeded.
    at: Micros,
    succeeded: u64,
    failed: u64,
}

/// The loop that sends beats and publishes their results.
struct BeatTask<'a> {
    driver: &'a Rc<Driver>,
    config: &'a BeatConfig,
    leaving: &'a LeaveSignal,
    counts: &'a Cell<BeatCounts>,
    tracker: BeatTracker,
    log: MembershipLog,
}

impl BeatTask<'_> {
    async fn run(&mut self) {
        loop {
            let now = clock::now();
            if self.leaving.at.get().is_some() {
                self.tracker.handle_leave(now);
            }
            let Some(due) = self.tracker.poll_timeout() else { return };
            let wait = due.since(now.mono);
            if wait > Micros(0) {
                let timer = pin!(inventory_runtime::sleep(Duration::from_micros(wait.0)));
                select(timer, pin!(self.leaving.set.notified())).await;
                continue;
            }
            let offset = self.driver.store().clock_skew().map(clock_offset);
            let Some(update) = self.tracker.poll_update(now, offset) else { return };
            let result = self.driver.store().update_members(&update, limits::BEAT_TIMEOUT).await;
            self.handle(result);
        }
    }

    fn handle(&mut self, result: Result<MembersRead, StoreError>) {
        let now = clock::now();
        let mut counts = self.counts.get();
        match result {
            Ok(read) => {
                (counts.at, counts.succeeded) = (now.mono, counts.succeeded + 1);
                self.tracker.handle_read(read, now);
                self.log.succeeded(now.mono);
            }
            Err(error) => {
                counts.failed += 1;
                self.tracker.handle_failure(now);
                self.log.failed(&error, now.mono);
            }
        }
        self.counts.set(counts);
        if let Some(members) = self.tracker.poll_members() {
            self.log.changed(&members);
            self.config.members.send_replace(Arc::new(Members::clone(&members)));
        }
        let report = self.report(counts);
        if let Some(beats) = &report.beats {
            self.log.check(beats, now.mono);
        }
        self.config.report.send_replace(report);
    }

    fn report(&self, counts: BeatCounts) -> MembershipReport {
        let members = self.tracker.statuses().into_iter().map(|status| MemberReport {
            entry: status.entry,
            is_own: status.is_own,
            is_alive: status.is_alive,
            seen_at: Some(status.changed_at),
        });
        let difference = self.tracker.clock_difference_ms();
        MembershipReport {
            source: MembershipSource::Store,
            members: members.collect(),
            own_share: self.tracker.members().own_share(),
            beats: Some(BeatReport {
                succeeded_at: counts.at,
                succeeded: counts.succeeded,
                failed: counts.failed,
                is_unlisted: self.tracker.is_unlisted(),
                unreadable: self.tracker.unreadable(),
                clock_difference: difference.map(|(id, ms)| (id, Duration::from_millis(ms))),
            }),
        }
    }
}

/// As announced to other processes.
pub(crate) fn clock_offset(skew: ClockSkew) -> ClockOffset {
    // Rounded up: the error is a bound.
    ClockOffset {
        ahead_ms: (skew.ahead * 1e3).round() as i64,
        error_ms: (skew.error * 1e3).ceil() as u64 + 1,
    }
}
