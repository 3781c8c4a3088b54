//! The shard's half of a cold call: carries frames between an HTTP/2 stream and the channels.

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

use super::super::active_calls::CallResponder;
use super::super::response;
use super::super::status::{Code, Status, reason};
use super::{CallChannels, RequestFrame, ResponseFrame, TonicBridge};
use inventory_core::time::Micros;

/// The cold calls of one connection. They are few, so each is boxed.
pub(in super::super) struct BridgedCalls {
    relays: FuturesUnordered<FrameRelay>,
    cancel_all: Rc<Cell<bool>>,
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
    pub(in super::super) fn new() -> Self {
        Self {
            relays: FuturesUnordered::new(),
            cancel_all: Rc::default(),
        }
    }

    pub(in super::super) fn start(
        &mut self,
        call: CallResponder,
        head: Parts,
        body: RecvStream,
        timeout: Option<Micros>,
        cx: &mut Context<'_>,
    ) {
        let timeout = timeout.map(|span| Duration::from_micros(span.0));
        let cut = Rc::clone(&self.cancel_all);
        let work = Box::pin(relay(call, head, body, timeout, cut));
        self.relays.push(FrameRelay { work, waker: None });
        self.poll(cx);
    }

    pub(in super::super) fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(())) = self.relays.poll_next_unpin(cx) {}
    }

    /// Ends every call, those that come later too: the connection is leaving.
    pub(in super::super) fn cut(&mut self) {
        self.cancel_all.set(true);
        for pipe in self.relays.iter_mut() {
            if let Some(waker) = &pipe.waker {
                waker.wake_by_ref();
            }
        }
    }
}

async fn relay(
    call: CallResponder,
    head: Parts,
    body: RecvStream,
    timeout: Option<Duration>,
    cut: Rc<Cell<bool>>,
) {
    let mut call = CallReport::new(call);
    let Some(gate) = call.head.context.bridge.clone() else {
        return;
    };
    call.code = exchange(&gate, &mut call.head, head, body, timeout, &cut).await;
}

/// Reports the call's start and its end, however it ends.
struct CallReport {
    head: CallResponder,
    code: Code,
}

impl CallReport {
    fn new(head: CallResponder) -> Self {
        head.context.observer.call_started(head.method);
        Self {
            head,
            code: Code::Cancelled,
        }
    }
}

impl Drop for CallReport {
    fn drop(&mut self) {
        self.head.report_finished(self.code);
    }
}

async fn exchange(
    gate: &TonicBridge,
    call: &mut CallResponder,
    head: Parts,
    body: RecvStream,
    timeout: Option<Duration>,
    cut: &Cell<bool>,
) -> Code {
    let CallChannels {
        request_frames: upload,
        response_frames: download,
    } = match gate.open(head, timeout) {
        Ok(lines) => lines,
        Err(status) => {
            response::send_status(&mut call.stream, &status);
            return status.code();
        }
    };
    // The answer decides when the call ends; the upload only feeds it.
    let feeding = async {
        relay_request(body, upload).await;
        pending::<Infallible>().await
    };
    match select(pin!(relay_response(call, download, cut)), pin!(feeding)).await {
        Either::Left((code, _)) => code,
        Either::Right((never, _)) => match never {},
    }
}

/// Carries the request's frames. A request that breaks off leaves the channel without its end.
async fn relay_request(mut body: RecvStream, upload: mpsc::Sender<RequestFrame>) {
    while let Some(chunk) = poll_fn(|cx| body.poll_data(cx)).await {
        let Ok(chunk) = chunk else { return };
        let read = chunk.len();
        // The window opens again only when the side thread has room: that is the back-pressure.
        if upload.send(RequestFrame::Data(chunk)).await.is_err() {
            return;
        }
        if body.flow_control().release_capacity(read).is_err() {
            return;
        }
    }
    let _ = upload.send(RequestFrame::End).await;
}

enum RelayEvent {
    Frame(ResponseFrame),
    /// The client reset the stream or is gone.
    CallerGone,
    /// The connection is leaving.
    Cancelled,
    /// The service ended without an end.
    ServiceFailed,
}

async fn next_event(
    download: &mut mpsc::Receiver<ResponseFrame>,
    cut: &Cell<bool>,
    mut gone: impl FnMut(&mut Context<'_>) -> bool,
) -> RelayEvent {
    poll_fn(|cx| {
        if gone(cx) {
            return Poll::Ready(RelayEvent::CallerGone);
        }
        if cut.get() {
            return Poll::Ready(RelayEvent::Cancelled);
        }
        download
            .poll_recv(cx)
            .map(|item| item.map_or(RelayEvent::ServiceFailed, RelayEvent::Frame))
    })
    .await
}

/// Carries the response's frames; ends with the code that the client saw.
async fn relay_response(
    call: &mut CallResponder,
    mut download: mpsc::Receiver<ResponseFrame>,
    cut: &Cell<bool>,
) -> Code {
    let respond = &mut call.stream;
    let first = next_event(&mut download, cut, |cx| respond.poll_reset(cx).is_ready()).await;
    let (head, last) = match first {
        RelayEvent::Frame(ResponseFrame::Head { head, last }) => (head, last),
        RelayEvent::CallerGone => return Code::Cancelled,
        RelayEvent::Cancelled => {
            response::send_status(respond, &shutting_down());
            return shutting_down().code();
        }
        RelayEvent::ServiceFailed | RelayEvent::Frame(_) => {
            response::send_status(respond, &service_failed());
            return service_failed().code();
        }
    };
    let seen = grpc_code(&head.headers);
    let Ok(mut stream) = respond.send_response(Response::from_parts(*head, ()), last) else {
        return Code::Cancelled;
    };
    if last {
        return seen;
    }
    loop {
        let status =
            match next_event(&mut download, cut, |cx| stream.poll_reset(cx).is_ready()).await {
                RelayEvent::Frame(ResponseFrame::Data(data)) => {
                    match send(&mut stream, data, cut).await {
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
                    return seen;
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

/// Sends within the client's window.
async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, cut: &Cell<bool>) -> SendOutcome {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|cx| {
            if cut.get() {
                return Poll::Ready(Err(SendOutcome::Cancelled));
            }
            stream
                .poll_capacity(cx)
                .map(|room| room.and_then(Result::ok).ok_or(SendOutcome::CallerGone))
        })
        .await;
        let room = match room {
            Ok(room) => room.min(data.len()),
            Err(ended) => return ended,
        };
        if room > 0 && stream.send_data(data.split_to(room), false).is_err() {
            return SendOutcome::CallerGone;
        }
    }
    SendOutcome::All
}

fn shutting_down() -> Status {
    Status::new(
        Code::Unavailable,
        reason::SHUTTING_DOWN,
        "this connection is leaving; call again on another one",
    )
}

fn service_failed() -> Status {
    Status::internal(
        reason::PANIC,
        "the service failed while it handled this call",
    )
}

/// The code that a client reads from these headers.
fn grpc_code(headers: &HeaderMap) -> Code {
    headers
        .get(tonic::Status::GRPC_STATUS)
        .map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}
