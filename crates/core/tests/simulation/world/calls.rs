//! Calls, their answers, and crashes.

use inventory_core::answer::{Answer, Rejection};
use inventory_core::effect::CallId;
use inventory_core::query::QueryResult;
use inventory_core::time::Micros;
use inventory_core::transaction::{RecordView, ReservationState};
use rand::Rng;

use super::super::clients::{self, Call, Request};
use super::super::network::hop;
use super::super::scenario::pick;
use super::super::violation::{Violation, ensure};
use super::{InternalCaller, ShardRef, World, WorldStep};

impl World {
    /// A client's call arrives at some shard of some process.
    pub(super) fn arrives(&mut self, mut call: Call) -> Result<(), Violation> {
        call.arrives = self.now;
        let process = self.clients_rng.random_range(0..self.processes.len());
        let shards = self.processes[process].shards.len();
        let shard = self.clients_rng.random_range(0..shards);
        let at = ShardRef { process, shard, life: self.processes[process].life };
        self.submit(at, call).map(drop)
    }

    pub(super) fn submit(&mut self, at: ShardRef, call: Call) -> Result<CallId, Violation> {
        self.calls_made += 1;
        self.report.calls += 1;
        let id = CallId(self.calls_made);
        self.note(format_args!("  call {} at {at}", id.0));
        let operation = call.operation(self.clock(at.process));
        let (event, what) = (call.event.clone(), call.what.clone());
        self.oracle.taken(id, at.process, call);
        let (mut replayed, mut known) = (None, None);
        self.with(at, |shard, now| match (operation, what) {
            (Some(operation), _) => match shard.engine.cached_answer(&operation, now.mono) {
                Some(answer) => replayed = Some(answer),
                None => shard.engine.handle_call(id, operation, now),
            },
            (None, Request::Ask(query)) => {
                known = shard.engine.cached_query_result(&event, &query, now.mono);
                if known.is_none() {
                    shard.engine.handle_query(id, event, query, now);
                }
            }
            (None, Request::Write(..)) => {}
        })?;
        if let Some(answer) = replayed {
            self.answered(at, id, answer)?;
        }
        if let Some(found) = known {
            self.report.count("answers from a snapshot");
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
    ) -> Result<(), Violation> {
        if call == CallId::INTERNAL {
            return Ok(());
        }
        match self.internal.remove(&call.0) {
            Some(InternalCaller::Forward { from, origin, .. }) => {
                if let Some(view) = &learned {
                    let id = &origin.1;
                    ensure!(
                        self.store.was(id, view),
                        "an answer from another shard with a record that never was: {id} {view:?}"
                    );
                }
                let due = self.now.plus(hop(&mut self.network_rng));
                let settled = WorldStep::ForwardSettled(from, origin, answer, learned);
                self.make(due, settled);
                Ok(())
            }
            Some(InternalCaller::Reclaimer(at, read, number, reservation)) => {
                let view = self.store.record(&reservation).map(|r| &r.view);
                let is_held = view.is_some_and(|view| view.state == ReservationState::Held);
                ensure!(
                    answer != Answer::Expired || !is_held,
                    "answered as expired, but still held: {reservation} {view:?}"
                );
                self.report.count("expiries by the reclaimer");
                self.hold_expired(at, read, number, &reservation, &answer)
            }
            Some(InternalCaller::Query(..)) => {
                Err(Violation(format!("a query answered as a write: {call:?} got {answer:?}")))
            }
            None => self.answered(at, call, answer),
        }
    }

    fn answered(&mut self, at: ShardRef, id: CallId, answer: Answer) -> Result<(), Violation> {
        self.report.answer(&answer);
        let call = self.oracle.answered(id, &answer, self.now, &self.store)?;
        if !self.quiet {
            self.follow_ups(&call, Some(&answer));
            self.queries_after(at, &call, &answer);
        }
        Ok(())
    }

    /// After a change, a client may query the stock on the same shard.
    fn queries_after(&mut self, at: ShardRef, call: &Call, answer: &Answer) {
        if !self.scenario.many_queries || matches!(answer, Answer::Rejected(_)) {
            return;
        }
        for _ in 0..self.queries_rng.random_range(0..3) {
            let rng = &mut self.queries_rng;
            let soon = Micros(*pick(rng, &[0, 0, 1, 3_000, 20_000]));
            let asks = clients::availability_query(&call.event, self.now.plus(soon), rng);
            self.make(asks.arrives, WorldStep::QueryArrives(at, asks));
        }
    }

    pub(super) fn told(
        &mut self,
        at: ShardRef,
        id: CallId,
        result: &Result<QueryResult, Rejection>,
    ) -> Result<(), Violation> {
        self.oracle.told(id, result, at, self.now, &self.store)?;
        self.report.count(match result {
            Ok(QueryResult::Units { .. }) => "unit answers",
            Ok(QueryResult::Offer { .. }) => "offers of seats",
            Ok(QueryResult::Seats { .. }) => "seat answers",
            Ok(QueryResult::NotOnSale(_)) => "checks of closed events",
            Ok(QueryResult::Status(_)) => "status answers",
            Err(_) => "queries rejected",
        });
        Ok(())
    }

    fn follow_ups(&mut self, call: &Call, answer: Option<&Answer>) {
        let rng = &mut self.clients_rng;
        for next in clients::follow_ups(call, answer, self.now, &self.scenario, rng) {
            self.make(next.arrives, WorldStep::CallArrives(next));
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
        self.start_searches(process);
        self.member_starts(process);
        for call in self.oracle.crashed(process) {
            self.report.count("calls lost in a crash");
            self.follow_ups(&call, None);
        }
    }
}
