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

use super::active_calls::{ActiveCalls, CallResponder, deadline_exceeded};
use super::call::CallContext;
use super::coalescing_waker::CoalescingWaker;
use super::connection_lifecycle::{ConnectionLifecycle, LifecycleAction};
use super::context::{GrpcContext, GrpcSettings, UNKNOWN_METHOD, micros};
use super::drain::ConnectionGuard;
use super::request_head::{self, HeadRejection};
use super::response;
use super::service::UnaryService;
use super::status::Status;
use super::tonic_bridge::relay::BridgedCalls;
use super::write_coalescing::{CoalescedStream, WriteCoalescer};
use crate::limits;
use inventory_core::time::Micros;
use inventory_runtime::clock;
use inventory_runtime::timer_queue::TimerHandle;

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
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

impl ConnectionEnd {
    /// Whether this side ended the connection in words that the peer should get to read.
    fn lingers(self) -> bool {
        matches!(self, Self::Aged | Self::Drained | Self::Protocol(_))
    }
}

enum HttpState<T> {
    Handshaking(Handshake<CoalescedStream<T>, Bytes>),
    Open(h2::server::Connection<CoalescedStream<T>, Bytes>),
}

pub(super) struct GrpcConnection<T, S, M, F> {
    // The order of the fields is the order of their end: calls before the streams they answer.
    calls: ActiveCalls<F>,
    bridged: BridgedCalls,
    ping: Option<PingPong>,
    ping_outstanding: bool,
    http: HttpState<T>,
    writer: Rc<RefCell<WriteCoalescer<T>>>,
    start: M,
    lifecycle: ConnectionLifecycle,
    timer: TimerHandle,
    waker: Option<(Arc<CoalescingWaker>, Waker)>,
    guard: ConnectionGuard,
    context: Rc<GrpcContext>,
    service: std::marker::PhantomData<S>,
}

impl<T, S, M, F> GrpcConnection<T, S, M, F>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: UnaryService,
    M: Fn(S::Method, CallContext, RecvStream) -> F,
    F: Future<Output = Result<Bytes, Status>>,
{
    pub(super) fn new(
        stream: T,
        context: Rc<GrpcContext>,
        registered: ConnectionGuard,
        start: M,
    ) -> Self {
        let cork = WriteCoalescer::new(stream, Rc::clone(&context));
        let handshake = http2(&context.settings).handshake(CoalescedStream::new(&cork));
        let age = context.random_connection_age();
        Self {
            calls: ActiveCalls::new(),
            bridged: BridgedCalls::new(),
            ping: None,
            ping_outstanding: false,
            http: HttpState::Handshaking(handshake),
            writer: cork,
            start,
            lifecycle: ConnectionLifecycle::new(&context.settings, age, clock::monotonic()),
            timer: TimerHandle::default(),
            waker: None,
            guard: registered,
            context,
            service: std::marker::PhantomData,
        }
    }

    /// One turn of the connection's task.
    pub(super) fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        self.context.stats.count_poll();
        let now = clock::monotonic();
        let (turn, waker) = self.wakers(cx.waker());
        self.writer.borrow_mut().begin_poll(cx.waker());
        let ended = self.poll_rounds(now, &turn, &mut Context::from_waker(&waker));
        let flushed = self.writer.borrow_mut().flush();
        if let Some(ended) = ended {
            return Poll::Ready(ended);
        }
        if let Err(error) = flushed {
            return Poll::Ready(ConnectionEnd::Lost(error.kind()));
        }
        let next = [
            self.lifecycle.next_deadline(),
            self.calls.earliest_deadline(),
        ];
        if let Some(at) = next.into_iter().flatten().min() {
            self.timer.set(now, at, cx.waker());
        }
        if self.writer.borrow().read_budget_spent() {
            cx.waker().wake_by_ref();
        }
        turn.end_poll();
        Poll::Pending
    }

    /// After the end: closing a socket that has something unread resets it, and a reset takes from
    /// the peer what it has not read yet, answers and GOAWAY included. So this side, which has said
    /// its last word, reads on until the peer has.
    pub(super) fn poll_linger(&mut self, ended: ConnectionEnd, cx: &mut Context<'_>) -> Poll<()> {
        if ended.lingers() {
            self.writer.borrow_mut().poll_discard(cx)
        } else {
            Poll::Ready(())
        }
    }

    /// The wakers of this turn: made once, unless the future has moved to another task.
    fn wakers(&mut self, task: &Waker) -> (Arc<CoalescingWaker>, Waker) {
        match &self.waker {
            Some((turn, waker)) if turn.task().will_wake(task) => (Arc::clone(turn), waker.clone()),
            _ => {
                let turn = CoalescingWaker::new(task);
                let waker = Waker::from(Arc::clone(&turn));
                self.guard.set_waker(task);
                self.waker = Some((Arc::clone(&turn), waker.clone()));
                (turn, waker)
            }
        }
    }

    /// HTTP/2, the calls and the clockwork, until none of them wants another look.
    fn poll_rounds(
        &mut self,
        now: Micros,
        turn: &CoalescingWaker,
        cx: &mut Context<'_>,
    ) -> Option<ConnectionEnd> {
        for _ in 0..limits::ROUNDS_PER_POLL_MAX {
            turn.begin_round();
            if let Some(ended) = self.poll_http(now, turn, cx) {
                return Some(ended);
            }
            self.calls.poll(cx);
            self.bridged.poll(cx);
            if self.writer.borrow_mut().take_received() {
                self.lifecycle.data_received(now);
            }
            if let Some(ended) = self.apply_lifecycle(now, cx) {
                return Some(ended);
            }
            if !turn.was_woken() {
                break;
            }
        }
        None
    }

    /// Takes every request that is there. Each look at HTTP/2 also encodes what was answered so far.
    fn poll_http(
        &mut self,
        now: Micros,
        turn: &CoalescingWaker,
        cx: &mut Context<'_>,
    ) -> Option<ConnectionEnd> {
        if let HttpState::Handshaking(handshake) = &mut self.http {
            match Pin::new(handshake).poll(cx) {
                Poll::Pending => return None,
                Poll::Ready(Err(error)) => return Some(connection_end(&error)),
                Poll::Ready(Ok(mut open)) => {
                    self.ping = open.ping_pong();
                    self.lifecycle.opened(now);
                    self.http = HttpState::Open(open);
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
            let HttpState::Open(open) = &mut self.http else {
                return None;
            };
            match open.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.accept_request(request, respond, now, cx);
                }
                Poll::Ready(Some(Err(error))) => return Some(connection_end(&error)),
                Poll::Ready(None) => return Some(self.lifecycle.graceful_end()),
                Poll::Pending => return None,
            }
        }
    }

    fn accept_request(
        &mut self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        now: Micros,
        cx: &mut Context<'_>,
    ) {
        let (head, body) = request.into_parts();
        let mut method_name = UNKNOWN_METHOD;
        let refusal = match self.route(&head, &mut method_name) {
            Ok(CallTarget::Unary { method, timeout }) => {
                let note = self.context.observer.trace_call(method_name, &head.headers);
                let call = CallResponder {
                    stream: respond,
                    method: method_name,
                    arrived: now,
                    deadline: now.plus(timeout),
                    context: Rc::clone(&self.context),
                    trace: note.clone(),
                };
                let circumstances = CallContext {
                    arrived: now,
                    deadline: call.deadline,
                    headers: head.headers,
                    trace: note,
                };
                let future = (self.start)(method, circumstances, body);
                self.calls.start(call, future, cx);
                return;
            }
            Ok(CallTarget::Auxiliary { timeout }) => {
                let call = CallResponder {
                    stream: respond,
                    method: method_name,
                    arrived: now,
                    deadline: timeout.map_or(Micros(u64::MAX), |span| now.plus(span)),
                    context: Rc::clone(&self.context),
                    trace: None,
                };
                self.bridged.start(call, head, body, timeout, cx);
                return;
            }
            Err(refusal) => refusal,
        };
        let observer = &self.context.observer;
        observer.call_started(method_name);
        let code = refusal.status.code();
        response::send_rejection(&mut respond, refusal);
        let latency = clock::monotonic().since(now);
        observer.call_finished(method_name, code, latency);
    }

    fn route(
        &self,
        head: &Parts,
        method_name: &mut &'static str,
    ) -> Result<CallTarget<S::Method>, HeadRejection> {
        request_head::check_protocol(head)?;
        let path = head.uri.path();
        if let Some(method) = S::find_method(path) {
            *method_name = S::method_name(method);
            request_head::check_encoding(head)?;
            let wanted =
                request_head::call_timeout(head)?.unwrap_or(self.context.settings.call_timeout);
            if wanted.is_zero() {
                return Err(deadline_exceeded().into());
            }
            let timeout = micros(wanted.min(limits::CALL_TIMEOUT_MAX));
            return Ok(CallTarget::Unary { method, timeout });
        }
        let gate = self.context.bridge.as_ref();
        if let Some(service) = gate.and_then(|gate| gate.service_of(path)) {
            *method_name = service;
            let timeout = request_head::call_timeout(head)?.map(micros);
            return Ok(CallTarget::Auxiliary { timeout });
        }
        let cold = |service: &str| gate.is_some_and(|gate| gate.has_service(service));
        Err(request_head::reject_unknown_path(path, |service| {
            S::has_service(service) || cold(service)
        }))
    }

    /// Does what the clock asks for.
    fn apply_lifecycle(&mut self, now: Micros, cx: &mut Context<'_>) -> Option<ConnectionEnd> {
        self.calls.expire(now);
        while let Some(act) = self.lifecycle.poll_action(now, self.context.drain.stage()) {
            match act {
                LifecycleAction::SendPing => self.send_ping(),
                LifecycleAction::SendGoaway => {
                    if let HttpState::Open(open) = &mut self.http {
                        open.graceful_shutdown();
                    }
                }
                LifecycleAction::CancelAuxiliary => self.bridged.cut(),
                LifecycleAction::Close(ended) => {
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
        if let HttpState::Open(open) = &mut self.http {
            open.abrupt_shutdown(Reason::NO_ERROR);
            while let Poll::Ready(Some(Ok(_))) = open.poll_accept(cx) {}
        }
    }
}

enum CallTarget<M> {
    Unary { method: M, timeout: Micros },
    Auxiliary { timeout: Option<Micros> },
}

fn connection_end(error: &h2::Error) -> ConnectionEnd {
    if let Some(error) = error.get_io() {
        return ConnectionEnd::Lost(error.kind());
    }
    if error.is_go_away() && error.is_remote() {
        return ConnectionEnd::Closed;
    }
    ConnectionEnd::Protocol(error.reason().unwrap_or(Reason::INTERNAL_ERROR))
}

/// HTTP/2 with every limit said, so that none of them changes with a version of the library.
fn http2(settings: &GrpcSettings) -> h2::server::Builder {
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
