//! Virtual time, the processes with their shards, and the messages between them.
//!
//! One agenda of steps, ordered by instant and then by the order of scheduling. A crashed process loses its
//! shards and the messages to them; its requests to the store live on.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | the agenda, the shards, and their effects |
//! | `calls.rs` | calls, their answers, crashes |
//! | `links.rs` | messages between shards, and between a shard and the store |
//! | `log.rs` | the log lines of the steps |
//! | `members.rs` | what processes learn of each other |
//! | `reclaim.rs` | reclaimers, and the rule that no hold stays overdue |
//! | `upkeep.rs` | crashes and operators |
//! | `rest.rs` | checks at rest |

mod calls;
mod links;
mod log;
mod members;
mod reclaim;
mod rest;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::rc::Rc;

use inventory_core::answer::{Answer, Rejection};
use inventory_core::effect::{CallId, Effect, LaneId, RecordHint, RecordReadId};
use inventory_core::engine::{Engine, EngineSettings};
use inventory_core::expiry_search::{ExpirySearch, IndexRead, SearchSettings};
use inventory_core::ids::{EventId, ReservationId, SeatId};
use inventory_core::membership::Members;
use inventory_core::operation::{Operation, Selection};
use inventory_core::query::{Query, QueryResult};
use inventory_core::seats::SeatItem;
use inventory_core::time::{Micros, Now, UnixMillis};
use inventory_core::transaction::{
    EventLayout, FreeSeatsRead, RecordView, RecordsRead, SeatsRead, StripeView, StripesRead,
    Transaction, TransactionOutcome,
};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::clients::{self, Call, Request};
use super::model::Store;
use super::network::{self, hop};
use super::oracle::{Oracle, unix};
use super::report::Report;
use super::scenario::{Faults, Scenario, StockKind};
use super::trace::Words;
use super::violation::{Violation, ensure};
use links::HalfRead;
use reclaim::{OpenRead, OverdueList};

/// Steps after which a run counts as a livelock, without those of searches, which go on while a hold waits for a write:
/// a hundred times what a run needs.
const STEPS_MAX: u64 = 400_000;

/// Call ids from here on belong to forwarded operations, forwarded queries and expiries, not to client calls.
const INTERNAL: u64 = 1 << 32;

/// One shard in one life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShardRef {
    pub(crate) process: usize,
    pub(crate) shard: usize,
    life: u32,
}

#[derive(Debug)]
enum WorldStep {
    CallArrives(Call),
    /// A query at one shard.
    QueryArrives(ShardRef, Call),
    AtStore {
        from: ShardRef,
        lane: LaneId,
        transaction: Rc<Transaction>,
        arrival: network::Arrival,
    },
    Settled(ShardRef, LaneId, TransactionOutcome),
    StripeAtStore {
        from: ShardRef,
        event: EventId,
        with_counters: bool,
        seen: Vec<StripeView>,
    },
    Read(ShardRef, EventId, StripesRead),
    RecordsAtStore(ShardRef, RecordReadId, Vec<ReservationId>),
    RecordsReturned(ShardRef, RecordReadId, RecordsRead),
    SeatsAtStore {
        from: ShardRef,
        event: EventId,
        seen: Option<Vec<SeatItem>>,
    },
    SeatsRead(ShardRef, EventId, SeatsRead),
    FreeSeatsAtStore {
        from: ShardRef,
        event: EventId,
        unix: UnixMillis,
        seen: Option<HalfRead>,
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
    QueryForwarded {
        to: ShardRef,
        from: ShardRef,
        call: CallId,
        event: EventId,
        layout: EventLayout,
        query: Query,
    },
    QueryReturned(ShardRef, CallId, Result<QueryResult, Rejection>),
    Wake(ShardRef),
    Crash(usize),
    Search(ShardRef),
    IndexAtStore(ShardRef, IndexRead),
    IndexRead(ShardRef, IndexRead, Option<OverdueList>),
    /// The read with this number does not wait for its expiries any longer.
    ExpiriesTimedOut(ShardRef, IndexRead, u64),
    Restock(EventId, u16, u64),
    Close(EventId),
    Block(EventId, SeatId),
    Invalidate(ShardRef, EventId),
    /// A process reads who else sells.
    SeesMembers(usize),
    Members(ShardRef, Rc<Members>),
}

impl WorldStep {
    fn is_of_search(&self) -> bool {
        matches!(
            self,
            Self::Search(_)
                | Self::IndexAtStore(..)
                | Self::IndexRead(..)
                | Self::ExpiriesTimedOut(..)
        )
    }
}

/// The event and the reservation of a forwarded operation.
type Origin = (EventId, ReservationId);

/// The origin of an internal call.
#[derive(Debug)]
enum InternalCaller {
    /// A shard forwards at most one call of an origin at a time.
    Forward {
        to: ShardRef,
        from: ShardRef,
        origin: Origin,
    },
    Query(ShardRef, CallId),
    /// The expiry of a hold that the read with this number found.
    Reclaimer(ShardRef, IndexRead, u64, ReservationId),
}

impl InternalCaller {
    fn process(&self) -> usize {
        match self {
            Self::Forward { to: at, .. } | Self::Query(at, _) => at.process,
            Self::Reclaimer(at, ..) => at.process,
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
    search: ExpirySearch,
    /// The scheduled poll of the search.
    search_at: Option<Micros>,
    open_reads: BTreeMap<IndexRead, OpenRead>,
    /// Holds whose expiry is not answered yet, also if the read that found them has ended.
    expiring: BTreeSet<ReservationId>,
}

struct Process {
    life: u32,
    shards: Vec<Shard>,
}

/// See the module head.
pub(crate) struct World {
    scenario: Scenario,
    now: Micros,
    made: u64,
    agenda: BTreeMap<(Micros, u64), WorldStep>,
    /// Steps of searches in the agenda.
    searches_ahead: usize,
    overdue_checked: Micros,
    /// Steps so far, without those of searches.
    steps: u64,
    processes: Vec<Process>,
    store: Store,
    oracle: Oracle,
    report: Report,
    /// No more faults: the rest of the run must come to rest.
    quiet: bool,
    clients_rng: SmallRng,
    network_rng: SmallRng,
    queries_rng: SmallRng,
    members_rng: SmallRng,
    /// By call id.
    internal: BTreeMap<u64, InternalCaller>,
    calls_made: u64,
    internal_made: u64,
    /// The log, if it is wanted.
    log: Option<String>,
}

impl World {
    pub(crate) fn new(scenario: Scenario, logged: bool) -> Self {
        let seed = scenario.seed;
        let mut store = Store::new(scenario.token_memory);
        for (event, stock) in &scenario.events {
            match stock {
                StockKind::Units(capacities) => store.create(event, capacities),
                StockKind::Seats { keys, seats } => {
                    store.create_seated(event, *keys, seats.clone())
                }
            }
        }
        let mut world = Self {
            now: Micros(0),
            made: 0,
            agenda: BTreeMap::new(),
            searches_ahead: 0,
            steps: 0,
            overdue_checked: Micros(0),
            processes: Vec::new(),
            store,
            oracle: Oracle::new(&scenario),
            report: Report::default(),
            quiet: false,
            clients_rng: SmallRng::seed_from_u64(seed ^ 0xc11e_0075),
            network_rng: SmallRng::seed_from_u64(seed ^ 0x00ae_7000),
            queries_rng: SmallRng::seed_from_u64(seed ^ 0x0c01_0015),
            members_rng: SmallRng::seed_from_u64(seed ^ 0x6d65_6d73),
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
        if world.scenario.outage.is_some() {
            world.report.fault("outages");
        }
        world
    }

    pub(crate) fn log(&self) -> &str {
        self.log.as_deref().unwrap_or_default()
    }

    /// The whole run: the sale, the checks at rest, and the sale of what remains.
    pub(crate) fn run(&mut self) -> Result<Report, Violation> {
        self.until_rest()?;
        self.quiet = true;
        self.store.check_all_conservation()?;
        self.oracle.at_rest(&self.store)?;
        self.idle()?;
        self.sell_the_rest()?;
        self.store.check_all_conservation()?;
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
                attempt_timeout: network::ATTEMPT_TIMEOUT,
            };
            let search = SearchSettings {
                shard,
                shards,
                parts: reclaim::PARTS,
                segments: reclaim::SEGMENTS,
                every: self.scenario.reclaim_every,
            };
            let search_seed = self.scenario.seed.rotate_left(30);
            let of = (process as u64) << 40 | (shard as u64) << 32 | u64::from(life);
            let rng = SmallRng::seed_from_u64(self.scenario.seed.rotate_left(20) ^ of);
            Shard {
                engine: Engine::new(settings, rng),
                wake: None,
                lanes_in_flight: BTreeMap::new(),
                reading: BTreeSet::new(),
                reading_seats: BTreeSet::new(),
                looking_for_seats: BTreeSet::new(),
                search: ExpirySearch::new(search, SmallRng::seed_from_u64(search_seed ^ of)),
                search_at: None,
                open_reads: BTreeMap::new(),
                expiring: BTreeSet::new(),
            }
        });
        Process { life, shards: shards.collect() }
    }

    fn schedule(&mut self) {
        let calls = clients::plan(&self.scenario, &mut self.clients_rng);
        self.put_uncounted_holds(&calls);
        for call in calls {
            self.make(call.arrives, WorldStep::CallArrives(call));
        }
        for call in clients::queries(&self.scenario, &mut self.queries_rng) {
            self.make(call.arrives, WorldStep::CallArrives(call));
        }
        self.schedule_upkeep();
        self.schedule_members();
        for process in 0..self.processes.len() {
            self.start_searches(process);
        }
    }

    /// Some reservations were held by an earlier version, which counted no held units.
    fn put_uncounted_holds(&mut self, calls: &[Call]) {
        for call in calls.iter().take(self.scenario.uncounted_holds) {
            let Request::Write(_, reservation) = &call.what else { continue };
            let Selection::Quantity(qty) = call.selection else { continue };
            if self.store.is_seated(&call.event) || !reservation.as_str().starts_with("r-") {
                continue;
            }
            let until = UnixMillis(unix(Micros(0)).0 + call.hold_for.0 / 1_000);
            if self.store.put_uncounted_hold(&call.event, reservation, qty, until) {
                self.oracle.was_held_before(reservation);
                self.report.count("holds of an earlier version");
            }
        }
    }

    fn make(&mut self, at: Micros, step: WorldStep) {
        self.made += 1;
        self.agenda.insert((at.max(self.now), self.made), step);
    }

    fn note(&mut self, what: std::fmt::Arguments<'_>) {
        if let Some(log) = self.log.as_mut() {
            let _ = writeln!(log, "{:>10} {what}", self.now.0);
        }
    }

    fn until_rest(&mut self) -> Result<(), Violation> {
        while let Some(((at, _), step)) = self.agenda.pop_first() {
            self.report.steps += 1;
            self.steps += u64::from(!step.is_of_search());
            let steps = self.steps;
            ensure!(steps < STEPS_MAX, "a livelock: {steps} steps");
            self.now = at;
            if self.log.is_some() {
                self.note(format_args!("{step}"));
            }
            self.run_step(step)?;
        }
        Ok(())
    }

    fn run_step(&mut self, step: WorldStep) -> Result<(), Violation> {
        match step {
            WorldStep::CallArrives(call) => self.arrives(call),
            WorldStep::QueryArrives(at, call) if self.lives(at) => self.submit(at, call).map(drop),
            WorldStep::AtStore { from, lane, transaction, arrival } => {
                self.at_store(from, lane, &transaction, &arrival)
            }
            WorldStep::Settled(at, lane, outcome) => self.settled(at, lane, outcome),
            WorldStep::StripeAtStore { from, event, with_counters, seen } => {
                self.reads_stripe(from, event, with_counters, seen);
                Ok(())
            }
            WorldStep::Read(at, event, read) => {
                let (oracle, store) = (&mut self.oracle, &self.store);
                oracle.read_ends(at, &event, &read, self.now, store);
                self.with(at, |shard, now| {
                    shard.reading.remove(&event);
                    shard.engine.handle_stripes_read(&event, &read, now);
                })
            }
            WorldStep::RecordsAtStore(from, lookup, reservations) => {
                self.looks_up(from, lookup, &reservations);
                Ok(())
            }
            WorldStep::RecordsReturned(at, lookup, read) => self.with(at, |shard, now| {
                shard.engine.handle_records_read(lookup, &read, now);
            }),
            WorldStep::SeatsAtStore { from, event, seen } => {
                self.reads_seats(from, event, seen);
                Ok(())
            }
            WorldStep::SeatsRead(at, event, read) => self.with(at, |shard, now| {
                shard.reading_seats.remove(&event);
                shard.engine.handle_seats_read(&event, read, now);
            }),
            WorldStep::FreeSeatsAtStore { from, event, unix, seen } => {
                self.looks_for_seats(from, event, unix, seen);
                Ok(())
            }
            WorldStep::FreeSeatsRead(at, event, read) => self.with(at, |shard, now| {
                shard.looking_for_seats.remove(&event);
                shard.engine.handle_free_seats_read(&event, read, now);
            }),
            WorldStep::Wake(at) => {
                let mut is_over = true;
                self.with(at, |shard, now| {
                    if shard.wake.is_some_and(|due| due <= now.mono) {
                        shard.wake = None;
                    }
                    shard.engine.handle_timeout(now);
                    let next = shard.engine.poll_timeout();
                    is_over = next.is_none_or(|due| due > now.mono);
                })?;
                ensure!(is_over, "a timer that is due again at once");
                Ok(())
            }
            WorldStep::Crash(process) => {
                self.crashes(process);
                Ok(())
            }
            WorldStep::Search(at) => self.searches(at),
            WorldStep::IndexAtStore(at, read) => {
                self.reads_index(at, read);
                Ok(())
            }
            WorldStep::IndexRead(at, read, found) => self.index_read(at, read, found),
            WorldStep::ExpiriesTimedOut(at, read, number) => {
                self.expiries_timed_out(at, read, number)
            }
            other => self.run_step_between(other),
        }
    }

    fn settled(
        &mut self,
        at: ShardRef,
        lane: LaneId,
        outcome: TransactionOutcome,
    ) -> Result<(), Violation> {
        if !self.lives(at) {
            return Ok(());
        }
        let shard = &mut self.processes[at.process].shards[at.shard];
        if let Some(transaction) = shard.lanes_in_flight.remove(&lane) {
            let (oracle, store) = (&mut self.oracle, &self.store);
            oracle.settles(at, &transaction, &outcome, store);
        }
        self.with(at, |shard, now| {
            let at = &mut shard.engine;
            at.handle_transaction_outcome(lane, outcome, now);
        })
    }

    /// Steps between shards, and operator steps.
    fn run_step_between(&mut self, step: WorldStep) -> Result<(), Violation> {
        match step {
            WorldStep::Forwarded { to, from, layout, operation, hint } if self.lives(to) => {
                self.internal(InternalCaller::Forward { to, from, origin: origin_of(&operation) });
                self.with(to, |shard, now| {
                    let at = &mut shard.engine;
                    at.handle_forwarded_call(from.shard, operation, layout, hint, now);
                })
            }
            WorldStep::ForwardSettled(to, (event, reservation), answer, learned) => {
                if let Some(view) = &learned
                    && !matches!(answer, Answer::Rejected(_))
                {
                    let (oracle, store) = (&mut self.oracle, &self.store);
                    oracle.forward_answered(to, &event, &reservation, view, store);
                }
                self.with(to, |shard, now| {
                    let at = &mut shard.engine;
                    at.handle_forward_outcome(&event, &reservation, answer, learned, now);
                })
            }
            WorldStep::QueryForwarded { to, from, call, event, layout, query }
                if self.lives(to) =>
            {
                let call = self.internal(InternalCaller::Query(from, call));
                self.with(to, |shard, now| {
                    let at = &mut shard.engine;
                    at.handle_forwarded_query(call, &event, layout, query, now);
                })
            }
            WorldStep::QueryReturned(to, call, result) if self.lives(to) => {
                self.told(to, call, &result)
            }
            WorldStep::Invalidate(at, event) => {
                self.oracle.forgets(at, &event);
                self.with(at, |shard, now| {
                    shard.engine.handle_event_changed(&event, now);
                })
            }
            WorldStep::SeesMembers(process) => {
                self.sees_members(process);
                Ok(())
            }
            WorldStep::Members(to, members) => self.with(to, |shard, now| {
                shard.search.handle_membership(&members, now.mono);
                shard.engine.handle_membership(members, now);
            }),
            WorldStep::Restock(event, stripe, units) => {
                self.store.restock(&event, stripe, units, self.now);
                self.report.count("restocks");
                Ok(())
            }
            WorldStep::Close(event) => {
                self.store.close(&event, self.now);
                self.report.count("closed events");
                Ok(())
            }
            WorldStep::Block(event, seat) => {
                self.store.block(&event, &seat, self.now);
                self.report.count("seats blocked or put back");
                Ok(())
            }
            // The message was for an earlier life of the process.
            _ => Ok(()),
        }
    }

    fn internal(&mut self, waits: InternalCaller) -> CallId {
        self.internal_made += 1;
        let call = CallId(INTERNAL + self.internal_made);
        self.internal.insert(call.0, waits);
        call
    }

    /// Gives the answer to a forwarded call the number that the call has in the log.
    fn number_forwarded(&self, at: ShardRef, effect: Effect) -> Result<Effect, Violation> {
        let Effect::AnswerForwarded { shard, event, reservation, answer, record } = effect else {
            return Ok(effect);
        };
        let (home, asked) = (ShardRef { shard, ..at }, (event, reservation));
        let is_for = |caller: &InternalCaller| {
            matches!(caller, InternalCaller::Forward { to, from, origin }
                if (*to, *from) == (at, home) && *origin == asked)
        };
        let mut waiting = self.internal.iter().filter(|(_, caller)| is_for(caller));
        match (waiting.next(), waiting.next()) {
            (Some((call, _)), None) => Ok(Effect::Answer { call: CallId(*call), answer, record }),
            _ => Err(Violation(format!("an answer to none or several forwarded calls: {asked:?}"))),
        }
    }

    fn lives(&self, at: ShardRef) -> bool {
        self.processes[at.process].life == at.life
    }

    /// Wall-clock time of a process.
    fn clock(&self, process: usize) -> UnixMillis {
        UnixMillis(unix(self.now).0 + self.scenario.ahead[process])
    }

    /// Gives an input to a shard, executes its effects and schedules its timer. A message to an earlier life of
    /// the process is lost.
    fn with(&mut self, at: ShardRef, act: impl FnOnce(&mut Shard, Now)) -> Result<(), Violation> {
        if !self.lives(at) {
            return Ok(());
        }
        let now = Now { mono: self.now, unix: self.clock(at.process) };
        let shard = &mut self.processes[at.process].shards[at.shard];
        act(shard, now);
        let effects: Vec<_> = std::iter::from_fn(|| shard.engine.poll_effect()).collect();
        let wake = shard.engine.poll_timeout();
        if let Some(due) = wake
            && shard.wake.is_none_or(|set| due < set)
        {
            shard.wake = Some(due);
            self.make(due, WorldStep::Wake(at));
        }
        for effect in effects {
            self.carry_out(at, effect)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, at: ShardRef, effect: Effect) -> Result<(), Violation> {
        let effect = self.number_forwarded(at, effect)?;
        if self.log.is_some() {
            self.note(format_args!("  {}", Words(&effect)));
        }
        let shard = &mut self.processes[at.process].shards[at.shard];
        match effect {
            Effect::Answer { call, answer, record } => self.answers(at, call, answer, record),
            // Has a number.
            Effect::AnswerForwarded { .. } => Ok(()),
            Effect::AnswerQuery { call, result } => match self.internal.remove(&call.0) {
                Some(InternalCaller::Query(to, call)) => {
                    let due = self.now.plus(hop(&mut self.network_rng));
                    self.make(due, WorldStep::QueryReturned(to, call, result));
                    Ok(())
                }
                Some(other) => Err(Violation(format!(
                    "a query result for another call: {other:?} got {result:?}"
                ))),
                None => self.told(at, call, &result),
            },
            Effect::ForwardQuery { shard: to, call, event, layout, query } => {
                ensure!(to != at.shard, "a query forwarded to the same shard");
                self.pass_on(at, to, call, event, layout, query);
                Ok(())
            }
            Effect::Transact { lane, transaction, limit } => {
                let in_flight = shard.lanes_in_flight.insert(lane, Rc::clone(&transaction));
                ensure!(in_flight.is_none(), "two transactions in flight in one lane: {lane:?}");
                self.oracle.sends(&transaction, self.now);
                if self.store.check_transaction(&transaction)? {
                    self.oracle.dispatched(at.process, &transaction, self.now)?;
                }
                self.send(at, lane, transaction, limit);
                Ok(())
            }
            Effect::ReadStripes { event, with_counters, .. } => {
                ensure!(
                    shard.reading.insert(event.clone()),
                    "two reads of one event in flight: {event}"
                );
                let (oracle, store) = (&mut self.oracle, &self.store);
                oracle.read_begins(at, &event, self.now, store);
                self.read(at, event, with_counters);
                Ok(())
            }
            Effect::ReadRecords { read: lookup, reservations } => {
                let distinct: BTreeSet<_> = reservations.iter().collect();
                ensure!(
                    distinct.len() == reservations.len() && !reservations.is_empty(),
                    "a key twice in one read: {reservations:?}"
                );
                self.look_up(at, lookup, reservations);
                Ok(())
            }
            Effect::ReadSeats { event, .. } => {
                ensure!(
                    shard.reading_seats.insert(event.clone()),
                    "two reads of the seats of one event in flight: {event}"
                );
                self.read_seats(at, event);
                Ok(())
            }
            Effect::ReadFreeSeats { event, at: unix, .. } => {
                ensure!(
                    shard.looking_for_seats.insert(event.clone()),
                    "two reads of the free seats of one event in flight: {event}"
                );
                self.look_for_seats(at, event, unix);
                Ok(())
            }
            Effect::Forward { shard: to, layout, operation, hint } => {
                ensure!(to != at.shard, "a call forwarded to the same shard");
                self.forward(at, to, layout, operation, hint);
                Ok(())
            }
        }
    }

    fn faults(&self) -> Faults {
        let is_away = |(from, to): (Micros, Micros)| from <= self.now && self.now < to;
        match self.scenario.outage {
            _ if self.quiet => Faults::default(),
            Some(outage) if is_away(outage) => Faults::outage(),
            _ => self.scenario.faults,
        }
    }
}

fn origin_of(operation: &Operation) -> Origin {
    (operation.event.clone(), operation.reservation.clone())
}
