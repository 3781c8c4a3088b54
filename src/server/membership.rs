//! How the processes of a store find each other: hands out the parts of membership to the shards, by the setting
//! MEMBERSHIP.

use std::net::SocketAddr;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

use crate::build_info;
use crate::config::{Config, MembershipMode};
use crate::shard::membership::{BeatConfig, ShardMembership};
use crate::telemetry::membership::{BeatReport, MemberReport, MembershipReport, MembershipSource};
use inventory_core::membership::{Announcement, Member, MemberEntry, Members, ProcessId};
use inventory_core::time::Micros;
use inventory_runtime::clock;

/// The part of each shard, and what the control plane reports.
pub(super) fn membership(
    config: &Config,
    grpc: SocketAddr,
) -> (Vec<ShardMembership>, watch::Receiver<MembershipReport>) {
    let shards = config.shard_cpus.len();
    let announcement = Announcement {
        shards: shards as u16,
        version: build_info::service_version(config),
        address: address(grpc),
        started_at: clock::now().unix,
        clock: None,
    };
    // A restarted process is a new member.
    let id = ProcessId(SmallRng::from_os_rng().random());
    let (source, members) = match config.membership {
        MembershipMode::Store => {
            (MembershipSource::Store, Members::single(Member { id, shards: shards as u16 }))
        }
        MembershipMode::Off => {
            (MembershipSource::Off, Members::single(Member { id, shards: shards as u16 }))
        }
        MembershipMode::Static { index, count } => {
            (MembershipSource::Static, Members::fixed(index, count, shards as u16))
        }
    };
    let (report_sender, report) = watch::channel(first_report(source, &members, &announcement));
    let (sender, receiver) = watch::channel(Arc::new(members));
    let mut beats = (source == MembershipSource::Store).then_some(BeatConfig {
        id,
        announcement,
        members: sender,
        report: report_sender,
    });
    let of_shard = |_| ShardMembership { members: receiver.clone(), beats: beats.take() };
    ((0..shards).map(of_shard).collect(), report)
}

/// What is known before the first beat.
fn first_report(
    source: MembershipSource,
    members: &Members,
    announcement: &Announcement,
) -> MembershipReport {
    let own = members.own().map(|own| own.id);
    let unknown = Announcement {
        shards: 0,
        version: String::new(),
        address: String::new(),
        started_at: Default::default(),
        ..announcement.clone()
    };
    let report = |member: &Member| {
        let is_own = Some(member.id) == own;
        MemberReport {
            entry: MemberEntry {
                id: member.id,
                beat: 0,
                interval: Micros(0),
                beat_at: Default::default(),
                announcement: if is_own { announcement.clone() } else { unknown.clone() },
            },
            is_own,
            is_alive: true,
            seen_at: None,
        }
    };
    let beats = BeatReport { succeeded_at: clock::monotonic(), ..BeatReport::default() };
    MembershipReport {
        source,
        members: members.all().iter().map(report).collect(),
        own_share: members.own_share(),
        beats: (source == MembershipSource::Store).then_some(beats),
    }
}

/// Name of the machine or pod, and the port for clients. Shown to operators only; nothing connects to this address.
fn address(grpc: SocketAddr) -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = match name.trim() {
        "" => "localhost",
        name => name,
    };
    format!("{name}:{}", grpc.port())
}
