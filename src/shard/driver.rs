//! Executes the engine's effects against the store, the clock and the other shards: the one place where
//! the sans-I/O engine meets the executor.
//!
//! Every input (a call, a result of the store, a timer, a message of another shard) enters the engine through
//! `Driver::enter`, which then executes the effects. Not here: rules about reservations.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::LocalBoxFuture;
use slab::Slab;

use super::inbox::{ForwardReply, ForwardedOperation, Inbox, InboxMessage, Mailbox, QueryOutcome};
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
use inventory_core::limits::confirmation_counters;
use inventory_core::membership::Members;
use inventory_core::operation::Operation;
use inventory_core::query::{Query, QueryResult, StatusVersion};
use inventory_core::time::{Micros, Now, UnixMillis};
use inventory_core::transaction::{
    EventLayout, FreeSeatsRead, RecordView, RecordWrite, RecordsRead, SeatsRead, StripesRead,
    Transaction, TransactionOutcome,
};
use inventory_grpc::{CallTrace, SpanIds};
use inventory_runtime::clock;
use inventory_store::Store;

/// A job of the control plane. The job runs to its end on the shard, even if its caller no longer waits for
/// the result. A panic in a job is logged and ends only the job.
pub(crate) type ShardJob = Box<dyn FnOnce(Rc<Driver>) -> LocalBoxFuture<'static, ()> + Send>;

pub(crate) type ShardMessage = InboxMessage<ShardJob>;
pub(crate) type ShardMailbox = Mailbox<ShardJob>;
pub(crate) type ShardInbox = Inbox<ShardJob>;

/// Where an answer of the engine goes.
enum ReplyTarget {
    Operation(oneshot::Sender<Answer>, Option<Box<OperationTrace>>),
    Query(oneshot::Sender<QueryOutcome>, Option<Rc<CallTrace>>),
}

/// The trace of an operation that waits for its answer.
struct OperationTrace {
    trace: Rc<CallTrace>,
    reservation: ReservationId,
}

/// Executes the effects of one shard's engine.
pub(crate) struct Driver {
    shard: usize,
    engine: RefCell<Engine>,
    store: Rc<Store>,
    reply_targets: RefCell<Slab<ReplyTarget>>,
    peers: Vec<ShardMailbox>,
    /// The earliest wake-up for which a timer is set.
    timer_at: Cell<Option<Micros>>,
    /// Transactions in flight.
    in_flight: Cell<usize>,
    recorder: Rc<Recorder>,
    heartbeat: HeartbeatWriter,
    /// The spans of sampled calls whose operations are in flight on this shard.
    traced_operations: RefCell<HashMap<ReservationId, SpanIds>>,
    tracer: Option<Rc<Tracer>>,
    /// Capacity units (read, written) of the store result that is being handled, divided by its callers.
    capacity_share: Cell<(f64, f64)>,
}

impl Driver {
    pub(crate) fn new(
        shard: usize,
        engine: Engine,
        store: Rc<Store>,
        peers: Vec<ShardMailbox>,
        recorder: Rc<Recorder>,
        heartbeat: HeartbeatWriter,
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
            heartbeat,
            traced_operations: RefCell::default(),
            tracer,
            capacity_share: Cell::new((0.0, 0.0)),
        })
    }

    pub(crate) fn store(&self) -> &Rc<Store> {
        &self.store
    }

    pub(crate) fn counters(&self) -> Counters {
        self.engine.borrow().counters()
    }

    /// Whether nothing is in flight, neither calls nor transactions of callers that disconnected.
    pub(crate) fn is_idle(&self) -> bool {
        self.engine.borrow().is_idle()
    }

    /// Callers in the shared queues of the pools, or waiting for a read of all stripes; not those that only one lane
    /// can serve.
    pub(crate) fn queue_depth(&self) -> usize {
        self.engine.borrow().queue_depth()
    }

    /// Transactions in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Transactions whose outcome is unknown; they are sent again.
    pub(super) fn in_doubt(&self) -> usize {
        self.engine.borrow().unresolved()
    }

    /// The processes that sell from this store, as far as this one knows.
    pub(super) fn members(&self) -> Rc<Members> {
        Rc::clone(self.engine.borrow().members())
    }

    /// The store answers again after failures.
    pub(super) fn store_answers(self: &Rc<Self>) {
        self.enter(Engine::handle_store_available);
    }

    /// The processes that sell from the store have changed. A hint for the engine.
    pub(super) fn set_members(self: &Rc<Self>, members: Rc<Members>) {
        self.enter(|engine, now| engine.handle_membership(members, now));
    }

    /// Operations in the pools, whose outcome is not known yet.
    pub(crate) fn operations_in_pools(&self) -> usize {
        self.engine.borrow().operations_in_pools()
    }

    /// The answer to a retry of a settled reservation, from the cache.
    pub(crate) fn cached_answer(&self, operation: &Operation, now: Micros) -> Option<Answer> {
        self.engine.borrow_mut().cached_answer(operation, now)
    }

    /// Submits an operation. Dropping the receiver discards the answer and never cancels the operation.
    pub(crate) fn submit(
        self: &Rc<Self>,
        operation: Operation,
        trace: Option<Rc<CallTrace>>,
    ) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        let trace = trace.map(|trace| {
            let reservation = operation.reservation.clone();
            self.trace(&reservation, trace.span.map(|(span, _)| span));
            Box::new(OperationTrace { trace, reservation })
        });
        let Some(call) = self.register(ReplyTarget::Operation(answer, trace)) else {
            return answered(Answer::Rejected(Rejection::overloaded()));
        };
        self.enter(|engine, now| engine.handle_call(call, operation, now));
        receiver
    }

    /// The result of a query that arrived at `asked`, if a snapshot answers it.
    pub(crate) fn cached_query_result(
        self: &Rc<Self>,
        event: &EventId,
        query: &Query,
        asked: Micros,
    ) -> Option<QueryResult> {
        let result = {
            let mut engine = self.engine.borrow_mut();
            engine.cached_query_result(event, query, asked)
        };
        // At most a read of stock, which needs no timer.
        self.execute_effects();
        result
    }

    /// See [`Engine::status_version`].
    pub(crate) fn status_version(self: &Rc<Self>, event: &EventId) -> Option<StatusVersion> {
        let version = {
            let mut engine = self.engine.borrow_mut();
            engine.status_version(event, clock::now())
        };
        // At most reads of seats, which need no timer.
        self.execute_effects();
        version
    }

    /// Submits a query that no snapshot answers.
    pub(crate) fn query(
        self: &Rc<Self>,
        event: EventId,
        query: Query,
        trace: Option<Rc<CallTrace>>,
    ) -> oneshot::Receiver<QueryOutcome> {
        let (reply, receiver) = oneshot::channel();
        let Some(call) = self.register(ReplyTarget::Query(reply, trace)) else {
            return answered(Err(Rejection::overloaded()));
        };
        self.enter(|engine, now| engine.handle_query(call, event, query, now));
        receiver
    }

    /// Handles a query that another shard forwarded.
    pub(crate) fn handle_forwarded_query(
        self: &Rc<Self>,
        event: &EventId,
        layout: EventLayout,
        query: Query,
        reply: oneshot::Sender<QueryOutcome>,
    ) {
        if self.reply_targets.borrow().len() >= limits::CALLS_WAITING_MAX {
            let _ = reply.send(Err(Rejection::overloaded()));
            return;
        }
        if let Some(call) = self.register(ReplyTarget::Query(reply, None)) {
            self.enter(|engine, now| {
                engine.handle_forwarded_query(call, event, layout, query, now);
            });
        }
    }

    /// Expires a hold that is past its `expires_at` and returns its stock. The answer is [`Answer::Expired`] once the
    /// reservation is no longer held: this write expired it, or it was expired, committed or released before.
    pub(super) fn expire_hold(
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
        self.enter(|engine, now| {
            engine.handle_expired_hold(call, event, reservation, record, deadline, now);
        });
        receiver
    }

    /// Invalidates the caches of an event that an operator has changed.
    pub(crate) fn invalidate_event(&self, event: &EventId) {
        self.engine.borrow_mut().handle_event_changed(event, clock::now());
    }

    /// Invalidates the caches of a reservation that an operator has changed.
    pub(crate) fn invalidate_reservation(&self, reservation: &ReservationId) {
        self.engine.borrow_mut().handle_reservation_changed(reservation);
    }

    /// Handles an operation that another shard forwarded.
    pub(crate) fn handle_forwarded(
        self: &Rc<Self>,
        from: usize,
        layout: EventLayout,
        operation: Operation,
        hint: RecordHint,
        span: Option<SpanIds>,
    ) {
        self.trace(&operation.reservation, span);
        self.enter(|engine, now| {
            engine.handle_forwarded_call(from, operation, layout, hint, now);
        });
    }

    /// Handles another shard's answer to an operation that this shard forwarded.
    pub(crate) fn handle_reply(self: &Rc<Self>, reply: ForwardReply) {
        self.capacity_share.set(reply.capacity);
        self.enter(|engine, now| {
            let ForwardReply { event, reservation, answer, record, .. } = reply;
            engine.handle_forward_outcome(&event, &reservation, answer, record, now);
        });
        self.capacity_share.set((0.0, 0.0));
    }

    fn register(&self, target: ReplyTarget) -> Option<CallId> {
        let mut slab = self.reply_targets.borrow_mut();
        let has_capacity = slab.len() < limits::CALLS_WAITING_MAX;
        has_capacity.then(|| CallId(slab.insert(target) as u64))
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
            Effect::Answer { call, answer, .. } => {
                match self.reply_targets.borrow_mut().try_remove(call.0 as usize) {
                    // Sending fails if the caller has disconnected.
                    Some(ReplyTarget::Operation(target, trace)) => {
                        if let Some(trace) = trace {
                            let (read, written) = self.capacity_share.get();
                            trace.trace.add_capacity(read, written);
                            self.untrace(&trace.reservation);
                        }
                        drop(target.send(answer));
                    }
                    Some(ReplyTarget::Query(..)) | None => {}
                }
            }
            Effect::AnswerForwarded { shard, event, reservation, answer, record } => {
                self.untrace(&reservation);
                if let Some(peer) = self.peers.get(shard) {
                    let capacity = self.capacity_share.get();
                    peer.reply(ForwardReply { event, reservation, answer, record, capacity });
                }
            }
            Effect::AnswerQuery { call, result } => {
                let target = self.reply_targets.borrow_mut().try_remove(call.0 as usize);
                if let Some(ReplyTarget::Query(target, trace)) = target {
                    if let Some(trace) = trace {
                        trace.add_capacity(self.capacity_share.get().0, 0.0);
                    }
                    let _ = target.send(result);
                }
            }
            Effect::ForwardQuery { shard, call, event, layout, query } => {
                let target = self.reply_targets.borrow_mut().try_remove(call.0 as usize);
                if let Some(ReplyTarget::Query(reply, _)) = target {
                    self.forward_query(shard, event, layout, query, reply);
                }
            }
            Effect::ReadRecords { read, reservations } => self.read_records(read, reservations),
            Effect::ReadSeats { event, seat_keys } => self.read_seats(event, seat_keys),
            Effect::ReadFreeSeats { event, seat_keys, at } => {
                self.read_free_seats(event, seat_keys, at)
            }
            Effect::Transact { lane, transaction, limit } => {
                self.transact(lane, transaction, limit)
            }
            Effect::ReadStripes { event, stripes_hint, with_counters } => {
                self.read_event(event, stripes_hint, with_counters)
            }
            Effect::Forward { shard, layout, operation, hint } => {
                self.forward(shard, layout, operation, hint)
            }
        }
    }

    fn transact(self: &Rc<Self>, lane: LaneId, transaction: Rc<Transaction>, limit: Micros) {
        let driver = Rc::clone(self);
        self.in_flight.set(self.in_flight.get() + 1);
        let span = self.start_span(&transaction);
        inventory_runtime::spawn(async move {
            // A panic may have come after the request was sent: the outcome is unknown, and the lane resends.
            let limit = Duration::from_micros(limit.0);
            let (outcome, units) =
                AssertUnwindSafe(driver.store.transact_counted(&transaction, limit))
                    .catch_unwind()
                    .await
                    .unwrap_or((TransactionOutcome::Unknown, 0.0));
            driver.in_flight.set(driver.in_flight.get() - 1);
            if outcome == TransactionOutcome::Committed {
                let reservations = transaction.records.len();
                driver.recorder.written(&transaction.event, reservations);
            }
            if let (Some(span), Some(tracer)) = (span, &driver.tracer) {
                let table = &driver.store.tables().inventory;
                tracer.sink.offer(span.finish(&transaction, table, &outcome, units));
            }
            let share = units / transaction.records.len().max(1) as f64;
            driver.capacity_share.set((0.0, share));
            // The lane takes its entries back without a copy if it has the only reference.
            drop(transaction);
            driver.enter(|engine, now| engine.handle_transaction_outcome(lane, outcome, now));
            driver.capacity_share.set((0.0, 0.0));
        })
        .detach();
    }

    /// Records the span of a sampled call until its operation is answered.
    fn trace(&self, reservation: &ReservationId, span: Option<SpanIds>) {
        if let Some(span) = span {
            let mut traced = self.traced_operations.borrow_mut();
            // If two calls of one reservation are sampled, only the first is linked.
            traced.entry(reservation.clone()).or_insert(span);
        }
    }

    fn untrace(&self, reservation: &ReservationId) {
        let mut traced = self.traced_operations.borrow_mut();
        if !traced.is_empty() {
            traced.remove(reservation);
        }
    }

    /// Starts the span of a transaction that carries a sampled call.
    fn start_span(&self, transaction: &Transaction) -> Option<spans::TransactionSpan> {
        let tracer = self.tracer.as_ref()?;
        let traced = self.traced_operations.borrow();
        if traced.is_empty() {
            return None;
        }
        let calls = transaction.records.iter().map(RecordWrite::reservation);
        let links = calls.filter_map(|reservation| traced.get(reservation).copied());
        spans::TransactionSpan::start(links, || tracer.new_span_id())
    }

    fn read_event(self: &Rc<Self>, event: EventId, stripes_hint: Option<u16>, with_counters: bool) {
        let driver = Rc::clone(self);
        inventory_runtime::spawn(async move {
            let read = async {
                match with_counters {
                    true => driver.store.read_event_with_counters(&event, stripes_hint).await,
                    false => driver.store.read_event(&event, stripes_hint).await,
                }
            };
            let read = AssertUnwindSafe(read).catch_unwind().await;
            let read = read.unwrap_or(StripesRead::Unavailable);
            if let StripesRead::Found(stripes) = &read {
                // One unit each: the item of a stripe or of a counter is far smaller than 4 KB.
                let count = stripes.len() as u16;
                let counters = if with_counters { confirmation_counters(count) } else { 0 };
                driver.capacity_share.set((f64::from(count + counters), 0.0));
            }
            driver.enter(|engine, now| engine.handle_stripes_read(&event, &read, now));
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
            driver.enter(|engine, now| engine.handle_records_read(read_id, &read, now));
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
            driver.enter(|engine, now| engine.handle_seats_read(&event, read, now));
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
            driver.enter(|engine, now| engine.handle_free_seats_read(&event, read, now));
        })
        .detach();
    }

    fn forward_query(
        &self,
        shard: usize,
        event: EventId,
        layout: EventLayout,
        query: Query,
        reply: oneshot::Sender<QueryOutcome>,
    ) {
        let message = ShardMessage::Query { event, layout, query, reply };
        let undelivered = match self.peers.get(shard) {
            Some(peer) => peer.send(message).err(),
            None => Some(message),
        };
        if let Some(ShardMessage::Query { reply, .. }) = undelivered {
            let _ = reply.send(Err(Rejection::overloaded()));
        }
    }

    fn forward(
        self: &Rc<Self>,
        shard: usize,
        layout: EventLayout,
        operation: Operation,
        hint: RecordHint,
    ) {
        let span = self.traced_operations.borrow().get(&operation.reservation).copied();
        let message = ShardMessage::Forward(Box::new(ForwardedOperation {
            from: self.shard,
            layout,
            operation,
            hint,
            span,
        }));
        let undelivered = match self.peers.get(shard) {
            Some(peer) => peer.send(message).err(),
            None => Some(message),
        };
        if let Some(ShardMessage::Forward(forwarded)) = undelivered {
            let operation = forwarded.operation;
            let answer = Answer::Rejected(Rejection::overloaded());
            self.enter(|engine, now| {
                let Operation { event, reservation, .. } = &operation;
                engine.handle_forward_outcome(event, reservation, answer, None, now);
            });
        }
    }

    /// Sets a timer for the engine's next wake-up, unless an earlier one is set.
    fn arm_timer(self: &Rc<Self>) {
        let Some(due) = self.engine.borrow().poll_timeout() else {
            return;
        };
        if self.timer_at.get().is_some_and(|armed| armed <= due) {
            return;
        }
        self.timer_at.set(Some(due));
        let driver = Rc::clone(self);
        // At least 1 µs: a task with a sleep of zero would run inside this call and re-enter it.
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

/// A receiver whose answer is already sent.
fn answered<T>(answer: T) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    let _ = sender.send(answer);
    receiver
}
