//! TLS handshakes of one shard: bounded in time, in number and in CPU time, so that a flood of them, or clients that
//! never finish one, do not keep established connections from being served.
//!
//! Not here: certificates (`crate::tls`), the handshake itself (`inventory_tls::stream`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use inventory_core::time::Micros;
use inventory_runtime::timer_queue::TimerHandle;
use inventory_runtime::{TcpStream, clock};
use inventory_tls::rustls::ServerConfig;
use inventory_tls::stream::{self, HandshakePacer, TlsStream};
use tokio::sync::{Semaphore, watch};

use crate::limits;
use crate::telemetry::log_interval::LogInterval;
use crate::telemetry::recorder::Recorder;

/// Labels of handshakes that end without a failure of TLS.
const COMPLETE: &str = "ok";
const TIMED_OUT: &str = "timeout";
const EVICTED: &str = "evicted";
const TOO_MANY: &str = "too_many";
/// The connection was dropped: evicted for another connection, or the shard ended.
const DROPPED: &str = "dropped";

/// The handshakes of one shard.
pub(super) struct ShardTls {
    config: watch::Receiver<Arc<ServerConfig>>,
    recorder: Rc<Recorder>,
    pending: Rc<PendingHandshakes>,
    pace: HandshakePace,
    failures: LogInterval,
}

impl ShardTls {
    pub(super) fn new(config: watch::Receiver<Arc<ServerConfig>>, recorder: Rc<Recorder>) -> Self {
        Self {
            config,
            recorder,
            pending: Rc::default(),
            pace: HandshakePace::default(),
            failures: LogInterval::default(),
        }
    }

    /// Completes the handshake of an accepted socket; `None` if it failed, which is counted and logged.
    pub(super) async fn accept(&self, socket: TcpStream) -> Option<TlsStream<TcpStream>> {
        let mut report = HandshakeReport { recorder: &self.recorder, result: DROPPED };
        let peer = socket.peer_addr().ok();
        let deadline = clock::monotonic().plus(span(limits::TLS_HANDSHAKE_TIMEOUT));
        let Some(place) = self.pending.enter() else {
            report.result = TOO_MANY;
            self.log(peer, TOO_MANY, &"too many unfinished handshakes");
            return None;
        };
        let config = Arc::clone(&self.config.borrow());
        let pacer = PlacePacer { place: &place, pace: &self.pace };
        let work = stream::accept(socket, config, &pacer);
        let ended = until_deadline_or_eviction(work, deadline, &place).await;
        let failed = match ended {
            Ok(Ok(stream)) => {
                report.result = COMPLETE;
                return Some(stream);
            }
            Ok(Err(failed)) => failed,
            Err(result) => {
                report.result = result;
                self.log(peer, result, &"the handshake did not complete");
                return None;
            }
        };
        report.result = failed.failure.label();
        self.log(peer, failed.failure.label(), &failed.failure);
        // The place is free; the socket stays open for a moment, so that the client reads the alert.
        drop(place);
        drop(report);
        let until = clock::monotonic().plus(span(limits::LINGER_MAX));
        within(failed.linger(), until).await;
        None
    }

    fn log(&self, peer: Option<std::net::SocketAddr>, reason: &str, error: &dyn std::fmt::Display) {
        if let Some(suppressed) = self.failures.due() {
            let peer = peer.map(tracing::field::display);
            tracing::warn!(peer, reason, error = %error, suppressed, "TLS handshake failed");
        }
    }
}

fn span(duration: std::time::Duration) -> Micros {
    Micros(duration.as_micros() as u64)
}

/// Counts a handshake by its result, also if its future is dropped.
struct HandshakeReport<'a> {
    recorder: &'a Recorder,
    result: &'static str,
}

impl Drop for HandshakeReport<'_> {
    fn drop(&mut self) {
        self.recorder.handshake(self.result);
    }
}

/// `work`, or the reason why it was ended.
async fn until_deadline_or_eviction<T>(
    work: impl Future<Output = T>,
    deadline: Micros,
    place: &HandshakePlace,
) -> Result<T, &'static str> {
    let mut work = pin!(work);
    let mut timer = TimerHandle::default();
    poll_fn(|cx| {
        if place.state.is_evicted.get() {
            return Poll::Ready(Err(EVICTED));
        }
        if let Poll::Ready(result) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(result));
        }
        let now = clock::monotonic();
        if now >= deadline {
            return Poll::Ready(Err(TIMED_OUT));
        }
        timer.wake_at(now, deadline, cx.waker());
        place.state.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    })
    .await
}

/// Waits for `work`, at most until `until`.
async fn within(work: impl Future<Output = ()>, until: Micros) {
    let mut work = pin!(work);
    let mut timer = TimerHandle::default();
    poll_fn(|cx| {
        let now = clock::monotonic();
        if work.as_mut().poll(cx).is_ready() || now >= until {
            return Poll::Ready(());
        }
        timer.wake_at(now, until, cx.waker());
        Poll::Pending
    })
    .await;
}

/// The unfinished handshakes, by the order of their arrival.
#[derive(Default)]
struct PendingHandshakes {
    next: Cell<u64>,
    places: RefCell<BTreeMap<u64, Rc<PlaceState>>>,
}

#[derive(Default)]
struct PlaceState {
    waits_for_client: Cell<bool>,
    is_evicted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl PendingHandshakes {
    /// A place; `None` if all are taken by handshakes that do not wait for their clients.
    fn enter(self: &Rc<Self>) -> Option<HandshakePlace> {
        let mut places = self.places.borrow_mut();
        if places.len() >= limits::TLS_HANDSHAKES_PER_SHARD_MAX {
            let oldest = places.iter().find(|(_, state)| state.waits_for_client.get());
            let oldest = oldest.map(|(number, _)| *number)?;
            let state = places.remove(&oldest)?;
            state.is_evicted.set(true);
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
        let number = self.next.get();
        self.next.set(number + 1);
        let state = Rc::new(PlaceState::default());
        places.insert(number, Rc::clone(&state));
        Some(HandshakePlace { number, state, pending: Rc::clone(self) })
    }
}

/// The place of one handshake; dropped, it is free.
struct HandshakePlace {
    number: u64,
    state: Rc<PlaceState>,
    pending: Rc<PendingHandshakes>,
}

impl Drop for HandshakePlace {
    fn drop(&mut self) {
        self.pending.places.borrow_mut().remove(&self.number);
    }
}

/// Lets one handshake compute at a time, in the order of arrival, and all of them at most half of the time.
struct HandshakePace {
    turns: Semaphore,
    /// CPU time since the last pause.
    used: Cell<Micros>,
    /// End of the pause.
    resumes_at: Cell<Micros>,
}

impl Default for HandshakePace {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(1),
            used: Cell::new(Micros(0)),
            resumes_at: Cell::new(Micros(0)),
        }
    }
}

impl HandshakePace {
    /// Waits for the turn of the caller, and for the end of a pause. Dropping the future gives the turn back.
    async fn run<R>(&self, step: impl FnOnce() -> R) -> R {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let resumes_at = self.resumes_at.get();
        if clock::monotonic() < resumes_at {
            within(std::future::pending(), resumes_at).await;
        }
        let start = clock::monotonic();
        let result = step();
        let end = clock::monotonic();
        let used = Micros(self.used.get().0 + end.since(start).0);
        let is_slice_used = used >= span(limits::TLS_HANDSHAKE_SLICE);
        if is_slice_used {
            self.resumes_at.set(end.plus(used));
        }
        self.used.set(if is_slice_used { Micros(0) } else { used });
        result
    }
}

struct PlacePacer<'a> {
    place: &'a HandshakePlace,
    pace: &'a HandshakePace,
}

impl HandshakePacer for PlacePacer<'_> {
    async fn run<R>(&self, step: impl FnOnce() -> R) -> R {
        self.pace.run(step).await
    }

    fn set_waiting(&self, is_waiting: bool) {
        self.place.state.waits_for_client.set(is_waiting);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_handshake_that_waits_longest_for_its_client_gives_way() {
        let pending: Rc<PendingHandshakes> = Rc::default();
        let places: Vec<HandshakePlace> =
            (0..limits::TLS_HANDSHAKES_PER_SHARD_MAX).map(|_| pending.enter().unwrap()).collect();
        assert!(pending.enter().is_none(), "no handshake waits for its client");
        places[7].state.waits_for_client.set(true);
        places[3].state.waits_for_client.set(true);
        let newest = pending.enter().unwrap();
        assert!(places[3].state.is_evicted.get() && !places[7].state.is_evicted.get());
        drop(places);
        assert_eq!(pending.places.borrow().len(), 1);
        drop(newest);
        assert_eq!(pending.places.borrow().len(), 0);
    }

    #[test]
    fn handshakes_pause_for_as_long_as_they_have_computed() {
        let pace = HandshakePace::default();
        let computing = limits::TLS_HANDSHAKE_SLICE + Duration::from_millis(3);
        let elapsed = inventory_runtime::run_unpinned(async {
            let start = Instant::now();
            for _ in 0..3 {
                pace.run(|| std::thread::sleep(computing)).await;
            }
            start.elapsed()
        });
        // Three steps and the two pauses between them.
        assert!(elapsed.unwrap() >= computing * 5);
    }

    #[test]
    fn a_handshake_ends_at_its_deadline_and_when_it_is_evicted() {
        let pending: Rc<PendingHandshakes> = Rc::default();
        let place = pending.enter().unwrap();
        let run = |deadline| {
            let never = std::future::pending::<()>();
            inventory_runtime::run_unpinned(until_deadline_or_eviction(never, deadline, &place))
        };
        assert_eq!(run(clock::monotonic()).unwrap(), Err(TIMED_OUT));
        place.state.is_evicted.set(true);
        assert_eq!(run(Micros(u64::MAX)).unwrap(), Err(EVICTED));
    }
}
