//! The side thread's half of a cold call: a task that runs the tonic service and feeds the channels.

use std::convert::Infallible;
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
use tonic::service::Routes;
use tower::ServiceExt;

use super::super::active_calls::deadline_exceeded;
use super::super::status::Status;
use super::{BridgeReceiver, BridgedCall, RequestFrame, ResponseFrame};

/// Runs cold calls on the current tokio runtime until every gate is dropped; then waits for those
/// under way. Dropping the future ends them. A service that panics fails its own call only.
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

/// Runs one call until it has answered, or until the shard drops its end because the client is gone.
async fn run(call: BridgedCall, routes: Routes) {
    let BridgedCall {
        head,
        request_frames: upload,
        response_frames: download,
        timeout,
        _permit,
    } = call;
    let body = BridgedBody {
        frames: upload,
        ended: false,
    };
    let request = Request::from_parts(head, body);
    let answer = send_response(request, &download, timeout, routes);
    tokio::select! {
        biased;
        () = download.closed() => {}
        () = answer => {}
    }
}

async fn send_response(
    request: Request<BridgedBody>,
    download: &mpsc::Sender<ResponseFrame>,
    timeout: Option<Duration>,
    routes: Routes,
) {
    let expiry = timeout.map(|span| Instant::now() + span);
    let Some(response) = until_deadline(expiry, routes.oneshot(request)).await else {
        let _ = download.send(status_alone(&deadline_exceeded())).await;
        return;
    };
    let (head, mut body) = response
        .unwrap_or_else(|never: Infallible| match never {})
        .into_parts();
    let last = http_body::Body::is_end_stream(&body);
    let head = ResponseFrame::Head {
        head: Box::new(head),
        last,
    };
    if download.send(head).await.is_err() || last {
        return;
    }
    loop {
        let next = match until_deadline(expiry, body.frame()).await {
            None => ResponseFrame::Trailers(trailers(&deadline_exceeded())),
            Some(None) => ResponseFrame::End,
            Some(Some(Err(status))) => ResponseFrame::Trailers(foreign_trailers(&status)),
            Some(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => ResponseFrame::Data(data),
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => ResponseFrame::Trailers(trailers),
                    Err(_) => continue,
                },
            },
        };
        let ends = !matches!(next, ResponseFrame::Data(_));
        if download.send(next).await.is_err() || ends {
            return;
        }
    }
}

/// `None` when the deadline comes first.
async fn until_deadline<T>(expiry: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match expiry {
        Some(expiry) => timeout_at(expiry, work).await.ok(),
        None => Some(work.await),
    }
}

fn status_alone(status: &Status) -> ResponseFrame {
    let mut head = Response::new(()).into_parts().0;
    head.headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/grpc"),
    );
    status.write_to(&mut head.headers);
    ResponseFrame::Head {
        head: Box::new(head),
        last: true,
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    status.write_to(&mut trailers);
    trailers
}

fn foreign_trailers(status: &tonic::Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(tonic::Status::GRPC_STATUS, (status.code() as i32).into());
    }
    trailers
}

/// The request's body as tonic reads it.
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
                let broken = tonic::Status::cancelled("the client broke the call off");
                Poll::Ready(Some(Err(broken)))
            }
        }
    }
}
