//! Virtual time: the processes and their shards, and what is under way between them.
//!
//! One queue of happenings, ordered by instant and then by the order they were made in. A process
//! that crashes loses its shards and every message to them; what it sent to the store lives on.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the queue of happenings, the shards, calls and their answers, crashes |
//! | `links.rs` | what goes between the shards, and between a shard and the store |
//! | `rest.rs` | what must hold when nothing happens any more |

mod links;
mod rest;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::rc::Rc;

use inventory_api::domain::answer::Answer;
use inventory_api::domain::coordinator::{Coordinator, Settings};
use inventory_api::domain::effect::{CallId, Effect, LaneId, Route};
use inventory_api::domain::ids::{EventId, ReservationId};
use inventory_api::domain::operation::Operation;
use inventory_api::domain::time::{Micros, Now, UnixMillis};
use inventory_api::domain::transaction::{EventRead, Outcome, RecordView, StripeView, Transaction};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::audit::Audit;
use super::broken::{Broken, must};
use super::clients::{self, Call};
use super::model::Store;
use super::network::{self, hop};
use super::report::Report;
use super::scenario::{Scenario, pick};

/// Happenings of one run before it counts as a livelock: a hundred times what a run needs.
const STEPS_MAX: u64 = 400_000;

/// Ids from here on are of forwarded operations, not of clients' calls.
const FORWARDED: u64 = 1 << 32;

/// One shard of one life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShardRef {
    pub(crate) process: usize,
    pub(crate) shard: usize,
    life: u32,
}

#[derive(Debug)]
enum Happening {
    Arrives(Call),
    AtStore {
        from: ShardRef,
        lane: LaneId,
        transaction: Rc<Transaction>,
        arrival: network::Arrival,
    },
    Settled(ShardRef, LaneId, Outcome),
    ReadsStripe {
        from: ShardRef,
        event: EventId,
        seen: Vec<StripeView>,
    },
    Read(ShardRef, EventId, EventRead),
    Forwarded {
        to: ShardRef,
        from: ShardRef,
        route: Route,
        operation: Operation,
    },
    ForwardSettled(ShardRef, Origin, Answer, Option<RecordView>),
    Wakes(ShardRef),
    Crashes(usize),
    Restocks(EventId, u16, u64),
}

/// The event and the reservation of an operation that was forwarded.
type Origin = (EventId, ReservationId);

struct Shard {
    coordinator: Coordinator,
    wake: Option<Micros>,
    lanes_in_flight: BTreeSet<LaneId>,
    reading: BTreeSet<EventId>,
}

struct Process {
    life: u32,
    shards: Vec<Shard>,
}

/// See the module's head.
pub(crate) struct World {
    scenario: Scenario,
    now: Micros,
    made: u64,
    happenings: BTreeMap<(Micros, u64), Happening>,
    processes: Vec<Process>,
    store: Store,
    audit: Audit,
    report: Report,
    /// Faults are over: what is left must come to rest.
    quiet: bool,
    clients_rng: SmallRng,
    network_rng: SmallRng,
    /// By call number.
    forwards: BTreeMap<u64, (ShardRef, Origin)>,
    calls_made: u64,
    forwards_made: u64,
    /// Everything that happened, if it is wanted.
    log: Option<String>,
}

impl World {
    pub(crate) fn new(scenario: Scenario, logged: bool) -> Self {
        let seed = scenario.seed;
        let mut store = Store::new(scenario.token_memory);
        for (event, capacities) in &scenario.events {
            store.create(event, capacities);
        }
        let mut world = Self {
            now: Micros(0),
            made: 0,
            happenings: BTreeMap::new(),
            processes: Vec::new(),
            store,
            audit: Audit::new(&scenario),
            report: Report::default(),
            quiet: false,
            clients_rng: SmallRng::seed_from_u64(seed ^ 0xc11e_0075),
            network_rng: SmallRng::seed_from_u64(seed ^ 0x00ae_7000),
            forwards: BTreeMap::new(),
            calls_made: 0,
            forwards_made: 0,
            log: logged.then(String::new),
            scenario,
        };
        for process in 0..world.scenario.processes.len() {
            let started = world.start(process, 0);
            world.processes.push(started);
        }
        world.schedule();
        world
    }

    pub(crate) fn log(&self) -> &str {
        self.log.as_deref().unwrap_or_default()
    }

    /// The whole run: the sale, the rest after it, and buying what is left.
    pub(crate) fn run(&mut self) -> Result<Report, Broken> {
        self.until_rest()?;
        self.quiet = true;
        self.store.conserved_in_full()?;
        self.audit.at_rest(&self.store)?;
        self.idle()?;
        self.sell_the_rest()?;
        self.store.conserved_in_full()?;
        self.idle()?;
        for process in &self.processes {
            for shard in &process.shards {
                self.report.counters(&shard.coordinator.counters());
            }
        }
        self.report.runs += 1;
        Ok(self.report.clone())
    }

    fn start(&self, process: usize, life: u32) -> Process {
        let shards = self.scenario.processes[process];
        let shards = (0..shards).map(|shard| {
            let settings = Settings {
                shard,
                shards,
                cache_capacity: self.scenario.cache_capacity,
                cache_for: self.scenario.cache_for,
            };
            let of = (process as u64) << 40 | (shard as u64) << 32 | u64::from(life);
            let rng = SmallRng::seed_from_u64(self.scenario.seed.rotate_left(20) ^ of);
            Shard {
                coordinator: Coordinator::new(settings, rng),
                wake: None,
                lanes_in_flight: BTreeSet::new(),
                reading: BTreeSet::new(),
            }
        });
        Process {
            life,
            shards: shards.collect(),
        }
    }

    fn schedule(&mut self) {
        for call in clients::plan(&self.scenario, &mut self.clients_rng) {
            self.make(call.arrives, Happening::Arrives(call));
        }
        let span = self.scenario.span.0 + 300_000;
        for _ in 0..self.scenario.crashes {
            let at = Micros(self.clients_rng.random_range(0..span));
            let process = self.clients_rng.random_range(0..self.processes.len());
            self.make(at, Happening::Crashes(process));
        }
        for _ in 0..self.scenario.restocks {
            let rng = &mut self.clients_rng;
            let at = Micros(rng.random_range(0..span));
            let (event, stripes) = pick(rng, &self.scenario.events);
            let stripe = rng.random_range(0..stripes.len()) as u16;
            let units = rng.random_range(1..=2 * u64::from(self.scenario.qty_max));
            let event = event.clone();
            self.make(at, Happening::Restocks(event, stripe, units));
        }
    }

    fn make(&mut self, at: Micros, happening: Happening) {
        self.made += 1;
        self.happenings
            .insert((at.max(self.now), self.made), happening);
    }

    fn note(&mut self, what: std::fmt::Arguments<'_>) {
        if let Some(log) = self.log.as_mut() {
            let _ = writeln!(log, "{:>10} {what}", self.now.0);
        }
    }

    fn until_rest(&mut self) -> Result<(), Broken> {
        while let Some(((at, _), happening)) = self.happenings.pop_first() {
            self.report.steps += 1;
            let steps = self.report.steps;
            must!(steps < STEPS_MAX, "no rest after {steps} steps");
            self.now = at;
            if self.log.is_some() {
                self.note(format_args!("{happening:?}"));
            }
            self.happen(happening)?;
        }
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Broken> {
        match happening {
            Happening::Arrives(call) => self.arrives(call),
            Happening::AtStore {
                from,
                lane,
                transaction,
                arrival,
            } => self.at_store(from, lane, &transaction, &arrival),
            Happening::Settled(at, lane, outcome) => self.with(at, |shard, now, fx| {
                shard.lanes_in_flight.remove(&lane);
                shard
                    .coordinator
                    .transaction_settled(lane, outcome, now, fx);
            }),
            Happening::ReadsStripe { from, event, seen } => {
                self.reads_stripe(from, event, seen);
                Ok(())
            }
            Happening::Read(at, event, read) => self.with(at, |shard, now, fx| {
                shard.reading.remove(&event);
                shard.coordinator.event_read(&event, &read, now, fx);
            }),
            Happening::Forwarded {
                to,
                from,
                route,
                operation,
            } if self.lives(to) => {
                self.forwards_made += 1;
                let call = CallId(FORWARDED + self.forwards_made);
                self.forwards.insert(call.0, (from, origin_of(&operation)));
                self.with(to, |shard, now, fx| {
                    shard
                        .coordinator
                        .submit_forwarded(call, operation, route, now, fx);
                })
            }
            Happening::Forwarded { .. } => Ok(()),
            Happening::ForwardSettled(to, (event, reservation), answer, learned) => {
                self.with(to, |shard, now, fx| {
                    let at = &mut shard.coordinator;
                    at.forward_settled(&event, &reservation, answer, learned, now, fx);
                })
            }
            Happening::Wakes(at) => self.with(at, |shard, now, fx| {
                if shard.wake.is_some_and(|due| due <= now.mono) {
                    shard.wake = None;
                }
                shard.coordinator.wake(now, fx);
            }),
            Happening::Crashes(process) => {
                self.crashes(process);
                Ok(())
            }
            Happening::Restocks(event, stripe, units) => {
                self.store.restock(&event, stripe, units, self.now);
                self.report.count("restocks");
                Ok(())
            }
        }
    }

    /// A client calls: some shard of some process takes it.
    fn arrives(&mut self, mut call: Call) -> Result<(), Broken> {
        call.arrives = self.now;
        let process = self.clients_rng.random_range(0..self.processes.len());
        let shard = self
            .clients_rng
            .random_range(0..self.processes[process].shards.len());
        let at = ShardRef {
            process,
            shard,
            life: self.processes[process].life,
        };
        self.submit(at, call).map(drop)
    }

    fn submit(&mut self, at: ShardRef, call: Call) -> Result<CallId, Broken> {
        self.calls_made += 1;
        let id = CallId(self.calls_made);
        self.note(format_args!("  {id:?} at {at:?}"));
        let operation = call.operation();
        let (event, qty) = (call.event.clone(), call.qty);
        self.audit.taken(id, at.process, call);
        let mut replayed = None;
        self.with(at, |shard, now, fx| match operation {
            None => shard.coordinator.check(id, event, qty, now, fx),
            Some(operation) => match shard.coordinator.replay(&operation, now.mono) {
                Some(answer) => replayed = Some(answer),
                None => shard.coordinator.submit(id, operation, now, fx),
            },
        })?;
        if let Some(answer) = replayed {
            self.answered(id, answer)?;
        }
        Ok(id)
    }

    fn lives(&self, at: ShardRef) -> bool {
        self.processes[at.process].life == at.life
    }

    /// Lets a shard do something, carries out what it wants, and minds its timer. Messages to a
    /// life that has ended are lost.
    fn with(
        &mut self,
        at: ShardRef,
        act: impl FnOnce(&mut Shard, Now, &mut Vec<Effect>),
    ) -> Result<(), Broken> {
        if !self.lives(at) {
            return Ok(());
        }
        let now = Now {
            mono: self.now,
            unix: UnixMillis(1_760_000_000_000 + self.now.0 / 1_000),
        };
        let mut fx = Vec::new();
        let shard = &mut self.processes[at.process].shards[at.shard];
        act(shard, now, &mut fx);
        let wake = shard.coordinator.wake_at();
        if let Some(due) = wake
            && shard.wake.is_none_or(|set| due < set)
        {
            shard.wake = Some(due);
            self.make(due, Happening::Wakes(at));
        }
        for effect in fx {
            self.carry_out(at, effect)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, at: ShardRef, effect: Effect) -> Result<(), Broken> {
        if self.log.is_some() {
            self.note(format_args!("  {effect:?}"));
        }
        let shard = &mut self.processes[at.process].shards[at.shard];
        match effect {
            Effect::Answer {
                call,
                answer,
                learned,
            } => match self.forwards.remove(&call.0) {
                Some((to, origin)) => {
                    let due = self.now.plus(hop(&mut self.network_rng));
                    let settled = Happening::ForwardSettled(to, origin, answer, learned);
                    self.make(due, settled);
                    Ok(())
                }
                None => self.answered(call, answer),
            },
            Effect::Checked { call, result } => {
                self.audit.checked(call, &result, self.now, &self.store)?;
                self.report.count("checks");
                Ok(())
            }
            Effect::Transact { lane, transaction } => {
                must!(
                    shard.lanes_in_flight.insert(lane),
                    "two transactions in flight for {lane:?}"
                );
                if self.store.inspect(&transaction)? {
                    self.audit.dispatched(at.process, &transaction, self.now)?;
                }
                self.send(at, lane, transaction);
                Ok(())
            }
            Effect::ReadEvent { event, .. } => {
                must!(
                    shard.reading.insert(event.clone()),
                    "two reads of {event} under way"
                );
                self.read(at, event);
                Ok(())
            }
            Effect::Forward {
                shard: to,
                route,
                operation,
            } => {
                must!(to != at.shard, "forwarded to itself");
                self.forward(at, to, route, operation);
                Ok(())
            }
        }
    }

    fn answered(&mut self, id: CallId, answer: Answer) -> Result<(), Broken> {
        self.report.answer(&answer);
        let call = self.audit.answered(id, &answer, self.now, &self.store)?;
        if !self.quiet
            && let Some(again) =
                clients::repeats(&call, Some(&answer), self.now, &mut self.clients_rng)
        {
            self.make(again.arrives, Happening::Arrives(again));
        }
        Ok(())
    }

    fn crashes(&mut self, process: usize) {
        self.report.count("crashes");
        for shard in &self.processes[process].shards {
            self.report.counters(&shard.coordinator.counters());
        }
        let life = self.processes[process].life + 1;
        self.processes[process] = self.start(process, life);
        self.forwards.retain(|_, (at, _)| at.process != process);
        for call in self.audit.crashed(process) {
            self.report.count("calls lost in a crash");
            if let Some(again) = clients::repeats(&call, None, self.now, &mut self.clients_rng) {
                self.make(again.arrives, Happening::Arrives(again));
            }
        }
    }

    fn faults(&self) -> super::scenario::Faults {
        if self.quiet {
            Default::default()
        } else {
            self.scenario.faults
        }
    }
}

fn origin_of(operation: &Operation) -> Origin {
    (operation.event.clone(), operation.reservation.clone())
}
