//! The check of the membership item: the server processes of the store, and whether their clocks agree.

use super::{CheckResult, PreflightCheck};
use crate::limits::CLOCK_SKEW_MAX;
use crate::shard::membership::clock_offset;
use inventory_core::membership::{ClockOffset, MembersRead};
use inventory_store::{ClockSkew, StoreError};

/// `own`: the clock of this machine.
pub(super) fn check(
    read: Result<MembersRead, StoreError>,
    own: Option<ClockSkew>,
) -> PreflightCheck {
    let note = |finding: String, fix: &str| PreflightCheck {
        name: "members",
        verdict: CheckResult::Note,
        finding,
        fixes: vec![fix.to_owned()],
    };
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            return note(
                format!("the membership item cannot be read: {error}"),
                "allow GetItem and UpdateItem on the inventory table, or set MEMBERSHIP",
            );
        }
    };
    if let Some((one, other, ms)) = largest_difference(&read, own.map(clock_offset)) {
        let seconds = ms as f64 / 1e3;
        return note(
            format!("the clocks of {one} and {other} differ by at least {seconds:.2} s"),
            "synchronise the clocks: chrony, systemd-timesyncd or NTP",
        );
    }
    if !read.unreadable.is_empty() {
        return note(
            format!("{} entries of the membership item cannot be read", read.unreadable.len()),
            "a server removes them after a minute; find out what wrote them",
        );
    }
    let finding = match read.entries.len() {
        0 => "no server process is listed".to_owned(),
        1 => "1 server process is listed".to_owned(),
        many => format!("{many} server processes are listed"),
    };
    PreflightCheck::ok("members", finding)
}

/// The pair of clocks with the largest certain difference, if that is over [`CLOCK_SKEW_MAX`].
fn largest_difference(
    read: &MembersRead,
    own: Option<ClockOffset>,
) -> Option<(String, String, u64)> {
    let entries = read.entries.iter();
    let of_entries = entries
        .filter_map(|entry| Some((format!("process {}", entry.id), entry.announcement.clock?)));
    let own = own.map(|clock| ("this machine".to_owned(), clock));
    let clocks: Vec<(String, ClockOffset)> = own.into_iter().chain(of_entries).collect();
    let pairs = clocks.iter().enumerate().flat_map(|(at, (one, clock))| {
        let others = clocks[at + 1..].iter();
        others.map(move |(other, theirs)| (one, other, clock.least_difference_ms(*theirs)))
    });
    let (one, other, ms) = pairs.max_by_key(|(.., ms)| *ms)?;
    let is_large = u128::from(ms) > CLOCK_SKEW_MAX.as_millis();
    is_large.then(|| (one.clone(), other.clone(), ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use inventory_core::membership::{Announcement, MemberEntry, ProcessId};
    use inventory_core::time::{Micros, UnixMillis};

    fn read(clocks: &[Option<i64>]) -> MembersRead {
        let entry = |(id, ahead_ms): (usize, &Option<i64>)| MemberEntry {
            id: ProcessId(id as u64),
            beat: 1,
            interval: Micros(0),
            beat_at: UnixMillis(0),
            announcement: Announcement {
                shards: 1,
                version: String::new(),
                address: String::new(),
                started_at: UnixMillis(0),
                clock: ahead_ms.map(|ahead_ms| ClockOffset { ahead_ms, error_ms: 100 }),
            },
        };
        let entries = clocks.iter().enumerate().map(entry).collect();
        MembersRead { entries, unreadable: Vec::new() }
    }

    fn finding(read: MembersRead, own: Option<f64>) -> (CheckResult, String) {
        let own = own.map(|ahead| ClockSkew { ahead, error: 0.5 });
        let check = check(Ok(read), own);
        (check.verdict, check.finding)
    }

    #[test]
    fn clocks_that_certainly_differ_are_a_note_that_names_both() {
        assert_eq!(finding(read(&[]), Some(0.0)).0, CheckResult::Ok);
        assert_eq!(finding(read(&[Some(0), None, Some(900)]), Some(0.4)).0, CheckResult::Ok);
        let (verdict, text) = finding(read(&[Some(-700), None, Some(700)]), Some(0.0));
        assert_eq!(verdict, CheckResult::Note);
        for needle in ["process 0000000000000000", "process 0000000000000002", "1.20 s"] {
            assert!(text.contains(needle), "{text}");
        }
        let (_, text) = finding(read(&[Some(0)]), Some(9.0));
        assert!(text.contains("this machine") && text.contains("8.40 s"), "{text}");
    }

    #[test]
    fn an_item_that_cannot_be_read_is_a_note() {
        let refused = check(Err(StoreError::Refused("no".to_owned())), None);
        assert_eq!((refused.verdict, refused.fixes.len()), (CheckResult::Note, 1));
        let damaged = MembersRead { unreadable: vec!["x".to_owned()], ..read(&[Some(0)]) };
        assert_eq!(finding(damaged, None).0, CheckResult::Note);
    }
}
