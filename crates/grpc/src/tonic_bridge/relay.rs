//! The shard's half of a bridged call: carries frames between an HTTP/2 stream and the bridge's channels.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use h2::RecvStream;
use http::request::Parts;
use http::{HeaderMap, Response};
use tokio::sync::mpsc;

use super::channel::{CallChannels, RequestFrame, ResponseFrame, TonicBridge};
use crate::active_calls::CallResponder;
use crate::auxiliary_calls::{SendOutcome, send_data, shutting_down};
use crate::limits::{BRIDGED_CALLS_PER_CONNECTION_MAX, RETRY_AFTER};
use crate::response;
use crate::status::{Code, Status, reason};

/// Carries one call; returns the code that the client receives.
pub(crate) async fn exchange(
    bridge: &TonicBridge,
    call: &mut CallResponder,
    head: Parts,
    body: RecvStream,
    timeout: Duration,
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

/// The rejection of one call more than a connection may have.
pub(crate) fn too_many_calls() -> Status {
    Status::new(
        Code::ResourceExhausted,
        reason::AUXILIARY_CALLS_EXCEEDED,
        format!("this connection already has {BRIDGED_CALLS_PER_CONNECTION_MAX} reflection calls"),
    )
    .with_retry_after(RETRY_AFTER)
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
