//! Reclaimers, one per process, and operators.

use inventory_core::ids::{EventId, ReservationId};
use inventory_core::time::Micros;
use inventory_core::transaction::RecordView;
use rand::Rng;

use super::super::network::{latency, occurs};
use super::super::oracle::unix;
use super::super::scenario::{StockKind, pick};
use super::super::violation::{Violation, ensure};
use super::{InternalCaller, ShardRef, World, WorldStep};

/// Holds that a reclaimer takes on at a time.
const DUE_MAX: usize = 100;

/// A hold that is overdue for this long is never expired: far more than a reclaimer and its write need when
/// most writes fail.
const OVERDUE_MAX: Micros = Micros::from_millis(60_000);

impl World {
    pub(super) fn schedule_upkeep(&mut self) {
        let span = self.scenario.span.0 + 300_000;
        for _ in 0..self.scenario.crashes {
            let at = Micros(self.clients_rng.random_range(0..span));
            let process = self.clients_rng.random_range(0..self.processes.len());
            self.make(at, WorldStep::Crash(process));
        }
        for process in 0..self.processes.len() {
            let every = self.scenario.reclaim_every.0;
            let at = Micros(self.clients_rng.random_range(0..every));
            self.reclaims_ahead += 1;
            self.make(at, WorldStep::Reclaim(process));
        }
        let operators = self.scenario.operators;
        let most = operators.restocks.max(operators.blocks);
        for n in 0..most.max(operators.closes) {
            let rng = &mut self.clients_rng;
            let (event, stock) = pick(rng, &self.scenario.events);
            let event = event.clone();
            match stock {
                StockKind::Units(stripes) if n < operators.restocks => {
                    let stripe = rng.random_range(0..stripes.len()) as u16;
                    let units = rng.random_range(1..=2 * u64::from(self.scenario.qty_max));
                    let restocks = WorldStep::Restock(event.clone(), stripe, units);
                    self.acts(span, &event, restocks);
                }
                StockKind::Seats { seats, .. } if n < operators.blocks => {
                    let seat = pick(rng, seats).id.clone();
                    let blocks = WorldStep::Block(event.clone(), seat);
                    self.acts(span, &event, blocks);
                }
                _ => {}
            }
            if n < operators.closes {
                self.acts(span, &event, WorldStep::Close(event.clone()));
            }
        }
    }

    /// An operator changes an event through one process; the other processes do not know.
    fn acts(&mut self, span: u64, event: &EventId, step: WorldStep) {
        let at = Micros(self.clients_rng.random_range(0..span));
        self.make(at, step);
        let process = self.clients_rng.random_range(0..self.processes.len());
        if self.clients_rng.random() {
            for shard in 0..self.processes[process].shards.len() {
                let life = self.processes[process].life;
                let at_shard = ShardRef { process, shard, life };
                let soon = at.plus(Micros(500));
                self.make(soon, WorldStep::Invalidate(at_shard, event.clone()));
            }
        }
    }

    /// The reclaimer of a process reads the overdue holds, and runs again while there are holds.
    pub(super) fn reclaims(&mut self, process: usize) -> Result<(), Violation> {
        self.reclaims_ahead -= 1;
        let first = self.store.first_expiry();
        let overdue = first.is_some_and(|at| at.0 + OVERDUE_MAX.0 / 1_000 < unix(self.now).0);
        ensure!(
            !overdue,
            "an overdue hold is not expired: it ended at {first:?}, now {:?}, {:?}",
            unix(self.now),
            self.store.due_holds(unix(self.now)).first()
        );
        let clock = self.clock(process);
        let mut due = self.store.due_holds(clock);
        due.truncate(DUE_MAX);
        let faults = self.faults();
        if !due.is_empty() && !occurs(faults.read_fault, &mut self.network_rng) {
            let shard = self.network_rng.random_range(0..self.processes[process].shards.len());
            let at = ShardRef { process, shard, life: self.processes[process].life };
            let answered = self.now.plus(latency(&mut self.network_rng));
            self.make(answered, WorldStep::OverdueFound(at, due));
        }
        self.looks_again(process);
        Ok(())
    }

    fn looks_again(&mut self, process: usize) {
        let every = self.scenario.reclaim_every.0;
        let mut at = self.now.plus(Micros(self.network_rng.random_range(every / 2..=every)));
        if self.agenda.len() == self.reclaims_ahead {
            // Nothing else is scheduled: continue at the next expiry.
            let Some(first) = self.store.first_expiry() else {
                return;
            };
            let ends = first.0.saturating_sub(unix(Micros(0)).0) * 1_000;
            at = at.max(Micros(ends));
        }
        self.reclaims_ahead += 1;
        self.make(at, WorldStep::Reclaim(process));
    }

    pub(super) fn found_due(
        &mut self,
        at: ShardRef,
        due: Vec<(EventId, ReservationId, RecordView)>,
    ) -> Result<(), Violation> {
        if !self.lives(at) {
            return Ok(());
        }
        for (event, reservation, record) in due {
            let call = self.internal(InternalCaller::Reclaimer(at.process, reservation.clone()));
            let deadline = self.now.plus(Micros::from_millis(5_000));
            self.with(at, |shard, now| {
                let at = &mut shard.engine;
                at.handle_expired_hold(call, event, reservation, record, deadline, now);
            })?;
        }
        Ok(())
    }
}
