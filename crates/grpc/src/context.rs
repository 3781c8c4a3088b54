//! What the connections of one shard share: settings, hooks, counters and reusable buffers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::BytesMut;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use super::connection_turns::ConnectionTurns;
use super::drain::Drain;
use super::health::{HealthState, WatchCount};
use super::observer::CallObserver;
use super::settings::{GrpcSettings, micros};
use super::tonic_bridge::TonicBridge;
use crate::limits;
use inventory_core::time::Micros;

/// Counters of one shard's connections.
#[derive(Debug, Default)]
pub struct GrpcStats {
    writes: Cell<u64>,
    polls: Cell<u64>,
}

impl GrpcStats {
    /// Writes that sockets accepted.
    pub fn writes(&self) -> u64 {
        self.writes.get()
    }

    /// Polls of connection tasks.
    pub fn polls(&self) -> u64 {
        self.polls.get()
    }

    pub(super) fn count_write(&self) {
        self.writes.set(self.writes.get() + 1);
    }

    pub(super) fn count_poll(&self) {
        self.polls.set(self.polls.get() + 1);
    }
}

/// One per shard, shared by its connections.
pub struct GrpcContext {
    pub drain: Rc<Drain>,
    pub stats: GrpcStats,
    pub(super) settings: GrpcSettings,
    pub(super) observer: Rc<dyn CallObserver>,
    /// The way to reflection; without a bridge its paths are unknown.
    pub(super) bridge: Option<TonicBridge>,
    /// What health checks report; without it their paths are unknown.
    pub(super) health: Option<watch::Receiver<HealthState>>,
    pub(super) health_watches: WatchCount,
    pub(super) connection_turns: Rc<ConnectionTurns>,
    /// Responses are encoded into this buffer and split off.
    pub(super) response_buffer: RefCell<BytesMut>,
    /// Empty write buffers: a connection holds one only while it has bytes to send.
    write_buffers: RefCell<Vec<Vec<u8>>>,
    jitter: RefCell<SmallRng>,
}

impl GrpcContext {
    pub fn new(
        settings: GrpcSettings,
        drain: Rc<Drain>,
        observer: Rc<dyn CallObserver>,
        bridge: Option<TonicBridge>,
        health: Option<watch::Receiver<HealthState>>,
    ) -> Self {
        Self {
            drain,
            stats: GrpcStats::default(),
            settings,
            observer,
            bridge,
            health,
            health_watches: WatchCount::default(),
            connection_turns: Rc::default(),
            response_buffer: RefCell::default(),
            write_buffers: RefCell::default(),
            jitter: RefCell::new(SmallRng::from_os_rng()),
        }
    }

    /// The maximum age of one connection, drawn anew for each so that connections which were opened
    /// together do not close together.
    pub(super) fn random_connection_age(&self) -> Option<Micros> {
        let age = micros(self.settings.connection_age?).0;
        let tenth = age / 10;
        let random = self.jitter.borrow_mut().random_range(age - tenth..=age + tenth);
        Some(Micros(random))
    }

    pub(super) fn take_write_buffer(&self) -> Vec<u8> {
        let spare = self.write_buffers.borrow_mut().pop();
        spare.unwrap_or_else(|| Vec::with_capacity(limits::WRITE_BUFFER_BYTES_KEPT))
    }

    pub(super) fn recycle_write_buffer(&self, mut buffer: Vec<u8>) {
        let mut buffers = self.write_buffers.borrow_mut();
        if buffer.capacity() > 0 && buffers.len() < limits::WRITE_BUFFERS_SPARE_MAX {
            buffer.clear();
            buffer.shrink_to(limits::WRITE_BUFFER_BYTES_KEPT);
            buffers.push(buffer);
        }
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        struct NoopObserver;

        impl CallObserver for NoopObserver {
            fn call_started(&self, _: &'static str) {}
            fn call_finished(&self, _: &'static str, _: super::Code, _: Micros) {}
        }

        let settings = GrpcSettings::default();
        Self::new(settings, Drain::new(), Rc::new(NoopObserver), None, None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    #[test]
    fn connection_ages_are_within_a_tenth_of_the_setting() {
        let mut context = GrpcContext::for_tests();
        context.settings.connection_age = Some(Duration::from_secs(100));
        let ages: Vec<u64> = (0..500).map(|_| context.random_connection_age().unwrap().0).collect();
        let (least, most) = (ages.iter().min().unwrap(), ages.iter().max().unwrap());
        assert!(*least >= 90_000_000 && *least < 93_000_000, "{least}");
        assert!(*most <= 110_000_000 && *most > 107_000_000, "{most}");
        context.settings.connection_age = None;
        assert!(context.random_connection_age().is_none());
    }

    #[test]
    fn spare_buffers_are_few_and_small() {
        let context = GrpcContext::for_tests();
        for _ in 0..2 * limits::WRITE_BUFFERS_SPARE_MAX {
            context.recycle_write_buffer(Vec::with_capacity(limits::WRITE_BUFFER_BYTES_MAX));
        }
        let buffers = context.write_buffers.borrow();
        assert_eq!(buffers.len(), limits::WRITE_BUFFERS_SPARE_MAX);
        assert!(buffers.iter().all(|buffer| buffer.capacity() <= limits::WRITE_BUFFER_BYTES_KEPT));
    }
}
