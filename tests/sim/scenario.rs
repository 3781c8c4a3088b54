//! What one seed means. Everything a run does follows from its seed alone.

use inventory_api::domain::ids::EventId;
use inventory_api::domain::time::Micros;
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

/// See the module's head.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// Shards of each process on the one store.
    pub(crate) processes: Vec<usize>,
    /// Capacity of each stripe of each event.
    pub(crate) events: Vec<(EventId, Vec<u64>)>,
    pub(crate) reservations: usize,
    pub(crate) calls: usize,
    pub(crate) qty_max: u32,
    /// All first calls arrive within this.
    pub(crate) span: Micros,
    pub(crate) cache_capacity: usize,
    pub(crate) cache_for: Micros,
    pub(crate) faults: Faults,
    pub(crate) crashes: usize,
    /// Times an operator adds stock during the sale.
    pub(crate) restocks: usize,
    /// Stripes of one read are looked at one after the other, as a batch read does. Without
    /// restocks only: with them such a read proves nothing about any one instant.
    pub(crate) torn_reads: bool,
    /// A request that the sender gave up on, or a second copy of one, may even be applied after a
    /// later try of it was definitely cancelled. Then "nothing was done" is only likely, all else must still hold.
    pub(crate) ghosts: bool,
    pub(crate) token_memory: Micros,
}

impl Scenario {
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x5ce0_a210);
        let rng = &mut rng;
        let processes = match rng.random_range(0..10) {
            0..3 => vec![1],
            3..6 => vec![rng.random_range(2..=4)],
            6..9 => vec![rng.random_range(1..=3), rng.random_range(1..=3)],
            _ => vec![1, 2, 3],
        };
        let qty_max = *pick(rng, &[1, 3, 10]);
        let events = (0..rng.random_range(1..=2))
            .map(|n| (event(n), capacities(rng)))
            .collect();
        let calm = rng.random_range(0..5) == 0;
        let faults = match rng.random_range(0..4) {
            _ if calm => Faults::default(),
            0 => Faults::evenly(10),
            1 => Faults::evenly(40),
            2 => Faults::evenly(90),
            _ => Faults::single(rng),
        };
        let restocks = if rng.random_range(0..3) == 0 {
            rng.random_range(1..=6)
        } else {
            0
        };
        Self {
            seed,
            processes,
            events,
            reservations: *pick(rng, &[5, 20, 60, 150]),
            calls: *pick(rng, &[20, 60, 150, 300]),
            qty_max,
            span: Micros::from_millis(*pick(rng, &[1, 30, 200, 2_000])),
            cache_capacity: *pick(rng, &[0, 2, 1_000]),
            cache_for: Micros::from_millis(*pick(rng, &[50, 300_000])),
            faults,
            crashes: if calm || rng.random_range(0..3) > 0 {
                0
            } else {
                rng.random_range(1..=3)
            },
            restocks,
            torn_reads: restocks == 0 && rng.random(),
            ghosts: rng.random_range(0..6) == 0,
            token_memory: *pick(rng, &[TOKEN_MEMORY, TOKEN_MEMORY, Micros(0)]),
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

fn capacities(rng: &mut SmallRng) -> Vec<u64> {
    let stripes = *pick(rng, &[1, 1, 2, 5]);
    let most = *pick(rng, &[0, 3, 12, 60, 1_000]);
    (0..stripes).map(|_| rng.random_range(0..=most)).collect()
}

pub(crate) fn pick<'a, T>(rng: &mut SmallRng, from: &'a [T]) -> &'a T {
    &from[rng.random_range(0..from.len())]
}
