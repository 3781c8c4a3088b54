//! Calls in flight, by reservation.
//!
//! One call per reservation is under way at a time: the leader. An equal call waits for its answer;
//! another verb or payload waits for its turn. So no reservation is twice in one transaction, and
//! no two answers about it race.

use std::collections::HashMap;

use crate::domain::effect::{CallId, Route};
use crate::domain::ids::{Fingerprint, ReservationId};
use crate::domain::operation::{Operation, Verb};
use crate::limits;

/// A reservation under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) leader: CallId,
    pub(super) verb: Verb,
    pub(super) fingerprint: Fingerprint,
    /// In order of arrival.
    pub(super) followers: Vec<(CallId, Operation, Option<Route>)>,
}

/// What became of a call that entered.
#[derive(Debug)]
pub(super) enum Joined {
    /// It leads: take it to its lane.
    First(Operation),
    Behind,
    /// Too many calls, in all or for this reservation.
    Full,
}

#[derive(Debug, Default)]
pub(super) struct Pendings {
    by_reservation: HashMap<ReservationId, Pending, foldhash::fast::RandomState>,
}

impl Pendings {
    pub(super) fn len(&self) -> usize {
        self.by_reservation.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_reservation.is_empty()
    }

    pub(super) fn enter(
        &mut self,
        call: CallId,
        operation: Operation,
        route: Option<Route>,
    ) -> Joined {
        if let Some(pending) = self.by_reservation.get_mut(&operation.reservation) {
            if pending.followers.len() >= limits::CALLS_PER_RESERVATION_MAX {
                return Joined::Full;
            }
            pending.followers.push((call, operation, route));
            return Joined::Behind;
        }
        if self.by_reservation.len() >= limits::OPERATIONS_IN_FLIGHT_MAX {
            return Joined::Full;
        }
        let pending = Pending {
            leader: call,
            verb: operation.verb,
            fingerprint: operation.fingerprint,
            followers: Vec::new(),
        };
        self.by_reservation
            .insert(operation.reservation.clone(), pending);
        Joined::First(operation)
    }

    pub(super) fn leave(&mut self, reservation: &ReservationId) -> Option<Pending> {
        self.by_reservation.remove(reservation)
    }
}
