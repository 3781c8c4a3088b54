//! Carries out what the domain wants: the one place where the pure core meets the executor.
//!
//! A call enters the engine, its effects come out and are carried out: answers to waiting
//! calls, transactions and reads to the store, operations to other shards. The store's answers and
//! the clock enter the same way. No rule lives here.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use slab::Slab;

use super::inbox::{ForwardReply, ForwardedOperation, Mailbox, ShardMessage};
use super::spans;
use crate::limits;
use crate::telemetry::heartbeat::{Activity, HeartbeatWriter};
use crate::telemetry::recorder::Recorder;
use crate::telemetry::trace::Tracer;
use inventory_core::answer::{Answer, Rejection};
use inventory_core::counters::Counters;
use inventory_core::effect::{CallId, Effect, LaneId, RecordHint, RecordReadId};
use inventory_core::engine::Engine;
use inventory_core::ids::{EventId, ReservationId};
use inventory_core::operation::Operation;
use inventory_core::query::{Query, QueryResult, StatusVersion};
use inventory_core::time::{Micros, Now, UnixMillis};
use inventory_core::transaction::{
    EventLayout, FreeSeatsRead, RecordView, RecordsRead, SeatsRead, StripesRead, Transaction,
    TransactionOutcome,
};
use inventory_grpc::{CallTrace, SpanIds};
use inventory_runtime::clock;
use inventory_store::Store;

/// What is told to who asks a query.
pub type QueryOutcome = Result<QueryResult, Rejection>;

/// Who waits for an answer of the engine.
enum ReplyTarget {
    Operation(oneshot::Sender<Answer>, Option<Box<OperationTrace>>),
    Query(oneshot::Sender<QueryOutcome>, Option<Rc<CallTrace>>),
    /// Another shard, which forwarded this reservation's operation.
    Shard {
        shard: usize,
        event: EventId,
        reservation: ReservationId,
    },
}

/// A waiting operation that somebody wants to know more of.
struct OperationTrace {
    trace: Rc<CallTrace>,
    reservation: ReservationId,
}

/// See the module's head.
pub struct Driver {
    shard: usize,
    engine: RefCell<Engine>,
    store: Rc<Store>,
    reply_targets: RefCell<Slab<ReplyTarget>>,
    peers: Vec<Mailbox>,
    /// The earliest wake-up for which a timer runs.
    timer_at: Cell<Option<Micros>>,
    /// Transactions on their way to the store and back.
    in_flight: Cell<usize>,
    recorder: Rc<Recorder>,
    heartbeat: HeartbeatWriter,
    /// The spans of sampled calls whose operations have not settled here.
    traced_operations: RefCell<HashMap<ReservationId, SpanIds>>,
    tracer: Option<Rc<Tracer>>,
    /// Capacity units (read, written) of what the store has just answered, for each who waited for it.
    capacity_share: Cell<(f64, f64)>,
}

impl Driver {
    pub fn new(
        shard: usize,
        engine: Engine,
        store: Rc<Store>,
        peers: Vec<Mailbox>,
        recorder: Rc<Recorder>,
        beat: HeartbeatWriter,
        tracer: Option<Rc<Tracer>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            shard,
            engine: RefCell::new(engine),
            store,
            reply_targets: RefCell::new(Slab::new()),
            peers,
            timer_at: Cell::new(None),
            in_flight: Cell::new(0),
            recorder,
            heartbeat: beat,
            traced_operations: RefCell::default(),
            tracer,
            capacity_share: Cell::new((0.0, 0.0)),
        })
    }

    pub fn store(&self) -> &Rc<Store> {
        &self.store
    }

    pub fn counters(&self) -> Counters {
        self.engine.borrow().counters()
    }

    /// Nothing is in flight, neither calls nor transactions whose callers have gone.
    pub fn is_idle(&self) -> bool {
        self.engine.borrow().is_idle()
    }

    /// Callers that wait in line for a lane.
    pub fn in_line(&self) -> usize {
        self.engine.borrow().queue_depth()
    }

    /// Transactions on their way to the store and back.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Operations that have not settled.
    pub fn unsettled(&self) -> usize {
        self.engine.borrow().operations_in_pools()
    }

    /// The answer to a repeat of a settled reservation, from memory.
    pub fn replay(&self, operation: &Operation, now: Micros) -> Option<Answer> {
        self.engine.borrow_mut().cached_answer(operation, now)
    }

    /// Submits an operation. Dropping the receiver abandons the answer, never the operation.
    pub fn submit(
        self: &Rc<Self>,
        operation: Operation,
        note: Option<Rc<CallTrace>>,
    ) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        let noted = note.map(|note| {
            let reservation = operation.reservation.clone();
            self.trace(&reservation, note.span.map(|(span, _)| span));
            Box::new(OperationTrace {
                trace: note,
                reservation,
            })
        });
        let Some(call) = self.register(ReplyTarget::Operation(answer, noted)) else {
            return answered(Answer::Rejected(Rejection::overloaded()));
        };
        self.enter(|core, now| core.handle_call(call, operation, now));
        receiver
    }

    /// The answer to a query that arrived at `asked`, if it is known without waiting.
    pub fn query_cached(
        self: &Rc<Self>,
        event: &EventId,
        query: &Query,
        asked: Micros,
    ) -> Option<QueryResult> {
        let result = {
            let mut engine = self.engine.borrow_mut();
            engine.cached_query_result(event, query, asked)
        };
        // At most a read, which needs no timer.
        self.execute_effects();
        result
    }

    /// See [`Engine::status_mark`].
    pub fn status_mark(self: &Rc<Self>, event: &EventId) -> Option<StatusVersion> {
        let version = {
            let mut engine = self.engine.borrow_mut();
            engine.status_version(event, clock::now())
        };
        // At most reads, which need no timer.
        self.execute_effects();
        version
    }

    /// Asks something about an event that is not known.
    pub fn query(
        self: &Rc<Self>,
        event: EventId,
        query: Query,
        note: Option<Rc<CallTrace>>,
    ) -> oneshot::Receiver<QueryOutcome> {
        let (told, receiver) = oneshot::channel();
        let Some(call) = self.register(ReplyTarget::Query(told, note)) else {
            return answered(Err(Rejection::overloaded()));
        };
        self.enter(|core, now| core.handle_query(call, event, query, now));
        receiver
    }

    /// Takes a query that another shard passed on.
    pub fn handle_forwarded_query(
        self: &Rc<Self>,
        event: &EventId,
        layout: EventLayout,
        query: Query,
        told: oneshot::Sender<QueryOutcome>,
    ) {
        if self.reply_targets.borrow().len() >= limits::CALLS_WAITING_MAX {
            let _ = told.send(Err(Rejection::overloaded()));
            return;
        }
        if let Some(call) = self.register(ReplyTarget::Query(told, None)) {
            self.enter(|core, now| {
                core.handle_forwarded_query(call, event, layout, query, now);
            });
        }
    }

    /// Gives back what a hold has that was found to be past its time. The answer is
    /// [`Answer::Expired`] when that is done, by whomever.
    pub fn reclaim(
        self: &Rc<Self>,
        event: EventId,
        reservation: ReservationId,
        record: RecordView,
        deadline: Micros,
    ) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        let Some(call) = self.register(ReplyTarget::Operation(answer, None)) else {
            return answered(Answer::Rejected(Rejection::overloaded()));
        };
        self.enter(|core, now| {
            core.handle_expired_hold(call, event, reservation, record, deadline, now);
        });
        receiver
    }

    /// Forgets what is remembered about an event: an operator has changed it.
    pub fn invalidate_event(&self, event: &EventId) {
        self.engine
            .borrow_mut()
            .handle_event_changed(event, clock::now());
    }

    /// Forgets what is remembered about a reservation: an operator has changed it.
    pub fn invalidate_reservation(&self, reservation: &ReservationId) {
        self.engine
            .borrow_mut()
            .handle_reservation_changed(reservation);
    }

    /// Takes an operation that another shard routed here.
    pub fn handle_forwarded(
        self: &Rc<Self>,
        from: usize,
        layout: EventLayout,
        operation: Operation,
        hint: RecordHint,
        span: Option<SpanIds>,
    ) {
        self.trace(&operation.reservation, span);
        let waiting = ReplyTarget::Shard {
            shard: from,
            event: operation.event.clone(),
            reservation: operation.reservation.clone(),
        };
        match self.register(waiting) {
            Some(call) => self.enter(|core, now| {
                core.handle_forwarded_call(call, operation, layout, hint, now);
            }),
            None => self.reply(
                from,
                ForwardReply {
                    event: operation.event,
                    reservation: operation.reservation,
                    answer: Answer::Rejected(Rejection::overloaded()),
                    record: None,
                    capacity: (0.0, 0.0),
                },
            ),
        }
    }

    /// Takes another shard's answer to an operation forwarded from here.
    pub fn handle_reply(self: &Rc<Self>, reply: ForwardReply) {
        self.capacity_share.set(reply.capacity);
        self.enter(|core, now| {
            let ForwardReply {
                event,
                reservation,
                answer,
                record,
                ..
            } = reply;
            core.handle_forward_outcome(&event, &reservation, answer, record, now);
        });
        self.capacity_share.set((0.0, 0.0));
    }

    fn register(&self, waiting: ReplyTarget) -> Option<CallId> {
        let mut slab = self.reply_targets.borrow_mut();
        let room = slab.len() < limits::CALLS_WAITING_MAX;
        room.then(|| CallId(slab.insert(waiting) as u64))
    }

    /// Passes one input to the engine, executes its effects and arms its timer.
    fn enter(self: &Rc<Self>, input: impl FnOnce(&mut Engine, Now)) {
        self.heartbeat.set_activity(Activity::Engine);
        {
            let mut engine = self.engine.borrow_mut();
            input(&mut engine, clock::now());
        }
        self.execute_effects();
        self.arm_timer();
    }

    /// Executes the engine's effects, in order.
    fn execute_effects(self: &Rc<Self>) {
        loop {
            // Not in the condition of a `while let`: the borrow would last through its body.
            let effect = self.engine.borrow_mut().poll_effect();
            match effect {
                Some(effect) => self.execute(effect),
                None => return,
            }
        }
    }

    fn execute(self: &Rc<Self>, effect: Effect) {
        match effect {
            Effect::Answer {
                call,
                answer,
                record,
            } => match self.reply_targets.borrow_mut().try_remove(call.0 as usize) {
                // A caller that has gone needs no answer.
                Some(ReplyTarget::Operation(waiting, noted)) => {
                    if let Some(noted) = noted {
                        let (read, written) = self.capacity_share.get();
                        noted.trace.add_capacity(read, written);
                        self.untrace(&noted.reservation);
                    }
                    drop(waiting.send(answer));
                }
                Some(ReplyTarget::Shard {
                    shard,
                    event,
                    reservation,
                }) => {
                    self.untrace(&reservation);
                    let reply = ForwardReply {
                        event,
                        reservation,
                        answer,
                        record,
                        capacity: self.capacity_share.get(),
                    };
                    self.reply(shard, reply);
                }
                Some(ReplyTarget::Query(..)) | None => {}
            },
            Effect::AnswerQuery { call, result } => {
                let waiting = self.reply_targets.borrow_mut().try_remove(call.0 as usize);
                if let Some(ReplyTarget::Query(waiting, note)) = waiting {
                    if let Some(note) = note {
                        note.add_capacity(self.capacity_share.get().0, 0.0);
                    }
                    let _ = waiting.send(result);
                }
            }
            Effect::ForwardQuery {
                shard,
                call,
                event,
                layout,
                query,
            } => {
                let waiting = self.reply_targets.borrow_mut().try_remove(call.0 as usize);
                if let Some(ReplyTarget::Query(told, _)) = waiting {
                    self.forward_query(shard, event, layout, query, told);
                }
            }
            Effect::ReadRecords { read, reservations } => self.read_records(read, reservations),
            Effect::ReadSeats { event, seat_keys } => self.read_seats(event, seat_keys),
            Effect::ReadFreeSeats {
                event,
                seat_keys,
                at,
            } => self.read_free_seats(event, seat_keys, at),
            Effect::Transact { lane, transaction } => self.transact(lane, transaction),
            Effect::ReadStripes {
                event,
                stripes_hint,
            } => self.read_event(event, stripes_hint),
            Effect::Forward {
                shard,
                layout,
                operation,
                hint,
            } => self.forward(shard, layout, operation, hint),
        }
    }

    fn transact(self: &Rc<Self>, lane: LaneId, transaction: Rc<Transaction>) {
        let driver = Rc::clone(self);
        self.in_flight.set(self.in_flight.get() + 1);
        let begun = self.start_span(&transaction);
        inventory_runtime::spawn(async move {
            // What panicked half way may have been sent: unknown, and therefore asked again.
            let (outcome, units) = AssertUnwindSafe(driver.store.transact_counted(&transaction))
                .catch_unwind()
                .await
                .unwrap_or((TransactionOutcome::Unknown, 0.0));
            driver.in_flight.set(driver.in_flight.get() - 1);
            if outcome == TransactionOutcome::Committed {
                let reservations = transaction.records.len();
                driver.recorder.written(&transaction.event, reservations);
            }
            if let (Some(begun), Some(tracer)) = (begun, &driver.tracer) {
                let table = &driver.store.tables().inventory;
                tracer
                    .sink
                    .offer(begun.finish(&transaction, table, &outcome, units));
            }
            let share = units / transaction.records.len().max(1) as f64;
            driver.capacity_share.set((0.0, share));
            // The lane takes its records back out of it without a copy.
            drop(transaction);
            driver.enter(|core, now| core.handle_transaction_outcome(lane, outcome, now));
            driver.capacity_share.set((0.0, 0.0));
        })
        .detach();
    }

    /// Remembers the span of a sampled call until its operation is answered here.
    fn trace(&self, reservation: &ReservationId, span: Option<SpanIds>) {
        if let Some(span) = span {
            let mut traced = self.traced_operations.borrow_mut();
            // Of two sampled calls for one reservation the first is linked.
            traced.entry(reservation.clone()).or_insert(span);
        }
    }

    fn untrace(&self, reservation: &ReservationId) {
        let mut traced = self.traced_operations.borrow_mut();
        if !traced.is_empty() {
            traced.remove(reservation);
        }
    }

    /// The beginning of a transaction's span, if a sampled call is in it.
    fn start_span(&self, transaction: &Transaction) -> Option<spans::TransactionSpan> {
        let tracer = self.tracer.as_ref()?;
        let traced = self.traced_operations.borrow();
        if traced.is_empty() {
            return None;
        }
        let calls = transaction.records.iter().map(|record| &record.reservation);
        let links = calls.filter_map(|reservation| traced.get(reservation).copied());
        spans::TransactionSpan::start(links, || tracer.new_span_id())
    }

    fn read_event(self: &Rc<Self>, event: EventId, stripes_hint: Option<u16>) {
        let driver = Rc::clone(self);
        inventory_runtime::spawn(async move {
            let read = AssertUnwindSafe(driver.store.read_event(&event, stripes_hint))
                .catch_unwind()
                .await
                .unwrap_or(StripesRead::Unavailable);
            if let StripesRead::Found(stripes) = &read {
                // One unit each: a stripe's item is far under 4 KB.
                driver.capacity_share.set((stripes.len() as f64, 0.0));
            }
            driver.enter(|core, now| core.handle_stripes_read(&event, &read, now));
            driver.capacity_share.set((0.0, 0.0));
        })
        .detach();
    }

    fn read_records(self: &Rc<Self>, read_id: RecordReadId, reservations: Vec<ReservationId>) {
        let driver = Rc::clone(self);
        inventory_runtime::spawn(async move {
            let read = AssertUnwindSafe(driver.store.read_records(&reservations))
                .catch_unwind()
                .await
                .unwrap_or(RecordsRead::Unavailable);
            driver.enter(|core, now| core.handle_records_read(read_id, &read, now));
        })
        .detach();
    }

    fn read_seats(self: &Rc<Self>, event: EventId, seat_keys: u16) {
        let driver = Rc::clone(self);
        inventory_runtime::spawn(async move {
            let read = AssertUnwindSafe(driver.store.read_seats(&event, seat_keys))
                .catch_unwind()
                .await
                .unwrap_or(SeatsRead::Unavailable);
            driver.enter(|core, now| core.handle_seats_read(&event, read, now));
        })
        .detach();
    }

    fn read_free_seats(self: &Rc<Self>, event: EventId, seat_keys: u16, at: UnixMillis) {
        let driver = Rc::clone(self);
        inventory_runtime::spawn(async move {
            let read = AssertUnwindSafe(driver.store.read_free_seats(&event, seat_keys, at))
                .catch_unwind()
                .await
                .unwrap_or(FreeSeatsRead::Unavailable);
            driver.enter(|core, now| core.handle_free_seats_read(&event, read, now));
        })
        .detach();
    }

    fn forward_query(
        &self,
        shard: usize,
        event: EventId,
        layout: EventLayout,
        query: Query,
        told: oneshot::Sender<QueryOutcome>,
    ) {
        let work = ShardMessage::Query {
            event,
            layout,
            query,
            told,
        };
        let refused = match self.peers.get(shard) {
            Some(peer) => peer.send(work).err(),
            None => Some(work),
        };
        if let Some(ShardMessage::Query { told, .. }) = refused {
            let _ = told.send(Err(Rejection::overloaded()));
        }
    }

    fn forward(
        self: &Rc<Self>,
        shard: usize,
        layout: EventLayout,
        operation: Operation,
        hint: RecordHint,
    ) {
        let span = self
            .traced_operations
            .borrow()
            .get(&operation.reservation)
            .copied();
        let work = ShardMessage::Forward(Box::new(ForwardedOperation {
            from: self.shard,
            layout,
            operation,
            hint,
            span,
        }));
        let refused = match self.peers.get(shard) {
            Some(peer) => peer.send(work).err(),
            None => Some(work),
        };
        if let Some(ShardMessage::Forward(forwarded)) = refused {
            let operation = forwarded.operation;
            let answer = Answer::Rejected(Rejection::overloaded());
            self.enter(|core, now| {
                let Operation {
                    event, reservation, ..
                } = &operation;
                core.handle_forward_outcome(event, reservation, answer, None, now);
            });
        }
    }

    fn reply(&self, shard: usize, reply: ForwardReply) {
        if let Some(peer) = self.peers.get(shard) {
            peer.reply(reply);
        }
    }

    /// Starts a timer for the engine's next wake-up unless one runs that is early enough.
    fn arm_timer(self: &Rc<Self>) {
        let Some(due) = self.engine.borrow().poll_timeout() else {
            return;
        };
        if self.timer_at.get().is_some_and(|armed| armed <= due) {
            return;
        }
        self.timer_at.set(Some(due));
        let driver = Rc::clone(self);
        // Never none: a task that has nothing to wait for runs within this call, and would arm again.
        let wait = Duration::from_micros(due.since(clock::monotonic()).0.max(1));
        inventory_runtime::spawn(async move {
            inventory_runtime::sleep(wait).await;
            if driver.timer_at.get() == Some(due) {
                driver.timer_at.set(None);
            }
            driver.enter(Engine::handle_timeout);
        })
        .detach();
    }
}

/// A receiver that has its answer already.
fn answered<T>(answer: T) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    let _ = sender.send(answer);
    receiver
}
