//! Carries out what the domain wants: the one place where the pure core meets the executor.
//!
//! A call enters the coordinator, its effects come out and are carried out: answers to waiting
//! calls, transactions and reads to the store, operations to other shards. The store's answers and
//! the clock enter the same way. No rule lives here.

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use slab::Slab;

use super::inbox::{Forwarded, Mailbox, Reply, Work};
use crate::domain::answer::{Answer, Refusal};
use crate::domain::coordinator::Coordinator;
use crate::domain::counters::Counters;
use crate::domain::effect::{CallId, Effect, Known, LaneId, LookupId, Route};
use crate::domain::ids::{EventId, ReservationId};
use crate::domain::operation::Operation;
use crate::domain::question::{Found, Question};
use crate::domain::time::{Micros, Now};
use crate::domain::transaction::{
    EventRead, EventShape, Outcome, RecordView, RecordsRead, SeatsRead, Transaction,
};
use crate::limits;
use crate::runtime::{self, clock};
use crate::store::Store;

/// What is told to who asks a question.
pub type Told = Result<Found, Refusal>;

/// Who waits for an answer of the coordinator.
enum Waiting {
    Operation(oneshot::Sender<Answer>),
    Question(oneshot::Sender<Told>),
    /// Another shard, which forwarded this reservation's operation.
    Shard {
        shard: usize,
        event: EventId,
        reservation: ReservationId,
    },
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
    /// Effect buffers for reuse; more than one only while effects cause effects.
    spare: Cell<Vec<Effect>>,
}

impl Driver {
    pub fn new(
        shard: usize,
        coordinator: Coordinator,
        store: Rc<Store>,
        peers: Vec<Mailbox>,
    ) -> Rc<Self> {
        Rc::new(Self {
            shard,
            coordinator: RefCell::new(coordinator),
            store,
            waiting: RefCell::new(Slab::new()),
            peers,
            armed: Cell::new(None),
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

    /// Operations that have not settled.
    pub fn unsettled(&self) -> usize {
        self.coordinator.borrow().in_lanes()
    }

    /// The answer to a repeat of a settled reservation, from memory.
    pub fn replay(&self, operation: &Operation, now: Micros) -> Option<Answer> {
        self.coordinator.borrow_mut().replay(operation, now)
    }

    /// Submits an operation. Dropping the receiver abandons the answer, never the operation.
    pub fn submit(self: &Rc<Self>, operation: Operation) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        let Some(call) = self.wait(Waiting::Operation(answer)) else {
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

    /// Asks something about an event that is not known.
    pub fn ask(self: &Rc<Self>, event: EventId, question: Question) -> oneshot::Receiver<Told> {
        let (told, receiver) = oneshot::channel();
        let Some(call) = self.wait(Waiting::Question(told)) else {
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
        if let Some(call) = self.wait(Waiting::Question(told)) {
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
        let Some(call) = self.wait(Waiting::Operation(answer)) else {
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
    ) {
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
                },
            ),
        }
    }

    /// Takes another shard's answer to an operation forwarded from here.
    pub fn replied(self: &Rc<Self>, reply: Reply) {
        self.enter(|core, now, fx| {
            let Reply {
                event,
                reservation,
                answer,
                learned,
            } = reply;
            core.forward_settled(&event, &reservation, answer, learned, now, fx);
        });
    }

    fn wait(&self, waiting: Waiting) -> Option<CallId> {
        let mut slab = self.waiting.borrow_mut();
        let room = slab.len() < limits::CALLS_WAITING_MAX;
        room.then(|| CallId(slab.insert(waiting) as u64))
    }

    /// Brings one event into the coordinator and carries out what comes of it.
    fn enter(self: &Rc<Self>, event: impl FnOnce(&mut Coordinator, Now, &mut Vec<Effect>)) {
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
                Some(Waiting::Operation(waiting)) => drop(waiting.send(answer)),
                Some(Waiting::Shard {
                    shard,
                    event,
                    reservation,
                }) => self.reply(
                    shard,
                    Reply {
                        event,
                        reservation,
                        answer,
                        learned,
                    },
                ),
                Some(Waiting::Question(_)) | None => {}
            },
            Effect::Told { call, result } => {
                let waiting = self.waiting.borrow_mut().try_remove(call.0 as usize);
                if let Some(Waiting::Question(waiting)) = waiting {
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
                if let Some(Waiting::Question(told)) = waiting {
                    self.pass_on(shard, event, shape, question, told);
                }
            }
            Effect::ReadRecords {
                lookup,
                reservations,
            } => self.look_up(lookup, reservations),
            Effect::ReadSeats { event, seat_keys } => self.read_seats(event, seat_keys),
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
        runtime::spawn(async move {
            // What panicked half way may have been sent: unknown, and therefore asked again.
            let outcome = AssertUnwindSafe(driver.store.transact(&transaction))
                .catch_unwind()
                .await
                .unwrap_or(Outcome::Unknown);
            // The lane takes its records back out of it without a copy.
            drop(transaction);
            driver.enter(|core, now, fx| core.transaction_settled(lane, outcome, now, fx));
        })
        .detach();
    }

    fn read(self: &Rc<Self>, event: EventId, stripes_hint: Option<u16>) {
        let driver = Rc::clone(self);
        runtime::spawn(async move {
            let read = AssertUnwindSafe(driver.store.read_event(&event, stripes_hint))
                .catch_unwind()
                .await
                .unwrap_or(EventRead::Unavailable);
            driver.enter(|core, now, fx| core.event_read(&event, &read, now, fx));
        })
        .detach();
    }

    fn look_up(self: &Rc<Self>, lookup: LookupId, reservations: Vec<ReservationId>) {
        let driver = Rc::clone(self);
        runtime::spawn(async move {
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
        runtime::spawn(async move {
            let read = AssertUnwindSafe(driver.store.read_seats(&event, seat_keys))
                .catch_unwind()
                .await
                .unwrap_or(SeatsRead::Unavailable);
            driver.enter(|core, now, fx| core.seats_read(&event, read, now, fx));
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
        let work = Work::Forward(Box::new(Forwarded {
            from: self.shard,
            route,
            operation,
            known,
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
        runtime::spawn(async move {
            runtime::sleep(wait).await;
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
