//! The shard's half of a bridged call: carries frames between an HTTP/2 stream and the bridge's channels.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{Either, LocalBoxFuture, select};
use futures::stream::FuturesUnordered;
use h2::{RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, Response};
use tokio::sync::mpsc;

use super::channel::{CallChannels, RequestFrame, ResponseFrame, TonicBridge};
use crate::active_calls::CallResponder;
use crate::response;
use crate::status::{Code, Status, reason};
use inventory_core::time::Micros;

/// The bridged calls of one connection. They are few, so each is boxed.
pub(crate) struct BridgedCalls {
    relays: FuturesUnordered<FrameRelay>,
    cancelled: Rc<Cell<bool>>,
}

struct FrameRelay {
    work: LocalBoxFuture<'static, ()>,
    waker: Option<Waker>,
}

impl Future for FrameRelay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.work.as_mut().poll(cx);
        if polled.is_pending() && self.waker.is_none() {
            self.waker = Some(cx.waker().clone());
        }
        polled
    }
}

impl BridgedCalls {
    pub(crate) fn new() -> Self {
        Self { relays: FuturesUnordered::new(), cancelled: Rc::default() }
    }

    pub(crate) fn start(
        &mut self,
        bridge: TonicBridge,
        responder: CallResponder,
        head: Parts,
        body: RecvStream,
        timeout: Option<Micros>,
        cx: &mut Context<'_>,
    ) {
        let timeout = timeout.map(|span| Duration::from_micros(span.0));
        let cancelled = Rc::clone(&self.cancelled);
        let work = Box::pin(async move {
            let mut call = CallReport::new(responder);
            let exchange = exchange(&bridge, &mut call.responder, head, body, timeout, &cancelled);
            call.code = exchange.await;
        });
        self.relays.push(FrameRelay { work, waker: None });
        self.poll(cx);
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(())) = self.relays.poll_next_unpin(cx) {}
    }

    /// Ends all calls of the connection, later ones included: the connection is draining.
    pub(crate) fn cancel_all(&mut self) {
        self.cancelled.set(true);
        for relay in self.relays.iter_mut() {
            if let Some(waker) = &relay.waker {
                waker.wake_by_ref();
            }
        }
    }
}

/// Reports the start of the call, and its end in every case.
struct CallReport {
    responder: CallResponder,
    code: Code,
}

impl CallReport {
    fn new(responder: CallResponder) -> Self {
        responder.observer.call_started(responder.method);
        Self { responder, code: Code::Cancelled }
    }
}

impl Drop for CallReport {
    fn drop(&mut self) {
        self.responder.report_finished(self.code);
    }
}

async fn exchange(
    bridge: &TonicBridge,
    call: &mut CallResponder,
    head: Parts,
    body: RecvStream,
    timeout: Option<Duration>,
    cancelled: &Cell<bool>,
) -> Code {
    let CallChannels { request_frames, response_frames } = match bridge.open(head, timeout) {
        Ok(channels) => channels,
        Err(status) => {
            response::send_status(&mut call.stream, &status);
            return status.code();
        }
    };
    // The response decides when the call ends; the request only feeds the service.
    let request = async {
        relay_request(body, request_frames).await;
        pending::<Infallible>().await
    };
    let response = relay_response(call, response_frames, cancelled);
    match select(pin!(response), pin!(request)).await {
        Either::Left((code, _)) => code,
        Either::Right((never, _)) => match never {},
    }
}

/// Carries the frames of the request. A request that is reset leaves the channel without its end.
async fn relay_request(mut body: RecvStream, frames: mpsc::Sender<RequestFrame>) {
    while let Some(chunk) = poll_fn(|cx| body.poll_data(cx)).await {
        let Ok(chunk) = chunk else { return };
        let read = chunk.len();
        // Back-pressure: the window opens again only when the control plane has accepted the frame.
        if frames.send(RequestFrame::Data(chunk)).await.is_err() {
            return;
        }
        if body.flow_control().release_capacity(read).is_err() {
            return;
        }
    }
    let _ = frames.send(RequestFrame::End).await;
}

enum RelayEvent {
    Frame(ResponseFrame),
    /// The client reset the stream or disconnected.
    CallerGone,
    /// The connection is draining.
    Cancelled,
    /// The channel closed before the end of the response.
    ServiceFailed,
}

async fn next_event(
    frames: &mut mpsc::Receiver<ResponseFrame>,
    cancelled: &Cell<bool>,
    mut caller_gone: impl FnMut(&mut Context<'_>) -> bool,
) -> RelayEvent {
    poll_fn(|cx| {
        if caller_gone(cx) {
            return Poll::Ready(RelayEvent::CallerGone);
        }
        if cancelled.get() {
            return Poll::Ready(RelayEvent::Cancelled);
        }
        frames.poll_recv(cx).map(|frame| frame.map_or(RelayEvent::ServiceFailed, RelayEvent::Frame))
    })
    .await
}

/// Carries the frames of the response; returns the code that the client receives.
async fn relay_response(
    call: &mut CallResponder,
    mut frames: mpsc::Receiver<ResponseFrame>,
    cancelled: &Cell<bool>,
) -> Code {
    let responder = &mut call.stream;
    let first = next_event(&mut frames, cancelled, |cx| responder.poll_reset(cx).is_ready());
    let (head, last) = match first.await {
        RelayEvent::Frame(ResponseFrame::Head { head, last }) => (head, last),
        RelayEvent::CallerGone => return Code::Cancelled,
        RelayEvent::Cancelled => {
            response::send_status(responder, &shutting_down());
            return shutting_down().code();
        }
        RelayEvent::ServiceFailed | RelayEvent::Frame(_) => {
            response::send_status(responder, &service_failed());
            return service_failed().code();
        }
    };
    let code = grpc_code(&head.headers);
    let Ok(mut stream) = responder.send_response(Response::from_parts(*head, ()), last) else {
        return Code::Cancelled;
    };
    if last {
        return code;
    }
    loop {
        let event = next_event(&mut frames, cancelled, |cx| stream.poll_reset(cx).is_ready());
        let status = match event.await {
            RelayEvent::Frame(ResponseFrame::Data(data)) => {
                match send_data(&mut stream, data, cancelled).await {
                    SendOutcome::All => continue,
                    SendOutcome::CallerGone => return Code::Cancelled,
                    SendOutcome::Cancelled => shutting_down(),
                }
            }
            RelayEvent::Frame(ResponseFrame::Trailers(trailers)) => {
                let code = grpc_code(&trailers);
                let _ = stream.send_trailers(trailers);
                return code;
            }
            RelayEvent::Frame(ResponseFrame::End) => {
                let _ = stream.send_data(Bytes::new(), true);
                return code;
            }
            RelayEvent::CallerGone => return Code::Cancelled,
            RelayEvent::Cancelled => shutting_down(),
            RelayEvent::ServiceFailed | RelayEvent::Frame(ResponseFrame::Head { .. }) => {
                service_failed()
            }
        };
        let mut trailers = HeaderMap::new();
        status.write_to(&mut trailers);
        let _ = stream.send_trailers(trailers);
        return status.code();
    }
}

enum SendOutcome {
    All,
    CallerGone,
    Cancelled,
}

/// Sends `data` within the client's window.
async fn send_data(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    cancelled: &Cell<bool>,
) -> SendOutcome {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = poll_fn(|cx| {
            if cancelled.get() {
                return Poll::Ready(Err(SendOutcome::Cancelled));
            }
            stream
                .poll_capacity(cx)
                .map(|capacity| capacity.and_then(Result::ok).ok_or(SendOutcome::CallerGone))
        })
        .await;
        let capacity = match capacity {
            Ok(capacity) => capacity.min(data.len()),
            Err(outcome) => return outcome,
        };
        if capacity > 0 && stream.send_data(data.split_to(capacity), false).is_err() {
            return SendOutcome::CallerGone;
        }
    }
    SendOutcome::All
}

fn shutting_down() -> Status {
    Status::new(
        Code::Unavailable,
        reason::SHUTTING_DOWN,
        "this connection is shutting down; retry on another connection",
    )
}

fn service_failed() -> Status {
    Status::internal(reason::PANIC, "the service of this call panicked")
}

/// The code that a client reads from these headers.
fn grpc_code(headers: &HeaderMap) -> Code {
    headers
        .get(tonic::Status::GRPC_STATUS)
        .map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}
