//! A call in flight, in a slot that is used again.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use h2::RecvStream;
use h2::client::ResponseFuture;
use http::HeaderMap;

use crate::limits;
use crate::outcome::{Answer, Method, Outcome};
use crate::scenario::Contract;
use crate::script::Call;
use crate::wire::answer::{self, Head};

pub(super) struct Slot {
    pub(super) call: Call,
    /// When it was due and when it was handed to its connection: nanoseconds since the start.
    pub(super) due: u64,
    pub(super) sent: u64,
    pub(super) conn: u32,
    stage: Stage,
    body: Vec<u8>,
    bell: Waker,
}

enum Stage {
    Free,
    Waiting(ResponseFuture),
    Body(RecvStream),
}

impl Slot {
    pub(super) fn new(bell: Waker) -> Self {
        Self {
            call: Call {
                method: Method::Check,
                place: 0,
                event: 0,
                qty: 0,
                seat: None,
                repeat: false,
            },
            due: 0,
            sent: 0,
            conn: 0,
            stage: Stage::Free,
            body: Vec::new(),
            bell,
        }
    }

    pub(super) fn start(&mut self, response: ResponseFuture) {
        self.stage = Stage::Waiting(response);
        self.body.clear();
    }

    pub(super) fn is_free(&self) -> bool {
        matches!(self.stage, Stage::Free)
    }

    /// Forgets the call. h2 resets its stream if it is still open.
    pub(super) fn free(&mut self) {
        self.stage = Stage::Free;
        // One huge answer must not be kept for ever.
        if self.body.capacity() > 4 * 1024 {
            self.body = Vec::new();
        }
    }

    /// Goes on with the call as far as it has arrived.
    pub(super) fn poll(&mut self, contract: Contract) -> Poll<Answer> {
        let Self {
            stage,
            body,
            bell,
            call,
            ..
        } = self;
        let mut cx = Context::from_waker(bell);
        loop {
            match stage {
                Stage::Free => return Poll::Pending,
                Stage::Waiting(response) => {
                    let Ok(response) = ready!(Pin::new(response).poll(&mut cx)) else {
                        return Poll::Ready(Answer::of(Outcome::Broken));
                    };
                    match answer::head(&response) {
                        Head::Done(outcome) => return Poll::Ready(Answer::of(outcome)),
                        Head::Body => *stage = Stage::Body(response.into_body()),
                    }
                }
                Stage::Body(stream) => {
                    let answer = match ready!(read(stream, body, &mut cx)) {
                        Ok(trailers) => answer::whole(contract, call.method, body, &trailers),
                        Err(outcome) => Answer::of(outcome),
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
) -> Poll<Result<HeaderMap, Outcome>> {
    while let Some(data) = ready!(stream.poll_data(cx)) {
        let Ok(data) = data else {
            return Poll::Ready(Err(Outcome::Broken));
        };
        if body.len() + data.len() > limits::ANSWER_BYTES_MAX {
            return Poll::Ready(Err(Outcome::Malformed));
        }
        body.extend_from_slice(&data);
        // An error would show in the trailers.
        let _ = stream.flow_control().release_capacity(data.len());
    }
    Poll::Ready(match ready!(stream.poll_trailers(cx)) {
        Ok(Some(trailers)) => Ok(trailers),
        Ok(None) => Err(Outcome::Malformed),
        Err(_) => Err(Outcome::Broken),
    })
}
