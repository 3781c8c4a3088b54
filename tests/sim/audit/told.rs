//! Answers to questions. Those about seats come from memory of bounded age.

use inventory_api::domain::answer::Refusal;
use inventory_api::domain::effect::CallId;
use inventory_api::domain::question::{Found, Question};
use inventory_api::domain::seats::{Seat, SeatState};
use inventory_api::domain::time::{Micros, UnixMillis};
use inventory_api::limits;

use super::super::broken::{Broken, must};
use super::super::clients::{Call, What};
use super::super::model::Store;
use super::super::scenario::AHEAD_MAX;
use super::{Audit, unix};

impl Audit {
    pub(crate) fn told(
        &mut self,
        id: CallId,
        result: &Result<Found, Refusal>,
        now: Micros,
        store: &Store,
    ) -> Result<(), Broken> {
        let call = self.close(id, None)?;
        let What::Ask(question) = &call.what else {
            return Err(Broken(format!("{call:?} was told {result:?}")));
        };
        let due = match result {
            Ok(found) => self.is_so(&call, question, found, now, store),
            Err(Refusal::EventNotFound) => !store.exists(&call.event),
            Err(
                Refusal::StoreBusy { .. }
                | Refusal::StoreUnavailable { .. }
                | Refusal::Overloaded { .. },
            ) => !self.calm,
            Err(_) => false,
        };
        must!(due, "{call:?} found {result:?} at {}", now.0);
        Ok(())
    }

    fn is_so(
        &self,
        call: &Call,
        question: &Question,
        found: &Found,
        now: Micros,
        store: &Store,
    ) -> bool {
        let event = &call.event;
        let closed = store.closed_at(event);
        match (question, found) {
            (
                Question::Availability { qty, .. },
                Found::Units {
                    remaining,
                    available,
                },
            ) => {
                let mut seen = store.remaining_during(event, call.arrives, now);
                let enough = *remaining >= u64::from(*qty);
                let open = if *available {
                    closed.is_none_or(|at| at >= call.arrives)
                } else {
                    closed.is_none_or(|at| at > now)
                };
                (self.torn_reads || seen.any(|held| held == *remaining))
                    && (*available == enough && open || !*available && closed.is_some())
            }
            (Question::Availability { qty, section }, Found::Offer { seats, .. }) => {
                let inside = |seat: &Seat| {
                    let is_in = store.section_of(event, &seat.id);
                    is_in.is_some() && section.as_deref().is_none_or(|name| is_in == Some(name))
                };
                let distinct = seats
                    .iter()
                    .enumerate()
                    .all(|(n, seat)| seats[..n].iter().all(|other| other.id != seat.id));
                (seats.is_empty() || seats.len() == *qty as usize)
                    && distinct
                    && seats.iter().all(inside)
            }
            (
                Question::Seats { seats } | Question::Describe { seats },
                Found::Seats { known, unknown },
            ) => {
                let is_there = |seat| store.section_of(event, seat).is_some();
                known.len() + unknown.len() == seats.len()
                    && known.iter().all(|seat| was(call, seat, now, store))
                    && !unknown.iter().any(is_there)
            }
            (Question::Status { .. }, Found::Status(status)) => {
                let counts = status.counts;
                let sum = counts.available + counts.held + counts.sold + counts.blocked;
                counts.total == sum && status.seated == store.is_seated(event)
            }
            _ => false,
        }
    }
}

/// Whether the seat was like that within the age that memory may have. What is described may be
/// from memory as it is.
fn was(call: &Call, seat: &Seat, now: Micros, store: &Store) -> bool {
    let age = match &call.what {
        What::Ask(Question::Describe { .. }) => call.arrives,
        _ => Micros(limits::SEAT_MAP_AGE_MAX.as_micros() as u64),
    };
    let from = Micros(call.arrives.since(age).0);
    let seen = store.seat_during(&call.event, &seat.id, from, now);
    // A hold that is past its time counts for nothing.
    let latest = UnixMillis(unix(now).0 + AHEAD_MAX);
    let over =
        |state: &SeatState| matches!(state, SeatState::Hold { until, .. } if *until <= latest);
    let free = seat.state == SeatState::Available;
    seen.iter()
        .any(|(_, state)| *state == seat.state || (free && over(state)))
}
