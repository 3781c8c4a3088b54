//! `members`: lists the server processes of the store as the running server sees them.

use std::time::{SystemTime, UNIX_EPOCH};

use inventory_proto::inventory::v1 as pb;
use serde::Serialize;

use super::admin::AdminPort;
use super::args::AdminArgs;
use super::views::{or_dash, short_name, time};
use super::{CommandError, View, show};
use crate::output::{Align, TextTable};

#[derive(Debug, Serialize)]
struct MembersView {
    /// store, off or static.
    source: String,
    own_share: f64,
    unlisted: bool,
    unreadable_entries: i32,
    last_success_seconds: Option<f64>,
    members: Vec<MemberRow>,
}

#[derive(Debug, Serialize)]
struct MemberRow {
    process_id: String,
    /// self, alive or forgotten.
    state: String,
    shards: i32,
    version: String,
    address: String,
    started_at: Option<String>,
    uptime_seconds: Option<f64>,
    beat_at: Option<String>,
    beat_age_seconds: Option<f64>,
    clock_ahead_seconds: Option<f64>,
    clock_error_seconds: Option<f64>,
}

pub(super) fn run(args: &AdminArgs) -> Result<(), CommandError> {
    let port = AdminPort::find(&args.server)?;
    let answer = port.call("members", pb::ListMembersRequest {}, async |admin, request| {
        admin.list_members(request).await
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    show(&view(answer, now.as_millis() as i64), args.json)
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1e3
}

/// `now_ms`: the local clock, only to show how long a process that never beat has been up.
fn view(answer: pb::ListMembersResponse, now_ms: i64) -> MembersView {
    let word = |name: &str, prefix: &str| short_name(name, prefix).to_ascii_lowercase();
    MembersView {
        source: word(answer.source().as_str_name(), "MEMBERSHIP_SOURCE_"),
        own_share: answer.own_share,
        unlisted: answer.unlisted,
        unreadable_entries: answer.unreadable_entries,
        last_success_seconds: answer.last_success_ms.map(seconds),
        members: answer.members.into_iter().map(|member| row(member, now_ms)).collect(),
    }
}

fn row(member: pb::Member, now_ms: i64) -> MemberRow {
    let state = member.state().as_str_name();
    // Both times are of one clock, which may be wrong.
    let up_ms = match member.beat_at_ms {
        0 => now_ms - member.started_at_ms,
        at => at - member.started_at_ms + member.beat_age_ms.unwrap_or(0),
    };
    MemberRow {
        state: short_name(state, "MEMBER_STATE_").to_ascii_lowercase(),
        process_id: member.process_id,
        shards: member.shards,
        version: member.version,
        address: member.address,
        started_at: time(member.started_at_ms),
        uptime_seconds: (member.started_at_ms != 0).then(|| seconds(up_ms.max(0))),
        beat_at: time(member.beat_at_ms),
        beat_age_seconds: member.beat_age_ms.map(seconds),
        clock_ahead_seconds: member.clock_ahead_ms.map(seconds),
        clock_error_seconds: member.clock_error_ms.map(seconds),
    }
}

impl View for MembersView {
    fn text(&self) -> String {
        let mut table = TextTable::new(&[
            Align::Left,
            Align::Left,
            Align::Right,
            Align::Left,
            Align::Left,
            Align::Right,
            Align::Right,
            Align::Right,
        ]);
        table.row(["process", "state", "shards", "version", "address", "up", "last beat", "clock"]);
        for member in &self.members {
            let shards = match member.shards {
                0 => "-".to_owned(),
                shards => shards.to_string(),
            };
            let beat = member.beat_age_seconds.map(|age| format!("{age:.1} s"));
            let clock = member.clock_ahead_seconds.map(|ahead| format!("{ahead:+.2}"));
            table.row([
                member.process_id.as_str(),
                &member.state,
                &shards,
                or_dash(&member.version),
                or_dash(&member.address),
                &member.uptime_seconds.map_or_else(|| "-".to_owned(), uptime),
                &beat.unwrap_or_else(|| "-".to_owned()),
                &clock.unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        let mut text = table.to_string();
        let share = self.own_share * 100.0;
        text.push_str(&match self.source.as_str() {
            "off" => "\n\nMEMBERSHIP=off: the process takes itself to be alone".to_owned(),
            "static" => format!("\n\nMEMBERSHIP=static: share of this process {share:.0} %"),
            _ => format!("\n\nshare of this process {share:.0} %"),
        });
        if self.unlisted {
            text.push_str("\nthe membership item is full: other processes do not see this one");
        }
        if self.unreadable_entries > 0 {
            let entries = self.unreadable_entries;
            text.push_str(&format!("\nentries that cannot be read: {entries}"));
        }
        if let Some(age) = self.last_success_seconds.filter(|age| *age > LATE_SECONDS) {
            text.push_str(&format!("\nno successful beat for {age:.0} s: the list is that old"));
        }
        text
    }
}

/// Three beats of the longest interval.
const LATE_SECONDS: f64 = 36.0;

/// A time in its two largest units.
fn uptime(seconds: f64) -> String {
    super::top::span(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> pb::ListMembersResponse {
        let member = |id: u64, state: pb::MemberState| pb::Member {
            process_id: format!("{id:016x}"),
            state: state.into(),
            shards: 2,
            version: "0.1.0".to_owned(),
            address: "pod-a:8080".to_owned(),
            started_at_ms: 1_704_110_400_000,
            beat_at_ms: 1_704_110_460_000,
            beat_age_ms: Some(1_250),
            clock_ahead_ms: Some(-20),
            clock_error_ms: Some(80),
        };
        let unknown = pb::Member {
            process_id: format!("{:016x}", 3),
            state: pb::MemberState::Forgotten.into(),
            ..pb::Member::default()
        };
        pb::ListMembersResponse {
            source: pb::MembershipSource::Store.into(),
            members: vec![
                member(1, pb::MemberState::Self_),
                member(2, pb::MemberState::Alive),
                unknown,
            ],
            own_share: 0.5,
            last_success_ms: Some(1_250),
            ..pb::ListMembersResponse::default()
        }
    }

    #[test]
    fn processes_are_listed_with_what_is_known_of_them() {
        let text = view(answer(), 0).text();
        let expected = "\
process           state      shards  version  address            up  last beat  clock
0000000000000001  self            2  0.1.0    pod-a:8080  1 min 1 s      1.2 s  -0.02
0000000000000002  alive           2  0.1.0    pod-a:8080  1 min 1 s      1.2 s  -0.02
0000000000000003  forgotten       -  -        -                   -          -      -

share of this process 50 %";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = pb::ListMembersResponse {
            unlisted: true,
            unreadable_entries: 3,
            last_success_ms: Some(90_000),
            ..answer()
        };
        let text = view(wrong, 0).text();
        for needle in ["item is full", "cannot be read: 3", "no successful beat for 90 s"] {
            assert!(text.contains(needle), "{text}");
        }
        let alone = pb::ListMembersResponse {
            source: pb::MembershipSource::Off.into(),
            last_success_ms: None,
            ..answer()
        };
        assert!(view(alone, 0).text().contains("MEMBERSHIP=off"));
    }
}
