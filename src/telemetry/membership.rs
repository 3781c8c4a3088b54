//! The server processes of the store as this process sees them: for /metrics and for the admin service.
//!
//! Written by the shard that beats, read by the control plane. Not here: who is a member
//! (`inventory_core::membership`).

use std::time::Duration;

use prometheus::proto::{MetricFamily, MetricType};

use super::exposition::{counters_by, family, float_gauge, gauge};
use inventory_core::membership::{MemberEntry, ProcessId};
use inventory_core::time::Micros;

/// How the members are found: MEMBERSHIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipSource {
    /// Beats in the store.
    Store,
    /// Configured: the process takes itself to be alone.
    Off,
    /// Configured: process i of n.
    Static,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberReport {
    /// Of another configured process only the id is known.
    pub entry: MemberEntry,
    pub is_own: bool,
    /// False for a process that missed too many beats and whose entry is still in the store.
    pub is_alive: bool,
    /// When this process saw the latest beat, by its monotonic clock; `None` without beats.
    pub seen_at: Option<Micros>,
}

/// Beats of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BeatReport {
    /// When the latest beat succeeded or, before the first one, when the process started.
    pub succeeded_at: Micros,
    pub succeeded: u64,
    pub failed: u64,
    /// Whether the membership item is full, so that others do not see this process.
    pub is_unlisted: bool,
    /// Entries of the item that cannot be read.
    pub unreadable: usize,
    /// Largest difference between the clocks of this process and of another one that agrees with both measurements.
    pub clock_difference: Option<(ProcessId, Duration)>,
}

/// See the head of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct MembershipReport {
    pub source: MembershipSource,
    pub members: Vec<MemberReport>,
    /// Part of the stripes of an event that this process owns, above 0 and at most 1.
    pub own_share: f64,
    /// `None` if the members are configured.
    pub beats: Option<BeatReport>,
}

impl MembershipReport {
    /// Processes that count as members.
    pub fn count(&self) -> usize {
        self.members.iter().filter(|member| member.is_alive).count()
    }
}

pub(super) fn families(report: &MembershipReport, now: Micros) -> Vec<MetricFamily> {
    let mut families = vec![
        family(
            "inventory_members",
            "Server processes that sell from this store as this process sees them, itself included.",
            MetricType::GAUGE,
            [gauge(&[], report.count() as u64)],
        ),
        family(
            "inventory_member_share_ratio",
            "Part of the stripes of an event that this process owns as a hint, from 0 to 1.",
            MetricType::GAUGE,
            [float_gauge(&[], report.own_share)],
        ),
    ];
    if let Some(beats) = &report.beats {
        families.extend(beat_families(beats, now));
    }
    families
}

fn beat_families(beats: &BeatReport, now: Micros) -> Vec<MetricFamily> {
    let difference = beats.clock_difference.map_or(0.0, |(_, by)| by.as_secs_f64());
    vec![
        counters_by(
            "inventory_member_beats_total",
            "Updates of the membership item, by result.",
            "result",
            [("ok", beats.succeeded), ("failed", beats.failed)],
        ),
        family(
            "inventory_member_beat_age_seconds",
            "Time since the last successful update of the membership item, in seconds.",
            MetricType::GAUGE,
            [float_gauge(&[], now.since(beats.succeeded_at).0 as f64 / 1e6)],
        ),
        family(
            "inventory_member_unlisted",
            "Whether the membership item is full, so that other processes do not see this one: 1 or 0.",
            MetricType::GAUGE,
            [gauge(&[], u64::from(beats.is_unlisted))],
        ),
        family(
            "inventory_member_entries_unreadable",
            "Entries of the membership item that cannot be read.",
            MetricType::GAUGE,
            [gauge(&[], beats.unreadable as u64)],
        ),
        family(
            "inventory_member_clock_difference_seconds",
            "Largest certain difference between the clocks of this process and of another member, in seconds; 0 without another one.",
            MetricType::GAUGE,
            [float_gauge(&[], difference)],
        ),
    ]
}
