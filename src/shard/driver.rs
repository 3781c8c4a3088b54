//! Carries out what the domain wants: the one place where the pure core meets the executor.
//!
//! A call enters the coordinator, its effects come out and are carried out: answers to waiting
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

use super::inbox::{Forwarded, Mailbox, Reply, Work};
use super::spans;
use crate::limits;
use crate::telemetry::pulse::{Beat, Doing};
use crate::telemetry::recorder::Recorder;
use crate::telemetry::trace::Tracer;
use inventory_core::answer::{Answer, Refusal};
use inventory_core::coordinator::Coordinator;
use inventory_core::counters::Counters;
use inventory_core::effect::{CallId, Effect, Known, LaneId, LookupId, Route};
use inventory_core::ids::{EventId, ReservationId};
use inventory_core::operation::Operation;
use inventory_core::question::{Found, Question, StatusMark};
use inventory_core::time::{Micros, Now, UnixMillis};
use inventory_core::transaction::{
    EventRead, EventShape, FreeSeatsRead, Outcome, RecordView, RecordsRead, SeatsRead, Transaction,
};
use inventory_grpc::{Note, SpanIds};
use inventory_runtime::clock;
use inventory_store::Store;

/// What is told to who asks a question.
pub type Told = Result<Found, Refusal>;

/// Who waits for an answer of the coordinator.
enum Waiting {
    Operation(oneshot::Sender<Answer>, Option<Box<Noted>>),
    Question(oneshot::Sender<Told>, Option<Rc<Note>>),
    /// Another shard, which forwarded this reservation's operation.
    Shard {
        shard: usize,
        event: EventId,
        reservation: ReservationId,
    },
}

/// A waiting operation that somebody wants to know more of.
struct Noted {
    note: Rc<Note>,
    reservation: ReservationId,
}

/// See the module's head.
pub struct Driver {
    shard: usize,
    coordinator: RefCell<Coordinator>,
    store: Rc<Store>,
    waiting: RefCell<Slab<Waiting>>,
    peers: Vec<Mailbox>,
    /// The earliest wake-up for which a timer runs.
    armed: Cell<Option<Micros>>,
    /// Transactions on their way to the store and back.
    in_flight: Cell<usize>,
    recorder: Rc<Recorder>,
    beat: Beat,
    /// The spans of sampled calls whose operations have not settled here.
    traced: RefCell<HashMap<ReservationId, SpanIds>>,
    tracer: Option<Rc<Tracer>>,
    /// Capacity units (read, written) of what the store has just answered, for each who waited for it.
    share: Cell<(f64, f64)>,
    /// Effect buffers for reuse; more than one only while effects cause effects.
    spare: Cell<Vec<Effect>>,
}

impl Driver {
    pub fn new(
        shard: usize,
        coordinator: Coordinator,
        store: Rc<Store>,
        peers: Vec<Mailbox>,
        recorder: Rc<Recorder>,
        beat: Beat,
        tracer: Option<Rc<Tracer>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            shard,
            coordinator: RefCell::new(coordinator),
            store,
            waiting: RefCell::new(Slab::new()),
            peers,
            armed: Cell::new(None),
            in_flight: Cell::new(0),
            recorder,
            beat,
            traced: RefCell::default(),
            tracer,
            share: Cell::new((0.0, 0.0)),
            spare: Cell::new(Vec::new()),
        })
    }

    pub fn store(&self) -> &Rc<Store> {
        &self.store
    }

    pub fn counters(&self) -> Counters {
        self.coordinator.borrow().counters()
    }

    /// Nothing is in flight, neither calls nor transactions whose callers have gone.
    pub fn is_idle(&self) -> bool {
        self.coordinator.borrow().is_idle()
    }

    /// Callers that wait in line for a lane.
    pub fn in_line(&self) -> usize {
        self.coordinator.borrow().in_line()
    }

    /// Transactions on their way to the store and back.
    pub fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    /// Operations that have not settled.
    pub fn unsettled(&self) -> usize {
        self.coordinator.borrow().in_lanes()
    }

    /// The answer to a repeat of a settled reservation, from memory.
    pub fn replay(&self, operation: &Operation, now: Micros) -> Option<Answer> {
        self.coordinator.borrow_mut().replay(operation, now)
    }

    /// Submits an operation. Dropping the receiver abandons the answer, never the operation.
    pub fn submit(
        self: &Rc<Self>,
        operation: Operation,
        note: Option<Rc<Note>>,
    ) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        let noted = note.map(|note| {
            let reservation = operation.reservation.clone();
            self.trace(&reservation, note.span.map(|(span, _)| span));
            Box::new(Noted { note, reservation })
        });
        let Some(call) = self.wait(Waiting::Operation(answer, noted)) else {
            return at_once(Answer::Refused(Refusal::overloaded()));
        };
        self.enter(|core, now, fx| core.submit(call, operation, now, fx));
        receiver
    }

    /// The answer to a question that arrived at `asked`, if it is known without waiting.
    pub fn known(
        self: &Rc<Self>,
        event: &EventId,
        question: &Question,
        asked: Micros,
    ) -> Option<Found> {
        let mut effects = self.spare.take();
        let found = {
            let mut coordinator = self.coordinator.borrow_mut();
            coordinator.known(event, question, asked, &mut effects)
        };
        // At most a read, which needs no timer.
        for effect in effects.drain(..) {
            self.carry_out(effect);
        }
        self.spare.set(effects);
        found
    }

    /// See [`Coordinator::status_mark`].
    pub fn status_mark(self: &Rc<Self>, event: &EventId) -> Option<StatusMark> {
        let mut effects = self.spare.take();
        let mark = {
            let mut coordinator = self.coordinator.borrow_mut();
            coordinator.status_mark(event, clock::now(), &mut effects)
        };
        // At most reads, which need no timer.
        for effect in effects.drain(..) {
            self.carry_out(effect);
        }
        self.spare.set(effects);
        mark
    }

    /// Asks something about an event that is not known.
    pub fn ask(
        self: &Rc<Self>,
        event: EventId,
        question: Question,
        note: Option<Rc<Note>>,
    ) -> oneshot::Receiver<Told> {
        let (told, receiver) = oneshot::channel();
        let Some(call) = self.wait(Waiting::Question(told, note)) else {
            return at_once(Err(Refusal::overloaded()));
        };
        self.enter(|core, now, fx| core.ask(call, event, question, now, fx));
        receiver
    }

    /// Takes a question that another shard passed on.
    pub fn asked(
        self: &Rc<Self>,
        event: &EventId,
        shape: EventShape,
        question: Question,
        told: oneshot::Sender<Told>,
    ) {
        if self.waiting.borrow().len() >= limits::CALLS_WAITING_MAX {
            let _ = told.send(Err(Refusal::overloaded()));
            return;
        }
        if let Some(call) = self.wait(Waiting::Question(told, None)) {
            self.enter(|core, now, fx| {
                core.ask_forwarded(call, event, shape, question, now, fx);
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
        let Some(call) = self.wait(Waiting::Operation(answer, None)) else {
            return at_once(Answer::Refused(Refusal::overloaded()));
        };
        self.enter(|core, now, fx| {
            core.reclaim(call, event, reservation, record, deadline, now, fx);
        });
        receiver
    }

    /// Forgets what is remembered about an event: an operator has changed it.
    pub fn forget(&self, event: &EventId) {
        self.coordinator
            .borrow_mut()
            .forget(event, clock::monotonic());
    }

    /// Forgets what is remembered about a reservation: an operator has changed it.
    pub fn forget_reservation(&self, reservation: &ReservationId) {
        self.coordinator
            .borrow_mut()
            .forget_reservation(reservation);
    }

    /// Takes an operation that another shard routed here.
    pub fn forwarded(
        self: &Rc<Self>,
        from: usize,
        route: Route,
        operation: Operation,
        known: Known,
        span: Option<SpanIds>,
    ) {
        self.trace(&operation.reservation, span);
        let waiting = Waiting::Shard {
            shard: from,
            event: operation.event.clone(),
            reservation: operation.reservation.clone(),
        };
        match self.wait(waiting) {
            Some(call) => self.enter(|core, now, fx| {
                core.submit_forwarded(call, operation, route, known, now, fx);
            }),
            None => self.reply(
                from,
                Reply {
                    event: operation.event,
                    reservation: operation.reservation,
                    answer: Answer::Refused(Refusal::overloaded()),
                    learned: None,
                    cost: (0.0, 0.0),
                },
            ),
        }
    }

    /// Takes another shard's answer to an operation forwarded from here.
    pub fn replied(self: &Rc<Self>, reply: Reply) {
        self.share.set(reply.cost);
        self.enter(|core, now, fx| {
            let Reply {
                event,
                reservation,
                answer,
                learned,
                ..
            } = reply;
            core.forward_settled(&event, &reservation, answer, learned, now, fx);
        });
        self.share.set((0.0, 0.0));
    }

    fn wait(&self, waiting: Waiting) -> Option<CallId> {
        let mut slab = self.waiting.borrow_mut();
        let room = slab.len() < limits::CALLS_WAITING_MAX;
        room.then(|| CallId(slab.insert(waiting) as u64))
    }

    /// Brings one event into the coordinator and carries out what comes of it.
    fn enter(self: &Rc<Self>, event: impl FnOnce(&mut Coordinator, Now, &mut Vec<Effect>)) {
        self.beat.begins(Doing::Domain);
        let mut effects = self.spare.take();
        {
            let mut coordinator = self.coordinator.borrow_mut();
            event(&mut coordinator, clock::now(), &mut effects);
        }
        for effect in effects.drain(..) {
            self.carry_out(effect);
        }
        self.spare.set(effects);
        self.arm();
    }

    fn carry_out(self: &Rc<Self>, effect: Effect) {
        match effect {
            Effect::Answer {
                call,
                answer,
                learned,
            } => match self.waiting.borrow_mut().try_remove(call.0 as usize) {
                // A caller that has gone needs no answer.
                Some(Waiting::Operation(waiting, noted)) => {
                    if let Some(noted) = noted {
                        let (read, written) = self.share.get();
                        noted.note.cost(read, written);
                        self.untrace(&noted.reservation);
                    }
                    drop(waiting.send(answer));
                }
                Some(Waiting::Shard {
                    shard,
                    event,
                    reservation,
                }) => {
                    self.untrace(&reservation);
                    let reply = Reply {
                        event,
                        reservation,
                        answer,
                        learned,
                        cost: self.share.get(),
                    };
                    self.reply(shard, reply);
                }
                Some(Waiting::Question(..)) | None => {}
            },
            Effect::Told { call, result } => {
                let waiting = self.waiting.borrow_mut().try_remove(call.0 as usize);
                if let Some(Waiting::Question(waiting, note)) = waiting {
                    if let Some(note) = note {
                        note.cost(self.share.get().0, 0.0);
                    }
                    let _ = waiting.send(result);
                }
            }
            Effect::AskShard {
                shard,
                call,
                event,
                shape,
                question,
            } => {
                let waiting = self.waiting.borrow_mut().try_remove(call.0 as usize);
                if let Some(Waiting::Question(told, _)) = waiting {
                    self.pass_on(shard, event, shape, question, told);
                }
            }
            Effect::ReadRecords {
                lookup,
                reservations,
            } => self.look_up(lookup, reservations),
            Effect::ReadSeats { event, seat_keys } => self.read_seats(event, seat_keys),
            Effect::ReadFreeSeats {
                event,
                seat_keys,
                at,
            } => self.read_free_seats(event, seat_keys, at),
            Effect::Transact { lane, transaction } => self.transact(lane, transaction),
            Effect::ReadEvent {
                event,
                stripes_hint,
            } => self.read(event, stripes_hint),
            Effect::Forward {
                shard,
                route,
                operation,
                known,
            } => self.forward(shard, route, operation, known),
        }
    }

    fn transact(self: &Rc<Self>, lane: LaneId, transaction: Rc<Transaction>) {
        let driver = Rc::clone(self);
        self.in_flight.set(self.in_flight.get() + 1);
        let begun = self.begin_span(&transaction);
        inventory_runtime::spawn(async move {
            // What panicked half way may have been sent: unknown, and therefore asked again.
            let (outcome, units) = AssertUnwindSafe(driver.store.transact_counted(&transaction))
                .catch_unwind()
                .await
                .unwrap_or((Outcome::Unknown, 0.0));
            driver.in_flight.set(driver.in_flight.get() - 1);
            if outcome == Outcome::Committed {
                let reservations = transaction.records.len();
                driver.recorder.written(&transaction.event, reservations);
            }
            if let (Some(begun), Some(tracer)) = (begun, &driver.tracer) {
                let table = &driver.store.tables().inventory;
                tracer
                    .sink
                    .offer(begun.end(&transaction, table, &outcome, units));
            }
            let share = units / transaction.records.len().max(1) as f64;
            driver.share.set((0.0, share));
            // The lane takes its records back out of it without a copy.
            drop(transaction);
            driver.enter(|core, now, fx| core.transaction_settled(lane, outcome, now, fx));
            driver.share.set((0.0, 0.0));
        })
        .detach();
    }

    /// Remembers the span of a sampled call until its operation is answered here.
    fn trace(&self, reservation: &ReservationId, span: Option<SpanIds>) {
        if let Some(span) = span {
            let mut traced = self.traced.borrow_mut();
            // Of two sampled calls for one reservation the first is linked.
            traced.entry(reservation.clone()).or_insert(span);
        }
    }

    fn untrace(&self, reservation: &ReservationId) {
        let mut traced = self.traced.borrow_mut();
        if !traced.is_empty() {
            traced.remove(reservation);
        }
    }

    /// The beginning of a transaction's span, if a sampled call is in it.
    fn begin_span(&self, transaction: &Transaction) -> Option<spans::Begun> {
        let tracer = self.tracer.as_ref()?;
        let traced = self.traced.borrow();
        if traced.is_empty() {
            return None;
        }
        let calls = transaction.records.iter().map(|record| &record.reservation);
        let links = calls.filter_map(|reservation| traced.get(reservation).copied());
        spans::Begun::of(links, || tracer.draw())
    }

    fn read(self: &Rc<Self>, event: EventId, stripes_hint: Option<u16>) {
        let driver = Rc::clone(self);
        inventory_runtime::spawn(async move {
            let read = AssertUnwindSafe(driver.store.read_event(&event, stripes_hint))
                .catch_unwind()
                .await
                .unwrap_or(EventRead::Unavailable);
            if let EventRead::Found(stripes) = &read {
                // One unit each: a stripe's item is far under 4 KB.
                driver.share.set((stripes.len() as f64, 0.0));
            }
            driver.enter(|core, now, fx| core.event_read(&event, &read, now, fx));
            driver.share.set((0.0, 0.0));
        })
        .detach();
    }

    fn look_up(self: &Rc<Self>, lookup: LookupId, reservations: Vec<ReservationId>) {
        let driver = Rc::clone(self);
        inventory_runtime::spawn(async move {
            let read = AssertUnwindSafe(driver.store.read_records(&reservations))
                .catch_unwind()
                .await
                .unwrap_or(RecordsRead::Unavailable);
            driver.enter(|core, now, fx| core.records_read(lookup, &read, now, fx));
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
            driver.enter(|core, now, fx| core.seats_read(&event, read, now, fx));
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
            driver.enter(|core, now, fx| core.free_seats_read(&event, read, now, fx));
        })
        .detach();
    }

    fn pass_on(
        &self,
        shard: usize,
        event: EventId,
        shape: EventShape,
        question: Question,
        told: oneshot::Sender<Told>,
    ) {
        let work = Work::Question {
            event,
            shape,
            question,
            told,
        };
        let refused = match self.peers.get(shard) {
            Some(peer) => peer.post(work).err(),
            None => Some(work),
        };
        if let Some(Work::Question { told, .. }) = refused {
            let _ = told.send(Err(Refusal::overloaded()));
        }
    }

    fn forward(self: &Rc<Self>, shard: usize, route: Route, operation: Operation, known: Known) {
        let span = self.traced.borrow().get(&operation.reservation).copied();
        let work = Work::Forward(Box::new(Forwarded {
            from: self.shard,
            route,
            operation,
            known,
            span,
        }));
        let refused = match self.peers.get(shard) {
            Some(peer) => peer.post(work).err(),
            None => Some(work),
        };
        if let Some(Work::Forward(forwarded)) = refused {
            let operation = forwarded.operation;
            let answer = Answer::Refused(Refusal::overloaded());
            self.enter(|core, now, fx| {
                let Operation {
                    event, reservation, ..
                } = &operation;
                core.forward_settled(event, reservation, answer, None, now, fx);
            });
        }
    }

    fn reply(&self, shard: usize, reply: Reply) {
        if let Some(peer) = self.peers.get(shard) {
            peer.reply(reply);
        }
    }

    /// Starts a timer for the coordinator's next wake-up unless one runs that is early enough.
    fn arm(self: &Rc<Self>) {
        let Some(due) = self.coordinator.borrow().wake_at() else {
            return;
        };
        if self.armed.get().is_some_and(|armed| armed <= due) {
            return;
        }
        self.armed.set(Some(due));
        let driver = Rc::clone(self);
        // Never none: a task that has nothing to wait for runs within this call, and would arm again.
        let wait = Duration::from_micros(due.since(clock::monotonic()).0.max(1));
        inventory_runtime::spawn(async move {
            inventory_runtime::sleep(wait).await;
            if driver.armed.get() == Some(due) {
                driver.armed.set(None);
            }
            driver.enter(Coordinator::wake);
        })
        .detach();
    }
}

/// A receiver that has its answer already.
fn at_once<T>(answer: T) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    let _ = sender.send(answer);
    receiver
}
