//! Calls and their answers, and crashes.

use inventory_core::answer::{Answer, Rejection};
use inventory_core::effect::CallId;
use inventory_core::query::QueryResult;
use inventory_core::time::Micros;
use inventory_core::transaction::{RecordView, ReservationState};
use rand::Rng;

use super::super::broken::{Broken, must};
use super::super::clients::{self, Call, What};
use super::super::network::hop;
use super::super::scenario::pick;
use super::{Happening, ShardRef, Waits, World};

impl World {
    /// A client calls: some shard of some process takes it.
    pub(super) fn arrives(&mut self, mut call: Call) -> Result<(), Broken> {
        call.arrives = self.now;
        let process = self.clients_rng.random_range(0..self.processes.len());
        let shards = self.processes[process].shards.len();
        let shard = self.clients_rng.random_range(0..shards);
        let at = ShardRef {
            process,
            shard,
            life: self.processes[process].life,
        };
        self.submit(at, call).map(drop)
    }

    pub(super) fn submit(&mut self, at: ShardRef, call: Call) -> Result<CallId, Broken> {
        self.calls_made += 1;
        self.report.calls += 1;
        let id = CallId(self.calls_made);
        self.note(format_args!("  call {} at {at}", id.0));
        let operation = call.operation(self.clock(at.process));
        let (event, what) = (call.event.clone(), call.what.clone());
        self.audit.taken(id, at.process, call);
        let (mut replayed, mut known) = (None, None);
        self.with(at, |shard, now| match (operation, what) {
            (Some(operation), _) => match shard.engine.cached_answer(&operation, now.mono) {
                Some(answer) => replayed = Some(answer),
                None => shard.engine.handle_call(id, operation, now),
            },
            (None, What::Ask(query)) => {
                known = shard.engine.cached_query_result(&event, &query, now.mono);
                if known.is_none() {
                    shard.engine.handle_query(id, event, query, now);
                }
            }
            (None, What::Write(..)) => {}
        })?;
        if let Some(answer) = replayed {
            self.answered(at, id, answer)?;
        }
        if let Some(found) = known {
            self.report.count("told from a snapshot");
            self.told(at, id, &Ok(found))?;
        }
        Ok(id)
    }

    pub(super) fn answers(
        &mut self,
        at: ShardRef,
        call: CallId,
        answer: Answer,
        learned: Option<RecordView>,
    ) -> Result<(), Broken> {
        if call == CallId::INTERNAL {
            return Ok(());
        }
        match self.internal.remove(&call.0) {
            Some(Waits::Forward(to, origin)) => {
                if let Some(view) = &learned {
                    let id = &origin.1;
                    must!(
                        self.store.was(id, view),
                        "{id} is said to be {view:?}, which never was"
                    );
                }
                let due = self.now.plus(hop(&mut self.network_rng));
                let settled = Happening::ForwardSettled(to, origin, answer, learned);
                self.make(due, settled);
                Ok(())
            }
            Some(Waits::Reclaimer(_, reservation)) => {
                let view = self.store.record(&reservation).map(|r| &r.view);
                let is_held = view.is_some_and(|view| view.state == ReservationState::Held);
                must!(
                    answer != Answer::Expired || !is_held,
                    "{reservation} is said to have expired and is {view:?}"
                );
                self.report.count("holds found past their time");
                Ok(())
            }
            Some(Waits::Query(..)) => Err(Broken(format!("{call:?} asked and got {answer:?}"))),
            None => self.answered(at, call, answer),
        }
    }

    fn answered(&mut self, at: ShardRef, id: CallId, answer: Answer) -> Result<(), Broken> {
        self.report.answer(&answer);
        let call = self.audit.answered(id, &answer, self.now, &self.store)?;
        if !self.quiet {
            self.goes_on(&call, Some(&answer));
            self.wonders(at, &call, &answer);
        }
        Ok(())
    }

    /// Who has just got something, or given it back, may look at what is left, on the same shard.
    fn wonders(&mut self, at: ShardRef, call: &Call, answer: &Answer) {
        if !self.scenario.curious || matches!(answer, Answer::Rejected(_)) {
            return;
        }
        for _ in 0..self.curious_rng.random_range(0..3) {
            let rng = &mut self.curious_rng;
            let soon = Micros(*pick(rng, &[0, 0, 1, 3_000, 20_000]));
            let asks = clients::wonder(&call.event, self.now.plus(soon), rng);
            self.make(asks.arrives, Happening::Wonders(at, asks));
        }
    }

    pub(super) fn told(
        &mut self,
        at: ShardRef,
        id: CallId,
        result: &Result<QueryResult, Rejection>,
    ) -> Result<(), Broken> {
        self.audit.told(id, result, at, self.now, &self.store)?;
        self.report.count(match result {
            Ok(QueryResult::Units { .. }) => "told of units",
            Ok(QueryResult::Offer { .. }) => "told of an offer",
            Ok(QueryResult::Seats { .. }) => "told of seats",
            Ok(QueryResult::Status(_)) => "told of a sale",
            Err(_) => "questions refused",
        });
        Ok(())
    }

    fn goes_on(&mut self, call: &Call, answer: Option<&Answer>) {
        let rng = &mut self.clients_rng;
        for next in clients::goes_on(call, answer, self.now, &self.scenario, rng) {
            self.make(next.arrives, Happening::Arrives(next));
        }
    }

    pub(super) fn crashes(&mut self, process: usize) {
        self.report.fault("crashes");
        for shard in &self.processes[process].shards {
            self.report.counters(&shard.engine.counters());
        }
        let life = self.processes[process].life + 1;
        self.processes[process] = self.start(process, life);
        self.internal.retain(|_, waits| waits.process() != process);
        for call in self.audit.crashed(process) {
            self.report.count("calls lost in a crash");
            self.goes_on(&call, None);
        }
    }
}
