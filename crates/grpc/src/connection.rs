//! One connection of a shard in one task: HTTP/2 by `h2`, the calls, the connection lifecycle.
//!
//! One poll of the task reads what the socket has, starts the calls in it, polls the calls that were
//! woken, repeats until nothing moves, and then writes once. All responses that are ready in one poll
//! leave in one `send` (`write_coalescing` has the measurements), and no call is a task of its own: when
//! the connection ends, its handlers end with it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite};
use h2::server::{Handshake, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::Request;
use http::request::Parts;
use tokio::sync::watch;

use super::active_calls::{ActiveCalls, CallResponder};
use super::auxiliary_calls::{AuxiliaryCalls, CallCountGuard};
use super::call::CallContext;
use super::coalescing_waker::CoalescingWaker;
use super::connection_end::{ConnectionEnd, PeerProtocol};
use super::connection_lifecycle::{ConnectionLifecycle, LifecycleAction};
use super::context::GrpcContext;
use super::drain::ConnectionGuard;
use super::early_resets::EarlyResetBudget;
use super::health::{self, HealthCall, HealthMethod, HealthState, WatchCount};
use super::message::MessageEncoding;
use super::observer::UNKNOWN_METHOD;
use super::request_head::{self, HeadRejection};
use super::response;
use super::service::UnaryService;
use super::settings::{GrpcSettings, micros};
use super::status::{Code, Status};
use super::tonic_bridge::{TonicBridge, relay};
use super::unary_body::UnaryBody;
use super::write_coalescing::{CoalescedStream, WriteCoalescer};
use crate::limits;
use inventory_core::time::Micros;
use inventory_runtime::clock;
use inventory_runtime::timer_queue::TimerHandle;

enum HttpState<T> {
    Handshaking(Handshake<CoalescedStream<T>, Bytes>),
    Open(h2::server::Connection<CoalescedStream<T>, Bytes>),
}

/// `start` makes the future of one call, `run_call` of `serve.rs`: it reads the request, runs the handler and encodes
/// the response.
pub(super) struct GrpcConnection<T, S, M, F> {
    // Fields are dropped in order: the calls before the streams that they answer.
    calls: ActiveCalls<F>,
    auxiliary: AuxiliaryCalls,
    health_watches: WatchCount,
    bridged_calls: Rc<Cell<usize>>,
    early_resets: EarlyResetBudget,
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
    M: Fn(S::Method, CallContext, UnaryBody) -> F,
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
        let (age, now) = (context.random_connection_age(), clock::monotonic());
        Self {
            calls: ActiveCalls::new(),
            auxiliary: AuxiliaryCalls::new(),
            health_watches: WatchCount::default(),
            bridged_calls: Rc::default(),
            early_resets: EarlyResetBudget::new(context.settings.streams_per_connection, now),
            ping: None,
            ping_outstanding: false,
            http: HttpState::Handshaking(handshake),
            writer,
            start,
            lifecycle: ConnectionLifecycle::new(&context.settings, age, now),
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
        self.writer.borrow_mut().begin_poll(cx.waker(), now);
        let end = self.poll_rounds(now, &coalescing, &mut Context::from_waker(&waker));
        let flushed = self.writer.borrow_mut().flush();
        let lost = flushed.err().map(|error| ConnectionEnd::Lost(error.kind()));
        if let Some(end) = end.or(lost) {
            self.writer.borrow_mut().end();
            return Poll::Ready(end);
        }
        let has_calls = !self.calls.is_empty();
        self.guard.set_busy(has_calls);
        let deadlines = [self.lifecycle.next_deadline(has_calls), self.calls.earliest_deadline()];
        if let Some(at) = deadlines.into_iter().flatten().min() {
            self.timer.wake_at(now, at, cx.waker());
        }
        self.writer.borrow_mut().end_poll();
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
        // Before anything is read: the GOAWAY names the last call that this side has seen.
        if self.guard.is_evicted() {
            self.close(Reason::NO_ERROR, cx);
            return Some(ConnectionEnd::Evicted);
        }
        for _ in 0..limits::ROUNDS_PER_POLL_MAX {
            coalescing.begin_round();
            if let Some(end) = self.poll_http(now, coalescing, cx) {
                return Some(end);
            }
            self.calls.poll(cx);
            self.auxiliary.poll(cx);
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
                Poll::Ready(Err(error)) => return Some(self.end_without_preface(&error)),
                Poll::Ready(Ok(mut open)) => {
                    self.ping = open.ping_pong();
                    self.lifecycle.opened(now);
                    self.guard.established();
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
                    if !self.accept_request(request, stream, now, cx) {
                        self.close(Reason::ENHANCE_YOUR_CALM, cx);
                        return Some(ConnectionEnd::Protocol(Reason::ENHANCE_YOUR_CALM));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Some(ConnectionEnd::from(&error)),
                Poll::Ready(None) => return Some(self.lifecycle.graceful_end()),
                Poll::Pending => return None,
            }
        }
    }

    /// The end of a connection that sent no preface of HTTP/2.
    fn end_without_preface(&self, error: &h2::Error) -> ConnectionEnd {
        match ConnectionEnd::from(error) {
            ConnectionEnd::Protocol(_) => {
                let mut writer = self.writer.borrow_mut();
                let protocol = PeerProtocol::of(writer.first_bytes());
                if let Some(answer) = protocol.answer() {
                    writer.answer_instead(answer);
                }
                ConnectionEnd::WrongProtocol(protocol)
            }
            other => other,
        }
    }

    /// Starts the call of a request; false if the client has reset too many calls before they were read.
    fn accept_request(
        &mut self,
        request: Request<RecvStream>,
        mut stream: SendResponse<Bytes>,
        now: Micros,
        cx: &mut Context<'_>,
    ) -> bool {
        let (head, body) = request.into_parts();
        let observer = &self.context.observer;
        let mut method_name = UNKNOWN_METHOD;
        self.guard.request_arrived(now);
        // The waker is registered when the call waits for an answer.
        if stream.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready() {
            let _ = self.route(&head, &mut method_name);
            observer.call_started(method_name);
            observer.call_finished(method_name, Code::Cancelled, Micros(0));
            return self.early_resets.spend(now);
        }
        let responder = |stream, method, deadline, trace| CallResponder {
            stream,
            method,
            arrived: now,
            deadline,
            observer: Rc::clone(observer),
            trace,
        };
        match self.route(&head, &mut method_name) {
            Ok(CallTarget::Unary { method, encoding, timeout }) => {
                let trace = observer.trace_call(method_name, &head.headers);
                let deadline = now.plus(timeout);
                let responder = responder(stream, method_name, deadline, trace.clone());
                let call = CallContext { arrived: now, deadline, headers: head.headers, trace };
                let future = (self.start)(method, call, UnaryBody { stream: body, encoding });
                self.calls.start(responder, future, cx);
            }
            Ok(CallTarget::Health { method, encoding, timeout, state }) => {
                let call = HealthCall {
                    method,
                    body: UnaryBody { stream: body, encoding },
                    timeout,
                    state,
                    has_service: S::has_service,
                    connection_watches: Rc::clone(&self.health_watches),
                    shard_watches: Rc::clone(&self.context.health_watches),
                };
                let responder = responder(stream, method_name, Micros(u64::MAX), None);
                let run = async move |call_to: &mut CallResponder, cancelled: &Cell<bool>| {
                    call.serve(call_to, cancelled).await
                };
                self.auxiliary.start(responder, run, cx);
            }
            Ok(CallTarget::Bridged { bridge, timeout }) => {
                let responder = responder(stream, method_name, Micros(u64::MAX), None);
                let slot = CallCountGuard::take(&self.bridged_calls);
                let run = async move |call: &mut CallResponder, cancelled: &Cell<bool>| {
                    let _slot = slot;
                    relay::exchange(&bridge, call, head, body, timeout, cancelled).await
                };
                self.auxiliary.start(responder, run, cx);
            }
            Err(rejection) => {
                observer.call_started(method_name);
                let code = rejection.status.code();
                response::send_rejection(&mut stream, rejection);
                let latency = clock::monotonic().since(now);
                observer.call_finished(method_name, code, latency);
            }
        }
        true
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
            let encoding = request_head::message_encoding(head)?;
            let timeout =
                request_head::call_timeout(head)?.unwrap_or(self.context.settings.call_timeout);
            let timeout = micros(timeout.min(limits::CALL_TIMEOUT_MAX));
            return Ok(CallTarget::Unary { method, encoding, timeout });
        }
        if let Some(state) = &self.context.health
            && let Some(method) = health::find_method(path)
        {
            *method_name = health::SERVICE;
            let encoding = request_head::message_encoding(head)?;
            let timeout = request_head::call_timeout(head)?;
            return Ok(CallTarget::Health { method, encoding, timeout, state: state.clone() });
        }
        let bridge = self.context.bridge.as_ref();
        if let Some(bridge) = bridge
            && let Some(service) = bridge.service_of(path)
        {
            *method_name = service;
            let timeout = request_head::call_timeout(head)?.unwrap_or(limits::CALL_TIMEOUT_MAX);
            let timeout = timeout.min(limits::CALL_TIMEOUT_MAX);
            if self.bridged_calls.get() >= limits::BRIDGED_CALLS_PER_CONNECTION_MAX {
                return Err(relay::too_many_calls().into());
            }
            return Ok(CallTarget::Bridged { bridge: bridge.clone(), timeout });
        }
        Err(request_head::reject_unknown_path(path, |service| {
            S::has_service(service)
                || (self.context.health.is_some() && service == health::SERVICE)
                || bridge.is_some_and(|bridge| bridge.has_service(service))
        }))
    }

    /// Marks expired calls and does what the lifecycle demands; `Some` when the connection must close.
    fn apply_lifecycle(&mut self, now: Micros, cx: &mut Context<'_>) -> Option<ConnectionEnd> {
        self.calls.expire(now);
        let stage = self.context.drain.stage();
        while let Some(action) = self.lifecycle.poll_action(now, stage, !self.calls.is_empty()) {
            match action {
                LifecycleAction::SendPing => self.send_ping(),
                LifecycleAction::SendGoaway => {
                    if let HttpState::Open(open) = &mut self.http {
                        open.graceful_shutdown();
                    }
                }
                LifecycleAction::CancelAuxiliary => self.auxiliary.cancel_all(),
                LifecycleAction::Close(end) => {
                    self.close(Reason::NO_ERROR, cx);
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
    fn close(&mut self, reason: Reason, cx: &mut Context<'_>) {
        if let HttpState::Open(open) = &mut self.http {
            open.abrupt_shutdown(reason);
            while let Poll::Ready(Some(Ok(_))) = open.poll_accept(cx) {}
        }
    }
}

enum CallTarget<M> {
    Unary {
        method: M,
        encoding: MessageEncoding,
        timeout: Micros,
    },
    Health {
        method: HealthMethod,
        encoding: MessageEncoding,
        timeout: Option<Duration>,
        state: watch::Receiver<HealthState>,
    },
    Bridged {
        bridge: TonicBridge,
        timeout: Duration,
    },
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
        .max_concurrent_reset_streams(settings.streams_per_connection as usize)
        .reset_stream_duration(limits::RESET_STREAM_MEMORY)
        .max_pending_accept_reset_streams(limits::PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(limits::ERROR_RESETS_MAX))
        .data_frame_budget(limits::small_frame_budget(settings.streams_per_connection));
    builder
}
