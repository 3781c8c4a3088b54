//! Whether each shard still turns, and what it began last: written by the shard with plain stores,
//! read by the watchdog and the scrape.
//!
//! Must not live here: what follows from a shard that stands still (`server::watchdog`).

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};

use inventory_core::time::Micros;

/// What a shard has begun last. It may have ended since: a shard that waits has begun it last too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    Starting,
    /// A call of a client.
    Call,
    /// A decision of the domain, and what follows from it.
    Domain,
    /// What another shard sent.
    Inbox,
    /// Handing its figures over.
    Scrape,
    /// A task of the side thread: an admin call, an audit.
    Job,
    /// Stopping.
    Drain,
}

const ALL: [Activity; 7] = [
    Activity::Starting,
    Activity::Call,
    Activity::Domain,
    Activity::Inbox,
    Activity::Scrape,
    Activity::Job,
    Activity::Drain,
];

impl Activity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Call => "a call of a client",
            Self::Domain => "a decision of the domain",
            Self::Inbox => "a message of another shard",
            Self::Scrape => "handing over its figures",
            Self::Job => "a task of the side thread",
            Self::Drain => "stopping",
        }
    }
}

/// One shard's. Padded, so that no two shards write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Heartbeat {
    /// When it last turned; 0 before its first time.
    last_beat_us: AtomicU64,
    activity: AtomicU8,
    /// The kernel's number of its thread; 0 before it runs.
    thread: AtomicI32,
    stalls: AtomicU64,
}

/// All shards', shared by everybody.
#[derive(Clone, Debug)]
pub struct Heartbeats(Arc<[Heartbeat]>);

impl Heartbeats {
    pub fn new(shards: usize) -> Self {
        Self((0..shards).map(|_| Heartbeat::default()).collect())
    }

    pub fn shards(&self) -> usize {
        self.0.len()
    }

    /// The writing end of shard `shard`, which must exist. Call on the shard's thread.
    pub fn writer_for_current_thread(&self, shard: usize) -> HeartbeatWriter {
        // SAFETY: takes nothing and gives the caller's number.
        let thread = unsafe { libc::gettid() };
        self.0[shard].thread.store(thread, Ordering::Relaxed);
        HeartbeatWriter {
            heartbeats: self.clone(),
            shard,
        }
    }

    /// When the shard last turned; `None` before its first time.
    pub fn last_beat(&self, shard: usize) -> Option<Micros> {
        let at = self.0.get(shard)?.last_beat_us.load(Ordering::Acquire);
        (at > 0).then_some(Micros(at))
    }

    pub fn activity(&self, shard: usize) -> Activity {
        let doing = self
            .0
            .get(shard)
            .map_or(0, |pulse| pulse.activity.load(Ordering::Relaxed));
        ALL.get(usize::from(doing))
            .copied()
            .unwrap_or(Activity::Starting)
    }

    /// The kernel's number of the shard's thread, once it runs.
    pub fn thread(&self, shard: usize) -> Option<i32> {
        let thread = self.0.get(shard)?.thread.load(Ordering::Relaxed);
        (thread > 0).then_some(thread)
    }

    /// Counts that the shard stood still for too long.
    pub fn count_stall(&self, shard: usize) {
        if let Some(pulse) = self.0.get(shard) {
            pulse.stalls.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn stalls(&self, shard: usize) -> u64 {
        self.0
            .get(shard)
            .map_or(0, |pulse| pulse.stalls.load(Ordering::Relaxed))
    }
}

/// The writing end of one shard.
#[derive(Clone, Debug)]
pub struct HeartbeatWriter {
    heartbeats: Heartbeats,
    shard: usize,
}

impl HeartbeatWriter {
    /// The shard turns, at `now`.
    pub fn beat(&self, now: Micros) {
        self.heartbeats.0[self.shard]
            .last_beat_us
            .store(now.0.max(1), Ordering::Release);
    }

    /// The shard begins something. One plain store.
    pub fn set_activity(&self, doing: Activity) {
        self.heartbeats.0[self.shard]
            .activity
            .store(doing as u8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_activity_is_read_as_it_was_written() {
        let pulses = Heartbeats::new(2);
        let beat = pulses.writer_for_current_thread(1);
        for doing in ALL {
            beat.set_activity(doing);
            assert_eq!(pulses.activity(1), doing);
        }
        assert_eq!(pulses.activity(0), Activity::Starting);
        assert_eq!((pulses.thread(0), pulses.last_beat(1)), (None, None));
        beat.beat(Micros(0));
        assert_eq!(pulses.last_beat(1), Some(Micros(1)));
        assert!(pulses.thread(1).is_some());
    }
}
