//! Serves one connection to the peer of an input and checks how it ends.

use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use arbitrary::Unstructured;
use tokio::sync::watch;

use super::answers::{CountingObserver, ObedientService, ServedCalls};
use super::frames;
use super::peer::{Peer, PeerStream};
use crate::{
    ConnectionEnd, Drain, GrpcContext, GrpcSettings, HealthState, InventoryServer, limits,
};

/// Streams of a connection: few, so that inputs reach the limit.
const STREAMS_MAX: u32 = 8;

/// Polls of a connection, besides those for its input and its answers: a few for the handshake and the end.
const POLLS_MAX: usize = 256;

/// Polls for one byte of the input. The peer sends single bytes and lets every second read wait.
const POLLS_PER_BYTE_MAX: usize = 4;

/// Bytes that a connection sends besides answers: SETTINGS, GOAWAY, WINDOW_UPDATE of the connection.
const OUTPUT_BYTES_MAX: usize = 1024;

/// Bytes that a connection sends for one byte of its input. A request whose headers the table of the connection has is a
/// frame of 9 bytes and one byte per header, about 16 in all; the error that it gets has a message and details of a few
/// hundred bytes.
const OUTPUT_PER_BYTE_MAX: usize = 48;

/// Head of a frame.
const FRAME_HEAD_BYTES: usize = 9;

/// Inputs to the thread of the executor, and what came of each.
type ShardChannels = (SyncSender<Vec<u8>>, Receiver<std::thread::Result<()>>);

/// The connection must end when its peer has gone, without a panic; it must have ended each call exactly once, have sent
/// whole frames, and not more than a multiple of what it has received; and never run more handlers than it has streams.
pub fn connection(input: &[u8]) {
    static SHARD: OnceLock<Mutex<ShardChannels>> = OnceLock::new();
    // One executor for all inputs: a ring costs more than a connection.
    let shard = SHARD.get_or_init(|| {
        let (inputs, inbox) = sync_channel::<Vec<u8>>(0);
        let (outcome, outcomes) = sync_channel(0);
        std::thread::spawn(move || {
            let served = inventory_runtime::run_unpinned(async move {
                for input in inbox {
                    let done = std::panic::catch_unwind(|| serve(&input));
                    if outcome.send(done).is_err() {
                        break;
                    }
                }
            });
            assert!(served.is_ok(), "no executor: {served:?}");
        });
        Mutex::new((inputs, outcomes))
    });
    let (inputs, outcomes) = &*shard.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(inputs.send(input.to_vec()).is_ok(), "the executor has ended");
    match outcomes.recv() {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => panic!("the executor has ended: {error}"),
    }
}

/// What happens when the connection has nothing left to do.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Disconnect,
    Drain,
    Abort,
    Evict,
}

/// Counts the polls of a connection, which must not exceed a limit.
struct PolledConnection<F> {
    future: F,
    woken: Arc<WakeFlag>,
    polls_left: usize,
}

#[derive(Default)]
struct WakeFlag(AtomicBool);

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<F: Future> PolledConnection<Pin<&mut F>> {
    /// Polls until the connection waits for something from outside, or has ended.
    fn run(&mut self) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(&self.woken));
        loop {
            self.woken.0.store(false, Ordering::SeqCst);
            let Some(left) = self.polls_left.checked_sub(1) else {
                panic!("the connection is polled again and again");
            };
            self.polls_left = left;
            let end = self.future.as_mut().poll(&mut Context::from_waker(&waker));
            if end.is_ready() || !self.woken.0.load(Ordering::SeqCst) {
                return end;
            }
        }
    }
}

fn serve(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let endings = [Ending::Disconnect, Ending::Drain, Ending::Abort, Ending::Evict];
    let ending = input.choose(&endings).copied().unwrap_or(Ending::Disconnect);
    let peer = Peer::new(&mut input, frames::client_bytes);
    let calls = Rc::new(ServedCalls::default());
    let (_health, state) = watch::channel(HealthState::Serving);
    let settings = GrpcSettings { streams_per_connection: STREAMS_MAX, ..GrpcSettings::default() };
    let drain = Drain::new();
    let context = Rc::new(GrpcContext::new(
        settings,
        Rc::clone(&drain),
        Rc::new(CountingObserver(Rc::clone(&calls))),
        None,
        Some(state),
    ));
    let service = Rc::new(InventoryServer::new(ObedientService(Rc::clone(&calls))));
    let mut serving = pin!(crate::serve_connection(PeerStream(Rc::clone(&peer)), service, context));
    let mut connection = PolledConnection {
        future: serving.as_mut(),
        woken: Arc::default(),
        polls_left: POLLS_MAX + POLLS_PER_BYTE_MAX * peer.bytes_max(),
    };
    let mut end = connection.run();
    if end.is_pending() {
        match ending {
            Ending::Disconnect => {}
            Ending::Drain => drain.start(),
            Ending::Abort => drain.abort(),
            Ending::Evict => drop(drain.evict_idlest()),
        }
        end = connection.run();
    }
    if end.is_pending() {
        peer.disconnect();
        end = connection.run();
    }
    let Poll::Ready(end) = end else {
        panic!("the connection outlives its peer");
    };
    assert_ne!(end, ConnectionEnd::Panicked);
    assert_eq!(drain.connections(), 0, "a connection that ended is registered");
    check(&peer, &calls, end);
}

fn check(peer: &Peer, calls: &ServedCalls, end: ConnectionEnd) {
    calls.assert_complete();
    assert!(calls.running_max() <= STREAMS_MAX, "{} handlers at once", calls.running_max());
    let received = peer.received();
    let most = OUTPUT_BYTES_MAX + OUTPUT_PER_BYTE_MAX * peer.bytes_max() + 2 * calls.answer_bytes();
    assert!(received.len() <= most, "{} bytes for {}", received.len(), peer.bytes_max());
    // A peer of another protocol gets a text, and nothing else: all of it, or what the peer has read.
    if let ConnectionEnd::WrongProtocol(protocol) = end
        && protocol.answer().is_some_and(|answer| answer.starts_with(&received[..]))
    {
        return;
    }
    let mut rest = &received[..];
    while let Some((head, body)) = rest.split_at_checked(FRAME_HEAD_BYTES) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        assert!(length <= limits::FRAME_BYTES_MAX, "a frame of {length} bytes");
        // The last frame may be cut off by a peer that does not read.
        rest = body.get(length as usize..).unwrap_or_default();
    }
}
