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

use super::super::calls::CallHead;
use super::super::respond;
use super::super::status::{Code, Status, reason};
use super::{ColdGate, Download, Lines, Upload};
use inventory_core::time::Micros;

/// The cold calls of one connection. They are few, so each is boxed.
pub(in super::super) struct ColdPipes {
    pipes: FuturesUnordered<Pipe>,
    cut: Rc<Cell<bool>>,
}

struct Pipe {
    work: LocalBoxFuture<'static, ()>,
    waker: Option<Waker>,
}

impl Future for Pipe {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.work.as_mut().poll(cx);
        if polled.is_pending() && self.waker.is_none() {
            self.waker = Some(cx.waker().clone());
        }
        polled
    }
}

impl ColdPipes {
    pub(in super::super) fn new() -> Self {
        Self {
            pipes: FuturesUnordered::new(),
            cut: Rc::default(),
        }
    }

    pub(in super::super) fn start(
        &mut self,
        call: CallHead,
        head: Parts,
        body: RecvStream,
        timeout: Option<Micros>,
        cx: &mut Context<'_>,
    ) {
        let timeout = timeout.map(|span| Duration::from_micros(span.0));
        let cut = Rc::clone(&self.cut);
        let work = Box::pin(carry(call, head, body, timeout, cut));
        self.pipes.push(Pipe { work, waker: None });
        self.poll(cx);
    }

    pub(in super::super) fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(())) = self.pipes.poll_next_unpin(cx) {}
    }

    /// Ends every call, those that come later too: the connection is leaving.
    pub(in super::super) fn cut(&mut self) {
        self.cut.set(true);
        for pipe in self.pipes.iter_mut() {
            if let Some(waker) = &pipe.waker {
                waker.wake_by_ref();
            }
        }
    }
}

async fn carry(
    call: CallHead,
    head: Parts,
    body: RecvStream,
    timeout: Option<Duration>,
    cut: Rc<Cell<bool>>,
) {
    let mut call = Reported::new(call);
    let Some(gate) = call.head.context.cold.clone() else {
        return;
    };
    call.code = exchange(&gate, &mut call.head, head, body, timeout, &cut).await;
}

/// Reports the call's start and its end, however it ends.
struct Reported {
    head: CallHead,
    code: Code,
}

impl Reported {
    fn new(head: CallHead) -> Self {
        head.context.observer.call_started(head.method);
        Self {
            head,
            code: Code::Cancelled,
        }
    }
}

impl Drop for Reported {
    fn drop(&mut self) {
        self.head.report(self.code);
    }
}

async fn exchange(
    gate: &ColdGate,
    call: &mut CallHead,
    head: Parts,
    body: RecvStream,
    timeout: Option<Duration>,
    cut: &Cell<bool>,
) -> Code {
    let Lines { upload, download } = match gate.open(head, timeout) {
        Ok(lines) => lines,
        Err(status) => {
            respond::send_status(&mut call.respond, &status);
            return status.code();
        }
    };
    // The answer decides when the call ends; the upload only feeds it.
    let feeding = async {
        feed(body, upload).await;
        pending::<Infallible>().await
    };
    match select(pin!(answer(call, download, cut)), pin!(feeding)).await {
        Either::Left((code, _)) => code,
        Either::Right((never, _)) => match never {},
    }
}

/// Carries the request's frames. A request that breaks off leaves the channel without its end.
async fn feed(mut body: RecvStream, upload: mpsc::Sender<Upload>) {
    while let Some(chunk) = poll_fn(|cx| body.poll_data(cx)).await {
        let Ok(chunk) = chunk else { return };
        let read = chunk.len();
        // The window opens again only when the side thread has room: that is the back-pressure.
        if upload.send(Upload::Data(chunk)).await.is_err() {
            return;
        }
        if body.flow_control().release_capacity(read).is_err() {
            return;
        }
    }
    let _ = upload.send(Upload::End).await;
}

enum Next {
    Item(Download),
    /// The client reset the stream or is gone.
    Gone,
    /// The connection is leaving.
    Cut,
    /// The service ended without an end.
    Failed,
}

async fn next(
    download: &mut mpsc::Receiver<Download>,
    cut: &Cell<bool>,
    mut gone: impl FnMut(&mut Context<'_>) -> bool,
) -> Next {
    poll_fn(|cx| {
        if gone(cx) {
            return Poll::Ready(Next::Gone);
        }
        if cut.get() {
            return Poll::Ready(Next::Cut);
        }
        download
            .poll_recv(cx)
            .map(|item| item.map_or(Next::Failed, Next::Item))
    })
    .await
}

/// Carries the response's frames; ends with the code that the client saw.
async fn answer(
    call: &mut CallHead,
    mut download: mpsc::Receiver<Download>,
    cut: &Cell<bool>,
) -> Code {
    let respond = &mut call.respond;
    let first = next(&mut download, cut, |cx| respond.poll_reset(cx).is_ready()).await;
    let (head, last) = match first {
        Next::Item(Download::Head { head, last }) => (head, last),
        Next::Gone => return Code::Cancelled,
        Next::Cut => {
            respond::send_status(respond, &leaving());
            return leaving().code();
        }
        Next::Failed | Next::Item(_) => {
            respond::send_status(respond, &failed());
            return failed().code();
        }
    };
    let seen = code_in(&head.headers);
    let Ok(mut stream) = respond.send_response(Response::from_parts(*head, ()), last) else {
        return Code::Cancelled;
    };
    if last {
        return seen;
    }
    loop {
        let status = match next(&mut download, cut, |cx| stream.poll_reset(cx).is_ready()).await {
            Next::Item(Download::Data(data)) => match send(&mut stream, data, cut).await {
                Sent::All => continue,
                Sent::Gone => return Code::Cancelled,
                Sent::Cut => leaving(),
            },
            Next::Item(Download::Trailers(trailers)) => {
                let code = code_in(&trailers);
                let _ = stream.send_trailers(trailers);
                return code;
            }
            Next::Item(Download::End) => {
                let _ = stream.send_data(Bytes::new(), true);
                return seen;
            }
            Next::Gone => return Code::Cancelled,
            Next::Cut => leaving(),
            Next::Failed | Next::Item(Download::Head { .. }) => failed(),
        };
        let mut trailers = HeaderMap::new();
        status.write_to(&mut trailers);
        let _ = stream.send_trailers(trailers);
        return status.code();
    }
}

enum Sent {
    All,
    Gone,
    Cut,
}

/// Sends within the client's window.
async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, cut: &Cell<bool>) -> Sent {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|cx| {
            if cut.get() {
                return Poll::Ready(Err(Sent::Cut));
            }
            stream
                .poll_capacity(cx)
                .map(|room| room.and_then(Result::ok).ok_or(Sent::Gone))
        })
        .await;
        let room = match room {
            Ok(room) => room.min(data.len()),
            Err(ended) => return ended,
        };
        if room > 0 && stream.send_data(data.split_to(room), false).is_err() {
            return Sent::Gone;
        }
    }
    Sent::All
}

fn leaving() -> Status {
    Status::new(
        Code::Unavailable,
        reason::SHUTTING_DOWN,
        "this connection is leaving; call again on another one",
    )
}

fn failed() -> Status {
    Status::internal(
        reason::PANIC,
        "the service failed while it handled this call",
    )
}

/// The code that a client reads from these headers.
fn code_in(headers: &HeaderMap) -> Code {
    headers
        .get(tonic::Status::GRPC_STATUS)
        .map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}
