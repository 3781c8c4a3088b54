//! A call in flight, in a reusable slot.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use h2::RecvStream;
use h2::client::ResponseFuture;
use http::HeaderMap;

use crate::limits;
use crate::outcome::{CallAnswer, CallMethod, OutcomeKind};
use crate::scenario::Contract;
use crate::wire::answer::{self, ResponseHead};
use crate::workload::PlannedCall;

pub(super) struct CallSlot {
    pub(super) call: PlannedCall,
    /// When the call was due and when it was passed to its connection, in nanoseconds since the start.
    pub(super) due: u64,
    pub(super) sent: u64,
    pub(super) connection: u32,
    state: CallState,
    body: Vec<u8>,
    waker: Waker,
}

enum CallState {
    Free,
    AwaitingHead(ResponseFuture),
    ReadingBody(RecvStream),
}

impl CallSlot {
    pub(super) fn new(waker: Waker) -> Self {
        Self {
            call: PlannedCall {
                method: CallMethod::Check,
                place: 0,
                event: 0,
                qty: 0,
                seat: None,
                repeat: false,
            },
            due: 0,
            sent: 0,
            connection: 0,
            state: CallState::Free,
            body: Vec::new(),
            waker,
        }
    }

    pub(super) fn start(&mut self, response: ResponseFuture) {
        self.state = CallState::AwaitingHead(response);
        self.body.clear();
    }

    pub(super) fn is_free(&self) -> bool {
        matches!(self.state, CallState::Free)
    }

    /// Drops the call. h2 resets its stream if it is still open.
    pub(super) fn free(&mut self) {
        self.state = CallState::Free;
        // Do not keep the buffer of a large answer.
        if self.body.capacity() > 4 * 1024 {
            self.body = Vec::new();
        }
    }

    /// Reads the part of the answer that has arrived.
    pub(super) fn poll(&mut self, contract: Contract) -> Poll<CallAnswer> {
        let Self { state, body, waker, call, .. } = self;
        let mut cx = Context::from_waker(waker);
        loop {
            match state {
                CallState::Free => return Poll::Pending,
                CallState::AwaitingHead(response) => {
                    let Ok(response) = ready!(Pin::new(response).poll(&mut cx)) else {
                        return Poll::Ready(CallAnswer::of(OutcomeKind::Broken));
                    };
                    match answer::head(&response) {
                        ResponseHead::Done(outcome) => return Poll::Ready(CallAnswer::of(outcome)),
                        ResponseHead::Body => *state = CallState::ReadingBody(response.into_body()),
                    }
                }
                CallState::ReadingBody(stream) => {
                    let answer = match ready!(read(stream, body, &mut cx)) {
                        Ok(trailers) => answer::whole(contract, call.method, body, &trailers),
                        Err(outcome) => CallAnswer::of(outcome),
                    };
                    return Poll::Ready(answer);
                }
            }
        }
    }
}

/// Reads the message into `body`, then the trailers.
fn read(
    stream: &mut RecvStream,
    body: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<Result<HeaderMap, OutcomeKind>> {
    while let Some(data) = ready!(stream.poll_data(cx)) {
        let Ok(data) = data else {
            return Poll::Ready(Err(OutcomeKind::Broken));
        };
        if body.len() + data.len() > limits::ANSWER_BYTES_MAX {
            return Poll::Ready(Err(OutcomeKind::Malformed));
        }
        body.extend_from_slice(&data);
        // An error would be returned for the trailers, too.
        let _ = stream.flow_control().release_capacity(data.len());
    }
    Poll::Ready(match ready!(stream.poll_trailers(cx)) {
        Ok(Some(trailers)) => Ok(trailers),
        Ok(None) => Err(OutcomeKind::Malformed),
        Err(_) => Err(OutcomeKind::Broken),
    })
}
