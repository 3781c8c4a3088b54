//! The scenario of a seed. Everything in a run follows from it.

use inventory_core::ids::EventId;
use inventory_core::rules::LateCommit;
use inventory_core::seats::{SeatFacts, SeatItem, SeatState};
use inventory_core::time::Micros;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::model::TOKEN_MEMORY;

/// Rates of the faults of network and store, each in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The request never arrives.
    pub(crate) lost_request: u32,
    /// The request is applied, its answer never arrives.
    pub(crate) lost_answer: u32,
    /// The request arrives after the sender has given up.
    pub(crate) late_request: u32,
    /// The request arrives twice.
    pub(crate) echo: u32,
    pub(crate) conflict: u32,
    pub(crate) throttle: u32,
    pub(crate) check_rejection: u32,
    /// Transactions in which some actions conflict or are throttled.
    pub(crate) action_fault: u32,
    pub(crate) read_fault: u32,
    /// The inbox of the other shard is full.
    pub(crate) inbox_full: u32,
}

/// The stock of an event.
#[derive(Clone, Debug)]
pub(crate) enum StockKind {
    /// Capacity of each stripe.
    Units(Vec<u64>),
    Seats {
        keys: u16,
        seats: Vec<SeatItem>,
    },
}

/// Number of operator actions that the servers are not notified of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Operators {
    pub(crate) restocks: usize,
    /// Blocks or unblocks of a seat.
    pub(crate) blocks: usize,
    pub(crate) closes: usize,
    /// Refunded orders, in hundredths.
    pub(crate) refunds: u32,
}

/// How processes learn of each other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Membership {
    /// Reads of the members by each process during the sale; 0: every process believes that it is alone.
    pub(crate) views: usize,
    /// Thousandths of members that a read overlooks, of former ones that it lists, and of shards that do not get it.
    pub(crate) wrong: u32,
    /// A process that believes that it is alone.
    pub(crate) zombie: Option<usize>,
}

/// See the module head.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// Number of shards of each process on the one store.
    pub(crate) processes: Vec<usize>,
    pub(crate) membership: Membership,
    /// How far the clock of each process is ahead, in milliseconds.
    pub(crate) ahead: Vec<u64>,
    pub(crate) events: Vec<(EventId, StockKind)>,
    /// Whether clients hold before they commit. Without holds and operators stock only shrinks.
    pub(crate) holds: bool,
    /// Many clients hold at once and never commit, so that many holds expire at once.
    pub(crate) mass_expiry: bool,
    /// The first calls of that number whose reservations are held by an earlier version, which counted no held units.
    pub(crate) uncounted_holds: usize,
    /// Length of the holds.
    pub(crate) hold_for: Micros,
    pub(crate) late: LateCommit,
    /// The sold-out latch: how long before a call the read that answers "sold out" may have begun.
    pub(crate) latch: Micros,
    /// Interval of the reads of the expiry index.
    pub(crate) reclaim_every: Micros,
    /// How far the expiry index is behind the table.
    pub(crate) index_lag: Micros,
    /// Start and end of an outage: nothing reaches the store.
    pub(crate) outage: Option<(Micros, Micros)>,
    pub(crate) reservations: usize,
    pub(crate) calls: usize,
    pub(crate) qty_max: u32,
    /// All first calls arrive within this time.
    pub(crate) span: Micros,
    pub(crate) cache_capacity: usize,
    pub(crate) cache_for: Micros,
    pub(crate) faults: Faults,
    pub(crate) crashes: usize,
    pub(crate) operators: Operators,
    /// Stripes or seats of one read are read one after the other, as a batch read does.
    pub(crate) torn_reads: bool,
    /// A request that the sender gave up on, or a duplicate of one, may be applied even after a later attempt of it
    /// was cancelled. "Nothing was done" is only likely then; everything else must still hold.
    pub(crate) ghosts: bool,
    pub(crate) token_memory: Micros,
    /// How long before a query about units the read that answers it may have begun.
    pub(crate) read_staleness: Micros,
    /// Many queries about units, most of them right after a sale.
    pub(crate) many_queries: bool,
    /// More calls at once than fit into a few transactions, and no malformed request: queues are longer than some
    /// callers have time for.
    pub(crate) flood: bool,
}

const MINUTE: Micros = Micros::from_millis(60_000);

/// The most that the clock of a process is ahead, in milliseconds.
pub(crate) const AHEAD_MAX: u64 = 40;

impl Scenario {
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x5ce0_a210);
        let rng = &mut rng;
        let mut of_reads = SmallRng::seed_from_u64(seed ^ 0x0009_ead5);
        let mut of_index = SmallRng::seed_from_u64(seed ^ 0x00de_1a75);
        let mut of_upgrade = SmallRng::seed_from_u64(seed ^ 0x01d4_01d5);
        let flood = SmallRng::seed_from_u64(seed ^ 0xf100_0d00).random_range(0..20) == 0;
        let mut of_members = SmallRng::seed_from_u64(seed ^ 0x0f1e_e700);
        let processes = processes(rng, &mut of_members);
        let ahead = processes.iter();
        let ahead = ahead.map(|_| *pick(rng, &[0, 0, 7, AHEAD_MAX])).collect();
        let mut qty_max = *pick(rng, &[1, 3, 10]);
        let events = (0..rng.random_range(1..=3)).map(|n| (event(n), stock(rng)));
        let mut events: Vec<(EventId, StockKind)> = events.collect();
        if of_members.random_range(0..4) == 0 {
            events[0].1 = uneven_stock(&mut of_members);
            // Half of a rich stripe may be too little for the largest.
            qty_max = *pick(&mut of_members, &[qty_max, 99]);
        }
        let fault_free = rng.random_range(0..5) == 0;
        let faults = Faults::of(rng, fault_free);
        let mass_expiry = rng.random_range(0..12) == 0;
        let late = match rng.random_range(0..4) {
            0 => LateCommit::Reject,
            _ => LateCommit::Reacquire,
        };
        let holds = mass_expiry || rng.random_range(0..4) > 0;
        let hold_for = Micros::from_millis(*pick(rng, &[1, 40, 300, 2_000, 60_000]));
        let outage = (of_index.random_range(0..12) == 0).then(|| outage(&mut of_index));
        let membership = Membership::of(&mut of_members, processes.len());
        Self {
            seed,
            processes,
            membership,
            ahead,
            events,
            holds,
            mass_expiry,
            uncounted_holds: *pick(&mut of_upgrade, &[0, 0, 10, 150]),
            hold_for,
            late,
            latch: Micros::from_millis(*pick(rng, &[0, 50, 50, 400])),
            reclaim_every: reclaim_every(rng, hold_for, outage),
            index_lag: Micros::from_millis(*pick(&mut of_index, &[0, 10, 800])),
            outage,
            reservations: match () {
                () if flood => 1_000,
                () if mass_expiry => 250,
                () => *pick(rng, &[5, 20, 60, 150]),
            },
            calls: match () {
                () if flood => 2_000,
                () if mass_expiry => 300,
                () => *pick(rng, &[20, 60, 150, 300]),
            },
            qty_max,
            span: match flood {
                true => Micros::from_millis(100),
                false => Micros::from_millis(*pick(rng, &[1, 30, 200, 2_000])),
            },
            cache_capacity: *pick(rng, &[0, 2, 1_000]),
            cache_for: Micros::from_millis(*pick(rng, &[50, 300_000])),
            faults,
            crashes: if fault_free || rng.random_range(0..3) > 0 {
                0
            } else {
                rng.random_range(1..=3)
            },
            operators: Operators::of(rng),
            torn_reads: rng.random(),
            ghosts: rng.random_range(0..6) == 0,
            token_memory: *pick(rng, &[TOKEN_MEMORY, TOKEN_MEMORY, Micros(0)]),
            read_staleness: Micros::from_millis(*pick(&mut of_reads, &[0, 5, 50, 50, 1_000])),
            many_queries: of_reads.random_range(0..3) > 0,
            flood,
        }
    }

    /// Whether the store may forget the token of a write before its outcome is known.
    pub(crate) fn may_forget_tokens(&self) -> bool {
        let away = self.outage.map_or(Micros(0), |(from, to)| to.since(from));
        self.token_memory < TOKEN_MEMORY || away >= self.token_memory
    }

    /// Whether there are no faults, so that no rejection may blame one.
    pub(crate) fn is_fault_free(&self) -> bool {
        let all = self.faults;
        let sum = all.lost_request + all.lost_answer + all.late_request + all.echo;
        let sum = sum + all.conflict + all.throttle + all.check_rejection + all.action_fault;
        sum + all.read_fault + all.inbox_full == 0 && self.outage.is_none()
    }
}

/// The number of shards of each process.
fn processes(rng: &mut SmallRng, of_members: &mut SmallRng) -> Vec<usize> {
    let few = match rng.random_range(0..10) {
        0..3 => vec![1],
        3..6 => vec![rng.random_range(2..=4)],
        6..9 => vec![rng.random_range(1..=3), rng.random_range(1..=3)],
        _ => vec![1, 2, 3],
    };
    match of_members.random_range(0..5) {
        0 => (0..of_members.random_range(3..=8)).map(|_| of_members.random_range(1..=2)).collect(),
        _ => few,
    }
}

fn reclaim_every(rng: &mut SmallRng, hold_for: Micros, outage: Option<(Micros, Micros)>) -> Micros {
    match (*pick(rng, &[50, 500, 2_500]), hold_for, outage) {
        // A run of many minutes with short intervals would have too many steps.
        (_, _, Some((from, to))) if to.since(from) > MINUTE => Micros::from_millis(2_500),
        (every, hold_for, _) if hold_for >= MINUTE => Micros::from_millis(every.max(500)),
        (every, ..) => Micros::from_millis(every),
    }
}

impl Membership {
    fn of(rng: &mut SmallRng, processes: usize) -> Self {
        if processes == 1 || rng.random_range(0..5) == 0 {
            return Self::default();
        }
        Self {
            views: *pick(rng, &[1, 3, 20]),
            wrong: *pick(rng, &[0, 0, 50, 300]),
            zombie: (rng.random_range(0..6) == 0).then(|| rng.random_range(0..processes)),
        }
    }
}

impl Operators {
    fn of(rng: &mut SmallRng) -> Self {
        if rng.random() {
            return Self::default();
        }
        Self {
            restocks: rng.random_range(0..=6),
            blocks: *pick(rng, &[0, 0, 3, 20]),
            closes: usize::from(rng.random_range(0..6) == 0),
            refunds: *pick(rng, &[0, 0, 10, 50]),
        }
    }
}

impl Faults {
    fn of(rng: &mut SmallRng, fault_free: bool) -> Self {
        match rng.random_range(0..4) {
            _ if fault_free => Self::default(),
            0 => Self::evenly(10),
            1 => Self::evenly(40),
            2 => Self::evenly(90),
            _ => Self::single(rng),
        }
    }

    /// Nothing reaches the store.
    pub(crate) fn outage() -> Self {
        Self { lost_request: 1_000, read_fault: 1_000, ..Self::default() }
    }

    fn evenly(each: u32) -> Self {
        Self {
            lost_request: each,
            lost_answer: each,
            late_request: each,
            echo: each,
            conflict: each,
            throttle: each,
            check_rejection: each / 4,
            action_fault: each,
            read_fault: each,
            inbox_full: each / 4,
        }
    }

    /// One kind of fault only, at a high rate.
    fn single(rng: &mut SmallRng) -> Self {
        let mut faults = Self::default();
        let kinds = [
            &mut faults.lost_request,
            &mut faults.lost_answer,
            &mut faults.late_request,
            &mut faults.conflict,
            &mut faults.throttle,
            &mut faults.action_fault,
            &mut faults.read_fault,
        ];
        let chosen = rng.random_range(0..kinds.len());
        for (kind, share) in kinds.into_iter().enumerate() {
            if kind == chosen {
                *share = 400;
            }
        }
        faults
    }
}

/// The event number `n`; the number after the last does not exist.
pub(crate) fn event(n: usize) -> EventId {
    format!("evt-{n}").parse().expect("legal")
}

/// During the sale or while its holds expire; the longest are longer than every window of the search.
fn outage(rng: &mut SmallRng) -> (Micros, Micros) {
    let within: u64 = *pick(rng, &[100_000, 3_000_000]);
    let from = Micros(rng.random_range(0..within));
    let length = Micros::from_millis(*pick(rng, &[3_000, 30_000, 300_000, 3_000_000]));
    (from, from.plus(length))
}

fn stock(rng: &mut SmallRng) -> StockKind {
    if rng.random_range(0..5) < 2 {
        return StockKind::Seats { keys: *pick(rng, &[1, 4]), seats: seats(rng) };
    }
    let stripes = *pick(rng, &[1, 1, 2, 5, 9]);
    let most = *pick(rng, &[0, 3, 12, 60, 1_000]);
    StockKind::Units((0..stripes).map(|_| rng.random_range(0..=most)).collect())
}

/// A few rich stripes, from which units are moved, among poor ones.
fn uneven_stock(rng: &mut SmallRng) -> StockKind {
    let stripes = *pick(rng, &[2, 4, 9]);
    let mut units: Vec<u64> = (0..stripes).map(|_| rng.random_range(0..=6)).collect();
    for _ in 0..rng.random_range(1..=2) {
        units[rng.random_range(0..stripes)] = rng.random_range(120..=450);
    }
    StockKind::Units(units)
}

/// One row or a few, in two sections.
fn seats(rng: &mut SmallRng) -> Vec<SeatItem> {
    let many = *pick(rng, &[1, 6, 20, 60]);
    let seat = |n: usize| SeatItem {
        id: format!("S-{n}").parse().expect("legal"),
        facts: SeatFacts {
            section: SECTIONS[n * 2 / many].to_owned(),
            row: format!("{}", n / 10),
            number: format!("{}", n % 10),
            price: None,
        },
        state: SeatState::Available,
    };
    (0..many).map(seat).collect()
}

pub(crate) const SECTIONS: [&str; 2] = ["left", "right"];

pub(crate) fn pick<'a, T>(rng: &mut SmallRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}
