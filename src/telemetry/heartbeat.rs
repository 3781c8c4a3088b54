//! Heartbeats of the shards' event loops and their last activity: written by the shards with plain stores, read by the
//! watchdog and by scrapes.
//!
//! Not here: the reaction to a stalled shard (`server::watchdog`).

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};

use inventory_core::time::Micros;

/// The activity that a shard started last. It may have ended since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Activity {
    Starting,
    /// A call of a client.
    Call,
    /// An input of the engine and its effects.
    Engine,
    /// A message of another shard.
    Inbox,
    /// A scrape.
    Scrape,
    /// A task of the control plane: an admin call or an audit.
    Job,
    /// Shutdown.
    Drain,
}

const ALL: [Activity; 7] = [
    Activity::Starting,
    Activity::Call,
    Activity::Engine,
    Activity::Inbox,
    Activity::Scrape,
    Activity::Job,
    Activity::Drain,
];

impl Activity {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Call => "call of a client",
            Self::Engine => "engine",
            Self::Inbox => "message of another shard",
            Self::Scrape => "scrape",
            Self::Job => "task of the control plane",
            Self::Drain => "shutdown",
        }
    }
}

/// The values of one shard, padded so that shards do not share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct HeartbeatSlot {
    /// Time of the last heartbeat; 0 before the first one.
    last_beat_us: AtomicU64,
    activity: AtomicU8,
    /// Kernel id of the shard thread; 0 before it runs.
    thread: AtomicI32,
    stalls: AtomicU64,
}

/// Heartbeats of all shards.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeats(Arc<[HeartbeatSlot]>);

impl Heartbeats {
    pub(crate) fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| HeartbeatSlot::default()).collect())
    }

    pub(crate) fn shards(&self) -> usize {
        self.0.len()
    }

    /// The writer for shard `shard`, which must exist. Call on the thread of the shard.
    pub(crate) fn writer_for_current_thread(&self, shard: usize) -> HeartbeatWriter {
        // SAFETY: gettid has no arguments and returns an integer.
        let thread = unsafe { libc::gettid() };
        self.0[shard].thread.store(thread, Ordering::Relaxed);
        HeartbeatWriter { heartbeats: self.clone(), shard }
    }

    /// Time of the last heartbeat; `None` before the first one.
    pub(crate) fn last_beat(&self, shard: usize) -> Option<Micros> {
        let at = self.0.get(shard)?.last_beat_us.load(Ordering::Acquire);
        (at > 0).then_some(Micros(at))
    }

    pub(crate) fn activity(&self, shard: usize) -> Activity {
        let activity = self.0.get(shard).map_or(0, |slot| slot.activity.load(Ordering::Relaxed));
        ALL.get(usize::from(activity)).copied().unwrap_or(Activity::Starting)
    }

    /// Kernel id of the shard thread; `None` before it runs.
    pub(crate) fn thread(&self, shard: usize) -> Option<i32> {
        let thread = self.0.get(shard)?.thread.load(Ordering::Relaxed);
        (thread > 0).then_some(thread)
    }

    /// Counts a stall of the shard.
    pub(crate) fn count_stall(&self, shard: usize) {
        if let Some(slot) = self.0.get(shard) {
            slot.stalls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Number of stalls of the shard.
    pub(crate) fn stalls(&self, shard: usize) -> u64 {
        self.0.get(shard).map_or(0, |slot| slot.stalls.load(Ordering::Relaxed))
    }
}

/// Writes the heartbeat of one shard.
#[derive(Clone, Debug)]
pub(crate) struct HeartbeatWriter {
    heartbeats: Heartbeats,
    shard: usize,
}

impl HeartbeatWriter {
    /// Records a heartbeat at `now`.
    pub(crate) fn beat(&self, now: Micros) {
        self.heartbeats.0[self.shard].last_beat_us.store(now.0.max(1), Ordering::Release);
    }

    /// Records the start of an activity. One plain store.
    pub(crate) fn set_activity(&self, activity: Activity) {
        self.heartbeats.0[self.shard].activity.store(activity as u8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activities_survive_the_round_trip() {
        let heartbeats = Heartbeats::new(2);
        let heartbeat = heartbeats.writer_for_current_thread(1);
        for activity in ALL {
            heartbeat.set_activity(activity);
            assert_eq!(heartbeats.activity(1), activity);
        }
        assert_eq!(heartbeats.activity(0), Activity::Starting);
        assert_eq!((heartbeats.thread(0), heartbeats.last_beat(1)), (None, None));
        heartbeat.beat(Micros(0));
        assert_eq!(heartbeats.last_beat(1), Some(Micros(1)));
        assert!(heartbeats.thread(1).is_some());
    }
}
