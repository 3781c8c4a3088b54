//! Crashes and operators.

use inventory_core::ids::EventId;
use inventory_core::time::Micros;
use rand::Rng;

use super::super::scenario::{StockKind, pick};
use super::{ShardRef, World, WorldStep};

impl World {
    pub(super) fn schedule_upkeep(&mut self) {
        let span = self.scenario.span.0 + 300_000;
        for _ in 0..self.scenario.crashes {
            let at = Micros(self.clients_rng.random_range(0..span));
            let process = self.clients_rng.random_range(0..self.processes.len());
            self.make(at, WorldStep::Crash(process));
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
}
