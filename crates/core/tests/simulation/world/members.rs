//! What processes learn of each other: late, with gaps, with processes that have gone, or nothing at all.

use std::rc::Rc;

use inventory_core::membership::{Member, Members, ProcessId};
use inventory_core::time::Micros;
use rand::Rng;

use super::super::network::{hop, latency, occurs};
use super::{ShardRef, World, WorldStep};

impl World {
    /// Views during the sale, and one after its last call.
    pub(super) fn schedule_members(&mut self) {
        let span = self.scenario.span.0 + 300_000;
        for process in 0..self.processes.len() {
            if self.members_rng.random() {
                self.make(Micros(0), WorldStep::SeesMembers(process));
            }
            for _ in 0..self.scenario.membership.views {
                let at = Micros(self.members_rng.random_range(0..span));
                self.make(at, WorldStep::SeesMembers(process));
            }
        }
    }

    /// A process that has just started announces itself and reads who else is there.
    pub(super) fn member_starts(&mut self, process: usize) {
        if self.scenario.membership.views > 0 {
            let at = self.now.plus(latency(&mut self.members_rng));
            self.make(at, WorldStep::SeesMembers(process));
        }
    }

    fn member(&self, process: usize, life: u32) -> Member {
        let id = ProcessId(0x6d65_6d62 ^ (process as u64) << 40 ^ u64::from(life) << 20);
        Member { id, shards: self.processes[process].shards.len() as u16 }
    }

    /// A process reads the members. Each of its shards gets the result a moment later, or not at all.
    pub(super) fn sees_members(&mut self, process: usize) {
        let membership = self.scenario.membership;
        if membership.zombie == Some(process) {
            self.report.count("zombies");
            return;
        }
        let own = self.member(process, self.processes[process].life);
        let mut others = Vec::new();
        for other in (0..self.processes.len()).filter(|other| *other != process) {
            let life = self.processes[other].life;
            if occurs(membership.wrong, &mut self.members_rng) {
                self.report.fault("members overlooked");
            } else {
                others.push(self.member(other, life));
            }
            if life > 0 && occurs(membership.wrong, &mut self.members_rng) {
                self.report.fault("members that have gone");
                others.push(self.member(other, life - 1));
            }
        }
        let members = Rc::new(Members::new(own, others));
        for shard in 0..self.processes[process].shards.len() {
            if occurs(membership.wrong, &mut self.members_rng) {
                self.report.fault("lost views of the members");
                continue;
            }
            let at = self.now.plus(hop(&mut self.members_rng));
            let to = ShardRef { process, shard, life: self.processes[process].life };
            self.make(at, WorldStep::Members(to, Rc::clone(&members)));
        }
        self.report.count("views of the members");
    }
}
