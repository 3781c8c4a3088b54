//! Expiries of holds that wait for their answers.
//!
//! A read of the expiry index waits for a limited time; an expiry may wait much longer, for a write of its reservation
//! whose outcome is unknown. What is left then is kept here, so that a later read of the same hold starts no second
//! expiry: each would occupy one of the calls that a shard may have in flight.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::channel::oneshot::{Canceled, Receiver};

use crate::telemetry::recorder::InventoryType;
use inventory_core::answer::Answer;
use inventory_core::ids::ReservationId;
use inventory_core::time::UnixMillis;

/// The answer to an expiry; an error if the engine dropped it.
pub(super) type ExpiryAnswer = Result<Answer, Canceled>;

/// The expiry of one hold. Resolves to its due time, its kind and the answer.
pub(super) struct PendingExpiry {
    pub(super) reservation: ReservationId,
    pub(super) kind: InventoryType,
    /// When the hold expired.
    pub(super) due: UnixMillis,
    pub(super) answer: Receiver<Answer>,
}

impl Future for PendingExpiry {
    type Output = (UnixMillis, InventoryType, ExpiryAnswer);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (due, kind) = (self.due, self.kind);
        Pin::new(&mut self.answer).poll(cx).map(|answer| (due, kind, answer))
    }
}

/// Expiries that no read waits for. At most as many as a shard has calls in flight.
#[derive(Default)]
pub(super) struct UnansweredExpiries(HashMap<ReservationId, PendingExpiry>);

impl UnansweredExpiries {
    pub(super) fn insert(&mut self, expiry: PendingExpiry) {
        self.0.insert(expiry.reservation.clone(), expiry);
    }

    /// Whether the expiry of this hold is still in flight.
    pub(super) fn contains(&self, reservation: &ReservationId) -> bool {
        self.0.contains_key(reservation)
    }

    /// Removes the expiries that have been answered since.
    pub(super) fn take_answered(&mut self) -> Vec<(UnixMillis, InventoryType, ExpiryAnswer)> {
        let mut answered = Vec::new();
        self.0.retain(|_, expiry| {
            let answer = expiry.answer.try_recv().transpose();
            answered.extend(answer.iter().map(|answer| (expiry.due, expiry.kind, answer.clone())));
            answer.is_none()
        });
        answered
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::channel::oneshot::{self, Sender};

    use super::*;

    fn expiry(name: &str) -> (Sender<Answer>, PendingExpiry) {
        let (sender, answer) = oneshot::channel();
        let reservation = name.parse().unwrap();
        (
            sender,
            PendingExpiry {
                reservation,
                kind: InventoryType::Quantity,
                due: UnixMillis(1),
                answer,
            },
        )
    }

    #[test]
    fn expiries_are_kept_until_they_are_answered() {
        let mut unanswered = UnansweredExpiries::default();
        let (first, one) = expiry("r-1");
        let (second, two) = expiry("r-2");
        let (_third, three) = expiry("r-3");
        for expiry in [one, two, three] {
            unanswered.insert(expiry);
        }
        assert!(unanswered.take_answered().is_empty());
        first.send(Answer::Expired).unwrap();
        drop(second);
        let mut answered: Vec<_> =
            unanswered.take_answered().into_iter().map(|(_, _, answer)| answer).collect();
        answered.sort_by_key(Result::is_err);
        assert_eq!(answered, [Ok(Answer::Expired), Err(Canceled)]);
        let kept = ["r-1", "r-2", "r-3"].map(|name| unanswered.contains(&name.parse().unwrap()));
        assert_eq!(kept, [false, false, true]);
    }
}
