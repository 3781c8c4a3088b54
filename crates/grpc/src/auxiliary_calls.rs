//! The auxiliary calls of one connection: health, and the calls that the bridge carries to the control plane.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use h2::SendStream;

use super::active_calls::CallResponder;
use super::status::{Code, Status, reason};

/// The auxiliary calls of one connection. They are few or idle, so each is boxed.
pub(super) struct AuxiliaryCalls {
    calls: FuturesUnordered<AuxiliaryCall>,
    cancelled: Rc<Cell<bool>>,
}

struct AuxiliaryCall {
    work: LocalBoxFuture<'static, ()>,
    waker: Option<Waker>,
}

impl Future for AuxiliaryCall {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = self.work.as_mut().poll(cx);
        if polled.is_pending() && self.waker.is_none() {
            self.waker = Some(cx.waker().clone());
        }
        polled
    }
}

impl AuxiliaryCalls {
    pub(super) fn new() -> Self {
        Self { calls: FuturesUnordered::new(), cancelled: Rc::default() }
    }

    /// Starts a call. `run` answers through the responder and returns the code that the client receives; it
    /// must end when the flag is set.
    pub(super) fn start(
        &mut self,
        responder: CallResponder,
        run: impl AsyncFnOnce(&mut CallResponder, &Cell<bool>) -> Code + 'static,
        cx: &mut Context<'_>,
    ) {
        let cancelled = Rc::clone(&self.cancelled);
        let work = Box::pin(async move {
            let mut report = CallReport::new(responder);
            report.code = run(&mut report.responder, &cancelled).await;
        });
        self.calls.push(AuxiliaryCall { work, waker: None });
        self.poll(cx);
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(())) = self.calls.poll_next_unpin(cx) {}
    }

    /// Ends all calls of the connection, later ones included: the connection is draining.
    pub(super) fn cancel_all(&mut self) {
        self.cancelled.set(true);
        for call in self.calls.iter_mut() {
            if let Some(waker) = &call.waker {
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

/// One call that a counter includes; dropping it takes it off the counter.
pub(super) struct CallCountGuard(Rc<Cell<usize>>);

impl CallCountGuard {
    pub(super) fn take(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for CallCountGuard {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

pub(super) enum SendOutcome {
    All,
    CallerGone,
    Cancelled,
}

/// Sends `data` within the client's window.
pub(super) async fn send_data(
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

pub(super) fn shutting_down() -> Status {
    Status::new(
        Code::Unavailable,
        reason::SHUTTING_DOWN,
        "this connection is shutting down; retry on another connection",
    )
}
