//! The calls of one connection that are under way.
//!
//! A call is polled once as soon as its headers are read. Most answer there and then, from memory;
//! only a call that has to wait joins the set. Deadlines cost a call one comparison: the connection
//! has one alarm for all of them, and looks through the set when it rings.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use h2::server::SendResponse;

use super::context::WireContext;
use super::note::Note;
use super::respond;
use super::status::{Code, Status, reason};
use crate::limits::CALL_SLOTS_SPARE_MAX;
use inventory_core::time::Micros;
use inventory_runtime::clock;

/// Memory for one call's future. Calls come and go, the memory stays: see [`Calls::spare`].
type Slot<F> = Pin<Box<Option<F>>>;

/// All calls of a connection. `F` reads the request, runs the handler and encodes the reply.
pub(super) struct Calls<F> {
    waiting: FuturesUnordered<ActiveCall<F>>,
    spare: Vec<Slot<F>>,
    earliest: Option<Micros>,
}

/// What is known of a call beside its future.
pub(super) struct CallHead {
    pub(super) respond: SendResponse<Bytes>,
    pub(super) method: &'static str,
    pub(super) arrived: Micros,
    pub(super) deadline: Micros,
    pub(super) context: Rc<WireContext>,
    pub(super) note: Option<Rc<Note>>,
}

impl<F: Future<Output = Result<Bytes, Status>>> Calls<F> {
    pub(super) fn new() -> Self {
        Self {
            waiting: FuturesUnordered::new(),
            spare: Vec::new(),
            earliest: None,
        }
    }

    /// Starts a call; if it does not answer at once, it waits in the set.
    pub(super) fn start(&mut self, head: CallHead, future: F, cx: &mut Context<'_>) {
        head.context.observer.call_started(head.method);
        let mut slot = self.spare.pop().unwrap_or_else(|| Box::pin(None));
        slot.as_mut().set(Some(future));
        let deadline = head.deadline;
        let mut call = ActiveCall {
            head,
            slot: Some(slot),
            answered: false,
            expired: false,
            waker: None,
        };
        match call.advance(cx) {
            Poll::Ready(()) => {
                let slot = call.slot.take();
                self.keep(slot);
            }
            Poll::Pending => {
                self.earliest = Some(self.earliest.map_or(deadline, |at| at.min(deadline)));
                self.waiting.push(call);
            }
        }
    }

    /// Advances the calls that were woken.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(slot)) = self.waiting.poll_next_unpin(cx) {
            self.keep(slot);
        }
    }

    /// Has every call whose deadline has come answered in the next [`Calls::poll`]. Its handler is
    /// asked once more then.
    pub(super) fn expire(&mut self, now: Micros) {
        if self.earliest.is_none_or(|at| now < at) {
            return;
        }
        let mut earliest: Option<Micros> = None;
        for call in self.waiting.iter_mut() {
            let deadline = call.head.deadline;
            if deadline <= now {
                call.expired = true;
                if let Some(waker) = &call.waker {
                    waker.wake_by_ref();
                }
            } else {
                earliest = Some(earliest.map_or(deadline, |at| at.min(deadline)));
            }
        }
        self.earliest = earliest;
    }

    /// When [`Calls::expire`] may have something to do; never too late, sometimes too early.
    pub(super) fn earliest_deadline(&self) -> Option<Micros> {
        if self.waiting.is_empty() {
            return None;
        }
        self.earliest
    }

    fn keep(&mut self, slot: Option<Slot<F>>) {
        if let Some(slot) = slot
            && self.spare.len() < CALL_SLOTS_SPARE_MAX
        {
            self.spare.push(slot);
        }
    }
}

struct ActiveCall<F> {
    head: CallHead,
    /// `None` once the memory is given back.
    slot: Option<Slot<F>>,
    answered: bool,
    expired: bool,
    /// This call's waker in the set, for when it expires.
    waker: Option<Waker>,
}

impl<F: Future<Output = Result<Bytes, Status>>> ActiveCall<F> {
    /// Polls the handler; ready when the call is answered. A panic is the call's, not the shard's.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let future = self.slot.as_mut().map(Pin::as_mut);
        let Some(mut future) = future.and_then(Option::as_pin_mut) else {
            return Poll::Ready(());
        };
        let outcome = match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            // The handler was asked once more, for it knows whom the call is about.
            Ok(Poll::Pending) if self.expired => Err(deadline_exceeded()),
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => outcome,
            Err(_) => Err(Status::internal(
                reason::PANIC,
                "the server failed while it handled this call; other calls are not affected",
            )),
        };
        self.answer(outcome);
        Poll::Ready(())
    }

    fn answer(&mut self, outcome: Result<Bytes, Status>) {
        let code = match outcome {
            Ok(message) => {
                respond::send_reply(&mut self.head.respond, message);
                Code::Ok
            }
            Err(status) => {
                respond::send_status(&mut self.head.respond, &status);
                status.code()
            }
        };
        self.finish(code);
    }

    /// Drops the handler and reports the call's end.
    fn finish(&mut self, code: Code) {
        self.answered = true;
        if let Some(slot) = &mut self.slot {
            slot.as_mut().set(None);
        }
        self.head.report(code);
    }
}

impl<F: Future<Output = Result<Bytes, Status>>> Future for ActiveCall<F> {
    type Output = Option<Slot<F>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.advance(cx).is_ready() {
            return Poll::Ready(self.slot.take());
        }
        // The caller reset the stream: nobody waits for the handler any more.
        if self.head.respond.poll_reset(cx).is_ready() {
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
            self.head.report(Code::Cancelled);
        }
    }
}

impl CallHead {
    pub(super) fn report(&self, code: Code) {
        let latency = clock::monotonic().since(self.arrived);
        self.context
            .observer
            .call_finished(self.method, code, latency);
        if let Some(note) = &self.note {
            self.context
                .observer
                .call_noted(self.method, code, latency, note);
        }
    }
}

pub(super) fn deadline_exceeded() -> Status {
    Status::new(
        Code::DeadlineExceeded,
        reason::DEADLINE_EXCEEDED,
        "the deadline of the call passed before its answer was there",
    )
}
