//! What goes between the shards, and between a shard and the store, faults included.

use std::rc::Rc;

use inventory_api::domain::answer::{Answer, Refusal};
use inventory_api::domain::effect::{LaneId, Route};
use inventory_api::domain::ids::EventId;
use inventory_api::domain::operation::Operation;
use inventory_api::domain::time::Micros;
use inventory_api::domain::transaction::{EventRead, Outcome, StripeView, Transaction};
use inventory_api::limits;
use rand::Rng;

use super::super::broken::Broken;
use super::super::network::{self, Fate, happens, hop, latency};
use super::{Happening, ShardRef, World, origin_of};

impl World {
    pub(super) fn send(&mut self, from: ShardRef, lane: LaneId, transaction: Rc<Transaction>) {
        if transaction.records.iter().any(|r| r.draws.len() > 1) {
            self.report.count("transactions over several stripes");
        }
        let faults = self.faults();
        let fate = Fate::of_transaction(self.now, &faults, &mut self.network_rng);
        for arrival in fate.arrivals {
            if arrival.late {
                self.report.count("late requests");
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
            self.make(at, Happening::Settled(from, lane, Outcome::Unknown));
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
            Outcome::Conflict
        } else {
            let rng = &mut self.network_rng;
            let meddled = arrival.meddled;
            self.store.apply(transaction, self.now, |_| {
                meddled.then(|| network::meddle(rng)).flatten()
            })?
        };
        self.note(format_args!("  {outcome:?}"));
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
            let failed = if rng.random() {
                EventRead::Throttled
            } else {
                EventRead::Unavailable
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
            && let EventRead::Found(stripes) = &read
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
            EventRead::Found(seen)
        };
        self.make(at, Happening::Read(from, event, read));
    }

    pub(super) fn forward(
        &mut self,
        from: ShardRef,
        to: usize,
        route: Route,
        operation: Operation,
    ) {
        let faults = self.faults();
        let at = self.now.plus(hop(&mut self.network_rng));
        if happens(faults.inbox_full, &mut self.network_rng) {
            let retry_after = Micros(limits::RETRY_AFTER.as_micros() as u64);
            let answer = Answer::Refused(Refusal::Overloaded { retry_after });
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
                route,
                operation,
            },
        );
    }
}
