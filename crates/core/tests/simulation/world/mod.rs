//! Virtual time: the processes and their shards, and what is under way between them.
//!
//! One queue of happenings, ordered by instant and then by the order they were made in. A process
//! that crashes loses its shards and every message to them; what it sent to the store lives on.
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | the queue of happenings, the shards, what they want done |
//! | `calls.rs` | calls and their answers, crashes |
//! | `links.rs` | what goes between the shards, and between a shard and the store |
//! | `log.rs` | the lines of the log that stand for happenings |
//! | `upkeep.rs` | reclaimers, and operators behind the servers' back |
//! | `rest.rs` | what must hold when nothing happens any more |

mod calls;
mod links;
mod log;
mod rest;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::rc::Rc;

use inventory_core::answer::{Answer, Rejection};
use inventory_core::effect::{CallId, Effect, LaneId, RecordHint, RecordReadId};
use inventory_core::engine::{Engine, EngineSettings};
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_core::operation::Operation;
use inventory_core::query::{Query, QueryResult};
use inventory_core::seats::SeatItem;
use inventory_core::time::{Micros, Now, UnixMillis};
use inventory_core::transaction::{
    EventLayout, FreeSeatsRead, RecordView, RecordsRead, SeatsRead, StripeView, StripesRead,
    Transaction, TransactionOutcome,
};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::audit::{Audit, unix};
use super::broken::{Broken, must};
use super::clients::{self, Call};
use super::model::Store;
use super::network::{self, hop};
use super::report::Report;
use super::scenario::{Scenario, Stock};
use super::trace::Words;
use links::HalfLooked;

/// Happenings of one run before it counts as a livelock: a hundred times what a run needs.
const STEPS_MAX: u64 = 400_000;

/// Ids from here on are of operations that were forwarded, of questions that were passed on, and of
/// holds to be ended: not of clients' calls.
const INTERNAL: u64 = 1 << 32;

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
    /// A query to one shard.
    Wonders(ShardRef, Call),
    AtStore {
        from: ShardRef,
        lane: LaneId,
        transaction: Rc<Transaction>,
        arrival: network::Arrival,
    },
    Settled(ShardRef, LaneId, TransactionOutcome),
    ReadsStripe {
        from: ShardRef,
        event: EventId,
        seen: Vec<StripeView>,
    },
    Read(ShardRef, EventId, StripesRead),
    LooksUp(ShardRef, RecordReadId, Vec<ReservationId>),
    LookedUp(ShardRef, RecordReadId, RecordsRead),
    ReadsSeats {
        from: ShardRef,
        event: EventId,
        seen: Option<Vec<SeatItem>>,
    },
    SeatsRead(ShardRef, EventId, SeatsRead),
    LooksForSeats {
        from: ShardRef,
        event: EventId,
        unix: UnixMillis,
        seen: Option<HalfLooked>,
    },
    FreeSeatsRead(ShardRef, EventId, FreeSeatsRead),
    Forwarded {
        to: ShardRef,
        from: ShardRef,
        layout: EventLayout,
        operation: Operation,
        hint: RecordHint,
    },
    ForwardSettled(ShardRef, Origin, Answer, Option<RecordView>),
    Asked {
        to: ShardRef,
        from: ShardRef,
        call: CallId,
        event: EventId,
        layout: EventLayout,
        query: Query,
    },
    ToldBack(ShardRef, CallId, Result<QueryResult, Rejection>),
    Wakes(ShardRef),
    Crashes(usize),
    Reclaims(usize),
    FoundDue(ShardRef, Vec<(EventId, ReservationId, RecordView)>),
    Restocks(EventId, u16, u64),
    Closes(EventId),
    Blocks(EventId, SeatId),
    Forgets(ShardRef, EventId),
}

/// The event and the reservation of an operation that was forwarded.
type Origin = (EventId, ReservationId);

/// Who waits for an internal call.
#[derive(Debug)]
enum Waits {
    Forward(ShardRef, Origin),
    Query(ShardRef, CallId),
    Reclaimer(usize, ReservationId),
}

impl Waits {
    fn process(&self) -> usize {
        match self {
            Self::Forward(at, _) | Self::Query(at, _) => at.process,
            Self::Reclaimer(process, _) => *process,
        }
    }
}

struct Shard {
    engine: Engine,
    wake: Option<Micros>,
    lanes_in_flight: BTreeMap<LaneId, Rc<Transaction>>,
    reading: BTreeSet<EventId>,
    reading_seats: BTreeSet<EventId>,
    looking_for_seats: BTreeSet<EventId>,
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
    /// Looks of the reclaimers among them.
    reclaims_ahead: usize,
    processes: Vec<Process>,
    store: Store,
    audit: Audit,
    report: Report,
    /// Faults are over: what is left must come to rest.
    quiet: bool,
    clients_rng: SmallRng,
    network_rng: SmallRng,
    curious_rng: SmallRng,
    /// By call number.
    internal: BTreeMap<u64, Waits>,
    calls_made: u64,
    internal_made: u64,
    /// Everything that happened, if it is selection.
    log: Option<String>,
}

impl World {
    pub(crate) fn new(scenario: Scenario, logged: bool) -> Self {
        let seed = scenario.seed;
        let mut store = Store::new(scenario.token_memory);
        for (event, stock) in &scenario.events {
            match stock {
                Stock::Units(capacities) => store.create(event, capacities),
                Stock::Seats { keys, seats } => store.create_seated(event, *keys, seats.clone()),
            }
        }
        let mut world = Self {
            now: Micros(0),
            made: 0,
            happenings: BTreeMap::new(),
            reclaims_ahead: 0,
            processes: Vec::new(),
            store,
            audit: Audit::new(&scenario),
            report: Report::default(),
            quiet: false,
            clients_rng: SmallRng::seed_from_u64(seed ^ 0xc11e_0075),
            network_rng: SmallRng::seed_from_u64(seed ^ 0x00ae_7000),
            curious_rng: SmallRng::seed_from_u64(seed ^ 0x0c01_0015),
            internal: BTreeMap::new(),
            calls_made: 0,
            internal_made: 0,
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
                self.report.counters(&shard.engine.counters());
            }
        }
        self.report.runs += 1;
        Ok(self.report.clone())
    }

    fn start(&self, process: usize, life: u32) -> Process {
        let shards = self.scenario.processes[process];
        let shards = (0..shards).map(|shard| {
            let settings = EngineSettings {
                shard,
                shards,
                cache_capacity: self.scenario.cache_capacity,
                cache_for: self.scenario.cache_for,
                late_commit: self.scenario.late,
                sold_out_latch: self.scenario.latch,
                read_staleness: self.scenario.read_staleness,
            };
            let of = (process as u64) << 40 | (shard as u64) << 32 | u64::from(life);
            let rng = SmallRng::seed_from_u64(self.scenario.seed.rotate_left(20) ^ of);
            Shard {
                engine: Engine::new(settings, rng),
                wake: None,
                lanes_in_flight: BTreeMap::new(),
                reading: BTreeSet::new(),
                reading_seats: BTreeSet::new(),
                looking_for_seats: BTreeSet::new(),
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
        for call in clients::looks(&self.scenario, &mut self.curious_rng) {
            self.make(call.arrives, Happening::Arrives(call));
        }
        self.schedule_upkeep();
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
                self.note(format_args!("{happening}"));
            }
            self.happen(happening)?;
        }
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Broken> {
        match happening {
            Happening::Arrives(call) => self.arrives(call),
            Happening::Wonders(at, call) if self.lives(at) => self.submit(at, call).map(drop),
            Happening::AtStore {
                from,
                lane,
                transaction,
                arrival,
            } => self.at_store(from, lane, &transaction, &arrival),
            Happening::Settled(at, lane, outcome) => self.settled(at, lane, outcome),
            Happening::ReadsStripe { from, event, seen } => {
                self.reads_stripe(from, event, seen);
                Ok(())
            }
            Happening::Read(at, event, read) => {
                let (audit, store) = (&mut self.audit, &self.store);
                audit.read_ends(at, &event, &read, self.now, store);
                self.with(at, |shard, now| {
                    shard.reading.remove(&event);
                    shard.engine.handle_stripes_read(&event, &read, now);
                })
            }
            Happening::LooksUp(from, lookup, reservations) => {
                self.looks_up(from, lookup, &reservations);
                Ok(())
            }
            Happening::LookedUp(at, lookup, read) => self.with(at, |shard, now| {
                shard.engine.handle_records_read(lookup, &read, now);
            }),
            Happening::ReadsSeats { from, event, seen } => {
                self.reads_seats(from, event, seen);
                Ok(())
            }
            Happening::SeatsRead(at, event, read) => self.with(at, |shard, now| {
                shard.reading_seats.remove(&event);
                shard.engine.handle_seats_read(&event, read, now);
            }),
            Happening::LooksForSeats {
                from,
                event,
                unix,
                seen,
            } => {
                self.looks_for_seats(from, event, unix, seen);
                Ok(())
            }
            Happening::FreeSeatsRead(at, event, read) => self.with(at, |shard, now| {
                shard.looking_for_seats.remove(&event);
                shard.engine.handle_free_seats_read(&event, read, now);
            }),
            Happening::Wakes(at) => {
                let mut is_over = true;
                self.with(at, |shard, now| {
                    if shard.wake.is_some_and(|due| due <= now.mono) {
                        shard.wake = None;
                    }
                    shard.engine.handle_timeout(now);
                    let next = shard.engine.poll_timeout();
                    is_over = next.is_none_or(|due| due > now.mono);
                })?;
                must!(is_over, "woken, and wants to be woken at this very moment");
                Ok(())
            }
            Happening::Crashes(process) => {
                self.crashes(process);
                Ok(())
            }
            Happening::Reclaims(process) => self.reclaims(process),
            Happening::FoundDue(at, due) => self.found_due(at, due),
            other => self.happens_between(other),
        }
    }

    fn settled(
        &mut self,
        at: ShardRef,
        lane: LaneId,
        outcome: TransactionOutcome,
    ) -> Result<(), Broken> {
        if !self.lives(at) {
            return Ok(());
        }
        let shard = &mut self.processes[at.process].shards[at.shard];
        if let Some(transaction) = shard.lanes_in_flight.remove(&lane) {
            let (audit, store) = (&mut self.audit, &self.store);
            audit.settles(at, &transaction, &outcome, store);
        }
        self.with(at, |shard, now| {
            let at = &mut shard.engine;
            at.handle_transaction_outcome(lane, outcome, now);
        })
    }

    /// Between shards, and behind their back.
    fn happens_between(&mut self, happening: Happening) -> Result<(), Broken> {
        match happening {
            Happening::Forwarded {
                to,
                from,
                layout,
                operation,
                hint,
            } if self.lives(to) => {
                let call = self.internal(Waits::Forward(from, origin_of(&operation)));
                self.with(to, |shard, now| {
                    let at = &mut shard.engine;
                    at.handle_forwarded_call(call, operation, layout, hint, now);
                })
            }
            Happening::ForwardSettled(to, (event, reservation), answer, learned) => {
                if let Some(view) = &learned
                    && !matches!(answer, Answer::Rejected(_))
                {
                    let (audit, store) = (&mut self.audit, &self.store);
                    audit.is_told(to, &event, &reservation, view, store);
                }
                self.with(to, |shard, now| {
                    let at = &mut shard.engine;
                    at.handle_forward_outcome(&event, &reservation, answer, learned, now);
                })
            }
            Happening::Asked {
                to,
                from,
                call,
                event,
                layout,
                query,
            } if self.lives(to) => {
                let call = self.internal(Waits::Query(from, call));
                self.with(to, |shard, now| {
                    let at = &mut shard.engine;
                    at.handle_forwarded_query(call, &event, layout, query, now);
                })
            }
            Happening::ToldBack(to, call, result) if self.lives(to) => self.told(to, call, &result),
            Happening::Forgets(at, event) => {
                self.audit.forgets(at, &event);
                self.with(at, |shard, now| {
                    shard.engine.handle_event_changed(&event, now);
                })
            }
            Happening::Restocks(event, stripe, units) => {
                self.store.restock(&event, stripe, units, self.now);
                self.report.count("restocks");
                Ok(())
            }
            Happening::Closes(event) => {
                self.store.close(&event, self.now);
                self.report.count("closed events");
                Ok(())
            }
            Happening::Blocks(event, seat) => {
                self.store.block(&event, &seat, self.now);
                self.report.count("seats blocked or put back");
                Ok(())
            }
            // A message to a life that has ended.
            _ => Ok(()),
        }
    }

    fn internal(&mut self, waits: Waits) -> CallId {
        self.internal_made += 1;
        let call = CallId(INTERNAL + self.internal_made);
        self.internal.insert(call.0, waits);
        call
    }

    fn lives(&self, at: ShardRef) -> bool {
        self.processes[at.process].life == at.life
    }

    /// The clock of a process.
    fn clock(&self, process: usize) -> UnixMillis {
        UnixMillis(unix(self.now).0 + self.scenario.ahead[process])
    }

    /// Lets a shard do something, carries out what it wants, and minds its timer. Messages to a
    /// life that has ended are lost.
    fn with(&mut self, at: ShardRef, act: impl FnOnce(&mut Shard, Now)) -> Result<(), Broken> {
        if !self.lives(at) {
            return Ok(());
        }
        let now = Now {
            mono: self.now,
            unix: self.clock(at.process),
        };
        let shard = &mut self.processes[at.process].shards[at.shard];
        act(shard, now);
        let effects: Vec<_> = std::iter::from_fn(|| shard.engine.poll_effect()).collect();
        let wake = shard.engine.poll_timeout();
        if let Some(due) = wake
            && shard.wake.is_none_or(|set| due < set)
        {
            shard.wake = Some(due);
            self.make(due, Happening::Wakes(at));
        }
        for effect in effects {
            self.carry_out(at, effect)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, at: ShardRef, effect: Effect) -> Result<(), Broken> {
        if self.log.is_some() {
            self.note(format_args!("  {}", Words(&effect)));
        }
        let shard = &mut self.processes[at.process].shards[at.shard];
        match effect {
            Effect::Answer {
                call,
                answer,
                record,
            } => self.answers(at, call, answer, record),
            Effect::AnswerQuery { call, result } => match self.internal.remove(&call.0) {
                Some(Waits::Query(to, call)) => {
                    let due = self.now.plus(hop(&mut self.network_rng));
                    self.make(due, Happening::ToldBack(to, call, result));
                    Ok(())
                }
                Some(other) => Err(Broken(format!("{other:?} was told {result:?}"))),
                None => self.told(at, call, &result),
            },
            Effect::ForwardQuery {
                shard: to,
                call,
                event,
                layout,
                query,
            } => {
                must!(to != at.shard, "asked itself");
                self.pass_on(at, to, call, event, layout, query);
                Ok(())
            }
            Effect::Transact { lane, transaction } => {
                let in_flight = shard.lanes_in_flight.insert(lane, Rc::clone(&transaction));
                must!(
                    in_flight.is_none(),
                    "two transactions in flight for {lane:?}"
                );
                self.audit.sends(&transaction, self.now);
                if self.store.inspect(&transaction)? {
                    self.audit.dispatched(at.process, &transaction, self.now)?;
                }
                self.send(at, lane, transaction);
                Ok(())
            }
            Effect::ReadStripes { event, .. } => {
                must!(
                    shard.reading.insert(event.clone()),
                    "two reads of {event} under way"
                );
                let (audit, store) = (&mut self.audit, &self.store);
                audit.read_begins(at, &event, self.now, store);
                self.read(at, event);
                Ok(())
            }
            Effect::ReadRecords {
                read: lookup,
                reservations,
            } => {
                let distinct: BTreeSet<_> = reservations.iter().collect();
                must!(
                    distinct.len() == reservations.len() && !reservations.is_empty(),
                    "a key twice in one read: {reservations:?}"
                );
                self.look_up(at, lookup, reservations);
                Ok(())
            }
            Effect::ReadSeats { event, .. } => {
                must!(
                    shard.reading_seats.insert(event.clone()),
                    "two reads of the seats of {event} under way"
                );
                self.read_seats(at, event);
                Ok(())
            }
            Effect::ReadFreeSeats {
                event, at: unix, ..
            } => {
                must!(
                    shard.looking_for_seats.insert(event.clone()),
                    "two looks for seats of {event} under way"
                );
                self.look_for_seats(at, event, unix);
                Ok(())
            }
            Effect::Forward {
                shard: to,
                layout,
                operation,
                hint,
            } => {
                must!(to != at.shard, "forwarded to itself");
                self.forward(at, to, layout, operation, hint);
                Ok(())
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
