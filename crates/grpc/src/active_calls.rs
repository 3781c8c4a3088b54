//! The calls of one connection that are in flight.
//!
//! A call is polled once as soon as its headers are read. Most calls complete in that poll, from memory;
//! only a call that has to wait joins the set. A deadline costs a call one comparison: the connection has
//! one timer for all deadlines and scans the set when the timer fires.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use h2::server::SendResponse;

use super::call_trace::CallTrace;
use super::observer::CallObserver;
use super::response;
use super::status::{Code, Status, reason};
use crate::limits::CALL_SLOTS_SPARE_MAX;
use inventory_core::time::Micros;
use inventory_runtime::clock;

/// Memory for one call's future, reused by later calls: see [`ActiveCalls::spare_slots`].
type FutureSlot<F> = Pin<Box<Option<F>>>;

/// All calls of a connection. `F` reads the request, runs the handler and encodes the response.
pub(super) struct ActiveCalls<F> {
    waiting: FuturesUnordered<ActiveCall<F>>,
    spare_slots: Vec<FutureSlot<F>>,
    earliest_deadline: Option<Micros>,
}

/// The HTTP/2 stream of a call's response, and the data that the call's end is reported with.
pub(super) struct CallResponder {
    pub(super) stream: SendResponse<Bytes>,
    pub(super) method: &'static str,
    pub(super) arrived: Micros,
    pub(super) deadline: Micros,
    pub(super) observer: Rc<dyn CallObserver>,
    pub(super) trace: Option<Rc<CallTrace>>,
}

impl<F: Future<Output = Result<Bytes, Status>>> ActiveCalls<F> {
    pub(super) fn new() -> Self {
        Self { waiting: FuturesUnordered::new(), spare_slots: Vec::new(), earliest_deadline: None }
    }

    /// Starts a call. If the call does not complete in its first poll, it joins the set.
    pub(super) fn start(&mut self, responder: CallResponder, future: F, cx: &mut Context<'_>) {
        responder.observer.call_started(responder.method);
        let mut slot = self.spare_slots.pop().unwrap_or_else(|| Box::pin(None));
        slot.as_mut().set(Some(future));
        let deadline = responder.deadline;
        let mut call = ActiveCall {
            responder,
            slot: Some(slot),
            answered: false,
            expired: false,
            waker: None,
        };
        match call.poll_handler(cx) {
            Poll::Ready(()) => {
                let slot = call.slot.take();
                self.recycle(slot);
            }
            Poll::Pending => {
                self.earliest_deadline =
                    Some(self.earliest_deadline.map_or(deadline, |at| at.min(deadline)));
                self.waiting.push(call);
            }
        }
    }

    /// Polls the calls that were woken.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(slot)) = self.waiting.poll_next_unpin(cx) {
            self.recycle(slot);
        }
    }

    /// Marks every call whose deadline has passed and wakes it: the next [`ActiveCalls::poll`] polls its
    /// handler once more and answers the call.
    pub(super) fn expire(&mut self, now: Micros) {
        if self.earliest_deadline.is_none_or(|at| now < at) {
            return;
        }
        let mut earliest: Option<Micros> = None;
        for call in self.waiting.iter_mut() {
            let deadline = call.responder.deadline;
            if deadline <= now {
                call.expired = true;
                if let Some(waker) = &call.waker {
                    waker.wake_by_ref();
                }
            } else {
                earliest = Some(earliest.map_or(deadline, |at| at.min(deadline)));
            }
        }
        self.earliest_deadline = earliest;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When [`ActiveCalls::expire`] may have a call to mark; never too late, sometimes too early.
    pub(super) fn earliest_deadline(&self) -> Option<Micros> {
        if self.waiting.is_empty() {
            return None;
        }
        self.earliest_deadline
    }

    fn recycle(&mut self, slot: Option<FutureSlot<F>>) {
        if let Some(slot) = slot
            && self.spare_slots.len() < CALL_SLOTS_SPARE_MAX
        {
            self.spare_slots.push(slot);
        }
    }
}

struct ActiveCall<F> {
    responder: CallResponder,
    /// `None` after the slot is recycled.
    slot: Option<FutureSlot<F>>,
    answered: bool,
    expired: bool,
    /// This call's waker in the set, used when its deadline passes.
    waker: Option<Waker>,
}

impl<F: Future<Output = Result<Bytes, Status>>> ActiveCall<F> {
    /// Polls the handler; ready when the call is answered. A panic fails the call, not the shard.
    fn poll_handler(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let future = self.slot.as_mut().map(Pin::as_mut);
        let Some(mut future) = future.and_then(Option::as_pin_mut) else {
            return Poll::Ready(());
        };
        let outcome = match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            // The handler had its last poll: it can name the event and reservation in its own status.
            Ok(Poll::Pending) if self.expired => Err(Status::deadline_exceeded()),
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => outcome,
            Err(_) => Err(Status::internal(
                reason::PANIC,
                "the handler of this call panicked; other calls are not affected",
            )),
        };
        self.respond(outcome);
        Poll::Ready(())
    }

    fn respond(&mut self, outcome: Result<Bytes, Status>) {
        let code = match outcome {
            Ok(message) => {
                response::send_response(&mut self.responder.stream, message);
                Code::Ok
            }
            Err(status) => {
                response::send_status(&mut self.responder.stream, &status);
                status.code()
            }
        };
        self.finish(code);
    }

    /// Drops the handler and reports the end of the call.
    fn finish(&mut self, code: Code) {
        self.answered = true;
        if let Some(slot) = &mut self.slot {
            slot.as_mut().set(None);
        }
        self.responder.report_finished(code);
    }
}

impl<F: Future<Output = Result<Bytes, Status>>> Future for ActiveCall<F> {
    type Output = Option<FutureSlot<F>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.poll_handler(cx).is_ready() {
            return Poll::Ready(self.slot.take());
        }
        // The caller reset the stream: the response has no receiver.
        if self.responder.stream.poll_reset(cx).is_ready() {
            self.finish(Code::Cancelled);
            return Poll::Ready(self.slot.take());
        }
        if self.waker.is_none() {
            self.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl<F> Drop for ActiveCall<F> {
    fn drop(&mut self) {
        if !self.answered {
            self.responder.report_finished(Code::Cancelled);
        }
    }
}

impl CallResponder {
    pub(super) fn report_finished(&self, code: Code) {
        let latency = clock::monotonic().since(self.arrived);
        self.observer.call_finished(self.method, code, latency);
        if let Some(trace) = &self.trace {
            self.observer.call_traced(self.method, code, latency, trace);
        }
    }
}
