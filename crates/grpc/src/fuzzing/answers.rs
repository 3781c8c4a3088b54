//! The service of the target, which answers as the request says, and an observer that counts calls.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::Poll;

use inventory_proto::inventory::v1::{
    CheckReq, CheckRes, CommitReq, CommitRes, GetReservationReq, GetReservationRes, PlaceHoldReq,
    PlaceHoldRes, ReleaseReq, ReleaseRes,
};

use crate::{CallContext, CallObserver, Code, ConnectionEnd, Inventory, Status};
use inventory_core::time::Micros;

/// Bytes of a large answer: more than a frame and than the initial window of a stream.
const LARGE_ANSWER_BYTES: usize = 80 * 1024;

/// Calls and connections so far.
#[derive(Default)]
pub(super) struct ServedCalls {
    started: Cell<u32>,
    finished: Cell<u32>,
    running: Cell<u32>,
    /// The most handlers that ran at the same time.
    running_max: Cell<u32>,
    /// Payload of the answers.
    answer_bytes: Cell<usize>,
    ends: Cell<u32>,
}

impl ServedCalls {
    pub(super) fn running_max(&self) -> u32 {
        self.running_max.get()
    }

    pub(super) fn answer_bytes(&self) -> usize {
        self.answer_bytes.get()
    }

    /// # Panics
    /// Unless each call has ended exactly once, and the connection too.
    pub(super) fn assert_complete(&self) {
        assert_eq!(self.started.get(), self.finished.get(), "calls started and finished");
        assert_eq!(self.running.get(), 0, "handlers outlive their connection");
        assert_eq!(self.ends.get(), 1, "ends of one connection");
    }
}

fn add(count: &Cell<u32>) {
    count.set(count.get() + 1);
}

pub(super) struct CountingObserver(pub(super) Rc<ServedCalls>);

impl CallObserver for CountingObserver {
    fn call_started(&self, _: &'static str) {
        add(&self.0.started);
    }

    fn call_finished(&self, _: &'static str, _: Code, _: Micros) {
        add(&self.0.finished);
        assert!(self.0.finished.get() <= self.0.started.get(), "a call that never started ended");
    }

    fn connection_closed(&self, _: ConnectionEnd) {
        add(&self.0.ends);
    }
}

/// Answers a check as the first letter of its event says, other calls at once.
pub(super) struct ObedientService(pub(super) Rc<ServedCalls>);

/// A handler that runs.
struct RunningHandler<'a>(&'a ServedCalls);

impl<'a> RunningHandler<'a> {
    fn new(calls: &'a ServedCalls) -> Self {
        add(&calls.running);
        calls.running_max.set(calls.running_max.get().max(calls.running.get()));
        Self(calls)
    }
}

impl Drop for RunningHandler<'_> {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
    }
}

/// Lets the connection run once.
async fn yield_once() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Inventory for ObedientService {
    async fn check_availability(
        &self,
        _: &CallContext,
        request: CheckReq,
    ) -> Result<CheckRes, Status> {
        let _running = RunningHandler::new(&self.0);
        let mut unavailable_seats = Vec::new();
        match request.event_id.as_bytes().first() {
            Some(b'n') => pending().await,
            Some(b'y') => yield_once().await,
            Some(b'l') => unavailable_seats.push("x".repeat(LARGE_ANSWER_BYTES)),
            Some(b'e') => {
                return Err(Status::new(Code::Aborted, "SEAT_UNAVAILABLE", request.event_id));
            }
            _ => {}
        }
        let bytes: usize = unavailable_seats.iter().map(String::len).sum();
        self.0.answer_bytes.set(self.0.answer_bytes.get() + bytes);
        Ok(CheckRes { available: true, unavailable_seats })
    }

    async fn commit_reservation(&self, _: &CallContext, _: CommitReq) -> Result<CommitRes, Status> {
        let _running = RunningHandler::new(&self.0);
        Ok(CommitRes::default())
    }

    async fn release_hold(&self, _: &CallContext, _: ReleaseReq) -> Result<ReleaseRes, Status> {
        let _running = RunningHandler::new(&self.0);
        Ok(ReleaseRes::default())
    }

    async fn place_hold(&self, _: &CallContext, _: PlaceHoldReq) -> Result<PlaceHoldRes, Status> {
        let _running = RunningHandler::new(&self.0);
        Ok(PlaceHoldRes::default())
    }

    async fn get_reservation(
        &self,
        _: &CallContext,
        _: GetReservationReq,
    ) -> Result<GetReservationRes, Status> {
        let _running = RunningHandler::new(&self.0);
        Ok(GetReservationRes::default())
    }
}
