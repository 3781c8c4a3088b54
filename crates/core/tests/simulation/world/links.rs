//! What goes between the shards, and between a shard and the store, faults included.

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

use super::super::broken::Broken;
use super::super::network::{self, Fate, happens, hop, latency};
use super::super::trace::Words;
use super::{Happening, ShardRef, World, origin_of};

/// The seats that are looked at later, and what was found free of the others.
pub(super) type HalfLooked = (BTreeSet<SeatId>, Vec<(SeatId, SeatState)>);

impl World {
    pub(super) fn send(&mut self, from: ShardRef, lane: LaneId, transaction: Rc<Transaction>) {
        if transaction.stripes.len() > 1 {
            self.report.count("transactions over several stripes");
        }
        for write in &transaction.records {
            self.report.write(write);
        }
        let faults = self.faults();
        let fate = Fate::of_transaction(self.now, &faults, &mut self.network_rng);
        for fault in fate.faults {
            self.report.fault(fault);
        }
        for arrival in fate.arrivals {
            if arrival.late {
                if !self.scenario.ghosts {
                    self.store.begin(transaction.token.0);
                }
            }
            let at = arrival.at;
            let transaction = Rc::clone(&transaction);
            self.make(
                at,
                Happening::AtStore {
                    from,
                    lane,
                    transaction,
                    arrival,
                },
            );
        }
        if let Some(at) = fate.unknown_at {
            self.make(
                at,
                Happening::Settled(from, lane, TransactionOutcome::Unknown),
            );
        }
    }

    pub(super) fn at_store(
        &mut self,
        from: ShardRef,
        lane: LaneId,
        transaction: &Rc<Transaction>,
        arrival: &network::Arrival,
    ) -> Result<(), Broken> {
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
            let meddled = arrival.meddled;
            self.store.apply(transaction, self.now, |_| {
                meddled.then(|| network::meddle(rng)).flatten()
            })?
        };
        self.note(format_args!("  {}", Words(&outcome)));
        if let Some(at) = arrival.answered {
            self.make(at, Happening::Settled(from, lane, outcome));
        }
        Ok(())
    }

    pub(super) fn read(&mut self, from: ShardRef, event: EventId) {
        let faults = self.faults();
        let rng = &mut self.network_rng;
        let at = self.now.plus(latency(rng));
        if happens(faults.read_fault, rng) {
            self.report.fault("failed reads");
            let failed = if rng.random() {
                StripesRead::Throttled
            } else {
                StripesRead::Unavailable
            };
            self.make(at, Happening::Read(from, event, failed));
        } else {
            let seen = Vec::new();
            self.make(at, Happening::ReadsStripe { from, event, seen });
        }
    }

    pub(super) fn reads_stripe(
        &mut self,
        from: ShardRef,
        event: EventId,
        mut seen: Vec<StripeView>,
    ) {
        let read = self.store.read(&event);
        let rng = &mut self.network_rng;
        if self.scenario.torn_reads
            && let StripesRead::Found(stripes) = &read
        {
            seen.push(stripes[seen.len()]);
            if seen.len() < stripes.len() {
                let at = self.now.plus(Micros(rng.random_range(0..2_000)));
                self.make(at, Happening::ReadsStripe { from, event, seen });
                return;
            }
        }
        let at = self.now.plus(latency(rng));
        let read = if seen.is_empty() {
            read
        } else {
            StripesRead::Found(seen)
        };
        self.make(at, Happening::Read(from, event, read));
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
        if happens(faults.inbox_full, &mut self.network_rng) {
            self.report.fault("full inboxes");
            let retry_after = Micros(limits::RETRY_AFTER.as_micros() as u64);
            let answer = Answer::Rejected(Rejection::Overloaded { retry_after });
            let origin = origin_of(&operation);
            self.make(at, Happening::ForwardSettled(from, origin, answer, None));
            return;
        }
        let to = ShardRef { shard: to, ..from };
        self.make(
            at,
            Happening::Forwarded {
                to,
                from,
                layout,
                operation,
                hint,
            },
        );
    }

    /// A query goes to the shard that remembers the event's seats.
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
        if happens(faults.inbox_full, &mut self.network_rng) {
            self.report.fault("full inboxes");
            let refused = Err(Rejection::overloaded());
            self.make(at, Happening::ToldBack(from, call, refused));
            return;
        }
        let to = ShardRef { shard: to, ..from };
        self.make(
            at,
            Happening::Asked {
                to,
                from,
                call,
                event,
                layout,
                query,
            },
        );
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
        if happens(faults.read_fault, rng) {
            self.report.fault("failed reads");
            let failed = if rng.random() {
                RecordsRead::Throttled
            } else {
                RecordsRead::Unavailable
            };
            self.make(at, Happening::LookedUp(from, lookup, failed));
        } else {
            self.make(at, Happening::LooksUp(from, lookup, reservations));
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
        self.make(at, Happening::LookedUp(from, lookup, read));
    }

    pub(super) fn read_seats(&mut self, from: ShardRef, event: EventId) {
        let faults = self.faults();
        let rng = &mut self.network_rng;
        let at = self.now.plus(latency(rng));
        if happens(faults.read_fault, rng) {
            self.report.fault("failed reads");
            let failed = if rng.random() {
                SeatsRead::Throttled
            } else {
                SeatsRead::Unavailable
            };
            self.make(at, Happening::SeatsRead(from, event, failed));
        } else {
            let seen = None;
            self.make(at, Happening::ReadsSeats { from, event, seen });
        }
    }

    /// All seats at one instant, or one half and then the other.
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
                    self.make(at, Happening::ReadsSeats { from, event, seen });
                    return;
                }
                None => {}
                Some(first) => {
                    seats.splice(..half, first);
                }
            }
        }
        let at = self.now.plus(latency(&mut self.network_rng));
        self.make(at, Happening::SeatsRead(from, event, read));
    }

    pub(super) fn look_for_seats(&mut self, from: ShardRef, event: EventId, unix: UnixMillis) {
        let faults = self.faults();
        let rng = &mut self.network_rng;
        let at = self.now.plus(latency(rng));
        if happens(faults.read_fault, rng) {
            self.report.fault("failed reads");
            let failed = if rng.random() {
                FreeSeatsRead::Throttled
            } else {
                FreeSeatsRead::Unavailable
            };
            self.make(at, Happening::FreeSeatsRead(from, event, failed));
        } else {
            let seen = None;
            self.make(
                at,
                Happening::LooksForSeats {
                    from,
                    event,
                    unix,
                    seen,
                },
            );
        }
    }

    /// What is free at one instant, or among one half of the seats and then among the other.
    pub(super) fn looks_for_seats(
        &mut self,
        from: ShardRef,
        event: EventId,
        unix: UnixMillis,
        seen: Option<HalfLooked>,
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
                    Happening::LooksForSeats {
                        from,
                        event,
                        unix,
                        seen: Some((second, free)),
                    },
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
        self.make(
            at,
            Happening::FreeSeatsRead(from, event, FreeSeatsRead::Found(free)),
        );
    }
}
