//! One connection of a shard in one task: HTTP/2 by `h2`, the calls, the connection lifecycle.
//!
//! One poll of the task reads what the socket has, starts the calls in it, polls the calls that were
//! woken, repeats until nothing moves, and then writes once. All responses that are ready in one poll
//! leave in one `send` (`write_coalescing` has the measurements), and no call is a task of its own: when
//! the connection ends, its handlers end with it.

use std::cell::RefCell;
use std::future::Future;
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
use super::connection_end::ConnectionEnd;
use super::connection_lifecycle::{ConnectionLifecycle, LifecycleAction};
use super::context::GrpcContext;
use super::drain::ConnectionGuard;
use super::observer::UNKNOWN_METHOD;
use super::request_head::{self, HeadRejection};
use super::response;
use super::service::UnaryService;
use super::settings::{GrpcSettings, micros};
use super::status::Status;
use super::tonic_bridge::TonicBridge;
use super::tonic_bridge::relay::BridgedCalls;
use super::write_coalescing::{CoalescedStream, WriteCoalescer};
use crate::limits;
use inventory_core::time::Micros;
use inventory_runtime::clock;
use inventory_runtime::timer_queue::TimerHandle;

enum HttpState<T> {
    Handshaking(Handshake<CoalescedStream<T>, Bytes>),
    Open(h2::server::Connection<CoalescedStream<T>, Bytes>),
}

/// `start` makes the future of one call: it reads the request, runs the handler and encodes the response.
pub(super) struct GrpcConnection<T, S, M, F> {
    // Fields are dropped in order: the calls before the streams that they answer.
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
        guard: ConnectionGuard,
        start: M,
    ) -> Self {
        let writer = WriteCoalescer::new(stream, Rc::clone(&context));
        let handshake = http2_builder(&context.settings).handshake(CoalescedStream::new(&writer));
        let age = context.random_connection_age();
        Self {
            calls: ActiveCalls::new(),
            bridged: BridgedCalls::new(),
            ping: None,
            ping_outstanding: false,
            http: HttpState::Handshaking(handshake),
            writer,
            start,
            lifecycle: ConnectionLifecycle::new(&context.settings, age, clock::monotonic()),
            timer: TimerHandle::default(),
            waker: None,
            guard,
            context,
            service: std::marker::PhantomData,
        }
    }

    /// One poll of the connection's task; ready when the connection has ended.
    pub(super) fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEnd> {
        self.context.stats.count_poll();
        let now = clock::monotonic();
        let (coalescing, waker) = self.wakers(cx.waker());
        self.writer.borrow_mut().begin_poll(cx.waker());
        let end = self.poll_rounds(now, &coalescing, &mut Context::from_waker(&waker));
        let flushed = self.writer.borrow_mut().flush();
        if let Some(end) = end {
            return Poll::Ready(end);
        }
        if let Err(error) = flushed {
            return Poll::Ready(ConnectionEnd::Lost(error.kind()));
        }
        let deadlines = [self.lifecycle.next_deadline(), self.calls.earliest_deadline()];
        if let Some(at) = deadlines.into_iter().flatten().min() {
            self.timer.wake_at(now, at, cx.waker());
        }
        if self.writer.borrow().read_budget_spent() {
            cx.waker().wake_by_ref();
        }
        coalescing.end_poll();
        Poll::Pending
    }

    /// Reads and discards after the end. The close of a socket with unread bytes is a reset, and a reset
    /// discards what the peer has not read yet, responses and GOAWAY included. So this side, which sends
    /// nothing more, reads until the peer has closed.
    pub(super) fn poll_linger(&mut self, end: ConnectionEnd, cx: &mut Context<'_>) -> Poll<()> {
        if end.lingers() { self.writer.borrow_mut().poll_discard(cx) } else { Poll::Ready(()) }
    }

    /// The coalescing waker and its `Waker`: made once, unless the future has moved to another task.
    fn wakers(&mut self, task: &Waker) -> (Arc<CoalescingWaker>, Waker) {
        match &self.waker {
            Some((coalescing, waker)) if coalescing.task().will_wake(task) => {
                (Arc::clone(coalescing), waker.clone())
            }
            _ => {
                let coalescing = CoalescingWaker::new(task);
                let waker = Waker::from(Arc::clone(&coalescing));
                self.guard.set_waker(task);
                self.waker = Some((Arc::clone(&coalescing), waker.clone()));
                (coalescing, waker)
            }
        }
    }

    /// Polls HTTP/2, the calls and the lifecycle until a round passes without a wake-up.
    fn poll_rounds(
        &mut self,
        now: Micros,
        coalescing: &CoalescingWaker,
        cx: &mut Context<'_>,
    ) -> Option<ConnectionEnd> {
        for _ in 0..limits::ROUNDS_PER_POLL_MAX {
            coalescing.begin_round();
            if let Some(end) = self.poll_http(now, coalescing, cx) {
                return Some(end);
            }
            self.calls.poll(cx);
            self.bridged.poll(cx);
            if self.writer.borrow_mut().take_received() {
                self.lifecycle.data_received(now);
            }
            if let Some(end) = self.apply_lifecycle(now, cx) {
                return Some(end);
            }
            if !coalescing.was_woken() {
                break;
            }
        }
        None
    }

    /// Accepts every request that has arrived. Each poll of HTTP/2 also encodes the responses so far.
    fn poll_http(
        &mut self,
        now: Micros,
        coalescing: &CoalescingWaker,
        cx: &mut Context<'_>,
    ) -> Option<ConnectionEnd> {
        if let HttpState::Handshaking(handshake) = &mut self.http {
            match Pin::new(handshake).poll(cx) {
                Poll::Pending => return None,
                Poll::Ready(Err(error)) => return Some(ConnectionEnd::from(&error)),
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
            // Wake-ups before this line are served by the poll below or by those that follow it.
            coalescing.begin_round();
            let HttpState::Open(open) = &mut self.http else {
                return None;
            };
            match open.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, stream)))) => {
                    self.accept_request(request, stream, now, cx);
                }
                Poll::Ready(Some(Err(error))) => return Some(ConnectionEnd::from(&error)),
                Poll::Ready(None) => return Some(self.lifecycle.graceful_end()),
                Poll::Pending => return None,
            }
        }
    }

    fn accept_request(
        &mut self,
        request: Request<RecvStream>,
        mut stream: SendResponse<Bytes>,
        now: Micros,
        cx: &mut Context<'_>,
    ) {
        let (head, body) = request.into_parts();
        let observer = &self.context.observer;
        let mut method_name = UNKNOWN_METHOD;
        let rejection = match self.route(&head, &mut method_name) {
            Ok(CallTarget::Unary { method, timeout }) => {
                let trace = observer.trace_call(method_name, &head.headers);
                let deadline = now.plus(timeout);
                let responder = CallResponder {
                    stream,
                    method: method_name,
                    arrived: now,
                    deadline,
                    observer: Rc::clone(observer),
                    trace: trace.clone(),
                };
                let call = CallContext { arrived: now, deadline, headers: head.headers, trace };
                let future = (self.start)(method, call, body);
                self.calls.start(responder, future, cx);
                return;
            }
            Ok(CallTarget::Auxiliary { bridge, timeout }) => {
                let responder = CallResponder {
                    stream,
                    method: method_name,
                    arrived: now,
                    deadline: timeout.map_or(Micros(u64::MAX), |timeout| now.plus(timeout)),
                    observer: Rc::clone(observer),
                    trace: None,
                };
                self.bridged.start(bridge, responder, head, body, timeout, cx);
                return;
            }
            Err(rejection) => rejection,
        };
        observer.call_started(method_name);
        let code = rejection.status.code();
        response::send_rejection(&mut stream, rejection);
        let latency = clock::monotonic().since(now);
        observer.call_finished(method_name, code, latency);
    }

    /// What serves a request; `method_name` is set as soon as the method is known.
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
            let timeout = request_head::call_timeout(head)?;
            let timeout = timeout.unwrap_or(self.context.settings.call_timeout);
            if timeout.is_zero() {
                return Err(deadline_exceeded().into());
            }
            let timeout = micros(timeout.min(limits::CALL_TIMEOUT_MAX));
            return Ok(CallTarget::Unary { method, timeout });
        }
        let bridge = self.context.bridge.as_ref();
        if let Some(bridge) = bridge
            && let Some(service) = bridge.service_of(path)
        {
            *method_name = service;
            let timeout = request_head::call_timeout(head)?.map(micros);
            let bridge = bridge.clone();
            return Ok(CallTarget::Auxiliary { bridge, timeout });
        }
        Err(request_head::reject_unknown_path(path, |service| {
            S::has_service(service) || bridge.is_some_and(|bridge| bridge.has_service(service))
        }))
    }

    /// Marks expired calls and does what the lifecycle demands; `Some` when the connection must close.
    fn apply_lifecycle(&mut self, now: Micros, cx: &mut Context<'_>) -> Option<ConnectionEnd> {
        self.calls.expire(now);
        while let Some(action) = self.lifecycle.poll_action(now, self.context.drain.stage()) {
            match action {
                LifecycleAction::SendPing => self.send_ping(),
                LifecycleAction::SendGoaway => {
                    if let HttpState::Open(open) = &mut self.http {
                        open.graceful_shutdown();
                    }
                }
                LifecycleAction::CancelAuxiliary => self.bridged.cancel_all(),
                LifecycleAction::Close(end) => {
                    self.close(cx);
                    return Some(end);
                }
            }
            // HTTP/2 has a frame to send: one more round.
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

    /// Queues a GOAWAY without waiting; the flush of this poll sends it if the socket accepts it.
    fn close(&mut self, cx: &mut Context<'_>) {
        if let HttpState::Open(open) = &mut self.http {
            open.abrupt_shutdown(Reason::NO_ERROR);
            while let Poll::Ready(Some(Ok(_))) = open.poll_accept(cx) {}
        }
    }
}

enum CallTarget<M> {
    Unary { method: M, timeout: Micros },
    Auxiliary { bridge: TonicBridge, timeout: Option<Micros> },
}

/// HTTP/2 with every limit set explicitly, so that no limit changes with a version of the library.
fn http2_builder(settings: &GrpcSettings) -> h2::server::Builder {
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
