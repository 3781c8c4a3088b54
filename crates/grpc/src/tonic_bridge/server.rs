//! The control plane's half of a bridged call: a task that runs the tonic service and feeds the channels.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tonic::codegen::Service;
use tonic::service::Routes;

use super::channel::{BridgeReceiver, BridgedCall, RequestFrame, ResponseFrame};
use crate::status::Status;

/// Runs bridged calls on the current tokio runtime until every [`TonicBridge`](super::TonicBridge) is dropped,
/// then waits for the calls in flight. Dropping the future ends the calls. A service that panics fails only
/// its own call.
pub async fn serve(mut receiver: BridgeReceiver, routes: Routes) {
    let routes = routes.prepare();
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            call = receiver.0.recv() => match call {
                Some(call) => {
                    calls.spawn(run(call, routes.clone()));
                }
                None => break,
            },
            Some(_) = calls.join_next() => {}
        }
    }
    while calls.join_next().await.is_some() {}
}

/// Runs one call until the response is complete, or until the shard drops its end because the client
/// disconnected.
async fn run(call: BridgedCall, routes: Routes) {
    let BridgedCall { head, request_frames, response_frames, timeout, permit: _permit } = call;
    let body = BridgedBody { frames: request_frames, ended: false };
    let request = Request::from_parts(head, body);
    let response = send_response(request, &response_frames, timeout, routes);
    tokio::select! {
        biased;
        () = response_frames.closed() => {}
        () = response => {}
    }
}

async fn send_response(
    request: Request<BridgedBody>,
    frames: &mpsc::Sender<ResponseFrame>,
    timeout: Duration,
    routes: Routes,
) {
    let deadline = Instant::now() + timeout;
    let Some(response) = until_deadline(deadline, call_routes(routes, request)).await else {
        let _ = frames.send(trailers_only(&Status::deadline_exceeded())).await;
        return;
    };
    let (head, mut body) = response.into_parts();
    let last = http_body::Body::is_end_stream(&body);
    let head = ResponseFrame::Head { head: Box::new(head), last };
    if frames.send(head).await.is_err() || last {
        return;
    }
    loop {
        let frame = match until_deadline(deadline, body.frame()).await {
            None => ResponseFrame::Trailers(trailers(&Status::deadline_exceeded())),
            Some(None) => ResponseFrame::End,
            Some(Some(Err(status))) => ResponseFrame::Trailers(tonic_trailers(&status)),
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => ResponseFrame::Data(data),
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => ResponseFrame::Trailers(trailers),
                    Err(_) => continue,
                },
            },
        };
        let ends = !matches!(frame, ResponseFrame::Data(_));
        if frames.send(frame).await.is_err() || ends {
            return;
        }
    }
}

async fn call_routes(
    mut routes: Routes,
    request: Request<BridgedBody>,
) -> Response<tonic::body::Body> {
    let ready = poll_fn(|cx| Service::<Request<BridgedBody>>::poll_ready(&mut routes, cx)).await;
    let response = match ready {
        Ok(()) => routes.call(request).await,
        Err(never) => Err(never),
    };
    response.unwrap_or_else(|never: Infallible| match never {})
}

/// `None` if the deadline passes first.
async fn until_deadline<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    timeout_at(deadline, work).await.ok()
}

fn trailers_only(status: &Status) -> ResponseFrame {
    let mut head = Response::new(()).into_parts().0;
    head.headers
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
    status.write_to(&mut head.headers);
    ResponseFrame::Head { head: Box::new(head), last: true }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    status.write_to(&mut trailers);
    trailers
}

fn tonic_trailers(status: &tonic::Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(tonic::Status::GRPC_STATUS, (status.code() as i32).into());
    }
    trailers
}

/// The body of the request as tonic reads it.
struct BridgedBody {
    frames: mpsc::Receiver<RequestFrame>,
    ended: bool,
}

impl http_body::Body for BridgedBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        match self.frames.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(RequestFrame::Data(data))) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Poll::Ready(Some(RequestFrame::End)) => {
                self.ended = true;
                Poll::Ready(None)
            }
            Poll::Ready(None) => {
                self.ended = true;
                let broken = tonic::Status::cancelled("the client reset the request");
                Poll::Ready(Some(Err(broken)))
            }
        }
    }
}
