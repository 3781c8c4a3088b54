//! What one seed means. Everything a run does follows from its seed alone.

use inventory_core::ids::EventId;
use inventory_core::rules::LateCommit;
use inventory_core::seats::{SeatFacts, SeatItem, SeatState};
use inventory_core::time::Micros;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::model::TOKEN_MEMORY;

/// How often the network and the store misbehave, each in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The request never arrives.
    pub(crate) lost_request: u32,
    /// It is applied, its answer never arrives.
    pub(crate) lost_answer: u32,
    /// It arrives only after the sender has given up on it.
    pub(crate) late_request: u32,
    /// It arrives twice.
    pub(crate) echo: u32,
    pub(crate) conflict: u32,
    pub(crate) throttle: u32,
    pub(crate) refused: u32,
    /// Transactions in which some actions conflict or are throttled, among their other reasons.
    pub(crate) action_fault: u32,
    pub(crate) read_fault: u32,
    /// The other shard's inbox is full.
    pub(crate) inbox_full: u32,
}

/// What an event sells.
#[derive(Clone, Debug)]
pub(crate) enum Stock {
    /// Capacity of each stripe.
    Units(Vec<u64>),
    Seats {
        keys: u16,
        seats: Vec<SeatItem>,
    },
}

/// What operators do behind the servers' back, times each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Operators {
    pub(crate) restocks: usize,
    /// Blocks a seat, or puts it back.
    pub(crate) blocks: usize,
    pub(crate) closes: usize,
    /// Orders refunded, in hundredths.
    pub(crate) refunds: u32,
}

/// See the module's head.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// Shards of each process on the one store.
    pub(crate) processes: Vec<usize>,
    /// How many milliseconds each process's clock is ahead.
    pub(crate) ahead: Vec<u64>,
    pub(crate) events: Vec<(EventId, Stock)>,
    /// Whether clients hold before they commit. Without holds and operators stock only ever shrinks.
    pub(crate) holds: bool,
    /// Many hold at once and forget about it, so that many holds end at once.
    pub(crate) crowd: bool,
    /// How long the holds of a run last.
    pub(crate) hold_for: Micros,
    pub(crate) late: LateCommit,
    /// How long before a call the read may have begun that says there is too little.
    pub(crate) latch: Micros,
    /// How often each process looks for holds that are past their time.
    pub(crate) reclaim_every: Micros,
    pub(crate) reservations: usize,
    pub(crate) calls: usize,
    pub(crate) qty_max: u32,
    /// All first calls arrive within this.
    pub(crate) span: Micros,
    pub(crate) cache_capacity: usize,
    pub(crate) cache_for: Micros,
    pub(crate) faults: Faults,
    pub(crate) crashes: usize,
    pub(crate) operators: Operators,
    /// Stripes or seats of one read are looked at one after the other, as a batch read does.
    pub(crate) torn_reads: bool,
    /// A request that the sender gave up on, or a second copy of one, may even be applied after a
    /// later try of it was definitely cancelled. Then "nothing was done" is only likely, all else must still hold.
    pub(crate) ghosts: bool,
    pub(crate) token_memory: Micros,
    /// How long before a question about units the read may have begun that answers it.
    pub(crate) read_staleness: Micros,
    /// Many ask about units, above all those who have just got some.
    pub(crate) curious: bool,
    /// More call at once than fit into a few transactions, and no request is malformed: queues
    /// are longer than some callers have time for.
    pub(crate) flood: bool,
}

/// The most that a process's clock is ahead, in milliseconds.
pub(crate) const AHEAD_MAX: u64 = 40;

impl Scenario {
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x5ce0_a210);
        let rng = &mut rng;
        let mut of_reads = SmallRng::seed_from_u64(seed ^ 0x0009_ead5);
        let flood = SmallRng::seed_from_u64(seed ^ 0xf100_0d00).random_range(0..20) == 0;
        let processes: Vec<usize> = match rng.random_range(0..10) {
            0..3 => vec![1],
            3..6 => vec![rng.random_range(2..=4)],
            6..9 => vec![rng.random_range(1..=3), rng.random_range(1..=3)],
            _ => vec![1, 2, 3],
        };
        let ahead = processes.iter();
        let ahead = ahead.map(|_| *pick(rng, &[0, 0, 7, AHEAD_MAX])).collect();
        let qty_max = *pick(rng, &[1, 3, 10]);
        let events = (0..rng.random_range(1..=3))
            .map(|n| (event(n), stock(rng)))
            .collect();
        let calm = rng.random_range(0..5) == 0;
        let faults = match rng.random_range(0..4) {
            _ if calm => Faults::default(),
            0 => Faults::evenly(10),
            1 => Faults::evenly(40),
            2 => Faults::evenly(90),
            _ => Faults::single(rng),
        };
        let crowd = rng.random_range(0..12) == 0;
        let late = match rng.random_range(0..4) {
            0 => LateCommit::Reject,
            _ => LateCommit::Reacquire,
        };
        Self {
            seed,
            processes,
            ahead,
            events,
            holds: crowd || rng.random_range(0..4) > 0,
            crowd,
            hold_for: Micros::from_millis(*pick(rng, &[1, 40, 300, 2_000, 60_000])),
            late,
            latch: Micros::from_millis(*pick(rng, &[0, 50, 50, 400])),
            reclaim_every: Micros::from_millis(*pick(rng, &[50, 500, 1_000])),
            reservations: match () {
                () if flood => 1_000,
                () if crowd => 250,
                () => *pick(rng, &[5, 20, 60, 150]),
            },
            calls: match () {
                () if flood => 2_000,
                () if crowd => 300,
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
            crashes: if calm || rng.random_range(0..3) > 0 {
                0
            } else {
                rng.random_range(1..=3)
            },
            operators: Operators::of(rng),
            torn_reads: rng.random(),
            ghosts: rng.random_range(0..6) == 0,
            token_memory: *pick(rng, &[TOKEN_MEMORY, TOKEN_MEMORY, Micros(0)]),
            read_staleness: Micros::from_millis(*pick(&mut of_reads, &[0, 5, 50, 50, 1_000])),
            curious: of_reads.random_range(0..3) > 0,
            flood,
        }
    }

    /// No fault of any kind: then no refusal may blame one.
    pub(crate) fn is_calm(&self) -> bool {
        let all = self.faults;
        let sum = all.lost_request + all.lost_answer + all.late_request + all.echo;
        let sum = sum + all.conflict + all.throttle + all.refused + all.action_fault;
        sum + all.read_fault + all.inbox_full == 0
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
    fn evenly(each: u32) -> Self {
        Self {
            lost_request: each,
            lost_answer: each,
            late_request: each,
            echo: each,
            conflict: each,
            throttle: each,
            refused: each / 4,
            action_fault: each,
            read_fault: each,
            inbox_full: each / 4,
        }
    }

    /// One kind only, and much of it.
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

/// The event number `n`; the one behind the last does not exist.
pub(crate) fn event(n: usize) -> EventId {
    format!("evt-{n}").parse().expect("legal")
}

fn stock(rng: &mut SmallRng) -> Stock {
    if rng.random_range(0..5) < 2 {
        return Stock::Seats {
            keys: *pick(rng, &[1, 4]),
            seats: seats(rng),
        };
    }
    let stripes = *pick(rng, &[1, 1, 2, 5, 9]);
    let most = *pick(rng, &[0, 3, 12, 60, 1_000]);
    Stock::Units((0..stripes).map(|_| rng.random_range(0..=most)).collect())
}

/// A row or a few, in two sections.
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
