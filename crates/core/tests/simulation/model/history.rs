//! What was stored at an instant, or during a span.

use inventory_core::answer::{Answer, ReleaseOutcome};
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_core::rules::LateCommit;
use inventory_core::seats::SeatState;
use inventory_core::time::{Micros, UnixMillis};
use inventory_core::transaction::{RecordView, ReservationState};

use super::{Ask, Event, Store, StoredSeat, expected_answer};

/// The values during the span, each with the instant from which it held.
fn during<T>(past: &[(Micros, T)], from: Micros, to: Micros) -> &[(Micros, T)] {
    let first = past.partition_point(|(at, _)| *at < from);
    let last = past.partition_point(|(at, _)| *at <= to);
    // The value at the start of the span.
    &past[first.saturating_sub(1)..last]
}

/// The sum over stripes that may have been read at different instants.
fn total(stripes: impl Iterator<Item = i64>) -> u64 {
    u64::try_from(stripes.sum::<i64>()).unwrap_or(0)
}

impl Store {
    pub(crate) fn exists(&self, event: &EventId) -> bool {
        self.events.contains_key(event)
    }

    pub(crate) fn is_seated(&self, event: &EventId) -> bool {
        let event = self.events.get(event);
        event.is_some_and(|event| event.stripes[0].seat_keys > 0)
    }

    pub(crate) fn closed_at(&self, event: &EventId) -> Option<Micros> {
        self.events.get(event)?.closed
    }

    /// Units over all stripes.
    pub(crate) fn remaining(&self, event: &EventId) -> u64 {
        let stripes = self.events.get(event).map(|event| &event.stripes);
        stripes.into_iter().flatten().map(|s| s.remaining).sum()
    }

    /// Every sum of `remaining` during the span.
    pub(crate) fn remaining_during(
        &self,
        event: &EventId,
        from: Micros,
        to: Micros,
    ) -> impl Iterator<Item = u64> + '_ {
        let past = self.events.get(event).map_or(&[][..], |e| &e.past);
        let seen = during(past, from, to).iter();
        seen.map(|(_, stripes)| total(stripes.iter().copied()))
    }

    /// Remaining and held units at every instant during the span.
    pub(crate) fn units_during(
        &self,
        event: &EventId,
        from: Micros,
        to: Micros,
    ) -> impl Iterator<Item = (u64, i64)> + '_ {
        let event = self.events.get(event);
        let past = event.map_or(&[][..], |e| &e.past);
        let first = past.partition_point(|(at, _)| *at < from).saturating_sub(1);
        let last = past.partition_point(|(at, _)| *at <= to);
        let held = event.map_or(&[][..], |e| &e.held_past[first..last]).iter();
        past[first..last].iter().zip(held).map(|((_, left), held)| {
            let left: i64 = left.iter().sum();
            (u64::try_from(left).unwrap_or(0), *held)
        })
    }

    /// Held units in a version.
    pub(crate) fn held(&self, event: &EventId, state: usize) -> i64 {
        self.events.get(event).map_or(0, |event| event.held_past[state])
    }

    /// The number of the current version of the event's stock.
    pub(crate) fn states(&self, event: &EventId) -> usize {
        let past = self.events.get(event).map_or(0, |event| event.past.len());
        past.saturating_sub(1)
    }

    /// Remaining units and capacity of each stripe in a version, without moved units.
    pub(crate) fn state(&self, event: &EventId, state: usize) -> (Vec<i64>, &[i64]) {
        let Some(event) = self.events.get(event) else {
            return (Vec::new(), &[]);
        };
        (event.past[state].1.clone(), &event.capacities[state])
    }

    /// The version that a transaction made, if it was applied and moved stock.
    pub(crate) fn state_made_by(&self, token: u128) -> Option<usize> {
        self.made.get(&token).copied()
    }

    /// The version in which the reservation last took its units.
    pub(crate) fn last_take_of(&self, reservation: &ReservationId) -> Option<usize> {
        let record = self.records.get(reservation)?;
        let took = |n: usize| {
            let before = n.checked_sub(1).map(|n| record.past[n].1.state);
            let has = |state| matches!(state, ReservationState::Held | ReservationState::Confirmed);
            has(record.past[n].1.state) && !before.is_some_and(has)
        };
        let last = (0..record.past.len()).rev().find(|n| took(*n));
        last.map(|n| record.states[n])
    }

    /// Every total capacity of the event during the span.
    pub(crate) fn capacity_during(
        &self,
        event: &EventId,
        from: Micros,
        to: Micros,
    ) -> impl Iterator<Item = u64> + '_ {
        let event = self.events.get(event);
        let past = event.map_or(&[][..], |e| &e.past);
        let first = past.partition_point(|(at, _)| *at < from).saturating_sub(1);
        let last = past.partition_point(|(at, _)| *at <= to);
        let capacities = event.map_or(&[][..], |e| &e.capacities[first..last]);
        capacities.iter().map(|stripes| total(stripes.iter().copied()))
    }

    /// The most that reading one stripe after the other can find during the span.
    pub(crate) fn most_during(&self, event: &EventId, from: Micros, to: Micros) -> u64 {
        let Some(event) = self.events.get(event) else {
            return 0;
        };
        let seen = during(&event.past, from, to);
        let most = |stripe: usize| seen.iter().map(|(_, left)| left[stripe]).max().unwrap_or(0);
        total((0..event.stripes.len()).map(most))
    }

    /// The least that reading one stripe after the other can find during the span.
    pub(crate) fn least_during(&self, event: &EventId, from: Micros, to: Micros) -> u64 {
        let Some(event) = self.events.get(event) else {
            return 0;
        };
        let seen = during(&event.past, from, to);
        let least = |stripe: usize| seen.iter().map(|(_, left)| left[stripe]).min().unwrap_or(0);
        total((0..event.stripes.len()).map(least))
    }

    /// Every state of the record during the span; `None` first if it did not exist yet.
    pub(crate) fn record_during(
        &self,
        reservation: &ReservationId,
        from: Micros,
        to: Micros,
    ) -> Vec<Option<(&EventId, &RecordView)>> {
        let Some(stored) = self.records.get(reservation) else {
            return vec![None];
        };
        let was_none = stored.past[0].0 > from;
        let seen = during(&stored.past, from, to).iter();
        let views = seen.map(|(_, view)| Some((&stored.event, view)));
        was_none.then_some(None).into_iter().chain(views).collect()
    }

    /// Whether a caller that called at `from` may get `answer` at `to`, because of the record at some instant
    /// between and a clock within the span.
    pub(crate) fn explains(
        &self,
        ask: Ask<'_>,
        answer: &Answer,
        (from, to): (Micros, Micros),
        clock: impl Fn(Micros) -> UnixMillis,
        late: LateCommit,
    ) -> bool {
        let mut plain = answer.clone();
        if let Answer::Released { how, .. } = &mut plain {
            if !self.was_released(ask.reservation, *how) {
                return false;
            }
            *how = ReleaseOutcome::AlreadyReleased;
        }
        let states = self.record_during(ask.reservation, from, to);
        // A hold that was written since, for this call or an equal one, is answered as it was written, even after
        // it has expired.
        let written_since = states.first().is_some_and(Option::is_none);
        let earliest = match written_since {
            true => UnixMillis(0),
            false => clock(from),
        };
        let clocks = [earliest, clock(to)];
        states.into_iter().any(|state| {
            let mut said = clocks.iter().map(|clock| expected_answer(ask, state, *clock, late));
            said.any(|said| said.as_ref() == Some(&plain))
        })
    }

    /// Whether the record was released like that.
    fn was_released(&self, reservation: &ReservationId, how: ReleaseOutcome) -> bool {
        let past = self.records.get(reservation).map_or(&[][..], |r| &r.past);
        let states: Vec<_> = past.iter().map(|(_, view)| view.state).collect();
        match how {
            ReleaseOutcome::Released => {
                states.ends_with(&[ReservationState::Held, ReservationState::Released])
            }
            ReleaseOutcome::NoReservation => states == [ReservationState::Released],
            ReleaseOutcome::AlreadyReleased => true,
        }
    }

    /// Whether the record ever had this value.
    pub(crate) fn was(&self, reservation: &ReservationId, view: &RecordView) -> bool {
        let past = self.records.get(reservation).map_or(&[][..], |r| &r.past);
        past.iter().any(|(_, was)| was == view)
    }

    /// Every state of a seat during the span, with the instant from which it held; empty if there is no such seat.
    pub(crate) fn seat_during(
        &self,
        event: &EventId,
        seat: &SeatId,
        from: Micros,
        to: Micros,
    ) -> &[(Micros, SeatState)] {
        let event = self.events.get(event);
        let stored = event.and_then(|event| event.seats.get(seat));
        stored.map_or(&[], |stored| during(&stored.past, from, to))
    }

    pub(crate) fn section_of(&self, event: &EventId, seat: &SeatId) -> Option<&str> {
        let stored = self.events.get(event)?.seats.get(seat)?;
        Some(&stored.facts.section)
    }

    /// Whether a seated event has no section of this name.
    pub(crate) fn lacks_section(&self, event: &EventId, section: &str) -> bool {
        let has_it = |event: &Event| event.seats.values().any(|seat| seat.facts.section == section);
        self.is_seated(event) && !self.events.get(event).is_some_and(has_it)
    }

    /// How many seats were free during the whole span.
    pub(crate) fn free_throughout(
        &self,
        event: &EventId,
        section: Option<&str>,
        from: Micros,
        to: Micros,
    ) -> usize {
        let free = |stored: &&StoredSeat| {
            let seen = during(&stored.past, from, to);
            seen.iter().all(|(_, state)| *state == SeatState::Available)
        };
        let seats = self.events.get(event).map(|event: &Event| &event.seats);
        let seats = seats.into_iter().flat_map(|seats| seats.values());
        seats
            .filter(|stored| section.is_none_or(|section| stored.facts.section == section))
            .filter(free)
            .count()
    }
}
