//! How often each member reads a part of the index.
//!
//! Every process reads every part, so that each hold is found even if the members are wrong. For each part the members
//! have an order: the first one reads at the shortest interval, the second one at twice that interval, the others
//! rarely. A process that is not the first leaves holds to those before it until they have been overdue for some time,
//! so that two processes rarely expire the same hold.

use super::IndexRead;
use crate::fault::{self, Fault};
use crate::limits;
use crate::membership::Members;
use crate::rendezvous::{mixed, rank};
use crate::time::Micros;

/// The position of this process for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReadTurn {
    First,
    /// Takes over within seconds if the first does not read.
    Second,
    /// Takes over within a minute if neither does.
    Later,
}

impl ReadTurn {
    pub(super) fn of(read: IndexRead, members: &Members) -> Self {
        let key = match read {
            // A part has one reader, whatever the minute.
            IndexRead::Bucket(bucket) => u64::from(bucket.part),
            IndexRead::Segment(segment) => u64::from(segment) | 1 << 32,
        };
        match rank(members, mixed(key)) {
            0 => Self::First,
            1 => Self::Second,
            _ => Self::Later,
        }
    }

    /// Interval of the reads, given that of the first in line.
    pub(super) fn interval(self, every: Micros) -> Micros {
        Micros(every.0.saturating_mul(match self {
            Self::First => 1,
            Self::Second => limits::RECLAIM_SECOND_INTERVALS,
            Self::Later => limits::RECLAIM_LATER_INTERVALS,
        }))
    }

    /// How long holds must be overdue to be expired by this process.
    pub(super) fn overdue_min(self, every: Micros) -> Micros {
        Micros(every.0.saturating_mul(match self {
            Self::First => 0,
            Self::Second => limits::RECLAIM_SECOND_INTERVALS,
            Self::Later => limits::RECLAIM_LATER_OVERDUE_INTERVALS,
        }))
    }

    /// Whether this process reads at all.
    pub(super) fn reads(self) -> bool {
        self == Self::First || !fault::planted(Fault::OnlyFirstReads)
    }
}
