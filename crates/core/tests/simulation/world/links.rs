//! Messages between shards, and between a shard and the store, with faults.

use std::collections::BTreeSet;
use std::rc::Rc;

use inventory_core::answer::{Answer, Rejection};
use inventory_core::effect::{CallId, LaneId, RecordHint, RecordReadId};
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_core::limits;
use inventory_core::operation::Operation;
use inventory_core::query::Query;
use inventory_core::seats::{SeatItem, SeatState};
use inventory_core::time::{Micros, UnixMillis};
use inventory_core::transaction::{
    EventLayout, FreeSeatsRead, RecordsRead, SeatsRead, StripeView, StripesRead, Transaction,
    TransactionOutcome,
};
use rand::Rng;

use super::super::network::{self, Delivery, hop, latency, occurs};
use super::super::trace::Words;
use super::super::violation::Violation;
use super::{ShardRef, World, WorldStep, origin_of};

/// The seats that are read later, and the free ones among the others.
pub(super) type HalfRead = (BTreeSet<SeatId>, Vec<(SeatId, SeatState)>);

impl World {
    pub(super) fn send(
        &mut self,
        from: ShardRef,
        lane: LaneId,
        transaction: Rc<Transaction>,
        limit: Micros,
    ) {
        if transaction.stripes.len() > 1 {
            self.report.count("transactions over several stripes");
        }
        for write in &transaction.records {
            self.report.write(write);
        }
        let faults = self.faults();
        let delivery = Delivery::of_transaction(self.now, limit, &faults, &mut self.network_rng);
        for fault in delivery.faults {
            self.report.fault(fault);
        }
        for arrival in delivery.arrivals {
            if arrival.late && !self.scenario.ghosts {
                self.store.begin(transaction.token.0);
            }
            let at = arrival.at;
            let transaction = Rc::clone(&transaction);
            self.make(at, WorldStep::AtStore { from, lane, transaction, arrival });
        }
        if let Some(at) = delivery.unknown_at {
            self.make(at, WorldStep::Settled(from, lane, TransactionOutcome::Unknown));
        }
    }

    pub(super) fn at_store(
        &mut self,
        from: ShardRef,
        lane: LaneId,
        transaction: &Rc<Transaction>,
        arrival: &network::Arrival,
    ) -> Result<(), Violation> {
        let token = transaction.token.0;
        if arrival.late {
            self.store.end(token);
        }
        let outcome = if let Some(verdict) = &arrival.verdict {
            verdict.clone()
        } else if arrival.echo && !self.scenario.ghosts && !self.store.remembers(token, self.now) {
            return Ok(());
        } else if self.store.is_in_progress(token) {
            TransactionOutcome::Conflict
        } else {
            let rng = &mut self.network_rng;
            let has_action_faults = arrival.has_action_faults;
            self.store.apply(transaction, self.now, |_| {
                has_action_faults.then(|| network::action_fault_reason(rng)).flatten()
            })?
        };
        self.note(format_args!("  {}", Words(&outcome)));
        if let Some(at) = arrival.answered {
            self.make(at, WorldStep::Settled(from, lane, outcome));
        }
        Ok(())
    }

    pub(super) fn read(&mut self, from: ShardRef, event: EventId, with_counters: bool) {
        let faults = self.faults();
        let rng = &mut self.network_rng;
        let at = self.now.plus(latency(rng));
        if occurs(faults.read_fault, rng) {
            self.report.fault("failed reads");
            let failed =
                if rng.random() { StripesRead::Throttled } else { StripesRead::Unavailable };
            self.make(at, WorldStep::Read(from, event, failed));
        } else {
            let seen = Vec::new();
            self.make(at, WorldStep::StripeAtStore { from, event, with_counters, seen });
        }
    }

    pub(super) fn reads_stripe(
        &mut self,
        from: ShardRef,
        event: EventId,
        with_counters: bool,
        mut seen: Vec<StripeView>,
    ) {
        let read = self.store.read(&event, with_counters);
        let rng = &mut self.network_rng;
        if self.scenario.torn_reads
            && let StripesRead::Found(stripes) = &read
        {
            seen.push(stripes[seen.len()]);
            if seen.len() < stripes.len() {
                let at = self.now.plus(Micros(rng.random_range(0..2_000)));
                self.make(at, WorldStep::StripeAtStore { from, event, with_counters, seen });
                return;
            }
        }
        let at = self.now.plus(latency(rng));
        let read = if seen.is_empty() { read } else { StripesRead::Found(seen) };
        self.make(at, WorldStep::Read(from, event, read));
    }

    pub(super) fn forward(
        &mut self,
        from: ShardRef,
        to: usize,
        layout: EventLayout,
        operation: Operation,
        hint: RecordHint,
    ) {
        let faults = self.faults();
        let at = self.now.plus(hop(&mut self.network_rng));
        if occurs(faults.inbox_full, &mut self.network_rng) {
            self.report.fault("full inboxes");
            let retry_after = Micros(limits::RETRY_AFTER.as_micros() as u64);
            let answer = Answer::Rejected(Rejection::Overloaded { retry_after });
            let origin = origin_of(&operation);
            self.make(at, WorldStep::ForwardSettled(from, origin, answer, None));
            return;
        }
        let to = ShardRef { shard: to, ..from };
        self.make(at, WorldStep::Forwarded { to, from, layout, operation, hint });
    }

    /// Forwards a query to the shard that has the seat map.
    pub(super) fn pass_on(
        &mut self,
        from: ShardRef,
        to: usize,
        call: CallId,
        event: EventId,
        layout: EventLayout,
        query: Query,
    ) {
        let faults = self.faults();
        let at = self.now.plus(hop(&mut self.network_rng));
        if occurs(faults.inbox_full, &mut self.network_rng) {
            self.report.fault("full inboxes");
            let check_rejection = Err(Rejection::overloaded());
            self.make(at, WorldStep::QueryReturned(from, call, check_rejection));
            return;
        }
        let to = ShardRef { shard: to, ..from };
        self.make(at, WorldStep::QueryForwarded { to, from, call, event, layout, query });
    }

    pub(super) fn look_up(
        &mut self,
        from: ShardRef,
        lookup: RecordReadId,
        reservations: Vec<ReservationId>,
    ) {
        let faults = self.faults();
        let rng = &mut self.network_rng;
        let at = self.now.plus(latency(rng));
        if occurs(faults.read_fault, rng) {
            self.report.fault("failed reads");
            let failed =
                if rng.random() { RecordsRead::Throttled } else { RecordsRead::Unavailable };
            self.make(at, WorldStep::RecordsReturned(from, lookup, failed));
        } else {
            self.make(at, WorldStep::RecordsAtStore(from, lookup, reservations));
        }
    }

    pub(super) fn looks_up(
        &mut self,
        from: ShardRef,
        lookup: RecordReadId,
        reservations: &[ReservationId],
    ) {
        let records = reservations.iter().map(|id| self.store.read_record(id));
        let read = RecordsRead::Found(records.collect());
        let at = self.now.plus(latency(&mut self.network_rng));
        self.make(at, WorldStep::RecordsReturned(from, lookup, read));
    }

    pub(super) fn read_seats(&mut self, from: ShardRef, event: EventId) {
        let faults = self.faults();
        let rng = &mut self.network_rng;
        let at = self.now.plus(latency(rng));
        if occurs(faults.read_fault, rng) {
            self.report.fault("failed reads");
            let failed = if rng.random() { SeatsRead::Throttled } else { SeatsRead::Unavailable };
            self.make(at, WorldStep::SeatsRead(from, event, failed));
        } else {
            let seen = None;
            self.make(at, WorldStep::SeatsAtStore { from, event, seen });
        }
    }

    /// Reads all seats at one instant, or one half after the other.
    pub(super) fn reads_seats(
        &mut self,
        from: ShardRef,
        event: EventId,
        seen: Option<Vec<SeatItem>>,
    ) {
        let mut read = self.store.read_seats(&event);
        if let SeatsRead::Found(seats) = &mut read {
            let half = seats.len() / 2;
            match seen {
                None if self.scenario.torn_reads => {
                    seats.truncate(half);
                    let seen = Some(std::mem::take(seats));
                    let later = Micros(self.network_rng.random_range(0..5_000));
                    let at = self.now.plus(later);
                    self.make(at, WorldStep::SeatsAtStore { from, event, seen });
                    return;
                }
                None => {}
                Some(first) => {
                    seats.splice(..half, first);
                }
            }
        }
        let at = self.now.plus(latency(&mut self.network_rng));
        self.make(at, WorldStep::SeatsRead(from, event, read));
    }

    pub(super) fn look_for_seats(&mut self, from: ShardRef, event: EventId, unix: UnixMillis) {
        let faults = self.faults();
        let rng = &mut self.network_rng;
        let at = self.now.plus(latency(rng));
        if occurs(faults.read_fault, rng) {
            self.report.fault("failed reads");
            let failed =
                if rng.random() { FreeSeatsRead::Throttled } else { FreeSeatsRead::Unavailable };
            self.make(at, WorldStep::FreeSeatsRead(from, event, failed));
        } else {
            let seen = None;
            self.make(at, WorldStep::FreeSeatsAtStore { from, event, unix, seen });
        }
    }

    /// Reads the free seats at one instant, or one half after the other.
    pub(super) fn looks_for_seats(
        &mut self,
        from: ShardRef,
        event: EventId,
        unix: UnixMillis,
        seen: Option<HalfRead>,
    ) {
        let mut free = self.store.read_free_seats(&event, unix);
        match seen {
            None if self.scenario.torn_reads => {
                let SeatsRead::Found(seats) = self.store.read_seats(&event) else {
                    return;
                };
                let second = seats.into_iter().skip(1).step_by(2);
                let second: BTreeSet<_> = second.map(|seat| seat.id).collect();
                free.retain(|(seat, _)| !second.contains(seat));
                let later = Micros(self.network_rng.random_range(0..5_000));
                let at = self.now.plus(later);
                self.make(
                    at,
                    WorldStep::FreeSeatsAtStore { from, event, unix, seen: Some((second, free)) },
                );
                return;
            }
            None => {}
            Some((second, first)) => {
                free.retain(|(seat, _)| second.contains(seat));
                free.extend(first);
            }
        }
        let at = self.now.plus(latency(&mut self.network_rng));
        self.make(at, WorldStep::FreeSeatsRead(from, event, FreeSeatsRead::Found(free)));
    }
}
