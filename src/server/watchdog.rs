//! Finds shards that stand still. After a first bound the process is not ready and says which shard it
//! is and what it began last; when it turns again, so is the process ready again. After a second bound
//! the process ends: what runs it starts it anew, and nothing acknowledged is lost.
//!
//! A thread of its own: the control plane may be what stands still. It counts its own looks, not the
//! clock's time: a machine that slept for a minute has not stood still for one.
//!
//! Must not live here: what a shard does to show that it turns (`shard`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::control_plane::Readiness;
use crate::limits;
use crate::telemetry::heartbeat::Heartbeats;
use crate::telemetry::log;
use inventory_core::time::Micros;

/// What the process ends with when a shard does not come back: "software error" of sysexits.h.
pub const EXIT_STALLED: i32 = 70;

/// How long a shard may stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchdogThresholds {
    /// SHARD_STALL_LIMIT: then the process is not ready.
    pub ready: Duration,
    /// SHARD_STALL_EXIT: then it ends; `None`: never.
    pub exit: Option<Duration>,
}

/// Ends the watchdog when dropped.
#[derive(Debug)]
pub struct Watchdog(Arc<AtomicBool>);

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts the watchdog's thread.
///
/// # Errors
/// When the operating system gives no thread.
pub(super) fn start(
    pulses: Heartbeats,
    readiness: Readiness,
    patience: WatchdogThresholds,
) -> std::io::Result<Watchdog> {
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || {
            let mut watch = StallDetector::new(pulses.shards(), patience);
            while !told.load(Ordering::Relaxed) {
                thread::sleep(limits::WATCHDOG_INTERVAL);
                for (shard, news) in watch.look(|shard| pulses.last_beat(shard)) {
                    report(&pulses, &readiness, shard, news);
                }
                if watch.none_stalled() {
                    readiness.set_healthy();
                }
            }
        })?;
    Ok(Watchdog(over))
}

/// What a look finds of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StallEvent {
    Stalled(Duration),
    Recovered,
    /// It has stood still for so long that the process is to end.
    Lost(Duration),
}

/// How long each shard has stood still, by looks. Pure.
struct StallDetector {
    patience: WatchdogThresholds,
    shards: Vec<ShardProgress>,
}

#[derive(Clone, Copy, Default)]
struct ShardProgress {
    ticked: Option<Micros>,
    looks: u32,
    stalled: bool,
}

impl StallDetector {
    fn new(shards: usize, patience: WatchdogThresholds) -> Self {
        Self {
            patience,
            shards: vec![ShardProgress::default(); shards],
        }
    }

    fn look(&mut self, ticked: impl Fn(usize) -> Option<Micros>) -> Vec<(usize, StallEvent)> {
        let WatchdogThresholds { ready, exit } = self.patience;
        let mut news = Vec::new();
        for (shard, seen) in self.shards.iter_mut().enumerate() {
            let now = ticked(shard);
            if now != seen.ticked {
                seen.ticked = now;
                seen.looks = 0;
                if std::mem::take(&mut seen.stalled) {
                    news.push((shard, StallEvent::Recovered));
                }
                continue;
            }
            if now.is_none() {
                // Not started.
                continue;
            }
            seen.looks = seen.looks.saturating_add(1);
            let still = limits::WATCHDOG_INTERVAL * seen.looks;
            if exit.is_some_and(|exit| still >= exit) {
                news.push((shard, StallEvent::Lost(still)));
            } else if still >= ready && !seen.stalled {
                seen.stalled = true;
                news.push((shard, StallEvent::Stalled(still)));
            }
        }
        news
    }

    fn none_stalled(&self) -> bool {
        self.shards.iter().all(|seen| !seen.stalled)
    }
}

fn report(pulses: &Heartbeats, readiness: &Readiness, shard: usize, news: StallEvent) {
    match news {
        StallEvent::Stalled(still) => {
            pulses.count_stall(shard);
            readiness.set_unhealthy(format!("shard {shard} stands still"));
            log_stall(pulses, shard, still, "a shard stands still: not ready");
        }
        StallEvent::Recovered => tracing::warn!(shard, "the shard turns again"),
        StallEvent::Lost(still) => {
            let what = "a shard does not come back: ending the process for a restart";
            log_stall(pulses, shard, still, what);
            log::close();
            // SAFETY: ends the process at once. What `exit` would run besides may wait for the shard.
            unsafe { libc::_exit(EXIT_STALLED) };
        }
    }
}

/// Says what is known of a shard that stands still.
fn log_stall(pulses: &Heartbeats, shard: usize, still: Duration, what: &str) {
    let thread = pulses
        .thread(shard)
        .map(ThreadState::read)
        .unwrap_or_default();
    tracing::error!(
        shard,
        still_ms = still.as_millis() as u64,
        began_last = pulses.activity(shard).as_str(),
        thread_state = thread.state,
        thread_waits_in = thread.waits_in,
        thread_cpu_ms = thread.cpu_ms,
        "{what}"
    );
}

/// What the kernel says of a thread.
#[derive(Debug, Default)]
struct ThreadState {
    /// R computes, S and D wait, t is held by a debugger.
    state: String,
    /// The kernel's function it waits in.
    waits_in: String,
    /// What it has computed since its start: of two lines the difference tells a loop from a wait.
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

    const LOOK: Duration = limits::WATCHDOG_INTERVAL;

    fn watch() -> StallDetector {
        StallDetector::new(
            2,
            WatchdogThresholds {
                ready: LOOK * 4,
                exit: Some(LOOK * 10),
            },
        )
    }

    #[test]
    fn a_shard_that_stands_still_is_told_once_and_again_when_it_turns() {
        let mut watch = watch();
        let mut told = Vec::new();
        for look in 0..9_u64 {
            // Shard 0 turns at every look; shard 1 has stopped, and turns again at the eighth.
            let ticked = |shard| match shard {
                0 => Some(Micros(look + 1)),
                _ if look < 8 => Some(Micros(1)),
                _ => Some(Micros(2)),
            };
            told.extend(watch.look(ticked).into_iter().map(|news| (look, news)));
            assert_eq!(watch.none_stalled(), !(4..8).contains(&look), "{look}");
        }
        let still = (4, (1, StallEvent::Stalled(LOOK * 4)));
        assert_eq!(told, [still, (8, (1, StallEvent::Recovered))]);
    }

    #[test]
    fn a_shard_that_does_not_come_back_is_lost() {
        let mut watch = watch();
        let looks = (0..=10).map(|_| watch.look(|_| Some(Micros(1))));
        let last = looks.last().unwrap_or_default();
        assert_eq!(last.first(), Some(&(0, StallEvent::Lost(LOOK * 10))));
    }

    #[test]
    fn a_shard_that_has_not_begun_does_not_stand_still() {
        let mut watch = watch();
        assert!((0..100).all(|_| watch.look(|_| None).is_empty()));
    }

    #[test]
    fn this_thread_computes() {
        // SAFETY: takes nothing and gives the caller's number.
        let thread = ThreadState::read(unsafe { libc::gettid() });
        assert_eq!(thread.state, "R");
    }
}
