//! Which faults a round has, when, and to whom: drawn from its seed alone.
//!
//! A round is a sequence of slots. A slot has one fault of the store, one of a process, or both at the same time, and
//! ends when all processes are back to normal. A full round has each fault that its store allows at least once, and
//! faults that only one of the two stores allows twice, because rounds alternate between the stores.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::server::SERVERS;

/// Kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ChaosFault {
    Kill,
    Freeze,
    Drain,
    Descriptors,
    Memory,
    ClockStep,
    StoreOutage,
    ConnectionsCut,
    AnswersSwallowed,
    AnswersSlow,
    AnswersTruncated,
    StoreRestart,
    DiskFull,
    DiskReadOnly,
    Throttling,
    Conflicts,
    StoreErrors,
}

impl ChaosFault {
    pub(crate) const ALL: [Self; 17] = [
        Self::Kill,
        Self::Freeze,
        Self::Drain,
        Self::Descriptors,
        Self::Memory,
        Self::ClockStep,
        Self::StoreOutage,
        Self::ConnectionsCut,
        Self::AnswersSwallowed,
        Self::AnswersSlow,
        Self::AnswersTruncated,
        Self::StoreRestart,
        Self::DiskFull,
        Self::DiskReadOnly,
        Self::Throttling,
        Self::Conflicts,
        Self::StoreErrors,
    ];

    const OF_PROCESS: [Self; 6] =
        [Self::Kill, Self::Freeze, Self::Drain, Self::Descriptors, Self::Memory, Self::ClockStep];

    /// Between the servers and any store; the outage has a slot of its own.
    const OF_CONNECTIONS: [Self; 4] =
        [Self::ConnectionsCut, Self::AnswersSwallowed, Self::AnswersSlow, Self::AnswersTruncated];

    const OF_DISK: [Self; 3] = [Self::StoreRestart, Self::DiskFull, Self::DiskReadOnly];

    const OF_MODEL: [Self; 3] = [Self::Throttling, Self::Conflicts, Self::StoreErrors];

    /// What the fault does, for the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of a server, restart",
            Self::Freeze => "SIGSTOP and SIGCONT of a server",
            Self::Drain => "SIGTERM under load, restart",
            Self::Descriptors => "no free descriptors",
            Self::Memory => "memory limit reached",
            Self::ClockStep => "wall clock steps and steps back",
            Self::StoreOutage => "store outage",
            Self::ConnectionsCut => "connections cut",
            Self::AnswersSwallowed => "answers swallowed",
            Self::AnswersSlow => "answers slow",
            Self::AnswersTruncated => "answers truncated",
            Self::StoreRestart => "kill -9 of the store, restart",
            Self::DiskFull => "disk full",
            Self::DiskReadOnly => "disk refuses writes",
            Self::Throttling => "throttling",
            Self::Conflicts => "transaction conflicts",
            Self::StoreErrors => "store answers 500",
        }
    }
}

/// One fault of a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedFault {
    pub(crate) kind: ChaosFault,
    /// The process, for a fault of one; for a fault of connections `None` hits those of all processes.
    pub(crate) server: Option<usize>,
    /// From the start of the slot.
    pub(crate) after: Duration,
    pub(crate) lasts: Duration,
    /// For what else the fault varies.
    pub(crate) draw: u64,
}

/// The faults of a slot.
pub(crate) type ChaosSlot = Vec<PlannedFault>;

/// What a round has to choose from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundShape {
    pub(crate) has_disk: bool,
    pub(crate) is_full: bool,
    pub(crate) outage: Duration,
}

/// The slots of the round with this seed.
pub(crate) fn slots(seed: u64, shape: RoundShape) -> Vec<ChaosSlot> {
    let mut draws = SmallRng::seed_from_u64(seed);
    let own = if shape.has_disk { ChaosFault::OF_DISK } else { ChaosFault::OF_MODEL };
    let mut of_store = [&ChaosFault::OF_CONNECTIONS[..], &own, &own].concat();
    let mut of_process = ChaosFault::OF_PROCESS.to_vec();
    of_store.shuffle(&mut draws);
    of_process.shuffle(&mut draws);
    if !shape.is_full {
        // `cargo test`: a few of them, others for each seed.
        of_store.truncate(3);
        of_process.truncate(2);
    }
    let mut slots: Vec<ChaosSlot> = Vec::new();
    for kind in of_store {
        slots.push(vec![planned(kind, &mut draws)]);
    }
    // Half of the faults of processes meet a fault of the store, the others are alone.
    let (together, alone) = of_process.split_at(of_process.len() / 2);
    for (slot, kind) in slots.iter_mut().zip(together) {
        slot.push(planned(*kind, &mut draws));
    }
    slots.extend(alone.iter().map(|kind| vec![planned(*kind, &mut draws)]));
    let outage = planned(ChaosFault::StoreOutage, &mut draws);
    // A process that is killed or frozen during the outage.
    let during = [ChaosFault::Kill, ChaosFault::Freeze][draws.random_range(0..2)];
    slots.push(vec![
        PlannedFault { lasts: shape.outage, ..outage },
        PlannedFault { after: shape.outage / 2, ..planned(during, &mut draws) },
    ]);
    slots.shuffle(&mut draws);
    slots
}

fn planned(kind: ChaosFault, draws: &mut SmallRng) -> PlannedFault {
    let server = draws.random_range(0..SERVERS);
    let is_of_process = ChaosFault::OF_PROCESS.contains(&kind);
    let one_process = is_of_process || draws.random_bool(0.3);
    let millis = match kind {
        // How long the process, or the store, is away.
        ChaosFault::Kill | ChaosFault::Drain | ChaosFault::StoreRestart => 0..1_000,
        ChaosFault::Freeze => 1_000..3_500,
        _ => 800..2_000,
    };
    PlannedFault {
        kind,
        server: one_process.then_some(server),
        after: Duration::from_millis(draws.random_range(0..500)),
        lasts: Duration::from_millis(draws.random_range(millis)),
        draw: draws.random(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Twenty rounds hit each kind at least twenty times.
    #[test]
    fn full_rounds_hit_each_fault_once_per_round() {
        let mut hits = BTreeMap::new();
        for seed in 0..20 {
            let outage = Duration::from_secs(65);
            let shape = RoundShape { has_disk: seed % 2 == 0, is_full: true, outage };
            for fault in slots(seed, shape).into_iter().flatten() {
                *hits.entry(fault.kind).or_insert(0) += 1;
            }
        }
        for kind in ChaosFault::ALL {
            assert!(hits[&kind] >= 20, "{kind:?}: {hits:?}");
        }
    }

    #[test]
    fn schedule_follows_from_the_seed_alone() {
        let outage = Duration::from_secs(1);
        let shape = RoundShape { has_disk: true, is_full: true, outage };
        let draw = |seed| format!("{:?}", slots(seed, shape));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(9));
    }
}
