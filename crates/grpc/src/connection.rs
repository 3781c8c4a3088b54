//! One connection of a shard: HTTP/2 by `h2`, its calls, its alarms, in one task.
//!
//! The task runs in turns. A turn reads what the socket has, starts the calls in it, advances those
//! that were woken, and repeats until nothing moves; then it writes once. So all answers that can be
//! given in a turn leave in one `send` (see `cork` for what that is worth), and no call is
//! a task of its own: when the connection ends, its handlers end with it.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite};
use h2::server::{Handshake, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::Request;
use http::request::Parts;

use super::admission::{self, Refusal};
use super::call::Call;
use super::calls::{CallHead, Calls, deadline_exceeded};
use super::cold::pipe::ColdPipes;
use super::context::{UNKNOWN_METHOD, WireContext, WireSettings, micros};
use super::cork::{Cork, Corked};
use super::drain::Registered;
use super::life::{Act, Life};
use super::respond;
use super::service::HotService;
use super::status::Status;
use super::turn::TurnWaker;
use crate::limits;
use inventory_core::time::Micros;
use inventory_runtime::alarm::Alarm;
use inventory_runtime::clock;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed it in order.
    Closed,
    /// The socket failed, most often because the peer is gone.
    Lost(io::ErrorKind),
    /// The peer broke the protocol, or flooded the connection; it was told by a GOAWAY.
    Protocol(Reason),
    /// The HTTP/2 preface did not come in time.
    HandshakeTimeout,
    /// The peer was silent and did not answer a ping.
    KeepAliveTimeout,
    /// It reached its age and left when its calls had ended.
    Aged,
    /// It reached its age, and its calls did not end within the grace.
    AgeGraceOver,
    /// The server is stopping; the calls had ended.
    Drained,
    /// The server is stopping and its grace is over, or the shard dropped the connection.
    Aborted,
    /// A defect in this layer; the shard lives on.
    Panicked,
}

impl Ended {
    /// Whether this side ended the connection in words that the peer should get to read.
    fn lingers(self) -> bool {
        matches!(self, Self::Aged | Self::Drained | Self::Protocol(_))
    }
}

enum Http<T> {
    Handshaking(Handshake<Corked<T>, Bytes>),
    Open(h2::server::Connection<Corked<T>, Bytes>),
}

pub(super) struct Connection<T, S, M, F> {
    // The order of the fields is the order of their end: calls before the streams they answer.
    calls: Calls<F>,
    cold: ColdPipes,
    ping: Option<PingPong>,
    ping_outstanding: bool,
    http: Http<T>,
    cork: Rc<RefCell<Cork<T>>>,
    start: M,
    life: Life,
    alarm: Alarm,
    waker: Option<(Arc<TurnWaker>, Waker)>,
    registered: Registered,
    context: Rc<WireContext>,
    service: std::marker::PhantomData<S>,
}

impl<T, S, M, F> Connection<T, S, M, F>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: HotService,
    M: Fn(S::Method, Call, RecvStream) -> F,
    F: Future<Output = Result<Bytes, Status>>,
{
    pub(super) fn new(
        stream: T,
        context: Rc<WireContext>,
        registered: Registered,
        start: M,
    ) -> Self {
        let cork = Cork::new(stream, Rc::clone(&context));
        let handshake = http2(&context.settings).handshake(Corked::new(&cork));
        let age = context.draw_connection_age();
        Self {
            calls: Calls::new(),
            cold: ColdPipes::new(),
            ping: None,
            ping_outstanding: false,
            http: Http::Handshaking(handshake),
            cork,
            start,
            life: Life::new(&context.settings, age, clock::monotonic()),
            alarm: Alarm::default(),
            waker: None,
            registered,
            context,
            service: std::marker::PhantomData,
        }
    }

    /// One turn of the connection's task.
    pub(super) fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.context.stats.turned();
        let now = clock::monotonic();
        let (turn, waker) = self.wakers(cx.waker());
        self.cork.borrow_mut().begin_turn(cx.waker());
        let ended = self.rounds(now, &turn, &mut Context::from_waker(&waker));
        let flushed = self.cork.borrow_mut().flush();
        if let Some(ended) = ended {
            return Poll::Ready(ended);
        }
        if let Err(error) = flushed {
            return Poll::Ready(Ended::Lost(error.kind()));
        }
        let next = [self.life.next(), self.calls.earliest_deadline()];
        if let Some(at) = next.into_iter().flatten().min() {
            self.alarm.set(now, at, cx.waker());
        }
        if self.cork.borrow().allowance_spent() {
            cx.waker().wake_by_ref();
        }
        turn.rest();
        Poll::Pending
    }

    /// After the end: closing a socket that has something unread resets it, and a reset takes from
    /// the peer what it has not read yet, answers and GOAWAY included. So this side, which has said
    /// its last word, reads on until the peer has.
    pub(super) fn poll_linger(&mut self, ended: Ended, cx: &mut Context<'_>) -> Poll<()> {
        if ended.lingers() {
            self.cork.borrow_mut().poll_discard(cx)
        } else {
            Poll::Ready(())
        }
    }

    /// The wakers of this turn: made once, unless the future has moved to another task.
    fn wakers(&mut self, task: &Waker) -> (Arc<TurnWaker>, Waker) {
        match &self.waker {
            Some((turn, waker)) if turn.task().will_wake(task) => (Arc::clone(turn), waker.clone()),
            _ => {
                let turn = TurnWaker::new(task);
                let waker = Waker::from(Arc::clone(&turn));
                self.registered.wake_with(task);
                self.waker = Some((Arc::clone(&turn), waker.clone()));
                (turn, waker)
            }
        }
    }

    /// HTTP/2, the calls and the clockwork, until none of them wants another look.
    fn rounds(&mut self, now: Micros, turn: &TurnWaker, cx: &mut Context<'_>) -> Option<Ended> {
        for _ in 0..limits::ROUNDS_PER_TURN_MAX {
            turn.begin_round();
            if let Some(ended) = self.poll_http(now, turn, cx) {
                return Some(ended);
            }
            self.calls.poll(cx);
            self.cold.poll(cx);
            if self.cork.borrow_mut().take_heard() {
                self.life.heard(now);
            }
            if let Some(ended) = self.act(now, cx) {
                return Some(ended);
            }
            if !turn.disturbed() {
                break;
            }
        }
        None
    }

    /// Takes every request that is there. Each look at HTTP/2 also encodes what was answered so far.
    fn poll_http(&mut self, now: Micros, turn: &TurnWaker, cx: &mut Context<'_>) -> Option<Ended> {
        if let Http::Handshaking(handshake) = &mut self.http {
            match Pin::new(handshake).poll(cx) {
                Poll::Pending => return None,
                Poll::Ready(Err(error)) => return Some(failed(&error)),
                Poll::Ready(Ok(mut open)) => {
                    self.ping = open.ping_pong();
                    self.life.opened(now);
                    self.http = Http::Open(open);
                }
            }
        }
        if self.ping_outstanding
            && let Some(ping) = &mut self.ping
            && ping.poll_pong(cx).is_ready()
        {
            self.ping_outstanding = false;
        }
        loop {
            // What woke before this line is served by it or by the polls that follow.
            turn.begin_round();
            let Http::Open(open) = &mut self.http else {
                return None;
            };
            match open.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.take(request, respond, now, cx);
                }
                Poll::Ready(Some(Err(error))) => return Some(failed(&error)),
                Poll::Ready(None) => return Some(self.life.orderly_end()),
                Poll::Pending => return None,
            }
        }
    }

    fn take(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        now: Micros,
        cx: &mut Context<'_>,
    ) {
        let (head, body) = request.into_parts();
        let mut method_name = UNKNOWN_METHOD;
        let refusal = match self.admit(&head, &mut method_name) {
            Ok(Admitted::Hot { method, timeout }) => {
                let note = self.context.observer.wants(method_name, &head.headers);
                let call = CallHead {
                    respond,
                    method: method_name,
                    arrived: now,
                    deadline: now.plus(timeout),
                    context: Rc::clone(&self.context),
                    note: note.clone(),
                };
                let circumstances = Call {
                    arrived: now,
                    deadline: call.deadline,
                    headers: head.headers,
                    note,
                };
                let future = (self.start)(method, circumstances, body);
                self.calls.start(call, future, cx);
                return;
            }
            Ok(Admitted::Cold { timeout }) => {
                let call = CallHead {
                    respond,
                    method: method_name,
                    arrived: now,
                    deadline: timeout.map_or(Micros(u64::MAX), |span| now.plus(span)),
                    context: Rc::clone(&self.context),
                    note: None,
                };
                self.cold.start(call, head, body, timeout, cx);
                return;
            }
            Err(refusal) => refusal,
        };
        let observer = &self.context.observer;
        observer.call_started(method_name);
        let code = refusal.status.code();
        respond::send_refusal(&mut respond, refusal);
        let latency = clock::monotonic().since(now);
        observer.call_finished(method_name, code, latency);
    }

    fn admit(
        &self,
        head: &Parts,
        method_name: &mut &'static str,
    ) -> Result<Admitted<S::Method>, Refusal> {
        admission::check_protocol(head)?;
        let path = head.uri.path();
        if let Some(method) = S::find(path) {
            *method_name = S::method_name(method);
            admission::check_encoding(head)?;
            let wanted = admission::timeout(head)?.unwrap_or(self.context.settings.call_timeout);
            if wanted.is_zero() {
                return Err(deadline_exceeded().into());
            }
            let timeout = micros(wanted.min(limits::CALL_TIMEOUT_MAX));
            return Ok(Admitted::Hot { method, timeout });
        }
        let gate = self.context.cold.as_ref();
        if let Some(service) = gate.and_then(|gate| gate.service_of(path)) {
            *method_name = service;
            let timeout = admission::timeout(head)?.map(micros);
            return Ok(Admitted::Cold { timeout });
        }
        let cold = |service: &str| gate.is_some_and(|gate| gate.has_service(service));
        Err(admission::unknown(path, |service| {
            S::has_service(service) || cold(service)
        }))
    }

    /// Does what the clock asks for.
    fn act(&mut self, now: Micros, cx: &mut Context<'_>) -> Option<Ended> {
        self.calls.expire(now);
        while let Some(act) = self.life.due(now, self.context.drain.stage()) {
            match act {
                Act::Ping => self.send_ping(),
                Act::Leave => {
                    if let Http::Open(open) = &mut self.http {
                        open.graceful_shutdown();
                    }
                }
                Act::CutCold => self.cold.cut(),
                Act::Close(ended) => {
                    self.close(cx);
                    return Some(ended);
                }
            }
            // HTTP/2 has something to say: one more round.
            cx.waker().wake_by_ref();
        }
        None
    }

    fn send_ping(&mut self) {
        if let Some(ping) = &mut self.ping
            && !self.ping_outstanding
        {
            self.ping_outstanding = ping.send_ping(Ping::opaque()).is_ok();
        }
    }

    /// Says goodbye without waiting for anything; the turn's flush sends it if the socket has room.
    fn close(&mut self, cx: &mut Context<'_>) {
        if let Http::Open(open) = &mut self.http {
            open.abrupt_shutdown(Reason::NO_ERROR);
            while let Poll::Ready(Some(Ok(_))) = open.poll_accept(cx) {}
        }
    }
}

enum Admitted<M> {
    Hot { method: M, timeout: Micros },
    Cold { timeout: Option<Micros> },
}

fn failed(error: &h2::Error) -> Ended {
    if let Some(error) = error.get_io() {
        return Ended::Lost(error.kind());
    }
    if error.is_go_away() && error.is_remote() {
        return Ended::Closed;
    }
    Ended::Protocol(error.reason().unwrap_or(Reason::INTERNAL_ERROR))
}

/// HTTP/2 with every limit said, so that none of them changes with a version of the library.
fn http2(settings: &WireSettings) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(settings.streams_per_connection)
        .initial_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::FRAME_BYTES_MAX)
        .max_header_list_size(limits::HEADER_LIST_BYTES_MAX)
        .header_table_size(limits::HEADER_TABLE_BYTES)
        .max_send_buffer_size(limits::STREAM_SEND_BUFFER_BYTES_MAX)
        .max_concurrent_reset_streams(limits::RESET_STREAMS_MAX)
        .reset_stream_duration(limits::RESET_STREAM_MEMORY)
        .max_pending_accept_reset_streams(limits::PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(limits::ERROR_RESETS_MAX))
        .data_frame_budget(limits::SMALL_FRAME_BUDGET_BYTES);
    builder
}
