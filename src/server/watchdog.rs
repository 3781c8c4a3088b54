//! Detects stalled shards, and reports outages of the store that `store_watch` finds. After the first threshold
//! readiness is off, and the log names the shard and its last activity; readiness returns with the shard's heartbeat.
//! After the second threshold the process exits so that its supervisor restarts it; no acknowledged write is lost.
//!
//! The watchdog has its own thread because the control plane may be stalled too. It counts its own checks
//! instead of clock time: a machine that was suspended for a minute has not stalled for a minute.
//!
//! Not here: the heartbeat itself (`telemetry::heartbeat`, `shard`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::store_watch::StoreWatch;
use crate::control_plane::Readiness;
use crate::exit;
use crate::limits;
use crate::telemetry::heartbeat::Heartbeats;
use crate::telemetry::log;
use crate::telemetry::store_health::StoreHealth;
use inventory_core::time::Micros;
use inventory_runtime::clock;

/// How long a shard may be stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WatchdogThresholds {
    /// SHARD_STALL_LIMIT: then readiness is off.
    pub(crate) not_ready: Duration,
    /// SHARD_STALL_EXIT: then the process exits; `None` means never.
    pub(crate) exit: Option<Duration>,
}

/// Ends the watchdog when dropped.
#[derive(Debug)]
pub(crate) struct Watchdog(Arc<AtomicBool>);

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts the watchdog's thread.
///
/// # Errors
/// If the operating system refuses a thread.
pub(super) fn start(
    heartbeats: Heartbeats,
    store_health: StoreHealth,
    readiness: Readiness,
    thresholds: WatchdogThresholds,
) -> std::io::Result<Watchdog> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        let mut detector = StallDetector::new(heartbeats.shards(), thresholds);
        let mut store = StoreWatch::default();
        while !stopped.load(Ordering::Relaxed) {
            thread::sleep(limits::WATCHDOG_INTERVAL);
            for (shard, event) in detector.check(|shard| heartbeats.last_beat(shard)) {
                report(&heartbeats, &readiness, shard, event);
            }
            let now = clock::monotonic();
            store.check_clock(store_health.clock_skew(), now);
            if store.is_unavailable(store_health.failures(now), now) {
                readiness.set_unhealthy("store unavailable");
            } else if detector.none_stalled() {
                readiness.set_healthy();
            }
        }
    })?;
    Ok(Watchdog(stop))
}

/// A change of one shard's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StallEvent {
    Stalled(Duration),
    Recovered,
    /// Stalled beyond the second threshold: the process must exit.
    Lost(Duration),
}

/// Counts the checks since the last heartbeat of each shard. No I/O.
struct StallDetector {
    thresholds: WatchdogThresholds,
    shards: Vec<ShardProgress>,
}

#[derive(Clone, Copy, Default)]
struct ShardProgress {
    last_beat: Option<Micros>,
    checks: u32,
    stalled: bool,
}

impl StallDetector {
    fn new(shards: usize, thresholds: WatchdogThresholds) -> Self {
        Self { thresholds, shards: vec![ShardProgress::default(); shards] }
    }

    fn check(&mut self, last_beat: impl Fn(usize) -> Option<Micros>) -> Vec<(usize, StallEvent)> {
        let WatchdogThresholds { not_ready, exit } = self.thresholds;
        let mut events = Vec::new();
        for (shard, progress) in self.shards.iter_mut().enumerate() {
            let now = last_beat(shard);
            if now != progress.last_beat {
                progress.last_beat = now;
                progress.checks = 0;
                if std::mem::take(&mut progress.stalled) {
                    events.push((shard, StallEvent::Recovered));
                }
                continue;
            }
            if now.is_none() {
                // Not started.
                continue;
            }
            progress.checks = progress.checks.saturating_add(1);
            let stalled_for = limits::WATCHDOG_INTERVAL * progress.checks;
            if exit.is_some_and(|exit| stalled_for >= exit) {
                events.push((shard, StallEvent::Lost(stalled_for)));
            } else if stalled_for >= not_ready && !progress.stalled {
                progress.stalled = true;
                events.push((shard, StallEvent::Stalled(stalled_for)));
            }
        }
        events
    }

    fn none_stalled(&self) -> bool {
        self.shards.iter().all(|progress| !progress.stalled)
    }
}

fn report(heartbeats: &Heartbeats, readiness: &Readiness, shard: usize, event: StallEvent) {
    match event {
        StallEvent::Stalled(stalled_for) => {
            heartbeats.count_stall(shard);
            readiness.set_unhealthy(format!("shard {shard} stalled"));
            log_stall(heartbeats, shard, stalled_for, "shard stalled; readiness is off");
        }
        StallEvent::Recovered => tracing::warn!(shard, "shard recovered"),
        StallEvent::Lost(stalled_for) => {
            let what = "shard did not recover; exiting for a restart";
            log_stall(heartbeats, shard, stalled_for, what);
            log::close();
            // SAFETY: ends the process at once. `exit` would run handlers that may wait for the shard.
            unsafe { libc::_exit(exit::STALLED.into()) };
        }
    }
}

/// Logs the state of a stalled shard and of its thread.
fn log_stall(heartbeats: &Heartbeats, shard: usize, stalled_for: Duration, what: &str) {
    let thread = heartbeats.thread(shard).map(ThreadState::read).unwrap_or_default();
    tracing::error!(
        shard,
        stalled_ms = stalled_for.as_millis() as u64,
        last_activity = heartbeats.activity(shard).as_str(),
        thread_state = thread.state,
        thread_waits_in = thread.waits_in,
        thread_cpu_ms = thread.cpu_ms,
        "{what}"
    );
}

/// A thread's state as the kernel reports it.
#[derive(Debug, Default)]
struct ThreadState {
    /// State letter of /proc: R running, S and D waiting, t stopped by a debugger.
    state: String,
    /// The kernel function that the thread waits in.
    waits_in: String,
    /// CPU time since the start. The difference between two log lines distinguishes a loop from a wait.
    cpu_ms: u64,
}

impl ThreadState {
    fn read(id: i32) -> Self {
        let file = |name: &str| {
            std::fs::read_to_string(format!("/proc/self/task/{id}/{name}")).unwrap_or_default()
        };
        let stat = file("stat");
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks = |at: usize| -> u64 { fields.get(at).and_then(|f| f.parse().ok()).unwrap_or(0) };
        Self {
            state: fields.first().map_or("?", |state| *state).to_owned(),
            waits_in: file("wchan"),
            // User and system time, in hundredths of a second on every Linux there is.
            cpu_ms: (ticks(11) + ticks(12)) * 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECK: Duration = limits::WATCHDOG_INTERVAL;

    fn detector() -> StallDetector {
        StallDetector::new(2, WatchdogThresholds { not_ready: CHECK * 4, exit: Some(CHECK * 10) })
    }

    #[test]
    fn stall_and_recovery_are_each_reported_once() {
        let mut detector = detector();
        let mut events = Vec::new();
        for check in 0..9_u64 {
            // Shard 0 beats before every check; shard 1 stops and beats again before the eighth.
            let last_beat = |shard| match shard {
                0 => Some(Micros(check + 1)),
                _ if check < 8 => Some(Micros(1)),
                _ => Some(Micros(2)),
            };
            events.extend(detector.check(last_beat).into_iter().map(|event| (check, event)));
            assert_eq!(detector.none_stalled(), !(4..8).contains(&check), "{check}");
        }
        let stalled = (4, (1, StallEvent::Stalled(CHECK * 4)));
        assert_eq!(events, [stalled, (8, (1, StallEvent::Recovered))]);
    }

    #[test]
    fn a_shard_that_does_not_recover_is_lost() {
        let mut detector = detector();
        let checks = (0..=10).map(|_| detector.check(|_| Some(Micros(1))));
        let last = checks.last().unwrap_or_default();
        assert_eq!(last.first(), Some(&(0, StallEvent::Lost(CHECK * 10))));
    }

    #[test]
    fn a_shard_that_has_not_started_is_not_stalled() {
        let mut detector = detector();
        assert!((0..100).all(|_| detector.check(|_| None).is_empty()));
    }

    #[test]
    fn the_state_of_a_running_thread_is_read() {
        // SAFETY: takes nothing and gives the caller's number.
        let thread = ThreadState::read(unsafe { libc::gettid() });
        assert_eq!(thread.state, "R");
    }
}
