//! What the connections of one shard share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderMap;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::call_trace::CallTrace;
use super::connection::ConnectionEnd;
use super::drain::Drain;
use super::status::Code;
use super::tonic_bridge::TonicBridge;
use crate::limits;
use inventory_core::time::Micros;

/// What an operator may set; the defaults are in [`limits`].
#[derive(Clone, Debug)]
pub struct GrpcSettings {
    /// Deadline of a call without `grpc-timeout`.
    pub call_timeout: Duration,
    /// Streams of one connection at a time.
    pub streams_per_connection: u32,
    /// Silence after which the peer is pinged; `None` never pings.
    pub keep_alive_period: Option<Duration>,
    /// How long the peer may stay silent after that.
    pub keep_alive_timeout: Duration,
    /// Age at which a connection is asked to leave, jittered by a tenth; `None` lets it stay.
    pub connection_age: Option<Duration>,
    /// What it has left for its calls then.
    pub connection_age_grace: Duration,
    /// From accept to the end of the HTTP/2 preface.
    pub handshake_timeout: Duration,
}

impl Default for GrpcSettings {
    fn default() -> Self {
        Self {
            call_timeout: limits::CALL_TIMEOUT_DEFAULT,
            streams_per_connection: limits::STREAMS_PER_CONNECTION_DEFAULT,
            keep_alive_period: Some(limits::KEEP_ALIVE_PERIOD_DEFAULT),
            keep_alive_timeout: limits::KEEP_ALIVE_TIMEOUT,
            connection_age: Some(limits::CONNECTION_AGE_DEFAULT),
            connection_age_grace: limits::CONNECTION_AGE_GRACE,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
        }
    }
}

/// Is told what the wire does. Called on the hot path: counts, and does nothing that waits or
/// allocates.
///
/// `method` is `/package.Service/Method` of a hot contract, the service alone (`package.Service`)
/// for a cold call, and [`UNKNOWN_METHOD`] for what was refused before it had one.
pub trait CallObserver {
    fn call_started(&self, method: &'static str);

    /// Follows every start exactly once. `latency` is from reading the headers to handing the
    /// answer to HTTP/2; a call whose caller left ends with [`Code::Cancelled`].
    fn call_finished(&self, method: &'static str, code: Code, latency: Micros);

    /// Whether more is to be told of a call that has just arrived on a hot contract; asked after its
    /// `call_started`'s headers were read and before its handler runs.
    fn trace_call(&self, _method: &'static str, _headers: &HeaderMap) -> Option<Rc<CallTrace>> {
        None
    }

    /// Follows the `call_finished` of a call that was wanted.
    fn call_traced(&self, _method: &'static str, _code: Code, _latency: Micros, _note: &CallTrace) {
    }

    fn connection_opened(&self) {}

    fn connection_closed(&self, ended: ConnectionEnd) {
        let _ = ended;
    }
}

/// The method that observers see for a request which never reached one.
pub const UNKNOWN_METHOD: &str = "unknown";

/// Observes nothing.
pub struct NoopObserver;

impl CallObserver for NoopObserver {
    fn call_started(&self, _: &'static str) {}
    fn call_finished(&self, _: &'static str, _: Code, _: Micros) {}
}

/// Counters of one shard's wire.
#[derive(Debug, Default)]
pub struct GrpcStats {
    writes: Cell<u64>,
    bytes_written: Cell<u64>,
    polls: Cell<u64>,
}

impl GrpcStats {
    /// Writes that sockets took.
    pub fn writes(&self) -> u64 {
        self.writes.get()
    }

    pub fn bytes_written(&self) -> u64 {
        self.bytes_written.get()
    }

    /// Times that a connection's task ran.
    pub fn turns(&self) -> u64 {
        self.polls.get()
    }

    pub(super) fn count_write(&self, bytes: usize) {
        self.writes.set(self.writes.get() + 1);
        self.bytes_written
            .set(self.bytes_written.get() + bytes as u64);
    }

    pub(super) fn count_poll(&self) {
        self.polls.set(self.polls.get() + 1);
    }
}

/// One per shard, shared by its connections.
pub struct GrpcContext {
    pub settings: GrpcSettings,
    pub drain: Rc<Drain>,
    pub observer: Rc<dyn CallObserver>,
    pub stats: GrpcStats,
    /// Where calls on the cold services go; without it their paths are unknown.
    pub bridge: Option<TonicBridge>,
    /// Replies are encoded here and split off.
    pub(super) response_buffer: RefCell<BytesMut>,
    /// Empty write buffers: a connection holds one only while it has something to send.
    write_buffers: RefCell<Vec<Vec<u8>>>,
    jitter: RefCell<SmallRng>,
}

impl GrpcContext {
    pub fn new(
        settings: GrpcSettings,
        drain: Rc<Drain>,
        observer: Rc<dyn CallObserver>,
        cold: Option<TonicBridge>,
    ) -> Self {
        Self {
            settings,
            drain,
            observer,
            stats: GrpcStats::default(),
            bridge: cold,
            response_buffer: RefCell::default(),
            write_buffers: RefCell::default(),
            jitter: RefCell::new(SmallRng::from_os_rng()),
        }
    }

    /// The age that one connection may reach, drawn anew for each so that connections which came
    /// together do not leave together.
    pub(super) fn random_connection_age(&self) -> Option<Micros> {
        let age = micros(self.settings.connection_age?).0;
        let tenth = age / 10;
        let drawn = self
            .jitter
            .borrow_mut()
            .random_range(age - tenth..=age + tenth);
        Some(Micros(drawn))
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
        let settings = GrpcSettings::default();
        Self::new(settings, Drain::new(), Rc::new(NoopObserver), None)
    }
}

/// A span as the clock counts it, rounded up: a deadline is never early.
pub(super) fn micros(span: Duration) -> Micros {
    let rounded = span.as_nanos().div_ceil(1_000);
    Micros(u64::try_from(rounded).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn ages_are_drawn_from_a_tenth_around_the_setting() {
        let mut context = GrpcContext::for_tests();
        context.settings.connection_age = Some(Duration::from_secs(100));
        let drawn: Vec<u64> = (0..500)
            .map(|_| context.random_connection_age().unwrap().0)
            .collect();
        let (least, most) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
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
        assert!(
            buffers
                .iter()
                .all(|buffer| buffer.capacity() <= limits::WRITE_BUFFER_BYTES_KEPT)
        );
    }

    #[test]
    fn a_span_is_rounded_up() {
        assert_eq!(micros(Duration::from_nanos(1)), Micros(1));
        assert_eq!(micros(Duration::from_micros(7)), Micros(7));
    }
}
